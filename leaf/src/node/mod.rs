//! A leaf: its shards, its CPU pool, and the service in front of them.

mod admission;
mod service;
#[cfg(test)]
mod tests;

pub use admission::{limit_settings, retry_after};

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use model::ids::{DefinitionNumber, Generation, IndexUid, NodeId, ShardId};
use model::settings::Definition;
use proto::Error;
use proto::controller::{Held, Served};
use proto::leaf::ShardAt;
use runtime::{CancellationToken, Deadline, Faults, OnError, Pool, PoolError, Priority, TaskScope};
use store::Store;
use tokio::sync::Notify;

use crate::engine::{Caches, Mapping};
use crate::metrics::Metrics;
use crate::owner::{self, End, Handle, Owner};
use crate::replica::{Open, Replica, internal};
use admission::Admission;
use cluster::from_store;

/// Between an ownership's end and the next attempt: two leaves that each think
/// that the shard is theirs must not chase each other.
const OWN_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Least memory of a writer: the engine's.
const HEAP_BYTES_MIN: usize = 15_000_000;

/// How far threads that search yield to those that answer calls (`nice`): a
/// refusal, a pong or a cancel must not wait for a search to end. On two busy
/// cores 5 made the 99th percentile of refusals 9 to 19 ms, 10 made it 5 to 14,
/// 15 about 5, and 19 as much.
const YIELDING: u8 = 15;

/// Where a leaf keeps what it can rebuild.
#[derive(Clone, Debug)]
pub enum Data {
    /// In a folder: `serve` and `scratch` below it.
    Folder(PathBuf),
    /// In memory, for tests.
    Memory,
}

/// What a leaf is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to keep files.
    pub data: Data,
    /// Threads that search. One a core: searching is CPU work.
    pub threads: usize,
    /// Searches that wait for a thread before more are refused. A thousand
    /// millisecond-long searches a core is a second of waiting.
    pub queue_max: usize,
    /// Memory for each owned shard's documents that no segment holds yet.
    /// Larger makes fewer, larger segments; 15 MB is the engine's least.
    pub writer_heap_bytes: usize,
    /// The same for all owned shards together, as far as the engine's least
    /// allows: with more shards each has less.
    pub writer_heaps_bytes: usize,
    /// Most bytes of one WAL record: what one retry puts again.
    pub record_bytes_max: usize,
    /// Most bytes of writes a shard that are not yet indexed.
    pub pending_bytes_max: usize,
    /// Free bytes of the data folder's disk below which writes are refused:
    /// room for the commits and merges of what was acknowledged.
    pub disk_reserve_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: Data::Memory,
            threads: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            queue_max: 1_000,
            writer_heap_bytes: 64 << 20,
            writer_heaps_bytes: 1 << 30,
            record_bytes_max: 16 << 20,
            pending_bytes_max: 16 << 20,
            disk_reserve_bytes: 256 << 20,
        }
    }
}

/// What a leaf is made of; passed in.
#[derive(Clone)]
pub struct Parts {
    /// This node.
    pub node: NodeId,
    /// Where objects are.
    pub store: Store,
    /// Owns the leaf's tasks.
    pub scope: TaskScope,
}

/// A shard that this leaf shall hold.
#[derive(Clone)]
pub struct Assignment {
    /// The index.
    pub uid: IndexUid,
    /// The shard.
    pub shard: ShardId,
    /// The newest definition, and its number.
    pub definition: (DefinitionNumber, Arc<Definition>),
}

/// A leaf; clones are one leaf.
#[derive(Clone)]
pub struct Leaf(Arc<Inner>);

type Key = (IndexUid, ShardId);

struct Inner {
    parts: Parts,
    settings: Settings,
    pool: Pool,
    admission: Admission,
    /// What holds the pool's threads on purpose, where that is allowed.
    faults: Option<Faults>,
    caches: Caches,
    metrics: Metrics,
    shards: RwLock<HashMap<Key, Shard>>,
    /// Rung when something was opened or an ownership began or ended.
    changed: Arc<Notify>,
}

