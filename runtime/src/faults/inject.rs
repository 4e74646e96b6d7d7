//! What is injected now, and the draws that decide it.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use metrics::{Counter, Unit, counter, describe_counter};
use tokio::time::Instant;

use super::spec::Spec;
use super::stalls::Stalls;
use crate::{Cancel, Random};

/// Faults injected, by kind.
const FAULTS: &str = "windrow_faults_total";
/// How often a held thread looks whether anybody still waits: a search that is
/// held stops about as fast as one that runs.
const STEP: Duration = Duration::from_millis(1);

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is answered.
    Answered,
    /// It is answered, but begins so much later.
    Delayed(Duration),
    /// It fails.
    Failed,
    /// It is never answered.
    Dropped,
}

/// The faults of a process. Clones inject the same.
#[derive(Clone)]
pub struct Faults(Arc<Inner>);

struct Inner {
    active: RwLock<Arc<Active>>,
    metrics: Metrics,
}

struct Active {
    spec: Spec,
    calls: Random,
    tasks: Random,
    store: Random,
    stalls: Option<Mutex<Stalls>>,
}

impl Active {
    fn new(spec: Spec) -> Self {
        let random = |place| match spec.seed {
            Some(seed) => Random::seeded(seed.wrapping_add(place)),
            None => Random::from_system(),
        };
        let stalls = spec.stall.map(|stall| Mutex::new(Stalls::new(stall, random(3), Instant::now())));
        Self { calls: random(0), tasks: random(1), store: random(2), stalls, spec }
    }
}

impl Faults {
    /// Injects what `spec` says.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self(Arc::new(Inner { active: RwLock::new(Arc::new(Active::new(spec))), metrics: Metrics::new() }))
    }

    /// Injects something else from now on; what is held already stays so.
    pub fn set(&self, spec: Spec) {
        *self.0.active.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Active::new(spec));
    }

    fn active(&self) -> Arc<Active> {
        self.0.active.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether something may happen to this call, which is, or is not, one of
    /// those that are meant where none is named.
    #[must_use]
    pub fn concern(&self, call: &str, meant: bool) -> bool {
        let Spec { calls, delay, stall, errors, drops, .. } = &self.active().spec;
        let anything = delay.is_some() || stall.is_some() || errors.is_some() || drops.is_some();
        anything && calls.as_ref().map_or(meant, |calls| calls.iter().any(|name| name == call))
    }

    /// Draws what becomes of a call. Being dropped comes before failing, and
    /// failing before a delay.
    #[must_use]
    pub fn fate(&self) -> Fate {
        let Active { spec, calls, .. } = &*self.active();
        let happens = |share: Option<f64>| calls.unit() < share.unwrap_or(0.0);
        let (dropped, failed) = (happens(spec.drops), happens(spec.errors));
        let delay = spec.delay.as_ref().and_then(|delay| delay.draw(calls));
        let metrics = &self.0.metrics;
        match delay {
            _ if dropped => {
                metrics.drops.increment(1);
                Fate::Dropped
            }
            _ if failed => {
                metrics.errors.increment(1);
                Fate::Failed
            }
            Some(delay) => {
                metrics.delay.increment(1);
                Fate::Delayed(delay)
            }
            None => Fate::Answered,
        }
    }

    /// Waits until the stall is over, where there is one now.
    pub async fn stall(&self) {
        let end = self
            .active()
            .stalls
            .as_ref()
            .and_then(|stalls| stalls.lock().unwrap_or_else(PoisonError::into_inner).end(Instant::now()));
        if let Some(end) = end {
            self.0.metrics.stall.increment(1);
            tokio::time::sleep_until(end).await;
        }
    }

    /// Holds this thread where a page of a slow disk would; `false` as soon as
    /// nobody waits for its work any more. Blocks: for threads of the CPU pool.
    #[must_use]
    pub fn hold(&self, cancel: &Cancel) -> bool {
        let Active { spec, tasks, .. } = &*self.active();
        let Some(length) = spec.disk.as_ref().and_then(|disk| disk.draw(tasks)) else { return true };
        self.0.metrics.disk.increment(1);
        let until = std::time::Instant::now() + length;
        while !cancel.check() {
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(STEP));
        }
        false
    }

    /// Draws how much longer an operation of the object store takes.
    #[must_use]
    pub fn slow(&self) -> Option<Duration> {
        let Active { spec, store, .. } = &*self.active();
        let length = spec.disk.as_ref().and_then(|disk| disk.draw(store))?;
        self.0.metrics.store.increment(1);
        Some(length)
    }
}

