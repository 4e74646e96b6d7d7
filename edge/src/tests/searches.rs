//! Searches, and what is wrong with them.

use super::*;

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
