//! Indexes, single documents, the state of the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use model::ids::{Generation, IndexName, IndexUid, NodeId, ShardId};
use model::settings::Definition;
use model::token::Token;
use proto::admin::{Admin, ClusterState, IndexInfo, ReplicaState, ShardState, Write, Written};
use proto::search::Document;
use proto::{Error, Kind};
use runtime::Deadline;

use crate::root::Root;
use crate::search::RESTART_AFTER;
use cluster::{Index, View, from_store};
use proto::admin::{OWN, SERVE};

/// Between attempts to tell the coordinator of an index.
const ANNOUNCE_AGAIN_AFTER: std::time::Duration = std::time::Duration::from_millis(200);
/// How long a description waits for a node that has just started.
const DESCRIBE_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

#[async_trait]
impl Admin for Root {
    async fn create_index(
        &self,
        name: IndexName,
        definition: Definition,
        deadline: Deadline,
    ) -> Result<IndexInfo, Error> {
        Ok(self.create(name, definition, deadline).await?.info())
    }

    async fn list_indexes(&self) -> Result<Vec<IndexInfo>, Error> {
        let view = self.view();
        if !view.known {
            return Err(Error::unavailable("this node has not seen the cluster yet: retry, or use another"));
        }
        Ok(view.indexes.values().map(|index| index.info()).collect())
    }

    async fn describe_index(&self, name: &IndexName) -> Result<IndexInfo, Error> {
        let deadline = Deadline::after(DESCRIBE_WITHIN);
        Ok(self.known_index(name, deadline).await?.info())
    }

    async fn delete_index(&self, name: &IndexName, deadline: Deadline) -> Result<(), Error> {
        let deleted = self.parts().store.delete_index(name, deadline.instant()).await;
        let uid = match deleted.map_err(|error| from_store(&error))? {
            store::Deletion::Now(uid) | store::Deletion::Before(uid) => uid,
        };
        self.parts().registry.deleted(name, &uid).await?;
        let gone = self.wait_for(deadline, |view| {
            view.indexes.get(name).is_none_or(|index| index.uid != uid).then_some(())
        });
        gone.await.ok_or_else(|| {
            Error::expired("the index is deleted, but this node has not noticed within the timeout")
        })
    }

    async fn write(&self, write: Write) -> Result<Written, Error> {
        self.write_documents(write).await
    }

    async fn get(
        &self,
        name: &IndexName,
        id: &str,
        token: Option<Token>,
        deadline: Deadline,
    ) -> Result<Option<Document>, Error> {
        let mut until = None;
        loop {
            let mut index = self.known_index(name, deadline).await?;
            if let Some(token) = &token {
                index = self.containing(name, index, token, deadline).await?;
            }
            match self.document(&index, id, deadline).await {
                // The replica has dropped what was read, or has not come to it yet.
                Err(error) if error.kind == Kind::Gone => {
                    let within = Deadline::after(self.settings().restart_within).sooner(deadline);
                    if until.get_or_insert(within).expired() {
                        return Err(Error::unavailable(format!("{}: retry", error.message)));
                    }
                    self.another(name, Deadline::after(RESTART_AFTER).sooner(deadline)).await;
                }
                found => return found,
            }
        }
    }

    async fn cluster(&self) -> Result<ClusterState, Error> {
        let view = self.view();
        // What is open where: each leaf says so itself.
        let ask = view.nodes.values().filter(|node| node.is(OWN) || node.is(SERVE)).map(|node| async {
            let held = self.leaf(&node.node).ok()?.held().await;
            held.map_err(
                |error| tracing::debug!(node = %node.node, %error, "a leaf did not say what it holds"),
            )
            .ok()
            .map(|held| (node.node.clone(), held))
        });
        let mut open = Open::new();
        for (node, held) in join_all(ask.collect::<Vec<_>>()).await.into_iter().flatten() {
            for held in held {
                if let Some(newest) = held.generations.last() {
                    open.insert((held.uid, held.shard, node.clone()), newest.generation);
                }
            }
        }
        let indexes =
            view.indexes.values().map(|index| (index.info(), shards(&view, index, &open))).collect();
        let controller = view.controller.as_ref().map(|(node, _)| node.clone());
        Ok(ClusterState { nodes: view.nodes.values().cloned().collect(), indexes, controller })
    }

    async fn ready(&self) -> Result<(), Error> {
        if self.parts().leaving.is_cancelled() {
            return Err(Error::unavailable("this node is leaving: use another"));
        }
        // Of this node alone: while a shard elsewhere changes hands, every
        // other request is answered.
        let view = self.view();
        known(&view)?;
        (self.parts().own)(&view)
    }
}

