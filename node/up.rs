//! All roles in one process.
//!
//! ```text
//!  edge ─► root ─► leaf ─► store (a local folder)
//!            ▲       │ reports
//!          view ◄── controller      coordinator: in the process
//! ```

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cluster::{Coordinator, Embedded, Keeper, Membership, Names};
use edge::{ServeSettings, Settings};
use leaf::Leaf;
use model::ids::NodeId;
use proto::admin::NodeState;
use root::{Directory, Root};
use runtime::telemetry::{self, Metrics};
use runtime::{Clock, Deadline, OnError, Shutdown, TaskScope};
use store::Store;
use tokio::net::TcpListener;

use crate::cli;
use crate::lock::Lock;

/// How long draining may take: a commit of what is pending, and the requests
/// that run.
const DRAIN_WITHIN: Duration = Duration::from_secs(20);
/// How long shards may take to open before `up` says so and goes on.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Everything that runs, and how it ends.
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    shutdown: Shutdown,
    front: TaskScope,
    back: TaskScope,
    leaf: Leaf,
    root: Root,
    _lock: Lock,
}

/// Runs until Ctrl-C.
pub(crate) async fn run(options: cli::Up) -> Result<()> {
    telemetry::logs(&options.log).map_err(|error| anyhow::anyhow!("failed to {error}"))?;
    let running = Running::open(&options.data, options.public).await?;
    running.ready().await?;
    let url = format!("http://{}", running.address);
    println!("Windrow is up on {url} (data in {}).", options.data.display());
    println!();
    println!("  load     windrow load FILE.ndjson --index papers{}", running.flag());
    println!("  search   windrow search papers 'neural AND title:graph*'{}", running.flag());
    println!("  console  {url}/");
    println!();
    println!("Ctrl-C stops it; what was acknowledged is kept.");
    running.until_stopped().await
}

impl Running {
    /// Opens every component and starts listening.
    ///
    /// # Errors
    /// One line that says what is in the way and what to do.
    pub(crate) async fn open(data: &Path, public: SocketAddr) -> Result<Self> {
        let mut lock = Lock::take(data)?;
        let shutdown = Shutdown::new();
        shutdown.on_signals().context("failed to listen to signals")?;
        let metrics = Metrics::install().map_err(|error| anyhow::anyhow!("failed to {error}"))?;
        let listener = TcpListener::bind(public).await.map_err(|error| {
            anyhow::anyhow!(
                "{public} cannot be listened on ({error}): stop what uses it, or choose another with --public"
            )
        })?;
        let address = listener.local_addr()?;
        lock.sign(&address.to_string())?;

        let store = Store::local(&data.join("store"))
            .map_err(|error| anyhow::anyhow!("failed to open the store: {error}"))?;
        let front = TaskScope::new(&shutdown);
        let back = TaskScope::new(&shutdown);
        back.spawn("metrics", OnError::Log, |token| metrics.clone().upkeep(token));

        let node = NodeId("local".into());
        let coordinator: Arc<dyn Coordinator> = Arc::new(Embedded::new());
        let state = NodeState {
            node: node.clone(),
            roles: ["root", "leaf"].map(str::to_owned).into(),
            public: Some(address.to_string()),
        };
        let membership = Membership::join(coordinator.clone(), &state).await?;
        let (controller, reports) =
            cluster::Controller::new(node.clone(), coordinator.clone(), store.clone(), Clock::System);
        let (keeper, view) = Keeper::new(coordinator.clone(), store.clone());

        let leaves = Directory::default();
        let parts = leaf::Parts { node: node.clone(), store: store.clone(), scope: front.clone() };
        let settings =
            leaf::Settings { data: leaf::Data::Folder(data.join("leaf")), ..leaf::Settings::default() };
        let leaf = Leaf::new(parts, settings)?;
        leaves.insert(node, Arc::new(leaf.clone()));
        let parts =
            root::Parts { store, view: view.clone(), registry: Arc::new(Names(coordinator.clone())), leaves };
        let root = Root::new(parts, root::Settings::default());

        let agent = leaf::Agent::new(leaf.clone(), view, membership.clone(), Arc::new(reports));
        back.spawn("membership", OnError::Shutdown, |token| membership.run(token));
        back.spawn("controller", OnError::Shutdown, |token| controller.run(token));
        back.spawn("view", OnError::Shutdown, |token| keeper.run(token));
        back.spawn("leaf agent", OnError::Shutdown, |token| agent.run(token));

        let rendered = metrics.clone();
        let extra = axum_metrics(rendered);
        let settings = Settings { auto_create: true, extra: Some(extra), ..Settings::default() };
        let router = edge::router(Arc::new(root.clone()), Arc::new(root.clone()), settings);
        front.spawn("edge", OnError::Shutdown, |token| async move {
            edge::serve(listener, router, ServeSettings::default(), token).await
        });
        Ok(Self { address, shutdown, front, back, leaf, root, _lock: lock })
    }

    /// Waits until every shard can be searched and written.
    ///
    /// # Errors
    /// When something broke, or nothing moves for a long time.
    pub(crate) async fn ready(&self) -> Result<()> {
        let deadline = Deadline::after(READY_WITHIN);
        tokio::select! {
            () = self.shutdown.requested() => bail!("stopped before it was ready{}", self.why()),
            ready = self.root.wait_until_ready(deadline) => ready.map_err(Into::into),
        }
    }

    fn why(&self) -> String {
        self.shutdown.failure().map(|why| format!(": {why}")).unwrap_or_default()
    }

    /// What the other commands need to find this one, where it is not where
    /// they look by themselves.
    pub(crate) fn flag(&self) -> String {
        let url = format!("http://{}", self.address);
        if url == client::URL_DEFAULT { String::new() } else { format!(" --url {url}") }
    }

    /// Asks for the end.
    pub(crate) fn stop(&self) {
        self.shutdown.request();
    }

    /// Whether the end was asked for.
    pub(crate) fn stopping(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Waits for Ctrl-C, then drains.
    ///
    /// # Errors
    /// Says what broke, or what did not stop in time.
    pub(crate) async fn until_stopped(self) -> Result<()> {
        self.shutdown.requested().await;
        // Requests end first, then owners publish what is pending.
        let drained = self.front.close(DRAIN_WITHIN).await;
        self.leaf.close().await;
        let ended = self.back.close(DRAIN_WITHIN).await;
        if let Some(why) = self.shutdown.failure() {
            bail!("{why}");
        }
        drained.and(ended).map_err(|error| anyhow::anyhow!("failed to {error}"))
    }
}

/// The routes that show the process's metrics.
fn axum_metrics(metrics: Metrics) -> axum::Router {
    axum::Router::new().route(
        "/metrics",
        axum::routing::get(move || {
            let metrics = metrics.clone();
            async move { metrics.render() }
        }),
    )
}
