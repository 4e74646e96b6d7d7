//! The elected process that writes placement and cuts.
//!
//! ```text
//!  campaign ─► term: registry ─► names, placements, newest cuts
//!     ▲          │ reports of what is open ─► model::cut::next ─► put if absent ─► announce
//!     │          │ nodes that come and go ─► model::placement::next ─► announce
//!     └──────────┘ a cut of another's in the way: the term is over
//! ```
//!
//! **Invariant:** cut n + 1 is computed from cut n as the store has it, put if
//! absent, and announced only when it is ours. Whatever this process writes to
//! the coordinator holds only while its election does.

mod term;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::cut::{self, Cut};
use model::ids::{Epoch, IndexName, IndexUid, NodeId};
use model::placement::Policy;
use proto::Error;
use proto::admin::{NodeState, OWN, SERVE};
use proto::controller::Report;
use runtime::{CancellationToken, Clock};
use store::{Put as Stored, Store};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::complaint::Complaint;
use crate::coordinator::{Coordinator, Event, Expect, Lease, Put, Revision};
use crate::keys;
use crate::metrics::Controlling;
use crate::view::{Placement, from_store};
use term::{Known, Term};

/// How long a put may take before the term ends.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between collections of old cuts.
const COLLECT_EVERY: Duration = Duration::from_secs(30);
/// Between looks at what only time changes: leaves that stay away, replicas
/// that fall behind.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between campaigns after a term that ended badly.
const CAMPAIGN_AFTER: Duration = Duration::from_millis(500);
/// How long a campaign trusts its watch of the election.
const CAMPAIGN_EVERY: Duration = Duration::from_secs(5);
/// Reports that wait; a leaf repeats what it could not tell.
const REPORTS: usize = 1_024;

/// What a controller is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time to live of the election: how long cuts stand still when a
    /// controller dies.
    pub lease: Duration,
    /// How long a leaf may be gone before its shards are placed elsewhere:
    /// longer than a restart.
    pub placement_grace: Duration,
    /// How far behind a replica may be, in time, before cuts stop waiting for
    /// it.
    pub lag_max: Duration,
    /// How much of the placement changes in one round.
    pub policy: Policy,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease: crate::membership::LEASE_DEFAULT,
            placement_grace: Duration::from_secs(60),
            lag_max: Duration::from_secs(5),
            policy: Policy::default(),
        }
    }
}

/// Where leaves report. Clones reach the same controller.
#[derive(Clone)]
pub struct Handle {
    reports: mpsc::Sender<Report>,
    elected: watch::Receiver<bool>,
}

#[async_trait]
impl proto::controller::Controller for Handle {
    async fn report(&self, report: Report) -> Result<(), Error> {
        if !*self.elected.borrow() {
            return Err(Error::unavailable("this node is not the elected controller: ask the one that is"));
        }
        let sent = self.reports.send(report).await;
        sent.map_err(|_| Error::unavailable("the controller has stopped"))
    }
}

/// The controller.
pub struct Controller {
    node: NodeId,
    coordinator: Arc<dyn Coordinator>,
    store: Store,
    clock: Clock,
    settings: Settings,
    reports: mpsc::Receiver<Report>,
    elected: watch::Sender<bool>,
    lease: Option<Lease>,
    metrics: Controlling,
    trouble: Complaint,
}

impl Controller {
    /// A controller and where to report to it.
    #[must_use]
    pub fn new(
        node: NodeId,
        coordinator: Arc<dyn Coordinator>,
        store: Store,
        clock: Clock,
        settings: Settings,
    ) -> (Self, Handle) {
        let (sender, reports) = mpsc::channel(REPORTS);
        let (elected, receiver) = watch::channel(false);
        let metrics = Controlling::new();
        let trouble = Complaint::new("a term, or a campaign for one, ended; it is tried again");
        let controller = Self {
            node,
            coordinator,
            store,
            clock,
            settings,
            reports,
            elected,
            lease: None,
            metrics,
            trouble,
        };
        (controller, Handle { reports: sender, elected: receiver })
    }

