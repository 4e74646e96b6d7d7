//! The root: its parts, and how it pins the state that a request reads.

use std::sync::Arc;
use std::time::Duration;

use model::choice::Policy;
use model::hedge;
use model::ids::{IndexName, NodeId};
use model::standing;
use model::token::Token;
use proto::leaf::Leaf;
use proto::search::Request;
use proto::{Error, leaf};
use runtime::{CancellationToken, Deadline, Random, TaskScope};
use store::Store;
use tokio::sync::watch;

use crate::admission::{self, Admission};
use crate::memory::Memory;
use crate::metrics::{Counts, Metrics, Tally};
use crate::slow::Slow;
use crate::statistics::Known;
use cluster::{Directory, Index, Registry, View, from_store};

/// What a root is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many documents an inferred schema looks at: enough to see the rare
    /// fields of a corpus, few enough to be quick.
    pub inferred_from: usize,
    /// How long a write waits for a shard to have an owner.
    pub owner_within: Duration,
    /// How long a leaf may take before another replica is asked in any case;
    /// hedging asks sooner.
    pub attempt_timeout: Duration,
    /// How long a search whose generation is gone is begun again: a new cut, or
    /// a replica that catches up, takes a part of a second.
    pub restart_within: Duration,
    /// How long a leaf that failed is asked last: about as long as its lease
    /// takes to end, if it is gone.
    pub doubted_for: Duration,
    /// How one of several replicas is taken.
    pub choice: Policy,
    /// The least time without an answer to a ping after which a leaf stands
    /// still: the timers' tick, and what a busy machine takes to wake a thread.
    pub silent_after: Duration,
    /// Whether late calls are made to another leaf too.
    pub hedging: bool,
    /// How much.
    pub hedge: hedge::Settings,
    /// How long what leaves say of themselves is worth something.
    pub reports: standing::Settings,
    /// Leaves of this zone are asked first, while they are not busier.
    pub zone: Option<String>,
    /// How much is taken on at one time.
    pub admission: admission::Settings,
    /// Searches that take as long or longer are logged; none where it is zero.
    pub slow_query: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            inferred_from: 1_000,
            owner_within: Duration::from_secs(10),
            attempt_timeout: Duration::from_millis(500),
            restart_within: Duration::from_secs(3),
            doubted_for: Duration::from_secs(3),
            choice: Policy::default(),
            silent_after: Duration::from_millis(1),
            hedging: true,
            hedge: hedge::Settings::default(),
            reports: standing::Settings::default(),
            zone: None,
            admission: admission::Settings::default(),
            slow_query: Duration::from_secs(1),
        }
    }
}

/// What a root is made of; passed in.
#[derive(Clone)]
pub struct Parts {
    /// Where indexes are created and deleted.
    pub store: Store,
    /// The cluster, kept current by others.
    pub view: watch::Receiver<Arc<View>>,
    /// Told of created and deleted indexes.
    pub registry: Arc<dyn Registry>,
    /// The leaves.
    pub leaves: Directory,
    /// Cancelled when this node is leaving: it is not ready then.
    pub leaving: CancellationToken,
    /// What else this node waits for before it is ready: its own replicas.
    pub own: Arc<Own>,
    /// For its choices.
    pub random: Random,
    /// For pings, which outlive the search that they were made for.
    pub scope: TaskScope,
}

/// Says what of its own part in a view a node still lacks.
pub type Own = dyn Fn(&View) -> Result<(), Error> + Send + Sync;

/// A root; clones are one root.
#[derive(Clone)]
pub struct Root(Arc<Inner>);

struct Inner {
    parts: Parts,
    settings: Settings,
    metrics: Metrics,
    known: Known,
    memory: Memory,
    counts: Counts,
    slow: Slow,
    admission: Admission,
}

impl Root {
    /// Makes a root.
    #[must_use]
    pub fn new(parts: Parts, settings: Settings) -> Self {
        let metrics = Metrics::new();
        let admission = Admission::new(settings.admission.clone());
        let memory = Memory::new(settings.hedge, settings.reports, metrics.clone());
        Self(Arc::new(Inner {
            parts,
            settings,
            metrics,
            known: Known::default(),
            memory,
            counts: Counts::default(),
            slow: Slow::default(),
            admission,
        }))
    }

