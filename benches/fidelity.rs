//! How near the simulator is to the processes.
//!
//! `cargo bench --bench fidelity [-- RUNS [NAME …]]`
//!
//! Ten scenarios run over a local cluster of the release binary, whose leaves
//! take their time by an injected law (a slow disk that holds a thread), and in
//! the simulator, which is told that law and, as measured here without it, how
//! long the rest of a query takes. Nothing else is fitted. The figures are
//! medians over the runs.

use std::time::Duration;

use client::{Client, IndexRequest};
use load::report::Histogram;
use load::schedule::Arrivals;
use load::target::{Http, Plain, Shape};
use load::{Pace, Queries, Servers, Step};
use runtime::Distribution;
use runtime::duration::Text;
use serde_json::{Value, json};
use testkit::processes::{Cluster, Node, Plan};
use testkit::simulator::{Choice, Network, Scenario, Slow, Stalls, simulate};

const LEAVES: u32 = 6;
const RUNS: usize = 5;
const SECONDS: u64 = 12;
/// As near as a simulated figure is wanted to be.
const NEAR: f64 = 0.15;

/// One scenario: a layout, a law, a load, faults.
struct Case {
    name: &'static str,
    shards: u32,
    copies: u32,
    disk: Value,
    load: f64,
    /// A leaf that takes this many times as long.
    slow: Option<(u32, f64)>,
    /// Stalls of every leaf: length and mean gap in ms.
    stalls: Option<(u64, u64)>,
}

fn cases() -> Vec<Case> {
    let exponential = json!({"exponential": "20ms"});
    let constant = json!({"constant": "20ms"});
    let lognormal = json!({"lognormal": {"mean": "20ms", "sigma": 0.8}});
    let heavy = json!({"mixture": [[97.0, {"exponential": "15ms"}], [3.0, {"constant": "200ms"}]]});
    let case = |name, shards, copies, disk: &Value, load| Case {
        name,
        shards,
        copies,
        disk: disk.clone(),
        load,
        slow: None,
        stalls: None,
    };
    vec![
        case("one leaf, memoryless, load 0.3", 1, 1, &exponential, 0.3),
        case("one leaf, memoryless, load 0.5", 1, 1, &exponential, 0.5),
        case("fan-out 4, constant, load 0.3", 4, 1, &constant, 0.3),
        case("fan-out 4, lognormal, load 0.5", 4, 1, &lognormal, 0.5),
        case("fan-out 6, memoryless, load 0.4", 6, 1, &exponential, 0.4),
        case("two copies, lognormal, load 0.3", 4, 2, &lognormal, 0.3),
        case("three copies, memoryless, load 0.5", 4, 3, &exponential, 0.5),
        case("three copies, few are long, load 0.4", 4, 3, &heavy, 0.4),
        Case {
            slow: Some((0, 3.0)),
            ..case("three copies, one leaf slow, load 0.3", 4, 3, &exponential, 0.3)
        },
        Case {
            stalls: Some((100, 2_000)),
            ..case("three copies, stalls, load 0.3", 4, 3, &exponential, 0.3)
        },
    ]
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let runs = arguments.next().and_then(|runs| runs.parse().ok()).unwrap_or(RUNS);
    let wanted: Vec<String> = arguments.collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        println!("{:<40} {:>9} {:>9} {:>6} {:>9} {:>9} {:>6}", "ms", "p50", "sim.", "", "p99", "sim.", "");
        let mut near = 0;
        let mut all = 0;
        for case in cases() {
            if !wanted.is_empty() && !wanted.iter().any(|part| case.name.contains(part.as_str())) {
                continue;
            }
            let Some([p50, sim50, p99, sim99]) = compare(&case, runs).await else { return };
            let (off50, off99) = (sim50 / p50 - 1.0, sim99 / p99 - 1.0);
            all += 1;
            near += usize::from(off50.abs() <= NEAR && off99.abs() <= NEAR);
            println!(
                "{:<40} {p50:>9.1} {sim50:>9.1} {:>5.0}% {p99:>9.1} {sim99:>9.1} {:>5.0}%",
                case.name,
                off50 * 100.0,
                off99 * 100.0
            );
        }
        println!("{near} of {all} within {:.0} % at both", NEAR * 100.0);
    });
}

