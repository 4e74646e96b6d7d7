//! What a reader must know beside the figures.

use super::{Report, Run, units};

/// Reasons of failures that are named; the rest are counted.
const REASONS: usize = 5;
/// Below this, in µs, no generator is called late: timers are no finer.
const LATE: u64 = 1_000;

/// The notes of a report, and what its figures themselves warn of.
pub(super) fn of(report: &Report) -> Vec<String> {
    let mut notes = report.notes.clone();
    for run in &report.runs {
        // The generator may have said so itself.
        let said = format!("{}: the generator ", run.name);
        if !report.notes.iter().any(|note| note.starts_with(&said)) {
            notes.extend(late(run));
        }
    }
    notes.extend(failures(&report.runs));
    notes
}

fn late(run: &Run) -> Option<String> {
    let (lag, latency) = (run.lag.percentile(99.0), run.latency.percentile(99.0));
    (lag > LATE.max(latency / 10)).then(|| {
        format!(
            "{}: the generator itself was late: it sent 1 % of the requests more than {} after their time, and that \
             is part of the latencies.",
            run.name,
            units::time(lag as f64)
        )
    })
}

/// One note for all runs: the reasons are mostly the same.
fn failures(runs: &[Run]) -> Option<String> {
    let told: Vec<String> = runs.iter().filter(|run| run.failures() > 0).map(reasons).collect();
    (!told.is_empty()).then(|| format!("Failed: {}.", told.join("; ")))
}

fn reasons(run: &Run) -> String {
    let mut reasons: Vec<(&String, u64)> =
        run.failed.iter().map(|(reason, count)| (reason, *count)).collect();
    reasons.retain(|(_, count)| *count > 0);
    reasons.sort_by(|(a, more), (b, less)| less.cmp(more).then(a.cmp(b)));
    let count = |count: u64| units::number(count as f64);
    let mut named: Vec<String> =
        reasons.iter().take(REASONS).map(|(reason, times)| format!("{} × {reason}", count(*times))).collect();
    let rest: u64 = reasons.iter().skip(REASONS).map(|(_, times)| times).sum();
    if rest > 0 {
        named.push(format!("{} × other reasons", count(rest)));
    }
    format!("{}: {}", run.name, named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn run(lag: u64, latency: u64) -> Run {
        let mut run = Run { name: "200/s".into(), ..Run::default() };
        run.lag.record(lag);
        run.latency.record(latency);
        run
    }

    #[test]
    fn a_late_generator_is_told_once() {
        assert_eq!(late(&run(900, 2_000)), None, "within a millisecond");
        assert_eq!(late(&run(4_000, 50_000)), None, "within a tenth");
        let said = late(&run(6_000, 50_000)).unwrap();
        assert!(said.contains("the generator itself was late") && said.contains("6.0"), "{said}");

        let mut report = sample::report(0);
        report.runs = vec![run(6_000, 50_000)];
        report.notes.clear();
        assert_eq!(of(&report).len(), 1);
        report.notes = vec!["200/s: the generator fell behind.".into()];
        assert_eq!(of(&report), report.notes);
    }

    #[test]
    fn the_most_frequent_reasons_are_named() {
        let mut run = run(0, 0);
        run.failed = (1..=8).map(|count| (format!("reason {count}"), count)).collect();
        let said = failures(&[run.clone(), Run::default(), run]).unwrap();
        assert!(said.starts_with("Failed: 200/s: 8 × reason 8, 7 × reason 7"), "{said}");
        assert!(said.ends_with("4 × reason 4, 6 × other reasons."), "{said}");
        assert_eq!(said.matches("200/s").count(), 2, "{said}");
        assert_eq!(failures(&[Run::default()]), None);
    }
}
