//! `bench overload`: more than a cluster can do, for a while.

use std::time::Duration;

use ::load::generator::doubts;
use ::load::report::{Moment, Run};
use ::load::schedule::{Arrivals, Phase};
use ::load::target::{Http, Shape};
use ::load::{Pace, Servers, Step};
use anyhow::{Result, ensure};
use serde_json::json;
use testkit::processes::Node;

use super::cli::Overload;
use super::{capacity, cluster, finish, report, step, writable};

const INDEX: &str = "bench-overload";
const QUERIES: usize = 2_000;
const WARM_UP: Duration = Duration::from_secs(2);

pub(super) async fn run(options: Overload) -> Result<()> {
    writable(&options.out)?;
    ensure!((1..=64).contains(&options.leaves), "--leaves must be 1 to 64");
    ensure!(options.load > 0.0 && options.load < 1.0, "--load is a share of the capacity below 1");
    ensure!(options.times > 1.0 && options.times <= 100.0, "--times is above 1 and up to 100");
    ensure!(options.calm >= Duration::from_secs(2), "--calm must be at least 2s");
    eprintln!("Starting {} leaves, a root and etcd.", options.leaves);
    let mut roles = vec!["root"];
    roles.resize(options.leaves + 1, "leaf");
    let nodes = cluster::start(roles).await?;
    let root = &nodes.nodes[0].client;
    eprintln!("Loading {} documents.", options.documents);
    let layout = (options.shards, options.copies);
    cluster::fill(root, INDEX, layout, options.documents, options.seed).await?;
    nodes.whole(0, options.copies as usize).await?;
    let queries = cluster::queries(QUERIES, options.seed);
    let target = Http::new(&[root.url().to_owned()], INDEX, queries.texts(), &Shape::new())?;
    let servers = Servers::of(root).await.with_processes(nodes.nodes.iter().filter_map(Node::pid));
    let able = capacity(&target, &queries, &servers, options.seed).await?;
    let phase = |times: f64, time| Phase { rate: able * times, time };
    let phases = vec![
        phase(options.load, WARM_UP + options.calm),
        phase(options.times, options.overload),
        phase(options.load, options.calm * 3),
    ];
    let one = Step {
        name: format!("{} times the capacity for {:?}", options.times, options.overload),
        pace: Pace::Phases { phases, arrivals: Arrivals::Poisson },
        warm_up: WARM_UP,
        duration: options.calm * 4 + options.overload,
        timeout: Duration::from_secs(10),
        in_flight_max: 10_000,
        seed: options.seed,
    };
    let settings = json!({
        "leaves": options.leaves, "shards": options.shards, "copies": options.copies,
        "documents": options.documents, "capacity_per_second": able, "step": one,
    });
    let title = format!(
        "{} times what {} leaves can do, for {:?}, between {} of it",
        options.times, options.leaves, options.overload, options.load
    );
    let mut report = report("overload", &title, options.seed, settings);
    let run = step(&target, &queries, &servers, &one).await?;
    report.notes.extend(doubts(&run, &one));
    report.notes.extend(verdict(&run, &options, able));
    report.runs.push(run);
    finish(&report, &options.out)
}

/// What became of the answers during the overload, and when all was as before.
fn verdict(run: &Run, options: &Overload, able: f64) -> Vec<String> {
    let begin = options.calm.as_secs_f64();
    let end = begin + options.overload.as_secs_f64();
    let between = |from: f64, to: f64| run.moments.iter().filter(move |at| at.at > from && at.at <= to);
    let mut usual: Vec<u64> = between(0.0, begin).map(|moment| moment.p99).collect();
    usual.sort_unstable();
    let Some(usual) = usual.get(usual.len() / 2).copied() else { return Vec::new() };
    let during: Vec<&Moment> = between(begin + 1.0, end).collect();
    let answered = during.iter().map(|moment| moment.answered).sum::<u64>() as f64;
    let seconds: f64 = during.iter().map(|moment| moment.seconds).sum();
    let mut notes = vec![format!(
        "During the overload {:.0} queries a second were answered: {:.0} % of the capacity in a closed loop.",
        answered / seconds.max(1.0),
        100.0 * answered / seconds.max(1.0) / able
    )];
    // Back is when it stays so for three seconds.
    let after: Vec<&Moment> = between(end, f64::INFINITY).collect();
    let calm = |moment: &&Moment| moment.p99 as f64 <= usual as f64 * 1.1 && moment.failed == 0;
    let back = after.windows(3).position(|three| three.iter().all(calm));
    notes.push(match back {
        Some(seconds) => format!(
            "The 99th percentile was back within 10 % of its usual {:.1} ms after {seconds} s.",
            usual as f64 / 1e3
        ),
        None => format!(
            "The 99th percentile was not back within 10 % of its usual {:.1} ms after {:.0} s: it was {:.1} ms.",
            usual as f64 / 1e3,
            (options.calm * 3).as_secs_f64(),
            after.last().map_or(0.0, |moment| moment.p99 as f64 / 1e3)
        ),
    });
    notes
}
