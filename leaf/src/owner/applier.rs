//! Applies acknowledged operations and publishes generations.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use model::ids::{Epoch, Seq};
use proto::Error;
use proto::admin::Operation;
use store::{FileRef, Manifest, Published, keys};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use super::{End, Owner, PATIENCE};
use crate::engine::{self, Files, Writer};
use crate::replica::{self, internal};
use cluster::from_store;

/// Nudged commits come at most ten a second.
const NUDGED_COMMITS_APART: Duration = Duration::from_millis(100);
/// Publications between collections of garbage: each lists the shard's folders.
const PUBLISHED_PER_COLLECTION: u32 = 30;
/// Times that a list of segments is read again because a merge replaced some
/// of them while they were being published.
const LISTINGS_MAX: usize = 16;

/// Operations of one record, with the bytes that they hold back.
pub(super) struct Work {
    pub(super) operations: Vec<Operation>,
    pub(super) seq: Seq,
    /// Given back when the work is applied and dropped.
    pub(super) held: Vec<OwnedSemaphorePermit>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Commit {
    Published,
    SteppedDown,
}

pub(super) struct Applier<'a> {
    owner: &'a Owner,
    epoch: Epoch,
    files: Files,
    /// Away while a blocking thread uses it.
    writer: Option<Writer>,
    /// The newest manifest, which the next one follows.
    manifest: Manifest,
    /// Files of this epoch's manifests that are in the store.
    stored: BTreeMap<String, FileRef>,
    applied: Seq,
    skipped: u64,
    published: u32,
}

impl<'a> Applier<'a> {
    pub(super) async fn open(owner: &'a Owner, epoch: Epoch, manifest: Manifest) -> Result<Self, Error> {
        let files = match &owner.scratch {
            Some(folder) => scratch(folder, epoch)?,
            None => Files::memory(),
        };
        for file in &manifest.files {
            let here = owner.replica.file(&file.name);
            let linked = match (&files, here) {
                (Files::Folder(folder, _), Some(here)) => {
                    std::fs::hard_link(here, folder.join(&file.name)).is_ok()
                }
                _ => false,
            };
            if !linked {
                replica::fetch(&owner.store, &files, file).await?;
            }
        }
        let (mapping, heap) = ((*owner.mapping).clone(), owner.settings.heap_bytes);
        let (meta, opened) = (manifest.meta.clone(), files.clone());
        let writer = blocking(move || Writer::open(mapping, &opened, &meta, epoch, heap)).await?;
        let stored = manifest.files.iter().map(|file| (file.name.clone(), file.clone())).collect();
        let (applied, skipped) = (manifest.seq, manifest.skipped);
        Ok(Self {
            owner,
            epoch,
            files,
            writer: Some(writer),
            manifest,
            stored,
            applied,
            skipped,
            published: 0,
        })
    }

    /// Applies what comes, commits by interval and by nudge; ends when the log
    /// does, having published everything.
    pub(super) async fn run(
        mut self,
        mut works: mpsc::Receiver<Work>,
        mut nudges: mpsc::Receiver<()>,
    ) -> Result<End, Error> {
        let mut due: Option<Instant> = None;
        let mut committed = Instant::now();
        let mut nudges_open = true;
        loop {
            tokio::select! {
                biased;
                () = at(due) => {
                    due = None;
                    committed = Instant::now();
                    if self.commit().await? == Commit::SteppedDown {
                        return Ok(End::SteppedDown);
                    }
                }
                nudge = nudges.recv(), if nudges_open => match nudge {
                    Some(()) => {
                        // What was acknowledged before the nudge comes first.
                        for _ in 0..works.len() {
                            let Ok(work) = works.try_recv() else { break };
                            self.apply(work).await?;
                        }
                        if self.applied > self.manifest.seq {
                            let soon = (committed + NUDGED_COMMITS_APART).max(Instant::now());
                            due = Some(due.map_or(soon, |due| due.min(soon)));
                        }
                    }
                    None => nudges_open = false,
                },
                work = works.recv() => match work {
                    Some(work) => {
                        // The timer starts with the first write, not its end.
                        let latest = Instant::now() + self.owner.settings.refresh_interval;
                        due = Some(due.map_or(latest, |due| due.min(latest)));
                        self.apply(work).await?;
                    }
                    None => {
                        if self.applied > self.manifest.seq && self.commit().await? == Commit::SteppedDown {
                            return Ok(End::SteppedDown);
                        }
                        // Merges that still run are left: the next owner
                        // begins them again.
                        let writer = self.writer.take();
                        blocking(move || {
                            drop(writer);
                            Ok(())
                        }).await?;
                        return Ok(End::Drained);
                    }
                },
            }
        }
    }

    async fn apply(&mut self, work: Work) -> Result<(), Error> {
        let Work { operations, seq, held } = work;
        self.replay(operations, seq).await?;
        drop(held);
        Ok(())
    }

    /// Applies a record.
    pub(super) async fn replay(&mut self, operations: Vec<Operation>, seq: Seq) -> Result<(), Error> {
        if !operations.is_empty() {
            self.with_writer(move |writer| writer.apply(&operations)).await?;
        }
        self.applied = seq;
        Ok(())
    }

