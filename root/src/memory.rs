//! What this root remembers of its leaves and of their times.
//!
//! **Invariant:** it is only ever a hint: whatever is forgotten here costs time
//! and no answer.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use model::hedge::{self, Budget, Quantile, Slowness, Stretch};
use model::ids::{Generation, IndexUid, NodeId, ShardId};
use model::plan::Node;
use model::standing::{self, Doubt, Report, Standing};
use proto::leaf::ShardAt;
use proto::{Error, Kind};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::metrics::Metrics;

/// How long a replica that lacked a generation is asked last.
const LAGGING_FOR: Duration = Duration::from_secs(1);
/// Replicas remembered as lagging.
const LAGGING_MAX: u64 = 100_000;
/// Indexes whose times are remembered; beyond that all are learned anew.
const INDEXES_MAX: usize = 10_000;
/// How long the shape of a query that a leaf died of is remembered.
const DANGEROUS_FOR: Duration = Duration::from_secs(60);
/// Leaves remembered that died of a shape: two are enough.
const DEAD_MAX: usize = 4;
/// Shapes remembered.
const DANGEROUS_MAX: u64 = 10_000;

/// What a question asks of leaves; each has its own usual time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A search by one leaf that holds everything.
    Alone,
    Statistics,
    Search,
    Fetch,
    Get,
}

impl Phase {
    /// As a profile names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Alone | Self::Search => "search",
            Self::Statistics => "statistics",
            Self::Fetch => "fetch",
            Self::Get => "get",
        }
    }
}

const PHASES: usize = 5;

/// How long the shards of an index usually take, by phase.
pub(crate) struct History(Vec<[AtomicU64; PHASES]>);

impl History {
    fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect())
    }

    fn cell(&self, shard: ShardId, phase: Phase) -> Option<&AtomicU64> {
        self.0.get(shard.0 as usize).map(|times| &times[phase as usize])
    }

    /// The time after which a call for these shards is late, in seconds.
    pub(crate) fn usual(&self, shards: &[ShardAt], phase: Phase) -> Option<f64> {
        let each = shards.iter().filter_map(|at| self.cell(at.shard, phase));
        let each = each.filter_map(|cell| Quantile::from_bits(cell.load(Ordering::Relaxed)).get());
        each.max_by(f64::total_cmp)
    }

    /// Learns from a call. Of two at one moment one may be lost.
    pub(crate) fn learn(&self, shards: &[ShardAt], phase: Phase, took: f64, quantile: f64) {
        for cell in shards.iter().filter_map(|at| self.cell(at.shard, phase)) {
            let known = Quantile::from_bits(cell.load(Ordering::Relaxed));
            cell.store(known.with(took, quantile).bits(), Ordering::Relaxed);
        }
    }
}

/// What hedges and retries may cost, and whether they would help.
struct Spending {
    budget: Budget,
    slowness: Slowness,
    stretch: Stretch,
}

/// When something last happened.
#[derive(Default)]
struct Last(AtomicU64);

impl Last {
    fn note(&self, now: f64) {
        self.0.store(now.max(f64::MIN_POSITIVE).to_bits(), Ordering::Relaxed);
    }

    fn lately(&self, now: f64, within: Duration) -> bool {
        let last = f64::from_bits(self.0.load(Ordering::Relaxed));
        last > 0.0 && now - last <= within.as_secs_f64()
    }
}

/// Why a hedge was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Withheld {
    Budget,
    EverythingIsSlow,
}

