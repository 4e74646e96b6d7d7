//! The client against a server that says what it is told to.

use std::cell::Cell;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Answers one request with `reply` and returns the client's result and the
/// request's text.
async fn exchange<T>(reply: &str, call: impl AsyncFnOnce(Client) -> T) -> (T, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(&listener.local_addr().unwrap().to_string()).unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = Vec::new();
        loop {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.unwrap();
            text.extend_from_slice(&buffer[..read]);
            let seen = String::from_utf8_lossy(&text).to_lowercase();
            let Some((head, body)) = seen.split_once("\r\n\r\n") else {
                continue;
            };
            let length =
                head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                break;
            }
        }
        stream.write_all(reply.as_bytes()).await.unwrap();
        String::from_utf8(text).unwrap()
    };
    tokio::join!(call(client), serve)
}

fn reply(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

#[test]
fn urls_are_checked() {
    for good in ["http://127.0.0.1:7700", "127.0.0.1:7700", "localhost:7700/", "http://[::1]:7700", " host "]
    {
        assert!(Client::new(good).is_ok(), "{good}");
    }
    assert_eq!(Client::new("box:1").unwrap().url(), "http://box:1");
    for (bad, said) in [
        ("https://box", "TLS is not built in yet"),
        ("ftp://box", "not http"),
        ("", "it is none"),
        ("http://box/v1", "only a host"),
        ("http://box:port", "it is none"),
    ] {
        let error = Client::new(bad).unwrap_err().to_string();
        assert!(error.contains(said), "{bad}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = Client::new(&address.to_string()).unwrap();
    let error = client.list_indexes().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "no Windrow answers at http://{address}: start one with `windrow up`, or name another with --url"
        )
    );
    assert!(error.retryable());
}

#[tokio::test]
async fn a_broken_connection_is_told() {
    let (result, _) = exchange("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", async |client| {
        client.list_indexes().await
    })
    .await;
    assert!(matches!(result, Err(Error::Broken { .. })), "{result:?}");
}

#[tokio::test]
async fn a_search_is_sent_and_read() {
    let body = r#"{"hits": [{"id": "a", "score": 0.90000004, "document": {"x":  1}}], "total": {"value": 3, "relation": "gte"},
        "coverage": {"shards": 4, "answered": 4, "missing": [], "documents": 1.0}, "cut": 12, "took_us": 812, "cache": "miss"}"#;
    let request = SearchRequest::new("cat").limit(1_usize).timeout(Duration::from_millis(500)).count("none");
    let (answer, sent) =
        exchange(&reply("200 OK", "", body), async |client| client.search("papers", &request).await).await;
    let answer = answer.unwrap();
    assert_eq!(answer.hits[0].score.to_bits(), 0.900_000_04_f32.to_bits());
    assert_eq!(answer.hits[0].document.as_ref().unwrap().get(), "{\"x\":  1}");
    assert_eq!(answer.total.unwrap().value, 3);
    assert!(sent.starts_with("POST /v1/indexes/papers/search HTTP/1.1\r\n"), "{sent}");
    assert!(sent.ends_with(r#"{"query":"cat","limit":1,"count":"none","timeout":"500ms"}"#), "{sent}");
}

#[tokio::test]
async fn a_refusal_keeps_its_parts() {
    let body = r#"{"type": "x", "detail": "query: a quote is missing", "position": 3, "column": 2}"#;
    let reply = reply("503 Busy", "retry-after: 7\r\n", body);
    let (result, _) =
        exchange(&reply, async |client| client.search("papers", &SearchRequest::new("\"")).await).await;
    let Err(Error::Refused(problem)) = result else { panic!("{result:?}") };
    assert_eq!(problem.to_string(), "query: a quote is missing");
    assert_eq!(
        (problem.kind, problem.position, problem.column),
        (proto::Kind::Unavailable, Some(3), Some(2))
    );
    assert_eq!(problem.retry_after, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn failed_lines_are_a_value_even_when_all_failed() {
    let body = r#"{"type": "x", "detail": "no document went in", "accepted": 0, "rejected": 1,
        "failures": [{"line": 2, "id": null, "reason": "no id", "kind": "invalid", "retry": false}]}"#;
    let (written, sent) = exchange(&reply("400 Bad", "", body), async |client| {
        client.documents("papers", "{}".into(), true).await
    })
    .await;
    assert_eq!(written.unwrap().failures[0].line, 2);
    assert!(sent.starts_with("POST /v1/indexes/papers/documents?refresh=wait "), "{sent}");
    let (written, _) = exchange(&reply("413 Large", "", r#"{"detail": "split it"}"#), async |client| {
        client.documents("papers", "{}".into(), false).await
    })
    .await;
    assert_eq!(written.unwrap_err().to_string(), "split it");
}

#[tokio::test]
async fn ids_are_escaped() {
    let (result, sent) =
        exchange(&reply("200 OK", "", "{}"), async |client| client.document("papers", "a/b c?ü", None).await)
            .await;
    assert_eq!(result.unwrap().unwrap(), "{}");
    assert!(sent.starts_with("GET /v1/indexes/papers/documents/a%2Fb%20c%3F%C3%BC "), "{sent}");
    let client = Client::new("127.0.0.1:1").unwrap();
    for id in ["", ".", ".."] {
        let result = client.delete_document("papers", id, false).await;
        assert_eq!(result, Err(Error::Id { id: id.into() }));
    }
}

#[tokio::test]
async fn a_stranger_is_told_from_windrow() {
    let (result, _) = exchange(&reply("200 OK", "", "<html>"), async |client| client.cluster().await).await;
    assert!(result.unwrap_err().to_string().contains("something else listening"));
    let (result, _) = exchange(&reply("502 Bad", "", "<html>"), async |client| client.cluster().await).await;
    assert_eq!(result.unwrap_err().to_string(), "the server answered 502: <html>");
}

#[tokio::test(start_paused = true)]
async fn retries_are_bounded_and_only_for_what_may_pass() {
    let calls = Cell::new(0);
    let fail = |error: Error| {
        calls.set(calls.get() + 1);
        async move { Err::<(), _>(error) }
    };
    let away = Error::Away { url: "x".into() };
    let retry = Retry { attempts_max: 5, ..Retry::default() };
    assert_eq!(retry.run(|| fail(away.clone())).await, Err(away));
    assert_eq!(calls.replace(0), 5);
    let bad = Error::Answer { reason: "x".into() };
    assert_eq!(retry.run(|| fail(bad.clone())).await, Err(bad));
    assert_eq!(calls.replace(0), 1);
    assert_eq!(retry.run(|| async { Ok(7) }).await, Ok(7));
}

#[test]
fn pauses_double_up_to_a_bound_and_follow_the_server() {
    let retry = Retry::default();
    assert_eq!(retry.pause(1, None, 1.0), Duration::from_millis(100));
    assert_eq!(retry.pause(1, None, 0.0), Duration::from_millis(50));
    assert_eq!(retry.pause(4, None, 1.0), Duration::from_millis(800));
    assert_eq!(retry.pause(u32::MAX, None, 1.0), retry.pause_max);
    assert_eq!(retry.pause(1, Some(Duration::from_secs(2)), 0.0), Duration::from_secs(2));
    assert_eq!(retry.pause(1, Some(Duration::from_secs(9_999)), 0.0), retry.pause_max);
}
