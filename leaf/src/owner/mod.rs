//! One shard, owned: it takes writes.
//!
//! ```text
//!  writes ─► group ─► append to the log ─► acknowledge
//!                                   │ durable, not yet applied: bounded
//!                                   ▼
//!                               applier: apply ─► commit ─► publish
//! ```
//!
//! **Invariant:** one append is in flight, and nothing is acknowledged that is
//! not the log's. An owner that meets another's record or manifest, or cannot
//! put for [`PATIENCE`], resigns: it answers what it holds and ends.

mod applier;

use std::sync::Arc;
use std::time::Duration;

use model::ids::{DefinitionNumber, Epoch, IndexUid, Seq, ShardId};
use proto::Error;
use proto::admin::Operation;
use runtime::{CancellationToken, Deadline};
use store::{Appended, Body, Ownership, Record, Store, Take};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::engine::Mapping;
use crate::metrics::Metrics;
use crate::replica::Replica;
use applier::{Applier, Work};
use cluster::from_store;

/// How long an owner tries to put before it resigns.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a take-over may last.
const TAKE_WITHIN: Duration = Duration::from_secs(30);
/// How long a write waits for room before it is refused.
const ROOM_WITHIN: Duration = Duration::from_secs(5);
/// Writes that wait for a place in the log.
const QUEUE: usize = 1_024;

/// What an owner is told.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Memory for documents that no segment holds yet.
    pub(crate) heap_bytes: usize,
    /// Most bytes of one record.
    pub(crate) record_bytes_max: usize,
    /// Most bytes that wait for the log or for the applier.
    pub(crate) pending_bytes_max: usize,
    /// How long a write may stay invisible.
    pub(crate) refresh_interval: Duration,
}

/// Where a shard's owner is reached.
#[derive(Clone)]
pub(crate) struct Handle {
    writes: mpsc::Sender<Write>,
    nudges: mpsc::Sender<()>,
    pending: Arc<Semaphore>,
    settings: Arc<Settings>,
}

struct Write {
    operations: Vec<Operation>,
    bytes: OwnedSemaphorePermit,
    deadline: Deadline,
    reply: oneshot::Sender<Result<Seq, Error>>,
}

/// Where an owner takes its requests from.
pub(crate) struct Inbox {
    writes: mpsc::Receiver<Write>,
    nudges: mpsc::Receiver<()>,
}

/// How an ownership ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The process is stopping; everything pending was published.
    Drained,
    /// Another owns the shard.
    SteppedDown,
    /// The index is deleted.
    Deleted,
}

impl Handle {
    pub(crate) fn new(settings: Settings) -> (Self, Inbox) {
        let (writes, write_queue) = mpsc::channel(QUEUE);
        // One waiting nudge says all that a hundred would.
        let (nudges, nudge_queue) = mpsc::channel(1);
        let pending = Arc::new(Semaphore::new(settings.pending_bytes_max));
        let handle = Self { writes, nudges, pending, settings: Arc::new(settings) };
        (handle, Inbox { writes: write_queue, nudges: nudge_queue })
    }

    /// Makes operations durable; returns their place in the log.
    pub(crate) async fn write(&self, operations: Vec<Operation>, deadline: Deadline) -> Result<Seq, Error> {
        let weight: usize = operations.iter().map(Operation::bytes).sum();
        // One alone is always taken: edge bounds it.
        if weight > self.settings.record_bytes_max && operations.len() > 1 {
            return Err(Error::too_large(format!(
                "{weight} bytes for one shard exceed {}: send fewer documents at once",
                self.settings.record_bytes_max
            )));
        }
        let permits = u32::try_from(weight.min(self.settings.pending_bytes_max)).unwrap_or(u32::MAX);
        let full = || {
            Error::unavailable("too much is waiting to be indexed: retry in a second")
                .retry_after(Duration::from_secs(1))
        };
        // A full queue is pushed back on the caller for a moment before it is
        // refused: a load then runs at the speed of indexing.
        let patience = Deadline::after(ROOM_WITHIN).sooner(deadline);
        let room = self.pending.clone().acquire_many_owned(permits);
        let bytes = match tokio::time::timeout_at(patience.instant(), room).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(_)) => return Err(not_owner()),
            Err(_) => return Err(full()),
        };
        let (reply, answer) = oneshot::channel();
        let write = Write { operations, bytes, deadline, reply };
        self.writes.try_send(write).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => full(),
            mpsc::error::TrySendError::Closed(_) => not_owner(),
        })?;
        match tokio::time::timeout_at(deadline.instant(), answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(unknown()),
            Err(_) => Err(unknown()),
        }
    }

    /// Asks for a commit soon.
    pub(crate) fn nudge(&self) -> Result<(), Error> {
        match self.nudges.try_send(()) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(())) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(())) => Err(not_owner()),
        }
    }
}

