//! What is simulated, as a file says it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use runtime::Distribution;
use runtime::duration::Text;
use serde::{Deserialize, Serialize};

/// A cluster, its load and its faults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, in a line.
    pub title: String,
    /// Shards of the index.
    pub shards: u32,
    /// Copies of each.
    pub copies: u32,
    /// Leaves; without it one for each copy of each shard.
    #[serde(default)]
    pub leaves: Option<u32>,
    /// The leaves of each shard, where they are not in turn.
    #[serde(default)]
    pub placement: Option<Vec<Vec<u32>>>,
    /// Searches that a leaf runs at one time.
    #[serde(default = "one")]
    pub threads: u32,
    /// Roots; a query comes to each in turn.
    #[serde(default = "one")]
    pub roots: u32,
    /// Queries that are measured.
    pub queries: u64,
    /// Queries before that.
    #[serde(default)]
    pub warm_up: u64,
    /// Part of the leaves' time that the load takes, without faults; or `rate`.
    #[serde(default)]
    pub load: Option<f64>,
    /// Queries a second.
    #[serde(default)]
    pub rate: Option<f64>,
    /// How long a leaf works for one shard.
    pub service: Distribution,
    /// How long it works for a call, whatever the shards.
    #[serde(default = "nothing")]
    pub overhead: Distribution,
    /// The way between a root and a leaf.
    #[serde(default)]
    pub network: Network,
    /// From a root's giving up to the leaf's stopping.
    #[serde(default = "at_once")]
    pub cancel: Text,
    /// Time that every query takes at its root and before, whatever the leaves
    /// do; it delays no other.
    #[serde(default = "nothing")]
    pub root: Distribution,
    /// Stalls of each leaf.
    #[serde(default)]
    pub stalls: Option<Stalls>,
    /// Leaves that are slow for a while.
    #[serde(default)]
    pub slow: Vec<Slow>,
    /// Leaves that stand still for a while.
    #[serde(default)]
    pub pauses: Vec<Pause>,
    /// Calls whose answer takes long while the leaf works on others.
    #[serde(default)]
    pub linger: Option<Linger>,
    /// Leaves that are away for a while.
    #[serde(default)]
    pub down: Vec<Down>,
    /// Leaves that hold their shards only after a while.
    #[serde(default)]
    pub joins: Vec<Join>,
    /// The load over time, after the warm-up, in the place of `queries` at an
    /// even one.
    #[serde(default)]
    pub phases: Vec<Phase>,
    /// Whether a call that would wait waits at two leaves, of which the one that
    /// begins first tells the other.
    #[serde(default)]
    pub tied: bool,
    /// How a root takes one of several replicas: `random` or `two_choices`.
    #[serde(default)]
    pub choice: Choice,
    /// Whether late calls are made to another leaf too.
    #[serde(default = "yes")]
    pub hedging: bool,
    /// How long a leaf may take before another replica is asked too.
    #[serde(default = "half_a_second")]
    pub attempt_timeout: Text,
    /// How long a query may take.
    #[serde(default = "ten_seconds")]
    pub timeout: Text,
    /// The first seed.
    #[serde(default)]
    pub seed: u64,
    /// Runs, each with the next seed.
    #[serde(default = "one")]
    pub seeds: u32,
}

/// The way between a root and a leaf.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// One way.
    pub delay: Distribution,
    /// The share of messages that are lost and, as TCP does, sent again.
    pub loss: f64,
    /// How long that takes.
    pub again_after: Text,
}

impl Default for Network {
    fn default() -> Self {
        let again_after = Text(Duration::from_millis(200));
        Self { delay: nothing(), loss: 0.0, again_after }
    }
}

/// A process that stands still now and then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stalls {
    /// The mean time from one to the next.
    pub every: Text,
    /// How long one lasts.
    pub length: Text,
    /// Which leaves; all where it is empty.
    #[serde(default)]
    pub leaves: Vec<u32>,
    /// Whether they come at even times, the leaves in turn.
    #[serde(default)]
    pub in_turn: bool,
}

/// Leaves that work slower for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slow {
    /// Which; all where it is empty.
    #[serde(default)]
    pub leaves: Vec<u32>,
    /// How many times as long they work.
    pub factor: f64,
    /// From when on.
    #[serde(default = "at_once")]
    pub from: Text,
    /// Until when.
    #[serde(default = "for_ever")]
    pub to: Text,
}

/// Leaves that stand still for a while: these, or a share of all, by the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// Which.
    #[serde(default)]
    pub leaves: Vec<u32>,
    /// Each other leaf with this chance.
    #[serde(default)]
    pub share: f64,
    /// From when on.
    pub from: Text,
    /// Until when.
    pub to: Text,
}

/// Calls whose answer takes long while the leaf works on others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linger {
    /// The share of the calls.
    pub share: f64,
    /// How long their answers take, besides the work.
    pub time: Text,
}

/// A leaf that holds its shards only from some moment on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// Which.
    pub leaf: u32,
    /// From when on.
    pub at: Text,
}

/// A load for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Times `load`, or `rate`.
    pub times: f64,
    /// How long.
    pub length: Text,
}

/// Leaves that are away for a while, and lose what they were doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Down {
    /// Which.
    pub leaves: Vec<u32>,
    /// From when on.
    #[serde(default = "at_once")]
    pub from: Text,
    /// Until when.
    #[serde(default = "for_ever")]
    pub to: Text,
    /// Whether a caller hears nothing at all, as behind a cut link, instead of
    /// a refusal.
    #[serde(default)]
    pub silent: bool,
}

