//! A leaf whose threads are busy.

use std::sync::mpsc;

use futures::future::join_all;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use model::gather::Count;
use model::ids::{DefinitionNumber, IndexName};
use model::plan::Node;
use model::schema::{Field, FieldType, Schema};
use proto::Kind;
use proto::leaf::{Address, Fetch, Found, Leaf as _, Search, StatisticsFrom};
use runtime::Shutdown;

use super::*;

const SHARD: ShardId = ShardId(0);

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

/// A leaf with one thread and an empty shard.
async fn leaf() -> (Leaf, Search) {
    let store = Store::memory();
    let schema = Schema { fields: [("body".into(), Field::of(FieldType::Text))].into(), ..Schema::default() };
    let definition = Definition { shards: 1, ..Definition::of(schema) };
    let name = IndexName::new("papers").unwrap();
    let uid = store.create_index(&name, &definition, soon().instant()).await.unwrap();
    let parts = Parts { node: NodeId("one".into()), store, scope: TaskScope::new(&Shutdown::new()) };
    let leaf = Leaf::new(parts, Settings { threads: 1, ..Settings::default() }).unwrap();
    let definition = (DefinitionNumber(1), Arc::new(definition));
    leaf.assign(&Assignment { uid: uid.clone(), shard: SHARD, definition }).await.unwrap();
    let generation = leaf.newest(&uid, SHARD).unwrap();
    let search = Search {
        uid,
        shards: vec![ShardAt { shard: SHARD, generation }],
        query: Arc::new(Node::All { boost: 1.0 }),
        filter: None,
        statistics: StatisticsFrom::TheseShards,
        limit: 10,
        count: Count::Exact,
        inline_from: None,
        deadline: soon(),
        profile: false,
    };
    (leaf, search)
}

/// Keeps the thread busy until the sender is dropped.
async fn blocked(leaf: &Leaf) -> (impl Future<Output = Result<(), Error>>, mpsc::Sender<()>) {
    let (release, wait) = mpsc::channel::<()>();
    let (started, running) = tokio::sync::oneshot::channel();
    let (leaf, deadline) = (leaf.clone(), soon());
    let mut job = Box::pin(async move {
        let work = move |_: &runtime::Cancel| {
            started.send(()).unwrap();
            let _released = wait.recv();
            Ok(())
        };
        leaf.compute(Priority::Search, deadline, work).await
    });
    assert!((&mut job).now_or_never().is_none());
    running.await.unwrap();
    (job, release)
}

#[tokio::test]
async fn a_search_says_how_busy_the_leaf_is() {
    let (leaf, search) = leaf().await;
    let Found { load, .. } = leaf.search(search.clone()).await.unwrap();
    assert!(
        load.is_some_and(|load| (load.running, load.queued) == (0, 0) && load.service_us > 0),
        "{load:?}"
    );
}

#[tokio::test]
async fn documents_are_fetched_before_others_search() {
    let (leaf, search) = leaf().await;
    let (job, release) = blocked(&leaf).await;
    let at = search.shards[0];
    let (uid, deadline) = (search.uid.clone(), soon());
    let searching = leaf.search(search).map(|found| found.map(|_| "search").unwrap());
    let getting = leaf.get(&uid, at, "a", deadline).map(|found| found.map(|_| "get").unwrap());
    // The search is there first; what is ready first comes out first.
    let mut both: FuturesUnordered<_> = [searching.boxed(), getting.boxed()].into_iter().collect();
    assert!(both.next().now_or_never().is_none());
    drop(release);
    let order: Vec<_> = both.collect().await;
    assert!(job.await.is_ok());
    assert_eq!(order, ["get", "search"]);
}

#[tokio::test]
async fn too_many_searches_are_refused_at_once_and_fetches_are_not() {
    let (leaf, search) = leaf().await;
    let (job, release) = blocked(&leaf).await;
    let mut searching: Vec<_> = (0..64).map(|_| leaf.search(search.clone())).collect();
    assert!(searching.iter_mut().all(|searching| searching.now_or_never().is_none()));
    let refused = leaf.search(search.clone()).now_or_never().unwrap().unwrap_err();
    assert_eq!(refused.kind, Kind::Overloaded);
    assert!(refused.retry_after.is_some());
    let mut getting = leaf.get(&search.uid, search.shards[0], "a", soon());
    assert!((&mut getting).now_or_never().is_none(), "it waits");
    drop(release);
    job.await.unwrap();
    assert!(join_all(searching).await.iter().all(Result::is_ok));
    assert!(getting.await.is_ok());
    assert!(leaf.search(search).await.is_ok());
}

#[tokio::test]
async fn a_search_that_cannot_be_done_in_time_is_told_so_at_once() {
    let (leaf, search) = leaf().await;
    // What it is taught to take.
    let slow = |_: &runtime::Cancel| {
        std::thread::sleep(Duration::from_millis(100));
        Ok(())
    };
    leaf.compute(Priority::Search, soon(), slow).await.unwrap();
    let (job, release) = blocked(&leaf).await;
    let mut waiting: Vec<_> = (0..10).map(|_| leaf.search(search.clone())).collect();
    assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
    let deadline = Deadline::after(Duration::from_millis(500));
    let late = leaf.search(Search { deadline, ..search.clone() }).now_or_never().unwrap().unwrap_err();
    assert_eq!(late.kind, Kind::Expired);
    let patient = leaf.search(Search { deadline: soon(), ..search }).now_or_never();
    assert!(patient.is_none());
    drop((waiting, release));
    job.await.unwrap();
}

#[tokio::test]
async fn what_is_lacking_is_named_once() {
    let (leaf, search) = leaf().await;
    let at = ShardAt { generation: Generation(7), ..search.shards[0] };
    let elsewhere = ShardAt { shard: ShardId(1), ..at };
    let address = Address { segment: 0, doc: 0 };
    let documents = [at, elsewhere].repeat(1_000).into_iter().map(|at| (at, address)).collect();
    let fetched = leaf.fetch(Fetch { uid: search.uid, documents, deadline: soon() }).await;
    let lacking = fetched.unwrap_err();
    assert_eq!(lacking.kind, Kind::Gone);
    assert_eq!(lacking.newest.len(), 2, "{lacking:?}");
}
