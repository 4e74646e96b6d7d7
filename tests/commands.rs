//! Typing wrong things: one line that says what is wrong and what to do, an
//! exit code that means it, and nothing lost.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod support;

use std::net::TcpListener;
use std::process::Stdio;

use support::{Up, run};

fn refuses(arguments: &[&str], code: i32, says: &[&str]) {
    let (status, _, stderr) = run(arguments);
    assert_eq!(status, Some(code), "{arguments:?}: {stderr}");
    for text in says {
        assert!(stderr.contains(text), "{arguments:?} does not say {text:?}: {stderr}");
    }
    assert_eq!(stderr.trim_end().lines().count(), 1, "more than a line: {stderr}");
}

#[test]
fn wrong_command_lines_say_what_would_be_right() {
    refuses(&["up", "--no-such-flag"], 2, &["--no-such-flag", "--help"]);
    refuses(&["laod"], 2, &["load"]);
    refuses(&["load", "x.ndjson"], 2, &["--index"]);
    refuses(&["up", "--public", "nowhere"], 2, &["--public"]);
    let (status, stdout, _) = run(&["--help"]);
    assert_eq!(status, Some(0));
    assert!(stdout.contains("Exit codes"));
}

#[test]
fn a_server_that_is_away_is_named() {
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{away}");
    refuses(&["search", "x", "y", "--url", &url], 3, &[&url, "windrow up"]);
    refuses(&["search", "x", "y", "--url", "https://127.0.0.1:1"], 1, &["TLS"]);
}

#[test]
fn a_missing_file_is_named() {
    refuses(
        &["load", "/no/such/file.ndjson", "--index", "x"],
        1,
        &["/no/such/file.ndjson", "check the path"],
    );
    refuses(&["demo", "--corpus", "/no/such/corpus"], 1, &["/no/such/corpus"]);
}

#[test]
fn a_port_in_use_and_a_folder_that_cannot_be_written_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refuses(&["up", "--data", data, "--public", &address], 1, &[&address, "--public"]);
    // Nobody writes there, root included.
    refuses(&["up", "--data", "/proc/windrow", "--public", "127.0.0.1:0"], 1, &["/proc/windrow", "--data"]);
}

#[test]
fn a_second_process_on_the_folder_names_the_holder() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path());
    let data = folder.path().to_str().unwrap();
    let holder = format!("process {}", up.pid());
    refuses(&["up", "--data", data, "--public", "127.0.0.1:0"], 1, &[&holder, "in use", "--data"]);
    assert_eq!(up.interrupt(), Some(0));
    // And the folder is free again.
    assert_eq!(Up::start(folder.path()).interrupt(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn loading_twice_changes_nothing_and_bad_lines_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder.path().join("data"));
    let file = folder.path().join("docs.ndjson");
    std::fs::write(&file, "{\"title\":\"One graph\",\"year\":1}\n{\"title\":\"Two graphs\",\"year\":2}\n")
        .unwrap();
    let file = file.to_str().unwrap();
    for _ in 0..2 {
        let (status, stdout, stderr) = run(&["load", file, "--index", "docs", "--url", &up.url]);
        assert_eq!(status, Some(0), "{stderr}");
        assert!(stdout.contains("2 documents in docs (0 rejected)"), "{stdout}");
    }
    let bad = folder.path().join("bad.ndjson");
    std::fs::write(&bad, "{\"id\":\"a\",\"year\":\"soon\"}\n{\"id\":\"b\",\"year\":3,\"title\":\"Three\"}\n")
        .unwrap();
    let (status, stdout, stderr) = run(&["load", bad.to_str().unwrap(), "--index", "docs", "--url", &up.url]);
    assert_eq!(status, Some(1));
    assert!(
        stdout.contains("document 1") && stdout.contains("year") && stdout.contains("\"soon\""),
        "{stdout}"
    );
    assert!(stderr.contains("1 of 2 documents did not go in"), "{stderr}");

    // What was loaded is found at once, and so is a write that waited.
    up.client.documents("docs", "{\"id\":\"c\",\"title\":\"Four\"}".into(), true).await.unwrap();
    let (status, stdout, _) = run(&["search", "docs", "graph*", "--output", "json", "--url", &up.url]);
    assert_eq!(status, Some(0));
    let answer: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(answer["total"]["value"], 2);
    let (status, _, stderr) = run(&["search", "docs", "(graph", "--url", &up.url]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("at column 1"), "{stderr}");
    let (status, _, stderr) = run(&["search", "nothing", "x", "--url", &up.url]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("docs"), "{stderr}");
    assert_eq!(up.interrupt(), Some(0));
}

