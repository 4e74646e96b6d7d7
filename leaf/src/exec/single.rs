//! One term: the blocks that can still matter, best bound known beforehand.

use tantivy::TERMINATED;

use super::Sink;
use super::compile::CompiledTerm;
use super::stop::Stop;
use super::term::TermCursor;
use crate::engine::{Error, Snapshot};

/// Documents between looks at the cancel flag.
const WINDOW: u32 = 65_536;

pub(super) fn run(
    term: &CompiledTerm<'_>,
    snapshot: &Snapshot,
    sink: &mut Sink<'_, '_>,
    stop: &Stop<'_>,
) -> Result<(), Error> {
    let segment = sink.segment;
    let Some(mut cursor) = TermCursor::open(term, segment)? else { return Ok(()) };
    let mut counting = sink.counter.counting();
    if counting && sink.admits_all() {
        sink.counter.add(u64::from(cursor.frequency()));
        counting = false;
    }
    if counting {
        exhaustive(cursor, sink, stop, true);
        return Ok(());
    }
    if !sink.top.wanted() || term.bound < sink.top.threshold() {
        return Ok(());
    }
    let Some(impacts) = cursor.impacts(snapshot, segment) else {
        exhaustive(cursor, sink, stop, false);
        return Ok(());
    };
    if impacts.bound(term.bound, term.average) < sink.top.threshold() {
        return Ok(());
    }
    let mut start = 0;
    for (end, bound) in impacts.blocks(term.bound, term.average) {
        if bound >= sink.top.threshold() {
            if stop.tick() {
                break;
            }
            cursor.reach(start);
            cursor.drain(end + 1, |doc, score| {
                if score >= sink.top.threshold() && sink.admits(doc) {
                    sink.offer(doc, score);
                }
            });
        }
        start = end + 1;
    }
    Ok(())
}

fn exhaustive(mut cursor: TermCursor<'_>, sink: &mut Sink<'_, '_>, stop: &Stop<'_>, count: bool) {
    while cursor.doc() != TERMINATED && !stop.look() {
        let end = cursor.doc().saturating_add(WINDOW).min(TERMINATED);
        cursor.drain(end, |doc, score| {
            let counting = count && sink.counter.counting();
            if (counting || score >= sink.top.threshold()) && sink.admits(doc) {
                if counting {
                    sink.counter.add(1);
                }
                sink.offer(doc, score);
            }
        });
    }
}
