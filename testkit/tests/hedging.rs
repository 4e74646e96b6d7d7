//! Which leaves a root asks, and when, of leaves that do as they are told: they
//! take some time and then answer, fail or die. Time is paused.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cluster::{Directory, Index, Placement, Registry, View};
use futures::StreamExt;
use model::gather::Count;
use model::ids::{IndexName, IndexUid, NodeId, Seq, ShardId};
use model::schema::{Field, FieldType, Schema};
use model::settings::Definition;
use model::statistics::Statistics;
use proto::admin::{NodeState, SERVE};
use proto::controller::Held;
use proto::leaf::{Fetch, Found, Leaf, Load, Search, ShardAt, ShardWrite, StatisticsRequest};
use proto::search::{Answer, Document, Request, Search as _};
use proto::{Error, Kind};
use root::{Root, Tally};
use runtime::{CancellationToken, Deadline, Random, Shutdown, TaskScope};
use store::Store;
use testkit::local::soon;
use tokio::sync::watch;
use tokio::time::Instant;

const INDEX: &str = "staged";

/// What a leaf does with a call.
struct Play {
    after: Duration,
    fails: Option<Error>,
}

fn answers(milliseconds: u64) -> Play {
    Play { after: Duration::from_millis(milliseconds), fails: None }
}

fn fails(milliseconds: u64, error: Error) -> Play {
    Play { fails: Some(error), ..answers(milliseconds) }
}

fn dies() -> Play {
    fails(1, Error { cut_off: true, ..Error::unavailable("the connection broke: retry") })
}

/// A call as it was received.
#[derive(Clone, Debug)]
struct Call {
    leaf: usize,
    shards: Vec<ShardId>,
    sent: Instant,
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
        // As one that does not answer.
        tokio::time::sleep(Duration::from_secs(2)).await;
        Err(unasked())
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
struct Stage {
    root: Root,
    calls: Arc<Mutex<Vec<Call>>>,
    view: watch::Sender<Arc<View>>,
}

impl Stage {
    /// An index whose shards are held by these leaves, all on one host.
    async fn of(
        serve: &[&[usize]],
        settings: root::Settings,
        part: impl Fn(usize, &Search) -> Play + Send + Sync + 'static,
    ) -> Self {
        Self::on(|_| 0, serve, settings, part).await
    }