pub(crate) fn not_owner() -> Error {
    Error::gone("this leaf does not own the shard: ask the one that does")
        .retry_after(Duration::from_millis(200))
}

fn unknown() -> Error {
    Error::expired("the write's outcome is unknown: send it again, for a write is idempotent by id")
}

/// What an owner works with.
pub(crate) struct Owner {
    pub(crate) uid: IndexUid,
    pub(crate) shard: ShardId,
    pub(crate) definition: DefinitionNumber,
    pub(crate) mapping: Arc<Mapping>,
    pub(crate) store: Store,
    pub(crate) replica: Arc<Replica>,
    pub(crate) scratch: Option<std::path::PathBuf>,
    pub(crate) settings: Settings,
    pub(crate) metrics: Metrics,
    /// Told of each generation that was published and opened.
    pub(crate) opened: Arc<dyn Fn() + Send + Sync>,
    /// Told when the owner takes writes.
    pub(crate) ready: Arc<dyn Fn() + Send + Sync>,
}

impl Owner {
    /// Takes the shard and owns it until the token is cancelled or another
    /// takes over.
    ///
    /// # Errors
    /// When the store fails for longer than [`PATIENCE`], or the log is broken.
    ///
    /// # Cancel safety
    /// Dropping it is like a crash: what was acknowledged is in the log.
    pub(crate) async fn run(self, inbox: Inbox, token: CancellationToken) -> Result<End, Error> {
        let taken = self
            .store
            .take_shard(&self.uid, self.shard, Instant::now() + TAKE_WITHIN)
            .await
            .map_err(|error| from_store(&error))?;
        let ownership = match taken {
            Take::Taken(ownership) => *ownership,
            Take::StepDown => return Ok(End::SteppedDown),
            Take::Deleted => return Ok(End::Deleted),
        };
        let Ownership { epoch, manifest, fence, mut replay } = ownership;
        tracing::info!(uid = %self.uid, shard = %self.shard, %epoch, %fence, replay = replay.remaining(), "took the shard");
        let mut applier = Applier::open(&self, epoch, manifest).await?;
        while let Some(record) = replay.next().await.map_err(|error| from_store(&error))? {
            let seq = record.seq;
            let operations = operations(record);
            applier.replay(operations, seq).await?;
        }
        if applier.commit().await? == applier::Commit::SteppedDown {
            return Ok(End::SteppedDown);
        }
        (self.ready)();
        // The applier is fed through a channel whose items carry byte permits,
        // so its length is bounded by `pending_bytes_max`.
        let (work, works) = mpsc::channel(QUEUE);
        let Inbox { writes, nudges } = inbox;
        let log = self.log(epoch, fence, writes, work, &token);
        let applied = applier.run(works, nudges);
        tokio::pin!(log);
        tokio::pin!(applied);
        tokio::select! {
            // The log ends first on a drain, a step-down or a failure: what it
            // acknowledged is then applied and published, unless another owns.
            ended = &mut log => match ended? {
                End::Drained => applied.await,
                end => Ok(end),
            },
            ended = &mut applied => ended,
        }
    }

