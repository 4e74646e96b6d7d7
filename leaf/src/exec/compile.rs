//! A bound query with its weights: computed once, used for every segment.

use std::collections::BTreeMap;

use model::plan::{FieldName, Node, TextTerm};
use model::statistics::Statistics;
use std::sync::Arc;
use tantivy::query::{Bm25StatisticsProvider, Bm25Weight};
use tantivy::schema::Field;
use tantivy::{TantivyError, Term};

use crate::engine::{Error, Mapping};

/// A node with its weight.
pub(crate) enum Compiled<'a> {
    None,
    Term(CompiledTerm<'a>),
    Phrase(CompiledPhrase<'a>),
    /// A clause that scores a constant.
    Constant {
        node: &'a Node,
        score: f32,
    },
    Max(Vec<Compiled<'a>>),
    Bool {
        must: Vec<Compiled<'a>>,
        should: Vec<Compiled<'a>>,
        not: Vec<Compiled<'a>>,
    },
}

pub(crate) struct CompiledTerm<'a> {
    pub(crate) field: &'a FieldName,
    pub(crate) text: &'a Arc<str>,
    pub(crate) weight: Bm25Weight,
    /// No document scores more: the weight itself, since its factor tf/(tf+…)
    /// stays below one.
    pub(crate) bound: f32,
    /// The index-wide average length of the field.
    pub(crate) average: f32,
}

pub(crate) struct CompiledPhrase<'a> {
    pub(crate) field: &'a FieldName,
    pub(crate) terms: &'a [(u32, Arc<str>)],
    pub(crate) slop: u32,
    pub(crate) weight: Bm25Weight,
    /// No document scores more.
    pub(crate) bound: f32,
}

/// Our statistics in the engine's terms.
pub(crate) struct Provider<'a> {
    pub(crate) statistics: &'a Statistics,
    pub(crate) names: BTreeMap<Field, FieldName>,
}

impl<'a> Provider<'a> {
    pub(crate) fn new(statistics: &'a Statistics, mapping: &Mapping) -> Self {
        let names = mapping.text_fields().map(|(name, mapped)| (mapped.field, name.clone())).collect();
        Self { statistics, names }
    }

    fn name(&self, field: Field) -> tantivy::Result<&FieldName> {
        self.names.get(&field).ok_or_else(|| TantivyError::InvalidArgument("not a text field".into()))
    }
}

impl Bm25StatisticsProvider for Provider<'_> {
    fn total_num_tokens(&self, field: Field) -> tantivy::Result<u64> {
        Ok(self.statistics.tokens.get(self.name(field)?).copied().unwrap_or(0))
    }

    fn total_num_docs(&self) -> tantivy::Result<u64> {
        Ok(self.statistics.documents)
    }

    fn doc_freq(&self, term: &Term) -> tantivy::Result<u64> {
        let text: Arc<str> = term.value().as_str().unwrap_or_default().into();
        let term = TextTerm { field: self.name(term.field())?.clone(), text };
        Ok(self.statistics.frequencies.get(&term).copied().unwrap_or(0))
    }
}

/// BM25's inverse document frequency, as the engine computes it.
fn idf(frequency: u64, documents: u64) -> f32 {
    let odds = ((documents - frequency) as f32 + 0.5) / (frequency as f32 + 0.5);
    (1.0 + odds).ln()
}

/// What no score with this idf and boost exceeds: idf × (k1 + 1) × boost,
/// widened for rounding.
fn bound(idf: f32, boost: f32) -> f32 {
    idf * 2.2 * boost * (1.0 + 1e-6)
}

/// Weights of one query: average lengths are shared by its terms.
struct Weights<'a> {
    statistics: &'a Statistics,
}

impl Weights<'_> {
    fn average(&self, field: &FieldName) -> f32 {
        let tokens = self.statistics.tokens.get(field).copied().unwrap_or(0);
        tokens as f32 / self.statistics.documents as f32
    }

    fn frequency(&self, field: &FieldName, text: &Arc<str>) -> u64 {
        let term = TextTerm { field: field.clone(), text: text.clone() };
        let frequency = self.statistics.frequencies.get(&term).copied().unwrap_or(0);
        // The engine divides by (documents − frequency): statistics from
        // elsewhere are checked on arrival, and once more here.
        frequency.min(self.statistics.documents)
    }
}

impl<'a> Compiled<'a> {
    /// Compiles a query whose score matters.
    pub(crate) fn scored(node: &'a Node, statistics: &Statistics, mapping: &Mapping) -> Result<Self, Error> {
        statistics.covers(node).map_err(|error| Error::Corrupt(error.to_string()))?;
        Self::compile(node, &Weights { statistics }, mapping)
    }

    /// Compiles a query that only matches.
    pub(crate) fn matching(node: &'a Node, mapping: &Mapping) -> Result<Self, Error> {
        Self::compile(node, &Weights { statistics: &Statistics::default() }, mapping)
    }

    fn compile(node: &'a Node, weights: &Weights<'_>, mapping: &Mapping) -> Result<Self, Error> {
        let each = |nodes: &'a [Node]| {
            nodes.iter().map(|node| Self::compile(node, weights, mapping)).collect::<Result<Vec<_>, _>>()
        };
        Ok(match node {
            Node::None => Self::None,
            Node::Term { term, boost } => {
                let frequency = weights.frequency(&term.field, &term.text);
                let average = weights.average(&term.field);
                let documents = weights.statistics.documents;
                let weight =
                    Bm25Weight::for_one_term_without_explain(frequency, documents, average).boost_by(*boost);
                let bound = bound(idf(frequency, documents), *boost);
                let (field, text) = (&term.field, &term.text);
                Self::Term(CompiledTerm { field, text, weight, bound, average })
            }
            Node::Phrase { field, terms, slop, boost } => {
                let engine_field = mapping.get(field)?.field;
                let engine_terms: Vec<Term> =
                    terms.iter().map(|(_, text)| Term::from_field_text(engine_field, text)).collect();
                let provider = Provider::new(weights.statistics, mapping);
                let weight = Bm25Weight::for_terms(&provider, &engine_terms)?.boost_by(*boost);
                let each = |(_, text): &(u32, Arc<str>)| {
                    idf(weights.frequency(field, text), weights.statistics.documents)
                };
                let bound = bound(terms.iter().map(each).sum(), *boost);
                Self::Phrase(CompiledPhrase { field, terms, slop: *slop, weight, bound })
            }
            Node::All { boost }
            | Node::Exact { boost, .. }
            | Node::Prefix { boost, .. }
            | Node::Range { boost, .. }
            | Node::Exists { boost, .. } => Self::Constant { node, score: *boost },
            Node::Max(children) => Self::Max(each(children)?),
            Node::Bool { must, should, not } => {
                let not =
                    not.iter().map(|node| Self::matching(node, mapping)).collect::<Result<Vec<_>, _>>()?;
                Self::Bool { must: each(must)?, should: each(should)?, not }
            }
        })
    }

    pub(crate) fn is_term(&self) -> bool {
        matches!(self, Self::Term(_))
    }
}
