//! Names and units of what a root counts.

use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};

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

/// Answers of leaves that were so late that another was asked.
pub const LATE: &str = "windrow_root_leaf_late_total";
/// Shards asked of another leaf since the first one failed.
pub const ELSEWHERE: &str = "windrow_root_leaf_elsewhere_total";

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
    pub(crate) elsewhere: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        describe_counter!(SEARCHES, Unit::Count, "Searches answered, failed ones included");
        describe_counter!(FAILED, Unit::Count, "Searches that failed");
        describe_histogram!(SEARCH_SECONDS, Unit::Seconds, "Time of a search at the root");
        describe_counter!(RESTARTS, Unit::Count, "Searches begun again because a generation was gone");
        describe_counter!(LEAF_CALLS, Unit::Count, "Calls to leaves");
        describe_counter!(OWNERS_SOUGHT, Unit::Count, "Writes that looked for a shard's owner again");
        describe_counter!(LATE, Unit::Count, "Leaf calls so late that another leaf was asked");
        describe_counter!(ELSEWHERE, Unit::Count, "Leaf calls that failed and were made elsewhere");
        Self {
            searches: counter!(SEARCHES),
            failed: counter!(FAILED),
            seconds: histogram!(SEARCH_SECONDS),
            restarts: counter!(RESTARTS),
            leaf_calls: counter!(LEAF_CALLS),
            late: counter!(LATE),
            owners_sought: counter!(OWNERS_SOUGHT),
            elsewhere: counter!(ELSEWHERE),
        }
    }
}
