//! Terms at given distances.
//!
//! **Invariant:** how often a phrase occurs depends on the document and the
//! phrase alone. (The engine's own count of sloppy phrases depends on which
//! term is rarer in the segment, so it would not survive another layout.)
//!
//! A phrase occurs where one position of each term can be chosen, all
//! different, such that after taking off each term's offset the positions lie
//! within `slop` of each other; occurrences are counted from left to right and
//! share no position of a term.

use tantivy::postings::{Postings, SegmentPostings};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocId, DocSet, TERMINATED};

use super::compile::CompiledPhrase;
use super::stop::Stop;
use crate::engine::{Error, Segment, TextField};

/// A cursor over the documents that hold a phrase.
pub(crate) struct PhraseCursor<'a> {
    phrase: &'a CompiledPhrase<'a>,
    field: &'a TextField,
    /// In the phrase's order.
    postings: Vec<SegmentPostings>,
    /// Places in `postings`, rarest first.
    order: Vec<usize>,
    occurrences: Occurrences,
    frequency: u32,
    stop: &'a Stop<'a>,
}

/// Scratch for counting.
struct Occurrences {
    /// Each term's positions plus its shift: equal where the phrase stands.
    positions: Vec<Vec<u32>>,
    /// What is added to each term's positions: the last offset less its own.
    shifts: Vec<u32>,
    at: Vec<usize>,
    slop: u32,
}

impl<'a> PhraseCursor<'a> {
    /// Opens the phrase, or `None` where the segment lacks one of its terms.
    pub(crate) fn open(
        phrase: &'a CompiledPhrase<'a>,
        segment: &'a Segment,
        stop: &'a Stop<'a>,
    ) -> Result<Option<Self>, Error> {
        let field = segment.text(phrase.field)?;
        let mut postings = Vec::with_capacity(phrase.terms.len());
        for (_, text) in phrase.terms {
            let Some(info) = field.find(text)? else { return Ok(None) };
            let option = IndexRecordOption::WithFreqsAndPositions;
            postings.push(field.inverted.read_postings_from_terminfo(&info, option)?);
        }
        let mut order: Vec<usize> = (0..postings.len()).collect();
        order.sort_by_key(|at| postings[*at].doc_freq());
        let last = phrase.terms.last().map_or(0, |(offset, _)| *offset);
        let occurrences = Occurrences {
            positions: vec![Vec::new(); postings.len()],
            shifts: phrase.terms.iter().map(|(offset, _)| last - offset).collect(),
            at: vec![0; postings.len()],
            slop: phrase.slop,
        };
        let mut cursor = Self { phrase, field, postings, order, occurrences, frequency: 0, stop };
        cursor.settle();
        Ok(Some(cursor))
    }

    pub(crate) fn doc(&self) -> DocId {
        self.order.first().map_or(TERMINATED, |lead| self.postings[*lead].doc())
    }

    /// No match scores more.
    pub(crate) fn bound(&self) -> f32 {
        self.phrase.bound
    }

    pub(crate) fn cost(&self) -> u64 {
        self.order.first().map_or(0, |lead| u64::from(self.postings[*lead].doc_freq()))
    }

    pub(crate) fn advance(&mut self) -> DocId {
        if let Some(lead) = self.order.first() {
            self.postings[*lead].advance();
        }
        self.settle()
    }

    pub(crate) fn reach(&mut self, target: DocId) -> DocId {
        if self.doc() < target {
            self.postings[self.order[0]].seek(target);
            self.settle();
        }
        self.doc()
    }

    pub(crate) fn score(&self) -> f32 {
        self.phrase.weight.score(self.field.norms.get(self.doc()), self.frequency)
    }

    /// Moves to the first document, from the lead's on, that holds the phrase.
    fn settle(&mut self) -> DocId {
        'candidates: loop {
            let doc = self.doc();
            if doc == TERMINATED {
                return doc;
            }
            if self.stop.tick() {
                return self.end();
            }
            for other in &self.order[1..] {
                let postings = &mut self.postings[*other];
                let found = if postings.doc() < doc { postings.seek(doc) } else { postings.doc() };
                if found != doc {
                    if found == TERMINATED {
                        return self.end();
                    }
                    self.postings[self.order[0]].seek(found);
                    continue 'candidates;
                }
            }
            self.frequency = self.occurrences.count(&mut self.postings);
            if self.frequency > 0 {
                return doc;
            }
            self.postings[self.order[0]].advance();
        }
    }

    fn end(&mut self) -> DocId {
        self.order.clear();
        TERMINATED
    }
}

impl Occurrences {
    fn count(&mut self, postings: &mut [SegmentPostings]) -> u32 {
        for (at, postings) in postings.iter_mut().enumerate() {
            postings.positions_with_offset(self.shifts[at], &mut self.positions[at]);
        }
        self.count_positions()
    }

    fn count_positions(&mut self) -> u32 {
        self.at.fill(0);
        let mut count = 0;
        loop {
            let mut least = (u32::MAX, 0);
            let mut most = 0;
            for (term, at) in self.at.iter().enumerate() {
                let Some(position) = self.positions[term].get(*at) else { return count };
                if *position < least.0 {
                    least = (*position, term);
                }
                most = most.max(*position);
            }
            if most - least.0 <= self.slop && self.all_different() {
                count += 1;
                self.at.iter_mut().for_each(|at| *at += 1);
            } else {
                self.at[least.1] += 1;
            }
        }
    }

    /// Whether the chosen positions are different words of the text; without
    /// slop they are, since the offsets are.
    fn all_different(&self) -> bool {
        if self.slop == 0 {
            return true;
        }
        let word = |term: usize| self.positions[term][self.at[term]] - self.shifts[term];
        let terms = self.at.len();
        (0..terms).all(|a| (a + 1..terms).all(|b| word(a) != word(b)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(offsets: &[u32], positions: &[&[u32]], slop: u32) -> u32 {
        let last = *offsets.last().unwrap();
        let shifts: Vec<u32> = offsets.iter().map(|offset| last - offset).collect();
        let shifted = |(at, list): (usize, &&[u32])| list.iter().map(|p| p + shifts[at]).collect();
        let positions = positions.iter().enumerate().map(shifted).collect();
        Occurrences { positions, shifts: shifts.clone(), at: vec![0; offsets.len()], slop }.count_positions()
    }

    #[test]
    fn words_side_by_side_occur() {
        assert_eq!(count(&[0, 1], &[&[0, 5, 9], &[1, 7, 10]], 0), 2);
        assert_eq!(count(&[0, 1], &[&[1], &[0]], 0), 0);
        assert_eq!(count(&[0, 2], &[&[3], &[5]], 0), 1);
    }

    #[test]
    fn slop_lets_words_move() {
        assert_eq!(count(&[0, 1], &[&[0], &[2]], 1), 1);
        assert_eq!(count(&[0, 1], &[&[0], &[3]], 1), 0);
        // Swapped neighbours are two moves apart.
        assert_eq!(count(&[0, 1], &[&[1], &[0]], 1), 0);
        assert_eq!(count(&[0, 1], &[&[1], &[0]], 2), 1);
    }

    #[test]
    fn a_repeated_word_needs_two_positions() {
        assert_eq!(count(&[0, 1], &[&[4], &[4]], 3), 0);
        assert_eq!(count(&[0, 1], &[&[4, 5], &[4, 5]], 0), 1);
    }
}
