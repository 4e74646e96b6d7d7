//! How many requests to work on at one time, learned from how long they take.
//!
//! A gradient limit as in Netflix's `concurrency-limits` (`Gradient2Limit`) and
//! Envoy's adaptive concurrency, after TCP Vegas (Brakmo and Peterson, 1995):
//!
//! ```text
//!  allowed = tolerance × unloaded latency + slack
//!  limit'  = limit × allowed / latency + √limit
//! ```
//!
//! Where more are admitted than the service can do at once, latency grows with
//! their number, and the limit comes to rest where a request waits about as
//! long as is allowed. It differs from both in three ways:
//!
//! - A window's latency is its median, so that neither a few expensive queries
//!   nor a few cheap ones move anything.
//! - The unloaded latency never follows the loaded one upwards, which would let
//!   the limit drift to its maximum under an overload that lasts. After a while
//!   of pressure it is measured anew, as BBR does (Cardwell et al., 2016): for
//!   some requests the limit is two thirds of what is in service.
//! - A caller that knows how long a request was worked on says so, and nothing
//!   has to be learned: what is left is the time in the queue (as in DAGOR, Zhou
//!   et al., 2018).
//!
//! **Invariant:** the limit is between `least` and `most`, and it grows only
//! while at least half of it is used.

use std::time::Duration;

/// The least that one window leaves of a limit: a window may be odd. A queue
/// that is far too long is short within three.
const SHRINK_MOST: f64 = 0.3;
/// How far a limit goes up at once to where it wants to be.
const STEP_UP: f64 = 0.5;
/// Refusals further down, as a part of what ended, that are no sign of overload:
/// one of a window of twenty.
const REFUSED_MOST: f64 = 0.05;
/// By which part of its excess a limit that is not used falls, each window: back
/// within ten seconds or so, so that a sudden crowd meets no limit of long ago.
const FALL: f64 = 0.02;
/// The part of what is in service that is let in to measure an unloaded latency:
/// nearly all, for the rest is lost meanwhile.
const CALM: f64 = 0.67;
/// A measured latency that is so much lower, as a part of the known one, that
/// the known one was measured under load, and so perhaps was this one.
const FAR_BELOW: f64 = 0.5;
/// From one measurement to the next, in times of how long it took: slow requests
/// make it long, and then it must be rare.
const PROBE_EVERY: u32 = 40;
/// Latencies kept for one window: plenty for a median.
const KEPT: usize = 256;
/// The longest window, and the longest time a new measurement may take, in
/// least windows.
const WINDOW_MOST: u32 = 50;

/// How a limit is found.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The lowest limit; at least 1.
    pub least: usize,
    /// The lowest one where what is further down refuses: at most `least`.
    pub least_refused: usize,
    /// The first limit.
    pub first: usize,
    /// The highest limit.
    pub most: usize,
    /// Times the unloaded latency that a request may take.
    pub tolerance: f64,
    /// What it may take on top: bursts of cheap requests wait this long without
    /// any harm.
    pub slack: Duration,
    /// The least time between two looks at the latency.
    pub window: Duration,
    /// The least requests between them.
    pub samples: usize,
    /// How long a limit may be pressed before the unloaded latency is measured
    /// anew.
    pub probe_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // A few, whatever happens: enough to learn that all is well again.
            least: 4,
            least_refused: 4,
            // What a small machine can do; it doubles within a second if need be.
            first: 64,
            most: 1_000,
            // Twice keeps every thread busy whatever the mix.
            tolerance: 2.0,
            // Waiting this long is better than being refused.
            slack: Duration::from_millis(100),
            window: Duration::from_millis(100),
            // The median of 20 is rarely off by half.
            samples: 20,
            // As BBR: a percent of the time at most.
            probe_after: Duration::from_secs(10),
        }
    }
}

/// How a request ended that counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ended {
    /// It was answered.
    Answered {
        /// After this time.
        latency: Duration,
        /// How long it would have taken alone, where that is known.
        unloaded: Option<Duration>,
    },
    /// It was given up after this time. It would have taken longer.
    Lost {
        /// The time.
        latency: Duration,
    },
    /// It was refused further down for load.
    Refused,
}

