//! What a pool counts.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

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
        let pool = || [("pool", name.to_owned())];
        Self {
            queued: gauge!("windrow_pool_queued", &pool()),
            running: gauge!("windrow_pool_running", &pool()),
            started: counter!("windrow_pool_started_total", &pool()),
            completed: counter!("windrow_pool_completed_total", &pool()),
            refused: counter!("windrow_pool_refused_total", &pool()),
            late: counter!("windrow_pool_late_total", &pool()),
            cancelled_queued: counter!("windrow_pool_cancelled_queued_total", &pool()),
            cancelled_running: counter!("windrow_pool_cancelled_running_total", &pool()),
            expired_queued: counter!("windrow_pool_expired_queued_total", &pool()),
            expired_running: counter!("windrow_pool_expired_running_total", &pool()),
            wasted_us: counter!("windrow_pool_cancelled_work_microseconds_total", &pool()),
            queue_seconds: histogram!("windrow_pool_queue_seconds", &pool()),
            stop_seconds: histogram!("windrow_pool_cancel_to_stop_seconds", &pool()),
        }
    }
}
