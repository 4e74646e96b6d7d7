//! Faults between nodes, for tests and load tests: a layer over the services
//! that other nodes call.
//!
//! ```text
//! call ──► stall? ──► dropped? failed? delayed? ──► service ──► stall? ──► answer
//! ```
//!
//! A service without the layer costs nothing; see [`super::routes`] and
//! [`super::faulty_routes`].

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use runtime::faults::{Fate, HELD_MAX};
use runtime::{Deadline, Faults};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tower::{Layer, Service};

use super::server::{deadline_of, full};
use crate::Error;

/// The calls that faults may concern.
pub const CALLS: [&str; 10] =
    ["statistics", "search", "fetch", "get", "write", "nudge", "follow", "held", "report", "ping"];
/// How many of them, from the first, are meant where none is named: what
/// searches are made of. The others keep a cluster together.
const MEANT: usize = 4;

/// Wraps services in [`Faulty`].
#[derive(Clone)]
pub(super) struct FaultLayer {
    faults: Faults,
    calls: Arc<Semaphore>,
}

impl FaultLayer {
    /// At most `calls_max` calls are in the layer at a time, held or not; more
    /// are refused, as calls that are worked on.
    pub(super) fn new(faults: Faults, calls_max: usize) -> Self {
        Self { faults, calls: Arc::new(Semaphore::new(calls_max)) }
    }
}

impl<S> Layer<S> for FaultLayer {
    type Service = Faulty<S>;

    fn layer(&self, inner: S) -> Faulty<S> {
        Faulty { inner, layer: self.clone() }
    }
}

/// A service whose calls meet faults.
#[derive(Clone)]
pub(super) struct Faulty<S> {
    inner: S,
    layer: FaultLayer,
}

impl<S: NamedService> NamedService for Faulty<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Faulty<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone is not ready yet; the one that is takes the call.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let FaultLayer { faults, calls } = self.layer.clone();
        let place = place(request.uri().path());
        if !place.is_some_and(|place| faults.concern(CALLS[place], place < MEANT)) {
            return Box::pin(inner.call(request));
        }
        let until = deadline_of(request.headers()).sooner(Deadline::after(HELD_MAX));
        Box::pin(async move {
            let Ok(_permit) = calls.try_acquire() else { return Ok(Status::from(full()).into_http()) };
            faults.stall().await;
            match faults.fate() {
                Fate::Answered => {}
                Fate::Delayed(delay) => tokio::time::sleep(delay).await,
                Fate::Failed => {
                    let failed = Error::unavailable("this call fails on purpose (/debug/faults): retry");
                    return Ok(Status::from(failed).into_http());
                }
                Fate::Dropped => {
                    tokio::time::sleep_until(until.instant()).await;
                    let late = Error::expired("this call was dropped on purpose (/debug/faults)");
                    return Ok(Status::from(late).into_http());
                }
            }
            let answer = inner.call(request).await;
            faults.stall().await;
            answer
        })
    }
}

/// Where a call stands in [`CALLS`], from its path: `/package.Service/Call`.
fn place(path: &str) -> Option<usize> {
    let (_, call) = path.rsplit_once('/')?;
    CALLS.iter().position(|name| name.eq_ignore_ascii_case(call))
}

#[cfg(test)]
mod tests {
    use runtime::faults::Spec;
    use tonic::Code;
    use tower::{ServiceExt, service_fn};

    use super::*;

    async fn ask(faults: Spec, calls_max: usize, call: &str) -> Code {
        let layer = FaultLayer::new(Faults::new(faults), calls_max);
        let service =
            service_fn(|_: Request<Body>| async { Ok(Status::already_exists("served").into_http::<Body>()) });
        let request = Request::builder()
            .uri(format!("/windrow.internal.v1.Leaf/{call}"))
            .header("grpc-timeout", "1m")
            .body(Body::empty())
            .unwrap();
        let Ok(answer) = layer.layer(service).oneshot(request).await;
        Status::from_header_map(answer.headers()).unwrap().code()
    }

    #[tokio::test]
    async fn a_call_meets_the_fault_that_is_meant_for_it() {
        const SERVED: Code = Code::AlreadyExists;
        let errors = Spec { errors: Some(1.0), ..Spec::default() };
        assert_eq!(ask(errors.clone(), 1, "Search").await, Code::Unavailable);
        assert_eq!(ask(errors.clone(), 1, "Write").await, SERVED);
        let writes = Spec { calls: Some(vec!["write".to_owned()]), ..errors };
        assert_eq!(ask(writes.clone(), 1, "Write").await, Code::Unavailable);
        assert_eq!(ask(writes, 1, "Search").await, SERVED);
        assert_eq!(ask(Spec::default(), 0, "Search").await, SERVED);
    }

    #[tokio::test]
    async fn a_dropped_call_ends_with_its_deadline() {
        let drops = Spec { drops: Some(1.0), ..Spec::default() };
        assert_eq!(ask(drops, 1, "Fetch").await, Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn calls_in_the_layer_are_bounded() {
        let drops = Spec { drops: Some(1.0), ..Spec::default() };
        assert_eq!(ask(drops, 0, "Fetch").await, Code::ResourceExhausted);
    }

    #[test]
    fn every_call_of_the_services_has_a_name() {
        let contract = include_str!("../../proto/windrow/internal/v1/internal.proto");
        let calls: Vec<&str> =
            contract.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next()).collect();
        assert_eq!(calls.len(), CALLS.len());
        assert!(calls.iter().all(|call| place(&format!("/a.B/{call}")).is_some()), "{calls:?}");
    }
}
