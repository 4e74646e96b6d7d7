//! What is too much, too late or not wanted any more.

use futures::FutureExt;

use super::*;

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

#[tokio::test(start_paused = true)]
async fn those_refused_wait_in_nobodys_place() {
    // At the door, and by leaves when they were let in.
    for door in [true, false] {
        let refusals = model::pace::Settings { rate: 1e-3, burst: Duration::ZERO, ..Default::default() };
        let settings = Settings { refusals, requests_max: 2, refused_max: 3, ..Settings::default() };
        let (fake, router) = with(settings);
        let refuse = || match door {
            true => fake.fill(true),
            false => fake.fail(Some(Error::overloaded("leaves are full"))),
        };
        let search = || ask(&router, "POST", "/v1/indexes/papers/search", r#"{"query": "cat"}"#);
        refuse();
        // The first is told at once; then three wait for a second, and no more.
        search().await.problem(429);
        let waiting = futures::future::join_all((0..3).map(|_| search()));
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        let begun = tokio::time::Instant::now();
        search().await.problem(429);
        fake.fail(None);
        assert_eq!(ask(&router, "GET", "/v1/indexes", "").await.status, 200, "at the door: {door}");
        assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
        waiting.await.iter().for_each(|reply| assert_eq!(reply.status, 429));
        assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_how_long_it_waits_hears_of_its_refusal_before_that() {
    let refusals = model::pace::Settings { rate: 1e-3, burst: Duration::ZERO, ..Default::default() };
    let (fake, router) = with(Settings { refusals, ..Settings::default() });
    fake.fill(true);
    let search = || {
        let request = Request::post("/windrow.v1.Windrow/Search").header("content-type", "application/grpc");
        // An empty message.
        request.header("grpc-timeout", "200m").body(Body::from(vec![0; 5])).unwrap()
    };
    for most in [1, 200] {
        let begun = tokio::time::Instant::now();
        let reply = ask_with(&router, search()).await;
        assert_eq!(reply.headers["grpc-status"], "8", "{:?}", reply.headers);
        assert!(begun.elapsed() < Duration::from_millis(most), "{:?}", begun.elapsed());
    }
}
