//! Between the values of our contracts and the messages of `windrow.v1`.
//!
//! **Invariant:** what a message can say and a value cannot is an
//! [`Error`] of kind `Invalid`, never a guess.

use std::str::FromStr;
use std::time::Duration;

use model::analysis::Analyzer;
use model::gather::{self, Relation};
use model::ids::{CutNumber, IndexUid, ShardId};
use model::schema::{self, Combine, FieldType, Operator};
use model::settings::Definition;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as NameError, StrDeserializer};

use crate::{Error, admin, search, status, v1};

/// The analyser of this name.
///
/// # Errors
/// Names the analysers there are.
pub fn analyzer(name: &str) -> Result<Analyzer, Error> {
    let text: StrDeserializer<'_, NameError> = name.into_deserializer();
    Analyzer::deserialize(text).map_err(|_unknown| {
        let known: Vec<String> = Analyzer::ALL.iter().map(|known| analyzer_name(*known)).collect();
        let name: String = name.chars().take(100).collect();
        Error::invalid(format!("there is no analyzer {name:?}; use one of: {}", known.join(", ")))
    })
}

/// The name of an analyser, as schemas spell it.
fn analyzer_name(analyzer: Analyzer) -> String {
    format!("{analyzer:?}").to_lowercase()
}

impl TryFrom<v1::Schema> for schema::Schema {
    type Error = Error;

    fn try_from(message: v1::Schema) -> Result<Self, Error> {
        let mut fields = std::collections::BTreeMap::new();
        for (name, field) in message.fields {
            let analyzer = field.analyzer.as_deref().map(analyzer).transpose()?;
            let kind = match field.r#type() {
                v1::FieldType::Unspecified => {
                    return Err(Error::invalid(format!("field {name:?} has no type")));
                }
                v1::FieldType::Text => FieldType::Text,
                v1::FieldType::Keyword => FieldType::Keyword,
                v1::FieldType::I64 => FieldType::I64,
                v1::FieldType::U64 => FieldType::U64,
                v1::FieldType::F64 => FieldType::F64,
                v1::FieldType::Bool => FieldType::Bool,
                v1::FieldType::Date => FieldType::Date,
            };
            fields.insert(name.into(), schema::Field { kind, analyzer });
        }
        let default_operator = match v1::Operator::try_from(message.default_operator) {
            Ok(v1::Operator::Unspecified | v1::Operator::And) => Operator::And,
            Ok(v1::Operator::Or) => Operator::Or,
            Err(unknown) => return Err(Error::invalid(format!("default_operator: {unknown}"))),
        };
        let combine = match v1::Combine::try_from(message.combine) {
            Ok(v1::Combine::Unspecified | v1::Combine::Max) => Combine::Max,
            Ok(v1::Combine::Sum) => Combine::Sum,
            Err(unknown) => return Err(Error::invalid(format!("combine: {unknown}"))),
        };
        let default_fields = message.default_fields.into_iter().map(Into::into).collect();
        Ok(Self { fields, default_fields, default_operator, combine })
    }
}

impl From<schema::Schema> for v1::Schema {
    fn from(schema: schema::Schema) -> Self {
        let field = |field: &schema::Field| {
            let kind = match field.kind {
                FieldType::Text => v1::FieldType::Text,
                FieldType::Keyword => v1::FieldType::Keyword,
                FieldType::I64 => v1::FieldType::I64,
                FieldType::U64 => v1::FieldType::U64,
                FieldType::F64 => v1::FieldType::F64,
                FieldType::Bool => v1::FieldType::Bool,
                FieldType::Date => v1::FieldType::Date,
            };
            v1::Field { r#type: kind.into(), analyzer: field.analyzer.map(analyzer_name) }
        };
        let operator = match schema.default_operator {
            Operator::And => v1::Operator::And,
            Operator::Or => v1::Operator::Or,
        };
        let combine = match schema.combine {
            Combine::Max => v1::Combine::Max,
            Combine::Sum => v1::Combine::Sum,
        };
        Self {
            fields: schema.fields.iter().map(|(name, f)| (name.to_string(), field(f))).collect(),
            default_fields: schema.default_fields.iter().map(ToString::to_string).collect(),
            default_operator: operator.into(),
            combine: combine.into(),
        }
    }
}

impl TryFrom<v1::CreateIndexRequest> for Definition {
    type Error = Error;

