//! Names and units of what a root counts.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use crate::memory::Withheld;

/// Searches answered, failed ones included.
pub const SEARCHES: &str = "windrow_root_searches_total";
/// Searches that failed.
pub const FAILED: &str = "windrow_root_searches_failed_total";
/// Time of a search at the root.
pub const SEARCH_SECONDS: &str = "windrow_root_search_seconds";
/// Searches begun again because a generation was gone.
pub const RESTARTS: &str = "windrow_root_restarts_total";
/// Calls to leaves.
pub const LEAF_CALLS: &str = "windrow_root_leaf_calls_total";

/// Calls to leaves that took longer than usual.
pub const LATE: &str = "windrow_root_leaf_late_total";
/// Calls to another leaf since one failed.
pub const RETRIES: &str = "windrow_root_retries_total";
/// Calls to another leaf since one was late.
pub const HEDGES: &str = "windrow_root_hedges_total";
/// Hedges that answered first.
pub const HEDGES_WON: &str = "windrow_root_hedges_won_total";
/// Hedges that were not sent, by the reason.
pub const HEDGES_WITHHELD: &str = "windrow_root_hedges_withheld_total";
/// Calls that were given up.
pub const CANCELS: &str = "windrow_root_cancels_total";
/// Calls to a leaf that has yet to show that it is well again.
pub const TRIALS: &str = "windrow_root_trials_total";
/// Pings of leaves that are late.
pub const PINGS: &str = "windrow_root_pings_total";
/// Pings that were not answered at once.
pub const SILENCES: &str = "windrow_root_leaf_silences_total";
/// Searches that asked one leaf first, since one may have died of such a search.
pub const CANARIES: &str = "windrow_root_canaries_total";
/// Further calls that may be made, in calls.
pub const BUDGET: &str = "windrow_root_budget";
/// Answers that lack shards.
pub const PARTIAL: &str = "windrow_root_partial_total";

/// Writes that had to look for a shard's owner again.
pub const OWNERS_SOUGHT: &str = "windrow_root_owners_sought_total";

/// Handles, made once.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) searches: Counter,
    pub(crate) failed: Counter,
    pub(crate) seconds: Histogram,
    pub(crate) restarts: Counter,
    pub(crate) leaf_calls: Counter,
    pub(crate) late: Counter,
    pub(crate) owners_sought: Counter,
    pub(crate) retries: Counter,
    pub(crate) hedges: Counter,
    pub(crate) hedges_won: Counter,
    pub(crate) withheld_budget: Counter,
    pub(crate) withheld_slow: Counter,
    pub(crate) cancels: Counter,
    pub(crate) trials: Counter,
    pub(crate) pings: Counter,
    pub(crate) silences: Counter,
    pub(crate) canaries: Counter,
    pub(crate) budget: Gauge,
    pub(crate) partial: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        describe_counter!(SEARCHES, Unit::Count, "Searches answered, failed ones included");
        describe_counter!(FAILED, Unit::Count, "Searches that failed");
        describe_histogram!(SEARCH_SECONDS, Unit::Seconds, "Time of a search at the root");
        describe_counter!(RESTARTS, Unit::Count, "Searches begun again because a generation was gone");
        describe_counter!(LEAF_CALLS, Unit::Count, "Calls to leaves");
        describe_counter!(OWNERS_SOUGHT, Unit::Count, "Writes that looked for a shard's owner again");
        describe_counter!(LATE, Unit::Count, "Leaf calls that took longer than usual");
        describe_counter!(RETRIES, Unit::Count, "Leaf calls that were made since one failed");
        describe_counter!(HEDGES, Unit::Count, "Leaf calls that were made since one was late");
        describe_counter!(HEDGES_WON, Unit::Count, "Hedges that answered first");
        describe_counter!(HEDGES_WITHHELD, Unit::Count, "Hedges that were not sent");
        describe_counter!(CANCELS, Unit::Count, "Leaf calls that were given up");
        describe_counter!(TRIALS, Unit::Count, "Calls to leaves that were late or failed before");
        describe_counter!(PINGS, Unit::Count, "Pings of leaves that were late");
        describe_counter!(SILENCES, Unit::Count, "Pings without an answer at once: the leaf stands still");
        describe_counter!(CANARIES, Unit::Count, "Searches that asked one leaf first");
        describe_gauge!(BUDGET, Unit::Count, "Hedges and retries that may be made at once");
        describe_counter!(PARTIAL, Unit::Count, "Answers that lack shards");
        let withheld = |why| counter!(HEDGES_WITHHELD, "reason" => why);
        Self {
            searches: counter!(SEARCHES),
            failed: counter!(FAILED),
            seconds: histogram!(SEARCH_SECONDS),
            restarts: counter!(RESTARTS),
            leaf_calls: counter!(LEAF_CALLS),
            late: counter!(LATE),
            owners_sought: counter!(OWNERS_SOUGHT),
            retries: counter!(RETRIES),
            hedges: counter!(HEDGES),
            hedges_won: counter!(HEDGES_WON),
            withheld_budget: withheld("budget"),
            withheld_slow: withheld("slow"),
            cancels: counter!(CANCELS),
            trials: counter!(TRIALS),
            pings: counter!(PINGS),
            silences: counter!(SILENCES),
            canaries: counter!(CANARIES),
            budget: gauge!(BUDGET),
            partial: counter!(PARTIAL),
        }
    }
}

/// What one root did, for those who run many in one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls to leaves, hedges and retries included.
    pub calls: u64,
    /// Hedges.
    pub hedges: u64,
    /// Hedges that answered first.
    pub hedges_won: u64,
    /// Retries.
    pub retries: u64,
    /// Calls that were given up.
    pub cancelled: u64,
    /// Hedges withheld for want of budget.
    pub withheld_budget: u64,
    /// Hedges withheld since everything was slow.
    pub withheld_slow: u64,
}

/// The same, while it counts.
#[derive(Debug, Default)]
pub(crate) struct Counts([AtomicU64; 7]);

impl Counts {
    fn add(&self, place: usize, many: usize) {
        self.0[place].fetch_add(many as u64, Ordering::Relaxed);
    }
    pub(crate) fn call(&self) {
        self.add(0, 1);
    }
    pub(crate) fn hedge(&self, calls: usize) {
        self.add(1, calls);
    }
    pub(crate) fn won(&self, calls: usize) {
        self.add(2, calls);
    }
    pub(crate) fn retry(&self, calls: usize) {
        self.add(3, calls);
    }
    pub(crate) fn cancel(&self, calls: usize) {
        self.add(4, calls);
    }
    pub(crate) fn withheld(&self, why: Withheld) {
        self.add(if why == Withheld::Budget { 5 } else { 6 }, 1);
    }
    pub(crate) fn get(&self) -> Tally {
        let at = |place: usize| self.0[place].load(Ordering::Relaxed);
        Tally {
            calls: at(0),
            hedges: at(1),
            hedges_won: at(2),
            retries: at(3),
            cancelled: at(4),
            withheld_budget: at(5),
            withheld_slow: at(6),
        }
    }
}
