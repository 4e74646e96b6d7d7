//! Answering other nodes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use model::ids::ShardId;
use runtime::{Deadline, Faults};
use tokio::sync::Semaphore;
use tonic::codegen::http::HeaderMap;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tower::Layer;

use super::faults::FaultLayer;
use super::v1::controller_server::{Controller, ControllerServer};
use super::v1::leaf_server::{Leaf, LeafServer};
use super::{MESSAGE_BYTES_MAX, convert, v1};
use crate::Error;
use crate::{controller, leaf};

/// Time for a call that names none.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// What the internal listener accepts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Calls that are worked on at one time; more are refused as overload. The
    /// CPU pool behind queues fewer.
    pub calls_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { calls_max: 4_096 }
    }
}

/// The services of one node: its leaf, where it is one, and its
/// controller.
#[must_use]
pub fn routes(
    leaf: Option<Arc<dyn leaf::Leaf>>,
    controller: Arc<dyn controller::Controller>,
    settings: &Settings,
) -> Routes {
    let (leaf, controller) = services(leaf, controller, settings);
    let mut routes = Routes::new(controller);
    if let Some(leaf) = leaf {
        routes = routes.add_service(leaf);
    }
    routes
}

/// The same services; their calls meet `faults` first.
#[must_use]
pub fn faulty_routes(
    leaf: Option<Arc<dyn leaf::Leaf>>,
    controller: Arc<dyn controller::Controller>,
    settings: &Settings,
    faults: Faults,
) -> Routes {
    let (leaf, controller) = services(leaf, controller, settings);
    let layer = FaultLayer::new(faults, settings.calls_max);
    let mut routes = Routes::new(layer.layer(controller));
    if let Some(leaf) = leaf {
        routes = routes.add_service(layer.layer(leaf));
    }
    routes
}

type Services =
    (Option<LeafServer<Service<dyn leaf::Leaf>>>, ControllerServer<Service<dyn controller::Controller>>);

fn services(
    leaf: Option<Arc<dyn leaf::Leaf>>,
    controller: Arc<dyn controller::Controller>,
    settings: &Settings,
) -> Services {
    let calls = Arc::new(Semaphore::new(settings.calls_max));
    let controller = ControllerServer::new(Service { inner: controller, calls: calls.clone() })
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let leaf = leaf.map(|leaf| {
        LeafServer::new(Service { inner: leaf, calls })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    });
    (leaf, controller)
}

struct Service<T: ?Sized> {
    inner: Arc<T>,
    calls: Arc<Semaphore>,
}

impl<T: ?Sized> Service<T> {
    /// Admits a call and runs it; a panic in it is its own error.
    async fn run<V>(&self, call: impl Future<Output = Result<V, Error>>) -> Result<Response<V>, Status> {
        let Ok(_permit) = self.calls.try_acquire() else {
            return Err(full().into());
        };
        match AssertUnwindSafe(call).catch_unwind().await {
            Ok(Ok(answer)) => Ok(Response::new(answer)),
            Ok(Err(error)) => Err(error.into()),
            // The panic hook has said what and where.
            Err(_panic) => Err(Error::internal("the call met a defect; this node's log says where").into()),
        }
    }
}

/// Refuses a call beyond those that are worked on.
pub(super) fn full() -> Error {
    Error::overloaded("this node works on too many calls: retry in a moment")
        .retry_after(Duration::from_millis(100))
}

/// When the caller stops waiting, from `grpc-timeout`.
pub(super) fn deadline_of(headers: &HeaderMap) -> Deadline {
    let told = headers.get("grpc-timeout").and_then(|text| text.to_str().ok()).and_then(timeout);
    Deadline::after(told.unwrap_or(TIMEOUT_DEFAULT))
}

fn deadline(metadata: &MetadataMap) -> Deadline {
    deadline_of(metadata.as_ref())
}

/// A timeout as gRPC writes it: at most 8 digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = (digits.len() <= 8).then(|| digits.parse().ok())??;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[async_trait]
impl Leaf for Service<dyn leaf::Leaf> {
    async fn write(&self, request: Request<v1::WriteRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        let deadline = deadline(request.metadata());
        self.run(async {
            let write = convert::write(request.into_inner(), deadline)?;
            Ok(v1::WriteResponse { seq: self.inner.write(write).await?.0 })
        })
        .await
    }

    async fn nudge(&self, request: Request<v1::ShardRequest>) -> Result<Response<v1::Done>, Status> {
        self.run(async {
            let message = request.into_inner();
            self.inner.nudge(&convert::uid(&message.uid)?, ShardId(message.shard)).await?;
            Ok(v1::Done {})
        })
        .await
    }

    async fn follow(&self, request: Request<v1::FollowRequest>) -> Result<Response<v1::Done>, Status> {
        let deadline = deadline(request.metadata());
        self.run(async {
            let message = request.into_inner();
            let at = convert::at(message.at)?;
            self.inner.follow(&convert::uid(&message.uid)?, at, deadline).await?;
            Ok(v1::Done {})
        })
        .await
    }

    async fn statistics(
        &self,
        request: Request<v1::StatisticsRequest>,
    ) -> Result<Response<v1::StatisticsResponse>, Status> {
        let deadline = deadline(request.metadata());
        self.run(async {
            let request = convert::statistics_request(request.into_inner(), deadline)?;
            let shards = self.inner.statistics(request).await?;
            Ok(v1::StatisticsResponse { shards: shards.iter().map(Into::into).collect() })
        })
        .await
    }

    async fn search(
        &self,
        request: Request<v1::SearchRequest>,
    ) -> Result<Response<v1::SearchResponse>, Status> {
        let deadline = deadline(request.metadata());
        self.run(async {
            let search = convert::search(request.into_inner(), deadline)?;
            Ok(self.inner.search(search).await?.into())
        })
        .await
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        let deadline = deadline(request.metadata());
        self.run(async {
            let fetch = convert::fetch(request.into_inner(), deadline)?;
            let documents = self.inner.fetch(fetch).await?;
            Ok(v1::FetchResponse { documents: documents.into_iter().map(Into::into).collect() })
        })
        .await
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let deadline = deadline(request.metadata());
        self.run(async {
            let message = request.into_inner();
            let (uid, at) = (convert::uid(&message.uid)?, convert::at(message.at)?);
            let document = self.inner.get(&uid, at, &message.id, deadline).await?;
            Ok(v1::GetResponse { document: document.map(Into::into) })
        })
        .await
    }

    async fn held(&self, _: Request<v1::HeldRequest>) -> Result<Response<v1::HeldResponse>, Status> {
        self.run(async {
            let shards = self.inner.held().await?;
            Ok(v1::HeldResponse { shards: shards.into_iter().map(Into::into).collect() })
        })
        .await
    }

    async fn ping(&self, request: Request<v1::PingRequest>) -> Result<Response<v1::Load>, Status> {
        let deadline = deadline(request.metadata());
        self.run(async { self.inner.ping(deadline).await.map(Into::into) }).await
    }
}

#[async_trait]
impl Controller for Service<dyn controller::Controller> {
    async fn report(&self, request: Request<v1::ReportRequest>) -> Result<Response<v1::Done>, Status> {
        self.run(async {
            self.inner.report(convert::report(request.into_inner())?).await?;
            Ok(v1::Done {})
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3_600))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("", None),
            ("S", None),
            ("1", None),
            ("123456789S", None),
            ("5ü", None),
        ] {
            assert_eq!(timeout(text), expected, "{text:?}");
        }
    }
}
