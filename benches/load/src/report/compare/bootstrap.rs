//! How far a ratio could have been otherwise: a bootstrap over stretches of time.
//!
//! Neighbouring answers wait for the same thing, so single answers say too much:
//! whole blocks are drawn, with replacement.
//! (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 8.)

use rand::RngExt;
use rand::rngs::StdRng;

use crate::report::{Histogram, Moment};

/// The most stretches that moments are gathered in, as blocks are.
const STRETCHES: usize = 20;

/// How often each of `count` blocks is drawn when that many are drawn.
pub(super) fn draw(random: &mut StdRng, count: usize) -> Vec<u64> {
    let mut weights = vec![0; count];
    for _ in 0..count {
        weights[random.random_range(0..count)] += 1;
    }
    weights
}

/// Latencies of each block, by value, so that thousands of draws stay cheap.
pub(super) struct Latencies {
    /// Every value in µs that occurs, in order.
    values: Vec<f64>,
    /// How often each occurs, for each block.
    counts: Vec<Vec<u64>>,
}

impl Latencies {
    pub(super) fn new(blocks: &[Histogram]) -> Self {
        let mut merged = Histogram::default();
        blocks.iter().for_each(|block| merged.add(block));
        let values: Vec<u64> = merged.counts().map(|(value, _)| value).collect();
        let counts = blocks
            .iter()
            .map(|block| {
                let mut counts = vec![0; values.len()];
                for (value, count) in block.counts() {
                    if let Ok(at) = values.binary_search(&value) {
                        counts[at] += count;
                    }
                }
                counts
            })
            .collect();
        Self { values: values.into_iter().map(|value| value as f64).collect(), counts }
    }

    /// The blocks merged, each as often as it was drawn.
    pub(super) fn merged(&self, weights: &[u64]) -> Merged<'_> {
        let mut counts = vec![0; self.values.len()];
        for (block, weight) in self.counts.iter().zip(weights).filter(|(_, weight)| **weight > 0) {
            for (sum, count) in counts.iter_mut().zip(block) {
                *sum += count * weight;
            }
        }
        Merged { values: &self.values, len: counts.iter().sum(), counts }
    }
}

/// Latencies of the blocks of one draw.
pub(super) struct Merged<'a> {
    values: &'a [f64],
    counts: Vec<u64>,
    pub(super) len: u64,
}

impl Merged<'_> {
    /// The value in µs at a percentile; 0 where there is none.
    pub(super) fn percentile(&self, percentile: f64) -> f64 {
        // Rounded as the histogram itself does.
        let wanted = (percentile / 100.0 * self.len as f64).ceil().max(1.0);
        let mut seen = 0;
        for (value, count) in self.values.iter().zip(&self.counts) {
            seen += count;
            if seen as f64 >= wanted {
                return *value;
            }
        }
        0.0
    }

    pub(super) fn mean(&self) -> f64 {
        let sum: f64 = self.values.iter().zip(&self.counts).map(|(value, count)| value * *count as f64).sum();
        if self.len == 0 { 0.0 } else { sum / self.len as f64 }
    }
}

/// What latencies do not tell, of one stretch of time or of several.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stretch {
    pub(super) sent: f64,
    pub(super) failed: f64,
    /// CPU of the servers in seconds, and the answers that it was for.
    pub(super) cpu: f64,
    pub(super) cpu_answers: f64,
}

impl Stretch {
    fn add(&mut self, other: &Self, weight: f64) {
        self.sent += weight * other.sent;
        self.failed += weight * other.failed;
        self.cpu += weight * other.cpu;
        self.cpu_answers += weight * other.cpu_answers;
    }

    pub(super) fn share_failed(&self) -> f64 {
        if self.sent > 0.0 { self.failed / self.sent } else { 0.0 }
    }

    /// In µs.
    pub(super) fn cpu_per_answer(&self) -> f64 {
        if self.cpu_answers > 0.0 { self.cpu * 1e6 / self.cpu_answers } else { 0.0 }
    }
}

/// Moments in a few stretches of equal numbers, one after the other.
pub(super) fn stretches(moments: &[Moment]) -> Vec<Stretch> {
    let count = moments.len().min(STRETCHES);
    let mut stretches = vec![Stretch::default(); count];
    for (at, moment) in moments.iter().enumerate() {
        let cpu = moment.server_cpu.map(|cores| cores * moment.seconds);
        let stretch = Stretch {
            sent: moment.sent as f64,
            failed: moment.failed as f64,
            cpu: cpu.unwrap_or(0.0),
            cpu_answers: cpu.map_or(0.0, |_| moment.answered as f64),
        };
        stretches[at * count / moments.len()].add(&stretch, 1.0);
    }
    stretches
}

