//! The service in front of a leaf's shards: what roots and other leaves call.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster::from_store;
use model::ids::{IndexUid, Seq, ShardId};
use model::statistics::Statistics;
use proto::controller::Held;
use proto::leaf::{
    Address, Fetch, Found, LeafHit, Load, Search, ShardAt, ShardWrite, StatisticsFrom, StatisticsRequest,
};
use proto::search::{Document, LeafProfile};
use proto::{Error, leaf};
use runtime::{Deadline, Pool, Priority};

use super::{Leaf, expired};
use crate::exec::{self, Job};
use crate::replica::{Open, internal};

#[async_trait]
impl leaf::Leaf for Leaf {
    async fn write(&self, write: ShardWrite) -> Result<Seq, Error> {
        self.has_room()?;
        self.handle(&write.uid, write.shard)?.write(write.operations, write.deadline).await
    }

    async fn nudge(&self, uid: &IndexUid, shard: ShardId) -> Result<(), Error> {
        self.handle(uid, shard)?.nudge()
    }

    async fn follow(&self, uid: &IndexUid, at: ShardAt, deadline: Deadline) -> Result<(), Error> {
        let replica = self.shard(uid, at.shard)?.replica;
        let following = async {
            if replica.newest().is_some_and(|open| open.manifest.generation >= at.generation) {
                return Ok(());
            }
            let store = &self.0.parts.store;
            let found =
                store.manifest(uid, at.shard, at.generation).await.map_err(|error| from_store(&error))?;
            let manifest = match found {
                Some(manifest) => manifest,
                // Superseded and collected meanwhile.
                None => store.newest_manifest(uid, at.shard).await.map_err(|error| from_store(&error))?,
            };
            replica.open(manifest).await?;
            self.0.changed.notify_waiters();
            Ok(())
        };
        match tokio::time::timeout_at(deadline.instant(), following).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::expired(format!(
                "generation {} of shard {} could not be opened in time",
                at.generation, at.shard
            ))),
        }
    }

    async fn held(&self) -> Result<Vec<Held>, Error> {
        Ok(self.opened())
    }

    async fn ping(&self, _: Deadline) -> Result<Load, Error> {
        Ok(load(&self.0.pool))
    }

    async fn statistics(&self, request: StatisticsRequest) -> Result<Vec<Statistics>, Error> {
        let opens = self.opens(&request.uid, &request.shards)?;
        self.compute(Priority::Search, request.deadline, move |cancel| {
            let count = |open: &Arc<Open>| {
                let counted = exec::count(&[&open.snapshot], &request.terms, cancel).map_err(internal)?;
                counted.ok_or_else(expired)
            };
            opens.iter().map(count).collect()
        })
        .await
    }

    async fn search(&self, search: Search) -> Result<Found, Error> {
        let opens = self.opens(&search.uid, &search.shards)?;
        let node = search.profile.then(|| self.0.parts.node.to_string());
        let metrics = self.0.metrics.clone();
        let deadline = search.deadline;
        let pool = &self.0.pool;
        let permit = self.0.admission.admit(|| wait(pool, self.0.settings.threads))?;
        let searched = self.compute(Priority::Search, deadline, move |cancel| {
            let found = run(&search, &opens, cancel, node);
            metrics.searches.increment(1);
            if let Ok((_, scored)) = &found {
                metrics.scored.increment(*scored);
            }
            found.map(|(found, _)| (found, cancel.queued()))
        });
        let (mut found, queued) = searched.await?;
        permit.answered(queued);
        found.load = Some(load(pool));
        Ok(found)
    }

    async fn fetch(&self, fetch: Fetch) -> Result<Vec<Document>, Error> {
        let shards: Vec<ShardAt> = fetch.documents.iter().map(|(at, _)| *at).collect();
        let opens = self.opens(&fetch.uid, &shards)?;
        self.compute(Priority::Fetch, fetch.deadline, move |cancel| {
            let mut documents = Vec::with_capacity(opens.len());
            for (open, (_, address)) in opens.iter().zip(&fetch.documents) {
                if cancel.check() {
                    return Err(expired());
                }
                documents.push(document(open, *address)?);
            }
            Ok(documents)
        })
        .await
    }

    async fn get(
        &self,
        uid: &IndexUid,
        at: ShardAt,
        id: &str,
        deadline: Deadline,
    ) -> Result<Option<Document>, Error> {
        let opens = self.opens(uid, &[at])?;
        let id = id.to_owned();
        self.compute(Priority::Fetch, deadline, move |_| {
            let open = opens.first().ok_or_else(|| Error::internal("no shard was asked"))?;
            let found = open.snapshot.find(&id).map_err(internal)?;
            found.map(|(segment, doc)| document(open, Address { segment, doc })).transpose()
        })
        .await
    }
}

