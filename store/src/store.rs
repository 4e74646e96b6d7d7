//! Typed reads and puts over any object store.
//!
//! **Invariant:** listing is a hint. The newest of a numbered folder is found
//! by probing upward from the listing's maximum.

use std::fmt;
use std::path::{Path as Folder, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use model::cut::Cut;
use model::ids::{CutNumber, DefinitionNumber, Generation, IndexName, IndexUid, Seq, ShardId};
use model::settings::Definition;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::sync::Semaphore;

use crate::error::{Error, absent};
use crate::frame::Nonce;
use crate::log::Put;
use crate::manifest::Manifest;
use crate::names::Entry;
use crate::s3::Bucket;
use crate::slow::Slow;
use crate::wal::Record;
use crate::{Deadline, cuts, definition, files, keys, names};

/// The objects of a cluster. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    objects: Arc<dyn ObjectStore>,
    home: Home,
    draw: Draw,
    /// What delays operations on purpose, where that is allowed.
    slow: Option<Slow>,
    /// One permit for each part of a file that is being downloaded.
    downloads: Semaphore,
}

/// What lies beneath, as far as its errors and files need to know.
#[derive(Clone)]
pub(crate) enum Home {
    /// A folder on the local disk.
    Folder(PathBuf),
    /// A bucket.
    Bucket(Bucket),
    /// Something else.
    Other,
}

type Draw = Box<dyn Fn() -> u128 + Send + Sync>;

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.0.objects)
    }
}

impl Store {
    /// Opens a store in `folder`, which is created where it is missing. A put
    /// returns when file and folder are synced.
    ///
    /// # Errors
    /// When the folder cannot be created or opened.
    pub fn local(folder: &Folder) -> Result<Self, Error> {
        files::create_folder(folder)?;
        let root = folder.canonicalize().map_err(|error| Error::of_disk(folder, error))?;
        let objects = LocalFileSystem::new_with_prefix(&root)
            .map_err(|error| Error::of_store(Some(folder), &Path::default(), error))?
            .with_fsync(true)
            .with_automatic_cleanup(false);
        Ok(Self::at_home(Arc::new(objects), Home::Folder(root)))
    }

    /// A store in memory.
    #[must_use]
    pub fn memory() -> Self {
        Self::new(Arc::new(InMemory::new()))
    }

