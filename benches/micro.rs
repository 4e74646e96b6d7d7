//! What runs once a query, piece by piece.
//!
//! `cargo bench --bench micro [-- NAME]`
//!
//! A leaf's search against plain tantivy's is in `leaf.rs`, whole queries over
//! HTTP in `machinery.rs`.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use model::analysis::Analyzer;
use model::choice::{self, Draw, Grouping, Policy, Replica};
use model::gather::{self, Ranked};
use model::ids::{NodeId, ShardId};
use model::query::{Limits, Query};
use model::schema::{Field, FieldType, Schema};
use proto::internal::wire;
use proto::leaf::{Address, Found, LeafHit};
use proto::search::Document;

/// Queries as people write them, from a word to a sentence of operators.
const QUERIES: [&str; 4] = [
    "delta",
    "delta air lines",
    "title:graph* AND (neural OR \"message passing\"~2)",
    "+body:(rain OR snow OR \"freezing rain\"^2) -body:summer year:[2015 TO 2019] (hay AND (field OR row) AND NOT barn)",
];

fn main() {
    divan::main();
}

fn schema() -> Schema {
    let text = Field { kind: FieldType::Text, analyzer: Some(Analyzer::Standard) };
    Schema {
        fields: [
            ("title".into(), text.clone()),
            ("body".into(), text),
            ("year".into(), Field::of(FieldType::I64)),
        ]
        .into(),
        ..Schema::default()
    }
}

fn parsed(text: &str) -> Query {
    model::query::parse(text, &Limits::default()).expect("the query parses")
}

/// Text to tree.
#[divan::bench(args = QUERIES)]
fn parse(text: &str) -> Query {
    parsed(black_box(text))
}

/// Tree to canonical tree to the bytes of a cache key.
#[divan::bench(args = QUERIES)]
fn canonical_key(bencher: Bencher<'_, '_>, text: &str) {
    bencher.with_inputs(|| parsed(text)).bench_values(|query| query.canonical().canonical_bytes());
}

/// Tree to plan: fields, analysis, types.
#[divan::bench(args = QUERIES)]
fn plan(bencher: Bencher<'_, '_>, text: &str) {
    let (query, schema) = (parsed(text).canonical(), schema());
    bencher.bench(|| model::plan::bind(black_box(&query), &schema).expect("the query binds"));
}

/// A replica for each shard, of three: each on a leaf of its own.
#[divan::bench(args = [4, 100, 1_000])]
fn choose_of_many(bencher: Bencher<'_, '_>, shards: usize) {
    let nodes: Vec<NodeId> = (0..shards * 3).map(|n| NodeId(format!("leaf-{n}").into())).collect();
    choose(bencher, shards, |shard, copy| &nodes[shard * 3 + copy]);
}

/// The same over six leaves, which answer for several shards each.
#[divan::bench(args = [4, 100, 1_000])]
fn choose_of_six(bencher: Bencher<'_, '_>, shards: usize) {
    let nodes: Vec<NodeId> = (0..6).map(|n| NodeId(format!("leaf-{n}").into())).collect();
    choose(bencher, shards, |shard, copy| &nodes[(shard + copy) % 6]);
}

fn choose<'a>(bencher: Bencher<'_, '_>, shards: usize, node: impl Fn(usize, usize) -> &'a NodeId) {
    let replica = |shard, copy| Replica {
        node: node(shard, copy),
        doubt: 0,
        load: ((shard + copy) % 5) as f64,
        far: false,
    };
    let all: Vec<Vec<Replica<'_>>> =
        (0..shards).map(|shard| (0..3).map(|copy| replica(shard, copy)).collect()).collect();
    let mut draw = Draw::new(1);
    bencher
        .counter(ItemsCount::new(shards))
        .bench_local(|| choice::cover(black_box(&all), Policy::TwoChoices, Grouping::Few, &mut draw).len());
}

/// Ranked lists of ten, one of each shard, to one of ten.
#[divan::bench(args = [4, 100, 1_000])]
fn merge_top_10(bencher: Bencher<'_, '_>, shards: u32) {
    merge(bencher, shards, 10);
}

/// The same with hundreds.
#[divan::bench(args = [4, 100, 1_000])]
fn merge_top_100(bencher: Bencher<'_, '_>, shards: u32) {
    merge(bencher, shards, 100);
}

fn merge(bencher: Bencher<'_, '_>, shards: u32, limit: usize) {
    let mut draw = Draw::new(2);
    let lists: Vec<Vec<Ranked>> = (0..shards)
        .map(|shard| {
            let mut list: Vec<Ranked> = (0..limit)
                .map(|index| Ranked {
                    score: draw.below(1 << 20) as f32 / 1e5,
                    hash: draw.below(usize::MAX) as u64,
                    shard: ShardId(shard),
                    index,
                })
                .collect();
            list.sort_by(|one, other| other.score.total_cmp(&one.score));
            list
        })
        .collect();
    bencher.counter(ItemsCount::new(lists.len() * limit)).bench(|| gather::merge(black_box(&lists), limit));
}

/// Hits of one leaf; with documents of about a kilobyte or without.
fn found(hits: u32, documents: bool) -> Found {
    let body = "hay ".repeat(250);
    let document = |number: u32| Document {
        id: format!("document-{number}"),
        source: format!("{{\"id\":\"document-{number}\",\"body\":\"{body}\"}}").into(),
    };
    let hit = |number: u32| LeafHit {
        score: 20.0 - number as f32 / 10.0,
        hash: u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        shard: ShardId(number % 4),
        address: Address { segment: 3, doc: number * 1_000 },
        document: documents.then(|| document(number)),
    };
    Found {
        hits: (0..hits).map(hit).collect(),
        matches: Some(9_876),
        bounded: false,
        profile: None,
        load: None,
    }
}

const ANSWERS: [(u32, bool); 3] = [(10, false), (100, false), (10, true)];

/// A leaf's answer (hits, whether with documents) to bytes.
#[divan::bench(args = ANSWERS)]
fn encode_answer(bencher: Bencher<'_, '_>, (hits, documents): (u32, bool)) {
    let bytes = wire::encode(found(hits, documents)).len();
    bencher.counter(BytesCount::new(bytes)).with_inputs(|| found(hits, documents)).bench_values(wire::encode);
}

/// And back.
#[divan::bench(args = ANSWERS)]
fn decode_answer(bencher: Bencher<'_, '_>, (hits, documents): (u32, bool)) {
    let bytes = wire::encode(found(hits, documents));
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench(|| wire::decode(black_box(&bytes)).expect("it is an answer"));
}
