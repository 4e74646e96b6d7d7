//! The best k of everything offered.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A document in the running.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) score: f32,
    pub(crate) hash: u64,
    /// The shard's place in the request.
    pub(crate) shard: u32,
    pub(crate) segment: u32,
    pub(crate) doc: u32,
}

impl Entry {
    /// `Less` stands before: a higher score, then a lower hash.
    fn rank(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.hash.cmp(&other.hash))
    }
}

/// Orders the heap: its greatest entry is the worst.
struct Worst(Entry);

impl PartialEq for Worst {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Worst {}
impl PartialOrd for Worst {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Worst {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.rank(&other.0)
    }
}

/// Keeps the best `limit` entries and all that tie with the last of them.
pub(crate) struct Top {
    limit: usize,
    heap: BinaryHeap<Worst>,
    /// Entries equal to the worst in score and hash: two ids with one hash.
    ties: Vec<Entry>,
    threshold: f32,
}

impl Top {
    pub(crate) fn new(limit: usize) -> Self {
        let threshold = if limit == 0 { f32::INFINITY } else { f32::NEG_INFINITY };
        // The limit comes from a request: grow with what is found instead of
        // allocating it at once.
        Self { limit, heap: BinaryHeap::with_capacity(limit.min(128) + 1), ties: Vec::new(), threshold }
    }

    /// The least score that may still enter: below it, nothing does.
    #[inline]
    pub(crate) fn threshold(&self) -> f32 {
        self.threshold
    }

    /// Whether any hit is wanted at all.
    #[inline]
    pub(crate) fn wanted(&self) -> bool {
        self.limit > 0
    }

    /// Offers an entry whose score is at least the threshold.
    pub(crate) fn offer(&mut self, entry: Entry) {
        if self.heap.len() < self.limit {
            self.heap.push(Worst(entry));
        } else {
            let Some(worst) = self.heap.peek() else { return };
            match entry.rank(&worst.0) {
                Ordering::Greater => return,
                Ordering::Equal => {
                    self.ties.push(entry);
                    return;
                }
                Ordering::Less => {}
            }
            let out = self.heap.pop().expect("it was peeked at").0;
            self.heap.push(Worst(entry));
            let worst = self.heap.peek().expect("one was pushed").0;
            if out.rank(&worst).is_eq() {
                self.ties.push(out);
            } else {
                self.ties.clear();
            }
        }
        if self.heap.len() == self.limit {
            self.threshold = self.heap.peek().map_or(f32::NEG_INFINITY, |worst| worst.0.score);
        }
    }

    /// The entries, best first, ties with the last after it.
    pub(crate) fn into_entries(self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.heap.into_sorted_vec().into_iter().map(|worst| worst.0).collect();
        entries.extend(self.ties);
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn top_equals_sorting_everything(
            offers in prop::collection::vec((0_u8..6, 0_u64..6), 0..60),
            limit in 0_usize..12,
        ) {
            let mut top = Top::new(limit);
            let mut all = Vec::new();
            for (doc, (score, hash)) in offers.into_iter().enumerate() {
                let entry = Entry { score: f32::from(score), hash, shard: 0, segment: 0, doc: u32::try_from(doc).unwrap() };
                if entry.score >= top.threshold() {
                    top.offer(entry);
                }
                all.push(entry);
            }
            all.sort_by(Entry::rank);
            let cut = all.get(limit.wrapping_sub(1)).copied();
            let expected = cut.map_or(if limit == 0 { 0 } else { all.len() }, |last| {
                all.iter().filter(|entry| entry.rank(&last).is_le()).count()
            });
            let key = |entry: &Entry| (entry.score.to_bits(), entry.hash);
            let found: Vec<_> = top.into_entries().iter().map(key).collect();
            prop_assert_eq!(found, all[..expected].iter().map(key).collect::<Vec<_>>());
        }
    }
}
