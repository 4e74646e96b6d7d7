//! Any of several clauses, their scores combined in canonical order.
//!
//! Two ways, of which the second is taken up as soon as it pays:
//!
//! - *windows*: every list pours its scores into an array over 4,096
//!   documents, in canonical order, and the array is swept;
//! - *MaxScore*: lists whose upper bounds together cannot reach the k-th score
//!   are not read but sought, only for documents that the other, essential
//!   lists propose (Turtle and Flood, 1995).
//!
//! **Invariant:** both add a document's scores in the order of the lists, so
//! they agree to the bit.

use tantivy::{DocId, TERMINATED};

use super::Sink;
use super::cursor::Cursor;
use super::stop::Stop;

/// Documents of a window: 16 KiB of scores stay in the first-level cache.
const WINDOW: u32 = 4_096;
const WORDS: usize = WINDOW as usize / 64;

/// Postings that the essential lists may hold, as a share of all, for MaxScore
/// to pay: a sought posting costs several read ones.
const ESSENTIAL_SHARE_MAX: u64 = 4;

/// Widens sums of bounds for rounding: up to 1,024 additions of half an ulp
/// (2⁻²⁴) each come to 2⁻¹⁴.
pub(super) const SLACK: f32 = 1.0 + 1.0 / 16_384.0;

/// How scores of one document become one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Combine {
    Sum,
    Max,
}

impl Combine {
    #[inline]
    fn apply(self, score: f32, other: f32) -> f32 {
        match self {
            Self::Sum => score + other,
            Self::Max => score.max(other),
        }
    }
}

/// Visits the documents that match any of `lists`, which stand in canonical
/// order.
pub(super) fn run(mut lists: Vec<Cursor<'_>>, combine: Combine, sink: &mut Sink<'_, '_>, stop: &Stop<'_>) {
    let mut bounds = Bounds::new(&lists, combine);
    let mut scores = vec![0.0_f32; WINDOW as usize];
    let mut touched = [0_u64; WORDS];
    let mut base = 0;
    loop {
        if stop.look() {
            return;
        }
        if !sink.counter.counting() {
            bounds.raise(sink.top.threshold());
            if bounds.essential().is_empty() {
                return;
            }
            if bounds.maxscore_pays() {
                return maxscore(&mut lists, &mut bounds, combine, sink, stop);
            }
        }
        let Some(first) = lists.iter().map(Cursor::doc).min().filter(|doc| *doc != TERMINATED) else {
            return;
        };
        base = base.max(first - first % WINDOW);
        let end = base.saturating_add(WINDOW).min(TERMINATED);
        for list in &mut lists {
            list.drain(end, &mut |doc, score| {
                let at = (doc - base) as usize;
                scores[at] = combine.apply(scores[at], score);
                touched[at / 64] |= 1 << (at % 64);
            });
        }
        sweep(base, &mut scores, &mut touched, sink);
        if end == TERMINATED {
            return;
        }
        base = end;
    }
}

/// Takes a window's documents in order, and clears it.
fn sweep(base: DocId, scores: &mut [f32], touched: &mut [u64; WORDS], sink: &mut Sink<'_, '_>) {
    let all = sink.admits_all();
    if all && sink.counter.counting() {
        sink.counter.add(touched.iter().map(|word| u64::from(word.count_ones())).sum());
    }
    for (at, word) in touched.iter_mut().enumerate() {
        while *word != 0 {
            let bit = word.trailing_zeros();
            *word &= *word - 1;
            let slot = at * 64 + bit as usize;
            let score = std::mem::take(&mut scores[slot]);
            let doc = base + u32::try_from(slot).expect("a window is small");
            if all {
                if score >= sink.top.threshold() {
                    sink.offer(doc, score);
                }
                continue;
            }
            let counting = sink.counter.counting();
            if (counting || score >= sink.top.threshold()) && sink.admits(doc) {
                if counting {
                    sink.counter.add(1);
                }
                sink.offer(doc, score);
            }
        }
    }
}

/// Which lists must be read, given the score to beat.
struct Bounds {
    combine: Combine,
    /// Lists from the lowest upper bound to the highest.
    order: Vec<usize>,
    /// `reach[n]`: the most that the first `n` of `order` can add together.
    reach: Vec<f32>,
    postings: Vec<u64>,
    /// The first of `order` that is essential.
    first: usize,
}

impl Bounds {
    fn new(lists: &[Cursor<'_>], combine: Combine) -> Self {
        let max: Vec<f32> = lists.iter().map(Cursor::bound).collect();
        let mut order: Vec<usize> = (0..lists.len()).collect();
        order.sort_by(|a, b| max[*a].total_cmp(&max[*b]));
        let mut reach = vec![0.0];
        for at in &order {
            let last: f32 = reach[reach.len() - 1];
            reach.push(combine.apply(last, max[*at]));
        }
        let postings = lists.iter().map(Cursor::cost).collect();
        Self { combine, order, reach, postings, first: 0 }
    }

    /// Moves lists out of the essential ones for a higher threshold.
    fn raise(&mut self, threshold: f32) {
        while self.first < self.order.len() && self.reach[self.first + 1] * SLACK < threshold {
            self.first += 1;
        }
    }

    fn essential(&self) -> &[usize] {
        &self.order[self.first..]
    }

    fn maxscore_pays(&self) -> bool {
        let all: u64 = self.postings.iter().sum();
        let essential: u64 = self.essential().iter().map(|at| self.postings[*at]).sum();
        self.first > 0 && essential * ESSENTIAL_SHARE_MAX <= all
    }
}

fn maxscore(
    lists: &mut [Cursor<'_>],
    bounds: &mut Bounds,
    combine: Combine,
    sink: &mut Sink<'_, '_>,
    stop: &Stop<'_>,
) {
    debug_assert!(combine == bounds.combine);
    // A document's score in each list, in canonical order; NAN: not in it.
    let mut slots = vec![f32::NAN; lists.len()];
    while !stop.tick() {
        let essential = &bounds.order[bounds.first..];
        let Some(doc) = essential.iter().map(|at| lists[*at].doc()).min() else { return };
        if doc == TERMINATED {
            return;
        }
        slots.fill(f32::NAN);
        let mut known = 0.0;
        for at in essential {
            if lists[*at].doc() == doc {
                let score = lists[*at].score();
                slots[*at] = score;
                known = combine.apply(known, score);
                lists[*at].advance();
            }
        }
        let threshold = sink.top.threshold();
        let mut hopeful = true;
        for rest in (0..bounds.first).rev() {
            // What is known, and at most what the rest can add.
            if combine.apply(known, bounds.reach[rest + 1]) * SLACK < threshold {
                hopeful = false;
                break;
            }
            let at = bounds.order[rest];
            if lists[at].reach(doc) == doc {
                let score = lists[at].score();
                slots[at] = score;
                known = combine.apply(known, score);
            }
        }
        if !hopeful || known * SLACK < threshold {
            continue;
        }
        let mut score = 0.0;
        for slot in &slots {
            if !slot.is_nan() {
                score = combine.apply(score, *slot);
            }
        }
        if score >= threshold && sink.admits(doc) {
            sink.offer(doc, score);
            bounds.raise(sink.top.threshold());
        }
    }
}
