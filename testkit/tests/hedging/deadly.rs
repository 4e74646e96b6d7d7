//! Searches that leaves die of.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use model::ids::ShardId;
use proto::{Error, Kind};

use crate::stage::{APART, Call, Stage, answers, deadly, dies, fails};

#[tokio::test(start_paused = true)]
async fn after_a_leaf_died_of_a_query_the_next_of_its_shape_asks_one_leaf_first() {
    let deaths = Arc::new(AtomicUsize::new(1));
    let left = deaths.clone();
    let stage = Stage::of(&APART, root::Settings::default(), move |_, search| {
        let dying = deadly(search)
            && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if dying { dies() } else { answers(10) }
    })
    .await;
    let alone = |calls: &[Call]| calls.iter().filter(|call| call.sent == calls[0].sent).count() == 1;

    // It dies, and another of its leaves answers.
    stage.search("poison").await.unwrap();
    let calls = stage.calls();
    assert_eq!((calls.len(), alone(&calls)), (3, false), "{calls:?}");
    assert_eq!(stage.root.tally().retries, 1);

    // Another shape knows nothing of it.
    stage.search("harmless").await.unwrap();
    let calls = stage.calls();
    assert_eq!((calls.len(), alone(&calls)), (2, false), "{calls:?}");

    // The same asks one leaf, and the others once that has answered.
    stage.search("poison").await.unwrap();
    let calls = stage.calls();
    assert_eq!((calls.len(), alone(&calls)), (2, true), "{calls:?}");
    assert!(calls[1].sent - calls[0].sent >= Duration::from_millis(10), "{calls:?}");

    // It did no harm, and is as good as any.
    stage.search("poison").await.unwrap();
    let calls = stage.calls();
    assert_eq!((calls.len(), alone(&calls)), (2, false), "{calls:?}");

    // A canary that dies is the only one.
    deaths.store(1, Ordering::Relaxed);
    stage.search("poison").await.unwrap();
    stage.calls();
    deaths.store(usize::MAX, Ordering::Relaxed);
    let error = stage.search("poison").await.unwrap_err();
    assert!(error.kind == Kind::Unavailable && error.cut_off, "{error:?}");
    let calls = stage.calls();
    let asked: BTreeSet<_> = calls.iter().flat_map(|call| &call.shards).collect();
    assert!(calls.len() == 1 && asked.len() == 1, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_query_that_two_leaves_died_of_is_not_given_to_a_third() {
    // One leaf for everything, one of several, and a leaf for each shard.
    for serve in [&[&[0, 1, 2, 3][..]][..], &[&[0, 1, 2, 3], &[4, 5]], &APART] {
        let stage = Stage::of(serve, root::Settings::default(), |_, search| {
            // Only of the first shard, so that it is one leaf after the other.
            let first = search.shards.iter().any(|at| at.shard == ShardId(0));
            if deadly(search) && first { dies() } else { answers(10) }
        })
        .await;
        let error = stage.search("poison").await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        let calls = stage.calls();
        let died = calls.iter().filter(|call| call.shards.contains(&ShardId(0))).count();
        assert_eq!(died, 2, "{serve:?}: {calls:?}");
        // Of the next one, one leaf dies at most: nobody knows whether it was the query.
        stage.search("poison").await.unwrap_err();
        let calls = stage.calls();
        let died = calls.iter().filter(|call| call.shards.contains(&ShardId(0))).count();
        assert!(died <= 1, "{serve:?}: {calls:?}");
        stage.search("harmless").await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_leaf_that_takes_many_searches_with_it_is_one_leaf() {
    let mut again = 0;
    // Of various sizes, so that other leaves are chosen after them.
    for searches in 10..40 {
        let stage = Stage::of(&APART, root::Settings::default(), |leaf, search| {
            if deadly(search) && leaf == 0 { dies() } else { answers(10) }
        })
        .await;
        let many = futures::future::join_all((0..searches).map(|_| stage.search("poison"))).await;
        assert!(many.iter().all(Result::is_ok));
        assert!(stage.calls().iter().filter(|call| call.leaf == 0).count() > 1);
        // Its time is over, and it may be asked again: no reason to fail.
        tokio::time::advance(Duration::from_secs(4)).await;
        stage.search("poison").await.unwrap();
        again += stage.calls().iter().filter(|call| call.leaf == 0).count();
    }
    assert!(again > 0, "it is asked again now and then");
}

#[tokio::test(start_paused = true)]
async fn where_a_canary_dies_no_other_leaf_is_asked_even_if_its_shards_could_be_done_without() {
    for least in [None, Some(0.0)] {
        let stage =
            Stage::of(
                &APART,
                root::Settings::default(),
                |_, search| {
                    if deadly(search) { dies() } else { answers(10) }
                },
            )
            .await;
        // Nobody knows yet: both shards are asked, and after the first death one
        // more leaf.
        let _outcome = stage.covering("poison", least).await;
        let calls = stage.calls();
        assert!(calls.len() <= 3, "{least:?}: {calls:?}");
        let error = stage.covering("poison", least).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        let calls = stage.calls();
        assert_eq!(calls.len(), 1, "{least:?}: {calls:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_a_canary_cannot_be_asked_another_goes_first() {
    let deaths = AtomicUsize::new(0);
    let serve: [&[usize]; 3] = [&[0], &[1], &[2]];
    let stage = Stage::of(&serve, root::Settings::default(), move |leaf, _| match leaf {
        // It dies of the query, and is not there after that.
        0 if deaths.fetch_add(1, Ordering::Relaxed) == 0 => dies(),
        0 => fails(1, Error::unavailable("connection refused")),
        _ => answers(10),
    })
    .await;
    stage.covering("poison", Some(0.0)).await.unwrap();
    stage.calls();
    // It is trusted again by now.
    tokio::time::advance(Duration::from_secs(4)).await;
    stage.covering("poison", Some(0.0)).await.unwrap();
    let calls = stage.calls();
    let leaves: Vec<usize> = calls.iter().map(|call| call.leaf).collect();
    assert_eq!(leaves, [0, 1, 2], "{calls:?}");
    assert!(calls[1].sent < calls[2].sent, "{calls:?}");
}
