//! Answers are exact while calls are late, refused and lost at random, so that
//! hedges, retries and cancels race.
//!
//! ```text
//!  query ─► root ─► faulty way ─► leaf (the real one)
//!    └────► oracle over the documents that the answer says it covers
//! ```
//!
//! `WINDROW_TEST_QUERIES` sets how many queries, `WINDROW_TEST_SEED` which
//! faults are drawn. How calls race is not repeated by a seed.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use model::gather::{Count, Relation};
use model::ids::{IndexName, IndexUid, Seq, ShardId, shard_of};
use model::plan;
use model::query::Query;
use model::schema::Schema;
use model::settings::Definition;
use model::statistics::Statistics;
use proto::admin::{Admin, Change};
use proto::controller::Held;
use proto::leaf::{Fetch, Found, Leaf, Load, Search, ShardAt, ShardWrite, StatisticsRequest};
use proto::search::{Answer, Document, Request, Search as _};
use proto::{Error, Kind};
use root::{Root, Tally};
use runtime::{Deadline, Random};
use testkit::generate::Generator;
use testkit::local::{Local, Transport, soon};
use testkit::oracle::{Expected, Oracle};
use tokio::task::JoinSet;

const INDEX: &str = "faulted";
/// Queries by default: some ten seconds.
const QUERIES: usize = 6_000;
/// Queries at one time.
const AT_ONCE: usize = 16;
/// Queries of one root; the next begins with nothing known, so that
/// statistics are asked for again.
const ROUND: usize = 500;
/// Different queries.
const DIFFERENT: usize = 400;
const DOCUMENTS: usize = 300;
/// Shards, leaves and copies: where several leaves are asked, with one and
/// with two others for each shard, and where any leaf can answer alone.
const LAYOUTS: [(u32, usize, usize); 3] = [(6, 5, 2), (5, 4, 3), (3, 3, 3)];
/// Share of the queries with this little time, and how little.
const HURRIED: f64 = 0.02;
const HURRY: Duration = Duration::from_millis(15);

/// A number from the environment: tests have no settings file.
fn number(name: &str) -> Option<usize> {
    let (_, text) = std::env::vars().find(|(set, _)| set == name)?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// Counts by name.
#[derive(Default)]
struct Counts(Mutex<BTreeMap<String, u64>>);

impl Counts {
    fn add(&self, name: &str) {
        *self.0.lock().unwrap().entry(name.to_owned()).or_default() += 1;
    }
    fn get(&self, name: &str) -> u64 {
        self.0.lock().unwrap().get(name).copied().unwrap_or(0)
    }
}

/// The way to one leaf.
struct Faulty {
    leaf: leaf::Leaf,
    /// `None` where it is away.
    random: Option<Random>,
    counts: Arc<Counts>,
}

/// What goes wrong with a call; each of these happens to one in so many.
enum Fault {
    None,
    /// Before the work, or after.
    Late(Duration, bool),
    Refused(Kind),
    /// The connection breaks, before the work or after.
    Lost(bool),
}

impl Faulty {
    fn draw(&self) -> Fault {
        let Some(random) = &self.random else { return Fault::Refused(Kind::Unavailable) };
        let after = random.below(2) == 1;
        match random.below(1_000) {
            0..150 => Fault::Late(Duration::from_millis(1 + random.below(5)), after),
            150..160 => Fault::Late(Duration::from_millis(50), after),
            160..185 => Fault::Refused(Kind::Unavailable),
            185..210 => Fault::Refused(Kind::Overloaded),
            210..230 => Fault::Lost(after),
            _ => Fault::None,
        }
    }

    async fn call<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let lost = || Error { cut_off: true, ..Error::unavailable("the connection broke: retry") };
        let fault = self.draw();
        self.counts.add(match fault {
            Fault::None => "no fault",
            Fault::Late(..) => "late",
            Fault::Refused(_) => "refused",
            Fault::Lost(false) => "lost before",
            Fault::Lost(true) => "lost after",
        });
        match fault {
            Fault::None => work.await,
            Fault::Late(time, after) => {
                if !after {
                    tokio::time::sleep(time).await;
                }
                let answer = work.await;
                if after {
                    tokio::time::sleep(time).await;
                }
                answer
            }
            Fault::Refused(kind) => Err(Error::new(kind, "this leaf does not want to: retry")),
            Fault::Lost(false) => Err(lost()),
            Fault::Lost(true) => work.await.and(Err(lost())),
        }
    }
}

