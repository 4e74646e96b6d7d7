//! A root and leaves that do as they are told.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cluster::{Directory, Index, Placement, Registry, View};
use model::gather::Count;
use model::ids::{IndexName, IndexUid, NodeId, Seq, ShardId};
use model::schema::{Field, FieldType, Schema};
use model::settings::Definition;
use model::statistics::Statistics;
use proto::Error;
use proto::admin::{NodeState, SERVE};
use proto::controller::Held;
use proto::leaf::{Fetch, Found, Leaf, Load, Search, ShardAt, ShardWrite, StatisticsRequest};
use proto::search::{Answer, Document, Request, Search as _};
use root::Root;
use runtime::{CancellationToken, Deadline, Random, Shutdown, TaskScope};
use store::Store;
use testkit::local::soon;
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) const INDEX: &str = "staged";

/// What a leaf does with a call.
pub(crate) struct Play {
    after: Duration,
    fails: Option<Error>,
}

pub(crate) fn answers(milliseconds: u64) -> Play {
    Play { after: Duration::from_millis(milliseconds), fails: None }
}

pub(crate) fn fails(milliseconds: u64, error: Error) -> Play {
    Play { fails: Some(error), ..answers(milliseconds) }
}

pub(crate) fn dies() -> Play {
    fails(1, Error { cut_off: true, ..Error::unavailable("the connection broke: retry") })
}

/// A call as it was received.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) leaf: usize,
    pub(crate) shards: Vec<ShardId>,
    pub(crate) sent: Instant,
}

type Part = dyn Fn(usize, &Search) -> Play + Send + Sync;

/// One leaf.
struct Actor {
    leaf: usize,
    part: Arc<Part>,
    calls: Arc<Mutex<Vec<Call>>>,
}

fn unasked() -> Error {
    Error::internal("an actor only searches")
}

#[async_trait]
impl Leaf for Actor {
    async fn search(&self, search: Search) -> Result<Found, Error> {
        let shards = search.shards.iter().map(|at| at.shard).collect();
        self.calls.lock().unwrap().push(Call { leaf: self.leaf, shards, sent: Instant::now() });
        let play = (self.part)(self.leaf, &search);
        tokio::time::sleep(play.after).await;
        play.fails.map_or_else(|| Ok(Found::default()), Err)
    }
    async fn statistics(&self, request: StatisticsRequest) -> Result<Vec<Statistics>, Error> {
        let counted = Statistics {
            documents: 1,
            tokens: request.terms.iter().map(|term| (term.field.clone(), 1)).collect(),
            frequencies: request.terms.iter().map(|term| (term.clone(), 1)).collect(),
        };
        Ok(request.shards.iter().map(|_| counted.clone()).collect())
    }
    async fn ping(&self, _: Deadline) -> Result<Load, Error> {
        Ok(Load::default())
    }
    async fn write(&self, _: ShardWrite) -> Result<Seq, Error> {
        Err(unasked())
    }
    async fn nudge(&self, _: &IndexUid, _: ShardId) -> Result<(), Error> {
        // It is there, and does not answer.
        std::future::pending().await
    }
    async fn follow(&self, _: &IndexUid, _: ShardAt, _: Deadline) -> Result<(), Error> {
        Err(unasked())
    }
    async fn fetch(&self, _: Fetch) -> Result<Vec<Document>, Error> {
        Err(unasked())
    }
    async fn get(&self, _: &IndexUid, _: ShardAt, _: &str, _: Deadline) -> Result<Option<Document>, Error> {
        Err(unasked())
    }
    async fn held(&self) -> Result<Vec<Held>, Error> {
        Err(unasked())
    }
}

struct Nobody;

#[async_trait]
impl Registry for Nobody {
    async fn created(&self, _: &IndexName, _: &IndexUid) -> Result<(), Error> {
        Ok(())
    }
    async fn deleted(&self, _: &IndexName, _: &IndexUid) -> Result<(), Error> {
        Ok(())
    }
}

/// A root and its actors.
pub(crate) struct Stage {
    pub(crate) root: Root,
    calls: Arc<Mutex<Vec<Call>>>,
    pub(crate) view: watch::Sender<Arc<View>>,
}

