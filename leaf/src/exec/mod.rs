//! Executes a bound query over open shards: exactly, and as fast as we can.
//!
//! ```text
//! plan::Node ──compile──► Compiled (weights from index-wide statistics)
//!     for each shard, for each segment:
//!        strategy: term | and | or | tree ──► Top (one heap for all of them)
//! ```
//!
//! **Invariant:** a hit's score is what [`model::plan`] defines, to the bit;
//! hits are the first by (score, id hash), whatever the layout. Pruning may
//! only skip documents whose upper bound, widened for rounding, is below the
//! k-th score; a tie is never pruned.
//!
//! **Invariant:** no loop runs longer than a few thousand documents without
//! asking [`Stop`].

mod bits;
mod compile;
mod conjunction;
mod cursor;
mod disjunction;
mod impacts;
mod phrase;
mod single;
mod stop;
mod term;
mod top;

pub(crate) use impacts::ImpactCache;
pub(crate) use top::Entry;

use compile::Compiled;

use model::gather::Count;
use model::ids::ShardId;
use model::plan::{Node, TextTerm};
use model::statistics::Statistics;
use runtime::Cancel;

use crate::engine::{Error, Segment, Snapshot};
use cursor::Cursor;
use stop::Stop;
use top::Top;

/// What to search for.
pub(crate) struct Job<'a> {
    pub(crate) query: &'a Node,
    pub(crate) filter: Option<&'a Node>,
    pub(crate) statistics: &'a Statistics,
    pub(crate) limit: usize,
    pub(crate) count: Count,
}

/// What was found.
pub(crate) struct Outcome {
    /// Best first, and then those that tie with the last in score and hash.
    pub(crate) entries: Vec<Entry>,
    /// Matches seen; a lower bound when `bounded`.
    pub(crate) matches: u64,
    pub(crate) bounded: bool,
    /// How each shard was searched.
    pub(crate) strategies: Vec<&'static str>,
    /// Documents whose score was computed.
    pub(crate) scored: u64,
}

/// Counts matches up to a bound.
struct Counter {
    /// Stop counting beyond this many; `None` counts all.
    bound: Option<u64>,
    matches: u64,
}

impl Counter {
    fn new(count: Count) -> Self {
        let bound = match count {
            Count::None => Some(0),
            Count::Bounded(bound) => Some(bound),
            Count::Exact => None,
        };
        Self { bound, matches: u64::from(matches!(count, Count::None)) }
    }

    /// Whether another match still matters.
    #[inline]
    fn counting(&self) -> bool {
        self.bound.is_none_or(|bound| self.matches <= bound)
    }

    #[inline]
    fn add(&mut self, matches: u64) {
        self.matches += matches;
    }
}

/// Where the matches of one segment go.
struct Sink<'a, 's> {
    segment: &'a Segment,
    shard: u32,
    segment_ord: u32,
    /// Must also match; unscored.
    filter: Option<Cursor<'a>>,
    /// Must not match.
    not: Vec<Cursor<'a>>,
    top: &'s mut Top,
    counter: &'s mut Counter,
    scored: u64,
}

impl Sink<'_, '_> {
    /// Whether a document that matches the scored clauses is a match at all.
    /// Asked in ascending order of documents.
    #[inline]
    fn admits(&mut self, doc: u32) -> bool {
        self.segment.is_alive(doc)
            && self.filter.as_mut().is_none_or(|filter| filter.reach(doc) == doc)
            && self.not.iter_mut().all(|not| not.reach(doc) != doc)
    }

    /// Whether every document that matches the scored clauses is a match.
    fn admits_all(&self) -> bool {
        self.segment.alive.is_none() && self.filter.is_none() && self.not.is_empty()
    }

    /// Offers an admitted document.
    #[inline]
    fn offer(&mut self, doc: u32, score: f32) {
        self.scored += 1;
        if score >= self.top.threshold() {
            let hash = self.segment.hash(doc);
            self.top.offer(Entry { score, hash, shard: self.shard, segment: self.segment_ord, doc });
        }
    }
}

/// Searches the shards of one process with one threshold.
///
/// # Errors
/// [`Error::Stopped`] when cancelled or late.
pub(crate) fn search(
    shards: &[(ShardId, &Snapshot)],
    job: &Job<'_>,
    cancel: &Cancel,
) -> Result<Outcome, Error> {
    let mut top = Top::new(job.limit);
    let mut counter = Counter::new(job.count);
    let mut strategies = Vec::with_capacity(shards.len());
    let mut scored = 0;
    let stop = Stop::new(cancel);
    if let Some((_, snapshot)) = shards.first() {
        let mapping = &snapshot.mapping;
        let compiled = Compiled::scored(job.query, job.statistics, mapping)?;
        let filter = job.filter.map(|node| Compiled::matching(node, mapping)).transpose()?;
        if counter.counting() && filter.is_none() && known_to_exceed(job.query, job.statistics, counter.bound)
        {
            counter.matches = counter.bound.map_or(0, |bound| bound + 1);
        }
        for (ord, (_, snapshot)) in shards.iter().enumerate() {
            let mut strategy = "none";
            for (segment_ord, segment) in snapshot.segments.iter().enumerate() {
                let filter = filter
                    .as_ref()
                    .map(|filter| Cursor::open(filter, snapshot, segment, &stop))
                    .transpose()?;
                let mut sink = Sink {
                    segment,
                    shard: u32::try_from(ord).expect("shards are few"),
                    segment_ord: u32::try_from(segment_ord).expect("segments are few"),
                    filter,
                    not: Vec::new(),
                    top: &mut top,
                    counter: &mut counter,
                    scored: 0,
                };
                strategy = run(&compiled, snapshot, &mut sink, &stop)?;
                scored += sink.scored;
                stop.result()?;
            }
            strategies.push(strategy);
        }
    }
    let bounded = counter.bound.is_some_and(|bound| counter.matches > bound);
    Ok(Outcome { entries: top.into_entries(), matches: counter.matches, bounded, strategies, scored })
}

