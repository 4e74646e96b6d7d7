//! Asking an index: what edge sends to a cache or a root.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use model::gather::{Count, Total};
use model::ids::{CutNumber, IndexName, IndexUid, ShardId};
use model::query::Query;
use model::token::Token;
use runtime::Deadline;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Most hits that one page may reach (`offset + limit`): each shard must
/// collect and send that many.
pub const REACH_MAX: usize = 10_000;
/// Hits where a request names no number.
pub const LIMIT_DEFAULT: usize = 10;
/// Time for a search that names none.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Longest time that a search may ask for.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// A search.
#[derive(Clone, Debug)]
pub struct Request {
    /// The index.
    pub index: IndexName,
    /// What is searched and scored, canonical.
    pub query: Query,
    /// What hits must also match, unscored, canonical.
    pub filter: Option<Query>,
    /// Hits wanted, 0 for none.
    pub limit: usize,
    /// Hits skipped; `offset + limit` is at most [`REACH_MAX`].
    pub offset: usize,
    /// Fields of the source to return; `None` is the source as sent, an empty
    /// list no source at all.
    pub fields: Option<Vec<String>>,
    /// How exactly matches are counted.
    pub count: Count,
    /// When the caller stops waiting.
    pub deadline: Deadline,
    /// The share of the cut's documents that an answer must cover, 0 to 1;
    /// `None` is what the index says.
    pub min_coverage: Option<f64>,
    /// Read at or after these writes.
    pub token: Option<Token>,
    /// Read exactly this cut, while it is kept.
    pub at: Option<CutNumber>,
    /// Explain where the time went.
    pub profile: bool,
}

impl Request {
    /// A search for the first ten hits, with their documents, that wants nothing
    /// else said.
    #[must_use]
    pub fn new(index: IndexName, query: Query, deadline: Deadline) -> Self {
        Self {
            index,
            query,
            filter: None,
            limit: 10,
            offset: 0,
            fields: None,
            count: Count::default(),
            deadline,
            min_coverage: None,
            token: None,
            at: None,
            profile: false,
        }
    }
}

/// A stored document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its id.
    pub id: String,
    /// Its JSON, as sent or reduced to the requested fields; empty where the
    /// request wanted none.
    pub source: Bytes,
}

/// One hit of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The score, the same bits for any number of shards.
    pub score: f32,
    /// The document.
    pub document: Document,
}

/// Which part of the index an answer covers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// Shards of the index.
    pub shards: u32,
    /// Shards that answered.
    pub answered: u32,
    /// Shards that did not.
    pub missing: Vec<Missing>,
    /// Share of the cut's documents that the answer covers, 0 to 1.
    pub documents: f64,
}

/// A shard that an answer lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The shard.
    pub shard: ShardId,
    /// `dead`, `slow`, `refused`, `expired` or `lagging`.
    pub reason: String,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The page of hits, best first.
    pub hits: Vec<Hit>,
    /// How many documents match; `None` for `count: "none"`.
    pub total: Option<Total>,
    /// What the answer covers.
    pub coverage: Coverage,
    /// The index that answered.
    pub uid: IndexUid,
    /// The cut that was read.
    pub cut: CutNumber,
    /// Time from the request's arrival to the answer, at this service.
    pub took: Duration,
    /// Where the time went, where the request asked.
    pub profile: Option<Profile>,
}

/// Where the time of one search went.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Profile {
    /// The bound query, for reading.
    pub plan: String,
    /// Microseconds by phase at the root: `pin`, `bind`, `statistics`,
    /// `search`, `gather`, `fetch`.
    pub phases_us: BTreeMap<String, u64>,
    /// What each leaf call did.
    pub leaves: Vec<LeafProfile>,
}

/// Where the time of one leaf call went.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LeafProfile {
    /// The leaf.
    pub node: String,
    /// The shards asked.
    pub shards: Vec<ShardId>,
    /// Time in the leaf's queue, in microseconds.
    pub queue_us: u64,
    /// Time searching, in microseconds.
    pub search_us: u64,
    /// How the query was executed, one name a shard: `term`, `and`, `or`, `tree`.
    pub strategy: Vec<String>,
    /// Documents that were scored.
    pub scored: u64,
    /// What was asked: `statistics`, `search`, `fetch`.
    #[serde(default)]
    pub phase: String,
    /// Which call for its shards it was: `first`, `hedge`, `retry`.
    #[serde(default)]
    pub call: String,
    /// What became of it: `answered`, `cancelled`, `given up` with the
    /// whole question, or the error.
    #[serde(default)]
    pub outcome: String,
    /// From the beginning of the search to the call, in microseconds.
    #[serde(default)]
    pub sent_us: u64,
    /// From the call to its end as the root saw it, in microseconds: what is
    /// not queue and search is the way there and back.
    #[serde(default)]
    pub took_us: u64,
}

/// Anything that answers searches: a root, or a cache before it.
#[async_trait]
pub trait Search: Send + Sync + 'static {
    /// Answers `request`, with the coverage that it or the index asks for, or
    /// fails.
    ///
    /// # Errors
    /// [`crate::Kind`] says what the caller can do.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the search on every leaf.
    async fn search(&self, request: Request) -> Result<Answer, Error>;

    /// Refuses a search before anything of it is read, where any is refused now:
    /// what cannot be done shall cost as little as possible.
    fn refusal(&self) -> Option<Error> {
        None
    }
}
