//! The elected process that writes placement and cuts.
//!
//! ```text
//!  campaign ─► term: registry ─► names, placements, newest cuts
//!     ▲          │ reports of what is open ─► model::cut::next ─► put if absent ─► announce
//!     └──────────┘ a cut of another's in the way: the term is over
//! ```
//!
//! **Invariant:** cut n + 1 is computed from cut n as the store has it, put if
//! absent, and announced only when it is ours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::cut::{self, Cut, ReplicaState};
use model::ids::{Epoch, IndexName, IndexUid, NodeId, ShardId};
use model::settings::Definition;
use proto::Error;
use proto::admin::NodeState;
use proto::controller::Opened;
use runtime::{CancellationToken, Clock};
use store::{Put as Stored, Store};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::coordinator::{Coordinator, Event, Expect, Lease, Put, Revision};
use crate::keys;
use crate::view::from_store;

/// Time to live of the election: how long cuts stand still when a controller
/// dies.
const LEASE: Duration = Duration::from_secs(5);
/// How long a put may take before the term ends.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between collections of old cuts.
const COLLECT_EVERY: Duration = Duration::from_secs(30);
/// Reports that wait; a leaf repeats what it could not tell.
const REPORTS: usize = 1_024;

type Report = (NodeId, Vec<Opened>);

/// Where leaves report. Clones reach the same controller.
#[derive(Clone)]
pub struct Handle(mpsc::Sender<Report>);

#[async_trait]
impl proto::controller::Controller for Handle {
    async fn report(&self, node: &NodeId, opened: Vec<Opened>) -> Result<(), Error> {
        let sent = self.0.send((node.clone(), opened)).await;
        sent.map_err(|_| Error::unavailable("the controller has stopped"))
    }
}

/// The controller.
pub struct Controller {
    node: NodeId,
    coordinator: Arc<dyn Coordinator>,
    store: Store,
    clock: Clock,
    reports: mpsc::Receiver<Report>,
    opened: BTreeMap<IndexUid, BTreeMap<ShardId, BTreeMap<NodeId, ReplicaState>>>,
}

/// An index as the controller knows it.
struct Known {
    definition: Definition,
    cut: Cut,
}

/// One election.
struct Term {
    lease: Lease,
    guard: Revision,
    indexes: BTreeMap<IndexUid, Known>,
}

impl Controller {
    /// A controller and where to report to it.
    #[must_use]
    pub fn new(
        node: NodeId,
        coordinator: Arc<dyn Coordinator>,
        store: Store,
        clock: Clock,
    ) -> (Self, Handle) {
        let (sender, reports) = mpsc::channel(REPORTS);
        (Self { node, coordinator, store, clock, reports, opened: BTreeMap::new() }, Handle(sender))
    }

    /// Campaigns and governs until the token is cancelled.
    pub async fn run(mut self, token: CancellationToken) {
        while !token.is_cancelled() {
            tokio::select! {
                () = token.cancelled() => return,
                ended = self.govern() => if let Err(error) = ended {
                    tracing::warn!(%error, "the controller's term ended");
                },
            }
            tokio::select! {
                () = token.cancelled() => {}
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
        }
    }

    async fn govern(&mut self) -> Result<(), Error> {
        // Watch before reading, so that no creation falls between.
        let mut names = self.coordinator.watch(keys::NAMES).await?;
        let mut nodes = self.coordinator.watch(keys::NODES).await?;
        let lease = self.coordinator.grant(LEASE).await?;
        let put = Put {
            key: keys::CONTROLLER.to_owned(),
            value: self.node.to_string().into(),
            expect: Expect::Absent,
            lease: Some(lease),
            guard: None,
        };
        let Some(guard) = self.coordinator.put(put).await? else {
            self.coordinator.revoke(lease).await?;
            return Ok(());
        };
        let mut term = Term { lease, guard, indexes: BTreeMap::new() };
        self.registry(&term).await?;
        self.adopt(&mut term).await?;
        self.write(&term, keys::REGISTRY.to_owned(), Vec::new()).await?;
        let mut alive = tokio::time::interval(LEASE / 3);
        let mut collect = tokio::time::interval(COLLECT_EVERY);
        loop {
            tokio::select! {
                report = self.reports.recv() => {
                    let Some(report) = report else { return Ok(()) };
                    let mut changed = BTreeSet::new();
                    self.note(report, &mut changed);
                    // Reports that came together make one cut.
                    while let Ok(report) = self.reports.try_recv() {
                        self.note(report, &mut changed);
                    }
                    for uid in changed {
                        self.advance(&mut term, &uid).await?;
                    }
                }
                event = names.recv() => match event {
                    Some(Event::Delete { .. }) => {
                        term.indexes.clear();
                        self.adopt(&mut term).await?;
                    }
                    Some(_) => self.adopt(&mut term).await?,
                    None => return Err(Error::unavailable("the watch of names ended")),
                },
                event = nodes.recv() => match event {
                    Some(_) => self.adopt(&mut term).await?,
                    None => return Err(Error::unavailable("the watch of nodes ended")),
                },
                _ = alive.tick() => {
                    if !self.coordinator.keep_alive(term.lease).await? {
                        return Err(Error::unavailable("the election has ended"));
                    }
                }
                _ = collect.tick() => self.collect(&term).await,
            }
        }
    }

    fn note(&mut self, (node, opened): Report, changed: &mut BTreeSet<IndexUid>) {
        for Opened { uid, shard, generation, seq, documents } in opened {
            let state = ReplicaState { node: node.clone(), generation, seq, documents };
            self.opened.entry(uid.clone()).or_default().entry(shard).or_default().insert(node.clone(), state);
            changed.insert(uid);
        }
    }

    /// Brings the coordinator's names to what the store's registry says, and
    /// ends deletions that a crash left half done.
    async fn registry(&self, term: &Term) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        self.store.finish_deletions(deadline).await.map_err(|error| from_store(&error))?;
        for (name, _, entry) in self.store.list_names().await.map_err(|error| from_store(&error))? {
            match entry {
                store::names::Entry::Live { uid } => {
                    self.write(term, keys::name(&name), uid.as_str().into()).await?;
                }
                store::names::Entry::Deleted { .. } => {
                    self.coordinator.delete(&keys::name(&name), Expect::Any).await?;
                }
            }
        }
        Ok(())
    }

