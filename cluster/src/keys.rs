//! The coordinator's keys.

use model::ids::{IndexName, IndexUid, NodeId, ShardId};

/// The live indexes by name: a cache of the store's registry.
pub const NAMES: &str = "names/";
/// There once a controller has brought the names to what the store says.
pub const REGISTRY: &str = "registry";
/// The live nodes.
pub const NODES: &str = "nodes/";
/// Who owns which shard.
pub const OWNERS: &str = "owners/";
/// Which leaves failed to own which shard, and stand back.
pub const DECLINED: &str = "declined/";
/// Which leaves hold which shard.
pub const PLACEMENT: &str = "placement/";
/// The newest cuts.
pub const CUTS: &str = "cuts/";
/// The elected controller.
pub const CONTROLLER: &str = "controller";

/// The index of a name.
#[must_use]
pub fn name(name: &IndexName) -> String {
    format!("{NAMES}{name}")
}

/// A node.
#[must_use]
pub fn node(node: &NodeId) -> String {
    format!("{NODES}{node}")
}

/// The owner of a shard.
#[must_use]
pub fn owner(uid: &IndexUid, shard: ShardId) -> String {
    format!("{OWNERS}{uid}/{shard}")
}

/// A leaf's word that it cannot own a shard for now.
#[must_use]
pub fn declined(uid: &IndexUid, shard: ShardId, node: &NodeId) -> String {
    format!("{DECLINED}{uid}/{shard}/{node}")
}

/// The placement of an index.
#[must_use]
pub fn placement(uid: &IndexUid) -> String {
    format!("{PLACEMENT}{uid}")
}

/// The newest cut of an index.
#[must_use]
pub fn cut(uid: &IndexUid) -> String {
    format!("{CUTS}{uid}")
}
