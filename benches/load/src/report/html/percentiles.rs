//! Latency by percentile: one line for each run.

use super::axis::Axis;
use super::plot::{Line, Plot};
use super::thin::Keep;
use crate::report::{Histogram, Run, units};

/// Fewer answers beyond a percentile do not hold it in place.
const BEYOND_MIN: f64 = 10.0;
/// The furthest that is drawn.
const REACH: f64 = 0.9999;
/// Points for each tenfold of the rest.
const STEPS: f64 = 40.0;
/// Shares that are marked and may be told in the title.
const MARKS: [(f64, &str); 5] =
    [(0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")];

/// The plot of all runs that have enough answers.
pub(super) fn plot(runs: &[Run]) -> Plot {
    let lines: Vec<Line> = runs.iter().enumerate().map(|(style, run)| line(run, style)).collect();
    let reach = runs.iter().filter_map(|run| reach(&run.latency)).fold(0.5, f64::max);
    let values = || lines.iter().flat_map(|line| line.points.iter().flatten().map(|(_, us)| *us));
    Plot { title: title(runs), x: Axis::shares(reach), y: Axis::latency(values()), lines, tips: Vec::new() }
}

fn line(run: &Run, style: usize) -> Line {
    let reach = reach(&run.latency).unwrap_or(0.0);
    let at = |share: f64| run.latency.percentile(100.0 * share) as f64;
    // From the median, in equal steps of the axis, to the reach itself.
    let rest = |share: f64| -(1.0 - share).log10();
    let steps = ((rest(reach) - rest(0.5)) * STEPS).ceil().max(0.0) as u32;
    let shares = (0..steps).map(|step| 1.0 - 10_f64.powf(-rest(0.5) - f64::from(step) / STEPS));
    let enough = reach >= 0.5;
    let points = shares.chain(enough.then_some(reach)).map(|share| Some((share, at(share)))).collect();
    let mark = |(share, text): (f64, &str)| {
        (share, at(share), format!("{}: {text} within {}", run.name, units::time(at(share))))
    };
    let marks = MARKS.into_iter().filter(|(share, _)| enough && *share <= reach + 1e-9).map(mark).collect();
    Line { name: run.name.clone(), style, points, keep: Keep::Middle, wide: false, marks }
}

/// The largest share with enough answers beyond it, if that is half of them.
fn reach(latency: &Histogram) -> Option<f64> {
    let reach = 1.0 - BEYOND_MIN / latency.len() as f64;
    (reach >= 0.5).then_some(reach.min(REACH))
}

fn title(runs: &[Run]) -> String {
    let told: Vec<&Histogram> =
        runs.iter().map(|run| &run.latency).filter(|run| reach(run).is_some()).collect();
    // As far as every run reaches.
    let reach = told.iter().filter_map(|run| reach(run)).fold(REACH, f64::min);
    // The 99.99th is rarely worth a sentence, and the median alone is.
    let far = MARKS[1..4].iter().rev().find(|(share, _)| *share <= reach + 1e-9);
    let half = within(&told, 0.5);
    match far {
        _ if told.is_empty() => "Latency by percentile".to_owned(),
        Some((share, text)) => {
            format!("Half of the answers came within {half}, {text} within {}", within(&told, *share))
        }
        None => format!("Half of the answers came within {half}"),
    }
}

/// The latency at a share, or the range of it over several runs.
fn within(runs: &[&Histogram], share: f64) -> String {
    let at = || runs.iter().map(|run| run.percentile(100.0 * share));
    let shown = |us: Option<u64>| us.map_or(units::NONE.to_owned(), |us| units::time(us as f64));
    let (low, high) = (shown(at().min()), shown(at().max()));
    if low == high { low } else { format!("{low} to {high}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(answers: u64, us: u64) -> Run {
        let mut run = Run { name: "a".into(), ..Run::default() };
        (0..answers).for_each(|_| run.latency.record(us));
        run
    }

    #[test]
    fn a_line_ends_where_the_answers_do() {
        let end =
            |answers| line(&run(answers, 1_000), 0).points.last().copied().flatten().map(|(share, _)| share);
        assert_eq!(end(19), None);
        assert_eq!(end(1_000), Some(0.99));
        assert_eq!(end(10_000_000), Some(REACH));
        assert_eq!(line(&run(1_000, 1_000), 0).marks.len(), 3);
    }

    #[test]
    fn the_title_says_what_is_seen() {
        let one = title(&[run(10_000, 4_100)]);
        assert_eq!(one, "Half of the answers came within 4.10 ms, 99.9 % within 4.10 ms");
        // The shorter run is not claimed beyond its reach, the empty one not at all.
        let three = title(&[run(10_000, 4_100), run(1_000, 5_000), run(0, 0)]);
        assert_eq!(
            three,
            "Half of the answers came within 4.10 ms to 5.00 ms, 99 % within 4.10 ms to 5.00 ms"
        );
        assert_eq!(title(&[]), "Latency by percentile");
    }
}
