//! The table laid out with numbers for names, the load of each node, and the
//! rules that keep shards alive: drop, repair, place.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::bound::Bound;
use super::policy::{Candidate, Standing, Table, Wanted, preference};
use crate::ids::{IndexUid, NodeId, ShardId};

type Serves<'a> = &'a dyn Fn(&IndexUid, ShardId, &NodeId) -> bool;

pub(super) struct Node<'a> {
    pub(super) id: &'a NodeId,
    pub(super) zone: usize,
    pub(super) standing: Standing,
}

pub(super) struct Shard<'a> {
    pub(super) uid: &'a IndexUid,
    pub(super) id: ShardId,
    pub(super) copies: usize,
    /// Places in `Board::nodes`, in the order of the list.
    pub(super) nodes: Vec<usize>,
    /// Had no leaves before this round, so that changing its list moves nothing.
    pub(super) new: bool,
    /// Counted among this round's moves.
    pub(super) moved: bool,
}

pub(super) struct Board<'a> {
    /// In the order of their ids.
    pub(super) nodes: Vec<Node<'a>>,
    /// In the order of uid and shard.
    pub(super) shards: Vec<Shard<'a>>,
    /// The copies that each node will have once `leaving` have left.
    pub(super) load: Vec<usize>,
    /// Live copies that are one too many, as (shard, node).
    leaving: Vec<(usize, usize)>,
    pub(super) copies: Bound,
    pub(super) moves_left: usize,
    /// Lists that still wait for a leaf to be replaced.
    pub(super) waiting: usize,
    serves: Serves<'a>,
}

impl<'a> Board<'a> {
    pub(super) fn new(
        current: &'a Table,
        wanted: &BTreeMap<&'a IndexUid, &'a Wanted>,
        candidates: &'a [Candidate],
        serves: Serves<'a>,
        moves_max: usize,
    ) -> Self {
        let old = |uid: &IndexUid| current.get(uid).map_or(&[][..], Vec::as_slice);
        let mut known: BTreeMap<&NodeId, (Standing, Option<&str>)> = BTreeMap::new();
        for candidate in candidates {
            let seen = (candidate.standing, candidate.zone.as_deref());
            let node = known.entry(&candidate.node).or_insert(seen);
            *node = seen.min(*node);
        }
        for node in wanted.keys().flat_map(|uid| old(uid)).flatten() {
            known.entry(node).or_insert((Standing::Lost, None));
        }
        let names: BTreeSet<_> = known.values().map(|(_, zone)| *zone).collect();
        let zones: BTreeMap<_, _> = names.into_iter().zip(0..).collect();
        let places: BTreeMap<_, _> = known.keys().copied().zip(0..).collect();
        let node = |(id, (standing, zone))| Node { id, zone: zones[&zone], standing };
        let nodes: Vec<_> = known.into_iter().map(node).collect();

        let mut shards = Vec::new();
        for (uid, index) in wanted {
            let mut lists = old(uid).iter();
            for id in (0..index.shards).map(ShardId) {
                let mut list = Vec::new();
                for place in lists.next().into_iter().flatten().map(|node| places[node]) {
                    if !list.contains(&place) {
                        list.push(place);
                    }
                }
                let copies = usize::try_from(index.copies.max(1)).unwrap_or(usize::MAX);
                shards.push(Shard { uid, id, copies, new: list.is_empty(), nodes: list, moved: false });
            }
        }
        let there = nodes.iter().filter(|node| node.standing != Standing::Lost).count();
        let total = shards.iter().map(|shard| shard.copies.min(there)).sum();
        let load = vec![0; nodes.len()];
        let copies = Bound::new(total, there);
        let leaving = Vec::new();
        let mut board =
            Self { nodes, shards, load, leaving, copies, moves_left: moves_max, waiting: 0, serves };
        board.settle();
        board
    }

