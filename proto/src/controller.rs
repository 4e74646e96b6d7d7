//! What leaves tell the controller.

use async_trait::async_trait;
use model::ids::{Generation, IndexUid, NodeId, Seq, ShardId};
use serde::{Deserialize, Serialize};

use crate::Error;

/// A generation that a leaf serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// The generation.
    pub generation: Generation,
    /// The WAL record it contains.
    pub seq: Seq,
    /// Its live documents.
    pub documents: u64,
}

/// A shard on a leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The index.
    pub uid: IndexUid,
    /// The shard.
    pub shard: ShardId,
    /// Whether the leaf takes its writes.
    pub owned: bool,
    /// What is open: the newest cut's generation and those above it, or the
    /// newest that the leaf has, ascending. Empty for a shard that was let go.
    pub generations: Vec<Served>,
}

/// What a leaf has open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The leaf.
    pub node: NodeId,
    /// Whether this is all it has, or what changed.
    pub complete: bool,
    /// The shards.
    pub shards: Vec<Held>,
}

/// Hears what leaves have open, and publishes cuts.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// Reports what a leaf serves. Repeating a report is harmless.
    ///
    /// # Errors
    /// [`crate::Kind::Unavailable`] when this controller is not the elected one.
    async fn report(&self, report: Report) -> Result<(), Error>;
}
