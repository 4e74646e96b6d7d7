//! The lock on a data folder: one process at a time.
//!
//! **Invariant:** whoever holds the lock is alive; the system releases it with
//! the process, so a crash leaves nothing to clean up.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};

/// Who holds the lock.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    address: String,
}

/// An exclusive lock on a data folder, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Takes the lock of `folder`, which is created where it is missing.
    pub(crate) fn take(folder: &Path) -> anyhow::Result<Self> {
        let unwritable = || format!("{} cannot be written: fix its permissions or choose another with --data", folder.display());
        std::fs::create_dir_all(folder).with_context(unwritable)?;
        let path = folder.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(unwritable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(held(folder, &mut file)),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("{} cannot be locked: choose another disk with --data", path.display()))
            }
        }
    }

    /// Writes who holds it, for the process that comes second.
    pub(crate) fn name(&mut self, address: &str) -> anyhow::Result<()> {
        let holder = Holder { pid: std::process::id(), address: address.to_owned() };
        let text = serde_json::to_string(&holder)?;
        let file = &mut self.0;
        let write = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(text.as_bytes()));
        write.context("write the lock file: free some space, or choose another disk with --data")
    }
}

fn held(folder: &Path, file: &mut File) -> anyhow::Error {
    let mut text = String::new();
    let read = file.read_to_string(&mut text).ok();
    let holder = read.and_then(|_| serde_json::from_str::<Holder>(&text).ok());
    let holder = holder.map_or_else(
        || "another process".to_owned(),
        |holder| format!("process {} (http://{})", holder.pid, holder.address),
    );
    anyhow!("{} is in use by {holder}: stop it, or choose another folder with --data", folder.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = Lock::take(folder.path()).unwrap();
        first.name("127.0.0.1:7700").unwrap();
        let error = Lock::take(folder.path()).unwrap_err().to_string();
        let process = format!("in use by process {} (http://127.0.0.1:7700)", std::process::id());
        assert!(error.contains(&process), "{error}");
        drop(first);
        Lock::take(folder.path()).unwrap();
    }
}
