//! Documents: written, read, deleted.

use super::*;

#[tokio::test]
async fn writes_tell_what_became_of_each_line() {
    let (_, router) = papers().await;
    let uri = "/v1/indexes/papers/documents";
    let all =
        ask(&router, "POST", &format!("{uri}?refresh=wait"), "[{\"id\": \"x\"}, {\"id\": \"y\"}]").await;
    assert_eq!(all.status, 200);
    assert_eq!(all.json()["accepted"], 2);
    assert_eq!(all.json()["searchable"], true);
    assert!(all.json()["token"].is_string());

    let mixed = ask(
        &router,
        "POST",
        uri,
        Bytes::from_static(b"{\"id\": \"x\"}\n\n{oops\n\xff\xfe\n{\"id\": 4}\n{\"id\":\"busy\"}"),
    )
    .await;
    assert_eq!(mixed.status, 207);
    let json = mixed.json();
    assert_eq!((&json["accepted"], &json["rejected"]), (&json!(1), &json!(4)));
    let lines: Vec<(u64, bool)> = json["failures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|failure| (failure["line"].as_u64().unwrap(), failure["retry"].as_bool().unwrap()))
        .collect();
    assert_eq!(lines, [(3, false), (4, false), (5, false), (6, true)]);

    let none = ask(&router, "POST", uri, "{\"ID\": \"x\"}").await;
    assert!(none.problem(400).contains("string \"id\""));
    assert_eq!(none.json()["failures"][0]["line"], 1);
    let busy = ask(&router, "POST", uri, "{\"id\": \"busy\"}").await;
    assert!(busy.problem(503).contains("retry them all"));
    assert_eq!(busy.headers[header::RETRY_AFTER], "1");
    let empty = ask(&router, "POST", uri, " \n \n").await;
    assert!(empty.problem(400).contains("no documents"));
    let broken = ask(&router, "POST", uri, "[{\"id\": \"1\"},\n {]").await;
    assert!(broken.problem(400).contains("line 2"));
    assert_eq!(broken.json()["line"], 2);
    let refresh = ask(&router, "POST", &format!("{uri}?refresh=now"), "{}").await;
    assert!(refresh.problem(400).contains("wait or no"));
    let parameter = ask(&router, "POST", &format!("{uri}?refrsh=wait"), "{}").await;
    assert!(parameter.problem(400).contains("there is refresh"));
    let unknown = ask(&router, "POST", "/v1/indexes/none/documents", "{\"id\": \"1\"}").await;
    unknown.problem(404);
}

#[tokio::test]
async fn an_index_is_made_at_its_first_write_where_that_is_on() {
    let (_, router) = with(Settings { auto_create: true, ..Settings::default() });
    let reply = ask(&router, "POST", "/v1/indexes/new/documents", "{\"id\": \"1\"}").await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn bodies_are_bounded() {
    let settings = Settings {
        body_bytes_max: 100,
        request_bytes_max: 50,
        bodies_bytes_max: 200 * 1024,
        ..Settings::default()
    };
    let (_, router) = with(settings);
    let uri = "/v1/indexes/papers/documents";
    let long = ask(&router, "POST", uri, "x".repeat(101)).await;
    assert!(long.problem(413).contains("split it"));
    // Without a length, and in many frames.
    let frames = || futures::stream::iter((0..11).map(|_| Ok::<_, std::io::Error>("x".repeat(10))));
    let long = ask(&router, "POST", uri, Body::from_stream(frames())).await;
    assert!(long.problem(413).contains("split it"));
    let long = ask(&router, "POST", "/v1/indexes/papers/search", "x".repeat(51)).await;
    long.problem(413);
    let request = Request::post(uri).header("content-encoding", "gzip").body(Body::from("x")).unwrap();
    assert!(ask_with(&router, request).await.problem(400).contains("send the body as it is"));
    // What was reserved is given back.
    for _ in 0..1_000 {
        ask(&router, "POST", uri, Body::from_stream(frames())).await.problem(413);
    }

    let (_, router) = with(Settings { bodies_bytes_max: 1024, ..Settings::default() });
    let full = ask(&router, "POST", uri, "x".repeat(5_000)).await;
    assert!(full.problem(429).contains("bytes of bodies"));
}

#[tokio::test]
async fn a_body_in_frames_is_one_body() {
    let (_, router) = papers().await;
    let text = "{\"id\": \"1\", \"t\": \"frame\"}\n{\"id\": \"2\", \"t\": \"frame\"}";
    let frames =
        text.as_bytes().chunks(7).map(|frame| Ok::<_, std::io::Error>(Bytes::copy_from_slice(frame)));
    let frames: Vec<_> = frames.collect();
    let body = Body::from_stream(futures::stream::iter(frames));
    let reply = ask(&router, "POST", "/v1/indexes/papers/documents", body).await;
    assert_eq!(reply.json()["accepted"], 2);
    let found = ask(&router, "GET", "/v1/indexes/papers/search?q=frame", "").await;
    assert_eq!(found.json()["total"]["value"], 2);
}

#[tokio::test]
async fn documents_are_read_and_deleted_by_id() {
    let (_, router) = papers().await;
    let reply = ask(&router, "GET", "/v1/indexes/papers/documents/b%2Fc", "").await;
    assert_eq!(reply.body, "{\"id\": \"b/c\", \"title\": \"cat cat\"}", "as it was sent");
    assert_eq!(ask(&router, "GET", "/v1/indexes/papers/documents/%C3%BC", "").await.status, 200);
    ask(&router, "GET", "/v1/indexes/papers/documents/%FF", "").await.problem(400);
    let missing = ask(&router, "GET", "/v1/indexes/papers/documents/zzz", "").await;
    assert!(missing.problem(404).contains("no document \"zzz\""));
    ask(&router, "GET", "/v1/indexes/papers/documents/a?token=1zz", "").await.problem(400);
    let deleted = ask(&router, "DELETE", "/v1/indexes/papers/documents/a?refresh=wait", "").await;
    assert_eq!((deleted.status, &deleted.json()["accepted"]), (200, &json!(1)));
    ask(&router, "GET", "/v1/indexes/papers/documents/a", "").await.problem(404);
    ask(&router, "DELETE", "/v1/indexes/none/documents/a", "").await.problem(404);
}
