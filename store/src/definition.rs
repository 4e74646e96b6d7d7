//! The stored form of an index's definition.

use bytes::Bytes;
use model::settings::Definition;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::frame::{self, Nonce};

const KIND: &str = "definition";

#[derive(Serialize, Deserialize)]
struct Header<D> {
    nonce: Nonce,
    definition: D,
}

/// The object's bytes.
pub(crate) fn encode(nonce: Nonce, definition: &Definition) -> Bytes {
    frame::encode(KIND, &Header { nonce, definition }, b"")
}

/// Reads an object.
///
/// # Errors
/// When the object is damaged.
pub fn decode(path: &Path, bytes: &Bytes) -> Result<Definition, Error> {
    frame::decode::<Header<Definition>>(path, KIND, bytes).map(|(header, _)| header.definition)
}
