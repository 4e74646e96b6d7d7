//! A leaf's search alone against plain tantivy's `TopDocs`, on the same
//! segments: `cargo bench --bench leaf`.
//!
//! Ours is exact (index-wide statistics, one order for any layout) and counts
//! the statistics on the way; theirs is neither. Both run on one thread,
//! whose CPU time is read around the whole round of queries; the rounds
//! alternate, and the best of each is kept.

mod support;

use std::time::Duration;

use model::analysis::Analyzer;
use model::gather::Count;
use model::ids::shard_of;
use model::plan::Node;
use model::schema::{Field, FieldType, Operator, Schema};
use tantivy::Term;
use tantivy::collector::TopDocs;
use tantivy::query::{BooleanQuery, Occur, Query, TermQuery};
use tantivy::schema::IndexRecordOption;

const ROUNDS: usize = 5;
const QUERIES: usize = 2_000;
const LIMIT: usize = 10;

fn schema() -> Schema {
    let body = Field { kind: FieldType::Text, analyzer: Some(Analyzer::Standard) };
    Schema { fields: [("body".into(), body)].into(), ..Schema::default() }
}

/// A query in both engines' words.
struct Case {
    ours: Node,
    theirs: Vec<String>,
}

fn cases(texts: &[String], operator: Operator, terms: std::ops::RangeInclusive<usize>) -> Vec<Case> {
    let schema = Schema { default_operator: operator, ..schema() };
    let mut cases = Vec::new();
    for text in texts {
        let words: Vec<String> = Analyzer::Standard.terms(text).into_iter().map(|(_, word)| word).collect();
        if !terms.contains(&words.len()) {
            continue;
        }
        let query = model::query::parse(&words.join(" "), &model::query::Limits::default());
        let Ok(query) = query else { continue };
        let ours = model::plan::bind(&query, &schema).expect("words bind");
        cases.push(Case { ours, theirs: words });
    }
    cases
}

fn theirs(shard: &leaf::lab::Shard, case: &Case, occur: Occur) -> usize {
    let searcher = shard.searcher();
    let field = searcher.schema().get_field("body").expect("the field is there");
    let term = |word: &String| -> Box<dyn Query> {
        let term = Term::from_field_text(field, word);
        Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs))
    };
    let query: Box<dyn Query> = match case.theirs.as_slice() {
        [only] => term(only),
        words => Box::new(BooleanQuery::new(words.iter().map(|word| (occur, term(word))).collect())),
    };
    let top = TopDocs::with_limit(LIMIT).order_by_score();
    searcher.search(&*query, &top).expect("plain tantivy searches").len()
}

/// Mean CPU of a query, in microseconds, over at least a third of a second:
/// the kernel accounts for CPU time in ticks of milliseconds.
fn round(cases: &[Case], mut run: impl FnMut(&Case) -> usize) -> f64 {
    let before = support::thread_cpu();
    let (mut hits, mut queries) = (0, 0);
    while support::thread_cpu() - before < Duration::from_millis(330) {
        for case in cases {
            hits += run(case);
        }
        queries += cases.len();
    }
    std::hint::black_box(hits);
    (support::thread_cpu() - before).as_secs_f64() * 1e6 / queries as f64
}

fn main() {
    let Some(data) = support::data() else { return };
    let documents = support::corpus(&data.join("wiki-passages.ndjson.zst"));
    let texts = support::queries(&data.join("wiki-passages.queries.tsv"), QUERIES);
    let folder = tempfile::tempdir().expect("a temporary folder");
    println!(
        "{} documents, {} queries, top {LIMIT}; mean CPU µs a query, best of {ROUNDS} rounds",
        documents.len(),
        texts.len()
    );
    println!(
        "{:<8} {:>7} {:>6} {:>10} {:>10} {:>7}",
        "queries", "shards", "n", "windrow", "tantivy", "ratio"
    );
    for shards in [1_u32, 4] {
        let built: Vec<leaf::lab::Shard> = (0..shards)
            .map(|shard| {
                let part: Vec<_> =
                    documents.iter().filter(|(id, _)| shard_of(id, shards).0 == shard).cloned().collect();
                let folder = folder.path().join(format!("{shards}-{shard}"));
                leaf::lab::Shard::build(&schema(), &part, &folder, 1, 500_000_000)
            })
            .collect();
        for (name, operator, occur, terms) in [
            ("term", Operator::And, Occur::Must, 1..=1),
            ("AND", Operator::And, Occur::Must, 2..=20),
            ("OR", Operator::Or, Occur::Should, 2..=20),
        ] {
            let cases = cases(&texts, operator, terms);
            let (mut ours, mut plain) = (f64::MAX, f64::MAX);
            for _ in 0..ROUNDS {
                ours = ours.min(round(&cases, |case| {
                    leaf::lab::search(&built, &case.ours, LIMIT, Count::None).0.len()
                }));
                plain = plain
                    .min(round(&cases, |case| built.iter().map(|shard| theirs(shard, case, occur)).sum()));
            }
            println!(
                "{name:<8} {shards:>7} {:>6} {ours:>10.1} {plain:>10.1} {:>7.2}",
                cases.len(),
                ours / plain
            );
        }
    }
}
