//! A comparison as text.

use std::fmt;

use super::{Change, Comparison, Difference, Figure, Side, Verdict};
use crate::report::units::{self, NONE};

/// An interval of 95 % misses the truth once in this many.
const MISSES_ONE_IN: usize = 20;
/// The longest name or title that is printed whole.
const NAME_MAX: usize = 60;

impl fmt::Display for Comparison {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(to, "before: {}", self.before)?;
        writeln!(to, "after:  {}", self.after)?;
        if !self.same_machine {
            writeln!(to, "\nThey ran on different machines: the ratios mean little.")?;
        }
        if !self.differences.is_empty() {
            writeln!(to, "\nwhat differs:")?;
        }
        for difference in &self.differences {
            writeln!(to, "  {difference}")?;
        }
        for run in &self.runs {
            let name = units::clipped(&run.name, NAME_MAX);
            writeln!(to, "\n{name}")?;
            writeln!(to, "  {:14}  {:>9}  {:>9}  {:>6}  95 % interval", "", "before", "after", "ratio")?;
            for change in &run.changes {
                writeln!(to, "  {change}")?;
            }
        }
        writeln!(to)?;
        for (when, names) in [("before", &self.only_before), ("after", &self.only_after)] {
            if !names.is_empty() {
                let names: Vec<String> = names.iter().map(|name| units::clipped(name, NAME_MAX)).collect();
                writeln!(to, "Only {when}, without a partner: {}.", names.join(", "))?;
            }
        }
        let judged =
            self.runs.iter().flat_map(|run| &run.changes).filter(|change| change.why.is_none()).count();
        if judged >= MISSES_ONE_IN {
            let by_chance = judged / MISSES_ONE_IN;
            writeln!(
                to,
                "Of {judged} figures, about {by_chance} would be called different by chance alone."
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Side {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}, {}", units::clipped(&self.started, NAME_MAX), units::clipped(&self.title, NAME_MAX))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}: {} before, {} after", units::clipped(&self.what, NAME_MAX), self.before, self.after)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.figure.to_string();
        if let Some(why) = &self.why {
            return write!(to, "{name:14}  {why}");
        }
        let shown = |value: Option<f64>| value.map_or(NONE.to_owned(), |value| self.figure.shown(value));
        let (before, after) = (shown(self.before), shown(self.after));
        let ratio = self.ratio.map_or(NONE.to_owned(), times);
        let interval =
            self.interval.map_or(NONE.to_owned(), |(low, high)| format!("{} to {}", times(low), times(high)));
        write!(to, "{name:14}  {before:>9}  {after:>9}  {ratio:>6}  {interval:14}  {}", self.words())
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Mean => "mean",
            Self::Throughput => "answered per s",
            Self::CpuPerAnswer => "CPU per answer",
            Self::ShareFailed => "failed",
        })
    }
}

impl Figure {
    fn shown(self, value: f64) -> String {
        match self {
            Self::Throughput => units::number(value),
            Self::ShareFailed => units::share(value, 1.0),
            Self::CpuPerAnswer => format!("{} µs", units::number(value.round())),
            _ => units::time(value),
        }
    }
}

impl Change {
    /// What the change means, in words that say whether it is a good one.
    #[must_use]
    pub fn words(&self) -> &'static str {
        use Figure::{CpuPerAnswer, ShareFailed, Throughput};
        match (self.verdict, self.figure) {
            (Verdict::Noise, _) => "noise",
            (Verdict::Unknown, _) => "unknown",
            (Verdict::Better, Throughput) => "more (better)",
            (Verdict::Worse, Throughput) => "less (worse)",
            (Verdict::Better, CpuPerAnswer | ShareFailed) => "less (better)",
            (Verdict::Worse, CpuPerAnswer | ShareFailed) => "more (worse)",
            (Verdict::Better, _) => "faster",
            (Verdict::Worse, _) => "slower",
        }
    }
}

/// A ratio, to the digits that a spread leaves standing.
fn times(ratio: f64) -> String {
    match ratio {
        ratio if !ratio.is_finite() => NONE.to_owned(),
        ratio if ratio < 10.0 => format!("{ratio:.3}"),
        ratio => units::number(ratio),
    }
}

#[cfg(test)]
mod tests {
    use super::super::compare;
    use crate::report::{Run, sample};

    #[test]
    fn a_comparison_reads_well() {
        let before = sample::report(2);
        let mut after = before.clone();
        after.runs = vec![sample::run(2), sample::run(3)];
        after.runs[0].blocks.reverse();
        let comparison = compare(&before, &after).unwrap();
        let text = comparison.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        for said in [
            "\n400/s\n",
            "p99.9 ",
            "noise",
            "Only before, without a partner: 200/s.",
            "after, without a partner: 600/s.",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
        assert!(!text.contains("what differs") && !text.contains("different machines"), "{text}");
        let json = serde_json::to_value(&comparison).unwrap();
        assert_eq!(json["runs"][0]["changes"][0]["figure"], "p50");
        assert_eq!(json["runs"][0]["changes"][0]["verdict"], "noise");
    }

    #[test]
    fn an_empty_run_reads_well() {
        let mut report = sample::report(1);
        report.runs = vec![Run { name: "nothing".into(), ..Run::default() }];
        let text = compare(&report, &report).unwrap().to_string();
        assert!(text.contains("too few blocks") && text.contains("too few moments"), "{text}");
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}
