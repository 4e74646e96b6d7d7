//! Index-wide statistics, kept by shard and generation.
//!
//! A generation never changes, so what was once counted stays true; a new cut
//! costs one question to the shards that moved.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use model::cut::Cut;
use model::ids::{Generation, IndexUid, ShardId};
use model::plan::{FieldName, Node, TextTerm};
use model::statistics::Statistics;
use proto::Error;
use proto::leaf::{Leaf, ShardAt, StatisticsRequest};
use runtime::Deadline;

use crate::memory::Phase;
use crate::root::Root;
use crate::search::{Failed, Reading};

/// Counts kept: about 100 bytes each.
const COUNTS_KEPT: u64 = 500_000;

#[derive(Clone, PartialEq, Eq, Hash)]
enum What {
    Tokens(FieldName),
    Frequency(TextTerm),
}

type Key = (IndexUid, ShardId, Generation, What);

/// What this root knows of the counts of shards.
#[derive(Clone)]
pub(crate) struct Known(moka::sync::Cache<Key, u64>);

impl Default for Known {
    fn default() -> Self {
        Self(moka::sync::Cache::new(COUNTS_KEPT))
    }
}

/// The terms that a query scores, each once.
pub(crate) fn terms(query: &Node) -> Vec<TextTerm> {
    let mut terms = std::collections::BTreeSet::new();
    query.scored_terms(&mut |field, text| {
        terms.insert(TextTerm { field: field.clone(), text: text.clone() });
    });
    terms.into_iter().collect()
}

impl Known {
    /// Sums over those shards of a cut that are known, and names those that must be
    /// asked; the documents are those of all.
    pub(crate) fn sum(
        &self,
        cut: &Cut,
        shards: &[ShardAt],
        terms: &[TextTerm],
    ) -> (Statistics, Vec<ShardAt>) {
        let documents =
            |at: &ShardAt| cut.entries.get(at.shard.0 as usize).map_or(0, |entry| entry.documents);
        let mut sum = Statistics { documents: shards.iter().map(documents).sum(), ..Statistics::default() };
        let mut unknown = Vec::new();
        for at in shards {
            match self.shard(&cut.uid, at.shard, at.generation, terms) {
                Some(known) => sum.add(&known),
                None => unknown.push(*at),
            }
        }
        (sum, unknown)
    }

    fn shard(
        &self,
        uid: &IndexUid,
        shard: ShardId,
        generation: Generation,
        terms: &[TextTerm],
    ) -> Option<Statistics> {
        let get = |what| self.0.get(&(uid.clone(), shard, generation, what));
        let mut known = Statistics::default();
        for term in terms {
            if !known.tokens.contains_key(&term.field) {
                known.tokens.insert(term.field.clone(), get(What::Tokens(term.field.clone()))?);
            }
            known.frequencies.insert(term.clone(), get(What::Frequency(term.clone()))?);
        }
        Some(known)
    }

    /// Keeps what a leaf answered.
    pub(crate) fn learn(&self, uid: &IndexUid, shard: ShardId, generation: Generation, counted: Statistics) {
        let Statistics { tokens, frequencies, .. } = counted;
        let keep = |what, count| self.0.insert((uid.clone(), shard, generation, what), count);
        tokens.into_iter().for_each(|(field, count)| keep(What::Tokens(field), count));
        let frequencies: BTreeMap<_, _> = frequencies;
        frequencies.into_iter().for_each(|(term, count)| keep(What::Frequency(term), count));
    }
}

impl Root {
    /// Sums the statistics of the query's terms over the cut, asking leaves
    /// for what is not known yet.
    pub(crate) async fn statistics(
        &self,
        reading: &Reading<'_>,
        query: &Node,
        deadline: Deadline,
        all: &[ShardAt],
    ) -> Result<Statistics, Failed> {
        let pinned = reading.pinned;
        let terms = terms(query);
        let known = self.known();
        let (mut sum, shards) = known.sum(&pinned.cut, all, &terms);
        if shards.is_empty() {
            return Ok(sum);
        }
        let call = |leaf: Arc<dyn Leaf>, shards: Vec<ShardAt>| {
            let request =
                StatisticsRequest { uid: pinned.uid.clone(), shards, terms: terms.clone(), deadline };
            async move { leaf.statistics(request).await }.boxed()
        };
        let gathered = reading.question(Phase::Statistics, deadline, &call).ask(shards).await?;
        for part in reading.unless_lost(gathered)?.parts {
            for (at, counted) in part.record.shards.iter().zip(part.answer) {
                if let Some(more) = counted.frequencies.values().find(|df| **df > counted.documents) {
                    return Err(Failed::Error(Error::internal(format!(
                        "shard {} counts a term in {more} of {} documents",
                        at.shard, counted.documents
                    ))));
                }
                // The cut says how many documents there are.
                let counted = Statistics { documents: 0, ..counted };
                sum.add(&counted);
                known.learn(&pinned.uid, at.shard, at.generation, counted);
            }
        }
        Ok(sum)
    }
}
