//! What is told of how a search went.

use std::collections::BTreeMap;
use std::time::Duration;

use model::ids::NodeId;
use model::query::Query;
use proto::Error;
use proto::search::{LeafProfile, Request};
use tokio::time::Instant;

use crate::memory::Phase;
use crate::scatter::Record;

/// Of the text of a slow search so much is logged.
const SLOW_QUERY_CHARS: usize = 1_000;

/// How a search went: phases with their times, and calls.
pub(super) struct Trace {
    pub(super) begun: Instant,
    last: Instant,
    phases: Vec<(&'static str, Duration)>,
    /// What leaves say of themselves, where a profile is wanted: with the leaf
    /// and when it was asked.
    pub(super) own: Vec<(NodeId, Instant, LeafProfile)>,
}

impl Trace {
    pub(super) fn new() -> Self {
        let begun = Instant::now();
        Self { begun, last: begun, phases: Vec::with_capacity(8), own: Vec::new() }
    }

    pub(super) fn end(&mut self, name: &'static str) {
        let now = Instant::now();
        self.phases.push((name, now - self.last));
        self.last = now;
    }

    pub(super) fn us(&self) -> BTreeMap<String, u64> {
        let mut us: BTreeMap<String, u64> = BTreeMap::new();
        for (name, spent) in &self.phases {
            *us.entry((*name).to_owned()).or_default() += micros(*spent);
        }
        us
    }

    /// All calls in the order in which they were sent.
    pub(super) fn leaves(&mut self, mut calls: Vec<(Phase, Record)>) -> Vec<LeafProfile> {
        calls.sort_by_key(|(_, record)| record.sent);
        let mut leaves = Vec::with_capacity(calls.len());
        for (phase, record) in calls {
            let own =
                self.own.iter_mut().find(|(node, sent, _)| (node, *sent) == (&record.node, record.sent));
            let known = own.map_or_else(LeafProfile::default, |(_, _, own)| std::mem::take(own));
            leaves.push(LeafProfile {
                node: record.node.to_string(),
                shards: record.shards.iter().map(|at| at.shard).collect(),
                phase: phase.name().to_owned(),
                call: record.why.name().to_owned(),
                outcome: record.outcome.unwrap_or_else(|| "answered".to_owned()),
                sent_us: micros(record.sent.saturating_duration_since(self.begun)),
                took_us: micros(record.took),
                ..known
            });
        }
        leaves
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Logs a slow search.
pub(super) fn tell(
    request: &Request,
    trace: &Trace,
    calls: &[(Phase, Record)],
    took: Duration,
    failed: Option<&Error>,
) {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let short = |query: &Query| {
        let mut text = format!("{query:?}");
        if let Some((end, _)) = text.char_indices().nth(SLOW_QUERY_CHARS) {
            text.truncate(end);
        }
        text
    };
    let slowest = calls.iter().max_by_key(|(_, record)| record.took);
    tracing::warn!(
        index = %request.index, took_ms = ms(took), phases_us = ?trace.us(),
        slowest_leaf = slowest.map(|(_, call)| tracing::field::display(&call.node)),
        slowest_ms = slowest.map(|(_, call)| ms(call.took)),
        slowest_call = slowest.map(|(phase, _)| phase.name()),
        slowest_outcome = slowest.map(|(_, call)| call.outcome.as_deref().unwrap_or("answered")),
        failed = failed.map(|error| error.message.as_str()),
        query = short(&request.query), filter = request.filter.as_ref().map(short),
        "a slow search"
    );
}
