//! An answer as JSON.
//!
//! **Invariant:** the sources of documents go out as the bytes that came in.
//! This is the hot path: one buffer, no tree of values.

use std::io::Write;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::response::Response;
use model::gather::Relation;
use proto::convert::micros;
use proto::search::{Answer, Hit};

/// What a hit takes beside its id and its source.
const HIT_BYTES: usize = 48;
/// What an answer takes beside its hits.
const FRAME_BYTES: usize = 256;

/// Prints an answer.
pub(crate) fn json(answer: &Answer) -> Vec<u8> {
    let hits: usize = answer.hits.iter().map(bytes_of).sum();
    let mut out = Vec::with_capacity(FRAME_BYTES + hits);
    out.extend_from_slice(b"{\"hits\":[");
    for (place, hit) in answer.hits.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        push_hit(&mut out, hit);
    }
    out.push(b']');
    if let Some(total) = answer.total {
        let relation = match total.relation {
            Relation::Eq => "eq",
            Relation::Gte => "gte",
        };
        push(&mut out, format_args!(",\"total\":{{\"value\":{},\"relation\":\"{relation}\"}}", total.value));
    }
    let coverage = &answer.coverage;
    push(
        &mut out,
        format_args!(
            ",\"coverage\":{{\"shards\":{},\"answered\":{},\"missing\":[",
            coverage.shards, coverage.answered
        ),
    );
    for (place, missing) in coverage.missing.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        serialise(&mut out, missing);
    }
    push(&mut out, format_args!("],\"documents\":"));
    serialise(&mut out, &coverage.documents);
    push(&mut out, format_args!("}},\"cut\":{},\"took_us\":{}", answer.cut, micros(answer.took)));
    if let Some(profile) = &answer.profile {
        out.extend_from_slice(b",\"profile\":");
        serialise(&mut out, profile);
    }
    out.push(b'}');
    out
}

/// An answer's response.
pub(crate) fn response(answer: &Answer) -> Response {
    let mut response = Response::new(Body::from(json(answer)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let timing = format!("search;dur={}", micros(answer.took) as f64 / 1_000.0);
    if let Ok(timing) = HeaderValue::try_from(timing) {
        headers.insert(HeaderName::from_static("server-timing"), timing);
    }
    response
}

fn bytes_of(hit: &Hit) -> usize {
    HIT_BYTES + hit.document.id.len() + hit.document.source.len()
}

fn push_hit(out: &mut Vec<u8>, hit: &Hit) {
    out.extend_from_slice(b"{\"id\":");
    serialise(out, &hit.document.id);
    out.extend_from_slice(b",\"score\":");
    serialise(out, &hit.score);
    if !hit.document.source.is_empty() {
        out.extend_from_slice(b",\"document\":");
        out.extend_from_slice(&hit.document.source);
    }
    out.push(b'}');
}

/// Floats come out as the shortest text that reads back to the same bits.
fn serialise(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(out, value).expect("a vector takes everything, and map keys are strings");
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes everything");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::gather::Total;
    use model::ids::{CutNumber, IndexUid, ShardId};
    use proto::search::{Coverage, Document, Missing, Profile};

    use super::*;

    fn answer() -> Answer {
        let hit = |id: &str, score, source: &'static str| Hit {
            score,
            document: Document { id: id.into(), source: source.into() },
        };
        Answer {
            hits: vec![hit("a\"\n\u{1}", 0.1_f32 + 0.2, "{\"x\" : 1.0}"), hit("b", 11.0, "")],
            total: Some(Total { value: 10_000, relation: Relation::Gte }),
            coverage: Coverage {
                shards: 4,
                answered: 2,
                missing: [(1, "dead"), (3, "slow")]
                    .map(|(shard, reason)| Missing { shard: ShardId(shard), reason: reason.to_owned() })
                    .to_vec(),
                documents: 0.5,
            },
            uid: IndexUid::from_bits(1),
            cut: CutNumber(12),
            took: Duration::from_micros(812),
            profile: None,
        }
    }

    #[test]
    fn the_text_is_exact() {
        let text = String::from_utf8(json(&answer())).unwrap();
        assert_eq!(
            text,
            "{\"hits\":[{\"id\":\"a\\\"\\n\\u0001\",\"score\":0.3,\"document\":{\"x\" : 1.0}},\
             {\"id\":\"b\",\"score\":11.0}],\"total\":{\"value\":10000,\"relation\":\"gte\"},\
             \"coverage\":{\"shards\":4,\"answered\":2,\"missing\":[{\"shard\":1,\"reason\":\"dead\"},{\"shard\":3,\"reason\":\"slow\"}],\"documents\":0.5},\
             \"cut\":12,\"took_us\":812}"
                .replace("0.3,", &format!("{:?},", 0.1_f32 + 0.2))
        );
    }

    #[test]
    fn it_is_json_with_a_profile_and_without_a_total() {
        let answer = Answer { total: None, profile: Some(Profile::default()), ..answer() };
        let value: serde_json::Value = serde_json::from_slice(&json(&answer)).unwrap();
        assert!(value.get("total").is_none());
        assert_eq!(value["profile"]["plan"], "");
        assert_eq!(value["hits"][0]["score"].as_f64().map(|score| score as f32), Some(0.1_f32 + 0.2));
    }
}
