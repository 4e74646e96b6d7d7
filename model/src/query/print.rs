//! Tree to text.
//!
//! **Invariant:** parsing what a canonical tree prints gives the tree back.
//! Parentheses stand only where precedence needs them, so that a printed query
//! nests no deeper than the one that was written.

use std::fmt::{self, Write as _};

use super::token::{ends_word, is_operator};
use super::tree::{Bound, Group, Query};

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self, Level::Or, f)
    }
}

/// How tightly a place binds, loosest first. A clause that binds less tightly
/// than its place stands in parentheses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Or,
    Side,
    Chain,
    /// After a sign, where another sign may stand.
    Signed,
    Clause,
}

/// How tightly the text of `group` binds.
fn level(group: &Group) -> Level {
    if !group.should.is_empty() {
        return Level::Or;
    }
    if !group.plain.is_empty() {
        return Level::Side;
    }
    match (group.must.len(), group.not.len()) {
        (0, 1) => Level::Signed,
        // `+a`, which only an uncanonical tree has.
        (1, 0) => Level::Side,
        _ => Level::Chain,
    }
}

fn print(query: &Query, place: Level, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match query {
        Query::All => f.write_char('*'),
        Query::Word { field, text } => {
            print_field(field.as_deref(), f)?;
            print_word(text, f)
        }
        Query::Phrase { field, text, slop } => {
            print_field(field.as_deref(), f)?;
            print_quoted(text, f)?;
            if *slop > 0 { write!(f, "~{slop}") } else { Ok(()) }
        }
        Query::Prefix { field, text } => {
            print_field(field.as_deref(), f)?;
            print_word(text, f)?;
            f.write_char('*')
        }
        Query::Exists { field } => {
            print_field(Some(field), f)?;
            f.write_char('*')
        }
        Query::Range { field, lower, upper } => {
            print_field(Some(field), f)?;
            f.write_char(if matches!(lower, Bound::Excluded(_)) { '{' } else { '[' })?;
            print_bound(lower, f)?;
            f.write_str(" TO ")?;
            print_bound(upper, f)?;
            f.write_char(if matches!(upper, Bound::Excluded(_)) { '}' } else { ']' })
        }
        Query::Boost { query, factor } => {
            // A boost takes one clause, and a clause one boost.
            if matches!(**query, Query::Boost { .. }) {
                f.write_char('(')?;
                print(query, Level::Or, f)?;
                f.write_char(')')?;
            } else {
                print(query, Level::Clause, f)?;
            }
            write!(f, "^{factor}")
        }
        Query::Group(group) => {
            // A sign on its own would sign a clause of the group around it.
            let own = level(group);
            let bare = match own {
                Level::Signed => place == Level::Or || place == Level::Signed,
                own => own >= place && place <= Level::Chain,
            };
            if bare {
                return print_group(group, own, f);
            }
            f.write_char('(')?;
            print_group(group, own, f)?;
            f.write_char(')')
        }
    }
}

fn print_group(group: &Group, level: Level, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut first = true;
    let mut separate = |text: &str, f: &mut fmt::Formatter<'_>| {
        let separator = if std::mem::take(&mut first) { "" } else { text };
        f.write_str(separator)
    };
    match level {
        Level::Or => {
            // Parts beside `should` are none that the language can say; they
            // are shown all the same.
            for (sign, clauses) in [("+", &group.must), ("", &group.plain), ("-", &group.not)] {
                for clause in clauses {
                    separate(" OR ", f)?;
                    f.write_str(sign)?;
                    print(clause, Level::Clause, f)?;
                }
            }
            for clause in &group.should {
                separate(" OR ", f)?;
                print_operand(clause, f)?;
            }
        }
        Level::Side => {
            for clause in &group.must {
                separate(" ", f)?;
                f.write_char('+')?;
                print(clause, Level::Signed, f)?;
            }
            for clause in &group.plain {
                separate(" ", f)?;
                print(clause, Level::Chain, f)?;
            }
            for clause in &group.not {
                separate(" ", f)?;
                f.write_char('-')?;
                print(clause, Level::Signed, f)?;
            }
        }
        Level::Chain | Level::Signed | Level::Clause => {
            for clause in &group.must {
                separate(" AND ", f)?;
                print(clause, Level::Clause, f)?;
            }
            for clause in &group.not {
                separate(" AND ", f)?;
                f.write_str("NOT ")?;
                print(clause, Level::Signed, f)?;
            }
        }
    }
    Ok(())
}

/// A clause between `OR`s, where only another `OR` needs parentheses.
fn print_operand(clause: &Query, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let place = match clause {
        Query::Group(group) if level(group) == Level::Signed => Level::Or,
        _ => Level::Side,
    };
    print(clause, place, f)
}

fn print_field(field: Option<&str>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(field) = field else { return Ok(()) };
    print_word(field, f)?;
    f.write_char(':')
}

fn print_word(word: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let operator = is_operator(word);
    for (at, c) in word.char_indices() {
        let signs = at == 0 && (operator || matches!(c, '+' | '-' | '<' | '>'));
        if signs || c == '\\' || ends_word(c) {
            f.write_char('\\')?;
        }
        f.write_char(c)?;
    }
    Ok(())
}

fn print_quoted(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            f.write_char('\\')?;
        }
        f.write_char(c)?;
    }
    f.write_char('"')
}

fn print_bound(bound: &Bound, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let text = match bound {
        Bound::Unbounded => return f.write_char('*'),
        Bound::Included(text) | Bound::Excluded(text) => text,
    };
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '+' | '.' | ':' | '_' | '/' | '@');
    if !text.is_empty() && text != "TO" && text.chars().all(plain) {
        return f.write_str(text);
    }
    print_quoted(text, f)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Limits, arbitrary, parse};
    use super::*;

    #[test]
    fn special_characters_are_escaped() {
        let word = |field: Option<&str>, text: &str| Query::Word {
            field: field.map(str::to_owned),
            text: text.into(),
        };
        for (query, text) in [
            (word(None, "AND"), r"\AND"),
            (word(None, "-a b"), r"\-a\ b"),
            (word(Some("NOT"), ">x:y"), r"\NOT:\>x\:y"),
            (word(None, r"a\*"), r"a\\\*"),
            (Query::Phrase { field: None, text: r#"a "b" \"#.into(), slop: 3 }, r#""a \"b\" \\"~3"#),
        ] {
            assert_eq!(query.to_string(), text);
            assert_eq!(parse(text, &Limits::default()), Ok(query));
        }
    }

    #[test]
    fn parentheses_stand_where_they_are_needed() {
        for text in [
            "a OR b c OR d AND NOT e",
            "+(a AND b) +c d",
            "a AND (b OR c)",
            "NOT a OR b",
            "(a OR b)^2 c",
            "NOT NOT a",
            "(NOT a) b",
            "x:[1 TO \"TO\"} OR y:{* TO 5]",
            "NOT a AND NOT b",
        ] {
            let query = parse(text, &Limits::default()).unwrap();
            let again = parse(&query.to_string(), &Limits::default()).unwrap();
            assert_eq!(again, query, "{text} printed {query}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_canonical_tree_parses_to_itself(query in arbitrary::query()) {
            let canonical = query.canonical();
            let printed = canonical.to_string();
            let again = parse(&printed, &Limits::default());
            prop_assert_eq!(again.map(Query::canonical), Ok(canonical), "{}", printed);
        }
    }
}
