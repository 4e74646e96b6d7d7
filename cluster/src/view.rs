//! The cluster as one node sees it, kept current.
//!
//! ```text
//! watch everything ─► mirror of the keys ─► what changed ─► the next view
//! ```
//!
//! **Invariant:** a view is a hint about who can answer, never about what is
//! true: cuts and definitions in it are immutable objects of the store. While
//! the coordinator is out of reach it freezes, and reads go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::cut::Cut;
use model::ids::{DefinitionNumber, Generation, IndexName, IndexUid, NodeId, ShardId};
use model::settings::Definition;
use proto::Error;
use proto::admin::{IndexInfo, NodeState, OWN, SERVE};
use proto::leaf::ShardAt;
use runtime::CancellationToken;
use serde::{Deserialize, Serialize};
use store::Store;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::complaint::Complaint;
use crate::coordinator::{Coordinator, Entry, Event, Expect, Put, Revision};
use crate::keys;
use crate::metrics::Viewing;

/// Between attempts to reach a coordinator or a store that does not answer.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How long reading a definition may take.
const READ_WITHIN: Duration = Duration::from_secs(1);
/// Between attempts at an index that cannot be read.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long the address of a node that is gone is remembered: its lease may
/// have lapsed while it goes on serving.
const DEPARTED_KEPT: Duration = Duration::from_secs(60);

/// Where the shards of an index shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// For each shard the leaves that serve it, in order of preference.
    pub serve: Vec<Vec<NodeId>>,
    /// For each shard the leaves that own it and do not serve, in order of
    /// preference; empty where leaves do both.
    #[serde(default)]
    pub own: Vec<Vec<NodeId>>,
}

/// The cluster as this node sees it.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Whether the coordinator has been read, after a controller brought it to
    /// what the store says.
    pub known: bool,
    /// Indexes that are announced but cannot be read yet.
    pub pending: usize,
    /// The live indexes.
    pub indexes: BTreeMap<IndexName, Arc<Index>>,
    /// The live nodes.
    pub nodes: BTreeMap<NodeId, NodeState>,
    /// Nodes that were live a moment ago.
    pub departed: Vec<NodeState>,
    /// The elected controller, and its election.
    pub controller: Option<(NodeId, Revision)>,
}

impl View {
    /// A live node.
    #[must_use]
    pub fn live(&self, node: &NodeId) -> Option<&NodeState> {
        self.nodes.get(node)
    }

    /// A node that is live, or was a moment ago.
    #[must_use]
    pub fn known_node(&self, node: &NodeId) -> Option<&NodeState> {
        self.live(node).or_else(|| self.departed.iter().find(|state| state.node == *node))
    }

    /// Whether its leaves are on more than one host.
    #[must_use]
    pub fn spans_hosts(&self) -> bool {
        let mut hosts = self.nodes.values().filter(|state| state.is(SERVE)).map(NodeState::host);
        let first = hosts.next();
        hosts.any(|host| Some(host) != first)
    }

    /// The leaf that should own a shard: the first live one that can, is not
    /// leaving, and has not failed to; where all have, the first.
    #[must_use]
    pub fn should_own(&self, index: &Index, shard: ShardId) -> Option<&NodeState> {
        let declined = index.declined.get(&shard);
        let able = || {
            let live = index.candidates(shard).iter().filter_map(|node| self.live(node));
            live.filter(|state| state.is(OWN) && !state.draining)
        };
        let willing = able().find(|state| declined.is_none_or(|declined| !declined.contains(&state.node)));
        willing.or_else(|| able().next())
    }
}

/// One index as this node sees it.
#[derive(Clone, Debug)]
pub struct Index {
    /// Its name.
    pub name: IndexName,
    /// This creation of it.
    pub uid: IndexUid,
    /// The newest definition's number.
    pub number: DefinitionNumber,
    /// The newest definition.
    pub definition: Arc<Definition>,
    /// The newest cut.
    pub cut: Arc<Cut>,
    /// Who takes each shard's writes.
    pub owners: Vec<Option<NodeId>>,
    /// Leaves that failed to own a shard, and stand back for a while.
    pub declined: BTreeMap<ShardId, BTreeSet<NodeId>>,
    /// Who shall serve each shard, live or not.
    pub placement: Arc<Placement>,
}

impl Index {
    /// A shard's generation in the newest cut.
    #[must_use]
    pub fn generation(&self, shard: ShardId) -> Option<Generation> {
        self.cut.entries.get(shard.0 as usize).map(|entry| entry.generation)
    }

