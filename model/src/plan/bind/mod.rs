//! Resolves a query against a schema.
//!
//! ```text
//! Query ──bind──► nodes: fields, analysed terms, typed values, boosts
//!                   │ normal: kinds of group merged, what cannot match dropped, sorted
//!                   ▼
//!                 Node
//! ```

mod normal;
#[cfg(test)]
mod tests;
mod value;

use super::{FieldName, Node, TextTerm};
use crate::query::{Group, Query};
use crate::schema::{Combine, Field, FieldType, Operator, Schema};
use normal::normal;
use value::{exact, prefix, range};

/// Deepest tree that is walked. Trees within [`crate::query::Limits`] have at
/// most 133 levels; this holds for those that nobody checked.
const LEVELS_MAX: usize = 256;
/// Ends of a product of boosts: with these, a sum of a thousand clauses is
/// finite. Within the limits a product stays far from both.
const BOOST_ENDS: (f32, f32) = (1e-12, 1e12);
/// Fields that an error lists.
const FIELDS_SHOWN: usize = 20;

/// Why a query does not fit a schema; the text says what would.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BindError {
    /// Names the field and what is wrong with how it is used.
    pub message: String,
}

impl BindError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

/// Binds what is searched and scored.
///
/// # Errors
/// Names the field and what is wrong with how it is used.
pub fn bind(query: &Query, schema: &Schema) -> Result<Node, BindError> {
    let binder = Binder { schema, scored: true };
    Ok(normal(binder.query(query, 1.0, 1)?.unwrap_or(Node::None)))
}

/// Binds what hits must also match: the same without boosts, for its scores
/// are not used.
///
/// # Errors
/// As [`bind`].
pub fn bind_filter(query: &Query, schema: &Schema) -> Result<Node, BindError> {
    let binder = Binder { schema, scored: false };
    Ok(normal(binder.query(query, 1.0, 1)?.unwrap_or(Node::None)))
}

struct Binder<'a> {
    schema: &'a Schema,
    scored: bool,
}

/// A field by its name, or what a clause without one is searched in.
enum Target<'a> {
    Id,
    Field(FieldName, &'a Field),
}

/// `None`: the clause has no terms and disappears.
type Bind = Result<Option<Node>, BindError>;

impl<'a> Binder<'a> {
    fn query(&self, query: &Query, boost: f32, level: usize) -> Bind {
        if level > LEVELS_MAX {
            return Err(BindError::new("the query is nested too deeply"));
        }
        match query {
            Query::All => Ok(Some(Node::All { boost })),
            Query::Word { field: None, text } if self.says_nothing(text) => Ok(None),
            Query::Word { field, text } => {
                self.fields(field.as_deref(), |target| text_or_value(target, text, 0, boost))
            }
            Query::Phrase { field, text, slop } => {
                self.fields(field.as_deref(), |target| text_or_value(target, text, *slop, boost))
            }
            Query::Prefix { field, text } => {
                self.fields(field.as_deref(), |target| prefix(target, text, boost))
            }
            Query::Exists { field } => Ok(Some(match self.target(field)? {
                // Every document has one.
                Target::Id => Node::All { boost },
                Target::Field(field, _) => Node::Exists { field, boost },
            })),
            Query::Range { field, lower, upper } => {
                let target = self.target(field)?;
                range(target, lower, upper, boost).map(Some)
            }
            Query::Boost { query, factor } => {
                if !factor.is_finite() || *factor <= 0.0 {
                    return Err(BindError::new("a boost must be a number above 0"));
                }
                let (least, most) = BOOST_ENDS;
                let boost = if self.scored { (boost * factor).clamp(least, most) } else { boost };
                self.query(query, boost, level + 1)
            }
            Query::Group(group) => self.group(group, boost, level + 1),
        }
    }

    fn group(&self, group: &Group, boost: f32, level: usize) -> Bind {
        let (mut must, mut should) =
            (self.each(&group.must, boost, level)?, self.each(&group.should, boost, level)?);
        let plain = self.each(&group.plain, boost, level)?;
        match self.schema.default_operator {
            Operator::And => must.extend(plain),
            Operator::Or => should.extend(plain),
        }
        // What must not match never scores.
        let unscored = Self { scored: false, ..*self };
        let not = unscored.each(&group.not, 1.0, level)?;
        let written = !group.must.is_empty() || !group.should.is_empty() || !group.plain.is_empty();
        if must.is_empty() && should.is_empty() {
            if written || not.is_empty() {
                return Ok(None);
            }
            must.push(Node::All { boost });
        }
        Ok(Some(Node::Bool { must, should, not }))
    }

