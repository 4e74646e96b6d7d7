//! A search service in memory: what the API is tested over.
//!
//! It finds words by looking into the sources, scores by their number, and
//! fails, hangs or panics when told to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use model::gather::{Count, Total};
use model::ids::{CutNumber, Generation, IndexName, IndexUid, NodeId, Seq, ShardId};
use model::query::Query;
use model::schema::Schema;
use model::settings::Definition;
use model::token::Token;
use proto::admin::{
    Admin, Change, ClusterState, IndexInfo, NodeState, Refresh, Rejected, ShardState, Write, Written,
};
use proto::search::{Answer, Coverage, Document, Hit, LeafProfile, Profile, Request, Search};
use proto::{Error, Kind};
use runtime::Deadline;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What a test sees of searches that hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// One began.
    Began,
    /// Its future was dropped.
    Dropped,
}

/// A fake root.
#[derive(Default)]
pub struct Fake {
    indexes: Mutex<BTreeMap<IndexName, Index>>,
    failure: Mutex<Option<Error>>,
    hang: Mutex<Option<UnboundedSender<Event>>>,
    panics: AtomicBool,
    full: AtomicBool,
    asked: Mutex<Option<Request>>,
}

struct Index {
    info: IndexInfo,
    documents: BTreeMap<String, Bytes>,
    seq: u64,
}

impl Fake {
    /// An empty one.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Every call fails with `failure` until it is `None`.
    pub fn fail(&self, failure: Option<Error>) {
        *lock(&self.failure) = failure;
    }

    /// Every search hangs from now on and tells when it begins and ends.
    pub fn hang(&self) -> UnboundedReceiver<Event> {
        let (sender, receiver) = unbounded_channel();
        *lock(&self.hang) = Some(sender);
        receiver
    }

    /// Every search panics from now on.
    pub fn panic(&self, panics: bool) {
        self.panics.store(panics, Ordering::Relaxed);
    }

