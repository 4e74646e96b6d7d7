//! One attempt at a search: plan, scatter, gather, fetch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cluster::{Index, View};
use futures::FutureExt;
use model::choice::Grouping;
use model::gather::{Relation, Total};
use model::ids::{NodeId, ShardId};
use model::plan::{self, Node};
use proto::leaf::{Found, Leaf, Search, ShardAt, StatisticsFrom};
use proto::search::{Answer, Coverage, Profile, REACH_MAX, Request};
use proto::{Error, Kind};

use super::reading::{Failed, Reading, less_merging};
use super::trace::Trace;
use crate::admission::{Class, Permit};
use crate::cover::{Enough, Missing, Tried, Trust, possible};
use crate::memory::{self, Phase};
use crate::root::Root;
use crate::scatter::{Calls, Danger, Gathered, Part, Question};
use crate::{fields, gather};

impl Root {
    /// Answers once from the state that is pinned now, without the shards that
    /// were `lost` before. Where it is `lagging`, a newer state was waited for
    /// already.
    pub(super) async fn attempt<'a>(
        &'a self,
        request: &Request,
        trace: &mut Trace,
        calls: &Calls,
        permit: &mut Option<Permit<'a>>,
        lost: &[Missing],
        lagging: bool,
    ) -> Result<Answer, Failed> {
        let reach = request.offset.saturating_add(request.limit);
        if reach > REACH_MAX {
            return Err(Failed::Error(Error::invalid(format!(
                "offset + limit is {reach}; it must be at most {REACH_MAX}: narrow the query instead of paging this far"
            ))));
        }
        let pinned = self.pin(request).await?;
        trace.end("pin");
        // Not before: a search that waits for a write costs nothing. And once: what
        // begins anew has cost something already.
        if permit.is_none() {
            *permit = Some(self.admission().admit(Class::Interactive)?);
        }

        let schema = &pinned.definition.schema;
        let bind = |query, bind: fn(_, _) -> _| -> Result<Arc<Node>, Error> {
            let node: Result<Node, plan::BindError> = bind(query, schema);
            node.map(Arc::new).map_err(|error| Error::invalid(error.to_string()))
        };
        let query = bind(&request.query, plan::bind)?;
        let filter = request.filter.as_ref().map(|filter| bind(filter, plan::bind_filter)).transpose()?;
        trace.end("bind");

        let view = self.view();
        let within = less_merging(request.deadline);
        let mut enough = enough(&pinned, request.min_coverage, lost, lagging);
        if let Some(enough) = &mut enough {
            self.leave_out(&view, &pinned, enough);
        }
        let known_missing = enough.as_ref().map_or_else(Vec::new, |enough| enough.missing.clone());
        let there = |at: &ShardAt| !known_missing.iter().any(|missing| missing.shard == at.shard);
        let all: Vec<ShardAt> = pinned.shards().filter(there).collect();
        let shape = || memory::shape(&pinned.uid, &query, filter.as_deref());
        let spared = AtomicBool::new(false);
        let danger =
            || Danger { died: self.memory().danger(shape), shape: Some(&shape), spared: Some(&spared) };
        let danger_before = danger();
        let again = lagging || !lost.is_empty();
        let enough = enough.as_ref();
        let reading = Reading { root: self, view: &view, pinned: &pinned, enough, again, calls };
        let search = |statistics: StatisticsFrom, shards: Vec<ShardAt>, inline_from: Option<usize>| Search {
            uid: pinned.uid.clone(),
            shards,
            query: query.clone(),
            filter: filter.clone(),
            statistics,
            limit: reach,
            count: request.count,
            inline_from,
            deadline: within,
            profile: request.profile,
        };
        let load = |found: &Found| found.load;
        let mut gathered = None;
        if let Some(groups) = self.alone(&view, &pinned, &all) {
            let ask = |leaf: Arc<dyn Leaf>, shards| {
                let search = search(StatisticsFrom::TheseShards, shards, Some(request.offset));
                async move { leaf.search(search).await }.boxed()
            };
            let question = reading.question(Phase::Alone, within, &ask);
            let question = Question { load, whole: true, enough: None, danger: danger_before, ..question };
            match question.ask_at(groups).await {
                // What was left out before one leaf was asked for the rest is missing all the same.
                Ok(whole) => gathered = Some(Gathered { missing: known_missing, ..whole }),
                // Others hold its shards, but none holds all; or some are lacking, and
                // an answer may do without them.
                Err(error)
                    if (error.kind == Kind::Unavailable
                        || error.kind == Kind::Gone && enough.is_some_and(|enough| enough.lagging))
                        && !request.deadline.expired()
                        && !spared.load(Ordering::Relaxed) => {}
                Err(error) => return Err(Failed::Error(error)),
            }
        }
        let gathered = match gathered {
            Some(gathered) => gathered,
            None => {
                let statistics = self.statistics(&reading, &query, within, &all).await?;
                trace.end("statistics");
                let statistics = StatisticsFrom::Given(Arc::new(statistics));
                let ask = |leaf: Arc<dyn Leaf>, shards| {
                    let search = search(statistics.clone(), shards, None);
                    async move { leaf.search(search).await }.boxed()
                };
                let question = reading.question(Phase::Search, within, &ask);
                // One leaf may have died of it by now.
                Question { load, danger: danger(), ..question }.ask(all).await?
            }
        };
        trace.end("search");
        let Gathered { parts, missing } = reading.unless_lost(gathered)?;
        let mut asked = Vec::with_capacity(parts.len());
        let mut lists = Vec::with_capacity(parts.len());
        let mut totals = Vec::with_capacity(parts.len());
        for Part { record, answer } in parts {
            totals.push(part_of_total(&answer));
            if let Some(own) = answer.profile {
                trace.own.push((record.node.clone(), record.sent, own));
            }
            lists.push(answer.hits);
            asked.push((record.node, record.shards));
        }
        let total = Total::sum(totals, request.count);
        let hits = gather::merge(lists, reach);
        trace.end("gather");
        let mut page = self.documents(&reading, hits, request, &asked).await?;
        trace.end("fetch");
        // An answer without the shards whose leaves died shows nothing.
        if danger_before.died > 0 && missing.is_empty() {
            self.memory().harmless(shape());
        }
        let sourced = request.fields.as_ref().is_none_or(|fields| !fields.is_empty());
        for hit in &mut page {
            if let Some(fields) = &request.fields {
                let source = &hit.document.source;
                hit.document.source =
                    if sourced { fields::project(source, fields) } else { Default::default() };
            }
        }
        Ok(Answer {
            hits: page,
            total,
            coverage: coverage(&pinned, &missing),
            uid: pinned.uid.clone(),
            cut: pinned.cut.number,
            took: trace.begun.elapsed(),
            profile: request.profile.then(|| Profile {
                plan: format!("{query:?}"),
                phases_us: trace.us(),
                leaves: Vec::new(),
            }),
        })
    }

    /// Leaves out what nobody is there to answer, from the beginning, where enough
    /// is left then.
    fn leave_out(&self, view: &View, pinned: &Index, enough: &mut Enough) {
        let there = |at: &ShardAt| !enough.missing.iter().any(|missing| missing.shard == at.shard);
        let all: Vec<ShardAt> = pinned.shards().filter(there).collect();
        let (_, missing) = self.cover(view, pinned, &all, &Tried::default(), Trust::There, Grouping::Few);
        let mut without = enough.missing.clone();
        without.extend(missing);
        if possible(enough, &without).is_ok() {
            enough.missing = without;
        }
    }

    /// The leaf that is asked for everything, if one is: it counts for itself, and
    /// its hits are the answer's, so their documents come along, for an id alone
    /// costs as much as the document. It must not be the only such leaf while
    /// others hold parts: nobody could be asked instead of it.
    fn alone(&self, view: &View, pinned: &Index, all: &[ShardAt]) -> Option<Vec<(NodeId, Vec<ShardAt>)>> {
        let cover = |tried: &Tried<'_>, grouping| self.cover(view, pinned, all, tried, Trust::Any, grouping);
        let (groups, missing) = cover(&Tried::default(), Grouping::Few);
        if groups.len() > 1 || !missing.is_empty() {
            return None;
        }
        let tried = Tried::of(groups.iter().map(|(node, shards)| (node, &shards[..])));
        let (others, unheld) = cover(&tried, Grouping::One);
        let replaceable = others.is_empty() || others.len() == 1 && unheld.is_empty();
        (groups.len() == 1 && replaceable).then_some(groups)
    }
}