#[async_trait]
impl Leaf for Faulty {
    async fn write(&self, write: ShardWrite) -> Result<Seq, Error> {
        Leaf::write(&self.leaf, write).await
    }
    async fn nudge(&self, uid: &IndexUid, shard: ShardId) -> Result<(), Error> {
        Leaf::nudge(&self.leaf, uid, shard).await
    }
    async fn follow(&self, uid: &IndexUid, at: ShardAt, deadline: Deadline) -> Result<(), Error> {
        Leaf::follow(&self.leaf, uid, at, deadline).await
    }
    async fn statistics(&self, request: StatisticsRequest) -> Result<Vec<Statistics>, Error> {
        self.call(Leaf::statistics(&self.leaf, request)).await
    }
    async fn search(&self, search: Search) -> Result<Found, Error> {
        self.call(Leaf::search(&self.leaf, search)).await
    }
    async fn fetch(&self, fetch: Fetch) -> Result<Vec<Document>, Error> {
        self.call(Leaf::fetch(&self.leaf, fetch)).await
    }
    async fn get(
        &self,
        uid: &IndexUid,
        at: ShardAt,
        id: &str,
        deadline: Deadline,
    ) -> Result<Option<Document>, Error> {
        self.call(Leaf::get(&self.leaf, uid, at, id, deadline)).await
    }
    async fn held(&self) -> Result<Vec<Held>, Error> {
        Leaf::held(&self.leaf).await
    }
    async fn ping(&self, deadline: Deadline) -> Result<Load, Error> {
        self.call(Leaf::ping(&self.leaf, deadline)).await
    }
}

/// Everything that is late is asked of another at once, and nearly everything
/// is late.
fn eager() -> root::Settings {
    let usual = root::Settings::default();
    root::Settings {
        hedge: model::hedge::Settings {
            budget: 1.0,
            burst: 1_000.0,
            ordinary: 1.0,
            quantile: 0.3,
            last: 1.0,
            others: 0.5,
            slow: 2.0,
            ..usual.hedge
        },
        // A leaf that failed is asked again within this test.
        doubted_for: Duration::from_millis(20),
        slow_query: Duration::ZERO,
        ..usual
    }
}

struct Asked {
    query: Query,
    filter: Option<Query>,
    bound: (plan::Node, Option<plan::Node>),
    /// All hits of the whole index.
    whole: Vec<Expected>,
}

/// For all of the index, without hurry.
fn request(asked: &Asked) -> Request {
    let usual = Request::new(IndexName::new(INDEX).unwrap(), asked.query.clone(), soon());
    Request { filter: asked.filter.clone(), count: Count::Exact, ..usual }
}

/// One layout, and what is expected of it.
struct World {
    schema: Schema,
    live: BTreeMap<String, String>,
    shards: u32,
    queries: Vec<Asked>,
    /// By the shards that are missing.
    oracles: Mutex<BTreeMap<BTreeSet<ShardId>, Arc<Oracle>>>,
    differences: Mutex<Vec<String>>,
    counts: Arc<Counts>,
}

impl World {
    fn oracle(&self, missing: &BTreeSet<ShardId>) -> Arc<Oracle> {
        let mut oracles = self.oracles.lock().unwrap();
        let made = oracles.entry(missing.clone()).or_insert_with(|| {
            let covered = self.live.iter().filter(|(id, _)| !missing.contains(&shard_of(id, self.shards)));
            Arc::new(Oracle::new(&self.schema, covered.map(|(_, source)| source.as_str())).unwrap())
        });
        made.clone()
    }

