//! Asking a replica of each shard, and another one where the first fails.
//!
//! ```text
//! ask(shards) ─► cover ─┬► one(leaf, shards) ─► answer
//!                       └► one(leaf, shards) ─► error, or late ─► ask(its shards, elsewhere)
//! ```
//!
//! **Invariant:** every shard of the question is answered exactly once, by one
//! replica at the generation that was asked for, or the whole is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use cluster::{Index, View};
use futures::FutureExt;
use futures::future::{BoxFuture, Either, select, try_join_all};
use model::choice::{self, Draw, Replica};
use model::ids::{Generation, IndexUid, NodeId, ShardId};
use proto::leaf::{Leaf, ShardAt};
use proto::{Error, Kind};
use tokio::time::Instant;

use crate::loads::Loads;
use crate::root::Root;

/// How long a replica that lacked a generation is asked last.
const LAGGING_FOR: Duration = Duration::from_secs(1);
/// Replicas remembered as lagging.
const LAGGING_MAX: u64 = 100_000;

/// What this root remembers of its leaves' failures.
pub(crate) struct Memory {
    loads: Loads,
    doubted: RwLock<BTreeMap<NodeId, Instant>>,
    lagging: moka::sync::Cache<(NodeId, IndexUid, ShardId), Generation>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            loads: Loads::default(),
            doubted: RwLock::default(),
            lagging: moka::sync::Cache::builder().max_capacity(LAGGING_MAX).time_to_live(LAGGING_FOR).build(),
        }
    }
}

impl Memory {
    fn doubt(&self, node: &NodeId, time: Duration) {
        let now = Instant::now();
        let mut doubted = self.doubted.write().unwrap_or_else(PoisonError::into_inner);
        doubted.retain(|_, until| *until > now);
        doubted.insert(node.clone(), now + time);
    }

    fn trust(&self, node: &NodeId) {
        let known = self.doubted.read().unwrap_or_else(PoisonError::into_inner).contains_key(node);
        if known {
            self.doubted.write().unwrap_or_else(PoisonError::into_inner).remove(node);
        }
    }

    fn doubts(&self, node: &NodeId) -> bool {
        let doubted = self.doubted.read().unwrap_or_else(PoisonError::into_inner);
        doubted.get(node).is_some_and(|until| *until > Instant::now())
    }

    fn note(&self, node: &NodeId, uid: &IndexUid, asked: &[ShardAt], error: &Error, doubted_for: Duration) {
        match error.kind {
            Kind::Gone => {
                for at in asked {
                    let newest = error.newest.iter().find(|(shard, _)| *shard == at.shard);
                    // One that said nothing holds nothing of it.
                    let newest = newest.map_or(Generation(0), |(_, newest)| *newest);
                    if newest < at.generation {
                        self.lagging.insert((node.clone(), uid.clone(), at.shard), newest);
                    }
                }
            }
            _ => self.doubt(node, doubted_for),
        }
    }
}

/// One leaf's answer for its shards.
pub(crate) struct Part<T> {
    pub(crate) node: NodeId,
    pub(crate) shards: Vec<ShardAt>,
    pub(crate) answer: T,
}

type Call<'a, T> = dyn Fn(Arc<dyn Leaf>, Vec<ShardAt>) -> BoxFuture<'a, Result<T, Error>> + Send + Sync + 'a;

/// A question to some shards of a pinned state.
pub(crate) struct Question<'a, T> {
    pub(crate) root: &'a Root,
    pub(crate) view: &'a View,
    pub(crate) pinned: &'a Index,
    /// Asks one leaf.
    pub(crate) call: &'a Call<'a, T>,
    /// Whether the shards must be answered by one leaf together.
    pub(crate) whole: bool,
}

