//! Everything but searching: indexes, writes, single documents, the state of
//! the cluster. A root implements it; edge calls it.

use async_trait::async_trait;
use bytes::Bytes;
use model::ids::{CutNumber, Generation, IndexName, IndexUid, NodeId, Seq, ShardId};
use model::settings::Definition;
use model::token::Token;
use runtime::Deadline;
use serde::{Deserialize, Serialize};

use crate::search::Document;
use crate::{Error, Kind};

/// An index as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexInfo {
    /// Its name.
    pub name: IndexName,
    /// This creation of it.
    pub uid: IndexUid,
    /// Its schema and settings.
    pub definition: Definition,
    /// Its newest cut.
    pub cut: CutNumber,
    /// Live documents in that cut.
    pub documents: u64,
}

/// One operation of a write, already validated against the definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Insert, or replace the document of this id.
    Upsert {
        /// The id.
        id: String,
        /// The JSON, as sent.
        source: Bytes,
    },
    /// Delete the document of this id, if there is one.
    Delete {
        /// The id.
        id: String,
    },
}

impl Operation {
    /// The id that the operation is about.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Upsert { id, .. } | Self::Delete { id } => id,
        }
    }

    /// What it takes in memory and in a log, about: a delete is not nothing.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const OWN: usize = 16;
        match self {
            Self::Upsert { id, source } => id.len() + source.len() + OWN,
            Self::Delete { id } => id.len() + OWN,
        }
    }
}

/// When a write's answer is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refresh {
    /// When it is durable.
    #[default]
    No,
    /// When a cut contains it, or at the deadline with `searchable: false`.
    Wait,
}

/// Documents to write to one index.
///
/// `lines` are raw JSON objects, each with its number; the root validates each
/// against the schema and reports each failing one.
#[derive(Clone, Debug)]
pub struct Write {
    /// The index.
    pub index: IndexName,
    /// What to do, in order. Each carries the line number that errors name,
    /// from 1.
    pub lines: Vec<(u64, Change)>,
    /// When to answer.
    pub refresh: Refresh,
    /// Create the index with an inferred schema where it does not exist.
    pub auto_create: bool,
    /// When the caller stops waiting.
    pub deadline: Deadline,
}

/// One change as a client sent it.
#[derive(Clone, Debug)]
pub enum Change {
    /// A JSON object with an `id`.
    Upsert(Bytes),
    /// The id to delete.
    Delete(String),
}

/// Why one line of a write did not go in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The line, from 1.
    pub line: u64,
    /// The document's id, where it could be read.
    pub id: Option<String>,
    /// What was wrong and what would be right.
    pub reason: String,
    /// What kind of failure.
    pub kind: Kind,
    /// Whether sending the line again may help.
    pub retry: bool,
}

/// What became of a write.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    /// Lines that are durable.
    pub accepted: u64,
    /// Lines that are not, in order.
    pub rejected: Vec<Rejected>,
    /// Names the accepted writes; absent when there are none.
    pub token: Option<Token>,
    /// For [`Refresh::Wait`]: whether a cut contains all accepted writes.
    pub searchable: Option<bool>,
}

/// A shard in the cluster's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardState {
    /// The shard.
    pub shard: ShardId,
    /// Who takes its writes, if anyone does.
    pub owner: Option<NodeId>,
    /// Who serves it, in order of preference.
    pub replicas: Vec<ReplicaState>,
    /// Its generation in the newest cut.
    pub generation: Generation,
    /// The WAL record that generation contains.
    pub seq: Seq,
    /// Its live documents in the newest cut.
    pub documents: u64,
}

/// A copy of a shard in the cluster's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaState {
    /// The leaf.
    pub node: NodeId,
    /// Whether the leaf is there.
    pub live: bool,
    /// The newest generation that is open there; `None` when the leaf did not
    /// say.
    pub generation: Option<Generation>,
}

/// A process in the cluster's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeState {
    /// The node.
    pub node: NodeId,
    /// Its roles: `root`, `own`, `serve`.
    pub roles: Vec<String>,
    /// Its public address, where it has one.
    pub public: Option<String>,
    /// Where other nodes reach it, where they can.
    #[serde(default)]
    pub internal: Option<String>,
    /// What it shares its fate with, such as a rack: copies are spread over
    /// zones.
    #[serde(default)]
    pub zone: Option<String>,
    /// Whether it is leaving: it serves, and hands over what it owns.
    #[serde(default)]
    pub draining: bool,
}

/// A role that takes writes of shards.
pub const OWN: &str = "own";
/// A role that serves searches of shards.
pub const SERVE: &str = "serve";
/// A role that answers clients.
pub const ROOT: &str = "root";

impl NodeState {
    /// The host on which other nodes reach it, where there is one.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        Some(self.internal.as_deref()?.rsplit_once(':')?.0)
    }

    /// Whether the node has this role.
    #[must_use]
    pub fn is(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own == role)
    }
}

/// The state of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterState {
    /// The live nodes.
    pub nodes: Vec<NodeState>,
    /// The indexes with their shards.
    pub indexes: Vec<(IndexInfo, Vec<ShardState>)>,
    /// The elected controller, if there is one.
    pub controller: Option<NodeId>,
}

/// What a root does beside searching.
#[async_trait]
pub trait Admin: Send + Sync + 'static {
    /// Creates an index.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when the name is taken, [`Kind::Invalid`] when the
    /// definition is.
    async fn create_index(
        &self,
        name: IndexName,
        definition: Definition,
        deadline: Deadline,
    ) -> Result<IndexInfo, Error>;

    /// Lists the indexes by name.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] before the first view of the cluster.
    async fn list_indexes(&self) -> Result<Vec<IndexInfo>, Error>;

    /// Describes one index.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    async fn describe_index(&self, name: &IndexName) -> Result<IndexInfo, Error>;

    /// Deletes an index with all its documents.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    async fn delete_index(&self, name: &IndexName, deadline: Deadline) -> Result<(), Error>;

    /// Writes documents. Per-line failures are in the value.
    ///
    /// # Errors
    /// [`Kind::NotFound`] without the index and without `auto_create`.
    ///
    /// # Cancel safety
    /// What was sent to an owner may become durable after the caller is gone.
    async fn write(&self, write: Write) -> Result<Written, Error>;

    /// Returns one document as of the newest cut, or of one that contains
    /// `token`; `None` where there is none.
    ///
    /// # Errors
    /// [`Kind::NotFound`] without the index.
    async fn get(
        &self,
        index: &IndexName,
        id: &str,
        token: Option<Token>,
        deadline: Deadline,
    ) -> Result<Option<Document>, Error>;

    /// Returns the state of the cluster, as this node sees it.
    ///
    /// # Errors
    /// As the transport's.
    async fn cluster(&self) -> Result<ClusterState, Error>;

    /// Whether this node can answer: it has a view of the cluster, is not leaving,
    /// and has opened what is placed on it.
    ///
    /// # Errors
    /// Says what is missing.
    async fn ready(&self) -> Result<(), Error>;
}
