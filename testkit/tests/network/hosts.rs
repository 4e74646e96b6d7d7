//! A root and three leaves, on a host each, with a simulated network between.
//!
//! ```text
//! root: Root ─► Remote ─► tonic ─┐ links with delays,      ┌─► hyper ─► routes ─► Scripted: leaf-0
//!                                └ losses, cuts, crashes ──┼─► … leaf-1
//!                                                          └─► … leaf-2
//! ```
//!
//! Shard n is on leaf n and on the next, so that no leaf can answer alone and
//! any one can be done without.
//!
//! A partition loses what is sent, and turmoil's TCP never sends again: a
//! connection that lost a segment is dumb from then on. A hold keeps everything
//! back until it is released. Under a partition connecting is refused at once;
//! under a hold, and to a host that has crashed, it takes forever. A host that
//! crashes closes its connections first.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster::{Directory, Index, Placement, Registry, View};
use futures::future::join_all;
use hyper_util::rt::TokioIo;
use model::cut::{Cut, CutEntry};
use model::ids::{CutNumber, DefinitionNumber, Epoch, IndexName, IndexUid, NodeId};
use model::schema::{Field, FieldType, Schema};
use model::settings::Definition;
use proto::admin::{NodeState, OWN, SERVE};
use proto::internal::{Remote, fresh};
use proto::leaf::StatisticsRequest;
use proto::search::{Request, Search as _};
use proto::{Error, Kind};
use root::Root;
use runtime::{CancellationToken, Deadline, Random, Shutdown, TaskScope};
use store::Store;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint, Uri};
use turmoil::Sim;
use turmoil::net::TcpStream;

use crate::corpus;
use crate::log::{Call, Log, Searched};

/// Leaves.
pub(crate) const LEAVES: usize = 3;
/// Where they listen.
pub(crate) const PORT: u16 = 7100;
/// The root's host.
pub(crate) const ROOT: &str = "root";
/// What a message takes on the way, at least and at most.
pub(crate) const LATENCY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(3));
/// How long a leaf searches, unless a test says otherwise.
pub(crate) const SEARCH_TIME: Duration = Duration::from_millis(5);
/// A search that nothing delays: three calls one after the other, each two
/// messages and two steps of the simulation, the time of its leaf, and perhaps
/// a connection to make first.
pub(crate) const ORDINARY: Duration = Duration::from_millis(60);
/// As `proto::internal::connect` connects.
pub(crate) const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// As `proto::internal::connect` probes a connection.
pub(crate) const PROBE_EVERY: Duration = Duration::from_secs(1);
/// No scenario takes longer: a simulation that goes on is stuck.
const DURATION_MAX: Duration = Duration::from_secs(120);
const INDEX: &str = "simulated";

/// A leaf's name, as a node and as a host.
pub(crate) fn name(leaf: usize) -> String {
    format!("leaf-{leaf}")
}

/// A simulation under way.
pub(crate) struct Cluster {
    pub(crate) sim: Sim<'static>,
    pub(crate) log: Log,
}

impl Cluster {
    /// Starts the hosts; the root runs `work`, and then is idle.
    pub(crate) fn start<W, F>(seed: u64, work: W) -> Self
    where
        W: Fn(Client) -> F + Clone + 'static,
        F: Future<Output = ()> + 'static,
    {
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .simulation_duration(DURATION_MAX)
            .min_message_latency(LATENCY.0)
            .max_message_latency(LATENCY.1)
            .build();
        let log = Log::default();
        for leaf in 0..LEAVES {
            log.set_search_time(leaf, SEARCH_TIME);
            let log = log.clone();
            sim.host(name(leaf), move || crate::leaf::serve(leaf, log.clone()));
        }
        let client_log = log.clone();
        sim.host(ROOT, move || {
            let (log, work) = (client_log.clone(), work.clone());
            async move {
                let (client, _view) = client(seed, log);
                work(client).await;
                std::future::pending().await
            }
        });
        Self { sim, log }
    }

    /// Simulates until this moment.
    pub(crate) fn run_until(&mut self, moment: Duration) {
        while self.sim.elapsed() < moment {
            self.log.set_now(self.sim.elapsed());
            self.sim.step().expect("no host fails");
        }
    }

    /// Simulates until so many searches have ended; returns them all.
    pub(crate) fn run_to(&mut self, searches: usize) -> Vec<Searched> {
        loop {
            let ended = self.log.searches();
            if ended.len() >= searches {
                return ended;
            }
            assert!(self.sim.elapsed() < DURATION_MAX, "only {} of {searches} searches ended", ended.len());
            self.run_until(self.sim.elapsed() + Duration::from_millis(10));
        }
    }

    /// Simulates until no leaf works on anything; returns all calls.
    pub(crate) fn run_to_rest(&mut self) -> Vec<Call> {
        while self.log.running() > 0 {
            assert!(self.sim.elapsed() < DURATION_MAX, "leaves still work on {} calls", self.log.running());
            self.run_until(self.sim.elapsed() + Duration::from_millis(1));
        }
        self.log.calls()
    }
}

/// What searches, on the root's host.
#[derive(Clone)]
pub(crate) struct Client {
    root: Root,
    leaves: Directory,
    log: Log,
}

