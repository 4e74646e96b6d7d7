//! HTTP and gRPC say the same.

use super::*;

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
