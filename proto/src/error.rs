//! What went wrong, told so that a caller knows what to do next.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Change the request. HTTP 400.
    Invalid,
    /// There is no such thing. HTTP 404.
    NotFound,
    /// The request contradicts what is there. HTTP 409.
    Conflict,
    /// It was there and is no longer. HTTP 410.
    Gone,
    /// Send less. HTTP 413.
    TooLarge,
    /// Slow down and retry later. HTTP 429.
    Overloaded,
    /// Retry: the service cannot do it right now. HTTP 503.
    Unavailable,
    /// The deadline passed. HTTP 504.
    Expired,
    /// A defect or corrupt data; operators should look. HTTP 500.
    Internal,
}

/// An error as it crosses roles.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Error {
    /// What to do about it.
    pub kind: Kind,
    /// What happened and what would be right, in one line.
    pub message: String,
    /// Byte offset in the query text, for a query that does not parse.
    pub position: Option<usize>,
    /// When to retry, where that is known.
    pub retry_after: Option<Duration>,
    /// For [`Kind::Gone`]: the newest generation that the leaf has, by shard.
    pub newest: Vec<(model::ids::ShardId, model::ids::Generation)>,
    /// The connection broke while the other side may have worked on the call.
    pub cut_off: bool,
}

macro_rules! constructor {
    ($(#[$doc:meta])* $name:ident, $kind:ident) => {
        $(#[$doc])*
        pub fn $name(message: impl Into<String>) -> Self {
            Self::new(Kind::$kind, message)
        }
    };
}

impl Error {
    /// An error of `kind`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            position: None,
            retry_after: None,
            newest: Vec::new(),
            cut_off: false,
        }
    }

    constructor!(/// Change the request.
        invalid, Invalid);
    constructor!(/// There is no such thing.
        not_found, NotFound);
    constructor!(/// The request contradicts what is there.
        conflict, Conflict);
    constructor!(/// It is no longer there.
        gone, Gone);
    constructor!(/// Send less.
        too_large, TooLarge);
    constructor!(/// Slow down.
        overloaded, Overloaded);
    constructor!(/// Retry.
        unavailable, Unavailable);
    constructor!(/// The deadline passed.
        expired, Expired);
    constructor!(/// A defect.
        internal, Internal);

    /// The same error, pointing at a byte of the query text.
    #[must_use]
    pub fn at(mut self, position: usize) -> Self {
        self.position = Some(position);
        self
    }

    /// The same error, with a time after which a retry makes sense.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Whether the very same request may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self.kind, Kind::Overloaded | Kind::Unavailable | Kind::Expired)
    }
}
