//! Faults that a test asks for: where they are felt, that they end, and that
//! nobody meets them who did not allow them.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod support;

use std::fs::File;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use client::{Client, IndexRequest, SearchRequest};
use serde_json::{Value, json};
use support::{run, windrow};
use testkit::processes::{Cluster, Plan, eventually, port};

const INDEX: &str = "papers";
/// More than any search here takes by itself, less than `attempt_timeout`.
const DELAY: Duration = Duration::from_millis(300);

/// `/debug/faults` and `/metrics` of a node.
struct Debug {
    internal: String,
    http: reqwest::Client,
}

impl Debug {
    fn of(internal: impl ToString) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { internal: internal.to_string(), http }
    }

    async fn ask(&self, method: &str, body: impl Into<reqwest::Body>) -> (u16, String, Value) {
        let url = format!("http://{}/debug/faults", self.internal);
        let request = self.http.request(method.parse().unwrap(), url).body(body);
        let answer = request.send().await.unwrap();
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (answer.status().as_u16(), kind, answer.json().await.unwrap())
    }

    async fn put(&self, spec: Value) {
        let (status, _, shown) = self.ask("PUT", spec.to_string()).await;
        assert_eq!((status, &shown), (200, &spec));
    }

    async fn end(&self) {
        let (status, _, shown) = self.ask("DELETE", "").await;
        assert_eq!((status, shown), (200, json!({})));
    }

    /// Faults so far, of a kind.
    async fn count(&self, kind: &str) -> u64 {
        let url = format!("http://{}/metrics", self.internal);
        let metrics = self.http.get(url).send().await.unwrap().text().await.unwrap();
        let name = format!("windrow_faults_total{{kind=\"{kind}\"}} ");
        let found = metrics.lines().find_map(|line| line.strip_prefix(&name));
        found.unwrap_or_else(|| panic!("there is no {name}")).parse().unwrap()
    }

    /// Faults so far.
    async fn counts(&self) -> Vec<u64> {
        let mut counts = Vec::new();
        for kind in ["delay", "stall", "errors", "drops", "disk", "store"] {
            counts.push(self.count(kind).await);
        }
        counts
    }
}

