//! A root and its leaves in one process, over an in-memory store.
//!
//! The roles are the real ones; a transport carries their calls, or none does.
//! What a controller would do is done here, step by step, when a test says so:
//! no timers, no waiting.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use cluster::Placement;
use leaf::{Assignment, Leaf};
use model::cut::{Cut, ReplicaState, Replicas};
use model::ids::{IndexName, IndexUid, NodeId, ShardId};
use model::settings::Definition;
use proto::admin::{Change, NodeState, OWN, Refresh, SERVE, Write, Written};
use proto::controller::Served;
use proto::leaf::Leaf as _;
use root::{Directory, Index, Registry, Root, View};
use runtime::{Deadline, OnError, Shutdown, TaskScope};
use store::Store;
use tokio::sync::watch;

/// Long enough for anything a test does here on a busy machine.
pub fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

/// A cluster in one process.
pub struct Local {
    /// The store that everything is in.
    pub store: Store,
    /// The root.
    pub root: Root,
    /// The leaves; shard n is on leaf n modulo their number.
    pub leaves: Vec<Leaf>,
    directory: Directory,
    view: watch::Sender<Arc<View>>,
    scope: TaskScope,
}

/// How a root calls its leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As the traits that they are.
    Direct,
    /// By gRPC over loopback.
    Tcp,
}

/// Nobody to tell of created indexes.
pub(crate) struct Nobody;

#[async_trait]
impl Registry for Nobody {
    async fn created(&self, _: &IndexName, _: &IndexUid) -> Result<(), proto::Error> {
        Ok(())
    }
    async fn deleted(&self, _: &IndexName, _: &IndexUid) -> Result<(), proto::Error> {
        Ok(())
    }
}

impl Local {
    /// Starts `leaves` leaves over `store`.
    ///
    /// # Errors
    /// When a leaf cannot be made.
    pub async fn start(store: Store, leaves: usize, transport: Transport) -> Result<Self> {
        let scope = TaskScope::new(&Shutdown::new());
        let (view, receiver) = watch::channel(Arc::new(View { known: true, ..View::default() }));
        let directory = Directory::new(receiver);
        let mut made = Vec::new();
        for number in 0..leaves {
            let node = NodeId(format!("leaf-{number}").into());
            let parts = leaf::Parts { node: node.clone(), store: store.clone(), scope: scope.clone() };
            let settings =
                leaf::Settings { threads: 1, writer_heap_bytes: 15_000_000, ..leaf::Settings::default() };
            let leaf = Leaf::new(parts, settings)?;
            let mut internal = None;
            match transport {
                Transport::Direct => directory.insert(node.clone(), Arc::new(leaf.clone())),
                Transport::Tcp => internal = Some(listen(&leaf, &scope).await?),
            }
            made.push(leaf);
            let state = NodeState {
                node: node.clone(),
                roles: vec![OWN.to_owned(), SERVE.to_owned()],
                public: None,
                internal,
                zone: None,
                draining: false,
            };
            view.send_modify(|view| drop(Arc::make_mut(view).nodes.insert(node, state)));
        }
        let parts = parts(&store, &view, directory.clone(), &scope);
        let root = Root::new(parts, root::Settings::default());
        Ok(Self { store, root, leaves: made, directory, view, scope })
    }

    /// A leaf as the root calls it.
    ///
    /// # Errors
    /// When there is no such leaf.
    pub fn called(&self, number: usize) -> Result<Arc<dyn proto::leaf::Leaf>> {
        let leaf = self.leaves.get(number).context("no such leaf")?;
        Ok(self.directory.leaf(leaf.node())?)
    }

    /// Where a leaf listens, by [`Transport::Tcp`].
    ///
    /// # Errors
    /// When it does not.
    pub fn address(&self, number: usize) -> Result<std::net::SocketAddr> {
        let view = self.view.borrow();
        let address = view
            .live(self.leaves.get(number).context("no such leaf")?.node())
            .and_then(|node| node.internal.as_ref());
        Ok(address.context("it does not listen")?.parse()?)
    }

