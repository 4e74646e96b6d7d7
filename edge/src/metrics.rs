//! What the public API counts. Handles are looked up once and kept: a lookup
//! by labels costs more than the count.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Unit};
use proto::{Kind, status};

/// Requests by `call` and `result` (`ok`, a kind of error, or `cancelled`:
/// the client went away).
pub(crate) const REQUESTS: &str = "windrow_edge_requests_total";
/// Time to answer, by `call`.
pub(crate) const SECONDS: &str = "windrow_edge_seconds";
/// Requests that are worked on.
pub(crate) const IN_FLIGHT: &str = "windrow_edge_requests_in_flight";
/// Refusals that waited, since there were too many of them.
pub(crate) const REFUSALS_PACED: &str = "windrow_edge_refusals_paced_total";
/// Bytes of documents that arrived.
pub(crate) const DOCUMENT_BYTES: &str = "windrow_edge_document_bytes_total";

fn describe() {
    metrics::describe_counter!(REQUESTS, "Requests by call and result");
    metrics::describe_histogram!(SECONDS, Unit::Seconds, "Time to answer, by call");
    metrics::describe_gauge!(IN_FLIGHT, "Requests that are worked on");
    metrics::describe_counter!(REFUSALS_PACED, "Refusals that waited, since there were too many of them");
    metrics::describe_counter!(DOCUMENT_BYTES, Unit::Bytes, "Bytes of documents that arrived");
}

/// A call of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    CreateIndex,
    ListIndexes,
    DescribeIndex,
    DeleteIndex,
    Write,
    GetDocument,
    DeleteDocument,
    Search,
    Cluster,
}

const CALLS: [&str; 9] = [
    "create_index",
    "list_indexes",
    "describe_index",
    "delete_index",
    "write",
    "get_document",
    "delete_document",
    "search",
    "cluster",
];

/// `ok`, the kinds, `cancelled`.
const RESULTS: usize = status::KINDS.len() + 2;
const OK: usize = 0;
const CANCELLED: usize = RESULTS - 1;

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Ok,
    Failed(Kind),
    Cancelled,
}

pub(crate) struct Metrics {
    calls: [PerCall; CALLS.len()],
    pub(crate) in_flight: Gauge,
    pub(crate) document_bytes: Counter,
    pub(crate) refusals_paced: Counter,
}

struct PerCall {
    name: &'static str,
    seconds: Histogram,
    // Made when they first happen: most pairs never do.
    results: [OnceLock<Counter>; RESULTS],
}

impl Metrics {
    pub(crate) fn new() -> Self {
        describe();
        let per_call = |name| PerCall {
            name,
            seconds: metrics::histogram!(SECONDS, "call" => name),
            results: Default::default(),
        };
        Self {
            calls: CALLS.map(per_call),
            in_flight: metrics::gauge!(IN_FLIGHT),
            document_bytes: metrics::counter!(DOCUMENT_BYTES),
            refusals_paced: metrics::counter!(REFUSALS_PACED),
        }
    }

    pub(crate) fn ended(&self, call: Call, end: End, took: Duration) {
        let call = &self.calls[call as usize];
        let (index, name) = match end {
            End::Ok => (OK, "ok"),
            End::Failed(kind) => {
                let place = status::KINDS.iter().position(|known| *known == kind);
                (1 + place.unwrap_or(status::KINDS.len() - 1), status::name(kind))
            }
            End::Cancelled => (CANCELLED, "cancelled"),
        };
        call.results[index]
            .get_or_init(|| metrics::counter!(REQUESTS, "call" => call.name, "result" => name))
            .increment(1);
        call.seconds.record(took.as_secs_f64());
    }
}
