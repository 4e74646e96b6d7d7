//! What happened: the calls that leaves worked on, and the searches that ended.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::Kind;

use crate::hosts::{LEAVES, name};

/// How a call ended at its leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// With an answer.
    Answered,
    /// At its deadline, which the leaf noticed.
    Expired,
    /// Its future was dropped.
    Cancelled,
}

/// A call that arrived at a leaf. Moments are simulated time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) leaf: usize,
    pub(crate) name: &'static str,
    /// The query, where the call has one.
    pub(crate) query: String,
    pub(crate) began: Duration,
    /// What was left until the deadline when it arrived.
    pub(crate) left: Duration,
    pub(crate) ended: Option<(Duration, How)>,
}

/// A search that the root was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Searched {
    pub(crate) query: String,
    pub(crate) began: Duration,
    pub(crate) ended: Duration,
    /// The leaves whose hits it has, or why there are none.
    pub(crate) outcome: Result<Vec<String>, Kind>,
}

impl Searched {
    pub(crate) fn took(&self) -> Duration {
        self.ended - self.began
    }

    /// Whether a leaf's hits are in the answer.
    pub(crate) fn is_by(&self, leaf: usize) -> bool {
        self.outcome.as_ref().is_ok_and(|nodes| nodes.contains(&name(leaf)))
    }
}

/// The log of one simulation; clones are one log.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Inner>);

#[derive(Default)]
struct Inner {
    now_ms: AtomicU64,
    calls: Mutex<Vec<Call>>,
    searches: Mutex<Vec<Searched>>,
    /// How long a leaf takes to search, by leaf.
    search_ms: [AtomicU64; LEAVES],
    /// Leaves whose process is not there, though their host is.
    away: [AtomicBool; LEAVES],
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// Simulated time, to the step.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_millis(self.0.now_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn set_now(&self, now: Duration) {
        self.0.now_ms.store(u64::try_from(now.as_millis()).expect("it is short"), Ordering::Relaxed);
    }

    /// How long a leaf takes to search from now on.
    pub(crate) fn set_search_time(&self, leaf: usize, time: Duration) {
        self.0.search_ms[leaf]
            .store(u64::try_from(time.as_millis()).expect("it is short"), Ordering::Relaxed);
    }

    pub(crate) fn search_time(&self, leaf: usize) -> Duration {
        Duration::from_millis(self.0.search_ms[leaf].load(Ordering::Relaxed))
    }

    /// Whether a leaf listens when its host starts next.
    pub(crate) fn set_away(&self, leaf: usize, away: bool) {
        self.0.away[leaf].store(away, Ordering::Relaxed);
    }

    pub(crate) fn is_away(&self, leaf: usize) -> bool {
        self.0.away[leaf].load(Ordering::Relaxed)
    }

    /// Notes a call; it is cancelled if what is returned is dropped.
    pub(crate) fn begin(&self, leaf: usize, name: &'static str, query: String, left: Duration) -> Running {
        let mut calls = lock(&self.0.calls);
        calls.push(Call { leaf, name, query, began: self.now(), left, ended: None });
        Running { log: self.clone(), call: calls.len() - 1, how: How::Cancelled }
    }

    pub(crate) fn searched(&self, searched: Searched) {
        lock(&self.0.searches).push(searched);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        lock(&self.0.calls).clone()
    }

    /// In the order in which they ended.
    pub(crate) fn searches(&self) -> Vec<Searched> {
        lock(&self.0.searches).clone()
    }

    /// Calls that leaves work on now.
    pub(crate) fn running(&self) -> usize {
        lock(&self.0.calls).iter().filter(|call| call.ended.is_none()).count()
    }
}

/// A call that a leaf works on.
pub(crate) struct Running {
    log: Log,
    call: usize,
    how: How,
}

impl Running {
    pub(crate) fn end(mut self, how: How) {
        self.how = how;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let now = self.log.now();
        if let Some(call) = lock(&self.log.0.calls).get_mut(self.call) {
            call.ended = Some((now, self.how));
        }
    }
}
