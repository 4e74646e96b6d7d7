//! What an answer lacks, and what is waited for before it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cluster::Index;
use model::ids::{Generation, IndexName, NodeId, Seq, ShardId};
use proto::leaf::Search;
use proto::search::{Answer, Request};
use proto::{Error, Kind};
use runtime::Deadline;
use tokio::time::Instant;

use crate::stage::{INDEX, Play, Stage, answers, fails};

/// What an answer lacks, and why.
fn missing(answer: &Answer) -> Vec<(u32, &str)> {
    answer.coverage.missing.iter().map(|missing| (missing.shard.0, missing.reason.as_str())).collect()
}

fn gone() -> Error {
    Error::gone("the generation is no longer here")
}

/// A leaf that has not come to the first shard yet.
fn lacks_the_first(_leaf: usize, search: &Search) -> Play {
    if search.shards.iter().any(|at| at.shard == ShardId(0)) {
        let mut lacks = gone();
        lacks.newest.push((ShardId(0), Generation(0)));
        return fails(1, lacks);
    }
    answers(5)
}

/// Two shards of one copy, each on a leaf of its own. They hold no documents, so
/// that nothing is too little.
const SINGLE: [&[usize]; 2] = [&[0], &[1]];

#[tokio::test(start_paused = true)]
async fn a_generation_that_is_gone_is_looked_for_anew_before_it_is_done_without() {
    for (times, expected) in [(1, &[][..]), (usize::MAX, &[(1, "lagging")])] {
        let left = AtomicUsize::new(times);
        let stage = Stage::of(&SINGLE, root::Settings::default(), move |leaf, _| {
            let lacks = leaf == 1
                && left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                    .is_ok();
            if lacks { fails(1, gone()) } else { answers(5) }
        })
        .await;
        let answer = stage.covering("word", Some(0.5)).await.unwrap();
        assert_eq!(missing(&answer), expected, "{times}");
    }
    // One that may lack nothing waits for it as long as that makes sense.
    let stage = Stage::of(&SINGLE, root::Settings::default(), |_, _| fails(1, gone())).await;
    let error = stage.search("word").await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_a_shard_is_missing_for_is_said_as_long_as_it_is_missing() {
    let busy = Error::overloaded("too many").retry_after(Duration::from_millis(100));
    for (error, reason) in [(busy, "refused"), (Error::unavailable("no such address"), "dead")] {
        let stage = Stage::of(&SINGLE, root::Settings::default(), move |leaf, _| {
            if leaf == 1 { fails(1, error.clone()) } else { answers(5) }
        })
        .await;
        // The second search does not even ask the leaf.
        for asked in [true, false] {
            let answer = stage.covering("word", Some(0.5)).await.unwrap();
            assert_eq!(missing(&answer), [(1, reason)]);
            assert_eq!(stage.calls().iter().any(|call| call.leaf == 1), asked, "{reason}");
        }
        // It is asked again when it said, not when a dead one would be.
        tokio::time::advance(Duration::from_millis(200)).await;
        stage.covering("word", Some(0.5)).await.unwrap();
        assert_eq!(stage.calls().iter().any(|call| call.leaf == 1), reason == "refused");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leaf_that_is_late_with_one_search_is_asked_by_others() {
    let stage = Stage::of(&SINGLE, root::Settings::default(), |leaf, search| {
        let long = leaf == 1 && format!("{:?}", search.query).contains("long");
        answers(if long { 400 } else { 5 })
    })
    .await;
    for _ in 0..20 {
        stage.search("word").await.unwrap();
    }
    let late = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stage.covering("word", Some(0.5)).await.unwrap()
    };
    let (long, answer) = futures::future::join(stage.search("long"), late).await;
    long.unwrap();
    assert!(answer.coverage.missing.is_empty(), "{:?}", missing(&answer));
}

#[tokio::test(start_paused = true)]
async fn a_leaf_that_is_long_with_one_search_is_not_dead_for_others() {
    let stage = Stage::of(&SINGLE, root::Settings::default(), |leaf, search| {
        let long = leaf == 1 && format!("{:?}", search.query).contains("long");
        answers(if long { 8_000 } else { 5 })
    })
    .await;
    let others = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let answer = stage.covering("word", Some(0.5)).await.unwrap();
            assert!(answer.coverage.missing.is_empty(), "{:?}", missing(&answer));
        }
    };
    let (long, ()) = futures::future::join(stage.search("long"), others).await;
    long.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_leaf_that_lacks_one_shard_answers_for_the_others() {
    // Leaf 0 holds two of the three shards, and one of them only later.
    let serve: [&[usize]; 3] = [&[0], &[0], &[1]];
    let stage = Stage::of(&serve, root::Settings::default(), lacks_the_first).await;
    let answer = stage.covering("word", Some(0.0)).await.unwrap();
    assert_eq!(missing(&answer), [(0, "lagging")]);
}

#[tokio::test(start_paused = true)]
async fn a_search_whose_generation_is_gone_is_not_begun_anew_without_pause() {
    let stage = Stage::of(&SINGLE, root::Settings::default(), |_, _| fails(1, gone())).await;
    // Something else changes all the time.
    let changes = async {
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            stage.view.send_modify(|view| Arc::make_mut(view).pending += 1);
        }
    };
    tokio::select! {
        answer = stage.search("word") => assert_eq!(answer.unwrap_err().kind, Kind::Unavailable),
        () = changes => {}
    }
    let calls = stage.calls().len();
    assert!((4..=24).contains(&calls), "{calls} calls in 3 s");
}

