//! Tells running CPU work that nobody waits for it any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::Deadline;

/// A flag that CPU work looks at, and the deadline behind it.
///
/// Clones share the flag.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    flag: Arc<Flag>,
    deadline: Option<Deadline>,
    queued: Duration,
}

#[derive(Debug, Default)]
struct Flag {
    set: AtomicBool,
    // Written before `set`, so whoever sees the flag sees the moment.
    since: OnceLock<Instant>,
}

impl Cancel {
    /// A flag without a deadline, for work that only its caller stops.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A flag that [`Cancel::check`] sets once `deadline` has passed.
    #[must_use]
    pub fn until(deadline: Deadline) -> Self {
        Self { deadline: Some(deadline), ..Self::default() }
    }

    pub(crate) fn after_queue(mut self, queued: Duration) -> Self {
        self.queued = queued;
        self
    }

    /// Whether the work should stop. One relaxed load: call it as often as you like.
    #[inline]
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.flag.set.load(Ordering::Relaxed)
    }

    /// As [`Cancel::cancelled`], but reads the clock too and sets the flag once
    /// the deadline has passed. Loops call it every few thousand steps.
    #[must_use]
    pub fn check(&self) -> bool {
        if self.cancelled() {
            return true;
        }
        if self.expired() {
            self.cancel();
            return true;
        }
        false
    }

    /// Whether the deadline has passed: tells "too late" from "nobody waits".
    #[must_use]
    pub fn expired(&self) -> bool {
        self.deadline.is_some_and(Deadline::expired)
    }

    /// Asks the work to stop.
    pub fn cancel(&self) {
        self.flag.since.get_or_init(Instant::now);
        self.flag.set.store(true, Ordering::Release);
    }

    /// When the flag was set.
    #[must_use]
    pub fn since(&self) -> Option<Instant> {
        self.flag.since.get().copied()
    }

    /// The deadline, where there is one.
    #[must_use]
    pub fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    /// How long the work waited in the pool's queue.
    #[must_use]
    pub fn queued(&self) -> Duration {
        self.queued
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_sees_the_flag() {
        let cancel = Cancel::new();
        let clone = cancel.clone();
        assert!(!clone.check());
        cancel.cancel();
        assert!(clone.cancelled());
        assert!(clone.since().is_some());
    }

    #[test]
    fn a_check_after_the_deadline_sets_the_flag() {
        let cancel = Cancel::until(Deadline::after(Duration::ZERO));
        assert!(!cancel.cancelled());
        assert!(cancel.check());
        assert!(cancel.cancelled());
    }
}