    /// Commits what is applied and publishes it as the next generation.
    pub(super) async fn commit(&mut self) -> Result<Commit, Error> {
        let started = Instant::now();
        let seq = self.applied;
        let mut commit = self.with_writer(move |writer| writer.commit(seq)).await?;
        let mut files = Vec::new();
        for attempt in 0.. {
            match self.put_files(&commit.files).await {
                Ok(put) => {
                    files = put;
                    break;
                }
                Err(error) if attempt < LISTINGS_MAX && self.any_missing(&commit.files) => {
                    tracing::debug!(%error, "a merge replaced segments that were being published");
                    commit = self.with_writer(|writer| writer.listing()).await?;
                }
                Err(error) => return Err(error),
            }
        }
        let skipped = self.writer.as_ref().map_or(0, Writer::skipped);
        let meta = commit.meta;
        let mut manifest = Manifest {
            generation: self.manifest.generation.next(),
            epoch: self.epoch,
            nonce: self.owner.store.nonce(),
            seq,
            definition: self.owner.definition,
            documents: commit.documents,
            skipped: self.skipped + skipped,
            meta,
            engine: crate::FINGERPRINT.to_owned(),
            files,
            ..self.manifest.clone()
        };
        self.owner.metrics.skipped.increment(manifest.skipped.saturating_sub(self.manifest.skipped));
        if let Files::Folder(scratch, _) = &self.files {
            for file in &manifest.files {
                self.owner.replica.adopt(scratch, file);
            }
        }
        let snapshot = self.owner.replica.prepare(&manifest).await?;
        manifest.tokens = snapshot.all_tokens();
        let published = self.owner.store.publish(&manifest, Instant::now() + PATIENCE).await;
        match published.map_err(|error| from_store(&error))? {
            Published::Mine => {}
            Published::StepDown(other) => {
                tracing::warn!(uid = %manifest.uid, shard = %manifest.shard, epoch = %self.epoch, other = %other.epoch, "another published: stepping down");
                return Ok(Commit::SteppedDown);
            }
        }
        let needed = |name: &String| manifest.files.iter().any(|file| file.name == *name);
        self.stored.retain(|name, _| needed(name));
        self.manifest = manifest.clone();
        self.owner.replica.serve(manifest, snapshot);
        (self.owner.opened)();
        self.owner.metrics.published.increment(1);
        self.owner.metrics.publish.record(started.elapsed().as_secs_f64());
        self.published += 1;
        if self.published.is_multiple_of(PUBLISHED_PER_COLLECTION)
            && let Err(error) = self.owner.store.collect_shard(&self.manifest).await
        {
            tracing::warn!(%error, "failed to collect garbage; it is tried again");
        }
        Ok(Commit::Published)
    }

    async fn put_files(&mut self, names: &[String]) -> Result<Vec<FileRef>, Error> {
        let mut refs = Vec::with_capacity(names.len());
        for name in names {
            if let Some(known) = self.stored.get(name) {
                refs.push(known.clone());
                continue;
            }
            let path = keys::segment(&self.owner.uid, self.owner.shard, self.epoch, name);
            let put = match &self.files {
                Files::Folder(folder, _) => self.owner.store.put_file(&folder.join(name), &path).await,
                Files::Memory(_) => {
                    let bytes = self.files.get(name).map_err(internal)?;
                    self.owner.store.put_bytes_as_file(bytes.into(), &path).await
                }
            };
            let file = put.map_err(|error| from_store(&error))?;
            self.stored.insert(name.clone(), file.clone());
            refs.push(file);
        }
        Ok(refs)
    }

    fn any_missing(&self, names: &[String]) -> bool {
        names.iter().any(|name| !self.files.contains(name))
    }

    async fn with_writer<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Writer) -> Result<T, engine::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let mut writer = self.writer.take().ok_or_else(|| Error::internal("the writer failed before"))?;
        let (writer, outcome) = blocking(move || {
            let outcome = work(&mut writer);
            Ok((writer, outcome))
        })
        .await?;
        self.writer = Some(writer);
        outcome.map_err(write_failed)
    }
}

/// A writer that failed, most often because its disk did.
fn write_failed(error: engine::Error) -> Error {
    Error::unavailable(format!("indexing failed ({error}): free disk space or check the data folder"))
}

/// How far indexing yields (`nice`), with the threads of the writer, which are
/// started in here: searching comes before it, and has twice its weight.
const YIELDING: u8 = 18;

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, engine::Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(move || runtime::system::yielding(YIELDING, work))
        .await
        .map_err(|error| Error::internal(format!("the engine died: {error}")))?
        .map_err(|error| Error::unavailable(format!("no thread could be started ({error}): retry")))?
        .map_err(internal)
}

/// A folder of its own for the writer of `epoch`.
///
/// A writer of an earlier epoch may still be ending, in this process: in one
/// folder each would collect the other's files and read its list of segments.
/// What earlier epochs left is removed.
fn scratch(folder: &Path, epoch: Epoch) -> Result<Files, Error> {
    let own = folder.join(epoch.to_string());
    for earlier in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = earlier.path();
        if let Err(error) = std::fs::remove_dir_all(&path) {
            tracing::warn!(path = %path.display(), %error, "failed to remove what an earlier owner left; it is tried again");
        }
    }
    let denied = |error: &dyn std::fmt::Display| {
        Error::unavailable(format!("{} cannot be made ({error}): fix its permissions", own.display()))
    };
    if std::fs::exists(&own).map_err(|error| denied(&error))? {
        return Err(denied(&"an old one cannot be removed"));
    }
    Files::folder(&own).map_err(|error| denied(&error))
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_of_two_epochs_share_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let shard = folder.path().join("shard");
        let earlier = scratch(&shard, Epoch(1)).unwrap();
        earlier.put("a.store", b"a").unwrap();
        let later = scratch(&shard, Epoch(2)).unwrap();
        assert!(!earlier.contains("a.store"), "what was left is removed");
        // The earlier writer has not ended yet.
        std::fs::create_dir_all(shard.join("1")).unwrap();
        earlier.put("b.store", b"b").unwrap();
        assert!(earlier.contains("b.store") && !later.contains("b.store"));
    }
}
