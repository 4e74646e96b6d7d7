//! Documents per CPU-second of the server, against plain tantivy writers.
//!
//! `WINDROW_TEST_DATA=… cargo bench --bench indexing`
//!
//! Windrow: `windrow load` over HTTP, each acknowledgement durable, refresh
//! every second, 4 shards; the CPU time of the server's process until it is
//! idle again. Plain: 4 tantivy writers in this process, the same fields and
//! heap, the JSON stored, committing each second, merges awaited.

mod support;
#[path = "../tests/support/mod.rs"]
mod up;

use std::time::{Duration, Instant};

use client::IndexRequest;
use model::analysis::Analyzer;
use model::ids::shard_of;
use model::schema::{Field, FieldType, Schema};
use tantivy::indexer::IndexWriterOptions;
use tantivy::schema::{
    FAST, IndexRecordOption, STORED, STRING, SchemaBuilder, TextFieldIndexing, TextOptions,
};
use tantivy::tokenizer::{LowerCaser, SimpleTokenizer, TextAnalyzer};
use tantivy::{Index, IndexWriter, TantivyDocument};

const SHARDS: u32 = 4;
const HEAP: usize = 64 << 20;

fn schema() -> Schema {
    let text = Field { kind: FieldType::Text, analyzer: Some(Analyzer::Standard) };
    Schema {
        fields: [
            ("title".into(), text.clone()),
            ("body".into(), text),
            ("passage".into(), Field::of(FieldType::I64)),
        ]
        .into(),
        ..Schema::default()
    }
}

async fn windrow(corpus: &str, documents: usize) -> f64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = up::Up::start(folder.path());
    let request = IndexRequest { shards: Some(SHARDS), schema: Some(schema()), ..IndexRequest::default() };
    server.client.create_index("wiki", &request).await.expect("an index");
    let begun = support::cpu_total(server.pid());
    let loaded = up::run(&["load", corpus, "--index", "wiki", "--url", &server.url]);
    assert_eq!(loaded.0, Some(0), "{}", loaded.2);
    let mut before = support::cpu_total(server.pid());
    loop {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let now = support::cpu_total(server.pid());
        if now.saturating_sub(before) < Duration::from_millis(60) {
            break;
        }
        before = now;
    }
    let spent = support::cpu_total(server.pid()) - begun;
    assert_eq!(server.interrupt(), Some(0));
    documents as f64 / spent.as_secs_f64()
}

fn plain(documents: &[(String, bytes::Bytes)]) -> f64 {
    #[derive(serde::Deserialize)]
    struct Passage<'a> {
        #[serde(borrow)]
        title: std::borrow::Cow<'a, str>,
        #[serde(borrow)]
        body: std::borrow::Cow<'a, str>,
        passage: i64,
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut builder = SchemaBuilder::new();
    let id = builder.add_text_field("id", STRING);
    let indexing = TextFieldIndexing::default()
        .set_tokenizer("words")
        .set_index_option(IndexRecordOption::WithFreqsAndPositions);
    let text = TextOptions::default().set_indexing_options(indexing);
    let title = builder.add_text_field("title", text.clone());
    let body = builder.add_text_field("body", text);
    let passage = builder.add_i64_field("passage", FAST);
    let json = builder.add_bytes_field("json", STORED);
    let schema = builder.build();
    let mut writers: Vec<IndexWriter> = (0..SHARDS)
        .map(|shard| {
            let folder = folder.path().join(shard.to_string());
            std::fs::create_dir_all(&folder).expect("a folder");
            let index = Index::create_in_dir(folder, schema.clone()).expect("an index");
            let words = TextAnalyzer::builder(SimpleTokenizer::default()).filter(LowerCaser).build();
            index.tokenizers().register("words", words);
            let options = IndexWriterOptions::builder()
                .num_worker_threads(1)
                .num_merge_threads(1)
                .memory_budget_per_thread(HEAP)
                .build();
            index.writer_with_options(options).expect("a writer")
        })
        .collect();
    let begun = support::process_cpu();
    let mut committed = Instant::now();
    for (name, source) in documents {
        let parsed: Passage<'_> = serde_json::from_slice(source).expect("a passage");
        let mut document = TantivyDocument::default();
        document.add_text(id, name);
        document.add_text(title, &parsed.title);
        document.add_text(body, &parsed.body);
        document.add_i64(passage, parsed.passage);
        document.add_bytes(json, source);
        writers[shard_of(name, SHARDS).0 as usize].add_document(document).expect("it is added");
        if committed.elapsed() > Duration::from_secs(1) {
            for writer in &mut writers {
                writer.commit().expect("a commit");
            }
            committed = Instant::now();
        }
    }
    for mut writer in writers {
        writer.commit().expect("a commit");
        writer.wait_merging_threads().expect("merges end");
    }
    documents.len() as f64 / (support::process_cpu() - begun).as_secs_f64()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Some(data) = support::data() else { return };
    let corpus = data.join("wiki-passages.ndjson.zst");
    let documents = support::corpus(&corpus);
    println!("{} documents, {SHARDS} shards; documents per CPU-second, three rounds", documents.len());
    println!("{:>10} {:>10} {:>7}", "windrow", "tantivy", "ratio");
    for _ in 0..3 {
        let ours = windrow(corpus.to_str().expect("a path"), documents.len()).await;
        let theirs = plain(&documents);
        println!("{ours:>10.0} {theirs:>10.0} {:>7.2}", ours / theirs);
    }
}
