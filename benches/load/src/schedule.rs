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

/// Moments at which requests begin, from the beginning on, without end.
#[derive(Debug)]
pub struct Schedule {
    gap: f64,
    arrivals: Arrivals,
    random: StdRng,
    at: f64,
}

impl Schedule {
    /// So many arrivals a second. The same seed gives the same moments.
    #[must_use]
    pub fn new(rate: f64, arrivals: Arrivals, seed: u64) -> Self {
        Self { gap: 1.0 / rate, arrivals, random: StdRng::seed_from_u64(seed), at: 0.0 }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.at += match self.arrivals {
            Arrivals::Constant => self.gap,
            // The inverse of the distribution function; the draw is below 1.
            Arrivals::Poisson => -(1.0 - self.random.random::<f64>()).ln() * self.gap,
        };
        Duration::try_from_secs_f64(self.at).ok()
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
}
