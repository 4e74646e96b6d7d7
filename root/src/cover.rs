//! Which leaves answer for the shards of a question, and what an answer may
//! lack.

use std::sync::Arc;
use std::time::Duration;

use cluster::{Index, View};
use model::choice::{self, Draw, Grouping, Replica};
use model::ids::{NodeId, ShardId};
use model::standing::{Doubt, Load};
use proto::admin::NodeState;
use proto::leaf::ShardAt;
use proto::{Error, Kind};

use crate::root::Root;

/// Missing shards that an error names.
const NAMED_MAX: usize = 10;

/// Why a shard is not in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// No live leaf serves it.
    Dead,
    /// The others were not kept waiting for it.
    Slow,
    /// Its leaves have too much to do.
    Refused,
    /// Its time was over.
    Expired,
    /// Its leaves are at other generations.
    Lagging,
}

impl Reason {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Slow => "slow",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Lagging => "lagging",
        }
    }

    /// Of an error that no other leaf made good.
    pub(crate) fn of(error: &Error) -> Self {
        match error.kind {
            Kind::Overloaded => Self::Refused,
            Kind::Expired => Self::Expired,
            Kind::Gone => Self::Lagging,
            _ => Self::Dead,
        }
    }
}

/// A shard that is not in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) shard: ShardId,
    pub(crate) reason: Reason,
}

/// What an answer may lack.
#[derive(Clone, Debug)]
pub(crate) struct Enough {
    /// Documents of each shard of the index.
    pub(crate) documents: Arc<[u64]>,
    /// Documents that must be covered.
    pub(crate) least: f64,
    /// Shards that are done without already.
    pub(crate) missing: Vec<Missing>,
    /// Whether that goes for shards whose leaves are at other generations: a
    /// newer state has been waited for.
    pub(crate) lagging: bool,
}

/// Which leaves are asked at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Any that is known.
    Any,
    /// None that stands still, failed or refused lately. One that is late is
    /// asked: it may be late for another, and with what takes long.
    There,
    /// None against which anything speaks.
    Well,
}

/// Who is not asked for what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tried<'a> {
    /// Leaves, and the shards that they were asked for, in ascending order.
    calls: Vec<(&'a NodeId, &'a [ShardAt])>,
    hosts: Vec<&'a str>,
}

impl<'a> Tried<'a> {
    /// No leaf again for the shards that it was asked for.
    pub(crate) fn of(calls: impl Iterator<Item = (&'a NodeId, &'a [ShardAt])>) -> Self {
        Self { calls: calls.collect(), hosts: Vec::new() }
    }

    /// Nor a leaf on a host that was asked for any of these shards: it shares what
    /// makes the host slow. Where all leaves are on one host that says nothing.
    pub(crate) fn apart(self, view: &'a View, shards: &[ShardAt]) -> Self {
        if !view.spans_hosts() {
            return self;
        }
        let asked = self.calls.iter().filter(|(_, asked)| shards.iter().any(|at| holds(asked, at.shard)));
        let hosts = asked.filter_map(|(node, _)| view.known_node(node)?.host()).collect();
        Self { hosts, ..self }
    }

    fn admits(&self, state: &NodeState, shard: ShardId) -> bool {
        !self.calls.iter().any(|(node, asked)| **node == state.node && holds(asked, shard))
            && !state.host().is_some_and(|host| self.hosts.contains(&host))
    }
}

/// Whether shards, in ascending order, hold one.
fn holds(shards: &[ShardAt], shard: ShardId) -> bool {
    debug_assert!(shards.is_sorted_by_key(|at| at.shard), "shards are asked for in their order");
    shards.binary_search_by_key(&shard, |at| at.shard).is_ok()
}

impl Trust {
    fn admits(self, doubt: Option<Doubt>) -> bool {
        match (self, doubt) {
            (Self::Any, _) | (_, None) | (Self::There, Some(Doubt::Late)) => true,
            (Self::There | Self::Well, Some(_)) => false,
        }
    }
}

