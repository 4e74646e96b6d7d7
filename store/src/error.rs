//! What can go wrong with objects, and what a caller does next.

use std::error::Error as StdError;
use std::io;
use std::path::{Path as Folder, PathBuf};

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong: change it.
    Invalid,
    /// The named thing does not exist.
    NotFound,
    /// The named thing exists already, or changed meanwhile.
    Conflict,
    /// The store did not answer, or refuses writes: retry later.
    Unavailable,
    /// The outcome of a write is unknown. It may yet land: only identical bytes
    /// may be put in its place.
    Unknown,
    /// The deadline passed before anything was written.
    Expired,
    /// An object is damaged, or a rule of the log is broken: a person must look.
    Internal,
}

/// Why a call failed. The text follows "failed to".
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Cause>);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error("{0}")]
    Invalid(String),
    #[error("{path} does not exist")]
    Missing { path: String },
    #[error("index {0} does not exist")]
    NoIndex(String),
    #[error("index {0} exists already")]
    IndexExists(String),
    #[error("{path} holds other bytes already")]
    Occupied { path: String },
    #[error("{path} is damaged: {what}")]
    Damaged { path: String, what: String },
    #[error("{path}: a rule of the log is broken: {what}")]
    Broken { path: String, what: String },
    #[error("no space left on {}: free some or move --data", folder.display())]
    NoSpace { folder: PathBuf },
    #[error("{} cannot be written ({why}): fix its permissions or move --data", folder.display())]
    ReadOnly { folder: PathBuf, why: String },
    #[error("the outcome of putting {path} is unknown: {last}")]
    Unknown { path: String, last: String },
    #[error("the deadline passed while {0}")]
    Expired(&'static str),
    #[error("the store failed at {path}: {source}")]
    Store { path: String, source: object_store::Error },
    #[error("disk error at {}: {source}", path.display())]
    Disk { path: PathBuf, source: io::Error },
    #[error("a task of the store died: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl Error {
    /// What a caller can do.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &*self.0 {
            Cause::Invalid(_) => Kind::Invalid,
            Cause::Missing { .. } | Cause::NoIndex(_) => Kind::NotFound,
            Cause::IndexExists(_) | Cause::Occupied { .. } => Kind::Conflict,
            Cause::NoSpace { .. } | Cause::ReadOnly { .. } | Cause::Store { .. } | Cause::Disk { .. } => {
                Kind::Unavailable
            }
            Cause::Unknown { .. } => Kind::Unknown,
            Cause::Expired(_) => Kind::Expired,
            Cause::Damaged { .. } | Cause::Broken { .. } | Cause::Task(_) => Kind::Internal,
        }
    }

    /// Turns a store's error into ours. `root` is the folder of a local store.
    pub(crate) fn of_store(
        root: Option<&Folder>,
        path: &object_store::path::Path,
        source: object_store::Error,
    ) -> Self {
        if let object_store::Error::NotFound { .. } = source {
            return Cause::Missing { path: path.to_string() }.into();
        }
        if let (Some(root), Some(io)) = (root, io_error(&source))
            && let Some(cause) = disk(root, io)
        {
            return cause.into();
        }
        Cause::Store { path: path.to_string(), source }.into()
    }

    /// Turns an error of the local disk into ours.
    pub(crate) fn of_disk(path: &Folder, source: io::Error) -> Self {
        let folder = path.parent().unwrap_or(path);
        match disk(folder, &source) {
            Some(cause) => cause.into(),
            None => Cause::Disk { path: path.into(), source }.into(),
        }
    }

    pub(crate) fn damaged(path: &impl ToString, what: impl Into<String>) -> Self {
        Cause::Damaged { path: path.to_string(), what: what.into() }.into()
    }

    pub(crate) fn broken(path: &impl ToString, what: impl Into<String>) -> Self {
        Cause::Broken { path: path.to_string(), what: what.into() }.into()
    }

    pub(crate) fn missing(path: &impl ToString) -> Self {
        Cause::Missing { path: path.to_string() }.into()
    }
}

impl From<Cause> for Error {
    fn from(cause: Cause) -> Self {
        Self(Box::new(cause))
    }
}

/// The conditions of a disk that a person can end.
fn disk(folder: &Folder, source: &io::Error) -> Option<Cause> {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match source.kind() {
        StorageFull | QuotaExceeded => Some(Cause::NoSpace { folder: folder.into() }),
        ReadOnlyFilesystem => {
            Some(Cause::ReadOnly { folder: folder.into(), why: "read-only file system".into() })
        }
        PermissionDenied => Some(Cause::ReadOnly { folder: folder.into(), why: "permission denied".into() }),
        _ => None,
    }
}

/// The first `io::Error` in the chain of sources.
fn io_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_says_what_to_do() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = Error::of_store(
            Some(Folder::new("/data")),
            &"names/a/1".into(),
            object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(full) },
        );
        assert_eq!(error.to_string(), "no space left on /data: free some or move --data");
        assert_eq!(error.kind(), Kind::Unavailable);
    }
}
