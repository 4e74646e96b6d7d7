//! `grpc.health.v1`: serving is what `/readyz` calls ready.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use proto::v1::windrow_server::SERVICE_NAME;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::service::Edge;

/// How often a watched status is looked at: far below the seconds in which
/// load balancers react.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) struct Health(pub(crate) Arc<Edge>);

impl Health {
    async fn status(edge: &Edge) -> ServingStatus {
        match crate::service::within(edge.call_deadline(), edge.admin.ready()).await {
            Ok(()) => ServingStatus::Serving,
            Err(_missing) => ServingStatus::NotServing,
        }
    }
}

fn known(service: &str) -> Result<(), Status> {
    if service.is_empty() || service == SERVICE_NAME {
        return Ok(());
    }
    Err(Status::not_found(format!("there is no service but {SERVICE_NAME:?}")))
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl tonic_health::pb::health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        known(&request.get_ref().service)?;
        Ok(Response::new(response(Self::status(&self.0).await)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Tells the status now, and whenever it changes.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        known(&request.get_ref().service)?;
        let edge = self.0.clone();
        let changes = stream::unfold((edge, None), |(edge, told)| async move {
            loop {
                let status = Self::status(&edge).await;
                if told != Some(status) {
                    return Some((Ok(response(status)), (edge, Some(status))));
                }
                tokio::time::sleep(WATCH_INTERVAL).await;
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
