//! What the leaves hold, and so what every search must find.
//!
//! A score is a function of the query and the document, and the expected answer
//! is all documents sorted: nothing of the code under test has a part in it.

use std::cmp::Ordering;

use model::gather::{Count, Relation, Total};
use model::ids::{Generation, Seq, ShardId, id_hash};
use model::plan::{FieldName, TextTerm};
use model::statistics::Statistics;
use proto::leaf::{Address, Found, LeafHit, ShardAt};
use proto::search::{Answer, Document, LeafProfile};

/// Shards of the index: one for each leaf, each on two.
pub(crate) const SHARDS: u32 = 3;
/// Documents in a shard: more, over all shards, than an answer shows.
pub(crate) const DOCUMENTS: u32 = 8;
/// Hits of an answer.
pub(crate) const LIMIT: usize = 10;
/// The generation that every shard is at.
pub(crate) const GENERATION: Generation = Generation(1);
/// The record that it contains.
pub(crate) const SEQ: Seq = Seq(7);
/// The field that is searched.
pub(crate) const FIELD: &str = "body";

fn id(shard: u32, doc: u32) -> String {
    format!("s{shard}-d{doc}")
}

/// Few different scores, so that many documents tie.
fn score(query: &str, id: &str) -> f32 {
    (id_hash(&format!("{query} {id}")) % 4) as f32 + 1.0
}

/// What [`crate::leaf::Scripted`] finds in some shards.
pub(crate) fn found(node: &str, query: &str, shards: &[ShardAt], limit: usize, profile: bool) -> Found {
    let hit = |shard: ShardId, doc| {
        let id = id(shard.0, doc);
        let address = Address { segment: 0, doc };
        LeafHit { score: score(query, &id), hash: id_hash(&id), shard, address, document: None }
    };
    let mut hits: Vec<LeafHit> =
        shards.iter().flat_map(|at| (0..DOCUMENTS).map(|doc| hit(at.shard, doc))).collect();
    hits.sort_by(|a, b| order((a.score, a.hash), (b.score, b.hash)));
    hits.truncate(limit);
    Found {
        hits,
        matches: Some(shards.len() as u64 * u64::from(DOCUMENTS)),
        bounded: false,
        profile: profile.then(|| LeafProfile { node: node.to_owned(), ..LeafProfile::default() }),
        load: None,
    }
}

/// What is stored of a document.
pub(crate) fn document(shard: ShardId, address: Address) -> Document {
    let id = id(shard.0, address.doc);
    let source = format!("{{\"id\":\"{id}\"}}").into();
    Document { id, source }
}

/// The statistics of one shard; those of the next are others.
pub(crate) fn statistics(shard: ShardId, terms: &[TextTerm]) -> Statistics {
    let of_shard = u64::from(shard.0) + 1;
    Statistics {
        documents: DOCUMENTS.into(),
        tokens: terms.iter().map(|term| (term.field.clone(), 100 * of_shard)).collect(),
        frequencies: terms.iter().map(|term| (term.clone(), of_shard)).collect(),
    }
}

/// The statistics that the root must have made of them.
pub(crate) fn statistics_of_all(field: &FieldName, query: &str) -> Statistics {
    let terms = [TextTerm { field: field.clone(), text: query.into() }];
    let mut sum = Statistics::default();
    (0..SHARDS).for_each(|shard| sum.add(&statistics(ShardId(shard), &terms)));
    sum
}

/// Says what of `answer` is not as it must be.
pub(crate) fn wrong(query: &str, answer: &Answer) -> Option<String> {
    let mut expected: Vec<(f32, String)> = (0..SHARDS)
        .flat_map(|shard| (0..DOCUMENTS).map(move |doc| id(shard, doc)))
        .map(|id| (score(query, &id), id))
        .collect();
    expected.sort_by(|a, b| order((a.0, id_hash(&a.1)), (b.0, id_hash(&b.1))));
    expected.truncate(LIMIT);
    let hits: Vec<(f32, String)> =
        answer.hits.iter().map(|hit| (hit.score, hit.document.id.clone())).collect();
    if hits != expected {
        return Some(format!("{hits:?} instead of {expected:?}"));
    }
    let total = Total { value: u64::from(SHARDS * DOCUMENTS), relation: Relation::Eq };
    let whole = answer.coverage.answered == SHARDS && answer.coverage.missing.is_empty();
    (answer.total != Some(total) || !whole)
        .then(|| format!("a total of {:?}, {:?}", answer.total, answer.coverage))
}

/// How the searches count.
pub(crate) const COUNT: Count = Count::Exact;

fn order(a: (f32, u64), b: (f32, u64)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}
