//! Two reports of one benchmark, before and after a change.
//!
//! ```text
//! blocks of before ─┐  drawn again and again      interval contains 1: noise
//!                   ├─► ratios after / before ──► otherwise better or worse
//! blocks of after  ─┘
//! ```
//!
//! **Invariant:** no figure is given without its spread, and two comparisons of
//! the same reports say the same.
//!
//! The spread is that within the runs. Two runs of one program may differ by
//! more: the order of files, memory and neighbours is drawn anew for each.

mod bootstrap;
mod change;
mod differences;
mod print;

pub use change::{Change, Figure, Verdict};
pub use differences::Difference;

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Machine, Report, Run};

/// What became of each run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The report that is the measure.
    pub before: Side,
    /// The report that is measured by it.
    pub after: Side,
    /// Whether both ran on machines of the same kind: ratios between different
    /// ones mean little.
    pub same_machine: bool,
    /// What differs between both beside the figures.
    pub differences: Vec<Difference>,
    /// Each run that both have, in the order of the first report.
    pub runs: Vec<Compared>,
    /// Runs that only the first has.
    pub only_before: Vec<String>,
    /// Runs that only the second has.
    pub only_after: Vec<String>,
}

/// One of the two reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// Its title.
    pub title: String,
    /// When it began.
    pub started: String,
}

/// One run that both reports have.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// Its name.
    pub name: String,
    /// Each figure that either run has.
    pub changes: Vec<Change>,
}

/// Compares each run with the one of the same name.
///
/// # Errors
///
/// When the reports are of different benchmarks or have no run in common.
pub fn compare(before: &Report, after: &Report) -> Result<Comparison, String> {
    if before.benchmark != after.benchmark {
        return Err(format!(
            "these are reports of different benchmarks, `{}` and `{}`: compare two of the same",
            before.benchmark, after.benchmark
        ));
    }
    // Of runs with the same name the first meets the first.
    let mut partners: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
    for run in after.runs.iter().rev() {
        partners.entry(&run.name).or_default().push(run);
    }
    let mut runs = Vec::new();
    let mut differences = differences::between(before, after);
    let mut only_before = Vec::new();
    for run in &before.runs {
        let Some(partner) = partners.get_mut(run.name.as_str()).and_then(Vec::pop) else {
            only_before.push(run.name.clone());
            continue;
        };
        differences.extend(difference_of_load(run, partner));
        runs.push(Compared { name: run.name.clone(), changes: change::changes(run, partner) });
    }
    let only_after: Vec<String> = (partners.into_values().flatten()).map(|run| run.name.clone()).collect();
    if runs.is_empty() {
        return Err(format!(
            "no run has the same name in both reports: before there is {}, after {}",
            listed(&only_before),
            listed(&only_after)
        ));
    }
    let side = |report: &Report| Side { title: report.title.clone(), started: report.started.clone() };
    Ok(Comparison {
        before: side(before),
        after: side(after),
        same_machine: hardware(&before.machine) == hardware(&after.machine),
        differences,
        runs,
        only_before,
        only_after,
    })
}

/// The machine without the program on it.
fn hardware(machine: &Machine) -> (&str, &str, usize) {
    (&machine.system, &machine.processor, machine.cores)
}

fn difference_of_load(before: &Run, after: &Run) -> Option<Difference> {
    let offered = |run: &Run| run.offered.map_or("a closed loop".to_owned(), |rate| format!("{rate}/s"));
    (before.offered != after.offered).then(|| Difference {
        what: format!("offered in {}", before.name),
        before: offered(before),
        after: offered(after),
    })
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn named(names: &[&str]) -> Report {
        let mut report = sample::report(0);
        report.runs = names.iter().map(|name| Run { name: (*name).into(), ..Run::default() }).collect();
        report
    }

    #[test]
    fn runs_meet_by_name_and_the_others_are_told() {
        let found = compare(&named(&["a", "b", "a", "c"]), &named(&["c", "a", "d", "a", "a"])).unwrap();
        let names: Vec<&str> = found.runs.iter().map(|run| run.name.as_str()).collect();
        assert_eq!(names, ["a", "a", "c"]);
        assert_eq!(
            (found.only_before, found.only_after),
            (vec!["b".to_owned()], vec!["a".to_owned(), "d".to_owned()])
        );
    }

    #[test]
    fn what_has_nothing_in_common_is_refused() {
        let said = compare(&named(&["a"]), &named(&["b"])).unwrap_err();
        assert!(said.contains("before there is a, after b"), "{said}");
        let mut other = named(&["a"]);
        other.benchmark = "tail".into();
        let said = compare(&named(&["a"]), &other).unwrap_err();
        assert!(said.contains("`load` and `tail`"), "{said}");
    }

    #[test]
    fn another_load_and_another_machine_are_told() {
        let (mut before, mut after) = (named(&["a"]), named(&["a"]));
        before.runs[0].offered = Some(200.0);
        after.machine.processor = "another".into();
        let found = compare(&before, &after).unwrap();
        assert!(!found.same_machine);
        let what: Vec<&str> = found.differences.iter().map(|difference| difference.what.as_str()).collect();
        assert_eq!(what, ["machine.processor", "offered in a"]);
        let text = found.to_string();
        assert!(text.contains("different machines") && text.contains("a closed loop"), "{text}");
        // A new version of the program is what is usually compared.
        after = before.clone();
        after.machine.windrow = "0.2.0".into();
        assert!(compare(&before, &after).unwrap().same_machine);
    }
}
