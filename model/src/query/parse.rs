//! Text to tree.
//!
//! ```text
//! or    = side ("OR" side)*                     loosest
//! side  = chain chain*                          side by side
//! chain = unary ("AND" unary)*
//! unary = ("NOT" | "+" | "-")* clause           tightest
//! clause = [field ":"] (word | prefix "*" | "*" | phrase | range | "(" or ")") ["^" factor]
//! ```

use std::fmt;

use super::limits::{Counts, Limits, Refused};
use super::token::{self, Kind, Token};
use super::tree::{Group, Query};

/// Why a text is no query, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// What is wrong and what would be right.
    pub message: String,
    /// Where, in bytes from 0.
    pub position: usize,
    /// Where, in characters from 1.
    pub column: usize,
}

impl ParseError {
    pub(super) fn at(text: &str, position: usize, message: impl Into<String>) -> Self {
        let before = text.get(..position).unwrap_or(text);
        Self { message: message.into(), position, column: before.chars().count() + 1 }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at column {})", self.message, self.column)
    }
}

impl std::error::Error for ParseError {}

/// Parses a query.
///
/// # Errors
/// Says what is wrong, what would be right, and where.
pub fn parse(text: &str, limits: &Limits) -> Result<Query, ParseError> {
    if text.len() > limits.query_bytes_max {
        let refused = Refused::Bytes { bytes: text.len(), max: limits.query_bytes_max };
        return Err(ParseError::at(text, 0, refused.to_string()));
    }
    let tokens = token::tokens(text, limits)?;
    if tokens.is_empty() {
        return Err(ParseError::at(text, 0, "the query is empty; write * to find every document"));
    }
    check_counts(text, &tokens, limits)?;
    check_nesting(text, &tokens, limits)?;
    let mut parser = Parser { text, tokens, next: 0 };
    let query = parser.or(None)?;
    if let Some(token) = parser.tokens.get(parser.next) {
        // Everything but a closing parenthesis begins or continues a clause.
        return Err(ParseError::at(text, token.at, "`)` without `(`; write \\) for the character"));
    }
    query.check(limits).map_err(|refused| {
        let boosted = |token: &&Token| matches!(token.kind, Kind::Boost(_));
        let at = parser.tokens.iter().find(boosted).map_or(0, |token| token.at);
        ParseError::at(text, at, refused.to_string())
    })?;
    Ok(query)
}

fn check_counts(text: &str, tokens: &[Token], limits: &Limits) -> Result<(), ParseError> {
    let mut counts = Counts::default();
    for token in tokens {
        let counted = match &token.kind {
            Kind::Word(word) | Kind::Phrase { text: word, .. } => {
                counts.clause(limits).and_then(|()| counts.terms(word, limits))
            }
            Kind::Prefix(prefix) => counts.clause(limits).and_then(|()| counts.prefix(prefix, limits)),
            Kind::Star | Kind::Range { .. } => counts.clause(limits),
            _ => Ok(()),
        };
        counted.map_err(|refused| ParseError::at(text, token.at, refused.to_string()))?;
    }
    Ok(())
}

/// Counts parentheses and signs that are inside each other.
fn check_nesting(text: &str, tokens: &[Token], limits: &Limits) -> Result<(), ParseError> {
    // The signs before each open parenthesis, and their sum with the
    // parentheses; then the signs before the clause that comes.
    let mut open: Vec<usize> = Vec::new();
    let mut depth = 0;
    let mut signs = 0;
    for token in tokens {
        match token.kind {
            Kind::Open => {
                depth += signs + 1;
                open.push(signs + 1);
                signs = 0;
            }
            Kind::Close => {
                depth -= open.pop().unwrap_or(0);
                signs = 0;
            }
            Kind::Not | Kind::Plus | Kind::Minus => signs += 1,
            Kind::Field(_) => {}
            _ => signs = 0,
        }
        if depth + signs > limits.nesting_max {
            let refused = Refused::Nesting(limits.nesting_max);
            return Err(ParseError::at(text, token.at, refused.to_string()));
        }
    }
    Ok(())
}

