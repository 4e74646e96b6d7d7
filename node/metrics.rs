//! `/metrics`, beside the public API where one process runs all roles.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use runtime::telemetry::Metrics;

/// The type that Prometheus' text format has.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) fn routes(metrics: Metrics) -> Router {
    Router::new().route("/metrics", get(async move || ([(CONTENT_TYPE, TEXT)], metrics.render())))
}
