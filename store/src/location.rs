//! Where a store lies: a folder of this machine, or a prefix of a bucket.
//!
//! ```text
//! file:///srv/windrow        a folder, by its absolute path, taken literally
//! s3://bucket                a bucket
//! s3://bucket/some/prefix    a part of one
//! ```
//!
//! Credentials and endpoint are no part of a location: see [`Store::open`].

use std::fmt;
use std::path::{Path as Folder, PathBuf};
use std::str::FromStr;

use object_store::path::Path;

use crate::store::Store;

const FILE: &str = "file://";
const S3: &str = "s3://";

/// Where a store lies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// A folder of this machine.
    Folder(PathBuf),
    /// Objects of a bucket.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// What every key begins with, without slashes at its ends; empty for
        /// the whole bucket.
        prefix: String,
    },
}

/// Why a text is no [`Location`], and what would be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It begins with no scheme.
    #[error("{0:?} has no scheme: write file:///absolute/folder or s3://bucket/prefix")]
    NoScheme(String),
    /// It begins with a scheme that we do not know.
    #[error("{0:?} has a scheme we do not know: write file:///absolute/folder or s3://bucket/prefix")]
    Scheme(String),
    /// The path of a folder does not begin with a slash.
    #[error("{0:?} is not absolute: write three slashes and the whole path, as in file:///absolute/folder")]
    Relative(String),
    /// There is no bucket.
    #[error("{0:?} names no bucket: write s3://bucket/prefix")]
    NoBucket(String),
    /// No bucket can be called that.
    #[error("no bucket can be called {0:?}: use a-z, 0-9, dots and hyphens")]
    Bucket(String),
    /// The prefix has empty or special segments.
    #[error("{0:?} cannot begin a key: use plain names between single slashes")]
    Prefix(String),
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(path) = text.strip_prefix(FILE) {
            let path = Folder::new(path);
            return if path.is_absolute() {
                Ok(Self::Folder(path.into()))
            } else {
                Err(Error::Relative(text.to_owned()))
            };
        }
        let Some(rest) = text.strip_prefix(S3) else {
            let error = if text.contains("://") { Error::Scheme } else { Error::NoScheme };
            return Err(error(text.to_owned()));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(Error::NoBucket(text.to_owned()));
        }
        // Underscores and capitals: old buckets and look-alikes of S3 have them.
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !bucket.chars().all(fine) {
            return Err(Error::Bucket(bucket.to_owned()));
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        // Keys are encoded like `Path`: what that would change is refused.
        if Path::parse(prefix).is_err() || Path::from(prefix).as_ref() != prefix {
            return Err(Error::Prefix(prefix.to_owned()));
        }
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{FILE}{}", folder.display()),
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "{S3}{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "{S3}{bucket}/{prefix}"),
        }
    }
}

impl Store {
    /// Opens the store at `location`. Of S3, credentials, region and endpoint
    /// come from the usual variables of the environment:
    ///
    /// | variable | without it |
    /// |---|---|
    /// | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN` | the role of the pod, task or machine |
    /// | `AWS_REGION` or `AWS_DEFAULT_REGION` | `us-east-1` |
    /// | `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` or `AWS_ENDPOINT` | Amazon's own |
    ///
    /// Plain HTTP is spoken exactly when the endpoint begins with `http://`.
    /// Nothing is asked of S3 yet: [`Store::check`] does that.
    ///
    /// # Errors
    /// When the folder cannot be created or opened, or the environment holds
    /// half of the credentials or no fit endpoint.
    pub fn open(location: &Location) -> Result<Self, crate::Error> {
        match location {
            Location::Folder(folder) => Self::local(folder),
            Location::S3 { bucket, prefix } => Self::s3_from_env(bucket, prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(bucket: &str, prefix: &str) -> Location {
        Location::S3 { bucket: bucket.into(), prefix: prefix.into() }
    }

    #[test]
    fn locations_are_read_and_written() {
        for (text, location) in [
            ("file:///srv/windrow", Location::Folder("/srv/windrow".into())),
            ("file:///", Location::Folder("/".into())),
            ("s3://docs", s3("docs", "")),
            ("s3://my-docs.eu/a/b_c", s3("my-docs.eu", "a/b_c")),
        ] {
            assert_eq!(text.parse(), Ok(location.clone()));
            assert_eq!(location.to_string(), text);
        }
        assert_eq!("s3://docs/".parse(), Ok(s3("docs", "")));
        assert_eq!("s3://docs/a/".parse(), Ok(s3("docs", "a")));
    }

    #[test]
    fn what_is_no_location_says_what_would_be() {
        for (text, error) in [
            ("/srv/windrow", Error::NoScheme("/srv/windrow".into())),
            ("", Error::NoScheme(String::new())),
            ("gs://docs", Error::Scheme("gs://docs".into())),
            ("S3://docs", Error::Scheme("S3://docs".into())),
            ("file://data", Error::Relative("file://data".into())),
            ("file://", Error::Relative("file://".into())),
            ("s3://", Error::NoBucket("s3://".into())),
            ("s3:///a", Error::NoBucket("s3:///a".into())),
            ("s3://key:secret@docs", Error::Bucket("key:secret@docs".into())),
            ("s3://docs//a", Error::Prefix("/a".into())),
            ("s3://docs/a//b", Error::Prefix("a//b".into())),
            ("s3://docs/../b", Error::Prefix("../b".into())),
            ("s3://docs/a?b=*", Error::Prefix("a?b=*".into())),
        ] {
            assert_eq!(text.parse::<Location>(), Err(error));
        }
        let error = "data".parse::<Location>().unwrap_err().to_string();
        assert_eq!(error, r#""data" has no scheme: write file:///absolute/folder or s3://bucket/prefix"#);
    }
}
