//! What a root takes on at one time.
//!
//! ```text
//!  search ─► limit learned from latency ─► worked on ─► how long it took
//!  write  ─► its own bound, which shrinks while searches are refused
//! ```
//!
//! Nothing waits here: a limit leaves room for a queue, and that is where the
//! CPU is, at the leaves. A refusal costs a few atomic operations, whatever
//! goes on.
//!
//! **Invariant:** searches are refused before writes slow them down, and some
//! writes are always taken.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};
use model::limit::{self, Ended, Limit};
use proto::{Error, Kind};
use tokio::time::Instant;

/// Requests refused since too many were there, by class.
pub const SHED: &str = "windrow_root_shed_total";
/// Searches that are worked on at one time.
pub const LIMIT: &str = "windrow_root_limit";
/// Requests that are worked on, by class.
pub const IN_FLIGHT: &str = "windrow_root_in_flight";

/// How much is taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How the limit of searches is found.
    pub searches: limit::Settings,
    /// Writes at one time: enough to fill the group commits of many shards.
    /// What they hold in memory has a bound of its own.
    pub writes_max: usize,
    /// Writes at one time while searches are refused.
    pub writes_least: usize,
    /// How long after a search was refused that is so.
    pub pressed_for: Duration,
    /// When a refused request should come back, on average.
    pub retry_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // A root mostly waits, and the CPU has its own limits where it is: a
            // slow way to the leaves is no reason to refuse. What leaves refuse
            // is: it was parsed, planned and sent in vain.
            searches: limit::Settings {
                least: 64,
                least_refused: 8,
                first: 256,
                ..limit::Settings::default()
            },
            writes_max: 256,
            // A loader has four requests under way.
            writes_least: 4,
            pressed_for: Duration::from_secs(1),
            // About what a crowd takes to be gone; a person asks again by then.
            retry_after: Duration::from_secs(1),
        }
    }
}

/// Who waits for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Somebody: a search.
    Interactive,
    /// Nobody in particular: a write.
    Bulk,
}

/// Takes requests, or does not.
pub struct Admission {
    settings: Settings,
    limit: Mutex<Limit>,
    begun: Instant,
    searches: Gate,
    writes: Gate,
    /// When a search was last refused, in µs since `begun`, from 1.
    refused_at: AtomicU64,
    /// Refusals so far.
    refusals: AtomicU64,
    limit_shown: Gauge,
}

/// The requests of one class.
struct Gate {
    most: AtomicUsize,
    in_flight: AtomicUsize,
    shed: Counter,
    shown: Gauge,
}

/// A request that was taken. Dropped, it ends without having said anything of
/// the load: its client went away, or it was wrong.
#[must_use = "a request that ends at once is not limited"]
pub struct Permit<'a> {
    admission: &'a Admission,
    class: Class,
    begun: Instant,
}

