//! The cluster as one node sees it, kept current.
//!
//! **Invariant:** a view is a hint about who can answer, never about what is
//! true: cuts and definitions in it are immutable objects of the store. While
//! the coordinator is out of reach it freezes, and reads go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::cut::Cut;
use model::ids::{CutNumber, DefinitionNumber, Generation, IndexName, IndexUid, NodeId, ShardId};
use model::settings::Definition;
use proto::Error;
use proto::admin::{IndexInfo, NodeState};
use proto::leaf::ShardAt;
use runtime::CancellationToken;
use store::Store;
use tokio::sync::watch;

use crate::coordinator::{Coordinator, Expect, Put};
use crate::keys;

/// Between attempts to reach a coordinator that does not answer.
const RETRY_AFTER: Duration = Duration::from_millis(200);

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
    pub nodes: Vec<NodeState>,
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
    /// Who serves each shard, in order of preference; the first owns it.
    pub holders: Vec<Vec<NodeId>>,
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
}

impl Keeper {
    /// A keeper and the view that it keeps.
    #[must_use]
    pub fn new(coordinator: Arc<dyn Coordinator>, store: Store) -> (Self, watch::Receiver<Arc<View>>) {
        let (view, receiver) = watch::channel(Arc::new(View::default()));
        (Self { coordinator, store, view }, receiver)
    }

    /// Follows the coordinator until the token is cancelled.
    pub async fn run(self, token: CancellationToken) {
        while !token.is_cancelled() {
            tokio::select! {
                () = token.cancelled() => return,
                followed = self.follow() => if let Err(error) = followed {
                    tracing::warn!(%error, "the coordinator is out of reach; the view stands still");
                },
            }
            tokio::select! {
                () = token.cancelled() => {}
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
    }

    async fn follow(&self) -> Result<(), Error> {
        // Watch first, then list: no change falls between.
        let mut watch = self.coordinator.watch("").await?;
        loop {
            let view = Arc::new(self.look().await?);
            self.view.send_replace(view);
            if watch.recv().await.is_none() {
                return Err(Error::unavailable("the watch ended"));
            }
            // Changes come in bursts; one look serves them all.
            while watch.try_recv().is_ok() {}
        }
    }

    async fn look(&self) -> Result<View, Error> {
        let known = self.coordinator.get(keys::REGISTRY).await?.is_some();
        let mut view = View { known, ..View::default() };
        for entry in self.coordinator.list(keys::NODES).await? {
            match serde_json::from_slice(&entry.value) {
                Ok(node) => view.nodes.push(node),
                Err(error) => tracing::error!(key = entry.key, %error, "a node's record is damaged"),
            }
        }
        let before = self.view.borrow().clone();
        for entry in self.coordinator.list(keys::NAMES).await? {
            let name = entry.key.strip_prefix(keys::NAMES).map(IndexName::new);
            let uid = std::str::from_utf8(&entry.value).ok().and_then(IndexUid::parse);
            let (Some(Ok(name)), Some(uid)) = (name, uid) else {
                tracing::error!(key = entry.key, "an index's record is damaged");
                continue;
            };
            match self.index(&view, before.indexes.get(&name), name, uid).await {
                Ok(Some(index)) => {
                    view.indexes.insert(index.name.clone(), Arc::new(index));
                }
                // Not announced yet: a later change will tell.
                Ok(None) => view.pending += 1,
                Err(error) => {
                    tracing::error!(%error, "an index cannot be read");
                    view.pending += 1;
                }
            }
        }
        Ok(view)
    }

    async fn index(
        &self,
        view: &View,
        before: Option<&Arc<Index>>,
        name: IndexName,
        uid: IndexUid,
    ) -> Result<Option<Index>, Error> {
        let before = before.filter(|index| index.uid == uid);
        let (Some(cut), Some(placement)) = (
            self.coordinator.get(&keys::cut(&uid)).await?,
            self.coordinator.get(&keys::placement(&uid)).await?,
        ) else {
            return Ok(None);
        };
        let number = std::str::from_utf8(&cut.value).ok().and_then(|text| text.parse().ok()).map(CutNumber);
        let number = number.ok_or_else(|| Error::internal("a cut's number is damaged"))?;
        let placement: Vec<Vec<NodeId>> = serde_json::from_slice(&placement.value)
            .map_err(|error| Error::internal(format!("a placement is damaged: {error}")))?;
        let cut = match before {
            Some(index) if index.cut.number == number => index.cut.clone(),
            _ => match self.store.cut(&uid, number).await.map_err(|error| from_store(&error))? {
                Some(cut) => Arc::new(cut),
                None => return Ok(None),
            },
        };
        let (definition_number, definition) = match before {
            Some(index) if index.number == cut.definition => (index.number, index.definition.clone()),
            _ => {
                let newest = self.store.newest_definition(&uid).await;
                let (number, definition) = newest.map_err(|error| from_store(&error))?;
                (number, Arc::new(definition))
            }
        };
        let mut owners = vec![None; definition.shards as usize];
        for entry in self.coordinator.list(&format!("{}{uid}/", keys::OWNERS)).await? {
            let shard = entry.key.rsplit('/').next().and_then(|shard| shard.parse::<usize>().ok());
            let slot = shard.and_then(|shard| owners.get_mut(shard));
            if let (Some(slot), Ok(node)) = (slot, String::from_utf8(entry.value)) {
                *slot = Some(NodeId(node.into()));
            }
        }
        let live = |node: &NodeId| view.nodes.iter().any(|state| state.node == *node);
        let holders = placement
            .into_iter()
            .map(|nodes| nodes.into_iter().filter(|node| live(node)).collect())
            .collect();
        Ok(Some(Index { name, uid, number: definition_number, definition, cut, owners, holders }))
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