#[derive(Clone)]
struct Shard {
    replica: Arc<Replica>,
    owner: Arc<RwLock<Ownership>>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Ownership {
    handle: Option<Handle>,
    /// Whether replay is done and writes are taken.
    ready: bool,
    /// Ends this ownership, after all it acknowledged is published.
    stop: CancellationToken,
    /// Ownerships in a row that ended with an error.
    failures: u32,
    /// After an end, when to try again.
    not_before: Option<tokio::time::Instant>,
}

impl Leaf {
    /// Makes a leaf without shards.
    ///
    /// # Errors
    /// When its folders cannot be made.
    pub fn new(parts: Parts, settings: Settings) -> Result<Self, Error> {
        Self::with_faults(parts, settings, None)
    }

    /// The same; `faults` hold the threads that search, as a slow disk does.
    ///
    /// # Errors
    /// When its folders cannot be made.
    pub fn with_faults(parts: Parts, settings: Settings, faults: Option<Faults>) -> Result<Self, Error> {
        if let Data::Folder(folder) = &settings.data {
            // What was fetched is of use again, once its checksum is checked;
            // what an owner was writing is not.
            for sub in ["serve", "scratch"] {
                let path = folder.join(sub);
                let gone = if sub == "scratch" { std::fs::remove_dir_all(&path) } else { Ok(()) };
                let made = match gone {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                    _ => std::fs::create_dir_all(&path),
                };
                made.map_err(|error| {
                    Error::unavailable(format!(
                        "{} cannot be written ({error}): fix its permissions or free some space",
                        path.display()
                    ))
                })?;
            }
        }
        let pool = Pool::new(runtime::pool::Settings {
            threads: settings.threads,
            queue_max: settings.queue_max,
            name: "leaf".to_owned(),
            yielding: YIELDING,
        });
        let admission = Admission::new(settings.threads, settings.queue_max);
        Ok(Self(Arc::new(Inner {
            parts,
            settings,
            pool,
            admission,
            faults,
            caches: Caches::default(),
            metrics: Metrics::new(),
            shards: RwLock::default(),
            changed: Arc::new(Notify::new()),
        })))
    }

    /// Takes up a shard: opens its newest generation. Taking up what is held
    /// already changes nothing.
    ///
    /// # Errors
    /// When the newest generation cannot be opened.
    pub async fn assign(&self, assignment: &Assignment) -> Result<(), Error> {
        if self.shard(&assignment.uid, assignment.shard).is_err() {
            self.open(assignment).await?;
        }
        Ok(())
    }

    /// Begins to take a held shard's writes, unless it does or has just
    /// stopped.
    pub fn own(&self, assignment: &Assignment) {
        if let Ok(shard) = self.shard(&assignment.uid, assignment.shard) {
            self.begin(assignment, &shard);
        }
    }

    /// Stops taking a shard's writes, once what was acknowledged is published.
    pub fn resign(&self, uid: &IndexUid, shard: ShardId) {
        if let Ok(shard) = self.shard(uid, shard) {
            shard.owner.read().unwrap_or_else(PoisonError::into_inner).stop.cancel();
        }
    }

    async fn open(&self, assignment: &Assignment) -> Result<Shard, Error> {
        let Inner { parts, settings, caches, shards, .. } = &*self.0;
        let (uid, shard) = (&assignment.uid, assignment.shard);
        let mapping = Arc::new(Mapping::new(&assignment.definition.1.schema));
        let folder = match &settings.data {
            Data::Folder(folder) => Some(folder.join("serve").join(uid.as_str()).join(shard.to_string())),
            Data::Memory => None,
        };
        let replica = Replica::new(uid.clone(), shard, mapping, folder, caches.clone(), parts.store.clone())
            .map_err(internal)?;
        let manifest = parts.store.newest_manifest(uid, shard).await.map_err(|error| from_store(&error))?;
        replica.open(manifest).await?;
        let shard = Shard {
            replica: Arc::new(replica),
            owner: Arc::default(),
            stop: parts.scope.token().child_token(),
        };
        let mut shards = shards.write().unwrap_or_else(PoisonError::into_inner);
        let kept = shards.entry((uid.clone(), assignment.shard)).or_insert(shard).clone();
        self.0.changed.notify_waiters();
        Ok(kept)
    }