/// All of it.
pub(crate) struct Memory {
    beginning: Instant,
    settings: hedge::Settings,
    reports: standing::Settings,
    leaves: RwLock<HashMap<NodeId, Arc<Mutex<Standing>>>>,
    histories: RwLock<HashMap<IndexUid, Arc<History>>>,
    spending: Mutex<Spending>,
    lagging: moka::sync::Cache<(NodeId, IndexUid, ShardId), Generation>,
    lagged: Last,
    /// The leaves that died, by the shape of what they died of.
    dangerous: moka::sync::Cache<u64, Vec<NodeId>>,
    died: Last,
    metrics: Metrics,
    /// How long pings usually take at most.
    round_trip: AtomicU64,
    /// Told when a leaf falls silent.
    silenced: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    pub(crate) fn new(settings: hedge::Settings, reports: standing::Settings, metrics: Metrics) -> Self {
        let spending = Spending {
            budget: Budget::new(&settings),
            slowness: Slowness::default(),
            stretch: Stretch::default(),
        };
        Self {
            beginning: Instant::now(),
            settings,
            reports,
            leaves: RwLock::default(),
            histories: RwLock::default(),
            spending: Mutex::new(spending),
            lagging: moka::sync::Cache::builder().max_capacity(LAGGING_MAX).time_to_live(LAGGING_FOR).build(),
            dangerous: moka::sync::Cache::builder()
                .max_capacity(DANGEROUS_MAX)
                .time_to_live(DANGEROUS_FOR)
                .build(),
            round_trip: AtomicU64::default(),
            silenced: Notify::new(),
            lagged: Last::default(),
            died: Last::default(),
            metrics,
        }
    }

    /// Seconds since the beginning.
    pub(crate) fn now(&self) -> f64 {
        self.beginning.elapsed().as_secs_f64()
    }

    fn standing(&self, node: &NodeId) -> Arc<Mutex<Standing>> {
        let known = self.leaves.read().unwrap_or_else(PoisonError::into_inner).get(node).cloned();
        known.unwrap_or_else(|| {
            self.leaves
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(node.clone())
                .or_default()
                .clone()
        })
    }

    /// What is known of many leaves, under one lock.
    pub(crate) fn read<R>(&self, work: impl FnOnce(&dyn Fn(&NodeId) -> Standing) -> R) -> R {
        let leaves = self.leaves.read().unwrap_or_else(PoisonError::into_inner);
        work(&|node| leaves.get(node).map(|standing| *lock(standing)).unwrap_or_default())
    }

    /// Forgets leaves that are gone and owe nothing, where it remembers more than
    /// there are.
    pub(crate) fn keep(&self, there_are: usize, known: impl Fn(&NodeId) -> bool) {
        if self.leaves.read().unwrap_or_else(PoisonError::into_inner).len() <= there_are {
            return;
        }
        let mut leaves = self.leaves.write().unwrap_or_else(PoisonError::into_inner);
        leaves.retain(|node, standing| known(node) || lock(standing).unanswered() > 0);
    }

    /// The times of an index.
    pub(crate) fn history(&self, uid: &IndexUid, shards: usize) -> Arc<History> {
        let known = self.histories.read().unwrap_or_else(PoisonError::into_inner).get(uid).cloned();
        known.unwrap_or_else(|| {
            let mut all = self.histories.write().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= INDEXES_MAX {
                all.clear();
            }
            all.entry(uid.clone()).or_insert_with(|| Arc::new(History::new(shards))).clone()
        })
    }

    /// Notes a call; what it returns notes its end.
    pub(crate) fn send(&self, node: &NodeId) -> Sent {
        let standing = self.standing(node);
        let trial = {
            let mut standing = lock(&standing);
            let trial = standing.on_trial();
            standing.sent();
            trial
        };
        if trial {
            self.metrics.trials.increment(1);
        }
        Sent { standing, beginning: self.beginning, reports: self.reports }
    }

    /// How long a ping may take before it says that the leaf stands still: three
    /// times what is usual.
    pub(crate) fn within(&self, least: Duration, most: Duration) -> Duration {
        let usual = Quantile::from_bits(self.round_trip.load(Ordering::Relaxed)).get();
        let usual = usual.and_then(|usual| Duration::try_from_secs_f64(3.0 * usual).ok());
        usual.unwrap_or(most).max(least).min(most)
    }

