//! Clusters that a benchmark starts for itself, and what it loads into them.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use ::load::Queries;
use anyhow::{Context, Result};
use bytes::Bytes;
use client::{Client, IndexRequest, SearchRequest};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use testkit::processes::{Cluster, Plan};

/// Words that generated documents are made of.
const WORDS: usize = 20_000;
/// Words of a generated document.
const LENGTH: usize = 60;
/// Documents of one request.
const BATCH: usize = 1_000;

/// This program.
pub(super) fn program() -> Result<PathBuf> {
    std::env::current_exe().context("this program cannot find itself to start nodes")
}

/// Starts nodes with these roles; `arguments` are their own.
pub(super) async fn start(roles: Vec<&'static str>, arguments: Vec<Vec<String>>) -> Result<Cluster> {
    let mut plan = Plan::of(program()?, roles.len());
    plan.arguments = vec!["--lease".into(), "10s".into(), "--log".into(), "warn".into()];
    plan.roles = roles;
    plan.own_arguments = arguments;
    plan.direct = true;
    let cluster = Cluster::start(&plan).await?;
    cluster.context("a local cluster needs etcd: install the package etcd-server, or use `bench run --url`")
}

/// A word by its rank; short ones are frequent, as in any language.
fn word(rank: usize) -> String {
    const LETTERS: &[u8] = b"etaoinshrdlu";
    let (mut word, mut rest) = (String::new(), rank + LETTERS.len());
    while rest > 0 {
        word.push(char::from(LETTERS[rest % LETTERS.len()]));
        rest /= LETTERS.len();
    }
    word
}

/// Draws a rank by Zipf's law with exponent 1, near enough for load.
fn rank(random: &mut StdRng) -> usize {
    let top = (WORDS as f64).ln();
    ((random.random::<f64>() * top).exp() as usize).saturating_sub(1).min(WORDS - 1)
}

/// Loads generated documents into a new index, and waits until all are found.
pub(super) async fn fill(
    client: &Client,
    index: &str,
    (shards, copies): (u32, u32),
    documents: usize,
    seed: u64,
) -> Result<()> {
    let schema =
        serde_json::from_str(r#"{"fields": {"body": {"type": "text"}}, "default_fields": ["body"]}"#)?;
    let request = IndexRequest {
        shards: Some(shards),
        copies: Some(copies),
        schema: Some(schema),
        refresh_interval: Some(Duration::from_secs(1)),
        ..IndexRequest::default()
    };
    client.create_index(index, &request).await?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut made = 0;
    let mut token = None;
    while made < documents {
        let mut body = String::new();
        for number in made..documents.min(made + BATCH) {
            let words: Vec<String> = (0..LENGTH).map(|_| word(rank(&mut random))).collect();
            writeln!(body, "{{\"id\":\"{number}\",\"body\":\"{}\"}}", words.join(" "))?;
        }
        made = documents.min(made + BATCH);
        let written = client.documents(index, Bytes::from(body), made == documents).await?;
        anyhow::ensure!(written.rejected == 0, "documents were refused: {:?}", written.failures.first());
        token = written.token;
    }
    if let Some(token) = token {
        client.search(index, &SearchRequest::new("*").limit(0_usize).token(token)).await?;
    }
    Ok(())
}

/// Queries over generated documents: one to three words.
pub(super) fn queries(count: usize, seed: u64) -> Queries {
    let mut random = StdRng::seed_from_u64(seed ^ 0x9e37);
    Queries::of((0..count).map(|_| {
        let words: Vec<String> = (0..random.random_range(1..4)).map(|_| word(rank(&mut random))).collect();
        words.join(if random.random_range(0..2) == 0 { " AND " } else { " OR " })
    }))
}

/// Queries that are work: eight of the most frequent words, any of which will do.
pub(super) fn heavy(count: usize, seed: u64) -> Queries {
    let mut random = StdRng::seed_from_u64(seed ^ 0x51ed);
    Queries::of((0..count).map(|_| {
        let words: Vec<String> = (0..8).map(|_| word(random.random_range(0..200))).collect();
        words.join(" OR ")
    }))
}
