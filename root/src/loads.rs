//! What this root has asked of each leaf and not yet been answered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use model::ids::NodeId;

/// Sub-requests under way, by leaf. One that left the cluster costs its name.
#[derive(Default)]
pub(crate) struct Loads(RwLock<BTreeMap<NodeId, Arc<AtomicUsize>>>);

/// One call under way; it ends when this is dropped.
pub(crate) struct Sent {
    unanswered: Arc<AtomicUsize>,
    shards: usize,
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.unanswered.fetch_sub(self.shards, Ordering::Relaxed);
    }
}

impl Loads {
    /// Notes a call for so many shards.
    pub(crate) fn send(&self, node: &NodeId, shards: usize) -> Sent {
        let unanswered = self.of(node);
        unanswered.fetch_add(shards, Ordering::Relaxed);
        Sent { unanswered, shards }
    }

    /// Shards that were asked of a leaf and are not answered.
    pub(crate) fn unanswered(&self, node: &NodeId) -> usize {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.get(node).map_or(0, |unanswered| unanswered.load(Ordering::Relaxed))
    }

    fn of(&self, node: &NodeId) -> Arc<AtomicUsize> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(node).cloned();
        known.unwrap_or_else(|| {
            self.0.write().unwrap_or_else(PoisonError::into_inner).entry(node.clone()).or_default().clone()
        })
    }

    /// Forgets leaves that are gone and owe nothing.
    pub(crate) fn keep(&self, known: impl Fn(&NodeId) -> bool) {
        let mut loads = self.0.write().unwrap_or_else(PoisonError::into_inner);
        loads.retain(|node, unanswered| known(node) || unanswered.load(Ordering::Relaxed) > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_until_it_ends_and_who_is_gone_is_forgotten() {
        let (loads, node) = (Loads::default(), NodeId("a".into()));
        let (one, two) = (loads.send(&node, 3), loads.send(&node, 1));
        assert_eq!(loads.unanswered(&node), 4);
        drop(one);
        loads.keep(|_| false);
        assert_eq!(loads.unanswered(&node), 1);
        drop(two);
        loads.keep(|_| false);
        assert!(loads.0.read().unwrap().is_empty());
    }
}