    fn each(&self, queries: &[Query], boost: f32, level: usize) -> Result<Vec<Node>, BindError> {
        let mut nodes = Vec::with_capacity(queries.len());
        for query in queries {
            nodes.extend(self.query(query, boost, level)?);
        }
        Ok(nodes)
    }

    /// Whether a word without a field is punctuation, such as a dash between
    /// words, that text fields drop. A keyword field among the default ones
    /// must not make it a requirement.
    fn says_nothing(&self, text: &str) -> bool {
        let reads = |name: &FieldName| {
            self.schema.fields.get(name).is_some_and(|field| field.kind == FieldType::Text)
        };
        !text.chars().any(char::is_alphanumeric) && self.schema.searched_by_default().iter().any(reads)
    }

    /// Binds a clause to its field, or to every default field.
    fn fields(&self, field: Option<&str>, bind: impl Fn(Target<'a>) -> Bind) -> Bind {
        if let Some(field) = field {
            return bind(self.target(field)?);
        }
        let names = self.schema.searched_by_default();
        if names.is_empty() {
            return Err(BindError::new(format!(
                "the index has no text field to search by default: name a field, as in field:word; {}",
                self.known()
            )));
        }
        let mut nodes = Vec::with_capacity(names.len());
        for name in names {
            nodes.extend(bind(self.target(&name)?)?);
        }
        Ok(match (nodes.len(), self.schema.combine) {
            (0, _) => None,
            (1, _) => nodes.pop(),
            (_, Combine::Max) => Some(Node::Max(nodes)),
            (_, Combine::Sum) => Some(Node::Bool { must: Vec::new(), should: nodes, not: Vec::new() }),
        })
    }

    fn target(&self, name: &str) -> Result<Target<'a>, BindError> {
        if name == "id" {
            return Ok(Target::Id);
        }
        match self.schema.fields.get_key_value(name) {
            Some((name, field)) => Ok(Target::Field(name.clone(), field)),
            None => Err(self.unknown(name)),
        }
    }

    fn unknown(&self, name: &str) -> BindError {
        let shown = short(name);
        let mut close: Vec<(usize, &str)> = self
            .schema
            .fields
            .keys()
            .map(|known| (distance(known, name), &**known))
            .filter(|(distance, _)| *distance <= 2)
            .collect();
        close.sort_unstable();
        let hint = match close.as_slice() {
            [] => self.known(),
            close => {
                let names: Vec<String> =
                    close.iter().take(3).map(|(_, known)| format!("{known:?}")).collect();
                format!("did you mean {}?", names.join(" or "))
            }
        };
        BindError::new(format!("the index has no field {shown}: {hint}"))
    }

    fn known(&self) -> String {
        let fields = &self.schema.fields;
        let names: Vec<&str> =
            std::iter::once("id").chain(fields.keys().map(|known| &**known)).take(FIELDS_SHOWN).collect();
        let more = if fields.len() + 1 > names.len() { ", …" } else { "" };
        format!("its fields are {}{more}", names.join(", "))
    }
}

/// A word or phrase: analysed in a text field, a value in any other.
fn text_or_value(target: Target<'_>, text: &str, slop: u32, boost: f32) -> Bind {
    let Target::Field(name, field) = &target else {
        return exact(target, text, boost).map(Some);
    };
    let Some(analyzer) = field.analyzer() else {
        return exact(target, text, boost).map(Some);
    };
    Ok(words(name, &analyzer.terms(text), slop, boost))
}

/// Analysed words of one text field.
fn words(field: &FieldName, terms: &[(u32, String)], slop: u32, boost: f32) -> Option<Node> {
    let field = field.clone();
    match terms {
        [] => None,
        [(_, text)] => Some(Node::Term { term: TextTerm { field, text: text.as_str().into() }, boost }),
        [(first, _), ..] => {
            let terms =
                terms.iter().map(|(at, text)| (at.saturating_sub(*first), text.as_str().into())).collect();
            Some(Node::Phrase { field, terms, slop, boost })
        }
    }
}

/// Levenshtein distance of two short names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// A text in quotes, cut where it is too long to read.
fn short(text: &str) -> String {
    let shown: String = text.chars().take(60).collect();
    format!("{shown:?}")
}
