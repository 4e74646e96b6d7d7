//! One process a data folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The lock of a data folder, held while this lives.
pub(crate) struct Lock(File);

impl Lock {
    /// Takes the folder, creating it.
    ///
    /// # Errors
    /// Names the process that holds it.
    pub(crate) fn take(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|error| {
            anyhow::anyhow!(
                "{} cannot be made ({error}): choose another folder with --data",
                folder.display()
            )
        })?;
        let path = folder.join("lock");
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(|error| {
            anyhow::anyhow!(
                "{} cannot be written ({error}): fix its permissions, or choose another folder with --data",
                folder.display()
            )
        })?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _read = file.read_to_string(&mut holder);
                let holder = if holder.is_empty() { "another process".to_owned() } else { holder };
                bail!(
                    "{} is in use by {}: stop it, or choose another folder with --data",
                    folder.display(),
                    holder.trim()
                )
            }
            Err(TryLockError::Error(error)) => {
                bail!(
                    "{} cannot be locked ({error}): choose a folder on a local disk with --data",
                    folder.display()
                )
            }
        }
    }

    /// Leaves a word for who comes next.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) fn sign(&mut self, address: &str) -> Result<()> {
        let line = format!("process {} listening on {address}\n", std::process::id());
        self.0
            .set_len(0)
            .and_then(|()| self.0.rewind())
            .and_then(|()| self.0.write_all(line.as_bytes()))
            .context("failed to sign the data folder's lock")
    }
}
