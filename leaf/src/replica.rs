//! One shard, served: its open generations.
//!
//! **Invariant:** a generation, once open, answers the same until it is
//! dropped, and it is dropped only when no kept cut names it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use cluster::from_store;
use model::ids::{Generation, IndexUid, ShardId};
use proto::Error;
use store::{FileRef, Manifest, Store};
use tokio::time::Instant;

use crate::engine::{self, Caches, Files, Mapping, Snapshot};

/// How long a generation outlives the cut that named it: as long as cuts are
/// kept, and a little more for a reader that pinned one just before.
const KEEP_SUPERSEDED: Duration = Duration::from_secs(70);
/// Superseded generations kept at least, as the last cuts are.
const KEEP_AT_LEAST: usize = 10;

/// Generations above the newest cut's that are kept: while no cut can be
/// published, owners go on.
const KEEP_AHEAD: usize = 32;

/// Generations that may be prepared and not yet served: the owner's next one,
/// and one that is followed.
const PREPARED_AT_ONCE: usize = 4;

/// A generation, open.
pub(crate) struct Open {
    pub(crate) snapshot: Snapshot,
    pub(crate) manifest: Manifest,
}

pub(crate) struct Replica {
    pub(crate) uid: IndexUid,
    pub(crate) shard: ShardId,
    mapping: Arc<Mapping>,
    files: Files,
    folder: Option<PathBuf>,
    caches: Caches,
    store: Store,
    generations: RwLock<BTreeMap<Generation, Arc<Open>>>,
    superseded: std::sync::Mutex<Vec<(Generation, Instant)>>,
    opening: tokio::sync::Mutex<()>,
    /// Files that this process has checked.
    checked: std::sync::Mutex<BTreeSet<String>>,
    /// The files of generations that were prepared last: they may not be
    /// served yet, and must not be swept.
    prepared: std::sync::Mutex<VecDeque<Vec<String>>>,
    /// What the newest cut names.
    named: std::sync::Mutex<Generation>,
}

/// The engine's error as a caller's.
pub(crate) fn internal(error: engine::Error) -> Error {
    match error {
        engine::Error::Stopped => {
            Error::expired("the search was stopped at its deadline: allow more time or narrow the query")
        }
        other => {
            tracing::error!(error = %other, "the engine failed");
            Error::internal(other.to_string())
        }
    }
}

impl Replica {
    pub(crate) fn new(
        uid: IndexUid,
        shard: ShardId,
        mapping: Arc<Mapping>,
        folder: Option<PathBuf>,
        caches: Caches,
        store: Store,
    ) -> Result<Self, engine::Error> {
        let files = match &folder {
            Some(folder) => Files::folder(folder)?,
            None => Files::memory(),
        };
        Ok(Self {
            uid,
            shard,
            mapping,
            files,
            folder,
            caches,
            store,
            generations: RwLock::default(),
            superseded: std::sync::Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            checked: std::sync::Mutex::default(),
            prepared: std::sync::Mutex::default(),
            named: std::sync::Mutex::default(),
        })
    }

    /// Fetches what is missing and opens a generation.
    pub(crate) async fn open(&self, manifest: Manifest) -> Result<(), Error> {
        if self.read().contains_key(&manifest.generation) {
            return Ok(());
        }
        let snapshot = self.prepare(&manifest).await?;
        self.serve(manifest, snapshot);
        Ok(())
    }

    /// Opens a generation without serving it yet: its owner looks before it
    /// publishes.
    pub(crate) async fn prepare(&self, manifest: &Manifest) -> Result<Snapshot, Error> {
        let _one_at_a_time = self.opening.lock().await;
        {
            let mut prepared = lock(&self.prepared);
            prepared.push_back(manifest.files.iter().map(|file| file.name.clone()).collect());
            if prepared.len() > PREPARED_AT_ONCE {
                prepared.pop_front();
            }
        }
        for file in &manifest.files {
            let checked = |files: &BTreeSet<String>| files.contains(&file.name);
            if !checked(&lock(&self.checked)) {
                // What an earlier process left stays if it is right.
                fetch(&self.store, &self.files, file).await?;
                lock(&self.checked).insert(file.name.clone());
            }
        }
        let (mapping, files, caches) = (self.mapping.clone(), self.files.clone(), self.caches.clone());
        let (generation, meta, promised) = (manifest.generation, manifest.meta.clone(), manifest.documents);
        let opened = tokio::task::spawn_blocking(move || {
            let snapshot = Snapshot::open(mapping, &files, &meta, &caches)?;
            let found = snapshot.documents;
            if found != promised {
                return Err(engine::Error::Corrupt(format!(
                    "generation {generation} holds {found} documents, its manifest says {promised}"
                )));
            }
            Ok(snapshot)
        })
        .await
        .map_err(|error| Error::internal(format!("opening a generation: {error}")))?;
        if opened.is_err() {
            // Whatever is wrong with the files, the next attempt looks again.
            let mut checked = lock(&self.checked);
            checked.retain(|name| manifest.files.iter().all(|file| file.name != *name));
        }
        opened.map_err(internal)
    }

