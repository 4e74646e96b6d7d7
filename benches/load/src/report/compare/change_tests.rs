//! Planted changes are found; where there is none, none is found.

use rand::RngExt;

use super::*;
use crate::report::sample::normal;
use crate::report::{Histogram, Moment};

/// Answers of each block.
const ANSWERS: u64 = 100;

/// Twenty blocks whose medians scatter by 6 %, times `factor`.
fn noisy(seed: u64, factor: f64) -> Run {
    let mut random = StdRng::seed_from_u64(seed);
    let mut run = Run { seconds: 20.0, ..Run::default() };
    for second in 0..20 {
        let median = 5_000.0 * factor * (0.06 * normal(&mut random)).exp();
        let mut block = Histogram::default();
        for _ in 0..ANSWERS {
            block.record((median * (0.3 * normal(&mut random)).exp()) as u64);
        }
        let failed = (0..ANSWERS).filter(|_| random.random::<f64>() < 0.02 * factor).count() as u64;
        run.moments.push(Moment {
            at: f64::from(second) + 1.0,
            seconds: 1.0,
            sent: ANSWERS + failed,
            answered: ANSWERS,
            failed,
            server_cpu: Some(0.5 * factor * (0.06 * normal(&mut random)).exp()),
            ..Moment::default()
        });
        run.latency.add(&block);
        run.blocks.push(block);
        run.sent += ANSWERS + failed;
        run.answered += ANSWERS;
    }
    run
}

fn of(changes: &[Change], figure: Figure) -> Change {
    changes.iter().find(|change| change.figure == figure).unwrap().clone()
}

/// How often each figure was given that verdict in a hundred comparisons.
fn verdicts(factor: f64, verdict: Verdict) -> Vec<(Figure, usize)> {
    let comparisons: Vec<Vec<Change>> =
        (0..100).map(|seed| changes(&noisy(2 * seed, 1.0), &noisy(2 * seed + 1, factor))).collect();
    [Figure::P50, Figure::P90, Figure::P99, Figure::Mean, Figure::CpuPerAnswer]
        .map(|figure| (figure, comparisons.iter().filter(|all| of(all, figure).verdict == verdict).count()))
        .to_vec()
}

#[test]
fn a_fifth_more_is_found_and_a_fifth_less() {
    for (factor, verdict) in [(1.2, Verdict::Worse), (1.0 / 1.2, Verdict::Better)] {
        for (figure, found) in verdicts(factor, verdict) {
            assert!(found >= 95, "{figure:?}: {found} of 100");
        }
    }
}

#[test]
fn equal_distributions_are_noise() {
    for (figure, found) in verdicts(1.0, Verdict::Noise) {
        assert!(found >= 90, "{figure:?}: {found} of 100");
        // An interval that were always wide would also pass.
        assert!(found < 100, "{figure:?} is never wrong, which 95 % intervals are");
    }
}

#[test]
fn the_interval_is_around_the_planted_ratio() {
    let change = of(&changes(&noisy(1, 1.0), &noisy(2, 1.2)), Figure::P50);
    let (low, high) = change.interval.unwrap();
    let ratio = change.ratio.unwrap();
    assert!(low < ratio && ratio < high && low < 1.2 && 1.2 < high && high - low < 0.2, "{change:?}");
}

#[test]
fn the_same_reports_give_the_same_words() {
    let (before, after) = (noisy(1, 1.0), noisy(2, 1.1));
    assert_eq!(changes(&before, &after), changes(&before, &after));
    // A run is not different from itself.
    assert!(changes(&before, &before).iter().all(|change| {
        change.verdict == if change.figure == Figure::P999 { Verdict::Unknown } else { Verdict::Noise }
    }));
}

#[test]
fn more_answers_are_better_and_more_failures_worse() {
    let (before, mut after) = (noisy(1, 1.0), noisy(2, 1.0));
    for index in 0..20 {
        let block = after.blocks[index].clone();
        after.blocks[index].add(&block);
        after.latency.add(&block);
        after.moments[index].failed += 20;
    }
    let changes = changes(&before, &after);
    let throughput = of(&changes, Figure::Throughput);
    assert_eq!((throughput.verdict, throughput.ratio), (Verdict::Better, Some(2.0)));
    assert_eq!(of(&changes, Figure::ShareFailed).verdict, Verdict::Worse);
}

#[test]
fn failures_where_there_were_none_are_judged_without_a_ratio() {
    let (mut before, mut after) = (noisy(1, 1.0), noisy(2, 1.0));
    before.moments.iter_mut().for_each(|moment| moment.failed = 0);
    let change = of(&changes(&before, &after), Figure::ShareFailed);
    assert_eq!((change.verdict, change.ratio, change.interval), (Verdict::Worse, None, None));
    // All of them at once may be a chance.
    after.moments.iter_mut().skip(1).for_each(|moment| moment.failed = 0);
    assert_eq!(of(&changes(&before, &after), Figure::ShareFailed).verdict, Verdict::Noise);
    after.moments[0].failed = 0;
    assert_eq!(of(&changes(&before, &after), Figure::ShareFailed).verdict, Verdict::Noise);
}

#[test]
fn too_little_is_said_instead_of_a_figure() {
    let run = noisy(1, 1.0);
    let change = of(&changes(&run, &noisy(2, 1.0)), Figure::P999);
    assert_eq!((change.before, change.ratio), (None, None));
    assert!(change.why.unwrap().contains("2000"), "two answers lie beyond 99.9 %");

    let mut short = run.clone();
    short.blocks.truncate(4);
    short.moments.truncate(4);
    for change in changes(&run, &short) {
        assert!(change.why.as_ref().is_some_and(|why| why.contains("too few")), "{change:?}");
    }
    let mut blind = run.clone();
    blind.moments.iter_mut().for_each(|moment| moment.server_cpu = None);
    assert_eq!(of(&changes(&run, &blind), Figure::CpuPerAnswer).why.unwrap(), "known only before");
    assert!(changes(&blind, &blind).iter().all(|change| change.figure != Figure::CpuPerAnswer));
}

#[test]
fn a_run_without_answers_is_compared_too() {
    let empty = Run { blocks: vec![Histogram::default(); 20], seconds: 20.0, ..Run::default() };
    let mut stopped = noisy(1, 1.0);
    stopped.blocks = empty.blocks.clone();
    stopped.latency = Histogram::default();
    for changes in
        [changes(&empty, &empty), changes(&noisy(1, 1.0), &stopped), changes(&stopped, &noisy(1, 1.0))]
    {
        let json = serde_json::to_string(&changes).unwrap();
        assert!(!json.contains("NaN") && !json.contains("inf"), "{json}");
    }
    let change = of(&changes(&noisy(1, 1.0), &stopped), Figure::Throughput);
    assert_eq!((change.verdict, change.after), (Verdict::Worse, Some(0.0)));
}
