//! Holding what is placed here, and owning what should be owned here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster::{Complaint, Index, View, keys};
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use model::ids::{IndexUid, NodeId, ShardId};
use proto::Error;
use proto::leaf::{Leaf as _, ShardAt};
use runtime::Deadline;
use tokio::time::Instant;

use super::rule::{Seen, Step, decide};
use super::{Agent, next};
use crate::node::Assignment;

/// Between attempts at what failed: a shard that cannot be opened, an owner
/// that ended, a word that the coordinator did not take.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Failures in a row after which a leaf stands back: one may be a store that
/// hiccups, several are this machine's disk.
const FAILURES_MAX: u32 = 2;
/// How long it stands back.
const STAND_BACK_FOR: Duration = Duration::from_secs(60);
/// How long catching up with a cut may take.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(60);

type Key = (IndexUid, ShardId);

/// What the loop remembers.
#[derive(Default)]
struct State {
    opening: BTreeSet<Key>,
    /// Failed, and not tried before.
    rest: BTreeMap<Key, Instant>,
    /// The last owner of each shard that was seen.
    owners: BTreeMap<Key, NodeId>,
    /// Since when a shard has had no owner because its owner vanished.
    orphaned: BTreeMap<Key, Instant>,
    /// Shards that this leaf stands back from, and until when.
    declined: BTreeMap<Key, Instant>,
    /// Ownerships that this node has told of.
    announced: BTreeSet<Key>,
    /// Whether what an earlier process left behind was swept.
    swept: bool,
    /// Joinings of the membership that the announcements are of.
    joined: u64,
}

impl Agent {
    pub(super) async fn hold(mut self) {
        let mut state = State::default();
        let mut openings = FuturesUnordered::new();
        let mut trouble = Complaint::new("failed to open a shard; it is tried again");
        let mut joined = self.membership.joined();
        loop {
            // Taken before looking, so that no change falls between.
            let changed = self.leaf.changed();
            let view = self.view.borrow_and_update().clone();
            let times = joined.borrow_and_update().0;
            if state.joined != times {
                state.joined = times;
                state.announced.clear();
                state.declined.clear();
            }
            let now = Instant::now();
            state.rest.retain(|_, until| *until > now);
            for (key, task) in self.wanting(&view, &mut state) {
                let agent = self.clone();
                openings.push(async move { (key, agent.open(task).await) });
            }
            self.let_go(&view, &mut state);
            self.leaf.count();
            let mut due = self.own(&view, &mut state);
            if !self.tell_owned(&view, &mut state).await {
                due = sooner(due, Some(Instant::now() + RETRY_AFTER));
            }
            self.stand_back(&view, &mut state).await;
            due = sooner(due, state.declined.values().min().copied());
            due = sooner(due, state.rest.values().min().copied());
            tokio::select! {
                () = changed => {}
                () = self.shared.rung.notified() => {}
                ok = next(&mut self.view) => if !ok {
                    return;
                },
                _ = joined.changed() => {}
                Some((key, opened)) = openings.next() => {
                    state.opening.remove(&key);
                    if let Err(error) = opened {
                        let (uid, shard) = &key;
                        tracing::debug!(%uid, %shard, %error, "failed to open a shard; it is tried again");
                        trouble.say(&error);
                        state.rest.insert(key, Instant::now() + RETRY_AFTER);
                    }
                }
                () = at(due) => {}
            }
        }
    }

    /// What is to be opened next: shards that are placed here, and generations
    /// that the newest cut names and nobody told of.
    fn wanting(&self, view: &View, state: &mut State) -> Vec<(Key, Opening)> {
        let me = self.leaf.node();
        let mut tasks = Vec::new();
        for index in view.indexes.values() {
            let generations: Vec<_> = index.shards().map(|at| (at.shard, at.generation)).collect();
            self.leaf.cut_names(&index.uid, &generations);
            for at in index.shards().filter(|at| index.places(at.shard, me)) {
                let key = (index.uid.clone(), at.shard);
                if state.rest.contains_key(&key) || state.opening.contains(&key) {
                    continue;
                }
                if state.opening.len() >= self.settings.opening_max {
                    return tasks;
                }
                let task = match self.leaf.newest(&index.uid, at.shard) {
                    None => Opening::Shard(assignment(index, at.shard)),
                    Some(newest) if newest < at.generation => Opening::Cut(index.uid.clone(), at),
                    Some(_) => continue,
                };
                state.opening.insert(key.clone());
                tasks.push((key, task));
            }
        }
        tasks
    }

