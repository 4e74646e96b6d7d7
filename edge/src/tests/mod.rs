//! The API over a fake service: every route, every kind of error, both faces.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use proto::v1::windrow_client::WindrowClient;
use proto::{Error, Kind, status, v1};
use runtime::CancellationToken;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tower::ServiceExt;

use crate::fake::{Event, Fake};
use crate::{ROUTES, ServeSettings, Settings, router, serve, until_leaving};

mod documents;
mod errors;
mod faces;
mod indexes;
mod leaving;
mod limits;
mod searches;

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    /// The detail of a problem of this status.
    fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{:?}", self.body);
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        let json = self.json();
        assert_eq!(json["status"], status, "{json}");
        for member in ["type", "title"] {
            assert!(json[member].is_string(), "{json}");
        }
        json["detail"].as_str().unwrap().to_owned()
    }
}

/// One request, in process.
async fn ask(router: &Router, method: &str, uri: &str, body: impl Into<Body>) -> Reply {
    let request = Request::builder().method(method).uri(uri).body(body.into()).unwrap();
    ask_with(router, request).await
}

async fn ask_with(router: &Router, request: Request<Body>) -> Reply {
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Reply { status, headers, body }
}

fn with(settings: Settings) -> (Arc<Fake>, Router) {
    let fake = Fake::new();
    let router = router(fake.clone(), fake.clone(), settings);
    (fake, router)
}

/// A service with an index `papers` of three documents.
async fn papers() -> (Arc<Fake>, Router) {
    let (fake, router) = with(Settings::default());
    let body =
        r#"{"shards": 2, "refresh_interval": "500ms", "schema": {"fields": {"title": {"type": "text"}}}}"#;
    assert_eq!(ask(&router, "PUT", "/v1/indexes/papers", body).await.status, 201);
    let body = "{\"id\": \"a\", \"title\": \"cat\"}\n{\"id\": \"b/c\", \"title\": \"cat cat\"}\n{\"id\":\"ü\",\"title\":\"dog\"}\n";
    assert_eq!(ask(&router, "POST", "/v1/indexes/papers/documents", body).await.status, 200);
    (fake, router)
}

struct Server {
    address: std::net::SocketAddr,
    leaving: CancellationToken,
    token: CancellationToken,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

#[expect(clippy::disallowed_methods, reason = "a test waits for what it starts")]
async fn start(router: Router, settings: ServeSettings) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = CancellationToken::new();
    let leaving = CancellationToken::new();
    let router = until_leaving(router, leaving.clone());
    let task = tokio::spawn(serve(listener, router, settings, token.clone()));
    Server { address, leaving, token, task }
}

impl Server {
    async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    async fn stop(self) {
        self.token.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.unwrap().unwrap().unwrap();
    }
}
