//! One search: plan, scatter, gather, fetch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use model::choice::Grouping;
use model::gather::{Relation, Total};
use model::ids::{IndexName, NodeId, ShardId};
use model::plan::{self, Node};
use model::query::Query;
use model::statistics::Statistics;
use proto::leaf::{Fetch, Found, Leaf, LeafHit, Search, ShardAt, StatisticsFrom, StatisticsRequest};
use proto::search::{Answer, Coverage, Document, Hit, LeafProfile, Profile, REACH_MAX, Request};
use proto::{Error, Kind};
use runtime::Deadline;
use tokio::time::Instant;

use crate::admission::{Class, Permit};
use crate::cover::{Enough, Missing, NAMED_MAX, Reason, Tried, Trust, possible};
use crate::memory::{self, Phase};
use crate::root::Root;
use crate::scatter::{Calls, Danger, Gathered, Part, Question, Record};
use crate::{fields, gather, statistics};
use cluster::{Index, View};

/// Between attempts at a search whose generation was gone, unless the view
/// moves sooner.
pub(crate) const RESTART_AFTER: Duration = Duration::from_millis(50);

/// The longest such time: each time it is twice as long.
const RESTART_AFTER_MAX: Duration = Duration::from_millis(400);

/// How often a search is begun anew since shards were lost on the way: more than
/// that fail at once only where something is wrong with all of them.
const LOST_TIMES_MAX: usize = 3;

/// Of the text of a slow search so much is logged.
const SLOW_QUERY_CHARS: usize = 1_000;
/// Of the time that is left, so much is kept for merging, and no more than so
/// much.
const MERGING: u32 = 20;
const MERGING_MAX: Duration = Duration::from_millis(20);

/// Leaves the time for merging.
fn less_merging(deadline: Deadline) -> Deadline {
    deadline.less((deadline.remaining() / MERGING).min(MERGING_MAX))
}

/// How a search went: phases with their times, and calls.
struct Trace {
    begun: Instant,
    last: Instant,
    phases: Vec<(&'static str, Duration)>,
    /// What leaves say of themselves, where a profile is wanted: with the leaf
    /// and when it was asked.
    own: Vec<(NodeId, Instant, LeafProfile)>,
}

impl Trace {
    fn new() -> Self {
        let begun = Instant::now();
        Self { begun, last: begun, phases: Vec::with_capacity(8), own: Vec::new() }
    }

    fn end(&mut self, name: &'static str) {
        let now = Instant::now();
        self.phases.push((name, now - self.last));
        self.last = now;
    }

    fn us(&self) -> BTreeMap<String, u64> {
        let mut us: BTreeMap<String, u64> = BTreeMap::new();
        for (name, spent) in &self.phases {
            *us.entry((*name).to_owned()).or_default() += micros(*spent);
        }
        us
    }

