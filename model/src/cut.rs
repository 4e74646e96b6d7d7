//! Cuts: one generation for every shard, and when to take the next one.
//!
//! **Invariant:** from cut to cut a shard's generation and seq never go back,
//! and a shard that is not ready delays no other.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{CutNumber, DefinitionNumber, Epoch, Generation, IndexUid, NodeId, Seq, ShardId};
use crate::token::Token;

/// Replicas that must serve a generation before a cut names it, where there
/// are so many copies: one may fail at once, and the cut can still be read.
const READY_MIN: u32 = 2;

/// One immutable state of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The index.
    pub uid: IndexUid,
    /// The cut's number.
    pub number: CutNumber,
    /// The term of the controller that wrote it.
    pub epoch: Epoch,
    /// Tells its writer from any other.
    pub nonce: u64,
    /// The newest definition.
    pub definition: DefinitionNumber,
    /// What it holds of each shard, in the order of the shards.
    pub entries: Vec<CutEntry>,
}

/// One shard of a cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutEntry {
    /// The generation.
    pub generation: Generation,
    /// The last WAL record that the generation contains.
    pub seq: Seq,
    /// Live documents.
    pub documents: u64,
}

impl Cut {
    /// The entry of `shard`.
    #[must_use]
    pub fn entry(&self, shard: ShardId) -> Option<&CutEntry> {
        self.entries.get(usize::try_from(shard.0).ok()?)
    }

    /// Whether every write of `token` can be read here.
    #[must_use]
    pub fn contains(&self, token: &Token) -> bool {
        let reached = |shard, seq| self.entry(shard).is_some_and(|entry| entry.seq >= seq);
        self.uid == token.uid && token.seqs.iter().all(|(shard, seq)| reached(*shard, *seq))
    }

    /// Live documents of all shards.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.entries.iter().fold(0, |sum, entry| sum.saturating_add(entry.documents))
    }
}

/// A generation that a replica serves. A replica that serves several
/// generations of a shard has a state for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaState {
    /// The leaf.
    pub node: NodeId,
    /// The generation.
    pub generation: Generation,
    /// The last WAL record that it contains.
    pub seq: Seq,
    /// Live documents.
    pub documents: u64,
}

/// What is known of a shard's replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// What they serve.
    pub serving: Vec<ReplicaState>,
    /// How many of them keep up: those that are there, and not so far behind
    /// that nobody waits for them.
    pub keeping_up: u32,
}

/// Decides the entries of the next cut: each shard moves to the newest
/// generation that enough replicas serve: two of several copies, or all that
/// keep up. `None` when no shard moves.
#[must_use]
pub fn next(current: &Cut, replicas: &BTreeMap<ShardId, Replicas>, copies: u32) -> Option<Vec<CutEntry>> {
    let mut entries = current.entries.clone();
    let mut moved = false;
    for (shard, entry) in (0..).map(ShardId).zip(&mut entries) {
        let Some(Replicas { serving, keeping_up }) = replicas.get(&shard) else { continue };
        let needed = copies.min(READY_MIN).min(*keeping_up).max(1);
        if let Some(newer) = newest_ready(entry, serving, needed as usize) {
            *entry = newer;
            moved = true;
        }
    }
    moved.then_some(entries)
}

