//! What can go wrong with objects, and what a caller does next.

use std::error::Error as StdError;
use std::io;
use std::path::{Path as Folder, PathBuf};

/// Longest reason that we pass on: two lines of a terminal.
const LINE_CHARS_MAX: usize = 160;

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
    #[error("no space left on {}: free some, or move --store or --data", folder.display())]
    NoSpace { folder: PathBuf },
    #[error("{} cannot be written ({why}): fix its permissions or move --data", folder.display())]
    ReadOnly { folder: PathBuf, why: String },
    #[error("the outcome of putting {path} is unknown: {last}")]
    Unknown { path: String, last: String },
    #[error("the deadline passed while {0}")]
    Expired(&'static str),
    #[error("the store failed at {path}: {why}")]
    Store { path: String, why: String },
    #[error("{0}")]
    Unreachable(String),
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
            Cause::NoSpace { .. }
            | Cause::ReadOnly { .. }
            | Cause::Store { .. }
            | Cause::Unreachable(_)
            | Cause::Disk { .. } => Kind::Unavailable,
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
        if absent(&source) {
            return Cause::Missing { path: path.to_string() }.into();
        }
        if let (Some(root), Some(io)) = (root, io_error(&source))
            && let Some(cause) = disk(root, io)
        {
            return cause.into();
        }
        tracing::debug!(%path, error = %source, "the store failed");
        Self::failed(path, one_line(&source))
    }

    /// Turns an error of the local disk into ours.
    pub(crate) fn of_disk(path: &Folder, source: io::Error) -> Self {
        let folder = path.parent().unwrap_or(path);
        match disk(folder, &source) {
            Some(cause) => cause.into(),
            None => Cause::Disk { path: path.into(), source }.into(),
        }
    }

    pub(crate) fn failed(path: &impl ToString, why: impl Into<String>) -> Self {
        Cause::Store { path: path.to_string(), why: why.into() }.into()
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

/// Whether an object is not there: with its bucket gone we do not know.
pub(crate) fn absent(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. })
        && code(&error.to_string()).is_none_or(|code| code != "NoSuchBucket")
}

/// The code of an answer of S3, such as `SlowDown`.
pub(crate) fn code(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("<Code>")?;
    rest.split_once("</Code>").map(|(code, _)| code)
}

/// The one thing that a long error of an object store says: S3's code, or the
/// innermost cause.
pub(crate) fn one_line(error: &(dyn StdError + 'static)) -> String {
    let text = error.to_string();
    if let Some(code) = code(&text) {
        return code.to_owned();
    }
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    line.trim().trim_end_matches(':').chars().take(LINE_CHARS_MAX).collect()
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
        assert_eq!(error.to_string(), "no space left on /data: free some, or move --store or --data");
        assert_eq!(error.kind(), Kind::Unavailable);
    }

    fn answered(body: &str) -> object_store::Error {
        object_store::Error::NotFound { path: "names/a/1".into(), source: body.into() }
    }

    #[test]
    fn an_answer_of_s3_is_shortened_to_its_code() {
        let body = "status code: 503: <?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code><Message>reduce";
        let source = object_store::Error::Generic { store: "S3", source: body.into() };
        let error = Error::of_store(None, &"names/a/1".into(), source);
        assert_eq!(error.to_string(), "the store failed at names/a/1: SlowDown");
        let endless = "long ".repeat(1_000) + "\nand more";
        assert_eq!(one_line(&answered(&endless)).chars().count(), LINE_CHARS_MAX);
    }

    #[test]
    fn a_missing_bucket_is_no_missing_object() {
        let object = Error::of_store(None, &"a".into(), answered("<Code>NoSuchKey</Code>"));
        assert_eq!(object.kind(), Kind::NotFound);
        let bucket = Error::of_store(None, &"a".into(), answered("<Code>NoSuchBucket</Code>"));
        assert_eq!(bucket.kind(), Kind::Unavailable);
    }
}
