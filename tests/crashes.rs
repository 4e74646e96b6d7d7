//! `kill -9` at random moments of a load: what was acknowledged is there, once,
//! and what was deleted stays away.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod support;

use std::collections::BTreeMap;

use client::SearchRequest;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::Up;
use testkit::ledger::Ledger;

const ROUNDS: usize = 20;
const IDS: u32 = 400;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let seed = 20_261_123;
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut ledger = Ledger::default();
    let mut version = 0;
    for round in 0..ROUNDS {
        let up = Up::start(folder.path());
        if round > 0 {
            check(&up, &mut ledger, round).await;
        }
        // The kill comes after a random number of acknowledgements, while the
        // next requests are on their way.
        let mut batches = random.random_range(1..25);
        let client = up.client.clone();
        let mut up = Some(up);
        loop {
            let mut body = Vec::new();
            let mut changes = Vec::new();
            for _ in 0..random.random_range(1..40) {
                version += 1;
                let id = format!("id-{}", random.random_range(0..IDS));
                body.extend_from_slice(
                    format!("{{\"id\":\"{id}\",\"version\":{version},\"body\":\"some words {version}\"}}\n")
                        .as_bytes(),
                );
                changes.push((id, Some(version)));
            }
            let deleted =
                (random.random_range(0..3) == 0).then(|| format!("id-{}", random.random_range(0..IDS)));
            changes.iter().for_each(|(id, version)| ledger.sent(id, *version));
            if batches == 0 {
                let killed = up.take().unwrap();
                let request = client.documents("crash", body.into(), false);
                // Both at once: the request may or may not be acknowledged.
                let kill = tokio::task::spawn_blocking(move || killed.kill());
                if let (Ok(written), _) = tokio::join!(request, kill) {
                    assert_eq!(written.rejected, 0);
                    changes.iter().for_each(|(id, version)| ledger.acknowledged(id, *version));
                }
                break;
            }
            batches -= 1;
            let written = client.documents("crash", body.into(), false).await.unwrap();
            assert_eq!(
                (written.accepted, written.rejected),
                (changes.len() as u64, 0),
                "{:?}",
                written.failures
            );
            changes.iter().for_each(|(id, version)| ledger.acknowledged(id, *version));
            if let Some(id) = deleted {
                client.delete_document("crash", &id, false).await.unwrap();
                ledger.acknowledged(&id, None);
            }
        }
    }
    let up = Up::start(folder.path());
    check(&up, &mut ledger, ROUNDS).await;
    assert_eq!(up.interrupt(), Some(0), "a drain ends well");
}

async fn check(up: &Up, ledger: &mut Ledger, round: usize) {
    // A cut that contains these, one at least in every shard, contains all that
    // the logs held before.
    let markers: String = (0..64).map(|n| format!("{{\"id\":\"marker-{n}\"}}\n")).collect();
    let written = up.client.documents("crash", markers.into(), true).await.unwrap();
    assert_eq!(written.searchable, Some(true));
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    let request = SearchRequest::new("version:*").limit(IDS as usize).count("exact");
    let answer = up.client.search("crash", &request).await.unwrap();
    assert_eq!(answer.total.unwrap().value, answer.hits.len() as u64);
    for hit in answer.hits {
        let document: serde_json::Value = serde_json::from_str(hit.document.unwrap().get()).unwrap();
        let twice = found.insert(hit.id.clone(), document["version"].as_u64().unwrap());
        assert_eq!(twice, None, "round {round}: {} is there twice", hit.id);
    }
    for number in 0..IDS {
        let id = format!("id-{number}");
        let version = found.get(&id).copied();
        assert_eq!(ledger.wrong(&id, version), None, "round {round}");
        ledger.settle(&id, version);
    }
}