    /// Campaigns and governs until the token is cancelled.
    pub async fn run(mut self, token: CancellationToken) {
        while !token.is_cancelled() {
            let ended = tokio::select! {
                () = token.cancelled() => Ok(()),
                ended = self.govern() => ended,
            };
            self.elected.send_replace(false);
            self.metrics.elected.set(0.0);
            self.metrics.behind.set(0.0);
            if let Err(error) = ended {
                self.trouble.say(&error);
            }
            if let Some(lease) = self.lease.take()
                && let Err(error) = self.coordinator.revoke(lease).await
            {
                tracing::warn!(%error, "failed to end the election; it ends by itself");
            }
            tokio::select! {
                () = token.cancelled() => {}
                () = tokio::time::sleep(CAMPAIGN_AFTER) => {}
            }
        }
    }

    /// Waits until nobody is elected, is elected, and governs.
    async fn govern(&mut self) -> Result<(), Error> {
        let guard = loop {
            let mut watch = self.coordinator.watch(keys::CONTROLLER).await?;
            if self.coordinator.get(keys::CONTROLLER).await?.is_none() {
                let lease = self.coordinator.grant(self.settings.lease).await?;
                self.lease = Some(lease);
                let put = Put {
                    key: keys::CONTROLLER.to_owned(),
                    value: self.node.to_string().into(),
                    expect: Expect::Absent,
                    lease: Some(lease),
                    guard: None,
                };
                if let Some(guard) = self.coordinator.put(put).await? {
                    break guard;
                }
                self.lease = None;
                self.coordinator.revoke(lease).await?;
            }
            let vacant = async { while let Some(Event::Put(_)) = watch.recv().await {} };
            // A watch may be slow to break: look again now and then.
            let _either = tokio::time::timeout(CAMPAIGN_EVERY, vacant).await;
        };
        self.trouble.over();
        tracing::info!(node = %self.node, term = guard, "elected controller");
        // What was reported before is repeated to whoever is elected.
        while self.reports.try_recv().is_ok() {}
        self.elected.send_replace(true);
        self.metrics.elected.set(1.0);
        let (coordinator, lease, ttl) = (self.coordinator.clone(), self.lease, self.settings.lease);
        tokio::select! {
            ended = keep(&*coordinator, lease, ttl) => ended,
            ended = self.term(guard) => ended,
        }
    }