    /// How an answer differs from what an index of the covered shards answers.
    fn differs(&self, asked: &Asked, request: &Request, answer: &Answer) -> Option<String> {
        let missing: BTreeSet<ShardId> = answer.coverage.missing.iter().map(|lost| lost.shard).collect();
        if missing.len() != answer.coverage.missing.len() {
            return Some(format!("a shard is missing twice: {:?}", answer.coverage));
        }
        let partial;
        let all = if missing.is_empty() {
            &asked.whole
        } else {
            let oracle = self.oracle(&missing);
            let (query, filter) = &asked.bound;
            partial = oracle.search(query, filter.as_ref()).unwrap();
            let covered = oracle.documents() as f64 / self.live.len() as f64;
            if answer.coverage.documents != covered || covered < request.min_coverage.unwrap_or(1.0) {
                return Some(format!("{covered} is covered, {:?} is said", answer.coverage));
            }
            &partial
        };
        let answered = self.shards as usize - missing.len();
        if (answer.coverage.shards, answer.coverage.answered as usize) != (self.shards, answered) {
            return Some(format!("coverage {:?}", answer.coverage));
        }
        let found: Vec<Expected> = answer
            .hits
            .iter()
            .map(|hit| Expected { id: hit.document.id.clone(), score: hit.score.to_bits() })
            .collect();
        let expected: Vec<Expected> = all.iter().skip(request.offset).take(request.limit).cloned().collect();
        if found != expected {
            return Some(format!("hits\n  found    {found:?}\n  expected {expected:?}"));
        }
        if request.fields.is_none() {
            let wrong = answer.hits.iter().find(|hit| {
                self.live.get(&hit.document.id).map(String::as_bytes) != Some(&hit.document.source[..])
            });
            if let Some(hit) = wrong {
                return Some(format!("the source of {}: {:?}", hit.document.id, hit.document.source));
            }
        }
        let matches = all.len() as u64;
        let total = answer.total.map(|total| (total.value, total.relation));
        let expected = match request.count {
            Count::None => None,
            Count::Bounded(bound) if matches > bound => Some((bound, Relation::Gte)),
            _ => Some((matches, Relation::Eq)),
        };
        (total != expected).then(|| format!("total: found {total:?}, expected {expected:?}"))
    }

    fn differ(&self, what: String) {
        self.counts.add("differences");
        self.differences.lock().unwrap().push(what);
    }

    /// An error is allowed where it tells the caller to ask again.
    fn failed(&self, error: &Error, hurried: bool) {
        match error.kind {
            Kind::Expired if hurried => self.counts.add("expired in a hurry"),
            _ if hurried => self.counts.add("failed in a hurry"),
            _ => {
                // Without the shards, which are named before or after.
                let what = error.message.rsplit(": ").nth(1).unwrap_or(&error.message);
                let what = what.split(" (").next().unwrap_or_default();
                self.counts.add(&format!("failed: {what}"));
            }
        }
        let sensible = error.retryable() && (hurried || error.kind != Kind::Expired);
        if !sensible || error.message.is_empty() {
            self.differ(format!("failed: {error:?}"));
        } else if !hurried {
            self.counts.add("failed");
        }
    }

    async fn search(&self, root: &Root, random: &Random) {
        let place = random.below(self.queries.len() as u64) as usize;
        let asked = &self.queries[place];
        let hurried = random.unit() < HURRIED;
        let some = |of: &[usize]| of[random.below(of.len() as u64) as usize];
        let request = Request {
            limit: some(&[0, 1, 10, 25]),
            offset: some(&[0, 0, 2, 9]),
            fields: (random.below(4) > 0).then(Vec::new),
            count: [Count::None, Count::Exact, Count::Bounded(20)][some(&[0, 1, 2])],
            deadline: if hurried { Deadline::after(HURRY) } else { soon() },
            min_coverage: (random.below(4) == 0).then_some(0.5),
            profile: random.below(8) == 0,
            ..request(asked)
        };
        match root.search(request.clone()).await {
            Ok(answer) => {
                self.counts.add("answered");
                let reasons = answer.coverage.missing.iter().map(|missing| &missing.reason);
                reasons.for_each(|reason| self.counts.add(&format!("missing: {reason}")));
                if !answer.coverage.missing.is_empty() {
                    self.counts.add("partial");
                }
                if let Some(difference) = self.differs(asked, &request, &answer) {
                    let (page, missing) = ((request.limit, request.offset, request.count), answer.coverage);
                    self.differ(format!(
                        "page {page:?}, min_coverage {:?}, {missing:?}\nquery {}\nfilter {:?}\n{difference}",
                        request.min_coverage, asked.query, asked.filter
                    ));
                }
            }
            Err(error) => self.failed(&error, hurried),
        }
    }

