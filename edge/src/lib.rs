//! The public API over any search service: HTTP and gRPC on one port, health,
//! the console.
//!
//! ```text
//!            ┌─ http: JSON ──┐        admission, deadline,
//! client ────┤               ├─► Edge ─ panics, metrics ──► Search, Admin
//!            └─ grpc: v1 ────┘
//! ```
//!
//! **Invariants:** the one place that parses queries, once. Both faces fill in
//! the same values and call the same [`Edge`], so they give the same answers
//! and the same errors. A client that goes away drops its call's future, and
//! with it the search. No layer stands between the router and a handler: what
//! a search costs here is what its handler does.

mod answer;
mod ask;
mod documents;
mod grpc;
mod health;
mod http;
mod indexes;
mod metrics;
mod problem;
mod serve;
mod service;
mod settings;

#[cfg(any(test, feature = "test-util"))]
pub mod fake;
#[cfg(test)]
mod tests;

pub use http::{ROUTES, Route};
pub use runtime::duration::parse as parse_duration;
pub use serve::{ServeSettings, serve, until_leaving};
pub use service::Edge;
pub use settings::Settings;

use std::sync::Arc;

use proto::admin::Admin;
use proto::search::Search;

/// The public API as one router: HTTP, gRPC, health, reflection, the console,
/// and `settings.extra`.
///
/// # Panics
/// When `settings.extra` claims a path of the API or has a fallback.
pub fn router(search: Arc<dyn Search>, admin: Arc<dyn Admin>, settings: Settings) -> axum::Router {
    let extra = settings.extra.clone();
    let edge = Arc::new(Edge::new(search, admin, settings));
    let mut router = http::routes(&edge).merge(grpc::routes(&edge));
    if let Some(extra) = extra {
        router = router.merge(extra);
    }
    http::with_fallbacks(router)
}
