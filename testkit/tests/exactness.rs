//! An answer equals a single index's over the same documents: hits, scores to
//! the bit, order and totals, for any number of shards and leaves.

use std::collections::BTreeMap;

use anyhow::Context;
use futures::future::join_all;

use model::gather::{Count, Relation};
use model::ids::IndexName;
use model::plan;
use model::query::Query;
use model::schema::Schema;
use model::settings::Definition;
use proto::admin::{Admin, Change};
use proto::search::{Request, Search};
use testkit::generate::Generator;
use testkit::local::{Local, Transport, soon};
use testkit::oracle::{Expected, Oracle};

/// Corpora and queries a corpus; `WINDROW_EXACT_CORPORA` runs more.
const CORPORA: u64 = 250;
const QUERIES: usize = 40;

/// Shards and leaves of the index of a layout.
const LAYOUTS: [(u32, usize); 4] = [(1, 1), (2, 1), (4, 2), (7, 3)];

fn request(query: &Query, filter: Option<&Query>, limit: usize, offset: usize, count: Count) -> Request {
    let usual = Request::new(IndexName::new("exact").expect("a good name"), query.clone(), soon());
    Request { filter: filter.cloned(), limit, offset, fields: Some(Vec::new()), count, ..usual }
}

/// What a layout answers, or how it differs from the oracle.
async fn differs(
    local: &Local,
    all: &[Expected],
    query: &Query,
    filter: Option<&Query>,
    (limit, offset, count): (usize, usize, Count),
) -> Option<String> {
    let answer = match local.root.search(request(query, filter, limit, offset, count)).await {
        Ok(answer) => answer,
        Err(error) => return Some(format!("failed: {error}")),
    };
    let found: Vec<Expected> = answer
        .hits
        .iter()
        .map(|hit| Expected { id: hit.document.id.clone(), score: hit.score.to_bits() })
        .collect();
    let expected: Vec<Expected> = all.iter().skip(offset).take(limit).cloned().collect();
    if found != expected {
        return Some(format!("hits\n  found    {found:?}\n  expected {expected:?}"));
    }
    let matches = all.len() as u64;
    let total = answer.total.map(|total| (total.value, total.relation));
    let expected = match count {
        Count::None => None,
        Count::Bounded(bound) if matches > bound => Some((bound, Relation::Gte)),
        _ => Some((matches, Relation::Eq)),
    };
    (total != expected).then(|| format!("total: found {total:?}, expected {expected:?}"))
}

/// Smaller queries that may fail in the same way.
fn smaller(query: &Query) -> Vec<Query> {
    match query {
        Query::Group(group) => {
            let mut all = Vec::new();
            let lists = [&group.must, &group.should, &group.plain, &group.not];
            all.extend(lists.iter().flat_map(|list| list.iter().cloned()));
            for (list, clauses) in lists.iter().enumerate() {
                for at in 0..clauses.len() {
                    let mut fewer = group.clone();
                    let target = [&mut fewer.must, &mut fewer.should, &mut fewer.plain, &mut fewer.not];
                    for (number, slot) in target.into_iter().enumerate() {
                        if number == list {
                            slot.remove(at);
                        }
                    }
                    if fewer.must.len() + fewer.should.len() + fewer.plain.len() + fewer.not.len() > 0 {
                        all.push(Query::Group(fewer));
                    }
                }
            }
            all
        }
        Query::Boost { query, .. } => vec![(**query).clone()],
        _ => Vec::new(),
    }
}

struct Corpus {
    schema: Schema,
    live: BTreeMap<String, String>,
    locals: Vec<Local>,
    oracle: Oracle,
}

impl Corpus {
    async fn build(seed: u64, documents: usize, rounds: usize) -> anyhow::Result<Self> {
        let mut generator = Generator::new(seed);
        let schema = generator.schema();
        let mut locals = Vec::new();
        for (shards, leaves) in LAYOUTS {
            // Half the layouts are called as traits, half over sockets.
            let transport = if shards % 2 == 0 { Transport::Tcp } else { Transport::Direct };
            let local = Local::start(store::Store::memory(), leaves, transport).await?;
            let definition =
                Definition { shards, refresh_interval_ms: 3_600_000, ..Definition::of(schema.clone()) };
            local.create("exact", definition).await?;
            locals.push(local);
        }
        let mut live = BTreeMap::new();
        for _ in 0..rounds {
            let mut changes = Vec::new();
            for _ in 0..1 + generator.below(documents / rounds) {
                let id = format!("doc-{}", generator.below(documents));
                if generator.below(5) == 0 {
                    live.remove(&id);
                    changes.push(Change::Delete(id));
                } else {
                    let source = generator.document(&id);
                    changes.push(Change::Upsert(source.clone().into()));
                    live.insert(id, source);
                }
            }
            for local in &locals {
                let written = local.write("exact", changes.clone()).await?;
                local.refresh("exact", &written).await?;
            }
        }
        let oracle = Oracle::new(&schema, live.values().map(String::as_str))?;
        Ok(Self { schema, live, locals, oracle })
    }

