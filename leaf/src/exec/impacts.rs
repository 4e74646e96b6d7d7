//! The best each block of a posting list can score.
//!
//! The engine stores such maxima too, but under the average length of the
//! segment they were written in, and skips through them only inside its own
//! scorers. Ours are read off the postings once, under the index-wide average,
//! and kept: they make a list's upper bound tight, which is what lets a
//! disjunction leave its common words unread (Turtle and Flood, "Query
//! evaluation: strategies and optimizations", 1995).
//!
//! **Invariant:** `bound` is never below the score of any posting in the block,
//! for any statistics.

use std::sync::Arc;

use tantivy::TERMINATED;
use tantivy::index::SegmentId;

use super::term::TermCursor;

/// Bytes of maxima kept, for all snapshots of a leaf: 8 bytes for each block
/// of 128 postings, so this covers half a billion postings.
const CACHE_BYTES: u64 = 32 << 20;

/// Postings from which a list has maxima: shorter ones are read outright.
pub(crate) const IMPACTS_FROM: u32 = 1_024;

/// Widens a bound for the rounding of `f32` products and quotients: four
/// operations of half an ulp each, with room.
const ROUNDING: f32 = 1.0 + 1e-6;

/// A segment's posting list, whatever is deleted in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ListKey {
    pub(crate) segment: SegmentId,
    pub(crate) field: u32,
    pub(crate) offset: usize,
}

/// Maxima by block, for a weight of one.
pub(crate) struct Impacts {
    average: f32,
    /// The last document of each block, and the block's best factor.
    blocks: Vec<(u32, f32)>,
    max: f32,
}

impl Impacts {
    fn read(mut cursor: TermCursor<'_>) -> Self {
        let weight = cursor.term.bound;
        let mut blocks = Vec::with_capacity(cursor.frequency() as usize / 128 + 1);
        let mut max: f32 = 0.0;
        while cursor.doc() != TERMINATED {
            let end = cursor.block_end();
            let mut best: f32 = 0.0;
            cursor.drain(end + 1, |_, score| best = best.max(score));
            let factor = (best / weight) * ROUNDING;
            max = max.max(factor);
            blocks.push((end, factor));
        }
        Self { average: cursor.term.average, blocks, max }
    }

    /// How far factors may have moved since they were read, because the
    /// average length has: a factor is tf/(tf + a + b/average), so it moves by
    /// no more than the average does.
    fn drift(&self, average: f32) -> f32 {
        let ratio = average / self.average;
        ratio.max(1.0 / ratio) * ROUNDING
    }

    /// No posting of the list scores more.
    pub(crate) fn bound(&self, weight: f32, average: f32) -> f32 {
        (weight * self.max * self.drift(average)).min(weight)
    }

    /// The blocks as (last document, upper bound).
    pub(crate) fn blocks(&self, weight: f32, average: f32) -> impl Iterator<Item = (u32, f32)> + '_ {
        let scale = weight * self.drift(average) * ROUNDING;
        self.blocks.iter().map(move |(end, factor)| (*end, factor * scale))
    }
}

/// The maxima of the lists that queries use.
#[derive(Clone)]
pub(crate) struct ImpactCache(moka::sync::Cache<ListKey, Arc<Impacts>>);

impl Default for ImpactCache {
    fn default() -> Self {
        let weigh = |_: &ListKey, impacts: &Arc<Impacts>| {
            u32::try_from(impacts.blocks.len() * 8 + 96).unwrap_or(u32::MAX)
        };
        Self(moka::sync::Cache::builder().max_capacity(CACHE_BYTES).weigher(weigh).build())
    }
}

impl ImpactCache {
    /// The maxima of a list, read off `open`'s cursor where they are missing;
    /// `None` for a list that is too short to have any.
    pub(crate) fn get<'a>(
        &self,
        key: ListKey,
        cursor: &TermCursor<'a>,
        reopen: impl FnOnce() -> Option<TermCursor<'a>>,
    ) -> Option<Arc<Impacts>> {
        // Clauses that only match are compiled without statistics, and their
        // scores say nothing.
        let scored = cursor.term.average.is_normal() && cursor.term.bound.is_normal();
        if cursor.frequency() < IMPACTS_FROM || !scored {
            return None;
        }
        if let Some(found) = self.0.get(&key) {
            return Some(found);
        }
        let impacts = Arc::new(Impacts::read(reopen()?));
        self.0.insert(key, impacts.clone());
        Some(impacts)
    }
}
