//! Answers, as the API prints them. Keys that a later server adds are ignored.

use model::gather::Total;
use model::schema::Schema;
use proto::search::{Coverage, Profile};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use proto::admin::Rejected;

/// An index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// This creation of it.
    pub uid: String,
    /// Live documents in its newest cut.
    pub documents: u64,
    /// Its newest cut.
    pub cut: u64,
    /// Number of shards.
    pub shards: u32,
    /// Copies of each shard.
    pub copies: u32,
    /// How long a write may stay invisible, such as `1s`.
    pub refresh_interval: String,
    /// Its fields.
    pub schema: Schema,
}

#[derive(Deserialize)]
pub(crate) struct Indexes {
    pub(crate) indexes: Vec<Index>,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Written {
    /// Documents that are durable.
    pub accepted: u64,
    /// Documents that are not.
    pub rejected: u64,
    /// Each of those: its line from 1, the reason, and whether to retry.
    pub failures: Vec<Rejected>,
    /// Names the accepted writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Whether a search sees them, where the request waited for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub searchable: Option<bool>,
}

/// One hit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hit {
    /// The document's id.
    pub id: String,
    /// Its score.
    pub score: f32,
    /// Its JSON, where the request wanted any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<Box<RawValue>>,
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The page of hits, best first.
    pub hits: Vec<Hit>,
    /// How many documents match, unless the request wanted no count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Total>,
    /// What the answer covers.
    pub coverage: Coverage,
    /// The cut that was read.
    pub cut: u64,
    /// Time in the cluster, in microseconds.
    pub took_us: u64,
    /// Where the time went, where the request asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// The state of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// The live processes.
    pub nodes: Vec<Node>,
    /// The elected controller, if there is one.
    #[serde(default)]
    pub controller: Option<String>,
    /// The indexes with their shards.
    pub indexes: Vec<IndexState>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub node: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// Its public address, where it has one.
    pub public: Option<String>,
    /// Where other nodes reach it, where they can.
    #[serde(default)]
    pub internal: Option<String>,
    /// What it shares its fate with.
    #[serde(default)]
    pub zone: Option<String>,
    /// Whether it is leaving.
    #[serde(default)]
    pub draining: bool,
}

/// An index with its shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexState {
    /// The index.
    pub index: Index,
    /// Its shards.
    pub shards: Vec<Shard>,
}

/// A shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shard {
    /// Its number, from 0.
    pub shard: u32,
    /// Who takes its writes, if anyone does.
    pub owner: Option<String>,
    /// Who serves it.
    pub replicas: Vec<Replica>,
    /// Its generation in the newest cut.
    pub generation: u64,
    /// The WAL record that generation contains.
    pub seq: u64,
    /// Its live documents.
    pub documents: u64,
}

/// A shard served by a leaf.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replica {
    /// The leaf.
    pub node: String,
    /// Whether the leaf is there.
    #[serde(default)]
    pub live: bool,
    /// The newest generation there; `None` when the leaf did not say.
    pub generation: Option<u64>,
}
