//! The HTTP face: routes, and one handler for each.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, RawQuery, Request, State};
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use model::ids::IndexName;
use proto::Error;
use proto::admin::Refresh;
use runtime::Deadline;

use crate::ask::{self, Ask};
use crate::documents;
use crate::indexes::{self, Index};
use crate::metrics::Call;
use crate::problem::Problem;
use crate::service::{Edge, index_name, within};

/// A route of the API.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The method.
    pub method: &'static str,
    /// The path, with its parameters in braces.
    pub path: &'static str,
    /// What it does.
    pub what: &'static str,
}

const fn route(method: &'static str, path: &'static str, what: &'static str) -> Route {
    Route { method, path, what }
}

/// Every route of the API.
pub const ROUTES: [Route; 15] = [
    route("GET", "/", "the console"),
    route("GET", "/v1/indexes", "list the indexes"),
    route("PUT", "/v1/indexes/{index}", "create an index"),
    route("GET", "/v1/indexes/{index}", "describe an index"),
    route("DELETE", "/v1/indexes/{index}", "delete an index"),
    route("POST", "/v1/indexes/{index}/documents", "write documents"),
    route("GET", "/v1/indexes/{index}/documents/{id}", "read a document"),
    route("DELETE", "/v1/indexes/{index}/documents/{id}", "delete a document"),
    route("GET", "/v1/indexes/{index}/search", "search, asked in the URL"),
    route("POST", "/v1/indexes/{index}/search", "search, asked in JSON"),
    route("GET", "/v1/cluster", "the state of the cluster"),
    route("GET", "/healthz", "whether the process lives"),
    route("GET", "/readyz", "whether it can answer"),
    route("GET", "/openapi.json", "the description of this API"),
    route("GET", "/metrics", "measurements, where this listener serves them"),
];

pub(crate) fn routes(edge: &Arc<Edge>) -> Router {
    Router::new()
        .route("/", get(async || page("text/html; charset=utf-8", include_str!("console.html"))))
        .route("/healthz", get(async || page("text/plain", "ok\n")))
        .route("/readyz", get(ready))
        .route("/openapi.json", get(async || page("application/json", include_str!("openapi.json"))))
        .route("/v1/cluster", get(cluster))
        .route("/v1/indexes", get(list))
        .route("/v1/indexes/{index}", put(create).get(describe).delete(delete))
        .route("/v1/indexes/{index}/documents", post(write))
        .route("/v1/indexes/{index}/documents/{id}", get(document).delete(delete_document))
        .route("/v1/indexes/{index}/search", get(search_url).post(search_json))
        .with_state(edge.clone())
}

/// Answers what no route does.
pub(crate) fn with_fallbacks(router: Router) -> Router {
    router.fallback(unknown).method_not_allowed_fallback(wrong_method)
}

type Answered = Result<Response, Problem>;
type Api = State<Arc<Edge>>;

async fn create(State(edge): Api, Named(name): Named, headers: HeaderMap, body: Body) -> Answered {
    edge.run(Call::CreateIndex, None, async {
        let body = small(&edge, &headers, body).await?;
        let definition = indexes::definition(&body.bytes)?;
        let deadline = edge.call_deadline();
        let info = within(deadline, edge.admin.create_index(name, definition, deadline)).await?;
        Ok((StatusCode::CREATED, Json(Index::from(info))).into_response())
    })
    .await
}

async fn list(State(edge): Api) -> Answered {
    edge.run(Call::ListIndexes, None, async {
        let indexes = within(edge.call_deadline(), edge.admin.list_indexes()).await?;
        Ok(indexes::list(indexes).into_response())
    })
    .await
}

async fn describe(State(edge): Api, Named(name): Named) -> Answered {
    edge.run(Call::DescribeIndex, None, async {
        let info = within(edge.call_deadline(), edge.admin.describe_index(&name)).await?;
        Ok(Json(Index::from(info)).into_response())
    })
    .await
}

