//! What goes in and comes out, and the order of the rules.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::board::Board;
use crate::ids::{IndexUid, NodeId, ShardId};

/// What the controller knows of a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The leaf.
    pub node: NodeId,
    /// What fails together with it. Leaves without a zone share an unnamed one.
    pub zone: Option<String>,
    /// Whether it can be counted on.
    pub standing: Standing,
}

/// Whether a leaf can be counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// There, and takes shards.
    Live,
    /// Draining, or gone for less than the grace: keeps its shards, gets no
    /// new ones.
    Away,
    /// Gone for longer than the grace: its shards are placed elsewhere.
    Lost,
}

/// What an index wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The index.
    pub uid: IndexUid,
    /// Its shards.
    pub shards: u32,
    /// Copies of each shard, in total. 0 counts as 1.
    pub copies: u32,
}

/// For each shard its leaves in order; the first live one owns it.
pub type Table = BTreeMap<IndexUid, Vec<Vec<NodeId>>>;

/// How fast placement goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Shards whose list may change a round. New shards, and leaves that are
    /// dropped since they are replaced, do not count.
    ///
    /// Every change makes a leaf fetch a whole shard while it answers queries.
    /// Eight at a time fill a few leaves' links, not all, and still replace a
    /// lost leaf's hundred shards within a dozen rounds.
    pub moves_max: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self { moves_max: 8 }
    }
}

/// Decides the next table.
///
/// `serves` says whether a leaf serves a shard now. A node of `current` that is
/// not among the `candidates` counts as a lost one. The rules, the first the
/// strongest:
///
/// 1. Shards without leaves are placed at once, on live ones. Nothing else
///    happens while over a third of the candidates are away or lost: then it
///    is more likely the network than the leaves.
/// 2. A live leaf that is one too many leaves when `copies` live others serve.
///    That is one whose zone another copy is in, then the most loaded, then the
///    least preferred. A lost leaf leaves under the same condition, so that it
///    stays while nobody can take its place. A leaf that is away never leaves.
/// 3. Copies that are missing are appended, first where the fewest are live.
/// 4. Copies share no zone while there is a zone to go to.
/// 5. Leaves have an even number of copies ([`Bound`](super::Bound)),
/// 6. and an even number of first places.
///
/// Rules 4 and 5 wait until all leaves of a shard are live and serve, and while
/// [`Policy::moves_max`] lists have leaves on their way in or out.
///
/// A new copy goes to the live node that comes first in this order: its zone
/// has no copy yet; it has room; by [`preference`], or by load where none of
/// them has room. So there always is one, and zones come before load.
#[must_use]
pub fn next(
    current: &Table,
    wanted: &[Wanted],
    candidates: &[Candidate],
    serves: &dyn Fn(&IndexUid, ShardId, &NodeId) -> bool,
    policy: &Policy,
) -> Table {
    let wanted: BTreeMap<_, _> = wanted.iter().map(|index| (&index.uid, index)).collect();
    let mut board = Board::new(current, &wanted, candidates, serves, policy.moves_max);
    if board.over_a_third_missing() {
        board.moves_left = 0;
    } else {
        board.drop_replaced();
    }
    board.repair();
    board.spread_zones();
    board.place_new();
    board.balance_copies();
    board.balance_owners();
    board.into_table(&wanted)
}

/// How much a shard prefers a node; the highest is the first, equal ones go by
/// the smaller id.
///
/// It is `xxh3_64` with seed 0 over the uid's text (32 bytes), the shard (u32,
/// little endian) and the node id's UTF-8 bytes, without separators.
/// See <https://doi.org/10.1109/90.663936>.
#[must_use]
pub fn preference(uid: &IndexUid, shard: ShardId, node: &NodeId) -> u64 {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(uid.as_str().as_bytes());
    bytes.extend_from_slice(&shard.0.to_le_bytes());
    bytes.extend_from_slice(node.0.as_bytes());
    xxh3_64(&bytes)
}