    fn begin(&self, assignment: &Assignment, shard: &Shard) {
        let mut ownership = shard.owner.write().unwrap_or_else(PoisonError::into_inner);
        let early = ownership.not_before.is_some_and(|moment| moment > tokio::time::Instant::now());
        if ownership.handle.is_some() || early || self.0.parts.scope.token().is_cancelled() {
            return;
        }
        let Inner { parts, settings, metrics, changed, .. } = &*self.0;
        let (uid, number) = (&assignment.uid, assignment.shard);
        let own = owner::Settings {
            heap_bytes: settings
                .writer_heap_bytes
                .min(settings.writer_heaps_bytes / self.held().len().max(1))
                .max(HEAP_BYTES_MIN),
            record_bytes_max: settings.record_bytes_max,
            pending_bytes_max: settings.pending_bytes_max,
            refresh_interval: assignment.definition.1.refresh_interval(),
        };
        let (handle, inbox) = Handle::new(own.clone());
        let stop = shard.stop.child_token();
        let failures = ownership.failures;
        *ownership = Ownership { handle: Some(handle), stop: stop.clone(), failures, ..Ownership::default() };
        let state = shard.owner.clone();
        let rung = changed.clone();
        let ready = {
            let (state, rung) = (state.clone(), rung.clone());
            move || {
                state.write().unwrap_or_else(PoisonError::into_inner).ready = true;
                rung.notify_waiters();
            }
        };
        let opened = {
            let rung = rung.clone();
            move || rung.notify_waiters()
        };
        let owner = Owner {
            uid: uid.clone(),
            shard: number,
            definition: assignment.definition.0,
            mapping: Arc::new(Mapping::new(&assignment.definition.1.schema)),
            store: parts.store.clone(),
            replica: shard.replica.clone(),
            scratch: match &settings.data {
                Data::Folder(folder) => {
                    Some(folder.join("scratch").join(uid.as_str()).join(number.to_string()))
                }
                Data::Memory => None,
            },
            settings: own,
            metrics: metrics.clone(),
            opened: Arc::new(opened),
            ready: Arc::new(ready),
        };
        let name = format!("owner of {uid}/{number}");
        let label = name.clone();
        parts.scope.spawn(name, OnError::Log, move |token| async move {
            let ended = {
                let stop = stop.clone();
                // Draining the scope and dropping the shard both end it.
                let linked = token.clone();
                tokio::select! {
                    ended = owner.run(inbox, stop.clone()) => ended,
                    () = async { linked.cancelled().await; stop.cancel(); std::future::pending::<()>().await } => Ok(End::Drained),
                }
            };
            let mut ownership = state.write().unwrap_or_else(PoisonError::into_inner);
            *ownership = Ownership {
                failures: if ended.is_err() { ownership.failures + 1 } else { 0 },
                not_before: Some(tokio::time::Instant::now() + OWN_AGAIN_AFTER),
                ..Ownership::default()
            };
            drop(ownership);
            rung.notify_waiters();
            match ended {
                Ok(end) => {
                    tracing::info!(task = label, ?end, "an ownership ended");
                    Ok(())
                }
                Err(error) => Err(error),
            }
        });
    }

    /// Lets go of a shard.
    pub fn release(&self, uid: &IndexUid, shard: ShardId) {
        let removed = {
            let mut shards = self.0.shards.write().unwrap_or_else(PoisonError::into_inner);
            shards.remove(&(uid.clone(), shard))
        };
        if let Some(held) = removed {
            held.stop.cancel();
            if let Data::Folder(folder) = &self.0.settings.data {
                // Searches that run keep what they mapped.
                forget(&folder.join("serve").join(uid.as_str()).join(shard.to_string()));
            }
        }
    }

    /// Deletes the files of shards that an earlier process held and this one
    /// does not.
    pub fn sweep(&self, keep: impl Fn(&IndexUid, ShardId) -> bool) {
        let Data::Folder(folder) = &self.0.settings.data else { return };
        let names = |folder: &std::path::Path| -> Vec<PathBuf> {
            std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
        };
        let last = |path: &std::path::Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        for index in names(&folder.join("serve")) {
            let uid = last(&index).and_then(|name| IndexUid::parse(&name));
            for shard in names(&index) {
                let number = last(&shard).and_then(|name| name.parse().ok()).map(ShardId);
                let kept = uid.as_ref().zip(number).is_some_and(|(uid, number)| keep(uid, number));
                if !kept {
                    forget(&shard);
                }
            }
            if uid.is_some_and(|uid| self.held().iter().all(|(held, _)| *held != uid)) {
                // Fails, and may, where a shard is still there.
                let _emptied = std::fs::remove_dir(&index);
            }
        }
    }

