//! One JSON document to typed values.
//!
//! The document is read once and only the schema's fields are copied out of
//! it; everything else stays in the source.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::date::Given;
use super::{DATE_MAX, DATE_MIN, Field, FieldType, Schema, short};
use crate::ids::DOCUMENT_ID_BYTES_MAX;
use crate::plan::FieldName;

/// Longest keyword, in bytes: what the engine's columns and Elasticsearch's
/// keywords have in common.
pub const KEYWORD_BYTES_MAX: usize = 32_766;

/// A document that fits its schema.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its id.
    pub id: String,
    /// The values of the schema's fields that it has, in the order in which it
    /// names them, each field once and with at least one value.
    pub values: Vec<(FieldName, FieldValues)>,
}

/// The values of one field, by its type.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValues {
    /// Texts to be analysed.
    Text(Vec<String>),
    /// Exact strings.
    Keyword(Vec<String>),
    /// Signed integers.
    I64(Vec<i64>),
    /// Unsigned integers.
    U64(Vec<u64>),
    /// Finite floats.
    F64(Vec<f64>),
    /// Truth values.
    Bool(Vec<bool>),
    /// Microseconds since the epoch.
    Date(Vec<i64>),
}

/// Why a document is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field; `None` when the whole document is at fault.
    pub field: Option<String>,
    /// What came: its type and a short form of its value.
    pub came: String,
    /// What was expected.
    pub expected: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = &self.field {
            write!(f, "field {}: ", short(field))?;
        }
        write!(f, "expected {}, got {}", self.expected, self.came)
    }
}

impl std::error::Error for FieldError {}

impl FieldValues {
    fn of(kind: FieldType) -> Self {
        match kind {
            FieldType::Text => Self::Text(Vec::new()),
            FieldType::Keyword => Self::Keyword(Vec::new()),
            FieldType::I64 => Self::I64(Vec::new()),
            FieldType::U64 => Self::U64(Vec::new()),
            FieldType::F64 => Self::F64(Vec::new()),
            FieldType::Bool => Self::Bool(Vec::new()),
            FieldType::Date => Self::Date(Vec::new()),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(values) | Self::Keyword(values) => values.len(),
            Self::I64(values) | Self::Date(values) => values.len(),
            Self::U64(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::Bool(values) => values.len(),
        }
    }

    fn expected(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Keyword(_) => "keyword",
            Self::I64(_) => "i64",
            Self::U64(_) => "u64",
            Self::F64(_) => "f64",
            Self::Bool(_) => "bool",
            Self::Date(_) => "date (RFC 3339 with an offset, or YYYY-MM-DD, from 1678 to 2261)",
        }
    }
}

impl Schema {
    /// Reads one JSON object and checks the fields that the schema has. Fields
    /// that it lacks are not looked at; `null` counts as absent.
    ///
    /// # Errors
    /// Says which field is wrong, what came and what was expected.
    pub fn validate(&self, source: &str) -> Result<Document, FieldError> {
        let mut wrong = None;
        let mut reader = serde_json::Deserializer::from_str(source);
        let visitor = DocumentVisitor { schema: self, wrong: &mut wrong };
        let read = reader.deserialize_any(visitor).and_then(|read| reader.end().map(|()| read));
        match (wrong, read) {
            (Some(wrong), _) => Err(wrong),
            (None, Ok(document)) => Ok(document),
            (None, Err(error)) => Err(FieldError {
                field: None,
                came: format!("invalid JSON: {error}"),
                expected: "a JSON object".into(),
            }),
        }
    }
}

/// Stops the reader; the reason is in `wrong`.
fn stop<T, E: de::Error>(wrong: &mut Option<FieldError>, error: FieldError) -> Result<T, E> {
    *wrong = Some(error);
    Err(E::custom("the document does not fit its schema"))
}

/// A value's type and a short form of it.
enum Came<'a> {
    Null,
    Bool(bool),
    Number(&'a dyn fmt::Display),
    String(&'a str),
    Array,
    Object,
}

impl fmt::Display for Came<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(flag) => write!(f, "bool {flag}"),
            Self::Number(number) => write!(f, "number {number}"),
            Self::String(text) => write!(f, "string {}", short(text)),
            Self::Array => f.write_str("an array"),
            Self::Object => f.write_str("an object"),
        }
    }
}

