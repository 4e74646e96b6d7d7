//! Moves copies for the sake of zones and load.
//!
//! **Invariant:** a move either sets copies apart that shared a zone, or evens
//! out loads and puts no copies together. Neither can be undone by the other,
//! so moves come to an end.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::board::{Board, Shard};

/// A copy that may be placed on another node.
struct Move {
    /// By how much the loads of the two nodes differ.
    gain: usize,
    shard: usize,
    to: usize,
}

impl Board<'_> {
    /// Whether one more list may get a leaf that it does not need to live.
    fn may_move(&self) -> bool {
        self.moves_left > self.waiting
    }

    /// Starts moves of copies that share a zone though another zone has none.
    pub(super) fn spread_zones(&mut self) {
        let mut zones: Vec<_> = self.live().map(|node| self.nodes[node].zone).collect();
        zones.sort_unstable();
        zones.dedup();
        for place in 0..self.shards.len() {
            if !self.may_move() {
                return;
            }
            let shard = &self.shards[place];
            let shared = shard.nodes.iter().any(|&node| self.shares_zone(&shard.nodes, node));
            let used = |zone: &&usize| shard.nodes.iter().any(|&node| self.nodes[node].zone == **zone);
            if !shared || zones.iter().filter(used).count() == zones.len() || !self.at_rest(shard) {
                continue;
            }
            if let Some(node) = self.choose(shard, &self.scores(shard)) {
                self.shards[place].nodes.push(node);
                self.count_move(place);
                self.settle();
            }
        }
    }

    /// Starts moves from nodes with too many copies to those with too few. New
    /// shards are simply placed elsewhere.
    pub(super) fn balance_copies(&mut self) {
        let new = |shard: &Shard| shard.new && !shard.nodes.is_empty();
        let places: Vec<_> = (0..self.shards.len()).filter(|&at| new(&self.shards[at])).collect();
        while let Some(best) = self.best_move(&places)
            && self.start(&best)
        {}
        if !self.may_move() || !self.out_of_bound() {
            return;
        }
        let rest = |&place: &usize| self.at_rest(&self.shards[place]);
        let mut places: Vec<_> = (0..self.shards.len()).filter(rest).collect();
        while self.may_move()
            && let Some(best) = self.best_move(&places)
            && self.start(&best)
        {
            places.retain(|place| *place != best.shard);
        }
    }

    fn out_of_bound(&self) -> bool {
        self.copies.broken(self.live().map(|node| self.load[node]))
    }

    /// The move of one of the shards `places` that evens out the most.
    fn best_move(&self, places: &[usize]) -> Option<Move> {
        if places.is_empty() || !self.out_of_bound() {
            return None;
        }
        // Nodes of a zone are alike but for their load, so that the first one
        // that does not have the shard stands for all.
        let mut zones: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for node in self.live() {
            zones.entry(self.nodes[node].zone).or_default().push(node);
        }
        let mut zones: Vec<_> = zones.into_values().collect();
        for zone in &mut zones {
            zone.sort_by_key(|&node| self.load[node]);
        }
        zones.sort_by_key(|zone| self.load[zone[0]]);

        let mut best: Option<Move> = None;
        for &shard in places {
            let nodes = &self.shards[shard].nodes;
            let busiest = nodes.iter().map(|&node| self.load[node]).max().unwrap_or(0);
            for zone in &zones {
                let needed = best.as_ref().map_or(2, |best| best.gain + 1);
                if busiest < self.load[zone[0]] + needed {
                    break;
                }
                let Some(&to) = zone.iter().find(|node| !nodes.contains(node)) else { continue };
                let (from, least) = (self.leaver_load(nodes, to), self.load[to]);
                if self.copies.mends(from, least) && from - least >= needed {
                    best = Some(Move { gain: from - least, shard, to });
                }
            }
        }
        best
    }

    /// The load of the node that leaves when `to` joins `nodes`.
    fn leaver_load(&self, nodes: &[usize], to: usize) -> usize {
        let joins = self.nodes[to].zone;
        let rank = |node: usize| {
            let shares = self.nodes[node].zone == joins || self.shares_zone(nodes, node);
            (shares, self.load[node])
        };
        let joined = (self.shares_zone(nodes, to), self.load[to] + 1);
        let ranks = nodes.iter().map(|&node| rank(node)).chain([joined]);
        ranks.max().map_or(0, |(_, load)| load)
    }

    /// Starts a move, unless copies that leave other lists make it worthless.
    fn start(&mut self, step: &Move) -> bool {
        let before = (self.unevenness(), self.shards[step.shard].nodes.clone());
        self.shards[step.shard].nodes.push(step.to);
        self.settle();
        if self.shards[step.shard].new {
            self.replace(step);
        }
        if self.unevenness() >= before.0 {
            self.shards[step.shard].nodes = before.1;
            self.settle();
            return false;
        }
        self.count_move(step.shard);
        true
    }

    /// Puts a new shard's copy on its new node at once.
    fn replace(&mut self, step: &Move) {
        let shard = &self.shards[step.shard];
        let leaver = self.leaving_from(step.shard);
        let mut nodes = shard.nodes.clone();
        nodes.retain(|node| Some(*node) != leaver);
        nodes.sort_by_cached_key(|&node| (Reverse(self.preference(shard, node)), node));
        self.shards[step.shard].nodes = nodes;
        self.settle();
    }

    /// The sum of the loads' squares: it falls with every move.
    fn unevenness(&self) -> usize {
        self.live().map(|node| self.load[node] * self.load[node]).sum()
    }
}
