//! Serving a router on a listener.
//!
//! ```text
//! accept ─► at most connections_max ─► HTTP/1.1 or HTTP/2 by its first bytes
//!    │ token                              │ token: finish what was asked
//!    └── stop                             └── after drain_grace: cut
//! ```

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
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
            drain_grace: Duration::from_secs(10),
        }
    }
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
    let mut connections = JoinSet::new();
    loop {
        let (stream, permit) = tokio::select! {
            () = token.cancelled() => break,
            accepted = accept(&listener, &room) => accepted,
            // Reap, so that the set stays as small as the connections are few.
            Some(_ended) = connections.join_next() => continue,
        };
        let (http, router) = (http.clone(), router.clone());
        let (token, patience) = (token.clone(), settings.header_read_timeout);
        connections.spawn(async move {
            connection(stream, &http, router, patience, token).await;
            drop(permit);
        });
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(settings.drain_grace, drained).await.is_err() {
        tracing::warn!(connections = connections.len(), "cut connections that did not end in time");
        connections.shutdown().await;
    }
    Ok(())
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
    patience: Duration,
    token: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "failed to set nodelay");
    }
    // The builder looks at the first bytes without a timer of its own.
    let mut first = [0];
    let began = tokio::select! {
        () = token.cancelled() => return,
        began = tokio::time::timeout(patience, stream.peek(&mut first)) => began,
    };
    if !matches!(began, Ok(Ok(1))) {
        return;
    }
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = token.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
