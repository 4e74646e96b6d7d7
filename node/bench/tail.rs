//! `bench tail`: one leaf after another stands still.

use std::time::Duration;

use ::load::generator::doubts;
use ::load::report::{Histogram, Run};
use ::load::schedule::Arrivals;
use ::load::target::{Http, Shape};
use ::load::{Pace, Queries, Servers, Step};
use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use testkit::processes::{Cluster, Node};

use super::cli::Tail;
use super::{capacity, cluster, finish, report, step, writable};
use crate::output::errln;

const INDEX: &str = "bench-tail";
/// Leaves at most: they share this machine.
const LEAVES_MAX: usize = 64;
const QUERIES: usize = 2_000;
/// One that is asked for nothing and has all other duties, one that hedges and
/// one that does not.
const ROOTS: usize = 3;
/// Short runs without stops, each once with hedging and once without.
const PAIRS: u64 = 20;
const PAIRED: Duration = Duration::from_secs(3);

/// What a run is like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Calm,
    Stops,
    Unhedged,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Calm, Self::Stops, Self::Unhedged];

    fn name(self) -> &'static str {
        match self {
            Self::Calm => "without stops",
            Self::Stops => "with stops",
            Self::Unhedged => "with stops, hedging off",
        }
    }

    fn hedges(self) -> bool {
        matches!(self, Self::Calm | Self::Stops)
    }

    fn stops(self) -> bool {
        matches!(self, Self::Stops | Self::Unhedged)
    }
}

pub(super) async fn run(options: Tail) -> Result<()> {
    writable(&options.out)?;
    ensure!((1..=LEAVES_MAX).contains(&options.leaves), "--leaves must be 1 to {LEAVES_MAX}");
    ensure!(options.load > 0.0 && options.load < 10.0, "--load is a share of the capacity, such as 0.3");
    ensure!(options.runs > 0, "--runs must be above 0");
    ensure!(options.stop < options.every * 100, "--stop is longer than a hundred times --every");
    errln!("Starting {} leaves, three roots and etcd.", options.leaves);
    let mut roles = vec!["root"; ROOTS];
    roles.resize(options.leaves + ROOTS, "leaf");
    let own = vec![Vec::new(), Vec::new(), vec!["--hedging=false".to_owned()]];
    let cluster = cluster::start(roles, own).await?;
    let root = &cluster.nodes[0];
    errln!("Loading {} documents.", options.documents);
    let layout = (options.shards, options.copies);
    cluster::fill(&root.client, INDEX, layout, options.documents, options.seed).await?;
    cluster.whole(0, options.copies as usize).await?;

    let queries = cluster::queries(QUERIES, options.seed);
    let target =
        |root: &Node| Http::new(&[root.client.url().to_owned()], INDEX, queries.texts(), &Shape::new());
    let (hedging, plain) = (target(&cluster.nodes[1])?, target(&cluster.nodes[2])?);
    let servers = Servers::of(&root.client).await.with_processes(cluster.nodes.iter().filter_map(Node::pid));
    let able = capacity(&hedging, &queries, &servers, options.seed).await?;
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
        // There and back, so that none is always the first.
        let mut kinds = Kind::ALL;
        if number % 2 == 1 {
            kinds.reverse();
        }
        let mut runs = Vec::new();
        for kind in kinds {
            let name = match options.runs {
                1 => kind.name().to_owned(),
                _ => format!("run {}, {}", number + 1, kind.name()),
            };
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
            let target = if kind.hedges() { &hedging } else { &plain };
            let loaded = step(target, &queries, &servers, &one);
            let run = if kind.stops() {
                tokio::select! {
                    run = loaded => run?,
                    failed = stopping(&cluster, &options, seed) => return failed,
                }
            } else {
                loaded.await?
            };
            report.notes.extend(doubts(&run, &one));
            runs.push((kind, run, one));
            for leaf in &cluster.nodes[ROOTS..] {
                leaf.signal("CONT")?;
            }
        }
        runs.sort_by_key(|(kind, _, _)| *kind as usize);
        for (_, run, one) in runs {
            report.runs.push(run);
            steps.push(one);
        }
    }
    report.settings["steps"] = serde_json::to_value(&steps)?;
    let verdicts = report.runs.chunks(Kind::ALL.len()).map(verdict);
    report.notes.extend(verdicts.collect::<Vec<_>>());
    let load = Load { rate, queries: &queries, servers: &servers, seed: options.seed };
    report.notes.push(paired(&hedging, &plain, &load).await?);
    finish(&report, &options.out)
}

/// Stops one leaf at a time, at random, until dropped.
async fn stopping(cluster: &Cluster, options: &Tail, seed: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed ^ 0x57a1);
    loop {
        let gap = -(1.0 - random.random::<f64>()).ln() * options.every.as_secs_f64();
        tokio::time::sleep(Duration::from_secs_f64(gap)).await;
        let leaf = &cluster.nodes[ROOTS + random.random_range(0..options.leaves)];
        leaf.signal("STOP").context("a leaf ended")?;
        tokio::time::sleep(options.stop).await;
        leaf.signal("CONT").context("a leaf ended")?;
    }
}