/// The stretches together, each as often as it was drawn.
pub(super) fn together(stretches: &[Stretch], weights: &[u64]) -> Stretch {
    let mut sum = Stretch::default();
    for (stretch, weight) in stretches.iter().zip(weights) {
        sum.add(stretch, *weight as f64);
    }
    sum
}

/// `after / before`, which is 1 where both are nothing.
pub(super) fn ratio(before: f64, after: f64) -> f64 {
    if before == after { 1.0 } else { after / before }
}

/// The interval that 95 % of such measurements would have around the true ratio.
///
/// Draws of few blocks vary too little: the interval is widened as a t-interval
/// is. (Hesterberg, What Teachers Should Know About the Bootstrap, 2015,
/// section 4.3.)
pub(super) fn interval(point: f64, mut ratios: Vec<f64>, blocks: usize) -> (f64, f64) {
    ratios.sort_by(f64::total_cmp);
    let at = |share: f64| ratios[((ratios.len() - 1) as f64 * share).round() as usize];
    let (low, high) = (at(0.025), at(0.975));
    let free = blocks as f64 - 1.0;
    let widen = (blocks as f64 / free).sqrt() * student(free) / NORMAL;
    // Only away from the figure itself, and only what has a logarithm.
    let stretched = |bound: f64| {
        if bound > 0.0 && bound.is_finite() && point > 0.0 && point.is_finite() {
            point * (bound / point).powf(widen)
        } else {
            bound
        }
    };
    (stretched(low).min(low), stretched(high).max(high))
}

/// 97.5 % of the normal distribution are below.
const NORMAL: f64 = 1.959_964;

/// The same of Student's distribution: the first terms of its expansion, to 2 %
/// from four degrees of freedom on. (Abramowitz and Stegun, 26.7.5.)
fn student(free: f64) -> f64 {
    let z = NORMAL;
    z + (z.powi(3) + z) / (4.0 * free) + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * free * free)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn merging_by_value_is_merging_histograms() {
        let mut blocks = vec![Histogram::default(); 3];
        for us in 0..3_000_u64 {
            blocks[(us % 3) as usize].record(us * us / 7);
        }
        let latencies = Latencies::new(&blocks);
        let mut wanted = Histogram::default();
        for block in [0, 0, 2] {
            wanted.add(&blocks[block]);
        }
        let merged = latencies.merged(&[2, 0, 1]);
        assert_eq!(merged.len, wanted.len());
        for percentile in [1.0, 50.0, 90.0, 99.0, 99.9] {
            assert_eq!(merged.percentile(percentile), wanted.percentile(percentile) as f64, "{percentile}");
        }
        assert!((merged.mean() / wanted.mean() - 1.0).abs() < 0.001);
        let nothing = latencies.merged(&[0, 0, 0]);
        assert_eq!((nothing.percentile(50.0), nothing.mean()), (0.0, 0.0));
    }

    #[test]
    fn as_many_are_drawn_as_there_are() {
        let mut random = StdRng::seed_from_u64(1);
        let draws: Vec<Vec<u64>> = (0..100).map(|_| draw(&mut random, 20)).collect();
        assert!(draws.iter().all(|weights| weights.iter().sum::<u64>() == 20));
        assert!(draws.iter().any(|weights| weights.contains(&0)), "with replacement");
    }

    #[test]
    fn moments_keep_their_sums() {
        let moment = |at: usize| Moment {
            seconds: 0.5,
            sent: 3,
            answered: 2,
            failed: 1,
            // Unknown for one: neither its CPU nor its answers count.
            server_cpu: (at != 7).then_some(2.0),
            ..Moment::default()
        };
        let moments: Vec<Moment> = (0..50).map(moment).collect();
        let stretches = stretches(&moments);
        assert_eq!(stretches.len(), STRETCHES);
        let sum = together(&stretches, &[1; STRETCHES]);
        assert_eq!((sum.sent, sum.failed, sum.cpu, sum.cpu_answers), (150.0, 50.0, 49.0, 98.0));
        assert_eq!(sum.cpu_per_answer(), 500_000.0);
    }

    #[test]
    fn students_quantiles_are_those_of_the_tables() {
        for (free, table) in [(4.0, 2.776), (9.0, 2.262), (19.0, 2.093)] {
            assert!((student(free) / table - 1.0).abs() < 0.02, "{free}: {}", student(free));
        }
    }
}
