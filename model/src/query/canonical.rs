//! One form for all trees that ask the same.
//!
//! **Invariant:** canonicalising twice is canonicalising once, equal canonical
//! trees have equal bytes and unequal ones unequal bytes. The bytes are part of
//! cache keys: whoever changes a rule or the encoding changes
//! [`CANONICAL_VERSION`].
//!
//! Code here recurses: trees from the wire pass [`Query::check`] first.

use super::tree::{Bound, Group, Query};

/// The first byte of [`Query::canonical_bytes`].
pub const CANONICAL_VERSION: u8 = 1;

impl Query {
    /// The canonical form: commutative clauses sorted, groups of one kind
    /// merged, groups of one clause and boosts of 1 dissolved, nested boosts
    /// multiplied. Repeated clauses stay, for they score twice, but not in
    /// `not`.
    #[must_use]
    pub fn canonical(self) -> Self {
        match self {
            Self::Group(group) => canonical_group(group),
            Self::Boost { query, factor } => match query.canonical() {
                Self::Boost { query, factor: inner } => boosted(*query, finite(factor * inner)),
                query => boosted(query, factor),
            },
            leaf => leaf,
        }
    }

    /// The version and the canonical form as bytes.
    #[must_use]
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![CANONICAL_VERSION];
        encode(&self.clone().canonical(), &mut bytes);
        bytes
    }
}

fn boosted(query: Query, factor: f32) -> Query {
    if factor == 1.0 { query } else { Query::Boost { query: Box::new(query), factor } }
}

/// Products of factors within the limits are far from these ends.
fn finite(factor: f32) -> f32 {
    if factor.is_nan() { factor } else { factor.clamp(f32::MIN_POSITIVE, f32::MAX) }
}

fn canonical_group(group: Group) -> Query {
    let each = |clauses: Vec<Query>| clauses.into_iter().map(Query::canonical).collect::<Vec<_>>();
    let mut group = Group {
        must: each(group.must),
        should: each(group.should),
        plain: each(group.plain),
        not: each(group.not),
    };
    // The only positive clause has to match, however it was joined.
    if group.must.is_empty() && group.should.len() + group.plain.len() == 1 {
        group.must = std::mem::take(&mut group.should);
        group.must.append(&mut group.plain);
    }
    group.must = merged(group.must, |inner| only(inner, &inner.must), |inner| inner.must);
    if only(&group, &group.should) {
        group.should = merged(group.should, |inner| only(inner, &inner.should), |inner| inner.should);
    }
    if only(&group, &group.plain) {
        group.plain = merged(group.plain, |inner| only(inner, &inner.plain), |inner| inner.plain);
    }
    if group.must.len() == 1 && only(&group, &group.must) {
        return group.must.remove(0);
    }
    for clauses in [&mut group.must, &mut group.should, &mut group.plain, &mut group.not] {
        clauses.sort_by_cached_key(bytes_of);
    }
    // Sorted by their bytes, equal clauses are neighbours.
    group.not.dedup_by_key(|clause| bytes_of(clause));
    Query::Group(group)
}

/// Whether all clauses of a group are those of one part.
fn only(group: &Group, part: &[Query]) -> bool {
    let all = group.must.len() + group.should.len() + group.plain.len() + group.not.len();
    !part.is_empty() && all == part.len()
}

/// Replaces groups that `same` accepts by what `part` takes out of them.
fn merged(
    clauses: Vec<Query>,
    same: impl Fn(&Group) -> bool,
    part: impl Fn(Group) -> Vec<Query>,
) -> Vec<Query> {
    let mut flat = Vec::with_capacity(clauses.len());
    for clause in clauses {
        match clause {
            Query::Group(inner) if same(&inner) => flat.extend(part(inner)),
            other => flat.push(other),
        }
    }
    flat
}

fn bytes_of(query: &Query) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(query, &mut bytes);
    bytes
}

