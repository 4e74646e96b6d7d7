//! Searches go on while the network or a leaf does not.

use std::time::Duration;

use proto::Kind;
use root::Settings;

use crate::hosts::{Cluster, LEAVES, ORDINARY, PROBE_EVERY, ROOT, SEARCH_TIME, name};
use crate::log::{How, Searched};

/// Each in a part of a second.
const SEEDS: u64 = 12;
const EVERY: Duration = Duration::from_millis(20);
const TIMEOUT: Duration = Duration::from_secs(10);
/// When the trouble begins: connections are made and warm.
const CUT: Duration = Duration::from_secs(1);
/// When it ends: longer than a doubt, and than a connection takes to be found
/// dead.
const MENDED: Duration = Duration::from_secs(6);
/// So many last until the leaf is surely used again.
const SEARCHES: u32 = 600;
/// The leaf that is in trouble.
const CUT_OFF: usize = 0;

/// A stream of searches for so many words.
fn start(seed: u64, searches: u32, words: u32) -> Cluster {
    Cluster::start(seed, move |client| async move {
        client.stream(EVERY, searches, words, TIMEOUT).await;
    })
}

/// Takes a leaf away from the root, and gives it back; holds the searches to
/// what is promised of a leaf that nobody can talk to, which the root notices
/// so long after.
fn trouble(
    seed: u64,
    words: u32,
    noticed: Duration,
    cut: impl Fn(&mut Cluster),
    mend: impl Fn(&mut Cluster),
) -> (Cluster, Vec<Searched>) {
    let mut cluster = start(seed, SEARCHES, words);
    cluster.run_until(CUT);
    cut(&mut cluster);
    cluster.run_until(MENDED);
    mend(&mut cluster);
    let searches = cluster.run_to(SEARCHES as usize);
    passed_over(&searches, noticed);
    (cluster, searches)
}

fn slowest<'a>(searches: impl Iterator<Item = &'a Searched>) -> Duration {
    searches.map(Searched::took).max().unwrap_or_default()
}

fn failed(searches: &[Searched]) -> Vec<&Searched> {
    searches.iter().filter(|search| search.outcome.is_err()).collect()
}

fn passed_over(searches: &[Searched], noticed: Duration) {
    let between = |from: Duration, to: Duration| {
        searches.iter().filter(move |search| (from..to).contains(&search.began))
    };
    assert!(failed(searches).is_empty(), "{:?}", failed(searches));
    let Settings { attempt_timeout, doubted_for, .. } = Settings::default();

    let before = slowest(searches.iter().filter(|search| search.ended < CUT));
    assert!(before <= ORDINARY, "{before:?}");
    let late = slowest(searches.iter());
    assert!(late <= attempt_timeout + ORDINARY, "{late:?}");
    // What begins when the first call has failed knows better, for a while;
    // that call was one of the first after the cut.
    let knows = CUT + noticed + ORDINARY + EVERY * 3;
    let doubting = slowest(between(knows, CUT + doubted_for));
    assert!(doubting <= ORDINARY, "{doubting:?}");
    // A leaf that owes an answer is the more loaded of two: next to none are
    // late before it is doubted, and before it is doubted again.
    let slow = searches.iter().filter(|search| search.took() > ORDINARY).count();
    assert!(slow <= 2 * 2, "{slow}");

    assert!(between(Duration::ZERO, CUT).any(|search| search.is_by(CUT_OFF)));
    let last = MENDED - attempt_timeout - ORDINARY;
    assert!(!between(CUT, last).any(|search| search.is_by(CUT_OFF)));
    // It is tried again when the doubt ends. The try may find a connection
    // dead, and another may just have failed.
    let again = between(MENDED, Duration::MAX).find(|search| search.is_by(CUT_OFF));
    let again = again.map(|search| search.ended - MENDED).expect("the leaf is used again");
    assert!(again <= doubted_for + attempt_timeout + 2 * PROBE_EVERY + ORDINARY, "{again:?}");
}

