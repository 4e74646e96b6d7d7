//! Asking a leaf: what a root sends to the owners and replicas of shards.

use std::sync::Arc;

use async_trait::async_trait;
use model::gather::Count;
use model::ids::{Generation, IndexUid, Seq, ShardId};
use model::plan::{Node, TextTerm};
use model::statistics::Statistics;
use runtime::Deadline;

use crate::Error;
use crate::admin::Operation;
use crate::controller::Held;
use crate::search::{Document, LeafProfile};

/// A shard at one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShardAt {
    /// The shard.
    pub shard: ShardId,
    /// The generation.
    pub generation: Generation,
}

/// Where the statistics of a search come from.
#[derive(Clone, Debug)]
pub enum StatisticsFrom {
    /// The root gathered them.
    Given(Arc<Statistics>),
    /// The shards of this request are all the shards of the cut, so the leaf
    /// may count for itself and saves a round trip.
    TheseShards,
}

/// A search over some shards of one cut.
#[derive(Clone, Debug)]
pub struct Search {
    /// The index.
    pub uid: IndexUid,
    /// The shards, each once.
    pub shards: Vec<ShardAt>,
    /// What is searched and scored.
    pub query: Arc<Node>,
    /// What hits must also match.
    pub filter: Option<Arc<Node>>,
    /// Statistics of the whole index.
    pub statistics: StatisticsFrom,
    /// Hits wanted over all the shards together.
    pub limit: usize,
    /// How exactly matches are counted, over all the shards together.
    pub count: Count,
    /// Return the documents of the hits from this rank on with the hits; only
    /// useful where this leaf's hits are the answer's.
    pub inline_from: Option<usize>,
    /// When the caller stops waiting.
    pub deadline: Deadline,
    /// Fill in [`Found::profile`].
    pub profile: bool,
}

/// The address of a document within a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// The segment's place in the generation.
    pub segment: u32,
    /// The document's number in the segment.
    pub doc: u32,
}

/// One hit of a leaf.
#[derive(Clone, Debug)]
pub struct LeafHit {
    /// The score.
    pub score: f32,
    /// `id_hash` of the document's id.
    pub hash: u64,
    /// The shard.
    pub shard: ShardId,
    /// Where the document is.
    pub address: Address,
    /// The document, where the request asked for it inline.
    pub document: Option<Document>,
}

/// How busy a leaf is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Calls that are worked on.
    pub running: u32,
    /// Calls that wait.
    pub queued: u32,
    /// How long one is worked on, lately, in microseconds.
    pub service_us: u32,
}

/// What a leaf found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The best hits over the request's shards by (score, hash, id), and every
    /// further one that ties with the last in score and hash.
    pub hits: Vec<LeafHit>,
    /// Matching documents that were counted; `None` for [`Count::None`].
    pub matches: Option<u64>,
    /// Whether `matches` is a lower bound only.
    pub bounded: bool,
    /// Where the time went.
    pub profile: Option<LeafProfile>,
    /// How busy the leaf is, where it says so.
    pub load: Option<Load>,
}

/// Asks for the statistics of some terms, per shard.
#[derive(Clone, Debug)]
pub struct StatisticsRequest {
    /// The index.
    pub uid: IndexUid,
    /// The shards.
    pub shards: Vec<ShardAt>,
    /// The terms.
    pub terms: Vec<TextTerm>,
    /// When the caller stops waiting.
    pub deadline: Deadline,
}

/// Asks for documents by address.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// The index.
    pub uid: IndexUid,
    /// The documents, in the order in which they are returned.
    pub documents: Vec<(ShardAt, Address)>,
    /// When the caller stops waiting.
    pub deadline: Deadline,
}

/// Writes to one shard, in order.
#[derive(Clone, Debug)]
pub struct ShardWrite {
    /// The index.
    pub uid: IndexUid,
    /// The shard.
    pub shard: ShardId,
    /// The operations, each validated.
    pub operations: Vec<Operation>,
    /// When the caller stops waiting.
    pub deadline: Deadline,
}

/// A leaf, as a root sees it.
#[async_trait]
pub trait Leaf: Send + Sync + 'static {
    /// Makes operations durable and returns the WAL record that holds them.
    ///
    /// # Errors
    /// [`crate::Kind::Gone`] when this leaf does not own the shard or cannot be
    /// reached, [`crate::Kind::Unavailable`] when it refuses writes: nothing
    /// was written. [`crate::Kind::Expired`] when the outcome is unknown.
    async fn write(&self, write: ShardWrite) -> Result<Seq, Error>;

    /// Asks the owner to commit and publish what is pending, soon.
    ///
    /// # Errors
    /// When this leaf does not own the shard.
    async fn nudge(&self, uid: &IndexUid, shard: ShardId) -> Result<(), Error>;

    /// Tells this replica that its shard's owner published a generation;
    /// returns once it, or a newer one, is open here. Asking again is harmless.
    ///
    /// # Errors
    /// [`crate::Kind::Gone`] when this leaf does not hold the shard;
    /// otherwise why the generation cannot be opened.
    async fn follow(&self, uid: &IndexUid, at: ShardAt, deadline: Deadline) -> Result<(), Error>;

    /// Returns the statistics of each shard, in the order asked.
    ///
    /// # Errors
    /// [`crate::Kind::Gone`] when a generation is not open here, with the
    /// newest that is.
    async fn statistics(&self, request: StatisticsRequest) -> Result<Vec<Statistics>, Error>;

    /// Searches.
    ///
    /// # Errors
    /// As [`Leaf::statistics`]; [`crate::Kind::Overloaded`] when the queue is
    /// full; [`crate::Kind::Expired`] at the deadline.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the search, queued or running.
    async fn search(&self, search: Search) -> Result<Found, Error>;

    /// Returns stored documents.
    ///
    /// # Errors
    /// As [`Leaf::statistics`].
    async fn fetch(&self, fetch: Fetch) -> Result<Vec<Document>, Error>;

    /// Returns the document with this id in the given state of its shard.
    ///
    /// # Errors
    /// As [`Leaf::statistics`].
    async fn get(
        &self,
        uid: &IndexUid,
        at: ShardAt,
        id: &str,
        deadline: Deadline,
    ) -> Result<Option<Document>, Error>;

    /// Returns every shard that is held, with what is open and owned.
    ///
    /// # Errors
    /// When the leaf is out of reach.
    async fn held(&self) -> Result<Vec<Held>, Error>;

    /// Says how busy it is, at once, whatever else there is to do: a leaf that
    /// is silent stands still, or the way to it does.
    ///
    /// # Errors
    /// When the leaf is out of reach, or silent until the deadline.
    async fn ping(&self, deadline: Deadline) -> Result<Load, Error>;
}