struct Metrics {
    delay: Counter,
    stall: Counter,
    errors: Counter,
    drops: Counter,
    disk: Counter,
    store: Counter,
}

impl Metrics {
    fn new() -> Self {
        describe_counter!(FAULTS, Unit::Count, "Faults injected on purpose, by kind");
        let of = |kind| counter!(FAULTS, "kind" => kind);
        Self {
            delay: of("delay"),
            stall: of("stall"),
            errors: of("errors"),
            drops: of("drops"),
            disk: of("disk"),
            store: of("store"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Chance, Stall};
    use super::*;
    use crate::duration::Text;
    use crate::{Deadline, Distribution};

    fn always(length: Duration) -> Option<Chance> {
        Some(Chance { probability: 1.0, length: Distribution::Constant(Text(length)) })
    }

    fn drawn(faults: &Faults) -> Vec<Fate> {
        (0..100).map(|_| faults.fate()).collect()
    }

    #[test]
    fn nothing_happens_by_default() {
        let faults = Faults::new(Spec::default());
        assert!(!faults.concern("search", true));
        assert!(drawn(&faults).iter().all(|fate| *fate == Fate::Answered));
        assert!(faults.hold(&Cancel::new()));
        assert_eq!(faults.slow(), None);
    }

    #[test]
    fn calls_are_concerned_by_name_or_by_default() {
        let faults = Faults::new(Spec { errors: Some(1.0), ..Spec::default() });
        assert!(faults.concern("search", true) && !faults.concern("write", false));
        faults.set(Spec { errors: Some(1.0), calls: Some(vec!["write".to_owned()]), ..Spec::default() });
        assert!(!faults.concern("search", true) && faults.concern("write", false));
        faults.set(Spec { disk: always(Duration::ZERO), ..Spec::default() });
        assert!(!faults.concern("search", true), "a slow disk is no slow call");
    }

    #[test]
    fn a_seed_repeats_each_place_whatever_happens_at_the_others() {
        let delay = Some(Chance {
            probability: 0.5,
            length: Distribution::Exponential(Text(Duration::from_secs(1))),
        });
        let spec = Spec {
            seed: Some(9),
            drops: Some(0.1),
            errors: Some(0.2),
            delay: delay.clone(),
            disk: delay,
            ..Spec::default()
        };
        let (one, two) = (Faults::new(spec.clone()), Faults::new(spec.clone()));
        let slow: Vec<_> = (0..10).map(|_| two.slow()).collect();
        let fates = drawn(&one);
        assert_eq!(fates, drawn(&two));
        assert_eq!(slow, (0..10).map(|_| one.slow()).collect::<Vec<_>>());
        for kind in [Fate::Answered, Fate::Dropped, Fate::Failed] {
            assert!(fates.contains(&kind), "{kind:?}");
        }
        one.set(Spec { seed: Some(10), ..spec });
        assert_ne!(fates, drawn(&one));
    }

    #[test]
    fn a_held_thread_is_let_go_when_nobody_waits() {
        let faults = Faults::new(Spec { disk: always(Duration::from_secs(50)), ..Spec::default() });
        let late = Cancel::until(Deadline::after(Duration::from_millis(5)));
        let began = std::time::Instant::now();
        assert!(!faults.hold(&late));
        let gone = Cancel::new();
        std::thread::scope(|scope| {
            let held = scope.spawn(|| faults.hold(&gone));
            gone.cancel();
            assert!(!held.join().unwrap());
        });
        // Far from both: it did not wait to the end.
        assert!(began.elapsed() < Duration::from_secs(40));
    }

    #[test]
    fn a_held_thread_is_held_as_long_as_was_drawn() {
        let length = Duration::from_millis(3);
        let faults = Faults::new(Spec { disk: always(length), ..Spec::default() });
        let began = std::time::Instant::now();
        assert!(faults.hold(&Cancel::new()));
        assert!(began.elapsed() >= length);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_into_a_stall_waits_for_its_end() {
        let stall = Stall { length: Text(Duration::from_secs(40)), every: Text(Duration::from_millis(10)) };
        let faults = Faults::new(Spec { stall: Some(stall), seed: Some(1), ..Spec::default() });
        let began = Instant::now();
        faults.stall().await;
        assert_eq!(began.elapsed(), Duration::ZERO, "it has not begun");
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::join!(faults.stall(), faults.stall());
        assert!(began.elapsed() >= Duration::from_secs(40), "{:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(41), "both wait for one end");
    }
}
