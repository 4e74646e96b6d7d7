//! One search: plan, scatter, gather, fetch.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::try_join_all;
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
use crate::{fields, gather, statistics};
use cluster::Index;

/// The shards that one leaf is asked for.
struct Group {
    leaf: Arc<dyn Leaf>,
    shards: Vec<ShardAt>,
}

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
        // A leaf has dropped a generation that this root still read: the whole
        // query starts again, from statistics, on the newest cut. Once.
        if answer.as_ref().is_err_and(|error| error.kind == Kind::Gone) && request.at.is_none() {
            metrics.restarts.increment(1);
            answer = self.attempt(&request, started).await.map_err(|error| match error.kind {
                Kind::Gone => Error::unavailable(format!("{}: retry", error.message)),
                _ => error,
            });
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

        let groups = self.choose(&pinned)?;
        let statistics = if groups.len() == 1 {
            StatisticsFrom::TheseShards
        } else {
            let gathered = self.statistics(&pinned, &groups, &query, request.deadline).await?;
            StatisticsFrom::Given(Arc::new(gathered))
        };
        phases.end("statistics");

        let sourced = request.fields.as_ref().is_none_or(|fields| !fields.is_empty());
        // Where one leaf holds everything its hits are the answer's, so their
        // documents come along; an id alone costs as much as the document.
        let inline_from = (groups.len() == 1).then_some(request.offset);
        let search = |group: &Group| Search {
            uid: pinned.uid.clone(),
            shards: group.shards.clone(),
            query: query.clone(),
            filter: filter.clone(),
            statistics: statistics.clone(),
            limit: reach,
            count: request.count,
            inline_from,
            deadline: request.deadline,
            profile: request.profile,
        };
        self.metrics().leaf_calls.increment(groups.len() as u64);
        let found = match groups.as_slice() {
            [only] => vec![only.leaf.search(search(only)).await?],
            groups => try_join_all(groups.iter().map(|group| group.leaf.search(search(group)))).await?,
        };
        phases.end("search");

        let total = total(&found, request.count);
        let mut leaves = Vec::new();
        let mut lists = Vec::with_capacity(found.len());
        for found in found {
            leaves.extend(found.profile);
            lists.push(found.hits);
        }
        let hits = gather::merge(lists, reach);
        phases.end("gather");
        let mut page = self.documents(&pinned, hits, request, &groups).await?;
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

    /// Picks a replica for each shard and groups the shards by leaf.
    fn choose(&self, pinned: &Index) -> Result<Vec<Group>, Error> {
        let mut groups: BTreeMap<&NodeId, Vec<ShardAt>> = BTreeMap::new();
        for (at, holders) in pinned.shards().zip(pinned.holders.iter()) {
            let node = holders.first().ok_or_else(|| {
                Error::unavailable(format!("no live leaf holds shard {}: retry", at.shard))
                    .retry_after(std::time::Duration::from_secs(1))
            })?;
            groups.entry(node).or_default().push(at);
        }
        groups.into_iter().map(|(node, shards)| Ok(Group { leaf: self.leaf(node)?, shards })).collect()
    }

    /// Sums the statistics of the query's terms over the cut, asking leaves
    /// for what is not known yet.
    async fn statistics(
        &self,
        pinned: &Index,
        groups: &[Group],
        query: &Node,
        deadline: Deadline,
    ) -> Result<Statistics, Error> {
        let terms = statistics::terms(query);
        let known = self.known();
        let unknown = match known.sum(&pinned.cut, &terms) {
            Ok(sum) => return Ok(sum),
            Err(unknown) => unknown,
        };
        let ask = groups.iter().filter_map(|group| {
            let shards: Vec<ShardAt> =
                group.shards.iter().filter(|at| unknown.contains(&at.shard)).copied().collect();
            let request = StatisticsRequest {
                uid: pinned.uid.clone(),
                shards: shards.clone(),
                terms: terms.clone(),
                deadline,
            };
            let leaf = group.leaf.clone();
            (!shards.is_empty())
                .then_some(async move { Ok::<_, Error>((shards, leaf.statistics(request).await?)) })
        });
        let mut sum = Statistics::default();
        for (shards, counted) in try_join_all(ask).await? {
            for (at, counted) in shards.iter().zip(counted) {
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
        pinned: &Index,
        mut hits: Vec<LeafHit>,
        request: &Request,
        groups: &[Group],
    ) -> Result<Vec<Hit>, Error> {
        let first = gather::first_needed(&hits, request.offset);
        let needed: Vec<LeafHit> = hits.drain(first..).collect();
        let mut found: Vec<Option<Document>> = needed.iter().map(|hit| hit.document.clone()).collect();
        let calls = groups.iter().filter_map(|group| {
            let mut wanted = Vec::new();
            let mut places = Vec::new();
            for (place, hit) in needed.iter().enumerate() {
                let at = group.shards.iter().find(|at| at.shard == hit.shard);
                if let (Some(at), None) = (at, &found[place]) {
                    wanted.push((*at, hit.address));
                    places.push(place);
                }
            }
            let leaf = group.leaf.clone();
            let fetch = Fetch { uid: pinned.uid.clone(), documents: wanted, deadline: request.deadline };
            (!places.is_empty()).then_some(async move { Ok::<_, Error>((places, leaf.fetch(fetch).await?)) })
        });
        let calls: Vec<_> = calls.collect();
        for (places, documents) in try_join_all(calls).await? {
            for (place, document) in places.into_iter().zip(documents) {
                found[place] = Some(document);
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
        let holders = pinned.holders.get(shard.0 as usize);
        let node = holders
            .and_then(|holders| holders.first())
            .ok_or_else(|| Error::unavailable(format!("no live leaf holds shard {shard}: retry")))?;
        self.leaf(node)?.get(&pinned.uid, ShardAt { shard, generation }, id, deadline).await
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
