//! Which node is reached how.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use model::ids::NodeId;
use proto::Error;
use proto::controller::Controller;
use proto::internal::{Remote, connect};
use proto::leaf::Leaf;
use tokio::sync::watch;

use crate::view::View;

/// The nodes that this one can call: those of its own process directly, all
/// others at the addresses that the view names. Clones share it.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    view: watch::Receiver<Arc<View>>,
    here: RwLock<Here>,
    remote: RwLock<BTreeMap<NodeId, (String, Remote)>>,
}

/// What runs in this process.
#[derive(Default)]
struct Here {
    leaves: BTreeMap<NodeId, Arc<dyn Leaf>>,
    controller: Option<(NodeId, Arc<dyn Controller>)>,
}

impl Directory {
    /// A directory of the nodes in `view`.
    #[must_use]
    pub fn new(view: watch::Receiver<Arc<View>>) -> Self {
        Self(Arc::new(Inner { view, here: RwLock::default(), remote: RwLock::default() }))
    }

    /// Adds a leaf of this process.
    pub fn insert(&self, node: NodeId, leaf: Arc<dyn Leaf>) {
        self.here().leaves.insert(node, leaf);
    }

    /// Adds this process's controller.
    pub fn govern(&self, node: NodeId, controller: Arc<dyn Controller>) {
        self.here().controller = Some((node, controller));
    }

    /// A leaf.
    ///
    /// # Errors
    /// [`proto::Kind::Unavailable`] when nobody knows where it is.
    pub fn leaf(&self, node: &NodeId) -> Result<Arc<dyn Leaf>, Error> {
        let here = self.0.here.read().unwrap_or_else(PoisonError::into_inner).leaves.get(node).cloned();
        match here {
            Some(leaf) => Ok(leaf),
            None => Ok(Arc::new(self.remote(node)?)),
        }
    }

    /// The elected controller.
    ///
    /// # Errors
    /// [`proto::Kind::Unavailable`] while there is none.
    pub fn controller(&self) -> Result<Arc<dyn Controller>, Error> {
        let elected = self.0.view.borrow().controller.clone();
        let (node, _) = elected.ok_or_else(|| Error::unavailable("no controller is elected"))?;
        let here = self.0.here.read().unwrap_or_else(PoisonError::into_inner).controller.clone();
        match here {
            Some((own, controller)) if own == node => Ok(controller),
            _ => Ok(Arc::new(self.remote(&node)?)),
        }
    }

    fn remote(&self, node: &NodeId) -> Result<Remote, Error> {
        let view = self.0.view.borrow().clone();
        let address = view.known_node(node).and_then(|state| state.internal.clone());
        let address = address.ok_or_else(|| Error::unavailable(format!("node {node} is gone: retry")))?;
        let known = self.0.remote.read().unwrap_or_else(PoisonError::into_inner).get(node).cloned();
        if let Some((at, remote)) = known
            && at == address
        {
            return Ok(remote);
        }
        let remote = Remote::new(node.clone(), connect(&address)?);
        let mut remotes = self.0.remote.write().unwrap_or_else(PoisonError::into_inner);
        // Nodes come and go: those that nobody knows any more are forgotten.
        remotes.retain(|node, _| view.known_node(node).is_some());
        remotes.insert(node.clone(), (address, remote.clone()));
        Ok(remote)
    }

    fn here(&self) -> std::sync::RwLockWriteGuard<'_, Here> {
        self.0.here.write().unwrap_or_else(PoisonError::into_inner)
    }
}