    /// The definition, checked, with defaults for what is absent.
    fn try_from(message: v1::CreateIndexRequest) -> Result<Self, Error> {
        let schema = message.schema.map(TryInto::try_into).transpose()?.unwrap_or_default();
        let mut definition = Self::of(schema);
        definition.shards = message.shards.unwrap_or(definition.shards);
        definition.copies = message.copies.unwrap_or(definition.copies);
        definition.refresh_interval_ms =
            message.refresh_interval_ms.unwrap_or(definition.refresh_interval_ms);
        definition.min_coverage = message.min_coverage.unwrap_or(definition.min_coverage);
        definition.check().map_err(|bad| Error::invalid(bad.0))?;
        Ok(definition)
    }
}

impl From<admin::IndexInfo> for v1::Index {
    fn from(info: admin::IndexInfo) -> Self {
        Self {
            name: info.name.to_string(),
            uid: info.uid.to_string(),
            shards: info.definition.shards,
            copies: info.definition.copies,
            refresh_interval_ms: info.definition.refresh_interval_ms,
            schema: Some(info.definition.schema.into()),
            cut: info.cut.0,
            documents: info.documents,
        }
    }
}

impl From<admin::Rejected> for v1::Failure {
    fn from(rejected: admin::Rejected) -> Self {
        Self {
            line: rejected.line,
            id: rejected.id,
            reason: rejected.reason,
            kind: status::name(rejected.kind).into(),
            retry: rejected.retry,
        }
    }
}

impl From<admin::Written> for v1::WriteResponse {
    fn from(written: admin::Written) -> Self {
        Self {
            accepted: written.accepted,
            failures: written.rejected.into_iter().map(Into::into).collect(),
            token: written.token.map(|token| token.encode()),
            searchable: written.searchable,
        }
    }
}

impl From<v1::Refresh> for admin::Refresh {
    fn from(refresh: v1::Refresh) -> Self {
        match refresh {
            v1::Refresh::Unspecified => Self::No,
            v1::Refresh::Wait => Self::Wait,
        }
    }
}

impl From<v1::Count> for gather::Count {
    fn from(count: v1::Count) -> Self {
        match count {
            v1::Count::Unspecified | v1::Count::Bounded => Self::default(),
            v1::Count::Exact => Self::Exact,
            v1::Count::None => Self::None,
        }
    }
}

impl From<search::Document> for v1::Document {
    fn from(document: search::Document) -> Self {
        Self { id: document.id, source: document.source }
    }
}

impl From<search::Answer> for v1::SearchResponse {
    fn from(answer: search::Answer) -> Self {
        let hit = |hit: search::Hit| v1::Hit { document: Some(hit.document.into()), score: hit.score };
        let total = |total: gather::Total| v1::Total {
            value: total.value,
            relation: match total.relation {
                Relation::Eq => v1::Relation::Eq.into(),
                Relation::Gte => v1::Relation::Gte.into(),
            },
        };
        let coverage = v1::Coverage {
            shards: answer.coverage.shards,
            answered: answer.coverage.answered,
            missing: answer
                .coverage
                .missing
                .into_iter()
                .map(|missing| v1::Missing { shard: missing.shard.0, reason: missing.reason })
                .collect(),
            documents: answer.coverage.documents,
        };
        Self {
            hits: answer.hits.into_iter().map(hit).collect(),
            total: answer.total.map(total),
            coverage: Some(coverage),
            uid: answer.uid.to_string(),
            cut: answer.cut.0,
            took_us: micros(answer.took),
            profile: answer.profile.map(Into::into),
        }
    }
}

impl TryFrom<v1::SearchResponse> for search::Answer {
    type Error = Error;