    pub(super) fn into_table(self, wanted: &BTreeMap<&IndexUid, &Wanted>) -> Table {
        let mut table: Table = wanted.keys().map(|uid| ((*uid).clone(), Vec::new())).collect();
        for shard in &self.shards {
            let list = shard.nodes.iter().map(|&node| self.nodes[node].id.clone()).collect();
            table.entry(shard.uid.clone()).or_default().push(list);
        }
        table
    }

    pub(super) fn is(&self, node: usize, standing: Standing) -> bool {
        self.nodes[node].standing == standing
    }

    pub(super) fn live(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|&node| self.is(node, Standing::Live))
    }

    /// Live nodes and those that are away: the ones that loads are shared among.
    pub(super) fn there(&self) -> usize {
        self.nodes.iter().filter(|node| node.standing != Standing::Lost).count()
    }

    pub(super) fn over_a_third_missing(&self) -> bool {
        (self.nodes.len() - self.live().count()) * 3 > self.nodes.len()
    }

    pub(super) fn serving(&self, shard: &Shard, node: usize) -> bool {
        self.is(node, Standing::Live) && (self.serves)(shard.uid, shard.id, self.nodes[node].id)
    }

    /// Whether a shard's leaves are all there and serve, so that it may move for
    /// the sake of others.
    pub(super) fn at_rest(&self, shard: &Shard) -> bool {
        let settled = !shard.new && !shard.moved && shard.nodes.len() <= shard.copies;
        settled && shard.nodes.iter().all(|&node| self.serving(shard, node))
    }

    /// The copies of a shard, without those on lost nodes.
    pub(super) fn kept(&self, shard: &Shard) -> usize {
        shard.nodes.iter().filter(|&&node| !self.is(node, Standing::Lost)).count()
    }

    /// Counts loads, and picks the copies that are to leave.
    ///
    /// It is a function of the lists alone. So the next round picks the same
    /// ones, and a move is worth what it seemed to be when it began.
    pub(super) fn settle(&mut self) {
        self.leaving.clear();
        self.load.fill(0);
        for &node in self.shards.iter().flat_map(|shard| &shard.nodes) {
            self.load[node] += 1;
        }
        for place in 0..self.shards.len() {
            let surplus = self.kept(&self.shards[place]).saturating_sub(self.shards[place].copies);
            let mut nodes = if surplus > 0 { self.shards[place].nodes.clone() } else { Vec::new() };
            for _ in 0..surplus {
                let Some(leaver) = self.leaver(&self.shards[place], &nodes) else { break };
                nodes.retain(|node| *node != leaver);
                self.load[leaver] -= 1;
                self.leaving.push((place, leaver));
            }
        }
    }

    /// The live copy that is to leave the list at `place` first.
    pub(super) fn leaving_from(&self, place: usize) -> Option<usize> {
        self.leaving.iter().find(|(at, _)| *at == place).map(|(_, node)| *node)
    }

    /// Which of `nodes` is to leave: see rule 2 of [`next`](super::next).
    pub(super) fn leaver(&self, shard: &Shard, nodes: &[usize]) -> Option<usize> {
        let live = nodes.iter().copied().filter(|&node| self.is(node, Standing::Live));
        live.max_by(|&a, &b| {
            let rank = |node| (self.shares_zone(nodes, node), self.load[node]);
            let score = |node: usize| Reverse((self.preference(shard, node), Reverse(node)));
            rank(a).cmp(&rank(b)).then_with(|| score(a).cmp(&score(b)))
        })
    }

    /// Whether another of `nodes` that is not lost is in the zone of `node`.
    pub(super) fn shares_zone(&self, nodes: &[usize], node: usize) -> bool {
        let zone = self.nodes[node].zone;
        let in_zone = |&other: &usize| self.nodes[other].zone == zone && !self.is(other, Standing::Lost);
        nodes.iter().any(|other| *other != node && in_zone(other))
    }

    pub(super) fn preference(&self, shard: &Shard, node: usize) -> u64 {
        preference(shard.uid, shard.id, self.nodes[node].id)
    }

    /// Drops surplus copies and lost nodes where enough others serve.
    pub(super) fn drop_replaced(&mut self) {
        for (place, node) in std::mem::take(&mut self.leaving) {
            self.drop_if_replaced(place, node);
        }
        for place in 0..self.shards.len() {
            let shard = &self.shards[place];
            let lost = |&node: &usize| self.is(node, Standing::Lost);
            let lost: Vec<_> = shard.nodes.iter().copied().filter(lost).collect();
            if self.kept(shard) >= shard.copies {
                for node in lost {
                    self.drop_if_replaced(place, node);
                }
            }
        }
        self.settle();
        let waits = |shard: &Shard| shard.nodes.len() > shard.copies && self.kept(shard) >= shard.copies;
        self.waiting = self.shards.iter().filter(|shard| waits(shard)).count();
    }

    fn drop_if_replaced(&mut self, place: usize, leaver: usize) {
        let shard = &self.shards[place];
        let others = shard.nodes.iter().filter(|&&node| node != leaver && self.serving(shard, node));
        if others.count() < shard.copies {
            return;
        }
        let mut nodes = shard.nodes.clone();
        nodes.retain(|node| *node != leaver);
        // Whoever owns next must serve: those on their way in wait.
        let owner = |nodes: &[usize]| nodes.iter().position(|&node| self.is(node, Standing::Live));
        let serving = nodes.iter().position(|&node| self.serving(shard, node));
        if let (Some(first), Some(serving)) = (owner(&nodes), serving)
            && owner(&shard.nodes).is_some_and(|owner| shard.nodes[owner] == leaver)
        {
            nodes[first..=serving].rotate_right(1);
        }
        self.shards[place].nodes = nodes;
    }

    /// Appends the copies that are missing.
    pub(super) fn repair(&mut self) {
        let short = |place: &usize| {
            let shard = &self.shards[*place];
            !shard.new && self.kept(shard) < shard.copies
        };
        let mut short: Vec<_> = (0..self.shards.len()).filter(short).collect();
        let live = |shard: &Shard| shard.nodes.iter().filter(|&&node| self.is(node, Standing::Live)).count();
        short.sort_by_cached_key(|&place| live(&self.shards[place]));
        for place in short {
            if self.moves_left == 0 {
                return;
            }
            if self.fill(place) {
                self.count_move(place);
            }
        }
    }

    /// Places the shards that have no leaves.
    pub(super) fn place_new(&mut self) {
        for place in 0..self.shards.len() {
            if self.shards[place].new {
                self.fill(place);
            }
        }
        self.settle();
    }

    /// Counts a change of a list, if it is the round's first of that list.
    pub(super) fn count_move(&mut self, place: usize) {
        let shard = &mut self.shards[place];
        if !shard.new && !shard.moved {
            shard.moved = true;
            self.moves_left -= 1;
        }
    }

    /// Appends the copies that a shard lacks, and says whether there was a node.
    fn fill(&mut self, place: usize) -> bool {
        let shard = &self.shards[place];
        let lacks = shard.copies.saturating_sub(self.kept(shard)).min(self.nodes.len());
        let scores = self.scores(shard);
        for filled in 0..lacks {
            let Some(node) = self.choose(&self.shards[place], &scores) else { return filled > 0 };
            self.shards[place].nodes.push(node);
            self.load[node] += 1;
        }
        lacks > 0
    }

    /// How much a shard prefers each live node, as (node, preference).
    pub(super) fn scores(&self, shard: &Shard) -> Vec<(usize, u64)> {
        self.live().map(|node| (node, self.preference(shard, node))).collect()
    }

    /// The node for one more copy: see [`next`](super::next).
    pub(super) fn choose(&self, shard: &Shard, scores: &[(usize, u64)]) -> Option<usize> {
        let free = scores.iter().filter(|(node, _)| !shard.nodes.contains(node));
        let best = free.max_by_key(|&&(node, score)| {
            let apart = !self.shares_zone(&shard.nodes, node);
            let excess = self.load[node].saturating_sub(self.copies.most.saturating_sub(1));
            (apart, Reverse(excess), score, Reverse(node))
        });
        best.map(|(node, _)| *node)
    }
}
