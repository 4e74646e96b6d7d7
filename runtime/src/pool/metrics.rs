//! What a pool counts.

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

const QUEUED: &str = "windrow_pool_queued";
const RUNNING: &str = "windrow_pool_running";
const STARTED: &str = "windrow_pool_started_total";
const COMPLETED: &str = "windrow_pool_completed_total";
const REFUSED: &str = "windrow_pool_refused_total";
const LATE: &str = "windrow_pool_late_total";
const CANCELLED_QUEUED: &str = "windrow_pool_cancelled_queued_total";
const CANCELLED_RUNNING: &str = "windrow_pool_cancelled_running_total";
const EXPIRED_QUEUED: &str = "windrow_pool_expired_queued_total";
const EXPIRED_RUNNING: &str = "windrow_pool_expired_running_total";
const WASTED_US: &str = "windrow_pool_cancelled_work_microseconds_total";
const QUEUE_SECONDS: &str = "windrow_pool_queue_seconds";
const STOP_SECONDS: &str = "windrow_pool_cancel_to_stop_seconds";

fn describe() {
    describe_gauge!(QUEUED, Unit::Count, "Jobs that wait for a thread");
    describe_gauge!(RUNNING, Unit::Count, "Jobs that run");
    describe_counter!(STARTED, Unit::Count, "Jobs that began");
    describe_counter!(COMPLETED, Unit::Count, "Jobs that ended by themselves");
    describe_counter!(REFUSED, Unit::Count, "Jobs refused since the queue was full");
    describe_counter!(LATE, Unit::Count, "Jobs refused since they could not be done before their deadline");
    describe_counter!(CANCELLED_QUEUED, Unit::Count, "Jobs cancelled while they waited, which never began");
    describe_counter!(CANCELLED_RUNNING, Unit::Count, "Jobs cancelled while they ran");
    describe_counter!(
        EXPIRED_QUEUED,
        Unit::Count,
        "Jobs whose deadline passed while they waited, which never began"
    );
    describe_counter!(EXPIRED_RUNNING, Unit::Count, "Jobs that their deadline stopped");
    describe_counter!(WASTED_US, Unit::Microseconds, "Time that cancelled jobs had run, in microseconds");
    describe_histogram!(QUEUE_SECONDS, Unit::Seconds, "Time in the queue");
    describe_histogram!(STOP_SECONDS, Unit::Seconds, "Time from a cancel to the stop of a job that ran");
}

// Handles are looked up once: a lookup hashes its labels, which a job of 20 µs feels.
pub(super) struct Metrics {
    pub(super) queued: Gauge,
    pub(super) running: Gauge,
    pub(super) started: Counter,
    pub(super) completed: Counter,
    /// The queue was full.
    pub(super) refused: Counter,
    /// It would have begun too late.
    pub(super) late: Counter,
    pub(super) cancelled_queued: Counter,
    pub(super) cancelled_running: Counter,
    pub(super) expired_queued: Counter,
    /// Those of the cancelled ones that were stopped by their deadline.
    pub(super) expired_running: Counter,
    pub(super) wasted_us: Counter,
    pub(super) queue_seconds: Histogram,
    pub(super) stop_seconds: Histogram,
}

impl Metrics {
    pub(super) fn new(name: &str) -> Self {
        describe();
        let pool = || [("pool", name.to_owned())];
        Self {
            queued: gauge!(QUEUED, &pool()),
            running: gauge!(RUNNING, &pool()),
            started: counter!(STARTED, &pool()),
            completed: counter!(COMPLETED, &pool()),
            refused: counter!(REFUSED, &pool()),
            late: counter!(LATE, &pool()),
            cancelled_queued: counter!(CANCELLED_QUEUED, &pool()),
            cancelled_running: counter!(CANCELLED_RUNNING, &pool()),
            expired_queued: counter!(EXPIRED_QUEUED, &pool()),
            expired_running: counter!(EXPIRED_RUNNING, &pool()),
            wasted_us: counter!(WASTED_US, &pool()),
            queue_seconds: histogram!(QUEUE_SECONDS, &pool()),
            stop_seconds: histogram!(STOP_SECONDS, &pool()),
        }
    }
}
