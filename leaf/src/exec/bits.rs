//! Sets of documents as bits: what a prefix matches.

use tantivy::postings::BlockSegmentPostings;
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocId, SegmentReader, TERMINATED};

use super::stop::Stop;
use crate::engine::Error;

/// A cursor over a set of documents.
pub(crate) struct BitsCursor {
    words: Vec<u64>,
    doc: DocId,
    count: u64,
}

impl BitsCursor {
    /// The documents that hold a term of `field` that starts with `prefix`.
    ///
    /// There is no limit on the number of terms, only `stop`.
    pub(crate) fn prefix(
        reader: &SegmentReader,
        field: Field,
        prefix: &[u8],
        stop: &Stop<'_>,
    ) -> Result<Self, Error> {
        let inverted = reader.inverted_index(field)?;
        let mut words = vec![0_u64; (reader.max_doc() as usize).div_ceil(64)];
        let mut range = inverted.terms().range().ge(prefix);
        if let Some(after) = successor(prefix) {
            range = range.lt(after);
        }
        let mut terms = range.into_stream()?;
        while terms.advance() {
            let postings =
                inverted.read_block_postings_from_terminfo(terms.value(), IndexRecordOption::Basic)?;
            if !set(postings, &mut words, stop) {
                break;
            }
        }
        let count = words.iter().map(|word| u64::from(word.count_ones())).sum();
        let mut cursor = Self { words, doc: 0, count };
        cursor.doc = cursor.from(0);
        Ok(cursor)
    }

    fn from(&self, target: DocId) -> DocId {
        let mut at = target as usize / 64;
        let Some(word) = self.words.get(at) else { return TERMINATED };
        let mut word = word & (u64::MAX << (target % 64));
        while word == 0 {
            at += 1;
            match self.words.get(at) {
                Some(next) => word = *next,
                None => return TERMINATED,
            }
        }
        u32::try_from(at * 64).expect("document numbers fit 31 bits") + word.trailing_zeros()
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn doc(&self) -> DocId {
        self.doc
    }

    pub(crate) fn advance(&mut self) -> DocId {
        if self.doc != TERMINATED {
            self.doc = self.from(self.doc + 1);
        }
        self.doc
    }

    pub(crate) fn reach(&mut self, target: DocId) -> DocId {
        if self.doc < target {
            self.doc = self.from(target);
        }
        self.doc
    }
}

/// Sets the bits of a posting list; false when stopped.
fn set(mut postings: BlockSegmentPostings, words: &mut [u64], stop: &Stop<'_>) -> bool {
    loop {
        let docs = postings.docs();
        if docs.is_empty() {
            return true;
        }
        for doc in docs {
            words[*doc as usize / 64] |= 1 << (doc % 64);
        }
        if docs.len() < super::term::BLOCK {
            return !stop.tick();
        }
        if stop.tick() {
            return false;
        }
        postings.advance();
    }
}

/// The least string above all that start with `prefix`.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut after = prefix.to_vec();
    while let Some(last) = after.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return Some(after);
        }
        after.pop();
    }
    None
}
