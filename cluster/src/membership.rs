//! This node's entry among the live ones, kept.
//!
//! **Invariant:** the keys of a membership live with one lease. When it ends,
//! for whatever reason, the node joins again at once, and whoever put keys puts
//! them again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::Error;
use proto::admin::NodeState;
use runtime::CancellationToken;
use tokio::sync::watch;

use crate::complaint::Complaint;
use crate::coordinator::{Coordinator, Event, Expect, Lease, Put, Watch};
use crate::keys;

/// How long a node that stopped renewing counts as live, where settings name no
/// time: short enough that writes pause for seconds, long enough for a busy
/// machine.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(3);
/// Between attempts to join.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// A node's membership. Clones are one.
#[derive(Clone)]
pub struct Membership(Arc<Inner>);

struct Inner {
    coordinator: Arc<dyn Coordinator>,
    ttl: Duration,
    state: Mutex<NodeState>,
    /// The lease, and how many there were.
    lease: watch::Sender<(u64, Option<Lease>)>,
}

impl Membership {
    /// A node that has yet to join; its lease lasts `ttl`.
    #[must_use]
    pub fn new(coordinator: Arc<dyn Coordinator>, state: NodeState, ttl: Duration) -> Self {
        let (lease, _) = watch::channel((0, None));
        Self(Arc::new(Inner { coordinator, ttl, state: Mutex::new(state), lease }))
    }

    /// Tells of every joining: a higher number says that all keys under the
    /// former lease are gone.
    #[must_use]
    pub fn joined(&self) -> watch::Receiver<(u64, Option<Lease>)> {
        self.0.lease.subscribe()
    }

    /// Puts a key that ends with this node, unless it has another value; false
    /// when it has.
    ///
    /// # Errors
    /// When the coordinator is out of reach, or this node has not joined.
    pub async fn claim(&self, key: String, value: Vec<u8>) -> Result<bool, Error> {
        if self.put(key.clone(), value.clone(), Expect::Absent).await? {
            return Ok(true);
        }
        match self.0.coordinator.get(&key).await? {
            // From an earlier lease of this node: it moves to this one.
            Some(entry) if entry.value == value => {
                self.put(key, value, Expect::Revision(entry.revision)).await
            }
            _ => Ok(false),
        }
    }

    /// Deletes a key of this node's; another's stays.
    ///
    /// # Errors
    /// When the coordinator is out of reach.
    pub async fn withdraw(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        if let Some(entry) = self.0.coordinator.get(key).await?
            && entry.value == value
        {
            self.0.coordinator.delete(key, Expect::Revision(entry.revision)).await?;
        }
        Ok(())
    }

    /// Tells everybody that this node is leaving.
    ///
    /// # Errors
    /// When the coordinator is out of reach; it is then told at the next
    /// joining.
    pub async fn drain(&self) -> Result<(), Error> {
        self.state().draining = true;
        self.tell().await
    }

    /// Stays joined until the token is cancelled, then leaves.
    pub async fn run(self, token: CancellationToken) {
        let mut trouble = Complaint::new("failed to renew this node's lease; it is tried again");
        let mut watch = None;
        let mut tick = tokio::time::interval(self.0.ttl / 4);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let gone = async {
                match watch.as_mut() {
                    Some(watch) => gone(watch).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = token.cancelled() => break,
                _ = tick.tick() => {}
                () = gone => watch = None,
            }
            match self.renew(&mut watch).await {
                Ok(()) => trouble.over(),
                Err(error) => {
                    trouble.say(&error);
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
        let lease = self.0.lease.borrow().1;
        if let Some(lease) = lease
            && let Err(error) = self.0.coordinator.revoke(lease).await
        {
            tracing::warn!(%error, "failed to leave; the lease ends by itself");
        }
    }

    /// Prolongs the lease, or joins.
    async fn renew(&self, watch: &mut Option<Watch>) -> Result<(), Error> {
        let coordinator = &self.0.coordinator;
        let key = keys::node(&self.state().node);
        if watch.is_none() {
            *watch = Some(coordinator.watch(&key).await?);
        }
        let lease = self.0.lease.borrow().1;
        if let Some(lease) = lease
            && coordinator.keep_alive(lease).await?
        {
            return Ok(());
        }
        let granted = coordinator.grant(self.0.ttl).await?;
        let again = lease.is_some();
        self.0.lease.send_modify(|lease| *lease = (lease.0 + 1, Some(granted)));
        self.tell().await?;
        if again {
            tracing::warn!("this node's lease had ended; it has joined again");
        }
        Ok(())
    }

    async fn tell(&self) -> Result<(), Error> {
        let (key, value) = {
            let state = self.state();
            (keys::node(&state.node), serde_json::to_vec(&*state).expect("a node's record is plain JSON"))
        };
        self.put(key, value, Expect::Any).await.map(|_| ())
    }

    async fn put(&self, key: String, value: Vec<u8>, expect: Expect) -> Result<bool, Error> {
        let lease = self.0.lease.borrow().1;
        let lease = lease.ok_or_else(|| Error::unavailable("this node has not joined the cluster yet"))?;
        let put = Put { key, value, expect, lease: Some(lease), guard: None };
        Ok(self.0.coordinator.put(put).await?.is_some())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, NodeState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until this node's key is deleted, or may have been.
async fn gone(watch: &mut Watch) {
    while let Some(Event::Put(_)) = watch.recv().await {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Embedded;
    use model::ids::NodeId;

    #[tokio::test(start_paused = true)]
    async fn a_node_whose_lease_was_lost_joins_again() {
        let coordinator: Arc<dyn Coordinator> = Arc::new(Embedded::new());
        let state = NodeState {
            node: NodeId("a".into()),
            roles: vec![],
            public: None,
            internal: None,
            zone: None,
            draining: false,
        };
        let membership = Membership::new(coordinator.clone(), state, LEASE_DEFAULT);
        let mut joined = membership.joined();
        let token = CancellationToken::new();
        let run = membership.clone().run(token.clone());
        let test = async {
            let first = joined.wait_for(|(times, _)| *times == 1).await.unwrap().1.unwrap();
            coordinator.revoke(first).await.unwrap();
            joined.wait_for(|(times, _)| *times == 2).await.unwrap();
            while coordinator.get("nodes/a").await.unwrap().is_none() {
                tokio::task::yield_now().await;
            }
            assert!(membership.claim("owners/x".to_owned(), b"a".to_vec()).await.unwrap());
            assert!(membership.claim("owners/x".to_owned(), b"a".to_vec()).await.unwrap(), "again");
            assert!(!membership.claim("owners/x".to_owned(), b"b".to_vec()).await.unwrap());
            membership.withdraw("owners/x", b"b").await.unwrap();
            assert!(coordinator.get("owners/x").await.unwrap().is_some(), "another's stays");
            token.cancel();
        };
        tokio::join!(run, test);
        assert!(coordinator.list("").await.unwrap().is_empty(), "who leaves takes everything along");
    }
}