    async fn open(&self, task: Opening) -> Result<(), Error> {
        match task {
            Opening::Shard(assignment) => self.leaf.assign(&assignment).await,
            Opening::Cut(uid, at) => self.leaf.follow(&uid, at, Deadline::after(CATCH_UP_WITHIN)).await,
        }
    }

    fn let_go(&self, view: &View, state: &mut State) {
        // A view that is not whole says nothing about what is not in it.
        if !view.known {
            return;
        }
        for (uid, shard) in self.leaf.held() {
            let index = view.indexes.values().find(|index| index.uid == uid);
            let gone = match index {
                Some(index) => !index.places(shard, self.leaf.node()),
                None => view.pending == 0,
            };
            if gone {
                tracing::info!(%uid, %shard, "let go of a shard");
                self.leaf.release(&uid, shard);
            }
        }
        if view.pending == 0 && !state.swept {
            state.swept = true;
            self.leaf.sweep(|uid, shard| {
                let index = view.indexes.values().find(|index| index.uid == *uid);
                index.is_some_and(|index| index.places(shard, self.leaf.node()))
            });
        }
    }

    /// Takes and resigns; returns when to look again.
    fn own(&self, view: &View, state: &mut State) -> Option<Instant> {
        let me = self.leaf.node();
        let draining = view.live(me).is_some_and(|state| state.draining);
        let mut due = None;
        let mut seen_keys = BTreeSet::new();
        for index in view.indexes.values() {
            for shard in (0..index.definition.shards).map(ShardId) {
                let key = (index.uid.clone(), shard);
                if !index.places(shard, me) || self.leaf.newest(&index.uid, shard).is_none() {
                    continue;
                }
                seen_keys.insert(key.clone());
                let owner = index.owners.get(shard.0 as usize).and_then(Option::as_ref);
                let orphaned = state.orphaned(&key, owner, view);
                let should = view.should_own(index, shard).map(|state| &state.node);
                let seen = Seen {
                    me,
                    owning: self.leaf.owning(&index.uid, shard),
                    should,
                    owner: owner.map(|owner| (owner, view.live(owner).is_some())),
                    ready: should.is_some_and(|node| self.has_newest(&key, node)),
                    draining,
                    orphaned,
                };
                match decide(seen, self.settings.takeover_after) {
                    Step::Stay => {}
                    Step::Take => {
                        self.leaf.own(&assignment(index, shard));
                        // If it ends at once, it is due again later.
                        due = sooner(due, Some(Instant::now() + RETRY_AFTER));
                    }
                    Step::TakeAfter(wait) => due = sooner(due, Some(Instant::now() + wait)),
                    Step::Resign => self.leaf.resign(&index.uid, shard),
                }
            }
        }
        state.owners.retain(|key, _| seen_keys.contains(key));
        state.orphaned.retain(|key, _| seen_keys.contains(key));
        due
    }

    /// Whether `node` has opened what is newest here.
    fn has_newest(&self, (uid, shard): &Key, node: &NodeId) -> bool {
        let newest = self.leaf.newest(uid, *shard);
        let confirmed = self.shared.confirmed();
        let known = confirmed.get(&(uid.clone(), *shard, node.clone()));
        known.is_some() && known.copied() >= newest
    }

    /// Tells of shards that this leaf fails to own again and again, so that
    /// another takes them; after a while it may try again.
    async fn stand_back(&self, view: &View, state: &mut State) {
        let me = self.leaf.node();
        let now = Instant::now();
        for (uid, shard) in self.leaf.held() {
            let key = (uid, shard);
            let failing = self.leaf.failures(&key.0, shard) >= FAILURES_MAX;
            if !failing || state.declined.contains_key(&key) {
                continue;
            }
            let declined = keys::declined(&key.0, shard, me);
            match self.membership.claim(declined, me.to_string().into()).await {
                Ok(_) => {
                    tracing::warn!(uid = %key.0, %shard, "failed to own a shard again and again; another leaf may take it");
                    state.declined.insert(key, now + STAND_BACK_FOR);
                }
                Err(error) => tracing::debug!(%error, "failed to stand back from a shard"),
            }
        }
        let over = state.declined.iter().filter(|(_, until)| **until <= now).map(|(key, _)| key.clone());
        // Put by a call whose answer was lost, and the failures are over.
        let shown = view.indexes.values().flat_map(|index| {
            let mine = index.declined.iter().filter(|(_, nodes)| nodes.contains(me));
            mine.map(|(shard, _)| (index.uid.clone(), *shard))
        });
        let shown = shown.filter(|key| {
            !state.declined.contains_key(key) && self.leaf.failures(&key.0, key.1) < FAILURES_MAX
        });
        let over: Vec<Key> = over.chain(shown).collect();
        for key in over {
            let declined = keys::declined(&key.0, key.1, me);
            match self.membership.withdraw(&declined, me.to_string().as_bytes()).await {
                Ok(()) => {
                    state.declined.remove(&key);
                    self.leaf.forgive(&key.0, key.1);
                }
                Err(_) => drop(state.declined.insert(key, now + RETRY_AFTER)),
            }
        }
    }