/// Runs with the given standard output: the exit code, and standard error.
fn run_into(output: impl Into<Stdio>, arguments: &[&str]) -> (Option<i32>, String) {
    let ran = support::windrow().args(arguments).stdout(output).output().unwrap();
    (ran.status.code(), String::from_utf8(ran.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_reading_the_output_breaks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder.path().join("data"));
    let file = folder.path().join("docs.ndjson");
    std::fs::write(&file, "{\"title\":\"One graph\"}\n").unwrap();
    for arguments in [
        &["load", file.to_str().unwrap(), "--index", "docs", "--url", &up.url][..],
        &["search", "docs", "graph", "--url", &up.url],
        &["completions", "bash"],
    ] {
        // As `| true` has it, which has ended.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(run_into(writer, arguments), (Some(0), String::new()), "{arguments:?}");
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let (status, stderr) = run_into(full, arguments);
        assert_eq!((status, stderr.lines().count()), (Some(1), 1), "{arguments:?}: {stderr}");
        assert!(stderr.contains("standard output"), "{stderr}");
    }
    // Nor who reads no errors: the status says what there is to say.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let arguments = ["search", "nope", "graph", "--url", &up.url];
    let failed = support::windrow().args(arguments).stderr(writer).status().unwrap();
    assert_eq!(failed.code(), Some(1));
}

/// The threads of a process: their names and how far they yield (`nice`).
fn threads(pid: u32) -> Vec<(String, i32)> {
    let stat = |task: std::io::Result<std::fs::DirEntry>| {
        // One may end meanwhile.
        let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
        Some((name.to_owned(), rest.split(' ').nth(16)?.parse().ok()?))
    };
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().filter_map(stat).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn searching_yields_to_answering_and_indexing_to_both() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path());
    up.client.documents("docs", "{\"id\":\"a\",\"title\":\"One\"}".into(), true).await.unwrap();
    let threads = threads(up.pid());
    let nice = |name: &str| {
        let of = threads.iter().filter(|(thread, _)| thread.starts_with(name));
        of.map(|(_, nice)| *nice).collect::<std::collections::BTreeSet<i32>>()
    };
    let (answering, searching, indexing) = (nice("tokio"), nice("leaf-"), nice("thrd-tantivy"));
    assert!(!answering.is_empty() && !searching.is_empty() && !indexing.is_empty(), "{threads:?}");
    assert!(answering.last() < searching.first(), "{threads:?}");
    assert!(searching.last() < indexing.first(), "{threads:?}");
}

#[test]
fn writes_are_refused_before_the_disk_is_full() {
    use std::process::Command;
    let folder = tempfile::tempdir().unwrap();
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]).arg(folder.path()).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        println!("skipped: a small disk cannot be mounted here");
        return;
    }
    let up = Up::start(&folder.path().join("data"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let written = runtime.block_on(up.client.documents("full", "{\"id\":\"a\"}".into(), false)).unwrap();
    assert_eq!(written.accepted, 0);
    let failure = &written.failures[0];
    assert!(failure.retry && failure.reason.contains("free some space"), "{}", failure.reason);
    assert_eq!(up.interrupt(), Some(0));
    let unmounted = Command::new("umount").arg(folder.path()).status().unwrap();
    assert!(unmounted.success());
}

#[test]
fn a_read_only_disk_is_named() {
    use std::process::Command;
    let folder = tempfile::tempdir().unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "ro", "tmpfs"]).arg(folder.path()).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        println!("skipped: a read-only disk cannot be mounted here");
        return;
    }
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    refuses(&["up", "--data", data, "--public", "127.0.0.1:0"], 1, &[data, "Read-only", "--data"]);
    let unmounted = Command::new("umount").arg(folder.path()).status().unwrap();
    assert!(unmounted.success());
}