#[test]
fn the_same_seed_gives_the_same_events() {
    let events = |seed| {
        let mut cluster = start(seed, 150, 150);
        cluster.run_until(Duration::from_millis(700));
        cluster.sim.partition(ROOT, name(CUT_OFF));
        cluster.run_until(Duration::from_secs(1));
        cluster.sim.crash(name(1));
        cluster.run_until(Duration::from_secs(2));
        cluster.sim.bounce(name(1));
        cluster.sim.repair(ROOT, name(CUT_OFF));
        cluster.sim.set_fail_rate(0.002);
        let searches = cluster.run_to(150);
        (searches, cluster.run_to_rest())
    };
    let ((searches, calls), (again, calls_again)) = (events(1), events(1));
    assert!(calls.len() > 500, "{}", calls.len());
    for (one, two) in searches.iter().zip(&again) {
        assert_eq!(one, two);
    }
    for (one, two) in calls.iter().zip(&calls_again) {
        assert_eq!(one, two);
    }
    assert_eq!((searches.len(), calls.len()), (again.len(), calls_again.len()));
    assert_ne!(calls, events(2).1);
}

#[test]
fn healthy_leaves_share_the_searches_and_answer_at_once() {
    let mut cluster = start(1, 200, 200);
    let searches = cluster.run_to(200);
    assert!(failed(&searches).is_empty(), "{:?}", failed(&searches));
    assert!(slowest(searches.iter()) <= ORDINARY, "{:?}", slowest(searches.iter()));
    let calls = cluster.run_to_rest();
    let answered = calls.iter().filter(|call| matches!(call.ended, Some((_, How::Answered)))).count();
    assert!(answered * 100 >= calls.len() * 97, "{answered} of {} calls", calls.len());
    for leaf in 0..LEAVES {
        assert!(searches.iter().filter(|search| search.is_by(leaf)).count() > 50);
    }
}

#[test]
fn a_partition_costs_one_attempt_and_then_nothing() {
    for seed in 0..SEEDS {
        trouble(
            seed,
            SEARCHES,
            Settings::default().attempt_timeout,
            |cluster| cluster.sim.partition(ROOT, name(CUT_OFF)),
            |cluster| cluster.sim.repair(ROOT, name(CUT_OFF)),
        );
    }
}

#[test]
fn a_link_that_holds_everything_back_costs_the_same() {
    for seed in 0..SEEDS {
        trouble(
            seed,
            SEARCHES,
            Settings::default().attempt_timeout,
            |cluster| cluster.sim.hold(ROOT, name(CUT_OFF)),
            |cluster| cluster.sim.release(ROOT, name(CUT_OFF)),
        );
    }
}

#[test]
fn a_leaf_whose_answers_are_lost_is_passed_over_and_hears_that_nobody_waits() {
    let Settings { attempt_timeout, .. } = Settings::default();
    for seed in 0..SEEDS {
        let (mut cluster, _) = trouble(
            seed,
            1,
            attempt_timeout,
            |cluster| {
                cluster.sim.partition_oneway(name(CUT_OFF), ROOT);
                // Still at it when the root gives up.
                cluster.log.set_search_time(CUT_OFF, attempt_timeout * 2);
            },
            |cluster| {
                cluster.sim.repair_oneway(name(CUT_OFF), ROOT);
                cluster.log.set_search_time(CUT_OFF, SEARCH_TIME);
            },
        );
        let calls = cluster.run_to_rest();
        let in_vain = calls.iter().filter(|call| call.leaf == CUT_OFF && call.name == "search");
        let in_vain: Vec<_> = in_vain.filter(|call| (CUT..MENDED).contains(&call.began)).collect();
        assert!(!in_vain.is_empty(), "no search arrived");
        // One at a time may go on, to hear when the leaf is well again.
        let mut goes_on = Duration::ZERO;
        for call in in_vain {
            let (ended, how) = call.ended.expect("nothing runs any more");
            if how == How::Answered {
                assert!(call.began >= goes_on, "{call:?}");
                goes_on = ended;
                continue;
            }
            assert_eq!(how, How::Cancelled, "{call:?}");
            assert!(ended - call.began <= attempt_timeout + ORDINARY, "{call:?}");
        }
    }
}

