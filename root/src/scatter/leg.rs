//! The shards that were first asked of one leaf, and the attempts at them.

use proto::leaf::ShardAt;

use super::question::Part;

/// Shards that one leaf answers for together.
pub(super) struct Slot<T> {
    pub(super) part: Option<Part<T>>,
    /// Calls without an answer.
    pub(super) open: usize,
}

/// Slots that together answer a leg.
pub(super) struct Attempt<T> {
    pub(super) slots: Vec<Slot<T>>,
    pub(super) failed: bool,
}

impl<T> Attempt<T> {
    pub(super) fn new(slots: usize) -> Self {
        let slots = (0..slots).map(|_| Slot { part: None, open: 0 });
        Self { slots: slots.collect(), failed: false }
    }

    pub(super) fn complete(&self) -> bool {
        !self.failed && self.slots.iter().all(|slot| slot.part.is_some())
    }
}

/// Where a call belongs.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) leg: usize,
    pub(super) attempt: usize,
    pub(super) slot: usize,
}

/// One leg.
pub(super) struct Leg<T> {
    pub(super) shards: Vec<ShardAt>,
    pub(super) attempts: Vec<Attempt<T>>,
    /// Every call for it so far, until it is done.
    pub(super) calls: Vec<usize>,
    pub(super) done: bool,
}
