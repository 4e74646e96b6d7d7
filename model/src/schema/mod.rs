//! What the documents of an index look like, checking one against it, and
//! inferring it from the first documents.
//!
//! **Invariant:** [`Schema::validate`] is the one function that turns a JSON
//! document into typed values. The edge validates with it and replay applies
//! with it, so what was acknowledged can be applied.

mod date;
mod infer;
mod validate;

pub(crate) use date::Given;
pub use date::{DATE_MAX, DATE_MIN};
pub use infer::infer;
pub use validate::{Document, FieldError, FieldValues, KEYWORD_BYTES_MAX};

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::analysis::Analyzer;
use crate::plan::FieldName;

/// Most fields of one schema.
pub const FIELDS_MAX: usize = 1_000;
/// Longest field name, in bytes.
pub const FIELD_NAME_BYTES_MAX: usize = 128;

/// The type of a field. Any field may hold an array of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldType {
    /// Analysed text, searched by words and phrases and scored.
    Text,
    /// An exact string, for filters, facets and sorting.
    Keyword,
    /// A signed 64-bit integer.
    I64,
    /// An unsigned 64-bit integer.
    U64,
    /// A 64-bit float.
    F64,
    /// A truth value.
    Bool,
    /// A date or time (RFC 3339, or `YYYY-MM-DD`), to the microsecond.
    Date,
}

/// One field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// How a text field is analysed; absent for other types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analyzer: Option<Analyzer>,
}

/// How the scores of one word in several default fields become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// The best field's score.
    #[default]
    Max,
    /// The sum of the fields' scores.
    Sum,
}

/// How words side by side are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// Every word must match.
    #[default]
    And,
    /// Any word may match.
    Or,
}

/// The fields of an index and how they are searched by default.
///
/// `id` is always there: a string, unique in the index, searched like a
/// keyword (`id:1706.02216`); it is not listed in `fields`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// The fields by name.
    #[serde(default)]
    pub fields: BTreeMap<FieldName, Field>,
    /// The fields that a word without a field is searched in; when empty,
    /// every text field in the order of their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub default_fields: Vec<FieldName>,
    /// How words side by side are joined.
    #[serde(default)]
    pub default_operator: Operator,
    /// How the scores of one word in several default fields become one.
    #[serde(default)]
    pub combine: Combine,
}

/// Why a schema is refused; the text names the field and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSchema(pub String);

impl FieldType {
    /// The type as schemas name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Keyword => "keyword",
            Self::I64 => "i64",
            Self::U64 => "u64",
            Self::F64 => "f64",
            Self::Bool => "bool",
            Self::Date => "date",
        }
    }
}

impl Field {
    /// A field of this type, with the default analyser for text.
    #[must_use]
    pub fn of(kind: FieldType) -> Self {
        Self { kind, analyzer: None }
    }

    /// How the field is analysed; `None` unless it is text.
    #[must_use]
    pub fn analyzer(&self) -> Option<Analyzer> {
        (self.kind == FieldType::Text).then(|| self.analyzer.unwrap_or_default())
    }
}

impl Schema {
    /// Checks names, analysers and default fields.
    ///
    /// # Errors
    /// Names the first thing that is wrong and says what is allowed.
    pub fn check(&self) -> Result<(), BadSchema> {
        if self.fields.len() > FIELDS_MAX {
            let count = self.fields.len();
            return Err(BadSchema(format!("there are {count} fields; at most {FIELDS_MAX} are allowed")));
        }
        for (name, field) in &self.fields {
            check_name(name)?;
            if field.analyzer.is_some() && field.kind != FieldType::Text {
                let kind = field.kind.name();
                return Err(BadSchema(format!(
                    "field {name:?} is {kind}; only text fields have an analyzer"
                )));
            }
        }
        self.check_default_fields()
    }

    /// The fields that a word without a field is searched in.
    #[must_use]
    pub fn searched_by_default(&self) -> Vec<FieldName> {
        if !self.default_fields.is_empty() {
            return self.default_fields.clone();
        }
        let texts = self.fields.iter().filter(|(_, field)| field.kind == FieldType::Text);
        texts.map(|(name, _)| name.clone()).collect()
    }

