//! Keeps a leaf at what the cluster asks of it: takes up the shards placed on
//! it, owns those that it is first for, reports what is open.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Membership, View, keys};
use model::ids::{IndexUid, ShardId};
use proto::controller::{Controller, Opened};
use runtime::CancellationToken;
use tokio::sync::watch;

use crate::node::{Assignment, Leaf};

/// Between attempts at what failed: a shard that cannot be opened, an owner
/// that ended.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Follows a view for a leaf.
pub struct Agent {
    leaf: Leaf,
    view: watch::Receiver<Arc<View>>,
    membership: Membership,
    controller: Arc<dyn Controller>,
    announced: BTreeSet<(IndexUid, ShardId)>,
    reported: Vec<Opened>,
}

impl Agent {
    /// An agent for `leaf`.
    #[must_use]
    pub fn new(
        leaf: Leaf,
        view: watch::Receiver<Arc<View>>,
        membership: Membership,
        controller: Arc<dyn Controller>,
    ) -> Self {
        Self { leaf, view, membership, controller, announced: BTreeSet::new(), reported: Vec::new() }
    }

    /// Follows until the token is cancelled.
    pub async fn run(mut self, token: CancellationToken) {
        loop {
            // Taken before looking, so that no change falls between.
            let changed = self.leaf.changed();
            let view = self.view.borrow_and_update().clone();
            let settled = self.reconcile(&view).await;
            let again = async {
                if settled {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(RETRY_AFTER).await;
            };
            tokio::select! {
                () = token.cancelled() => return,
                () = changed => {}
                ended = self.view.changed() => if ended.is_err() {
                    return;
                },
                () = again => {}
            }
        }
    }

    /// Does what the view asks; false when something is to be tried again.
    async fn reconcile(&mut self, view: &View) -> bool {
        let mut settled = self.take_up(view).await;
        self.let_go(view);
        for index in view.indexes.values() {
            let generations: Vec<_> = index.shards().map(|at| (at.shard, at.generation)).collect();
            self.leaf.cut_names(&index.uid, &generations);
        }
        settled &= self.announce().await;
        settled & self.report().await
    }

    async fn take_up(&self, view: &View) -> bool {
        let mut settled = true;
        for index in view.indexes.values() {
            for (shard, holders) in (0..).map(ShardId).zip(&index.holders) {
                if !holders.contains(self.leaf.node()) {
                    continue;
                }
                let own = holders.first() == Some(self.leaf.node());
                let definition = (index.number, index.definition.clone());
                let assignment = Assignment { uid: index.uid.clone(), shard, definition, own };
                if let Err(error) = self.leaf.assign(assignment).await {
                    tracing::error!(index = %index.name, %shard, %error, "failed to open a shard; it is tried again");
                    settled = false;
                } else if own && !self.leaf.owns(&index.uid, shard) {
                    // Its owner is taking it, or has failed and is due again.
                    settled = false;
                }
            }
        }
        settled
    }

    fn let_go(&self, view: &View) {
        if !view.known {
            return;
        }
        for (uid, shard) in self.leaf.held() {
            let placed = view.indexes.values().any(|index| {
                let holders = index.holders.get(shard.0 as usize);
                index.uid == uid && holders.is_some_and(|holders| holders.contains(self.leaf.node()))
            });
            // An index that the view cannot read for a moment is not gone.
            let gone = !view.indexes.values().any(|index| index.uid == uid);
            if !placed && gone && self.announced.contains(&(uid.clone(), shard)) {
                self.leaf.release(&uid, shard);
            }
        }
    }

    async fn announce(&mut self) -> bool {
        let owned: BTreeSet<_> = self.leaf.owned().into_iter().collect();
        let mut settled = true;
        for (uid, shard) in owned.difference(&self.announced) {
            let value = self.leaf.node().to_string().into();
            if let Err(error) = self.membership.put(keys::owner(uid, *shard), value).await {
                tracing::warn!(%uid, %shard, %error, "failed to announce an ownership; it is tried again");
                settled = false;
            }
        }
        for (uid, shard) in self.announced.difference(&owned) {
            if let Err(error) = self.membership.delete(&keys::owner(uid, *shard)).await {
                tracing::warn!(%uid, %shard, %error, "failed to withdraw an ownership; it is tried again");
                settled = false;
            }
        }
        if settled {
            self.announced = owned;
        }
        settled
    }

    async fn report(&mut self) -> bool {
        let opened = self.leaf.opened();
        let news: Vec<Opened> = opened.iter().filter(|open| !self.reported.contains(open)).cloned().collect();
        if news.is_empty() {
            return true;
        }
        match self.controller.report(self.leaf.node(), news).await {
            Ok(()) => {
                self.reported = opened;
                true
            }
            Err(error) => {
                tracing::warn!(%error, "failed to report what is open; it is tried again");
                false
            }
        }
    }
}
