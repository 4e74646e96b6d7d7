//! Segment files: into the store, and out of it.
//!
//! **Invariant:** a file is immutable, and whoever gets one gets the bytes that
//! its manifest names, or an error.
//!
//! In a local store a file moves by hard link: it is written once, by the
//! engine, and never copied on one disk.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path as Folder, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use object_store::path::Path;
use object_store::{GetOptions, ObjectStoreExt, PutMode, WriteMultipart};
use tokio::io::AsyncReadExt;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::error::{Cause, Error, Kind};
use crate::log::taken;
use crate::manifest::FileRef;
use crate::store::Store;

/// Largest file put in one request; larger ones go in parts.
const SINGLE_PUT_BYTES_MAX: u64 = 16 << 20;
/// Size of a part, up or down: S3 wants at least 5 MiB, and few are in memory
/// at once.
const PART_BYTES: usize = 8 << 20;
/// Parts on their way at once, up or down: 32 MiB of memory a file.
const PARTS_IN_FLIGHT: usize = 4;
/// Parts that one store downloads at once, of all files: they share the link,
/// and each is to come within a request's time. 64 MiB of memory.
pub(crate) const DOWNLOADS_MAX: usize = 8;
/// Longest wait for the next bytes of a download, with the store's own tries of
/// a few seconds in it: then the caller may take the file from elsewhere.
const STALL_MAX: Duration = Duration::from_secs(10);
/// What one read of a file takes.
const READ_BYTES: usize = 256 << 10;

impl Store {
    /// Puts a local file, durably. Equal bytes at `path` already are fine.
    ///
    /// # Errors
    /// When other bytes are at `path`, or the disk or the store fails.
    pub async fn put_file(&self, local: &Folder, path: &Path) -> Result<FileRef, Error> {
        let name = path.filename().unwrap_or_default().to_owned();
        let from = local.to_owned();
        let (bytes, checksum) = spawn_blocking(move || digest(&from)).await.map_err(Cause::from)??;
        let file = FileRef { name, path: path.to_string(), bytes, checksum };
        if let Some(to) = self.on_disk(&file.path) {
            self.pause().await;
            let (from, expected) = (local.to_owned(), file.clone());
            let linked = spawn_blocking(move || link_in(&from, &to, &expected)).await;
            if linked.map_err(Cause::from)?? {
                return Ok(file);
            }
        }
        if bytes > SINGLE_PUT_BYTES_MAX {
            self.put_parts(local, path).await?;
            return Ok(file);
        }
        let whole = tokio::fs::read(local).await.map_err(|error| Error::of_disk(local, error))?;
        self.put_whole(whole.into(), path, file).await
    }

    /// Puts a file of an engine that lives in memory.
    ///
    /// # Errors
    /// When other bytes are at `path`, or the store fails.
    pub async fn put_bytes_as_file(&self, bytes: Bytes, path: &Path) -> Result<FileRef, Error> {
        let file = FileRef {
            name: path.filename().unwrap_or_default().to_owned(),
            path: path.to_string(),
            bytes: bytes.len() as u64,
            checksum: format!("{:032x}", xxh3_128(&bytes)),
        };
        self.put_whole(bytes, path, file).await
    }

    /// Gets a file's bytes, checked.
    ///
    /// # Errors
    /// [`Kind::NotFound`](crate::Kind::NotFound) when it was collected.
    pub async fn get_file(&self, file: &FileRef) -> Result<Bytes, Error> {
        let found = self.read(&Path::from(file.path.as_str())).await?;
        let bytes = found.ok_or_else(|| Error::missing(&file.path))?;
        check(file, bytes.len() as u64, &format!("{:032x}", xxh3_128(&bytes)))?;
        Ok(bytes)
    }

    /// Brings a file to `to`, checked; a correct one that is there already
    /// stays. The folder is created.
    ///
    /// # Errors
    /// [`Kind::NotFound`](crate::Kind::NotFound) when it was collected.
    pub async fn fetch_file_to(&self, file: &FileRef, to: &Folder) -> Result<(), Error> {
        let (source, dest, expected) = (self.on_disk(&file.path), to.to_owned(), file.clone());
        if source.is_some() {
            self.pause().await;
        }
        let there = spawn_blocking(move || link_out(source.as_deref(), &dest, &expected)).await;
        if there.map_err(Cause::from)?? {
            return Ok(());
        }
        let staged = staged(to);
        if let Err(error) = self.fetch_staged(file, &staged).await {
            // On a full disk it would be in the way of everything else.
            let _removed = tokio::fs::remove_file(&staged).await;
            return Err(error);
        }
        let to = to.to_owned();
        let rename = move || {
            fs::rename(&staged, &to)
                .and_then(|()| sync_folder(&to))
                .map_err(|error| Error::of_disk(&to, error))
        };
        spawn_blocking(rename).await.map_err(Cause::from)?
    }