#[tokio::test(start_paused = true)]
async fn shards_that_are_lost_one_after_another_are_done_without_three_times() {
    // Leaf n fails with its n-th call; with all of four it is too much.
    let leaves: [&[usize]; 8] = [&[0], &[1], &[2], &[3], &[4], &[5], &[6], &[7]];
    for (bad, lost) in [(3, Some(3)), (4, None)] {
        let calls: [AtomicUsize; 8] = Default::default();
        let stage = Stage::of(&leaves, root::Settings::default(), move |leaf, _| {
            let fails_now = leaf < bad && calls[leaf].fetch_add(1, Ordering::Relaxed) == leaf;
            if fails_now { fails(1, Error::unavailable("no such address")) } else { answers(5) }
        })
        .await;
        match (stage.covering("word", Some(0.0)).await, lost) {
            (Ok(answer), Some(lost)) => assert_eq!(missing(&answer).len(), lost),
            (Err(error), None) => {
                assert_eq!(error.kind, Kind::Unavailable);
                assert!(error.message.contains("one shard after another"), "{error}");
                assert!(error.message.contains("shard 3 is dead"), "{error}");
            }
            (outcome, _) => panic!("{bad}: {outcome:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_left_out_for_a_moment() {
    let searches = AtomicUsize::new(0);
    let stage = Stage::of(&SINGLE, root::Settings::default(), move |leaf, _| {
        let late = leaf == 1 && searches.fetch_add(1, Ordering::Relaxed) % 7 == 6;
        answers(if late { 15 } else { 1 })
    })
    .await;
    for _ in 0..50 {
        let answer = stage.covering("word", Some(0.0)).await.unwrap();
        assert!(answer.coverage.missing.is_empty(), "{:?}", missing(&answer));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_an_owner_that_does_not_commit_where_a_cut_has_the_write() {
    let serve: Vec<&[usize]> = vec![&[0]; 8];
    let stage = Stage::of(&serve, root::Settings::default(), |_, _| answers(5)).await;
    let name = IndexName::new(INDEX).unwrap();
    let index = stage.view.borrow().indexes[&name].clone();
    let seqs = (0..8).map(|shard| (ShardId(shard), Seq(index.cut.entries[0].seq.0 + 1))).collect();
    let token = model::token::Token { uid: index.uid.clone(), seqs };
    let node = NodeId("leaf-0".into());
    let set = |cut: model::cut::Cut| {
        let index = Index { cut: Arc::new(cut), owners: vec![Some(node.clone()); 8], ..(*index).clone() };
        stage
            .view
            .send_modify(|view| drop(Arc::make_mut(view).indexes.insert(name.clone(), Arc::new(index))));
    };
    set((*index.cut).clone());
    let begun = Instant::now();
    let another = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut cut = (*index.cut).clone();
        cut.entries.iter_mut().for_each(|entry| entry.seq = entry.seq.next());
        set(cut);
    };
    let (answer, ()) =
        futures::future::join(stage.asked(|usual| Request { token: Some(token), ..usual }), another).await;
    answer.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn shards_that_their_only_leaf_lacks_are_done_without() {
    let serve: [&[usize]; 2] = [&[0], &[0]];
    let stage = Stage::of(&serve, root::Settings::default(), lacks_the_first).await;
    let answer = stage.covering("word", Some(0.0)).await.unwrap();
    assert_eq!(missing(&answer), [(0, "lagging")]);
    let error = stage.search("word").await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_straggler_is_left_behind_while_there_is_time_to_ask_the_others_again() {
    // One leaf never answers; the others take long, as the time goes that there is.
    let second = Duration::from_secs(1);
    for (others, reason) in [(300, "slow"), (600, "expired")] {
        let stage = Stage::of(&SINGLE, root::Settings::default(), move |leaf, _| {
            answers(if leaf == 1 { 100_000 } else { others })
        })
        .await;
        let begun = Instant::now();
        let request = |usual| Request { min_coverage: Some(0.0), deadline: Deadline::after(second), ..usual };
        // These leaves mind no deadline.
        let answer = stage.asked(request).await.unwrap();
        assert_eq!(missing(&answer), [(1, reason)]);
        assert_eq!(begun.elapsed() < second, reason == "slow", "{:?}", begun.elapsed());
    }
}
