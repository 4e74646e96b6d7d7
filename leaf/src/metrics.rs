//! Names and units of what a leaf counts.

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

/// Operations acknowledged.
pub const OPERATIONS: &str = "windrow_leaf_operations_total";
/// WAL records put.
pub const RECORDS: &str = "windrow_leaf_wal_records_total";
/// Operations that could not be applied and were skipped.
pub const SKIPPED: &str = "windrow_leaf_operations_skipped_total";
/// Generations published.
pub const PUBLISHED: &str = "windrow_leaf_generations_published_total";
/// From the start of a commit to its generation being open here.
pub const PUBLISH_SECONDS: &str = "windrow_leaf_publish_seconds";
/// Searches executed.
pub const SEARCHES: &str = "windrow_leaf_searches_total";
/// Documents scored.
pub const SCORED: &str = "windrow_leaf_documents_scored_total";

/// Searches refused since too many were there.
pub const SHED: &str = "windrow_leaf_shed_total";
/// Searches that are taken at one time.
pub const LIMIT: &str = "windrow_leaf_limit";

/// Shards that are open here.
pub const SHARDS_HELD: &str = "windrow_leaf_shards_held";
/// Shards whose writes are taken here.
pub const SHARDS_OWNED: &str = "windrow_leaf_shards_owned";

/// Handles, made once: a macro with labels costs a microsecond.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) operations: Counter,
    pub(crate) records: Counter,
    pub(crate) skipped: Counter,
    pub(crate) published: Counter,
    pub(crate) publish: Histogram,
    pub(crate) searches: Counter,
    pub(crate) scored: Counter,
    pub(crate) held: Gauge,
    pub(crate) owned: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        describe_gauge!(SHARDS_HELD, Unit::Count, "Shards that are open here");
        describe_gauge!(SHARDS_OWNED, Unit::Count, "Shards whose writes are taken here");
        describe_counter!(OPERATIONS, Unit::Count, "Operations acknowledged");
        describe_counter!(RECORDS, Unit::Count, "WAL records put");
        describe_counter!(SKIPPED, Unit::Count, "Operations that could not be applied");
        describe_counter!(PUBLISHED, Unit::Count, "Generations published");
        describe_histogram!(
            PUBLISH_SECONDS,
            Unit::Seconds,
            "From a commit's start to its generation being open"
        );
        describe_counter!(SEARCHES, Unit::Count, "Searches executed");
        describe_counter!(SCORED, Unit::Count, "Documents scored");
        Self {
            operations: counter!(OPERATIONS),
            records: counter!(RECORDS),
            skipped: counter!(SKIPPED),
            published: counter!(PUBLISHED),
            publish: histogram!(PUBLISH_SECONDS),
            searches: counter!(SEARCHES),
            scored: counter!(SCORED),
            held: gauge!(SHARDS_HELD),
            owned: gauge!(SHARDS_OWNED),
        }
    }
}
