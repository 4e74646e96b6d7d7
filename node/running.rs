//! A node: everything that runs in one process, and how it ends.
//!
//! ```text
//!  public ─► edge ─► root ─┬► leaf of this process ─► store
//!                          └► leaves elsewhere (internal listener)
//!  view ◄─ coordinator     agent, membership, controller
//! ```
//!
//! Leaving: not ready, for a while ─► owned shards go to others ─► the public listener ends
//! what runs ─► gone from the coordinator ─► the internal listener likewise ─►
//! owners publish what is pending.

mod faults;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cluster::{Controller, Coordinator, Directory, Embedded, Etcd, Keeper, Membership, Names, View};
use edge::ServeSettings;
use leaf::{Agent, AgentSettings, Leaf};
use model::ids::NodeId;
use proto::admin::{NodeState, OWN, ROOT, SERVE};
use root::Root;
use runtime::telemetry::Metrics;
use runtime::{CancellationToken, Clock, Deadline, OnError, Random, Shutdown, TaskScope};
use store::Store;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::lock::Lock;
use crate::settings::{Agreement, Settings};

/// How long shards may take to open before `up` says so and goes on.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Calls on one connection between nodes at one time.
const INTERNAL_STREAMS_MAX: u32 = 10_000;
/// How long tasks may take to end after all that was asked has ended.
const END_WITHIN: Duration = Duration::from_secs(10);

/// Everything that runs, and how it ends.
pub(crate) struct Running {
    /// Where clients reach it.
    pub(crate) address: SocketAddr,
    /// Its name.
    pub(crate) node: NodeId,
    shutdown: Shutdown,
    settings: Settings,
    leaving: CancellationToken,
    front: TaskScope,
    inner: TaskScope,
    owners: TaskScope,
    member: TaskScope,
    governing: TaskScope,
    back: TaskScope,
    leaf: Option<Leaf>,
    root: Option<Root>,
    view: watch::Receiver<Arc<View>>,
    membership: Membership,
    _lock: Lock,
}

fn root_settings(settings: &Settings) -> root::Settings {
    let usual = root::Settings::default();
    root::Settings {
        attempt_timeout: settings.attempt_timeout,
        hedging: settings.hedging,
        hedge: model::hedge::Settings { budget: settings.hedge_budget, ..usual.hedge },
        zone: settings.zone.clone(),
        slow_query: settings.slow_query,
        ..usual
    }
}

async fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        anyhow::anyhow!(
            "{address} cannot be listened on ({error}): stop what uses it, or choose another with {flag}"
        )
    })
}

