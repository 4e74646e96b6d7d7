//! The coordinator in a real etcd: the suite that every coordinator passes,
//! and what only a process can do: pause, restart, forget its history.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::time::Duration;

use cluster::coordinator::{Coordinator, Event, Expect, Put, Watch};
use cluster::{Etcd, process::Process};
use runtime::{Shutdown, TaskScope};

fn put(key: &str, value: &str) -> Put {
    Put { key: key.to_owned(), value: value.into(), expect: Expect::Any, lease: None, guard: None }
}

fn client(process: &Process) -> (Etcd, TaskScope) {
    let scope = TaskScope::new(&Shutdown::new());
    (Etcd::new(&[process.address()], "windrow-test/", scope.clone()).unwrap(), scope)
}

async fn next(watch: &mut Watch) -> Event {
    let told = tokio::time::timeout(Duration::from_secs(30), watch.recv());
    told.await.expect("the watch tells in time").expect("the watch goes on")
}

/// Puts until it is acknowledged: what a caller does when etcd comes back.
async fn insist(etcd: &Etcd, put: Put) {
    let insisting = async { while etcd.put(put.clone()).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(30), insisting).await.expect("etcd comes back");
}

#[tokio::test]
async fn it_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let Some(process) = Process::start(folder.path()) else { return };
    let (etcd, _scope) = client(&process);
    cluster::conformance::suite(&etcd).await;
    // More keys than a page holds come in order, and none twice.
    for n in 0..600 {
        etcd.put(put(&format!("many/{n:03}"), "x")).await.unwrap();
    }
    let keys: Vec<String> = etcd.list("many/").await.unwrap().into_iter().map(|entry| entry.key).collect();
    assert!(keys.iter().eq((0..600).map(|n| format!("many/{n:03}")).collect::<Vec<_>>().iter()));
}

#[tokio::test]
async fn a_watch_survives_a_restart_and_misses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut process) = Process::start(folder.path()) else { return };
    let (etcd, _scope) = client(&process);
    let mut watch = etcd.watch("k/").await.unwrap();
    etcd.put(put("k/1", "before")).await.unwrap();
    assert!(matches!(next(&mut watch).await, Event::Put(entry) if entry.value == b"before"));
    process.restart();
    // Written before the watch is back, by another client.
    let (other, _scope) = client(&process);
    insist(&other, put("k/2", "between")).await;
    other.delete("k/1", Expect::Any).await.unwrap();
    assert!(matches!(next(&mut watch).await, Event::Put(entry) if entry.key == "k/2"));
    assert!(matches!(next(&mut watch).await, Event::Delete { key, .. } if key == "k/1"));
}

#[tokio::test]
async fn a_watch_that_missed_a_compaction_is_told_to_list_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut process) = Process::start(folder.path()) else { return };
    let (etcd, _scope) = client(&process);
    let mut watch = etcd.watch("k/").await.unwrap();
    etcd.put(put("k/1", "1")).await.unwrap();
    next(&mut watch).await;
    // The watch cannot hear what happens while etcd is stopped for it alone:
    // its process is killed, and history goes on and is compacted at once.
    process.kill();
    process.restart();
    let (other, _scope) = client(&process);
    let mut last = None;
    for n in 0..50 {
        insist(&other, put("k/2", &n.to_string())).await;
        last = other.get("k/2").await.unwrap();
    }
    process.compact(last.unwrap().revision);
    insist(&other, put("k/3", "after")).await;
    // It hears everything, or that it missed something; then what comes after.
    loop {
        match next(&mut watch).await {
            Event::Resync => {
                assert!(etcd.get("k/3").await.unwrap().is_some());
                break;
            }
            Event::Put(entry) if entry.key == "k/3" => break,
            _ => {}
        }
    }
    insist(&other, put("k/4", "later")).await;
    loop {
        if matches!(next(&mut watch).await, Event::Put(entry) if entry.key == "k/4") {
            break;
        }
    }
}

#[tokio::test]
async fn a_paused_etcd_is_an_error_and_then_answers_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some(process) = Process::start(folder.path()) else { return };
    let (etcd, _scope) = client(&process);
    etcd.put(put("k", "1")).await.unwrap();
    process.signal("STOP");
    let error = etcd.get("k").await.unwrap_err();
    assert_eq!(error.kind, proto::Kind::Unavailable);
    assert!(error.message.contains(&process.address()), "{error}");
    process.signal("CONT");
    insist(&etcd, put("k", "2")).await;
    assert_eq!(etcd.get("k").await.unwrap().unwrap().value, b"2");
}

#[tokio::test]
async fn a_dead_member_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let Some(process) = Process::start(folder.path()) else { return };
    let scope = TaskScope::new(&Shutdown::new());
    let dead = cluster::process::free_port().to_string();
    let etcd = Etcd::new(&[dead, process.address()], "", scope).unwrap();
    assert_eq!(etcd.get("k").await.unwrap(), None);
    etcd.put(put("k", "1")).await.unwrap();
    assert_eq!(etcd.list("").await.unwrap().len(), 1);
}
