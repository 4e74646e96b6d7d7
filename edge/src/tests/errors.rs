//! Routes, and every kind of error.

use super::*;

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
