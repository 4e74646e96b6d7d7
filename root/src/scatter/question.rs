//! What is asked of which shards, and of whom first.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cluster::{Index, View};
use futures::future::BoxFuture;
use model::choice::Grouping;
use model::ids::{NodeId, ShardId};
use proto::Error;
use proto::leaf::{Leaf, ShardAt};
use runtime::Deadline;

use super::call::{Calls, Record};
use super::flight::Flight;
use crate::cover::{Enough, Missing, Tried, Trust, possible};
use crate::memory::Phase;
use crate::root::Root;

/// One leaf's answer for its shards.
pub(crate) struct Part<T> {
    pub(crate) record: Record,
    pub(crate) answer: T,
}

/// What leaves answered.
pub(crate) struct Gathered<T> {
    pub(crate) parts: Vec<Part<T>>,
    pub(crate) missing: Vec<Missing>,
}

/// Asks one leaf for some shards.
pub(crate) type Call<'a, T> =
    dyn Fn(Arc<dyn Leaf>, Vec<ShardAt>) -> BoxFuture<'static, Result<T, Error>> + Send + Sync + 'a;

/// How dangerous a question may be to its leaves.
#[derive(Clone, Copy)]
pub(crate) struct Danger<'a> {
    /// How many leaves died of such a question, perhaps, lately.
    pub(crate) died: usize,
    /// What makes it such a question; `None` for one that cannot harm.
    pub(crate) shape: Option<&'a (dyn Fn() -> u64 + Send + Sync)>,
    /// Set where it is given up so that no further leaf dies of it.
    pub(crate) spared: Option<&'a AtomicBool>,
}

impl Danger<'_> {
    /// Of a question that cannot harm.
    pub(crate) const NONE: Self = Self { died: 0, shape: None, spared: None };
}

/// A question to some shards of a pinned state.
pub(crate) struct Question<'a, T> {
    pub(crate) root: &'a Root,
    pub(crate) view: &'a View,
    pub(crate) pinned: &'a Index,
    /// Asks one leaf.
    pub(crate) call: &'a Call<'a, T>,
    /// How busy the leaf is, where its answer says so.
    pub(crate) load: fn(&T) -> Option<proto::leaf::Load>,
    pub(crate) phase: Phase,
    /// Whether the shards must be answered by one leaf together.
    pub(crate) whole: bool,
    pub(crate) deadline: Deadline,
    /// Whether it was asked before, and is asked anew since shards were lost, or
    /// the state that was read is gone.
    pub(crate) again: bool,
    /// `None` where all must answer.
    pub(crate) enough: Option<Enough>,
    pub(crate) danger: Danger<'a>,
    /// Told of all calls at the end.
    pub(crate) calls: &'a Calls,
}

impl<T: Send + 'static> Question<'_, T> {
    /// Asks a replica of each shard.
    pub(crate) async fn ask(&self, shards: Vec<ShardAt>) -> Result<Gathered<T>, Error> {
        let cover = |trust| self.cover(&shards, &Tried::default(), trust);
        // What nobody is there to answer is not asked, where enough is left.
        let trust = if self.enough.is_some() { Trust::There } else { Trust::Any };
        let (mut groups, mut missing) = cover(trust);
        if let Some(enough) = &self.enough {
            missing.extend(enough.missing.iter().copied());
            if possible(enough, &missing).is_err() {
                (groups, missing) = cover(Trust::Any);
                missing.extend(enough.missing.iter().copied());
                possible(enough, &missing)?;
            }
        } else if let Some(first) = missing.first() {
            return Err(unserved(first.shard));
        }
        Flight::new(self, missing).run(groups).await
    }

    /// Picks a leaf for each shard, as `Root::cover`.
    pub(super) fn cover(
        &self,
        shards: &[ShardAt],
        tried: &Tried<'_>,
        trust: Trust,
    ) -> (Vec<(NodeId, Vec<ShardAt>)>, Vec<Missing>) {
        let grouping = if self.whole { Grouping::One } else { Grouping::Few };
        self.root.cover(self.view, self.pinned, shards, tried, trust, grouping)
    }

    /// Asks the given leaves first.
    pub(crate) async fn ask_at(&self, groups: Vec<(NodeId, Vec<ShardAt>)>) -> Result<Gathered<T>, Error> {
        let missing = self.enough.as_ref().map_or_else(Vec::new, |enough| enough.missing.clone());
        Flight::new(self, missing).run(groups).await
    }
}

fn unserved(shard: ShardId) -> Error {
    Error::unavailable(format!("no live leaf serves shard {shard}: retry"))
        .retry_after(Duration::from_secs(1))
}
