//! What went wrong, and what to do about it.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use proto::{Kind, status};
use serde::Deserialize;

/// Why a call failed. Its text says what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The URL is none that this client can use.
    #[error("{url:?} is no URL of a Windrow: {reason}; it looks like http://127.0.0.1:7700")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody listens there.
    #[error("no Windrow answers at {url}: start one with `windrow up`, or name another with --url")]
    Away {
        /// The server's URL.
        url: String,
    },
    /// The connection broke before the answer was there. A write may or may
    /// not have gone in; sending it again is safe.
    #[error("the connection to {url} broke: {reason}; see whether the server still runs, and send it again")]
    Broken {
        /// The server's URL.
        url: String,
        /// What happened.
        reason: String,
    },
    /// No answer came in time.
    #[error("{url} did not answer in time; see its log, or try again later")]
    Late {
        /// The server's URL.
        url: String,
    },
    /// The server refused, and says why.
    #[error("{0}")]
    Refused(Problem),
    /// What answered does not speak our API.
    #[error("the answer is none of Windrow's: {reason}; is something else listening at that URL?")]
    Answer {
        /// Why it could not be read.
        reason: String,
    },
    /// An id that no URL can carry.
    #[error(
        "{id:?} cannot be a document's id in a URL: URLs drop the parts \".\" and \"..\", and an id is not empty"
    )]
    Id {
        /// The id.
        id: String,
    },
    /// The client itself could not be made.
    #[error("the HTTP client could not be started: {reason}")]
    Client {
        /// Why.
        reason: String,
    },
}

/// The server's reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What to do about it.
    pub kind: Kind,
    /// The HTTP status.
    pub status: u16,
    /// What happened and what would be right.
    pub detail: String,
    /// Byte offset in the query text.
    pub position: Option<usize>,
    /// Column in the query or the body, from 1.
    pub column: Option<usize>,
    /// When to come back.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    pub(crate) retry_after: Option<Duration>,
}

impl Problem {
    pub(crate) fn read(status: u16, body: &Body) -> Self {
        #[derive(Default, Deserialize)]
        struct Members {
            detail: Option<String>,
            position: Option<usize>,
            column: Option<usize>,
        }
        let members: Members = serde_json::from_slice(&body.bytes).unwrap_or_default();
        let detail = members.detail.unwrap_or_else(|| {
            let text: String = String::from_utf8_lossy(&body.bytes).chars().take(200).collect();
            format!("the server answered {status}: {text}")
        });
        Self {
            kind: status::kind_of_http(status).unwrap_or(Kind::Internal),
            status,
            detail,
            position: members.position,
            column: members.column,
            retry_after: body.retry_after,
        }
    }
}

impl Error {
    pub(crate) fn of_transport(url: &str, error: &reqwest::Error) -> Self {
        let url = url.to_owned();
        if error.is_connect() {
            return Self::Away { url };
        }
        if error.is_timeout() {
            return Self::Late { url };
        }
        // reqwest's own text repeats the URL; its cause says what happened.
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(deeper) = cause {
            reason = deeper.to_string();
            cause = deeper.source();
        }
        Self::Broken { url, reason }
    }

    /// Whether the very same call may succeed a little later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Away { .. } | Self::Broken { .. } | Self::Late { .. } => true,
            Self::Refused(problem) => {
                matches!(problem.kind, Kind::Overloaded | Kind::Unavailable | Kind::Expired)
            }
            Self::Url { .. } | Self::Id { .. } | Self::Answer { .. } | Self::Client { .. } => false,
        }
    }

    /// When the server wants the call back, where it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(problem) => problem.retry_after,
            _ => None,
        }
    }
}
