//! A cluster of real processes over real etcd, when something else fails: etcd,
//! the store, a disk; and when its operators replace every node.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Client, IndexRequest, SearchRequest};
use testkit::ledger::Ledger;
use testkit::processes::{Cluster, Link, Plan, eventually};
use tokio::task::JoinSet;

const INDEX: &str = "papers";

fn plan(nodes: usize) -> Plan {
    Plan::of(env!("CARGO_BIN_EXE_windrow"), nodes)
}

async fn create(cluster: &Cluster, shards: u32, copies: u32) {
    let schema =
        serde_json::from_str(r#"{"fields": {"version": {"type": "u64"}, "body": {"type": "text"}}}"#)
            .unwrap();
    let request = IndexRequest {
        shards: Some(shards),
        copies: Some(copies),
        schema: Some(schema),
        refresh_interval: Some(Duration::from_millis(200)),
        ..IndexRequest::default()
    };
    cluster.nodes[0].client.create_index(INDEX, &request).await.unwrap();
    for node in cluster.nodes.iter().filter(|node| node.root) {
        eventually("the index is seen", async || node.client.describe_index(INDEX).await.is_ok())
            .await
            .unwrap();
    }
}

fn line(id: &str, version: u64) -> String {
    format!("{{\"id\":\"{id}\",\"version\":{version},\"body\":\"hay in a row\"}}\n")
}

/// A load that goes on until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    searches: Arc<AtomicU64>,
    acknowledged: Arc<AtomicU64>,
    failed: Arc<Mutex<Vec<String>>>,
    tasks: JoinSet<Ledger>,
}

impl Load {
    /// Searches `searching` about a hundred times a second, and writes through
    /// `writing`; a client that cannot connect goes to its next node, as behind
    /// a load balancer.
    fn start(searching: &[Client], writing: &[Client]) -> Self {
        let (stop, searches, acknowledged) =
            (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::new(AtomicU64::new(0)));
        let failed = Arc::default();
        let mut load = Self { stop, searches, acknowledged, failed, tasks: JoinSet::new() };
        for searcher in 0..4 {
            load.tasks.spawn(load.search(searching.to_vec(), searcher));
        }
        load.tasks.spawn(load.write(writing.to_vec()));
        load
    }

    fn search(&self, clients: Vec<Client>, searcher: usize) -> impl Future<Output = Ledger> + 'static {
        let (stop, searches, failed) = (self.stop.clone(), self.searches.clone(), self.failed.clone());
        async move {
            let mut pace = tokio::time::interval(Duration::from_millis(40));
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut turn = searcher;
            while !stop.load(Ordering::Relaxed) {
                pace.tick().await;
                turn += 1;
                let request = SearchRequest::new("hay").timeout(Duration::from_secs(5));
                let mut outcome = String::from("no node can be reached");
                for attempt in 0..clients.len() {
                    let client = &clients[(turn + attempt) % clients.len()];
                    match client.search(INDEX, &request).await {
                        Ok(_) => {
                            outcome.clear();
                            break;
                        }
                        // It does not listen: another does.
                        Err(client::Error::Away { .. }) => {}
                        Err(error) => {
                            outcome = format!("{}: {error}", client.url());
                            break;
                        }
                    }
                }
                searches.fetch_add(1, Ordering::Relaxed);
                if !outcome.is_empty() {
                    failed.lock().unwrap().push(outcome);
                }
            }
            Ledger::default()
        }
    }

    fn write(&self, clients: Vec<Client>) -> impl Future<Output = Ledger> + 'static {
        let (stop, acknowledged) = (self.stop.clone(), self.acknowledged.clone());
        async move {
            let mut ledger = Ledger::default();
            let mut version = 0;
            while !stop.load(Ordering::Relaxed) {
                let mut body = String::new();
                let mut sent = Vec::new();
                for _ in 0..10 {
                    version += 1;
                    let id = format!("d{}", version % 500);
                    body.push_str(&line(&id, version));
                    ledger.sent(&id, Some(version));
                    sent.push((id, version));
                }
                let client = &clients[usize::try_from(version / 10).unwrap() % clients.len()];
                if let Ok(written) = client.documents(INDEX, body.into(), false).await {
                    let failures: Vec<u64> = written.failures.iter().map(|failure| failure.line).collect();
                    for (line, (id, version)) in (1..).zip(&sent) {
                        if !failures.contains(&line) {
                            ledger.acknowledged(id, Some(*version));
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            }
            ledger
        }
    }

    /// Waits for so many more searches and acknowledged writes.
    async fn more(&self, searches: u64, writes: u64) {
        let (searched, written) = (
            self.searches.load(Ordering::Relaxed) + searches,
            self.acknowledged.load(Ordering::Relaxed) + writes,
        );
        eventually("the load goes on", async || {
            self.searches.load(Ordering::Relaxed) >= searched
                && self.acknowledged.load(Ordering::Relaxed) >= written
        })
        .await
        .unwrap();
    }

    /// Ends it; returns what must be there. No search may have failed.
    async fn end(mut self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        let mut ledger = Ledger::default();
        while let Some(ended) = self.tasks.join_next().await {
            ledger.merge(ended.unwrap());
        }
        let failed = self.failed.lock().unwrap();
        let searches = self.searches.load(Ordering::Relaxed);
        println!("{searches} searches, {} writes acknowledged", self.acknowledged.load(Ordering::Relaxed));
        assert!(
            failed.is_empty(),
            "{} of {searches} searches failed: {:?}",
            failed.len(),
            &failed[..failed.len().min(5)]
        );
        ledger
    }
}

/// Checks that everything that was acknowledged is there.
async fn check(client: &Client, ledger: &Ledger) {
    let markers: String = (0..100).map(|n| format!("{{\"id\":\"marker-{n}\"}}\n")).collect();
    let written = client.documents(INDEX, markers.into(), true).await.unwrap();
    assert_eq!((written.rejected, written.searchable), (0, Some(true)), "{:?}", written.failures);
    let request = SearchRequest::new("version:*").limit(5_000_usize).token(written.token.unwrap());
    let answer = client.search(INDEX, &request).await.unwrap();
    let version = |hit: &client::Hit| {
        let document: serde_json::Value = serde_json::from_str(hit.document.as_ref().unwrap().get()).unwrap();
        document["version"].as_u64().unwrap()
    };
    let held: BTreeMap<String, u64> = answer.hits.iter().map(|hit| (hit.id.clone(), version(hit))).collect();
    let wrong: Vec<String> = ledger.ids().filter_map(|id| ledger.wrong(id, held.get(id).copied())).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!ledger.is_empty(), "something was written");
}

