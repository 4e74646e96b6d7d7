//! How large a query may be.
//!
//! **Invariant:** every limit is checked by a loop, before anything walks the
//! query recursively: [`super::parse`] checks the tokens of a text,
//! [`Query::check`] a tree that came in another way.

use super::tree::{Bound, Query};

/// Levels of a tree that one written level can make: the `OR`, the clauses
/// side by side, the `AND` and the boost.
const TREE_LEVELS_PER_NESTING: usize = 4;

/// The limits of one query.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Length of the text, or of all texts in a tree, in bytes. A person types
    /// hundreds; a program that lists 1,024 ids of 60 bytes still fits.
    pub query_bytes_max: usize,
    /// Parentheses, `NOT`, `+` and `-` inside each other. People stay below
    /// five; recursive code must be safe on any thread's stack.
    pub nesting_max: usize,
    /// Words, phrases, prefixes, ranges and so on. Each opens its own cursor in
    /// each segment.
    pub clauses_max: usize,
    /// Words, those of phrases included. Each needs statistics of every shard.
    pub terms_max: usize,
    /// Prefixes. Each may read a whole dictionary.
    pub patterns_max: usize,
    /// Shortest prefix, in bytes. One letter can be answered, at the cost of
    /// many postings; the deadline bounds it.
    pub prefix_bytes_min: usize,
    /// Largest slop of a phrase: further apart, words are no phrase.
    pub slop_max: u32,
    /// Largest boost, of nested ones their product. Sums of a thousand boosted
    /// scores stay far from the end of `f32`.
    pub boost_max: f32,
    /// Smallest boost, of nested ones their product.
    pub boost_min: f32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            query_bytes_max: 64 * 1024,
            nesting_max: 32,
            clauses_max: 1_024,
            terms_max: 2_048,
            patterns_max: 64,
            prefix_bytes_min: 1,
            slop_max: 100,
            boost_max: 1_000_000.0,
            boost_min: 0.000_001,
        }
    }
}

