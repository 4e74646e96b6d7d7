//! The limits of the public API, each beside its reason.

use std::time::Duration;

use model::pace;
use model::query::Limits;

/// What the public API accepts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Limits of one query, and of one filter.
    pub query: Limits,
    /// Largest body of a search or of an index definition: the longest query
    /// and filter, escaped, a token of every shard, and a list of fields.
    pub request_bytes_max: usize,
    /// Largest body of documents. Larger ones gain nothing: a group commit is
    /// full long before, and the whole body is held until it is durable.
    pub body_bytes_max: usize,
    /// Longest single document. A WAL record must hold it, and a person cannot
    /// read it.
    pub line_bytes_max: usize,
    /// Most documents of one body: each costs some 40 bytes beside its own.
    pub lines_max: usize,
    /// Bytes of document bodies in memory at one time, for all requests.
    pub bodies_bytes_max: usize,
    /// Largest message of gRPC, which is decoded whole before we see it. It
    /// holds the longest document with room for its frame.
    pub grpc_message_bytes_max: usize,
    /// Requests that are worked on at one time; more are told to come back.
    /// The CPU pool behind queues far fewer, so waiting here helps nobody.
    pub requests_max: usize,
    /// When a request that was refused for load should come back.
    pub retry_after: Duration,
    /// How fast requests are refused.
    pub refusals: pace::Settings,
    /// Refused requests that wait to be told; more are told at once. One for each
    /// connection that there may be.
    pub refused_max: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How long a write may take, from its first byte to its answer.
    pub write_timeout: Duration,
    /// How long any other call but a search may take.
    pub call_timeout: Duration,
    /// Create an index, with an inferred schema, at its first write.
    pub auto_create: bool,
    /// Routes of the node, such as `/metrics`, served beside the API.
    pub extra: Option<axum::Router>,
}

impl Default for Settings {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            query: Limits::default(),
            request_bytes_max: MIB,
            body_bytes_max: 64 * MIB,
            line_bytes_max: 16 * MIB,
            lines_max: 500_000,
            bodies_bytes_max: 512 * MIB,
            grpc_message_bytes_max: 17 * MIB,
            requests_max: 1_024,
            retry_after: Duration::from_secs(1),
            refusals: pace::Settings::default(),
            refused_max: 4_096,
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(30),
            auto_create: false,
            extra: None,
        }
    }
}
