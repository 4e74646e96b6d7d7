//! What leaves tell the controller.

use async_trait::async_trait;
use model::ids::{Generation, IndexUid, NodeId, Seq, ShardId};
use serde::{Deserialize, Serialize};

use crate::Error;

/// A generation that a leaf serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The index.
    pub uid: IndexUid,
    /// The shard.
    pub shard: ShardId,
    /// The newest generation that is open.
    pub generation: Generation,
    /// The WAL record it contains.
    pub seq: Seq,
    /// Its live documents.
    pub documents: u64,
}

/// Hears what leaves have open, and publishes cuts.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// Reports what `node` newly serves. Repeating a report is harmless.
    ///
    /// # Errors
    /// [`crate::Kind::Unavailable`] when this controller is not the elected one.
    async fn report(&self, node: &NodeId, opened: Vec<Opened>) -> Result<(), Error>;
}
