//! Who is asked, and who is asked instead.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proto::Error;
use proto::leaf::Search;
use runtime::Random;
use tokio::time::Instant;

use crate::stage::{APART, Call, Stage, answers, fails};

#[tokio::test(start_paused = true)]
async fn no_leaf_is_asked_twice_for_one_shard() {
    let (mut hedges, mut retries) = (0, 0);
    for seed in 0..200 {
        let random = Random::seeded(seed);
        let eager = model::hedge::Settings { hedges_max: 5, burst: 1_000.0, ..Default::default() };
        let settings = root::Settings { hedge: eager, ..root::Settings::default() };
        let part = move |_: usize, _: &Search| match random.below(4) {
            0 => fails(random.below(300), Error::unavailable("no")),
            _ => answers(random.below(1_500)),
        };
        let stage = Stage::of(&[&[0, 1, 2, 3], &[4, 5, 6, 7], &[7, 8, 9, 4]], settings, part).await;
        // Answered or not: with bad luck all fail.
        let _answer = stage.search("hay").await;
        let mut asked = BTreeSet::new();
        for Call { leaf, shards, .. } in stage.calls() {
            for shard in shards {
                assert!(asked.insert((leaf, shard)), "seed {seed}: leaf {leaf} is asked twice for {shard}");
            }
        }
        let tally = stage.root.tally();
        (hedges, retries) = (hedges + tally.hedges, retries + tally.retries);
    }
    assert!(hedges > 200 && retries > 100, "{hedges} hedges, {retries} retries");
}

#[tokio::test(start_paused = true)]
async fn who_was_asked_for_one_shard_may_be_asked_for_another() {
    // Leaf 1 stands in for leaf 0 with shard 0, and then with shard 1 too, where
    // leaf 2 had that and fails as well. None stands in with all three.
    let serve: [&[usize]; 4] = [&[0, 1, 3], &[0, 1, 2], &[0, 5], &[4]];
    let settings = root::Settings { choice: model::choice::Policy::Random, ..root::Settings::default() };
    let stage = Stage::of(&serve, settings, move |leaf, _| match leaf {
        0 | 2 => fails(1, Error::unavailable("no such address")),
        _ => answers(10),
    })
    .await;
    let mut twice = 0;
    for _ in 0..200 {
        stage.search("word").await.unwrap();
        twice += usize::from(stage.calls().iter().filter(|call| call.leaf == 1).count() > 1);
        // All are as good as any again.
        tokio::time::advance(Duration::from_secs(4)).await;
    }
    assert!(twice > 0, "leaf 1 is asked twice, each time for another shard");
}

#[tokio::test(start_paused = true)]
async fn where_nobody_is_left_to_ask_nothing_is_spent() {
    // A shard of one copy, whose leaf is dead at first, and one of three.
    let dead = Arc::new(AtomicBool::new(true));
    let still = dead.clone();
    let stage = Stage::of(&[&[0], &[1, 2, 3]], root::Settings::default(), move |leaf, _| match leaf {
        0 if still.load(Ordering::Relaxed) => fails(1, Error::unavailable("no such address")),
        1 if !still.load(Ordering::Relaxed) => fails(1, Error::overloaded("too many")),
        _ => answers(5),
    })
    .await;
    for _ in 0..100 {
        stage.search("word").await.unwrap_err();
    }
    assert_eq!(stage.root.tally().retries, 0);
    dead.store(false, Ordering::Relaxed);
    for _ in 0..5 {
        tokio::time::advance(Duration::from_secs(5)).await;
        stage.search("word").await.unwrap();
    }
    assert!(stage.root.tally().retries > 0);
}

#[tokio::test(start_paused = true)]
async fn a_profile_names_every_call_and_what_became_of_it() {
    let stage = Stage::of(&APART, root::Settings::default(), |leaf, _| {
        if leaf < 2 { fails(1, Error::unavailable("no such address")) } else { answers(10) }
    })
    .await;
    for _ in 0..20 {
        let answer = stage.explained("word", None, true).await.unwrap();
        let calls = answer.profile.unwrap().leaves;
        let searches: Vec<_> = calls.iter().filter(|call| call.phase == "search").collect();
        assert_eq!(searches.len(), stage.calls().len());
        let count = |outcome: &str| searches.iter().filter(|call| call.outcome == outcome).count();
        assert_eq!(count("answered"), 2);
        assert_eq!(count("no such address"), searches.len() - 2);
        for call in searches.iter().filter(|call| call.outcome != "answered") {
            assert!(call.node == "leaf-0" || call.node == "leaf-1", "{call:?}");
        }
        assert!(calls.is_sorted_by_key(|call| call.sent_us));
    }
}

#[tokio::test(start_paused = true)]
async fn a_leaf_that_alone_holds_everything_shares_the_work_and_others_stand_in_for_it() {
    let serve: [&[usize]; 3] = [&[0, 1], &[0, 2], &[0, 1]];
    let stage = Stage::of(&serve, root::Settings::default(), |_, _| answers(20)).await;
    futures::future::join_all((0..60).map(|_| stage.search("hay"))).await;
    let mut shards = [0; 3];
    stage.calls().iter().for_each(|call| shards[call.leaf] += call.shards.len());
    assert!(shards.iter().all(|taken| *taken > 20), "{shards:?}");

    // It holds all, and stands still.
    let part = |leaf: usize, _: &Search| answers(if leaf == 0 { 8_000 } else { 20 });
    let begun = Instant::now();
    for seconds in 1..=5 {
        let stage = Stage::of(&serve, root::Settings::default(), part).await;
        stage.search("hay").await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(seconds), "{:?}", begun.elapsed());
    }
}