fn encode(query: &Query, bytes: &mut Vec<u8>) {
    match query {
        Query::All => bytes.push(1),
        Query::Word { field, text } => {
            bytes.push(2);
            encode_field(field.as_deref(), bytes);
            encode_text(text, bytes);
        }
        Query::Phrase { field, text, slop } => {
            bytes.push(3);
            encode_field(field.as_deref(), bytes);
            encode_text(text, bytes);
            bytes.extend_from_slice(&slop.to_le_bytes());
        }
        Query::Prefix { field, text } => {
            bytes.push(4);
            encode_field(field.as_deref(), bytes);
            encode_text(text, bytes);
        }
        Query::Exists { field } => {
            bytes.push(5);
            encode_text(field, bytes);
        }
        Query::Range { field, lower, upper } => {
            bytes.push(6);
            encode_text(field, bytes);
            encode_bound(lower, bytes);
            encode_bound(upper, bytes);
        }
        Query::Group(group) => {
            bytes.push(7);
            for clauses in [&group.must, &group.should, &group.plain, &group.not] {
                encode_length(clauses.len(), bytes);
                for clause in clauses {
                    encode(clause, bytes);
                }
            }
        }
        Query::Boost { query, factor } => {
            bytes.push(8);
            bytes.extend_from_slice(&factor.to_bits().to_le_bytes());
            encode(query, bytes);
        }
    }
}

fn encode_field(field: Option<&str>, bytes: &mut Vec<u8>) {
    bytes.push(u8::from(field.is_some()));
    if let Some(field) = field {
        encode_text(field, bytes);
    }
}

fn encode_bound(bound: &Bound, bytes: &mut Vec<u8>) {
    match bound {
        Bound::Unbounded => bytes.push(0),
        Bound::Included(text) => {
            bytes.push(1);
            encode_text(text, bytes);
        }
        Bound::Excluded(text) => {
            bytes.push(2);
            encode_text(text, bytes);
        }
    }
}

fn encode_text(text: &str, bytes: &mut Vec<u8>) {
    encode_length(text.len(), bytes);
    bytes.extend_from_slice(text.as_bytes());
}

fn encode_length(length: usize, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&(length as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Limits, arbitrary, parse};

    fn bytes(text: &str) -> Vec<u8> {
        parse(text, &Limits::default()).unwrap().canonical_bytes()
    }

    fn form(text: &str) -> String {
        parse(text, &Limits::default()).unwrap().canonical().to_string()
    }

    #[test]
    fn what_asks_the_same_has_the_same_bytes() {
        for (one, other) in [
            ("cat AND dog", "dog AND cat"),
            ("cat dog", "dog cat"),
            ("cat OR dog OR cow", "(cow OR cat) OR dog"),
            ("a AND (b AND c)", "(c AND a) AND b"),
            ("a (b c)", "c b a"),
            ("((a))^1", "a"),
            ("+a", "a"),
            ("a -b", "a AND NOT b"),
            ("(a AND b) -c", "b AND a AND NOT c"),
            ("(a^2)^3", "a^6"),
            ("a -b -b", "a NOT b"),
            ("title:(b a)", "title:a title:b"),
            ("y:>=1", "y:[1 TO *]"),
        ] {
            assert_eq!(bytes(one), bytes(other), "{one} = {other}");
        }
    }

    #[test]
    fn what_asks_something_else_has_other_bytes() {
        let all = [
            "a b",
            "a AND b",
            "a OR b",
            "a",
            "a a",
            "a^2",
            "x:a",
            "\"a\"",
            "\"a\"~1",
            "a*",
            "*",
            "x:*",
            "NOT a",
            "a AND NOT b",
            "a OR NOT b",
            "(a OR b) c",
            "x:[1 TO 2]",
            "x:{1 TO 2]",
            "x:[1 TO 2}",
            "+a b",
            "a +b",
            "(a b) OR c",
        ];
        for one in all {
            for other in all {
                assert_eq!(bytes(one) == bytes(other), one == other, "{one}, {other}");
            }
        }
    }

    #[test]
    fn the_version_is_first_and_bytes_never_change() {
        assert_eq!(bytes("a"), [1, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'a']);
    }

    #[test]
    fn a_canonical_query_reads_well() {
        assert_eq!(form("dog AND (cat) AND -cow"), "cat AND dog AND NOT cow");
        assert_eq!(form("b OR (a  c)"), "b OR a c");
    }

    proptest! {
        #[test]
        fn canonical_is_idempotent(query in arbitrary::query()) {
            let canonical = query.canonical();
            prop_assert_eq!(canonical.clone().canonical(), canonical);
        }

        #[test]
        fn the_order_of_clauses_does_not_matter((one, other) in arbitrary::permuted()) {
            prop_assert_eq!(one.canonical_bytes(), other.canonical_bytes());
            prop_assert_eq!(one.canonical(), other.canonical());
        }

        #[test]
        fn canonical_trees_pass_the_check(query in arbitrary::query()) {
            prop_assert_eq!(query.check(&Limits::default()), Ok(()));
            prop_assert_eq!(query.canonical().check(&Limits::default()), Ok(()));
        }
    }
}
