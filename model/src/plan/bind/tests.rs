//! Queries bound to a schema.

use proptest::prelude::*;

use super::*;
use crate::analysis::Analyzer;
use crate::plan::{End, Value};
use crate::query::{Limits, arbitrary, parse};
use crate::schema::{DATE_MAX, DATE_MIN};

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
    assert_eq!(bound("tags:Cs.S*"), Node::Prefix { field: "tags".into(), prefix: "Cs.S".into(), boost: 1.0 });
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
