//! One search: plan, scatter, gather, fetch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use model::gather::{Count, Relation, Total};
use model::ids::NodeId;
use model::plan::{self, Node};
use model::statistics::Statistics;
use proto::leaf::{Fetch, Found, Leaf, LeafHit, Search, ShardAt, StatisticsFrom, StatisticsRequest};
use proto::search::{Answer, Coverage, Document, Hit, Profile, REACH_MAX, Request};
use proto::{Error, Kind};
use runtime::Deadline;
use tokio::time::Instant;

use crate::root::Root;
use crate::scatter::Question;
use crate::{fields, gather, statistics};
use cluster::{Index, View};

/// Between attempts at a search whose generation was gone, unless the view
/// moves sooner.
const RESTART_AFTER: std::time::Duration = std::time::Duration::from_millis(50);

/// Phases and their times, kept where a profile is wanted.
struct Phases {
    last: Instant,
    us: Option<BTreeMap<String, u64>>,
}

impl Phases {
    fn new(wanted: bool) -> Self {
        Self { last: Instant::now(), us: wanted.then(BTreeMap::new) }
    }

    fn end(&mut self, name: &str) {
        if let Some(us) = &mut self.us {
            let now = Instant::now();
            let spent = u64::try_from((now - self.last).as_micros()).unwrap_or(u64::MAX);
            *us.entry(name.to_owned()).or_default() += spent;
            self.last = now;
        }
    }
}

#[async_trait]
impl proto::search::Search for Root {
    async fn search(&self, request: Request) -> Result<Answer, Error> {
        let started = Instant::now();
        let metrics = self.metrics();
        let mut answer = self.attempt(&request, started).await;
        // A leaf has dropped a generation that this root still read, or has not
        // come to it yet: the whole query starts again, from statistics, on the
        // newest cut.
        let until = request.deadline.sooner(Deadline::at(started + self.settings().restart_within));
        while answer.as_ref().is_err_and(|error| error.kind == Kind::Gone) && request.at.is_none() {
            if until.expired() {
                answer = answer.map_err(|error| Error::unavailable(format!("{}: retry", error.message)));
                break;
            }
            self.next_view(RESTART_AFTER).await;
            metrics.restarts.increment(1);
            answer = self.attempt(&request, started).await;
        }
        metrics.searches.increment(1);
        metrics.seconds.record(started.elapsed().as_secs_f64());
        if answer.is_err() {
            metrics.failed.increment(1);
        }
        answer
    }
}

impl Root {
    async fn attempt(&self, request: &Request, started: Instant) -> Result<Answer, Error> {
        let mut phases = Phases::new(request.profile);
        let reach = request.offset.saturating_add(request.limit);
        if reach > REACH_MAX {
            return Err(Error::invalid(format!(
                "offset + limit is {reach}; it must be at most {REACH_MAX}: narrow the query instead of paging this far"
            )));
        }
        let pinned = self.pin(request).await?;
        phases.end("pin");

        let schema = &pinned.definition.schema;
        let bind = |query, bind: fn(_, _) -> _| -> Result<Arc<Node>, Error> {
            let node: Result<Node, plan::BindError> = bind(query, schema);
            node.map(Arc::new).map_err(|error| Error::invalid(error.to_string()))
        };
        let query = bind(&request.query, plan::bind)?;
        let filter = request.filter.as_ref().map(|filter| bind(filter, plan::bind_filter)).transpose()?;
        phases.end("bind");

        let sourced = request.fields.as_ref().is_none_or(|fields| !fields.is_empty());
        let view = self.view();
        let all: Vec<ShardAt> = pinned.shards().collect();
        let search = |statistics: StatisticsFrom, shards: Vec<ShardAt>, inline_from: Option<usize>| Search {
            uid: pinned.uid.clone(),
            shards,
            query: query.clone(),
            filter: filter.clone(),
            statistics,
            limit: reach,
            count: request.count,
            inline_from,
            deadline: request.deadline,
            profile: request.profile,
        };
        // Where one leaf holds everything it counts for itself, and its hits
        // are the answer's, so their documents come along: an id alone costs as
        // much as the document.
        let alone = self.cover(&view, &pinned, &all, &BTreeSet::new())?.len() == 1;
        let mut parts = None;
        if alone {
            let call = |leaf: Arc<dyn Leaf>, shards| {
                let search = search(StatisticsFrom::TheseShards, shards, Some(request.offset));
                async move { leaf.search(search).await }.boxed()
            };
            let question = Question { root: self, view: &view, pinned: &pinned, call: &call, whole: true };
            match question.ask(all.clone()).await {
                Ok(whole) => parts = Some(whole),
                // Others hold its shards, but none holds all.
                Err(error) if error.kind == Kind::Unavailable && !request.deadline.expired() => {}
                Err(error) => return Err(error),
            }
        }
        let parts = match parts {
            Some(parts) => parts,
            None => {
                let gathered = self.statistics(&view, &pinned, &query, request.deadline).await?;
                phases.end("statistics");
                let statistics = StatisticsFrom::Given(Arc::new(gathered));
                let call = |leaf: Arc<dyn Leaf>, shards| {
                    let search = search(statistics.clone(), shards, None);
                    async move { leaf.search(search).await }.boxed()
                };
                let question =
                    Question { root: self, view: &view, pinned: &pinned, call: &call, whole: false };
                question.ask(all).await?
            }
        };
        phases.end("search");

        let asked: Vec<(NodeId, Vec<ShardAt>)> =
            parts.iter().map(|part| (part.node.clone(), part.shards.clone())).collect();
        let found: Vec<Found> = parts.into_iter().map(|part| part.answer).collect();
        let total = total(&found, request.count);
        let mut leaves = Vec::new();
        let mut lists = Vec::with_capacity(found.len());
        for found in found {
            leaves.extend(found.profile);
            lists.push(found.hits);
        }
        let hits = gather::merge(lists, reach);
        phases.end("gather");
        let mut page = self.documents(&view, &pinned, hits, request, &asked).await?;
        phases.end("fetch");
        for hit in &mut page {
            if let Some(fields) = &request.fields {
                let source = &hit.document.source;
                hit.document.source =
                    if sourced { fields::project(source, fields) } else { Default::default() };
            }
        }
        let shards = pinned.definition.shards;
        Ok(Answer {
            hits: page,
            total,
            coverage: Coverage { shards, answered: shards, missing: Vec::new(), documents: 1.0 },
            uid: pinned.uid.clone(),
            cut: pinned.cut.number,
            took: started.elapsed(),
            profile: phases.us.map(|phases_us| Profile { plan: format!("{query:?}"), phases_us, leaves }),
        })
    }

