//! Who takes a shard, and who gives it up.

use std::time::Duration;

use model::ids::NodeId;

/// What a leaf knows of one shard that it holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    /// This leaf.
    pub(super) me: &'a NodeId,
    /// Whether it owns the shard, or is about to.
    pub(super) owning: bool,
    /// Who should own it: the first live leaf of its list that is not leaving.
    pub(super) should: Option<&'a NodeId>,
    /// Who says that it owns it, and whether that one is live.
    pub(super) owner: Option<(&'a NodeId, bool)>,
    /// Whether who should own it has opened the newest generation.
    pub(super) ready: bool,
    /// Whether this leaf is leaving.
    pub(super) draining: bool,
    /// For how long nobody has owned it since its owner vanished; `None` when
    /// the last owner gave it up, or there was none.
    pub(super) orphaned: Option<Duration>,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Stay,
    /// Take it.
    Take,
    /// Take it once it has been orphaned for this much longer.
    TakeAfter(Duration),
    /// Give it up.
    Resign,
}

/// Decides. Safety does not rest on it: the log does not let two own.
pub(super) fn decide(seen: Seen<'_>, takeover_after: Duration) -> Step {
    let mine = |node: &NodeId| node == seen.me;
    if seen.owning {
        return match (seen.owner, seen.should) {
            // Another has taken it while this leaf was away.
            (Some((owner, true)), _) if !mine(owner) => Step::Resign,
            (_, Some(should)) if !mine(should) && (seen.draining || seen.ready) => Step::Resign,
            _ => Step::Stay,
        };
    }
    if !seen.should.is_some_and(mine) {
        return Step::Stay;
    }
    match seen.owner {
        // It gives the shard up when it sees that this leaf is ready.
        Some((owner, true)) if !mine(owner) => Step::Stay,
        Some((owner, false)) if !mine(owner) => Step::TakeAfter(takeover_after),
        // My own word from before a restart.
        Some(_) => Step::Take,
        None => match seen.orphaned {
            Some(since) if since < takeover_after => Step::TakeAfter(takeover_after - since),
            _ => Step::Take,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_millis(500);

    #[test]
    fn a_shard_is_taken_by_the_one_that_should_and_no_sooner() {
        let (me, other) = (NodeId("me".into()), NodeId("other".into()));
        let seen = |owning, should, owner, orphaned| {
            decide(Seen { me: &me, owning, should, owner, ready: false, draining: false, orphaned }, AFTER)
        };
        assert_eq!(seen(false, Some(&other), None, None), Step::Stay);
        assert_eq!(seen(false, Some(&me), None, None), Step::Take);
        assert_eq!(seen(false, Some(&me), Some((&me, true)), None), Step::Take);
        assert_eq!(seen(false, Some(&me), Some((&other, true)), None), Step::Stay);
        let orphaned = |ms| seen(false, Some(&me), None, Some(Duration::from_millis(ms)));
        assert_eq!(orphaned(100), Step::TakeAfter(Duration::from_millis(400)));
        assert_eq!(orphaned(500), Step::Take);
    }

    #[test]
    fn an_owner_gives_up_to_who_is_ready_or_when_it_leaves() {
        let (me, other) = (NodeId("me".into()), NodeId("other".into()));
        let seen = |should, owner, ready, draining| {
            decide(Seen { me: &me, owning: true, should, owner, ready, draining, orphaned: None }, AFTER)
        };
        assert_eq!(seen(Some(&me), None, false, false), Step::Stay);
        assert_eq!(seen(Some(&other), Some((&me, true)), false, false), Step::Stay);
        assert_eq!(seen(Some(&other), Some((&me, true)), true, false), Step::Resign);
        assert_eq!(seen(Some(&other), Some((&me, true)), false, true), Step::Resign);
        assert_eq!(seen(None, Some((&me, true)), false, true), Step::Stay, "nobody else can");
        assert_eq!(seen(Some(&me), Some((&other, true)), false, false), Step::Resign);
        assert_eq!(seen(Some(&me), Some((&other, false)), false, false), Step::Stay);
    }
}
