//! Writing documents: validate, split by shard, send to the owners.
//!
//! **Invariant:** a write of unknown outcome is never sent again from here: it
//! is reported, and the client may send it again, for a write is idempotent by
//! id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use model::ids::{DOCUMENT_ID_BYTES_MAX, Seq, ShardId, shard_of};
use model::schema::{Schema, infer};
use model::settings::Definition;
use model::token::Token;
use proto::admin::{Change, Operation, Refresh, Rejected, Write, Written};
use proto::leaf::ShardWrite;
use proto::{Error, Kind};
use runtime::Deadline;

use crate::admission::Class;
use crate::root::Root;
use cluster::Index;

/// What is sent to an owner at one time, unless one operation is more: half of
/// what a record of its log holds, and of what may wait to be indexed.
const PART_BYTES: usize = 8 << 20;

/// Between attempts to find a shard's owner, unless the view moves sooner.
const OWNER_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The operations of one shard, with the lines that they came from.
#[derive(Default)]
struct Batch {
    lines: Vec<u64>,
    operations: Vec<Operation>,
}

/// What became of a batch.
#[derive(Default)]
struct Sent {
    /// Its first so many operations are durable.
    accepted: usize,
    /// Where the last of them is in the log.
    seq: Option<Seq>,
    /// Why the others are not, if there are any.
    failed: Option<Error>,
}

impl Root {
    pub(crate) async fn write_documents(&self, write: Write) -> Result<Written, Error> {
        let Write { index: name, lines, refresh, auto_create, deadline } = write;
        let permit = self.admission().admit(Class::Bulk)?;
        let index = match self.known_index(&name, deadline).await {
            Ok(index) => index,
            Err(error) if error.kind == Kind::NotFound && auto_create => {
                let schema = inferred(&lines, self.settings().inferred_from)?;
                match self.create(name.clone(), Definition::of(schema), deadline).await {
                    // Another request was first.
                    Err(error) if error.kind == Kind::Conflict => {
                        self.wait_for(deadline, |view| view.indexes.get(&name).cloned()).await.ok_or(error)?
                    }
                    created => created?,
                }
            }
            Err(error) => return Err(error),
        };
        let definition = index.definition.clone();
        // Parsing is CPU work, and a batch may be tens of megabytes.
        let split = tokio::task::spawn_blocking(move || split(&definition.schema, definition.shards, lines));
        let (batches, mut rejected) =
            split.await.map_err(|error| Error::internal(format!("validation died: {error}")))?;

        let sent = batches.iter().map(|(shard, batch)| self.send(&index, *shard, batch, deadline));
        let sent = join_all(sent).await;
        let mut written = Written::default();
        let mut seqs = BTreeMap::new();
        // Nothing of the documents is kept while their visibility is waited for.
        for ((shard, batch), Sent { accepted, seq, failed }) in batches.into_iter().zip(sent) {
            written.accepted += accepted as u64;
            seqs.extend(seq.map(|seq| (shard, seq)));
            if let Some(error) = failed {
                let left = batch.lines.into_iter().zip(&batch.operations).skip(accepted);
                rejected.extend(left.map(|(line, operation)| Rejected {
                    line,
                    id: Some(operation.id().to_owned()),
                    reason: error.message.clone(),
                    kind: error.kind,
                    retry: error.retryable(),
                }));
            }
        }
        // To wait until they are seen costs nothing.
        permit.done(None);
        rejected.sort_by_key(|rejected| rejected.line);
        written.rejected = rejected;
        if !seqs.is_empty() {
            let token = Token { uid: index.uid.clone(), seqs };
            if refresh == Refresh::Wait {
                let seen = self.containing(&name, index, &token, less(deadline)).await;
                written.searchable = Some(seen.is_ok());
            }
            written.token = Some(token);
        } else if refresh == Refresh::Wait {
            written.searchable = Some(true);
        }
        Ok(written)
    }

    /// Sends a shard's operations, in parts that a record of its log can hold, one
    /// after another. After one that failed nothing more is sent: who sends it
    /// again must not bring back what a later part has replaced.
    async fn send(&self, index: &Arc<Index>, shard: ShardId, batch: &Batch, deadline: Deadline) -> Sent {
        let mut sent = Sent::default();
        for part in parts(&batch.operations) {
            match self.send_to_owner(index, shard, part, deadline).await {
                Ok(seq) => (sent.accepted, sent.seq) = (sent.accepted + part.len(), Some(seq)),
                Err(error) => {
                    sent.failed = Some(error);
                    break;
                }
            }
        }
        sent
    }

