//! Random query trees, for property tests of this and other crates.
//!
//! Every tree passes [`Query::check`] with the default limits.

use proptest::prelude::*;

use super::tree::{Bound, Group, Query};

/// Levels of groups; deeper trees find nothing new and shrink slowly.
const DEPTH: u32 = 4;
/// Clauses of one tree, about.
const SIZE: u32 = 24;
/// Clauses of one part of a group.
const PART: usize = 3;

/// Any tree that the language can say, with awkward texts and fields.
pub fn query() -> BoxedStrategy<Query> {
    tree(leaf(awkward(), awkward()))
}

/// A tree of words, phrases and prefixes over some words, with or without
/// some text fields.
pub fn query_of(words: Vec<String>, fields: Vec<String>) -> BoxedStrategy<Query> {
    let word = prop::sample::select(words);
    let field = if fields.is_empty() {
        Just(None).boxed()
    } else {
        prop::option::of(prop::sample::select(fields)).boxed()
    };
    let phrase = (prop::collection::vec(word.clone(), 2..4), 0_u32..4, field.clone());
    let prefix = (word.clone(), 1_usize..4, field.clone());
    let leaf = prop_oneof![
        6 => (field, word).prop_map(|(field, text)| Query::Word { field, text }),
        2 => phrase.prop_map(|(words, slop, field)| Query::Phrase { field, text: words.join(" "), slop }),
        1 => prefix.prop_map(|(word, chars, field)| {
            Query::Prefix { field, text: word.chars().take(chars).collect() }
        }),
        1 => Just(Query::All),
    ];
    tree(leaf.boxed())
}

/// Trees of these leaves.
pub fn tree(leaf: BoxedStrategy<Query>) -> BoxedStrategy<Query> {
    leaf.prop_recursive(DEPTH, SIZE, 4, |inner| {
        prop_oneof![
            4 => group(inner.clone()),
            1 => (inner, factor()).prop_map(|(query, factor)| {
                Query::Boost { query: Box::new(query), factor }
            }),
        ]
    })
    .boxed()
}

/// A tree, and the same with the clauses of every group in another order.
pub fn permuted() -> impl Strategy<Value = (Query, Query)> {
    (query(), any::<u64>()).prop_map(|(query, seed)| {
        let mut other = query.clone();
        let mut state = seed | 1;
        permute(&mut other, &mut state);
        (query, other)
    })
}

fn permute(query: &mut Query, state: &mut u64) {
    match query {
        Query::Group(group) => {
            for part in [&mut group.must, &mut group.should, &mut group.plain, &mut group.not] {
                for child in part.iter_mut() {
                    permute(child, state);
                }
                for last in (1..part.len()).rev() {
                    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let at = usize::try_from(*state >> 33).unwrap_or(0) % (last + 1);
                    part.swap(at, last);
                }
            }
        }
        Query::Boost { query, .. } => permute(query, state),
        _ => {}
    }
}

/// Powers of two, so that products are exact in any order.
fn factor() -> impl Strategy<Value = f32> {
    prop::sample::select(vec![0.25_f32, 0.5, 1.0, 2.0, 4.0])
}

fn group(inner: BoxedStrategy<Query>) -> impl Strategy<Value = Query> {
    let part = |from: usize| prop::collection::vec(inner.clone(), from..=PART);
    let either = part(1).prop_map(|should| Group { should, ..Group::default() });
    let others = (part(0), part(0), part(0))
        .prop_map(|(must, plain, not)| Group { must, plain, not, ..Group::default() })
        .prop_filter("a group has clauses", |group| {
            !(group.must.is_empty() && group.plain.is_empty() && group.not.is_empty())
        });
    prop_oneof![1 => either, 2 => others].prop_map(Query::Group)
}

fn leaf(texts: BoxedStrategy<String>, fields: BoxedStrategy<String>) -> BoxedStrategy<Query> {
    let field = prop::option::of(fields.clone());
    let phrase = (field.clone(), prop_oneof![texts.clone(), Just(String::new())], 0_u32..=100);
    prop_oneof![
        1 => Just(Query::All),
        6 => (field.clone(), texts.clone()).prop_map(|(field, text)| Query::Word { field, text }),
        2 => phrase.prop_map(|(field, text, slop)| Query::Phrase { field, text, slop }),
        1 => (field, texts.clone()).prop_map(|(field, text)| Query::Prefix { field, text }),
        1 => fields.clone().prop_map(|field| Query::Exists { field }),
        1 => (fields, bound(texts.clone()), bound(texts))
            .prop_map(|(field, lower, upper)| Query::Range { field, lower, upper }),
    ]
    .boxed()
}

fn bound(texts: BoxedStrategy<String>) -> impl Strategy<Value = Bound> {
    prop_oneof![
        Just(Bound::Unbounded),
        texts.clone().prop_map(Bound::Included),
        texts.prop_map(Bound::Excluded),
    ]
}

/// Texts that are never empty, some of which need escapes.
fn awkward() -> BoxedStrategy<String> {
    prop_oneof![
        4 => "[a-c]{1,2}",
        1 => prop::sample::select(vec!["AND", "OR", "NOT", "TO", "*", "-", "+a", ">=1", "a:b", "\\", "\"", "2019-01-01T00:00:00Z"])
            .prop_map(str::to_owned),
        1 => "\\PC{1,6}",
    ]
    .boxed()
}
