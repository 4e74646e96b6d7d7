//! `bench sim`: clusters of any size in virtual time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use load::report::{Histogram, Run};
use testkit::simulator::{Scenario, simulate};

use super::cli::Sim;
use super::{finish, report, writable};

pub(super) fn run(options: &Sim) -> Result<()> {
    writable(&options.out)?;
    let mut scenarios = Vec::new();
    for file in &options.scenario {
        let mut scenario = Scenario::read(file)?;
        scenario.seed = options.seed.unwrap_or(scenario.seed);
        scenario.seeds = options.seeds.unwrap_or(scenario.seeds);
        scenario.check()?;
        scenarios.push(scenario);
    }
    if let (Some(file), Some(first)) = (&options.trace, scenarios.first()) {
        let lines = simulate(first, first.seed, true)?.trace;
        std::fs::write(file, lines.join("\n") + "\n")
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    let title = match &scenarios[..] {
        [one] => one.title.clone(),
        several => format!("{} simulated scenarios", several.len()),
    };
    let seed = scenarios.first().map_or(0, |scenario| scenario.seed);
    let mut report = report("sim", &title, seed, serde_json::to_value(&scenarios)?);
    for scenario in &scenarios {
        report.runs.push(seeds(scenario)?);
    }
    finish(&report, &options.out)
}

/// Runs every seed, as many side by side as there are cores.
fn seeds(scenario: &Scenario) -> Result<Run> {
    let (next, runs) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let seeds: Vec<u64> = (0..u64::from(scenario.seeds)).map(|n| scenario.seed.wrapping_add(n)).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(seeds.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let run = simulate(scenario, *seed, false).map(|outcomes| outcomes.run);
                    runs.lock().unwrap_or_else(PoisonError::into_inner).push((*seed, run));
                }
            });
        }
    });
    let mut runs = runs.into_inner().unwrap_or_else(PoisonError::into_inner);
    runs.sort_by_key(|(seed, _)| *seed);
    let runs = runs.into_iter().map(|(_, run)| run).collect::<Result<Vec<Run>>>()?;
    Ok(merge(&scenario.title, runs))
}

/// One run of several: a block for each seed, so that their differences are the
/// spread, and the figures that simulations are compared by.
fn merge(title: &str, runs: Vec<Run>) -> Run {
    let count = runs.len().max(1) as f64;
    let mut sum = Run { name: title.to_owned(), ..Run::default() };
    for (percentile, name) in [(50.0, "p50"), (99.0, "p99"), (99.9, "p99.9")] {
        let each: Vec<f64> = runs.iter().map(|run| run.latency.percentile(percentile) as f64 / 1e3).collect();
        let mean = each.iter().sum::<f64>() / count;
        let spread = each.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
        sum.figures.insert(format!("{name}, mean of seeds, ms"), mean);
        sum.figures.insert(format!("{name}, spread of seeds, ms"), spread.sqrt());
    }
    sum.blocks = runs.iter().map(|run| run.latency.clone()).collect::<Vec<Histogram>>();
    for run in runs {
        sum.offered = run.offered;
        sum.seconds += run.seconds;
        sum.sent += run.sent;
        sum.answered += run.answered;
        sum.own_cpu += run.own_cpu;
        sum.latency.add(&run.latency);
        sum.lag.add(&run.lag);
        for (why, failed) in run.failed {
            *sum.failed.entry(why).or_default() += failed;
        }
        for (name, counted) in run.counters {
            *sum.counters.entry(name).or_default() += counted;
        }
        for (name, figure) in run.figures {
            *sum.figures.entry(name).or_default() += figure / count;
        }
        if sum.moments.is_empty() {
            // Of the first seed: those of several do not add up.
            sum.moments = run.moments;
        }
    }
    let calls = sum.counters.get("leaf calls").copied().unwrap_or(0.0);
    sum.figures.insert("leaf calls a query".into(), calls / (sum.sent.max(1) as f64));
    sum
}