/// How a clause takes part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Plain,
    Must,
    Not,
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    next: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Kind> {
        self.tokens.get(self.next).map(|token| &token.kind)
    }

    fn take(&mut self, kind: &Kind) -> bool {
        let found = self.peek() == Some(kind);
        self.next += usize::from(found);
        found
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T, ParseError> {
        let at = self.tokens.get(self.next).map_or(self.text.len(), |token| token.at);
        Err(ParseError::at(self.text, at, message))
    }

    fn or(&mut self, field: Option<&str>) -> Result<Query, ParseError> {
        let first = self.side(field)?;
        if self.peek() != Some(&Kind::Or) {
            return Ok(first);
        }
        let mut should = vec![first];
        while self.take(&Kind::Or) {
            should.push(self.side(field)?);
        }
        Ok(Query::Group(Group { should, ..Group::default() }))
    }

    fn side(&mut self, field: Option<&str>) -> Result<Query, ParseError> {
        let mut clauses = vec![self.chain(field)?];
        while !matches!(self.peek(), None | Some(Kind::Or | Kind::Close)) {
            clauses.push(self.chain(field)?);
        }
        Ok(joined(clauses, Sign::Plain))
    }

    fn chain(&mut self, field: Option<&str>) -> Result<(Sign, Query), ParseError> {
        let first = self.unary(field)?;
        if self.peek() != Some(&Kind::And) {
            return Ok(first);
        }
        let mut clauses = vec![first];
        while self.take(&Kind::And) {
            clauses.push(self.unary(field)?);
        }
        Ok((Sign::Plain, joined(clauses, Sign::Must)))
    }

    fn unary(&mut self, field: Option<&str>) -> Result<(Sign, Query), ParseError> {
        let sign = match self.peek() {
            Some(Kind::Plus) => Sign::Must,
            Some(Kind::Minus | Kind::Not) => Sign::Not,
            _ => return Ok((Sign::Plain, self.clause(field)?)),
        };
        self.next += 1;
        let inner = self.unary(field)?;
        // `+NOT a` must not match `a`; a sign before a sign is a group of one.
        let inner = if inner.0 == Sign::Plain { inner.1 } else { joined(vec![inner], Sign::Plain) };
        Ok((sign, inner))
    }

    fn clause(&mut self, field: Option<&str>) -> Result<Query, ParseError> {
        let mut own = None;
        if let Some(Kind::Field(name)) = self.peek() {
            own = Some(name.clone());
            self.next += 1;
            if matches!(self.peek(), Some(Kind::Field(_))) {
                return self.error("expected a value after the field, got another field");
            }
        }
        let field = own.as_deref().or(field);
        let query = self.atom(field)?;
        let Some(&Kind::Boost(factor)) = self.peek() else {
            return Ok(query);
        };
        self.next += 1;
        if matches!(self.peek(), Some(Kind::Boost(_))) {
            return self.error("a clause takes one boost; multiply the two");
        }
        Ok(Query::Boost { query: Box::new(query), factor })
    }

    fn atom(&mut self, field: Option<&str>) -> Result<Query, ParseError> {
        let named = field.map(str::to_owned);
        let Some(kind) = self.peek().cloned() else {
            return self.error("the query ends too early: expected a word, a phrase, a range or `(`");
        };
        let query = match kind {
            Kind::Open => return self.parenthesised(field),
            Kind::Word(text) => Query::Word { field: named, text },
            Kind::Prefix(text) => Query::Prefix { field: named, text },
            Kind::Phrase { text, slop } => Query::Phrase { field: named, text, slop },
            Kind::Star => named.map_or(Query::All, |field| Query::Exists { field }),
            Kind::Range { lower, upper } => match named {
                Some(field) => Query::Range { field, lower, upper },
                None => return self.error("a range needs a field, as in year:[2015 TO 2019]"),
            },
            Kind::Boost(_) => {
                return self.error("`^` must follow a clause directly; write \\^ for the character");
            }
            Kind::Close if self.next > 0 && self.tokens[self.next - 1].kind == Kind::Open => {
                return self.error("the parentheses are empty");
            }
            Kind::Close => return self.error("expected a word, a phrase, a range or `(`, got `)`"),
            Kind::And => return self.operator("AND"),
            Kind::Or => return self.operator("OR"),
            Kind::Not | Kind::Plus | Kind::Minus => {
                return self.error("a sign goes before the field, as in -title:word");
            }
            Kind::Field(_) => return self.error("expected a value, got a field"),
        };
        self.next += 1;
        Ok(query)
    }

    fn operator<T>(&self, word: &str) -> Result<T, ParseError> {
        self.error(format!("{word} needs a clause on both sides; write \"{word}\" for the word"))
    }

    fn parenthesised(&mut self, field: Option<&str>) -> Result<Query, ParseError> {
        let open = self.next;
        self.next += 1;
        let query = self.or(field)?;
        if self.take(&Kind::Close) {
            return Ok(query);
        }
        let at = self.tokens[open].at;
        Err(ParseError::at(self.text, at, "`(` without `)`; write \\( for the character"))
    }
}

