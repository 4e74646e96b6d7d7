//! Nobody works for a client that is gone, or past a deadline.

use std::time::Duration;

use proto::Kind;

use crate::hosts::{Cluster, LATENCY, LEAVES, ROOT, name};
use crate::log::{Call, How};

/// A message and the steps of the simulation at its ends.
const MESSAGE: Duration = Duration::from_millis(LATENCY.1.as_millis() as u64 + 2);
/// How long the leaves search here.
const SLOW: Duration = Duration::from_secs(1);
/// When all leaves surely search.
const SEARCHING: Duration = Duration::from_millis(100);

fn slow(cluster: &Cluster) {
    (0..LEAVES).for_each(|leaf| cluster.log.set_search_time(leaf, SLOW));
}

fn searches(calls: &[Call]) -> Vec<&Call> {
    calls.iter().filter(|call| call.name == "search").collect()
}

/// When the last search ended that ended so.
fn last(calls: &[Call], how: How) -> Duration {
    let searches = searches(calls);
    let ended = searches.iter().filter_map(|call| call.ended);
    let (ended, others): (Vec<_>, Vec<_>) = ended.partition(|(_, so)| *so == how);
    assert!(others.is_empty(), "{searches:?}");
    ended.into_iter().map(|(moment, _)| moment).max().expect("the leaves searched")
}

#[test]
fn a_client_that_drops_its_search_stops_the_leaves() {
    let mut cluster = Cluster::start(1, |client| async move {
        let search = client.search("word".into(), Duration::from_secs(10));
        let ended = tokio::time::timeout(SEARCHING, search).await;
        assert!(ended.is_err(), "the leaves are slow");
    });
    slow(&cluster);
    cluster.run_until(SEARCHING);
    assert!(cluster.log.running() >= 2, "{:?}", cluster.log.calls());
    let calls = cluster.run_to_rest();
    let stopped = last(&calls, How::Cancelled);
    assert!(stopped <= SEARCHING + MESSAGE, "{stopped:?}");
}

#[test]
fn a_root_that_dies_stops_the_leaves() {
    let mut cluster = Cluster::start(1, |client| async move {
        client.search("word".into(), Duration::from_secs(10)).await;
    });
    slow(&cluster);
    cluster.run_until(SEARCHING);
    assert!(cluster.log.running() >= 2, "{:?}", cluster.log.calls());
    cluster.sim.crash(ROOT);
    let calls = cluster.run_to_rest();
    let stopped = last(&calls, How::Cancelled);
    assert!(stopped <= SEARCHING + MESSAGE, "{stopped:?}");
}

#[test]
fn a_search_expires_at_its_timeout_and_the_leaves_stop_then() {
    let timeout = Duration::from_millis(200);
    let mut cluster = Cluster::start(1, move |client| async move {
        client.search("word".into(), timeout).await;
    });
    slow(&cluster);
    let ended = cluster.run_to(1).remove(0);
    assert_eq!(ended.outcome, Err(Kind::Expired));
    // A part of the time is kept for merging.
    assert!(ended.took() >= timeout * 9 / 10 && ended.took() <= timeout + MESSAGE * 2, "{ended:?}");
    let calls = cluster.run_to_rest();
    let stopped = searches(&calls).iter().filter_map(|call| call.ended).max_by_key(|ended| ended.0);
    let (stopped, _) = stopped.expect("the leaves searched");
    assert!(stopped <= timeout + MESSAGE * 2, "{calls:?}");
    // What the first calls took is gone when the next ones are sent.
    let left: Vec<_> = searches(&calls).iter().map(|call| call.left + call.began).collect();
    assert!(left.iter().all(|end| *end <= timeout + MESSAGE), "{calls:?}");
}

#[test]
fn a_second_replica_gets_the_time_that_is_left() {
    let timeout = Duration::from_millis(700);
    let mut cluster = Cluster::start(1, move |client| async move {
        client.search("word".into(), timeout).await;
    });
    slow(&cluster);
    let ended = cluster.run_to(1).remove(0);
    assert_eq!(ended.outcome, Err(Kind::Expired));
    // A part of the time is kept for merging.
    assert!(ended.took() >= timeout * 9 / 10 && ended.took() <= timeout + MESSAGE * 2, "{ended:?}");
    let calls = cluster.run_to_rest();
    let attempt = root::Settings::default().attempt_timeout;
    // The second is asked when the first is late: before it is overdue.
    let first = searches(&calls).iter().map(|call| call.began).min().expect("the leaves searched");
    let second: Vec<_> =
        searches(&calls).into_iter().filter(|call| call.began > first + MESSAGE * 2).collect();
    assert!(!second.is_empty() && second.iter().any(|call| call.began < attempt), "{calls:?}");
    assert!(second.iter().all(|call| call.left + call.began <= timeout + MESSAGE), "{calls:?}");
    let stopped = searches(&calls).iter().filter_map(|call| call.ended).max_by_key(|ended| ended.0);
    assert!(stopped.expect("the leaves searched").0 <= timeout + MESSAGE * 2, "{calls:?}");
}

#[test]
fn leaves_that_cannot_be_told_stop_at_the_deadline() {
    let timeout = Duration::from_millis(400);
    let mut cluster = Cluster::start(1, move |client| async move {
        let search = client.search("word".into(), timeout);
        let _ended = tokio::time::timeout(SEARCHING + MESSAGE, search).await;
    });
    slow(&cluster);
    cluster.run_until(SEARCHING);
    (0..LEAVES).for_each(|leaf| cluster.sim.partition(ROOT, name(leaf)));
    let calls = cluster.run_to_rest();
    let stopped = last(&calls, How::Expired);
    assert!(stopped <= timeout + MESSAGE, "{stopped:?}");
}
