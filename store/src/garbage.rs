//! What may be deleted, and deleting it.
//!
//! **Invariant:** fences, tombstones, the first manifest of every epoch, and
//! the highest record, manifest and cut are never deleted. They are what makes
//! a stopped owner's late put collide, however long it was stopped.
//!
//! **Invariant:** an owner deletes a file only when the newest manifest *of its
//! own epoch*, every kept manifest and every kept cut no longer name it, and an
//! earlier manifest named it or a lower epoch wrote it. What a later owner
//! wrote is neither, so a deleter that was paused for a year does no harm.
//!
//! Deciding is a function of a [`View`]; the owner of a shard executes it for
//! the shard, the controller for cuts.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime};

use model::ids::{CutNumber, Epoch, Generation, IndexUid, Seq, ShardId};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::error::{Error, absent};
use crate::manifest::Manifest;
use crate::store::Store;
use crate::{keys, wal};

/// How much of a record is read to learn that it is no fence: a frame's first
/// line and a record's header take under 250 bytes.
const PEEK_BYTES: u64 = 512;

/// Which cuts are kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// A cut is kept this long after a newer one came: readers that pinned it
    /// have answered or given up by then.
    pub age: Duration,
    /// This many of the newest are kept in any case.
    pub cuts: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_secs(60), cuts: 10 }
    }
}

/// What an owner knows when it decides.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The newest manifest that this owner published.
    pub own: &'a Manifest,
    /// Every manifest that was found. From `kept` up to `own` none is missing.
    pub manifests: &'a [Manifest],
    /// The generation of this shard in the oldest kept cut.
    pub kept: Generation,
    /// The segment files that were found.
    pub files: &'a [Path],
    /// The ordinary records that were found: no fences, no tombstones.
    pub records: &'a [Seq],
    /// The highest record that was found, of any kind.
    pub highest: Seq,
}

/// What was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Segment files.
    pub files: usize,
    /// Manifests.
    pub manifests: usize,
    /// Records of the log.
    pub records: usize,
}

impl View<'_> {
    /// The generation from which manifests are kept.
    fn floor(&self) -> Generation {
        self.kept.min(self.own.generation)
    }

    /// The highest record that the oldest kept manifest contains.
    #[must_use]
    pub fn contained(&self) -> Seq {
        let floor = self.floor();
        let oldest = self.manifests.iter().find(|manifest| manifest.generation == floor);
        oldest.map_or(Seq(0), |oldest| oldest.seq.min(self.own.seq))
    }
}

/// Decides what may be deleted, in the order in which to delete it: files
/// before the manifests that named them, so that a crash between them leaks
/// nothing.
#[must_use]
pub fn collectable(view: &View<'_>) -> Vec<Path> {
    let (uid, shard, floor) = (&view.own.uid, view.own.shard, view.floor());
    let mut named: HashSet<&str> = view.own.files.iter().map(|file| &*file.path).collect();
    let mut once_named = HashSet::new();
    let mut firsts: BTreeMap<Epoch, Generation> = BTreeMap::new();
    for manifest in view.manifests {
        let paths = manifest.files.iter().map(|file| &*file.path);
        if manifest.generation >= floor {
            named.extend(paths);
        } else {
            once_named.extend(paths);
        }
        let first = firsts.entry(manifest.epoch).or_insert(manifest.generation);
        *first = manifest.generation.min(*first);
    }

    let folder = keys::segments(uid, shard);
    let written_before =
        |file: &Path| keys::segment_epoch(&folder, file).is_some_and(|epoch| epoch < view.own.epoch);
    let files = view.files.iter().filter(|file| {
        !named.contains(file.as_ref()) && (once_named.contains(file.as_ref()) || written_before(file))
    });
    let manifests = view.manifests.iter().filter(|manifest| {
        manifest.generation < floor && firsts.get(&manifest.epoch) != Some(&manifest.generation)
    });
    let contained = view.contained();
    let records = view.records.iter().filter(|seq| **seq <= contained && **seq < view.highest);

    files
        .cloned()
        .chain(manifests.map(|manifest| keys::manifest(uid, shard, manifest.generation)))
        .chain(records.map(|seq| keys::record(uid, shard, *seq)))
        .collect()
}

