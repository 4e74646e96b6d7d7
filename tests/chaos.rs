//! Five nodes, eight shards, two copies, writers and searchers; again and again
//! a random node is killed with -9, stopped, or cut off.
//!
//! Every acknowledged write is found afterwards, by id and by search; answers at
//! equal cuts are equal; the state at the end answers like a single index.
//!
//! `WINDROW_TEST_ROUNDS` sets the number of faults, `WINDROW_TEST_SEED` which
//! they are.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use client::{Answer, Client, Error, IndexRequest, SearchRequest, Written};
use model::plan;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use testkit::ledger::Ledger;
use testkit::oracle::Oracle;
use testkit::processes::{Cluster, Plan, eventually};
use tokio::time::error::Elapsed;

const ROUNDS: u64 = 50;
const NODES: usize = 5;
const INDEX: &str = "chaos";
const WRITERS: u64 = 3;
const SEARCHERS: u64 = 3;
/// Ids of each writer.
const IDS: u64 = 200;
const WORDS: [&str; 12] =
    ["hay", "row", "field", "rain", "sun", "rake", "wheel", "horse", "barn", "swath", "dew", "wind"];
/// How long a search may take, over all the nodes that its client tries.
const SEARCH_WITHIN: Duration = Duration::from_secs(5);
/// How long a client waits for one node, as a load balancer would.
const TRY_WITHIN: Duration = Duration::from_millis(1_500);

