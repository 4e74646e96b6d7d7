//! What every coordinator does; one suite for all.

use std::time::Duration;

use crate::coordinator::{Coordinator, Event, Expect, Put};

fn put(key: &str, value: &str, expect: Expect) -> Put {
    Put { key: key.to_owned(), value: value.into(), expect, lease: None, guard: None }
}

/// Runs the suite on an empty coordinator.
///
/// # Panics
/// When a rule is broken.
pub async fn suite(coordinator: &dyn Coordinator) {
    compare_and_swap(coordinator).await;
    guards(coordinator).await;
    leases(coordinator).await;
    watches(coordinator).await;
}

async fn compare_and_swap(coordinator: &dyn Coordinator) {
    let first = coordinator.put(put("a/1", "x", Expect::Absent)).await.expect("puts").expect("is new");
    assert_eq!(coordinator.put(put("a/1", "y", Expect::Absent)).await.expect("answers"), None);
    let second =
        coordinator.put(put("a/1", "y", Expect::Revision(first))).await.expect("puts").expect("swaps");
    assert!(second > first, "revisions rise");
    assert_eq!(coordinator.put(put("a/1", "z", Expect::Revision(first))).await.expect("answers"), None);
    coordinator.put(put("a/2", "w", Expect::Any)).await.expect("puts");
    coordinator.put(put("b/1", "w", Expect::Any)).await.expect("puts");
    let listed = coordinator.list("a/").await.expect("lists");
    let keys: Vec<_> = listed.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["a/1", "a/2"]);
    assert_eq!(listed[0].value, b"y");
    assert!(!coordinator.delete("a/1", Expect::Revision(first)).await.expect("answers"));
    assert!(coordinator.delete("a/1", Expect::Any).await.expect("deletes"));
    assert_eq!(coordinator.get("a/1").await.expect("answers"), None);
}

async fn guards(coordinator: &dyn Coordinator) {
    let guard = coordinator.put(put("guard", "me", Expect::Any)).await.expect("puts").expect("puts");
    let guarded = Put { guard: Some(("guard".to_owned(), guard)), ..put("guarded", "1", Expect::Any) };
    assert!(coordinator.put(guarded.clone()).await.expect("answers").is_some());
    coordinator.put(put("guard", "other", Expect::Any)).await.expect("puts");
    assert_eq!(coordinator.put(guarded).await.expect("answers"), None);
}

async fn leases(coordinator: &dyn Coordinator) {
    let ttl = Duration::from_secs(2);
    let lease = coordinator.grant(ttl).await.expect("grants");
    let leased = Put { lease: Some(lease), ..put("leased", "1", Expect::Any) };
    coordinator.put(leased.clone()).await.expect("puts").expect("puts");
    for _ in 0..4 {
        tokio::time::sleep(ttl / 2).await;
        assert!(coordinator.keep_alive(lease).await.expect("answers"), "a kept lease lives");
    }
    assert!(coordinator.get("leased").await.expect("answers").is_some());
    tokio::time::sleep(ttl * 2).await;
    assert!(coordinator.get("leased").await.expect("answers").is_none(), "keys end with their lease");
    assert!(!coordinator.keep_alive(lease).await.expect("answers"));
    assert!(coordinator.put(leased).await.is_err(), "an ended lease holds nothing");
    let lease = coordinator.grant(ttl).await.expect("grants");
    coordinator.put(Put { lease: Some(lease), ..put("leased", "1", Expect::Any) }).await.expect("puts");
    coordinator.revoke(lease).await.expect("revokes");
    assert!(coordinator.get("leased").await.expect("answers").is_none());
}

async fn watches(coordinator: &dyn Coordinator) {
    let mut watch = coordinator.watch("w/").await.expect("watches");
    coordinator.put(put("w/1", "x", Expect::Any)).await.expect("puts");
    coordinator.put(put("v/1", "x", Expect::Any)).await.expect("puts");
    coordinator.put(put("w/1", "y", Expect::Any)).await.expect("puts");
    coordinator.delete("w/1", Expect::Any).await.expect("deletes");
    for expected in [Some("x"), Some("y"), None] {
        match (watch.recv().await.expect("tells"), expected) {
            (Event::Put(entry), Some(value)) => assert_eq!(entry.value, value.as_bytes()),
            (Event::Delete { key, .. }, None) => assert_eq!(key, "w/1"),
            (other, _) => panic!("{other:?} instead of {expected:?}"),
        }
    }
}
