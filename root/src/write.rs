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

/// Between attempts to find a shard's owner, unless the view moves sooner.
const OWNER_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The operations of one shard, with the lines that they came from.
#[derive(Default)]
struct Batch {
    lines: Vec<u64>,
    operations: Vec<Operation>,
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

        let sent = batches.into_iter().map(|(shard, batch)| self.send(&index, shard, batch, deadline));
        let mut written = Written::default();
        let mut seqs = BTreeMap::new();
        for (shard, lines, outcome) in join_all(sent).await {
            match outcome {
                Ok(seq) => {
                    written.accepted += lines.len() as u64;
                    seqs.insert(shard, seq);
                }
                Err(error) => rejected.extend(lines.into_iter().map(|line| Rejected {
                    line,
                    id: None,
                    reason: error.message.clone(),
                    kind: error.kind,
                    retry: error.retryable(),
                })),
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

    async fn send(
        &self,
        index: &Arc<Index>,
        shard: ShardId,
        batch: Batch,
        deadline: Deadline,
    ) -> (ShardId, Vec<u64>, Result<Seq, Error>) {
        let Batch { lines, operations } = batch;
        (shard, lines, self.send_to_owner(index, shard, operations, deadline).await)
    }

    async fn send_to_owner(
        &self,
        index: &Arc<Index>,
        shard: ShardId,
        operations: Vec<Operation>,
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
                ShardWrite { uid: index.uid.clone(), shard, operations: operations.clone(), deadline };
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
            Err(reason) => {
                rejected.push(Rejected { line, id: None, reason, kind: Kind::Invalid, retry: false });
            }
        }
    }
    (batches, rejected)
}

fn operation(schema: &Schema, change: Change) -> Result<Operation, String> {
    match change {
        Change::Upsert(source) => {
            let text = std::str::from_utf8(&source).map_err(|error| format!("expected UTF-8: {error}"))?;
            let document = schema.validate(text).map_err(|error| error.to_string())?;
            Ok(Operation::Upsert { id: document.id, source })
        }
        Change::Delete(id) if id.is_empty() || id.len() > DOCUMENT_ID_BYTES_MAX => {
            Err(format!("an id has 1 to {DOCUMENT_ID_BYTES_MAX} bytes"))
        }
        Change::Delete(id) => Ok(Operation::Delete { id }),
    }
}