    /// All calls in the order in which they were sent.
    fn leaves(&mut self, mut calls: Vec<(Phase, Record)>) -> Vec<LeafProfile> {
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

/// Why an attempt has no answer.
enum Failed {
    Error(Error),
    /// Shards were lost on the way: what was scored with their statistics is
    /// not what an index without them would say.
    Lost(Vec<Missing>),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// What all questions of a search have in common.
struct Reading<'a> {
    view: &'a View,
    pinned: &'a Index,
    enough: Option<&'a Enough>,
    again: bool,
    calls: &'a Calls,
}

#[async_trait]
impl proto::search::Search for Root {
    fn refusal(&self) -> Option<Error> {
        self.admission().refusal(Class::Interactive)
    }

    async fn search(&self, request: Request) -> Result<Answer, Error> {
        let mut trace = Trace::new();
        let calls = Calls::default();
        let started = trace.begun;
        let metrics = self.metrics();
        let mut permit = None;
        let mut answer = self.covered(&request, false, &mut trace, &calls, &mut permit).await;
        // A leaf has dropped a generation that this root still read, or has not
        // come to it yet: the whole query starts again, from statistics, on the
        // newest cut. From then on an answer may do without it, where it may lack
        // anything.
        let until = request.deadline.sooner(Deadline::after(self.settings().restart_within));
        let mut pause = RESTART_AFTER;
        while answer.as_ref().is_err_and(|error| error.kind == Kind::Gone) && request.at.is_none() {
            if until.expired() {
                answer = answer.map_err(|error| Error::unavailable(format!("{}: retry", error.message)));
                break;
            }
            self.another(&request.index, Deadline::after(pause).sooner(until)).await;
            pause = (2 * pause).min(RESTART_AFTER_MAX);
            metrics.restarts.increment(1);
            answer = self.covered(&request, true, &mut trace, &calls, &mut permit).await;
        }
        if let Some(permit) = permit {
            let refused = |answer: &Answer| {
                answer.coverage.missing.iter().any(|missing| missing.reason == Reason::Refused.name())
            };
            // Leaves that refuse are no less busy where an answer may lack them.
            let overload = || Error::overloaded("shards of the answer were refused");
            let lacking = answer.as_ref().is_ok_and(refused).then(overload);
            permit.done(answer.as_ref().err().or(lacking.as_ref()));
        }
        let took = started.elapsed();
        metrics.searches.increment(1);
        metrics.seconds.record(took.as_secs_f64());
        match &answer {
            Ok(answer) if !answer.coverage.missing.is_empty() => metrics.partial.increment(1),
            Ok(_) => {}
            Err(_) => metrics.failed.increment(1),
        }
        let slow = self.settings().slow_query;
        let slow = !slow.is_zero() && took >= slow && self.slow().admits(started);
        if !slow && !request.profile {
            return answer;
        }
        let calls = calls.take();
        if slow {
            tell(&request, &trace, &calls, took, answer.as_ref().err());
        }
        answer.map(|answer| {
            let profile = answer.profile.map(|profile| Profile { leaves: trace.leaves(calls), ..profile });
            Answer { profile, ..answer }
        })
    }
}

/// Logs a slow search.
fn tell(request: &Request, trace: &Trace, calls: &[(Phase, Record)], took: Duration, failed: Option<&Error>) {
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

impl Root {
    /// An answer that covers enough: where shards are lost it is begun anew
    /// without them, so that it is what an index of the others would say.
    async fn covered<'a>(
        &'a self,
        request: &Request,
        lagging: bool,
        trace: &mut Trace,
        calls: &Calls,
        permit: &mut Option<Permit<'a>>,
    ) -> Result<Answer, Error> {
        let mut excluded: Vec<Missing> = Vec::new();
        for times in 0..=LOST_TIMES_MAX {
            let share = request.min_coverage;
            let lacks = |pinned: &Index| enough(pinned, share, &excluded, lagging);
            match self.attempt(request, trace, calls, &lacks, permit, lagging || times > 0).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Error(error)) => return Err(error),
                // One more at least, each time.
                Err(Failed::Lost(missing)) => excluded = missing,
            }
        }
        let named: Vec<String> =
            excluded.iter().map(|lost| format!("shard {} is {}", lost.shard, lost.reason.name())).collect();
        Err(Error::unavailable(format!(
            "one shard after another was lost on the way ({}): retry",
            named.into_iter().take(NAMED_MAX).collect::<Vec<_>>().join(", ")
        ))
        .retry_after(Duration::from_secs(1)))
    }

    /// Waits for another state, or other places, of an index.
    pub(crate) async fn another(&self, name: &IndexName, within: Deadline) {
        let before = self.view().indexes.get(name).cloned();
        let same = |index: &Arc<Index>| {
            before.as_ref().is_some_and(|before| {
                (before.cut.number, &before.placement) == (index.cut.number, &index.placement)
            })
        };
        self.wait_for(within, |view| (!view.indexes.get(name).is_some_and(same)).then_some(())).await;
    }

