//! Indexes and the cluster as JSON.

use axum::Json;
use model::schema::Schema;
use model::settings::Definition;
use proto::admin::{ClusterState, IndexInfo, ShardState};
use serde::{Deserialize, Serialize};

use crate::problem::Problem;
use runtime::duration;

const KEYS: [&str; 6] = ["shards", "copies", "schema", "refresh_interval", "min_coverage", "max_stale"];

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    shards: Option<u32>,
    copies: Option<u32>,
    schema: Option<Schema>,
    refresh_interval: Option<duration::Text>,
    min_coverage: Option<f64>,
    max_stale: Option<duration::Text>,
}

/// Reads the body of `PUT /v1/indexes/{index}`; an empty one is all defaults.
pub(crate) fn definition(body: &[u8]) -> Result<Definition, Problem> {
    let body = match body.trim_ascii_start().first() {
        None => Body::default(),
        Some(b'{') => serde_json::from_slice(body)
            .map_err(|error| Problem::json("an index definition", &KEYS, &error))?,
        Some(_) => {
            return Err(Problem::invalid(format!(
                "the body is no JSON object; send one with any of {}, or none",
                KEYS.join(", ")
            )));
        }
    };
    let mut definition = Definition::of(body.schema.unwrap_or_default());
    definition.shards = body.shards.unwrap_or(definition.shards);
    definition.copies = body.copies.unwrap_or(definition.copies);
    if let Some(duration::Text(interval)) = body.refresh_interval {
        definition.refresh_interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    }
    definition.min_coverage = body.min_coverage.unwrap_or(definition.min_coverage);
    if body.max_stale.is_some_and(|stale| !stale.0.is_zero()) {
        return Err(Problem::invalid("max_stale is not supported yet; leave it out"));
    }
    definition.check().map_err(|bad| Problem::invalid(bad.to_string()))?;
    Ok(definition)
}

/// An index as JSON: what PUT takes, and what became of it.
#[derive(Serialize)]
pub(crate) struct Index {
    name: String,
    uid: String,
    documents: u64,
    cut: u64,
    shards: u32,
    copies: u32,
    refresh_interval: String,
    min_coverage: f64,
    max_stale: String,
    schema: Schema,
}

impl From<IndexInfo> for Index {
    fn from(info: IndexInfo) -> Self {
        let definition = info.definition;
        Self {
            name: info.name.to_string(),
            uid: info.uid.to_string(),
            documents: info.documents,
            cut: info.cut.0,
            shards: definition.shards,
            copies: definition.copies,
            refresh_interval: duration::print_ms(definition.refresh_interval_ms),
            min_coverage: definition.min_coverage,
            max_stale: duration::print_ms(definition.max_stale_ms),
            schema: definition.schema,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Indexes {
    indexes: Vec<Index>,
}

pub(crate) fn list(indexes: Vec<IndexInfo>) -> Json<Indexes> {
    Json(Indexes { indexes: indexes.into_iter().map(Into::into).collect() })
}

#[derive(Serialize)]
pub(crate) struct Cluster {
    nodes: Vec<proto::admin::NodeState>,
    controller: Option<String>,
    indexes: Vec<IndexState>,
}

#[derive(Serialize)]
struct IndexState {
    index: Index,
    shards: Vec<Shard>,
}

#[derive(Serialize)]
struct Shard {
    shard: u32,
    owner: Option<String>,
    replicas: Vec<proto::admin::ReplicaState>,
    generation: u64,
    seq: u64,
    documents: u64,
}

impl From<ShardState> for Shard {
    fn from(state: ShardState) -> Self {
        Self {
            shard: state.shard.0,
            owner: state.owner.map(|owner| owner.to_string()),
            replicas: state.replicas,
            generation: state.generation.0,
            seq: state.seq.0,
            documents: state.documents,
        }
    }
}

pub(crate) fn cluster(state: ClusterState) -> Json<Cluster> {
    let index = |(info, shards): (IndexInfo, Vec<ShardState>)| IndexState {
        index: info.into(),
        shards: shards.into_iter().map(Into::into).collect(),
    };
    Json(Cluster {
        nodes: state.nodes,
        controller: state.controller.map(|node| node.to_string()),
        indexes: state.indexes.into_iter().map(index).collect(),
    })
}