    async fn log(
        &self,
        epoch: Epoch,
        fence: Seq,
        mut writes: mpsc::Receiver<Write>,
        work: mpsc::Sender<Work>,
        token: &CancellationToken,
    ) -> Result<End, Error> {
        let mut next = fence.next();
        loop {
            let first = tokio::select! {
                biased;
                () = token.cancelled() => {
                    writes.close();
                    match writes.recv().await {
                        Some(write) => write,
                        None => return Ok(End::Drained),
                    }
                }
                write = writes.recv() => match write {
                    Some(write) => write,
                    None => return Ok(End::Drained),
                },
            };
            let group = self.group(first, &mut writes);
            if group.is_empty() {
                continue;
            }
            let operations = group.iter().flat_map(|write| write.operations.iter().map(to_store)).collect();
            let record = Record {
                seq: next,
                epoch,
                nonce: self.store.nonce(),
                definition: self.definition,
                body: Body::Operations(operations),
            };
            let outcome = self.store.append(&self.uid, self.shard, &record, Instant::now() + PATIENCE).await;
            match outcome {
                Ok(Appended::Mine) => {
                    self.metrics.records.increment(1);
                    // The applier first: whoever is told may ask for a commit
                    // at once. And whole: a generation contains a record or
                    // not, so a record is one piece of work.
                    let mut replies = Vec::with_capacity(group.len());
                    let mut whole = Work { operations: Vec::new(), seq: next, held: Vec::new() };
                    for write in group {
                        let Write { operations, bytes, reply, .. } = write;
                        whole.operations.extend(operations);
                        whole.held.push(bytes);
                        replies.push(reply);
                    }
                    self.metrics.operations.increment(whole.operations.len() as u64);
                    let applying = work.send(whole).await.is_ok();
                    for reply in replies {
                        // A caller that left may come back and send it again.
                        let _gone = reply.send(Ok(next));
                    }
                    if !applying {
                        return Err(Error::internal("the applier ended"));
                    }
                    next = next.next();
                }
                Ok(Appended::StepDown(other)) => {
                    tracing::warn!(uid = %self.uid, shard = %self.shard, %epoch, other = %other.epoch, "another owns the shard: stepping down");
                    for write in group {
                        let _gone = write.reply.send(Err(not_owner()));
                    }
                    return Ok(End::SteppedDown);
                }
                Err(error) => {
                    let unknown = error.kind() == store::Kind::Unknown;
                    for write in group {
                        let told = if unknown { self::unknown() } else { from_store(&error) };
                        let _gone = write.reply.send(Err(told));
                    }
                    if unknown {
                        // Whether it landed is for the next owner to find out.
                        return Err(from_store(&error));
                    }
                    tracing::warn!(uid = %self.uid, shard = %self.shard, %error, "failed to put a record; nothing was written");
                }
            }
        }
    }

    /// Takes what waits, up to a record's size, and drops what came too late.
    fn group(&self, first: Write, writes: &mut mpsc::Receiver<Write>) -> Vec<Write> {
        let mut bytes = 0;
        let mut group = Vec::new();
        let mut next = Some(first);
        while let Some(write) = next {
            if write.deadline.expired() || write.reply.is_closed() {
                let _gone = write.reply.send(Err(Error::expired(
                    "the deadline passed before the write was begun; nothing was written",
                )));
            } else {
                bytes += write.bytes.num_permits();
                group.push(write);
            }
            if bytes >= self.settings.record_bytes_max {
                break;
            }
            next = writes.try_recv().ok();
        }
        group
    }
}

fn to_store(operation: &Operation) -> store::Operation {
    match operation {
        Operation::Upsert { id, source } => {
            store::Operation::Upsert { id: id.clone(), source: source.clone() }
        }
        Operation::Delete { id } => store::Operation::Delete { id: id.clone() },
    }
}

fn operations(record: Record) -> Vec<Operation> {
    let Body::Operations(operations) = record.body else { return Vec::new() };
    let each = |operation| match operation {
        store::Operation::Upsert { id, source } => Operation::Upsert { id, source },
        store::Operation::Delete { id } => Operation::Delete { id },
    };
    operations.into_iter().map(each).collect()
}