    async fn fetch_staged(&self, file: &FileRef, staged: &Folder) -> Result<(), Error> {
        let path = Path::from(file.path.as_str());
        // What an earlier fetch left behind is overwritten.
        let mut out = tokio::fs::File::create(staged).await.map_err(|error| Error::of_disk(staged, error))?;
        // In parts, each a request with tries of its own: a connection that is
        // lost after minutes costs one part and not the file.
        let starts = (0..file.bytes.max(1)).step_by(PART_BYTES);
        let mut parts =
            stream::iter(starts).map(|start| self.part(&path, file, start)).buffered(PARTS_IN_FLIGHT);
        let (mut hash, mut bytes) = (Xxh3::new(), 0);
        while let Some(part) = parts.next().await {
            for chunk in part? {
                hash.update(&chunk);
                bytes += chunk.len() as u64;
                tokio::io::AsyncWriteExt::write_all(&mut out, &chunk)
                    .await
                    .map_err(|error| Error::of_disk(staged, error))?;
            }
        }
        // A write that failed in the background is told by a flush, and by a
        // sync it is not.
        tokio::io::AsyncWriteExt::flush(&mut out).await.map_err(|error| Error::of_disk(staged, error))?;
        out.sync_all().await.map_err(|error| Error::of_disk(staged, error))?;
        check(file, bytes, &format!("{:032x}", hash.digest128()))
    }

    /// Gets the part of a file that begins at `start`, or all of a small file.
    async fn part(&self, path: &Path, file: &FileRef, start: u64) -> Result<Vec<Bytes>, Error> {
        // Taken before any clock runs: who waits for a turn has not stalled.
        let _turn = self.downloads().acquire().await.expect("nobody closes it");
        let stalled = |_| Error::failed(path, "the download stalled");
        let in_store = |error| self.error(path, error);
        let end = file.bytes.min(start + PART_BYTES as u64);
        let range = (file.bytes > PART_BYTES as u64).then(|| (start..end).into());
        let got = self.objects().get_opts(path, GetOptions { range, ..GetOptions::default() });
        let got = timeout(STALL_MAX, got).await.map_err(stalled)?.map_err(in_store)?;
        check_bytes(file, got.meta.size)?;
        let mut stream = got.into_stream();
        let mut chunks = Vec::new();
        while let Some(chunk) = timeout(STALL_MAX, stream.next()).await.map_err(stalled)? {
            chunks.push(chunk.map_err(in_store)?);
        }
        Ok(chunks)
    }

    /// Makes an object that is there durable; only a local store has work.
    pub(crate) async fn sync_object(&self, path: &Path) -> Result<(), Error> {
        let Some(file) = self.on_disk(path.as_ref()) else {
            return Ok(());
        };
        let sync = move || {
            File::open(&file)
                .and_then(|opened| opened.sync_all())
                .and_then(|()| sync_folder(&file))
                .map_err(|error| Error::of_disk(&file, error))
        };
        spawn_blocking(sync).await.map_err(Cause::from)?
    }

    fn on_disk(&self, path: &str) -> Option<PathBuf> {
        self.root().map(|root| root.join(path))
    }

    async fn put_whole(&self, bytes: Bytes, path: &Path, file: FileRef) -> Result<FileRef, Error> {
        match self.objects().put_opts(path, bytes.into(), PutMode::Create.into()).await {
            Ok(_) => Ok(file),
            Err(error) if taken(&error) => match self.get_file(&file).await {
                Ok(_) => self.sync_object(path).await.map(|()| file),
                Err(error) => match error.kind() {
                    Kind::Internal => Err(Cause::Occupied { path: file.path }.into()),
                    // S3 refused one of two puts at once, and neither is there.
                    Kind::NotFound => Err(Error::failed(path, "another put was under way")),
                    _ => Err(error),
                },
            },
            Err(error) => Err(self.error(path, error)),
        }
    }

    // Overwrites, for S3 has no create-only multipart everywhere: a segment's
    // path is written by one owner of one epoch only, always with equal bytes.
    async fn put_parts(&self, local: &Folder, path: &Path) -> Result<(), Error> {
        let in_store = |error| self.error(path, error);
        let upload = self.objects().put_multipart(path).await.map_err(in_store)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        if let Err(error) = self.fill(&mut upload, local, path).await {
            // S3 keeps, and bills, the parts of an upload that nobody ends.
            if let Err(error) = upload.abort().await {
                tracing::warn!(%path, %error, "failed to abort an upload: the bucket's rules must end it");
            }
            return Err(error);
        }
        upload.finish().await.map_err(in_store)?;
        Ok(())
    }

    async fn fill(&self, upload: &mut WriteMultipart, local: &Folder, path: &Path) -> Result<(), Error> {
        let on_disk = |error| Error::of_disk(local, error);
        let mut from = tokio::fs::File::open(local).await.map_err(on_disk)?;
        loop {
            upload.wait_for_capacity(PARTS_IN_FLIGHT).await.map_err(|error| self.error(path, error))?;
            let mut part = BytesMut::with_capacity(PART_BYTES);
            while part.len() < PART_BYTES && from.read_buf(&mut part).await.map_err(on_disk)? > 0 {}
            if part.is_empty() {
                return Ok(());
            }
            upload.put(part.freeze());
        }
    }
}

