//! The API over a fake service: every route, every kind of error, both faces.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use proto::v1::windrow_client::WindrowClient;
use proto::{Error, Kind, status, v1};
use runtime::CancellationToken;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tower::ServiceExt;

use crate::fake::{Event, Fake};
use crate::{ROUTES, ServeSettings, Settings, router, serve};

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    /// The detail of a problem of this status.
    fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{:?}", self.body);
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        let json = self.json();
        assert_eq!(json["status"], status, "{json}");
        for member in ["type", "title"] {
            assert!(json[member].is_string(), "{json}");
        }
        json["detail"].as_str().unwrap().to_owned()
    }
}

/// One request, in process.
async fn ask(router: &Router, method: &str, uri: &str, body: impl Into<Body>) -> Reply {
    let request = Request::builder().method(method).uri(uri).body(body.into()).unwrap();
    ask_with(router, request).await
}

async fn ask_with(router: &Router, request: Request<Body>) -> Reply {
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Reply { status, headers, body }
}

fn with(settings: Settings) -> (Arc<Fake>, Router) {
    let fake = Fake::new();
    let router = router(fake.clone(), fake.clone(), settings);
    (fake, router)
}

/// A service with an index `papers` of three documents.
async fn papers() -> (Arc<Fake>, Router) {
    let (fake, router) = with(Settings::default());
    let body =
        r#"{"shards": 2, "refresh_interval": "500ms", "schema": {"fields": {"title": {"type": "text"}}}}"#;
    assert_eq!(ask(&router, "PUT", "/v1/indexes/papers", body).await.status, 201);
    let body = "{\"id\": \"a\", \"title\": \"cat\"}\n{\"id\": \"b/c\", \"title\": \"cat cat\"}\n{\"id\":\"ü\",\"title\":\"dog\"}\n";
    assert_eq!(ask(&router, "POST", "/v1/indexes/papers/documents", body).await.status, 200);
    (fake, router)
}

struct Server {
    address: std::net::SocketAddr,
    token: CancellationToken,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

#[expect(clippy::disallowed_methods, reason = "a test waits for what it starts")]
async fn start(router: Router, settings: ServeSettings) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = CancellationToken::new();
    let task = tokio::spawn(serve(listener, router, settings, token.clone()));
    Server { address, token, task }
}

