//! Retrying: bounded, further and further apart, never in step with others.

use std::time::Duration;

use crate::Error;

/// How calls are retried. For loads, whose writes are idempotent by id; a
/// person who searches would rather know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in total.
    pub attempts_max: u32,
    /// The pause before the second attempt, doubled for each further one.
    pub pause_min: Duration,
    /// The longest pause, whatever the server asks for.
    pub pause_max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            // With the pauses below about two minutes: a server's restart with
            // a long replay fits, and a person still waits for the message.
            attempts_max: 16,
            pause_min: Duration::from_millis(100),
            pause_max: Duration::from_secs(15),
        }
    }
}

impl Retry {
    /// Calls until it succeeds, fails for good, or the attempts are used up.
    ///
    /// # Errors
    /// The last attempt's.
    ///
    /// # Cancel safety
    /// As the call's.
    pub async fn run<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut attempt = 1;
        loop {
            let error = match call().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if attempt >= self.attempts_max || !error.retryable() {
                return Err(error);
            }
            tokio::time::sleep(self.pause(attempt, error.retry_after(), rand::random())).await;
            attempt += 1;
        }
    }

    /// The pause after attempt number `attempt`: what the server asked for and
    /// a little more, or between half and all of the doubled pause. `draw` is
    /// in 0 to 1.
    #[must_use]
    pub fn pause(&self, attempt: u32, asked: Option<Duration>, draw: f64) -> Duration {
        let doubled = self.pause_min.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        let pause = match asked {
            Some(asked) => asked + self.pause_min.mul_f64(draw),
            None => doubled.min(self.pause_max).mul_f64(0.5 + draw / 2.0),
        };
        pause.min(self.pause_max)
    }
}