    /// A store over any other object store.
    #[must_use]
    pub fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self::at_home(objects, Home::Other)
    }

    /// A store under a prefix of a bucket.
    #[must_use]
    pub fn prefixed(objects: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self::new(Arc::new(PrefixStore::new(objects, prefix)))
    }

    /// The same objects with nonces and uids from `draw`, for simulation.
    #[must_use]
    pub fn drawing(&self, draw: impl Fn() -> u128 + Send + Sync + 'static) -> Self {
        Self::build(Arc::clone(&self.0.objects), self.0.home.clone(), Box::new(draw), self.0.slow.clone())
    }

    /// The same objects; `delay` draws how long each operation waits before it
    /// begins, for tests.
    #[must_use]
    pub fn slowed(&self, delay: impl Fn() -> Option<Duration> + Send + Sync + 'static) -> Self {
        let slow = Slow::new(Arc::clone(&self.0.objects), delay);
        let objects = Arc::new(slow.clone());
        Self::build(objects, self.0.home.clone(), Box::new(rand::random::<u128>), Some(slow))
    }

    pub(crate) fn at_home(objects: Arc<dyn ObjectStore>, home: Home) -> Self {
        Self::build(objects, home, Box::new(rand::random::<u128>), None)
    }

    fn build(objects: Arc<dyn ObjectStore>, home: Home, draw: Draw, slow: Option<Slow>) -> Self {
        let downloads = Semaphore::new(files::DOWNLOADS_MAX);
        Self(Arc::new(Inner { objects, home, draw, slow, downloads }))
    }

    /// Waits where an operation of the objects would that goes past them.
    pub(crate) async fn pause(&self) {
        if let Some(slow) = &self.0.slow {
            slow.wait().await;
        }
    }

    pub(crate) fn downloads(&self) -> &Semaphore {
        &self.0.downloads
    }

    pub(crate) fn home(&self) -> &Home {
        &self.0.home
    }

    /// Draws a nonce for one object.
    #[must_use]
    pub fn nonce(&self) -> Nonce {
        Nonce((self.0.draw)())
    }

    /// Draws the uid of a new index.
    #[must_use]
    pub fn uid(&self) -> IndexUid {
        IndexUid::from_bits((self.0.draw)())
    }

    /// The folder of a store on the local disk.
    #[must_use]
    pub fn root(&self) -> Option<&Folder> {
        match self.home() {
            Home::Folder(root) => Some(root),
            Home::Bucket(_) | Home::Other => None,
        }
    }

    /// The objects beneath.
    #[must_use]
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.0.objects
    }

    pub(crate) fn error(&self, path: &Path, error: object_store::Error) -> Error {
        Error::of_store(self.root(), path, error)
    }

    /// Reads an object, or `None` where there is none.
    pub(crate) async fn read(&self, path: &Path) -> Result<Option<Bytes>, Error> {
        let read = async { self.objects().get(path).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if absent(&error) => Ok(None),
            Err(error) => Err(self.error(path, error)),
        }
    }

    /// Lists a folder and all below it, in no order.
    pub(crate) async fn list(&self, folder: &Path) -> Result<Vec<ObjectMeta>, Error> {
        let listing = self.objects().list(Some(folder));
        listing.try_collect().await.map_err(|error| self.error(folder, error))
    }

    /// The numbers of a numbered folder's listing, in order.
    pub(crate) async fn numbers(&self, folder: &Path) -> Result<Vec<u64>, Error> {
        let listing = self.list(folder).await?;
        let mut numbers: Vec<u64> =
            listing.iter().filter_map(|meta| keys::number(folder, &meta.location)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The highest number of a folder, at least `floor`; 0 where there is none.
    pub(crate) async fn highest(&self, folder: &Path, floor: u64) -> Result<u64, Error> {
        let listed = self.numbers(folder).await?.last().copied().unwrap_or(0);
        let mut highest = listed.max(floor);
        while self.exists(&keys::numbered(folder, highest + 1)).await? {
            highest += 1;
        }
        Ok(highest)
    }

    async fn exists(&self, path: &Path) -> Result<bool, Error> {
        match self.objects().head(path).await {
            Ok(_) => Ok(true),
            Err(error) if absent(&error) => Ok(false),
            Err(error) => Err(self.error(path, error)),
        }
    }

    /// Deletes an object; a missing one is fine.
    pub(crate) async fn delete(&self, path: &Path) -> Result<(), Error> {
        match self.objects().delete(path).await {
            Ok(()) => Ok(()),
            Err(error) if absent(&error) => Ok(()),
            Err(error) => Err(self.error(path, error)),
        }
    }
}

/// Write-ahead log.
impl Store {
    /// The highest record's number, or 0 before the first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn newest_seq(&self, uid: &IndexUid, shard: ShardId) -> Result<Seq, Error> {
        self.highest(&keys::wal(uid, shard), 0).await.map(Seq)
    }

    /// A record, or `None` where there is none.
    ///
    /// # Errors
    /// When the store fails or the record is damaged.
    pub async fn record(&self, uid: &IndexUid, shard: ShardId, seq: Seq) -> Result<Option<Record>, Error> {
        let path = keys::record(uid, shard, seq);
        self.read(&path).await?.map(|bytes| Record::decode(&path, &bytes)).transpose()
    }
}

/// Manifests.
impl Store {
    /// The manifest of the highest generation.
    ///
    /// # Errors
    /// [`Kind::Internal`](crate::Kind::Internal) when there is none: finding no
    /// manifest of a named index is corruption, never a new shard.
    pub async fn newest_manifest(&self, uid: &IndexUid, shard: ShardId) -> Result<Manifest, Error> {
        let folder = keys::manifests(uid, shard);
        let generation = self.highest(&folder, 0).await?;
        let manifest = self.manifest(uid, shard, Generation(generation)).await?;
        manifest.ok_or_else(|| Error::damaged(&folder, "it holds no manifest"))
    }

    /// The manifest of a generation, or `None` where there is none.
    ///
    /// # Errors
    /// When the store fails or the manifest is damaged.
    pub async fn manifest(
        &self,
        uid: &IndexUid,
        shard: ShardId,
        generation: Generation,
    ) -> Result<Option<Manifest>, Error> {
        let path = keys::manifest(uid, shard, generation);
        self.read(&path).await?.map(|bytes| Manifest::decode(&path, &bytes)).transpose()
    }
}

/// Cuts.
impl Store {
    /// The newest cut.
    ///
    /// # Errors
    /// [`Kind::Internal`](crate::Kind::Internal) when there is none.
    pub async fn newest_cut(&self, uid: &IndexUid) -> Result<Cut, Error> {
        let folder = keys::cuts(uid);
        let number = self.highest(&folder, 0).await?;
        let cut = self.cut(uid, CutNumber(number)).await?;
        cut.ok_or_else(|| Error::damaged(&folder, "it holds no cut"))
    }

