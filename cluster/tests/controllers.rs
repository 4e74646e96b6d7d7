//! A controller stopped before and after each of its puts, in the store and in
//! the coordinator, while another is elected, publishes and collects; then the
//! first goes on.
//!
//! What the coordinator names is always the newest cut that the store has, and
//! never goes back.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cluster::controller::{Handle, Settings};
use cluster::coordinator::{Coordinator, Entry, Expect, Lease, Put, Revision, Watch};
use cluster::{Controller, Embedded, Membership, Names, Registry, keys};
use model::cut::Cut;
use model::ids::{Generation, IndexName, IndexUid, NodeId, Seq, ShardId};
use model::schema::Schema;
use model::settings::Definition;
use proto::Error;
use proto::admin::{NodeState, OWN, SERVE};
use proto::controller::{Controller as _, Held, Report, Served};
use runtime::{Clock, OnError, Shutdown, TaskScope};
use store::Store;
use store::garbage::Retention;
use store::scripted::{Scripted, Step};
use tokio::sync::Notify;
use tokio::time::Instant;

/// More puts than a controller's script makes: reaching it means all were tried.
const PUTS_MAX: usize = 60;
const PATIENCE: Duration = Duration::from_secs(60);

/// A controller's own way to a shared coordinator, with a stop at one put.
#[derive(Clone)]
struct Gated {
    inner: Embedded,
    puts: Arc<AtomicUsize>,
    at: usize,
    before: bool,
    reached: Arc<Notify>,
    open: Arc<Notify>,
}

impl Gated {
    fn new(inner: &Embedded, at: usize, before: bool) -> Self {
        Self {
            inner: inner.clone(),
            puts: Arc::default(),
            at,
            before,
            reached: Arc::default(),
            open: Arc::default(),
        }
    }

    async fn wait(&self) {
        self.reached.notify_one();
        self.open.notified().await;
    }
}

#[async_trait]
impl Coordinator for Gated {
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, Error> {
        self.inner.list(prefix).await
    }
    async fn put(&self, put: Put) -> Result<Option<Revision>, Error> {
        let stop = self.puts.fetch_add(1, Ordering::Relaxed) + 1 == self.at;
        if stop && self.before {
            self.wait().await;
        }
        let outcome = self.inner.put(put).await;
        if stop && !self.before {
            self.wait().await;
        }
        outcome
    }
    async fn delete(&self, key: &str, expect: Expect) -> Result<bool, Error> {
        self.inner.delete(key, expect).await
    }
    async fn grant(&self, ttl: Duration) -> Result<Lease, Error> {
        self.inner.grant(ttl).await
    }
    async fn keep_alive(&self, lease: Lease) -> Result<bool, Error> {
        self.inner.keep_alive(lease).await
    }
    async fn revoke(&self, lease: Lease) -> Result<(), Error> {
        self.inner.revoke(lease).await
    }
    async fn watch(&self, prefix: &str) -> Result<Watch, Error> {
        self.inner.watch(prefix).await
    }
}

/// The store and the coordinator that all share, and one leaf in it.
struct World {
    base: Store,
    coordinator: Embedded,
    scope: TaskScope,
    uid: Mutex<Option<IndexUid>>,
}

impl World {
    fn new() -> Self {
        let coordinator = Embedded::new();
        let scope = TaskScope::new(&Shutdown::new());
        let state = NodeState {
            node: NodeId("leaf".into()),
            roles: vec![OWN.to_owned(), SERVE.to_owned()],
            public: None,
            internal: None,
            zone: None,
            draining: false,
        };
        let membership = Membership::new(Arc::new(coordinator.clone()), state, Duration::from_secs(600));
        scope.spawn("membership", OnError::Log, |token| membership.run(token));
        Self { base: Store::memory(), coordinator, scope, uid: Mutex::default() }
    }

    fn controller(&self, name: &str, coordinator: Arc<dyn Coordinator>, store: Store) -> Handle {
        let settings = Settings { lease: Duration::from_secs(600), ..Settings::default() };
        let (controller, reports) =
            Controller::new(NodeId(name.into()), coordinator, store, Clock::System, settings);
        self.scope.spawn(name.to_owned(), OnError::Log, |token| controller.run(token));
        reports
    }