    fn check_default_fields(&self) -> Result<(), BadSchema> {
        let mut seen = BTreeSet::new();
        for name in &self.default_fields {
            let shown = short(name);
            let Some(field) = self.fields.get(name) else {
                return Err(BadSchema(format!("default field {shown} is not among the fields")));
            };
            if !matches!(field.kind, FieldType::Text | FieldType::Keyword) {
                let kind = field.kind.name();
                return Err(BadSchema(format!(
                    "default field {shown} is {kind}; only text and keyword fields are searched by default"
                )));
            }
            if !seen.insert(name) {
                return Err(BadSchema(format!("default field {shown} is named twice")));
            }
        }
        Ok(())
    }
}

/// Checks a field's name. Names that begin with `_` are the engine's, `id` is
/// always there, and the operators of the query language are no names.
pub(crate) fn check_name(name: &str) -> Result<(), BadSchema> {
    let shown = short(name);
    if name == "id" {
        return Err(BadSchema("field \"id\" is always there and is not declared".into()));
    }
    if matches!(name, "AND" | "OR" | "NOT" | "TO") {
        return Err(BadSchema(format!("field name {shown} is a word of the query language")));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let fine = name.len() <= FIELD_NAME_BYTES_MAX
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        && name.bytes().all(plain);
    if fine {
        return Ok(());
    }
    Err(BadSchema(format!(
        "field name {shown} must be 1 to {FIELD_NAME_BYTES_MAX} characters of a-z, A-Z, 0-9, '_', '.' or '-', starting with a letter"
    )))
}

/// A text in quotes, cut where it is too long to read.
fn short(text: &str) -> String {
    /// As much of a foreign text as an error shows.
    const SHOWN_CHARS: usize = 60;
    let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(json: &str) -> Schema {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_good_schema_passes_and_keeps_its_form() {
        let text = r#"{"fields":{"a.b-c":{"type":"text","analyzer":"german"},"year":{"type":"i64"}},"default_fields":["a.b-c"],"default_operator":"or","combine":"sum"}"#;
        let schema = schema(text);
        assert_eq!(schema.check(), Ok(()));
        assert_eq!(serde_json::to_string(&schema).unwrap(), text);
        assert_eq!(schema.searched_by_default(), ["a.b-c".into()]);
    }

    #[test]
    fn every_text_field_is_searched_by_default() {
        let schema = schema(r#"{"fields":{"t":{"type":"text"},"k":{"type":"keyword"},"b":{"type":"text"}}}"#);
        assert_eq!(schema.searched_by_default(), ["b".into(), "t".into()]);
        assert_eq!(schema.fields["t"].analyzer(), Some(Analyzer::English));
        assert_eq!(schema.fields["k"].analyzer(), None);
    }

    #[test]
    fn bad_schemas_say_what_is_wrong() {
        let long = "x".repeat(129);
        for name in ["id", "_a", "", "1a", "a b", "ä", "AND", long.as_str()] {
            let mut schema = Schema::default();
            schema.fields.insert(name.into(), Field::of(FieldType::I64));
            assert!(schema.check().is_err(), "{name}");
        }
        for bad in [
            r#"{"fields":{"a":{"type":"i64","analyzer":"english"}}}"#,
            r#"{"fields":{"a":{"type":"i64"}},"default_fields":["a"]}"#,
            r#"{"fields":{"a":{"type":"text"}},"default_fields":["b"]}"#,
            r#"{"fields":{"a":{"type":"text"}},"default_fields":["a","a"]}"#,
        ] {
            assert!(schema(bad).check().is_err(), "{bad}");
        }
        let mut many = Schema::default();
        for n in 0..=FIELDS_MAX {
            many.fields.insert(format!("f{n}").into(), Field::of(FieldType::Bool));
        }
        assert!(many.check().is_err());
    }
}
