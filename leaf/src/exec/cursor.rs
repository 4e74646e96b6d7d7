//! A cursor over the matches of any query node in one segment.
//!
//! **Invariant:** cursors only move forward; `doc` is the current match or
//! `TERMINATED`; `score` is the current match's, by the definition in
//! [`model::plan`].

use std::ops::Bound;

use model::plan::{End, Node};
use model::schema::FieldType;
use tantivy::query::{EnableScoring, ExistsQuery, Query, RangeQuery, Scorer, TermQuery};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocId, TERMINATED};

use super::bits::BitsCursor;
use super::compile::Compiled;
use super::phrase::PhraseCursor;
use super::stop::Stop;
use super::term::TermCursor;
use crate::engine::{Error, Segment, Snapshot};

/// A cursor of some kind.
pub(crate) enum Cursor<'a> {
    Empty,
    All {
        doc: DocId,
        end: DocId,
        score: f32,
    },
    Term(Box<TermCursor<'a>>),
    Phrase(Box<PhraseCursor<'a>>),
    Bits {
        bits: BitsCursor,
        score: f32,
    },
    /// The engine's own, for clauses that score a constant.
    Engine {
        docs: Box<dyn Scorer>,
        score: f32,
    },
    Max(Vec<Cursor<'a>>),
    Bool(Box<BoolCursor<'a>>),
}

/// All of `must`, none of `not`; without a `must`, any of `should`.
pub(crate) struct BoolCursor<'a> {
    must: Vec<Cursor<'a>>,
    should: Vec<Cursor<'a>>,
    not: Vec<Cursor<'a>>,
    /// Places in `must`, cheapest first.
    order: Vec<usize>,
    doc: DocId,
    stop: &'a Stop<'a>,
}

impl<'a> Cursor<'a> {
    /// Opens a node in a segment.
    pub(crate) fn open(
        node: &'a Compiled<'a>,
        snapshot: &Snapshot,
        segment: &'a Segment,
        stop: &'a Stop<'a>,
    ) -> Result<Self, Error> {
        let each = |nodes: &'a [Compiled<'a>]| {
            nodes.iter().map(|node| Self::open(node, snapshot, segment, stop)).collect::<Result<Vec<_>, _>>()
        };
        Ok(match node {
            Compiled::None => Self::Empty,
            Compiled::Term(term) => match TermCursor::open(term, segment)? {
                Some(mut cursor) => {
                    cursor.tighten(snapshot, segment);
                    Self::Term(Box::new(cursor))
                }
                None => Self::Empty,
            },
            Compiled::Phrase(phrase) => match PhraseCursor::open(phrase, segment, stop)? {
                Some(cursor) => Self::Phrase(Box::new(cursor)),
                None => Self::Empty,
            },
            Compiled::Constant { node, score } => constant(node, *score, snapshot, segment, stop)?,
            Compiled::Max(children) => {
                let mut children = each(children)?;
                children.retain(|child| !child.is_empty());
                if children.is_empty() { Self::Empty } else { Self::Max(children) }
            }
            Compiled::Bool { must, should, not } => {
                let must = each(must)?;
                let mut should = each(should)?;
                should.retain(|child| !child.is_empty());
                if must.iter().any(Self::is_empty) || (must.is_empty() && should.is_empty()) {
                    return Ok(Self::Empty);
                }
                Self::Bool(Box::new(BoolCursor::new(must, should, each(not)?, stop)))
            }
        })
    }

    /// Whether there is no match at all.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// The current match.
    #[inline]
    pub(crate) fn doc(&self) -> DocId {
        match self {
            Self::Empty => TERMINATED,
            Self::All { doc, .. } => *doc,
            Self::Term(term) => term.doc(),
            Self::Phrase(phrase) => phrase.doc(),
            Self::Bits { bits, .. } => bits.doc(),
            Self::Engine { docs, .. } => docs.doc(),
            Self::Max(children) => children.iter().map(Self::doc).min().unwrap_or(TERMINATED),
            Self::Bool(node) => node.doc,
        }
    }

    /// Moves to the next match.
    #[inline]
    pub(crate) fn advance(&mut self) -> DocId {
        match self {
            Self::Empty => TERMINATED,
            Self::All { doc, end, .. } => {
                *doc = if *doc < *end - 1 { *doc + 1 } else { TERMINATED };
                *doc
            }
            Self::Term(term) => term.advance(),
            Self::Phrase(phrase) => phrase.advance(),
            Self::Bits { bits, .. } => bits.advance(),
            Self::Engine { docs, .. } => docs.advance(),
            Self::Max(_) | Self::Bool(_) => {
                let doc = self.doc();
                if doc == TERMINATED { TERMINATED } else { self.reach(doc + 1) }
            }
        }
    }

    /// Moves to the first match at or after `target`; stays where it is
    /// already there.
    #[inline]
    pub(crate) fn reach(&mut self, target: DocId) -> DocId {
        match self {
            Self::Empty => TERMINATED,
            Self::All { doc, end, .. } => {
                if *doc < target {
                    *doc = if target < *end { target } else { TERMINATED };
                }
                *doc
            }
            Self::Term(term) => term.reach(target),
            Self::Phrase(phrase) => phrase.reach(target),
            Self::Bits { bits, .. } => bits.reach(target),
            Self::Engine { docs, .. } => {
                if docs.doc() < target {
                    docs.seek(target)
                } else {
                    docs.doc()
                }
            }
            Self::Max(children) => {
                children.iter_mut().map(|child| child.reach(target)).min().unwrap_or(TERMINATED)
            }
            Self::Bool(node) => node.reach(target),
        }
    }

    /// The score of the current match.
    #[inline]
    pub(crate) fn score(&mut self) -> f32 {
        match self {
            Self::Empty => 0.0,
            Self::All { score, .. } | Self::Bits { score, .. } | Self::Engine { score, .. } => *score,
            Self::Term(term) => term.score(),
            Self::Phrase(phrase) => phrase.score(),
            Self::Max(children) => {
                let doc = children.iter().map(Self::doc).min().unwrap_or(TERMINATED);
                let mut best: f32 = 0.0;
                for child in children {
                    if child.doc() == doc {
                        best = best.max(child.score());
                    }
                }
                best
            }
            Self::Bool(node) => node.score(),
        }
    }

    /// Calls `visit` with each match before `end` and its score, and moves
    /// there.
    #[inline]
    pub(crate) fn drain(&mut self, end: DocId, visit: &mut impl FnMut(DocId, f32)) {
        if let Self::Term(term) = self {
            return term.drain(end, visit);
        }
        let mut doc = self.doc();
        while doc < end {
            let score = self.score();
            visit(doc, score);
            doc = self.advance();
        }
    }

    /// No match scores more.
    pub(crate) fn bound(&self) -> f32 {
        match self {
            Self::Empty => 0.0,
            Self::All { score, .. } | Self::Bits { score, .. } | Self::Engine { score, .. } => *score,
            Self::Term(term) => term.max,
            Self::Phrase(phrase) => phrase.bound(),
            Self::Max(children) => children.iter().map(Self::bound).fold(0.0, f32::max),
            Self::Bool(node) => {
                let sum: f32 = node.must.iter().chain(&node.should).map(Self::bound).sum();
                sum * super::disjunction::SLACK
            }
        }
    }

    /// About how many documents must be looked at.
    pub(crate) fn cost(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::All { end, .. } => u64::from(*end),
            Self::Term(term) => u64::from(term.frequency()),
            Self::Phrase(phrase) => phrase.cost(),
            Self::Bits { bits, .. } => bits.count(),
            Self::Engine { docs, .. } => docs.cost(),
            Self::Max(children) => children.iter().map(Self::cost).sum(),
            Self::Bool(node) => match node.order.first() {
                Some(lead) => node.must[*lead].cost(),
                None => node.should.iter().map(Self::cost).sum(),
            },
        }
    }
}

