//! Creating and deleting an index.
//!
//! ```text
//! create:  definition 1 ─► manifest 1 of every shard ─► cut 1 ─► the name
//! delete:  the name ─► a tombstone in every shard's log
//! ```
//!
//! **Invariant:** the name decides. Before it is written a half-made index is
//! garbage that nobody sees; after it says deleted, whoever repeats the
//! deletion completes it.

use model::cut::{Cut, CutEntry};
use model::ids::{CutNumber, DefinitionNumber, Epoch, Generation, IndexName, IndexUid, Seq, ShardId};
use model::settings::Definition;

use crate::error::{Cause, Error};
use crate::log::Put;
use crate::manifest::Manifest;
use crate::names::{self, Entry};
use crate::shard::{Appended, Published};
use crate::store::Store;
use crate::wal::{Body, Record};
use crate::{Deadline, keys};

/// What a deletion found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// This call deleted the index.
    Now(IndexUid),
    /// It was deleted before; this call made sure that all of it is.
    Before(IndexUid),
}

impl Store {
    /// Creates an index and returns its uid.
    ///
    /// # Errors
    /// [`Kind::Conflict`](crate::Kind::Conflict) when the name is taken;
    /// [`Kind::Unknown`](crate::Kind::Unknown) when the name may have been
    /// written: read it before trying again.
    pub async fn create_index(
        &self,
        name: &IndexName,
        definition: &Definition,
        deadline: Deadline,
    ) -> Result<IndexUid, Error> {
        definition.check().map_err(|error| Cause::Invalid(error.to_string()))?;
        let exists = || Error::from(Cause::IndexExists(name.to_string()));
        let number = match self.name(name).await? {
            Some((_, Entry::Live { .. })) => return Err(exists()),
            Some((number, Entry::Deleted { .. })) => number + 1,
            None => 1,
        };
        let uid = self.uid();
        self.make_index(&uid, definition, deadline).await?;
        let path = keys::numbered(&keys::name_folder(name), number);
        let entry = names::encode(self.nonce(), &Entry::Live { uid: uid.clone() });
        match self.put_numbered(&path, entry, deadline).await? {
            Put::Mine => Ok(uid),
            Put::Other(_) => Err(exists()),
        }
    }

    /// All of an index but its name.
    async fn make_index(
        &self,
        uid: &IndexUid,
        definition: &Definition,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let first = DefinitionNumber(1);
        let nonce = self.nonce();
        let put = self.put_definition(uid, first, nonce, definition, deadline).await?;
        new_uid(uid, put == Put::Mine)?;
        for shard in 0..definition.shards {
            let manifest = Manifest::empty(uid.clone(), ShardId(shard), self.nonce());
            let published = self.publish(&manifest, deadline).await?;
            new_uid(uid, published == Published::Mine)?;
        }
        let empty = CutEntry { generation: Generation(1), seq: Seq(0), documents: 0 };
        let cut = Cut {
            uid: uid.clone(),
            number: CutNumber(1),
            epoch: Epoch(0),
            nonce: self.nonce().into(),
            definition: first,
            entries: (0..definition.shards).map(|_| empty.clone()).collect(),
        };
        let put = self.put_cut(&cut, deadline).await?;
        new_uid(uid, put == Put::Mine)
    }

    /// Deletes an index. A half-done deletion is completed by a repeated one.
    ///
    /// # Errors
    /// [`Kind::NotFound`](crate::Kind::NotFound) for a name that never was.
    pub async fn delete_index(&self, name: &IndexName, deadline: Deadline) -> Result<Deletion, Error> {
        loop {
            let (number, uid) = match self.name(name).await? {
                None => return Err(Cause::NoIndex(name.to_string()).into()),
                Some((_, Entry::Deleted { uid })) => {
                    self.bury(&uid, deadline).await?;
                    return Ok(Deletion::Before(uid));
                }
                Some((number, Entry::Live { uid })) => (number, uid),
            };
            let path = keys::numbered(&keys::name_folder(name), number + 1);
            let entry = names::encode(self.nonce(), &Entry::Deleted { uid: uid.clone() });
            if self.put_numbered(&path, entry, deadline).await? == Put::Mine {
                self.bury(&uid, deadline).await?;
                return Ok(Deletion::Now(uid));
            }
        }
    }

    /// Completes every half-done deletion: for a start.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn finish_deletions(&self, deadline: Deadline) -> Result<Vec<IndexUid>, Error> {
        let mut finished = Vec::new();
        for (name, _, _) in self.list_names().await? {
            // A name may have been taken again before an earlier deletion ended.
            for (_, entry) in self.name_entries(&name).await? {
                let Entry::Deleted { uid } = entry else {
                    continue;
                };
                if self.bury(&uid, deadline).await? {
                    finished.push(uid);
                }
            }
        }
        Ok(finished)
    }

    /// Puts a tombstone into every shard that has none; says whether one was
    /// missing.
    async fn bury(&self, uid: &IndexUid, deadline: Deadline) -> Result<bool, Error> {
        let first = DefinitionNumber(1);
        let definition = self.definition(uid, first).await?;
        let definition = definition.ok_or_else(|| Error::missing(&keys::definition(uid, first)))?;
        let mut any = false;
        for shard in 0..definition.shards {
            any |= self.bury_shard(uid, ShardId(shard), deadline).await?;
        }
        Ok(any)
    }

    async fn bury_shard(&self, uid: &IndexUid, shard: ShardId, deadline: Deadline) -> Result<bool, Error> {
        let newest = self.newest_manifest(uid, shard).await?;
        let mut highest = self.highest(&keys::wal(uid, shard), newest.seq.0).await?;
        let mut top = self.record(uid, shard, Seq(highest)).await?;
        loop {
            if top.as_ref().is_some_and(|top| top.body == Body::Tombstone) {
                return Ok(false);
            }
            let tombstone = Record {
                seq: Seq(highest + 1),
                epoch: top.map_or(newest.epoch, |top| top.epoch),
                nonce: self.nonce(),
                definition: newest.definition,
                body: Body::Tombstone,
            };
            match self.append(uid, shard, &tombstone, deadline).await? {
                Appended::Mine => return Ok(true),
                Appended::StepDown(other) => {
                    highest += 1;
                    top = Some(*other);
                }
            }
        }
    }
}

/// Two creations drew the same 128 bits: the source of randomness is broken.
fn new_uid(uid: &IndexUid, mine: bool) -> Result<(), Error> {
    if mine {
        return Ok(());
    }
    Err(Error::broken(&keys::index(uid), "a new uid is in use already"))
}