impl Root {
    /// Picks a leaf for each shard among those that were not tried and are trusted
    /// so far; a shard without one is missing.
    pub(crate) fn cover(
        &self,
        view: &View,
        pinned: &Index,
        shards: &[ShardAt],
        tried: &Tried<'_>,
        trust: Trust,
        grouping: Grouping,
    ) -> (Vec<(NodeId, Vec<ShardAt>)>, Vec<Missing>) {
        let mut missing = Vec::new();
        let memory = self.memory();
        let now = memory.now();
        let zone = self.settings().zone.as_deref();
        let mut covered = Vec::with_capacity(shards.len());
        let replicas: Vec<Vec<Replica<'_>>> = memory.read(|standing| {
            let mut all = Vec::with_capacity(shards.len());
            for at in shards {
                let known = pinned
                    .holders(at.shard)
                    .iter()
                    .filter(|node| view.known_node(node).is_some_and(|state| tried.admits(state, at.shard)));
                let mut loads = Vec::with_capacity(3);
                let mut replicas = Vec::with_capacity(3);
                let mut doubts = Vec::new();
                for node in known {
                    let standing = standing(node);
                    let live = view.live(node);
                    let doubted = standing.doubt(now);
                    let against = if live.is_none() { Some(Doubt::Failed) } else { doubted };
                    doubts.extend(against);
                    if !trust.admits(against) {
                        continue;
                    }
                    let doubt = u8::from(memory.lacks(node, &pinned.uid, at))
                        + doubted.map_or(0, weight)
                        + u8::from(live.is_some_and(|state| state.draining))
                        // Its lease may have lapsed while it goes on serving.
                        + 6 * u8::from(live.is_none());
                    let far =
                        zone.is_some_and(|zone| live.and_then(|state| state.zone.as_deref()) != Some(zone));
                    loads.push(standing.load(now, &self.settings().reports));
                    replicas.push(Replica { node, doubt, load: 0.0, far });
                }
                if replicas.is_empty() {
                    missing.push(Missing { shard: at.shard, reason: best(&doubts) });
                    continue;
                }
                let to = replicas.iter_mut().map(|replica| &mut replica.load);
                Load::compare(&mut loads.into_iter().zip(to).collect::<Vec<_>>());
                covered.push(*at);
                all.push(replicas);
            }
            all
        });
        let mut draw = Draw::new(self.parts().random.u64());
        let groups = choice::cover(&replicas, self.settings().choice, grouping, &mut draw);
        let groups = groups.into_iter();
        let groups =
            groups.map(|(node, taken)| (node.clone(), taken.into_iter().map(|at| covered[at]).collect()));
        (groups.collect(), missing)
    }
}

/// An error where what is missing cannot be done without: its kind is that of
/// the last of it.
pub(crate) fn possible(enough: &Enough, missing: &[Missing]) -> Result<(), Error> {
    let lost: u64 = missing.iter().map(|missing| documents(enough, missing.shard)).sum();
    let whole: u64 = enough.documents.iter().sum();
    if whole.saturating_sub(lost) as f64 >= enough.least {
        return Ok(());
    }
    Err(failure("too little would be covered", missing, "retry, or lower min_coverage"))
}

/// An error that names what is missing. Its kind is that of the last of it.
pub(crate) fn failure(what: &str, missing: &[Missing], advice: &str) -> Error {
    let kind = match missing.last().map(|missing| missing.reason) {
        Some(Reason::Refused) => Kind::Overloaded,
        Some(Reason::Expired) => Kind::Expired,
        _ => Kind::Unavailable,
    };
    let each = missing.iter().take(NAMED_MAX);
    let mut each: Vec<String> =
        each.map(|missing| format!("shard {} is {}", missing.shard, missing.reason.name())).collect();
    if missing.len() > NAMED_MAX {
        each.push(format!("{} more", missing.len() - NAMED_MAX));
    }
    let error = Error::new(kind, format!("{what} ({}): {advice}", each.join(", ")));
    if kind == Kind::Expired { error } else { error.retry_after(Duration::from_secs(1)) }
}

pub(crate) fn documents(enough: &Enough, shard: ShardId) -> u64 {
    enough.documents.get(shard.0 as usize).copied().unwrap_or(0)
}

