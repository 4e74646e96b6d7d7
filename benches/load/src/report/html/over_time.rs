//! What one run did when.

use std::collections::BTreeMap;

use super::axis::Axis;
use super::plot::{Line, Plot};
use super::thin::{Keep, Point};
use crate::report::{Moment, Run, summary, units};

/// Counters that differ by more than this are not drawn on one axis: the
/// smaller would be a flat line.
const TOGETHER: f64 = 20.0;
/// Stretches of a plot that say their figures when pointed at.
const TIPS_MAX: usize = 100;

/// Every plot of a run for which it has moments.
pub(super) fn plots(run: &Run) -> Vec<Plot> {
    if run.moments.is_empty() {
        return Vec::new();
    }
    let mut plots = vec![latency(run), throughput(run)];
    plots.extend(cache(run));
    plots.extend(counters(run));
    plots.extend(cpu(run));
    plots
}

fn latency(run: &Run) -> Plot {
    let answered = |moment: &Moment, us: u64| (moment.answered > 0).then_some(us as f64);
    let lines = vec![
        Line { keep: Keep::Highest, ..line(run, "longest", 1, |moment| answered(moment, moment.max)) },
        line(run, "p99", 0, |moment| answered(moment, moment.p99)),
        line(run, "p50", 2, |moment| answered(moment, moment.p50)),
    ];
    let slowest = run.moments.iter().filter(|moment| moment.answered > 0).max_by_key(|moment| moment.max);
    let title = slowest.map_or("Latency over time".to_owned(), |moment| {
        format!(
            "The longest answer took {}, {} into the run",
            units::time(moment.max as f64),
            units::span((moment.at - moment.seconds).max(0.0).round())
        )
    });
    let values = values(&lines);
    Plot { title, x: Axis::seconds(end(run)), y: Axis::latency(values.into_iter()), lines, tips: tips(run) }
}

/// What the slowest moment of each stretch was like.
fn tips(run: &Run) -> Vec<(f64, f64, String)> {
    let tip = |part: &[Moment]| {
        let (first, last) = (part.first()?, part.last()?);
        let worst = part.iter().max_by_key(|moment| moment.max)?;
        let text = if worst.answered == 0 {
            format!("from {}: no answer", units::span(first.at - first.seconds))
        } else {
            format!(
                "at {}: p50 {}, p99 {}, longest {}",
                units::span(worst.at - worst.seconds),
                units::time(worst.p50 as f64),
                units::time(worst.p99 as f64),
                units::time(worst.max as f64)
            )
        };
        Some((first.at - first.seconds, last.at, text))
    };
    run.moments.chunks(run.moments.len().div_ceil(TIPS_MAX)).filter_map(tip).collect()
}

fn throughput(run: &Run) -> Plot {
    let mut lines = vec![
        Line { wide: true, ..line(run, "sent", 5, |moment| rate(moment, moment.sent as f64)) },
        line(run, "answered", 0, |moment| rate(moment, moment.answered as f64)),
    ];
    let mut title = format!("{} requests a second were answered", units::number(run.throughput()));
    if run.failures() > 0 {
        let failed = line(run, "failed", 1, |moment| rate(moment, moment.failed as f64));
        lines.push(Line { keep: Keep::Highest, ..failed });
        title += &format!(", {} of those sent failed", units::share(run.failures() as f64, run.sent as f64));
    } else {
        title += ", none failed";
    }
    linear(run, title, "requests per second", lines)
}

fn cache(run: &Run) -> Option<Plot> {
    let (hits, all) = summary::cache(run);
    if hits == 0 && run.moments.iter().all(|moment| moment.hits == 0) {
        return None;
    }
    let share =
        |moment: &Moment| (moment.answered > 0).then(|| 100.0 * moment.hits as f64 / moment.answered as f64);
    let title = format!("The cache gave {} of the answers", units::share(hits as f64, all as f64));
    Some(linear(run, title, "answers from the cache, in %", vec![line(run, "hits", 2, share)]))
}

fn cpu(run: &Run) -> Option<Plot> {
    let line = line(run, "servers", 3, |moment| moment.server_cpu);
    let values: Vec<f64> = line.points.iter().flatten().map(|(_, cores)| *cores).collect();
    if values.is_empty() {
        return None;
    }
    let most = values.iter().copied().fold(0.0, f64::max);
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let title =
        format!("The servers used {} cores on average, {} at most", units::cores(mean), units::cores(most));
    Some(linear(run, title, "cores", vec![line]))
}