    /// Every search is refused before it is read.
    pub fn fill(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// The last search as it arrived.
    #[must_use]
    pub fn asked(&self) -> Option<Request> {
        lock(&self.asked).clone()
    }

    fn check(&self) -> Result<(), Error> {
        lock(&self.failure).clone().map_or(Ok(()), Err)
    }

    fn create(
        indexes: &mut BTreeMap<IndexName, Index>,
        name: &IndexName,
        definition: Definition,
    ) -> IndexInfo {
        let info = IndexInfo {
            name: name.clone(),
            uid: IndexUid::from_bits(indexes.len() as u128 + 1),
            definition,
            cut: CutNumber(1),
            documents: 0,
        };
        let index = Index { info: info.clone(), documents: BTreeMap::new(), seq: 0 };
        indexes.insert(name.clone(), index);
        info
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

fn missing(name: &IndexName) -> Error {
    Error::not_found(format!("there is no index \"{name}\"; create it with PUT /v1/indexes/{name}"))
}

struct TellDropped(UnboundedSender<Event>);

impl Drop for TellDropped {
    fn drop(&mut self) {
        let _nobody_listens = self.0.send(Event::Dropped);
    }
}

fn occurrences(query: &Query, source: &str) -> usize {
    match query {
        Query::Word { text, .. } | Query::Phrase { text, .. } | Query::Prefix { text, .. } => {
            source.matches(text.as_str()).count()
        }
        _ => 1,
    }
}

#[async_trait]
impl Search for Fake {
    fn refusal(&self) -> Option<Error> {
        self.full.load(Ordering::Relaxed).then(|| Error::overloaded("it is full: retry"))
    }

    async fn search(&self, request: Request) -> Result<Answer, Error> {
        *lock(&self.asked) = Some(request.clone());
        self.check()?;
        assert!(!self.panics.load(Ordering::Relaxed), "told to");
        let hang = lock(&self.hang).clone();
        if let Some(events) = hang {
            let _nobody_listens = events.send(Event::Began);
            let _dropped = TellDropped(events);
            std::future::pending::<()>().await;
        }
        let indexes = lock(&self.indexes);
        let index = indexes.get(&request.index).ok_or_else(|| missing(&request.index))?;
        if request.token.as_ref().is_some_and(|token| token.uid != index.info.uid) {
            return Err(Error::conflict("the token is of another index; use the one of its last write"));
        }
        if request.at.is_some_and(|at| at > index.info.cut) {
            return Err(Error::gone("that cut is not kept; leave out at"));
        }
        let mut hits: Vec<Hit> = Vec::new();
        for (id, source) in &index.documents {
            let text = String::from_utf8_lossy(source);
            let count = occurrences(&request.query, &text);
            let kept = request.filter.as_ref().is_none_or(|filter| occurrences(filter, &text) > 0);
            if count > 0 && kept {
                let source = match &request.fields {
                    Some(fields) if fields.is_empty() => Bytes::new(),
                    _ => source.clone(),
                };
                let document = Document { id: id.clone(), source };
                hits.push(Hit { score: count as f32 * 0.7, document });
            }
        }
        hits.sort_by(|a, b| b.score.total_cmp(&a.score));
        let matches = hits.len() as u64;
        let shards = index.info.definition.shards;
        let leaf = || LeafProfile { node: "fake".into(), scored: matches, ..LeafProfile::default() };
        let profile =
            || Profile { plan: format!("{:?}", request.query), leaves: vec![leaf()], ..Profile::default() };
        Ok(Answer {
            hits: hits.into_iter().skip(request.offset).take(request.limit).collect(),
            total: (request.count != Count::None).then(|| Total::exactly(matches)),
            coverage: Coverage { shards, answered: shards, missing: Vec::new(), documents: 1.0 },
            uid: index.info.uid.clone(),
            cut: index.info.cut,
            took: Duration::from_micros(812),
            profile: request.profile.then(profile),
        })
    }
}

#[async_trait]
impl Admin for Fake {
    async fn create_index(
        &self,
        name: IndexName,
        definition: Definition,
        _: Deadline,
    ) -> Result<IndexInfo, Error> {
        self.check()?;
        let mut indexes = lock(&self.indexes);
        if indexes.contains_key(&name) {
            return Err(Error::conflict(format!("index \"{name}\" is there already; delete it first")));
        }
        Ok(Self::create(&mut indexes, &name, definition))
    }

    async fn list_indexes(&self) -> Result<Vec<IndexInfo>, Error> {
        self.check()?;
        Ok(lock(&self.indexes).values().map(|index| index.info.clone()).collect())
    }

    async fn describe_index(&self, name: &IndexName) -> Result<IndexInfo, Error> {
        self.check()?;
        lock(&self.indexes).get(name).map(|index| index.info.clone()).ok_or_else(|| missing(name))
    }

    async fn delete_index(&self, name: &IndexName, _: Deadline) -> Result<(), Error> {
        self.check()?;
        lock(&self.indexes).remove(name).map(|_| ()).ok_or_else(|| missing(name))
    }

    async fn write(&self, write: Write) -> Result<Written, Error> {
        self.check()?;
        let mut indexes = lock(&self.indexes);
        if write.auto_create && !indexes.contains_key(&write.index) {
            Self::create(&mut indexes, &write.index, Definition::of(Schema::default()));
        }
        let index = indexes.get_mut(&write.index).ok_or_else(|| missing(&write.index))?;
        let mut written = Written::default();
        for (line, change) in write.lines {
            let rejected = |reason: &str, kind: Kind| Rejected {
                line,
                id: None,
                reason: reason.into(),
                kind,
                retry: kind == Kind::Unavailable,
            };
            let (id, source) = match change {
                Change::Delete(id) => (id, None),
                Change::Upsert(source) => match serde_json::from_slice::<serde_json::Value>(&source) {
                    Ok(value) => match value["id"].as_str() {
                        Some("busy") => {
                            written.rejected.push(rejected("the shard has no owner", Kind::Unavailable));
                            continue;
                        }
                        Some(id) => (id.to_owned(), Some(source)),
                        None => {
                            written
                                .rejected
                                .push(rejected("the document has no string \"id\"", Kind::Invalid));
                            continue;
                        }
                    },
                    Err(error) => {
                        written.rejected.push(rejected(&format!("not JSON: {error}"), Kind::Invalid));
                        continue;
                    }
                },
            };
            match source {
                Some(source) => index.documents.insert(id, source),
                None => index.documents.remove(&id),
            };
            written.accepted += 1;
        }
        if written.accepted > 0 {
            index.seq += 1;
            index.info.cut = index.info.cut.next();
            index.info.documents = index.documents.len() as u64;
            let mut token = Token::new(index.info.uid.clone());
            token.seqs.insert(ShardId(0), Seq(index.seq));
            written.token = Some(token);
        }
        written.searchable = (write.refresh == Refresh::Wait).then_some(true);
        Ok(written)
    }

    async fn get(
        &self,
        index: &IndexName,
        id: &str,
        _: Option<Token>,
        _: Deadline,
    ) -> Result<Option<Document>, Error> {
        self.check()?;
        let indexes = lock(&self.indexes);
        let index = indexes.get(index).ok_or_else(|| missing(index))?;
        let document = |source: &Bytes| Document { id: id.into(), source: source.clone() };
        Ok(index.documents.get(id).map(document))
    }

    async fn cluster(&self) -> Result<ClusterState, Error> {
        self.check()?;
        let node = NodeId("fake".into());
        let shards = |index: &Index| {
            let shard = ShardState {
                shard: ShardId(0),
                owner: Some(node.clone()),
                replicas: vec![proto::admin::ReplicaState {
                    node: node.clone(),
                    live: true,
                    generation: Some(Generation(3)),
                }],
                generation: Generation(3),
                seq: Seq(index.seq),
                documents: index.info.documents,
            };
            (index.info.clone(), vec![shard])
        };
        Ok(ClusterState {
            nodes: vec![NodeState {
                node: node.clone(),
                roles: vec!["root".into()],
                public: None,
                internal: None,
                zone: None,
                draining: false,
            }],
            controller: None,
            indexes: lock(&self.indexes).values().map(shards).collect(),
        })
    }

    async fn ready(&self) -> Result<(), Error> {
        self.check()
    }
}
