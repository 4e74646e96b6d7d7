//! The names of things: newtypes, their limits and their text forms.
//!
//! **Invariant:** a document's shard and its tie-break hash are wire contracts.
//! They are `xxh3_64` with seed 0 over the id's UTF-8 bytes, on every platform
//! and in every release.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Longest document id, in bytes. An id is a term of the engine, which caps
/// terms at 65,530 bytes; a kilobyte keeps logs and errors readable.
pub const DOCUMENT_ID_BYTES_MAX: usize = 1_024;

/// Longest index name, in bytes: it becomes a folder name on disk.
pub const INDEX_NAME_BYTES_MAX: usize = 128;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number that follows.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A shard of an index, from 0.
    ShardId, u32
);
number!(
    /// One immutable state of one shard, from 1 without gaps.
    Generation, u64
);
number!(
    /// One immutable state of an index, from 1.
    CutNumber, u64
);
number!(
    /// The place of a record in a shard's write-ahead log, from 1. 0 stands
    /// for "before the first record".
    Seq, u64
);
number!(
    /// The number of an ownership, taken from the shard's own log.
    Epoch, u64
);
number!(
    /// A version of an index's definition (schema and settings), from 1.
    DefinitionNumber, u64
);

/// The identity of one creation of an index: 32 lowercase hex digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IndexUid(std::sync::Arc<str>);

impl IndexUid {
    /// Makes a uid of 128 random bits drawn by the caller.
    #[must_use]
    pub fn from_bits(bits: u128) -> Self {
        Self(format!("{bits:032x}").into())
    }

    /// Returns the uid's text, or `None` unless it is 32 lowercase hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (text.len() == 32 && text.bytes().all(hex)).then(|| Self(text.into()))
    }

    /// The uid as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IndexUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name people give an index: `[a-z0-9][a-z0-9_-]*`, at most
/// [`INDEX_NAME_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IndexName(std::sync::Arc<str>);

/// Why a text is no index name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "index name {0:?} must be 1 to {INDEX_NAME_BYTES_MAX} characters of a-z, 0-9, '_' or '-', starting with a letter or digit"
)]
pub struct BadIndexName(pub String);

impl IndexName {
    /// Checks `text` and makes a name of it.
    ///
    /// # Errors
    /// When the text breaks the rules above.
    pub fn new(text: &str) -> Result<Self, BadIndexName> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let fine = !text.is_empty()
            && text.len() <= INDEX_NAME_BYTES_MAX
            && plain(text.as_bytes()[0])
            && text.bytes().all(|b| plain(b) || b == b'_' || b == b'-');
        if fine { Ok(Self(text.into())) } else { Err(BadIndexName(text.chars().take(200).collect())) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for IndexName {
    type Error = BadIndexName;
    fn try_from(text: String) -> Result<Self, BadIndexName> {
        Self::new(&text)
    }
}

impl From<IndexName> for String {
    fn from(name: IndexName) -> Self {
        name.0.to_string()
    }
}

impl fmt::Display for IndexName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A process in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub std::sync::Arc<str>);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The tie-break hash of a document id: equal scores are ordered by it.
#[must_use]
pub fn id_hash(id: &str) -> u64 {
    xxh3_64(id.as_bytes())
}

/// The shard that holds the document `id` in an index of `shards` shards.
///
/// # Panics
/// When `shards` is 0, which no definition allows.
#[must_use]
pub fn shard_of(id: &str, shards: u32) -> ShardId {
    let shard = id_hash(id) % u64::from(shards);
    ShardId(u32::try_from(shard).expect("a remainder by a u32 fits a u32"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_and_hashes_never_change() {
        assert_eq!(id_hash(""), 0x2d06_8005_38d3_94c2);
        assert_eq!(id_hash("1706.02216"), 9_012_649_329_125_006_887);
        assert_eq!(shard_of("1706.02216", 4), ShardId(3));
    }

    #[test]
    fn index_names_have_rules() {
        for good in ["a", "papers", "0-x_1"] {
            assert!(IndexName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "_x", "-x", "Papers", "a/b", "a.b", "ü", &"a".repeat(129)] {
            assert!(IndexName::new(bad).is_err(), "{bad}");
        }
    }
}
