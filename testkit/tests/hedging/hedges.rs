//! What is asked of another leaf too, since the first is late.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use model::ids::ShardId;
use proto::{Error, Kind};
use root::Tally;
use runtime::Random;
use tokio::time::Instant;

use crate::stage::{APART, Stage, answers, fails};

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
async fn a_shard_is_hedged_twice_at_most() {
    let mut most = 0;
    for seed in 0..200 {
        let random = Random::seeded(seed);
        let settings = root::Settings {
            hedge: model::hedge::Settings { burst: 1_000.0, ..Default::default() },
            ..root::Settings::default()
        };
        let stage =
            Stage::of(&[&[0, 1, 2, 3, 4, 5, 6, 7], &[8, 9]], settings, move |_, _| match random.below(3) {
                0 => fails(random.below(200), Error::unavailable("no")),
                _ => answers(100 + random.below(1_500)),
            })
            .await;
        let Ok(answer) = stage.explained("hay", None, true).await else { continue };
        let calls = answer.profile.unwrap().leaves;
        let hedges = calls.iter().filter(|call| call.call == "hedge" && call.shards.contains(&ShardId(0)));
        most = most.max(hedges.count());
    }
    assert_eq!(most, 2);
}

#[tokio::test(start_paused = true)]
async fn what_stands_in_for_a_call_that_failed_is_hedged_too() {
    // The first is late and its hedge no good; then it fails, and who is asked
    // instead is late as well.
    let calls = AtomicUsize::new(0);
    let stage = Stage::of(&[&[0, 1, 2, 3]], root::Settings::default(), move |_, _| {
        match calls.fetch_add(1, Ordering::Relaxed) {
            20 => fails(60, Error::unavailable("no")),
            21 => fails(1, Error::invalid("no")),
            22 => answers(3_000),
            _ => answers(5),
        }
    })
    .await;
    for _ in 0..20 {
        stage.search("word").await.unwrap();
    }
    let begun = Instant::now();
    stage.search("word").await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());
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
async fn a_neighbour_is_asked_where_nobody_else_has_the_shard() {
    // Both copies of a shard are on one host, and another host has another shard.
    let host = |leaf: usize| leaf / 2;
    for long in [0, 1] {
        let stage = Stage::on(host, &[&[0, 1], &[2]], root::Settings::default(), move |leaf, _| {
            answers(if leaf == long { 100_000 } else { 5 })
        })
        .await;
        let begun = Instant::now();
        stage.search("word").await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
}
