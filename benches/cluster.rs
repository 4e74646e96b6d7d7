//! What a cluster of processes shows when nodes come and go.
//!
//! `WINDROW_TEST_DATA=… cargo bench --bench cluster`
//!
//! Three nodes of the release binary with a lease of 2 s, real etcd, a shared
//! folder, all on this machine; a part's name as an argument runs that part
//! alone: `takeover`, `drain`, `cut`, `shards`.

mod support;

use std::time::{Duration, Instant, SystemTime};

use client::{Client, IndexRequest, SearchRequest};
use futures::future::join_all;
use model::ids::shard_of;
use testkit::processes::{Cluster, Plan, eventually};

const INDEX: &str = "bench";
const ROUNDS: usize = 20;
const CUTS: usize = 100;
const SHARDS: u32 = 4;

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runs = |part: &str| wanted.is_empty() || wanted.iter().any(|name| name == part);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        if runs("takeover") {
            pauses("write pause when an owner is killed", true).await;
        }
        if runs("drain") {
            pauses("write pause when an owner drains", false).await;
        }
        if runs("cut") {
            cuts().await;
        }
        if runs("shards") {
            shards().await;
        }
    });
}

async fn cluster(nodes: usize, shards: u32, copies: u32) -> Option<Cluster> {
    let plan = Plan::of(env!("CARGO_BIN_EXE_windrow"), nodes);
    let cluster = Cluster::start(&plan).await.expect("the cluster starts")?;
    let schema = serde_json::from_str(r#"{"fields": {"title": {"type": "text"}, "body": {"type": "text"}}}"#);
    let request = IndexRequest {
        shards: Some(shards),
        copies: Some(copies),
        schema: Some(schema.expect("a schema")),
        refresh_interval: Some(Duration::from_millis(500)),
        ..IndexRequest::default()
    };
    cluster.nodes[0].client.create_index(INDEX, &request).await.expect("the index is new");
    cluster.whole(0, copies as usize).await.expect("the cluster is whole");
    Some(cluster)
}

fn print(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    println!(
        "{what}: median {:.0} ms, p90 {:.0} ms, p99 {:.0} ms, max {:.0} ms of {}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0),
        times.len()
    );
}

/// The node that owns shard 0, and a client of another one.
async fn owner(cluster: &Cluster) -> (usize, Client) {
    let seen = cluster.nodes[0].client.cluster().await.expect("the cluster answers");
    let owner = seen.indexes[0].shards[0].owner.clone().expect("the shard is owned");
    let at = cluster.nodes.iter().position(|node| node.id == owner).expect("the owner is ours");
    (at, cluster.nodes[(at + 1) % cluster.nodes.len()].client.clone())
}

/// How long one document for shard 0 waits, from the fault on.
async fn pauses(what: &str, kill: bool) {
    let Some(mut cluster) = cluster(3, SHARDS, 2).await else { return };
    let id = (0..).map(|n| format!("d{n}")).find(|id| shard_of(id, SHARDS).0 == 0).expect("an id");
    let body = bytes::Bytes::from(format!("{{\"id\":\"{id}\",\"body\":\"hay\"}}\n"));
    let mut pauses = Vec::new();
    for _ in 0..ROUNDS {
        let (victim, client) = owner(&cluster).await;
        let insist = async |client: &Client| loop {
            if client.documents(INDEX, body.clone(), false).await.is_ok_and(|written| written.accepted == 1) {
                return;
            }
        };
        insist(&client).await;
        let mut longest = Duration::ZERO;
        if kill {
            let begun = Instant::now();
            cluster.nodes[victim].kill();
            insist(&client).await;
            longest = begun.elapsed();
        } else {
            let leaving = cluster.nodes[victim].leave();
            let writing = async {
                loop {
                    let begun = Instant::now();
                    insist(&client).await;
                    longest = longest.max(begun.elapsed());
                }
            };
            tokio::select! {
                left = leaving => assert!(left.expect("it leaves").success(), "a drain ends well"),
                () = writing => {}
            }
        }
        pauses.push(longest.as_secs_f64() * 1e3);
        cluster.nodes[victim].start().expect("it starts again");
        cluster.joined(3).await.expect("it is back");
        cluster.whole((victim + 1) % 3, 2).await.expect("the cluster is whole");
    }
    print(what, pauses);
}

/// From the last manifest's put to the answers of every node at the new cut.
async fn cuts() {
    let Some(cluster) = cluster(3, SHARDS, 2).await else { return };
    let folder = cluster.folder().join("store");
    let mut times = Vec::new();
    for round in 0..CUTS {
        let body: String =
            (0..40).map(|n| format!("{{\"id\":\"r{round}-{n}\",\"body\":\"hay in a row\"}}\n")).collect();
        let written =
            cluster.nodes[round % 3].client.documents(INDEX, body.into(), false).await.expect("it is taken");
        let token = written.token.expect("a token");
        let request = SearchRequest::new("hay").token(token);
        let answers = cluster.nodes.iter().map(|node| async {
            node.client.search(INDEX, &request).await.expect("it is answered");
            SystemTime::now()
        });
        let last = join_all(answers).await.into_iter().max().expect("nodes");
        let committed = newest_manifest(&folder);
        times.push(last.duration_since(committed).unwrap_or_default().as_secs_f64() * 1e3);
    }
    print("from commit to every replica serving the new cut", times);
}

/// When the newest manifest was put.
fn newest_manifest(store: &std::path::Path) -> SystemTime {
    let mut newest = SystemTime::UNIX_EPOCH;
    let mut folders = vec![store.join("indexes")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.parent().is_some_and(|parent| parent.ends_with("manifests"))
                && let Ok(put) = entry.metadata().and_then(|meta| meta.modified())
            {
                newest = newest.max(put);
            }
        }
    }
    newest
}

/// 200 shards on one leaf: how long they take to open again, and what they take.
async fn shards() {
    let Some(data) = support::data() else { return };
    let Some(mut cluster) = cluster(1, 200, 1).await else { return };
    let corpus = support::corpus(&data.join("wiki-passages.ndjson.zst"));
    let client = cluster.nodes[0].client.clone();
    let resident = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_owned();
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1_024
    };
    println!("200 empty shards: {} MB resident", resident(cluster.nodes[0].pid().expect("it runs")));
    for batch in corpus.chunks(2_000) {
        let mut body = Vec::new();
        for (_, line) in batch {
            body.extend_from_slice(line);
            body.push(b'\n');
        }
        let written = client.documents(INDEX, body.into(), false).await.expect("it is taken");
        assert_eq!(written.rejected, 0, "{:?}", written.failures.first());
    }
    println!(
        "200 shards that own and were loaded with {} documents: {} MB resident",
        corpus.len(),
        resident(cluster.nodes[0].pid().expect("it runs"))
    );
    assert!(cluster.nodes[0].leave().await.expect("it leaves").success());
    let begun = Instant::now();
    cluster.nodes[0].start().expect("it starts again");
    eventually("every shard answers", async || {
        let found = client.search(INDEX, &SearchRequest::new("*").limit(0_usize).count("exact")).await;
        found.is_ok_and(|found| found.total.is_some_and(|total| total.value == corpus.len() as u64))
    })
    .await
    .expect("it opens");
    println!("opened again, and searched: {:.2} s", begun.elapsed().as_secs_f64());
    cluster.whole(0, 1).await.expect("it is whole");
    println!(
        "and owned: {:.2} s, {} MB resident",
        begun.elapsed().as_secs_f64(),
        resident(cluster.nodes[0].pid().expect("it runs"))
    );
}
