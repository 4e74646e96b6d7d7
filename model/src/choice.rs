//! Which replica of each shard a query asks.
//!
//! Two random choices, of which the less loaded is taken (Mitzenmacher, "The
//! Power of Two Choices in Randomized Load Balancing", 2001): nearly as even as
//! always taking the least loaded, and several roots whose figures are a little
//! old do not all run to the same leaf.

use std::collections::BTreeMap;

use crate::ids::NodeId;

/// A replica as the chooser sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Replica<'a> {
    /// The leaf.
    pub node: &'a NodeId,
    /// How little is to be hoped from it, 0 being nothing against it. A worse
    /// one is asked only where there is no better.
    pub doubt: u8,
    /// How much it has to do; less is better. All of one question are in the
    /// same unit.
    pub load: f64,
    /// Whether it is in another zone than who asks.
    pub far: bool,
}

/// How many times as loaded a near replica must be for a far one to be taken.
const FAR: f64 = 2.0;

/// How many times as loaded as another a leaf must be for a call more to be
/// worth it. A leaf with every shard would otherwise work alone, while those
/// that lack one look on.
const TOGETHER: f64 = 1.25;

/// How one of several replicas, against which nothing speaks, is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Any.
    Random,
    /// The less loaded of two.
    #[default]
    TwoChoices,
}

/// How many leaves a question may go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grouping {
    /// As few as load allows.
    #[default]
    Few,
    /// One, where one can take every shard.
    One,
}

/// A stream of numbers for one query's choices: splitmix64 (Steele, Lea and
/// Flood, 2014).
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    /// A stream; queries have different seeds.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`; 0 where `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        // The high half of the product: even enough, and without a division.
        ((u128::from(word) * end as u128) >> 64) as usize
    }
}

/// One of `replicas`, all equally good otherwise.
fn pick<'a, 'r>(replicas: &'r [Replica<'a>], policy: Policy, draw: &mut Draw) -> Option<&'r Replica<'a>> {
    // One of the near ones against any other: nearness yields to load.
    let near = replicas.iter().filter(|replica| !replica.far).count();
    let first = match near {
        0 => draw.below(replicas.len()),
        _ => {
            let place = draw.below(near);
            replicas.iter().enumerate().filter(|(_, replica)| !replica.far).nth(place)?.0
        }
    };
    let one = replicas.get(first)?;
    if policy == Policy::Random || replicas.len() == 1 {
        return Some(one);
    }
    // Another than the first, each as likely as any.
    let second = (first + 1 + draw.below(replicas.len() - 1)) % replicas.len();
    let other = replicas.get(second)?;
    Some(if seen(other) < seen(one) { other } else { one })
}

/// A replica's load, with its way.
fn seen(replica: &Replica<'_>) -> f64 {
    if replica.far { replica.load * FAR } else { replica.load }
}

/// One of `some`, which would save a call, unless one of `all` is so much less
/// loaded.
fn together<'a, 'r>(
    some: &'r [Replica<'a>],
    all: &[Replica<'a>],
    policy: Policy,
    draw: &mut Draw,
) -> Option<&'r Replica<'a>> {
    if some.is_empty() {
        return None;
    }
    let one = pick(some, policy, draw)?;
    let saves = policy == Policy::Random
        || some.len() == all.len()
        || pick(all, policy, draw).is_none_or(|other| seen(one) <= seen(other) * TOGETHER);
    saves.then_some(one)
}

