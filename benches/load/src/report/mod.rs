//! What a benchmark measured, whole enough to be repeated.
//!
//! A [`Report`] holds one [`Run`] for each step or variant. It is kept as JSON,
//! printed as a table ([`table`]), shown as a page ([`html`]) and compared with
//! another ([`compare`]).

pub mod compare;
mod file;
mod histogram;
pub mod html;
mod notes;
#[cfg(test)]
mod sample;
mod summary;
pub mod table;
mod units;

pub use histogram::Histogram;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The number of this layout; a report of another is refused.
pub const FORMAT: u32 = 1;

/// What one command measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// Which benchmark: `run`, `load`, `shards`, `tail`, `overload`, `sim`.
    pub benchmark: String,
    /// What it shows, in a line.
    pub title: String,
    /// The command line that repeats it.
    pub command: String,
    /// The seed of its random choices.
    pub seed: u64,
    /// When it began: RFC 3339, UTC.
    pub started: String,
    /// What it ran on.
    pub machine: Machine,
    /// Every setting, defaults included.
    pub settings: serde_json::Value,
    /// One for each step or variant, in the order in which they ran.
    pub runs: Vec<Run>,
    /// Advice and warnings, a sentence each.
    pub notes: Vec<String>,
}

/// What a benchmark ran on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The version of this program.
    pub windrow: String,
    /// The operating system and its kernel.
    pub system: String,
    /// The processor.
    pub processor: String,
    /// Its cores that this process may use.
    pub cores: usize,
}

/// One step or variant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What sets it apart from the others, such as `200/s` or `with stops`.
    pub name: String,
    /// Requests a second that the schedule wanted; `None` in a closed loop.
    pub offered: Option<f64>,
    /// How long it was measured, in seconds, after the warm-up.
    pub seconds: f64,
    /// Requests whose intended start was within that time.
    pub sent: u64,
    /// Those that were answered well.
    pub answered: u64,
    /// The others, by reason.
    pub failed: BTreeMap<String, u64>,
    /// From the intended start to the whole answer, in µs: of all that were
    /// answered well.
    pub latency: Histogram,
    /// From the intended start to the actual one, in µs: what the generator
    /// itself added.
    pub lag: Histogram,
    /// From the actual start to the whole refusal, in µs: of all that were
    /// refused for load, or since nobody could answer.
    #[serde(default)]
    pub refusals: Histogram,
    /// The same latencies as `latency`, split into up to 20 stretches of time of equal
    /// length: their differences are the spread of every figure.
    pub blocks: Vec<Histogram>,
    /// What happened when.
    pub moments: Vec<Moment>,
    /// Answers without a hit.
    pub empty: u64,
    /// Answers by what the cache says of them (`hit`, `miss`, …); empty where
    /// it says nothing.
    pub cache: BTreeMap<String, u64>,
    /// What the servers' own counters grew by, such as `leaf calls`, `hedges`.
    pub counters: BTreeMap<String, f64>,
    /// CPU time of the servers, in seconds, where they run on this machine.
    pub server_cpu: Option<f64>,
    /// CPU time of this process, in seconds.
    pub own_cpu: f64,
    /// Figures of this benchmark alone, by name with the unit.
    pub figures: BTreeMap<String, f64>,
}

/// What happened in one stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Its end, in seconds from the beginning of the run.
    pub at: f64,
    /// How long it was, in seconds.
    pub seconds: f64,
    /// Requests that began in it.
    pub sent: u64,
    /// Requests that began in it and were answered well.
    pub answered: u64,
    /// Requests that began in it and failed.
    pub failed: u64,
    /// Their latency at the median, in µs.
    pub p50: u64,
    /// At the 99th percentile.
    pub p99: u64,
    /// The longest.
    pub max: u64,
    /// Answers from the cache.
    pub hits: u64,
    /// What the servers' own counters grew by.
    pub counters: BTreeMap<String, f64>,
    /// Cores of CPU that the servers used, where they run on this machine.
    pub server_cpu: Option<f64>,
}

impl Run {
    /// Good answers a second.
    #[must_use]
    pub fn throughput(&self) -> f64 {
        if self.seconds > 0.0 { self.answered as f64 / self.seconds } else { 0.0 }
    }

    /// All that failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}
