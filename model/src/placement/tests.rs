//! The promises of placement, as properties of a cluster that is played through.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::ids::{IndexUid, NodeId, ShardId};

/// A cluster and its table.
#[derive(Clone, Debug)]
struct World {
    candidates: Vec<Candidate>,
    wanted: Vec<Wanted>,
    policy: Policy,
    table: Table,
    serving: BTreeSet<(IndexUid, u32, NodeId)>,
}

fn node(number: usize) -> NodeId {
    NodeId(format!("leaf-{number}").into())
}

fn candidate(number: usize, zone: Option<usize>) -> Candidate {
    Candidate { node: node(number), zone: zone.map(|z| format!("z{z}")), standing: Standing::Live }
}

fn wanted(number: u128, shards: u32, copies: u32) -> Wanted {
    Wanted { uid: IndexUid::from_bits(number), shards, copies }
}

impl World {
    fn new(candidates: Vec<Candidate>, wanted: Vec<Wanted>, moves_max: usize) -> Self {
        let policy = Policy { moves_max };
        Self { candidates, wanted, policy, table: Table::new(), serving: BTreeSet::new() }
    }

    /// `nodes` nodes over `zones` zones, one of which is unnamed.
    fn even(nodes: usize, zones: usize, wanted: Vec<Wanted>, moves_max: usize) -> Self {
        let zone = |n: usize| Some(n % zones).filter(|zone| *zone > 0);
        Self::new((0..nodes).map(|n| candidate(n, zone(n))).collect(), wanted, moves_max)
    }

    fn set(&mut self, number: usize, standing: Standing) {
        self.candidates[number].standing = standing;
    }

    fn live(&self) -> BTreeSet<&NodeId> {
        let live = self.candidates.iter().filter(|c| c.standing == Standing::Live);
        live.map(|c| &c.node).collect()
    }

    fn next(&self) -> Table {
        let serves = |uid: &IndexUid, shard: ShardId, node: &NodeId| {
            self.serving.contains(&(uid.clone(), shard.0, node.clone()))
        };
        next(&self.table, &self.wanted, &self.candidates, &serves, &self.policy)
    }

    /// All places of the table for which `serve` holds serve from now on.
    fn serve(&mut self, mut serve: impl FnMut() -> bool) {
        for (uid, lists) in &self.table {
            for (shard, list) in (0..).zip(lists) {
                for node in list {
                    if serve() {
                        self.serving.insert((uid.clone(), shard, node.clone()));
                    }
                }
            }
        }
    }

