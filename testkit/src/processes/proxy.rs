//! A TCP proxy whose link can be cut, slowed and broken.
//!
//! Cutting holds what is on its way, as a lost network does: nobody is told,
//! and after healing the bytes arrive.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use runtime::{CancellationToken, OnError, TaskScope};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What a link does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Carries everything.
    Up,
    /// Holds everything.
    Cut,
    /// Refuses: connections are closed as they come, and those there are.
    Broken,
    /// Carries everything this much later.
    Slow(Duration),
}

/// A link to one address.
#[derive(Clone)]
pub struct Proxy {
    address: SocketAddr,
    link: Arc<watch::Sender<Link>>,
}

impl Proxy {
    /// Begins to carry connections to `target`, in `scope`.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(target: SocketAddr, scope: &TaskScope) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (link, receiver) = watch::channel(Link::Up);
        let carrying = scope.clone();
        scope.spawn("proxy", OnError::Log, move |token| accept(listener, target, receiver, carrying, token));
        Ok(Self { address, link: Arc::new(link) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what the link does.
    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    link: watch::Receiver<Link>,
    scope: TaskScope,
    token: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = token.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((client, _)) = accepted else { continue };
        let link = link.clone();
        scope.spawn("link", OnError::Log, move |token| async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = carry(client, target, link) => {}
            }
        });
    }
}

async fn carry(client: TcpStream, target: SocketAddr, mut link: watch::Receiver<Link>) {
    if link.wait_for(|link| *link != Link::Cut).await.is_err() || *link.borrow() == Link::Broken {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _set = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let broken = {
        let mut link = link.clone();
        async move { link.wait_for(|link| *link == Link::Broken).await.map(|_| ()) }
    };
    tokio::select! {
        () = pump(from_client, to_server, link.clone()) => {}
        () = pump(from_server, to_client, link) => {}
        _ = broken => {}
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut link: watch::Receiver<Link>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if link.wait_for(|link| *link != Link::Cut).await.is_err() {
            return;
        }
        let state = *link.borrow();
        if let Link::Slow(by) = state {
            tokio::time::sleep(by).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