impl<'a> BoolCursor<'a> {
    fn new(must: Vec<Cursor<'a>>, should: Vec<Cursor<'a>>, not: Vec<Cursor<'a>>, stop: &'a Stop<'a>) -> Self {
        let mut order: Vec<usize> = (0..must.len()).collect();
        order.sort_by_key(|at| must[*at].cost());
        let mut cursor = Self { must, should, not, order, doc: 0, stop };
        cursor.settle(0);
        cursor
    }

    fn reach(&mut self, target: DocId) -> DocId {
        if self.doc < target {
            self.settle(target);
        }
        self.doc
    }

    /// Moves to the first match at or after `target`.
    fn settle(&mut self, mut target: DocId) {
        loop {
            if self.stop.tick() {
                self.doc = TERMINATED;
                return;
            }
            let candidate = self.candidate(target);
            if candidate == TERMINATED {
                self.doc = TERMINATED;
                return;
            }
            if candidate == target || self.order.is_empty() {
                if self.not.iter_mut().all(|not| not.reach(candidate) != candidate) {
                    self.doc = candidate;
                    return;
                }
                target = candidate + 1;
            } else {
                target = candidate;
            }
        }
    }

    /// `target` when every clause that must match does; else a later document
    /// that may.
    fn candidate(&mut self, target: DocId) -> DocId {
        if self.order.is_empty() {
            return self.should.iter_mut().map(|child| child.reach(target)).min().unwrap_or(TERMINATED);
        }
        for at in &self.order {
            let found = self.must[*at].reach(target);
            if found != target {
                return found;
            }
        }
        target
    }

