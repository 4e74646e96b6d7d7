//! Randomness that is passed in, so that a seed repeats a run.

use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A source of random numbers. Clones draw from the same source.
#[derive(Clone, Debug)]
pub struct Random(Arc<Mutex<StdRng>>);

impl Random {
    /// A source that the system seeds.
    #[must_use]
    pub fn from_system() -> Self {
        Self(Arc::new(Mutex::new(StdRng::from_rng(&mut rand::rng()))))
    }

    /// A source that repeats itself for the same seed and release.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// Any 64 bits.
    #[must_use]
    pub fn u64(&self) -> u64 {
        self.draw(|rng| rng.random())
    }

    /// Any 128 bits: nonces and uids.
    #[must_use]
    pub fn u128(&self) -> u128 {
        self.draw(|rng| rng.random())
    }

    /// A number below `end`, which is at least 1.
    #[must_use]
    pub fn below(&self, end: u64) -> u64 {
        self.draw(|rng| rng.random_range(0..end.max(1)))
    }

    /// A number from 0 up to and without 1.
    #[must_use]
    pub fn unit(&self) -> f64 {
        self.draw(|rng| rng.random())
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself() {
        let (one, two) = (Random::seeded(1), Random::seeded(1));
        assert_eq!(one.u128(), two.u128());
        assert_ne!(one.u64(), Random::seeded(2).u64());
    }
}