/// Creates a folder and those above it, and syncs each folder that gained one.
pub(crate) fn create_folder(folder: &Folder) -> Result<(), Error> {
    let mut missing = Vec::new();
    let mut next = folder;
    while !next.exists() {
        missing.push(next);
        match next.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => next = parent,
            _ => break,
        }
    }
    fs::create_dir_all(folder).map_err(|error| Error::of_disk(folder, error))?;
    for folder in missing {
        sync_folder(folder).map_err(|error| Error::of_disk(folder, error))?;
    }
    Ok(())
}

/// Links a scratch file into the store; false where links are impossible.
fn link_in(from: &Folder, to: &Folder, file: &FileRef) -> Result<bool, Error> {
    File::open(from).and_then(|opened| opened.sync_all()).map_err(|error| Error::of_disk(from, error))?;
    if let Some(folder) = to.parent() {
        create_folder(folder)?;
    }
    match fs::hard_link(from, to) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if verify(to, file).is_err() {
                return Err(Cause::Occupied { path: file.path.clone() }.into());
            }
            File::open(to).and_then(|opened| opened.sync_all()).map_err(|error| Error::of_disk(to, error))?;
        }
        Err(error) if cannot_link(&error) => return Ok(false),
        Err(error) => return Err(Error::of_disk(to, error)),
    }
    sync_folder(to).map_err(|error| Error::of_disk(to, error))?;
    Ok(true)
}

/// Links a stored file out, checked; false where it has to be copied.
fn link_out(from: Option<&Folder>, to: &Folder, file: &FileRef) -> Result<bool, Error> {
    if to.exists() {
        if verify(to, file).is_ok() {
            return Ok(true);
        }
        fs::remove_file(to).map_err(|error| Error::of_disk(to, error))?;
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(|error| Error::of_disk(folder, error))?;
    }
    let Some(from) = from else { return Ok(false) };
    match fs::hard_link(from, to) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::missing(&file.path));
        }
        Err(error) if cannot_link(&error) => return Ok(false),
        Err(error) => return Err(Error::of_disk(to, error)),
    }
    if let Err(error) = verify(to, file) {
        // A damaged file must not be found where engines open files.
        fs::remove_file(to).map_err(|error| Error::of_disk(to, error))?;
        return Err(error);
    }
    Ok(true)
}

/// Another disk, or one without hard links.
fn cannot_link(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    matches!(error.kind(), CrossesDevices | TooManyLinks | Unsupported | PermissionDenied)
}

fn verify(path: &Folder, file: &FileRef) -> Result<(), Error> {
    let (bytes, checksum) = digest(path)?;
    check(file, bytes, &checksum)
}

fn check(file: &FileRef, bytes: u64, checksum: &str) -> Result<(), Error> {
    check_bytes(file, bytes)?;
    if checksum != file.checksum {
        return Err(Error::damaged(&file.path, "its checksum does not match"));
    }
    Ok(())
}

fn check_bytes(file: &FileRef, bytes: u64) -> Result<(), Error> {
    if bytes != file.bytes {
        return Err(Error::damaged(&file.path, format!("{bytes} bytes of {}", file.bytes)));
    }
    Ok(())
}

fn digest(path: &Folder) -> Result<(u64, String), Error> {
    let read = || -> io::Result<(u64, String)> {
        let mut from = File::open(path)?;
        let (mut hash, mut bytes) = (Xxh3::new(), 0);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let n = from.read(&mut buffer)?;
            if n == 0 {
                return Ok((bytes, format!("{:032x}", hash.digest128())));
            }
            hash.update(&buffer[..n]);
            bytes += n as u64;
        }
    };
    read().map_err(|error| Error::of_disk(path, error))
}

fn staged(to: &Folder) -> PathBuf {
    let mut staged = to.as_os_str().to_owned();
    staged.push(".part");
    staged.into()
}

/// Syncs the folder that holds `path`.
fn sync_folder(path: &Folder) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if cfg!(unix) { File::open(parent.unwrap_or(Folder::new(".")))?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use object_store::throttle::{ThrottleConfig, ThrottledStore};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stalled_download_ends() {
        let hour = Duration::from_secs(3_600);
        for slow in [
            ThrottleConfig { wait_get_per_call: hour, ..ThrottleConfig::default() },
            ThrottleConfig { wait_get_per_byte: hour, ..ThrottleConfig::default() },
        ] {
            let store = Store::new(std::sync::Arc::new(ThrottledStore::new(InMemory::new(), slow)));
            let path = Path::from("file");
            let file = store.put_bytes_as_file(Bytes::from_static(b"bytes"), &path).await.unwrap();
            let folder = tempfile::tempdir().unwrap();
            let error = store.fetch_file_to(&file, &folder.path().join("file")).await.unwrap_err();
            assert_eq!(error.to_string(), "the store failed at file: the download stalled");
            assert_eq!(error.kind(), Kind::Unavailable);
        }
    }
}