/// A number from the environment: tests have no settings file.
fn number(name: &str) -> Option<u64> {
    let (_, text) = std::env::vars().find(|(set, _)| set == name)?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// What everybody shares.
struct World {
    clients: Vec<Client>,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    searches: AtomicU64,
    failed: Mutex<Vec<String>>,
    /// What was answered at a cut, by query: nobody may answer otherwise.
    answers: Mutex<BTreeMap<(u64, String), String>>,
    compared: AtomicU64,
    differences: Mutex<Vec<String>>,
    /// Why the last writes were not acknowledged.
    hindrances: Mutex<VecDeque<String>>,
}

impl World {
    /// Keeps why the last writes were not acknowledged.
    fn hindered(&self, url: &str, written: &Result<Result<Written, Error>, Elapsed>) {
        let why = match written {
            Ok(Ok(written)) if written.failures.is_empty() => return,
            Ok(Ok(written)) => format!("{:?}", written.failures[0]),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        let mut hindrances = self.hindrances.lock().unwrap();
        hindrances.push_back(format!("{url}: {why}"));
        if hindrances.len() > 12 {
            hindrances.pop_front();
        }
    }

    /// Waits until this many writes were acknowledged.
    async fn writes(&self, wanted: u64) {
        let enough =
            eventually("writers write", async || self.acknowledged.load(Ordering::Relaxed) >= wanted).await;
        if let Err(error) = enough {
            let mut seen = Vec::new();
            for client in &self.clients {
                let state = tokio::time::timeout(TRY_WITHIN, client.cluster()).await;
                seen.push(match state {
                    Ok(Ok(state)) => serde_json::to_string(&state).unwrap(),
                    other => format!("{other:?}"),
                });
            }
            let hindrances = self.hindrances.lock().unwrap();
            panic!("{error:#}; the last writes: {hindrances:#?}; the nodes say: {seen:#?}");
        }
    }

    /// Compares an answer with what was answered at its cut before.
    fn compare(&self, query: &str, answer: &Answer) {
        let digest = digest(answer);
        let mut answers = self.answers.lock().unwrap();
        match answers.get(&(answer.cut, query.to_owned())) {
            None => {
                answers.insert((answer.cut, query.to_owned()), digest);
            }
            Some(known) => {
                self.compared.fetch_add(1, Ordering::Relaxed);
                if *known != digest {
                    let difference = format!("{query} at cut {}:\n  {known}\n  {digest}", answer.cut);
                    self.differences.lock().unwrap().push(difference);
                }
            }
        }
    }
}

fn document(id: &str, version: u64, random: &mut StdRng) -> String {
    let words: Vec<&str> =
        (0..random.random_range(3..12)).map(|_| WORDS[random.random_range(0..WORDS.len())]).collect();
    format!("{{\"id\":\"{id}\",\"version\":{version},\"body\":\"{}\"}}\n", words.join(" "))
}

async fn write(world: Arc<World>, writer: u64, seed: u64) -> Ledger {
    let mut random = StdRng::seed_from_u64(seed);
    let mut ledger = Ledger::default();
    let mut version = 0;
    while !world.stop.load(Ordering::Relaxed) {
        let client = &world.clients[random.random_range(0..world.clients.len())];
        let mut ids: Vec<u64> = (0..IDS).collect();
        ids.shuffle(&mut random);
        ids.truncate(random.random_range(1..20));
        let mut body = String::new();
        let mut sent = Vec::new();
        for number in ids {
            version += 1;
            let id = format!("w{writer}-{number}");
            body.push_str(&document(&id, version, &mut random));
            ledger.sent(&id, Some(version));
            sent.push((id, version));
        }
        let written = client.documents(INDEX, body.into(), false);
        // A node that does not answer: what became of it is unknown.
        let written = tokio::time::timeout(Duration::from_secs(8), written).await;
        world.hindered(client.url(), &written);
        if let Ok(Ok(written)) = written {
            let failed: Vec<u64> = written.failures.iter().map(|failure| failure.line).collect();
            for (line, (id, version)) in (1..).zip(&sent) {
                if !failed.contains(&line) {
                    ledger.acknowledged(id, Some(*version));
                    world.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        if random.random_range(0..4) == 0 {
            let id = format!("w{writer}-{}", random.random_range(0..IDS));
            ledger.sent(&id, None);
            let deleted = client.delete_document(INDEX, &id, false);
            if let Ok(Ok(deleted)) = tokio::time::timeout(Duration::from_secs(8), deleted).await
                && deleted.rejected == 0
            {
                ledger.acknowledged(&id, None);
            }
        }
    }
    ledger
}

fn query(random: &mut StdRng) -> String {
    let mut word = || WORDS[random.random_range(0..WORDS.len())];
    let (one, two, three) = (word(), word(), word());
    match random.random_range(0..5) {
        0 => one.to_owned(),
        1 => format!("{one} AND {two}"),
        2 => format!("{one} OR {two} OR {three}"),
        3 => format!("\"{one} {two}\""),
        _ => format!("{one} AND NOT {two}"),
    }
}

fn digest(answer: &Answer) -> String {
    let hits: Vec<_> = answer.hits.iter().map(|hit| (hit.id.as_str(), hit.score.to_bits())).collect();
    format!("{:?} {hits:?}", answer.total)
}

async fn search(world: Arc<World>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut pace = tokio::time::interval(Duration::from_millis(40));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !world.stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let query = query(&mut random);
        let request =
            SearchRequest::new(query.as_str()).limit(10_usize).count("exact").timeout(SEARCH_WITHIN);
        let mut order: Vec<&Client> = world.clients.iter().collect();
        order.shuffle(&mut random);
        let begun = Instant::now();
        let mut errors = Vec::new();
        let answered = async {
            for client in order.iter().cycle() {
                match tokio::time::timeout(TRY_WITHIN, client.search(INDEX, &request)).await {
                    Ok(Ok(answer)) => return answer,
                    Ok(Err(error)) => errors.push(format!("{}: {error}", client.url())),
                    Err(_) => errors.push(format!("{}: no answer", client.url())),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            unreachable!("nodes are tried in a circle")
        };
        let answer = tokio::time::timeout(SEARCH_WITHIN, answered).await;
        world.searches.fetch_add(1, Ordering::Relaxed);
        let Ok(answer) = answer else {
            errors.dedup();
            errors.truncate(8);
            world.failed.lock().unwrap().push(format!("{query} after {:?}: {errors:?}", begun.elapsed()));
            continue;
        };
        assert!(answer.coverage.missing.is_empty() && answer.coverage.answered == answer.coverage.shards);
        world.compare(&query, &answer);
        // Another node, and with luck other replicas, at the same cut.
        let request = request.at(answer.cut);
        let again = order[order.len() - 1].search(INDEX, &request);
        if let Ok(Ok(again)) = tokio::time::timeout(TRY_WITHIN, again).await {
            world.compare(&query, &again);
        }
    }
}

/// What the index holds, by id, as `client` finds it.
async fn held(client: &Client) -> BTreeMap<String, (u64, String)> {
    // A cut that contains these, some in every shard, contains all that the
    // logs held before.
    let markers: String = (0..200).map(|n| format!("{{\"id\":\"marker-{n}\"}}\n")).collect();
    let written = client.documents(INDEX, markers.into(), true).await.unwrap();
    assert_eq!((written.rejected, written.searchable), (0, Some(true)), "{:?}", written.failures);
    let request = SearchRequest::new("version:*").limit(5_000_usize).count("exact");
    let request = request.token(written.token.unwrap());
    let answer = client.search(INDEX, &request).await.unwrap();
    assert_eq!(answer.total.unwrap().value, answer.hits.len() as u64);
    let mut held = BTreeMap::new();
    for hit in answer.hits {
        let text = hit.document.unwrap().get().to_owned();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let twice = held.insert(hit.id.clone(), (document["version"].as_u64().unwrap(), text));
        assert!(twice.is_none(), "{} is there twice", hit.id);
    }
    held
}

/// Everything that is wrong with what the index holds.
async fn wrong(client: &Client, ledger: &Ledger) -> Vec<String> {
    let held = held(client).await;
    let mut wrong = Vec::new();
    for id in ledger.ids() {
        let searched = held.get(id).map(|(version, _)| *version);
        wrong.extend(ledger.wrong(id, searched).map(|why| format!("by search: {why}")));
        let got = client.document(INDEX, id, None).await.unwrap();
        let got = got.map(|text| {
            let document: serde_json::Value = serde_json::from_slice(&text).unwrap();
            document["version"].as_u64().unwrap()
        });
        if got != searched {
            wrong.push(format!("{id} is {got:?} by id and {searched:?} by search"));
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_nodes_that_die_stop_and_are_cut_off() {
    let plan = Plan::of(env!("CARGO_BIN_EXE_windrow"), NODES);
    let Some(mut cluster) = Cluster::start(&plan).await.unwrap() else { return };
    let seed = number("WINDROW_TEST_SEED").unwrap_or(20_261_124);
    println!("seed {seed}, cluster in {}", cluster.folder().display());
    let schema = serde_json::from_str(
        r#"{"fields": {"version": {"type": "u64"}, "body": {"type": "text"}}, "default_fields": ["body"]}"#,
    )
    .unwrap();
    let request = IndexRequest {
        shards: Some(8),
        copies: Some(2),
        schema: Some(schema),
        refresh_interval: Some(Duration::from_millis(300)),
        ..IndexRequest::default()
    };
    cluster.nodes[0].client.create_index(INDEX, &request).await.unwrap();
    cluster.whole(0, 2).await.unwrap();
    for node in &cluster.nodes {
        eventually("the index is seen", async || node.client.describe_index(INDEX).await.is_ok())
            .await
            .unwrap();
    }

    let world = Arc::new(World {
        clients: cluster.nodes.iter().map(|node| node.client.clone()).collect(),
        stop: AtomicBool::new(false),
        acknowledged: AtomicU64::new(0),
        searches: AtomicU64::new(0),
        failed: Mutex::default(),
        answers: Mutex::default(),
        compared: AtomicU64::new(0),
        differences: Mutex::default(),
        hindrances: Mutex::default(),
    });
    let mut writers = tokio::task::JoinSet::new();
    let mut searchers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(world.clone(), writer, seed + writer));
    }
    for searcher in 0..SEARCHERS {
        searchers.spawn(search(world.clone(), seed + 100 + searcher));
    }

    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..number("WINDROW_TEST_ROUNDS").unwrap_or(ROUNDS) {
        let more = world.acknowledged.load(Ordering::Relaxed) + random.random_range(20..400);
        world.writes(more).await;
        let (victim, fault) =
            (random.random_range(0..NODES), ["kill", "stop", "cut"][random.random_range(0..3)]);
        // Long enough to be noticed, or not.
        let noticed = random.random_range(0..3) > 0;
        println!("round {round}: {fault} n{victim}, noticed {noticed}");
        match fault {
            "kill" => cluster.nodes[victim].kill(),
            "stop" => cluster.nodes[victim].signal("STOP").unwrap(),
            _ => cluster.nodes[victim].cut_off(),
        }
        let other = (victim + 1) % NODES;
        let (id, witness) = (cluster.nodes[victim].id.clone(), cluster.nodes[other].client.clone());
        if noticed {
            eventually("the fault is noticed", async || {
                witness.cluster().await.is_ok_and(|seen| seen.nodes.iter().all(|node| node.node != id))
            })
            .await
            .unwrap();
        }
        let more = world.searches.load(Ordering::Relaxed) + random.random_range(5..60);
        eventually("searchers search", async || world.searches.load(Ordering::Relaxed) >= more)
            .await
            .unwrap();
        match fault {
            "kill" => cluster.nodes[victim].start().unwrap(),
            "stop" => cluster.nodes[victim].signal("CONT").unwrap(),
            _ => cluster.nodes[victim].heal(),
        }
        eventually("the node is back", async || {
            witness.cluster().await.is_ok_and(|seen| seen.nodes.len() == NODES)
        })
        .await
        .unwrap();
        cluster.whole(other, 2).await.unwrap();
    }
    world.stop.store(true, Ordering::Relaxed);
    let mut ledger = Ledger::default();
    while let Some(ended) = writers.join_next().await {
        ledger.merge(ended.unwrap());
    }
    while let Some(ended) = searchers.join_next().await {
        ended.unwrap();
    }

    let (searches, acknowledged) =
        (world.searches.load(Ordering::Relaxed), world.acknowledged.load(Ordering::Relaxed));
    let failed = world.failed.lock().unwrap().clone();
    let differences = world.differences.lock().unwrap().clone();
    println!(
        "{acknowledged} writes acknowledged over {} ids; {} of {searches} searches failed; {} answers compared at equal cuts",
        ledger.len(),
        failed.len(),
        world.compared.load(Ordering::Relaxed),
    );
    failed.iter().for_each(|failure| println!("  {failure}"));
    assert!(differences.is_empty(), "answers differ at equal cuts:\n{}", differences.join("\n"));
    let client = cluster.nodes[0].client.clone();
    let found = wrong(&client, &ledger).await;
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(
        failed.len() as u64 * 1_000 <= searches,
        "{} of {searches} searches failed, more than one in a thousand",
        failed.len()
    );

    // The state answers like a single index, to the bit.
    let documents = held(&client).await;
    let schema = client.describe_index(INDEX).await.unwrap().schema;
    let markers: Vec<String> = (0..200).map(|n| format!("{{\"id\":\"marker-{n}\"}}")).collect();
    let all = documents.values().map(|(_, text)| text.as_str()).chain(markers.iter().map(String::as_str));
    let oracle = Oracle::new(&schema, all).unwrap();
    for number in 0..200 {
        let text = query(&mut random);
        let parsed = model::query::parse(&text, &model::query::Limits::default()).unwrap().canonical();
        let expected = oracle.search(&plan::bind(&parsed, &schema).unwrap(), None).unwrap();
        let request = SearchRequest::new(text.as_str()).limit(10_usize).count("exact");
        let answer = cluster.nodes[number % NODES].client.search(INDEX, &request).await.unwrap();
        assert_eq!(answer.total.unwrap().value, expected.len() as u64, "{text}");
        let hits: Vec<_> = answer.hits.iter().map(|hit| (hit.id.clone(), hit.score.to_bits())).collect();
        let best: Vec<_> = expected.iter().take(10).map(|hit| (hit.id.clone(), hit.score)).collect();
        assert_eq!(hits, best, "{text}");
    }

    // The check can fail: a document that goes behind the ledger's back.
    // Not one whose deletion is still on its way.
    let gone = documents.keys().find(|id| id.starts_with('w') && ledger.wrong(id, None).is_some()).unwrap();
    client.delete_document(INDEX, gone, true).await.unwrap();
    assert_eq!(wrong(&client, &ledger).await.len(), 1, "a planted loss is found");
}