impl Client {
    /// Searches, checks the answer, and notes how it ended. Where the future is
    /// dropped nothing is noted.
    pub(crate) async fn search(&self, query: String, timeout: Duration) {
        let began = self.log.now();
        let parsed = model::query::parse(&query, &model::query::Limits::default()).expect("it parses");
        let index = IndexName::new(INDEX).expect("a good name");
        let usual = Request::new(index, parsed.canonical(), Deadline::after(timeout));
        let request = Request { limit: corpus::LIMIT, count: corpus::COUNT, profile: true, ..usual };
        let outcome = match self.root.search(request).await {
            Ok(answer) => {
                assert_eq!(corpus::wrong(&query, &answer), None, "the answer to {query}");
                let profile = answer.profile.expect("it was asked for");
                let answered = profile.leaves.into_iter().filter(|leaf| leaf.outcome == "answered");
                Ok(answered.map(|leaf| leaf.node).collect())
            }
            Err(error) => Err(error.kind),
        };
        self.log.searched(Searched { query, began, ended: self.log.now(), outcome });
    }

    /// Simulated time, to the step.
    pub(crate) fn now(&self) -> Duration {
        self.log.now()
    }

    /// Asks one leaf something small.
    pub(crate) async fn ask(&self, leaf: usize, timeout: Duration) -> Result<(), Kind> {
        let request = StatisticsRequest {
            uid: uid(),
            shards: Vec::new(),
            terms: Vec::new(),
            deadline: Deadline::after(timeout),
        };
        let leaf = self.leaves.leaf(&NodeId(name(leaf).into())).expect("it is known");
        leaf.statistics(request).await.map(|_| ()).map_err(|error| error.kind)
    }

    /// Searches at even intervals, each for one of so many words: the first for
    /// each asks for statistics before it asks for hits and documents.
    pub(crate) async fn stream(&self, every: Duration, searches: u32, words: u32, timeout: Duration) {
        join_all((0..searches).map(|number| async move {
            tokio::time::sleep(every * number).await;
            self.search(format!("word{}", number % words), timeout).await;
        }))
        .await;
    }
}

/// The root's host, and what keeps its view.
fn client(seed: u64, log: Log) -> (Client, watch::Sender<Arc<View>>) {
    let (sender, view) = watch::channel(Arc::new(view()));
    let leaves = Directory::new(view.clone());
    for state in view.borrow().nodes.values() {
        let remote = Remote::new(state.node.clone(), connect(&state.node.0));
        leaves.insert(state.node.clone(), Arc::new(remote));
    }
    let parts = root::Parts {
        store: Store::memory(),
        view,
        registry: Arc::new(Nobody),
        leaves: leaves.clone(),
        leaving: CancellationToken::new(),
        own: Arc::new(|_| Ok(())),
        random: Random::seeded(seed),
        scope: TaskScope::new(&Shutdown::new()),
    };
    let root = Root::new(parts, root::Settings::default());
    (Client { root, leaves, log }, sender)
}

/// As `proto::internal::connect`, by the simulated network.
fn connect(host: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{host}:{PORT}")).expect("an address");
    let stream = |uri: Uri| async move {
        let host = uri.host().unwrap_or_default().to_owned();
        let connected = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect((host, PORT))).await;
        Ok::<_, io::Error>(TokioIo::new(connected.map_err(io::Error::other)??))
    };
    let connector = tower::service_fn(move |uri: Uri| fresh(move || stream(uri.clone())));
    endpoint
        .http2_keep_alive_interval(PROBE_EVERY)
        .keep_alive_timeout(PROBE_EVERY)
        .keep_alive_while_idle(true)
        .http2_adaptive_window(true)
        .connect_with_connector_lazy(connector)
}

fn uid() -> IndexUid {
    IndexUid::from_bits(1)
}

fn view() -> View {
    let node = |leaf| NodeId(name(leaf).into());
    let state = |leaf| NodeState {
        node: node(leaf),
        roles: vec![OWN.to_owned(), SERVE.to_owned()],
        public: None,
        internal: None,
        zone: None,
        draining: false,
    };
    let schema =
        Schema { fields: [(corpus::FIELD.into(), Field::of(FieldType::Text))].into(), ..Schema::default() };
    let definition = Definition { shards: corpus::SHARDS, copies: 2, ..Definition::of(schema) };
    let uid = uid();
    let entry =
        CutEntry { generation: corpus::GENERATION, seq: corpus::SEQ, documents: corpus::DOCUMENTS.into() };
    let shards = corpus::SHARDS as usize;
    let index = Index {
        name: IndexName::new(INDEX).expect("a good name"),
        uid: uid.clone(),
        number: DefinitionNumber(1),
        definition: Arc::new(definition),
        cut: Arc::new(Cut {
            uid,
            number: CutNumber(1),
            epoch: Epoch(1),
            nonce: 1,
            definition: DefinitionNumber(1),
            entries: vec![entry; shards],
        }),
        owners: vec![None; shards],
        declined: BTreeMap::new(),
        placement: Arc::new(Placement {
            serve: (0..shards).map(|shard| vec![node(shard % LEAVES), node((shard + 1) % LEAVES)]).collect(),
            own: Vec::new(),
        }),
    };
    View {
        known: true,
        nodes: (0..LEAVES).map(state).map(|state| (state.node.clone(), state)).collect(),
        indexes: [(index.name.clone(), Arc::new(index))].into(),
        ..View::default()
    }
}

/// Nobody to tell of created indexes.
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
