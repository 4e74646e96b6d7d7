//! Serving a router on a listener.
//!
//! ```text
//! accept ─► at most connections_max ─► HTTP/1.1 or HTTP/2 by its first bytes
//!    │                                    │ leaving: HTTP/1.1 ends with its answer
//!    │ token                              │ token: linger, finish what was asked
//!    └── stop                             └── after drain_grace: cut
//! ```
//!
//! A client of HTTP/1.1 cannot know whether a connection that the server closes
//! took the request that it has just sent, so connections are ended by answers
//! that say so. HTTP/2 tells the client which requests were taken.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Version, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use runtime::CancellationToken;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// How connections are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeSettings {
    /// Open connections; more wait in the system's queue. Each costs some tens
    /// of kilobytes, and a file.
    pub connections_max: usize,
    /// How long a client may take to send a request's headers, and how long a
    /// connection may idle: longer than the minute that proxies keep theirs.
    pub header_read_timeout: Duration,
    /// Requests on one HTTP/2 connection at one time.
    pub streams_max: u32,
    /// How often a silent HTTP/2 connection is asked whether it lives, and how
    /// long it may take to say so.
    pub keep_alive: Duration,
    /// How long a connection is still listened to after the end was asked for:
    /// longer than a request is under way from a client that is not idle.
    pub linger: Duration,
    /// How long requests may go on after the end was asked for. A search's
    /// default timeout fits, orchestrators kill after 30 s.
    pub drain_grace: Duration,
}

impl Default for ServeSettings {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            header_read_timeout: Duration::from_secs(75),
            streams_max: 256,
            keep_alive: Duration::from_secs(20),
            linger: Duration::from_millis(500),
            drain_grace: Duration::from_secs(10),
        }
    }
}

/// `router`, whose answers end their connections of HTTP/1.1, and say so, from
/// when `leaving` is cancelled: before the end of what serves it.
pub fn until_leaving(router: Router, leaving: CancellationToken) -> Router {
    router.layer(from_fn_with_state(leaving, last_of_connection))
}

async fn last_of_connection(
    State(leaving): State<CancellationToken>,
    request: Request,
    next: Next,
) -> Response {
    let can_say = request.version() <= Version::HTTP_11;
    let mut response = next.run(request).await;
    if can_say && leaving.is_cancelled() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// How long accepting rests when the system is out of files or memory.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `token` is cancelled, then drains.
///
/// # Errors
/// None once it listens: a failure to accept is logged and tried again.
///
/// # Cancel safety
/// Dropping the future cuts every connection.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: ServeSettings,
    token: CancellationToken,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(settings.connections_max));
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(settings.header_read_timeout);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.streams_max)
        .keep_alive_interval(settings.keep_alive)
        .keep_alive_timeout(settings.keep_alive);
    let http = Arc::new(http);
    let mut connections = Connections { http, router, settings, token, tasks: JoinSet::new() };
    loop {
        tokio::select! {
            () = connections.token.cancelled() => break,
            (stream, permit) = accept(&listener, &room) => connections.begin(stream, permit),
            // Reap, so that the set stays as small as the connections are few.
            Some(_ended) = connections.tasks.join_next() => {}
        }
    }
    // Who is connected, as far as clients know, may have asked already.
    let waiting = listener.into_std()?;
    while let Ok(permit) = room.clone().try_acquire_owned()
        && let Ok((stream, _)) = waiting.accept()
        && stream.set_nonblocking(true).is_ok()
        && let Ok(stream) = TcpStream::from_std(stream)
    {
        connections.begin(stream, permit);
    }
    drop(waiting);
    connections.drain().await;
    Ok(())
}

/// The open connections.
struct Connections {
    http: Arc<Builder<TokioExecutor>>,
    router: Router,
    settings: ServeSettings,
    token: CancellationToken,
    tasks: JoinSet<()>,
}

impl Connections {
    fn begin(&mut self, stream: TcpStream, permit: OwnedSemaphorePermit) {
        let (http, router) = (self.http.clone(), self.router.clone());
        let (settings, token) = (self.settings.clone(), self.token.clone());
        self.tasks.spawn(async move {
            connection(stream, &http, router, &settings, token).await;
            drop(permit);
        });
    }

    /// Waits until all have ended, and cuts those that do not.
    async fn drain(mut self) {
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.settings.drain_grace, drained).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), "cut connections that did not end in time");
            self.tasks.shutdown().await;
        }
    }
}

async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = room.clone().acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) if lost(&error) => {}
            Err(error) => {
                tracing::error!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// Whether the client gave up before it was accepted.
fn lost(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection(
    stream: TcpStream,
    http: &Builder<TokioExecutor>,
    router: Router,
    settings: &ServeSettings,
    token: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "failed to set nodelay");
    }
    // The builder looks at the first bytes without a timer of its own.
    let mut first = [0];
    let began = tokio::time::timeout(settings.header_read_timeout, stream.peek(&mut first));
    let began = match token.run_until_cancelled(began).await {
        Some(began) => began,
        None => tokio::time::timeout(settings.linger, stream.peek(&mut first)).await,
    };
    if !matches!(began, Ok(Ok(1))) {
        return;
    }
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let lingered = async {
        token.cancelled().await;
        tokio::time::sleep(settings.linger).await;
    };
    let ended = tokio::select! {
        // What has arrived is taken before anything ends.
        biased;
        ended = connection.as_mut() => ended,
        () = lingered => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