async fn delete(State(edge): Api, Named(name): Named) -> Answered {
    edge.run(Call::DeleteIndex, None, async {
        let deadline = edge.call_deadline();
        within(deadline, edge.admin.delete_index(&name, deadline)).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

async fn write(
    State(edge): Api,
    Named(name): Named,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    edge.run(Call::Write, None, async {
        let refresh = refresh(query.as_deref())?;
        let deadline = Deadline::after(edge.settings.write_timeout);
        let most = edge.settings.body_bytes_max;
        let patience = deadline.sooner(Deadline::after(edge.settings.body_timeout));
        let read = documents::read(&edge, &headers, body, most, patience).await?;
        edge.metrics.document_bytes.increment(read.bytes.len() as u64);
        let cut = documents::cut(&headers, &read.bytes, &edge.settings)?;
        let written = edge.write(name, cut.lines, cut.rejected, refresh, deadline).await?;
        Ok(documents::response(&written))
    })
    .await
}

async fn document(
    State(edge): Api,
    NamedDocument(name, id): NamedDocument,
    RawQuery(query): RawQuery,
) -> Answered {
    edge.run(Call::GetDocument, None, async {
        let [token] = parameters(query.as_deref(), ["token"])?;
        let document = edge.document(&name, &id, token.as_deref(), edge.call_deadline()).await?;
        Ok(page("application/json", document.source))
    })
    .await
}

async fn delete_document(
    State(edge): Api,
    NamedDocument(name, id): NamedDocument,
    RawQuery(query): RawQuery,
) -> Answered {
    edge.run(Call::DeleteDocument, None, async {
        let refresh = refresh(query.as_deref())?;
        let deadline = Deadline::after(edge.settings.write_timeout);
        let written = edge.delete_document(name, id, refresh, deadline).await?;
        Ok(documents::response(&written))
    })
    .await
}

async fn search_url(State(edge): Api, Named(name): Named, uri: Uri) -> Answered {
    edge.run(Call::Search, None, async {
        let ask = Ask::from_url(uri.query().unwrap_or_default())?;
        let answer = edge.search(ask.request(name, &edge.settings)?).await?;
        Ok(crate::answer::response(&answer))
    })
    .await
}

async fn search_json(State(edge): Api, Named(name): Named, headers: HeaderMap, body: Body) -> Answered {
    edge.run(Call::Search, None, async {
        let body = small(&edge, &headers, body).await?;
        let ask = Ask::from_json(&body.bytes)?;
        let answer = edge.search(ask.request(name, &edge.settings)?).await?;
        Ok(crate::answer::response(&answer))
    })
    .await
}

async fn cluster(State(edge): Api) -> Answered {
    edge.run(Call::Cluster, None, async {
        let state = within(edge.call_deadline(), edge.admin.cluster()).await?;
        Ok(indexes::cluster(state).into_response())
    })
    .await
}

// Not counted and not admitted: a probe must see a busy server as it is.
async fn ready(State(edge): Api) -> Answered {
    within(edge.call_deadline(), edge.admin.ready()).await.map_err(|problem| {
        // Whatever is missing, a probe only understands 503.
        Problem::from(Error::unavailable(format!("not ready: {}", problem.error)))
    })?;
    Ok(page("text/plain", "ready\n"))
}

async fn unknown(request: Request) -> Response {
    let grpc = request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if grpc {
        return tonic::Status::unimplemented("there is no such service; ask the reflection service")
            .into_http();
    }
    let known: Vec<String> = ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    let path: String = request.uri().path().chars().take(200).collect();
    let known = known.join(", ");
    Problem::from(Error::not_found(format!("there is no route {path:?}; the routes are {known}")))
        .into_response()
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let path = uri.path();
    let allowed: Vec<&str> =
        ROUTES.iter().filter(|route| matches(route.path, path)).map(|route| route.method).collect();
    let allowed = allowed.join(", ");
    let problem = Problem::invalid(format!("{path:?} does not take {method}; it takes {allowed}"));
    let mut response = Problem { status: Some(StatusCode::METHOD_NOT_ALLOWED), ..problem }.into_response();
    if let Ok(allowed) = HeaderValue::try_from(allowed) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

fn matches(route: &str, path: &str) -> bool {
    let (mut route, mut path) = (route.split('/'), path.split('/'));
    loop {
        match (route.next(), path.next()) {
            (None, None) => return true,
            (Some(wanted), Some(part)) if wanted == part || wanted.starts_with('{') => {}
            _ => return false,
        }
    }
}

fn page(kind: &'static str, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

async fn small<'a>(edge: &'a Edge, headers: &HeaderMap, body: Body) -> Result<documents::Read<'a>, Problem> {
    let deadline = Deadline::after(edge.settings.body_timeout);
    documents::read(edge, headers, body, edge.settings.request_bytes_max, deadline).await
}

fn refresh(query: Option<&str>) -> Result<Refresh, Problem> {
    let [refresh] = parameters(query, ["refresh"])?;
    match refresh.as_deref() {
        None | Some("no") => Ok(Refresh::No),
        Some("wait") => Ok(Refresh::Wait),
        Some(other) => {
            let other: String = other.chars().take(100).collect();
            Err(Problem::invalid(format!("refresh is {other:?}; it must be wait or no")))
        }
    }
}

/// Reads the known parameters of a URL and refuses any other.
fn parameters<const N: usize>(query: Option<&str>, known: [&str; N]) -> Result<[Option<String>; N], Problem> {
    let mut values = [const { None }; N];
    for pair in ask::pairs(query.unwrap_or_default()) {
        let (key, value) = pair?;
        let Some(place) = known.iter().position(|known| *known == key) else {
            let key: String = key.chars().take(100).collect();
            let known = known.join(", ");
            return Err(Problem::invalid(format!("there is no parameter {key:?}; there is {known}")));
        };
        values[place] = Some(value);
    }
    Ok(values)
}

/// The index of the path.
struct Named(IndexName);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(name) = Path::<String>::from_request_parts(parts, state).await.map_err(bad_path)?;
        Ok(Self(index_name(&name)?))
    }
}

/// The index and the document's id of the path.
struct NamedDocument(IndexName, String);

impl<S: Send + Sync> FromRequestParts<S> for NamedDocument {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((name, id)) = path.map_err(bad_path)?;
        Ok(Self(index_name(&name)?, id))
    }
}

fn bad_path(_: PathRejection) -> Problem {
    Problem::invalid("the path is not UTF-8 with %-escapes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_match_by_their_parts() {
        assert!(matches("/v1/indexes/{index}/search", "/v1/indexes/x/search"));
        assert!(!matches("/v1/indexes/{index}", "/v1/indexes"));
        assert!(matches("/", "/"));
    }

    #[test]
    fn every_route_is_described() {
        let api: serde_json::Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
        for Route { method, path, .. } in ROUTES {
            let described = &api["paths"][path][method.to_lowercase()];
            assert!(described["summary"].is_string(), "{method} {path}");
            assert!(described["responses"].is_object(), "{method} {path}");
        }
        let described: usize =
            api["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
        assert_eq!(described, ROUTES.len(), "nothing is described that is not there");
    }
}
