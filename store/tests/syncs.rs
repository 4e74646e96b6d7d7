//! Counts the syncs of file and folder before each ack, as the kernel saw them.
#![cfg(unix)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use model::ids::{DefinitionNumber, Epoch, Seq, ShardId};
use store::{Appended, Body, Record, Store};

/// Marks a folder as this test's, so that nobody runs [`child`] elsewhere.
const MARK: &str = "syncs-test";
const ACKS: u64 = 5;

/// The traced process: appends records and prints a line for each ack.
#[tokio::test(flavor = "current_thread")]
#[ignore = "run under strace by the test below"]
async fn child() {
    if !Path::new(MARK).exists() {
        return;
    }
    let store = Store::local(Path::new("data")).unwrap();
    let uid = store.uid();
    for seq in 1..=ACKS {
        let record = Record {
            seq: Seq(seq),
            epoch: Epoch(1),
            nonce: store.nonce(),
            definition: DefinitionNumber(1),
            body: Body::Fence,
        };
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        let appended = store.append(&uid, ShardId(0), &record, deadline).await.unwrap();
        assert_eq!(appended, Appended::Mine);
        eprintln!("ack {seq}");
    }
}

#[test]
fn file_and_folder_are_synced_before_each_ack() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(MARK), "").unwrap();
    let trace = folder.path().join("trace");
    let status = Command::new("strace")
        .args(["-f", "-y", "-s", "200", "-o"])
        .arg(&trace)
        .args(["-e", "trace=fsync,fdatasync,link,linkat,rename,renameat,renameat2,write"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
        .current_dir(folder.path())
        .output();
    let output = match status {
        Ok(output) => output,
        Err(error) => return eprintln!("skipped: strace cannot be started ({error}); see ./check"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && said.contains("ptrace") {
        return eprintln!("skipped: tracing is forbidden here: {said}");
    }
    assert!(output.status.success(), "{said}");

    let trace = std::fs::read_to_string(&trace).unwrap();
    let mut seen = Seen::default();
    let mut acks = 0;
    for line in completed(&trace) {
        if line.contains("write(2<") && line.contains("\"ack ") {
            acks += 1;
            assert!(
                seen.file_synced && seen.linked && seen.folder_synced,
                "ack {acks} came before its syncs ({seen:?}):\n{trace}"
            );
            seen = Seen::default();
        } else {
            seen.note(&line, acks + 1);
        }
    }
    assert_eq!(acks, ACKS, "{trace}");
}

/// What happened since the last ack, in the only order that is durable.
#[derive(Debug, Default)]
struct Seen {
    file_synced: bool,
    linked: bool,
    folder_synced: bool,
}

impl Seen {
    fn note(&mut self, line: &str, seq: u64) {
        let record = format!("/wal/{seq:020}");
        let done = line.trim_end().ends_with("= 0");
        let sync = done && (line.contains("fsync(") || line.contains("fdatasync("));
        if sync && line.contains(&record) {
            self.file_synced = true;
        } else if self.file_synced && done && line.contains("link") && line.contains(&record) {
            self.linked = true;
        } else if self.linked && sync && line.contains("/wal>") {
            self.folder_synced = true;
        }
    }
}

/// The trace's calls at the moment they returned: one that another thread
/// interrupted is put together again.
fn completed(trace: &str) -> Vec<String> {
    let mut begun = std::collections::HashMap::new();
    let mut lines = Vec::new();
    for line in trace.lines() {
        let (pid, call) = line.split_once(' ').unwrap_or(("", line));
        if let Some(start) = call.strip_suffix(" <unfinished ...>") {
            // What a write says is out before the call returns.
            if start.contains("\"ack ") {
                lines.push(start.to_owned());
            } else {
                begun.insert(pid.to_owned(), start.to_owned());
            }
        } else if let Some((_, end)) = call.split_once(" resumed>") {
            if let Some(start) = begun.remove(pid) {
                lines.push(start + end);
            }
        } else {
            lines.push(call.to_owned());
        }
    }
    lines
}
