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

/// Handles, made once.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) searches: Counter,
    pub(crate) failed: Counter,
    pub(crate) seconds: Histogram,
    pub(crate) restarts: Counter,
    pub(crate) leaf_calls: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        describe_counter!(SEARCHES, Unit::Count, "Searches answered, failed ones included");
        describe_counter!(FAILED, Unit::Count, "Searches that failed");
        describe_histogram!(SEARCH_SECONDS, Unit::Seconds, "Time of a search at the root");
        describe_counter!(RESTARTS, Unit::Count, "Searches begun again because a generation was gone");
        describe_counter!(LEAF_CALLS, Unit::Count, "Calls to leaves");
        Self {
            searches: counter!(SEARCHES),
            failed: counter!(FAILED),
            seconds: histogram!(SEARCH_SECONDS),
            restarts: counter!(RESTARTS),
            leaf_calls: counter!(LEAF_CALLS),
        }
    }
}
