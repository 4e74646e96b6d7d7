//! Resolves a query against a schema.
//!
//! ```text
//! Query ──bind──► nodes: fields, analysed terms, typed values, boosts
//!                   │ normal: kinds of group merged, what cannot match dropped, sorted
//!                   ▼
//!                 Node
//! ```
//!
//! What a date means where it has no time: as a value the whole day, as the
//! lower end of a range its first moment, as the upper end its last (`[a TO b]`
//! holds both days, `>a` begins after the day, `<b` ends before it).

use std::sync::Arc;

use super::{End, FieldName, Node, TextTerm, Value};
use crate::query::{Bound, Group, Query};
use crate::schema::{Combine, DATE_MAX, DATE_MIN, Field, FieldType, Given, Operator, Schema};

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

fn exact(target: Target<'_>, text: &str, boost: f32) -> Result<Node, BindError> {
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
fn kind_of(target: Target<'_>) -> (FieldName, FieldType) {
    match target {
        Target::Id => ("id".into(), FieldType::Keyword),
        Target::Field(name, field) => (name, field.kind),
    }
}

fn value(name: &str, kind: FieldType, text: &str) -> Result<Value, BindError> {
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

fn date(text: &str) -> Result<Given, &'static str> {
    Given::parse(text).ok_or("a date such as 2019-01-31 or 2019-01-31T10:00:00Z")
}

/// Dates that no document can have, moved to where the engine can count: one
/// microsecond before the first or after the last.
fn in_reach(at: i64) -> i64 {
    at.clamp(DATE_MIN - 1, DATE_MAX + 1)
}

/// A prefix. In a text field everything but its last word has to match whole.
///
/// Terms of a language are stems: `title*` has to find "titles", whose term is
/// `titl`. So where the stem of what was written is not its beginning's
/// continuation, documents with that very word match too, and score as the
/// better of the two.
fn prefix(target: Target<'_>, text: &str, boost: f32) -> Bind {
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

fn range(target: Target<'_>, lower: &Bound, upper: &Bound, boost: f32) -> Result<Node, BindError> {
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

fn between(
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

/// Merges nested groups of one kind, drops what cannot matter, sorts clauses.
fn normal(node: Node) -> Node {
    match node {
        Node::Max(children) => {
            let mut flat = Vec::with_capacity(children.len());
            for child in children.into_iter().map(normal) {
                match child {
                    Node::None => {}
                    Node::Max(inner) => flat.extend(inner),
                    other => flat.push(other),
                }
            }
            sort(&mut flat);
            flat.dedup();
            match flat.len() {
                0 => Node::None,
                1 => flat.remove(0),
                _ => Node::Max(flat),
            }
        }
        Node::Bool { must, should, not } => boolean(must, should, not),
        Node::Phrase { .. }
        | Node::Term { .. }
        | Node::None
        | Node::All { .. }
        | Node::Exact { .. }
        | Node::Prefix { .. }
        | Node::Range { .. }
        | Node::Exists { .. } => node,
    }
}

fn boolean(must: Vec<Node>, should: Vec<Node>, not: Vec<Node>) -> Node {
    let mut all = Vec::with_capacity(must.len());
    let mut none: Vec<Node> = not.into_iter().map(normal).filter(|node| *node != Node::None).collect();
    for clause in must.into_iter().map(normal) {
        match clause {
            Node::None => return Node::None,
            Node::Bool { must, should, not } if should.is_empty() => {
                all.extend(must);
                none.extend(not);
            }
            other => all.push(other),
        }
    }
    let mut any = Vec::with_capacity(should.len());
    for clause in should.into_iter().map(normal) {
        match clause {
            Node::None => {}
            Node::Bool { must, should, not } if must.is_empty() && not.is_empty() => any.extend(should),
            other => any.push(other),
        }
    }
    if all.is_empty() && any.is_empty() {
        return Node::None;
    }
    // A lone positive clause is required, however it was joined; if it is a
    // group, its clauses are ours.
    if all.len() + any.len() == 1 {
        all.append(&mut any);
        match all.remove(0) {
            Node::Bool { must, should, not } => {
                all = must;
                any = should;
                none.extend(not);
            }
            other => all.push(other),
        }
    }
    sort(&mut all);
    sort(&mut any);
    sort(&mut none);
    none.dedup();
    if none.is_empty() && any.is_empty() && all.len() == 1 {
        return all.remove(0);
    }
    Node::Bool { must: all, should: any, not: none }
}

fn sort(nodes: &mut [Node]) {
    nodes.sort_by_cached_key(Node::canonical_bytes);
}

impl Node {
    /// Bytes that are equal for equal nodes, unequal for unequal ones, and that
    /// order clauses. The order decides how scores are summed, so releases that
    /// answer together must agree on it.
    #[must_use]
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32);
        encode(self, &mut bytes);
        bytes
    }
}

fn encode(node: &Node, bytes: &mut Vec<u8>) {
    match node {
        Node::None => bytes.push(0),
        Node::All { boost } => {
            bytes.push(1);
            encode_boost(*boost, bytes);
        }
        Node::Term { term, boost } => {
            bytes.push(2);
            encode_text(&term.field, bytes);
            encode_text(&term.text, bytes);
            encode_boost(*boost, bytes);
        }
        Node::Phrase { field, terms, slop, boost } => {
            bytes.push(3);
            encode_text(field, bytes);
            encode_length(terms.len(), bytes);
            for (at, text) in terms {
                bytes.extend_from_slice(&at.to_be_bytes());
                encode_text(text, bytes);
            }
            bytes.extend_from_slice(&slop.to_be_bytes());
            encode_boost(*boost, bytes);
        }
        Node::Exact { field, value, boost } => {
            bytes.push(4);
            encode_text(field, bytes);
            encode_value(value, bytes);
            encode_boost(*boost, bytes);
        }
        Node::Prefix { field, prefix, boost } => {
            bytes.push(5);
            encode_text(field, bytes);
            encode_text(prefix, bytes);
            encode_boost(*boost, bytes);
        }
        Node::Range { field, lower, upper, boost } => {
            bytes.push(6);
            encode_text(field, bytes);
            encode_end(lower, bytes);
            encode_end(upper, bytes);
            encode_boost(*boost, bytes);
        }
        Node::Exists { field, boost } => {
            bytes.push(7);
            encode_text(field, bytes);
            encode_boost(*boost, bytes);
        }
        Node::Max(children) => {
            bytes.push(8);
            encode_nodes(children, bytes);
        }
        Node::Bool { must, should, not } => {
            bytes.push(9);
            encode_nodes(must, bytes);
            encode_nodes(should, bytes);
            encode_nodes(not, bytes);
        }
    }
}

fn encode_nodes(nodes: &[Node], bytes: &mut Vec<u8>) {
    encode_length(nodes.len(), bytes);
    for node in nodes {
        encode(node, bytes);
    }
}

fn encode_end(end: &End, bytes: &mut Vec<u8>) {
    match end {
        End::Unbounded => bytes.push(0),
        End::Included(value) => {
            bytes.push(1);
            encode_value(value, bytes);
        }
        End::Excluded(value) => {
            bytes.push(2);
            encode_value(value, bytes);
        }
    }
}

fn encode_value(value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::Keyword(text) => {
            bytes.push(0);
            encode_text(text, bytes);
        }
        Value::I64(number) => {
            bytes.push(1);
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        Value::U64(number) => {
            bytes.push(2);
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        Value::F64(number) => {
            bytes.push(3);
            bytes.extend_from_slice(&number.to_bits().to_be_bytes());
        }
        Value::Bool(flag) => bytes.extend_from_slice(&[4, u8::from(*flag)]),
        Value::Date(at) => {
            bytes.push(5);
            bytes.extend_from_slice(&at.to_be_bytes());
        }
    }
}

fn encode_boost(boost: f32, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&boost.to_bits().to_be_bytes());
}

fn encode_text(text: &str, bytes: &mut Vec<u8>) {
    encode_length(text.len(), bytes);
    bytes.extend_from_slice(text.as_bytes());
}

fn encode_length(length: usize, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&(length as u64).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::Analyzer;
    use crate::query::{Limits, arbitrary, parse};

    fn schema() -> Schema {
        let text = |analyzer| Field { kind: FieldType::Text, analyzer: Some(analyzer) };
        Schema {
            fields: [
                ("title".into(), text(Analyzer::English)),
                ("body".into(), text(Analyzer::Standard)),
                ("tags".into(), Field::of(FieldType::Keyword)),
                ("year".into(), Field::of(FieldType::I64)),
                ("at".into(), Field::of(FieldType::Date)),
            ]
            .into(),
            default_fields: vec!["title".into(), "body".into()],
            ..Schema::default()
        }
    }

    fn bound(text: &str) -> Node {
        bind(&parse(text, &Limits::default()).unwrap(), &schema()).unwrap()
    }

    fn refused(text: &str) -> String {
        bind(&parse(text, &Limits::default()).unwrap(), &schema()).unwrap_err().to_string()
    }

    fn term(field: &str, text: &str, boost: f32) -> Node {
        Node::Term { term: TextTerm { field: field.into(), text: text.into() }, boost }
    }

    #[test]
    fn a_word_is_searched_in_every_default_field() {
        let expected = Node::Max(vec![term("body", "graphs", 1.0), term("title", "graph", 1.0)]);
        assert_eq!(bound("graphs"), expected);
        assert_eq!(bound("(title:Graphs^2)^3"), term("title", "graph", 6.0));
    }

    #[test]
    fn a_word_of_several_terms_is_a_phrase() {
        let terms = vec![(0, "message".into()), (1, "passing".into())];
        let expected = Node::Phrase { field: "body".into(), terms, slop: 0, boost: 1.0 };
        assert_eq!(bound("body:message-passing"), expected);
    }

    #[test]
    fn clauses_without_terms_disappear() {
        assert_eq!(bound("body:... AND body:cat"), term("body", "cat", 1.0));
        assert_eq!(bound("body:..."), Node::None);
    }

    #[test]
    fn groups_of_one_kind_are_one_sum() {
        let one = bound("body:a AND (body:b AND (body:c AND NOT body:d))");
        let other = bound("+body:c +body:b +body:a -body:d");
        assert_eq!(one, other);
        assert_eq!(bound("body:a OR (body:b OR body:c)"), bound("body:c OR body:b OR body:a"));
        assert_eq!(bound("body:a body:b"), bound("body:a AND body:b"));
    }

    #[test]
    fn a_lone_group_is_dissolved() {
        let not = vec![term("body", "c", 1.0)];
        let should = vec![term("body", "a", 1.0), term("body", "b", 1.0)];
        let expected = Node::Bool { must: vec![], should, not };
        assert_eq!(bound("(body:a OR body:b) -body:c"), expected);
        assert_eq!(bound("+(body:b OR body:a) NOT body:c"), expected);
    }

    #[test]
    fn only_exclusions_match_all_the_rest() {
        let Node::Bool { must, not, .. } = bound("NOT body:a") else { panic!() };
        assert_eq!(must, [Node::All { boost: 1.0 }]);
        assert_eq!(not, [term("body", "a", 1.0)]);
    }

    #[test]
    fn a_day_is_all_of_it() {
        let Node::Range { lower, upper, .. } = bound("at:[1970-01-01 TO 1970-01-01]") else { panic!() };
        assert_eq!(lower, End::Included(Value::Date(0)));
        assert_eq!(upper, End::Included(Value::Date(86_399_999_999)));
        let Node::Range { lower, .. } = bound("at:>1970-01-01") else { panic!() };
        assert_eq!(lower, End::Excluded(Value::Date(86_399_999_999)));
    }

    #[test]
    fn what_does_not_fit_says_what_would() {
        assert!(refused("yaer:1").contains("did you mean \"year\""));
        assert!(refused("year:soon").contains("whole number"));
        assert!(refused("year:19*").contains("prefixes work on text and keyword"));
        assert!(refused("body:[a TO b]").contains("ranges work on"));
        assert!(refused("at:>tomorrow").contains("2019-01-31"));
    }

    #[test]
    fn bytes_are_equal_for_equal_nodes() {
        assert_eq!(bound("a AND b").canonical_bytes(), bound("b AND a").canonical_bytes());
    }

    #[test]
    fn a_prefix_finds_the_words_it_begins() {
        let prefix = |text: &str| Node::Prefix { field: "title".into(), prefix: text.into(), boost: 1.0 };
        assert_eq!(bound("title:Tit*"), prefix("tit"));
        let stem = term("title", "titl", 1.0);
        assert_eq!(bound("title:title*"), Node::Max(vec![stem, prefix("title")]));
        let must = vec![term("title", "messag", 1.0), prefix("pass")];
        assert_eq!(bound("title:message-pass*"), Node::Bool { must, should: vec![], not: vec![] });
        assert_eq!(
            bound("tags:Cs.S*"),
            Node::Prefix { field: "tags".into(), prefix: "Cs.S".into(), boost: 1.0 }
        );
        let Node::Max(both) = bound("zq*") else { panic!() };
        assert_eq!(both.len(), 2);
    }

    #[test]
    fn values_have_the_type_of_their_field() {
        let exact = |field: &str, value| Node::Exact { field: field.into(), value, boost: 1.0 };
        assert_eq!(bound("year:-5"), exact("year", Value::I64(-5)));
        assert_eq!(bound("id:1706.02216"), exact("id", Value::Keyword("1706.02216".into())));
        assert_eq!(bound("tags:\"cs SI\""), exact("tags", Value::Keyword("cs SI".into())));
        assert_eq!(bound("at:1970-01-01T00:00:00Z"), exact("at", Value::Date(0)));
        assert_eq!(bound("at:1970-01-01"), bound("at:[1970-01-01 TO 1970-01-01]"));
        for bad in ["year:1.5", "year:99999999999999999999", "year:[1.5 TO 2]", "at:[x TO *]"] {
            assert!(refused(bad).contains("is not a"), "{bad}");
        }
        let floats = Schema { fields: [("f".into(), Field::of(FieldType::F64))].into(), ..Schema::default() };
        let of = |text: &str| bind(&parse(text, &Limits::default()).unwrap(), &floats);
        assert_eq!(of("f:-0.0"), of("f:0"));
        assert!(of("f:NaN").is_err() && of("f:inf").is_err() && of("f:1e999").is_err());
        assert!(of("word").unwrap_err().to_string().contains("name a field"));
    }

    #[test]
    fn ranges_that_hold_nothing_or_everything_say_so() {
        assert_eq!(bound("year:[5 TO 1]"), Node::None);
        assert_eq!(bound("year:{1 TO 1]"), Node::None);
        assert_eq!(bound("year:[* TO *]"), Node::Exists { field: "year".into(), boost: 1.0 });
        assert_eq!(bound("id:*"), Node::All { boost: 1.0 });
        assert_eq!(bound("body:a AND year:[5 TO 1]"), Node::None);
        assert_eq!(bound("body:a OR year:[5 TO 1]"), term("body", "a", 1.0));
        assert_eq!(bound("body:a AND NOT year:[5 TO 1]"), term("body", "a", 1.0));
    }

    #[test]
    fn dates_beyond_the_engine_are_moved_to_its_ends() {
        let Node::Range { lower, upper, .. } = bound("at:[0001-01-01 TO 9999-12-31]") else { panic!() };
        assert_eq!(lower, End::Included(Value::Date(DATE_MIN - 1)));
        assert_eq!(upper, End::Included(Value::Date(DATE_MAX + 1)));
    }

    #[test]
    fn a_filter_has_no_boosts() {
        let filter = bind_filter(&parse("(body:a^3)^2", &Limits::default()).unwrap(), &schema());
        assert_eq!(filter, Ok(term("body", "a", 1.0)));
        assert_eq!(bound("body:a AND NOT body:b^3"), bound("body:a AND NOT body:b"));
    }

    #[test]
    fn fields_combine_as_the_schema_says() {
        let sum = Schema { combine: Combine::Sum, default_operator: Operator::Or, ..schema() };
        let node = bind(&parse("graphs cats", &Limits::default()).unwrap(), &sum).unwrap();
        let Node::Bool { must, should, not } = node else { panic!() };
        assert!(must.is_empty() && not.is_empty());
        assert_eq!(should.len(), 4);
    }

    #[test]
    fn lone_punctuation_is_no_requirement() {
        let keyword = Schema { default_fields: vec!["body".into(), "tags".into()], ..schema() };
        let of = |text: &str| bind(&parse(text, &Limits::default()).unwrap(), &keyword).unwrap();
        assert_eq!(of("cat - dog"), of("cat dog"));
    }

    #[test]
    fn an_unchecked_tree_is_an_error_not_a_panic() {
        let mut deep = Query::All;
        for _ in 0..2_000 {
            deep = Query::Boost { query: Box::new(deep), factor: 1e30 };
        }
        assert!(bind(&deep, &schema()).is_err());
        for factor in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let query = Query::Boost { query: Box::new(Query::All), factor };
            assert!(bind(&query, &schema()).is_err());
        }
        let big = |query| Query::Boost { query: Box::new(query), factor: 1e30 };
        assert_eq!(bind(&big(big(Query::All)), &schema()), Ok(Node::All { boost: 1e12 }));
    }

    fn finite(node: &Node) -> bool {
        match node {
            Node::None => true,
            Node::All { boost }
            | Node::Term { boost, .. }
            | Node::Phrase { boost, .. }
            | Node::Exact { boost, .. }
            | Node::Prefix { boost, .. }
            | Node::Range { boost, .. }
            | Node::Exists { boost, .. } => boost.is_finite() && *boost > 0.0,
            Node::Max(children) => children.len() > 1 && children.iter().all(finite),
            Node::Bool { must, should, not } => {
                must.len() + should.len() + not.len() > 1
                    && !(must.is_empty() && should.is_empty())
                    && must.iter().chain(should).chain(not).all(|node| *node != Node::None && finite(node))
            }
        }
    }

    proptest! {
        #[test]
        fn plans_are_normal_and_do_not_depend_on_order((one, other) in arbitrary::permuted()) {
            let (one, other) = (bind(&one, &schema()), bind(&other, &schema()));
            prop_assert_eq!(one.is_ok(), other.is_ok());
            if let (Ok(one), Ok(other)) = (one, other) {
                prop_assert!(finite(&one), "{one:?}");
                prop_assert_eq!(one, other);
            }
        }

        #[test]
        fn binding_the_canonical_tree_gives_the_same_plan(
            query in arbitrary::query_of(
                ["cat", "dogs", "x-y", "-", "running"].map(str::to_owned).into(),
                ["title", "body", "tags"].map(str::to_owned).into(),
            ),
            or in any::<bool>(),
        ) {
            let operator = if or { Operator::Or } else { Operator::And };
            let schema = Schema { default_operator: operator, ..schema() };
            let plan = bind(&query, &schema).unwrap();
            prop_assert_eq!(normal(plan.clone()), plan.clone());
            prop_assert_eq!(bind(&query.canonical(), &schema), Ok(plan));
        }
    }
}