/// Counters of like size share a plot; those that never moved have none.
fn counters(run: &Run) -> Vec<Plot> {
    let mut peaks: BTreeMap<&String, f64> = BTreeMap::new();
    for moment in &run.moments {
        for (name, grown) in &moment.counters {
            let peak = peaks.entry(name).or_default();
            *peak = peak.max(rate(moment, *grown).unwrap_or(0.0));
        }
    }
    let mut peaks: Vec<(&String, f64)> = peaks.into_iter().filter(|(_, peak)| *peak > 0.0).collect();
    peaks.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut groups: Vec<(f64, Vec<&String>)> = Vec::new();
    for (name, peak) in peaks {
        match groups.last_mut() {
            Some((top, names)) if peak * TOGETHER >= *top => names.push(name),
            _ => groups.push((peak, vec![name])),
        }
    }
    groups.into_iter().map(|(_, names)| counted(run, &names)).collect()
}

fn counted(run: &Run, names: &[&String]) -> Plot {
    let count = |moment: &Moment, name| moment.counters.get(name).and_then(|grown| rate(moment, *grown));
    let lines: Vec<Line> = names
        .iter()
        .enumerate()
        .map(|(style, name)| line(run, name, style, |moment| count(moment, *name)))
        .collect();
    let mean = |name: &str| run.counters.get(name).map_or(f64::NAN, |grown| grown / run.seconds);
    let told: Vec<String> =
        names.iter().map(|name| format!("{} {name}", units::number(mean(name)))).collect();
    linear(run, format!("The servers counted {} a second", listed(&told)), "per second", lines)
}

/// `a, b and c`.
fn listed(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [word] => word.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

fn linear(run: &Run, title: String, label: &str, lines: Vec<Line>) -> Plot {
    let values = values(&lines);
    Plot {
        title,
        x: Axis::seconds(end(run)),
        y: Axis::linear(label, values.into_iter()),
        lines,
        tips: Vec::new(),
    }
}

/// A line through the middles of the moments.
fn line(run: &Run, name: &str, style: usize, value: impl Fn(&Moment) -> Option<f64>) -> Line {
    let point = |moment: &Moment| -> Point {
        value(moment).filter(|value| value.is_finite()).map(|value| (moment.at - moment.seconds / 2.0, value))
    };
    let points = run.moments.iter().map(point).collect();
    Line { name: name.to_owned(), style, points, keep: Keep::Middle, wide: false, marks: Vec::new() }
}

fn values(lines: &[Line]) -> Vec<f64> {
    lines.iter().flat_map(|line| line.points.iter().flatten().map(|(_, value)| *value)).collect()
}

fn rate(moment: &Moment, count: f64) -> Option<f64> {
    (moment.seconds > 0.0).then(|| count / moment.seconds)
}

fn end(run: &Run) -> f64 {
    run.moments.iter().map(|moment| moment.at).fold(run.seconds, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(moments: usize) -> Run {
        let moment = |at: usize| Moment { at: at as f64 + 1.0, seconds: 1.0, sent: 10, ..Moment::default() };
        Run { seconds: moments as f64, moments: (0..moments).map(moment).collect(), ..Run::default() }
    }

    #[test]
    fn only_what_was_measured_is_drawn() {
        assert!(plots(&run(0)).is_empty());
        assert_eq!(plots(&run(3)).len(), 2);
        let mut full = run(3);
        full.moments[1].hits = 1;
        full.moments[1].server_cpu = Some(0.5);
        full.moments[1].counters.insert("hedges".into(), 2.0);
        full.moments[1].counters.insert("shed".into(), 0.0);
        assert_eq!(plots(&full).len(), 5);
    }

    #[test]
    fn seconds_without_an_answer_are_gaps() {
        let mut run = run(3);
        run.moments[1].answered = 1;
        run.moments[1].p50 = 5;
        assert_eq!(latency(&run).lines[2].points, [None, Some((1.5, 5.0)), None]);
        assert!(latency(&run).tips[0].2.contains("no answer"));
    }

    #[test]
    fn counters_of_unlike_size_have_plots_of_their_own() {
        let mut run = run(1);
        for (name, grown) in [("searches", 100.0), ("leaf calls", 1_600.0), ("hedges", 9.0), ("cancels", 5.0)]
        {
            run.moments[0].counters.insert(name.into(), grown);
            run.counters.insert(name.into(), grown);
        }
        let titles: Vec<String> = counters(&run).into_iter().map(|plot| plot.title).collect();
        let wanted = [
            "The servers counted 1,600 leaf calls and 100 searches a second",
            "The servers counted 9 hedges and 5 cancels a second",
        ];
        assert_eq!(titles, wanted);
    }
}