impl Running {
    /// Opens every component and starts listening.
    ///
    /// # Errors
    /// One line that says what is in the way and what to do.
    pub(crate) async fn open(settings: Settings) -> Result<Self> {
        let mut lock = Lock::take(&settings.data)?;
        let shutdown = Shutdown::new();
        shutdown.on_signals().context("failed to listen to signals")?;
        let metrics = Metrics::install().map_err(|error| anyhow::anyhow!("failed to {error}"))?;
        let public = listen(settings.public, "--public").await?;
        let address = public.local_addr()?;
        let internal = match settings.internal {
            Some(internal) => Some(listen(internal, "--internal").await?),
            None => None,
        };
        let advertised = match &internal {
            Some(listener) => Some(advertised(&settings, listener.local_addr()?)?),
            None => None,
        };
        lock.sign(&address.to_string())?;
        let node = NodeId(node_id(&settings)?.into());

        let store = Store::open(&settings.store)
            .map_err(|error| anyhow::anyhow!("failed to open the store: {error}"))?;
        store.check().await.map_err(|error| anyhow::anyhow!("failed to open the store: {error}"))?;
        let injected = settings.faults.clone().map(faults::Injected::new);
        let faults = injected.as_ref().map(|injected| injected.faults.clone());
        let store = match faults.clone() {
            Some(faults) => store.slowed(move || faults.slow()),
            None => store,
        };
        let scopes: [TaskScope; 6] = std::array::from_fn(|_| TaskScope::new(&shutdown));
        let [front, inner, owners, member, governing, back] = scopes;
        back.spawn("metrics", OnError::Log, |token| metrics.clone().upkeep(token));

        let coordinator: Arc<dyn Coordinator> = match &settings.agreement {
            Agreement::Embedded => Arc::new(Embedded::new()),
            Agreement::Etcd { members, prefix } => Arc::new(Etcd::new(members, prefix, back.clone())?),
        };
        let roles = [(ROOT, settings.root), (OWN, settings.own), (SERVE, settings.serve)];
        let state = NodeState {
            node: node.clone(),
            roles: roles.into_iter().filter(|(_, has)| *has).map(|(role, _)| role.to_owned()).collect(),
            public: settings.root.then(|| address.to_string()),
            internal: advertised,
            zone: settings.zone.clone(),
            draining: false,
        };
        let membership = Membership::new(coordinator.clone(), state, settings.lease);
        let (keeper, view) = Keeper::new(coordinator.clone(), store.clone());
        let (controller, reports) = Controller::new(
            node.clone(),
            coordinator.clone(),
            store.clone(),
            Clock::System,
            cluster::controller::Settings {
                lease: settings.lease,
                placement_grace: settings.placement_grace,
                lag_max: settings.lag_max,
                ..cluster::controller::Settings::default()
            },
        );
        let directory = Directory::new(view.clone());
        let reports: Arc<dyn proto::controller::Controller> = Arc::new(reports);
        directory.govern(node.clone(), reports.clone());
        let leaf = if settings.own || settings.serve {
            let parts = leaf::Parts { node: node.clone(), store: store.clone(), scope: owners.clone() };
            let leaf = Leaf::with_faults(
                parts,
                leaf::Settings {
                    data: leaf::Data::Folder(settings.data.join("leaf")),
                    disk_reserve_bytes: settings.disk_reserve_bytes,
                    ..leaf::Settings::default()
                },
                faults.clone(),
            )?;
            directory.insert(node.clone(), Arc::new(leaf.clone()));
            Some(leaf)
        } else {
            None
        };
        let leaving = CancellationToken::new();
        let own: Arc<root::Own> = match leaf.clone() {
            Some(leaf) => Arc::new(move |view: &View| open_here(&leaf, view)),
            None => Arc::new(|_: &View| Ok(())),
        };
        let root = settings.root.then(|| {
            let parts = root::Parts {
                store,
                view: view.clone(),
                registry: Arc::new(Names(coordinator.clone())),
                leaves: directory.clone(),
                leaving: leaving.clone(),
                own: own.clone(),
                random: Random::from_system(),
                scope: inner.clone(),
            };
            Root::new(parts, root_settings(&settings))
        });

        let joined = membership.clone();
        member.spawn("membership", OnError::Shutdown, |token| joined.run(token));
        governing.spawn("controller", OnError::Shutdown, |token| controller.run(token));
        back.spawn("view", OnError::Shutdown, |token| keeper.run(token));
        if let Some(leaf) = &leaf {
            let agent = Agent::new(
                leaf.clone(),
                view.clone(),
                membership.clone(),
                directory,
                AgentSettings::default(),
            );
            back.spawn("leaf agent", OnError::Shutdown, |token| agent.run(token));
        }
        let health = Health { view: view.clone(), root: root.clone(), own, leaving: leaving.clone() };
        if let Some(listener) = internal {
            let service = leaf.clone().map(|leaf| Arc::new(leaf) as Arc<dyn proto::leaf::Leaf>);
            let accepted = proto::internal::Settings::default();
            let routes = match faults {
                Some(faults) => proto::internal::faulty_routes(service, reports, &accepted, faults),
                None => proto::internal::routes(service, reports, &accepted),
            };
            let router = routes
                .into_axum_router()
                .reset_fallback()
                .merge(shown(&metrics))
                .merge(faults::routes(injected))
                .merge(health.clone().routes());
            let serving = ServeSettings {
                streams_max: INTERNAL_STREAMS_MAX,
                // Nodes speak HTTP/2 with each other.
                linger: Duration::ZERO,
                drain_grace: settings.drain_timeout,
                ..ServeSettings::default()
            };
            inner.spawn("internal listener", OnError::Shutdown, |token| async move {
                edge::serve(listener, router, serving, token).await
            });
        }
        let router = match &root {
            Some(root) => edge::router(
                Arc::new(root.clone()),
                Arc::new(root.clone()),
                edge::Settings {
                    auto_create: settings.auto_create,
                    extra: settings.public_metrics.then(|| shown(&metrics)),
                    ..edge::Settings::default()
                },
            ),
            None => health.routes(),
        };
        let serving = ServeSettings { drain_grace: settings.drain_timeout, ..ServeSettings::default() };
        let router = edge::until_leaving(router, leaving.clone());
        front.spawn("edge", OnError::Shutdown, |token| async move {
            edge::serve(public, router, serving, token).await
        });
        Ok(Self {
            address,
            node,
            shutdown,
            settings,
            leaving,
            front,
            inner,
            owners,
            member,
            governing,
            back,
            leaf,
            root,
            view,
            membership,
            _lock: lock,
        })
    }