/// What a leaf counted, up to the bound.
fn part_of_total(found: &Found) -> Total {
    Total {
        value: found.matches.unwrap_or(0),
        relation: if found.bounded { Relation::Gte } else { Relation::Eq },
    }
}

/// What an answer may lack; `None` where it may lack nothing.
fn enough(pinned: &Index, share: Option<f64>, excluded: &[Missing], lagging: bool) -> Option<Enough> {
    let share = share.unwrap_or(pinned.definition.min_coverage);
    (share < 1.0).then(|| {
        let documents: Arc<[u64]> = pinned.cut.entries.iter().map(|entry| entry.documents).collect();
        let least = share * documents.iter().sum::<u64>() as f64;
        Enough { documents, least, missing: excluded.to_vec(), lagging }
    })
}

fn coverage(pinned: &Index, missing: &[Missing]) -> Coverage {
    let mut missing: Vec<proto::search::Missing> = missing
        .iter()
        .map(|missing| proto::search::Missing {
            shard: missing.shard,
            reason: missing.reason.name().to_owned(),
        })
        .collect();
    missing.sort_by_key(|missing| missing.shard);
    let of = |shard: ShardId| pinned.cut.entries.get(shard.0 as usize).map_or(0, |entry| entry.documents);
    let lost: u64 = missing.iter().map(|missing| of(missing.shard)).sum();
    let whole = pinned.cut.documents();
    let shards = pinned.definition.shards;
    Coverage {
        shards,
        answered: shards.saturating_sub(u32::try_from(missing.len()).unwrap_or(u32::MAX)),
        documents: if whole == 0 { 1.0 } else { whole.saturating_sub(lost) as f64 / whole as f64 },
        missing,
    }
}
