//! A leaf that dies or stands still, and a client that goes away: what the
//! others notice of it. Real processes over real etcd.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use client::IndexRequest;
use model::ids::shard_of;
use serde_json::{Value, json};
use testkit::processes::{Cluster, Node, Plan, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const INDEX: &str = "papers";
const DOCUMENTS: u32 = 400;

/// A root, and leaves with an index of these shards and copies.
async fn cluster(leaves: usize, shards: u32, copies: u32, arguments: &[&str]) -> Option<Cluster> {
    let mut plan = Plan::of(env!("CARGO_BIN_EXE_windrow"), leaves + 1);
    // A link would accept what a dead node refuses.
    plan.direct = true;
    plan.roles = std::iter::once("root").chain(std::iter::repeat_n("leaf", leaves)).collect();
    plan.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    let cluster = Cluster::start(&plan).await.unwrap()?;
    let client = &cluster.nodes[0].client;
    let schema = serde_json::from_str(r#"{"fields": {"body": {"type": "text"}}}"#).unwrap();
    let request = IndexRequest {
        shards: Some(shards),
        copies: Some(copies),
        schema: Some(schema),
        refresh_interval: Some(Duration::from_millis(200)),
        ..IndexRequest::default()
    };
    client.create_index(INDEX, &request).await.unwrap();
    let lines: String =
        (0..DOCUMENTS).map(|n| format!("{{\"id\":\"d{n}\",\"body\":\"hay in a row\"}}\n")).collect();
    eventually("documents are in", async || {
        let written = client.documents(INDEX, lines.clone().into(), true).await;
        written.is_ok_and(|written| written.searchable == Some(true) && written.failures.is_empty())
    })
    .await
    .unwrap();
    // At first all may be on the leaf that joined first; then they move.
    eventually("shards are where they stay", async || {
        let mut holding = 0;
        for leaf in 1..=leaves {
            holding += usize::from(!held(&cluster, leaf).await.is_empty());
        }
        if holding * 2 <= leaves && leaves > 1 {
            return false;
        }
        let seen = cluster.nodes[0].client.cluster().await.unwrap();
        seen.indexes[0].shards.iter().all(|shard| shard.replicas.len() == copies as usize)
    })
    .await
    .unwrap();
    cluster.whole(0, copies as usize).await.unwrap();
    Some(cluster)
}

fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Searches for everything; the status, and what was answered.
async fn search(http: &reqwest::Client, root: &Node, more: Value) -> (u16, Value) {
    let mut body = json!({"query": "hay", "count": "exact", "fields": [], "limit": 1000});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let url = format!("{}/v1/indexes/{INDEX}/search", root.client.url());
    let answer = http.post(url).body(body.to_string()).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// The shards that a leaf serves.
async fn held(cluster: &Cluster, leaf: usize) -> BTreeSet<u32> {
    let seen = cluster.nodes[0].client.cluster().await.unwrap();
    let shards = seen.indexes[0].shards.iter();
    let held = shards.filter(|shard| shard.replicas.iter().any(|it| it.node == cluster.nodes[leaf].id));
    held.map(|shard| shard.shard).collect()
}

/// The shards that an answer says it lacks.
fn missing(answer: &Value) -> BTreeSet<u32> {
    let missing = answer["coverage"]["missing"].as_array().unwrap().iter();
    missing.map(|it| u32::try_from(it["shard"].as_u64().unwrap()).unwrap()).collect()
}

/// The leaf that has least, but something, and what that is.
async fn least(cluster: &Cluster) -> (BTreeSet<u32>, usize) {
    let mut leaves = Vec::new();
    for leaf in 1..cluster.nodes.len() {
        leaves.push((held(cluster, leaf).await, leaf));
    }
    leaves.retain(|(shards, _)| !shards.is_empty());
    leaves.into_iter().min_by_key(|(shards, _)| shards.len()).unwrap()
}

/// Checks that an answer is that of all shards but `lost`, which it names.
fn check(answer: &Value, shards: u32, lost: &BTreeSet<u32>, reasons: &[&str]) {
    let coverage = &answer["coverage"];
    assert_eq!(missing(answer), *lost, "{coverage}");
    let missing = coverage["missing"].as_array().unwrap();
    assert!(missing.iter().all(|it| reasons.contains(&it["reason"].as_str().unwrap())), "{coverage}");
    assert_eq!(coverage["answered"], json!(shards as usize - lost.len()), "{coverage}");
    let ids = (0..DOCUMENTS).map(|n| format!("d{n}"));
    let covered: BTreeSet<String> = ids.filter(|id| !lost.contains(&shard_of(id, shards).0)).collect();
    let share = covered.len() as f64 / f64::from(DOCUMENTS);
    assert!(share < 1.0 || lost.is_empty(), "the lost shards hold something");
    assert_eq!(coverage["documents"].as_f64(), Some(share), "{coverage}");
    assert_eq!(answer["total"], json!({"value": covered.len(), "relation": "eq"}));
    let hits = answer["hits"].as_array().unwrap().iter();
    let found: BTreeSet<String> = hits.map(|hit| hit["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(found, covered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_leaf_fails_what_needs_it_and_is_named_where_it_can_be_done_without() {
    let Some(mut cluster) = cluster(10, 10, 1, &[]).await else { return };
    let http = http();
    let (status, answer) = search(&http, &cluster.nodes[0], json!({})).await;
    assert_eq!(status, 200, "{answer}");
    check(&answer, 10, &BTreeSet::new(), &[]);
    let (lost, victim) = least(&cluster).await;
    let healthy = slowest(&http, &cluster.nodes[0], json!({})).await;

    cluster.nodes[victim].kill();
    for lease in ["lasts", "has ended"] {
        if lease == "has ended" {
            cluster.joined(10).await.unwrap();
        }
        for _ in 0..5 {
            let begun = Instant::now();
            let (status, problem) = search(&http, &cluster.nodes[0], json!({"timeout": "60s"})).await;
            assert_eq!(status, 503, "the lease {lease}: {problem}");
            // Nobody waits for what is not there.
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
            let detail = problem["detail"].as_str().unwrap();
            println!("the lease {lease}: {detail}");
            let first = lost.first().unwrap();
            assert!(detail.starts_with(&format!("no answer of shard {first}")), "{detail}");
            assert!(detail.contains(&cluster.nodes[victim].id), "{detail}");
            let some = json!({"min_coverage": 0.8, "timeout": "60s"});
            let (status, answer) = search(&http, &cluster.nodes[0], some).await;
            assert_eq!(status, 200, "the lease {lease}: {answer}");
            check(&answer, 10, &lost, &["dead"]);
        }
        let much = json!({"min_coverage": 0.999});
        let (status, problem) = search(&http, &cluster.nodes[0], much).await;
        assert_eq!(status, 503, "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(lost.iter().all(|shard| detail.contains(&format!("shard {shard} is dead"))), "{detail}");
        println!("the lease {lease}: {detail}");
        let partial = slowest(&http, &cluster.nodes[0], json!({"min_coverage": 0.8})).await;
        println!("the lease {lease}: p99 of {partial:?}, {healthy:?} when all was well");
    }
}

/// The 99th percentile of some hundred searches, one at a time: to be printed.
async fn slowest(http: &reqwest::Client, root: &Node, more: Value) -> Duration {
    let mut took = Vec::new();
    for _ in 0..400 {
        let begun = Instant::now();
        let (status, answer) = search(http, root, more.clone()).await;
        took.push(begun.elapsed());
        assert_eq!(status, 200, "{answer}");
    }
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_stands_still_is_left_out_where_it_can_be_done_without() {
    let Some(cluster) = cluster(3, 6, 1, &[]).await else { return };
    let http = http();
    // So that the root knows what is usual.
    for _ in 0..20 {
        let (status, answer) = search(&http, &cluster.nodes[0], json!({})).await;
        assert_eq!(status, 200, "{answer}");
    }
    let (lost, victim) = least(&cluster).await;
    cluster.nodes[victim].signal("STOP").unwrap();
    for _ in 0..20 {
        // Whoever waited for the leaf would wait for ever.
        let some = json!({"min_coverage": 0.1, "timeout": "300s"});
        let (status, answer) = search(&http, &cluster.nodes[0], some).await;
        assert_eq!(status, 200, "{answer}");
        // With so little wanted, a good leaf may be left behind as well.
        let named = missing(&answer);
        assert!(named.is_superset(&lost), "{:?}", answer["coverage"]);
        check(&answer, 6, &named, &["slow", "dead"]);
    }
    for lease in ["lasts", "has ended"] {
        if lease == "has ended" {
            eventually("the lease ends", async || {
                cluster.nodes[0].client.cluster().await.unwrap().nodes.len() == 3
            })
            .await
            .unwrap();
        }
        let begun = Instant::now();
        let (status, problem) = search(&http, &cluster.nodes[0], json!({"timeout": "3s"})).await;
        assert!([503, 504].contains(&status), "{problem}");
        println!("the lease {lease}: {status} after {:?}: {}", begun.elapsed(), problem["detail"]);
        // With little time, too, the root says who is missing, not the edge that nobody answered.
        let (status, problem) = search(&http, &cluster.nodes[0], json!({"timeout": "200ms"})).await;
        assert!([503, 504].contains(&status), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("shard"), "the lease {lease}: {problem}");
    }
    cluster.nodes[victim].signal("CONT").unwrap();
    eventually("the leaf is back", async || {
        let (status, answer) = search(&http, &cluster.nodes[0], json!({"min_coverage": 0.1})).await;
        assert_eq!(status, 200, "{answer}");
        answer["coverage"]["missing"] == json!([])
    })
    .await
    .unwrap();
}

/// A counter or gauge of a node's searching threads.
async fn pool(http: &reqwest::Client, leaf: &Node, name: &str) -> u64 {
    let metrics = http.get(format!("http://{}/metrics", leaf.address)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let name = format!("windrow_pool_{name}{{pool=\"leaf\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_stops_working_for_a_client_that_has_gone_away() {
    let Some(cluster) = cluster(1, 1, 1, &["--allow-faults"]).await else { return };
    let (root, leaf, http) = (&cluster.nodes[0], &cluster.nodes[1], http());
    // A search takes longer than this test may.
    let slow = json!({"disk": {"probability": 1.0, "length": {"constant": "60000ms"}}});
    let faults = format!("http://{}/debug/faults", leaf.address);
    let put = http.put(faults).body(slow.to_string()).send().await.unwrap();
    assert_eq!(put.status().as_u16(), 200);
    let threads = std::thread::available_parallelism().unwrap().get() as u64;
    let ended = ["cancelled_running_total", "cancelled_queued_total"];
    let before = [pool(&http, leaf, ended[0]).await, pool(&http, leaf, ended[1]).await];

    // Each thread has a search, and as many wait.
    let address = root.client.url().strip_prefix("http://").unwrap();
    let body = json!({"query": "hay", "timeout": "250s"}).to_string();
    let mut clients = Vec::new();
    for _ in 0..2 * threads {
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /v1/indexes/{INDEX}/search HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        client.write_all((head + &body).as_bytes()).await.unwrap();
        clients.push(client);
    }
    eventually("all searches are there", async || {
        (pool(&http, leaf, "running").await, pool(&http, leaf, "queued").await) == (threads, threads)
    })
    .await
    .unwrap();
    let mut nothing = [0];
    let unanswered = tokio::time::timeout(Duration::from_millis(1), clients[0].read(&mut nothing)).await;
    assert!(unanswered.is_err(), "it is still searched for");

    drop(clients);
    eventually("nothing runs or waits", async || {
        (pool(&http, leaf, "running").await, pool(&http, leaf, "queued").await) == (0, 0)
    })
    .await
    .unwrap();
    // One that waited may have begun when the first of those that ran stopped.
    let running = pool(&http, leaf, ended[0]).await - before[0];
    let queued = pool(&http, leaf, ended[1]).await - before[1];
    assert!(running >= threads && running + queued == 2 * threads, "{running} ran, {queued} waited");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_leaf_that_stands_still_while_others_have_its_shards() {
    let Some(cluster) = cluster(3, 4, 3, &[]).await else { return };
    let http = http();
    let searched = async |searches: usize| -> Vec<(Duration, Value)> {
        let mut all = Vec::new();
        for _ in 0..searches.div_ceil(4) {
            let mut some = JoinSet::new();
            for _ in 0..4 {
                let (http, client) = (http.clone(), cluster.nodes[0].client.clone());
                some.spawn(async move {
                    let begun = Instant::now();
                    let body = json!({"query": "hay", "profile": true, "timeout": "300s", "fields": []});
                    let url = format!("{}/v1/indexes/{INDEX}/search", client.url());
                    let answer = http.post(url).body(body.to_string()).send().await.unwrap();
                    (answer.status().as_u16(), begun.elapsed(), answer.json::<Value>().await.unwrap())
                });
            }
            while let Some(ended) = some.join_next().await {
                let (status, took, answer) = ended.unwrap();
                assert_eq!(status, 200, "{answer}");
                assert_eq!(answer["hits"].as_array().unwrap().len(), 10);
                all.push((took, answer));
            }
        }
        all
    };
    let calls = |answer: &Value, call: &str, outcome: &str| -> Vec<String> {
        let calls = answer["profile"]["leaves"].as_array().unwrap().iter();
        let such = calls.filter(|leaf| leaf["call"] == call && leaf["outcome"] == outcome);
        such.map(|leaf| leaf["node"].as_str().unwrap().to_owned()).collect()
    };
    let still = &cluster.nodes[1];
    // On a busy machine a leaf may be slow beforehand, and not be asked at all
    // while it stands still: then nobody would have waited for it in any case.
    eventually("a search of the leaf that stands still is saved by a hedge", async || {
        // So that the root knows what is usual.
        searched(100).await;
        eventually("the leaf is asked", async || {
            searched(4).await.iter().any(|(_, answer)| calls(answer, "first", "answered").contains(&still.id))
        })
        .await
        .unwrap();

        let stopped = Instant::now();
        still.signal("STOP").unwrap();
        let mut all = searched(200).await;
        // Until its lease has ended, and after that.
        eventually("the root notices", async || {
            all.extend(searched(4).await);
            cluster.nodes[0].client.cluster().await.unwrap().nodes.len() == 3
        })
        .await
        .unwrap();
        all.extend(searched(100).await);
        let stop = stopped.elapsed();
        still.signal("CONT").unwrap();

        let longest = all.iter().map(|(took, _)| *took).max().unwrap();
        assert!(longest < stop, "{longest:?}");
        let (mut asked, mut hedged, mut saved) = (0, 0, 0);
        for (_, answer) in &all {
            let hedges = calls(answer, "hedge", "answered");
            assert!(!hedges.contains(&still.id), "{answer}");
            let left = calls(answer, "first", "cancelled").contains(&still.id);
            asked += usize::from(left);
            hedged += usize::from(!hedges.is_empty());
            saved += usize::from(left && !hedges.is_empty());
        }
        println!("{} searches in {stop:?}, the longest took {longest:?}", all.len());
        println!("{asked} asked the leaf that stood still, {saved} of them and {hedged} in all were hedged");
        if saved == 0 {
            cluster.joined(4).await.unwrap();
            cluster.whole(0, 3).await.unwrap();
        }
        saved > 0
    })
    .await
    .unwrap();
}
