//! Asking a leaf that is late whether it is there at all.

use std::time::Duration;

use model::ids::NodeId;
use model::standing::Doubt;
use runtime::{Deadline, OnError};
use tokio::time::Instant;

use crate::root::Root;
use crate::scatter::seconds;

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
        let within = self.memory().within(settings.silent_after, settings.attempt_timeout / 50);
        let Some(ping) = self.memory().ping(node, quiet.max(within)) else { return };
        let (Ok(leaf), root, node) = (self.leaf(node), self.clone(), node.clone()) else { return };
        let deadline = Deadline::after(settings.doubted_for);
        self.parts().scope.spawn("ping", OnError::Log, |stop| async move {
            let begun = Instant::now();
            let call = async {
                let mut call = leaf.ping(deadline);
                if let Ok(pong) = tokio::time::timeout(within, &mut call).await {
                    return pong;
                }
                // The answer may be here, unread, while this node stood still.
                if let Ok(pong) = tokio::time::timeout(root.settings().silent_after, &mut call).await {
                    return pong;
                }
                root.memory().falls_silent(&ping);
                call.await
            };
            let pong = tokio::select! {
                pong = call => pong,
                () = stop.cancelled() => return,
            };
            match pong {
                Ok(load) => root.memory().pong(&ping, begun.elapsed(), load),
                Err(_) => root.memory().doubt(&node, root.settings().doubted_for, Doubt::Failed),
            }
        });
    }
}