/// Which limit a query exceeds, or what makes a tree no query.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    /// See [`Limits::query_bytes_max`].
    #[error("the query has {bytes} bytes; at most {max} are allowed")]
    Bytes {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
    /// See [`Limits::nesting_max`].
    #[error("parentheses and NOT are nested too deeply; at most {0} levels are allowed")]
    Nesting(usize),
    /// See [`Limits::clauses_max`].
    #[error("there are too many clauses; at most {0} are allowed")]
    Clauses(usize),
    /// See [`Limits::terms_max`].
    #[error("there are too many words; at most {0} are allowed")]
    Terms(usize),
    /// See [`Limits::patterns_max`].
    #[error("there are too many prefixes; at most {0} are allowed")]
    Patterns(usize),
    /// See [`Limits::prefix_bytes_min`].
    #[error("the prefix is too short; write at least {0} bytes before `*`")]
    Prefix(usize),
    /// See [`Limits::slop_max`].
    #[error("the slop after `~` is too large; it must be a whole number from 0 to {0}")]
    Slop(u32),
    /// See [`Limits::boost_max`] and [`Limits::boost_min`].
    #[error("the boost is out of range; it must be {min} to {max}, nested boosts multiplied")]
    Boost {
        /// The smallest.
        min: f32,
        /// The largest.
        max: f32,
    },
    /// The tree is none that the language can say.
    #[error("the query tree is malformed: {0}")]
    Malformed(&'static str),
}

/// Counts what the limits bound, clause by clause.
#[derive(Default)]
pub(super) struct Counts {
    clauses: usize,
    terms: usize,
    patterns: usize,
}

impl Counts {
    pub(super) fn clause(&mut self, limits: &Limits) -> Result<(), Refused> {
        self.clauses += 1;
        within(self.clauses, limits.clauses_max, Refused::Clauses)
    }

    pub(super) fn terms(&mut self, text: &str, limits: &Limits) -> Result<(), Refused> {
        self.terms += text.split(|c: char| !c.is_alphanumeric()).filter(|run| !run.is_empty()).count();
        within(self.terms, limits.terms_max, Refused::Terms)
    }

    pub(super) fn prefix(&mut self, text: &str, limits: &Limits) -> Result<(), Refused> {
        self.patterns += 1;
        if text.len() < limits.prefix_bytes_min.max(1) {
            return Err(Refused::Prefix(limits.prefix_bytes_min.max(1)));
        }
        within(self.patterns, limits.patterns_max, Refused::Patterns)?;
        self.terms(text, limits)
    }
}

fn within(count: usize, max: usize, refused: fn(usize) -> Refused) -> Result<(), Refused> {
    if count > max { Err(refused(max)) } else { Ok(()) }
}

impl Limits {
    pub(super) fn slop(&self, slop: u32) -> Result<(), Refused> {
        if slop > self.slop_max { Err(Refused::Slop(self.slop_max)) } else { Ok(()) }
    }

    /// Checks a boost, or a product of nested ones. Products may be off by
    /// their rounding.
    pub(super) fn boost(&self, factor: f64) -> Result<(), Refused> {
        const ROUNDING: f64 = 1.0 + 1e-5;
        let (min, max) = (f64::from(self.boost_min), f64::from(self.boost_max));
        if factor >= min / ROUNDING && factor <= max * ROUNDING {
            return Ok(());
        }
        Err(Refused::Boost { min: self.boost_min, max: self.boost_max })
    }
}

impl Query {
    /// Checks a tree that no parser made, such as one from the wire, without
    /// recursion.
    ///
    /// # Errors
    /// Names the limit that is exceeded, or what the language cannot say.
    pub fn check(&self, limits: &Limits) -> Result<(), Refused> {
        let levels_max = TREE_LEVELS_PER_NESTING * (limits.nesting_max + 1) + 1;
        let mut counts = Counts::default();
        let mut bytes = 0_usize;
        let mut open = vec![(self, 1, 1.0_f64)];
        while let Some((query, level, boost)) = open.pop() {
            if level > levels_max {
                return Err(Refused::Nesting(limits.nesting_max));
            }
            match query {
                Self::Group(group) => {
                    let parts = [&group.must, &group.should, &group.plain, &group.not];
                    let clauses: usize = parts.iter().map(|part| part.len()).sum();
                    if clauses == 0 {
                        return Err(Refused::Malformed("a group has no clause"));
                    }
                    if !group.should.is_empty() && clauses > group.should.len() {
                        return Err(Refused::Malformed("a group mixes OR with other clauses"));
                    }
                    // Groups are bounded by their clauses, these by their number.
                    if open.len() + clauses > limits.clauses_max.saturating_mul(levels_max) {
                        return Err(Refused::Clauses(limits.clauses_max));
                    }
                    open.extend(parts.into_iter().flatten().map(|child| (child, level + 1, boost)));
                }
                Self::Boost { query, factor } => {
                    if !factor.is_finite() || *factor <= 0.0 {
                        limits.boost(0.0)?;
                    }
                    let boost = boost * f64::from(*factor);
                    limits.boost(boost)?;
                    open.push((query, level + 1, boost));
                }
                leaf => {
                    leaf.check_leaf(&mut counts, limits)?;
                    bytes = bytes.saturating_add(leaf.text_bytes());
                    if bytes > limits.query_bytes_max {
                        return Err(Refused::Bytes { bytes, max: limits.query_bytes_max });
                    }
                }
            }
        }
        Ok(())
    }

    fn check_leaf(&self, counts: &mut Counts, limits: &Limits) -> Result<(), Refused> {
        counts.clause(limits)?;
        if self.field().is_some_and(str::is_empty) {
            return Err(Refused::Malformed("a field has no name"));
        }
        match self {
            Self::Word { text, .. } if text.is_empty() => Err(Refused::Malformed("a word is empty")),
            Self::Word { text, .. } => counts.terms(text, limits),
            Self::Phrase { text, slop, .. } => {
                limits.slop(*slop)?;
                counts.terms(text, limits)
            }
            Self::Prefix { text, .. } => counts.prefix(text, limits),
            _ => Ok(()),
        }
    }

    /// The field that a leaf names.
    fn field(&self) -> Option<&str> {
        match self {
            Self::Word { field, .. } | Self::Phrase { field, .. } | Self::Prefix { field, .. } => {
                field.as_deref()
            }
            Self::Exists { field } | Self::Range { field, .. } => Some(field),
            Self::All | Self::Group(_) | Self::Boost { .. } => None,
        }
    }

    fn text_bytes(&self) -> usize {
        let bound = |bound: &Bound| match bound {
            Bound::Unbounded => 0,
            Bound::Included(text) | Bound::Excluded(text) => text.len(),
        };
        let own = match self {
            Self::Word { text, .. } | Self::Phrase { text, .. } | Self::Prefix { text, .. } => text.len(),
            Self::Range { lower, upper, .. } => bound(lower) + bound(upper),
            _ => 0,
        };
        own + self.field().map_or(0, str::len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Group, parse};
    use super::*;

    fn refused(text: &str, limits: &Limits) -> String {
        parse(text, limits).unwrap_err().message
    }

    #[test]
    fn each_limit_holds_for_texts_and_trees() {
        let default = Limits::default();
        let small = Limits {
            query_bytes_max: 40,
            nesting_max: 2,
            clauses_max: 3,
            terms_max: 5,
            patterns_max: 1,
            prefix_bytes_min: 2,
            slop_max: 4,
            boost_max: 8.0,
            boost_min: 0.5,
        };
        for (text, expected) in [
            ("a                                        b", None),
            ("title:aaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbbbb", Some(Refused::Bytes { bytes: 44, max: 40 })),
            ("a OR b OR c OR d", Some(Refused::Clauses(3))),
            ("\"a b c d e f\"", Some(Refused::Terms(5))),
            ("aa* bb*", Some(Refused::Patterns(1))),
            ("a*", Some(Refused::Prefix(2))),
            ("\"a b\"~5", Some(Refused::Slop(4))),
            ("a^9", Some(Refused::Boost { min: 0.5, max: 8.0 })),
            ("a^0.4", Some(Refused::Boost { min: 0.5, max: 8.0 })),
            ("((b a^4))^4", Some(Refused::Boost { min: 0.5, max: 8.0 })),
        ] {
            let message = refused(text, &small);
            let tree = parse(text, &default).unwrap();
            match expected {
                Some(Refused::Bytes { .. }) | None => {
                    assert!(message.contains("at most 40"), "{text}: {message}");
                }
                Some(expected) => {
                    assert_eq!(message, expected.to_string(), "{text}");
                    assert_eq!(tree.check(&small), Err(expected), "{text}");
                }
            }
        }
        assert!(refused("(((a)))", &small).contains("at most 2 levels"));
        assert!(refused("NOT NOT NOT a", &small).contains("at most 2 levels"));
        assert!(parse("(a OR NOT b) -(c)", &small).is_ok());
    }

    #[test]
    fn three_hundred_words_are_allowed() {
        let words: Vec<String> = (0..300).map(|n| format!("word{n}")).collect();
        let query = parse(&words.join(" OR "), &Limits::default()).unwrap();
        assert_eq!(query.check(&Limits::default()), Ok(()));
    }

    #[test]
    fn trees_that_the_language_cannot_say_are_refused() {
        let word = |text: &str| Query::Word { field: None, text: text.into() };
        let boost = |factor| Query::Boost { query: Box::new(word("a")), factor };
        let mixed = Group { must: vec![word("a")], should: vec![word("b")], ..Group::default() };
        for bad in [
            word(""),
            Query::Exists { field: String::new() },
            Query::Group(Group::default()),
            Query::Group(mixed),
            boost(0.0),
            boost(-1.0),
            boost(f32::NAN),
            boost(f32::INFINITY),
        ] {
            assert!(bad.check(&Limits::default()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_deep_tree_is_refused() {
        let mut query = Query::All;
        for _ in 0..1_000 {
            query = Query::Group(Group { not: vec![query], ..Group::default() });
        }
        assert_eq!(query.check(&Limits::default()), Err(Refused::Nesting(32)));
    }
}