impl<T: Send> Question<'_, T> {
    /// Asks a replica of each shard.
    pub(crate) async fn ask(&self, shards: Vec<ShardAt>) -> Result<Vec<Part<T>>, Error> {
        self.ask_beside(shards, BTreeSet::new()).await
    }

    /// Asks the given leaves first.
    pub(crate) async fn ask_at(&self, groups: Vec<(NodeId, Vec<ShardAt>)>) -> Result<Vec<Part<T>>, Error> {
        let asked = groups.into_iter().map(|(node, shards)| self.one(node, shards, BTreeSet::new()));
        Ok(try_join_all(asked).await?.into_iter().flatten().collect())
    }

    fn ask_beside(
        &self,
        shards: Vec<ShardAt>,
        tried: BTreeSet<NodeId>,
    ) -> BoxFuture<'_, Result<Vec<Part<T>>, Error>> {
        async move {
            let mut groups = self.root.cover(self.view, self.pinned, &shards, &tried)?;
            if self.whole {
                groups.retain(|(_, taken)| taken.len() == shards.len());
                if groups.is_empty() {
                    return Err(Error::unavailable("no leaf holds all the shards"));
                }
            }
            let asked = groups.into_iter().map(|(node, shards)| self.one(node, shards, tried.clone()));
            Ok(try_join_all(asked).await?.into_iter().flatten().collect())
        }
        .boxed()
    }

    async fn one(
        &self,
        node: NodeId,
        shards: Vec<ShardAt>,
        mut tried: BTreeSet<NodeId>,
    ) -> Result<Vec<Part<T>>, Error> {
        let memory = self.root.memory();
        tried.insert(node.clone());
        let leaf = match self.root.leaf(&node) {
            Ok(leaf) => leaf,
            Err(error) => return self.elsewhere(shards, tried, error).await,
        };
        self.root.metrics().leaf_calls.increment(1);
        let doubted_for = self.root.settings().doubted_for;
        let _sent = memory.loads.send(&node, shards.len());
        let part = |answer| vec![Part { node: node.clone(), shards: shards.clone(), answer }];
        let mut call = (self.call)(leaf, shards.clone());
        let patience = self.root.settings().attempt_timeout;
        match tokio::time::timeout(patience, &mut call).await {
            Ok(Ok(answer)) => {
                memory.trust(&node);
                Ok(part(answer))
            }
            Ok(Err(error)) => {
                if movable(&error) {
                    memory.note(&node, &self.pinned.uid, &shards, &error, doubted_for);
                }
                self.elsewhere(shards, tried, error).await
            }
            // Late: another is asked too, and the first good answer wins.
            Err(_) => {
                memory.doubt(&node, doubted_for);
                self.root.metrics().late.increment(1);
                let second = self.ask_beside(shards.clone(), tried);
                match select(call, second).await {
                    Either::Left((Ok(answer), _)) => {
                        memory.trust(&node);
                        Ok(part(answer))
                    }
                    Either::Right((Ok(parts), _)) => Ok(parts),
                    Either::Left((Err(_), second)) => second.await,
                    // Nobody else can: what is begun may still end.
                    Either::Right((Err(_), call)) => call.await.map(part),
                }
            }
        }
    }

    /// Asks others after an error that others may not have.
    async fn elsewhere(
        &self,
        shards: Vec<ShardAt>,
        tried: BTreeSet<NodeId>,
        error: Error,
    ) -> Result<Vec<Part<T>>, Error> {
        if !movable(&error) {
            return Err(error);
        }
        self.root.metrics().elsewhere.increment(1);
        self.root.memory().loads.keep(|node| self.view.known_node(node).is_some());
        match self.ask_beside(shards, tried).await {
            // That there is nobody else says less than why the first failed.
            Err(other) if other.kind == Kind::Unavailable => Err(error),
            outcome => outcome,
        }
    }
}

/// Whether another replica may do better.
fn movable(error: &Error) -> bool {
    matches!(error.kind, Kind::Unavailable | Kind::Overloaded | Kind::Gone | Kind::Internal)
}

impl Root {
    /// Picks a leaf for each shard among those that were not tried.
    pub(crate) fn cover(
        &self,
        view: &View,
        pinned: &Index,
        shards: &[ShardAt],
        tried: &BTreeSet<NodeId>,
    ) -> Result<Vec<(NodeId, Vec<ShardAt>)>, Error> {
        let memory = self.memory();
        let doubt = |node: &NodeId, at: &ShardAt| {
            let place = (node.clone(), pinned.uid.clone(), at.shard);
            let lagging = memory.lagging.get(&place).is_some_and(|newest| newest < at.generation);
            let live = view.live(node);
            u8::from(lagging)
                + u8::from(memory.doubts(node))
                + u8::from(live.is_some_and(|state| state.draining))
                // Its lease may have lapsed while it goes on serving.
                + 3 * u8::from(live.is_none())
        };
        let replicas: Vec<Vec<Replica<'_>>> = shards
            .iter()
            .map(|at| {
                let known = pinned
                    .holders(at.shard)
                    .iter()
                    .filter(|node| !tried.contains(*node) && view.known_node(node).is_some());
                known
                    .map(|node| Replica {
                        node,
                        doubt: doubt(node, at),
                        load: memory.loads.unanswered(node) as f64,
                    })
                    .collect()
            })
            .collect();
        if let Some(at) = shards.iter().zip(&replicas).find(|(_, replicas)| replicas.is_empty()) {
            return Err(Error::unavailable(format!("no live leaf serves shard {}: retry", at.0.shard))
                .retry_after(Duration::from_secs(1)));
        }
        let mut draw = Draw::new(self.parts().random.u64());
        let groups = choice::cover(&replicas, self.settings().choice, &mut draw);
        Ok(groups
            .into_iter()
            .map(|(node, taken)| (node.clone(), taken.into_iter().map(|at| shards[at]).collect()))
            .collect())
    }
}