    async fn term(&mut self, guard: Revision) -> Result<(), Error> {
        // Watch before reading, so that no creation falls between.
        let mut names = self.coordinator.watch(keys::NAMES).await?;
        let mut nodes = self.coordinator.watch(keys::NODES).await?;
        let mut term = Term {
            guard,
            indexes: BTreeMap::new(),
            nodes: BTreeMap::new(),
            gone: BTreeMap::new(),
            held: BTreeMap::new(),
            behind: BTreeMap::new(),
        };
        self.registry(&term).await?;
        self.look_at_nodes(&mut term).await?;
        self.adopt(&mut term).await?;
        self.write(&term, keys::REGISTRY.to_owned(), Vec::new()).await?;
        let mut collect = tokio::time::interval(COLLECT_EVERY);
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                report = self.reports.recv() => {
                    let Some(report) = report else { return Ok(()) };
                    let mut changed = BTreeSet::new();
                    term.note(report, &mut changed);
                    // Reports that came together make one cut.
                    while let Ok(report) = self.reports.try_recv() {
                        term.note(report, &mut changed);
                    }
                    for uid in changed {
                        self.advance(&mut term, &uid).await?;
                    }
                }
                event = names.recv() => {
                    event.ok_or_else(|| Error::unavailable("the watch of names ended"))?;
                    while names.try_recv().is_ok() {}
                    self.adopt(&mut term).await?;
                }
                event = nodes.recv() => {
                    event.ok_or_else(|| Error::unavailable("the watch of nodes ended"))?;
                    while nodes.try_recv().is_ok() {}
                    self.look_at_nodes(&mut term).await?;
                    self.place(&mut term).await?;
                    self.advance_all(&mut term).await?;
                }
                _ = look.tick() => {
                    self.place(&mut term).await?;
                    if !term.behind.is_empty() {
                        self.advance_all(&mut term).await?;
                    }
                }
                _ = collect.tick() => {
                    self.collect(&term).await;
                    // An index whose creator could not tell of it.
                    if let Err(error) = self.registry(&term).await {
                        self.trouble.say(&error);
                    }
                }
            }
        }
    }

    /// Brings the coordinator's names to what the store's registry says, and
    /// ends deletions that a crash left half done.
    async fn registry(&self, term: &Term) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        self.store.finish_deletions(deadline).await.map_err(|error| from_store(&error))?;
        let mut live = BTreeSet::new();
        for (name, _, entry) in self.store.list_names().await.map_err(|error| from_store(&error))? {
            match entry {
                store::names::Entry::Live { uid } => {
                    self.write(term, keys::name(&name), uid.as_str().into()).await?;
                    live.insert(uid);
                }
                store::names::Entry::Deleted { .. } => {
                    self.coordinator.delete(&keys::name(&name), Expect::Any).await?;
                }
            }
        }
        // What a deletion and a placement at the same moment left behind.
        for prefix in [keys::PLACEMENT, keys::CUTS] {
            for entry in self.coordinator.list(prefix).await? {
                let uid = entry.key.strip_prefix(prefix).and_then(IndexUid::parse);
                if uid.is_none_or(|uid| !live.contains(&uid)) {
                    self.coordinator.delete(&entry.key, Expect::Revision(entry.revision)).await?;
                }
            }
        }
        Ok(())
    }

    async fn look_at_nodes(&self, term: &mut Term) -> Result<(), Error> {
        let now = Instant::now();
        let mut nodes = BTreeMap::new();
        for entry in self.coordinator.list(keys::NODES).await? {
            match serde_json::from_slice::<NodeState>(&entry.value) {
                Ok(node) => {
                    nodes.insert(node.node.clone(), node);
                }
                Err(error) => tracing::error!(key = entry.key, %error, "a node's record is damaged"),
            }
        }
        for (node, state) in std::mem::take(&mut term.nodes) {
            if !nodes.contains_key(&node) {
                tracing::info!(%node, "a node is gone");
                term.held.remove(&node);
                term.gone.insert(node, (now, Some(state)));
            }
        }
        term.gone.retain(|node, _| !nodes.contains_key(node));
        term.nodes = nodes;
        Ok(())
    }

    /// Takes up indexes that the term does not know yet, and forgets those
    /// that are gone.
    async fn adopt(&self, term: &mut Term) -> Result<(), Error> {
        let mut live = BTreeSet::new();
        let mut new = Vec::new();
        for entry in self.coordinator.list(keys::NAMES).await? {
            let name = entry.key.strip_prefix(keys::NAMES).map(IndexName::new);
            let uid = std::str::from_utf8(&entry.value).ok().and_then(IndexUid::parse);
            let (Some(Ok(name)), Some(uid)) = (name, uid) else { continue };
            live.insert(uid.clone());
            if term.indexes.contains_key(&uid) {
                continue;
            }
            let newest = self.store.newest_definition(&uid).await;
            let (_, definition) = newest.map_err(|error| from_store(&error))?;
            let cut = self.store.newest_cut(&uid).await.map_err(|error| from_store(&error))?;
            let placement = match self.coordinator.get(&keys::placement(&uid)).await? {
                Some(entry) => serde_json::from_slice(&entry.value).unwrap_or_else(|error| {
                    tracing::error!(%uid, %error, "a placement is damaged; the index is placed anew");
                    Placement::default()
                }),
                None => Placement::default(),
            };
            term.indexes.insert(uid.clone(), Known { name, definition, cut, placement });
            new.push(uid);
        }
        term.indexes.retain(|uid, _| live.contains(uid));
        term.behind.retain(|(uid, _, _), _| live.contains(uid));
        for held in term.held.values_mut() {
            held.retain(|(uid, _), _| live.contains(uid));
        }
        self.place(term).await?;
        for uid in new {
            let Some(known) = term.indexes.get(&uid) else { continue };
            self.announce(term.guard, &known.cut).await?;
            self.advance(term, &uid).await?;
        }
        Ok(())
    }

    /// Places what is new, repairs what is lost, balances what is not: at most
    /// one round of it.
    async fn place(&self, term: &mut Term) -> Result<(), Error> {
        term.miss(Instant::now());
        let serve = term.next_table(&self.settings, SERVE);
        let own = term.next_table(&self.settings, OWN);
        let mut changed = Vec::new();
        for (uid, known) in &mut term.indexes {
            let placement = Placement {
                serve: serve.get(uid).cloned().unwrap_or_default(),
                own: own.get(uid).cloned().unwrap_or_default(),
            };
            if placement != known.placement && placement.serve.iter().any(|nodes| !nodes.is_empty()) {
                tracing::info!(index = %known.name, ?placement, "placed");
                changed.push((uid.clone(), placement));
            }
        }
        for (uid, placement) in changed {
            let value = serde_json::to_vec(&placement).expect("a placement is plain JSON");
            self.write(term, keys::placement(&uid), value).await?;
            self.metrics.placed.increment(1);
            if let Some(known) = term.indexes.get_mut(&uid) {
                known.placement = placement;
            }
        }
        let placed: BTreeSet<&NodeId> = term
            .indexes
            .values()
            .flat_map(|known| known.placement.serve.iter().chain(&known.placement.own))
            .flatten()
            .collect();
        let grace = self.settings.placement_grace;
        term.gone.retain(|node, (since, _)| placed.contains(node) || since.elapsed() < grace);
        Ok(())
    }

    async fn advance_all(&self, term: &mut Term) -> Result<(), Error> {
        let uids: Vec<IndexUid> = term.indexes.keys().cloned().collect();
        for uid in uids {
            self.advance(term, &uid).await?;
        }
        Ok(())
    }

    /// Publishes the next cut of an index, if something moves.
    async fn advance(&self, term: &mut Term, uid: &IndexUid) -> Result<(), Error> {
        let guard = term.guard;
        let replicas = term.replicas(uid, self.settings.lag_max);
        self.metrics.behind.set(term.behind.len() as f64);
        let Some(known) = term.indexes.get_mut(uid) else { return Ok(()) };
        let Some(entries) = cut::next(&known.cut, &replicas, known.definition.copies) else { return Ok(()) };
        let nonce = u64::from(self.store.nonce());
        let number = known.cut.number.next();
        let next = Cut { number, epoch: Epoch(guard), nonce, entries, ..known.cut.clone() };
        match self.store.put_cut(&next, Instant::now() + PATIENCE).await {
            Ok(Stored::Mine) => {}
            Ok(Stored::Other(_)) => {
                return Err(Error::conflict(format!("cut {} of {uid} is another's", next.number)));
            }
            // It may yet land, so this term puts no other in its place.
            Err(error) => return Err(from_store(&error)),
        }
        known.cut = next;
        self.metrics.cuts.increment(1);
        self.announce(guard, &known.cut).await
    }

    async fn announce(&self, guard: Revision, cut: &Cut) -> Result<(), Error> {
        let value = serde_json::to_vec(cut).expect("a cut is plain JSON");
        self.write_guarded(guard, keys::cut(&cut.uid), value).await
    }

    async fn write(&self, term: &Term, key: String, value: Vec<u8>) -> Result<(), Error> {
        self.write_guarded(term.guard, key, value).await
    }

    async fn write_guarded(&self, guard: Revision, key: String, value: Vec<u8>) -> Result<(), Error> {
        let guard = Some((keys::CONTROLLER.to_owned(), guard));
        let put = Put { key, value, expect: Expect::Any, lease: None, guard };
        match self.coordinator.put(put).await? {
            Some(_) => Ok(()),
            None => Err(Error::unavailable("another controller was elected")),
        }
    }

    async fn collect(&self, term: &Term) {
        for uid in term.indexes.keys() {
            let retention = store::garbage::Retention::default();
            if let Err(error) = self.store.collect_cuts(uid, self.clock.now(), retention).await {
                tracing::warn!(%uid, %error, "failed to collect old cuts; it is tried again");
            }
        }
    }
}

