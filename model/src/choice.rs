//! Which replica of each shard a query asks.
//!
//! For now: the fewest calls, and turns. Choosing by load comes here too.

use std::collections::BTreeMap;

use crate::ids::NodeId;

/// A replica as the chooser sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica<'a> {
    /// The leaf.
    pub node: &'a NodeId,
    /// How little is to be hoped from it, 0 being nothing against it. A worse
    /// one is asked only where there is no better.
    pub doubt: u8,
}

/// Picks a leaf for each shard and groups the shards by leaf. `shards` holds
/// the replicas of each; one without any is in no group. `turn` differs from
/// query to query, so that leaves take turns. A leaf that can take every shard
/// comes first: one call is the cheapest answer.
#[must_use]
pub fn cover<'a>(shards: &[Vec<Replica<'a>>], turn: u64) -> BTreeMap<&'a NodeId, Vec<usize>> {
    let mut takers: BTreeMap<&NodeId, Vec<usize>> = BTreeMap::new();
    for (shard, replicas) in shards.iter().enumerate() {
        let Some(least) = replicas.iter().map(|replica| replica.doubt).min() else { continue };
        for replica in replicas.iter().filter(|replica| replica.doubt == least) {
            let taken = takers.entry(replica.node).or_default();
            if taken.last() != Some(&shard) {
                taken.push(shard);
            }
        }
    }
    let mut order: Vec<(bool, u64, &NodeId)> =
        takers.iter().map(|(node, taken)| (taken.len() < shards.len(), draw(node, turn), *node)).collect();
    order.sort_unstable();
    let mut free = vec![true; shards.len()];
    let mut groups = BTreeMap::new();
    for (_, _, node) in order {
        let mut taken = takers.remove(node).unwrap_or_default();
        taken.retain(|shard| std::mem::take(&mut free[*shard]));
        if !taken.is_empty() {
            groups.insert(node, taken);
        }
    }
    groups
}

/// A leaf's place in this turn.
fn draw(node: &NodeId, turn: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(node.0.as_bytes(), turn)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: usize) -> Vec<NodeId> {
        (0..count).map(|n| NodeId(format!("node-{n}").into())).collect()
    }

    fn fine(node: &NodeId) -> Replica<'_> {
        Replica { node, doubt: 0 }
    }

    #[test]
    fn every_shard_with_a_replica_is_asked_once() {
        let nodes = nodes(5);
        let mut shards: Vec<Vec<Replica<'_>>> =
            (0..8).map(|s| vec![fine(&nodes[s % 5]), fine(&nodes[(s + 2) % 5])]).collect();
        shards.push(Vec::new());
        for turn in 0..100 {
            let mut asked: Vec<usize> = cover(&shards, turn).into_values().flatten().collect();
            asked.sort_unstable();
            assert_eq!(asked, (0..8).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_leaf_that_has_everything_answers_alone_and_they_take_turns() {
        let nodes = nodes(3);
        let shards: Vec<Vec<Replica<'_>>> = (0..4)
            .map(|s| vec![fine(&nodes[0]), fine(&nodes[1]), fine(&nodes[2])][..2 + s % 2].to_vec())
            .collect();
        let mut times = [0; 3];
        for turn in 0..1_000 {
            let groups = cover(&shards, turn);
            assert_eq!(groups.len(), 1);
            times[nodes.iter().position(|node| groups.contains_key(node)).unwrap()] += 1;
        }
        assert_eq!(times[2], 0, "it lacks a shard");
        assert!(times[0] > 400 && times[1] > 400, "{times:?}");
    }

    #[test]
    fn a_doubtful_replica_is_asked_only_where_there_is_no_better() {
        let nodes = nodes(2);
        let shards = [
            vec![Replica { node: &nodes[0], doubt: 1 }, fine(&nodes[1])],
            vec![Replica { node: &nodes[0], doubt: 1 }],
        ];
        for turn in 0..10 {
            let groups = cover(&shards, turn);
            assert_eq!((&groups[&nodes[0]], &groups[&nodes[1]]), (&vec![1], &vec![0]));
        }
    }
}
