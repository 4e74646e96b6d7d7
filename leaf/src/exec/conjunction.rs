//! All of several terms: leapfrog from the rarest, score in canonical order.

use tantivy::TERMINATED;

use super::Sink;
use super::stop::Stop;
use super::term::TermCursor;

/// Visits the documents that hold every term.
pub(super) fn run(mut terms: Vec<TermCursor<'_>>, sink: &mut Sink<'_, '_>, stop: &Stop<'_>) {
    // Rarest first; scores are summed in the canonical order of `terms`.
    let mut order: Vec<usize> = (0..terms.len()).collect();
    order.sort_by_key(|at| terms[*at].frequency());
    let Some((&lead, others)) = order.split_first() else { return };
    let bound: f32 = terms.iter().map(|term| term.max).sum::<f32>() * super::disjunction::SLACK;
    let mut doc = terms[lead].doc();
    'candidates: while doc != TERMINATED && !stop.tick() {
        for other in others {
            let found = terms[*other].reach(doc);
            if found != doc {
                if found == TERMINATED {
                    return;
                }
                doc = terms[lead].reach(found);
                continue 'candidates;
            }
        }
        if let Some(filter) = &mut sink.filter {
            let found = filter.reach(doc);
            if found != doc {
                doc = terms[lead].reach(found);
                continue;
            }
        }
        if sink.admits(doc) {
            let counting = sink.counter.counting();
            if counting {
                sink.counter.add(1);
            } else if bound < sink.top.threshold() {
                return;
            }
            if sink.top.wanted() {
                let mut score = 0.0;
                for term in &terms {
                    score += term.score();
                }
                sink.offer(doc, score);
            }
        }
        doc = terms[lead].advance();
    }
}
