//! The coordinator in etcd, over its v3 API.
//!
//! ```text
//! call ──► one member, the next one after a failure
//! watch ─► a task: stream ─► queue;  broken: again from the next revision,
//!                                    compacted: "list again"
//! ```
//!
//! **Invariant:** a write is sent once. One whose answer is lost has an unknown
//! outcome, which the caller is told; only reads are asked again elsewhere.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use proto::Error;
use runtime::{OnError, TaskScope};
use tokio::sync::{mpsc, oneshot};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::complaint::Complaint;
use crate::coordinator::{Coordinator, Entry, Event, Expect, Lease, Put, Revision, Watch};
use generated::kv_client::KvClient;
use generated::lease_client::LeaseClient;
use generated::watch_client::WatchClient;

#[expect(unreachable_pub, reason = "generated code")]
mod generated {
    tonic::include_proto!("etcdserverpb");
}

/// How long a call may take: a leader's election lasts a second or two.
const CALL_WITHIN: Duration = Duration::from_secs(3);
/// How long connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How often a silent connection is asked whether it lives, and how long it may
/// take to say so: a watch on a cut line would be silent for ever.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// Between attempts to watch again.
const WATCH_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Events that wait for a watcher; then etcd is read no further.
const WATCH_QUEUE: usize = 1_024;
/// Keys of one page of a listing: a newest cut may take tens of kilobytes.
const PAGE_KEYS: i64 = 256;
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

type Answer<T> = BoxFuture<'static, Result<T, Status>>;

/// A client of etcd. Clones share its connections.
#[derive(Clone)]
pub struct Etcd {
    members: Arc<[Member]>,
    current: Arc<AtomicUsize>,
    prefix: Arc<str>,
    scope: TaskScope,
}

struct Member {
    name: String,
    channel: Channel,
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.members.iter().map(|member| member.name.as_str()).collect();
        write!(f, "etcd://{}/{}", names.join(","), self.prefix)
    }
}

impl Etcd {
    /// A client of the members at `addresses` (`host:port`), whose keys all
    /// begin with `prefix`. It connects when it is first used. Watches run in
    /// `scope`.
    ///
    /// # Errors
    /// [`proto::Kind::Invalid`] for an address that is none.
    pub fn new(addresses: &[String], prefix: &str, scope: TaskScope) -> Result<Self, Error> {
        let member = |address: &String| {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
                Error::invalid(format!("etcd's address {address:?} is wrong ({error}): write host:port"))
            })?;
            let channel = endpoint
                .connect_timeout(CONNECT_WITHIN)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(PROBE_EVERY)
                .keep_alive_timeout(PROBE_EVERY)
                .keep_alive_while_idle(true)
                .connect_lazy();
            Ok(Member { name: address.clone(), channel })
        };
        let members = addresses.iter().map(member).collect::<Result<Vec<_>, Error>>()?;
        if members.is_empty() {
            return Err(Error::invalid("etcd has no address: write etcd://host:port"));
        }
        Ok(Self { members: members.into(), current: Arc::default(), prefix: prefix.into(), scope })
    }

    /// Whether etcd answers.
    ///
    /// # Errors
    /// Names the addresses that do not.
    pub async fn check(&self) -> Result<(), Error> {
        self.get("check").await.map(|_| ())
    }

    /// The key of etcd that stands for ours; its first key for none.
    fn key(&self, key: &str) -> Vec<u8> {
        let key = format!("{}{key}", self.prefix).into_bytes();
        if key.is_empty() { vec![0] } else { key }
    }

    fn entry(&self, kv: generated::KeyValue) -> Option<Entry> {
        let key = String::from_utf8(kv.key).ok()?;
        let key = key.strip_prefix(&*self.prefix)?.to_owned();
        Some(Entry { key, value: kv.value, revision: kv.mod_revision.unsigned_abs() })
    }

    fn member(&self) -> (usize, Channel) {
        let at = self.current.load(Ordering::Relaxed) % self.members.len();
        (at, self.members[at].channel.clone())
    }

    /// Turns to another member after a failure of `at`.
    fn turn_from(&self, at: usize) {
        let next = (at + 1) % self.members.len();
        let _someone_else_did = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Calls one member.
    async fn call<T>(&self, call: impl FnOnce(Channel) -> Answer<T>) -> Result<T, Error> {
        let (at, channel) = self.member();
        let outcome = match tokio::time::timeout(CALL_WITHIN, call(channel)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Status::deadline_exceeded(format!("no answer within {CALL_WITHIN:?}"))),
        };
        outcome.map_err(|status| {
            if away(&status) {
                self.turn_from(at);
            }
            self.error(at, &status)
        })
    }

    /// Asks members until one answers.
    async fn read<T>(&self, read: impl Fn(Channel) -> Answer<T>) -> Result<T, Error> {
        let mut last = None;
        for _ in 0..self.members.len() {
            match self.call(&read).await {
                Err(error) if error.kind == proto::Kind::Unavailable => last = Some(error),
                outcome => return outcome,
            }
        }
        Err(last.unwrap_or_else(|| Error::internal("etcd has no members")))
    }

    fn error(&self, at: usize, status: &Status) -> Error {
        if status.code() == Code::NotFound {
            return Error::not_found("the lease has ended");
        }
        let text = format!(
            "etcd at {} does not answer ({}): check that it runs and can be reached",
            self.members[at].name,
            status.message()
        );
        if away(status) { Error::unavailable(text) } else { Error::internal(text) }
    }

    async fn range(&self, request: generated::RangeRequest) -> Result<generated::RangeResponse, Error> {
        self.read(|channel| {
            let request = request.clone();
            let mut client = KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
            async move { Ok(client.range(request).await?.into_inner()) }.boxed()
        })
        .await
    }

    async fn txn(&self, request: generated::TxnRequest) -> Result<generated::TxnResponse, Error> {
        self.call(|channel| {
            async move { Ok(KvClient::new(channel).txn(request).await?.into_inner()) }.boxed()
        })
        .await
    }
}