/// Joins clauses; those without a sign take part as `plain` says. One clause
/// without a sign stays as it is.
fn joined(mut clauses: Vec<(Sign, Query)>, plain: Sign) -> Query {
    if clauses.len() == 1 && clauses[0].0 == Sign::Plain {
        return clauses.remove(0).1;
    }
    let mut group = Group::default();
    for (sign, query) in clauses {
        match (sign, plain) {
            (Sign::Not, _) => group.not.push(query),
            (Sign::Must, _) | (Sign::Plain, Sign::Must) => group.must.push(query),
            (Sign::Plain, _) => group.plain.push(query),
        }
    }
    Query::Group(group)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tree::Bound;
    use super::*;

    fn tree(text: &str) -> Query {
        parse(text, &Limits::default()).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn error(text: &str) -> ParseError {
        let parsed = parse(text, &Limits::default());
        parsed.map(|query| panic!("{text}: {query:?}")).unwrap_err()
    }

    fn word(text: &str) -> Query {
        Query::Word { field: None, text: text.into() }
    }

    fn in_field(field: &str, text: &str) -> Query {
        Query::Word { field: Some(field.into()), text: text.into() }
    }

    fn group(must: &[&Query], should: &[&Query], plain: &[&Query], not: &[&Query]) -> Query {
        let owned = |clauses: &[&Query]| clauses.iter().map(|clause| (*clause).clone()).collect();
        Query::Group(Group { must: owned(must), should: owned(should), plain: owned(plain), not: owned(not) })
    }

    #[test]
    fn words_keep_what_is_inside_them() {
        for text in [
            "message-passing",
            "cs.SI",
            "1706.02216",
            "o'neill",
            "a/b",
            "me@x.org",
            "c++",
            "TO",
            "and",
            "é",
            "&&",
        ] {
            assert_eq!(tree(text), word(text));
        }
        assert_eq!(tree(r"\AND"), word("AND"));
        assert_eq!(tree(r"a\:b\ c\(\)\\"), word(r"a:b c()\"));
        assert_eq!(tree(r"\-a"), word("-a"));
        assert_eq!(tree("a - b"), group(&[], &[], &[&word("a"), &word("-"), &word("b")], &[]));
    }

    #[test]
    fn operators_bind_in_their_order() {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(word);
        let and = |x: &Query, y: &Query| group(&[x, y], &[], &[], &[]);
        assert_eq!(tree("a b"), group(&[], &[], &[&a, &b], &[]));
        assert_eq!(tree("a AND b"), and(&a, &b));
        assert_eq!(tree("a OR b"), group(&[], &[&a, &b], &[], &[]));
        assert_eq!(tree("a AND NOT b"), group(&[&a], &[], &[], &[&b]));
        assert_eq!(tree("NOT a"), group(&[], &[], &[], &[&a]));
        assert_eq!(tree("+a b -c"), group(&[&a], &[], &[&b], &[&c]));
        assert_eq!(tree("a AND b c"), group(&[], &[], &[&and(&a, &b), &c], &[]));
        assert_eq!(tree("a OR b AND c"), group(&[], &[&a, &and(&b, &c)], &[], &[]));
        let side = group(&[], &[], &[&b, &c], &[]);
        assert_eq!(tree("a OR b c OR d"), group(&[], &[&a, &side, &d], &[], &[]));
        let either = group(&[], &[&b, &c], &[], &[]);
        assert_eq!(tree("a AND (b OR c)"), and(&a, &either));
        let not_b = group(&[], &[], &[], &[&b]);
        assert_eq!(tree("NOT NOT b"), group(&[], &[], &[], &[&not_b]));
        assert_eq!(tree("a OR NOT b"), group(&[], &[&a, &not_b], &[], &[]));
    }

    #[test]
    fn fields_reach_into_their_group() {
        let both = group(&[], &[], &[&in_field("title", "a"), &in_field("x", "b")], &[]);
        assert_eq!(tree("title:(a x:b)"), both);
        assert_eq!(tree("title:a"), in_field("title", "a"));
        assert_eq!(tree("id:1706.02216"), in_field("id", "1706.02216"));
        assert_eq!(tree("at:2019-01-01T00:00:00Z"), in_field("at", "2019-01-01T00:00:00Z"));
        assert_eq!(tree("year:-5"), in_field("year", "-5"));
        assert_eq!(tree("title:*"), Query::Exists { field: "title".into() });
        assert_eq!(tree("*"), Query::All);
        assert_eq!(tree("t:tit*"), Query::Prefix { field: Some("t".into()), text: "tit".into() });
        let phrase = Query::Phrase { field: Some("t".into()), text: "a \"b".into(), slop: 2 };
        assert_eq!(tree(r#"t:"a \"b"~2"#), phrase);
    }

    #[test]
    fn ranges_have_many_forms() {
        let range = |lower, upper| Query::Range { field: "y".into(), lower, upper };
        let (inc, exc) = (|t: &str| Bound::Included(t.into()), |t: &str| Bound::Excluded(t.into()));
        assert_eq!(tree("y:[1 TO 5]"), range(inc("1"), inc("5")));
        assert_eq!(tree("y:{1 TO 5]"), range(exc("1"), inc("5")));
        assert_eq!(tree("y:[ -5 TO * }"), range(inc("-5"), Bound::Unbounded));
        assert_eq!(
            tree("y:[2019-01-01T00:00:00Z TO \"b c\"}"),
            range(inc("2019-01-01T00:00:00Z"), exc("b c"))
        );
        assert_eq!(tree("y:>=1"), range(inc("1"), Bound::Unbounded));
        assert_eq!(tree("y:>-1.5"), range(exc("-1.5"), Bound::Unbounded));
        assert_eq!(tree("y:<1"), range(Bound::Unbounded, exc("1")));
        assert_eq!(tree("y:<=1"), range(Bound::Unbounded, inc("1")));
        assert_eq!(tree("y:([1 TO 5])"), range(inc("1"), inc("5")));
    }

    #[test]
    fn boosts_follow_any_clause() {
        let boosted = |query| Query::Boost { query: Box::new(query), factor: 2.5 };
        assert_eq!(tree("a^2.5"), boosted(word("a")));
        assert_eq!(tree("(a)^2.5"), boosted(word("a")));
        assert_eq!(tree("*^2.5"), boosted(Query::All));
        assert_eq!(
            tree("-a*^2.5"),
            group(&[], &[], &[], &[&boosted(Query::Prefix { field: None, text: "a".into() })])
        );
    }

    #[test]
    fn errors_say_where_and_what_would_be_right() {
        for (text, position, part) in [
            ("", 0, "write *"),
            (" \t ", 0, "write *"),
            ("a AND", 5, "ends too early"),
            ("AND a", 0, "both sides"),
            ("a OR OR b", 5, "both sides"),
            ("é (b", 3, "without `)`"),
            ("a) b", 1, "without `(`"),
            ("a ()", 3, "empty"),
            ("\"a b", 0, "closing quote"),
            ("[1 TO 5]", 0, "needs a field"),
            ("y:[1 5]", 2, "[1 TO 5]"),
            ("y:[1 TO 5", 2, "[1 TO 5]"),
            ("y:[TO 5]", 2, "[1 TO 5]"),
            ("y:>", 2, "expected a value"),
            ("y:", 2, "ends too early"),
            ("y: AND b", 3, "operator AND"),
            ("y:-(a)", 2, ""),
            ("*a", 0, "stand alone"),
            ("a*b", 1, "stand alone"),
            ("a~2", 1, "follow a phrase"),
            ("\"a b\"~x", 5, "0 to 100"),
            ("a^x", 1, "expected a number"),
            ("a^0", 1, "out of range"),
            ("a^2^3", 3, "one boost"),
            ("^2", 0, "follow a clause"),
            ("a\\", 1, "backslash"),
            ("a]", 1, "beginning"),
            (":a", 0, "without a field"),
        ] {
            if part.is_empty() {
                continue;
            }
            let error = error(text);
            assert_eq!(error.position, position, "{text}: {error}");
            assert!(error.message.contains(part), "{text}: {error}");
        }
        assert_eq!(error("é (b").column, 3);
        assert!(error("a AND").to_string().ends_with("(at column 6)"));
    }

    #[test]
    fn hostile_nesting_is_an_error_with_a_position() {
        for text in ["(".repeat(10_000), format!("{}a{}", "(".repeat(10_000), ")".repeat(10_000))] {
            assert_eq!(error(&text).position, 32);
        }
        assert_eq!(error(&format!("{}a", "NOT ".repeat(10_000))).position, 128);
        assert_eq!(error(&format!("{}a", "-".repeat(10_000))).position, 32);
        assert_eq!(error(&format!("{}a", "NOT (".repeat(10_000))).position, 80);
        assert_eq!(error(&format!("{}a", "f:(".repeat(10_000))).position, 98);
        let deepest = format!("{}a b OR c AND d{}", "(x OR y z AND ".repeat(32), ")^1.1".repeat(32));
        assert!(parse(&deepest, &Limits::default()).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = parse(&text, &Limits::default());
        }

        #[test]
        fn no_mix_of_signs_panics(parts in prop::collection::vec(
            prop::sample::select(vec!["(", ")", "\"", "a", "b:", "AND", "OR", "NOT", "+", "-", " ", "*", "^2",
                "~1", "[", "]", "{", "}", "TO", "\\", ">", "<=", "1", "é", "."]), 0..40)) {
            let text = parts.concat();
            if let Ok(query) = parse(&text, &Limits::default()) {
                let canonical = query.canonical();
                let printed = canonical.to_string();
                let again = parse(&printed, &Limits::default());
                prop_assert_eq!(again.map(Query::canonical), Ok(canonical), "{}", printed);
            }
        }
    }
}