impl Stage {
    /// An index whose shards are held by these leaves, all on one host.
    pub(crate) async fn of(
        serve: &[&[usize]],
        settings: root::Settings,
        part: impl Fn(usize, &Search) -> Play + Send + Sync + 'static,
    ) -> Self {
        Self::on(|_| 0, serve, settings, part).await
    }

    /// The same on hosts of theirs.
    pub(crate) async fn on(
        host: fn(usize) -> usize,
        serve: &[&[usize]],
        settings: root::Settings,
        part: impl Fn(usize, &Search) -> Play + Send + Sync + 'static,
    ) -> Self {
        let store = Store::memory();
        let name = IndexName::new(INDEX).unwrap();
        let schema =
            Schema { fields: [("body".into(), Field::of(FieldType::Text))].into(), ..Schema::default() };
        let shards = u32::try_from(serve.len()).unwrap();
        let definition = Definition { shards, ..Definition::of(schema) };
        let uid = store.create_index(&name, &definition, soon().instant()).await.unwrap();
        let node = |leaf: usize| NodeId(format!("leaf-{leaf}").into());
        let index = Index {
            name: name.clone(),
            number: store.newest_definition(&uid).await.unwrap().0,
            definition: Arc::new(definition),
            cut: Arc::new(store.newest_cut(&uid).await.unwrap()),
            owners: vec![None; serve.len()],
            declined: Default::default(),
            placement: Arc::new(Placement {
                serve: serve.iter().map(|leaves| leaves.iter().map(|leaf| node(*leaf)).collect()).collect(),
                own: Vec::new(),
            }),
            uid,
        };
        let leaves: BTreeSet<usize> = serve.iter().flat_map(|leaves| leaves.iter().copied()).collect();
        let state = |leaf: &usize| NodeState {
            node: node(*leaf),
            roles: vec![SERVE.to_owned()],
            public: None,
            internal: Some(format!("10.0.0.{}:{}", host(*leaf), 7_000 + leaf)),
            zone: None,
            draining: false,
        };
        let view = View {
            known: true,
            nodes: leaves.iter().map(|leaf| (node(*leaf), state(leaf))).collect(),
            indexes: [(name, Arc::new(index))].into(),
            ..View::default()
        };
        let (sender, view) = watch::channel(Arc::new(view));
        let directory = Directory::new(view.clone());
        let (part, calls): (Arc<Part>, _) = (Arc::new(part), Arc::default());
        for leaf in leaves {
            let actor = Actor { leaf, part: part.clone(), calls: Arc::clone(&calls) };
            directory.insert(node(leaf), Arc::new(actor));
        }
        let parts = root::Parts {
            store,
            view,
            registry: Arc::new(Nobody),
            leaves: directory,
            leaving: CancellationToken::new(),
            own: Arc::new(|_| Ok(())),
            random: Random::seeded(7),
            scope: TaskScope::new(&Shutdown::new()),
        };
        Self { root: Root::new(parts, settings), calls, view: sender }
    }

    pub(crate) async fn search(&self, query: &str) -> Result<Answer, Error> {
        self.covering(query, None).await
    }

    pub(crate) async fn covering(&self, query: &str, min_coverage: Option<f64>) -> Result<Answer, Error> {
        self.explained(query, min_coverage, false).await
    }

    /// Asks for `word`, as `request` changes that.
    pub(crate) async fn asked(&self, request: impl FnOnce(Request) -> Request) -> Result<Answer, Error> {
        let query = model::query::parse("word", &model::query::Limits::default()).unwrap().canonical();
        let deadline = Deadline::after(Duration::from_secs(10));
        let usual = Request::new(IndexName::new(INDEX).unwrap(), query, deadline);
        self.root.search(request(Request { count: Count::None, ..usual })).await
    }

    pub(crate) async fn explained(
        &self,
        query: &str,
        min_coverage: Option<f64>,
        profile: bool,
    ) -> Result<Answer, Error> {
        let query = model::query::parse(query, &model::query::Limits::default()).unwrap().canonical();
        self.asked(|usual| Request { query, min_coverage, profile, ..usual }).await
    }

    /// The calls since this was asked last.
    pub(crate) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

/// Whether the query is one that leaves die of.
pub(crate) fn deadly(search: &Search) -> bool {
    format!("{:?}", search.query).contains("poison")
}

/// Two shards of three copies, each on leaves of its own.
pub(crate) const APART: [&[usize]; 2] = [&[0, 1, 2], &[3, 4, 5]];
