//! What a leaf's agent says in the coordinator, where answers get lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster::coordinator::{Coordinator, Entry, Expect, Lease, Put, Revision, Watch};
use cluster::{Directory, Embedded, Index, Membership, Placement, View, keys};
use leaf::{Agent, AgentSettings, Leaf};
use model::ids::{IndexName, NodeId, ShardId};
use model::schema::Schema;
use model::settings::Definition;
use proto::Error;
use proto::admin::{NodeState, OWN, SERVE};
use runtime::{OnError, Shutdown, TaskScope};
use store::Store;
use testkit::local::soon;
use testkit::processes::eventually;
use tokio::sync::watch;

/// A coordinator whose answers to announcements of owners are lost.
struct Lossy(Embedded);

#[async_trait]
impl Coordinator for Lossy {
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        self.0.get(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, Error> {
        self.0.list(prefix).await
    }
    async fn put(&self, put: Put) -> Result<Option<Revision>, Error> {
        let lost = put.key.starts_with("owners/");
        let outcome = self.0.put(put).await?;
        if lost { Err(Error::unavailable("the answer was lost")) } else { Ok(outcome) }
    }
    async fn delete(&self, key: &str, expect: Expect) -> Result<bool, Error> {
        self.0.delete(key, expect).await
    }
    async fn grant(&self, ttl: Duration) -> Result<Lease, Error> {
        self.0.grant(ttl).await
    }
    async fn keep_alive(&self, lease: Lease) -> Result<bool, Error> {
        self.0.keep_alive(lease).await
    }
    async fn revoke(&self, lease: Lease) -> Result<(), Error> {
        self.0.revoke(lease).await
    }
    async fn watch(&self, prefix: &str) -> Result<Watch, Error> {
        self.0.watch(prefix).await
    }
}

fn node(name: &str, draining: bool) -> NodeState {
    NodeState {
        node: NodeId(name.into()),
        roles: vec![OWN.to_owned(), SERVE.to_owned()],
        public: None,
        internal: None,
        zone: None,
        draining,
    }
}

#[tokio::test]
async fn an_ownership_is_withdrawn_even_if_the_answer_to_its_announcement_was_lost() {
    let store = Store::memory();
    let name = IndexName::new("papers").unwrap();
    let definition = Definition { shards: 1, ..Definition::of(Schema::default()) };
    let uid = store.create_index(&name, &definition, soon().instant()).await.unwrap();
    let (me, other) = (node("me", false), node("other", false));
    let index = Index {
        name: name.clone(),
        uid: uid.clone(),
        number: store.newest_definition(&uid).await.unwrap().0,
        definition: Arc::new(definition),
        cut: Arc::new(store.newest_cut(&uid).await.unwrap()),
        owners: vec![None],
        declined: BTreeMap::new(),
        placement: Arc::new(Placement {
            serve: vec![vec![me.node.clone(), other.node.clone()]],
            own: Vec::new(),
        }),
    };
    let state = View {
        known: true,
        nodes: [me.clone(), other].map(|state| (state.node.clone(), state)).into(),
        indexes: [(name.clone(), Arc::new(index.clone()))].into(),
        ..View::default()
    };
    let (view, receiver) = watch::channel(Arc::new(state));

    let scope = TaskScope::new(&Shutdown::new());
    let inner = Embedded::new();
    let membership = Membership::new(Arc::new(Lossy(inner.clone())), me.clone(), Duration::from_secs(600));
    scope.spawn("membership", OnError::Log, |token| membership.clone().run(token));
    let parts = leaf::Parts { node: me.node.clone(), store, scope: scope.clone() };
    let settings = leaf::Settings { threads: 1, writer_heap_bytes: 15_000_000, ..leaf::Settings::default() };
    let leaf = Leaf::new(parts, settings).unwrap();
    let directory = Directory::new(receiver.clone());
    let agent = Agent::new(leaf.clone(), receiver, membership, directory, AgentSettings::default());
    scope.spawn("agent", OnError::Log, |token| agent.run(token));

    let key = keys::owner(&uid, ShardId(0));
    eventually("the shard is owned", async || inner.get(&key).await.unwrap().is_some()).await.unwrap();
    // Everybody sees it, and that this node is leaving: another shall own.
    view.send_modify(|view| {
        let view = Arc::make_mut(view);
        let seen = Index { owners: vec![Some(me.node.clone())], ..index };
        view.nodes.insert(me.node.clone(), node("me", true));
        view.indexes.insert(name, Arc::new(seen));
    });
    eventually("it is given up", async || leaf.owned().is_empty()).await.unwrap();
    eventually("nobody is said to own it", async || inner.get(&key).await.unwrap().is_none()).await.unwrap();
    scope.close(Duration::from_secs(60)).await.unwrap();
}