/// The newest generation that each leaf has open.
type Open = BTreeMap<(IndexUid, ShardId, NodeId), Generation>;

fn known(view: &View) -> Result<(), Error> {
    if !view.known || view.pending > 0 {
        return Err(Error::unavailable("the indexes are being opened: retry in a moment"));
    }
    Ok(())
}

/// Whether every shard of every index can be searched and written.
fn ready(view: &View) -> Result<(), Error> {
    known(view)?;
    for index in view.indexes.values() {
        let missing = |what: &str, shard: usize| {
            Err(Error::unavailable(format!("shard {shard} of {} {what} yet", index.name)))
        };
        let served =
            |shard: &u32| index.holders(ShardId(*shard)).iter().any(|node| view.live(node).is_some());
        if let Some(shard) = (0..index.definition.shards).find(|shard| !served(shard)) {
            return missing("is not open", shard as usize);
        }
        if let Some(shard) = index.owners.iter().position(Option::is_none) {
            return missing("has no owner", shard);
        }
    }
    Ok(())
}

fn shards(view: &View, index: &Index, open: &Open) -> Vec<ShardState> {
    let each = |(number, entry): (u32, &model::cut::CutEntry)| {
        let at = number as usize;
        let replica = |node: &NodeId| ReplicaState {
            node: node.clone(),
            live: view.live(node).is_some(),
            generation: open.get(&(index.uid.clone(), ShardId(number), node.clone())).copied(),
        };
        let replicas = index.holders(ShardId(number)).iter().map(replica).collect();
        ShardState {
            shard: ShardId(number),
            owner: index.owners.get(at).cloned().flatten(),
            replicas,
            generation: entry.generation,
            seq: entry.seq,
            documents: entry.documents,
        }
    };
    (0..).zip(&index.cut.entries).map(each).collect()
}

impl Root {
    /// Waits until every shard of every index can be searched and written.
    ///
    /// # Errors
    /// Says what is missing when the deadline passes.
    pub async fn wait_until_ready(&self, deadline: Deadline) -> Result<(), Error> {
        let waited = self.wait_for(deadline, |view| ready(view).ok());
        match waited.await {
            Some(()) => Ok(()),
            None => ready(&self.view()),
        }
    }

    /// Tells the coordinator of an index that the store has, until it listens.
    async fn announce(&self, name: &IndexName, uid: &IndexUid, deadline: Deadline) -> Result<(), Error> {
        loop {
            match self.parts().registry.created(name, uid).await {
                Ok(()) => return Ok(()),
                Err(error) if deadline.expired() => {
                    return Err(Error::unavailable(format!(
                        "index {:?} was created, and is used once the coordinator is back ({error})",
                        name.as_str()
                    )));
                }
                Err(_) => self.next_view(ANNOUNCE_AGAIN_AFTER).await,
            }
        }
    }

    /// An index that the store has and this node does not see: whoever created
    /// it could not tell.
    async fn remember(&self, name: &IndexName, deadline: Deadline) {
        if self.view().indexes.contains_key(name) {
            return;
        }
        if let Ok(Some((_, store::names::Entry::Live { uid }))) = self.parts().store.name(name).await
            && let Err(error) = self.announce(name, &uid, deadline).await
        {
            tracing::warn!(%error, "failed to announce an index");
        }
    }

    /// Creates an index and waits until this node sees it.
    pub(crate) async fn create(
        &self,
        name: IndexName,
        definition: Definition,
        deadline: Deadline,
    ) -> Result<Arc<Index>, Error> {
        definition.check().map_err(|error| Error::invalid(error.to_string()))?;
        let store = &self.parts().store;
        let uid = match store.create_index(&name, &definition, deadline.instant()).await {
            Ok(uid) => uid,
            Err(error) if error.kind() == store::Kind::Conflict => {
                self.remember(&name, deadline).await;
                return Err(Error::conflict(format!(
                    "index {:?} exists already: choose another name, or delete it first",
                    name.as_str()
                )));
            }
            Err(error) => return Err(from_store(&error)),
        };
        self.announce(&name, &uid, deadline).await?;
        let seen = self.wait_for(deadline, |view| {
            let index = view.indexes.get(&name).filter(|index| index.uid == uid)?;
            // Owned means open: the index can be written and searched at once.
            index.owners.iter().all(Option::is_some).then(|| index.clone())
        });
        seen.await.ok_or_else(|| {
            Error::expired("the index was created, but this node has not seen it within the timeout: retry")
        })
    }
}
