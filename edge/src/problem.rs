//! Errors as HTTP tells them: `application/problem+json` (RFC 9457).

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use model::query::ParseError;
use proto::{Error, Kind, status};
use serde::Serialize;

/// An error with what only a text format can point at.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) error: Error,
    /// The line of a JSON body, from 1.
    pub(crate) line: Option<u32>,
    /// The column of a JSON body in bytes, or of a query in characters, from 1.
    pub(crate) column: Option<u32>,
    /// Its status, where that is not its kind's.
    pub(crate) status: Option<StatusCode>,
}

/// A problem's members, which an answer may extend.
#[derive(Serialize)]
pub(crate) struct Members {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
    /// Whether the very same request may succeed later.
    retry: bool,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self { error, line: None, column: None, status: None }
    }
}

impl Problem {
    /// The request must change.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Error::invalid(message).into()
    }

    /// The text of `part` (`query` or `filter`) does not parse.
    pub(crate) fn query(part: &str, parse: &ParseError) -> Self {
        let error = Error::invalid(format!("{part}: {parse}")).at(parse.position);
        Self { column: u32::try_from(parse.column).ok(), ..error.into() }
    }

    /// A JSON body is not `what`, whose keys are `known`.
    pub(crate) fn json(what: &str, known: &[&str], error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let reason = text.strip_suffix(&place).unwrap_or(&text);
        let unknown = reason.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
        let reason = match unknown {
            // Inside the schema serde names what it knows.
            Some((_, rest)) if known.is_empty() || !same_keys(rest, known) => reason.to_owned(),
            Some((name, _)) => {
                let name: String = name.chars().take(100).collect();
                format!("there is no key {name:?}; the keys are {}", known.join(", "))
            }
            None => reason.to_owned(),
        };
        let (line, column) = (error.line(), error.column());
        let message = format!("the body is not {what}: {reason} (line {line}, column {column})");
        Self { line: u32::try_from(line).ok(), column: u32::try_from(column).ok(), ..Self::invalid(message) }
    }

    fn status(&self) -> StatusCode {
        self.status.unwrap_or_else(|| {
            StatusCode::from_u16(status::http(self.error.kind)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        })
    }

    pub(crate) fn members(&self) -> Members {
        let Error { kind, message, position, .. } = &self.error;
        Members {
            kind: format!("urn:windrow:{}", status::name(*kind)),
            title: title(*kind),
            status: self.status().as_u16(),
            detail: message.clone(),
            position: *position,
            line: self.line,
            column: self.column,
            retry: self.error.retryable(),
        }
    }

    /// The response of this problem with `body` in place of its own.
    pub(crate) fn respond(&self, body: &impl Serialize) -> Response {
        let body = serde_json::to_vec(body).expect("strings and numbers always serialise");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if matches!(self.error.kind, Kind::Overloaded | Kind::Unavailable) {
            // Whole seconds, rounded up; a second where nobody knows better.
            let seconds = self.error.retry_after.map_or(1, |after| after.as_millis().div_ceil(1_000));
            headers.insert(RETRY_AFTER, HeaderValue::from(u32::try_from(seconds).unwrap_or(u32::MAX).max(1)));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if self.error.kind == Kind::Internal {
            tracing::error!(error = %self.error, "failed to answer a request");
        }
        self.respond(&self.members())
    }
}

/// Whether serde's list of expected keys, after the unknown one, is `known`.
fn same_keys(rest: &str, known: &[&str]) -> bool {
    known.first().is_some_and(|first| {
        let rest = rest.trim_start_matches(", expected one of ");
        rest.starts_with(&format!("`{first}`"))
    })
}

fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid => "the request is wrong",
        Kind::NotFound => "there is no such thing",
        Kind::Conflict => "the request contradicts what is there",
        Kind::Gone => "it is no longer there",
        Kind::TooLarge => "the request is too large",
        Kind::Overloaded => "too many requests",
        Kind::Unavailable => "not available right now",
        Kind::Expired => "time is up",
        Kind::Internal => "a defect in Windrow",
    }
}
