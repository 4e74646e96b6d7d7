//! Between values and messages.

use std::sync::Arc;

use model::gather::Count;
use model::ids::{Generation, IndexUid, NodeId, Seq, ShardId};
use model::plan::{Node, TextTerm};
use model::statistics::Statistics;
use runtime::Deadline;

use super::v1;
use crate::Error;
use crate::admin::Operation;
use crate::controller::{Held, Report, Served};
use crate::leaf::{
    Address, Fetch, Found, LeafHit, Load, Search, ShardAt, ShardWrite, StatisticsFrom, StatisticsRequest,
};
use crate::search::Document;

// Not the client's doing, and another replica may understand it.
fn bad(what: &str) -> Error {
    Error::internal(format!("{what}: the nodes' releases do not fit each other"))
}

pub(super) fn uid(text: &str) -> Result<IndexUid, Error> {
    IndexUid::parse(text).ok_or_else(|| bad("an index's uid is none"))
}

pub(super) fn at(message: Option<v1::ShardAt>) -> Result<ShardAt, Error> {
    message.map(ShardAt::from).ok_or_else(|| bad("a shard is missing"))
}

impl From<v1::ShardAt> for ShardAt {
    fn from(message: v1::ShardAt) -> Self {
        Self { shard: ShardId(message.shard), generation: Generation(message.generation) }
    }
}

impl From<ShardAt> for v1::ShardAt {
    fn from(at: ShardAt) -> Self {
        Self { shard: at.shard.0, generation: at.generation.0 }
    }
}

fn shards(shards: &[ShardAt]) -> Vec<v1::ShardAt> {
    shards.iter().map(|at| (*at).into()).collect()
}

impl From<Document> for v1::Document {
    fn from(document: Document) -> Self {
        Self { id: document.id, source: document.source }
    }
}

impl From<v1::Document> for Document {
    fn from(message: v1::Document) -> Self {
        Self { id: message.id, source: message.source }
    }
}

impl From<ShardWrite> for v1::WriteRequest {
    fn from(write: ShardWrite) -> Self {
        let each = |operation| match operation {
            Operation::Upsert { id, source } => v1::Operation { id, source: Some(source) },
            Operation::Delete { id } => v1::Operation { id, source: None },
        };
        Self {
            uid: write.uid.to_string(),
            shard: write.shard.0,
            operations: write.operations.into_iter().map(each).collect(),
        }
    }
}

pub(super) fn write(message: v1::WriteRequest, deadline: Deadline) -> Result<ShardWrite, Error> {
    let each = |operation: v1::Operation| match operation.source {
        Some(source) => Operation::Upsert { id: operation.id, source },
        None => Operation::Delete { id: operation.id },
    };
    Ok(ShardWrite {
        uid: uid(&message.uid)?,
        shard: ShardId(message.shard),
        operations: message.operations.into_iter().map(each).collect(),
        deadline,
    })
}

fn term(term: &TextTerm) -> v1::Term {
    v1::Term { field: term.field.to_string(), text: term.text.to_string() }
}

fn text_term(message: v1::Term) -> TextTerm {
    TextTerm { field: message.field.into(), text: message.text.into() }
}

impl From<StatisticsRequest> for v1::StatisticsRequest {
    fn from(request: StatisticsRequest) -> Self {
        Self {
            uid: request.uid.to_string(),
            shards: shards(&request.shards),
            terms: request.terms.iter().map(term).collect(),
        }
    }
}

pub(super) fn statistics_request(
    message: v1::StatisticsRequest,
    deadline: Deadline,
) -> Result<StatisticsRequest, Error> {
    Ok(StatisticsRequest {
        uid: uid(&message.uid)?,
        shards: message.shards.into_iter().map(Into::into).collect(),
        terms: message.terms.into_iter().map(text_term).collect(),
        deadline,
    })
}

