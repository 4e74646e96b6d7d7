//! The counts that BM25 needs, over live documents only.
//!
//! **Invariant:** summing the statistics of an index's shards gives the same
//! numbers for any number of shards and any layout of their segments, so
//! scores do not depend on either.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::plan::{FieldName, Node, TextTerm};

/// Counts of live documents, for the terms of one query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Live documents.
    pub documents: u64,
    /// Tokens of live documents, for each text field that the query scores.
    pub tokens: BTreeMap<FieldName, u64>,
    /// Live documents that hold the term, for each scored term.
    pub frequencies: BTreeMap<TextTerm, u64>,
}

/// Statistics that contradict themselves: a term in more documents than there
/// are, or a missing term or field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("statistics do not cover {0}")]
pub struct Incomplete(pub String);

impl Statistics {
    /// Adds the counts of another, disjoint set of documents.
    pub fn add(&mut self, other: &Self) {
        self.documents += other.documents;
        for (field, tokens) in &other.tokens {
            *self.tokens.entry(field.clone()).or_default() += tokens;
        }
        for (term, count) in &other.frequencies {
            *self.frequencies.entry(term.clone()).or_default() += count;
        }
    }

    /// Checks that every scored term of `node` is covered and that no count
    /// exceeds the number of documents: the engine would divide by less than
    /// nothing.
    ///
    /// # Errors
    /// Names the first term that is not covered.
    pub fn covers(&self, node: &Node) -> Result<(), Incomplete> {
        let mut bad = None;
        node.scored_terms(&mut |field, text| {
            let term = TextTerm { field: field.clone(), text: text.clone() };
            let known = self.tokens.contains_key(field)
                && self.frequencies.get(&term).is_some_and(|df| *df <= self.documents);
            if !known && bad.is_none() {
                bad = Some(Incomplete(format!("{field}:{text}")));
            }
        });
        bad.map_or(Ok(()), Err)
    }
}
