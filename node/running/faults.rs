//! `/debug/faults`: faults are shown, replaced and ended while the node runs,
//! where its settings allow it.
//!
//! ```sh
//! curl -X PUT localhost:7701/debug/faults -d '{"errors": 0.1}'
//! ```

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use proto::{Error, status};
use runtime::Faults;
use runtime::faults::Spec;

use crate::settings;

/// Where they are.
const PATH: &str = "/debug/faults";
/// Largest body: a few thousand measured samples.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What others say.
const NOT_ALLOWED: &str = "faults are not allowed on this node: start it with --allow-faults (allow_faults = true), where nobody relies on it";

/// The faults of this node, and what was asked for. Clones share both.
#[derive(Clone)]
pub(super) struct Injected {
    pub(super) faults: Faults,
    spec: Arc<Mutex<Spec>>,
}

impl Injected {
    /// Injects `spec` from the start.
    pub(super) fn new(spec: Spec) -> Self {
        warn(&spec);
        Self { faults: Faults::new(spec.clone()), spec: Arc::new(Mutex::new(spec)) }
    }

    fn set(&self, spec: Spec) -> String {
        let mut current = self.spec.lock().unwrap_or_else(PoisonError::into_inner);
        warn(&spec);
        // Under the lock, so that what is shown is what is injected.
        self.faults.set(spec.clone());
        let shown = text(&spec);
        *current = spec;
        shown
    }

    fn shown(&self) -> String {
        text(&self.spec.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn put(&self, body: Body) -> Result<String, Error> {
        let bytes = to_bytes(body, BODY_BYTES_MAX).await.map_err(|error| {
            Error::too_large(format!(
                "the body cannot be read ({error}): it has at most {BODY_BYTES_MAX} bytes"
            ))
        })?;
        let said = String::from_utf8_lossy(&bytes);
        Ok(self.set(settings::faults(&said).map_err(Error::invalid)?))
    }
}

/// The route; without faults it says how they are allowed.
pub(super) fn routes(injected: Option<Injected>) -> Router {
    let Some(injected) = injected else {
        return Router::new().route(PATH, any(async || problem(&Error::not_found(NOT_ALLOWED))));
    };
    let (shown, put, ended) = (injected.clone(), injected.clone(), injected);
    Router::new().route(
        PATH,
        get(async move || json(shown.shown()))
            .put(async move |body: Body| put.put(body).await.map_or_else(|error| problem(&error), json))
            .delete(async move || json(ended.set(Spec::default()))),
    )
}

fn warn(spec: &Spec) {
    if *spec == Spec::default() {
        tracing::warn!(
            "no faults are injected; {PATH} may begin to at any time, for this node allows faults"
        );
    } else {
        tracing::warn!(faults = %text(spec), "FAULTS ARE INJECTED into this node; DELETE {PATH} ends them");
    }
}

fn text(spec: &Spec) -> String {
    serde_json::to_string(spec).expect("strings and numbers always serialise")
}

fn json(text: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], format!("{text}\n")).into_response()
}

/// An error as the public listener tells it.
fn problem(error: &Error) -> Response {
    let status = status::http(error.kind);
    let body = serde_json::json!({
        "type": format!("urn:windrow:{}", status::name(error.kind)),
        "status": status,
        "detail": error.message,
        "retry": error.retryable(),
    });
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (code, [(CONTENT_TYPE, "application/problem+json")], format!("{body}\n")).into_response()
}