    /// An index as the root sees it.
    ///
    /// # Errors
    /// When there is none.
    pub fn index(&self, name: &str) -> Result<Arc<Index>> {
        self.view.borrow().indexes.get(&IndexName::new(name)?).cloned().context("no such index")
    }

    /// Has the next leaves serve each shard of an index too, at what is
    /// searchable now.
    ///
    /// # Errors
    /// When the store or a leaf fails.
    pub async fn spread(&self, name: &str, copies: usize) -> Result<()> {
        let index = self.index(name)?;
        let mut serve = Vec::new();
        for (at, first) in index.shards().zip(0..) {
            let definition = (index.number, index.definition.clone());
            let assignment = Assignment { uid: index.uid.clone(), shard: at.shard, definition };
            let mut nodes = Vec::new();
            for leaf in self.leaves.iter().cycle().skip(first).take(copies) {
                leaf.assign(&assignment).await?;
                nodes.push(leaf.node().clone());
            }
            serve.push(nodes);
        }
        let placement = Arc::new(Placement { serve, own: Vec::new() });
        let index = Arc::new(Index { placement, ..(*index).clone() });
        self.view.send_modify(|view| {
            Arc::make_mut(view).indexes.insert(index.name.clone(), index.clone()).map_or((), drop)
        });
        Ok(())
    }

    /// Another root of this cluster, which calls each leaf as `way` says.
    pub fn another_root(
        &self,
        settings: root::Settings,
        way: impl Fn(&Leaf) -> Arc<dyn proto::leaf::Leaf>,
    ) -> Root {
        let directory = Directory::new(self.view.subscribe());
        self.leaves.iter().for_each(|leaf| directory.insert(leaf.node().clone(), way(leaf)));
        Root::new(parts(&self.store, &self.view, directory, &self.scope), settings)
    }

    fn leaf(&self, shard: u32) -> &Leaf {
        &self.leaves[shard as usize % self.leaves.len()]
    }

    /// Creates an index and waits until every shard takes writes.
    ///
    /// # Errors
    /// When the store or a leaf fails.
    pub async fn create(&self, name: &str, definition: Definition) -> Result<Arc<Index>> {
        let name = IndexName::new(name)?;
        let uid = self.store.create_index(&name, &definition, soon().instant()).await?;
        let (number, _) = self.store.newest_definition(&uid).await?;
        let shards = definition.shards;
        let definition = Arc::new(definition);
        for shard in 0..shards {
            let assignment = Assignment {
                uid: uid.clone(),
                shard: ShardId(shard),
                definition: (number, definition.clone()),
            };
            self.leaf(shard).assign(&assignment).await?;
            self.leaf(shard).own(&assignment);
        }
        for shard in 0..shards {
            let leaf = self.leaf(shard);
            loop {
                let changed = leaf.changed();
                if leaf.owned().contains(&(uid.clone(), ShardId(shard))) {
                    break;
                }
                tokio::time::timeout(Duration::from_secs(60), changed).await.context("no owner in time")?;
            }
        }
        let nodes = |shard: u32| self.leaf(shard).node().clone();
        let index = Arc::new(Index {
            name: name.clone(),
            uid: uid.clone(),
            number,
            definition,
            cut: Arc::new(self.store.newest_cut(&uid).await?),
            declined: BTreeMap::new(),
            owners: (0..shards).map(|shard| Some(nodes(shard))).collect(),
            placement: Arc::new(Placement {
                serve: (0..shards).map(|shard| vec![nodes(shard)]).collect(),
                own: Vec::new(),
            }),
        });
        self.view
            .send_modify(|view| Arc::make_mut(view).indexes.insert(name, index.clone()).map_or((), drop));
        Ok(index)
    }