    /// Takes a file from the owner in the same process: the same disk, and
    /// checked when it went to the store.
    pub(crate) fn adopt(&self, scratch: &std::path::Path, file: &FileRef) {
        let Some(folder) = &self.folder else { return };
        let mut checked = lock(&self.checked);
        if checked.contains(&file.name) {
            return;
        }
        let to = folder.join(&file.name);
        // What cannot be linked is fetched.
        let linked = match std::fs::hard_link(scratch.join(&file.name), &to) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                std::fs::remove_file(&to).and_then(|()| std::fs::hard_link(scratch.join(&file.name), &to))
            }
            linked => linked,
        };
        if linked.is_ok() {
            checked.insert(file.name.clone());
        }
    }

    /// Where a checked file of this shard is on disk.
    pub(crate) fn file(&self, name: &str) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?;
        lock(&self.checked).contains(name).then(|| folder.join(name))
    }

    /// Serves a prepared generation.
    pub(crate) fn serve(&self, manifest: Manifest, snapshot: Snapshot) {
        let generation = manifest.generation;
        let named = *lock(&self.named);
        let mut generations = self.write();
        let first = generations.is_empty();
        generations.insert(generation, Arc::new(Open { snapshot, manifest }));
        let ahead: Vec<Generation> =
            generations.range(named.next()..).map(|(generation, _)| *generation).collect();
        let dropped = ahead.len().saturating_sub(KEEP_AHEAD);
        for generation in &ahead[..dropped] {
            generations.remove(generation);
        }
        if first || dropped > 0 {
            self.sweep(&generations);
        }
    }

    /// The newest cut's generation, where it is open, and all above it.
    pub(crate) fn current(&self) -> Vec<Arc<Open>> {
        let named = *lock(&self.named);
        let generations = self.read();
        let mut current: Vec<_> = generations.range(named..).map(|(_, open)| open.clone()).collect();
        if current.is_empty() {
            current.extend(generations.last_key_value().map(|(_, open)| open.clone()));
        }
        current
    }

    /// The open generation, or which is newest here.
    pub(crate) fn at(&self, generation: Generation) -> Result<Arc<Open>, Error> {
        let generations = self.read();
        if let Some(open) = generations.get(&generation) {
            return Ok(open.clone());
        }
        let newest = generations.last_key_value().map(|(newest, _)| *newest);
        let mut error = Error::gone(format!(
            "generation {generation} of shard {} is not open here: ask for the newest cut",
            self.shard
        ));
        error.newest.push((self.shard, newest.unwrap_or(Generation(0))));
        Err(error)
    }

    /// The newest open generation.
    pub(crate) fn newest(&self) -> Option<Arc<Open>> {
        self.read().last_key_value().map(|(_, open)| open.clone())
    }

    /// Notes that the newest cut names `generation`, and drops what no kept
    /// cut names any more.
    pub(crate) fn cut_names(&self, generation: Generation) {
        let now = Instant::now();
        {
            let mut named = lock(&self.named);
            *named = generation.max(*named);
        }
        let mut superseded = self.superseded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut generations = self.write();
        for older in generations.range(..generation).map(|(older, _)| *older) {
            if !superseded.iter().any(|(known, _)| *known == older) {
                superseded.push((older, now));
            }
        }
        let droppable = superseded.len().saturating_sub(KEEP_AT_LEAST);
        let expired = superseded
            .iter()
            .take(droppable)
            .take_while(|(_, since)| now.duration_since(*since) > KEEP_SUPERSEDED)
            .count();
        let dropped: Vec<_> = superseded.drain(..expired).collect();
        for (generation, _) in &dropped {
            generations.remove(generation);
        }
        if !dropped.is_empty() {
            self.sweep(&generations);
        }
    }

    /// Removes files that no open generation needs.
    fn sweep(&self, generations: &BTreeMap<Generation, Arc<Open>>) {
        let Some(folder) = &self.folder else { return };
        // Open readers keep what they mapped; the store keeps the objects.
        let prepared = lock(&self.prepared);
        let needed: BTreeSet<&str> = generations
            .values()
            .flat_map(|open| open.manifest.files.iter().map(|file| file.name.as_str()))
            .chain(prepared.iter().flatten().map(String::as_str))
            .collect();
        let mut checked = lock(&self.checked);
        checked.retain(|name| needed.contains(name.as_str()));
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if !needed.contains(name.to_string_lossy().as_ref())
                && let Err(error) = std::fs::remove_file(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "failed to remove an unused segment file");
            }
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Generation, Arc<Open>>> {
        self.generations.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<Generation, Arc<Open>>> {
        self.generations.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock<T>(of: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Brings one segment file to where the engine reads it, checksum verified.
pub(crate) async fn fetch(store: &Store, files: &Files, file: &FileRef) -> Result<(), Error> {
    match files {
        Files::Folder(folder, _) => {
            store.fetch_file_to(file, &folder.join(&file.name)).await.map_err(|error| from_store(&error))
        }
        Files::Memory(_) => {
            let bytes = store.get_file(file).await.map_err(|error| from_store(&error))?;
            files.put(&file.name, &bytes).map_err(|error| Error::internal(error.to_string()))
        }
    }
}