/// How one of several replicas is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// Any.
    Random,
    /// The less loaded of two.
    #[default]
    TwoChoices,
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

fn nothing() -> Distribution {
    Distribution::Constant(at_once())
}

fn at_once() -> Text {
    Text(Duration::ZERO)
}

fn for_ever() -> Text {
    Text(Duration::from_secs(3_600_000))
}

fn half_a_second() -> Text {
    Text(Duration::from_millis(500))
}

fn ten_seconds() -> Text {
    Text(Duration::from_secs(10))
}

/// Most leaves, shards and copies: enough for the largest cluster, and small
/// enough for one machine's memory.
const LEAVES_MAX: u32 = 20_000;
const SHARDS_MAX: u32 = 4_096;

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// One line that names the file, and what is wrong in it.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read: name a scenario file (TOML)", path.display()))?;
        let scenario: Self = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            anyhow::anyhow!("{}, line {line}: {}", path.display(), error.message())
        })?;
        scenario.check().with_context(|| path.display().to_string())?;
        Ok(scenario)
    }

    /// Says what makes no sense.
    ///
    /// # Errors
    /// What would.
    pub fn check(&self) -> Result<()> {
        ensure!((1..=SHARDS_MAX).contains(&self.shards), "shards must be 1 to {SHARDS_MAX}");
        ensure!(self.copies > 0, "copies must be above 0");
        ensure!((1..=LEAVES_MAX).contains(&self.leaves()), "leaves must be 1 to {LEAVES_MAX}");
        ensure!(self.copies <= self.leaves(), "copies are at most the leaves: each is on another one");
        ensure!(
            self.threads > 0 && self.roots > 0 && self.queries > 0,
            "threads, roots and queries are above 0"
        );
        ensure!(self.seeds > 0, "seeds is the number of runs, above 0");
        ensure!(
            self.load.is_some() != self.rate.is_some(),
            "give one of load (such as 0.5) and rate (queries a second)"
        );
        let rate = self.rate();
        ensure!(rate > 0.0 && rate.is_finite(), "the rate is {rate} queries a second: it must be above 0");
        ensure!((0.0..=0.5).contains(&self.network.loss), "network.loss is a share from 0 to 0.5");
        for (name, law) in [
            ("service", &self.service),
            ("overhead", &self.overhead),
            ("network.delay", &self.network.delay),
            ("root", &self.root),
        ] {
            law.check().map_err(|why| anyhow::anyhow!("{name}: {why}"))?;
        }
        let named = self.slow.iter().flat_map(|slow| &slow.leaves);
        let named = named.chain(self.down.iter().flat_map(|down| &down.leaves));
        let named = named.chain(self.stalls.iter().flat_map(|stalls| &stalls.leaves));
        let named = named.chain(self.placement.iter().flatten().flatten());
        let named = named.chain(self.pauses.iter().flat_map(|pause| &pause.leaves));
        let named = named.chain(self.joins.iter().map(|join| &join.leaf));
        for leaf in named {
            ensure!(*leaf < self.leaves(), "there is no leaf {leaf}: the last is {}", self.leaves() - 1);
        }
        ensure!(
            self.slow.iter().all(|slow| slow.factor > 0.0 && slow.factor <= 1e6),
            "a slow leaf's factor is above 0"
        );
        if let Some(placement) = &self.placement {
            ensure!(
                placement.len() == self.shards as usize && placement.iter().all(|leaves| !leaves.is_empty()),
                "placement names the leaves of each of the {} shards",
                self.shards
            );
        }
        let shares = self.pauses.iter().map(|pause| pause.share);
        let shares = shares.chain(self.linger.iter().map(|linger| linger.share));
        for share in shares {
            ensure!((0.0..=1.0).contains(&share), "a share is {share}: it must be 0 to 1");
        }
        ensure!(
            self.phases.iter().all(|phase| phase.times > 0.0 && phase.times <= 1e3),
            "a phase is so many times the load, above 0 and at most 1000"
        );
        if let Some(stalls) = &self.stalls {
            ensure!(!stalls.every.0.is_zero(), "stalls.every must be above 0");
        }
        Ok(())
    }

    /// How many leaves there are.
    #[must_use]
    pub fn leaves(&self) -> u32 {
        self.leaves.unwrap_or(self.shards.saturating_mul(self.copies))
    }

    /// The leaves that hold a shard.
    #[must_use]
    pub fn holders(&self, shard: u32) -> Vec<u32> {
        match &self.placement {
            Some(placement) => placement.get(shard as usize).cloned().unwrap_or_default(),
            None => (0..self.copies).map(|copy| (shard * self.copies + copy) % self.leaves()).collect(),
        }
    }

    /// How long the load lasts after the warm-up.
    #[must_use]
    pub fn length(&self) -> Duration {
        match self.phases.is_empty() {
            true => Duration::from_secs_f64(self.queries as f64 / self.rate()),
            false => self.phases.iter().map(|phase| phase.length.0).sum(),
        }
    }

    /// Queries a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        match (self.rate, self.load) {
            (Some(rate), _) => rate,
            (None, load) => {
                // A call for each shard, at most: overheads are shared where
                // one leaf answers for several.
                let work = f64::from(self.shards) * (self.service.mean_us() + self.overhead.mean_us()) / 1e6;
                load.unwrap_or(0.0) * f64::from(self.leaves() * self.threads) / work
            }
        }
    }
}