    /// A round: checks what holds of every round.
    fn step(&mut self) -> Result<(), TestCaseError> {
        let after = self.next();
        prop_assert_eq!(after.len(), self.wanted.len());
        let (live, mut changes) = (self.live(), 0);
        for index in &self.wanted {
            let lists = &after[&index.uid];
            prop_assert_eq!(lists.len(), index.shards as usize);
            for (shard, list) in (0..).zip(lists) {
                prop_assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), list.len());
                let old = self.table.get(&index.uid).and_then(|l| l.get(shard as usize));
                let Some(old) = old.filter(|old| !old.is_empty()) else { continue };
                let serving = |node: &&NodeId| {
                    live.contains(*node)
                        && self.serving.contains(&(index.uid.clone(), shard, (*node).clone()))
                };
                let (before, now) = (old.iter().filter(serving).count(), list.iter().filter(serving).count());
                prop_assert!(now >= before.min(index.copies as usize), "{old:?} -> {list:?}");
                let owner = |list: &[NodeId]| list.iter().find(|node| live.contains(node)).cloned();
                let served = owner(old).is_some_and(|owner| serving(&&owner));
                prop_assert!(!served || owner(list).is_some_and(|owner| serving(&&owner)));
                changes += usize::from(!is_drop(old, list, &live));
                for away in self.candidates.iter().filter(|c| c.standing == Standing::Away) {
                    prop_assert_eq!(old.contains(&away.node), list.contains(&away.node));
                }
            }
        }
        prop_assert!(changes <= self.policy.moves_max, "{changes} changes");
        self.table = after;
        Ok(())
    }

    /// Rounds with everything serving, until nothing moves.
    fn settle(&mut self) -> Result<usize, TestCaseError> {
        let lists: usize = self.table.values().map(Vec::len).sum::<usize>() + 1;
        for round in 0..lists * 8 + 50 {
            self.serve(|| true);
            let before = self.table.clone();
            self.step()?;
            self.serve(|| true);
            if before == self.table {
                return Ok(round);
            }
        }
        Err(TestCaseError::fail("no fixed point"))
    }

    fn loads(&self) -> (Vec<usize>, Vec<usize>) {
        let mut loads: BTreeMap<_, _> = self.live().into_iter().map(|node| (node, (0, 0))).collect();
        for list in self.table.values().flatten() {
            for node in list {
                loads.entry(node).or_default().0 += 1;
            }
            loads.entry(&list[0]).or_default().1 += 1;
        }
        loads.into_values().unzip()
    }

    fn check_settled(&self) -> Result<(), TestCaseError> {
        let live = self.live();
        let (mut copies, mut shards) = (0, 0);
        for index in &self.wanted {
            let each = live.len().min(index.copies as usize);
            copies += each * index.shards as usize;
            shards += index.shards as usize;
            for list in &self.table[&index.uid] {
                prop_assert_eq!(list.len(), each);
                prop_assert!(list.iter().all(|node| live.contains(node)));
            }
        }
        let (loads, owners) = self.loads();
        for (loads, total) in [(loads, copies), (owners, shards)] {
            let bound = Bound::new(total, live.len());
            let within = |load: &usize| (bound.least..=bound.most).contains(load);
            prop_assert!(loads.iter().all(within), "{loads:?} in {bound:?}");
        }
        Ok(())
    }

    fn check_zones(&self) -> Result<(), TestCaseError> {
        let zones: BTreeMap<_, _> = self.candidates.iter().map(|c| (&c.node, &c.zone)).collect();
        let live = self.live();
        let there: BTreeSet<_> = live.iter().map(|node| zones[*node]).collect();
        for list in self.table.values().flatten() {
            let used: BTreeSet<_> = list.iter().map(|node| zones[node]).collect();
            prop_assert_eq!(used.len(), there.len().min(list.len()), "{:?}", list);
        }
        Ok(())
    }
}

/// Whether `new` is `old` without some nodes. When its owner left, another may
/// have come forward.
fn is_drop(old: &[NodeId], new: &[NodeId], live: &BTreeSet<&NodeId>) -> bool {
    let kept: Vec<_> = old.iter().filter(|node| new.contains(node)).collect();
    let owner_left = old.iter().find(|node| live.contains(node)).is_some_and(|owner| !new.contains(owner));
    let same = kept.iter().copied().eq(new);
    new.iter().all(|node| old.contains(node)) && (same || owner_left)
}

