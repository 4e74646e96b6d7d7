//! How one run's figures changed.

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;

use super::bootstrap::{self, Latencies, Stretch, draw, ratio, together};
use crate::report::Run;

/// How often blocks are drawn: 25 draws are beyond each end of the interval.
const DRAWS: usize = 1_000;
/// Fewer blocks do not show how much they differ.
const BLOCKS_MIN: usize = 5;
/// Fewer samples beyond a percentile do not hold it in place.
const BEYOND_MIN: u64 = 10;
/// Latencies are kept to three digits: ratios this near to 1 are not told apart.
const RESOLUTION: f64 = 0.002;
/// Any will do, as long as it is always the same.
const SEED: u64 = 0x005e_ed0f_b10c;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Latency in µs at the median.
    P50,
    /// At the 90th percentile.
    P90,
    /// At the 99th.
    P99,
    /// At the 99.9th.
    P999,
    /// Mean latency in µs.
    Mean,
    /// Good answers a second.
    Throughput,
    /// CPU time of the servers for each good answer, in µs.
    CpuPerAnswer,
    /// The share of requests that failed, from 0 to 1.
    ShareFailed,
}

/// Whether a change is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The interval contains 1.
    Noise,
    /// It does not, and the new figure is the better one.
    Better,
    /// It does not, and the old figure was the better one.
    Worse,
    /// Nothing can be said.
    Unknown,
}

/// What became of one figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Which one.
    pub figure: Figure,
    /// What it was; `None` where nothing can be said.
    pub before: Option<f64>,
    /// What it is.
    pub after: Option<f64>,
    /// After divided by before, where both are above 0.
    pub ratio: Option<f64>,
    /// Where 95 % of such measurements would find the ratio, where that is finite.
    pub interval: Option<(f64, f64)>,
    /// What it means.
    pub verdict: Verdict,
    /// Why nothing can be said.
    pub why: Option<String>,
}

impl Figure {
    /// Those of latency with their percentile; the mean has none.
    const LATENCIES: [(Self, Option<f64>); 5] = [
        (Self::P50, Some(50.0)),
        (Self::P90, Some(90.0)),
        (Self::P99, Some(99.0)),
        (Self::P999, Some(99.9)),
        (Self::Mean, None),
    ];

    fn is_latency(self) -> bool {
        Self::LATENCIES.iter().any(|(latency, _)| *latency == self)
    }
}

impl Change {
    fn unknown(figure: Figure, why: String) -> Self {
        let verdict = Verdict::Unknown;
        Self { figure, before: None, after: None, ratio: None, interval: None, verdict, why: Some(why) }
    }

    /// Judges by the ratios of the draws.
    fn judged(figure: Figure, before: f64, after: f64, ratios: Vec<f64>, blocks: usize) -> Self {
        let point = ratio(before, after);
        let (low, high) = bootstrap::interval(point, ratios, blocks);
        let near = if figure.is_latency() { RESOLUTION } else { 0.0 };
        let verdict = if low > 1.0 + near || high < 1.0 - near {
            if (low > 1.0) == (figure == Figure::Throughput) { Verdict::Better } else { Verdict::Worse }
        } else {
            Verdict::Noise
        };
        let ratio = (before > 0.0 && after > 0.0).then_some(point);
        let interval = ratio.and(high.is_finite().then_some((low, high)));
        Self { figure, before: Some(before), after: Some(after), ratio, interval, verdict, why: None }
    }
}

/// Every figure that either run has.
pub(super) fn changes(before: &Run, after: &Run) -> Vec<Change> {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut changes = of_blocks(before, after, &mut random);
    changes.extend(of_moments(before, after, &mut random));
    changes
}