    /// Sums the statistics of the query's terms over the cut, asking leaves
    /// for what is not known yet.
    async fn statistics(
        &self,
        view: &View,
        pinned: &Index,
        query: &Node,
        deadline: Deadline,
    ) -> Result<Statistics, Error> {
        let terms = statistics::terms(query);
        let known = self.known();
        let unknown = match known.sum(&pinned.cut, &terms) {
            Ok(sum) => return Ok(sum),
            Err(unknown) => unknown,
        };
        let shards: Vec<ShardAt> = pinned.shards().filter(|at| unknown.contains(&at.shard)).collect();
        let call = |leaf: Arc<dyn Leaf>, shards: Vec<ShardAt>| {
            let request =
                StatisticsRequest { uid: pinned.uid.clone(), shards, terms: terms.clone(), deadline };
            async move { leaf.statistics(request).await }.boxed()
        };
        let question = Question { root: self, view, pinned, call: &call, whole: false };
        let mut sum = Statistics::default();
        for part in question.ask(shards).await? {
            for (at, counted) in part.shards.iter().zip(part.answer) {
                if let Some(more) = counted.frequencies.values().find(|df| **df > counted.documents) {
                    return Err(Error::internal(format!(
                        "shard {} counts a term in {more} of {} documents",
                        at.shard, counted.documents
                    )));
                }
                known.learn(&pinned.uid, at.shard, at.generation, counted.clone());
                sum.add(&counted);
            }
        }
        // What was known before is still there, unless the cache is too small
        // for this query: then everything is asked for in one go.
        match known.sum(&pinned.cut, &terms) {
            Ok(sum) => Ok(sum),
            Err(_) if unknown.len() == pinned.cut.entries.len() => Ok(sum),
            Err(_) => Err(Error::unavailable("too many terms at once for the statistics kept: retry")),
        }
    }

    /// Fetches the documents of the page, and orders what ties.
    async fn documents(
        &self,
        view: &View,
        pinned: &Index,
        mut hits: Vec<LeafHit>,
        request: &Request,
        asked: &[(NodeId, Vec<ShardAt>)],
    ) -> Result<Vec<Hit>, Error> {
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
            let call = |leaf: Arc<dyn Leaf>, shards: Vec<ShardAt>| {
                let documents = wanted(&shards).into_iter().map(|(_, at, address)| (at, address)).collect();
                let fetch = Fetch { uid: pinned.uid.clone(), documents, deadline: request.deadline };
                async move { leaf.fetch(fetch).await }.boxed()
            };
            let question = Question { root: self, view, pinned, call: &call, whole: false };
            for part in question.ask_at(groups).await? {
                for ((place, _, _), document) in wanted(&part.shards).into_iter().zip(part.answer) {
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
        let question = Question { root: self, view: &view, pinned, call: &call, whole: true };
        let parts = question.ask(vec![ShardAt { shard, generation }]).await?;
        Ok(parts.into_iter().next().and_then(|part| part.answer))
    }
}

/// Sums what the leaves counted, each up to the same bound.
fn total(found: &[Found], count: Count) -> Option<Total> {
    let part = |found: &Found| Total {
        value: found.matches.unwrap_or(0),
        relation: if found.bounded { Relation::Gte } else { Relation::Eq },
    };
    Total::sum(found.iter().map(part), count)
}