    /// Says what is owned here, and no longer what is not; false when it is to
    /// be tried again.
    async fn tell_owned(&self, view: &View, state: &mut State) -> bool {
        let me = self.leaf.node();
        let owned: BTreeSet<Key> = self.leaf.owned().into_iter().collect();
        let claims = owned.difference(&state.announced).map(|(uid, shard)| async move {
            let claimed = self.membership.claim(keys::owner(uid, *shard), me.to_string().into()).await;
            ((uid.clone(), *shard), claimed)
        });
        // What the view shows of me without my knowing was put by a call whose
        // answer was lost: nobody else takes the shard while it stands.
        let shown = view.indexes.values().flat_map(|index| {
            let owners = (0..).map(ShardId).zip(&index.owners);
            let mine = owners.filter(|(_, owner)| owner.as_ref() == Some(me));
            mine.map(|(shard, _)| (index.uid.clone(), shard))
        });
        let shown = shown.filter(|(uid, shard)| !self.leaf.owning(uid, *shard));
        let told: BTreeSet<Key> = state.announced.iter().cloned().chain(shown).collect();
        let withdrawals = told.difference(&owned).map(|(uid, shard)| async move {
            let value = me.to_string();
            let gone = self.membership.withdraw(&keys::owner(uid, *shard), value.as_bytes()).await;
            ((uid.clone(), *shard), gone)
        });
        let (claims, withdrawals) = (claims.collect::<Vec<_>>(), withdrawals.collect::<Vec<_>>());
        let (claims, withdrawals) = tokio::join!(join_all(claims), join_all(withdrawals));
        let mut settled = true;
        for (key, claimed) in claims {
            match claimed {
                Ok(true) => {
                    state.announced.insert(key);
                }
                // Another's word stands: it ends, or this leaf resigns when it
                // sees it.
                Ok(false) => settled = false,
                Err(error) => {
                    tracing::warn!(uid = %key.0, shard = %key.1, %error, "failed to announce an ownership; it is tried again");
                    settled = false;
                }
            }
        }
        for (key, gone) in withdrawals {
            match gone {
                Ok(()) => {
                    state.announced.remove(&key);
                }
                Err(error) => {
                    tracing::warn!(uid = %key.0, shard = %key.1, %error, "failed to withdraw an ownership; it is tried again");
                    settled = false;
                }
            }
        }
        // What the view does not show was lost, or is on its way.
        for (uid, shard) in &owned {
            let index = view.indexes.values().find(|index| index.uid == *uid);
            let shown = index
                .is_none_or(|index| index.owners.get(shard.0 as usize).and_then(Option::as_ref) == Some(me));
            let key = (uid.clone(), *shard);
            if !shown && view.live(me).is_some() && state.announced.contains(&key) {
                state.announced.remove(&key);
                settled = false;
            }
        }
        settled
    }
}

impl State {
    /// For how long a shard has been without an owner since its owner vanished.
    fn orphaned(&mut self, key: &Key, owner: Option<&NodeId>, view: &View) -> Option<Duration> {
        if let Some(owner) = owner {
            self.owners.insert(key.clone(), owner.clone());
            self.orphaned.remove(key);
            return None;
        }
        let last = self.owners.get(key)?;
        if view.live(last).is_some() {
            // It gave the shard up, and is there to tell.
            self.orphaned.remove(key);
            return None;
        }
        let since = self.orphaned.entry(key.clone()).or_insert_with(Instant::now);
        Some(since.elapsed())
    }
}

/// Something to open.
enum Opening {
    Shard(Assignment),
    Cut(IndexUid, ShardAt),
}

fn assignment(index: &Arc<Index>, shard: ShardId) -> Assignment {
    Assignment { uid: index.uid.clone(), shard, definition: (index.number, index.definition.clone()) }
}

fn sooner(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