impl Admission {
    /// Takes nothing on yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        describe_counter!(SHED, Unit::Count, "Requests refused since too many were there");
        describe_gauge!(LIMIT, Unit::Count, "Searches that are worked on at one time");
        describe_gauge!(IN_FLIGHT, Unit::Count, "Requests that are worked on");
        let limit = Limit::new(settings.searches.clone());
        let limit_shown = gauge!(LIMIT);
        limit_shown.set(limit.now() as f64);
        let gate = |most, class| Gate {
            most: AtomicUsize::new(most),
            in_flight: AtomicUsize::new(0),
            shed: counter!(SHED, "class" => class),
            shown: gauge!(IN_FLIGHT, "class" => class),
        };
        Self {
            searches: gate(limit.now(), "interactive"),
            writes: gate(settings.writes_max, "bulk"),
            limit: Mutex::new(limit),
            begun: Instant::now(),
            refused_at: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            limit_shown,
            settings,
        }
    }

    /// Takes a request on, or says at once that there are too many.
    ///
    /// # Errors
    /// [`Kind::Overloaded`], with a time after which to come back.
    pub fn admit(&self, class: Class) -> Result<Permit<'_>, Error> {
        self.admit_at(Instant::now(), class)
    }

    /// Refuses a request that [`Self::admit`] would refuse now, before it is read.
    pub fn refusal(&self, class: Class) -> Option<Error> {
        let (gate, now) = (self.gate(class), Instant::now());
        let most = self.most(now, class);
        (gate.in_flight.load(Ordering::Relaxed) >= most).then(|| self.refuse(now, class, most))
    }

    fn most(&self, now: Instant, class: Class) -> usize {
        match class {
            Class::Interactive => self.limit(),
            Class::Bulk if self.pressed(now) => self.settings.writes_least,
            Class::Bulk => self.settings.writes_max,
        }
    }

    fn admit_at(&self, begun: Instant, class: Class) -> Result<Permit<'_>, Error> {
        let (gate, most) = (self.gate(class), self.most(begun, class));
        if gate.in_flight.fetch_add(1, Ordering::Relaxed) < most {
            gate.shown.increment(1);
            return Ok(Permit { admission: self, class, begun });
        }
        gate.in_flight.fetch_sub(1, Ordering::Relaxed);
        Err(self.refuse(begun, class, most))
    }

    fn refuse(&self, begun: Instant, class: Class, most: usize) -> Error {
        let gate = self.gate(class);
        gate.shed.increment(1);
        if class == Class::Interactive {
            self.refused_at.store(self.micros(begun), Ordering::Relaxed);
        }
        let after = self.spread();
        let what = match class {
            Class::Interactive => "searches",
            Class::Bulk => "writes",
        };
        Error::overloaded(format!(
            "there are more {what} than this cluster can do ({most} at a time): retry in {:.1} s, or send fewer",
            after.as_secs_f64()
        ))
        .retry_after(after)
    }

    /// Searches that are worked on at one time.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.searches.most.load(Ordering::Relaxed)
    }

    fn gate(&self, class: Class) -> &Gate {
        match class {
            Class::Interactive => &self.searches,
            Class::Bulk => &self.writes,
        }
    }

    fn micros(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.begun).as_micros();
        u64::try_from(since).unwrap_or(u64::MAX).max(1)
    }

    /// Whether searches are being refused.
    fn pressed(&self, now: Instant) -> bool {
        let refused_at = self.refused_at.load(Ordering::Relaxed);
        let since = Duration::from_micros(self.micros(now).saturating_sub(refused_at));
        refused_at > 0 && since < self.settings.pressed_for
    }

    /// When to come back: half to one and a half of the setting, each refusal
    /// another time, so that a crowd that was refused does not come back as one.
    fn spread(&self) -> Duration {
        // Multiples of the golden ratio are spread evenly, however many.
        let number = self.refusals.fetch_add(1, Ordering::Relaxed) % 1_000_000;
        let part = (number as f64 * 0.618_033_988_749_895).fract();
        self.settings.retry_after.mul_f64(0.5 + part)
    }
}