    /// Begins to ping a leaf that was quiet for so long, where nobody does.
    pub(crate) fn ping(&self, node: &NodeId, quiet: Duration) -> Option<Ping> {
        let standing = self.standing(node);
        let begun = self.now();
        let due = lock(&standing).ping(begun, quiet.as_secs_f64());
        due.then(|| {
            self.metrics.pings.increment(1);
            Ping { standing, begun }
        })
    }

    /// Notes that a ping has no answer so far; whether that says anything.
    pub(crate) fn falls_silent(&self, ping: &Ping) -> bool {
        let silent = lock(&ping.standing).falls_silent(ping.begun);
        if silent {
            self.metrics.silences.increment(1);
            self.silenced.notify_waiters();
        }
        silent
    }

    /// Notes that a ping has failed; whether that says anything.
    pub(crate) fn ping_failed(&self, ping: &Ping) -> bool {
        lock(&ping.standing).ping_ends(ping.begun)
    }

    /// Notes the answer to a ping.
    pub(crate) fn pong(&self, ping: &Ping, took: Duration, load: proto::leaf::Load) {
        lock(&ping.standing).pong(self.now(), report(load), &self.reports);
        let known = Quantile::from_bits(self.round_trip.load(Ordering::Relaxed));
        self.round_trip.store(known.with(took.as_secs_f64(), 0.95).bits(), Ordering::Relaxed);
    }

    /// Resolves when a leaf falls silent.
    pub(crate) fn silenced(&self) -> Notified<'_> {
        self.silenced.notified()
    }

    /// Asks a leaf last for a while.
    pub(crate) fn doubt(&self, node: &NodeId, time: Duration, why: Doubt) {
        let now = self.now();
        lock(&self.standing(node)).failed(now, now + time.as_secs_f64(), why);
    }

    /// Notes a generation that a leaf lacks.
    pub(crate) fn lags(&self, node: &NodeId, uid: &IndexUid, asked: &[ShardAt], error: &Error) {
        // One that is ahead has dropped what was asked, and serves the next cut.
        for (at, newest) in lacking(asked, error).into_iter().filter(|(at, newest)| *newest < at.generation) {
            self.lagged.note(self.now());
            self.lagging.insert((node.clone(), uid.clone(), at.shard), newest);
        }
    }

    /// Whether a leaf is known to lack what is asked.
    pub(crate) fn lacks(&self, node: &NodeId, uid: &IndexUid, at: &ShardAt) -> bool {
        // Nearly always nothing is.
        self.lagged.lately(self.now(), LAGGING_FOR)
            && self
                .lagging
                .get(&(node.clone(), uid.clone(), at.shard))
                .is_some_and(|newest| newest < at.generation)
    }

    /// Notes first sends.
    pub(crate) fn earn(&self, sends: usize) {
        let mut spending = lock(&self.spending);
        spending.budget.earn(sends, &self.settings);
        spending.stretch.sent(sends, &self.settings);
        self.metrics.budget.set(spending.budget.saved());
    }

    /// Spends on a hedge, or says why not. That of a leaf which stands still is
    /// not `ordinary`.
    pub(crate) fn hedge(&self, sends: usize, ordinary: bool, overdue: bool) -> Result<(), Withheld> {
        let mut spending = lock(&self.spending);
        if !overdue && spending.slowness.everything(&self.settings) {
            return Err(Withheld::EverythingIsSlow);
        }
        if !spending.budget.take(sends, overdue, &self.settings) {
            return Err(Withheld::Budget);
        }
        if ordinary {
            spending.stretch.hedged(sends);
        }
        Ok(())
    }

    /// How many times its usual time a call must take to be late.
    pub(crate) fn stretch(&self) -> f64 {
        lock(&self.spending).stretch.factor()
    }

    /// Spends on a retry of what another leaf refused, if there is anything.
    pub(crate) fn retry(&self, sends: usize) -> bool {
        lock(&self.spending).budget.take(sends, true, &self.settings)
    }

    /// Spends on a retry of what another leaf never worked on.
    pub(crate) fn charge(&self, sends: usize) {
        lock(&self.spending).budget.charge(sends, &self.settings);
    }

    /// Notes a call that ended in time, or one that made its leaf late.
    pub(crate) fn note(&self, late: bool) {
        lock(&self.spending).slowness.note(late);
    }

    /// How many leaves died of queries of this shape, lately.
    pub(crate) fn danger(&self, shape: impl FnOnce() -> u64) -> usize {
        let any = self.died.lately(self.now(), DANGEROUS_FOR);
        if any { self.dangerous.get(&shape()).map_or(0, |died| died.len()) } else { 0 }
    }

    /// Notes that a leaf died of a query of this shape, perhaps. One that goes
    /// with many calls, or is away and goes on breaking them, is still one.
    /// Returns how many died.
    pub(crate) fn died(&self, shape: u64, node: &NodeId) -> usize {
        let mut died = self.dangerous.get(&shape).unwrap_or_default();
        if died.len() < DEAD_MAX && !died.contains(node) {
            died.push(node.clone());
        }
        let count = died.len();
        self.dangerous.insert(shape, died);
        self.died.note(self.now());
        count
    }

    /// Notes that a query of this shape did no harm.
    pub(crate) fn harmless(&self, shape: u64) {
        self.dangerous.invalidate(&shape);
    }
}