/// A limit. It has no clock: times are counted from any one moment.
#[derive(Clone, Debug)]
pub struct Limit {
    settings: Settings,
    limit: f64,
    /// The unloaded latency in seconds, once something was answered.
    unloaded: Option<f64>,
    /// When that was last learned while nothing was pressed.
    learned: Option<Duration>,
    /// How long the last measurement under pressure took.
    probed: Duration,
    /// When the limit last shrank: what began before says nothing of it.
    shrunk: Duration,
    window: Window,
    probe: Option<Probe>,
}

#[derive(Clone, Debug, Default)]
struct Window {
    begun: Duration,
    time: Duration,
    latencies: Vec<f64>,
    unloaded: Vec<f64>,
    ended: usize,
    refused: usize,
    used: usize,
}

#[derive(Clone, Debug)]
struct Probe {
    limit: usize,
    begun: Duration,
    /// Since when no more than the probe's limit is under way.
    calm: Option<Duration>,
    latencies: Vec<f64>,
}

impl Limit {
    /// A limit that knows nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let most = settings.most.max(1);
        let least = settings.least.clamp(1, most);
        let least_refused = settings.least_refused.clamp(1, least);
        let settings = Settings { least, least_refused, most, ..settings };
        let limit = settings.first.clamp(least, most) as f64;
        let window = Window { time: settings.window, ..Window::default() };
        let (probed, shrunk) = (Duration::ZERO, Duration::ZERO);
        Self { settings, limit, unloaded: None, learned: None, probed, shrunk, window, probe: None }
    }

    /// Requests that may be under way now.
    #[must_use]
    pub fn now(&self) -> usize {
        let limit = self.limit as usize;
        self.probe.as_ref().map_or(limit, |probe| probe.limit.min(limit))
    }

    /// The latency of a request that meets no other, as far as it is known.
    #[must_use]
    pub fn unloaded(&self) -> Option<Duration> {
        self.unloaded.map(Duration::from_secs_f64)
    }

    /// Whether the unloaded latency is being measured, at a lower limit.
    #[must_use]
    pub fn probing(&self) -> bool {
        self.probe.is_some()
    }

    /// Notes how a request ended; `in_flight` counts it. Times of different
    /// threads may come in any order.
    pub fn ended(&mut self, at: Duration, in_flight: usize, ended: Ended) {
        if let Some(mut probe) = self.probe.take() {
            self.probe = if self.measured(&mut probe, at, in_flight, ended) { None } else { Some(probe) };
            if self.probe.is_none() {
                self.window = Window { begun: at, time: self.settings.window, ..Window::default() };
            }
            return;
        }
        let allowed = self.unloaded.map(|unloaded| self.allowed(unloaded));
        let window = &mut self.window;
        window.used = window.used.max(in_flight);
        let (latency, unloaded) = match ended {
            Ended::Answered { latency, unloaded } => (latency, unloaded),
            // One that was given up early, by an impatient caller, says nothing.
            Ended::Lost { latency } if allowed.is_some_and(|allowed| latency.as_secs_f64() <= allowed) => {
                return;
            }
            Ended::Lost { latency } => (latency, None),
            Ended::Refused => {
                window.ended += 1;
                window.refused += 1;
                return self.look(at);
            }
        };
        if at.saturating_sub(latency) < self.shrunk {
            return;
        }
        window.ended += 1;
        let place = window.ended;
        keep(&mut window.latencies, place, latency.as_secs_f64());
        if let Some(unloaded) = unloaded {
            keep(&mut window.unloaded, place, unloaded.as_secs_f64());
        }
        self.look(at);
    }

    /// Looks at a window that is over.
    fn look(&mut self, at: Duration) {
        let time = at.saturating_sub(self.window.begun);
        if self.window.ended < self.settings.samples || time < self.window.time {
            return;
        }
        let next = Window { begun: at, time: self.settings.window, ..Window::default() };
        let mut window = std::mem::replace(&mut self.window, next);
        let pressed = window.used as f64 * 2.0 >= self.limit;
        let refused = window.refused as f64 / window.ended as f64;
        let before = self.limit;
        if refused > REFUSED_MOST {
            self.limit *= (1.0 - refused).max(SHRINK_MOST);
        }
        if let Some(latency) = median(&mut window.latencies) {
            // A queue needs its own time to show what a change does.
            self.window.time = Duration::from_secs_f64(latency)
                .clamp(self.settings.window, self.settings.window * WINDOW_MOST);
            let unloaded = match median(&mut window.unloaded) {
                Some(told) => told,
                None => self.learn(at, time, latency, pressed),
            };
            self.unloaded = Some(unloaded);
            if pressed {
                let gradient = (self.allowed(unloaded) / latency.max(1e-9)).clamp(SHRINK_MOST, 1.0);
                // Where others refuse, growing only makes them refuse more.
                let growth = if refused > REFUSED_MOST { 0.0 } else { self.limit.sqrt() };
                let more = self.limit * gradient + growth - self.limit;
                self.limit += if more > 0.0 { more * STEP_UP } else { more };
            }
            let after = self.settings.probe_after.max(self.probed * PROBE_EVERY);
            let fresh = window.unloaded.len() * 2 > window.latencies.len()
                || self.learned.is_some_and(|learned| at.saturating_sub(learned) < after);
            if pressed && !fresh && refused <= REFUSED_MOST {
                let served = (window.ended - window.refused) as f64 / time.as_secs_f64().max(1e-9);
                let calm = (served * unloaded * CALM) as usize;
                let limit = calm.clamp(self.settings.least, self.settings.most);
                self.probe = Some(Probe { limit, begun: at, calm: None, latencies: Vec::new() });
            }
        }
        if !pressed {
            let enough = (window.used as f64 * 2.0).max(self.settings.first as f64);
            self.limit -= (self.limit - enough).max(0.0) * FALL;
        }
        // That it takes long brings it no lower than `least`, wherever refusals did.
        let least = match refused > REFUSED_MOST {
            true => self.settings.least_refused as f64,
            false => before.min(self.settings.least as f64),
        };
        self.limit = self.limit.clamp(least, self.settings.most as f64);
        if self.limit < before && pressed {
            self.shrunk = at;
        }
    }

    /// What the unloaded latency is after a window whose median was `latency`.
    fn learn(&mut self, at: Duration, time: Duration, latency: f64, pressed: bool) -> f64 {
        if !pressed {
            self.learned = Some(at);
        }
        let Some(known) = self.unloaded else { return latency };
        if latency <= known {
            // One window of cheap requests is not the world.
            return (known + latency) / 2.0;
        }
        if pressed {
            return known;
        }
        // Slowly: a load that grows looks like this too.
        let part = time.as_secs_f64() / self.settings.probe_after.as_secs_f64().max(1e-9);
        known + (latency - known) * part.min(1.0)
    }

    /// Notes a request that ended during a probe; whether the probe is over.
    fn measured(&mut self, probe: &mut Probe, at: Duration, in_flight: usize, ended: Ended) -> bool {
        if in_flight <= probe.limit {
            probe.calm.get_or_insert(at);
        }
        if let (Ended::Answered { latency, .. }, Some(calm)) = (ended, probe.calm)
            && at.saturating_sub(latency) >= calm
        {
            probe.latencies.push(latency.as_secs_f64());
        }
        let time = at.saturating_sub(probe.begun);
        let late = time >= self.settings.window * WINDOW_MOST;
        if probe.latencies.len() < self.settings.samples && !late {
            return false;
        }
        self.probed = time.min(self.settings.window * WINDOW_MOST);
        let enough = probe.latencies.len() * 4 >= self.settings.samples;
        let (Some(latency), true) = (median(&mut probe.latencies), enough) else {
            self.learned = Some(at);
            return true;
        };
        let known = self.unloaded.unwrap_or(latency);
        // The next window asks again.
        self.learned = if latency < known * FAR_BELOW { None } else { Some(at) };
        self.unloaded = Some(latency);
        true
    }

    fn allowed(&self, unloaded: f64) -> f64 {
        self.settings.tolerance.max(1.0) * unloaded + self.settings.slack.as_secs_f64()
    }
}

/// Keeps the newest.
fn keep(values: &mut Vec<f64>, place: usize, value: f64) {
    if values.len() < KEPT { values.push(value) } else { values[place % KEPT] = value }
}

fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[cfg(test)]
mod tests;
