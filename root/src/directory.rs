//! Which leaf is reached how.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use model::ids::NodeId;
use proto::Error;
use proto::leaf::Leaf;

/// The leaves that this root can call, by node. Clones share it.
#[derive(Clone, Default)]
pub struct Directory(Arc<RwLock<BTreeMap<NodeId, Arc<dyn Leaf>>>>);

impl Directory {
    /// Adds or replaces the way to a leaf.
    pub fn insert(&self, node: NodeId, leaf: Arc<dyn Leaf>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(node, leaf);
    }

    /// Forgets a leaf.
    pub fn remove(&self, node: &NodeId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(node);
    }

    pub(crate) fn get(&self, node: &NodeId) -> Result<Arc<dyn Leaf>, Error> {
        let leaves = self.0.read().unwrap_or_else(PoisonError::into_inner);
        leaves
            .get(node)
            .cloned()
            .ok_or_else(|| Error::unavailable(format!("leaf {node} is not reachable: retry")))
    }
}