/// The shards of a call that its leaf has not as asked, with the newest that it
/// has of each: those that its error names, or all where that names none.
pub(crate) fn lacking(asked: &[ShardAt], error: &Error) -> Vec<(ShardAt, Generation)> {
    let newest = |at: &ShardAt| error.newest.iter().find(|(shard, _)| *shard == at.shard);
    let named = asked.iter().filter_map(|at| newest(at).map(|(_, newest)| (*at, *newest)));
    let named: Vec<_> = named.collect();
    if named.is_empty() { asked.iter().map(|at| (*at, Generation(0))).collect() } else { named }
}

/// A ping under way; it ends when this is dropped.
pub(crate) struct Ping {
    standing: Arc<Mutex<Standing>>,
    begun: f64,
}

impl Drop for Ping {
    fn drop(&mut self) {
        lock(&self.standing).ping_ends(self.begun);
    }
}

/// One call under way; it ends when this is dropped.
pub(crate) struct Sent {
    standing: Arc<Mutex<Standing>>,
    beginning: Instant,
    reports: standing::Settings,
}

fn report(load: proto::leaf::Load) -> Report {
    Report {
        in_flight: f64::from(load.running) + f64::from(load.queued),
        service: f64::from(load.service_us) / 1e6,
    }
}

impl Sent {
    /// Notes its answer.
    pub(crate) fn answered(&self, load: Option<proto::leaf::Load>) {
        let now = self.beginning.elapsed().as_secs_f64();
        lock(&self.standing).answered(now, load.map(report), &self.reports);
    }

    /// How many times its usual time this call may take.
    pub(crate) fn stretched(&self, stretch: f64) -> f64 {
        lock(&self.standing).stretched(stretch)
    }

    /// Notes that it is late; whether its leaf was not before.
    pub(crate) fn late(&self) -> bool {
        lock(&self.standing).is_late()
    }

    /// Whether its leaf stands still.
    pub(crate) fn silent(&self) -> bool {
        lock(&self.standing).silent()
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        lock(&self.standing).ended();
    }
}

/// The shape of a query: its index and its tree. What kills the leaves of one
/// index may be harmless in another.
pub(crate) fn shape(index: &IndexUid, query: &Node, filter: Option<&Node>) -> u64 {
    let mut hasher = DefaultHasher::new();
    index.hash(&mut hasher);
    format!("{query:?} {filter:?}").hash(&mut hasher);
    hasher.finish()
}

/// Whether a leaf may have died of the call.
pub(crate) fn deadly(error: &Error) -> bool {
    error.cut_off || error.kind == Kind::Internal
}