async fn start(case: &Case) -> Option<Cluster> {
    let mut plan = Plan::of(env!("CARGO_BIN_EXE_windrow"), LEAVES as usize + 1);
    plan.roles = vec!["root"];
    plan.roles.resize(LEAVES as usize + 1, "leaf");
    plan.direct = true;
    plan.arguments =
        ["--lease", "10s", "--log", "error", "--allow-faults", "--hedging=false"].map(str::to_owned).to_vec();
    // Another replica is not asked too: what is compared is the queue.
    plan.arguments.push("--attempt-timeout=8s".into());
    let cluster = Cluster::start(&plan).await.expect("the cluster starts")?;
    let schema = serde_json::from_str(r#"{"fields": {"body": {"type": "text"}}}"#).expect("a schema");
    let request = IndexRequest {
        shards: Some(case.shards),
        copies: Some(case.copies),
        schema: Some(schema),
        refresh_interval: Some(Duration::from_millis(500)),
        ..IndexRequest::default()
    };
    let client = &cluster.nodes[0].client;
    client.create_index("bench", &request).await.expect("the index is new");
    let body: String = (0..200).map(|n| format!("{{\"id\":\"{n}\",\"body\":\"hay {n}\"}}\n")).collect();
    client.documents("bench", body.into(), true).await.expect("documents go in");
    cluster.whole(0, case.copies as usize).await.expect("the cluster is whole");
    Some(cluster)
}

/// The median over runs of p50 and p99, of the processes and simulated, in ms.
async fn compare(case: &Case, runs: usize) -> Option<[f64; 4]> {
    let cluster = start(case).await?;
    let client = &cluster.nodes[0].client;
    let mut scenario = scenario(case, client).await;
    let rate = scenario.rate();
    // What a query takes besides: measured at the same rate, without faults.
    let calm = measure(client, rate, 0).await;
    scenario.root = Distribution::Samples(quantiles(&calm));
    for node in &cluster.nodes[1..] {
        inject(node, case).await;
    }
    let (mut real, mut simulated) = (Vec::new(), Vec::new());
    for run in 0..runs {
        real.push(measure(client, rate, run as u64 + 1).await);
        simulated.push(simulate(&scenario, run as u64 + 1, false).expect("the scenario").run.latency);
    }
    let median = |runs: &[Histogram], percentile: f64| {
        let mut all: Vec<u64> = runs.iter().map(|latency| latency.percentile(percentile)).collect();
        all.sort_unstable();
        all[all.len() / 2] as f64 / 1e3
    };
    Some([median(&real, 50.0), median(&simulated, 50.0), median(&real, 99.0), median(&simulated, 99.0)])
}

/// What the simulator is told.
async fn scenario(case: &Case, client: &Client) -> Scenario {
    let law: Distribution = serde_json::from_value(case.disk.clone()).expect("a law");
    let seen = client.cluster().await.expect("the cluster answers");
    let number = |node: &String| node.trim_start_matches('n').parse::<u32>().expect("a number") - 1;
    let placement: Vec<Vec<u32>> = seen.indexes[0]
        .shards
        .iter()
        .map(|shard| shard.replicas.iter().map(|replica| number(&replica.node)).collect())
        .collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    // A call for each leaf that is asked; where one has several shards they
    // share a call, so that this is a little less than the load.
    let holders: std::collections::BTreeSet<u32> = placement.iter().flatten().copied().collect();
    let work = f64::from(case.shards.min(holders.len() as u32)) * law.mean_us() / 1e6;
    Scenario {
        title: case.name.into(),
        shards: case.shards,
        copies: case.copies,
        leaves: Some(LEAVES),
        rate: Some(case.load * (holders.len() as u32 * threads) as f64 / work),
        load: None,
        placement: Some(placement),
        threads,
        roots: 1,
        queries: 20_000,
        warm_up: 500,
        service: Distribution::Constant(Text(Duration::ZERO)),
        overhead: law,
        network: Network::default(),
        cancel: Text(Duration::ZERO),
        root: Distribution::Constant(Text(Duration::ZERO)),
        hedging: false,
        pauses: Vec::new(),
        linger: None,
        joins: Vec::new(),
        phases: Vec::new(),
        tied: false,
        stalls: case.stalls.map(|(length, every)| Stalls {
            every: Text(Duration::from_millis(every)),
            length: Text(Duration::from_millis(length)),
            leaves: Vec::new(),
            in_turn: false,
        }),
        slow: case
            .slow
            .map(|(leaf, factor)| Slow {
                leaves: vec![leaf],
                factor,
                from: Text(Duration::ZERO),
                to: Text(Duration::from_secs(100_000)),
            })
            .into_iter()
            .collect(),
        down: Vec::new(),
        choice: Choice::TwoChoices,
        attempt_timeout: Text(Duration::from_secs(8)),
        timeout: Text(Duration::from_secs(10)),
        seed: 1,
        seeds: 1,
    }
}

/// A law whose lengths are this many times as long.
fn longer(law: &Value, factor: f64) -> Value {
    // Only exponential ones are slowed here.
    let mean = law["exponential"].as_str().expect("an exponential law");
    let mean = runtime::duration::parse(mean).expect("a duration").mul_f64(factor);
    json!({"exponential": Text(mean)})
}

async fn inject(node: &Node, case: &Case) {
    let number = node.id.trim_start_matches('n').parse::<u32>().expect("a number") - 1;
    let disk = match case.slow {
        Some((leaf, factor)) if leaf == number => longer(&case.disk, factor),
        _ => case.disk.clone(),
    };
    let mut spec = json!({"disk": {"length": disk}});
    if let Some((length, every)) = case.stalls {
        spec["stall"] = json!({"length": format!("{length}ms"), "every": format!("{every}ms")});
    }
    let url = format!("http://{}/debug/faults", node.address);
    Plain::new().put(&url, spec.to_string()).await.expect("the faults are taken");
}

async fn measure(client: &Client, rate: f64, seed: u64) -> Histogram {
    let queries = Queries::of(["*".to_owned()]);
    let mut shape = Shape::new();
    shape.insert("limit".into(), 0.into());
    shape.insert("count".into(), "none".into());
    let target = Http::new(&[client.url().to_owned()], "bench", queries.texts(), &shape).expect("a URL");
    let servers = Servers::of(client).await;
    let step = Step {
        name: String::new(),
        pace: Pace::Open { rate, arrivals: Arrivals::Poisson },
        warm_up: Duration::from_secs(2),
        duration: Duration::from_secs(SECONDS),
        timeout: Duration::from_secs(10),
        in_flight_max: 10_000,
        seed,
    };
    let run = step.run(&target, &queries, &servers, |_, _| {}).await.expect("the step");
    assert!(run.failures() == 0, "{:?}", run.failed);
    run.latency
}

/// A thousand lengths that are spread as those that were measured.
fn quantiles(latency: &Histogram) -> Vec<Text> {
    let at = |n: u32| latency.percentile((f64::from(n) + 0.5) / 10.0);
    (0..1_000).map(|n| Text(Duration::from_micros(at(n)))).collect()
}