    async fn send_to_owner(
        &self,
        index: &Arc<Index>,
        shard: ShardId,
        operations: &[Operation],
        deadline: Deadline,
    ) -> Result<Seq, Error> {
        let patience = Deadline::after(self.settings().owner_within).sooner(less(deadline));
        let mut last = None;
        loop {
            // A new index, or a shard between owners: soon there is one.
            let owner = self.wait_for(patience, |view| {
                let index = view.indexes.get(&index.name).filter(|found| found.uid == index.uid)?;
                index.owners.get(shard.0 as usize)?.clone()
            });
            let Some(owner) = owner.await else {
                return Err(last.unwrap_or_else(|| {
                    Error::unavailable(format!("shard {shard} has no owner: retry"))
                        .retry_after(Duration::from_secs(1))
                }));
            };
            let write =
                ShardWrite { uid: index.uid.clone(), shard, operations: operations.to_vec(), deadline };
            let outcome = match self.leaf(&owner) {
                Ok(leaf) => leaf.write(write).await,
                Err(error) => Err(Error { kind: Kind::Gone, ..error }),
            };
            match outcome {
                // Nothing was written: the shard is changing hands.
                Err(error) if error.kind == Kind::Gone => {
                    self.metrics().owners_sought.increment(1);
                    let error = Error::unavailable(format!("shard {shard} is changing its owner: retry"))
                        .retry_after(error.retry_after.unwrap_or(Duration::from_secs(1)));
                    if patience.expired() {
                        return Err(error);
                    }
                    last = Some(error);
                    self.next_view(OWNER_AGAIN_AFTER).await;
                }
                outcome => return outcome,
            }
        }
    }
}

/// Cuts operations into parts of at most [`PART_BYTES`], or of one operation.
fn parts(operations: &[Operation]) -> impl Iterator<Item = &[Operation]> {
    let mut left = operations;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = left.iter().take_while(|operation| {
            bytes += operation.bytes();
            bytes <= PART_BYTES
        });
        let (part, rest) = left.split_at(fits.count().max(1).min(left.len()));
        left = rest;
        (!part.is_empty()).then_some(part)
    })
}

/// Leaves a little of the time for the answer itself.
fn less(deadline: Deadline) -> Deadline {
    deadline.less(Duration::from_millis(50).min(deadline.remaining() / 10))
}

fn inferred(lines: &[(u64, Change)], most: usize) -> Result<Schema, Error> {
    let sources: Vec<&str> = lines
        .iter()
        .filter_map(|(_, change)| match change {
            Change::Upsert(source) => std::str::from_utf8(source).ok(),
            Change::Delete(_) => None,
        })
        .take(most)
        .collect();
    if sources.is_empty() {
        return Err(Error::not_found("no such index, and there is no document to infer a schema from"));
    }
    Ok(infer(&sources))
}

fn split(
    schema: &Schema,
    shards: u32,
    lines: Vec<(u64, Change)>,
) -> (BTreeMap<ShardId, Batch>, Vec<Rejected>) {
    let mut batches: BTreeMap<ShardId, Batch> = BTreeMap::new();
    let mut rejected = Vec::new();
    for (line, change) in lines {
        match operation(schema, change) {
            Ok(operation) => {
                let batch = batches.entry(shard_of(operation.id(), shards)).or_default();
                batch.lines.push(line);
                batch.operations.push(operation);
            }
            Err((id, reason)) => {
                rejected.push(Rejected { line, id, reason, kind: Kind::Invalid, retry: false });
            }
        }
    }
    (batches, rejected)
}

/// Checks a change; else tells its id, where it has one, and what is wrong.
fn operation(schema: &Schema, change: Change) -> Result<Operation, (Option<String>, String)> {
    match change {
        Change::Upsert(source) => {
            let text =
                std::str::from_utf8(&source).map_err(|error| (None, format!("expected UTF-8: {error}")))?;
            let document = schema.validate(text).map_err(|error| (id_of(text), error.to_string()))?;
            Ok(Operation::Upsert { id: document.id, source })
        }
        Change::Delete(id) if id.is_empty() || id.len() > DOCUMENT_ID_BYTES_MAX => {
            Err((None, format!("an id has 1 to {DOCUMENT_ID_BYTES_MAX} bytes")))
        }
        Change::Delete(id) => Ok(Operation::Delete { id }),
    }
}

/// The id of a document in which something is wrong, where that is not its id.
fn id_of(text: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        id: String,
    }
    serde_json::from_str::<Named>(text)
        .ok()
        .map(|named| named.id)
        .filter(|id| id.len() <= DOCUMENT_ID_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use model::schema::{Field, FieldType};

    use super::*;

    #[test]
    fn operations_are_cut_into_parts_in_their_order() {
        let of = |bytes: usize| Operation::Upsert { id: String::new(), source: vec![b'x'; bytes].into() };
        let cut = |sizes: &[usize]| -> Vec<usize> {
            let operations: Vec<Operation> = sizes.iter().map(|bytes| of(*bytes)).collect();
            parts(&operations).map(<[_]>::len).collect()
        };
        assert_eq!(cut(&[]), [0; 0]);
        assert_eq!(cut(&[1, 2, 3]), [3]);
        assert_eq!(cut(&[PART_BYTES / 2, PART_BYTES / 3, PART_BYTES / 3, 1]), [2, 2]);
        // What is too large for a part has one of its own.
        assert_eq!(cut(&[1, PART_BYTES * 3, 1]), [1, 1, 1]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_id() {
        let fields = [("year".into(), Field::of(FieldType::I64))].into();
        let schema = Schema { fields, ..Schema::default() };
        let wrong = |text: &str| operation(&schema, Change::Upsert(text.to_owned().into())).unwrap_err().0;
        assert_eq!(wrong(r#"{"id": "7", "year": "then"}"#), Some("7".to_owned()));
        assert_eq!(wrong(r#"{"year": 1}"#), None);
        assert_eq!(wrong(&format!(r#"{{"id": "{}"}}"#, "x".repeat(DOCUMENT_ID_BYTES_MAX + 1))), None);
        assert_eq!(wrong("no"), None);
    }
}
