//! Balances who comes first in the lists, by swaps within a list.
//!
//! A node with too many first places may share no list with one that has too
//! few. So a first place travels along a path of lists, each of which swaps its
//! first node for the one that gave up another list.

use std::collections::VecDeque;

use super::board::Board;
use super::bound::Bound;
use super::policy::Standing;

/// A list whose first place goes to another of its nodes.
struct Swap {
    shard: usize,
    from: usize,
    to: usize,
}

struct Owners {
    bound: Bound,
    /// First places of each node.
    count: Vec<usize>,
    /// The lists that each node comes first in and may give up.
    lists: Vec<Vec<usize>>,
    /// For each list the nodes that may come first.
    takers: Vec<Vec<usize>>,
}

impl Board<'_> {
    /// Evens out first places, as far as copies allow.
    pub(super) fn balance_owners(&mut self) {
        let mut owners = self.owners();
        let mut sources: Vec<_> = self.live().collect();
        while owners.bound.broken(self.live().map(|node| owners.count[node])) {
            // Where there is no path there hardly will be one this round.
            sources.sort_by_key(|&node| owners.count[node]);
            let Some(source) = sources.last().copied() else { return };
            let path = self.path(&owners, source);
            if path.is_empty() {
                sources.pop();
            }
            for swap in path {
                if !self.swap(&mut owners, &swap) {
                    break;
                }
            }
        }
    }

    fn owners(&self) -> Owners {
        let placed = self.shards.iter().filter(|shard| !shard.nodes.is_empty()).count();
        let mut owners = Owners {
            bound: Bound::new(placed, self.there()),
            count: vec![0; self.nodes.len()],
            lists: vec![Vec::new(); self.nodes.len()],
            takers: vec![Vec::new(); self.shards.len()],
        };
        for (place, shard) in self.shards.iter().enumerate() {
            let Some(&first) = shard.nodes.first() else { continue };
            owners.count[first] += 1;
            let settled = self.kept(shard) <= shard.copies && self.is(first, Standing::Live);
            if settled && (shard.new || self.moves_left > 0) {
                let takes = |&node: &usize| node != first && (shard.new || self.serving(shard, node));
                owners.takers[place] = shard.nodes.iter().copied().filter(takes).collect();
                owners.lists[first].push(place);
            }
        }
        owners
    }

    /// The shortest path of swaps from `source` that mends the bound, the last
    /// swap first: a part of it is no loss, and makes the rest shorter.
    fn path(&self, owners: &Owners, source: usize) -> Vec<Swap> {
        let mut reached_by: Vec<Option<(usize, usize)>> = vec![None; self.nodes.len()];
        let mut queue = VecDeque::from([source]);
        while let Some(from) = queue.pop_front() {
            for &shard in &owners.lists[from] {
                let list = &self.shards[shard];
                if !list.new && !list.moved && self.moves_left == 0 {
                    continue;
                }
                for &to in &owners.takers[shard] {
                    if to == source || reached_by[to].is_some() {
                        continue;
                    }
                    reached_by[to] = Some((shard, from));
                    if owners.bound.mends(owners.count[source], owners.count[to]) {
                        return walk_back(&reached_by, to);
                    }
                    queue.push_back(to);
                }
            }
        }
        Vec::new()
    }

    /// Swaps the first node of a list, unless there are no moves left.
    fn swap(&mut self, owners: &mut Owners, swap: &Swap) -> bool {
        let shard = &self.shards[swap.shard];
        if !shard.new && !shard.moved && self.moves_left == 0 {
            return false;
        }
        let may_return = shard.new || self.serving(shard, swap.from);
        self.count_move(swap.shard);
        let nodes = &mut self.shards[swap.shard].nodes;
        if let Some(place) = nodes.iter().position(|node| *node == swap.to) {
            nodes.swap(0, place);
        }
        let takers = &mut owners.takers[swap.shard];
        takers.retain(|node| *node != swap.to);
        if may_return {
            takers.push(swap.from);
        }
        owners.lists[swap.from].retain(|shard| *shard != swap.shard);
        owners.lists[swap.to].push(swap.shard);
        owners.count[swap.from] -= 1;
        owners.count[swap.to] += 1;
        true
    }
}

fn walk_back(reached_by: &[Option<(usize, usize)>], mut to: usize) -> Vec<Swap> {
    let mut path = Vec::new();
    while let Some((shard, from)) = reached_by[to] {
        path.push(Swap { shard, from, to });
        to = from;
    }
    path
}