    /// Tells that the newest cut of an index names these generations.
    pub fn cut_names(&self, uid: &IndexUid, generations: &[(ShardId, Generation)]) {
        for (number, generation) in generations {
            if let Ok(shard) = self.shard(uid, *number) {
                shard.replica.cut_names(*generation);
            }
        }
    }

    /// The shards that are held.
    #[must_use]
    pub fn held(&self) -> Vec<(IndexUid, ShardId)> {
        self.0.shards.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// The shards whose writes are taken here.
    #[must_use]
    pub fn owned(&self) -> Vec<(IndexUid, ShardId)> {
        let shards = self.0.shards.read().unwrap_or_else(PoisonError::into_inner);
        let owned = |shard: &Shard| shard.owner.read().unwrap_or_else(PoisonError::into_inner).ready;
        shards.iter().filter(|(_, shard)| owned(shard)).map(|(key, _)| key.clone()).collect()
    }

    /// Whether a shard's writes are taken here.
    #[must_use]
    pub fn owns(&self, uid: &IndexUid, shard: ShardId) -> bool {
        self.shard(uid, shard)
            .is_ok_and(|shard| shard.owner.read().unwrap_or_else(PoisonError::into_inner).ready)
    }

    /// Whether a shard is owned here or being taken.
    #[must_use]
    pub fn owning(&self, uid: &IndexUid, shard: ShardId) -> bool {
        let lock = |shard: Shard| shard.owner.read().unwrap_or_else(PoisonError::into_inner).handle.is_some();
        self.shard(uid, shard).is_ok_and(lock)
    }

    /// How many ownerships of a shard in a row ended with an error.
    #[must_use]
    pub fn failures(&self, uid: &IndexUid, shard: ShardId) -> u32 {
        self.shard(uid, shard)
            .map_or(0, |shard| shard.owner.read().unwrap_or_else(PoisonError::into_inner).failures)
    }

    /// Forgets the failures of a shard: it may be tried again.
    pub fn forgive(&self, uid: &IndexUid, shard: ShardId) {
        if let Ok(shard) = self.shard(uid, shard) {
            shard.owner.write().unwrap_or_else(PoisonError::into_inner).failures = 0;
        }
    }

    /// Counts what is held and owned.
    pub(crate) fn count(&self) {
        self.0.metrics.held.set(self.held().len() as f64);
        self.0.metrics.owned.set(self.owned().len() as f64);
    }

    /// What is open, by shard: the newest cut's generation and those above it.
    #[must_use]
    pub fn opened(&self) -> Vec<Held> {
        let shards = self.0.shards.read().unwrap_or_else(PoisonError::into_inner);
        let each = |shard: &Shard| {
            let served = |open: Arc<Open>| Served {
                generation: open.manifest.generation,
                seq: open.manifest.seq,
                documents: open.manifest.documents,
            };
            Held {
                uid: shard.replica.uid.clone(),
                shard: shard.replica.shard,
                owned: shard.owner.read().unwrap_or_else(PoisonError::into_inner).ready,
                generations: shard.replica.current().into_iter().map(served).collect(),
            }
        };
        shards.values().map(each).collect()
    }

    /// The newest generation of a shard that is open here.
    #[must_use]
    pub fn newest(&self, uid: &IndexUid, shard: ShardId) -> Option<Generation> {
        self.shard(uid, shard).ok()?.replica.newest().map(|open| open.manifest.generation)
    }

    /// Waits for the next change of what is open or owned. Take the future
    /// before looking, so that no change falls between.
    pub fn changed(&self) -> tokio::sync::futures::OwnedNotified {
        self.0.changed.clone().notified_owned()
    }

    /// Waits for running searches; refuses further ones.
    ///
    /// # Cancel safety
    /// The pool stays closed.
    pub async fn close(&self) {
        self.0.pool.close().await;
    }

    /// This node's name.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.0.parts.node
    }

    fn shard(&self, uid: &IndexUid, shard: ShardId) -> Result<Shard, Error> {
        let shards = self.0.shards.read().unwrap_or_else(PoisonError::into_inner);
        shards.get(&(uid.clone(), shard)).cloned().ok_or_else(|| {
            Error::gone(format!("shard {shard} of {uid} is not held by {}", self.0.parts.node))
        })
    }