    fn score(&mut self) -> f32 {
        let mut score = 0.0;
        for child in &mut self.must {
            score += child.score();
        }
        for child in &mut self.should {
            if child.reach(self.doc) == self.doc {
                score += child.score();
            }
        }
        score
    }
}

/// Opens a clause that scores a constant.
fn constant<'a>(
    node: &Node,
    score: f32,
    snapshot: &Snapshot,
    segment: &Segment,
    stop: &Stop<'_>,
) -> Result<Cursor<'a>, Error> {
    let mapping = &snapshot.mapping;
    let query: Box<dyn Query> = match node {
        Node::All { .. } => {
            let end = segment.reader.max_doc();
            return Ok(if end == 0 { Cursor::Empty } else { Cursor::All { doc: 0, end, score } });
        }
        Node::Prefix { field, prefix, .. } => {
            let field = mapping.get(field)?.field;
            let bits = BitsCursor::prefix(&segment.reader, field, prefix.as_bytes(), stop)?;
            return Ok(if bits.count() == 0 { Cursor::Empty } else { Cursor::Bits { bits, score } });
        }
        Node::Exact { field, value, .. } => {
            let mapped = mapping.get(field)?;
            let term = mapped.term(value);
            if mapped.kind == FieldType::Keyword {
                Box::new(TermQuery::new(term, IndexRecordOption::Basic))
            } else {
                Box::new(RangeQuery::new(Bound::Included(term.clone()), Bound::Included(term)))
            }
        }
        Node::Range { field, lower, upper, .. } => {
            let mapped = mapping.get(field)?;
            let end = |end: &End| match end {
                End::Unbounded => Bound::Unbounded,
                End::Included(value) => Bound::Included(mapped.term(value)),
                End::Excluded(value) => Bound::Excluded(mapped.term(value)),
            };
            let (lower, upper) = (end(lower), end(upper));
            if lower == Bound::Unbounded && upper == Bound::Unbounded {
                Box::new(ExistsQuery::new(mapped.presence.clone(), false))
            } else {
                Box::new(RangeQuery::new(lower, upper))
            }
        }
        Node::Exists { field, .. } => Box::new(ExistsQuery::new(mapping.get(field)?.presence.clone(), false)),
        _ => return Err(Error::Corrupt("a scored clause was compiled as a constant".into())),
    };
    let weight = query.weight(EnableScoring::disabled_from_searcher(&snapshot.searcher))?;
    let docs = weight.scorer(&segment.reader, 1.0)?;
    Ok(if docs.doc() == TERMINATED { Cursor::Empty } else { Cursor::Engine { docs, score } })
}