    /// Every shard at its generation in the newest cut.
    pub fn shards(&self) -> impl Iterator<Item = ShardAt> + '_ {
        self.cut
            .entries
            .iter()
            .zip(0..)
            .map(|(entry, shard)| ShardAt { shard: ShardId(shard), generation: entry.generation })
    }

    /// Who shall serve a shard, in order of preference.
    #[must_use]
    pub fn holders(&self, shard: ShardId) -> &[NodeId] {
        self.placement.serve.get(shard.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// Who may own a shard, in order of preference.
    #[must_use]
    pub fn candidates(&self, shard: ShardId) -> &[NodeId] {
        match self.placement.own.get(shard.0 as usize) {
            Some(own) if !own.is_empty() => own,
            _ => self.holders(shard),
        }
    }

    /// Whether `node` has anything to do with a shard.
    #[must_use]
    pub fn places(&self, shard: ShardId, node: &NodeId) -> bool {
        self.holders(shard).contains(node) || self.candidates(shard).contains(node)
    }

    /// The index as people see it.
    #[must_use]
    pub fn info(&self) -> IndexInfo {
        IndexInfo {
            name: self.name.clone(),
            uid: self.uid.clone(),
            definition: (*self.definition).clone(),
            cut: self.cut.number,
            documents: self.cut.documents(),
        }
    }
}

/// Tells the cluster that the registry of names changed.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// An index was created; it is in the store already.
    ///
    /// # Errors
    /// When the coordinator cannot be told; the index exists all the same.
    async fn created(&self, name: &IndexName, uid: &IndexUid) -> Result<(), Error>;

    /// An index was deleted; its name is gone from the store already.
    ///
    /// # Errors
    /// When the coordinator cannot be told; the index is gone all the same.
    async fn deleted(&self, name: &IndexName, uid: &IndexUid) -> Result<(), Error>;
}

/// The names in the coordinator: a cache of the store's registry.
#[derive(Clone)]
pub struct Names(pub Arc<dyn Coordinator>);

#[async_trait]
impl Registry for Names {
    async fn created(&self, name: &IndexName, uid: &IndexUid) -> Result<(), Error> {
        let value = uid.as_str().into();
        let put = Put { key: keys::name(name), value, expect: Expect::Any, lease: None, guard: None };
        self.0.put(put).await.map(|_| ())
    }

    async fn deleted(&self, name: &IndexName, uid: &IndexUid) -> Result<(), Error> {
        // Another creation of the name may be there already: leave that one.
        if let Some(entry) = self.0.get(&keys::name(name)).await?
            && entry.value == uid.as_str().as_bytes()
        {
            self.0.delete(&keys::name(name), Expect::Revision(entry.revision)).await?;
        }
        for key in [keys::placement(uid), keys::cut(uid)] {
            self.0.delete(&key, Expect::Any).await?;
        }
        Ok(())
    }
}

/// Keeps a view current.
pub struct Keeper {
    coordinator: Arc<dyn Coordinator>,
    store: Store,
    view: watch::Sender<Arc<View>>,
    mirror: BTreeMap<String, Entry>,
    /// Each index's creation, by name, as the coordinator has it.
    names: BTreeMap<IndexName, IndexUid>,
    /// Indexes that could not be read.
    pending: BTreeSet<IndexUid>,
    departed: Vec<(NodeState, Instant)>,
    metrics: Viewing,
    trouble: Complaint,
}

/// What of a view has to be made anew.
#[derive(Default)]
struct Changed {
    nodes: bool,
    names: bool,
    indexes: BTreeSet<IndexUid>,
}

impl Changed {
    fn note(&mut self, key: &str) {
        if key.starts_with(keys::NODES) {
            self.nodes = true;
        } else if key.starts_with(keys::NAMES) {
            self.names = true;
        } else {
            let uid = [keys::OWNERS, keys::DECLINED, keys::PLACEMENT, keys::CUTS]
                .iter()
                .find_map(|prefix| IndexUid::parse(key.strip_prefix(prefix)?.split('/').next()?));
            self.indexes.extend(uid);
        }
    }
}

impl Keeper {
    /// A keeper and the view that it keeps.
    #[must_use]
    pub fn new(coordinator: Arc<dyn Coordinator>, store: Store) -> (Self, watch::Receiver<Arc<View>>) {
        let (view, receiver) = watch::channel(Arc::new(View::default()));
        let keeper = Self {
            coordinator,
            store,
            view,
            mirror: BTreeMap::new(),
            names: BTreeMap::new(),
            pending: BTreeSet::new(),
            departed: Vec::new(),
            metrics: Viewing::new(),
            trouble: Complaint::new("the coordinator is out of reach; the view stands still"),
        };
        (keeper, receiver)
    }