/// The terms that a query scores, each once.
pub(crate) fn terms(query: &Node) -> Vec<TextTerm> {
    let mut terms: Vec<TextTerm> = Vec::new();
    query.scored_terms(&mut |field, text| {
        if !terms.iter().any(|term| term.text == *text && term.field == *field) {
            terms.push(TextTerm { field: field.clone(), text: text.clone() });
        }
    });
    terms
}

/// Sums the statistics of some terms over some shards; `None` where it was
/// cancelled.
pub(crate) fn count(
    shards: &[&Snapshot],
    terms: &[TextTerm],
    cancel: &runtime::Cancel,
) -> Result<Option<Statistics>, Error> {
    let documents = shards.iter().map(|shard| shard.documents).sum();
    let mut sum = Statistics { documents, ..Statistics::default() };
    for term in terms {
        if !sum.tokens.contains_key(&term.field) {
            let mut tokens = 0;
            for shard in shards {
                tokens += shard.tokens(&term.field)?;
            }
            sum.tokens.insert(term.field.clone(), tokens);
        }
        let mut frequency = 0;
        for shard in shards {
            if cancel.check() {
                return Ok(None);
            }
            frequency += shard.frequency(term)?;
        }
        sum.frequencies.insert(term.clone(), frequency);
    }
    Ok(Some(sum))
}

/// A term in more documents than the bound settles a bounded count of any
/// disjunction that holds it.
fn known_to_exceed(query: &Node, statistics: &Statistics, bound: Option<u64>) -> bool {
    let Some(bound) = bound else { return false };
    match query {
        Node::Term { term, .. } => statistics.frequencies.get(term).is_some_and(|df| *df > bound),
        Node::Max(children) => children.iter().any(|child| known_to_exceed(child, statistics, Some(bound))),
        Node::Bool { must, should, not } if must.is_empty() && not.is_empty() => {
            should.iter().any(|child| known_to_exceed(child, statistics, Some(bound)))
        }
        _ => false,
    }
}

fn run<'a>(
    compiled: &'a Compiled<'a>,
    snapshot: &'a Snapshot,
    sink: &mut Sink<'a, '_>,
    stop: &'a Stop<'a>,
) -> Result<&'static str, Error> {
    let segment = sink.segment;
    match compiled {
        Compiled::None => Ok("none"),
        Compiled::Term(term) if sink.filter.is_none() => {
            single::run(term, snapshot, sink, stop)?;
            Ok("term")
        }
        Compiled::Bool { must, should, not } if should.is_empty() && must.iter().all(Compiled::is_term) => {
            if let Some(terms) = term::open_all(must, segment)? {
                open_nots(not, snapshot, sink, stop)?;
                conjunction::run(terms, sink, stop);
            }
            Ok("and")
        }
        Compiled::Bool { must, should, not } if must.is_empty() => {
            open_nots(not, snapshot, sink, stop)?;
            let lists = open_lists(should, snapshot, segment, stop)?;
            disjunction::run(lists, disjunction::Combine::Sum, sink, stop);
            Ok("or")
        }
        Compiled::Max(children) => {
            let lists = open_lists(children, snapshot, segment, stop)?;
            disjunction::run(lists, disjunction::Combine::Max, sink, stop);
            Ok("or")
        }
        other => {
            tree(Cursor::open(other, snapshot, segment, stop)?, sink, stop);
            Ok("tree")
        }
    }
}

fn open_nots<'a>(
    not: &'a [Compiled<'a>],
    snapshot: &'a Snapshot,
    sink: &mut Sink<'a, '_>,
    stop: &'a Stop<'a>,
) -> Result<(), Error> {
    for clause in not {
        sink.not.push(Cursor::open(clause, snapshot, sink.segment, stop)?);
    }
    Ok(())
}

fn open_lists<'a>(
    clauses: &'a [Compiled<'a>],
    snapshot: &'a Snapshot,
    segment: &'a Segment,
    stop: &'a Stop<'a>,
) -> Result<Vec<Cursor<'a>>, Error> {
    let mut lists = Vec::with_capacity(clauses.len());
    for clause in clauses {
        let cursor = Cursor::open(clause, snapshot, segment, stop)?;
        if !cursor.is_empty() {
            lists.push(cursor);
        }
    }
    Ok(lists)
}

/// Visits every match of any query, one by one.
fn tree(mut cursor: Cursor<'_>, sink: &mut Sink<'_, '_>, stop: &Stop<'_>) {
    let mut doc = cursor.doc();
    // A filter that is rarer than the query drives it.
    while doc != tantivy::TERMINATED && !stop.tick() {
        if let Some(filter) = &mut sink.filter {
            let next = filter.reach(doc);
            if next != doc {
                doc = cursor.reach(next);
                continue;
            }
        }
        if sink.admits(doc) {
            if sink.counter.counting() {
                sink.counter.add(1);
            }
            if sink.top.wanted() {
                let score = cursor.score();
                sink.offer(doc, score);
            }
        }
        doc = cursor.advance();
    }
}
