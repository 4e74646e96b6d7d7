//! What a controller knows during one election, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::cut::{Cut, ReplicaState, Replicas};
use model::ids::{IndexName, IndexUid, NodeId, ShardId};
use model::placement::{self, Candidate, Standing, Table, Wanted};
use model::settings::Definition;
use proto::admin::{NodeState, OWN, SERVE};
use proto::controller::{Held, Report};
use tokio::time::Instant;

use super::Settings;
use crate::coordinator::Revision;
use crate::view::Placement;

/// Own-only leaves of a shard: one that owns and one that may take over.
const OWNERS_APART: u32 = 2;

/// An index as the controller knows it.
pub(super) struct Known {
    pub(super) name: IndexName,
    pub(super) definition: Definition,
    pub(super) cut: Cut,
    pub(super) placement: Placement,
}

/// One election.
pub(super) struct Term {
    pub(super) guard: Revision,
    pub(super) indexes: BTreeMap<IndexUid, Known>,
    pub(super) nodes: BTreeMap<NodeId, NodeState>,
    /// Nodes that are gone, since when, and what they were.
    pub(super) gone: BTreeMap<NodeId, (Instant, Option<NodeState>)>,
    pub(super) held: BTreeMap<NodeId, BTreeMap<(IndexUid, ShardId), Held>>,
    /// Replicas that are behind the newest generation that anyone has.
    pub(super) behind: BTreeMap<(IndexUid, ShardId, NodeId), Instant>,
}

impl Term {
    pub(super) fn note(&mut self, report: Report, changed: &mut BTreeSet<IndexUid>) {
        let Report { node, complete, shards } = report;
        let known = self.held.entry(node).or_default();
        if complete {
            changed.extend(known.keys().map(|(uid, _)| uid.clone()));
            known.clear();
        }
        for held in shards {
            changed.insert(held.uid.clone());
            let key = (held.uid.clone(), held.shard);
            if held.generations.is_empty() {
                known.remove(&key);
            } else {
                known.insert(key, held);
            }
        }
    }

    /// Notes the leaves that shards are placed on and this term has never seen:
    /// their grace begins with it.
    pub(super) fn miss(&mut self, now: Instant) {
        let lists = self.indexes.values().flat_map(|of| of.placement.serve.iter().chain(&of.placement.own));
        for node in lists.flatten() {
            if !self.nodes.contains_key(node) && !self.gone.contains_key(node) {
                self.gone.insert(node.clone(), (now, None));
            }
        }
    }

    /// Whether a node serves a shard at least as new as the newest cut.
    pub(super) fn serves(&self, uid: &IndexUid, shard: ShardId, node: &NodeId) -> bool {
        let cut = self.indexes.get(uid).and_then(|known| known.cut.entry(shard));
        let newest = self.held.get(node).and_then(|held| held.get(&(uid.clone(), shard))?.generations.last());
        matches!((cut, newest), (Some(cut), Some(newest)) if newest.generation >= cut.generation)
    }

    /// The next table of one kind: of leaves that serve, or of those that only
    /// own, where there are such.
    pub(super) fn next_table(&self, settings: &Settings, role: &str) -> Table {
        let fits = |state: &NodeState| match role {
            SERVE => state.is(SERVE),
            _ => state.is(OWN) && !state.is(SERVE),
        };
        let mut candidates = Vec::new();
        for (node, state) in &self.nodes {
            if fits(state) {
                let standing = if state.draining { Standing::Away } else { Standing::Live };
                candidates.push(Candidate { node: node.clone(), zone: state.zone.clone(), standing });
            }
        }
        let lists = |known: &Known| match role {
            SERVE => known.placement.serve.clone(),
            _ => known.placement.own.clone(),
        };
        let current: Table = self.indexes.iter().map(|(uid, known)| (uid.clone(), lists(known))).collect();
        let placed: BTreeSet<&NodeId> = current.values().flatten().flatten().collect();
        for (node, (since, state)) in &self.gone {
            if state.as_ref().map_or(placed.contains(node), fits) {
                let lost = since.elapsed() >= settings.placement_grace;
                let standing = if lost { Standing::Lost } else { Standing::Away };
                let zone = state.as_ref().and_then(|state| state.zone.clone());
                candidates.push(Candidate { node: node.clone(), zone, standing });
            }
        }
        if candidates.is_empty() {
            return current;
        }
        // Owners apart from leaves that serve are a wish: when none are left,
        // those that serve own.
        if role == OWN && candidates.iter().all(|candidate| candidate.standing == Standing::Lost) {
            return Table::new();
        }
        let copies = |definition: &Definition| match role {
            SERVE => definition.copies,
            _ => OWNERS_APART,
        };
        let wanted: Vec<Wanted> = self
            .indexes
            .iter()
            .map(|(uid, known)| Wanted {
                uid: uid.clone(),
                shards: known.definition.shards,
                copies: copies(&known.definition),
            })
            .collect();
        let serves = |uid: &IndexUid, shard: ShardId, node: &NodeId| self.serves(uid, shard, node);
        placement::next(&current, &wanted, &candidates, &serves, &settings.policy)
    }

    /// What the replicas of an index serve, and how many keep up.
    pub(super) fn replicas(&mut self, uid: &IndexUid, lag_max: Duration) -> BTreeMap<ShardId, Replicas> {
        let Some(known) = self.indexes.get(uid) else { return BTreeMap::new() };
        let mut all = BTreeMap::new();
        for (shard, (nodes, entry)) in (0..).zip(known.placement.serve.iter().zip(&known.cut.entries)) {
            let shard = ShardId(shard);
            let key = (uid.clone(), shard);
            let held: Vec<(&NodeId, &Held)> = nodes
                .iter()
                .filter(|node| self.nodes.contains_key(*node))
                .filter_map(|node| Some((node, self.held.get(node)?.get(&key)?)))
                .collect();
            let newest = |held: &Held| held.generations.last().map(|at| at.generation);
            let best = held.iter().filter_map(|(_, held)| newest(held)).max();
            let mut replicas = Replicas::default();
            for (node, held) in held {
                let place = (uid.clone(), shard, node.clone());
                let lagging = if newest(held) < best {
                    self.behind.entry(place).or_insert_with(Instant::now).elapsed() > lag_max
                } else {
                    self.behind.remove(&place);
                    false
                };
                replicas.keeping_up += u32::from(!lagging);
                let newer = held.generations.iter().filter(|at| at.generation > entry.generation);
                replicas.serving.extend(newer.map(|at| ReplicaState {
                    node: node.clone(),
                    generation: at.generation,
                    seq: at.seq,
                    documents: at.documents,
                }));
            }
            all.insert(shard, replicas);
        }
        let nodes = &self.nodes;
        self.behind.retain(|(_, _, node), _| nodes.contains_key(node));
        all
    }
}