#[test]
fn a_leaf_whose_requests_are_lost_is_passed_over() {
    for seed in 0..SEEDS {
        trouble(
            seed,
            SEARCHES,
            Settings::default().attempt_timeout,
            |cluster| cluster.sim.partition_oneway(ROOT, name(CUT_OFF)),
            |cluster| cluster.sim.repair_oneway(ROOT, name(CUT_OFF)),
        );
    }
}

#[test]
fn a_leaf_whose_process_dies_costs_nothing_and_is_used_again_when_it_is_back() {
    for seed in 0..SEEDS {
        let restart = |cluster: &mut Cluster, away| {
            cluster.log.set_away(CUT_OFF, away);
            cluster.sim.crash(name(CUT_OFF));
            cluster.sim.bounce(name(CUT_OFF));
        };
        let (_, searches) = trouble(
            seed,
            SEARCHES,
            Duration::ZERO,
            |cluster| restart(cluster, true),
            |cluster| restart(cluster, false),
        );
        // Its connections are closed, and new ones refused.
        assert!(slowest(searches.iter()) <= ORDINARY, "{:?}", slowest(searches.iter()));
    }
}

#[test]
fn a_leaf_whose_host_dies_costs_one_attempt_and_then_nothing() {
    for seed in 0..SEEDS {
        trouble(
            seed,
            SEARCHES,
            Settings::default().attempt_timeout,
            |cluster| cluster.sim.crash(name(CUT_OFF)),
            |cluster| cluster.sim.bounce(name(CUT_OFF)),
        );
    }
}

#[test]
fn delays_fail_no_search() {
    for seed in 0..SEEDS {
        let mut cluster = start(seed, 300, 300);
        cluster.sim.set_max_message_latency(Duration::from_millis(200));
        let searches = cluster.run_to(300);
        assert!(failed(&searches).is_empty(), "{:?}", failed(&searches));
    }
}

#[test]
fn losses_on_the_way_to_one_leaf_fail_no_search() {
    for seed in 0..SEEDS {
        let mut cluster = start(seed, SEARCHES, SEARCHES);
        cluster.sim.set_link_fail_rate(ROOT, name(CUT_OFF), 0.01);
        let searches = cluster.run_to(SEARCHES as usize);
        assert!(failed(&searches).is_empty(), "{:?}", failed(&searches));
        let late = Settings::default().attempt_timeout + ORDINARY;
        assert!(slowest(searches.iter()) <= late, "{:?}", slowest(searches.iter()));
    }
}

/// A link that lost a message is dead until its connection is found to be, so
/// both replicas of a shard may be out of reach for a while.
#[test]
fn losses_fail_searches_but_make_no_wrong_answers() {
    for seed in 0..SEEDS {
        let mut cluster = start(seed, SEARCHES, SEARCHES);
        cluster.run_until(CUT);
        cluster.sim.set_fail_rate(0.001);
        cluster.sim.set_max_message_latency(Duration::from_millis(20));
        cluster.run_until(MENDED);
        cluster.sim.set_fail_rate(0.0);
        let searches = cluster.run_to(SEARCHES as usize);
        let failed = failed(&searches);
        let honest = [Kind::Unavailable, Kind::Expired];
        for search in &failed {
            assert!(search.outcome.as_ref().is_err_and(|kind| honest.contains(kind)), "{search:?}");
            // By then every dead connection is known to be one.
            assert!(search.began < MENDED + 2 * PROBE_EVERY, "{search:?}");
        }
        println!("seed {seed}: {} failed of {SEARCHES}", failed.len());
    }
}