    async fn until<T>(&self, what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
        let look = async {
            loop {
                if let Some(found) = condition().await {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("in vain: {what}"))
    }

    async fn elected(&self, name: &str) {
        self.until(&format!("{name} is elected"), async || {
            let entry = self.coordinator.get(keys::CONTROLLER).await.unwrap()?;
            (entry.value == name.as_bytes()).then_some(())
        })
        .await;
    }

    async fn create(&self) {
        let name = IndexName::new("index").unwrap();
        let definition = Definition { shards: 1, ..Definition::of(Schema::default()) };
        let uid = self.base.create_index(&name, &definition, Instant::now() + PATIENCE).await.unwrap();
        *self.uid.lock().unwrap() = Some(uid.clone());
        Names(Arc::new(self.coordinator.clone())).created(&name, &uid).await.unwrap();
    }

    fn uid(&self) -> IndexUid {
        self.uid.lock().unwrap().clone().unwrap()
    }

    /// The cut that the coordinator names.
    async fn named(&self) -> Option<Cut> {
        let entry = self.coordinator.get(&keys::cut(&self.uid())).await.unwrap()?;
        Some(serde_json::from_slice(&entry.value).unwrap())
    }

    /// Reports a generation until the coordinator names a cut that has it.
    async fn publish(&self, reports: &Handle, generation: u64) {
        let at = Served { generation: Generation(generation), seq: Seq(generation), documents: generation };
        let (uid, shard) = (self.uid(), ShardId(0));
        let mut before = 0;
        self.until(&format!("a cut with generation {generation}"), async || {
            let held = Held { uid: uid.clone(), shard, owned: true, generations: vec![at] };
            let report = Report { node: NodeId("leaf".into()), complete: false, shards: vec![held] };
            // A leaf repeats what it could not tell.
            let _told = reports.report(report).await;
            let cut = self.named().await?;
            assert!(cut.number.0 >= before, "cuts never go back");
            before = cut.number.0;
            (cut.entries[0].generation.0 >= generation).then_some(())
        })
        .await;
    }
}

/// Runs the first controller's script: an index, and four generations.
async fn script(world: &World, reports: &Handle) {
    world.elected("one").await;
    world.create().await;
    for generation in 2..6 {
        world.publish(reports, generation).await;
    }
}

/// Another controller takes over while the first stands at its gate, and the
/// first goes on; returns whether the gate was reached.
async fn stopped(
    world: World,
    one: Handle,
    reached: impl Future<Output = ()>,
    resume: impl AsyncFnOnce(),
) -> bool {
    let ran = tokio::select! {
        () = script(&world, &one) => true,
        () = reached => false,
    };
    if ran {
        return false;
    }
    if world.uid.lock().unwrap().is_none() {
        world.create().await;
    }
    // The first's election ends while it stands, as its lease would.
    if world.coordinator.get(keys::CONTROLLER).await.unwrap().is_some() {
        world.coordinator.delete(keys::CONTROLLER, Expect::Any).await.unwrap();
    }
    let two = world.controller("two", Arc::new(world.coordinator.clone()), world.base.clone());
    world.elected("two").await;
    for generation in 10..22 {
        world.publish(&two, generation).await;
    }
    // Long after: everything below the last cuts is garbage.
    let later = std::time::SystemTime::now() + Duration::from_secs(3_600);
    world.base.collect_cuts(&world.uid(), later, Retention::default()).await.unwrap();
    let before = world.named().await.unwrap();
    resume().await;
    for generation in 30..33 {
        world.publish(&two, generation).await;
    }
    let named = world.named().await.unwrap();
    assert!(named.number > before.number);
    assert_eq!(
        named,
        world.base.newest_cut(&world.uid()).await.unwrap(),
        "the newest cut is the one that is named"
    );
    let elected = world.coordinator.get(keys::CONTROLLER).await.unwrap().unwrap();
    assert_eq!(elected.value, b"two", "the first does not come back while another governs");
    world.scope.close(PATIENCE).await.unwrap();
    true
}

async fn every_store_put(step: Step) {
    for n in 1..PUTS_MAX {
        let world = World::new();
        let scripted = Scripted::new(world.base.objects().clone());
        let gate = scripted.at_put(n, step);
        let one =
            world.controller("one", Arc::new(world.coordinator.clone()), Store::new(Arc::new(scripted)));
        let waiting = gate.clone();
        let resume = async || {
            // What lands late finds its place taken, or is garbage.
            let _taken = gate.land().await;
            gate.resume();
        };
        if !stopped(world, one, async move { waiting.reached().await }, resume).await {
            assert!(n > 4, "the script made only {} puts", n - 1);
            println!("{step:?}: {} puts", n - 1);
            return;
        }
    }
    panic!("the script never ended");
}

#[tokio::test]
async fn a_controller_stopped_before_each_put_harms_nothing() {
    every_store_put(Step::PauseBefore).await;
}

#[tokio::test]
async fn a_controller_stopped_after_each_put_harms_nothing() {
    every_store_put(Step::PauseAfter).await;
}

#[tokio::test]
async fn a_controllers_put_that_lands_late_harms_nothing() {
    every_store_put(Step::FailThenLand).await;
}

#[tokio::test]
async fn a_controller_stopped_around_each_announcement_harms_nothing() {
    for before in [true, false] {
        for n in 1.. {
            assert!(n < PUTS_MAX, "the script never ended");
            let world = World::new();
            let gated = Gated::new(&world.coordinator, n, before);
            let one = world.controller("one", Arc::new(gated.clone()), world.base.clone());
            let waiting = gated.clone();
            let resume = async || gated.open.notify_one();
            if !stopped(world, one, async move { waiting.reached.notified().await }, resume).await {
                assert!(n > 8, "the script made only {} puts", n - 1);
                println!("before {before}: {} puts", n - 1);
                break;
            }
        }
    }
}
