//! The figures of each run as columns, for the table and the page alike.

use std::collections::BTreeSet;

use super::units::{self, NONE};
use super::{Report, Run};

/// What a column is about: a table that is too wide is parted between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// Which run, and how much of it.
    Load,
    /// How long answers took.
    Latency,
    /// What the answers were, and what they cost.
    Answers,
}

/// One figure of every run.
#[derive(Clone, Debug)]
pub(super) struct Column {
    /// Its head in two short lines.
    pub(super) head: [&'static str; 2],
    pub(super) about: About,
    /// A cell for each run.
    pub(super) cells: Vec<String>,
}

/// Every column for which some run has a figure; not the names.
pub(super) fn columns(runs: &[Run]) -> Vec<Column> {
    use About::{Answers, Latency, Load};
    let any = |some: fn(&Run) -> bool| runs.iter().any(some);
    let mut columns = Vec::new();
    let mut add = |head, about, cell: &dyn Fn(&Run) -> String| {
        let cells: Vec<String> = runs.iter().map(cell).collect();
        if cells.iter().any(|cell| cell != NONE) {
            columns.push(Column { head, about, cells });
        }
    };
    add(["offered", "per s"], Load, &|run| run.offered.map_or(NONE.to_owned(), units::number));
    add(["answered", "per s"], Load, &|run| units::number(run.throughput()));
    add(["p50", ""], Latency, &|run| at(run, 50.0));
    add(["p90", ""], Latency, &|run| at(run, 90.0));
    add(["p99", ""], Latency, &|run| at(run, 99.0));
    add(["p99.9", ""], Latency, &|run| at(run, 99.9));
    add(["max", ""], Latency, &|run| at(run, 100.0));
    add(["failed", ""], Answers, &failed);
    if any(|run| run.empty > 0) {
        add(["empty", ""], Answers, &|run| units::share(run.empty as f64, run.answered as f64));
    }
    add(["cache", "hits"], Answers, &|run| {
        let (hits, all) = cache(run);
        units::share(hits as f64, all as f64)
    });
    add(["CPU per", "answer"], Answers, &|run| {
        cpu_per_answer(run).map_or(NONE.to_owned(), |us| format!("{} µs", units::number(us.round())))
    });
    add(["cores", "used"], Answers, &|run| {
        let cores = run.server_cpu.filter(|_| run.seconds > 0.0).map(|cpu| cpu / run.seconds);
        cores.map_or(NONE.to_owned(), units::cores)
    });
    columns
}

/// The figures that only this benchmark has: a name, and a cell for each run.
pub(super) fn figures(report: &Report) -> Vec<(String, Vec<String>)> {
    let names: BTreeSet<&String> = report.runs.iter().flat_map(|run| run.figures.keys()).collect();
    let cell = |run: &Run, name| run.figures.get(name).map_or(NONE.to_owned(), |value| units::number(*value));
    names
        .into_iter()
        .map(|name| (name.clone(), report.runs.iter().map(|run| cell(run, name)).collect()))
        .collect()
}

/// Answers from the cache, and those of which it said anything.
pub(super) fn cache(run: &Run) -> (u64, u64) {
    (run.cache.get("hit").copied().unwrap_or(0), run.cache.values().sum())
}

/// CPU time of the servers for one good answer, in µs.
pub(super) fn cpu_per_answer(run: &Run) -> Option<f64> {
    run.server_cpu.filter(|_| run.answered > 0).map(|cpu| cpu * 1e6 / run.answered as f64)
}

/// A percentile, where at least one value lies beyond it; 100 is the longest.
fn at(run: &Run, percentile: f64) -> String {
    let beyond = run.latency.len() as f64 * (1.0 - percentile / 100.0);
    // A hair of tolerance: 1 - 0.99 is not quite a hundredth.
    if run.latency.is_empty() || (percentile < 100.0 && beyond < 1.0 - 1e-9) {
        return NONE.to_owned();
    }
    units::time(run.latency.percentile(percentile) as f64)
}

fn failed(run: &Run) -> String {
    match run.failures() {
        0 if run.sent == 0 => NONE.to_owned(),
        0 => "0".to_owned(),
        count => {
            format!("{} ({})", units::number(count as f64), units::share(count as f64, run.sent as f64))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn heads(runs: &[Run]) -> Vec<&'static str> {
        columns(runs).iter().map(|column| column.head[0]).collect()
    }

    #[test]
    fn a_column_that_says_nothing_is_left_out() {
        let mut run = Run { seconds: 1.0, sent: 100, answered: 100, ..Run::default() };
        (0..100).for_each(|us| run.latency.record(us));
        assert_eq!(heads(&[run.clone()]), ["answered", "p50", "p90", "p99", "max", "failed"]);
        let full = sample::run(1);
        assert!(heads(&[run, full]).ends_with(&["failed", "empty", "cache", "CPU per", "cores"]));
    }

    #[test]
    fn a_percentile_beyond_which_nothing_lies_is_not_claimed() {
        let mut run = Run::default();
        (0..99).for_each(|_| run.latency.record(1_000));
        assert_eq!(at(&run, 99.0), NONE);
        run.latency.record(1_000);
        assert_eq!(at(&run, 99.0), "1.00 ms");
        assert_eq!(at(&Run::default(), 100.0), NONE);
    }
}