struct Load<'a> {
    rate: f64,
    queries: &'a Queries,
    servers: &'a Servers,
    seed: u64,
}

/// What hedging costs where nothing stops. A shared machine is faster in one
/// minute than in the next: both take short turns, first one and then the other.
async fn paired(hedging: &Http, plain: &Http, load: &Load<'_>) -> Result<String> {
    let mut sides = [(hedging, Histogram::default(), 0.0), (plain, Histogram::default(), 0.0)];
    let mut p99s = [Vec::new(), Vec::new()];
    for turn in 0..2 * PAIRS {
        // With, without, without, with.
        let (pair, second) = (turn / 2, turn % 2);
        let side = ((pair + second) % 2) as usize;
        let (target, latencies, cpu) = &mut sides[side];
        let one = Step {
            name: format!("turn {} of {}", turn + 1, 2 * PAIRS),
            pace: Pace::Open { rate: load.rate, arrivals: Arrivals::Poisson },
            warm_up: Duration::from_secs(1),
            duration: PAIRED,
            timeout: Duration::from_secs(10),
            in_flight_max: 10_000,
            seed: load.seed.wrapping_add(pair),
        };
        let run = step(target, load.queries, load.servers, &one).await?;
        p99s[side].push(run.latency.percentile(99.0) as f64);
        latencies.add(&run.latency);
        *cpu += run.server_cpu.unwrap_or_default();
    }
    let [with, without] = sides.map(|(_, latencies, cpu)| {
        let cpu = 1e6 * cpu / (latencies.len() as f64).max(1.0);
        ([50.0, 99.0, 99.9].map(|percentile| latencies.percentile(percentile) as f64 / 1e3), cpu)
    });
    let [hedged, unhedged] = p99s;
    let mut ratios: Vec<f64> = hedged.iter().zip(unhedged).map(|(one, other)| one / other.max(1.0)).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let quartile = |part: usize| ratios[ratios.len() * part / 4];
    let times = |place: usize| with.0[place] / without.0[place].max(0.001);
    Ok(format!(
        "Hedging where nothing stops, in {PAIRS} pairs of {PAIRED:?}: p50 {:.2} ms with and {:.2} ms without ({:.2} \
         times), p99 {:.2} and {:.2} ms ({:.2} times), p99.9 {:.1} and {:.1} ms ({:.2} times); CPU of the servers per \
         answer {:.0} and {:.0} µs. Of the pairs' ratios at p99 the median is {:.2}, half are within {:.2} and {:.2}.",
        with.0[0],
        without.0[0],
        times(0),
        with.0[1],
        without.0[1],
        times(1),
        with.0[2],
        without.0[2],
        times(2),
        with.1,
        without.1,
        quartile(2),
        quartile(1),
        quartile(3),
    ))
}

/// What the stops did to the slowest queries of one run of each kind.
fn verdict(runs: &[Run]) -> String {
    let at = |kind: Kind, percentile| {
        runs.get(kind as usize).map_or(0.0, |run| run.latency.percentile(percentile) as f64 / 1e3)
    };
    let of = |name: &str| {
        let stops = runs.get(Kind::Stops as usize);
        stops.and_then(|run| run.counters.get(name)).copied().unwrap_or_default()
    };
    let further = of("hedges") + of("retries");
    let firsts = of("leaf calls") - further;
    let cpu = runs.get(Kind::Stops as usize).and_then(|run| run.server_cpu).unwrap_or_default().max(0.01);
    format!(
        "99.9 % of the queries within {:.1} ms without stops, {:.1} ms with them ({:.1} times), {:.1} ms with them and \
         no hedging; 99 % within {:.1}, {:.1} and {:.1} ms. Further sends {:.2} % and pings {:.0} % of the calls: {} hedges, of which {} won, and {} retries. Work that was cancelled took {:.2} % of the servers' CPU at \
         most, and after the cancel {:.2} %.",
        at(Kind::Calm, 99.9),
        at(Kind::Stops, 99.9),
        at(Kind::Stops, 99.9) / at(Kind::Calm, 99.9).max(0.001),
        at(Kind::Unhedged, 99.9),
        at(Kind::Calm, 99.0),
        at(Kind::Stops, 99.0),
        at(Kind::Unhedged, 99.0),
        100.0 * further / firsts.max(1.0),
        100.0 * of("pings") / of("leaf calls").max(1.0),
        of("hedges"),
        of("hedges won"),
        of("retries"),
        of("leaf µs of cancelled work") / 1e4 / cpu,
        100.0 * of("leaf seconds after a cancel") / cpu,
    )
}
