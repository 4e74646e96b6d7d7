//! The postings of one term, with their scores.

use tantivy::postings::BlockSegmentPostings;
use tantivy::query::Bm25Weight;
use tantivy::schema::IndexRecordOption;
use tantivy::{DocId, TERMINATED};

use std::sync::Arc;

use super::compile::{Compiled, CompiledTerm};
use super::impacts::{Impacts, ListKey};
use crate::engine::{Error, Segment, Snapshot, TextField};

/// Postings to a block of the engine.
pub(crate) const BLOCK: usize = 128;

/// A cursor over the postings of one term in one segment.
pub(crate) struct TermCursor<'a> {
    postings: BlockSegmentPostings,
    index: usize,
    doc: DocId,
    pub(crate) field: &'a TextField,
    pub(crate) term: &'a CompiledTerm<'a>,
    /// No posting here scores more.
    pub(crate) max: f32,
    key: ListKey,
}

impl<'a> TermCursor<'a> {
    /// Opens the term, or `None` where the segment lacks it.
    pub(crate) fn open(term: &'a CompiledTerm<'a>, segment: &'a Segment) -> Result<Option<Self>, Error> {
        let field = segment.text(term.field)?;
        let Some(info) = field.find(term.text)? else { return Ok(None) };
        let postings =
            field.inverted.read_block_postings_from_terminfo(&info, IndexRecordOption::WithFreqs)?;
        let doc = postings.doc(0);
        let key = ListKey {
            segment: segment.reader.segment_id(),
            field: field.field.field_id(),
            offset: info.postings_range.start,
        };
        Ok(Some(Self { postings, index: 0, doc, field, term, max: term.bound, key }))
    }

    /// The maxima of the list's blocks, where it is long enough to have any.
    pub(crate) fn impacts(&self, snapshot: &Snapshot, segment: &'a Segment) -> Option<Arc<Impacts>> {
        let reopen = || Self::open(self.term, segment).ok().flatten();
        snapshot.impacts.get(self.key, self, reopen)
    }

    /// Tightens `max` by what the list really holds.
    pub(crate) fn tighten(&mut self, snapshot: &Snapshot, segment: &'a Segment) {
        if let Some(impacts) = self.impacts(snapshot, segment) {
            self.max = impacts.bound(self.term.bound, self.term.average);
        }
    }

    /// The last document of the current block.
    pub(crate) fn block_end(&self) -> DocId {
        self.postings.docs().last().copied().unwrap_or(TERMINATED - 1)
    }

    #[inline]
    pub(crate) fn doc(&self) -> DocId {
        self.doc
    }

    pub(crate) fn frequency(&self) -> u32 {
        self.postings.doc_freq()
    }

    #[inline]
    pub(crate) fn advance(&mut self) -> DocId {
        self.index += 1;
        if self.index == BLOCK {
            self.postings.advance();
            self.index = 0;
        }
        self.doc = self.postings.doc(self.index);
        self.doc
    }

    /// Moves to the first document at or after `target`, which must not lie
    /// before the current one.
    #[inline]
    pub(crate) fn reach(&mut self, target: DocId) -> DocId {
        if self.doc < target {
            self.index = self.postings.seek(target);
            self.doc = self.postings.doc(self.index);
        }
        self.doc
    }

    /// The current document's score.
    #[inline]
    pub(crate) fn score(&self) -> f32 {
        self.term.weight.score(self.field.norms.get(self.doc), self.postings.freq(self.index))
    }

    /// Calls `visit` with each document before `end` and its score, in order,
    /// and moves there.
    #[inline]
    pub(crate) fn drain(&mut self, end: DocId, mut visit: impl FnMut(DocId, f32)) {
        let weight: &Bm25Weight = &self.term.weight;
        while self.doc < end {
            let docs = &self.postings.docs()[self.index..];
            let freqs = &self.postings.freqs()[self.index..];
            let mut taken = 0;
            for (doc, freq) in docs.iter().zip(freqs) {
                if *doc >= end {
                    break;
                }
                visit(*doc, weight.score(self.field.norms.get(*doc), *freq));
                taken += 1;
            }
            self.index += taken;
            if taken == docs.len() {
                if self.postings.docs().len() < BLOCK {
                    self.doc = TERMINATED;
                    self.index = self.postings.docs().len();
                    return;
                }
                self.postings.advance();
                self.index = 0;
            }
            self.doc = self.postings.doc(self.index);
        }
    }
}

/// Opens every term of a conjunction, in order; `None` where one is missing.
pub(crate) fn open_all<'a>(
    clauses: &'a [Compiled<'a>],
    segment: &'a Segment,
) -> Result<Option<Vec<TermCursor<'a>>>, Error> {
    let mut terms = Vec::with_capacity(clauses.len());
    for clause in clauses {
        let Compiled::Term(term) = clause else {
            return Err(Error::Corrupt("a conjunction of terms holds something else".into()));
        };
        match TermCursor::open(term, segment)? {
            Some(cursor) => terms.push(cursor),
            None => return Ok(None),
        }
    }
    Ok(Some(terms))
}