/// Picks a leaf for each shard and groups the shards by leaf. `shards` holds
/// the replicas of each, each leaf once; one without any is in no group. A leaf
/// that can take every shard is preferred, and one that is asked already, for
/// the fewest calls are the cheapest answer; until another is so much less
/// loaded that a call more is cheaper than to wait.
#[must_use]
pub fn cover<'a>(
    shards: &[Vec<Replica<'a>>],
    policy: Policy,
    grouping: Grouping,
    draw: &mut Draw,
) -> BTreeMap<&'a NodeId, Vec<usize>> {
    // Those of each shard that least speaks against.
    let best: Vec<Vec<Replica<'a>>> = shards
        .iter()
        .map(|replicas| {
            let least = replicas.iter().map(|replica| replica.doubt).min();
            replicas.iter().filter(|replica| Some(replica.doubt) == least).copied().collect()
        })
        .collect();
    let mut groups: BTreeMap<&NodeId, Vec<usize>> = BTreeMap::new();
    let Some(begin) = best.first() else { return groups };
    let everywhere = |replica: &&Replica<'a>| {
        best.iter().all(|replicas| replicas.iter().any(|other| other.node == replica.node))
    };
    let whole: Vec<Replica<'a>> = begin.iter().filter(everywhere).copied().collect();
    let one = match grouping {
        Grouping::Few => together(&whole, begin, policy, draw),
        Grouping::One => pick(&whole, policy, draw),
    };
    if let Some(one) = one {
        groups.insert(one.node, (0..shards.len()).collect());
        return groups;
    }
    // The first shards choose, the others follow where they can; so that each
    // shard is among the first as often as any.
    let begin = draw.below(best.len());
    for shard in (begin..best.len()).chain(0..begin) {
        let asked: Vec<Replica<'a>> =
            best[shard].iter().filter(|replica| groups.contains_key(replica.node)).copied().collect();
        let one = together(&asked, &best[shard], policy, draw);
        if let Some(one) = one.or_else(|| pick(&best[shard], policy, draw)) {
            groups.entry(one.node).or_default().push(shard);
        }
    }
    for taken in groups.values_mut() {
        taken.sort_unstable();
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: usize) -> Vec<NodeId> {
        (0..count).map(|n| NodeId(format!("node-{n}").into())).collect()
    }

    fn fine(node: &NodeId) -> Replica<'_> {
        Replica { node, doubt: 0, load: 0.0, far: false }
    }

    fn covers<'a>(shards: &[Vec<Replica<'a>>], seed: u64) -> BTreeMap<&'a NodeId, Vec<usize>> {
        cover(shards, Policy::TwoChoices, Grouping::Few, &mut Draw::new(seed))
    }

    #[test]
    fn every_shard_with_a_replica_is_asked_once() {
        let nodes = nodes(5);
        let mut shards: Vec<Vec<Replica<'_>>> =
            (0..8).map(|s| vec![fine(&nodes[s % 5]), fine(&nodes[(s + 2) % 5])]).collect();
        shards.push(Vec::new());
        for seed in 0..100 {
            let mut asked: Vec<usize> = covers(&shards, seed).into_values().flatten().collect();
            asked.sort_unstable();
            assert_eq!(asked, (0..8).collect::<Vec<_>>());
        }
        assert!(covers(&[], 0).is_empty());
    }

    #[test]
    fn a_leaf_that_has_everything_answers_alone_and_they_take_turns() {
        let nodes = nodes(3);
        let shards: Vec<Vec<Replica<'_>>> = (0..4)
            .map(|s| vec![fine(&nodes[0]), fine(&nodes[1]), fine(&nodes[2])][..2 + s % 2].to_vec())
            .collect();
        let mut times = [0; 3];
        for seed in 0..1_000 {
            let groups = covers(&shards, seed);
            assert_eq!(groups.len(), 1);
            times[nodes.iter().position(|node| groups.contains_key(node)).unwrap()] += 1;
        }
        assert_eq!(times[2], 0, "it lacks a shard");
        assert!(times[0] > 400 && times[1] > 400, "{times:?}");
    }

    #[test]
    fn a_leaf_that_saves_a_call_yields_to_less_loaded_ones() {
        let nodes = nodes(3);
        let loaded = |node, load| Replica { load, ..fine(node) };
        let alone = |load| {
            let most = loaded(&nodes[0], load);
            let shards = [
                vec![most, loaded(&nodes[1], 1.0)],
                vec![most, loaded(&nodes[2], 1.0)],
                vec![most, loaded(&nodes[1], 1.0)],
            ];
            let groups = (0..1_000).map(|seed| covers(&shards, seed));
            groups.filter(|groups| groups.get(&nodes[0]).is_some_and(|taken| taken.len() == 3)).count()
        };
        assert_eq!((alone(1.0), alone(TOGETHER)), (1_000, 1_000));
        assert!(alone(TOGETHER + 0.1) < 500, "{}", alone(TOGETHER + 0.1));
        // Where one has to take all, it does.
        let shards = [vec![loaded(&nodes[0], 9.0), loaded(&nodes[1], 1.0)], vec![loaded(&nodes[0], 9.0)]];
        let one = |seed| {
            cover(&shards, Policy::TwoChoices, Grouping::One, &mut Draw::new(seed)).contains_key(&nodes[1])
        };
        assert!(!(0..100).any(one));
        // As for a shard, so for those that follow it.
        let shards: Vec<Vec<Replica<'_>>> =
            (0..2).map(|s| vec![loaded(&nodes[0], 2.0), loaded(&nodes[1 + s], 1.0)]).collect();
        let follow = (0..1_000).filter(|seed| covers(&shards, *seed).contains_key(&nodes[0])).count();
        assert!(follow < 300, "{follow}");
    }

    #[test]
    fn a_doubtful_replica_is_asked_only_where_there_is_no_better() {
        let nodes = nodes(2);
        let doubted = Replica { doubt: 1, ..fine(&nodes[0]) };
        let shards = [vec![doubted, fine(&nodes[1])], vec![doubted]];
        for seed in 0..10 {
            let groups = covers(&shards, seed);
            assert_eq!((&groups[&nodes[0]], &groups[&nodes[1]]), (&vec![1], &vec![0]));
        }
    }

    #[test]
    fn a_near_replica_is_taken_until_it_is_twice_as_loaded() {
        let nodes = nodes(3);
        let far = |node, load| Replica { load, far: true, ..fine(node) };
        let times = |load| {
            let shards =
                [vec![Replica { load, ..fine(&nodes[0]) }, far(&nodes[1], 1.0), far(&nodes[2], 1.0)]];
            (0..100).filter(|seed| covers(&shards, *seed).contains_key(&nodes[0])).count()
        };
        assert_eq!((times(1.0), times(1.9), times(2.1)), (100, 100, 0));
    }

    #[test]
    fn a_far_leaf_that_has_everything_yields_to_near_ones() {
        let nodes = nodes(3);
        let shards = |near: f64| -> Vec<Vec<Replica<'_>>> {
            let far = Replica { load: 1.0, far: true, ..fine(&nodes[2]) };
            (0..4).map(|s| vec![Replica { load: near, ..fine(&nodes[s % 2]) }, far]).collect()
        };
        let far = |near| (0..100).filter(|seed| covers(&shards(near), *seed).contains_key(&nodes[2])).count();
        assert_eq!((far(1.0), far(1.5), far(2.6)), (0, 0, 100));
        // What is far in any case draws nothing else along.
        let mut shards = shards(1.0);
        shards[1].remove(0);
        let alone = |seed| covers(&shards, seed)[&nodes[2]] == [1];
        assert!((0..100).all(alone));
    }

    #[test]
    fn of_two_the_less_loaded_is_taken_and_none_is_taken_always() {
        let nodes = nodes(3);
        let shards = [nodes
            .iter()
            .zip([5.0, 1.0, 3.0])
            .map(|(node, load)| Replica { load, ..fine(node) })
            .collect::<Vec<_>>()];
        let mut times = [0; 3];
        for seed in 0..3_000 {
            let taken = *covers(&shards, seed).keys().next().unwrap();
            times[nodes.iter().position(|node| node == taken).unwrap()] += 1;
        }
        // Each pair is drawn a third of the time; the most loaded never wins.
        assert_eq!(times[0], 0);
        assert!((1_900..2_100).contains(&times[1]) && (900..1_100).contains(&times[2]), "{times:?}");
        let any: std::collections::BTreeSet<_> = (0..100)
            .flat_map(|seed| cover(&shards, Policy::Random, Grouping::Few, &mut Draw::new(seed)).into_keys())
            .collect();
        assert_eq!(any.len(), 3);
    }
}
