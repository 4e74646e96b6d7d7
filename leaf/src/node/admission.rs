//! How many searches a leaf takes at one time.
//!
//! Roots shed what is too much; this is for the roots that do not know of each
//! other. What counts is the time in the queue, so expensive queries are taken
//! like cheap ones.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use model::limit::{Ended, Limit, Settings};
use proto::Error;
use tokio::time::Instant;

use crate::metrics::{LIMIT, SHED};

/// How long searches may wait for a thread: a good part of what a root waits
/// before it asks another replica, and far above a burst.
const SLACK: Duration = Duration::from_millis(200);
/// The shortest time after which a root shall ask again.
const RETRY_LEAST: Duration = Duration::from_millis(20);
/// The longest.
const RETRY_MOST: Duration = Duration::from_secs(1);

/// How a leaf of so many threads with so long a queue finds its limit.
#[must_use]
pub fn limit_settings(threads: usize, queue_max: usize) -> Settings {
    Settings {
        // Each thread has one, and one more to go on with.
        least: (threads * 2).max(4),
        first: (threads * 8).max(64),
        most: threads + queue_max,
        slack: SLACK,
        ..Settings::default()
    }
}

/// When a search that is refused may come back, where those that wait take so
/// long.
#[must_use]
pub fn retry_after(wait: Duration) -> Duration {
    wait.clamp(RETRY_LEAST, RETRY_MOST)
}

/// Takes searches, or does not.
pub(super) struct Admission {
    limit: Mutex<Limit>,
    /// The limit as it is now.
    now: AtomicUsize,
    in_flight: AtomicUsize,
    begun: Instant,
    shed: Counter,
    shown: Gauge,
}

/// A search that was taken; it ends when this is dropped.
pub(super) struct Permit<'a> {
    admission: &'a Admission,
    begun: Instant,
}

impl Admission {
    /// For a pool of so many threads with so long a queue.
    pub(super) fn new(threads: usize, queue_max: usize) -> Self {
        describe_counter!(SHED, "Searches refused since too many were there");
        describe_gauge!(LIMIT, "Searches that are taken at one time");
        let limit = Limit::new(limit_settings(threads, queue_max));
        let (now, shown) = (limit.now(), gauge!(LIMIT));
        shown.set(now as f64);
        Self {
            limit: Mutex::new(limit),
            now: AtomicUsize::new(now),
            in_flight: AtomicUsize::new(0),
            begun: Instant::now(),
            shed: counter!(SHED),
            shown,
        }
    }

    /// Takes a search, or says at once that there are too many. `wait` is how
    /// long those take that wait.
    pub(super) fn admit(&self, wait: impl FnOnce() -> Duration) -> Result<Permit<'_>, Error> {
        self.admit_at(Instant::now(), wait)
    }

    fn admit_at(&self, begun: Instant, wait: impl FnOnce() -> Duration) -> Result<Permit<'_>, Error> {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) < self.now.load(Ordering::Relaxed) {
            return Ok(Permit { admission: self, begun });
        }
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.shed.increment(1);
        Err(Error::overloaded("this leaf has too many searches to do: retry, or ask another replica")
            .retry_after(retry_after(wait())))
    }
}

impl Permit<'_> {
    /// The search was answered, after it had waited this long for a thread.
    pub(super) fn answered(self, queued: Duration) {
        self.answered_at(Instant::now(), queued);
    }

    fn answered_at(self, now: Instant, queued: Duration) {
        let Self { admission, begun } = &self;
        let latency = now.saturating_duration_since(*begun);
        let ended = Ended::Answered { latency, unloaded: Some(latency.saturating_sub(queued)) };
        let mut limit = admission.limit.lock().unwrap_or_else(PoisonError::into_inner);
        let at = now.saturating_duration_since(admission.begun);
        limit.ended(at, admission.in_flight.load(Ordering::Relaxed), ended);
        let now = limit.now();
        drop(limit);
        if admission.now.swap(now, Ordering::Relaxed) != now {
            admission.shown.set(now as f64);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.admission.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proto::Kind;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn beyond_the_limit_a_search_is_refused_at_once_and_told_when_to_come_back() {
        let admission = Admission::new(2, 1_000);
        let mut taken: Vec<_> = (0..64).map(|_| admission.admit(|| ms(0)).unwrap()).collect();
        for (wait, told) in [(5, 20), (300, 300), (60_000, 1_000)] {
            let refused = admission.admit(|| ms(wait)).err().unwrap();
            assert_eq!((refused.kind, refused.retry_after), (Kind::Overloaded, Some(ms(told))));
        }
        taken.pop();
        assert!(admission.admit(|| ms(0)).is_ok());
    }

    #[test]
    fn a_long_queue_lowers_the_limit_and_long_searches_do_not() {
        for (waited, lower) in [(1_900, true), (0, false)] {
            let admission = Admission::new(2, 1_000);
            let mut now = admission.begun;
            for _ in 0..20 {
                let permits: Vec<_> = (0..40).map(|_| admission.admit_at(now, || ms(0)).unwrap()).collect();
                now += ms(2_000);
                permits.into_iter().for_each(|permit| permit.answered_at(now, ms(waited)));
                if admission.now.load(Ordering::Relaxed) < 40 {
                    break;
                }
            }
            assert_eq!(admission.now.load(Ordering::Relaxed) < 40, lower, "{waited}");
        }
    }
}
