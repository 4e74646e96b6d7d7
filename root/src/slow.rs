//! How often slow searches are told.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// In each so long, so many: what is slow is often everything at once.
const EACH: Duration = Duration::from_secs(1);
const MOST: u32 = 10;

/// Counts what was told.
#[derive(Default)]
pub(crate) struct Slow(Mutex<Option<(Instant, u32)>>);

impl Slow {
    /// Whether one more may be told.
    pub(crate) fn admits(&self, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) =
            told.filter(|(since, _)| now.saturating_duration_since(*since) < EACH).unwrap_or((now, 0));
        *told = Some((since, count.saturating_add(1)));
        count < MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ten_a_second_are_told() {
        let slow = Slow::default();
        let told = |slow: &Slow| (0..100).filter(|_| slow.admits(Instant::now())).count();
        assert_eq!((told(&slow), told(&slow)), (10, 0));
        tokio::time::advance(EACH).await;
        assert_eq!(told(&slow), 10);
    }
}