/// Decides which cuts may be deleted, lowest first, from their numbers and
/// when they were put.
#[must_use]
pub fn collectable_cuts(
    cuts: &BTreeMap<CutNumber, SystemTime>,
    now: SystemTime,
    retention: Retention,
) -> Vec<CutNumber> {
    let mut lowest_kept = None;
    let mut newer: Option<(CutNumber, SystemTime)> = None;
    for (index, (&number, &put)) in cuts.iter().rev().enumerate() {
        let kept = match newer {
            None => true,
            // Below a gap lies what a paused controller put too late.
            Some((above, _)) if above != number.next() => false,
            // A clock that went back keeps more, never less.
            Some((_, superseded)) => {
                index < retention.cuts
                    || now.duration_since(superseded).is_ok_and(|age| age <= retention.age)
                    || superseded > now
            }
        };
        if !kept {
            break;
        }
        lowest_kept = Some(number);
        newer = Some((number, put));
    }
    cuts.keys().copied().take_while(|number| Some(*number) < lowest_kept).collect()
}

impl Store {
    /// Collects a shard's garbage, as its owner. `own` is the newest manifest
    /// that the caller itself published.
    ///
    /// # Errors
    /// When the store fails, or what must be kept is missing; nothing is
    /// deleted then but what was found collectable.
    pub async fn collect_shard(&self, own: &Manifest) -> Result<Collected, Error> {
        let (uid, shard) = (&own.uid, own.shard);
        let Some(kept) = self.oldest_kept(uid, shard).await? else {
            return Ok(Collected::default());
        };
        let manifests = self.manifests_for(own, kept).await?;
        let files: Vec<Path> =
            self.list(&keys::segments(uid, shard)).await?.into_iter().map(|meta| meta.location).collect();
        let seqs = self.numbers(&keys::wal(uid, shard)).await?;
        let highest = Seq(seqs.last().copied().unwrap_or(0));
        let mut view = View { own, manifests: &manifests, kept, files: &files, records: &[], highest };
        let contained = view.contained();
        let mut records = Vec::new();
        for seq in seqs.into_iter().map(Seq).take_while(|seq| *seq <= contained) {
            if seq < highest && self.is_ordinary(uid, shard, seq).await? {
                records.push(seq);
            }
        }
        view.records = &records;

        let mut collected = Collected::default();
        let (segments, wal) = (keys::segments(uid, shard), keys::wal(uid, shard));
        for path in collectable(&view) {
            self.delete(&path).await?;
            if path.prefix_matches(&segments) {
                collected.files += 1;
            } else if path.prefix_matches(&wal) {
                collected.records += 1;
            } else {
                collected.manifests += 1;
            }
        }
        Ok(collected)
    }

