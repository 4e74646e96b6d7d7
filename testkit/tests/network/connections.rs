//! What a connection owes the calls that come after trouble.

use std::time::Duration;

use proto::Kind;

use crate::hosts::{CONNECT_WITHIN, Cluster, PROBE_EVERY, ROOT, name};

/// As long as a root waits before it asks another leaf.
const PATIENCE: Duration = Duration::from_millis(500);
/// When the trouble ends.
const MENDED: Duration = Duration::from_secs(3);
/// Long after that.
const LATER: Duration = Duration::from_secs(5);

/// A leaf is asked amid trouble, and again when that is long over.
fn asked_twice(first: Result<(), Kind>) -> Cluster {
    Cluster::start(1, move |client| async move {
        assert_eq!(client.ask(0, PATIENCE).await, first);
        tokio::time::sleep(LATER - client.now()).await;
        assert_eq!(client.ask(0, PATIENCE).await, Ok(()), "long after the trouble");
        client.search("done".into(), PATIENCE).await;
    })
}

#[test]
fn who_was_refused_connects_the_next_time() {
    let mut cluster = asked_twice(Err(Kind::Unavailable));
    cluster.sim.partition(ROOT, name(0));
    cluster.run_until(MENDED);
    cluster.sim.repair(ROOT, name(0));
    cluster.run_to(1);
}

#[test]
fn a_dead_connection_is_replaced_within_two_probes() {
    let mut cluster = Cluster::start(1, |client| async move {
        assert_eq!(client.ask(0, PATIENCE).await, Ok(()));
        tokio::time::sleep(MENDED + 2 * PROBE_EVERY - client.now()).await;
        assert_eq!(client.ask(0, PATIENCE).await, Ok(()));
        client.search("done".into(), PATIENCE).await;
    });
    cluster.run_until(MENDED - PROBE_EVERY);
    // Probes are lost, and with them the connection, though the link is back.
    cluster.sim.partition(ROOT, name(0));
    cluster.run_until(MENDED);
    cluster.sim.repair(ROOT, name(0));
    cluster.run_to(1);
}

/// The connector is polled by the calls alone: one that gives up leaves it
/// where it is, with its timer.
#[test]
fn a_connect_that_failed_long_ago_fails_no_new_call() {
    let mut cluster = asked_twice(Err(Kind::Expired));
    cluster.sim.crash(name(0));
    cluster.run_until(MENDED);
    cluster.sim.bounce(name(0));
    assert!(LATER - MENDED > CONNECT_WITHIN);
    cluster.run_to(1);
}
