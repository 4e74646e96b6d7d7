//! The files of one generation, as a directory that the engine can open.
//!
//! Segment files are immutable and shared by generations; what differs is the
//! list of segments, which lives in the manifest. So a generation needs no
//! folder of its own: this directory reads segment files from a shared place
//! and answers for `meta.json` from memory.
//!
//! **Invariant:** nothing is ever written through it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tantivy::Directory;
use tantivy::directory::error::{DeleteError, LockError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    DirectoryLock, FileHandle, Lock, MmapDirectory, RamDirectory, WatchCallback, WatchHandle, WritePtr,
};

/// Where the segment files of one shard are.
#[derive(Clone)]
pub(crate) enum Files {
    /// In a folder, memory-mapped by the engine.
    Folder(PathBuf, MmapDirectory),
    /// In memory.
    Memory(RamDirectory),
}

impl Files {
    /// Opens a folder, creating it where it is missing.
    pub(crate) fn folder(path: &Path) -> Result<Self, super::Error> {
        std::fs::create_dir_all(path)?;
        let directory = MmapDirectory::open(path).map_err(tantivy::TantivyError::from)?;
        Ok(Self::Folder(path.to_owned(), directory))
    }

    /// Files in memory, for tests and small tools.
    pub(crate) fn memory() -> Self {
        Self::Memory(RamDirectory::create())
    }

    pub(crate) fn directory(&self) -> Box<dyn Directory> {
        match self {
            Self::Folder(_, directory) => Box::new(directory.clone()),
            Self::Memory(directory) => Box::new(directory.clone()),
        }
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        match self {
            Self::Folder(path, _) => path.join(name).exists(),
            Self::Memory(directory) => directory.exists(Path::new(name)).unwrap_or(false),
        }
    }
}

/// A generation's view of [`Files`].
#[derive(Clone)]
pub(crate) struct GenerationDirectory {
    files: Arc<dyn Directory>,
    meta: Arc<[u8]>,
}

impl GenerationDirectory {
    pub(crate) fn new(files: &Files, meta: &str) -> Self {
        Self { files: files.directory().into(), meta: meta.as_bytes().into() }
    }
}

impl std::fmt::Debug for GenerationDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GenerationDirectory")
    }
}

fn is_meta(path: &Path) -> bool {
    path == Path::new("meta.json")
}

fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "a generation is never written to")
}

impl Directory for GenerationDirectory {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        self.files.get_file_handle(path)
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        Err(DeleteError::IoError { io_error: Arc::new(read_only()), filepath: path.to_owned() })
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        if is_meta(path) { Ok(true) } else { self.files.exists(path) }
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        Err(OpenWriteError::wrap_io_error(read_only(), path.to_owned()))
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        if is_meta(path) {
            return Ok(self.meta.to_vec());
        }
        Err(OpenReadError::FileDoesNotExist(path.to_owned()))
    }

    fn atomic_write(&self, _path: &Path, _data: &[u8]) -> io::Result<()> {
        Err(read_only())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn acquire_lock(&self, _lock: &Lock) -> Result<DirectoryLock, LockError> {
        // The engine locks to keep its garbage collector from files that a
        // reader is opening; nothing here is ever collected under a reader.
        Ok(DirectoryLock::from(Box::new(())))
    }

    fn watch(&self, _callback: WatchCallback) -> tantivy::Result<WatchHandle> {
        Ok(WatchHandle::empty())
    }
}

impl Files {
    /// Writes a whole file.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> Result<(), super::Error> {
        use std::io::Write;
        use tantivy::directory::TerminatingWrite;
        let mut file = self.directory().open_write(Path::new(name)).map_err(tantivy::TantivyError::from)?;
        file.write_all(bytes)?;
        file.terminate()?;
        Ok(())
    }

    /// Reads a whole file.
    pub(crate) fn get(&self, name: &str) -> Result<Vec<u8>, super::Error> {
        let file = self.directory().open_read(Path::new(name)).map_err(tantivy::TantivyError::from)?;
        Ok(file.read_bytes()?.to_vec())
    }
}