    /// Takes up indexes that the term does not know yet: places them, and
    /// announces their newest cut.
    async fn adopt(&self, term: &mut Term) -> Result<(), Error> {
        let mut leaves = Vec::new();
        for entry in self.coordinator.list(keys::NODES).await? {
            match serde_json::from_slice::<NodeState>(&entry.value) {
                Ok(node) if node.roles.iter().any(|role| role == "leaf") => leaves.push(node.node),
                Ok(_) => {}
                Err(error) => tracing::error!(key = entry.key, %error, "a node's record is damaged"),
            }
        }
        if leaves.is_empty() {
            return Ok(());
        }
        for entry in self.coordinator.list(keys::NAMES).await? {
            let name = entry.key.strip_prefix(keys::NAMES).map(IndexName::new);
            let uid = std::str::from_utf8(&entry.value).ok().and_then(IndexUid::parse);
            let (Some(Ok(_)), Some(uid)) = (name, uid) else { continue };
            if term.indexes.contains_key(&uid) {
                continue;
            }
            let newest = self.store.newest_definition(&uid).await;
            let (_, definition) = newest.map_err(|error| from_store(&error))?;
            let cut = self.store.newest_cut(&uid).await.map_err(|error| from_store(&error))?;
            if self.coordinator.get(&keys::placement(&uid)).await?.is_none() {
                let placement: Vec<Vec<&NodeId>> = (0..definition.shards as usize)
                    .map(|shard| {
                        let copies = (definition.copies as usize).min(leaves.len());
                        (0..copies).map(|copy| &leaves[(shard + copy) % leaves.len()]).collect()
                    })
                    .collect();
                let value = serde_json::to_vec(&placement).expect("a placement is plain JSON");
                self.write(term, keys::placement(&uid), value).await?;
            }
            self.write(term, keys::cut(&uid), cut.number.to_string().into()).await?;
            term.indexes.insert(uid.clone(), Known { definition, cut });
            self.advance(term, &uid).await?;
        }
        Ok(())
    }

    /// Publishes the next cut of an index, if something moves.
    async fn advance(&self, term: &mut Term, uid: &IndexUid) -> Result<(), Error> {
        let (guard, epoch) = (term.guard, Epoch(term.guard));
        let Some(known) = term.indexes.get_mut(uid) else { return Ok(()) };
        let Some(opened) = self.opened.get(uid) else { return Ok(()) };
        let replicas: BTreeMap<ShardId, Vec<ReplicaState>> =
            opened.iter().map(|(shard, states)| (*shard, states.values().cloned().collect())).collect();
        let Some(entries) = cut::next(&known.cut, &replicas, known.definition.copies) else { return Ok(()) };
        let nonce = u64::from(self.store.nonce());
        let next = Cut { number: known.cut.number.next(), epoch, nonce, entries, ..known.cut.clone() };
        match self.store.put_cut(&next, Instant::now() + PATIENCE).await {
            Ok(Stored::Mine) => {}
            Ok(Stored::Other(_)) => {
                return Err(Error::conflict(format!("cut {} of {uid} is another's", next.number)));
            }
            Err(error) => return Err(from_store(&error)),
        }
        let value = next.number.to_string().into();
        known.cut = next;
        self.write_guarded(guard, keys::cut(uid), value).await
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

#[cfg(test)]
mod tests {
    use model::ids::{Generation, Seq};
    use model::schema::Schema;
    use proto::controller::Controller as _;
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
        let state = NodeState { node: node.clone(), roles: vec!["leaf".to_owned()], public: None };
        crate::Membership::join(coordinator.clone(), &state).await.unwrap();
        let (controller, reports) =
            Controller::new(node, coordinator.clone(), store.clone(), Clock::manual(0));
        let (keeper, view) = Keeper::new(coordinator.clone(), store.clone());
        let token = CancellationToken::new();
        let scope = runtime::TaskScope::new(&runtime::Shutdown::new());
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
            let opened = Opened { uid: uid.clone(), shard: ShardId(shard), generation, seq, documents: 1 };
            self.reports.report(&NodeId("a".into()), vec![opened]).await.unwrap();
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