/// Whether a member, rather than the request, is to blame.
fn away(status: &Status) -> bool {
    use Code::{Aborted, Cancelled, DeadlineExceeded, Internal, ResourceExhausted, Unavailable, Unknown};
    matches!(
        status.code(),
        Unavailable | DeadlineExceeded | Cancelled | Unknown | Internal | Aborted | ResourceExhausted
    )
}

fn expects(key: Vec<u8>, expect: Expect) -> Option<generated::Compare> {
    use generated::compare::{CompareResult, CompareTarget, TargetUnion};
    let (target, union) = match expect {
        Expect::Any => return None,
        Expect::Absent => (CompareTarget::Create, TargetUnion::CreateRevision(0)),
        Expect::Revision(revision) => (CompareTarget::Mod, TargetUnion::ModRevision(signed(revision))),
    };
    Some(generated::Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key,
        target_union: Some(union),
    })
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The first key after all that begin with `prefix`.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = if prefix == [0] { Vec::new() } else { prefix.to_vec() };
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // Every key, as etcd spells it.
    vec![0]
}

fn revision(header: Option<&generated::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

#[async_trait]
impl Coordinator for Etcd {
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        let request = generated::RangeRequest { key: self.key(key), ..Default::default() };
        Ok(self.range(request).await?.kvs.into_iter().next().and_then(|kv| self.entry(kv)))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, Error> {
        let mut key = self.key(prefix);
        let range_end = end_of(&key);
        let mut at = 0;
        let mut entries = Vec::new();
        loop {
            let request =
                generated::RangeRequest { key, range_end: range_end.clone(), limit: PAGE_KEYS, revision: at };
            let page = self.range(request).await?;
            // Further pages are of the same moment.
            at = if at == 0 { revision(page.header.as_ref()) } else { at };
            let last = page.kvs.last().map(|kv| kv.key.clone());
            entries.extend(page.kvs.into_iter().filter_map(|kv| self.entry(kv)));
            match last {
                Some(mut last) if page.more => {
                    last.push(0);
                    key = last;
                }
                _ => return Ok(entries),
            }
        }
    }

    async fn put(&self, put: Put) -> Result<Option<Revision>, Error> {
        let key = self.key(&put.key);
        let guard = put.guard.map(|(guard, revision)| (self.key(&guard), Expect::Revision(revision)));
        let conditions = guard.into_iter().chain([(key.clone(), put.expect)]);
        let request = generated::PutRequest {
            key,
            value: put.value,
            lease: put.lease.map_or(0, |lease| signed(lease.0)),
        };
        let txn = generated::TxnRequest {
            compare: conditions.filter_map(|(key, expect)| expects(key, expect)).collect(),
            success: vec![generated::RequestOp {
                request: Some(generated::request_op::Request::Put(request)),
            }],
        };
        let answer = self.txn(txn).await?;
        Ok(answer.succeeded.then(|| revision(answer.header.as_ref()).unsigned_abs()))
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<bool, Error> {
        let key = self.key(key);
        let request = generated::DeleteRangeRequest { key: key.clone(), range_end: Vec::new() };
        let txn = generated::TxnRequest {
            compare: expects(key, expect).into_iter().collect(),
            success: vec![generated::RequestOp {
                request: Some(generated::request_op::Request::DeleteRange(request)),
            }],
        };
        let answer = self.txn(txn).await?;
        let deleted = answer.responses.into_iter().any(|op| {
            use generated::response_op::Response::DeleteRange;
            matches!(op.response, Some(DeleteRange(range)) if range.deleted > 0)
        });
        Ok(answer.succeeded && deleted)
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease, Error> {
        let seconds = i64::try_from(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).unwrap_or(i64::MAX);
        let request = generated::LeaseGrantRequest { ttl: seconds.max(1), id: 0 };
        let granted = self
            .call(|channel| {
                async move { Ok(LeaseClient::new(channel).lease_grant(request).await?.into_inner()) }.boxed()
            })
            .await?;
        Ok(Lease(granted.id.unsigned_abs()))
    }

    async fn keep_alive(&self, lease: Lease) -> Result<bool, Error> {
        let request = generated::LeaseKeepAliveRequest { id: signed(lease.0) };
        let alive = self.read(|channel| {
            let one = tokio_stream::once(request);
            async move {
                let mut answers = LeaseClient::new(channel).lease_keep_alive(one).await?.into_inner();
                let answer = answers.message().await?;
                answer.ok_or_else(|| Status::unavailable("the stream ended"))
            }
            .boxed()
        });
        Ok(alive.await?.ttl > 0)
    }

    async fn revoke(&self, lease: Lease) -> Result<(), Error> {
        let request = generated::LeaseRevokeRequest { id: signed(lease.0) };
        let revoked = self.call(|channel| {
            async move { LeaseClient::new(channel).lease_revoke(request).await.map(|_| ()) }.boxed()
        });
        match revoked.await {
            // It had ended already.
            Err(error) if error.kind == proto::Kind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    async fn watch(&self, prefix: &str) -> Result<Watch, Error> {
        let (events, queue) = mpsc::channel(WATCH_QUEUE);
        let (began, beginning) = oneshot::channel();
        let trouble = Complaint::new("a watch broke; it goes on when etcd answers again");
        let watching = Watching { etcd: self.clone(), key: self.key(prefix), events, next: 0, trouble };
        self.scope.spawn("watch of etcd", OnError::Log, move |token| async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = watching.run(began) => {}
            }
        });
        beginning.await.unwrap_or_else(|_| Err(Error::unavailable("this node is stopping")))?;
        Ok(queue)
    }
}

/// One watch, over as many streams as it takes.
struct Watching {
    etcd: Etcd,
    key: Vec<u8>,
    events: mpsc::Sender<Event>,
    /// The revision to go on from; 0 before the first answer.
    next: i64,
    trouble: Complaint,
}

impl Watching {
    /// Watches until nobody listens. Whoever began it is told of the first
    /// attempt's failure, which also ends it.
    async fn run(mut self, began: oneshot::Sender<Result<(), Error>>) {
        let mut began = Some(began);
        while !self.events.is_closed() {
            let (at, channel) = self.etcd.member();
            let events = self.events.clone();
            let ended = tokio::select! {
                ended = self.follow(channel, &mut began) => ended,
                () = events.closed() => return,
            };
            let Err(status) = ended else { return };
            self.etcd.turn_from(at);
            let error = self.etcd.error(at, &status);
            match began.take() {
                Some(began) => {
                    let _gone = began.send(Err(error));
                    return;
                }
                None => self.trouble.say(&error),
            }
            tokio::time::sleep(WATCH_AGAIN_AFTER).await;
        }
    }

    /// Follows one stream; `Ok` when nobody listens any more.
    async fn follow(
        &mut self,
        channel: Channel,
        began: &mut Option<oneshot::Sender<Result<(), Error>>>,
    ) -> Result<(), Status> {
        let create = generated::WatchCreateRequest {
            key: self.key.clone(),
            range_end: end_of(&self.key),
            start_revision: self.next,
        };
        let request = generated::WatchRequest {
            request_union: Some(generated::watch_request::RequestUnion::CreateRequest(create)),
        };
        // The request stream stays open: its end would end the watch.
        let requests = tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
        let mut client = WatchClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let opened = tokio::time::timeout(CALL_WITHIN, client.watch(requests)).await;
        let mut answers =
            opened.map_err(|_| Status::deadline_exceeded("no answer to a watch"))??.into_inner();
        let mut created = false;
        loop {
            let answer = if created {
                answers.message().await?
            } else {
                let first = tokio::time::timeout(CALL_WITHIN, answers.message()).await;
                first.map_err(|_| Status::deadline_exceeded("no answer to a watch"))??
            };
            let answer = answer.ok_or_else(|| Status::unavailable("the watch's stream ended"))?;
            let reached = revision(answer.header.as_ref());
            if answer.compact_revision > 0 {
                // What lay between is forgotten: list again, from here on.
                self.next = answer.compact_revision.max(reached) + 1;
                if self.events.send(Event::Resync).await.is_err() {
                    return Ok(());
                }
                return Err(Status::unavailable("its history is compacted; what is there is listed again"));
            }
            if answer.canceled {
                return Err(Status::unavailable(answer.cancel_reason));
            }
            if answer.created {
                created = true;
                self.trouble.over();
                if self.next == 0 {
                    self.next = reached + 1;
                }
                if let Some(began) = began.take()
                    && began.send(Ok(())).is_err()
                {
                    return Ok(());
                }
            }
            for event in answer.events {
                let deleted = event.r#type() == generated::event::EventType::Delete;
                let Some(kv) = event.kv else { continue };
                self.next = self.next.max(kv.mod_revision + 1);
                let Some(entry) = self.etcd.entry(kv) else { continue };
                let event = if deleted {
                    Event::Delete { key: entry.key, revision: entry.revision }
                } else {
                    Event::Put(entry)
                };
                if self.events.send(event).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}