/// Which leaves hold which shard.
async fn placement(client: &Client) -> Vec<Vec<String>> {
    let seen = client.cluster().await.unwrap();
    let shards = seen.indexes.iter().flat_map(|index| &index.shards);
    shards.map(|shard| shard.replicas.iter().map(|replica| replica.node.clone()).collect()).collect()
}

fn clients(cluster: &Cluster) -> Vec<Client> {
    cluster.nodes.iter().map(|node| node.client.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_and_writes_go_on_and_nothing_moves_when_etcd_fails() {
    let Some(mut cluster) = Cluster::start(&plan(3)).await.unwrap() else { return };
    create(&cluster, 4, 2).await;
    cluster.whole(0, 2).await.unwrap();
    let before = placement(&cluster.nodes[0].client).await;
    let clients = clients(&cluster);
    let load = Load::start(&clients, &clients);
    load.more(20, 50).await;

    // Paused for longer than every lease.
    cluster.etcd.signal("STOP");
    for node in &cluster.nodes {
        eventually("the node notices", async || node.logged().contains("failed to renew")).await.unwrap();
    }
    // A hundred searches a second: twenty seconds.
    load.more(2_000, 200).await;
    cluster.etcd.signal("CONT");
    cluster.joined(3).await.unwrap();
    cluster.whole(0, 2).await.unwrap();
    load.more(50, 100).await;
    assert_eq!(placement(&clients[0]).await, before, "nothing moved when etcd was paused");

    cluster.etcd.restart();
    cluster.joined(3).await.unwrap();
    cluster.whole(0, 2).await.unwrap();
    load.more(50, 100).await;
    assert_eq!(placement(&clients[0]).await, before, "nothing moved when etcd was restarted");

    assert!(cluster.etcd.revoke_all_leases() >= 4, "three nodes and a controller");
    load.more(50, 100).await;
    cluster.joined(3).await.unwrap();
    cluster.whole(0, 2).await.unwrap();
    assert_eq!(placement(&clients[0]).await, before, "nothing moved when all leases were lost");

    let ledger = load.end().await;
    for client in &clients {
        check(client, &ledger).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_is_replaced_under_load_and_nobody_notices() {
    let Some(mut cluster) = Cluster::start(&plan(3)).await.unwrap() else { return };
    create(&cluster, 4, 2).await;
    cluster.whole(0, 2).await.unwrap();
    let clients = clients(&cluster);
    let load = Load::start(&clients, &clients);
    load.more(50, 100).await;
    for node in 0..3 {
        let status = cluster.nodes[node].leave().await.unwrap();
        assert_eq!(status.code(), Some(0), "a drain ends well: {}", cluster.nodes[node].logged());
        load.more(20, 50).await;
        cluster.nodes[node].start().unwrap();
        cluster.joined(3).await.unwrap();
        cluster.whole((node + 1) % 3, 2).await.unwrap();
        load.more(50, 100).await;
    }
    let ledger = load.end().await;
    check(&clients[0], &ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn owning_and_serving_can_be_done_by_different_nodes() {
    let mut plan = plan(4);
    plan.roles = vec!["root,serve", "root,serve", "own", "own"];
    let Some(mut cluster) = Cluster::start(&plan).await.unwrap() else { return };
    create(&cluster, 2, 2).await;
    cluster.whole(0, 2).await.unwrap();
    let client = cluster.nodes[0].client.clone();
    let written = client.documents(INDEX, line("one", 1).into(), true).await.unwrap();
    assert_eq!(written.searchable, Some(true));
    let seen = client.cluster().await.unwrap();
    for shard in &seen.indexes[0].shards {
        let replicas: Vec<&str> = shard.replicas.iter().map(|replica| replica.node.as_str()).collect();
        assert!(replicas.iter().all(|node| ["n0", "n1"].contains(node)), "{replicas:?}");
        assert!(["n2", "n3"].contains(&shard.owner.as_deref().unwrap()), "{:?}", shard.owner);
    }
    // Whoever owns dies, and the other owner takes over.
    cluster.nodes[2].kill();
    eventually("the other owns", async || {
        let seen = client.cluster().await.unwrap();
        seen.indexes[0].shards.iter().all(|shard| shard.owner.as_deref() == Some("n3"))
    })
    .await
    .unwrap();
    let written = client.documents(INDEX, line("two", 2).into(), true).await.unwrap();
    assert_eq!((written.accepted, written.searchable), (1, Some(true)), "{:?}", written.failures);
    // Another node may hear of the newest cut a moment later.
    let request = SearchRequest::new("hay").token(written.token.unwrap());
    let answer = cluster.nodes[1].client.search(INDEX, &request).await.unwrap();
    assert_eq!(answer.hits.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_on_while_s3_fails_and_writes_come_back() {
    let mut plan = plan(2);
    plan.s3 = true;
    let Some(cluster) = Cluster::start(&plan).await.unwrap() else { return };
    let s3 = cluster.s3.clone().unwrap();
    create(&cluster, 2, 2).await;
    cluster.whole(0, 2).await.unwrap();
    let clients = clients(&cluster);
    let mut ledger = Ledger::default();
    let body: String = (0..50).map(|n| line(&format!("d{n}"), 1)).collect();
    let written = clients[0].documents(INDEX, body.into(), true).await.unwrap();
    assert_eq!((written.accepted, written.searchable), (50, Some(true)), "{:?}", written.failures);
    (0..50).for_each(|n| ledger.acknowledged(&format!("d{n}"), Some(1)));

    s3.set(Link::Broken);
    // Long enough for the owners to give up, again and again.
    let refused = clients[1].documents(INDEX, line("lost", 1).into(), false).await;
    let told = match refused {
        Ok(written) => {
            assert_eq!(written.accepted, 0, "nothing can be durable");
            assert!(written.failures[0].retry, "{:?}", written.failures);
            written.failures[0].reason.clone()
        }
        Err(error) => error.to_string(),
    };
    println!("a write without a store: {told}");
    for _ in 0..50 {
        for client in &clients {
            let answer = client.search(INDEX, &SearchRequest::new("hay").count("exact")).await.unwrap();
            assert_eq!(answer.total.unwrap().value, 50, "reads go on");
        }
    }
    s3.set(Link::Up);
    eventually("writes come back", async || {
        clients[0]
            .documents(INDEX, line("back", 2).into(), false)
            .await
            .is_ok_and(|written| written.accepted == 1)
    })
    .await
    .unwrap();
    ledger.acknowledged("back", Some(2));
    check(&clients[1], &ledger).await;

    // Two seconds a put, and more: slow, and not broken.
    s3.set(Link::Slow(Duration::from_secs(2)));
    let written = clients[0].documents(INDEX, line("slow", 3).into(), false).await.unwrap();
    assert_eq!(written.accepted, 1, "{:?}", written.failures);
    ledger.acknowledged("slow", Some(3));
    s3.set(Link::Up);
    check(&clients[1], &ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_disk_is_full_lags_and_catches_up() {
    let mut plan = plan(2);
    plan.arguments.extend(["--lag-max=1s".to_owned(), "--disk-reserve-mb=1".to_owned()]);
    let Some(mut cluster) = Cluster::start(&plan).await.unwrap() else { return };
    // The second node's folder becomes a small disk.
    cluster.nodes[1].leave().await.unwrap();
    let small = cluster.nodes[1].data.clone();
    let Some(small) = Small::mount(&small) else { return };
    cluster.nodes[1].start().unwrap();
    cluster.joined(2).await.unwrap();
    create(&cluster, 4, 2).await;
    cluster.whole(0, 2).await.unwrap();
    let clients = clients(&cluster);
    let body: String = (0..50).map(|n| line(&format!("d{n}"), 1)).collect();
    let written = clients[0].documents(INDEX, body.into(), true).await.unwrap();
    assert_eq!((written.accepted, written.searchable), (50, Some(true)), "{:?}", written.failures);

    small.fill();
    let request = SearchRequest::new("hay").count("exact");
    // Its own shards refuse writes, with a line that says why; all others take
    // them, and they become searchable without the replica that cannot follow.
    let mut taken = BTreeMap::new();
    let mut refusals = Vec::new();
    for n in 100..140 {
        let written = clients[0].documents(INDEX, line(&format!("d{n}"), 2).into(), false).await;
        match written {
            Ok(written) if written.accepted == 1 => {
                taken.insert(n, written.token.unwrap());
            }
            Ok(written) => refusals.push(written.failures[0].reason.clone()),
            Err(error) => refusals.push(error.to_string()),
        }
    }
    assert!(!taken.is_empty(), "{refusals:?}");
    assert!(!refusals.is_empty() && refusals.iter().all(|why| why.contains("free")), "{refusals:?}");
    println!("a write to a full disk: {}", refusals[0]);
    let last = taken.values().next_back().unwrap().clone();
    let answer = clients[0].search(INDEX, &request.clone().token(last)).await.unwrap();
    assert!(answer.total.unwrap().value > 50);
    for _ in 0..20 {
        for client in &clients {
            client.search(INDEX, &request).await.unwrap();
        }
    }

    small.free();
    cluster.whole(0, 2).await.unwrap();
    eventually("writes come back", async || {
        let body: String = (200..240).map(|n| line(&format!("d{n}"), 3)).collect();
        clients[0].documents(INDEX, body.into(), true).await.is_ok_and(|written| written.accepted == 40)
    })
    .await
    .unwrap();
    cluster.whole(0, 2).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_whose_disk_is_full_gives_its_shards_to_another() {
    let mut plan = plan(2);
    // It does not see it coming.
    plan.arguments.push("--disk-reserve-mb=0".to_owned());
    let Some(mut cluster) = Cluster::start(&plan).await.unwrap() else { return };
    cluster.nodes[1].leave().await.unwrap();
    let Some(small) = Small::mount(&cluster.nodes[1].data) else { return };
    cluster.nodes[1].start().unwrap();
    cluster.joined(2).await.unwrap();
    create(&cluster, 4, 2).await;
    cluster.whole(0, 2).await.unwrap();
    let client = cluster.nodes[0].client.clone();
    let seen = client.cluster().await.unwrap();
    let owned = |seen: &client::Cluster| {
        seen.indexes[0].shards.iter().filter(|shard| shard.owner.as_deref() == Some("n1")).count()
    };
    assert!(owned(&seen) > 0, "owners are balanced");
    small.fill();
    eventually("every shard takes writes, and they are searchable", async || {
        let body: String = (0..40).map(|n| line(&format!("d{n}"), 1)).collect();
        let written = client.documents(INDEX, body.into(), true).await;
        let seen = client.cluster().await.unwrap();
        written.is_ok_and(|written| written.accepted == 40 && written.searchable == Some(true))
            && owned(&seen) == 0
    })
    .await
    .unwrap();
}

/// A node's folder on a small disk of its own.
struct Small(std::path::PathBuf);

impl Small {
    /// `None`, said on stderr, where nothing can be mounted.
    fn mount(folder: &std::path::Path) -> Option<Self> {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"]).arg(folder).status();
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("skipped: a small disk cannot be mounted here");
            return None;
        }
        Some(Self(folder.to_owned()))
    }

    fn fill(&self) {
        let mut filled = Command::new("dd");
        filled.args(["if=/dev/zero", "bs=1k"]).arg(format!("of={}", self.0.join("filler").display()));
        let _full = filled.stderr(std::process::Stdio::null()).status();
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
