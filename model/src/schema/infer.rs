//! A schema guessed from the first documents of an index.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::date::Given;
use super::{DATE_MAX, DATE_MIN, FIELDS_MAX, Field, FieldType, Schema, check_name};
use crate::plan::FieldName;

/// Longest value of a field that is taken for a keyword: codes, names of
/// categories, paths and addresses are shorter, sentences seldom.
const KEYWORD_BYTES_MAX: usize = 64;
/// Most words of such a value.
const KEYWORD_WORDS_MAX: usize = 3;
/// Names of fields that hold text for reading, however short it is at first.
const TEXT_NAMES: [&str; 18] = [
    "abstract",
    "answer",
    "body",
    "caption",
    "comment",
    "content",
    "contents",
    "description",
    "headline",
    "message",
    "name",
    "question",
    "subject",
    "subtitle",
    "summary",
    "text",
    "title",
    "titles",
];

/// Guesses a schema from some documents; the caller bounds how many.
///
/// A field whose values differ in type, or are objects or nested arrays, is
/// left out: it stays in the source. So is a field whose name a schema may not
/// have. Texts that are no JSON objects are skipped.
#[must_use]
pub fn infer(sources: &[&str]) -> Schema {
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    for source in sources {
        let Ok(document) = serde_json::from_str::<Map<String, Value>>(source) else {
            continue;
        };
        for (name, value) in document {
            if !seen.contains_key(&name) && (seen.len() >= FIELDS_MAX || check_name(&name).is_err()) {
                continue;
            }
            let seen = seen.entry(name).or_default();
            match value {
                Value::Array(elements) => elements.iter().for_each(|value| seen.see(value)),
                value => seen.see(&value),
            }
        }
    }
    let mut schema = Schema::default();
    for (name, seen) in seen {
        if let Some(kind) = seen.kind(&name) {
            schema.fields.insert(FieldName::from(name), Field::of(kind));
        }
    }
    schema
}

/// What the values of one field looked like.
#[derive(Default)]
struct Seen {
    strings: bool,
    /// A string that is no date.
    no_date: bool,
    /// A string that is no keyword.
    sentences: bool,
    bools: bool,
    integers: bool,
    negative: bool,
    /// An integer beyond `i64`.
    huge: bool,
    floats: bool,
    /// An object or a nested array.
    nested: bool,
}

impl Seen {
    fn see(&mut self, value: &Value) {
        match value {
            Value::Null => {}
            Value::Bool(_) => self.bools = true,
            Value::Number(number) => {
                self.floats |= number.is_f64();
                self.integers |= !number.is_f64();
                self.negative |= number.as_i64().is_some_and(i64::is_negative);
                self.huge |= number.is_u64() && !number.is_i64();
            }
            Value::String(text) => {
                let date = |at: Given| (DATE_MIN..=DATE_MAX).contains(&at.first());
                self.strings = true;
                self.no_date |= !Given::parse(text).is_some_and(date);
                self.sentences |= text.len() > KEYWORD_BYTES_MAX
                    || text.split_whitespace().nth(KEYWORD_WORDS_MAX).is_some();
            }
            Value::Array(_) | Value::Object(_) => self.nested = true,
        }
    }

    fn kind(&self, name: &str) -> Option<FieldType> {
        let numbers = self.integers || self.floats;
        let kinds = [self.strings, self.bools, numbers, self.nested];
        if self.nested || kinds.iter().filter(|kind| **kind).count() != 1 {
            return None;
        }
        if self.bools {
            return Some(FieldType::Bool);
        }
        if numbers {
            let mixed = self.floats || (self.huge && self.negative);
            return Some(match (mixed, self.huge) {
                (true, _) => FieldType::F64,
                (false, true) => FieldType::U64,
                (false, false) => FieldType::I64,
            });
        }
        if !self.no_date {
            return Some(FieldType::Date);
        }
        let reads = TEXT_NAMES.contains(&name.to_ascii_lowercase().as_str());
        Some(if self.sentences || reads { FieldType::Text } else { FieldType::Keyword })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(sources: &[&str]) -> Vec<(String, &'static str)> {
        let schema = infer(sources);
        assert_eq!(schema.check(), Ok(()));
        assert!(schema.default_fields.is_empty());
        schema.fields.iter().map(|(name, field)| (name.to_string(), field.kind.name())).collect()
    }

    fn kind(values: &[&str]) -> Option<&'static str> {
        let sources: Vec<String> = values.iter().map(|v| format!(r#"{{"f":{v}}}"#)).collect();
        let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
        kinds(&sources).first().map(|(_, kind)| *kind)
    }

    #[test]
    fn types_follow_the_values() {
        assert_eq!(kind(&["1", "-2"]), Some("i64"));
        assert_eq!(kind(&["1", "18446744073709551615"]), Some("u64"));
        assert_eq!(kind(&["-1", "18446744073709551615"]), Some("f64"));
        assert_eq!(kind(&["1", "2.5"]), Some("f64"));
        assert_eq!(kind(&["true", "null"]), Some("bool"));
        assert_eq!(kind(&[r#""2019-01-01""#, r#""2019-01-01T00:00:00Z""#]), Some("date"));
        assert_eq!(kind(&[r#""2019-01-01""#, r#""soon""#]), Some("keyword"));
        assert_eq!(kind(&[r#"["cs.SI","cs.LG"]"#]), Some("keyword"));
        assert_eq!(kind(&[r#""one two three""#]), Some("keyword"));
        assert_eq!(kind(&[r#""one""#, r#""one two three four""#]), Some("text"));
        let long = format!("\"{}\"", "x".repeat(65));
        assert_eq!(kind(&[&long]), Some("text"));
    }

    #[test]
    fn what_is_mixed_nested_or_empty_is_left_out() {
        assert_eq!(kind(&["1", r#""x""#]), None);
        assert_eq!(kind(&["true", "1"]), None);
        assert_eq!(kind(&[r#"{"x":1}"#]), None);
        assert_eq!(kind(&["[[1]]"]), None);
        assert_eq!(kind(&["null", "[]"]), None);
        assert_eq!(kind(&["1", r#"{"x":1}"#]), None);
    }

    #[test]
    fn names_decide_for_short_texts_and_bad_names_are_left_out() {
        let sources =
            [r#"{"id":"a","Title":"Short","path":"a/b.rs","_x":1,"a b":2,"year":2017}"#, "no json", "[1]"];
        let expected = [("Title", "text"), ("path", "keyword"), ("year", "i64")];
        assert_eq!(kinds(&sources), expected.map(|(name, kind)| (name.to_owned(), kind)));
    }

    #[test]
    fn what_was_inferred_accepts_what_it_was_inferred_from() {
        let source = r#"{"id":"a","n":[1,2.5],"d":"2019-01-01","t":"some words in a row","b":[true]}"#;
        assert!(infer(&[source]).validate(source).is_ok());
    }
}