/// The newest generation above `entry` that `needed` nodes serve and agree on.
fn newest_ready(entry: &CutEntry, states: &[ReplicaState], needed: usize) -> Option<CutEntry> {
    let newer = states.iter().filter(|s| s.generation > entry.generation && s.seq >= entry.seq);
    // Replicas that disagree on what a generation holds are no copies of each
    // other, so each version counts for itself.
    let mut nodes: BTreeMap<(Generation, Seq, u64), BTreeSet<&NodeId>> = BTreeMap::new();
    for state in newer {
        let version = (state.generation, state.seq, state.documents);
        nodes.entry(version).or_default().insert(&state.node);
    }
    let ready = nodes.iter().rev().find(|(_, nodes)| nodes.len() >= needed);
    ready.map(|(&(generation, seq, documents), _)| CutEntry { generation, seq, documents })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(generations: &[u64]) -> Cut {
        let entry = |g: &u64| CutEntry { generation: Generation(*g), seq: Seq(*g * 10), documents: 5 };
        Cut {
            uid: IndexUid::from_bits(7),
            number: CutNumber(1),
            epoch: Epoch(1),
            nonce: 9,
            definition: DefinitionNumber(1),
            entries: generations.iter().map(entry).collect(),
        }
    }

    fn state(node: &str, generation: u64) -> ReplicaState {
        ReplicaState {
            node: NodeId(node.into()),
            generation: Generation(generation),
            seq: Seq(generation * 10),
            documents: generation,
        }
    }

    fn serving(states: Vec<ReplicaState>) -> Replicas {
        let nodes: BTreeSet<_> = states.iter().map(|state| state.node.clone()).collect();
        let keeping_up = u32::try_from(nodes.len()).unwrap();
        Replicas { serving: states, keeping_up }
    }

    fn generations(entries: Option<Vec<CutEntry>>) -> Option<Vec<u64>> {
        entries.map(|entries| entries.iter().map(|entry| entry.generation.0).collect())
    }

    #[test]
    fn a_shard_moves_when_two_copies_serve_it_and_delays_no_other() {
        let replicas = BTreeMap::from([
            (ShardId(0), serving(vec![state("a", 3), state("b", 3), state("b", 4)])),
            (ShardId(1), Replicas { keeping_up: 2, ..serving(vec![state("a", 2), state("a", 2)]) }),
        ]);
        assert_eq!(generations(next(&cut(&[1, 1]), &replicas, 3)), Some(vec![3, 1]));
        assert_eq!(generations(next(&cut(&[1, 1]), &replicas, 1)), Some(vec![4, 2]));
        assert_eq!(generations(next(&cut(&[3, 1]), &replicas, 2)), None);
    }

    #[test]
    fn nothing_moves_back_or_without_replicas() {
        let replicas =
            BTreeMap::from([(ShardId(0), serving(vec![state("a", 3)])), (ShardId(9), serving(vec![]))]);
        assert_eq!(next(&cut(&[4, 1]), &replicas, 1), None);
        assert_eq!(next(&cut(&[]), &replicas, 0), None);
    }

    #[test]
    fn nobody_waits_for_a_replica_that_does_not_keep_up() {
        let lonely = Replicas { keeping_up: 1, ..serving(vec![state("a", 3), state("b", 2)]) };
        let replicas = BTreeMap::from([(ShardId(0), lonely)]);
        assert_eq!(generations(next(&cut(&[1]), &replicas, 2)), Some(vec![3]));
    }

    #[test]
    fn replicas_that_disagree_do_not_count_together() {
        let other = ReplicaState { documents: 99, ..state("b", 3) };
        let replicas = BTreeMap::from([(ShardId(0), serving(vec![state("a", 3), other]))]);
        assert_eq!(next(&cut(&[1]), &replicas, 2), None);
    }

    #[test]
    fn a_cut_contains_a_token_once_every_shard_reached_it() {
        let cut = cut(&[2, 3]);
        let token = |seqs: &[(u32, u64)]| Token {
            uid: cut.uid.clone(),
            seqs: seqs.iter().map(|(shard, seq)| (ShardId(*shard), Seq(*seq))).collect(),
        };
        assert!(cut.contains(&token(&[])));
        assert!(cut.contains(&token(&[(0, 20), (1, 30)])));
        assert!(!cut.contains(&token(&[(0, 20), (1, 31)])));
        assert!(!cut.contains(&token(&[(7, 1)])));
        assert!(!cut.contains(&Token { uid: IndexUid::from_bits(8), ..token(&[]) }));
        assert_eq!(cut.documents(), 10);
    }
}
