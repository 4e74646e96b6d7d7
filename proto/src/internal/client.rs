//! Calling another node.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use model::ids::{IndexUid, NodeId, Seq, ShardId};
use model::statistics::Statistics;
use runtime::Deadline;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status};

use super::v1::controller_client::ControllerClient;
use super::v1::leaf_client::LeafClient;
use super::{MESSAGE_BYTES_MAX, convert, v1};
use crate::controller::{self, Held, Report};
use crate::leaf::{self, Fetch, Found, Search, ShardAt, ShardWrite, StatisticsRequest};
use crate::search::Document;
use crate::{Error, Kind};

/// How long connecting may take: a second is many round trips.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How often a silent connection is asked whether it lives, and how long it may
/// take to say so.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How long a call may take that has no deadline of its own.
const SMALL_CALL_WITHIN: Duration = Duration::from_secs(2);
/// Begins the text of an error of a connection that was never made.
const NOT_CONNECTED: &str = "no connection";
/// After this long without an answer a caller gives up waiting for a leaf that
/// should itself have noticed the deadline; and after a part of the time there
/// was, so that who asked the caller still hears of it.
const LATE: Duration = Duration::from_millis(10);
const LATE_PART: u32 = 40;

fn given_up(deadline: Deadline) -> tokio::time::Instant {
    deadline.instant() + LATE.min(deadline.remaining() / LATE_PART)
}

/// A connection to the internal listener at `address` (`host:port`), made when
/// it is first used and made again when it breaks.
///
/// # Errors
/// [`Kind::Invalid`] for an address that is none.
pub fn connect(address: &str) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Error::invalid(format!("the address {address:?} is wrong ({error})")))?;
    let connector = tower::service_fn(|uri: Uri| fresh(move || stream(uri.clone())));
    Ok(endpoint
        .http2_keep_alive_interval(PROBE_EVERY)
        .keep_alive_timeout(PROBE_EVERY)
        .keep_alive_while_idle(true)
        .http2_adaptive_window(true)
        .connect_with_connector_lazy(connector))
}

async fn stream(uri: Uri) -> io::Result<TokioIo<TcpStream>> {
    let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or_default());
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let said = |error: &dyn std::fmt::Display| io::Error::other(format!("{NOT_CONNECTED} ({error})"));
    let connected = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect((host, port))).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(said(&error)),
        Err(_) => return Err(said(&"it takes too long")),
    };
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(stream))
}

/// Tries, and tries once more where a failure is of the past: what connects is
/// driven by the calls that wait for it alone, so that an attempt which they
/// gave up stays where it is, and its failure would meet whoever calls next.
///
/// # Errors
/// As `attempt`.
pub async fn fresh<T, F: Future<Output = io::Result<T>>>(attempt: impl Fn() -> F) -> io::Result<T> {
    let mut trying = Box::pin(attempt());
    let mut driven = Instant::now();
    poll_fn(move |context| {
        let left = std::mem::replace(&mut driven, Instant::now()).elapsed() > 2 * CONNECT_WITHIN;
        match trying.as_mut().poll(context) {
            Poll::Ready(Err(_)) if left => {
                trying = Box::pin(attempt());
                trying.as_mut().poll(context)
            }
            outcome => outcome,
        }
    })
    .await
}

/// Another node. Clones share its connection.
#[derive(Clone)]
pub struct Remote {
    node: NodeId,
    leaf: LeafClient<Channel>,
    controller: ControllerClient<Channel>,
}

impl Remote {
    /// The node that answers on `channel`.
    #[must_use]
    pub fn new(node: NodeId, channel: Channel) -> Self {
        let leaf = LeafClient::new(channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Self { node, leaf, controller: ControllerClient::new(channel) }
    }

    /// Waits for an answer within a deadline, and tells our errors from the
    /// connection's.
    async fn answer<T>(
        &self,
        deadline: Deadline,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout_at(given_up(deadline), answer).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            // The transport gives up at the same moment, and calls it cancelled.
            Ok(Err(status)) if status.details().is_empty() && deadline.expired() => Err(self.late()),
            Ok(Err(status)) => Err(self.error(status)),
            Err(_) => Err(self.late()),
        }
    }

    fn late(&self) -> Error {
        Error::expired(format!("{} did not answer within the timeout", self.node))
    }

    fn error(&self, status: Status) -> Error {
        // An error of the other node carries details; one without is of the
        // way there.
        if !status.details().is_empty() {
            return status.into();
        }
        // The other node made an answer that is larger than a message may be: all
        // replicas would.
        if status.code() == tonic::Code::OutOfRange {
            return Error::too_large(format!(
                "the answer of {} is larger than {} MiB: ask for fewer documents at a time",
                self.node,
                MESSAGE_BYTES_MAX >> 20
            ));
        }
        let cut_off = !status.message().contains(NOT_CONNECTED);
        let why = format!("{} cannot be reached: {}: retry", self.node, status.message());
        Error { cut_off, ..Error::unavailable(why) }
    }
}

