//! `windrow bench` as its user has it.

mod support;

use std::path::Path;

use client::{IndexRequest, SearchRequest};
use load::Report;
use support::{Up, run, windrow};

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().expect("a temporary path is text").to_owned()
}

#[tokio::test]
async fn a_load_is_measured_kept_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder.path().join("data"));
    let schema =
        serde_json::from_str(r#"{"fields": {"body": {"type": "text"}}, "default_fields": ["body"]}"#);
    let request = IndexRequest { schema: Some(schema.unwrap()), ..IndexRequest::default() };
    up.client.create_index("papers", &request).await.unwrap();
    let body: String = (0..50).map(|n| format!("{{\"id\":\"{n}\",\"body\":\"hay {n}\"}}\n")).collect();
    let written = up.client.documents("papers", body.into(), true).await.unwrap();
    let seen = SearchRequest::new("hay").token(written.token.unwrap());
    assert_eq!(up.client.search("papers", &seen).await.unwrap().total.unwrap().value, 50);

    let queries = path(folder.path(), "queries.txt");
    std::fs::write(&queries, "hay\nnothing\n").unwrap();
    let (json, html) = (path(folder.path(), "run.json"), path(folder.path(), "run.html"));
    let common = ["--index", "papers", "--queries", &queries, "--url", &up.url, "--warm-up", "200ms"];
    let mut arguments = vec!["bench", "run", "--rate", "100,200", "--duration", "2s"];
    arguments.extend(common);
    arguments.extend(["--json", &json, "--html", &html]);
    let (code, out, err) = run(&arguments);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("100/s") && out.contains("200/s"), "{out}");
    let report = Report::read(Path::new(&json)).unwrap();
    assert_eq!(report.runs.len(), 2);
    for run in &report.runs {
        assert!(run.answered > 100 && run.failures() == 0, "{:?}", run.failed);
        let share = run.empty as f64 / run.answered as f64;
        assert!((0.3..0.7).contains(&share), "half of the queries find nothing: {share}");
        // The server is of this machine: its counters and CPU are seen.
        assert!(run.server_cpu.is_some() && run.counters["searches"] > 100.0, "{:?}", run.counters);
    }
    assert!(report.command.contains("bench run --rate 100,200"), "{}", report.command);
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.contains("<svg") && !page.contains("src=\"http"));

    for more in [["--in-flight", "4"], ["--protocol", "grpc"]] {
        let mut arguments = vec!["bench", "run", "--duration", "1s"];
        arguments.extend(common);
        arguments.extend(more);
        let (code, out, err) = run(&arguments);
        assert_eq!(code, Some(0), "{out}{err}");
    }
    let (code, out, err) = run(&["bench", "compare", &json, &json]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("noise") && !out.contains("slower"), "a report is not slower than itself: {out}");
}

#[tokio::test]
async fn a_load_of_documents_tells_its_cost_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder.path().join("data"));
    let file = path(folder.path(), "documents.ndjson");
    let lines: Vec<String> = (0..3_000).map(|n| format!("{{\"id\":\"{n}\",\"body\":\"hay {n}\"}}")).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let json = path(folder.path(), "load.json");
    let (code, _, err) = run(&["bench", "load", &file, "--url", &up.url, "--json", &json]);
    assert_eq!(code, Some(0), "{err}");
    let report = Report::read(Path::new(&json)).unwrap();
    assert!(report.runs[0].figures["documents/s"] > 0.0, "{:?}", report.runs[0].figures);
    assert_eq!(report.settings["documents"], 3_000);
    assert!(up.client.list_indexes().await.unwrap().is_empty());
}

#[test]
fn a_simulation_repeats_itself() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = path(folder.path(), "scenario.toml");
    let text = "title = \"a small one\"\nshards = 4\ncopies = 2\nqueries = 500\nload = 0.5\nseeds = 2\n\
        service = { exponential = \"1ms\" }\n";
    std::fs::write(&scenario, text).unwrap();
    let mut reports = Vec::new();
    for name in ["one.json", "two.json"] {
        let (json, trace) = (path(folder.path(), name), path(folder.path(), "trace"));
        let (code, out, err) =
            run(&["bench", "sim", "--scenario", &scenario, "--json", &json, "--trace", &trace]);
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains("a small one"), "{out}");
        let report = Report::read(Path::new(&json)).unwrap();
        reports.push((report.runs[0].latency.clone(), std::fs::read_to_string(&trace).unwrap()));
    }
    assert!(reports[0].1.lines().count() > 1_000);
    assert_eq!(reports[0], reports[1]);
}

#[test]
fn what_cannot_be_measured_is_said_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder.path().join("data"));
    let (queries, empty) = (path(folder.path(), "queries.txt"), path(folder.path(), "empty.txt"));
    std::fs::write(&queries, "hay\n").unwrap();
    std::fs::write(&empty, "").unwrap();
    let scenario = path(folder.path(), "wrong.toml");
    std::fs::write(&scenario, "title = \"t\"\nshard = 4\n").unwrap();
    let url = up.url.as_str();
    let cases: [(&[&str], i32, &str); 8] = [
        (&["--index", "papers", "--queries", "/nowhere.txt", "--url", url], 1, "/nowhere.txt"),
        (&["--index", "papers", "--queries", &empty, "--url", url], 1, "no query"),
        (&["--index", "papers", "--queries", &queries, "--url", url], 1, "no index"),
        (
            &["--index", "papers", "--queries", &queries, "--url", "http://127.0.0.1:1"],
            3,
            "no Windrow answers",
        ),
        (&["--index", "papers", "--queries", &queries, "--url", url, "--rate", "x"], 2, "--rate"),
        (&["--index", "papers", "--queries", &queries, "--url", url, "--duration", "soon"], 2, "duration"),
        (&["--index", "papers", "--queries", &queries, "--url", url, "--weights", "zipf"], 2, "zipf:S"),
        (
            &["--index", "p", "--queries", &queries, "--url", url, "--json", "/no/folder/x.json"],
            1,
            "/no/folder",
        ),
    ];
    for (arguments, code, says) in cases {
        let all: Vec<&str> = ["bench", "run"].into_iter().chain(arguments.iter().copied()).collect();
        let (ended, _, err) = run(&all);
        assert_eq!(ended, Some(code), "{arguments:?}: {err}");
        assert!(err.contains(says) && err.trim_end().lines().count() == 1, "{arguments:?}: {err}");
    }
    let (code, _, err) = run(&["bench", "sim", "--scenario", &scenario]);
    assert!(code == Some(1) && err.contains("line 2"), "{err}");
    let (code, _, err) = run(&["bench", "compare", &queries, &queries]);
    assert!(code == Some(1) && err.contains("queries.txt"), "{err}");
    let help = windrow().args(["bench", "run", "--help"]).output().unwrap();
    assert!(String::from_utf8_lossy(&help.stdout).contains("--in-flight"));
}
