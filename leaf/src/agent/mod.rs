//! Keeps a leaf at what the cluster asks of it.
//!
//! ```text
//! view ─► hold      open what is placed here, let go of what is not;
//!                   take and resign ownership, and say so
//!      ─► announce  tell the replicas of each generation published here
//!      ─► report    tell the controller what is open
//! ```
//!
//! The three run side by side, so that a slow one delays no other.

mod announce;
mod hold;
mod report;
mod rule;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster::{Directory, Membership, View};
use model::ids::{Generation, IndexUid, NodeId, ShardId};
use runtime::CancellationToken;
use tokio::sync::{Notify, watch};

use crate::node::Leaf;

/// What an agent is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a shard stays without an owner before the next leaf takes it,
    /// when the last one is gone: a node whose lease was lost comes back within
    /// this.
    pub takeover_after: Duration,
    /// Shards that are opened at one time.
    pub opening_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { takeover_after: Duration::from_millis(500), opening_max: 8 }
    }
}

/// Follows a view for a leaf.
#[derive(Clone)]
pub struct Agent {
    leaf: Leaf,
    view: watch::Receiver<Arc<View>>,
    membership: Membership,
    directory: Directory,
    settings: Settings,
    shared: Arc<Shared>,
}

/// What the parts of an agent tell each other.
#[derive(Default)]
struct Shared {
    /// The newest generation that a replica elsewhere said it has opened.
    confirmed: Mutex<BTreeMap<(IndexUid, ShardId, NodeId), Generation>>,
    /// Rung when something was confirmed.
    rung: Notify,
}

impl Shared {
    fn confirmed(&self) -> std::sync::MutexGuard<'_, BTreeMap<(IndexUid, ShardId, NodeId), Generation>> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agent {
    /// An agent for `leaf`.
    #[must_use]
    pub fn new(
        leaf: Leaf,
        view: watch::Receiver<Arc<View>>,
        membership: Membership,
        directory: Directory,
        settings: Settings,
    ) -> Self {
        Self { leaf, view, membership, directory, settings, shared: Arc::default() }
    }

    /// Follows until the token is cancelled.
    pub async fn run(self, token: CancellationToken) {
        let announcing = self.clone().announce();
        let reporting = self.clone().report();
        tokio::select! {
            () = token.cancelled() => {}
            () = Box::pin(self.hold()) => {}
            () = Box::pin(announcing) => {}
            () = Box::pin(reporting) => {}
        }
    }
}

/// Waits for a change of the view; false when there will be none.
async fn next(view: &mut watch::Receiver<Arc<View>>) -> bool {
    view.changed().await.is_ok()
}