/// Prolongs the election until it ends.
async fn keep(coordinator: &dyn Coordinator, lease: Option<Lease>, ttl: Duration) -> Result<(), Error> {
    let Some(lease) = lease else { return Ok(()) };
    let mut tick = tokio::time::interval(ttl / 4);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut alive = Instant::now();
    loop {
        tick.tick().await;
        match coordinator.keep_alive(lease).await {
            Ok(true) => alive = Instant::now(),
            Ok(false) => return Err(Error::unavailable("the election has ended")),
            // It may still stand; its writes are guarded either way.
            Err(error) if alive.elapsed() < ttl => {
                tracing::debug!(%error, "failed to prolong the election; it is tried again");
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::ids::{Generation, Seq, ShardId};
    use model::schema::Schema;
    use model::settings::Definition;
    use proto::controller::{Controller as _, Held, Served};
    use tokio::sync::watch;

    use super::*;
    use crate::view::{Keeper, Names, Registry, View};

    struct World {
        store: Store,
        names: Names,
        reports: Handle,
        view: watch::Receiver<Arc<View>>,
        token: CancellationToken,
    }

    async fn world() -> World {
        let (store, node) = (Store::memory(), NodeId("a".into()));
        let coordinator: Arc<dyn Coordinator> = Arc::new(crate::Embedded::new());
        let state = NodeState {
            node: node.clone(),
            roles: vec![OWN.to_owned(), SERVE.to_owned()],
            public: None,
            internal: None,
            zone: None,
            draining: false,
        };
        let membership = crate::Membership::new(coordinator.clone(), state, crate::membership::LEASE_DEFAULT);
        let clock = Clock::manual(0);
        let (controller, reports) =
            Controller::new(node, coordinator.clone(), store.clone(), clock, Settings::default());
        let (keeper, view) = Keeper::new(coordinator.clone(), store.clone());
        let token = CancellationToken::new();
        let scope = runtime::TaskScope::new(&runtime::Shutdown::new());
        let stop = token.clone();
        scope.spawn("membership", runtime::OnError::Log, |_| membership.run(stop));
        let stop = token.clone();
        scope.spawn("controller", runtime::OnError::Log, |_| controller.run(stop));
        let stop = token.clone();
        scope.spawn("view", runtime::OnError::Log, |_| keeper.run(stop));
        // The tasks end with the token, which ends with the world.
        std::mem::forget(scope);
        World { store, names: Names(coordinator), reports, view, token }
    }

    impl World {
        async fn create(&self, name: &str, shards: u32) -> IndexUid {
            let name = IndexName::new(name).unwrap();
            let definition = Definition { shards, ..Definition::of(Schema::default()) };
            let uid = self.store.create_index(&name, &definition, Instant::now() + PATIENCE).await.unwrap();
            self.names.created(&name, &uid).await.unwrap();
            uid
        }

        async fn cut(&mut self, name: &str, generations: &[u64]) {
            let name = IndexName::new(name).unwrap();
            let seen = self.view.wait_for(|view| {
                view.indexes.get(&name).is_some_and(|index| {
                    let found = index.cut.entries.iter().map(|entry| entry.generation.0);
                    found.eq(generations.iter().copied())
                })
            });
            tokio::time::timeout(PATIENCE, seen).await.expect("the cut comes").unwrap();
        }

        async fn report(&self, uid: &IndexUid, shard: u32, generation: u64) {
            let (generation, seq) = (Generation(generation), Seq(generation));
            let held = Held {
                uid: uid.clone(),
                shard: ShardId(shard),
                owned: true,
                generations: vec![Served { generation, seq, documents: 1 }],
            };
            let report = Report { node: NodeId("a".into()), complete: false, shards: vec![held] };
            self.reports.report(report).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_report_moves_the_cut_and_a_shard_that_is_not_ready_delays_no_other() {
        let mut world = world().await;
        let uid = world.create("one", 2).await;
        world.cut("one", &[1, 1]).await;
        world.report(&uid, 1, 2).await;
        world.cut("one", &[1, 2]).await;
        world.report(&uid, 0, 3).await;
        world.cut("one", &[3, 2]).await;
        world.token.cancel();
    }

    #[tokio::test]
    async fn deleting_one_index_stops_no_other() {
        let mut world = world().await;
        let gone = world.create("gone", 1).await;
        let uid = world.create("stays", 1).await;
        world.cut("gone", &[1]).await;
        world.cut("stays", &[1]).await;
        let name = IndexName::new("gone").unwrap();
        world.store.delete_index(&name, Instant::now() + PATIENCE).await.unwrap();
        world.names.deleted(&name, &gone).await.unwrap();
        world.report(&uid, 0, 2).await;
        world.cut("stays", &[2]).await;
        world.token.cancel();
    }
}
