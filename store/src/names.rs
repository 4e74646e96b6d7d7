//! Entries of the registry of names.

use bytes::Bytes;
use model::ids::IndexUid;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::frame::{self, Nonce};

const KIND: &str = "name";

/// What a name stands for, from one entry to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Entry {
    /// The index of this uid.
    Live {
        /// The index.
        uid: IndexUid,
    },
    /// Nothing, since the index of this uid was deleted.
    Deleted {
        /// The index that the name stood for: whoever finishes the deletion
        /// needs it.
        uid: IndexUid,
    },
}

#[derive(Serialize, Deserialize)]
struct Header {
    nonce: Nonce,
    entry: Entry,
}

/// The object's bytes.
pub(crate) fn encode(nonce: Nonce, entry: &Entry) -> Bytes {
    frame::encode(KIND, &Header { nonce, entry: entry.clone() }, b"")
}

/// Reads an object.
pub(crate) fn decode(path: &Path, bytes: &Bytes) -> Result<Entry, Error> {
    frame::decode::<Header>(path, KIND, bytes).map(|(header, _)| header.entry)
}