    /// Follows the coordinator until the token is cancelled.
    pub async fn run(mut self, token: CancellationToken) {
        while !token.is_cancelled() {
            tokio::select! {
                () = token.cancelled() => return,
                followed = self.follow() => if let Err(error) = followed {
                    self.trouble.say(&error);
                },
            }
            tokio::select! {
                () = token.cancelled() => {}
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
    }

    async fn follow(&mut self) -> Result<(), Error> {
        // Watch first, then list: no change falls between. What the listing
        // has already is told again, which its revision shows.
        let mut watch = self.coordinator.watch("").await?;
        let mut changed = self.list().await?;
        self.trouble.over();
        loop {
            self.look(changed).await;
            changed = Changed::default();
            let event = if self.pending.is_empty() {
                watch.recv().await
            } else {
                // What could not be read is tried again.
                match tokio::time::timeout(READ_AGAIN_AFTER, watch.recv()).await {
                    Ok(event) => event,
                    Err(_) => {
                        changed.indexes = self.pending.clone();
                        continue;
                    }
                }
            };
            let mut next = Some(event.ok_or_else(|| Error::unavailable("the watch ended"))?);
            // Changes come in bursts; one look serves them all.
            while let Some(event) = next {
                match event {
                    Event::Resync => {
                        let listed = self.list().await?;
                        changed.indexes.extend(listed.indexes);
                        (changed.nodes, changed.names) = (true, true);
                    }
                    event => self.apply(event, &mut changed),
                }
                next = watch.try_recv().ok();
            }
        }
    }

    fn apply(&mut self, event: Event, changed: &mut Changed) {
        let seen = |mirror: &BTreeMap<String, Entry>, key: &str| mirror.get(key).map_or(0, |e| e.revision);
        match event {
            Event::Put(entry) if entry.revision > seen(&self.mirror, &entry.key) => {
                changed.note(&entry.key);
                self.mirror.insert(entry.key.clone(), entry);
            }
            Event::Delete { key, revision } if revision > seen(&self.mirror, &key) => {
                changed.note(&key);
                self.mirror.remove(&key);
            }
            _ => {}
        }
    }

    /// Lists everything; what differs from before has changed.
    async fn list(&mut self) -> Result<Changed, Error> {
        let mut changed = Changed { nodes: true, names: true, ..Changed::default() };
        let listed = self.coordinator.list("").await?;
        let fresh: BTreeMap<String, Entry> =
            listed.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        for key in self.mirror.keys().chain(fresh.keys()) {
            if self.mirror.get(key) != fresh.get(key) {
                changed.note(key);
            }
        }
        self.mirror = fresh;
        Ok(changed)
    }

    fn under(&self, prefix: &str) -> impl Iterator<Item = &Entry> {
        let keys = self.mirror.range(prefix.to_owned()..);
        let prefix = prefix.to_owned();
        keys.take_while(move |(key, _)| key.starts_with(&prefix)).map(|(_, entry)| entry)
    }

    /// Makes the next view.
    async fn look(&mut self, mut changed: Changed) {
        let mut view = View::clone(&self.view.borrow());
        view.known = self.mirror.contains_key(keys::REGISTRY);
        view.controller = self
            .mirror
            .get(keys::CONTROLLER)
            .and_then(|entry| Some((NodeId(std::str::from_utf8(&entry.value).ok()?.into()), entry.revision)));
        if changed.nodes {
            self.nodes(&mut view);
        }
        if changed.names {
            let names = self.names();
            for (name, uid) in &names {
                if self.names.get(name) != Some(uid) {
                    changed.indexes.insert(uid.clone());
                }
            }
            view.indexes.retain(|name, index| names.get(name) == Some(&index.uid));
            self.names = names;
        }
        self.pending.retain(|uid| self.names.values().any(|live| live == uid));
        let names: Vec<_> = self
            .names
            .iter()
            .filter(|(_, uid)| changed.indexes.contains(*uid))
            .map(|(name, uid)| (name.clone(), uid.clone()))
            .collect();
        for (name, uid) in names {
            match self.index(view.indexes.get(&name), &name, &uid).await {
                Ok(Some(index)) => {
                    self.pending.remove(&uid);
                    view.indexes.insert(name, Arc::new(index));
                }
                // Not announced yet: a later change will tell.
                Ok(None) => {
                    self.pending.insert(uid);
                }
                Err(error) => {
                    if self.pending.insert(uid) {
                        tracing::error!(index = %name, %error, "an index cannot be read; it is tried again");
                    }
                }
            }
        }
        view.pending = self.pending.len();
        self.metrics.pending.set(view.pending as f64);
        self.metrics.nodes.set(view.nodes.len() as f64);
        self.view.send_replace(Arc::new(view));
    }

    fn nodes(&mut self, view: &mut View) {
        let before = std::mem::take(&mut view.nodes);
        for entry in self.under(keys::NODES) {
            match serde_json::from_slice::<NodeState>(&entry.value) {
                Ok(node) => drop(view.nodes.insert(node.node.clone(), node)),
                Err(error) => tracing::error!(key = entry.key, %error, "a node's record is damaged"),
            }
        }
        let now = Instant::now();
        self.departed.retain(|(node, since)| {
            view.live(&node.node).is_none() && now.duration_since(*since) < DEPARTED_KEPT
        });
        for node in before.into_values() {
            let known = self.departed.iter().any(|(other, _)| other.node == node.node);
            if view.live(&node.node).is_none() && !known {
                self.departed.push((node, now));
            }
        }
        view.departed = self.departed.iter().map(|(node, _)| node.clone()).collect();
    }

    fn names(&self) -> BTreeMap<IndexName, IndexUid> {
        let mut names = BTreeMap::new();
        for entry in self.under(keys::NAMES) {
            let name = entry.key.strip_prefix(keys::NAMES).map(IndexName::new);
            let uid = std::str::from_utf8(&entry.value).ok().and_then(IndexUid::parse);
            match (name, uid) {
                (Some(Ok(name)), Some(uid)) => {
                    names.insert(name, uid);
                }
                _ => tracing::error!(key = entry.key, "an index's record is damaged"),
            }
        }
        names
    }

    async fn index(
        &self,
        before: Option<&Arc<Index>>,
        name: &IndexName,
        uid: &IndexUid,
    ) -> Result<Option<Index>, Error> {
        let (Some(cut), Some(placement)) =
            (self.mirror.get(&keys::cut(uid)), self.mirror.get(&keys::placement(uid)))
        else {
            return Ok(None);
        };
        let damaged = |what: &str, error| Error::internal(format!("{what} of {name} is damaged: {error}"));
        let mut cut: Arc<Cut> =
            Arc::new(serde_json::from_slice(&cut.value).map_err(|error| damaged("the cut", error))?);
        let placement: Placement =
            serde_json::from_slice(&placement.value).map_err(|error| damaged("the placement", error))?;
        let mut known = None;
        if let Some(before) = before {
            // A view never goes back.
            if before.cut.number >= cut.number {
                cut = before.cut.clone();
            }
            if before.number == cut.definition {
                known = Some(before.definition.clone());
            }
        }
        let definition = match known {
            Some(definition) => definition,
            None => {
                // A store that hangs must not hold up all other indexes.
                let read = self.store.definition(uid, cut.definition);
                let found = tokio::time::timeout(READ_WITHIN, read).await;
                let found = found.map_err(|_| Error::unavailable("the store takes too long"))?;
                let found = found.map_err(|error| from_store(&error))?;
                Arc::new(
                    found.ok_or_else(|| Error::internal(format!("the definition of {name} is missing")))?,
                )
            }
        };
        let mut owners = vec![None; definition.shards as usize];
        for entry in self.under(&format!("{}{uid}/", keys::OWNERS)) {
            let shard = entry.key.rsplit('/').next().and_then(|shard| shard.parse::<usize>().ok());
            let slot = shard.and_then(|shard| owners.get_mut(shard));
            if let (Some(slot), Ok(node)) = (slot, std::str::from_utf8(&entry.value)) {
                *slot = Some(NodeId(node.into()));
            }
        }
        let mut declined: BTreeMap<ShardId, BTreeSet<NodeId>> = BTreeMap::new();
        let prefix = format!("{}{uid}/", keys::DECLINED);
        for entry in self.under(&prefix) {
            let rest = entry.key.strip_prefix(&prefix).and_then(|rest| rest.split_once('/'));
            if let Some((shard, node)) = rest
                && let Ok(shard) = shard.parse()
            {
                declined.entry(ShardId(shard)).or_default().insert(NodeId(node.into()));
            }
        }
        let number = cut.definition;
        Ok(Some(Index {
            declined,
            name: name.clone(),
            uid: uid.clone(),
            number,
            definition,
            cut,
            owners,
            placement: Arc::new(placement),
        }))
    }
}

/// The store's error in the words of the roles.
#[must_use]
pub fn from_store(error: &store::Error) -> Error {
    let kind = match error.kind() {
        store::Kind::Invalid => proto::Kind::Invalid,
        store::Kind::NotFound => proto::Kind::NotFound,
        store::Kind::Conflict => proto::Kind::Conflict,
        store::Kind::Unavailable => proto::Kind::Unavailable,
        store::Kind::Unknown | store::Kind::Expired => proto::Kind::Expired,
        store::Kind::Internal => proto::Kind::Internal,
    };
    Error::new(kind, error.to_string())
}