    /// A client's view.
    fn try_from(message: v1::SearchResponse) -> Result<Self, Error> {
        let lacks = |what: &str| Error::internal(format!("read the answer: it lacks its {what}"));
        let hit = |hit: v1::Hit| {
            let document = hit.document.ok_or_else(|| lacks("document"))?;
            let document = search::Document { id: document.id, source: document.source };
            Ok(search::Hit { score: hit.score, document })
        };
        let total = |total: v1::Total| {
            let relation = match total.relation() {
                v1::Relation::Eq => Relation::Eq,
                v1::Relation::Gte => Relation::Gte,
                v1::Relation::Unspecified => return Err(lacks("relation")),
            };
            Ok(gather::Total { value: total.value, relation })
        };
        let coverage = message.coverage.ok_or_else(|| lacks("coverage"))?;
        Ok(Self {
            hits: message.hits.into_iter().map(hit).collect::<Result<_, Error>>()?,
            total: message.total.map(total).transpose()?,
            coverage: search::Coverage {
                shards: coverage.shards,
                answered: coverage.answered,
                missing: coverage
                    .missing
                    .into_iter()
                    .map(|missing| search::Missing { shard: ShardId(missing.shard), reason: missing.reason })
                    .collect(),
                documents: coverage.documents,
            },
            uid: IndexUid::parse(&message.uid).ok_or_else(|| lacks("uid"))?,
            cut: CutNumber(message.cut),
            took: Duration::from_micros(message.took_us),
            profile: message.profile.map(Into::into),
        })
    }
}

impl From<search::Profile> for v1::Profile {
    fn from(profile: search::Profile) -> Self {
        let leaf = |leaf: search::LeafProfile| v1::LeafProfile {
            node: leaf.node,
            shards: leaf.shards.iter().map(|shard| shard.0).collect(),
            queue_us: leaf.queue_us,
            search_us: leaf.search_us,
            strategy: leaf.strategy,
            scored: leaf.scored,
            phase: leaf.phase,
            call: leaf.call,
            outcome: leaf.outcome,
            sent_us: leaf.sent_us,
            took_us: leaf.took_us,
        };
        Self {
            plan: profile.plan,
            phases_us: profile.phases_us.into_iter().collect(),
            leaves: profile.leaves.into_iter().map(leaf).collect(),
        }
    }
}

impl From<v1::Profile> for search::Profile {
    fn from(message: v1::Profile) -> Self {
        let leaf = |leaf: v1::LeafProfile| search::LeafProfile {
            node: leaf.node,
            shards: leaf.shards.into_iter().map(ShardId).collect(),
            queue_us: leaf.queue_us,
            search_us: leaf.search_us,
            strategy: leaf.strategy,
            scored: leaf.scored,
            phase: leaf.phase,
            call: leaf.call,
            outcome: leaf.outcome,
            sent_us: leaf.sent_us,
            took_us: leaf.took_us,
        };
        Self {
            plan: message.plan,
            phases_us: message.phases_us.into_iter().collect(),
            leaves: message.leaves.into_iter().map(leaf).collect(),
        }
    }
}

impl From<admin::ClusterState> for v1::ClusterResponse {
    fn from(state: admin::ClusterState) -> Self {
        let node = |node: admin::NodeState| v1::Node {
            node: node.node.to_string(),
            roles: node.roles,
            public: node.public,
            internal: node.internal,
            zone: node.zone,
            draining: node.draining,
        };
        let shard = |shard: admin::ShardState| v1::Shard {
            shard: shard.shard.0,
            owner: shard.owner.map(|owner| owner.to_string()),
            replicas: shard
                .replicas
                .iter()
                .map(|replica| v1::Replica {
                    node: replica.node.to_string(),
                    live: replica.live,
                    generation: replica.generation.map(|generation| generation.0),
                })
                .collect(),
            generation: shard.generation.0,
            seq: shard.seq.0,
            documents: shard.documents,
        };
        let index = |(info, shards): (admin::IndexInfo, Vec<admin::ShardState>)| v1::IndexState {
            index: Some(info.into()),
            shards: shards.into_iter().map(shard).collect(),
        };
        Self {
            nodes: state.nodes.into_iter().map(node).collect(),
            indexes: state.indexes.into_iter().map(index).collect(),
            controller: state.controller.map(|node| node.to_string()),
        }
    }
}

/// Reads a count by its name in JSON and URLs.
///
/// # Errors
/// Names the counts there are.
pub fn count(text: &str) -> Result<gather::Count, Error> {
    gather::Count::from_str(text).map_err(|bad| Error::invalid(bad.to_string()))
}

/// Whole microseconds.
#[must_use]
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_analyzer_has_its_name() {
        for known in Analyzer::ALL {
            assert_eq!(analyzer(&analyzer_name(known)), Ok(known));
        }
        assert!(analyzer("klingon").unwrap_err().message.contains("english"));
    }

    #[test]
    fn schemas_survive_the_trip() {
        let schema: schema::Schema = serde_json::from_str(
            r#"{"fields": {"t": {"type": "text", "analyzer": "german"}, "y": {"type": "i64"}},
                "default_fields": ["t"], "default_operator": "or", "combine": "sum"}"#,
        )
        .unwrap();
        assert_eq!(schema::Schema::try_from(v1::Schema::from(schema.clone())), Ok(schema));
    }

    #[test]
    fn a_field_without_a_type_is_refused() {
        let fields = [("x".to_owned(), v1::Field::default())].into();
        let schema = v1::Schema { fields, ..Default::default() };
        let request = v1::CreateIndexRequest { schema: Some(schema), ..Default::default() };
        assert!(Definition::try_from(request).unwrap_err().message.contains("no type"));
    }

    #[test]
    fn answers_survive_the_trip() {
        let hit = search::Hit {
            score: 0.1 + 0.2,
            document: search::Document { id: "a".into(), source: "{}".into() },
        };
        let lost = search::Missing { shard: ShardId(1), reason: "slow".into() };
        let coverage = search::Coverage { shards: 2, answered: 1, missing: vec![lost], documents: 0.5 };
        let answer = search::Answer {
            hits: vec![hit],
            total: Some(gather::Total { value: 9, relation: Relation::Gte }),
            coverage,
            uid: IndexUid::from_bits(7),
            cut: CutNumber(3),
            took: Duration::from_micros(12),
            profile: Some(search::Profile::default()),
        };
        let back = search::Answer::try_from(v1::SearchResponse::from(answer.clone())).unwrap();
        assert_eq!(format!("{back:?}"), format!("{answer:?}"));
    }
}