    async fn attempt<'a>(
        &'a self,
        request: &Request,
        trace: &mut Trace,
        calls: &Calls,
        lacks: &(dyn Fn(&Index) -> Option<Enough> + Send + Sync),
        permit: &mut Option<Permit<'a>>,
        again: bool,
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
        let enough = lacks(&pinned);
        let mut known_missing = enough.as_ref().map_or_else(Vec::new, |enough| enough.missing.clone());
        let lost = |shard| known_missing.iter().any(|missing| missing.shard == shard);
        let mut all: Vec<ShardAt> = pinned.shards().filter(|at| !lost(at.shard)).collect();
        let shape = || memory::shape(&pinned.uid, &query, filter.as_deref());
        let spared = AtomicBool::new(false);
        let danger = Danger { died: self.memory().danger(shape), shape: Some(&shape), spared: Some(&spared) };
        if let Some(enough) = &enough {
            // What nobody is there to answer is left out from the beginning.
            let (_, missing) =
                self.cover(&view, &pinned, &all, &Tried::default(), Trust::There, Grouping::Few);
            let mut without = known_missing.clone();
            without.extend(missing);
            if possible(enough, &without).is_ok() {
                known_missing = without;
                all.retain(|at| !known_missing.iter().any(|missing| missing.shard == at.shard));
            }
        }
        let enough = enough.map(|enough| Enough { missing: known_missing.clone(), ..enough });
        let reading = Reading { view: &view, pinned: &pinned, enough: enough.as_ref(), again, calls };
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
        let (ask_alone, ask_some);
        let question = |call, phase, whole| Question {
            root: self,
            view: &view,
            pinned: &pinned,
            call,
            load: |found: &Found| found.load,
            phase,
            whole,
            deadline: within,
            again,
            enough: if whole { None } else { enough.clone() },
            danger,
            calls,
        };
        // Where one leaf holds everything it counts for itself, and its hits
        // are the answer's, so their documents come along: an id alone costs as
        // much as the document. It must not be the only such leaf while others
        // hold parts: nobody could be asked instead of it.
        let (groups, missing) =
            self.cover(&view, &pinned, &all, &Tried::default(), Trust::Any, Grouping::Few);
        let alone = groups.len() == 1 && missing.is_empty() && {
            let tried = Tried::all_of(groups.iter().map(|(node, _)| node));
            let (others, unheld) = self.cover(&view, &pinned, &all, &tried, Trust::Any, Grouping::One);
            others.is_empty() || others.len() == 1 && unheld.is_empty()
        };
        let mut gathered = None;
        if alone {
            ask_alone = |leaf: Arc<dyn Leaf>, shards| {
                let search = search(StatisticsFrom::TheseShards, shards, Some(request.offset));
                async move { leaf.search(search).await }.boxed()
            };
            match question(&ask_alone, Phase::Alone, true).ask_at(groups).await {
                // What was left out before one leaf was asked for the rest is missing all the same.
                Ok(whole) => gathered = Some(Gathered { missing: known_missing.clone(), ..whole }),
                // Others hold its shards, but none holds all.
                Err(error)
                    if error.kind == Kind::Unavailable
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
                ask_some = move |leaf: Arc<dyn Leaf>, shards| {
                    let search = search(statistics.clone(), shards, None);
                    async move { leaf.search(search).await }.boxed()
                };
                question(&ask_some, Phase::Search, false).ask(all).await?
            }
        };
        trace.end("search");
        let Gathered { parts, missing } = gathered;
        if missing.len() > known_missing.len() {
            return Err(Failed::Lost(missing));
        }
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
        if danger.died > 0 && missing.is_empty() {
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

    /// Sums the statistics of the query's terms over the cut, asking leaves
    /// for what is not known yet.
    async fn statistics(
        &self,
        reading: &Reading<'_>,
        query: &Node,
        deadline: Deadline,
        all: &[ShardAt],
    ) -> Result<Statistics, Failed> {
        let Reading { view, pinned, enough, again, calls } = *reading;
        let terms = statistics::terms(query);
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
        let question = Question {
            root: self,
            view,
            pinned,
            call: &call,
            load: |_| None,
            phase: Phase::Statistics,
            whole: false,
            deadline,
            again,
            enough: enough.cloned(),
            danger: Danger::NONE,
            calls,
        };
        let gathered = question.ask(shards).await?;
        if gathered.missing.len() > enough.map_or(0, |enough| enough.missing.len()) {
            return Err(Failed::Lost(gathered.missing));
        }
        for part in gathered.parts {
            for (at, counted) in part.record.shards.iter().zip(part.answer) {
                if let Some(more) = counted.frequencies.values().find(|df| **df > counted.documents) {
                    return Err(Failed::Error(Error::internal(format!(
                        "shard {} counts a term in {more} of {} documents",
                        at.shard, counted.documents
                    ))));
                }
                // The cut says how many documents there are.
                sum.add(&Statistics { documents: 0, ..counted.clone() });
                known.learn(&pinned.uid, at.shard, at.generation, counted);
            }
        }
        Ok(sum)
    }

    /// Fetches the documents of the page, and orders what ties.
    async fn documents(
        &self,
        reading: &Reading<'_>,
        mut hits: Vec<LeafHit>,
        request: &Request,
        asked: &[(NodeId, Vec<ShardAt>)],
    ) -> Result<Vec<Hit>, Failed> {
        let Reading { view, pinned, enough, again, calls } = *reading;
        let first = gather::first_needed(&hits, request.offset);
        let needed: Vec<LeafHit> = hits.drain(first..).collect();
        let mut found: Vec<Option<Document>> = needed.iter().map(|hit| hit.document.clone()).collect();
        // A hit's address is the same on every replica of its generation.
        let wanted = |shards: &[ShardAt]| {
            let mut wanted = Vec::new();
            for (place, hit) in needed.iter().enumerate() {
                let at = shards.iter().find(|at| at.shard == hit.shard);
                if let (Some(at), None) = (at, &hit.document) {
                    wanted.push((place, *at, hit.address));
                }
            }
            wanted
        };
        let groups: Vec<(NodeId, Vec<ShardAt>)> = asked
            .iter()
            .map(|(node, shards)| {
                let shards = shards.iter().filter(|at| !wanted(&[**at]).is_empty()).copied().collect();
                (node.clone(), shards)
            })
            .filter(|(_, shards): &(_, Vec<ShardAt>)| !shards.is_empty())
            .collect();
        if !groups.is_empty() {
            let deadline = less_merging(request.deadline);
            let call = |leaf: Arc<dyn Leaf>, shards: Vec<ShardAt>| {
                let documents = wanted(&shards).into_iter().map(|(_, at, address)| (at, address)).collect();
                let fetch = Fetch { uid: pinned.uid.clone(), documents, deadline };
                async move { leaf.fetch(fetch).await }.boxed()
            };
            let question = Question {
                root: self,
                view,
                pinned,
                call: &call,
                load: |_| None,
                phase: Phase::Fetch,
                whole: false,
                deadline,
                again,
                enough: enough.cloned(),
                danger: Danger::NONE,
                calls,
            };
            let gathered = question.ask_at(groups).await?;
            if gathered.missing.len() > enough.map_or(0, |enough| enough.missing.len()) {
                return Err(Failed::Lost(gathered.missing));
            }
            for part in gathered.parts {
                for ((place, _, _), document) in wanted(&part.record.shards).into_iter().zip(part.answer) {
                    found[place] = Some(document);
                }
            }
        }
        let mut page: Vec<(LeafHit, Document)> = Vec::with_capacity(needed.len());
        for (hit, document) in needed.into_iter().zip(found) {
            let document = document.ok_or_else(|| Error::internal("a leaf returned too few documents"))?;
            page.push((hit, document));
        }
        gather::settle(&mut page, |(hit, _)| hit, |(_, document)| &document.id);
        let skipped = request.offset.saturating_sub(first);
        let page = page.into_iter().skip(skipped).take(request.limit);
        Ok(page.map(|(hit, document)| Hit { score: hit.score, document }).collect())
    }

    /// Returns one document of a pinned state.
    pub(crate) async fn document(
        &self,
        pinned: &Index,
        id: &str,
        deadline: Deadline,
    ) -> Result<Option<Document>, Error> {
        let shard = model::ids::shard_of(id, pinned.definition.shards);
        let generation = pinned.generation(shard).ok_or_else(|| Error::internal("the cut lacks a shard"))?;
        let view = self.view();
        let call = |leaf: Arc<dyn Leaf>, shards: Vec<ShardAt>| {
            let (uid, id) = (pinned.uid.clone(), id.to_owned());
            async move {
                let at = shards.first().copied().ok_or_else(|| Error::internal("no shard was asked"))?;
                leaf.get(&uid, at, &id, deadline).await
            }
            .boxed()
        };
        let question = Question {
            root: self,
            view: &view,
            pinned,
            call: &call,
            load: |_| None,
            phase: Phase::Get,
            whole: true,
            deadline,
            again: false,
            enough: None,
            danger: Danger::NONE,
            calls: &Calls::default(),
        };
        let gathered = question.ask(vec![ShardAt { shard, generation }]).await?;
        Ok(gathered.parts.into_iter().next().and_then(|part| part.answer))
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
