//! What an error is called on the wire.
//!
//! | kind | HTTP | gRPC |
//! |---|---|---|
//! | invalid | 400 | `INVALID_ARGUMENT` |
//! | not found | 404 | `NOT_FOUND` |
//! | conflict | 409 | `FAILED_PRECONDITION` |
//! | gone | 410 | `ABORTED`: start over with the newest |
//! | too large | 413 | `OUT_OF_RANGE`, as tonic calls a message over its limit |
//! | overloaded | 429 | `RESOURCE_EXHAUSTED` |
//! | unavailable | 503 | `UNAVAILABLE` |
//! | expired | 504 | `DEADLINE_EXCEEDED` |
//! | internal | 500 | `INTERNAL` |
//!
//! **Invariant:** this is the only place where a [`Kind`] becomes a code, or a
//! code a [`Kind`]; every kind keeps its own code, and survives the trip.

use std::time::Duration;

use model::ids::{Generation, ShardId};
use prost::Message;
use tonic::{Code, Status};

use crate::internal::v1::Newest;
use crate::leaf::ShardAt;
use crate::v1::ErrorDetail;
use crate::{Error, Kind};

/// The name by which protobuf knows [`ErrorDetail`].
const DETAIL_TYPE: &str = "type.googleapis.com/windrow.v1.ErrorDetail";
/// The name by which protobuf knows [`Newest`].
const NEWEST_TYPE: &str = "type.googleapis.com/windrow.internal.v1.Newest";

/// Every kind.
pub const KINDS: [Kind; 9] = [
    Kind::Invalid,
    Kind::NotFound,
    Kind::Conflict,
    Kind::Gone,
    Kind::TooLarge,
    Kind::Overloaded,
    Kind::Unavailable,
    Kind::Expired,
    Kind::Internal,
];

/// The HTTP status of a kind.
#[must_use]
pub fn http(kind: Kind) -> u16 {
    match kind {
        Kind::Invalid => 400,
        Kind::NotFound => 404,
        Kind::Conflict => 409,
        Kind::Gone => 410,
        Kind::TooLarge => 413,
        Kind::Overloaded => 429,
        Kind::Unavailable => 503,
        Kind::Expired => 504,
        Kind::Internal => 500,
    }
}

/// The kind that an HTTP status stands for, seen by a client; `None` for a
/// success.
#[must_use]
pub fn kind_of_http(status: u16) -> Option<Kind> {
    Some(match status {
        0..400 => return None,
        404 => Kind::NotFound,
        409 => Kind::Conflict,
        410 => Kind::Gone,
        413 => Kind::TooLarge,
        429 => Kind::Overloaded,
        502 | 503 => Kind::Unavailable,
        408 | 504 => Kind::Expired,
        400..500 => Kind::Invalid,
        _ => Kind::Internal,
    })
}

/// The gRPC code of a kind.
#[must_use]
pub fn code(kind: Kind) -> Code {
    match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::Conflict => Code::FailedPrecondition,
        Kind::Gone => Code::Aborted,
        Kind::TooLarge => Code::OutOfRange,
        Kind::Overloaded => Code::ResourceExhausted,
        Kind::Unavailable => Code::Unavailable,
        Kind::Expired => Code::DeadlineExceeded,
        Kind::Internal => Code::Internal,
    }
}

/// The kind that a gRPC code stands for, seen by a client.
#[must_use]
pub fn kind_of(code: Code) -> Kind {
    match code {
        Code::NotFound => Kind::NotFound,
        Code::FailedPrecondition | Code::AlreadyExists => Kind::Conflict,
        Code::Aborted => Kind::Gone,
        Code::OutOfRange => Kind::TooLarge,
        Code::ResourceExhausted => Kind::Overloaded,
        Code::Unavailable => Kind::Unavailable,
        // tonic's own timeout arrives as Cancelled.
        Code::DeadlineExceeded | Code::Cancelled => Kind::Expired,
        Code::InvalidArgument | Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated => {
            Kind::Invalid
        }
        Code::Ok | Code::Internal | Code::Unknown | Code::DataLoss => Kind::Internal,
    }
}

