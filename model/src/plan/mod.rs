//! A query bound to a schema: what leaves execute.
//!
//! Fields are resolved, texts analysed, values typed, boosts multiplied down
//! to the clauses, nested groups of one kind merged and clauses sorted.
//!
//! **Invariant:** the score of a document is defined here, to the bit, for any
//! layout of shards and segments:
//! - a text term or phrase scores BM25 (k1 1.2, b 0.75) with index-wide live
//!   statistics, its weight multiplied by its boost;
//! - every other clause scores its boost;
//! - [`Node::Max`] scores the greatest of its matching children;
//! - [`Node::Bool`] scores the `f32` sum, from 0.0 and from left to right, of
//!   its matching `must` then `should` children in the order in which they
//!   stand, which is canonical.

mod bind;
mod bytes;

pub use bind::{BindError, bind, bind_filter};

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A field's name, shared by the clauses that use it.
pub type FieldName = Arc<str>;

/// A term of a text field: what statistics are kept for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TextTerm {
    /// The field.
    pub field: FieldName,
    /// The analysed term.
    pub text: Arc<str>,
}

/// A typed value of a field that is not text.
///
/// Dates are microseconds since 1970-01-01T00:00:00Z, as `Date`.
#[derive(Clone, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// A keyword, or an analysed term in a range over text.
    Keyword(String),
    /// A signed integer.
    I64(i64),
    /// An unsigned integer.
    U64(u64),
    /// A float, never NaN.
    F64(f64),
    /// A truth value.
    Bool(bool),
    /// Microseconds since the epoch.
    Date(i64),
}

/// One end of a typed range.
#[derive(Clone, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// No limit.
    Unbounded,
    /// The value itself is inside.
    Included(Value),
    /// The value itself is outside.
    Excluded(Value),
}

/// A node of a bound query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Node {
    /// Matches nothing.
    None,
    /// Matches everything; scores its boost.
    All {
        /// The score.
        boost: f32,
    },
    /// A term of a text field; scores BM25 × boost.
    Term {
        /// The term.
        term: TextTerm,
        /// Multiplies the weight.
        boost: f32,
    },
    /// Terms of one text field at given distances; scores BM25 × boost with
    /// the phrase's frequency. Has at least two terms.
    Phrase {
        /// The field of every term.
        field: FieldName,
        /// Each term with its offset from the first, ascending.
        terms: Vec<(u32, Arc<str>)>,
        /// How many positions the words may be moved by in total.
        slop: u32,
        /// Multiplies the weight.
        boost: f32,
    },
    /// A value of a field that is not text; scores its boost.
    Exact {
        /// The field.
        field: FieldName,
        /// The value.
        value: Value,
        /// The score.
        boost: f32,
    },
    /// Terms or keywords that start with `prefix`; scores its boost.
    Prefix {
        /// The field, text or keyword.
        field: FieldName,
        /// The analysed prefix, never empty.
        prefix: Arc<str>,
        /// The score.
        boost: f32,
    },
    /// Values between two ends; scores its boost.
    Range {
        /// The field: keyword, number, date or bool.
        field: FieldName,
        /// The lower end.
        lower: End,
        /// The upper end.
        upper: End,
        /// The score.
        boost: f32,
    },
    /// Documents with any value in the field; scores its boost.
    Exists {
        /// The field, of any type.
        field: FieldName,
        /// The score.
        boost: f32,
    },
    /// The best of several clauses, such as one word in several fields.
    Max(Vec<Node>),
    /// All of `must`, none of `not`, and one of `should` unless there is a
    /// `must`. At least one of `must` and `should` is not empty.
    Bool {
        /// Clauses that must match, in canonical order.
        must: Vec<Node>,
        /// Clauses that may match, in canonical order.
        should: Vec<Node>,
        /// Clauses that must not match; they never score.
        not: Vec<Node>,
    },
}

impl Node {
    /// Calls `visit` for each text term that scores, phrases included, in
    /// order and with repetitions. `not` clauses are left out: their
    /// statistics are never read.
    pub fn scored_terms(&self, visit: &mut dyn FnMut(&FieldName, &Arc<str>)) {
        match self {
            Self::Term { term, .. } => visit(&term.field, &term.text),
            Self::Phrase { field, terms, .. } => {
                for (_, text) in terms {
                    visit(field, text);
                }
            }
            Self::Max(children) => {
                for child in children {
                    child.scored_terms(visit);
                }
            }
            Self::Bool { must, should, .. } => {
                for child in must.iter().chain(should) {
                    child.scored_terms(visit);
                }
            }
            Self::None
            | Self::All { .. }
            | Self::Exact { .. }
            | Self::Prefix { .. }
            | Self::Range { .. }
            | Self::Exists { .. } => {}
        }
    }
}
