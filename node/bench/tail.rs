//! `bench tail`: one leaf after another stands still.

use std::time::Duration;

use ::load::generator::doubts;
use ::load::report::{Histogram, Run};
use ::load::schedule::Arrivals;
use ::load::target::{Http, Shape};
use ::load::{Pace, Servers, Step};
use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use testkit::processes::{Cluster, Node};

use super::cli::Tail;
use super::{capacity, cluster, finish, report, step, writable};

const INDEX: &str = "bench-tail";
/// Leaves at most: they share this machine.
const LEAVES_MAX: usize = 64;
const QUERIES: usize = 2_000;

pub(super) async fn run(options: Tail) -> Result<()> {
    writable(&options.out)?;
    ensure!((1..=LEAVES_MAX).contains(&options.leaves), "--leaves must be 1 to {LEAVES_MAX}");
    ensure!(options.load > 0.0 && options.load < 10.0, "--load is a share of the capacity, such as 0.3");
    ensure!(options.runs > 0, "--runs must be above 0");
    ensure!(options.stop < options.every * 100, "--stop is longer than a hundred times --every");
    eprintln!("Starting {} leaves, a root and etcd.", options.leaves);
    let mut roles = vec!["root"];
    roles.resize(options.leaves + 1, "leaf");
    let cluster = cluster::start(roles).await?;
    let root = &cluster.nodes[0];
    eprintln!("Loading {} documents.", options.documents);
    let layout = (options.shards, options.copies);
    cluster::fill(&root.client, INDEX, layout, options.documents, options.seed).await?;
    cluster.whole(0, options.copies as usize).await?;

    let queries = cluster::queries(QUERIES, options.seed);
    let url = root.client.url().to_owned();
    let target = Http::new(&[url], INDEX, queries.texts(), &Shape::new())?;
    let servers = Servers::of(&root.client).await.with_processes(cluster.nodes.iter().filter_map(Node::pid));
    let able = capacity(&target, &queries, &servers, options.seed).await?;
    let rate = able * options.load;
    let settings = json!({
        "leaves": options.leaves, "shards": options.shards, "copies": options.copies,
        "documents": options.documents, "capacity_per_second": able, "load": options.load,
        "stop_ms": options.stop.as_millis(), "every_ms": options.every.as_millis(),
    });
    let title = format!(
        "One of {} leaves at a time stops for {:?} about every {:?}, {} shards × {} copies, load {}",
        options.leaves, options.stop, options.every, options.shards, options.copies, options.load
    );
    let mut report = report("tail", &title, options.seed, settings);
    let mut steps = Vec::new();
    for number in 0..options.runs {
        for stops in [false, true] {
            let kind = if stops { "with stops" } else { "without stops" };
            let name =
                if options.runs == 1 { kind.to_owned() } else { format!("{kind}, run {}", number + 1) };
            let seed = options.seed.wrapping_add(u64::from(number));
            let one = Step {
                name,
                pace: Pace::Open { rate, arrivals: Arrivals::Poisson },
                warm_up: Duration::from_secs(3),
                duration: options.duration,
                timeout: Duration::from_secs(10),
                in_flight_max: 10_000,
                seed,
            };
            let loaded = step(&target, &queries, &servers, &one);
            let run = if stops {
                tokio::select! {
                    run = loaded => run?,
                    failed = stopping(&cluster, &options, seed) => return failed,
                }
            } else {
                loaded.await?
            };
            report.notes.extend(doubts(&run, &one));
            report.runs.push(run);
            steps.push(one);
            for leaf in &cluster.nodes[1..] {
                leaf.signal("CONT")?;
            }
        }
    }
    report.settings["steps"] = serde_json::to_value(&steps)?;
    report.notes.push(verdict(&report.runs));
    finish(&report, &options.out)
}

/// Stops one leaf at a time, at random, until dropped.
async fn stopping(cluster: &Cluster, options: &Tail, seed: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed ^ 0x57a1);
    loop {
        let gap = -(1.0 - random.random::<f64>()).ln() * options.every.as_secs_f64();
        tokio::time::sleep(Duration::from_secs_f64(gap)).await;
        let leaf = &cluster.nodes[1 + random.random_range(0..options.leaves)];
        leaf.signal("STOP").context("a leaf ended")?;
        tokio::time::sleep(options.stop).await;
        leaf.signal("CONT").context("a leaf ended")?;
    }
}

/// What the stops did to the slowest queries, over all runs.
fn verdict(runs: &[Run]) -> String {
    let of = |kind: &str| {
        let mut sum = Histogram::default();
        for run in runs.iter().filter(|run| run.name.starts_with(kind)) {
            sum.add(&run.latency);
        }
        sum
    };
    let (calm, stopped) = (of("without stops"), of("with stops"));
    let at = |latency: &Histogram| latency.percentile(99.9) as f64 / 1e3;
    let wait = stopped.percentile(99.0) as f64 / 1e3;
    format!(
        "99.9 % of the queries were answered within {:.1} ms while leaves stopped, {:.1} ms while none did: {:.1} times. \
         99 % within {wait:.1} ms.",
        at(&stopped),
        at(&calm),
        at(&stopped) / at(&calm).max(0.001)
    )
}
