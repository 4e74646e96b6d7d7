//! What the machinery costs: HTTP top-10 with documents over 4 shards, against
//! plain tantivy's search and fetch over the same segments.
//!
//! `WINDROW_TEST_DATA=… cargo bench --bench machinery`
//!
//! The server is the release binary in a process of its own; its CPU time is
//! read before and after each request, of which one is under way at a time.
//! Plain tantivy is inexact: its statistics are per shard, its ties by layout.

mod support;
#[path = "../tests/support/mod.rs"]
mod up;

use std::path::Path;

use client::{IndexRequest, SearchRequest};
use model::analysis::Analyzer;
use model::ids::{IndexUid, ShardId};
use model::schema::{Field, FieldType, Operator, Schema};
use tantivy::collector::TopDocs;
use tantivy::query::{BooleanQuery, Occur, Query, TermQuery};
use tantivy::schema::{IndexRecordOption, Value};
use tantivy::{Index, Searcher, Term};

const QUERIES: usize = 2_000;
const SHARDS: u32 = 4;
const LIMIT: usize = 10;

fn schema(operator: Operator) -> Schema {
    let body = Field { kind: FieldType::Text, analyzer: Some(Analyzer::Standard) };
    Schema { fields: [("body".into(), body)].into(), default_operator: operator, ..Schema::default() }
}

/// Opens the newest generation of a shard as a plain index.
async fn plain(store: &store::Store, uid: &IndexUid, shard: u32, folder: &Path) -> Searcher {
    let manifest = store.newest_manifest(uid, ShardId(shard)).await.expect("a manifest");
    let folder = folder.join(shard.to_string());
    for file in &manifest.files {
        store.fetch_file_to(file, &folder.join(&file.name)).await.expect("a segment file");
    }
    std::fs::write(folder.join("meta.json"), &manifest.meta).expect("meta.json");
    Index::open_in_dir(&folder).expect("the segments open").reader().expect("a reader").searcher()
}

fn search_and_fetch(shards: &[Searcher], words: &[String], occur: Occur) -> usize {
    let mut hits = Vec::new();
    for (number, searcher) in shards.iter().enumerate() {
        let field = searcher.schema().get_field("body").expect("the field");
        let clauses = words.iter().map(|word| {
            let term = Term::from_field_text(field, word);
            (occur, Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs)) as Box<dyn Query>)
        });
        let query = BooleanQuery::new(clauses.collect());
        let top = TopDocs::with_limit(LIMIT).order_by_score();
        let found = searcher.search(&query, &top).expect("a search");
        hits.extend(found.into_iter().map(|(score, address)| (score, number, address)));
    }
    hits.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut bytes = 0;
    for (_, number, address) in hits.into_iter().take(LIMIT) {
        let document: tantivy::TantivyDocument = shards[number].doc(address).expect("a document");
        let stored = shards[number].schema().get_field("_doc").expect("the field");
        bytes += document.get_first(stored).and_then(|value| value.as_bytes().map(<[u8]>::len)).unwrap_or(0);
    }
    bytes
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Some(data) = support::data() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = up::Up::start(&folder.path().join("data"));
    let corpus = data.join("wiki-passages.ndjson.zst");
    let request =
        IndexRequest { shards: Some(SHARDS), schema: Some(schema(Operator::And)), ..IndexRequest::default() };
    let index = server.client.create_index("wiki", &request).await.expect("an index");
    let loaded =
        up::run(&["load", corpus.to_str().expect("a path"), "--index", "wiki", "--url", &server.url]);
    assert_eq!(loaded.0, Some(0), "{}", loaded.2);
    // Merges run on; wait until the server has been idle.
    let mut before = support::cpu(server.pid());
    loop {
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let now = support::cpu(server.pid());
        if now.saturating_sub(before) < std::time::Duration::from_millis(60) {
            break;
        }
        before = now;
    }
    let uid = IndexUid::parse(&index.uid).expect("a uid");
    let store = store::Store::local(&folder.path().join("data/store")).expect("the store");
    let mut shards = Vec::new();
    for shard in 0..SHARDS {
        shards.push(plain(&store, &uid, shard, &folder.path().join("plain")).await);
    }
    let segments: usize = shards.iter().map(|shard| shard.segment_readers().len()).sum();
    let texts = support::queries(&data.join("wiki-passages.queries.tsv"), QUERIES);
    println!(
        "{} queries, {SHARDS} shards, {segments} segments, top {LIMIT} with documents; CPU µs a query",
        texts.len()
    );
    println!(
        "{:<6} {:>22} {:>22} {:>28}",
        "", "windrow mean/median", "tantivy mean/median", "1.2 × tantivy + 120: within"
    );
    for (name, joint, occur) in [("AND", " AND ", Occur::Must), ("OR", " OR ", Occur::Should)] {
        let cases: Vec<Vec<String>> = texts
            .iter()
            .map(|text| Analyzer::Standard.terms(text).into_iter().map(|(_, word)| word).collect())
            .filter(|words: &Vec<String>| !words.is_empty())
            .collect();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        // The first round warms caches on both sides, the second is measured.
        for measured in [false, true] {
            for words in &cases {
                let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                let request = SearchRequest::new(quoted.join(joint)).limit(LIMIT).count("none");
                let before = support::cpu(server.pid());
                std::hint::black_box(server.client.search_raw("wiki", &request).await.expect("an answer"));
                let spent = support::cpu(server.pid()).saturating_sub(before);
                let before = support::thread_cpu();
                std::hint::black_box(search_and_fetch(&shards, words, occur));
                let plain = support::thread_cpu() - before;
                if measured {
                    ours.push(spent.as_secs_f64() * 1e6);
                    theirs.push(plain.as_secs_f64() * 1e6);
                }
            }
        }
        let (mean, median, _) = support::summary(ours);
        let (plain_mean, plain_median, _) = support::summary(theirs);
        let within = |ours: f64, plain: f64| if ours <= 1.2 * plain + 120.0 { "yes" } else { "NO" };
        println!(
            "{name:<6} {mean:>12.0} / {median:>7.0} {plain_mean:>12.0} / {plain_median:>7.0} {:>20} / {}",
            within(mean, plain_mean),
            within(median, plain_median)
        );
    }
    assert_eq!(server.interrupt(), Some(0));
}