impl Permit<'_> {
    /// The request was answered, or failed like this. What was wrong, or failed
    /// otherwise than for load, says nothing of it.
    pub fn done(self, failed: Option<&Error>) {
        self.done_at(Instant::now(), failed);
    }

    fn done_at(self, now: Instant, failed: Option<&Error>) {
        if self.class == Class::Bulk {
            return;
        }
        let latency = now.saturating_duration_since(self.begun);
        let ended = match failed.map(|error| error.kind) {
            None => Ended::Answered { latency, unloaded: None },
            Some(Kind::Overloaded) => Ended::Refused,
            Some(Kind::Expired) => Ended::Lost { latency },
            Some(_) => return,
        };
        let Admission { limit, begun, searches, limit_shown, .. } = self.admission;
        let mut limit = limit.lock().unwrap_or_else(PoisonError::into_inner);
        let at = now.saturating_duration_since(*begun);
        limit.ended(at, searches.in_flight.load(Ordering::Relaxed), ended);
        let now = limit.now();
        drop(limit);
        if searches.most.swap(now, Ordering::Relaxed) != now {
            limit_shown.set(now as f64);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let gate = self.admission.gate(self.class);
        gate.in_flight.fetch_sub(1, Ordering::Relaxed);
        gate.shown.decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// All that is taken, after so long.
    fn take(admission: &Admission, after: u64, class: Class) -> Vec<Permit<'_>> {
        let now = admission.begun + ms(after);
        std::iter::from_fn(|| admission.admit_at(now, class).ok()).take(2_000).collect()
    }

    #[test]
    fn beyond_the_limit_searches_are_refused_until_one_ends() {
        let admission = Admission::new(Settings::default());
        let mut taken = take(&admission, 0, Class::Interactive);
        assert_eq!(taken.len(), admission.limit());
        let refused = admission.admit(Class::Interactive).err().unwrap();
        assert_eq!(refused.kind, Kind::Overloaded);
        assert!(refused.retry_after.is_some_and(|after| after >= ms(500)));
        assert_eq!(admission.refusal(Class::Interactive).map(|refused| refused.kind), Some(Kind::Overloaded));
        taken.pop();
        assert_eq!(admission.refusal(Class::Interactive), None);
        assert!(admission.admit(Class::Interactive).is_ok());
    }

    #[test]
    fn those_refused_come_back_one_by_one() {
        let admission = Admission::new(Settings::default());
        let _taken = take(&admission, 0, Class::Interactive);
        let times: BTreeSet<u128> = (0..100)
            .filter_map(|_| admission.admit(Class::Interactive).err()?.retry_after)
            .map(|after| after.as_millis() / 100)
            .collect();
        assert_eq!(times.into_iter().collect::<Vec<_>>(), (5..15).collect::<Vec<_>>());
    }

    #[test]
    fn writes_yield_while_searches_are_refused_and_some_are_always_taken() {
        let admission = Admission::new(Settings::default());
        assert_eq!(take(&admission, 0, Class::Bulk).len(), 256);
        let searches = take(&admission, 0, Class::Interactive);
        assert_eq!(take(&admission, 999, Class::Bulk).len(), 4);
        drop(searches);
        assert_eq!(take(&admission, 1_001, Class::Bulk).len(), 256);
    }

    /// Rounds of searches at one time that all end together.
    fn rounds(admission: &Admission, now: &mut Instant, at_once: usize, took: u64, kind: Option<Kind>) {
        // Soon enough for what is unloaded to be still known.
        for _ in 0..(9_000 / took).clamp(2, 60) {
            let begun = *now;
            let permits: Vec<_> =
                (0..at_once).filter_map(|_| admission.admit_at(begun, Class::Interactive).ok()).collect();
            *now += ms(took);
            for permit in permits {
                permit.done_at(*now, kind.map(|kind| Error::new(kind, "no")).as_ref());
            }
        }
    }

    #[test]
    fn the_limit_follows_latency_and_what_leaves_refuse() {
        for (took, kind, lower) in [
            (3_000, None, true),
            (5, Some(Kind::Overloaded), true),
            (5, Some(Kind::Invalid), false),
            (3_000, Some(Kind::Expired), true),
            (5, Some(Kind::Expired), false),
        ] {
            let admission = Admission::new(Settings::default());
            let mut now = admission.begun;
            rounds(&admission, &mut now, 20, 5, None);
            let before = admission.limit();
            rounds(&admission, &mut now, before, took, kind);
            assert_eq!(admission.limit() < before, lower, "{took} {kind:?}: {}", admission.limit());
            assert_eq!(admission.searches.in_flight.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_service_that_is_well_is_not_limited() {
        let admission = Admission::new(Settings::default());
        let mut now = admission.begun;
        // More and more at a time, all as quick as ever.
        for at_once in [10, 40, 60, 100, 150] {
            rounds(&admission, &mut now, at_once, 50, None);
        }
        assert!(admission.limit() >= 150, "{}", admission.limit());
    }
}