    fn expected(&self, query: &Query, filter: Option<&Query>) -> anyhow::Result<Vec<Expected>> {
        let query = plan::bind(query, &self.schema)?;
        let filter = filter.map(|filter| plan::bind_filter(filter, &self.schema)).transpose()?;
        self.oracle.search(&query, filter.as_ref())
    }

    /// Compares every layout with the oracle; panics with a shrunk query.
    async fn check(
        &self,
        seed: u64,
        query: &Query,
        filter: Option<&Query>,
        page: (usize, usize, Count),
    ) -> anyhow::Result<()> {
        let all = self.expected(query, filter)?;
        let asked = self.locals.iter().map(|local| differs(local, &all, query, filter, page));
        let differences = join_all(asked).await;
        for ((local, layout), difference) in self.locals.iter().zip(LAYOUTS).zip(differences) {
            let Some(mut difference) = difference else { continue };
            let (mut query, mut filter) = (query.clone(), filter.cloned());
            'shrinking: loop {
                let without = filter.is_some().then(|| (query.clone(), None));
                let simpler = smaller(&query).into_iter().map(|query| (query, filter.clone()));
                for (less, filtered) in without.into_iter().chain(simpler) {
                    let Ok(all) = self.expected(&less, filtered.as_ref()) else { continue };
                    if let Some(found) = differs(local, &all, &less, filtered.as_ref(), page).await {
                        (query, filter, difference) = (less, filtered, found);
                        continue 'shrinking;
                    }
                }
                break;
            }
            let bound = plan::bind(&query, &self.schema)?;
            panic!(
                "seed {seed}, (shards, leaves) {layout:?}, page {page:?}, {} live documents\nquery  {query}\nfilter {filter:?}\nplan   {bound:?}\n{difference}",
                self.live.len()
            );
        }
        Ok(())
    }

    async fn close(self) -> anyhow::Result<()> {
        for local in self.locals {
            local.close().await?;
        }
        Ok(())
    }
}

fn corpora() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "tests have no settings file")]
    let more = std::env::var("WINDROW_EXACT_CORPORA").ok();
    more.and_then(|text| text.parse().ok()).unwrap_or(CORPORA)
}

async fn run(seeds: impl Iterator<Item = u64>) -> anyhow::Result<()> {
    let _ = runtime::telemetry::logs("warn");
    for seed in seeds {
        let corpus = Corpus::build(seed, 60 + (seed as usize % 5) * 40, 3)
            .await
            .with_context(|| format!("seed {seed}"))?;
        let mut generator = Generator::new(seed ^ 0xFEED);
        for number in 0..QUERIES {
            let query = generator.query(3).canonical();
            let filter = (number % 4 == 0).then(|| generator.query(1).canonical());
            let limit = [1, 3, 10, 25][generator.below(4)];
            let offset = [0, 0, 2, 9][generator.below(4)];
            let count = [Count::None, Count::Exact, Count::Bounded(20)][generator.below(3)];
            corpus.check(seed, &query, filter.as_ref(), (limit, offset, count)).await?;
        }
        corpus.close().await?;
    }
    Ok(())
}

// Two halves, so that two cores share the work.
#[tokio::test]
async fn answers_equal_the_oracle_for_any_layout_even_seeds() -> anyhow::Result<()> {
    run((0..corpora()).filter(|seed| seed % 2 == 0)).await
}

#[tokio::test]
async fn answers_equal_the_oracle_for_any_layout_odd_seeds() -> anyhow::Result<()> {
    run((0..corpora()).filter(|seed| seed % 2 == 1)).await
}

#[tokio::test]
async fn answers_equal_the_oracle_where_terms_have_thousands_of_postings() -> anyhow::Result<()> {
    let corpus = Corpus::build(1_000_003, 20_000, 4).await?;
    assert!(corpus.oracle.documents() > 5_000, "the corpus is too small");
    let mut generator = Generator::new(77);
    for number in 0..150 {
        let query = generator.query(2).canonical();
        let filter = (number % 5 == 0).then(|| generator.query(1).canonical());
        let count = [Count::None, Count::None, Count::Exact, Count::Bounded(1_000)][number % 4];
        corpus.check(1_000_003, &query, filter.as_ref(), (10, 0, count)).await?;
    }
    corpus.close().await
}

#[tokio::test]
async fn a_document_is_found_by_id_until_it_is_deleted() -> anyhow::Result<()> {
    let corpus = Corpus::build(5, 60, 3).await?;
    let name = IndexName::new("exact")?;
    for local in &corpus.locals {
        for number in 0..60 {
            let id = format!("doc-{number}");
            let found = local.root.get(&name, &id, None, soon()).await?;
            let source = found.map(|document| String::from_utf8_lossy(&document.source).into_owned());
            assert_eq!(source.as_ref(), corpus.live.get(&id), "{id}");
        }
    }
    corpus.close().await
}