fn indexes(copies: impl Strategy<Value = u32>) -> impl Strategy<Value = Vec<Wanted>> {
    let all = (prop::collection::vec(1..12u32, 1..5), copies);
    all.prop_map(|(shards, copies)| (0..).zip(shards).map(|(n, shards)| wanted(n, shards, copies)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn comes_to_rest_in_balance(
        nodes in 1..14usize, joins in 0..6usize, lost in 0..5usize, moves_max in 1..9usize, wanted in indexes(1..4u32),
    ) {
        let mut world = World::even(nodes, 1, wanted, moves_max);
        world.settle()?;
        world.check_settled()?;
        world.candidates.extend((nodes..nodes + joins).map(|n| candidate(n, None)));
        world.settle()?;
        world.check_settled()?;
        for number in 0..lost.min((nodes + joins) / 3) {
            world.set(number, Standing::Lost);
        }
        if world.live().len() >= world.wanted[0].copies as usize {
            world.settle()?;
            world.check_settled()?;
        }
    }

    #[test]
    fn the_first_placement_is_in_balance(nodes in 1..40usize, wanted in indexes(1..4u32)) {
        let mut world = World::even(nodes, 1, wanted, 8);
        world.step()?;
        world.check_settled()?;
        world.serve(|| true);
        prop_assert_eq!(world.next(), world.table);
    }

    #[test]
    fn zones_are_spread_and_in_balance(
        each in 1..5usize, zones in 1..5usize, moves_max in 1..9usize, wanted in indexes(1..4u32),
    ) {
        let mut world = World::even(each * zones, 1, wanted, moves_max);
        world.settle()?;
        world.check_zones()?;
        let zoned = World::even(each * zones, zones, world.wanted.clone(), moves_max);
        world.candidates = zoned.candidates;
        world.settle()?;
        world.check_zones()?;
        world.check_settled()?;
    }

    #[test]
    fn uneven_zones_are_spread_and_come_to_rest(
        zones in prop::collection::vec(prop::option::of(0..3usize), 1..14), moves_max in 1..9usize, wanted in indexes(1..5u32),
    ) {
        let nodes = zones.into_iter().enumerate().map(|(n, zone)| candidate(n, zone)).collect();
        let mut world = World::new(nodes, wanted, moves_max);
        world.step()?;
        world.check_zones()?;
        world.settle()?;
        world.check_zones()?;
    }

    #[test]
    fn a_node_that_is_away_and_returns_moves_nothing(
        zones in prop::collection::vec(prop::option::of(0..3usize), 3..12), away in any::<prop::sample::Index>(), wanted in indexes(1..4u32),
    ) {
        let nodes = zones.into_iter().enumerate().map(|(n, zone)| candidate(n, zone)).collect();
        let mut world = World::new(nodes, wanted, 8);
        world.settle()?;
        let number = away.index(world.candidates.len());
        let gone = node(number);
        let serving = world.serving.clone();
        world.set(number, Standing::Away);
        world.serving.retain(|(_, _, node)| *node != gone);
        prop_assert_eq!(&world.next(), &world.table);
        world.set(number, Standing::Live);
        prop_assert_eq!(&world.next(), &world.table);
        world.serving = serving;
        prop_assert_eq!(&world.next(), &world.table);
    }

    #[test]
    fn nothing_moves_while_over_a_third_are_missing(
        standings in prop::collection::vec(0..3u8, 3..12), serving in any::<[bool; 8]>(), wanted in indexes(1..4u32), rounds in 1..4usize,
    ) {
        let mut world = World::even(standings.len(), 2, wanted, 2);
        let mut serving = serving.into_iter().cycle();
        for _ in 0..rounds {
            world.step()?;
            world.serve(|| serving.next().unwrap());
            world.candidates.push(candidate(world.candidates.len(), None));
        }
        for (number, standing) in standings.iter().enumerate() {
            let all = [Standing::Live, Standing::Away, Standing::Lost];
            world.set(number, all[usize::from(*standing)]);
        }
        world.wanted.push(super::Wanted { uid: IndexUid::from_bits(99), shards: 2, copies: 2 });
        let after = world.next();
        let missing = world.candidates.len() - world.live().len();
        let has = |list: &Vec<NodeId>| list.len() == world.live().len().min(2);
        prop_assert!(after[&IndexUid::from_bits(99)].iter().all(has));
        if missing * 3 > world.candidates.len() {
            prop_assert!(world.table.iter().all(|(uid, lists)| after[uid] == *lists));
        }
    }

    /// Whatever happens, every round keeps its promises; and once it stops
    /// happening, the table comes to rest.
    #[test]
    fn every_round_keeps_what_serves(
        zones in prop::collection::vec(prop::option::of(0..3usize), 3..12),
        copies in prop::collection::vec(1..5u32, 1..4),
        events in prop::collection::vec((0..12usize, 0..5u8, any::<u16>()), 0..25),
        moves_max in 1..6usize,
    ) {
        let nodes: Vec<_> = zones.into_iter().enumerate().map(|(n, zone)| candidate(n, zone)).collect();
        let wanted = (0..).zip(copies).map(|(n, copies)| wanted(n, 5, copies)).collect();
        let mut world = World::new(nodes, wanted, moves_max);
        for (number, event, bits) in events {
            let number = number % world.candidates.len();
            match event {
                0 => world.set(number, Standing::Away),
                1 => world.set(number, Standing::Lost),
                2 | 3 => world.set(number, Standing::Live),
                _ => {
                    let index = number % world.wanted.len();
                    world.wanted[index].copies = u32::from(bits % 4) + 1;
                }
            }
            let mut bit = 0;
            world.serve(|| { bit += 1; bits >> (bit % 16) & 1 == 1 });
            world.step()?;
        }
        world.settle()?;
        for number in 0..world.candidates.len() {
            world.set(number, Standing::Live);
        }
        world.settle()?;
        world.check_zones()?;
        for index in &world.wanted {
            let each = world.candidates.len().min(index.copies as usize);
            prop_assert!(world.table[&index.uid].iter().all(|list| list.len() == each));
        }
    }

    #[test]
    fn the_order_of_candidates_is_nothing_to_it(
        zones in prop::collection::vec(prop::option::of(0..3usize), 3..12), wanted in indexes(1..4u32), lost in 0..3usize,
    ) {
        let nodes = zones.into_iter().enumerate().map(|(n, zone)| candidate(n, zone)).collect();
        let mut world = World::new(nodes, wanted, 3);
        for standing in [Standing::Live, Standing::Lost] {
            world.set(lost, standing);
            world.serve(|| true);
            let after = world.next();
            world.candidates.reverse();
            world.wanted.reverse();
            prop_assert_eq!(&world.next(), &after);
            world.candidates.sort_by(|a, b| a.node.cmp(&b.node));
            prop_assert_eq!(&world.next(), &after);
            world.candidates.sort_by_key(|c| c.node.0[5..].parse::<usize>().unwrap());
            world.table = after;
        }
    }
}

#[test]
fn preferences_never_change() {
    let uid = IndexUid::from_bits(7);
    let bytes = b"00000000000000000000000000000007\x03\x00\x00\x00leaf-1";
    assert_eq!(preference(&uid, ShardId(3), &node(1)), xxhash_rust::xxh3::xxh3_64(bytes));
    assert_eq!(preference(&uid, ShardId(3), &node(1)), 15_540_859_789_314_752_600);
}

#[test]
fn exactly_a_third_missing_is_not_too_many() {
    let mut world = World::even(6, 1, vec![wanted(1, 6, 2)], 100);
    world.settle().unwrap();
    world.set(0, Standing::Lost);
    world.set(1, Standing::Lost);
    assert_ne!(world.next(), world.table);
    world.set(2, Standing::Away);
    assert_eq!(world.next(), world.table);
}

#[test]
fn a_lost_leaf_stays_until_its_replacement_serves() {
    let mut world = World::even(4, 1, vec![wanted(1, 1, 2)], 8);
    world.settle().unwrap();
    let uid = IndexUid::from_bits(1);
    let list = world.table[&uid][0].clone();
    let lost = world.candidates.iter().position(|c| c.node == list[0]).unwrap();
    world.set(lost, Standing::Lost);
    world.step().unwrap();
    let moving = world.table[&uid][0].clone();
    assert_eq!((moving.len(), &moving[..2]), (3, &list[..]));
    world.step().unwrap();
    assert_eq!(world.table[&uid][0], moving);
    world.serve(|| true);
    world.step().unwrap();
    assert_eq!(world.table[&uid][0], moving[1..]);
}

#[test]
fn without_live_leaves_new_shards_wait_and_old_ones_stay() {
    let mut world = World::even(2, 1, vec![wanted(1, 2, 2)], 8);
    world.set(0, Standing::Away);
    world.set(1, Standing::Lost);
    world.step().unwrap();
    assert_eq!(world.table[&IndexUid::from_bits(1)], vec![Vec::<NodeId>::new(); 2]);
    world.set(0, Standing::Live);
    world.set(1, Standing::Live);
    world.settle().unwrap();
    world.check_settled().unwrap();
    world.candidates.push(candidate(2, None));
    world.set(1, Standing::Lost);
    world.wanted[0].copies = 3;
    world.settle().unwrap();
    assert!(world.table[&IndexUid::from_bits(1)].iter().all(|list| list.len() == 3));
    world.wanted.clear();
    assert_eq!(world.next(), Table::new());
}

/// Hashes are drawn for new shards and for those that move, and not else.
#[test]
fn a_thousand_leaves_take_two_thousand_shards() {
    let wanted = (0..20).map(|n| wanted(n, 100, 3)).collect();
    let mut world = World::even(1_000, 5, wanted, 8);
    world.step().unwrap();
    world.check_zones().unwrap();
    world.check_settled().unwrap();
    world.serve(|| true);
    assert_eq!(world.next(), world.table);
    for number in 0..30 {
        world.set(number * 30, Standing::Lost);
    }
    let rounds = world.settle().unwrap();
    world.check_settled().unwrap();
    assert!(rounds < 60, "{rounds} rounds");
}
