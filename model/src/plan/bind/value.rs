//! Text to values and their ranges, by the type of the field.
//!
//! What a date means where it has no time: as a value the whole day, as the
//! lower end of a range its first moment, as the upper end its last (`[a TO b]`
//! holds both days, `>a` begins after the day, `<b` ends before it).

use std::sync::Arc;

use super::{Bind, BindError, Target, short, words};
use crate::plan::{End, FieldName, Node, TextTerm, Value};
use crate::query::Bound;
use crate::schema::{DATE_MAX, DATE_MIN, FieldType, Given};

pub(super) fn exact(target: Target<'_>, text: &str, boost: f32) -> Result<Node, BindError> {
    let (field, kind) = kind_of(target);
    if kind == FieldType::Date
        && let Some(given) = Given::parse(text)
        && given.first() != given.last()
    {
        let day = Bound::Included(text.to_owned());
        return between(field, kind, &day, &day, boost);
    }
    let value = value(&field, kind, text)?;
    Ok(Node::Exact { field, value, boost })
}

/// The field's name and type; the id behaves as a keyword.
pub(super) fn kind_of(target: Target<'_>) -> (FieldName, FieldType) {
    match target {
        Target::Id => ("id".into(), FieldType::Keyword),
        Target::Field(name, field) => (name, field.kind),
    }
}

pub(super) fn value(name: &str, kind: FieldType, text: &str) -> Result<Value, BindError> {
    let wrong = |expected: &str| {
        let shown = short(text);
        BindError::new(format!("field {name:?} is {}: {shown} is not {expected}", kind.name()))
    };
    Ok(match kind {
        FieldType::Text | FieldType::Keyword => Value::Keyword(text.to_owned()),
        FieldType::I64 => Value::I64(text.parse().map_err(|_| wrong("a whole number of 64 bits"))?),
        FieldType::U64 => Value::U64(text.parse().map_err(|_| wrong("a whole number of 64 bits from 0 on"))?),
        FieldType::F64 => {
            let number: f64 = text.parse().map_err(|_| wrong("a number"))?;
            if !number.is_finite() {
                return Err(wrong("a finite number"));
            }
            // Negative zero equals zero but has other bits.
            Value::F64(if number == 0.0 { 0.0 } else { number })
        }
        FieldType::Bool => Value::Bool(text.parse().map_err(|_| wrong("true or false"))?),
        FieldType::Date => Value::Date(in_reach(date(text).map_err(wrong)?.first())),
    })
}

pub(super) fn date(text: &str) -> Result<Given, &'static str> {
    Given::parse(text).ok_or("a date such as 2019-01-31 or 2019-01-31T10:00:00Z")
}

/// Dates that no document can have, moved to where the engine can count: one
/// microsecond before the first or after the last.
pub(super) fn in_reach(at: i64) -> i64 {
    at.clamp(DATE_MIN - 1, DATE_MAX + 1)
}

/// A prefix. In a text field everything but its last word has to match whole.
///
/// Terms of a language are stems: `title*` has to find "titles", whose term is
/// `titl`. So where the stem of what was written is not its beginning's
/// continuation, documents with that very word match too, and score as the
/// better of the two.
pub(super) fn prefix(target: Target<'_>, text: &str, boost: f32) -> Bind {
    let (name, field) = match target {
        Target::Id => {
            return Ok(Some(Node::Prefix { field: "id".into(), prefix: text.into(), boost }));
        }
        Target::Field(name, field) => (name, field),
    };
    let Some(analyzer) = field.analyzer() else {
        if field.kind == FieldType::Keyword {
            return Ok(Some(Node::Prefix { field: name, prefix: text.into(), boost }));
        }
        let kind = field.kind.name();
        return Err(BindError::new(format!(
            "field {name:?} is {kind}: prefixes work on text and keyword fields, ranges on this one"
        )));
    };
    let begin = text.char_indices().rev().find(|(_, c)| !c.is_alphanumeric());
    let begin = begin.map_or(0, |(at, c)| at + c.len_utf8());
    let (whole, last) = text.split_at(begin);
    let whole = words(&name, &analyzer.terms(whole), 0, boost);
    if last.is_empty() {
        return Ok(whole);
    }
    let prefix: Arc<str> = analyzer.prefix(last).into();
    let mut begun = Node::Prefix { field: name.clone(), prefix: prefix.clone(), boost };
    if let [(_, stem)] = analyzer.terms(last).as_slice()
        && !stem.starts_with(&*prefix)
    {
        let term = TextTerm { field: name, text: stem.as_str().into() };
        begun = Node::Max(vec![begun, Node::Term { term, boost }]);
    }
    Ok(Some(match whole {
        None => begun,
        Some(whole) => Node::Bool { must: vec![whole, begun], should: Vec::new(), not: Vec::new() },
    }))
}

pub(super) fn range(target: Target<'_>, lower: &Bound, upper: &Bound, boost: f32) -> Result<Node, BindError> {
    let is_id = matches!(target, Target::Id);
    let (field, kind) = kind_of(target);
    if kind == FieldType::Text {
        return Err(BindError::new(format!(
            "field {field:?} is text: ranges work on keywords, numbers, dates and bools"
        )));
    }
    match (lower, upper) {
        (Bound::Unbounded, Bound::Unbounded) if is_id => Ok(Node::All { boost }),
        (Bound::Unbounded, Bound::Unbounded) => Ok(Node::Exists { field, boost }),
        _ => between(field, kind, lower, upper, boost),
    }
}

pub(super) fn between(
    field: FieldName,
    kind: FieldType,
    lower: &Bound,
    upper: &Bound,
    boost: f32,
) -> Result<Node, BindError> {
    // A day without a time is all of it: where the day's end is meant, its
    // last moment stands for it.
    let end_of = |text: &str, day_ends: bool| {
        if kind == FieldType::Date
            && day_ends
            && let Some(given) = Given::parse(text)
        {
            return Ok(Value::Date(in_reach(given.last())));
        }
        value(&field, kind, text)
    };
    let end = |bound: &Bound, upper: bool| {
        Ok(match bound {
            Bound::Unbounded => End::Unbounded,
            Bound::Included(text) => End::Included(end_of(text, upper)?),
            Bound::Excluded(text) => End::Excluded(end_of(text, !upper)?),
        })
    };
    let (lower, upper) = (end(lower, false)?, end(upper, true)?);
    let empty = match (&lower, &upper) {
        (End::Unbounded, _) | (_, End::Unbounded) => false,
        (End::Included(lower), End::Included(upper)) => lower > upper,
        (End::Included(lower) | End::Excluded(lower), End::Included(upper) | End::Excluded(upper)) => {
            lower >= upper
        }
    };
    if empty {
        return Ok(Node::None);
    }
    Ok(Node::Range { field, lower, upper, boost })
}
