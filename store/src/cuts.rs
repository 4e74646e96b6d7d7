//! The stored form of a cut.

use bytes::Bytes;
use model::cut::Cut;
use object_store::path::Path;

use crate::error::Error;
use crate::frame;

const KIND: &str = "cut";

/// The object's bytes.
pub(crate) fn encode(cut: &Cut) -> Bytes {
    frame::encode(KIND, cut, b"")
}

/// Reads an object.
///
/// # Errors
/// When the object is damaged.
pub fn decode(path: &Path, bytes: &Bytes) -> Result<Cut, Error> {
    frame::decode(path, KIND, bytes).map(|(cut, _)| cut)
}