/// The name of a kind on the wire.
#[must_use]
pub fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid => "invalid",
        Kind::NotFound => "not_found",
        Kind::Conflict => "conflict",
        Kind::Gone => "gone",
        Kind::TooLarge => "too_large",
        Kind::Overloaded => "overloaded",
        Kind::Unavailable => "unavailable",
        Kind::Expired => "expired",
        Kind::Internal => "internal",
    }
}

/// The kind of this name.
#[must_use]
pub fn named(text: &str) -> Option<Kind> {
    KINDS.into_iter().find(|kind| name(*kind) == text)
}

/// `google.rpc.Status`, which gRPC's details are by convention.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let code = code(error.kind);
        let detail = ErrorDetail {
            kind: name(error.kind).into(),
            position: error.position.map(|position| position as u64),
            retry_after_ms: error
                .retry_after
                .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        };
        let mut details = vec![Any { type_url: DETAIL_TYPE.into(), value: detail.encode_to_vec() }];
        if !error.newest.is_empty() {
            let shards = error.newest.iter();
            let shards =
                shards.map(|(shard, generation)| ShardAt { shard: *shard, generation: *generation }.into());
            let newest = Newest { shards: shards.collect() };
            details.push(Any { type_url: NEWEST_TYPE.into(), value: newest.encode_to_vec() });
        }
        let status = RpcStatus { code: code.into(), message: error.message.clone(), details };
        Self::with_details(code, error.message, status.encode_to_vec().into())
    }
}

impl From<Status> for Error {
    /// A client's view: what lacks our detail has the kind of its code.
    fn from(status: Status) -> Self {
        let details = RpcStatus::decode(status.details()).map(|rpc| rpc.details).unwrap_or_default();
        let of = |name: &str| details.iter().find(|any| any.type_url == name).map(|any| any.value.as_slice());
        let detail = of(DETAIL_TYPE).and_then(|value| ErrorDetail::decode(value).ok()).unwrap_or_default();
        let newest = of(NEWEST_TYPE).and_then(|value| Newest::decode(value).ok()).unwrap_or_default();
        let kind = named(&detail.kind).unwrap_or_else(|| kind_of(status.code()));
        let mut error = Self::new(kind, status.message());
        error.position = detail.position.and_then(|position| usize::try_from(position).ok());
        error.retry_after = detail.retry_after_ms.map(Duration::from_millis);
        let at = |at: crate::internal::v1::ShardAt| (ShardId(at.shard), Generation(at.generation));
        error.newest = newest.shards.into_iter().map(at).collect();
        error
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_keeps_its_own_code() {
        let codes: BTreeSet<i32> = KINDS.iter().map(|kind| code(*kind).into()).collect();
        assert_eq!(codes.len(), KINDS.len());
        for kind in KINDS {
            assert_eq!(kind_of(code(kind)), kind);
            assert_eq!(kind_of_http(http(kind)), Some(kind));
            assert_eq!(named(name(kind)), Some(kind));
            let json = serde_json::to_value(kind).unwrap();
            assert_eq!(json, name(kind), "one spelling everywhere");
        }
        assert_eq!(kind_of_http(207), None);
    }

    #[test]
    fn an_error_survives_grpc() {
        let mut error = Error::invalid("a quote is missing").at(7).retry_after(Duration::from_secs(2));
        error.newest = vec![(ShardId(3), Generation(17)), (ShardId(4), Generation(2))];
        assert_eq!(Error::from(Status::from(error.clone())), error);
    }

    #[test]
    fn a_strangers_status_becomes_an_error() {
        let error = Error::from(Status::with_details(Code::Cancelled, "late", vec![7; 9].into()));
        assert_eq!((error.kind, error.message.as_str()), (Kind::Expired, "late"));
    }
}
