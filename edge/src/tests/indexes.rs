//! Indexes.

use super::*;

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
