//! How connections end when the server does.

use super::*;

const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";

/// Asks on an open connection; returns the answer, which leaves it open.
async fn exchange(stream: &mut TcpStream) -> String {
    stream.write_all(REQUEST).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok\n") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "the connection ended");
    }
    String::from_utf8(answer).unwrap()
}

/// Reads an answer that is the connection's last, and says so.
async fn last_answer(stream: &mut TcpStream) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("connection: close") && answer.ends_with("ok\n"), "{answer:?}");
}

#[tokio::test]
async fn who_is_leaving_ends_connections_with_their_answers() {
    let (_, router) = papers().await;
    let server = start(router, ServeSettings::default()).await;
    let mut kept = TcpStream::connect(server.address).await.unwrap();
    assert!(!exchange(&mut kept).await.contains("connection: close"));
    server.leaving.cancel();
    let mut new = TcpStream::connect(server.address).await.unwrap();
    for stream in [&mut kept, &mut new] {
        stream.write_all(REQUEST).await.unwrap();
        last_answer(stream).await;
    }
    // HTTP/2 has better means, and no such header.
    let mut client = WindrowClient::new(server.channel().await);
    for _ in 0..2 {
        let document =
            v1::GetDocumentRequest { index: "papers".into(), id: "a".into(), ..Default::default() };
        let found = client.get_document(document).await.unwrap();
        assert!(!found.metadata().contains_key("connection"));
    }
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn a_request_that_arrives_as_the_server_stops_is_answered() {
    let (_, router) = papers().await;
    let settings = ServeSettings { linger: Duration::from_secs(20), ..ServeSettings::default() };
    let server = start(router, settings).await;
    let mut kept = TcpStream::connect(server.address).await.unwrap();
    exchange(&mut kept).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    tokio::task::yield_now().await;
    // The system has connected this one, and nobody has accepted it.
    let mut waiting = std::net::TcpStream::connect(server.address).unwrap();
    std::io::Write::write_all(&mut waiting, REQUEST).unwrap();
    server.leaving.cancel();
    server.token.cancel();
    waiting.set_nonblocking(true).unwrap();
    last_answer(&mut TcpStream::from_std(waiting).unwrap()).await;
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens");
    for stream in [&mut kept, &mut silent] {
        stream.write_all(REQUEST).await.unwrap();
        last_answer(stream).await;
    }
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