struct DocumentVisitor<'s, 'w> {
    schema: &'s Schema,
    wrong: &'w mut Option<FieldError>,
}

impl DocumentVisitor<'_, '_> {
    fn no_object<T, E: de::Error>(self, came: &Came<'_>) -> Result<T, E> {
        let error = FieldError { field: None, came: came.to_string(), expected: "a JSON object".into() };
        stop(self.wrong, error)
    }
}

impl<'de> Visitor<'de> for DocumentVisitor<'_, '_> {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let schema = self.schema;
        let mut id: Option<String> = None;
        let mut values: Vec<(FieldName, FieldValues)> = Vec::with_capacity(schema.fields.len().min(16));
        while let Some(key) = map.next_key_seed(KeySeed(schema))? {
            match key {
                Key::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
                Key::Id => {
                    if id.is_some() {
                        return stop(self.wrong, twice("id"));
                    }
                    id = Some(map.next_value_seed(IdSeed { wrong: &mut *self.wrong })?);
                }
                Key::Field(name, field) => {
                    if values.iter().any(|(known, _)| known == name) {
                        return stop(self.wrong, twice(name));
                    }
                    let mut found = FieldValues::of(field.kind);
                    let seed = ValueSeed { name, values: &mut found, nested: false, wrong: &mut *self.wrong };
                    map.next_value_seed(seed)?;
                    values.push((name.clone(), found));
                }
            }
        }
        // An empty entry stood for a null or an empty array until here, so that
        // a repeated field is found.
        values.retain(|(_, found)| !found.is_empty());
        match id {
            Some(id) => Ok(Document { id, values }),
            None => stop(self.wrong, wrong_id("nothing")),
        }
    }

    fn visit_unit<E: de::Error>(self) -> Result<Document, E> {
        self.no_object(&Came::Null)
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Document, E> {
        self.no_object(&Came::Bool(flag))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Document, E> {
        self.no_object(&Came::Number(&number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Document, E> {
        self.no_object(&Came::Number(&number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Document, E> {
        self.no_object(&Came::Number(&number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Document, E> {
        self.no_object(&Came::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Document, A::Error> {
        self.no_object(&Came::Array)
    }
}

fn twice(name: &str) -> FieldError {
    FieldError { field: Some(name.to_owned()), came: "it twice".into(), expected: "each field once".into() }
}

fn wrong_id(came: &str) -> FieldError {
    FieldError {
        field: Some("id".into()),
        came: came.to_owned(),
        expected: format!("a string of 1 to {DOCUMENT_ID_BYTES_MAX} bytes"),
    }
}

enum Key<'s> {
    Id,
    Field(&'s FieldName, &'s Field),
    Unknown,
}

/// Looks a key up without copying it.
struct KeySeed<'s>(&'s Schema);

impl<'de, 's> DeserializeSeed<'de> for KeySeed<'s> {
    type Value = Key<'s>;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Key<'s>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'s> Visitor<'_> for KeySeed<'s> {
    type Value = Key<'s>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Key<'s>, E> {
        if name == "id" {
            return Ok(Key::Id);
        }
        let known = self.0.fields.get_key_value(name);
        Ok(known.map_or(Key::Unknown, |(name, field)| Key::Field(name, field)))
    }
}

struct IdSeed<'w> {
    wrong: &'w mut Option<FieldError>,
}

impl<'de> DeserializeSeed<'de> for IdSeed<'_> {
    type Value = String;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl IdSeed<'_> {
    fn no_id<T, E: de::Error>(self, came: &Came<'_>) -> Result<T, E> {
        stop(self.wrong, wrong_id(&came.to_string()))
    }
}

impl<'de> Visitor<'de> for IdSeed<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id")
    }

    fn visit_str<E: de::Error>(self, id: &str) -> Result<String, E> {
        if id.is_empty() {
            return stop(self.wrong, wrong_id("an empty string"));
        }
        if id.len() > DOCUMENT_ID_BYTES_MAX {
            let came = format!("{} bytes: {}", id.len(), short(id));
            return stop(self.wrong, wrong_id(&came));
        }
        Ok(id.to_owned())
    }

    fn visit_unit<E: de::Error>(self) -> Result<String, E> {
        self.no_id(&Came::Null)
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<String, E> {
        self.no_id(&Came::Bool(flag))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<String, E> {
        self.no_id(&Came::Number(&number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<String, E> {
        self.no_id(&Came::Number(&number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<String, E> {
        self.no_id(&Came::Number(&number))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        self.no_id(&Came::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        self.no_id(&Came::Object)
    }
}

/// Reads a value, or an array of values, into `values`.
struct ValueSeed<'v> {
    name: &'v str,
    values: &'v mut FieldValues,
    /// Whether this is an element of an array.
    nested: bool,
    wrong: &'v mut Option<FieldError>,
}

impl ValueSeed<'_> {
    fn mismatch<T, E: de::Error>(self, came: &Came<'_>) -> Result<T, E> {
        let expected = self.values.expected().to_owned();
        self.mismatch_of(came.to_string(), expected)
    }

    fn mismatch_of<T, E: de::Error>(self, came: String, expected: String) -> Result<T, E> {
        stop(self.wrong, FieldError { field: Some(self.name.to_owned()), came, expected })
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.values.expected())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<(), E> {
        if let FieldValues::Bool(values) = self.values {
            values.push(flag);
            return Ok(());
        }
        self.mismatch(&Came::Bool(flag))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        match &mut *self.values {
            FieldValues::I64(values) => values.push(number),
            FieldValues::F64(values) => values.push(number as f64),
            FieldValues::U64(values) => match u64::try_from(number) {
                Ok(number) => values.push(number),
                Err(_) => return self.mismatch(&Came::Number(&number)),
            },
            _ => return self.mismatch(&Came::Number(&number)),
        }
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        match &mut *self.values {
            FieldValues::U64(values) => values.push(number),
            FieldValues::F64(values) => values.push(number as f64),
            FieldValues::I64(values) => match i64::try_from(number) {
                Ok(number) => values.push(number),
                Err(_) => return self.mismatch(&Came::Number(&number)),
            },
            _ => return self.mismatch(&Came::Number(&number)),
        }
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        if let FieldValues::F64(values) = &mut *self.values
            && number.is_finite()
        {
            // The engine tells -0.0 from 0.0; people do not.
            values.push(number + 0.0);
            return Ok(());
        }
        // Debug keeps the fraction that made it no integer.
        self.mismatch(&Came::Number(&format_args!("{number:?}")))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        match &mut *self.values {
            FieldValues::Text(values) => values.push(text.to_owned()),
            FieldValues::Keyword(values) if text.len() <= KEYWORD_BYTES_MAX => {
                values.push(text.to_owned());
            }
            FieldValues::Keyword(_) => {
                let came = format!("{} bytes: {}", text.len(), short(text));
                let expected = format!("a keyword of at most {KEYWORD_BYTES_MAX} bytes");
                return self.mismatch_of(came, expected);
            }
            FieldValues::Date(values) => match Given::parse(text).map(Given::first) {
                Some(at) if (DATE_MIN..=DATE_MAX).contains(&at) => values.push(at),
                _ => return self.mismatch(&Came::String(text)),
            },
            _ => return self.mismatch(&Came::String(text)),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if self.nested {
            return self.mismatch(&Came::Array);
        }
        loop {
            let seed = ValueSeed {
                name: self.name,
                values: &mut *self.values,
                nested: true,
                wrong: &mut *self.wrong,
            };
            if seq.next_element_seed(seed)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.mismatch(&Came::Object)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schema() -> Schema {
        serde_json::from_str(
            r#"{"fields":{"title":{"type":"text"},"tags":{"type":"keyword"},"year":{"type":"i64"},
                "size":{"type":"u64"},"rank":{"type":"f64"},"open":{"type":"bool"},"at":{"type":"date"}}}"#,
        )
        .unwrap()
    }

    fn error(source: &str) -> String {
        schema().validate(source).unwrap_err().to_string()
    }

    #[test]
    fn values_are_typed_and_the_rest_is_ignored() {
        let document = schema()
            .validate(
                r#" {"title":"A \"b\"","other":{"deep":[1,{}]},"id":"1706.02216","tags":["x",null,"y"],
                    "year":-5,"size":18446744073709551615,"rank":[1,2.5],"open":true,
                    "at":["1970-01-01","1970-01-01T00:00:01Z"]} "#,
            )
            .unwrap();
        assert_eq!(document.id, "1706.02216");
        let expected: Vec<(FieldName, FieldValues)> = vec![
            ("title".into(), FieldValues::Text(vec!["A \"b\"".into()])),
            ("tags".into(), FieldValues::Keyword(vec!["x".into(), "y".into()])),
            ("year".into(), FieldValues::I64(vec![-5])),
            ("size".into(), FieldValues::U64(vec![u64::MAX])),
            ("rank".into(), FieldValues::F64(vec![1.0, 2.5])),
            ("open".into(), FieldValues::Bool(vec![true])),
            ("at".into(), FieldValues::Date(vec![0, 1_000_000])),
        ];
        assert_eq!(document.values, expected);
    }

    #[test]
    fn null_and_empty_arrays_are_absent() {
        let document = schema().validate(r#"{"id":"a","title":null,"tags":[],"year":[null]}"#).unwrap();
        assert!(document.values.is_empty());
    }

    #[test]
    fn a_wrong_type_says_what_came_and_what_was_expected() {
        for (source, expected) in [
            (r#"{"id":"a","year":"twenty"}"#, r#"field "year": expected i64, got string "twenty""#),
            (r#"{"id":"a","year":1.0}"#, r#"field "year": expected i64, got number 1.0"#),
            (
                r#"{"id":"a","year":9223372036854775808}"#,
                r#"field "year": expected i64, got number 9223372036854775808"#,
            ),
            (r#"{"id":"a","size":-1}"#, r#"field "size": expected u64, got number -1"#),
            (r#"{"id":"a","title":7}"#, r#"field "title": expected text, got number 7"#),
            (r#"{"id":"a","tags":true}"#, r#"field "tags": expected keyword, got bool true"#),
            (r#"{"id":"a","tags":[["x"]]}"#, r#"field "tags": expected keyword, got an array"#),
            (r#"{"id":"a","rank":{"x":1}}"#, r#"field "rank": expected f64, got an object"#),
            (r#"{"id":"a","year":1,"year":2}"#, r#"field "year": expected each field once, got it twice"#),
        ] {
            assert_eq!(error(source), expected);
        }
        for date in ["tomorrow", "1677-12-31", "2262-01-01", "2019-01-01T00:00:00"] {
            let source = format!(r#"{{"id":"a","at":"{date}"}}"#);
            assert!(error(&source).starts_with(r#"field "at": expected date"#), "{date}");
        }
        let long = "x".repeat(KEYWORD_BYTES_MAX + 1);
        assert!(error(&format!(r#"{{"id":"a","tags":"{long}"}}"#)).len() < 250);
        let longest = "x".repeat(KEYWORD_BYTES_MAX);
        assert!(schema().validate(&format!(r#"{{"id":"a","tags":"{longest}"}}"#)).is_ok());
    }

    #[test]
    fn an_id_is_a_string_of_some_bytes() {
        let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(DOCUMENT_ID_BYTES_MAX + 1));
        for bad in [r"{}", r#"{"id":1}"#, r#"{"id":""}"#, r#"{"id":null}"#, r#"{"id":["a"]}"#, &long] {
            let error = schema().validate(bad).unwrap_err();
            assert_eq!(error.field.as_deref(), Some("id"), "{bad}");
        }
        let longest = format!(r#"{{"id":"{}"}}"#, "x".repeat(DOCUMENT_ID_BYTES_MAX));
        assert!(schema().validate(&longest).is_ok());
    }

    #[test]
    fn what_is_no_object_says_so() {
        assert_eq!(error("[1]"), "expected a JSON object, got an array");
        assert_eq!(error("\"x\""), "expected a JSON object, got string \"x\"");
        assert!(error("{\"id\":\"a\"").contains("invalid JSON: EOF"));
        assert!(error("{\"id\":\"a\"} x").contains("invalid JSON: trailing"));
        assert!(error("").contains("invalid JSON"));
        assert!(error(r#"{"id":"a","rank":1e999}"#).contains("invalid JSON"));
        let deep = format!(r#"{{"id":"a","x":{}"#, "[".repeat(100_000));
        assert!(error(&deep).contains("invalid JSON"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = schema().validate(&text);
            let _ = schema().validate(&format!(r#"{{"id":"a","at":"{text}","year":{text}}}"#));
        }
    }
}
