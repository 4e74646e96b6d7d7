//! Records of a shard's write-ahead log.
//!
//! **Invariant:** a record is acknowledged only after its object is durable,
//! and equal records have equal bytes, so that a retry is the same put.

use bytes::Bytes;
use model::ids::{DefinitionNumber, Epoch, Seq};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::frame::{self, Nonce};

const KIND: &str = "record";
const UPSERT: u8 = 1;
const DELETE: u8 = 2;

/// One object of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place.
    pub seq: Seq,
    /// The ownership that wrote it.
    pub epoch: Epoch,
    /// Drawn for this record; a retry keeps it.
    pub nonce: Nonce,
    /// The definition that validated its operations.
    pub definition: DefinitionNumber,
    /// What it says.
    pub body: Body,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A group of writes, applied in order.
    Operations(Vec<Operation>),
    /// An owner begins: nobody of a lower epoch writes from here on.
    Fence,
    /// The index is deleted: nobody writes from here on.
    Tombstone,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Writes a document, replacing one with its id.
    Upsert {
        /// The document's id.
        id: String,
        /// The document's JSON as sent.
        source: Bytes,
    },
    /// Deletes a document.
    Delete {
        /// The document's id.
        id: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Header {
    seq: Seq,
    epoch: Epoch,
    nonce: Nonce,
    definition: DefinitionNumber,
    body: Label,
    operations: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Label {
    Operations,
    Fence,
    Tombstone,
}

impl Record {
    /// The object's bytes.
    ///
    /// # Panics
    /// When an id or a source has 4 GiB or more, which no limit allows.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let (body, operations) = match &self.body {
            Body::Operations(operations) => (Label::Operations, operations.as_slice()),
            Body::Fence => (Label::Fence, &[][..]),
            Body::Tombstone => (Label::Tombstone, &[][..]),
        };
        let header = Header {
            seq: self.seq,
            epoch: self.epoch,
            nonce: self.nonce,
            definition: self.definition,
            body,
            operations: operations.len(),
        };
        let mut payload = Vec::with_capacity(operations.iter().map(Operation::encoded_len).sum());
        for operation in operations {
            match operation {
                Operation::Upsert { id, source } => {
                    payload.push(UPSERT);
                    push(&mut payload, id.as_bytes());
                    push(&mut payload, source);
                }
                Operation::Delete { id } => {
                    payload.push(DELETE);
                    push(&mut payload, id.as_bytes());
                }
            }
        }
        frame::encode(KIND, &header, &payload)
    }

    /// Reads an object. Sources share its bytes.
    ///
    /// # Errors
    /// When the object is damaged.
    pub fn decode(path: &Path, bytes: &Bytes) -> Result<Self, Error> {
        let (header, payload) = frame::decode::<Header>(path, KIND, bytes)?;
        let body = match header.body {
            Label::Fence => Body::Fence,
            Label::Tombstone => Body::Tombstone,
            Label::Operations => {
                let operations = operations(header.operations, payload);
                let what = "its operations do not fill its payload";
                Body::Operations(operations.ok_or_else(|| Error::damaged(path, what))?)
            }
        };
        let Header { seq, epoch, nonce, definition, .. } = header;
        Ok(Self { seq, epoch, nonce, definition, body })
    }
}

impl Operation {
    /// The document's id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Upsert { id, .. } | Self::Delete { id } => id,
        }
    }

    /// Bytes that this operation takes in a record.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        match self {
            Self::Upsert { id, source } => 9 + id.len() + source.len(),
            Self::Delete { id } => 5 + id.len(),
        }
    }
}

/// Whether the start of a record shows one that garbage collection may take:
/// neither a fence nor a tombstone.
pub(crate) fn is_ordinary(start: &Bytes) -> bool {
    frame::peek::<Header>(start).is_some_and(|header| header.body == Label::Operations)
}

fn push(payload: &mut Vec<u8>, field: &[u8]) {
    let len = u32::try_from(field.len()).expect("requests are limited far below 4 GiB");
    payload.extend_from_slice(&len.to_le_bytes());
    payload.extend_from_slice(field);
}

fn operations(count: usize, mut payload: Bytes) -> Option<Vec<Operation>> {
    let mut operations = Vec::with_capacity(count.min(payload.len() / 5));
    for _ in 0..count {
        let (&tag, _) = payload.split_first()?;
        payload = payload.slice(1..);
        let id = String::from_utf8(field(&mut payload)?.to_vec()).ok()?;
        operations.push(match tag {
            UPSERT => Operation::Upsert { id, source: field(&mut payload)? },
            DELETE => Operation::Delete { id },
            _ => return None,
        });
    }
    payload.is_empty().then_some(operations)
}

fn field(payload: &mut Bytes) -> Option<Bytes> {
    let (len, _) = payload.split_first_chunk::<4>()?;
    let end = 4 + u32::from_le_bytes(*len) as usize;
    if end > payload.len() {
        return None;
    }
    let field = payload.slice(4..end);
    *payload = payload.slice(end..);
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_shares_its_bytes() {
        let path = Path::from("wal/1");
        let record = Record {
            seq: Seq(1),
            epoch: Epoch(2),
            nonce: Nonce(3),
            definition: DefinitionNumber(4),
            body: Body::Operations(vec![
                Operation::Upsert { id: "a\n".into(), source: Bytes::from_static(b"{\"x\":\n1}") },
                Operation::Delete { id: String::new() },
                Operation::Upsert { id: "b".into(), source: Bytes::new() },
            ]),
        };
        let bytes = record.encode();
        let back = Record::decode(&path, &bytes).unwrap();
        assert_eq!(back, record);
        let Body::Operations(operations) = &back.body else { panic!() };
        let Operation::Upsert { source, .. } = &operations[0] else { panic!() };
        assert!(bytes.as_ptr_range().contains(&source.as_ptr()), "the source was copied");
        assert!(is_ordinary(&bytes));
        let fence = Record { body: Body::Fence, ..record };
        assert_eq!(Record::decode(&path, &fence.encode()).unwrap(), fence);
        assert!(!is_ordinary(&fence.encode()));
    }
}