    /// What it did so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.0.counts.get()
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.0.admission
    }

    pub(crate) fn slow(&self) -> &Slow {
        &self.0.slow
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.0.counts
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.0.parts
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn known(&self) -> &Known {
        &self.0.known
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.0.memory
    }

    /// Waits for the view to change, at most this long.
    pub(crate) async fn next_view(&self, within: Duration) {
        let mut view = self.0.parts.view.clone();
        view.mark_unchanged();
        let _either = tokio::time::timeout(within, view.changed()).await;
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.0.parts.view.borrow().clone()
    }

    pub(crate) fn leaf(&self, node: &NodeId) -> Result<Arc<dyn Leaf>, Error> {
        self.0.parts.leaves.leaf(node)
    }

    /// The index of this name.
    pub(crate) fn index(&self, name: &IndexName) -> Result<Arc<Index>, Error> {
        let view = self.view();
        view.indexes.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = view.indexes.keys().take(10).map(IndexName::as_str).collect();
            let hint = if known.is_empty() {
                "there are none yet: create one, or load documents into it".to_owned()
            } else {
                format!("there are {}", known.join(", "))
            };
            Error::not_found(format!("no index {:?}: {hint}", name.as_str()))
        })
    }

    /// The index of this name, waited for while this node has not seen the
    /// whole cluster yet: one that has just started, or whose store was away.
    pub(crate) async fn known_index(
        &self,
        name: &IndexName,
        deadline: Deadline,
    ) -> Result<Arc<Index>, Error> {
        let whole = |view: &View| view.known && view.pending == 0;
        let found = self.index(name);
        if found.is_ok() || whole(&self.view()) {
            return found;
        }
        let patience = Deadline::after(self.settings().owner_within).sooner(deadline);
        let seen =
            self.wait_for(patience, |view| (whole(view) || view.indexes.contains_key(name)).then_some(()));
        match seen.await {
            Some(()) => self.index(name),
            None => {
                Err(Error::unavailable("this node has not seen the whole cluster yet: retry, or use another")
                    .retry_after(Duration::from_secs(1)))
            }
        }
    }

    /// Waits until the view satisfies `ready`.
    pub(crate) async fn wait_for<T>(
        &self,
        deadline: Deadline,
        mut ready: impl FnMut(&View) -> Option<T>,
    ) -> Option<T> {
        let mut view = self.0.parts.view.clone();
        let mut found = None;
        let wait = view.wait_for(|view| {
            found = ready(view);
            found.is_some()
        });
        let waited = tokio::time::timeout_at(deadline.instant(), wait).await.is_ok();
        if waited { found } else { None }
    }

    /// The state that a search reads: the newest cut, or the first that
    /// contains its token, or the one it names.
    pub(crate) async fn pin(&self, request: &Request) -> Result<Arc<Index>, Error> {
        let mut index = self.known_index(&request.index, request.deadline).await?;
        if let Some(token) = &request.token {
            index = self.containing(&request.index, index, token, request.deadline).await?;
        }
        if let Some(number) = request.at
            && number != index.cut.number
        {
            let cut = self.0.parts.store.cut(&index.uid, number).await;
            let cut = cut.map_err(|error| from_store(&error))?.ok_or_else(|| {
                Error::gone(format!(
                    "cut {number} is not kept any more (the newest is {}): search without \"at\"",
                    index.cut.number
                ))
            })?;
            index = Arc::new(Index { cut: Arc::new(cut), ..(*index).clone() });
        }
        Ok(index)
    }

    /// Waits for a cut that contains `token`, asking the owners to hurry.
    pub(crate) async fn containing(
        &self,
        name: &IndexName,
        index: Arc<Index>,
        token: &Token,
        deadline: Deadline,
    ) -> Result<Arc<Index>, Error> {
        if token.uid != index.uid {
            return Err(Error::conflict(format!(
                "the token is of another index than today's {:?}, which was created anew: drop it",
                name.as_str()
            )));
        }
        if index.cut.contains(token) {
            return Ok(index);
        }
        let behind = token.seqs.iter().filter(|(shard, seq)| {
            index.cut.entries.get(shard.0 as usize).is_none_or(|entry| entry.seq < **seq)
        });
        let nudges = futures::future::join_all(behind.map(|(shard, _)| self.nudge(&index, *shard)));
        let found = self.wait_for(deadline, |view| {
            let index = view.indexes.get(name)?;
            (index.uid != token.uid || index.cut.contains(token)).then(|| index.clone())
        });
        // Nobody waits for an owner that does not answer: the view tells.
        let found = async {
            tokio::pin!(found, nudges);
            tokio::select! {
                biased;
                found = &mut found => found,
                _ = &mut nudges => found.as_mut().await,
            }
        };
        match found.await {
            Some(index) if index.uid == token.uid => Ok(index),
            Some(_) => Err(Error::conflict("the index was created anew meanwhile: drop the token")),
            None => Err(Error::expired(
                "the write that the token names did not become searchable within the timeout: allow more time, or search without it",
            )),
        }
    }

    /// Asks a shard's owner to commit; one that cannot be asked commits by its
    /// own interval.
    async fn nudge(&self, index: &Index, shard: model::ids::ShardId) {
        let Some(Some(owner)) = index.owners.get(shard.0 as usize) else { return };
        if let Ok(leaf) = self.leaf(owner)
            && let Err(error) = leaf::Leaf::nudge(&*leaf, &index.uid, shard).await
        {
            tracing::debug!(%shard, %error, "a shard could not be nudged");
        }
    }
}
