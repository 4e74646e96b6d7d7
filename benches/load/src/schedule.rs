//! When requests begin.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How arrivals are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// Independent of each other, as people are: exponential gaps.
    #[default]
    Poisson,
    /// Equal gaps.
    Constant,
}

/// A rate for a while.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Phase {
    /// Requests a second.
    pub rate: f64,
    /// For how long.
    pub time: Duration,
}

/// Moments at which requests begin, from the beginning on.
#[derive(Debug)]
pub struct Schedule {
    /// Rates, and when each ends, in seconds.
    phases: Vec<(f64, f64)>,
    arrivals: Arrivals,
    random: StdRng,
    at: f64,
}

impl Schedule {
    /// So many arrivals a second, without end. The same seed gives the same
    /// moments.
    #[must_use]
    pub fn new(rate: f64, arrivals: Arrivals, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { phases: vec![(rate, f64::INFINITY)], arrivals, random, at: 0.0 }
    }

    /// One rate after another, and then no more.
    #[must_use]
    pub fn phases(phases: &[Phase], arrivals: Arrivals, seed: u64) -> Self {
        let mut schedule = Self::new(1.0, arrivals, seed);
        let mut end = 0.0;
        schedule.phases.clear();
        for phase in phases {
            end += phase.time.as_secs_f64();
            schedule.phases.push((phase.rate, end));
        }
        schedule
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // In units of the mean gap: what is left when a phase ends is made up
        // for in the next, at its rate.
        let mut left = match self.arrivals {
            Arrivals::Constant => 1.0,
            // The inverse of the distribution function; the draw is below 1.
            Arrivals::Poisson => -(1.0 - self.random.random::<f64>()).ln(),
        };
        for (rate, end) in &self.phases {
            if self.at >= *end {
                continue;
            }
            let at = self.at + left / rate;
            if at < *end {
                self.at = at;
                return Duration::try_from_secs_f64(at).ok();
            }
            left -= (end - self.at) * rate;
            self.at = *end;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_have_the_mean_and_the_spread_that_they_should() {
        for (arrivals, deviation) in [(Arrivals::Constant, 0.0), (Arrivals::Poisson, 1.0)] {
            let moments: Vec<f64> = Schedule::new(1_000.0, arrivals, 7)
                .take(100_000)
                .map(|at| at.as_secs_f64() * 1_000.0)
                .collect();
            let gaps: Vec<f64> = moments.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            assert!((mean - 1.0).abs() < 0.02, "{arrivals:?}: {mean}");
            assert!((variance.sqrt() - deviation).abs() < 0.02, "{arrivals:?}: {variance}");
            assert!(gaps.iter().all(|gap| *gap >= 0.0));
        }
    }

    #[test]
    fn a_seed_repeats_its_moments() {
        let moments =
            |seed| -> Vec<Duration> { Schedule::new(50.0, Arrivals::Poisson, seed).take(10).collect() };
        assert_eq!(moments(1), moments(1));
        assert_ne!(moments(1), moments(2));
    }

    #[test]
    fn each_phase_has_its_rate() {
        let phase = |rate, seconds| Phase { rate, time: Duration::from_secs(seconds) };
        let phases = [phase(100.0, 20), phase(1_000.0, 10), phase(50.0, 20)];
        for arrivals in [Arrivals::Constant, Arrivals::Poisson] {
            let moments: Vec<f64> =
                Schedule::phases(&phases, arrivals, 3).map(|at| at.as_secs_f64()).collect();
            let within = |from: f64, to: f64| moments.iter().filter(|at| (from..to).contains(*at)).count();
            let counts = [within(0.0, 20.0), within(20.0, 30.0), within(30.0, 50.0)];
            for (count, known) in counts.into_iter().zip([2_000.0, 10_000.0, 1_000.0]) {
                assert!((count as f64 / known - 1.0).abs() < 0.1, "{arrivals:?}: {counts:?}");
            }
            assert_eq!(counts.iter().sum::<usize>(), moments.len());
            assert!(moments.is_sorted());
        }
    }
}