/// A root and two leaves that both hold everything.
async fn cluster() -> Option<(Cluster, [Debug; 2])> {
    let mut plan = Plan::of(env!("CARGO_BIN_EXE_windrow"), 3);
    plan.roles = vec!["root", "leaf", "leaf"];
    plan.arguments.push("--allow-faults".to_owned());
    let cluster = Cluster::start(&plan).await.unwrap()?;
    let client = &cluster.nodes[0].client;
    let schema = serde_json::from_str(r#"{"fields": {"body": {"type": "text"}}}"#).unwrap();
    let request = IndexRequest {
        shards: Some(2),
        copies: Some(2),
        schema: Some(schema),
        refresh_interval: Some(Duration::from_millis(100)),
        ..IndexRequest::default()
    };
    client.create_index(INDEX, &request).await.unwrap();
    eventually("documents are in", async || written(client).await).await.unwrap();
    cluster.whole(0, 2).await.unwrap();
    let debug = [1, 2].map(|node| Debug::of(cluster.nodes[node].internal.address()));
    Some((cluster, debug))
}

async fn written(client: &Client) -> bool {
    let documents: String =
        (0..20).map(|id| format!("{{\"id\":\"d{id}\",\"body\":\"hay in a row\"}}\n")).collect();
    client.documents(INDEX, documents.into(), true).await.is_ok_and(|written| written.failures.is_empty())
}

/// Searches; how long that took.
async fn searched(client: &Client) -> Duration {
    let began = Instant::now();
    let request = SearchRequest::new("hay").timeout(Duration::from_secs(10));
    let answer = client.search(INDEX, &request).await.unwrap();
    assert_eq!(answer.hits.len(), 10);
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_leaf_is_not_felt_while_another_replica_answers() {
    let Some((cluster, [one, _])) = cluster().await else { return };
    let client = &cluster.nodes[0].client;
    for (kind, spec) in [("errors", json!({"errors": 1.0})), ("drops", json!({"drops": 1.0, "seed": 1}))] {
        one.put(spec).await;
        eventually(&format!("{kind} are met"), async || {
            // Every search has its hits, whatever its leaf does.
            searched(client).await;
            one.count(kind).await > 0
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn delays_and_stalls_are_felt_until_they_end() {
    let Some((cluster, leaves)) = cluster().await else { return };
    let client = &cluster.nodes[0].client;
    for leaf in &leaves {
        leaf.put(json!({"calls": ["search"], "stall": {"length": "300ms", "every": "10ms"}})).await;
    }
    eventually("a stall is met", async || {
        searched(client).await;
        leaves[0].count("stall").await + leaves[1].count("stall").await > 0
    })
    .await
    .unwrap();
    for leaf in &leaves {
        leaf.put(json!({"delay": {"probability": 1.0, "length": {"constant": "300ms"}}})).await;
    }
    assert!(searched(client).await >= DELAY);
    assert!(leaves[0].count("delay").await + leaves[1].count("delay").await > 0);
    let mut before = Vec::new();
    for leaf in &leaves {
        leaf.end().await;
        before.push(leaf.counts().await);
    }
    // Whichever of the two is asked.
    searched(client).await;
    for (leaf, before) in leaves.iter().zip(before) {
        assert_eq!(leaf.counts().await, before);
        assert_eq!(leaf.count("errors").await + leaf.count("drops").await + leaf.count("disk").await, 0);
    }
}

/// One node, without etcd.
struct Alone {
    child: Child,
    client: Client,
    debug: Debug,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Alone {
    async fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (public, internal) = (port(), port());
        let log = folder.path().join("log");
        let child = windrow()
            .args(["node", "--coordinator=embedded", "--auto-create"])
            .arg(format!("--store=file://{}", folder.path().join("store").display()))
            .arg(format!("--data={}", folder.path().join("data").display()))
            .arg(format!("--public={public}"))
            .arg(format!("--internal={internal}"))
            .args(arguments)
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let client = Client::new(&format!("http://{public}")).unwrap();
        let alone = Self { child, client, debug: Debug::of(internal), log, _folder: folder };
        eventually("the node is ready", async || alone.client.ready().await.is_ok()).await.unwrap();
        alone
    }

    fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_is_felt_and_lets_go_of_who_is_late() {
    let alone = Alone::start(&["--allow-faults", r#"--faults={"errors": 0.5}"#]).await;
    let (client, debug) = (&alone.client, &alone.debug);
    assert!(written(client).await);
    debug.put(json!({"disk": {"probability": 1.0, "length": {"constant": "300ms"}}})).await;
    assert!(searched(client).await >= DELAY);
    assert!(debug.count("disk").await > 0);
    let began = Instant::now();
    assert!(written(client).await);
    assert!(began.elapsed() >= DELAY);
    assert!(debug.count("store").await > 0);

    // Every thread is held far beyond the timeout of who waits for it, which is
    // enough for a queue that moves as it did before: nobody is told to go away.
    debug.put(json!({"disk": {"probability": 1.0, "length": {"constant": "60000ms"}}})).await;
    let threads = std::thread::available_parallelism().unwrap().get();
    let late = (0..threads).map(|_| async {
        let request = SearchRequest::new("hay").timeout(DELAY * 10);
        client.search(INDEX, &request).await.unwrap_err()
    });
    for error in futures::future::join_all(late).await {
        assert!(error.to_string().contains("timeout"), "{error}");
    }
    debug.end().await;
    searched(client).await;
    assert_eq!(debug.count("errors").await, 0, "no other node calls");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_injected_is_said_and_what_is_wrong_is_refused() {
    let alone = Alone::start(&["--allow-faults", r#"--faults={"seed": 3, "drops": 0.25}"#]).await;
    let debug = &alone.debug;
    let first = json!({"seed": 3, "drops": 0.25});
    for (body, status, says) in [
        (r#"{"dealy": 1}"#.to_owned(), 400, "expected one of `seed`, `calls`, `delay`"),
        (r#"{"errors": 2}"#.to_owned(), 400, "errors is 2; it must be 0 to 1"),
        (r#"{"calls": ["find"]}"#.to_owned(), 400, "the calls are statistics, search, fetch, get"),
        (
            r#"{"delay": {"length": {"constant": "2h"}}}"#.to_owned(),
            400,
            "delay.length has 2h; it must be 0s to 1m",
        ),
        ("nonsense".to_owned(), 400, "these are no faults"),
        (" ".repeat(100 << 10), 413, "at most 65536 bytes"),
    ] {
        let (answered, kind, problem) = debug.ask("PUT", body).await;
        assert_eq!((answered, kind.as_str()), (status, "application/problem+json"), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
        assert_eq!(debug.ask("GET", "").await, (200, "application/json".to_owned(), first.clone()));
    }
    assert_eq!(alone.logged().matches("FAULTS ARE INJECTED").count(), 1);
    debug.put(json!({"errors": 0.125})).await;
    assert_eq!(debug.ask("GET", "").await.2, json!({"errors": 0.125}));
    debug.end().await;
    let logged = alone.logged();
    let warned: Vec<&str> =
        logged.lines().filter(|line| line.contains("WARN") && line.contains("faults")).collect();
    let said = [r#""drops":0.25"#, r#""errors":0.125"#, "no faults are injected"];
    assert_eq!(warned.len(), said.len(), "{warned:?}");
    assert!(warned.iter().zip(said).all(|(line, said)| line.contains(said)), "{warned:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_did_not_allow_faults_has_none() {
    let alone = Alone::start(&[]).await;
    for method in ["GET", "PUT", "DELETE"] {
        let (status, kind, problem) = alone.debug.ask(method, r#"{"errors": 1}"#).await;
        assert_eq!((status, kind.as_str()), (404, "application/problem+json"));
        assert!(problem["detail"].as_str().unwrap().contains("--allow-faults"), "{problem}");
    }
    // No folder of it can be made: a node that is not refused ends too.
    let needed = ["node", "--coordinator=embedded", "--store=file:///proc/windrow"];
    let refused = |arguments: &[&str], code: i32, says: &str| {
        let (status, _, stderr) = run(&[&needed, arguments].concat());
        assert_eq!(status, Some(code), "{stderr}");
        assert!(stderr.contains(says) && stderr.lines().count() == 1, "{stderr}");
    };
    refused(&[r#"--faults={"errors": 1}"#], 1, "--allow-faults (allow_faults = true)");
    refused(&["--faults={}", "--allow-faults=false"], 1, "--allow-faults (allow_faults = true)");
    refused(&[r#"--faults={"errors": 3}"#, "--allow-faults"], 2, "errors is 3; it must be 0 to 1");
}
