//! This node's entry among the live ones.

use std::sync::Arc;
use std::time::Duration;

use proto::Error;
use proto::admin::NodeState;
use runtime::CancellationToken;

use crate::coordinator::{Coordinator, Expect, Lease, Put};
use crate::keys;

/// How long a node that stopped renewing counts as live.
pub const LEASE: Duration = Duration::from_secs(5);

/// A node's membership. Keys put under its lease end with the node.
#[derive(Clone)]
pub struct Membership {
    coordinator: Arc<dyn Coordinator>,
    lease: Lease,
}

impl Membership {
    /// Joins.
    ///
    /// # Errors
    /// When the coordinator is out of reach.
    pub async fn join(coordinator: Arc<dyn Coordinator>, state: &NodeState) -> Result<Self, Error> {
        let lease = coordinator.grant(LEASE).await?;
        let joined = Self { coordinator, lease };
        let value = serde_json::to_vec(state).expect("a node's record is plain JSON");
        joined.put(keys::node(&state.node), value).await?;
        Ok(joined)
    }

    /// Puts a key that ends with this node.
    ///
    /// # Errors
    /// When the coordinator is out of reach, or the lease has ended.
    pub async fn put(&self, key: String, value: Vec<u8>) -> Result<(), Error> {
        let put = Put { key, value, expect: Expect::Any, lease: Some(self.lease), guard: None };
        self.coordinator.put(put).await.map(|_| ())
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// When the coordinator is out of reach.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        self.coordinator.delete(key, Expect::Any).await.map(|_| ())
    }

    /// Renews the lease until the token is cancelled, then leaves.
    ///
    /// # Errors
    /// When the lease has ended.
    pub async fn run(self, token: CancellationToken) -> Result<(), Error> {
        let mut tick = tokio::time::interval(LEASE / 3);
        loop {
            tokio::select! {
                () = token.cancelled() => return self.coordinator.revoke(self.lease).await,
                _ = tick.tick() => match self.coordinator.keep_alive(self.lease).await {
                    Ok(true) => {}
                    Ok(false) => return Err(Error::unavailable("this node's lease has ended")),
                    Err(error) => tracing::warn!(%error, "failed to renew this node's lease; it is tried again"),
                },
            }
        }
    }
}
