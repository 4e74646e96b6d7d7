//! The life of a shard's owner, as the log tells it.
//!
//! ```text
//! take:  epoch = 1 + highest ─► fence after the highest seq ─► newest manifest g
//!            ▲                                                    │ re-put as g+1
//!            └──────────── fence not above its seq ◄──────────────┤
//!                                                                 ▼
//!                            append, publish …  ◄──── replay up to the fence
//! ```
//!
//! **Invariant:** at most one owner is ever told "mine" for a seq or a
//! generation, and whoever took the shard has read every record that an
//! earlier owner was told so about.

use std::collections::HashSet;

use model::ids::{Epoch, Generation, IndexUid, Seq, ShardId};
use tokio::time::{Instant, timeout_at};

use crate::error::{Cause, Error};
use crate::frame::Nonce;
use crate::log::Put;
use crate::manifest::Manifest;
use crate::store::Store;
use crate::wal::{Body, Record};
use crate::{Deadline, keys};

/// How an attempt to take a shard ended.
#[derive(Debug)]
pub enum Take {
    /// The caller owns the shard, once it has replayed.
    Taken(Box<Ownership>),
    /// Another took it meanwhile.
    StepDown,
    /// The index is deleted: nobody owns its shards again.
    Deleted,
}

/// What a new owner starts from.
#[derive(Debug)]
pub struct Ownership {
    /// The number of this ownership.
    pub epoch: Epoch,
    /// The first manifest of this epoch: what the files hold so far.
    pub manifest: Manifest,
    /// The fence's place: the next record goes after it.
    pub fence: Seq,
    /// The records that the manifest does not contain, up to the fence.
    /// Nothing may be published before all of them are applied.
    pub replay: Replay,
}

/// Reads a range of records, in order.
#[derive(Debug)]
pub struct Replay {
    store: Store,
    uid: IndexUid,
    shard: ShardId,
    next: Seq,
    last: Seq,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is in the log, durably: acknowledge.
    Mine,
    /// Another's record is in its place: stop owning.
    StepDown(Box<Record>),
}

/// What became of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is the shard's newest generation.
    Mine,
    /// Another's manifest is in its place: stop owning.
    StepDown(Box<Manifest>),
}

impl Replay {
    /// The next record, or `None` after the fence.
    ///
    /// # Errors
    /// A missing record is an error, never an end.
    pub async fn next(&mut self) -> Result<Option<Record>, Error> {
        if self.next > self.last {
            return Ok(None);
        }
        let record = self.store.record(&self.uid, self.shard, self.next).await?;
        let record = record.ok_or_else(|| {
            let path = keys::record(&self.uid, self.shard, self.next);
            Error::broken(&path, "the record is missing, and no manifest contains it")
        })?;
        self.next = self.next.next();
        Ok(Some(record))
    }

    /// Records still to come, the fence included.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        (self.last.0 + 1).saturating_sub(self.next.0)
    }
}

impl Store {
    /// Puts a record at its seq. A caller has one append in flight a shard, and
    /// repeats an [unknown](crate::Kind::Unknown) one with the same record only.
    ///
    /// # Errors
    /// See [`Store::put_numbered`].
    pub async fn append(
        &self,
        uid: &IndexUid,
        shard: ShardId,
        record: &Record,
        deadline: Deadline,
    ) -> Result<Appended, Error> {
        let path = keys::record(uid, shard, record.seq);
        match self.put_numbered(&path, record.encode(), deadline).await? {
            Put::Mine => Ok(Appended::Mine),
            Put::Other(bytes) => {
                Record::decode(&path, &bytes).map(|record| Appended::StepDown(Box::new(record)))
            }
        }
    }

    /// Puts a manifest at its generation, after its files.
    ///
    /// # Errors
    /// See [`Store::put_numbered`].
    pub async fn publish(&self, manifest: &Manifest, deadline: Deadline) -> Result<Published, Error> {
        let path = keys::manifest(&manifest.uid, manifest.shard, manifest.generation);
        match self.put_numbered(&path, manifest.encode(), deadline).await? {
            Put::Mine => Ok(Published::Mine),
            Put::Other(bytes) => {
                Manifest::decode(&path, &bytes).map(|other| Published::StepDown(Box::new(other)))
            }
        }
    }

    /// Takes the ownership of a shard from whoever has it.
    ///
    /// # Errors
    /// When the store fails until the deadline, or a rule of the log is broken.
    ///
    /// # Cancel safety
    /// A dropped attempt leaves at most a fence and a manifest, which harm
    /// nobody: the former owner steps down.
    pub async fn take_shard(
        &self,
        uid: &IndexUid,
        shard: ShardId,
        deadline: Deadline,
    ) -> Result<Take, Error> {
        let taking = Taking { store: self, uid, shard, deadline, mine: HashSet::new() };
        // Every put inside ends at the deadline by itself; this ends the reads.
        match timeout_at(deadline, Box::pin(taking.run())).await {
            Ok(take) => take,
            Err(_) => Err(Cause::Expired("taking a shard").into()),
        }
    }
}