    fn opens(&self, uid: &IndexUid, shards: &[ShardAt]) -> Result<Vec<Arc<Open>>, Error> {
        let held = self.0.shards.read().unwrap_or_else(PoisonError::into_inner);
        let mut key = (uid.clone(), ShardId(0));
        let mut opens = Vec::with_capacity(shards.len());
        // Every one that is lacking is named: the others can still be asked for.
        let mut lacking: Option<Error> = None;
        for at in shards {
            key.1 = at.shard;
            let open = match held.get(&key) {
                Some(shard) => shard.replica.at(at.generation),
                None => {
                    let node = &self.0.parts.node;
                    let mut error = Error::gone(format!("shard {} of {uid} is not held by {node}", at.shard));
                    error.newest.push((at.shard, Generation(0)));
                    Err(error)
                }
            };
            match (open, &mut lacking) {
                (Ok(open), _) => opens.push(open),
                // Documents of one shard ask for it again and again.
                (Err(error), Some(lacking)) => {
                    for newest in error.newest {
                        if !lacking.newest.contains(&newest) {
                            lacking.newest.push(newest);
                        }
                    }
                }
                (Err(error), None) => lacking = Some(error),
            }
        }
        lacking.map_or(Ok(opens), Err)
    }

    fn handle(&self, uid: &IndexUid, shard: ShardId) -> Result<Handle, Error> {
        let shard = self.shard(uid, shard).map_err(|_| owner::not_owner())?;
        let ownership = shard.owner.read().unwrap_or_else(PoisonError::into_inner);
        ownership.handle.clone().filter(|_| ownership.ready).ok_or_else(owner::not_owner)
    }

    /// Refuses writes while there is still room for what was acknowledged.
    fn has_room(&self) -> Result<(), Error> {
        let Settings { data: Data::Folder(folder), disk_reserve_bytes: reserve, .. } = &self.0.settings
        else {
            return Ok(());
        };
        // A folder whose disk does not say is one that a put will tell about.
        let Ok(disk) = rustix::fs::statvfs(folder) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free >= *reserve {
            return Ok(());
        }
        Err(Error::unavailable(format!(
            "{} MB are free for {}, and writes are refused below {} MB: free some space",
            free >> 20,
            folder.display(),
            reserve >> 20
        ))
        .retry_after(Duration::from_secs(5)))
    }

    /// Runs CPU work on the pool, until `deadline`.
    async fn compute<T: Send + 'static>(
        &self,
        priority: Priority,
        deadline: Deadline,
        work: impl FnOnce(&runtime::Cancel) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let faults = self.0.faults.clone();
        let job = self.0.pool.run(priority, deadline, move |cancel| match faults {
            Some(faults) if !faults.hold(cancel) => Err(expired()),
            _ => work(cancel),
        });
        match tokio::time::timeout_at(deadline.instant(), job).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(pool_error(error)),
            // Dropping the job cancelled it.
            Err(_) => Err(expired()),
        }
    }
}

/// Deletes a shard's folder; renamed first, so that the shard may come back
/// meanwhile.
fn forget(folder: &std::path::Path) {
    let gone = folder.with_extension("gone");
    let deleted = std::fs::remove_dir_all(&gone)
        .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
        .and_then(|()| std::fs::rename(folder, &gone))
        .and_then(|()| std::fs::remove_dir_all(&gone));
    if let Err(error) = deleted
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), %error, "failed to delete a shard's files");
    }
}

fn expired() -> Error {
    Error::expired("the search did not end within its timeout: allow more time or narrow the query")
}

fn pool_error(error: PoolError) -> Error {
    match error {
        PoolError::Full => Error::overloaded("too many searches are waiting: retry in a moment")
            .retry_after(Duration::from_secs(1)),
        PoolError::Late => {
            Error::expired("this leaf is too busy to answer in time: allow more time, or ask another replica")
        }
        PoolError::Expired | PoolError::Cancelled => expired(),
        PoolError::Closed => Error::unavailable("this leaf is stopping: retry"),
        PoolError::Panicked(what) => Error::internal(format!("a search panicked: {what}")),
    }
}