/// Latency and throughput.
fn of_blocks(before: &Run, after: &Run, random: &mut StdRng) -> Vec<Change> {
    let blocks = before.blocks.len().min(after.blocks.len());
    if blocks < BLOCKS_MIN {
        let why = too_few(blocks, "blocks");
        let figures = Figure::LATENCIES.iter().map(|(figure, _)| *figure).chain([Figure::Throughput]);
        return figures.map(|figure| Change::unknown(figure, why.clone())).collect();
    }
    let (old, new) = (Latencies::new(&before.blocks), Latencies::new(&after.blocks));
    // Of each figure, the old and the new one in one draw.
    let measure = |old_weights: &[u64], new_weights: &[u64]| -> Vec<(f64, f64)> {
        let (old, new) = (old.merged(old_weights), new.merged(new_weights));
        let latencies = Figure::LATENCIES.iter().map(|(_, percentile)| match percentile {
            Some(percentile) => (old.percentile(*percentile), new.percentile(*percentile)),
            None => (old.mean(), new.mean()),
        });
        // Blocks are of equal length, so that as many take equal time.
        let rates = (rate(old.len, before), rate(new.len, after));
        latencies.chain([rates]).collect()
    };
    let points = measure(&vec![1; before.blocks.len()], &vec![1; after.blocks.len()]);
    let draws: Vec<Vec<(f64, f64)>> = (0..DRAWS)
        .map(|_| measure(&draw(random, before.blocks.len()), &draw(random, after.blocks.len())))
        .collect();
    let figures = Figure::LATENCIES.into_iter().chain([(Figure::Throughput, None)]);
    let samples = before.latency.len().min(after.latency.len());
    figures
        .enumerate()
        .map(|(at, (figure, percentile))| {
            // The mean is held as the median is.
            let percentile = percentile.unwrap_or(50.0);
            let beyond = (samples as f64 * (1.0 - percentile / 100.0) + 1e-6) as u64;
            if figure.is_latency() && beyond < BEYOND_MIN {
                return Change::unknown(figure, format!("too few answers: {samples} in one of the runs"));
            }
            if (before.seconds <= 0.0 || after.seconds <= 0.0) && figure == Figure::Throughput {
                return Change::unknown(figure, "a run took no time".to_owned());
            }
            let ratios = draws.iter().map(|draw| ratio(draw[at].0, draw[at].1)).collect();
            Change::judged(figure, points[at].0, points[at].1, ratios, blocks)
        })
        .collect()
}

fn rate(answers: u64, run: &Run) -> f64 {
    if run.seconds > 0.0 { answers as f64 / run.seconds } else { 0.0 }
}

/// A figure of a stretch of time.
type Measure = fn(&Stretch) -> f64;

/// CPU and failures, which blocks do not hold.
fn of_moments(before: &Run, after: &Run, random: &mut StdRng) -> Vec<Change> {
    let (old, new) = (bootstrap::stretches(&before.moments), bootstrap::stretches(&after.moments));
    let stretches = old.len().min(new.len());
    let known =
        |run: &Run| run.moments.iter().any(|moment| moment.server_cpu.is_some() && moment.answered > 0);
    let cpu = match (known(before), known(after)) {
        // Nobody measured it.
        (false, false) => None,
        (true, false) => Some(Err("known only before".to_owned())),
        (false, true) => Some(Err("known only after".to_owned())),
        (true, true) => Some(Ok(Stretch::cpu_per_answer as Measure)),
    };
    let cpu = cpu.map(|measure| (Figure::CpuPerAnswer, measure));
    let failed = (Figure::ShareFailed, Ok(Stretch::share_failed as Measure));
    let draws: Vec<(Stretch, Stretch)> = if stretches < BLOCKS_MIN {
        Vec::new()
    } else {
        let mut drawn = |all: &[Stretch]| together(all, &draw(random, all.len()));
        (0..DRAWS).map(|_| (drawn(&old), drawn(&new))).collect()
    };
    let all = |stretches: &[Stretch]| together(stretches, &vec![1; stretches.len()]);
    let (old, new) = (all(&old), all(&new));
    let judge = |(figure, measure): (Figure, Result<Measure, String>)| match measure {
        Err(why) => Change::unknown(figure, why),
        Ok(_) if draws.is_empty() => Change::unknown(figure, too_few(stretches, "moments")),
        Ok(measure) => {
            let ratios = draws.iter().map(|(old, new)| ratio(measure(old), measure(new))).collect();
            Change::judged(figure, measure(&old), measure(&new), ratios, stretches)
        }
    };
    cpu.into_iter().chain([failed]).map(judge).collect()
}

fn too_few(count: usize, what: &str) -> String {
    format!("too few {what}: {count} in one of the runs, and a spread takes {BLOCKS_MIN}")
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
