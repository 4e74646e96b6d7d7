//! Telling the replicas of each generation that is published here.
//!
//! A call that answers says that the replica has it open. One that fails is
//! made again, so nothing is polled and nothing is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use model::ids::{Generation, IndexUid, NodeId, ShardId};
use proto::leaf::ShardAt;
use runtime::Deadline;
use tokio::time::Instant;

use super::{Agent, next};

/// How long a replica may take to open a generation: it may have to fetch it
/// whole.
const FOLLOW_WITHIN: Duration = Duration::from_secs(60);
/// Between attempts at a replica that failed.
const RETRY_AFTER: Duration = Duration::from_millis(300);

type Key = (IndexUid, ShardId, NodeId);

impl Agent {
    pub(super) async fn announce(mut self) {
        let mut calls = FuturesUnordered::new();
        let mut calling: BTreeSet<Key> = BTreeSet::new();
        let mut rest: BTreeMap<Key, Instant> = BTreeMap::new();
        loop {
            let changed = self.leaf.changed();
            self.view.borrow_and_update();
            let now = Instant::now();
            rest.retain(|_, until| *until > now);
            for (key, generation) in self.unconfirmed() {
                if !rest.contains_key(&key) && calling.insert(key.clone()) {
                    calls.push(self.clone().tell_replica(key, generation));
                }
            }
            let again = rest.values().min().copied();
            tokio::select! {
                () = changed => {}
                ok = next(&mut self.view) => if !ok {
                    return;
                },
                Some((key, told)) = calls.next() => {
                    calling.remove(&key);
                    match told {
                        Ok(generation) => {
                            self.shared.confirmed().insert(key, generation);
                            self.shared.rung.notify_one();
                        }
                        Err(error) => {
                            let (_, shard, node) = &key;
                            tracing::debug!(%shard, %node, %error, "a replica did not open a generation; it is told again");
                            rest.insert(key, Instant::now() + RETRY_AFTER);
                        }
                    }
                }
                () = at(again) => {}
            }
        }
    }

    /// The replicas that have not opened what is newest here.
    fn unconfirmed(&self) -> Vec<(Key, Generation)> {
        let view = self.view.borrow().clone();
        let me = self.leaf.node();
        let mut confirmed = self.shared.confirmed();
        let mut open = Vec::new();
        let mut placed = BTreeSet::new();
        for index in view.indexes.values() {
            for shard in (0..index.definition.shards).map(ShardId) {
                if !index.places(shard, me) || !self.leaf.owns(&index.uid, shard) {
                    continue;
                }
                let Some(newest) = self.leaf.newest(&index.uid, shard) else { continue };
                let others: BTreeSet<&NodeId> =
                    index.holders(shard).iter().chain(index.candidates(shard)).collect();
                for node in others.into_iter().filter(|node| *node != me && view.live(node).is_some()) {
                    let key = (index.uid.clone(), shard, node.clone());
                    if confirmed.get(&key).is_none_or(|known| *known < newest) {
                        open.push((key.clone(), newest));
                    }
                    placed.insert(key);
                }
            }
        }
        // A replica that is gone comes back with nothing open.
        confirmed.retain(|key, _| placed.contains(key));
        open
    }

    async fn tell_replica(self, key: Key, generation: Generation) -> (Key, Result<Generation, proto::Error>) {
        let (uid, shard, node) = &key;
        let told = async {
            let leaf = self.directory.leaf(node)?;
            let at = ShardAt { shard: *shard, generation };
            leaf.follow(uid, at, Deadline::after(FOLLOW_WITHIN)).await.map(|()| generation)
        };
        let told = told.await;
        (key, told)
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
