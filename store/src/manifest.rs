//! Manifests: the files and counts of one generation of one shard.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::ids::{DefinitionNumber, Epoch, Generation, IndexUid, Seq, ShardId};
use model::plan::FieldName;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::frame::{self, Nonce};

const KIND: &str = "manifest";

/// One immutable state of one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The index.
    pub uid: IndexUid,
    /// The shard.
    pub shard: ShardId,
    /// The state's number.
    pub generation: Generation,
    /// The ownership that published it; 0 for the empty one of creation.
    pub epoch: Epoch,
    /// Drawn for this manifest; a retry keeps it.
    pub nonce: Nonce,
    /// The highest record of the log that the files contain.
    pub seq: Seq,
    /// The definition that the files were written under.
    pub definition: DefinitionNumber,
    /// Live documents.
    pub documents: u64,
    /// Tokens of live documents, for each text field.
    pub tokens: BTreeMap<FieldName, u64>,
    /// Operations that could not be applied, ever.
    pub skipped: u64,
    /// The engine's own list of segments, opaque here; empty for an empty shard.
    pub meta: String,
    /// The engine's fingerprint.
    pub engine: String,
    /// Every file.
    pub files: Vec<FileRef>,
}

/// A file of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// The engine's name of it.
    pub name: String,
    /// The whole path of its object.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// The `xxh3_128` of its bytes, 32 hex digits.
    pub checksum: String,
}

impl Manifest {
    /// Generation 1 of a new shard.
    #[must_use]
    pub fn empty(uid: IndexUid, shard: ShardId, nonce: Nonce) -> Self {
        Self {
            uid,
            shard,
            generation: Generation(1),
            epoch: Epoch(0),
            nonce,
            seq: Seq(0),
            definition: DefinitionNumber(1),
            documents: 0,
            tokens: BTreeMap::new(),
            skipped: 0,
            meta: String::new(),
            engine: String::new(),
            files: Vec::new(),
        }
    }

    /// The object's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        frame::encode(KIND, self, b"")
    }

    /// Reads an object.
    ///
    /// # Errors
    /// When the object is damaged.
    pub fn decode(path: &Path, bytes: &Bytes) -> Result<Self, Error> {
        frame::decode(path, KIND, bytes).map(|(manifest, _)| manifest)
    }
}