impl Server {
    async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    async fn stop(self) {
        self.token.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn indexes_come_and_go() {
    let (_, router) = papers().await;
    let index = ask(&router, "GET", "/v1/indexes/papers", "").await.json();
    assert_eq!(index["name"], "papers");
    assert_eq!(index["shards"], 2);
    assert_eq!(index["refresh_interval"], "500ms");
    assert_eq!(index["documents"], 3);
    assert_eq!(index["schema"]["fields"]["title"]["type"], "text");
    let list = ask(&router, "GET", "/v1/indexes", "").await.json();
    assert_eq!(list["indexes"], json!([index]));
    let again = ask(&router, "PUT", "/v1/indexes/papers", "").await;
    assert!(again.problem(409).contains("there already"));
    assert_eq!(ask(&router, "DELETE", "/v1/indexes/papers", "").await.status, 204);
    let gone = ask(&router, "GET", "/v1/indexes/papers", "").await;
    assert!(gone.problem(404).contains("PUT /v1/indexes/papers"));
}

#[tokio::test]
async fn definitions_are_checked() {
    let (_, router) = papers().await;
    for (body, said) in [
        (r#"{"shard": 4}"#, "there is no key \"shard\"; the keys are shards, copies, schema"),
        (r#"{"shards": 0}"#, "shards is 0; it must be 1 to 1024"),
        (r#"{"shards": "4"}"#, "invalid type: string"),
        (r#"{"refresh_interval": 5}"#, "a duration such as"),
        (r#"{"refresh_interval": "5 fortnights"}"#, "a duration such as"),
        (r#"{"refresh_interval": "1ms"}"#, "must be 10ms to 1h"),
        (r#"{"min_coverage": 1.5}"#, "must be 0 to 1"),
        (r#"{"max_stale": "5s"}"#, "not supported yet"),
        (r#"{"schema": {"fields": {"a": {"type": "txet"}}}}"#, "unknown variant `txet`"),
        (r#"{"schema": {"field": {}}}"#, "unknown field `field`, expected one of `fields`"),
        (r#"{"schema": {"fields": {"id": {"type": "text"}}}}"#, "always there"),
        ("[]", "no JSON object"),
        ("{", "EOF"),
    ] {
        let detail = ask(&router, "PUT", "/v1/indexes/new", body).await.problem(400);
        assert!(detail.contains(said), "{body}: {detail}");
    }
    let bad = ask(&router, "PUT", "/v1/indexes/UPPER", "").await;
    assert!(bad.problem(400).contains("a-z"));
    let default = ask(&router, "PUT", "/v1/indexes/new", "").await;
    assert_eq!((default.status, &default.json()["shards"]), (201, &json!(4)));
}

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

#[tokio::test]
async fn a_search_answers_in_full() {
    let (fake, router) = papers().await;
    let body = r#"{"query": "cat", "limit": 1, "profile": true, "timeout": "500ms", "fields": ["title"], "filter": "title:cat"}"#;
    let reply = ask(&router, "POST", "/v1/indexes/papers/search", body).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["server-timing"], "search;dur=0.812");
    let json = reply.json();
    assert_eq!(json["hits"].as_array().unwrap().len(), 1);
    assert_eq!(json["hits"][0]["id"], "b/c");
    assert_eq!(json["hits"][0]["document"]["title"], "cat cat");
    assert_eq!(json["total"], json!({"value": 2, "relation": "eq"}));
    assert_eq!(json["coverage"], json!({"shards": 2, "answered": 2, "missing": [], "documents": 1.0}));
    assert_eq!((&json["cut"], &json["took_us"]), (&json!(2), &json!(812)));
    assert_eq!(json["profile"]["leaves"][0]["node"], "fake");
    let asked = fake.asked().unwrap();
    assert_eq!((asked.limit, asked.offset), (1, 0));
    assert!(asked.deadline.remaining() <= Duration::from_millis(500));

    let uri = "/v1/indexes/papers/search?q=cat&limit=1&offset=1&fields=&count=none&timeout=2s&profile=false&filter=c%61t";
    let json = ask(&router, "GET", uri, "").await.json();
    assert_eq!(json["hits"][0]["id"], "a");
    assert!(json["hits"][0].get("document").is_none());
    assert!(json.get("total").is_none());
    assert!(json.get("profile").is_none());

    let null = r#"{"query": "*", "filter": null, "sort": null, "limit": null}"#;
    assert_eq!(ask(&router, "POST", "/v1/indexes/papers/search", null).await.status, 200);
}

#[tokio::test]
async fn a_search_says_what_is_wrong_with_it() {
    let (_, router) = papers().await;
    let deep = "(".repeat(10_000);
    for (body, said) in [
        ("", "no JSON object"),
        ("[\"cat\"]", "no JSON object"),
        ("{\"query\": \"cat\"", "EOF"),
        ("{\"query\": \"cat\", \"query\": \"dog\"}", "duplicate field"),
        ("{\"query\": 4}", "invalid type: integer `4`, expected a string (line 1, column"),
        ("{\"qurey\": \"cat\"}", "there is no key \"qurey\"; the keys are query, filter"),
        ("{}", "query is missing"),
        ("{\"query\": \"\"}", "write * to find every document"),
        ("{\"query\": \"cat\", \"limit\": -1}", "expected usize"),
        ("{\"query\": \"cat\", \"limit\": 10001}", "at most 10000"),
        ("{\"query\": \"cat\", \"limit\": 18446744073709551615, \"offset\": 9}", "at most 10000"),
        ("{\"query\": \"cat\", \"count\": \"all\"}", "\"bounded\", \"exact\" or \"none\""),
        ("{\"query\": \"cat\", \"timeout\": \"soon\"}", "a duration such as"),
        ("{\"query\": \"cat\", \"timeout\": \"0s\"}", "timeout must be more than 0"),
        ("{\"query\": \"cat\", \"timeout\": \"1h\"}", "at most 300 s"),
        ("{\"query\": \"cat\", \"token\": \"x\"}", "token is damaged"),
        ("{\"query\": \"cat\", \"at\": 0}", "numbered from 1"),
        ("{\"query\": \"cat\", \"min_coverage\": 7}", "0 to 1"),
        ("{\"query\": \"cat\", \"sort\": [\"-year\"]}", "sort is not supported yet"),
        ("{\"query\": \"cat\", \"cursor\": \"x\"}", "cursor is not supported yet"),
        ("{\"query\": \"cat\", \"highlight\": {}}", "highlight is not supported yet"),
        ("{\"query\": \"cat\", \"aggs\": {}}", "aggs is not supported yet"),
        ("{\"query\": \"cat\", \"max_stale\": \"1s\"}", "max_stale is not supported yet"),
        ("{\"query\": \"cat\", \"scatter\": \"term\"}", "scatter is not supported yet"),
        (&format!("{{\"query\": \"{deep}\"}}"), "levels"),
        (&format!("{{\"query\": {}", "[".repeat(100_000)), "(line 1, column"),
    ] {
        let detail = ask(&router, "POST", "/v1/indexes/papers/search", body.to_owned()).await.problem(400);
        assert!(detail.contains(said), "{}: {detail}", &body[..body.len().min(80)]);
        assert!(detail.len() < 1_000, "short enough to read");
    }
    let bytes = ask(&router, "POST", "/v1/indexes/papers/search", &b"{\"query\": \"\xff\"}"[..]).await;
    bytes.problem(400);
    for (query, said) in [
        ("", "query is missing"),
        ("q=cat&q=dog", "there twice"),
        ("q=cat&query=dog", "there twice"),
        ("q=%FF", "not UTF-8"),
        ("q=100%", "%25"),
        ("q=cat&limit=ten", "a number"),
        ("q=cat&limt=1", "there is no parameter \"limt\"; the parameters are query"),
        ("q=cat&profile=maybe", "true or false"),
        ("q=cat&sort=-year", "not supported yet"),
        ("q=cat&min_coverage=NaN", "0 to 1"),
    ] {
        let detail =
            ask(&router, "GET", &format!("/v1/indexes/papers/search?{query}"), "").await.problem(400);
        assert!(detail.contains(said), "{query}: {detail}");
    }
}

#[tokio::test]
async fn a_query_that_does_not_parse_is_pointed_at() {
    let (_, router) = papers().await;
    let reply = ask(&router, "GET", "/v1/indexes/papers/search?q=%C3%BC%20%22open", "").await;
    let detail = reply.problem(400);
    assert!(detail.starts_with("query: "), "{detail}");
    assert_eq!((&reply.json()["position"], &reply.json()["column"]), (&json!(3), &json!(3)));
    let body = r#"{"query": "cat", "filter": "(dog"}"#;
    let reply = ask(&router, "POST", "/v1/indexes/papers/search", body).await;
    assert!(reply.problem(400).starts_with("filter: "));
}

#[tokio::test]
async fn unknown_routes_and_methods_are_told() {
    let (_, router) = papers().await;
    let unknown = ask(&router, "GET", "/v1/nothing", "").await.problem(404);
    for route in ROUTES {
        assert!(unknown.contains(route.path), "{unknown}");
    }
    let reply = ask(&router, "PATCH", "/v1/indexes/papers", "").await;
    assert!(reply.problem(405).contains("it takes PUT, GET, DELETE"));
    assert_eq!(reply.headers[header::ALLOW], "PUT, GET, DELETE");
}

#[tokio::test]
async fn every_route_is_served() {
    let (_, router) = papers().await;
    for route in ROUTES.iter().filter(|route| route.path != "/metrics") {
        let uri = route.path.replace("{index}", "papers").replace("{id}", "a");
        let reply = ask(&router, route.method, &uri, "").await;
        let served = !String::from_utf8_lossy(&reply.body).contains("there is no route");
        assert!(served && reply.status != 405, "{} {uri}", route.method);
    }
    let page = ask(&router, "GET", "/", "").await;
    assert!(page.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/html"));
    let text = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(!text.contains("http://") && !text.contains("https://"), "the console needs no network");
}

#[tokio::test]
async fn a_node_adds_routes_of_its_own() {
    let metrics = Router::new().route("/metrics", axum::routing::get(async || "up 1\n"));
    let (_, router) = with(Settings { extra: Some(metrics), ..Settings::default() });
    assert_eq!(ask(&router, "GET", "/metrics", "").await.body, "up 1\n");
    ask(&router, "GET", "/nowhere", "").await.problem(404);
}

#[tokio::test]
async fn every_kind_of_error_has_its_status() {
    let (fake, router) = papers().await;
    for kind in status::KINDS {
        fake.fail(Some(Error::new(kind, "for this reason").retry_after(Duration::from_millis(1_500))));
        let reply = ask(&router, "GET", "/v1/indexes/papers/search?q=cat", "").await;
        assert_eq!(reply.problem(status::http(kind)), "for this reason");
        assert_eq!(reply.json()["type"], format!("urn:windrow:{}", status::name(kind)));
        let retry = reply.headers.get(header::RETRY_AFTER).map(|after| after.to_str().unwrap());
        let wanted = matches!(kind, Kind::Overloaded | Kind::Unavailable).then_some("2");
        assert_eq!(retry, wanted, "{kind:?}");
    }
    let ready = ask(&router, "GET", "/readyz", "").await;
    assert!(ready.problem(503).contains("for this reason"));
    assert_eq!(ask(&router, "GET", "/healthz", "").await.status, 200);
    fake.fail(None);
    assert_eq!(ask(&router, "GET", "/readyz", "").await.status, 200);
}

#[tokio::test]
async fn a_panic_is_one_requests_own() {
    let (fake, router) = papers().await;
    fake.panic(true);
    let reply = ask(&router, "GET", "/v1/indexes/papers/search?q=cat", "").await;
    assert!(reply.problem(500).contains("defect"));
    fake.panic(false);
    assert_eq!(ask(&router, "GET", "/v1/indexes/papers/search?q=cat", "").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_search_ends_at_its_deadline() {
    let (fake, router) = papers().await;
    let mut events = fake.hang();
    let reply = ask(&router, "GET", "/v1/indexes/papers/search?q=cat&timeout=50ms", "").await;
    assert!(reply.problem(504).contains("longer timeout"));
    assert_eq!(events.recv().await, Some(Event::Began));
    assert_eq!(events.recv().await, Some(Event::Dropped));
}

#[tokio::test]
async fn too_many_requests_are_told_to_come_back() {
    let fake = Fake::new();
    let router = router(fake.clone(), fake.clone(), Settings { requests_max: 1, ..Settings::default() });
    let mut events = fake.hang();
    let first = ask(&router, "GET", "/v1/indexes/papers/search?q=cat", "");
    let second = async {
        assert_eq!(events.recv().await, Some(Event::Began));
        ask(&router, "GET", "/v1/indexes", "").await
    };
    tokio::select! {
        _ = first => panic!("it hangs"),
        reply = second => {
            assert!(reply.problem(429).contains("send fewer at once"));
            assert_eq!(reply.headers[header::RETRY_AFTER], "1");
        }
    }
    assert_eq!(ask(&router, "GET", "/v1/indexes", "").await.status, 200, "the place is free again");
}

#[tokio::test]
async fn a_client_that_goes_away_drops_its_search() {
    let (fake, router) = papers().await;
    let mut events = fake.hang();
    let server = start(router, ServeSettings::default()).await;

    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /v1/indexes/papers/search?q=cat HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(events.recv().await, Some(Event::Began));
    drop(stream);
    assert_eq!(events.recv().await, Some(Event::Dropped), "HTTP/1.1");

    let mut client = WindrowClient::new(server.channel().await);
    let request = v1::SearchRequest { index: "papers".into(), query: "cat".into(), ..Default::default() };
    tokio::select! {
        _ = client.search(request) => panic!("it hangs"),
        event = events.recv() => assert_eq!(event, Some(Event::Began)),
    }
    assert_eq!(events.recv().await, Some(Event::Dropped), "HTTP/2");
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn draining_finishes_what_was_asked_and_refuses_the_rest() {
    let (fake, router) = papers().await;
    let mut events = fake.hang();
    let server = start(router, ServeSettings::default()).await;
    let idle = TcpStream::connect(server.address).await.unwrap();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"GET /v1/indexes/papers/search?q=cat&timeout=200ms HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(events.recv().await, Some(Event::Began));
    let address = server.address;
    server.stop().await;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 504"), "{text}");
    assert!(TcpStream::connect(address).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn a_refused_search_is_not_read_and_its_connection_goes_on() {
    let (fake, router) = papers().await;
    let server = start(router, ServeSettings::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let body = "{\"query\": \"cat\"}";
    for (full, text, expected) in
        [(true, "{no json", "429"), (false, "{no json", "400"), (true, body, "429"), (false, body, "200")]
    {
        fake.fill(full);
        let length = text.len();
        let asked = format!(
            "POST /v1/indexes/papers/search HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{text}"
        );
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "the connection ended");
        }
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(answer.split(' ').nth(1), Some(expected), "{answer}");
        assert_eq!(answer.to_lowercase().contains("retry-after: 1"), full, "{answer}");
    }
    // What asks for something else is answered.
    fake.fill(true);
    let mut client = WindrowClient::new(server.channel().await);
    let request = v1::SearchRequest { index: "papers".into(), query: "cat".into(), ..Default::default() };
    assert_eq!(client.search(request).await.unwrap_err().code(), tonic::Code::ResourceExhausted);
    let document = v1::GetDocumentRequest { index: "papers".into(), id: "a".into(), ..Default::default() };
    client.get_document(document).await.unwrap();
    drop((client, stream));
    server.stop().await;
}

#[tokio::test]
async fn a_connection_that_never_speaks_is_closed() {
    let (_, router) = papers().await;
    let settings =
        ServeSettings { header_read_timeout: Duration::from_millis(20), ..ServeSettings::default() };
    let server = start(router, settings).await;
    for begun in ["", "GET / HTTP/1.1\r\nhost:"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest);
        let _closed = tokio::time::timeout(Duration::from_secs(20), read).await.expect("it is closed");
    }
    server.stop().await;
}

#[tokio::test]
async fn connections_are_bounded() {
    let (_, router) = papers().await;
    let server = start(router, ServeSettings { connections_max: 1, ..ServeSettings::default() }).await;
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let first = TcpStream::connect(server.address).await.unwrap();
    let mut second = TcpStream::connect(server.address).await.unwrap();
    second.write_all(request).await.unwrap();
    let mut text = String::new();
    let waits = tokio::time::timeout(Duration::from_millis(50), second.read_to_string(&mut text)).await;
    assert!(waits.is_err(), "the first connection has the only place");
    drop(first);
    second.read_to_string(&mut text).await.unwrap();
    assert!(text.ends_with("ok\n"), "{text}");
    server.stop().await;
}

/// A search over both faces.
struct Case {
    url: &'static str,
    message: v1::SearchRequest,
}

fn cases() -> Vec<Case> {
    let message =
        |query: &str| v1::SearchRequest { index: "papers".into(), query: query.into(), ..Default::default() };
    let index =
        |message: v1::SearchRequest, index: &str| v1::SearchRequest { index: index.into(), ..message };
    vec![
        Case { url: "papers/search?q=cat", message: message("cat") },
        Case {
            url: "papers/search?q=cat&limit=1&offset=1",
            message: v1::SearchRequest { limit: Some(1), offset: 1, ..message("cat") },
        },
        Case {
            url: "papers/search?q=*&count=none&fields=",
            message: v1::SearchRequest {
                count: v1::Count::None.into(),
                fields: Some(v1::FieldNames::default()),
                ..message("*")
            },
        },
        Case {
            url: "papers/search?q=*&filter=dog&profile=true&count=exact",
            message: v1::SearchRequest {
                filter: Some("dog".into()),
                profile: true,
                count: v1::Count::Exact.into(),
                ..message("*")
            },
        },
        Case { url: "papers/search?q=nothing", message: message("nothing") },
        Case { url: "papers/search?q=%C3%BC%20%22open", message: message("ü \"open") },
        Case { url: "papers/search?q=", message: message("") },
        Case {
            url: "papers/search?q=a&filter=(b",
            message: v1::SearchRequest { filter: Some("(b".into()), ..message("a") },
        },
        Case {
            url: "papers/search?q=a&limit=10001",
            message: v1::SearchRequest { limit: Some(10_001), ..message("a") },
        },
        Case {
            url: "papers/search?q=a&token=x",
            message: v1::SearchRequest { token: Some("x".into()), ..message("a") },
        },
        Case { url: "papers/search?q=a&at=99", message: v1::SearchRequest { at: Some(99), ..message("a") } },
        Case {
            url: "papers/search?q=a&timeout=301s",
            message: v1::SearchRequest { timeout_ms: Some(301_000), ..message("a") },
        },
        Case { url: "none/search?q=a", message: index(message("a"), "none") },
        Case { url: "NONE/search?q=a", message: index(message("a"), "NONE") },
    ]
}

/// What both faces must agree on: the answer as JSON, or the error.
fn grpc_view(result: Result<tonic::Response<v1::SearchResponse>, tonic::Status>) -> Value {
    match result {
        Ok(response) => {
            let answer = proto::search::Answer::try_from(response.into_inner()).unwrap();
            serde_json::from_slice(&crate::answer::json(&answer)).unwrap()
        }
        Err(status) => error_view(&Error::from(status)),
    }
}

fn error_view(error: &Error) -> Value {
    json!({"kind": status::name(error.kind), "message": error.message, "position": error.position})
}

fn http_view(reply: &Reply) -> Value {
    let json = reply.json();
    if reply.status == 200 {
        return json;
    }
    let kind = json["type"].as_str().unwrap().trim_start_matches("urn:windrow:");
    let position = json.get("position").cloned().unwrap_or_default();
    json!({"kind": kind, "message": json["detail"], "position": position})
}

#[tokio::test]
async fn both_faces_give_the_same_answers() {
    let (fake, router) = papers().await;
    let server = start(router.clone(), ServeSettings::default()).await;
    let mut client = WindrowClient::new(server.channel().await);
    for Case { url, message } in cases() {
        let http = ask(&router, "GET", &format!("/v1/indexes/{url}"), "").await;
        let grpc = client.search(message).await;
        assert_eq!(http_view(&http), grpc_view(grpc), "{url}");
    }
    for kind in status::KINDS {
        fake.fail(Some(Error::new(kind, "for this reason")));
        for Case { url, message } in cases().into_iter().take(1) {
            let http = ask(&router, "GET", &format!("/v1/indexes/{url}"), "").await;
            assert_eq!(http_view(&http), grpc_view(client.search(message).await), "{kind:?}");
        }
    }
    fake.fail(None);

    let list = client.list_indexes(v1::ListIndexesRequest {}).await.unwrap().into_inner();
    let json = ask(&router, "GET", "/v1/indexes", "").await.json();
    assert_eq!(json["indexes"][0]["uid"], list.indexes[0].uid);
    assert_eq!(json["indexes"][0]["documents"], list.indexes[0].documents);

    let create = v1::CreateIndexRequest { name: "papers".into(), ..Default::default() };
    let http = ask(&router, "PUT", "/v1/indexes/papers", "").await;
    let grpc = client.create_index(create).await.unwrap_err();
    assert_eq!(http_view(&http), error_view(&grpc.into()));
    let create = v1::CreateIndexRequest { name: "zero".into(), shards: Some(0), ..Default::default() };
    let http = ask(&router, "PUT", "/v1/indexes/zero", "{\"shards\": 0}").await;
    let grpc = client.create_index(create).await.unwrap_err();
    assert_eq!(http_view(&http), error_view(&grpc.into()));
    let create = v1::CreateIndexRequest { name: "new".into(), shards: Some(3), ..Default::default() };
    assert_eq!(client.create_index(create).await.unwrap().into_inner().shards, 3);
    let described =
        client.describe_index(v1::DescribeIndexRequest { name: "new".into() }).await.unwrap().into_inner();
    let json = ask(&router, "GET", "/v1/indexes/new", "").await.json();
    assert_eq!((&json["shards"], &json["uid"]), (&json!(described.shards), &json!(described.uid)));

    let lines = ["{\"id\": \"1\"}", "{oops", "{\"id\":\"busy\"}"];
    let http = ask(&router, "POST", "/v1/indexes/new/documents?refresh=wait", lines.join("\n")).await.json();
    let documents = lines.iter().map(|line| Bytes::from_static(line.as_bytes())).collect();
    let write = v1::WriteRequest { index: "new".into(), documents, refresh: v1::Refresh::Wait.into() };
    let grpc = client.write(write).await.unwrap().into_inner();
    assert_eq!((&http["accepted"], &http["searchable"]), (&json!(grpc.accepted), &json!(grpc.searchable)));
    for (place, failure) in grpc.failures.iter().enumerate() {
        let wanted = json!({"line": failure.line, "id": failure.id, "reason": failure.reason, "kind": failure.kind, "retry": failure.retry});
        assert_eq!(http["failures"][place], wanted);
    }
    let empty = v1::WriteRequest { index: "new".into(), ..Default::default() };
    let http = ask(&router, "POST", "/v1/indexes/new/documents", "").await;
    assert_eq!(http_view(&http), error_view(&client.write(empty).await.unwrap_err().into()));

    let get = |id: &str| v1::GetDocumentRequest { index: "papers".into(), id: id.into(), token: None };
    let http = ask(&router, "GET", "/v1/indexes/papers/documents/a", "").await;
    assert_eq!(client.get_document(get("a")).await.unwrap().into_inner().source, http.body);
    let http = ask(&router, "GET", "/v1/indexes/papers/documents/zzz", "").await;
    assert_eq!(http_view(&http), error_view(&client.get_document(get("zzz")).await.unwrap_err().into()));
    let delete = v1::DeleteDocumentRequest { index: "papers".into(), id: "a".into(), refresh: 0 };
    assert_eq!(client.delete_document(delete).await.unwrap().into_inner().accepted, 1);

    let cluster = client.cluster(v1::ClusterRequest {}).await.unwrap().into_inner();
    let json = ask(&router, "GET", "/v1/cluster", "").await.json();
    assert_eq!(json["nodes"][0]["node"], cluster.nodes[0].node);
    assert_eq!(json["indexes"].as_array().unwrap().len(), cluster.indexes.len());
    assert_eq!(json["indexes"][0]["shards"][0]["generation"], cluster.indexes[0].shards[0].generation);
    client.delete_index(v1::DeleteIndexRequest { name: "new".into() }).await.unwrap();
    ask(&router, "GET", "/v1/indexes/new", "").await.problem(404);
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn grpc_keeps_the_clients_deadline() {
    let (fake, router) = papers().await;
    let server = start(router, ServeSettings::default()).await;
    let mut client = WindrowClient::new(server.channel().await);
    for (timeout_ms, theirs, most) in [(None, 5, 5), (Some(2_000), 5, 2), (Some(4_000), 3, 3)] {
        let message = v1::SearchRequest {
            index: "papers".into(),
            query: "cat".into(),
            timeout_ms,
            ..Default::default()
        };
        let mut request = tonic::Request::new(message);
        request.set_timeout(Duration::from_secs(theirs));
        client.search(request).await.unwrap();
        let left = fake.asked().unwrap().deadline.remaining();
        assert!(left <= Duration::from_secs(most), "{left:?} of {most} s");
    }
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn grpc_messages_are_bounded() {
    let (_, router) = with(Settings { grpc_message_bytes_max: 1_000, ..Settings::default() });
    let server = start(router, ServeSettings::default()).await;
    let mut client = WindrowClient::new(server.channel().await);
    let documents = vec![Bytes::from(vec![b'x'; 2_000])];
    let write = v1::WriteRequest { index: "papers".into(), documents, refresh: 0 };
    let error = Error::from(client.write(write).await.unwrap_err());
    assert_eq!(error.kind, Kind::TooLarge);
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn health_and_reflection_answer() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let (fake, router) = papers().await;
    let server = start(router.clone(), ServeSettings::default()).await;
    let channel = server.channel().await;
    let mut health = HealthClient::new(channel.clone());
    let check = |service: &str| HealthCheckRequest { service: service.into() };
    for service in ["", "windrow.v1.Windrow"] {
        let status = health.check(check(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving);
    }
    assert_eq!(health.check(check("nobody")).await.unwrap_err().code(), tonic::Code::NotFound);
    let mut watch = health.watch(check("")).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    fake.fail(Some(Error::unavailable("no view")));
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    drop(watch);

    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let requests = tokio_stream::iter([request]);
    let mut replies = reflection.server_reflection_info(requests).await.unwrap().into_inner();
    let reply = replies.next().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = reply.message_response else { panic!("a list") };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"windrow.v1.Windrow") && names.contains(&"grpc.health.v1.Health"), "{names:?}");

    let alpha =
        ask(&router, "POST", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "").await;
    assert_ne!(alpha.status, StatusCode::NOT_FOUND, "v1alpha is there too");
    let request = Request::post("/no.such.Service/Call")
        .header("content-type", "application/grpc")
        .body(Body::empty())
        .unwrap();
    let unknown = ask_with(&router, request).await;
    assert_eq!(unknown.headers["grpc-status"], "12");
    drop((reflection, replies, health, channel));
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_at_once_when_refused_waits() {
    let refusals = model::pace::Settings { rate: 100.0, ..Default::default() };
    let cores = std::thread::available_parallelism().unwrap().get() as f64;
    let (fake, router) = with(Settings { refusals, ..Settings::default() });
    fake.fill(true);
    let begun = tokio::time::Instant::now();
    let mut refused = 0.0;
    // One after another, as fast as they are refused.
    while begun.elapsed() < Duration::from_secs(2) {
        let reply = ask(&router, "POST", "/v1/indexes/papers/search", r#"{"query": "cat"}"#).await;
        assert!(reply.problem(429).contains("it is full") && reply.headers.contains_key("retry-after"));
        refused += 1.0;
    }
    let most = 100.0 * cores * 2.1 + 2.0;
    assert!(refused <= most && refused > most / 3.0, "{refused} refusals, {most} at most");
}