    /// The same on hosts of theirs.
    async fn on(
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

    async fn search(&self, query: &str) -> Result<Answer, Error> {
        self.covering(query, None).await
    }

    async fn covering(&self, query: &str, min_coverage: Option<f64>) -> Result<Answer, Error> {
        self.explained(query, min_coverage, false).await
    }

    async fn asked(&self, request: impl FnOnce(Request) -> Request) -> Result<Answer, Error> {
        let limits = model::query::Limits::default();
        let usual = Request {
            index: IndexName::new(INDEX).unwrap(),
            query: model::query::parse("word", &limits).unwrap().canonical(),
            filter: None,
            limit: 10,
            offset: 0,
            fields: None,
            count: Count::None,
            deadline: Deadline::after(Duration::from_secs(10)),
            token: None,
            at: None,
            min_coverage: None,
            profile: false,
        };
        self.root.search(request(usual)).await
    }

    async fn explained(
        &self,
        query: &str,
        min_coverage: Option<f64>,
        profile: bool,
    ) -> Result<Answer, Error> {
        let query = model::query::parse(query, &model::query::Limits::default()).unwrap().canonical();
        self.asked(|usual| Request { query, min_coverage, profile, ..usual }).await
    }

    /// The calls since this was asked last.
    fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

/// Whether the query is one that leaves die of.
fn deadly(search: &Search) -> bool {
    format!("{:?}", search.query).contains("poison")
}

/// Two shards of three copies, each on leaves of its own.
const APART: [&[usize]; 2] = [&[0, 1, 2], &[3, 4, 5]];

#[tokio::test(start_paused = true)]
async fn after_a_leaf_died_of_a_query_the_next_of_its_shape_asks_one_leaf_first() {
    let deaths = Arc::new(AtomicUsize::new(1));
    let left = deaths.clone();
    let stage = Stage::of(&APART, root::Settings::default(), move |_, search| {
        let dying = deadly(search)
            && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if dying { dies() } else { answers(10) }
    })
    .await;
    let alone = |calls: &[Call]| calls.iter().filter(|call| call.sent == calls[0].sent).count() == 1;

    // It dies, and another of its leaves answers.
    stage.search("poison").await.unwrap();
    let calls = stage.calls();
    assert_eq!((calls.len(), alone(&calls)), (3, false), "{calls:?}");
    assert_eq!(stage.root.tally().retries, 1);

    // Another shape knows nothing of it.
    stage.search("harmless").await.unwrap();
    let calls = stage.calls();
    assert_eq!((calls.len(), alone(&calls)), (2, false), "{calls:?}");

    // The same asks one leaf, and the others once that has answered.
    stage.search("poison").await.unwrap();
    let calls = stage.calls();
    assert_eq!((calls.len(), alone(&calls)), (2, true), "{calls:?}");
    assert!(calls[1].sent - calls[0].sent >= Duration::from_millis(10), "{calls:?}");

    // It did no harm, and is as good as any.
    stage.search("poison").await.unwrap();
    let calls = stage.calls();
    assert_eq!((calls.len(), alone(&calls)), (2, false), "{calls:?}");

    // A canary that dies is the only one.
    deaths.store(1, Ordering::Relaxed);
    stage.search("poison").await.unwrap();
    stage.calls();
    deaths.store(usize::MAX, Ordering::Relaxed);
    let error = stage.search("poison").await.unwrap_err();
    assert!(error.kind == Kind::Unavailable && error.cut_off, "{error:?}");
    let calls = stage.calls();
    let asked: BTreeSet<_> = calls.iter().flat_map(|call| &call.shards).collect();
    assert!(calls.len() == 1 && asked.len() == 1, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_query_that_two_leaves_died_of_is_not_given_to_a_third() {
    // One leaf for everything, one of several, and a leaf for each shard.
    for serve in [&[&[0, 1, 2, 3][..]][..], &[&[0, 1, 2, 3], &[4, 5]], &APART] {
        let stage = Stage::of(serve, root::Settings::default(), |_, search| {
            // Only of the first shard, so that it is one leaf after the other.
            let first = search.shards.iter().any(|at| at.shard == ShardId(0));
            if deadly(search) && first { dies() } else { answers(10) }
        })
        .await;
        let error = stage.search("poison").await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        let calls = stage.calls();
        let died = calls.iter().filter(|call| call.shards.contains(&ShardId(0))).count();
        assert_eq!(died, 2, "{serve:?}: {calls:?}");
        // Of the next one, one leaf dies at most: nobody knows whether it was the query.
        stage.search("poison").await.unwrap_err();
        let calls = stage.calls();
        let died = calls.iter().filter(|call| call.shards.contains(&ShardId(0))).count();
        assert!(died <= 1, "{serve:?}: {calls:?}");
        stage.search("harmless").await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_leaf_that_takes_many_searches_with_it_is_one_leaf() {
    let mut again = 0;
    // Of various sizes, so that other leaves are chosen after them.
    for searches in 10..40 {
        let stage = Stage::of(&APART, root::Settings::default(), |leaf, search| {
            if deadly(search) && leaf == 0 { dies() } else { answers(10) }
        })
        .await;
        let many = futures::future::join_all((0..searches).map(|_| stage.search("poison"))).await;
        assert!(many.iter().all(Result::is_ok));
        assert!(stage.calls().iter().filter(|call| call.leaf == 0).count() > 1);
        // Its time is over, and it may be asked again: no reason to fail.
        tokio::time::advance(Duration::from_secs(4)).await;
        stage.search("poison").await.unwrap();
        again += stage.calls().iter().filter(|call| call.leaf == 0).count();
    }
    assert!(again > 0, "it is asked again now and then");
}

#[tokio::test(start_paused = true)]
async fn where_a_canary_dies_no_other_leaf_is_asked_even_if_its_shards_could_be_done_without() {
    for least in [None, Some(0.0)] {
        let stage =
            Stage::of(
                &APART,
                root::Settings::default(),
                |_, search| {
                    if deadly(search) { dies() } else { answers(10) }
                },
            )
            .await;
        // Nobody knows yet: both shards are asked, and after the first death one
        // more leaf.
        let _outcome = stage.covering("poison", least).await;
        let calls = stage.calls();
        assert!(calls.len() <= 3, "{least:?}: {calls:?}");
        let error = stage.covering("poison", least).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        let calls = stage.calls();
        assert_eq!(calls.len(), 1, "{least:?}: {calls:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_fails_harms_nobody() {
    for kind in
        [Kind::Unavailable, Kind::Overloaded, Kind::Gone, Kind::Internal, Kind::Expired, Kind::Invalid]
    {
        for serve in [&[&[0, 1][..]][..], &[&[0, 1], &[2, 3]]] {
            // The first that is asked for a shard is late, and any other fails.
            let first = Mutex::new(BTreeSet::new());
            let stage = Stage::of(serve, root::Settings::default(), move |_, search| {
                let shard = search.shards[0].shard;
                if first.lock().unwrap().insert(shard) {
                    return answers(200);
                }
                fails(1, Error { cut_off: kind == Kind::Unavailable, ..Error::new(kind, "no") })
            })
            .await;
            let answer = stage.search("hay").await;
            assert!(answer.is_ok(), "{kind:?}, {serve:?}: {answer:?}");
            let tally = stage.root.tally();
            assert!(tally.hedges > 0 && tally.hedges_won == 0, "{kind:?}, {serve:?}: {tally:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_leaf_is_asked_twice_for_one_shard() {
    let (mut hedges, mut retries) = (0, 0);
    for seed in 0..200 {
        let random = Random::seeded(seed);
        let eager = model::hedge::Settings { hedges_max: 5, burst: 1_000.0, ..Default::default() };
        let settings = root::Settings { hedge: eager, ..root::Settings::default() };
        let part = move |_: usize, _: &Search| match random.below(4) {
            0 => fails(random.below(300), Error::unavailable("no")),
            _ => answers(random.below(1_500)),
        };
        let stage = Stage::of(&[&[0, 1, 2, 3], &[4, 5, 6, 7], &[7, 8, 9, 4]], settings, part).await;
        // Answered or not: with bad luck all fail.
        let _answer = stage.search("hay").await;
        let mut asked = BTreeSet::new();
        for Call { leaf, shards, .. } in stage.calls() {
            for shard in shards {
                assert!(asked.insert((leaf, shard)), "seed {seed}: leaf {leaf} is asked twice for {shard}");
            }
        }
        let tally = stage.root.tally();
        (hedges, retries) = (hedges + tally.hedges, retries + tally.retries);
    }
    assert!(hedges > 200 && retries > 100, "{hedges} hedges, {retries} retries");
}

/// What a root did in searches while all is well, while every leaf becomes ten
/// times as slow at once, and after that.
async fn all_slow(shards: usize, hedge: model::hedge::Settings, at_once: usize) -> [Tally; 3] {
    let (random, factor) = (Random::seeded(3), Arc::new(AtomicUsize::new(1)));
    let slow = factor.clone();
    let settings = root::Settings { hedge, ..root::Settings::default() };
    let leaves: Vec<usize> = (0..2 * shards).collect();
    let serve: Vec<&[usize]> = leaves.chunks(2).collect();
    let stage = Stage::of(&serve, settings, move |_, _| {
        answers((10 + random.below(10)) * slow.load(Ordering::Relaxed) as u64)
    })
    .await;
    let mut tallies = Vec::new();
    let mut before = Tally::default();
    for (times, count) in [(1, 1_000), (10, 100), (10, 1_000)] {
        factor.store(times, Ordering::Relaxed);
        let all = futures::stream::iter(0..count).map(|_| stage.search("hay"));
        all.buffer_unordered(at_once).for_each(async |answer| drop(answer.unwrap())).await;
        let after = stage.root.tally();
        tallies.push(Tally {
            calls: after.calls - before.calls,
            hedges: after.hedges - before.hedges,
            hedges_won: after.hedges_won - before.hedges_won,
            withheld_budget: after.withheld_budget - before.withheld_budget,
            withheld_slow: after.withheld_slow - before.withheld_slow,
            ..Tally::default()
        });
        before = after;
    }
    tallies.try_into().unwrap()
}

#[tokio::test(start_paused = true)]
async fn where_everything_is_slow_at_once_nearly_nothing_is_hedged() {
    let usual = model::hedge::Settings::default();
    for (shards, at_once) in [(8, 1), (8, 16), (30, 1), (30, 16)] {
        let [calm, first, then] = all_slow(shards, usual, at_once).await;
        println!("{shards} shards, {at_once} at once:\n{calm:?}\n{first:?}\n{then:?}");
        // Seen: 0.3 %, 3 % and 0.4 % at most.
        assert!(calm.hedges * 100 < calm.calls, "{calm:?}");
        assert!(first.hedges * 20 < first.calls, "{first:?}");
        assert!(then.hedges * 100 < then.calls, "{then:?}");
    }
    // Of a few leaves one cannot tell so soon; the burst is the bound.
    let [_, first, _] = all_slow(2, usual, 16).await;
    let most = usual.burst + usual.budget * first.calls as f64;
    assert!(first.hedges as f64 <= most, "{first:?}");
    // It is not for want of budget: without the brake it is four times as much.
    let rich = model::hedge::Settings { budget: 1.0, burst: 1e6, ..usual };
    let [_, braked, _] = all_slow(30, rich, 1).await;
    let [_, free, _] = all_slow(30, model::hedge::Settings { slow: 2.0, ..rich }, 1).await;
    assert!(braked.hedges * 2 < free.hedges && braked.withheld_slow > 0, "{braked:?}, {free:?}");
}

/// What an answer lacks, and why.
fn missing(answer: &Answer) -> Vec<(u32, &str)> {
    answer.coverage.missing.iter().map(|missing| (missing.shard.0, missing.reason.as_str())).collect()
}

fn gone() -> Error {
    Error::gone("the generation is no longer here")
}

/// Two shards of one copy, each on a leaf of its own. They hold no documents, so
/// that nothing is too little.
const SINGLE: [&[usize]; 2] = [&[0], &[1]];

#[tokio::test(start_paused = true)]
async fn a_generation_that_is_gone_is_looked_for_anew_before_it_is_done_without() {
    for (times, expected) in [(1, &[][..]), (usize::MAX, &[(1, "lagging")])] {
        let left = AtomicUsize::new(times);
        let stage = Stage::of(&SINGLE, root::Settings::default(), move |leaf, _| {
            let lacks = leaf == 1
                && left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                    .is_ok();
            if lacks { fails(1, gone()) } else { answers(5) }
        })
        .await;
        let answer = stage.covering("word", Some(0.5)).await.unwrap();
        assert_eq!(missing(&answer), expected, "{times}");
    }
    // One that may lack nothing waits for it as long as that makes sense.
    let stage = Stage::of(&SINGLE, root::Settings::default(), |_, _| fails(1, gone())).await;
    let error = stage.search("word").await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_a_shard_is_missing_for_is_said_as_long_as_it_is_missing() {
    let busy = Error::overloaded("too many").retry_after(Duration::from_millis(100));
    for (error, reason) in [(busy, "refused"), (Error::unavailable("no such address"), "dead")] {
        let stage = Stage::of(&SINGLE, root::Settings::default(), move |leaf, _| {
            if leaf == 1 { fails(1, error.clone()) } else { answers(5) }
        })
        .await;
        // The second search does not even ask the leaf.
        for asked in [true, false] {
            let answer = stage.covering("word", Some(0.5)).await.unwrap();
            assert_eq!(missing(&answer), [(1, reason)]);
            assert_eq!(stage.calls().iter().any(|call| call.leaf == 1), asked, "{reason}");
        }
        // It is asked again when it said, not when a dead one would be.
        tokio::time::advance(Duration::from_millis(200)).await;
        stage.covering("word", Some(0.5)).await.unwrap();
        assert_eq!(stage.calls().iter().any(|call| call.leaf == 1), reason == "refused");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leaf_that_is_late_with_one_search_is_asked_by_others() {
    let stage = Stage::of(&SINGLE, root::Settings::default(), |leaf, search| {
        let long = leaf == 1 && format!("{:?}", search.query).contains("long");
        answers(if long { 400 } else { 5 })
    })
    .await;
    for _ in 0..20 {
        stage.search("word").await.unwrap();
    }
    let late = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stage.covering("word", Some(0.5)).await.unwrap()
    };
    let (long, answer) = futures::future::join(stage.search("long"), late).await;
    long.unwrap();
    assert!(answer.coverage.missing.is_empty(), "{:?}", missing(&answer));
}

#[tokio::test(start_paused = true)]
async fn a_leaf_that_is_long_with_one_search_is_not_dead_for_others() {
    let stage = Stage::of(&SINGLE, root::Settings::default(), |leaf, search| {
        let long = leaf == 1 && format!("{:?}", search.query).contains("long");
        answers(if long { 8_000 } else { 5 })
    })
    .await;
    let others = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let answer = stage.covering("word", Some(0.5)).await.unwrap();
            assert!(answer.coverage.missing.is_empty(), "{:?}", missing(&answer));
        }
    };
    let (long, ()) = futures::future::join(stage.search("long"), others).await;
    long.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_leaf_that_lacks_one_shard_answers_for_the_others() {
    // Leaf 0 holds two of the three shards, and one of them only later.
    let serve: [&[usize]; 3] = [&[0], &[0], &[1]];
    let stage = Stage::of(&serve, root::Settings::default(), |_, search| {
        if search.shards.iter().any(|at| at.shard == ShardId(0)) {
            let mut lacks = gone();
            lacks.newest.push((ShardId(0), model::ids::Generation(0)));
            return fails(1, lacks);
        }
        answers(5)
    })
    .await;
    let answer = stage.covering("word", Some(0.0)).await.unwrap();
    assert_eq!(missing(&answer), [(0, "lagging")]);
}

#[tokio::test(start_paused = true)]
async fn a_search_whose_generation_is_gone_is_not_begun_anew_without_pause() {
    let stage = Stage::of(&SINGLE, root::Settings::default(), |_, _| fails(1, gone())).await;
    // Something else changes all the time.
    let changes = async {
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            stage.view.send_modify(|view| Arc::make_mut(view).pending += 1);
        }
    };
    tokio::select! {
        answer = stage.search("word") => assert_eq!(answer.unwrap_err().kind, Kind::Unavailable),
        () = changes => {}
    }
    let calls = stage.calls().len();
    assert!((4..=24).contains(&calls), "{calls} calls in 3 s");
}

#[tokio::test(start_paused = true)]
async fn who_was_asked_for_one_shard_may_be_asked_for_another() {
    // Leaf 1 stands in for leaf 0 with shard 0, and then with shard 1 too, where
    // leaf 2 had that and fails as well. None stands in with all three.
    let serve: [&[usize]; 4] = [&[0, 1, 3], &[0, 1, 2], &[0, 5], &[4]];
    let settings = root::Settings { choice: model::choice::Policy::Random, ..root::Settings::default() };
    let stage = Stage::of(&serve, settings, move |leaf, _| match leaf {
        0 | 2 => fails(1, Error::unavailable("no such address")),
        _ => answers(10),
    })
    .await;
    let mut twice = 0;
    for _ in 0..200 {
        stage.search("word").await.unwrap();
        twice += usize::from(stage.calls().iter().filter(|call| call.leaf == 1).count() > 1);
        // All are as good as any again.
        tokio::time::advance(Duration::from_secs(4)).await;
    }
    assert!(twice > 0, "leaf 1 is asked twice, each time for another shard");
}

#[tokio::test(start_paused = true)]
async fn a_hedge_goes_to_another_host_unless_there_is_only_one() {
    // Leaves 0 and 1 share a host; whoever is asked first takes long.
    let apart = |leaf: usize| leaf / 2;
    for (host, hosts) in [(apart as fn(usize) -> usize, 2), (|_| 0, 1)] {
        let mut neighbours = 0;
        for seed in 0..40 {
            let asked = AtomicUsize::new(0);
            let stage = Stage::on(host, &[&[0, 1, 2]], root::Settings::default(), move |_, _| {
                answers(if asked.fetch_add(1, Ordering::Relaxed) == seed { 400 } else { 5 })
            })
            .await;
            for _ in 0..=seed {
                stage.search("word").await.unwrap();
            }
            let calls = stage.calls();
            // The hedge is the call after the one that took long.
            let [.., first, hedge] = &calls[..] else { continue };
            assert!(calls.len() == seed + 2 && first.leaf != hedge.leaf, "{calls:?}");
            neighbours += usize::from(first.leaf + hedge.leaf == 1);
        }
        assert_eq!(neighbours > 0, hosts == 1, "{neighbours} hedges stayed on the host");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_an_owner_that_does_not_commit_where_a_cut_has_the_write() {
    let serve: Vec<&[usize]> = vec![&[0]; 8];
    let stage = Stage::of(&serve, root::Settings::default(), |_, _| answers(5)).await;
    let name = IndexName::new(INDEX).unwrap();
    let index = stage.view.borrow().indexes[&name].clone();
    let seqs = (0..8).map(|shard| (ShardId(shard), Seq(index.cut.entries[0].seq.0 + 1))).collect();
    let token = model::token::Token { uid: index.uid.clone(), seqs };
    let node = NodeId("leaf-0".into());
    let set = |cut: model::cut::Cut| {
        let index = Index { cut: Arc::new(cut), owners: vec![Some(node.clone()); 8], ..(*index).clone() };
        stage
            .view
            .send_modify(|view| drop(Arc::make_mut(view).indexes.insert(name.clone(), Arc::new(index))));
    };
    set((*index.cut).clone());
    let begun = Instant::now();
    let another = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut cut = (*index.cut).clone();
        cut.entries.iter_mut().for_each(|entry| entry.seq = entry.seq.next());
        set(cut);
    };
    let (answer, ()) =
        futures::future::join(stage.asked(|usual| Request { token: Some(token), ..usual }), another).await;
    answer.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn where_nobody_is_left_to_ask_nothing_is_spent() {
    // A shard of one copy, whose leaf is dead at first, and one of three.
    let dead = Arc::new(AtomicBool::new(true));
    let still = dead.clone();
    let stage = Stage::of(&[&[0], &[1, 2, 3]], root::Settings::default(), move |leaf, _| match leaf {
        0 if still.load(Ordering::Relaxed) => fails(1, Error::unavailable("no such address")),
        1 if !still.load(Ordering::Relaxed) => fails(1, Error::overloaded("too many")),
        _ => answers(5),
    })
    .await;
    for _ in 0..100 {
        stage.search("word").await.unwrap_err();
    }
    assert_eq!(stage.root.tally().retries, 0);
    dead.store(false, Ordering::Relaxed);
    for _ in 0..5 {
        tokio::time::advance(Duration::from_secs(5)).await;
        stage.search("word").await.unwrap();
    }
    assert!(stage.root.tally().retries > 0);
}

#[tokio::test(start_paused = true)]
async fn a_profile_names_every_call_and_what_became_of_it() {
    let stage = Stage::of(&APART, root::Settings::default(), |leaf, _| {
        if leaf < 2 { fails(1, Error::unavailable("no such address")) } else { answers(10) }
    })
    .await;
    for _ in 0..20 {
        let answer = stage.explained("word", None, true).await.unwrap();
        let calls = answer.profile.unwrap().leaves;
        let searches: Vec<_> = calls.iter().filter(|call| call.phase == "search").collect();
        assert_eq!(searches.len(), stage.calls().len());
        let count = |outcome: &str| searches.iter().filter(|call| call.outcome == outcome).count();
        assert_eq!(count("answered"), 2);
        assert_eq!(count("no such address"), searches.len() - 2);
        for call in searches.iter().filter(|call| call.outcome != "answered") {
            assert!(call.node == "leaf-0" || call.node == "leaf-1", "{call:?}");
        }
        assert!(calls.is_sorted_by_key(|call| call.sent_us));
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_budget_nothing_is_hedged() {
    for (budget, some) in [(0.02, true), (0.0, false)] {
        let hedge = model::hedge::Settings { budget, ..model::hedge::Settings::default() };
        let settings = root::Settings { hedge, ..root::Settings::default() };
        let stage =
            Stage::of(&APART, settings, |leaf, _| if leaf == 0 { answers(3_000) } else { answers(10) }).await;
        for _ in 0..20 {
            stage.search("word").await.unwrap();
        }
        assert_eq!(stage.root.tally().hedges > 0, some);
    }
}

#[tokio::test(start_paused = true)]
async fn a_leaf_that_alone_holds_everything_shares_the_work_and_others_stand_in_for_it() {
    let serve: [&[usize]; 3] = [&[0, 1], &[0, 2], &[0, 1]];
    let stage = Stage::of(&serve, root::Settings::default(), |_, _| answers(20)).await;
    futures::future::join_all((0..60).map(|_| stage.search("hay"))).await;
    let mut shards = [0; 3];
    stage.calls().iter().for_each(|call| shards[call.leaf] += call.shards.len());
    assert!(shards.iter().all(|taken| *taken > 20), "{shards:?}");

    // It holds all, and stands still.
    let part = |leaf: usize, _: &Search| answers(if leaf == 0 { 8_000 } else { 20 });
    let begun = Instant::now();
    for seconds in 1..=5 {
        let stage = Stage::of(&serve, root::Settings::default(), part).await;
        stage.search("hay").await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(seconds), "{:?}", begun.elapsed());
    }
}