    async fn get(&self, root: &Root, random: &Random) {
        let id = format!("doc-{}", random.below(DOCUMENTS as u64));
        match root.get(&IndexName::new(INDEX).unwrap(), &id, None, soon()).await {
            Ok(found) => {
                self.counts.add("answered");
                let found = found.map(|document| String::from_utf8(document.source.to_vec()).unwrap());
                if found.as_ref() != self.live.get(&id) {
                    self.differ(format!("document {id}: {found:?}"));
                }
            }
            Err(error) => self.failed(&error, false),
        }
    }
}

/// Builds a layout over the corpus of a seed.
async fn build(
    seed: u64,
    (shards, leaves, copies): (u32, usize, usize),
    counts: &Arc<Counts>,
) -> anyhow::Result<(Local, Arc<World>)> {
    let mut generator = Generator::new(seed);
    let schema = generator.schema();
    let local = Local::start(store::Store::memory(), leaves, Transport::Direct).await?;
    let definition = Definition { shards, refresh_interval_ms: 3_600_000, ..Definition::of(schema.clone()) };
    local.create(INDEX, definition).await?;
    let mut live = BTreeMap::new();
    // In several rounds, so that there are several segments, and deletions.
    for _ in 0..3 {
        let mut changes = Vec::new();
        for _ in 0..DOCUMENTS {
            let id = format!("doc-{}", generator.below(DOCUMENTS));
            if generator.below(5) == 0 {
                live.remove(&id);
                changes.push(Change::Delete(id));
            } else {
                let source = generator.document(&id);
                changes.push(Change::Upsert(source.clone().into()));
                live.insert(id, source);
            }
        }
        let written = local.write(INDEX, changes).await?;
        local.refresh(INDEX, &written).await?;
    }
    local.spread(INDEX, copies).await?;
    let oracle = Oracle::new(&schema, live.values().map(String::as_str))?;
    let mut queries = Vec::new();
    for number in 0..DIFFERENT {
        let query = generator.query(3).canonical();
        let filter = (number % 4 == 0).then(|| generator.query(1).canonical());
        let bound = plan::bind(&query, &schema)?;
        let allowed = filter.as_ref().map(|filter| plan::bind_filter(filter, &schema)).transpose()?;
        let whole = oracle.search(&bound, allowed.as_ref())?;
        queries.push(Asked { query, filter, bound: (bound, allowed), whole });
    }
    let world = World {
        schema,
        live,
        shards,
        queries,
        oracles: Mutex::default(),
        differences: Mutex::default(),
        counts: counts.clone(),
    };
    Ok((local, Arc::new(world)))
}

/// Asks so many queries of one root, many at once; what it did.
async fn round(local: &Local, world: &Arc<World>, queries: usize, seed: u64) -> Tally {
    let faults = Random::seeded(seed);
    let root = local.another_root(eager(), |leaf| {
        let counts = world.counts.clone();
        Arc::new(Faulty { leaf: leaf.clone(), random: Some(faults.clone()), counts })
    });
    let next = Arc::new(AtomicUsize::new(0));
    let mut askers = JoinSet::new();
    for asker in 0..AT_ONCE {
        let (world, root, next) = (world.clone(), root.clone(), next.clone());
        let random = Random::seeded(seed ^ (asker as u64 + 1) << 32);
        askers.spawn(async move {
            while next.fetch_add(1, Ordering::Relaxed) < queries {
                match random.below(20) {
                    0 => world.get(&root, &random).await,
                    _ => world.search(&root, &random).await,
                }
            }
        });
    }
    while let Some(ended) = askers.join_next().await {
        ended.unwrap();
    }
    root.tally()
}

