//! What a root knows of the cluster: a value that others keep current.
//!
//! **Invariant:** a view is a hint about who can answer, never about what is
//! true: cuts and definitions in it are immutable objects of the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use model::cut::Cut;
use model::ids::{DefinitionNumber, Generation, IndexName, IndexUid, NodeId, ShardId};
use model::settings::Definition;
use proto::Error;
use proto::admin::{IndexInfo, NodeState};
use proto::leaf::ShardAt;

/// The cluster as this node sees it.
#[derive(Clone, Debug, Default)]
pub struct View {
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
    /// Who serves each shard, in order of preference.
    pub holders: Vec<Vec<NodeId>>,
}

impl Index {
    pub(crate) fn generation(&self, shard: ShardId) -> Option<Generation> {
        self.cut.entries.get(shard.0 as usize).map(|entry| entry.generation)
    }

    /// Every shard at its generation in the newest cut.
    pub(crate) fn shards(&self) -> impl Iterator<Item = ShardAt> + '_ {
        self.cut.entries.iter().zip(0..).map(|(entry, shard)| ShardAt {
            shard: ShardId(shard),
            generation: entry.generation,
        })
    }

    pub(crate) fn info(&self) -> IndexInfo {
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