    /// Waits until every shard can be searched and written.
    ///
    /// # Errors
    /// When something broke, or nothing moves for a long time.
    pub(crate) async fn ready(&self) -> Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        let deadline = Deadline::after(READY_WITHIN);
        tokio::select! {
            () = self.shutdown.requested() => bail!("stopped before it was ready{}", self.why()),
            ready = root.wait_until_ready(deadline) => ready.map_err(Into::into),
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

    /// Waits for Ctrl-C or SIGTERM, then drains.
    ///
    /// # Errors
    /// Says what broke, or what did not stop in time.
    pub(crate) async fn until_stopped(self) -> Result<()> {
        self.shutdown.requested().await;
        tracing::info!(node = %self.node, "leaving");
        self.leaving.cancel();
        let until = Deadline::after(self.settings.drain_timeout);
        let mut ended = Vec::new();
        // Whoever governs next begins while this node still serves.
        ended.push(self.governing.close(END_WITHIN).await);
        // Load balancers look now and then: they see a node that is not ready
        // before they see one that does not listen.
        let noticed = Deadline::after(self.settings.drain_delay).sooner(until);
        self.hand_over(until).await;
        tokio::time::sleep_until(noticed.instant()).await;
        let grace = || until.remaining().max(Duration::from_secs(1));
        ended.push(self.front.close(grace()).await);
        ended.push(self.member.close(END_WITHIN).await);
        ended.push(self.inner.close(grace()).await);
        // Owners publish what is pending.
        ended.push(self.owners.close(grace() + END_WITHIN).await);
        if let Some(leaf) = &self.leaf {
            leaf.close().await;
        }
        ended.push(self.back.close(END_WITHIN).await);
        if let Some(why) = self.shutdown.failure() {
            bail!("{why}");
        }
        ended
            .into_iter()
            .collect::<Result<Vec<()>, _>>()
            .map(|_| ())
            .map_err(|error| anyhow::anyhow!("failed to {error}"))
    }

    /// Tells that this node is leaving, and waits until other leaves own what
    /// it owned, where there are others.
    async fn hand_over(&self, until: Deadline) {
        let Some(leaf) = &self.leaf else { return };
        if let Err(error) = self.membership.drain().await {
            tracing::warn!(%error, "failed to tell that this node is leaving; its shards are taken over when it is gone");
            return;
        }
        let mut view = self.view.clone();
        let handed_over = async {
            loop {
                let changed = leaf.changed();
                let now = view.borrow_and_update().clone();
                let seen = now.live(&self.node).is_none_or(|state| state.draining);
                let left = leaf.owned().into_iter().any(|(uid, shard)| {
                    let index = now.indexes.values().find(|index| index.uid == uid);
                    index.is_some_and(|index| now.should_own(index, shard).is_some())
                });
                if seen && !left {
                    return;
                }
                tokio::select! {
                    () = changed => {}
                    ended = view.changed() => if ended.is_err() {
                        return;
                    },
                }
            }
        };
        if tokio::time::timeout_at(until.instant(), handed_over).await.is_err() {
            tracing::warn!(
                "not everything was handed over in time; the rest is taken over when this node is gone"
            );
        }
    }
}

/// Whether this leaf serves what is placed on it, at the newest cuts.
fn open_here(leaf: &Leaf, view: &View) -> Result<(), proto::Error> {
    for index in view.indexes.values() {
        for at in index.shards() {
            let placed = index.holders(at.shard).contains(leaf.node());
            if placed && leaf.newest(&index.uid, at.shard) < Some(at.generation) {
                return Err(proto::Error::unavailable(format!(
                    "shard {} of {} is being opened here: retry in a moment",
                    at.shard, index.name
                )));
            }
        }
    }
    Ok(())
}

/// Where other nodes reach this one.
fn advertised(settings: &Settings, internal: SocketAddr) -> Result<String> {
    match &settings.advertise {
        Some(address) => Ok(address.clone()),
        None if internal.ip().is_unspecified() => bail!(
            "--internal {internal} listens everywhere, which is no address to call: say where other nodes reach this one with --advertise HOST:PORT"
        ),
        None => Ok(internal.to_string()),
    }
}

/// This node's name, drawn once and kept in its folder.
fn node_id(settings: &Settings) -> Result<String> {
    if let Some(id) = &settings.node_id {
        return Ok(id.clone());
    }
    let path = settings.data.join("node-id");
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
        _ => {
            let id = drawn(&settings.data);
            std::fs::write(&path, format!("{id}\n"))
                .map_err(|error| anyhow::anyhow!("{} cannot be written ({error})", path.display()))?;
            Ok(id)
        }
    }
}

fn drawn(folder: &Path) -> String {
    use std::hash::{BuildHasher, Hasher};
    // A new hasher's keys are random.
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write(folder.as_os_str().as_encoded_bytes());
    format!("node-{:08x}", hasher.finish() & 0xffff_ffff)
}

/// Liveness and readiness, where no edge tells them.
#[derive(Clone)]
struct Health {
    view: watch::Receiver<Arc<View>>,
    root: Option<Root>,
    own: Arc<root::Own>,
    leaving: CancellationToken,
}

impl Health {
    async fn ready(&self) -> Result<(), proto::Error> {
        use proto::admin::Admin;
        if self.leaving.is_cancelled() {
            return Err(proto::Error::unavailable("this node is leaving"));
        }
        match &self.root {
            Some(root) => root.ready().await,
            None if self.view.borrow().known => (self.own)(&self.view.borrow()),
            None => Err(proto::Error::unavailable("this node has not seen the cluster yet")),
        }
    }

    fn routes(self) -> axum::Router {
        use axum::http::StatusCode;
        use axum::routing::get;
        axum::Router::new().route("/healthz", get(|| async { "ok\n" })).route(
            "/readyz",
            get(move || async move {
                match self.ready().await {
                    Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
                    Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
                }
            }),
        )
    }
}

/// The routes that show the process's metrics.
fn shown(metrics: &Metrics) -> axum::Router {
    let metrics = metrics.clone();
    axum::Router::new().route(
        "/metrics",
        axum::routing::get(move || {
            let metrics = metrics.clone();
            async move { metrics.render() }
        }),
    )
}