    /// A cut, or `None` where there is none.
    ///
    /// # Errors
    /// When the store fails or the cut is damaged.
    pub async fn cut(&self, uid: &IndexUid, number: CutNumber) -> Result<Option<Cut>, Error> {
        let path = keys::cut(uid, number);
        self.read(&path).await?.map(|bytes| cuts::decode(&path, &bytes)).transpose()
    }

    /// Puts a cut at its number. [`Put::Other`] voids it: its author resigns.
    ///
    /// # Errors
    /// See [`Store::put_numbered`].
    pub async fn put_cut(&self, cut: &Cut, deadline: Deadline) -> Result<Put, Error> {
        self.put_numbered(&keys::cut(&cut.uid, cut.number), cuts::encode(cut), deadline).await
    }
}

/// Definitions.
impl Store {
    /// The newest definition and its number.
    ///
    /// # Errors
    /// [`Kind::Internal`](crate::Kind::Internal) when there is none.
    pub async fn newest_definition(&self, uid: &IndexUid) -> Result<(DefinitionNumber, Definition), Error> {
        let folder = keys::definitions(uid);
        let number = DefinitionNumber(self.highest(&folder, 0).await?);
        let found = self.definition(uid, number).await?;
        let found = found.ok_or_else(|| Error::damaged(&folder, "it holds no definition"))?;
        Ok((number, found))
    }

    /// A definition, or `None` where there is none.
    ///
    /// # Errors
    /// When the store fails or the definition is damaged.
    pub async fn definition(
        &self,
        uid: &IndexUid,
        number: DefinitionNumber,
    ) -> Result<Option<Definition>, Error> {
        let path = keys::definition(uid, number);
        self.read(&path).await?.map(|bytes| definition::decode(&path, &bytes)).transpose()
    }

    /// Puts a definition at a number: 1 more than the newest that its author
    /// knew. `nonce` stays the same over retries.
    ///
    /// # Errors
    /// See [`Store::put_numbered`].
    pub async fn put_definition(
        &self,
        uid: &IndexUid,
        number: DefinitionNumber,
        nonce: Nonce,
        value: &Definition,
        deadline: Deadline,
    ) -> Result<Put, Error> {
        let bytes = definition::encode(nonce, value);
        self.put_numbered(&keys::definition(uid, number), bytes, deadline).await
    }
}

/// Names.
impl Store {
    /// The newest entry of a name and its number; `None` for a name that never
    /// was.
    ///
    /// # Errors
    /// When the store fails or the entry is damaged.
    pub async fn name(&self, name: &IndexName) -> Result<Option<(u64, Entry)>, Error> {
        let folder = keys::name_folder(name);
        let number = self.highest(&folder, 0).await?;
        Ok(self.entry(&folder, number).await?.map(|entry| (number, entry)))
    }

    /// Every entry of a name, in order.
    ///
    /// # Errors
    /// When the store fails or an entry is damaged.
    pub async fn name_entries(&self, name: &IndexName) -> Result<Vec<(u64, Entry)>, Error> {
        let folder = keys::name_folder(name);
        let mut entries = Vec::new();
        for number in 1.. {
            match self.entry(&folder, number).await? {
                Some(entry) => entries.push((number, entry)),
                None => break,
            }
        }
        Ok(entries)
    }

    /// Every name that ever was, in order, with its newest entry and its number.
    ///
    /// # Errors
    /// When the store fails or an entry is damaged.
    pub async fn list_names(&self) -> Result<Vec<(IndexName, u64, Entry)>, Error> {
        let folder = keys::names();
        let mut found = std::collections::BTreeSet::new();
        for meta in self.list(&folder).await? {
            let name = meta.location.prefix_match(&folder).and_then(|mut parts| parts.next());
            if let Some(name) = name.and_then(|part| IndexName::new(part.as_ref()).ok()) {
                found.insert(name);
            }
        }
        let mut names = Vec::with_capacity(found.len());
        for name in found {
            if let Some((number, entry)) = self.name(&name).await? {
                names.push((name, number, entry));
            }
        }
        Ok(names)
    }

    async fn entry(&self, folder: &Path, number: u64) -> Result<Option<Entry>, Error> {
        let path = keys::numbered(folder, number);
        self.read(&path).await?.map(|bytes| names::decode(&path, &bytes)).transpose()
    }
}