/// Runs a command with variables; returns exit code and stderr.
fn run_with(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = support::windrow().args(arguments).envs(variables.iter().copied()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn node_refuses(arguments: &[&str], variables: &[(&str, &str)], says: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let mut all = vec!["node", "--data", data, "--public", "127.0.0.1:0", "--internal", "127.0.0.1:0"];
    all.extend(arguments);
    let (status, stderr) = run_with(&all, variables);
    assert_eq!(status, Some(1), "{arguments:?}: {stderr}");
    for text in says {
        assert!(stderr.contains(text), "{arguments:?} does not say {text:?}: {stderr}");
    }
    let told = stderr.lines().filter(|line| line.starts_with("windrow: ")).count();
    assert_eq!(told, 1, "one line says what and what to do: {stderr}");
}

#[test]
fn wrong_settings_of_a_node_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("file://{}", folder.path().display());
    node_refuses(&[], &[], &["--store", "s3://bucket/prefix"]);
    node_refuses(&["--store", &store], &[], &["--coordinator", "etcd://host:port"]);
    node_refuses(&["--store", "ftp://x", "--coordinator", "embedded"], &[], &["--store", "ftp://x"]);
    node_refuses(&["--store", &store, "--coordinator", "zk://x"], &[], &["zk://x", "etcd://host:port"]);
    let good = ["--store", store.as_str(), "--coordinator", "embedded"];
    node_refuses(&good, &[("WINDROW_LAESE", "2s")], &["WINDROW_LAESE", "WINDROW_LEASE"]);
    let everywhere = [&good[..], &["--internal", "0.0.0.0:0"]].concat();
    let (status, stderr) = run_with(
        &[&["node", "--public", "127.0.0.1:0", "--data", folder.path().to_str().unwrap()], &everywhere[..]]
            .concat(),
        &[],
    );
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("--advertise"), "{stderr}");
    let file = folder.path().join("windrow.toml");
    std::fs::write(&file, "store = \"file:///x\"\nlaese = \"2s\"\n").unwrap();
    node_refuses(&["--config", file.to_str().unwrap()], &[], &["windrow.toml", "line 2", "laese"]);
    node_refuses(&["--config", "/no/such/file.toml"], &[], &["/no/such/file.toml", "--config"]);
}

#[test]
fn a_wrong_bucket_and_wrong_credentials_are_named() {
    let Some(moto) = store::moto::Moto::strict() else { return };
    let store = ["--store", "s3://no-such-bucket/x", "--coordinator", "embedded"];
    let keys = |key: &'static str, secret: &'static str| {
        [("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", secret), ("AWS_REGION", "us-east-1")]
    };
    let endpoint = ("AWS_ENDPOINT_URL", moto.endpoint.as_str());
    let wrong = [&keys("wrong", "wrong")[..], &[endpoint]].concat();
    moto.create_bucket("docs");
    let there = ["--store", "s3://docs/x", "--coordinator", "embedded"];
    node_refuses(&there, &wrong, &["AWS_ACCESS_KEY_ID"]);
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dead = format!("http://{dead}");
    let away = [&keys("k", "s")[..], &[("AWS_ENDPOINT_URL", dead.as_str())]].concat();
    node_refuses(&store, &away, &[&dead, "AWS_ENDPOINT_URL"]);
    let Some(open) = store::moto::Moto::start() else { return };
    let missing = [&keys("k", "s")[..], &[("AWS_ENDPOINT_URL", open.endpoint.as_str())]].concat();
    node_refuses(&store, &missing, &["no-such-bucket", "--store"]);
}