/// One attempt to take a shard.
struct Taking<'a> {
    store: &'a Store,
    uid: &'a IndexUid,
    shard: ShardId,
    deadline: Instant,
    /// The nonces of what this attempt put.
    mine: HashSet<Nonce>,
}

/// A step's result, or how the attempt ends before its end.
type Step<T> = Result<Result<T, Take>, Error>;

impl Taking<'_> {
    async fn run(mut self) -> Result<Take, Error> {
        let mut floor = Seq(0);
        let mut epoch = None;
        loop {
            let fence = match self.fence(&mut epoch, floor).await? {
                Ok(fence) => fence,
                Err(end) => return Ok(end),
            };
            let manifest = match self.begin_epoch(&fence).await? {
                Ok(manifest) => manifest,
                Err(end) => return Ok(end),
            };
            // A stale listing put the fence into a hole below the manifest.
            if fence.seq <= manifest.seq {
                floor = manifest.seq;
                continue;
            }
            return Ok(Take::Taken(Box::new(Ownership {
                epoch: fence.epoch,
                fence: fence.seq,
                replay: Replay {
                    store: self.store.clone(),
                    uid: self.uid.clone(),
                    shard: self.shard,
                    next: manifest.seq.next(),
                    last: fence.seq,
                },
                manifest,
            })));
        }
    }

    /// Steps 0 and 1: chooses the epoch, unless this attempt has one already,
    /// and puts a fence after the highest record.
    async fn fence(&mut self, epoch: &mut Option<Epoch>, floor: Seq) -> Step<Record> {
        let (uid, shard) = (self.uid, self.shard);
        loop {
            let newest = self.store.newest_manifest(uid, shard).await?;
            let floor = floor.max(newest.seq);
            let highest = self.store.highest(&keys::wal(uid, shard), floor.0).await?;
            // The record may be collected when the manifest contains it.
            let top = self.store.record(uid, shard, Seq(highest)).await?;
            if top.as_ref().is_some_and(|top| top.body == Body::Tombstone) {
                return Ok(Err(Take::Deleted));
            }
            let top_epoch = top.map_or(Epoch(0), |top| top.epoch);
            let fence = Record {
                seq: Seq(highest + 1),
                epoch: epoch.unwrap_or_else(|| top_epoch.max(newest.epoch).next()),
                nonce: self.store.nonce(),
                definition: newest.definition,
                body: Body::Fence,
            };
            self.mine.insert(fence.nonce);
            match self.store.append(uid, shard, &fence, self.deadline).await? {
                Appended::Mine => {
                    *epoch = Some(fence.epoch);
                    return Ok(Ok(fence));
                }
                // An earlier fence of this attempt stands below another's record.
                Appended::StepDown(_) if epoch.is_some() => return Ok(Err(Take::StepDown)),
                // Somebody was faster: look again, from the epoch on.
                Appended::StepDown(_) => {}
            }
        }
    }

    /// Step 2: puts the newest manifest again, under this epoch.
    async fn begin_epoch(&mut self, fence: &Record) -> Step<Manifest> {
        loop {
            let newest = self.store.newest_manifest(self.uid, self.shard).await?;
            if self.mine.contains(&newest.nonce) {
                return Ok(Ok(newest));
            }
            if newest.epoch >= fence.epoch {
                return Ok(Err(Take::StepDown));
            }
            if let Some(end) = self.overtaken(fence).await? {
                return Ok(Err(end));
            }
            let manifest = Manifest {
                generation: Generation(newest.generation.0 + 1),
                epoch: fence.epoch,
                nonce: self.store.nonce(),
                ..newest
            };
            self.mine.insert(manifest.nonce);
            if self.store.publish(&manifest, self.deadline).await? == Published::Mine {
                return Ok(Ok(manifest));
            }
        }
    }

    /// Whether another's record stands above the fence. By the rules it has an
    /// epoch above mine; if it has not, stepping down is safe all the same.
    async fn overtaken(&self, fence: &Record) -> Result<Option<Take>, Error> {
        let mut seq = fence.seq.next();
        while let Some(record) = self.store.record(self.uid, self.shard, seq).await? {
            if record.body == Body::Tombstone {
                return Ok(Some(Take::Deleted));
            }
            if !self.mine.contains(&record.nonce) {
                return Ok(Some(Take::StepDown));
            }
            seq = seq.next();
        }
        Ok(None)
    }
}