/// Found with the test below: the shards that were left out before one leaf
/// was asked for all others were said to be covered.
#[tokio::test]
async fn a_shard_that_is_left_out_is_named_where_one_leaf_has_all_others() -> anyhow::Result<()> {
    let counts = Arc::new(Counts::default());
    let (local, world) = build(1, (3, 2, 1), &counts).await?;
    // Leaf 1 has shard 1, leaf 0 the others.
    let away = local.leaves[1].node().clone();
    let root = local.another_root(root::Settings::default(), |leaf| -> Arc<dyn Leaf> {
        if *leaf.node() == away {
            Arc::new(Faulty { leaf: leaf.clone(), random: None, counts: counts.clone() })
        } else {
            Arc::new(leaf.clone())
        }
    });
    // At first it is asked, later it is known to be away.
    for asked in world.queries.iter().take(20) {
        let request = Request { min_coverage: Some(0.5), ..request(asked) };
        let answer = root.search(request.clone()).await?;
        let missing: Vec<(u32, &str)> =
            answer.coverage.missing.iter().map(|lost| (lost.shard.0, lost.reason.as_str())).collect();
        assert_eq!(missing, [(1, "dead")]);
        assert_eq!(world.differs(asked, &request, &answer), None);
    }
    assert_eq!(root.search(request(&world.queries[0])).await.unwrap_err().kind, Kind::Unavailable);
    local.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn answers_are_exact_whatever_is_late_refused_or_lost() -> anyhow::Result<()> {
    let queries = number("WINDROW_TEST_QUERIES").unwrap_or(QUERIES);
    let seed = number("WINDROW_TEST_SEED").unwrap_or(1) as u64;
    let counts = Arc::new(Counts::default());
    let sum: [AtomicU64; 5] = std::array::from_fn(|_| AtomicU64::new(0));
    for (number, layout) in (0..).zip(LAYOUTS) {
        let (local, world) = build(seed + number, layout, &counts).await?;
        let mut left = queries.div_ceil(LAYOUTS.len());
        while left > 0 {
            let many = left.min(ROUND);
            let tally = round(&local, &world, many, seed << 32 | number << 24 | left as u64).await;
            let parts = [tally.calls, tally.hedges, tally.hedges_won, tally.retries, tally.cancelled];
            sum.iter().zip(parts).for_each(|(sum, part)| _ = sum.fetch_add(part, Ordering::Relaxed));
            left -= many;
        }
        let differences = std::mem::take(&mut *world.differences.lock().unwrap());
        assert!(
            differences.is_empty(),
            "seed {seed}, (shards, leaves, copies) {layout:?}: {} differences, the first of them:\n{}",
            differences.len(),
            differences.iter().take(3).cloned().collect::<Vec<_>>().join("\n\n")
        );
        local.close().await?;
    }
    let [calls, hedges, won, retries, cancelled] = sum.map(|sum| sum.load(Ordering::Relaxed));
    println!(
        "{queries} queries: {calls} calls, {hedges} hedges, {won} won, {retries} retries, {cancelled} cancelled\n{:#?}",
        counts.0.lock().unwrap()
    );
    let of = |share: f64| (queries as f64 * share) as u64;
    assert!(hedges > of(0.2) && won > of(0.02), "{hedges} hedges, {won} won");
    assert!(retries > of(0.05) && cancelled > of(0.1), "{retries} retries, {cancelled} cancelled");
    for fault in ["late", "refused", "lost before", "lost after", "partial"] {
        assert!(counts.get(fault) > of(0.001), "{fault} is too rare: {}", counts.get(fault));
    }
    assert!(counts.get("failed") < of(0.02), "{} failed", counts.get("failed"));
    Ok(())
}
