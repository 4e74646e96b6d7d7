//! Asking a leaf that is late whether it is there at all.

use std::time::Duration;

use model::ids::NodeId;
use model::standing::Doubt;
use proto::Kind;
use runtime::{Deadline, OnError};
use tokio::time::Instant;

use crate::root::Root;
use crate::scatter::seconds;

/// A ping that takes longer than this, or than a fiftieth of what a call may
/// take, says that a leaf stands still: many round trips within a region.
const LONGEST: Duration = Duration::from_millis(10);

/// How long a leaf may be quiet before it is pinged.
pub(crate) fn quiet(root: &Root, usual: f64) -> Duration {
    let settings = root.settings();
    // What takes no longer than finding out is not worth it.
    seconds(usual * settings.hedge.ping).max(settings.silent_after * 2)
}

impl Root {
    /// Pings a leaf that has been quiet, unless it is pinged already; without an
    /// answer it stands still.
    pub(crate) fn ping(&self, node: &NodeId, quiet: Duration) {
        let settings = self.settings();
        let longest = (settings.attempt_timeout / 50).max(LONGEST);
        let within = self.memory().within(settings.silent_after, longest);
        let Some(ping) = self.memory().ping(node, quiet.max(within)) else { return };
        let (Ok(leaf), root, node) = (self.leaf(node), self.clone(), node.clone()) else { return };
        let deadline = Deadline::after(settings.doubted_for);
        self.parts().scope.spawn("ping", OnError::Log, |stop| async move {
            let begun = Instant::now();
            let call = async {
                let mut call = leaf.ping(deadline);
                if let Ok(pong) = tokio::time::timeout(within, &mut call).await {
                    return Some(pong);
                }
                // The answer may be here, unread, while this node stood still.
                if let Ok(pong) = tokio::time::timeout(root.settings().silent_after, &mut call).await {
                    return Some(pong);
                }
                // Heard since, it is pinged again when it has been quiet again.
                if root.memory().falls_silent(&ping) { Some(call.await) } else { None }
            };
            let pong = tokio::select! {
                pong = call => pong,
                () = stop.cancelled() => return,
            };
            match pong {
                Some(Ok(load)) => root.memory().pong(&ping, begun.elapsed(), load),
                // It is there, and has too much to do.
                Some(Err(error)) if error.kind == Kind::Overloaded => {}
                Some(Err(_)) if root.memory().ping_failed(&ping) => {
                    root.memory().doubt(&node, root.settings().doubted_for, Doubt::Failed);
                }
                Some(Err(_)) | None => {}
            }
        });
    }
}
