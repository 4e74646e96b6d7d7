//! The query tree: what a person asked for, before any schema is known.

use serde::{Deserialize, Serialize};

/// A query as it was written.
///
/// `field: None` means the index's default fields. Texts are raw: analysis
/// needs a schema and happens in [`crate::plan::bind`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Query {
    /// `*`: every document.
    All,
    /// `word` or `field:word`.
    Word {
        /// The field, or the default fields.
        field: Option<String>,
        /// The raw word, escapes resolved.
        text: String,
    },
    /// `"some words"~slop` or `field:"some words"`.
    Phrase {
        /// The field, or the default fields.
        field: Option<String>,
        /// The raw text between the quotes, escapes resolved.
        text: String,
        /// How many positions the words may be moved by in total.
        slop: u32,
    },
    /// `tit*` or `field:tit*`.
    Prefix {
        /// The field, or the default fields.
        field: Option<String>,
        /// The raw text before the star, never empty.
        text: String,
    },
    /// `field:*`: documents that have a value in `field`.
    Exists {
        /// The field.
        field: String,
    },
    /// `field:[a TO b]`, `field:{a TO b}`, `field:>=a` and so on.
    Range {
        /// The field.
        field: String,
        /// The lower end.
        lower: Bound,
        /// The upper end.
        upper: Bound,
    },
    /// Clauses joined by operators or by juxtaposition.
    Group(Group),
    /// `query^factor`.
    Boost {
        /// What is boosted; never itself a boost in a canonical tree.
        query: Box<Query>,
        /// A finite factor above 0.
        factor: f32,
    },
}

/// One end of a range, as raw text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// `*`.
    Unbounded,
    /// `[a` or `a]`.
    Included(String),
    /// `{a` or `a}`.
    Excluded(String),
}

/// Clauses of one level.
///
/// A document matches when it matches every `must`, no `not`, and, where there
/// is no `must`, at least one `should`. `plain` clauses were written side by
/// side without an operator; binding makes them `must` or `should` by the
/// index's `default_operator`. A group of only `not` clauses matches every
/// other document, with a constant score.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// `a AND b`, `+a`.
    pub must: Vec<Query>,
    /// `a OR b`.
    pub should: Vec<Query>,
    /// `a b`.
    pub plain: Vec<Query>,
    /// `NOT a`, `-a`.
    pub not: Vec<Query>,
}