    /// Collects an index's cuts, as the controller; returns how many.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn collect_cuts(
        &self,
        uid: &IndexUid,
        now: SystemTime,
        retention: Retention,
    ) -> Result<usize, Error> {
        let folder = keys::cuts(uid);
        let listing = self.list(&folder).await?;
        let cuts = listing
            .into_iter()
            .filter_map(|meta| {
                let number = keys::number(&folder, &meta.location)?;
                Some((CutNumber(number), meta.last_modified.into()))
            })
            .collect();
        let collectable = collectable_cuts(&cuts, now, retention);
        for number in &collectable {
            self.delete(&keys::cut(uid, *number)).await?;
        }
        Ok(collectable.len())
    }

    /// The lowest generation of a shard that a cut in the store names. A cut
    /// that should not be there any more only keeps more.
    async fn oldest_kept(&self, uid: &IndexUid, shard: ShardId) -> Result<Option<Generation>, Error> {
        let mut oldest = None;
        for number in self.numbers(&keys::cuts(uid)).await? {
            let Some(cut) = self.cut(uid, CutNumber(number)).await? else {
                continue;
            };
            let entry = cut.entries.get(shard.0 as usize).ok_or_else(|| {
                Error::damaged(&keys::cut(uid, cut.number), format!("it lacks shard {shard}"))
            })?;
            let lowest = oldest.unwrap_or(entry.generation);
            oldest = Some(entry.generation.min(lowest));
        }
        Ok(oldest)
    }

    /// Every manifest that a decision needs. What is kept is read by number,
    /// for a listing may miss it.
    async fn manifests_for(&self, own: &Manifest, kept: Generation) -> Result<Vec<Manifest>, Error> {
        let (uid, shard) = (&own.uid, own.shard);
        let folder = keys::manifests(uid, shard);
        let floor = kept.min(own.generation);
        let mut manifests = Vec::new();
        for number in self.numbers(&folder).await? {
            if number < floor.0
                && let Some(manifest) = self.manifest(uid, shard, Generation(number)).await?
            {
                manifests.push(manifest);
            }
        }
        let mut generation = floor;
        loop {
            match self.manifest(uid, shard, generation).await? {
                Some(manifest) => manifests.push(manifest),
                None if generation <= own.generation => {
                    let path = keys::manifest(uid, shard, generation);
                    return Err(Error::broken(&path, "a kept manifest is missing"));
                }
                None => return Ok(manifests),
            }
            generation = generation.next();
        }
    }

    async fn is_ordinary(&self, uid: &IndexUid, shard: ShardId, seq: Seq) -> Result<bool, Error> {
        let path = keys::record(uid, shard, seq);
        match self.objects().get_range(&path, 0..PEEK_BYTES).await {
            Ok(start) => Ok(wal::is_ordinary(&start)),
            Err(error) if absent(&error) => Ok(false),
            Err(error) => Err(self.error(&path, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileRef, Nonce};

    fn uid() -> IndexUid {
        IndexUid::from_bits(1)
    }

    fn path(epoch: u64, file: &str) -> Path {
        keys::segment(&uid(), ShardId(0), Epoch(epoch), file)
    }

    fn manifest(generation: u64, epoch: u64, seq: u64, files: &[Path]) -> Manifest {
        let file = |path: &Path| FileRef {
            name: String::new(),
            path: path.to_string(),
            bytes: 0,
            checksum: String::new(),
        };
        Manifest {
            generation: Generation(generation),
            epoch: Epoch(epoch),
            seq: Seq(seq),
            files: files.iter().map(file).collect(),
            ..Manifest::empty(uid(), ShardId(0), Nonce(0))
        }
    }

    fn collected(own: &Manifest, manifests: &[Manifest], kept: u64, files: &[Path]) -> Vec<Path> {
        let records: Vec<Seq> = (1..20).map(Seq).collect();
        collectable(&View {
            own,
            manifests,
            kept: Generation(kept),
            files,
            records: &records,
            highest: Seq(19),
        })
    }

    #[test]
    fn an_owner_takes_only_what_its_own_newest_manifest_dropped() {
        let [old, live, early, orphan, later] =
            [path(1, "old"), path(2, "live"), path(1, "early"), path(2, "orphan"), path(3, "later")];
        let manifests = [
            manifest(1, 0, 0, &[]),
            manifest(2, 1, 3, std::slice::from_ref(&old)),
            manifest(3, 1, 4, std::slice::from_ref(&old)),
            manifest(4, 2, 6, std::slice::from_ref(&old)),
            manifest(5, 2, 8, std::slice::from_ref(&live)),
            manifest(6, 3, 8, &[live.clone(), later.clone()]),
        ];
        let files = [old.clone(), live, early.clone(), orphan, later];
        let manifest_path = |n| keys::manifest(&uid(), ShardId(0), Generation(n));
        let record = |n| keys::record(&uid(), ShardId(0), Seq(n));
        let mut expected = vec![old, early, manifest_path(3)];
        expected.extend((1..=8).map(record));
        assert_eq!(collected(&manifests[4], &manifests, 5, &files), expected);
        // A newer cut changes nothing for an owner that was overtaken.
        assert_eq!(collected(&manifests[4], &manifests, 6, &files), expected);
        // A kept manifest keeps its files, itself, and the log after it.
        let mut expected = vec![path(1, "early")];
        expected.extend((1..=4).map(record));
        assert_eq!(collected(&manifests[4], &manifests, 3, &files), expected);
    }

    #[test]
    fn the_highest_record_stays() {
        let manifests = [manifest(1, 0, 19, &[])];
        let collected = collected(&manifests[0], &manifests, 1, &[]);
        assert_eq!(collected.len(), 18);
    }

    #[test]
    fn cuts_are_kept_by_age_and_by_number() {
        let at = |s: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        let kept = Retention::default();
        let cuts = |puts: &[(u64, u64)]| -> BTreeMap<CutNumber, SystemTime> {
            puts.iter().map(|(n, s)| (CutNumber(*n), at(*s))).collect()
        };
        let each_second: Vec<(u64, u64)> = (1..=100).map(|n| (n, n)).collect();
        let gone = |puts: &[(u64, u64)], now| collectable_cuts(&cuts(puts), at(now), kept).len();
        assert_eq!(gone(&each_second, 100), 38, "60 s, from when a newer one came");
        assert_eq!(gone(&each_second, 10_000), 90, "the last 10");
        assert_eq!(gone(&each_second[..1], 10_000), 0, "the highest");
        assert_eq!(gone(&each_second, 0), 0, "a clock that went back");
        let mut late = each_second[50..].to_vec();
        late.insert(0, (3, 100));
        let found = collectable_cuts(&cuts(&late), at(100), kept);
        assert_eq!(found, [CutNumber(3)], "what lands below the kept range is garbage");
        assert!(collectable_cuts(&BTreeMap::new(), at(0), kept).is_empty());
    }
}