/// How busy the pool is, as roots are told.
fn load(pool: &Pool) -> Load {
    let load = pool.load();
    let count = |count| u32::try_from(count).unwrap_or(u32::MAX);
    let service_us = u32::try_from(load.service.as_micros()).unwrap_or(u32::MAX);
    Load { running: count(load.running), queued: count(load.queued), service_us }
}

/// How long all that waits takes.
fn wait(pool: &Pool, threads: usize) -> Duration {
    let load = pool.load();
    let each = load.service.as_secs_f64() / threads.max(1) as f64;
    Duration::try_from_secs_f64(each * load.queued as f64).unwrap_or(Duration::MAX)
}

fn document(open: &Open, address: Address) -> Result<Document, Error> {
    let (id, source) = open.snapshot.document(address.segment, address.doc).map_err(internal)?;
    Ok(Document { id, source })
}

fn run(
    search: &Search,
    opens: &[Arc<Open>],
    cancel: &runtime::Cancel,
    node: Option<String>,
) -> Result<(Found, u64), Error> {
    let started = tokio::time::Instant::now();
    let counted;
    let statistics = match &search.statistics {
        StatisticsFrom::Given(statistics) => statistics.as_ref(),
        StatisticsFrom::TheseShards => {
            let snapshots: Vec<_> = opens.iter().map(|open| &open.snapshot).collect();
            let terms = exec::terms(&search.query);
            counted = exec::count(&snapshots, &terms, cancel).map_err(internal)?.ok_or_else(expired)?;
            &counted
        }
    };
    let shards: Vec<_> =
        search.shards.iter().zip(opens).map(|(at, open)| (at.shard, &open.snapshot)).collect();
    let job = Job {
        query: &search.query,
        filter: search.filter.as_deref(),
        statistics,
        limit: search.limit,
        count: search.count,
    };
    let outcome = exec::search(&shards, &job, cancel).map_err(internal)?;
    let mut hits = Vec::with_capacity(outcome.entries.len());
    for (rank, entry) in outcome.entries.iter().enumerate() {
        let at = entry.shard as usize;
        let address = Address { segment: entry.segment, doc: entry.doc };
        let inline = search.inline_from.is_some_and(|from| rank >= from);
        if inline && cancel.check() {
            return Err(expired());
        }
        let document = inline.then(|| document(&opens[at], address)).transpose()?;
        let shard = search.shards[at].shard;
        hits.push(LeafHit { score: entry.score, hash: entry.hash, shard, address, document });
    }
    let profile = node.map(|node| LeafProfile {
        node,
        shards: search.shards.iter().map(|at| at.shard).collect(),
        queue_us: u64::try_from(cancel.queued().as_micros()).unwrap_or(u64::MAX),
        search_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        strategy: outcome.strategies.iter().map(ToString::to_string).collect(),
        scored: outcome.scored,
        ..LeafProfile::default()
    });
    let counted = !matches!(search.count, model::gather::Count::None);
    let matches = counted.then_some(outcome.matches);
    Ok((Found { hits, matches, bounded: outcome.bounded, profile, load: None }, outcome.scored))
}
