//! Documents: of a page of hits, or one by its id.

use std::sync::Arc;

use cluster::Index;
use futures::FutureExt;
use model::ids::NodeId;
use proto::Error;
use proto::leaf::{Fetch, Leaf, LeafHit, ShardAt};
use proto::search::{Document, Hit, Request};
use runtime::Deadline;

use super::reading::{Failed, Reading, less_merging};
use crate::gather;
use crate::memory::Phase;
use crate::root::Root;
use crate::scatter::{Calls, Question};

impl Root {
    /// Fetches the documents of the page, and orders what ties.
    pub(super) async fn documents(
        &self,
        reading: &Reading<'_>,
        mut hits: Vec<LeafHit>,
        request: &Request,
        asked: &[(NodeId, Vec<ShardAt>)],
    ) -> Result<Vec<Hit>, Failed> {
        let pinned = reading.pinned;
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
            let gathered = reading.question(Phase::Fetch, deadline, &call).ask_at(groups).await?;
            for part in reading.unless_lost(gathered)?.parts {
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
        let calls = Calls::default();
        let reading = Reading { root: self, view: &view, pinned, enough: None, again: false, calls: &calls };
        let question = Question { whole: true, ..reading.question(Phase::Get, deadline, &call) };
        let gathered = question.ask(vec![ShardAt { shard, generation }]).await?;
        Ok(gathered.parts.into_iter().next().and_then(|part| part.answer))
    }
}