/// How much a doubt weighs, beside that a leaf is leaving or lacks a generation,
/// each of which is sure and short.
fn weight(doubt: Doubt) -> u8 {
    match doubt {
        Doubt::Late => 1,
        Doubt::Silent | Doubt::Refused | Doubt::Failed => 3,
    }
}

/// What the best of a shard's leaves is, by what speaks against each.
fn best(doubts: &[Doubt]) -> Reason {
    let some = |doubt| doubts.contains(&doubt);
    if some(Doubt::Refused) {
        Reason::Refused
    } else if some(Doubt::Silent) || some(Doubt::Late) {
        Reason::Slow
    } else {
        Reason::Dead
    }
}

#[cfg(test)]
mod tests {
    use model::ids::Generation;
    use proto::admin::SERVE;

    use super::*;

    #[test]
    fn a_late_leaf_is_there() {
        let admits = |doubt| [Trust::Any, Trust::There, Trust::Well].map(|trust| trust.admits(doubt));
        assert_eq!(admits(None), [true; 3]);
        assert_eq!(admits(Some(Doubt::Late)), [true, true, false]);
        for doubt in [Doubt::Silent, Doubt::Refused, Doubt::Failed] {
            assert_eq!(admits(Some(doubt)), [true, false, false]);
        }
        assert_eq!(best(&[Doubt::Failed, Doubt::Silent]), Reason::Slow);
        assert_eq!(best(&[Doubt::Late, Doubt::Refused]), Reason::Refused);
        assert_eq!(best(&[]), Reason::Dead);
    }

    #[test]
    fn a_leaf_is_not_asked_again_for_what_it_was_asked_nor_its_host() {
        let state = |name: &str, host: &str| NodeState {
            node: NodeId(name.into()),
            roles: vec![SERVE.to_owned()],
            public: None,
            internal: Some(format!("{host}:7701")),
            zone: None,
            draining: false,
        };
        let at = |shard| ShardAt { shard: ShardId(shard), generation: Generation(1) };
        let seen = |hosts: [&str; 3]| {
            let states: Vec<NodeState> =
                ["a", "b", "c"].iter().zip(hosts).map(|(name, host)| state(name, host)).collect();
            let nodes = states.iter().map(|state| (state.node.clone(), state.clone())).collect();
            let view = View { nodes, ..View::default() };
            // Leaf a was asked for two shards; who is asked for the second, and for a third.
            let asked = [at(0), at(1)];
            let tried = Tried::of([(&states[0].node, &asked[..])].into_iter());
            let admits = |tried: &Tried<'_>, shard| {
                [0, 1, 2].map(|leaf: usize| tried.admits(&states[leaf], ShardId(shard)))
            };
            let apart = tried.clone().apart(&view, &[at(1)]);
            let elsewhere = tried.clone().apart(&view, &[at(2)]);
            [admits(&tried, 1), admits(&tried, 2), admits(&apart, 1), admits(&elsewhere, 2)]
        };
        let (own, other) = ([false, true, true], [false, false, true]);
        assert_eq!(seen(["x", "x", "y"]), [own, [true; 3], other, [true; 3]]);
        assert_eq!(seen(["x", "x", "x"]), [own, [true; 3], own, [true; 3]]);
    }

    #[test]
    fn what_is_missing_says_what_the_caller_can_do() {
        let enough =
            Enough { documents: [10, 10, 10, 10].into(), least: 30.0, missing: Vec::new(), lagging: false };
        let missing = |reasons: &[Reason]| -> Vec<Missing> {
            (0..)
                .zip(reasons)
                .map(|(shard, reason)| Missing { shard: ShardId(shard), reason: *reason })
                .collect()
        };
        assert_eq!(possible(&enough, &missing(&[Reason::Dead])), Ok(()));
        for (last, kind) in [
            (Reason::Dead, Kind::Unavailable),
            (Reason::Lagging, Kind::Unavailable),
            (Reason::Refused, Kind::Overloaded),
            (Reason::Expired, Kind::Expired),
        ] {
            let error = possible(&enough, &missing(&[Reason::Dead, last])).unwrap_err();
            assert_eq!(error.kind, kind);
            assert!(
                error.message.contains(&format!("(shard 0 is dead, shard 1 is {})", last.name())),
                "{error}"
            );
        }
    }
}
