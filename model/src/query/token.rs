//! The words and signs of a query's text.
//!
//! One loop, no recursion: what nests is the parser's, after the limits.

use super::limits::Limits;
use super::parse::ParseError;
use super::tree::Bound;

/// Characters that end a word unless a backslash stands before them.
pub(super) fn ends_word(c: char) -> bool {
    c.is_whitespace() || matches!(c, '(' | ')' | '"' | '[' | ']' | '{' | '}' | '^' | '*' | ':' | '~')
}

/// Words that mean something where they stand bare.
pub(super) fn is_operator(word: &str) -> bool {
    matches!(word, "AND" | "OR" | "NOT")
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Open,
    Close,
    And,
    Or,
    Not,
    Plus,
    Minus,
    /// `name:`.
    Field(String),
    Word(String),
    Prefix(String),
    Star,
    Phrase {
        text: String,
        slop: u32,
    },
    Range {
        lower: Bound,
        upper: Bound,
    },
    /// `^factor`.
    Boost(f32),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// Where it begins, in bytes.
    pub(super) at: usize,
}

/// Splits `text`, which is within the limit of its bytes.
pub(super) fn tokens(text: &str, limits: &Limits) -> Result<Vec<Token>, ParseError> {
    let mut lexer = Lexer { text, at: 0, limits };
    let mut tokens: Vec<Token> = Vec::new();
    loop {
        lexer.skip_space();
        let at = lexer.at;
        let Some(c) = lexer.peek() else {
            return Ok(tokens);
        };
        let after_field = matches!(tokens.last(), Some(Token { kind: Kind::Field(_), .. }));
        let kind = lexer.next(c, after_field)?;
        tokens.push(Token { kind, at });
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    limits: &'a Limits,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Takes `c` if it is next.
    fn take(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    fn error<T>(&self, at: usize, message: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError::at(self.text, at, message))
    }

    fn next(&mut self, c: char, after_field: bool) -> Result<Kind, ParseError> {
        let at = self.at;
        let sign = match c {
            '(' => Some(Kind::Open),
            ')' => Some(Kind::Close),
            '+' if !after_field && self.signs() => Some(Kind::Plus),
            '-' if !after_field && self.signs() => Some(Kind::Minus),
            _ => None,
        };
        if let Some(sign) = sign {
            self.at += 1;
            return Ok(sign);
        }
        match c {
            '"' => self.phrase(),
            '[' | '{' => self.range(),
            '^' => self.boost(),
            '<' | '>' if after_field => self.comparison(),
            '*' => self.star(),
            ']' | '}' => {
                self.error(at, format!("`{c}` without its beginning; write \\{c} for the character"))
            }
            ':' => self.error(at, "`:` without a field before it; write \\: for the character"),
            '~' => self.error(
                at,
                "`~` may only follow a phrase, as in \"some words\"~2; write \\~ for the character",
            ),
            _ => self.word(after_field),
        }
    }

    /// Whether the `+` or `-` here stands before a clause, not alone.
    fn signs(&self) -> bool {
        let next = self.rest().chars().nth(1);
        next.is_some_and(|c| !c.is_whitespace() && c != ')')
    }

    /// Reads a word's characters. `colons` says whether `:` is one of them.
    fn run(&mut self, colons: bool) -> Result<String, ParseError> {
        let mut word = String::new();
        while let Some(c) = self.peek() {
            if c == '\\' {
                word.push(self.escaped()?);
                continue;
            }
            if ends_word(c) && !(colons && c == ':') {
                break;
            }
            word.push(c);
            self.at += c.len_utf8();
        }
        Ok(word)
    }

    /// Reads a backslash and the character after it.
    fn escaped(&mut self) -> Result<char, ParseError> {
        let at = self.at;
        self.at += 1;
        let Some(c) = self.peek() else {
            return self.error(at, "`\\` at the end; write \\\\ for a backslash");
        };
        self.at += c.len_utf8();
        Ok(c)
    }

    fn word(&mut self, after_field: bool) -> Result<Kind, ParseError> {
        let at = self.at;
        let word = self.run(after_field)?;
        let raw = &self.text[at..self.at];
        match self.peek() {
            Some(':') => {
                self.at += 1;
                return Ok(Kind::Field(word));
            }
            Some('*') => {
                self.at += 1;
                self.ends_pattern()?;
                return Ok(Kind::Prefix(word));
            }
            Some('~') => {
                return self.error(
                    self.at,
                    "`~` may only follow a phrase, as in \"some words\"~2; write \\~ for the character",
                );
            }
            _ => {}
        }
        if is_operator(raw) && after_field {
            return self.error(
                at,
                format!(
                    "expected a value after the field, got the operator {raw}; write \"{raw}\" for the word"
                ),
            );
        }
        Ok(match raw {
            "AND" => Kind::And,
            "OR" => Kind::Or,
            "NOT" => Kind::Not,
            _ => Kind::Word(word),
        })
    }

    fn star(&mut self) -> Result<Kind, ParseError> {
        self.at += 1;
        self.ends_pattern()?;
        Ok(Kind::Star)
    }

    /// After a `*` nothing of a word may follow.
    fn ends_pattern(&self) -> Result<(), ParseError> {
        let fine = self.peek().is_none_or(|c| c.is_whitespace() || matches!(c, ')' | '(' | '^'));
        if fine {
            return Ok(());
        }
        self.error(self.at - 1, "`*` may only stand alone or end a word; write \\* for the character")
    }

    fn phrase(&mut self) -> Result<Kind, ParseError> {
        let text = self.quoted()?;
        let at = self.at;
        if !self.take('~') {
            return Ok(Kind::Phrase { text, slop: 0 });
        }
        let digits = self.digits(|c| c.is_ascii_digit());
        let slop = digits.parse().ok().filter(|slop| self.limits.slop(*slop).is_ok());
        let Some(slop) = slop else {
            let refused = super::limits::Refused::Slop(self.limits.slop_max);
            return self.error(at, refused.to_string());
        };
        Ok(Kind::Phrase { text, slop })
    }

    /// Reads a text between quotes, escapes resolved.
    fn quoted(&mut self) -> Result<String, ParseError> {
        let at = self.at;
        self.at += 1;
        let mut text = String::new();
        while let Some(c) = self.peek() {
            if c == '\\' {
                text.push(self.escaped()?);
                continue;
            }
            self.at += c.len_utf8();
            if c == '"' {
                return Ok(text);
            }
            text.push(c);
        }
        self.error(at, "the phrase has no closing quote; write \\\" for the character")
    }

    fn digits(&mut self, part: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn boost(&mut self) -> Result<Kind, ParseError> {
        let at = self.at;
        self.at += 1;
        let digits = self.digits(|c| c.is_ascii_digit() || c == '.');
        let Ok(factor) = digits.parse::<f32>() else {
            return self
                .error(at, "expected a number after `^`, as in word^2.5; write \\^ for the character");
        };
        if let Err(refused) = self.limits.boost(f64::from(factor)) {
            return self.error(at, refused.to_string());
        }
        Ok(Kind::Boost(factor))
    }

    /// `>=a`, `>a`, `<=a` or `<a`.
    fn comparison(&mut self) -> Result<Kind, ParseError> {
        let at = self.at;
        let greater = self.take('>');
        if !greater {
            self.at += 1;
        }
        let included = self.take('=');
        self.skip_space();
        let value = if self.peek() == Some('"') { self.quoted()? } else { self.run(true)? };
        if value.is_empty() {
            return self.error(at, "expected a value after the comparison, as in year:>=2015");
        }
        let end = if included { Bound::Included(value) } else { Bound::Excluded(value) };
        Ok(if greater {
            Kind::Range { lower: end, upper: Bound::Unbounded }
        } else {
            Kind::Range { lower: Bound::Unbounded, upper: end }
        })
    }

    /// `[a TO b]`, either bracket round or curly.
    fn range(&mut self) -> Result<Kind, ParseError> {
        let at = self.at;
        let lower_included = self.take('[');
        if !lower_included {
            self.at += 1;
        }
        let lower = self.end(at)?;
        self.skip_space();
        if self.digits(|c| c.is_ascii_alphabetic()) != "TO" {
            return self.range_error(at);
        }
        let upper = self.end(at)?;
        self.skip_space();
        let upper_included = self.take(']');
        if !upper_included && !self.take('}') {
            return self.range_error(at);
        }
        let bound = |end: Option<String>, included| match end {
            None => Bound::Unbounded,
            Some(text) if included => Bound::Included(text),
            Some(text) => Bound::Excluded(text),
        };
        Ok(Kind::Range { lower: bound(lower, lower_included), upper: bound(upper, upper_included) })
    }

    /// One end of the range that began at `at`; `None` for `*`.
    fn end(&mut self, at: usize) -> Result<Option<String>, ParseError> {
        self.skip_space();
        if self.take('*') {
            return Ok(None);
        }
        if self.peek() == Some('"') {
            return self.quoted().map(Some);
        }
        let from = self.at;
        let text = self.run(true)?;
        if text.is_empty() || &self.text[from..self.at] == "TO" {
            return self.range_error(at);
        }
        Ok(Some(text))
    }

    fn range_error<T>(&self, at: usize) -> Result<T, ParseError> {
        self.error(at, "expected a range such as [1 TO 5], {1 TO 5} or [1 TO *]")
    }
}