impl From<&Statistics> for v1::Statistics {
    fn from(counted: &Statistics) -> Self {
        Self {
            documents: counted.documents,
            tokens: counted.tokens.iter().map(|(field, tokens)| (field.to_string(), *tokens)).collect(),
            frequencies: counted
                .frequencies
                .iter()
                .map(|(of, documents)| v1::Frequency { term: Some(term(of)), documents: *documents })
                .collect(),
        }
    }
}

impl From<v1::Statistics> for Statistics {
    fn from(message: v1::Statistics) -> Self {
        let frequency = |of: v1::Frequency| Some((text_term(of.term?), of.documents));
        Self {
            documents: message.documents,
            tokens: message.tokens.into_iter().map(|(field, tokens)| (field.into(), tokens)).collect(),
            frequencies: message.frequencies.into_iter().filter_map(frequency).collect(),
        }
    }
}

fn json(node: &Node) -> bytes::Bytes {
    serde_json::to_vec(node).expect("a plan is plain JSON").into()
}

fn node(json: &[u8]) -> Result<Arc<Node>, Error> {
    // The plan's depth was bounded where it was parsed; the decoder has a bound
    // of its own, should that ever fail.
    serde_json::from_slice(json)
        .map(Arc::new)
        .map_err(|error| bad(&format!("a plan does not parse ({error})")))
}

impl From<Search> for v1::SearchRequest {
    fn from(search: Search) -> Self {
        Self {
            uid: search.uid.to_string(),
            shards: shards(&search.shards),
            query: json(&search.query),
            filter: search.filter.as_deref().map(json).unwrap_or_default(),
            statistics: match &search.statistics {
                StatisticsFrom::Given(given) => Some(given.as_ref().into()),
                StatisticsFrom::TheseShards => None,
            },
            limit: search.limit as u64,
            count: match search.count {
                Count::Exact => "exact".to_owned(),
                Count::None => "none".to_owned(),
                Count::Bounded(bound) => bound.to_string(),
            },
            inline_from: search.inline_from.map(|from| from as u64),
            profile: search.profile,
        }
    }
}

fn size(number: u64) -> Result<usize, Error> {
    usize::try_from(number).map_err(|_| bad("a number is too large"))
}

pub(super) fn search(message: v1::SearchRequest, deadline: Deadline) -> Result<Search, Error> {
    Ok(Search {
        uid: uid(&message.uid)?,
        shards: message.shards.into_iter().map(Into::into).collect(),
        query: node(&message.query)?,
        filter: if message.filter.is_empty() { None } else { Some(node(&message.filter)?) },
        statistics: match message.statistics {
            Some(given) => StatisticsFrom::Given(Arc::new(given.into())),
            None => StatisticsFrom::TheseShards,
        },
        limit: size(message.limit)?,
        count: match message.count.as_str() {
            "exact" => Count::Exact,
            "none" => Count::None,
            bound => Count::Bounded(bound.parse().map_err(|_| bad("a way to count is unknown"))?),
        },
        inline_from: message.inline_from.map(size).transpose()?,
        deadline,
        profile: message.profile,
    })
}

impl From<Found> for v1::SearchResponse {
    fn from(found: Found) -> Self {
        let mut message = Self {
            matches: found.matches,
            bounded: found.bounded,
            load: found.load.map(Into::into),
            profile: found
                .profile
                .map(|profile| serde_json::to_vec(&profile).expect("a profile is plain JSON").into())
                .unwrap_or_default(),
            ..Self::default()
        };
        for (rank, hit) in (0..).zip(found.hits) {
            message.scores.push(hit.score);
            message.hashes.push(hit.hash);
            message.shards.push(hit.shard.0);
            message.segments.push(hit.address.segment);
            message.docs.push(hit.address.doc);
            if let Some(document) = hit.document {
                message.documents.push(v1::Inline { rank, document: Some(document.into()) });
            }
        }
        message
    }
}

impl TryFrom<v1::SearchResponse> for Found {
    type Error = Error;