    /// Writes changes, each of which must go in.
    ///
    /// # Errors
    /// When one does not.
    pub async fn write(&self, name: &str, changes: Vec<Change>) -> Result<Written> {
        use proto::admin::Admin;
        let lines = (1..).zip(changes).collect();
        let index = IndexName::new(name)?;
        let (refresh, deadline) = (Refresh::No, soon());
        let write = Write { index, lines, refresh, auto_create: false, deadline };
        let written = self.root.write(write).await?;
        anyhow::ensure!(written.rejected.is_empty(), "rejected: {:?}", written.rejected);
        Ok(written)
    }

    /// Makes everything written so far searchable: commits every shard and
    /// publishes the cut that contains it.
    ///
    /// # Errors
    /// When the store or a leaf fails.
    pub async fn refresh(&self, name: &str, written: &Written) -> Result<()> {
        let name = IndexName::new(name)?;
        let index = self.view.borrow().indexes.get(&name).cloned().context("no such index")?;
        let token = written.token.clone().context("nothing was written")?;
        for shard in token.seqs.keys() {
            self.leaf(shard.0).nudge(&index.uid, *shard).await?;
        }
        loop {
            let changed: Vec<_> = self.leaves.iter().map(Leaf::changed).collect();
            let cut = self.next_cut(&index.cut, &index.uid);
            if cut.contains(&token) {
                self.store.put_cut(&cut, soon().instant()).await?;
                let index = Arc::new(Index { cut: Arc::new(cut), ..(*index).clone() });
                self.view.send_modify(|view| {
                    Arc::make_mut(view).indexes.insert(name.clone(), index.clone()).map_or((), drop)
                });
                return Ok(());
            }
            let any = futures::future::select_all(changed.into_iter().map(Box::pin));
            tokio::time::timeout(Duration::from_secs(60), any).await.context("no commit in time")?;
        }
    }

    fn next_cut(&self, current: &Cut, uid: &IndexUid) -> Cut {
        let mut replicas: BTreeMap<ShardId, Replicas> = BTreeMap::new();
        for leaf in &self.leaves {
            for held in leaf.opened().into_iter().filter(|held| held.uid == *uid) {
                let known = replicas.entry(held.shard).or_default();
                known.keeping_up += 1;
                for Served { generation, seq, documents } in held.generations {
                    let state = ReplicaState { node: leaf.node().clone(), generation, seq, documents };
                    known.serving.push(state);
                }
            }
        }
        let entries = model::cut::next(current, &replicas, 1).unwrap_or_else(|| current.entries.clone());
        Cut { number: current.number.next(), entries, ..current.clone() }
    }

    /// Stops everything.
    ///
    /// # Errors
    /// When a task does not stop.
    pub async fn close(self) -> Result<()> {
        self.scope.close(Duration::from_secs(60)).await?;
        Ok(())
    }
}

fn parts(
    store: &Store,
    view: &watch::Sender<Arc<View>>,
    leaves: Directory,
    scope: &TaskScope,
) -> root::Parts {
    root::Parts {
        store: store.clone(),
        view: view.subscribe(),
        registry: Arc::new(Nobody),
        leaves,
        leaving: runtime::CancellationToken::new(),
        own: Arc::new(|_| Ok(())),
        random: runtime::Random::from_system(),
        scope: scope.clone(),
    }
}

/// Serves a leaf on a free port of loopback; returns the address.
async fn listen(leaf: &Leaf, scope: &TaskScope) -> Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let settings = proto::internal::Settings::default();
    let router = proto::internal::routes(Some(Arc::new(leaf.clone())), Arc::new(NoController), &settings);
    let router = router.into_axum_router();
    scope.spawn("internal listener", OnError::Log, |token| async move {
        axum::serve(listener, router).with_graceful_shutdown(token.cancelled_owned()).await
    });
    Ok(address)
}

struct NoController;

#[async_trait]
impl proto::controller::Controller for NoController {
    async fn report(&self, _: proto::controller::Report) -> Result<(), proto::Error> {
        Err(proto::Error::unavailable("there is no controller here"))
    }
}