/// A request that tells its deadline.
fn within<T>(deadline: Deadline, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline.remaining());
    request
}

#[async_trait]
impl leaf::Leaf for Remote {
    async fn write(&self, write: ShardWrite) -> Result<Seq, Error> {
        let deadline = write.deadline;
        let mut client = self.leaf.clone();
        let call = client.write(within(deadline, v1::WriteRequest::from(write)));
        match tokio::time::timeout_at(given_up(deadline), call).await {
            Ok(Ok(answer)) => Ok(Seq(answer.into_inner().seq)),
            Ok(Err(status)) if !status.details().is_empty() => Err(self.error(status)),
            Ok(Err(status)) if status.message().contains(NOT_CONNECTED) => {
                Err(Error::gone(format!("{} cannot be reached: {}", self.node, status.message())))
            }
            // It may have arrived.
            Ok(Err(status)) => Err(unknown(&self.node, status.message())),
            Err(_) => Err(unknown(&self.node, "no answer within the timeout")),
        }
    }

    async fn nudge(&self, uid: &IndexUid, shard: ShardId) -> Result<(), Error> {
        let deadline = Deadline::after(SMALL_CALL_WITHIN);
        let message = v1::ShardRequest { uid: uid.to_string(), shard: shard.0 };
        self.answer(deadline, self.leaf.clone().nudge(within(deadline, message))).await.map(|_| ())
    }

    async fn follow(&self, uid: &IndexUid, at: ShardAt, deadline: Deadline) -> Result<(), Error> {
        let message = v1::FollowRequest { uid: uid.to_string(), at: Some(at.into()) };
        self.answer(deadline, self.leaf.clone().follow(within(deadline, message))).await.map(|_| ())
    }

    async fn statistics(&self, request: StatisticsRequest) -> Result<Vec<Statistics>, Error> {
        let (deadline, asked) = (request.deadline, request.shards.len());
        let message = v1::StatisticsRequest::from(request);
        let answer = self.answer(deadline, self.leaf.clone().statistics(within(deadline, message))).await?;
        if answer.shards.len() != asked {
            return Err(Error::internal(format!("{} counted other shards than it was asked for", self.node)));
        }
        Ok(answer.shards.into_iter().map(Into::into).collect())
    }

    async fn search(&self, search: Search) -> Result<Found, Error> {
        let deadline = search.deadline;
        let message = v1::SearchRequest::from(search);
        self.answer(deadline, self.leaf.clone().search(within(deadline, message))).await?.try_into()
    }

    async fn fetch(&self, fetch: Fetch) -> Result<Vec<Document>, Error> {
        let (deadline, asked) = (fetch.deadline, fetch.documents.len());
        let message = v1::FetchRequest::from(fetch);
        let answer = self.answer(deadline, self.leaf.clone().fetch(within(deadline, message))).await?;
        if answer.documents.len() != asked {
            return Err(Error::internal(format!("{} returned too few documents", self.node)));
        }
        Ok(answer.documents.into_iter().map(Into::into).collect())
    }

    async fn get(
        &self,
        uid: &IndexUid,
        at: ShardAt,
        id: &str,
        deadline: Deadline,
    ) -> Result<Option<Document>, Error> {
        let message = v1::GetRequest { uid: uid.to_string(), at: Some(at.into()), id: id.to_owned() };
        let answer = self.answer(deadline, self.leaf.clone().get(within(deadline, message))).await?;
        Ok(answer.document.map(Into::into))
    }

    async fn held(&self) -> Result<Vec<Held>, Error> {
        let deadline = Deadline::after(SMALL_CALL_WITHIN);
        let message = v1::HeldRequest {};
        let answer = self.answer(deadline, self.leaf.clone().held(within(deadline, message))).await?;
        convert::held(answer.shards)
    }

    async fn ping(&self, deadline: Deadline) -> Result<leaf::Load, Error> {
        let message = v1::PingRequest {};
        self.answer(deadline, self.leaf.clone().ping(within(deadline, message))).await.map(Into::into)
    }
}

#[async_trait]
impl controller::Controller for Remote {
    async fn report(&self, report: Report) -> Result<(), Error> {
        let deadline = Deadline::after(SMALL_CALL_WITHIN);
        let message = v1::ReportRequest::from(report);
        self.answer(deadline, self.controller.clone().report(within(deadline, message))).await.map(|_| ())
    }
}

fn unknown(node: &NodeId, why: &str) -> Error {
    Error::new(
        Kind::Expired,
        format!(
            "the write's outcome is unknown ({node}: {why}): send it again, for a write is idempotent by id"
        ),
    )
}