    fn try_from(message: v1::SearchResponse) -> Result<Self, Error> {
        let v1::SearchResponse { scores, hashes, shards, segments, docs, documents, .. } = message;
        let lengths = [hashes.len(), shards.len(), segments.len(), docs.len()];
        if lengths.iter().any(|length| *length != scores.len()) {
            return Err(bad("columns of hits differ in length"));
        }
        let rows = scores.into_iter().zip(hashes).zip(shards).zip(segments).zip(docs);
        let mut hits: Vec<LeafHit> = rows
            .map(|((((score, hash), shard), segment), doc)| LeafHit {
                score,
                hash,
                shard: ShardId(shard),
                address: Address { segment, doc },
                document: None,
            })
            .collect();
        for inline in documents {
            let hit = hits.get_mut(inline.rank as usize).ok_or_else(|| bad("a document has no hit"))?;
            hit.document = inline.document.map(Into::into);
        }
        let profile = (!message.profile.is_empty())
            .then(|| serde_json::from_slice(&message.profile))
            .transpose()
            .map_err(|error| bad(&format!("a profile does not parse ({error})")))?;
        let load = message.load.map(Into::into);
        Ok(Self { hits, matches: message.matches, bounded: message.bounded, profile, load })
    }
}

impl From<Fetch> for v1::FetchRequest {
    fn from(fetch: Fetch) -> Self {
        Self {
            uid: fetch.uid.to_string(),
            shards: fetch.documents.iter().map(|(at, _)| (*at).into()).collect(),
            segments: fetch.documents.iter().map(|(_, address)| address.segment).collect(),
            docs: fetch.documents.iter().map(|(_, address)| address.doc).collect(),
        }
    }
}

pub(super) fn fetch(message: v1::FetchRequest, deadline: Deadline) -> Result<Fetch, Error> {
    let v1::FetchRequest { uid: index, shards, segments, docs } = message;
    if segments.len() != shards.len() || docs.len() != shards.len() {
        return Err(bad("columns of addresses differ in length"));
    }
    let documents = shards
        .into_iter()
        .zip(segments)
        .zip(docs)
        .map(|((at, segment), doc)| (at.into(), Address { segment, doc }))
        .collect();
    Ok(Fetch { uid: uid(&index)?, documents, deadline })
}

impl From<Held> for v1::Held {
    fn from(held: Held) -> Self {
        let served =
            |at: Served| v1::Served { generation: at.generation.0, seq: at.seq.0, documents: at.documents };
        Self {
            uid: held.uid.to_string(),
            shard: held.shard.0,
            owned: held.owned,
            generations: held.generations.into_iter().map(served).collect(),
        }
    }
}

impl TryFrom<v1::Held> for Held {
    type Error = Error;

    fn try_from(message: v1::Held) -> Result<Self, Error> {
        let served = |at: v1::Served| Served {
            generation: Generation(at.generation),
            seq: Seq(at.seq),
            documents: at.documents,
        };
        Ok(Self {
            uid: uid(&message.uid)?,
            shard: ShardId(message.shard),
            owned: message.owned,
            generations: message.generations.into_iter().map(served).collect(),
        })
    }
}

impl From<Report> for v1::ReportRequest {
    fn from(report: Report) -> Self {
        Self {
            node: report.node.to_string(),
            complete: report.complete,
            shards: report.shards.into_iter().map(Into::into).collect(),
        }
    }
}

pub(super) fn report(message: v1::ReportRequest) -> Result<Report, Error> {
    Ok(Report {
        node: NodeId(message.node.into()),
        complete: message.complete,
        shards: held(message.shards)?,
    })
}

pub(super) fn held(shards: Vec<v1::Held>) -> Result<Vec<Held>, Error> {
    shards.into_iter().map(TryInto::try_into).collect()
}

impl From<Load> for v1::Load {
    fn from(Load { running, queued, service_us }: Load) -> Self {
        Self { running, queued, service_us }
    }
}

impl From<v1::Load> for Load {
    fn from(v1::Load { running, queued, service_us }: v1::Load) -> Self {
        Self { running, queued, service_us }
    }
}
