//! Asking a replica of each shard, and others where one is late or fails.
//!
//! ```text
//! ask(shards) ─► cover ─┬► leg: call ─────────────── answer ─► won
//!                       ├► leg: call ── error ─► call elsewhere ─► …
//!                       └► leg: call ── late ──► hedge ─► the first good answer wins,
//!                                                         the other calls are cancelled
//! ```
//!
//! A leg is the shards that were first asked of one leaf. An attempt at it has
//! one slot, or several where no other leaf holds all its shards; a slot is
//! filled by the first answer of its calls. What decides is [`model::hedge`],
//! [`model::standing`] and [`model::choice`].
//!
//! A late call's leaf is pinged. One that answers is busy, and its call is
//! hedged if the budget has something for ordinary lateness; one that does not
//! stands still, and all calls that it owes are hedged at once.
//!
//! **Invariant:** every shard of the question is answered exactly once, by one
//! replica at the generation that was asked for, or is named as missing, or the
//! whole is an error.
//!
//! **Invariant:** no leaf is asked twice for one leg, and an attempt that fails
//! harms no other.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use cluster::{Index, View};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use model::choice::Grouping;
use model::ids::{NodeId, ShardId};
use model::standing::Doubt;
use proto::leaf::{Leaf, ShardAt};
use proto::{Error, Kind};
use runtime::Deadline;
use tokio::time::Instant;

use crate::cover::{Enough, Missing, Reason, Trust, documents, possible};
use crate::memory::{History, Phase, Sent, Withheld, deadly};
use crate::ping::quiet;
use crate::root::Root;

/// Which call for its shards one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    First,
    Hedge,
    Retry,
}

impl Why {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Hedge => "hedge",
            Self::Retry => "retry",
        }
    }
}

/// A call as it went.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) node: NodeId,
    pub(crate) shards: Vec<ShardAt>,
    pub(crate) why: Why,
    /// `None` where it was answered.
    pub(crate) outcome: Option<String>,
    pub(crate) sent: Instant,
    pub(crate) took: Duration,
}

/// One leaf's answer for its shards.
pub(crate) struct Part<T> {
    pub(crate) record: Record,
    pub(crate) answer: T,
}

/// The calls of a search as they went, for those who explain it.
#[derive(Default)]
pub(crate) struct Calls(Mutex<Vec<(Phase, Record)>>);

impl Calls {
    pub(crate) fn take(&self) -> Vec<(Phase, Record)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What leaves answered.
pub(crate) struct Gathered<T> {
    pub(crate) parts: Vec<Part<T>>,
    pub(crate) missing: Vec<Missing>,
}

/// Longer than anything is waited for.
const FAR: Duration = Duration::from_secs(1_000_000_000);

type Call<'a, T> =
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
    /// `None` where all must answer.
    pub(crate) enough: Option<Enough>,
    pub(crate) danger: Danger<'a>,
    /// Told of all calls at the end.
    pub(crate) calls: &'a Calls,
}

/// A call's future; empty once it has ended, was cancelled, or goes on without
/// the question.
type Shared<T> = Arc<Mutex<Option<BoxFuture<'static, Result<T, Error>>>>>;

/// Resolves when the call in its slot does.
struct Running<T> {
    id: usize,
    running: Shared<T>,
}

impl<T> Future for Running<T> {
    type Output = (usize, Result<T, Error>);

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(call) = slot.as_mut() else { return Poll::Pending };
        let Poll::Ready(outcome) = call.as_mut().poll(context) else { return Poll::Pending };
        *slot = None;
        Poll::Ready((self.id, outcome))
    }
}

/// One call of a question.
struct Asked<T> {
    leg: usize,
    attempt: usize,
    slot: usize,
    /// Hedges before it in a row.
    rank: u32,
    /// Whether others were asked since it is late.
    hedged: bool,
    record: Record,
    /// After so many seconds it is late, by its shards' past.
    usual: f64,
    /// When its leaf is pinged, while it is not answered.
    ping_at: Instant,
    late: bool,
    overdue: bool,
    /// Whether its hedge was withheld.
    withheld: bool,
    running: Shared<T>,
    /// `None` once it has ended.
    open: Option<Sent>,
}

impl<T> Asked<T> {
    fn take(&self) -> Option<BoxFuture<'static, Result<T, Error>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Shards that one leaf answers for together.
struct Slot<T> {
    part: Option<Part<T>>,
    /// Calls without an answer.
    open: usize,
}

/// Slots that together answer a leg.
struct Attempt<T> {
    slots: Vec<Slot<T>>,
    failed: bool,
}

impl<T> Attempt<T> {
    fn new(slots: usize) -> Self {
        let slots = (0..slots).map(|_| Slot { part: None, open: 0 });
        Self { slots: slots.collect(), failed: false }
    }

    fn complete(&self) -> bool {
        !self.failed && self.slots.iter().all(|slot| slot.part.is_some())
    }
}

/// Where a call belongs.
#[derive(Clone, Copy)]
struct Place {
    leg: usize,
    attempt: usize,
    slot: usize,
    rank: u32,
}

struct Leg<T> {
    shards: Vec<ShardAt>,
    tried: BTreeSet<NodeId>,
    attempts: Vec<Attempt<T>>,
    calls: Vec<usize>,
    done: bool,
}

impl<T: Send + 'static> Question<'_, T> {
    /// Asks a replica of each shard.
    pub(crate) async fn ask(&self, shards: Vec<ShardAt>) -> Result<Gathered<T>, Error> {
        let cover = |trust| self.cover(&shards, &BTreeSet::new(), trust);
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
    fn cover(
        &self,
        shards: &[ShardAt],
        tried: &BTreeSet<NodeId>,
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

/// Says whose answer is missing.
fn unanswered(shards: &[ShardAt]) -> String {
    let named: Vec<String> = shards.iter().take(3).map(|at| at.shard.to_string()).collect();
    let more = match shards.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("no answer of shard {}{more}", named.join(", "))
}

/// A question under way.
struct Flight<'q, 'a, T> {
    question: &'q Question<'a, T>,
    history: Arc<History>,
    legs: Vec<Leg<T>>,
    asked: Vec<Asked<T>>,
    running: FuturesUnordered<Running<T>>,
    /// Legs without an answer.
    open: usize,
    /// Legs that wait for a canary.
    held: Vec<(NodeId, Vec<ShardAt>)>,
    /// Seconds that legs took which have ended.
    took: Vec<f64>,
    missing: Vec<Missing>,
    begun: Instant,
}

impl<'q, 'a, T: Send + 'static> Flight<'q, 'a, T> {
    fn new(question: &'q Question<'a, T>, missing: Vec<Missing>) -> Self {
        let memory = question.root.memory();
        let history = memory.history(&question.pinned.uid, question.pinned.cut.entries.len());
        Self {
            question,
            history,
            legs: Vec::new(),
            asked: Vec::new(),
            running: FuturesUnordered::new(),
            open: 0,
            held: Vec::new(),
            took: Vec::new(),
            missing,
            begun: Instant::now(),
        }
    }

    fn root(&self) -> &'q Root {
        self.question.root
    }

    async fn run(mut self, mut groups: Vec<(NodeId, Vec<ShardAt>)>) -> Result<Gathered<T>, Error> {
        if self.question.danger.died > 0 && groups.len() > 1 {
            self.root().metrics().canaries.increment(1);
            self.held = groups.split_off(1);
        }
        self.begin(groups)?;
        let timer = tokio::time::sleep_until(Instant::now());
        tokio::pin!(timer);
        // The timer is only ever early: then the calls are looked at again.
        timer.as_mut().reset(self.look()?);
        let memory = self.root().memory();
        let silenced = memory.silenced();
        tokio::pin!(silenced);
        silenced.as_mut().enable();
        loop {
            if self.open == 0 {
                if self.held.is_empty() {
                    break;
                }
                let groups = std::mem::take(&mut self.held);
                self.begin(groups)?;
                timer.as_mut().reset(self.look()?);
            }
            tokio::select! {
                biased;
                Some((id, outcome)) = self.running.next() => {
                    self.ended(id, outcome)?;
                    let last = self.question.root.settings().hedge.patience(self.open, self.legs.len()) <= 1.0;
                    let waits = last || self.question.enough.is_some();
                    if waits && self.open > 0 {
                        timer.as_mut().reset(self.look()?);
                    }
                }
                () = &mut silenced => {
                    silenced.set(memory.silenced());
                    silenced.as_mut().enable();
                    timer.as_mut().reset(self.look()?);
                }
                () = &mut timer => timer.as_mut().reset(self.look()?),
            }
        }
        let mut parts = Vec::with_capacity(self.legs.len());
        for leg in &mut self.legs {
            let won = leg.attempts.iter_mut().find(|attempt| attempt.complete());
            let slots = won.into_iter().flat_map(|attempt| std::mem::take(&mut attempt.slots));
            parts.extend(slots.filter_map(|slot| slot.part));
        }
        let missing = std::mem::take(&mut self.missing);
        Ok(Gathered { parts, missing })
    }

    /// Begins a leg for each group.
    fn begin(&mut self, groups: Vec<(NodeId, Vec<ShardAt>)>) -> Result<(), Error> {
        self.root().memory().earn(groups.len());
        for group in groups {
            let leg = self.legs.len();
            self.legs.push(Leg {
                shards: group.1.clone(),
                tried: BTreeSet::new(),
                attempts: vec![Attempt::new(1)],
                calls: Vec::new(),
                done: false,
            });
            self.open += 1;
            self.send(Place { leg, attempt: 0, slot: 0, rank: 0 }, group, Why::First)?;
        }
        Ok(())
    }

    fn send(&mut self, place: Place, group: (NodeId, Vec<ShardAt>), why: Why) -> Result<(), Error> {
        let root = self.root();
        let Place { leg, attempt, slot, rank } = place;
        let (node, shards) = group;
        self.legs[leg].tried.insert(node.clone());
        self.legs[leg].attempts[attempt].slots[slot].open += 1;
        let usual = self.history.usual(&shards, self.question.phase);
        // Before anything is known, a tenth of what is too long in any case.
        let usual = usual.unwrap_or_else(|| root.settings().attempt_timeout.as_secs_f64() / 10.0);
        let id = self.asked.len();
        self.legs[leg].calls.push(id);
        let leaf = root.leaf(&node);
        let call = match &leaf {
            Ok(leaf) => Some((self.question.call)(leaf.clone(), shards.clone())),
            Err(_) => None,
        };
        root.metrics().leaf_calls.increment(1);
        root.counts().call();
        let running = Arc::new(Mutex::new(call));
        let record = Record { node, shards, why, outcome: None, sent: Instant::now(), took: Duration::ZERO };
        let open = Some(root.memory().send(&record.node));
        self.asked.push(Asked {
            leg,
            attempt,
            slot,
            rank,
            hedged: false,
            ping_at: record.sent + quiet(root, usual),
            record,
            usual,
            late: false,
            overdue: false,
            withheld: false,
            running: running.clone(),
            open,
        });
        match leaf {
            Ok(_) => self.running.push(Running { id, running }),
            Err(error) => self.ended(id, Err(error))?,
        }
        Ok(())
    }

    /// Takes note of a call's end.
    fn ended(&mut self, id: usize, outcome: Result<T, Error>) -> Result<(), Error> {
        let root = self.root();
        let asked = &mut self.asked[id];
        let Some(sent) = asked.open.take() else { return Ok(()) };
        let took = asked.record.sent.elapsed();
        asked.record.took = took;
        let (leg, attempt, slot) = (asked.leg, asked.attempt, asked.slot);
        match outcome {
            Ok(answer) => {
                sent.answered((self.question.load)(&answer));
                drop(sent);
                if !asked.late {
                    root.memory().note(false);
                }
                let quantile = root.settings().hedge.quantile;
                self.history.learn(&asked.record.shards, self.question.phase, took.as_secs_f64(), quantile);
                let record = asked.record.clone();
                let part = Part { record, answer };
                let attempts = &mut self.legs[leg].attempts;
                let filled = &mut attempts[attempt].slots[slot];
                filled.part = Some(part);
                let others = std::mem::take(&mut filled.open) > 1;
                let won = attempts[attempt].complete();
                if others && !won {
                    self.close_slot(leg, attempt, slot);
                }
                if won && !self.legs[leg].done {
                    self.won(leg, attempt);
                }
                Ok(())
            }
            Err(error) => {
                drop(sent);
                self.failed(id, error)
            }
        }
    }

    /// Ends a leg: the other calls for it are cancelled.
    fn won(&mut self, leg: usize, attempt: usize) {
        self.took.push(self.begun.elapsed().as_secs_f64());
        self.close(leg);
        let parts = self.legs[leg].attempts[attempt].slots.iter().filter_map(|slot| slot.part.as_ref());
        let hedges = parts.filter(|part| part.record.why == Why::Hedge).count();
        self.root().metrics().hedges_won.increment(hedges as u64);
        self.root().counts().won(hedges);
        for (place, other) in self.legs[leg].attempts.iter_mut().enumerate() {
            if place != attempt {
                other.failed = true;
            }
        }
    }

    fn close(&mut self, leg: usize) {
        self.legs[leg].done = true;
        self.open -= 1;
        for id in std::mem::take(&mut self.legs[leg].calls) {
            self.cancel(id);
        }
    }

    /// Cancels what else would fill a slot.
    fn close_slot(&mut self, leg: usize, attempt: usize, slot: usize) {
        for id in self.legs[leg].calls.clone() {
            let asked = &self.asked[id];
            if asked.attempt == attempt && asked.slot == slot {
                self.cancel(id);
            }
        }
    }

    fn cancel(&mut self, id: usize) {
        let root = self.root();
        let asked = &mut self.asked[id];
        if asked.open.take().is_none() {
            return;
        }
        let took = asked.record.sent.elapsed();
        asked.record.took = took;
        asked.record.outcome = Some("cancelled".to_owned());
        drop(asked.take());
        root.metrics().cancels.increment(1);
        root.counts().cancel(1);
        if asked.late {
            // It would have taken longer still.
            let (took, quantile) = (took.as_secs_f64().max(asked.usual), root.settings().hedge.quantile);
            self.history.learn(&asked.record.shards, self.question.phase, took, quantile);
        }
    }

    /// Asks others after an error that others may not have.
    fn failed(&mut self, id: usize, error: Error) -> Result<(), Error> {
        let question = self.question;
        let (root, settings) = (self.root(), self.root().settings());
        let Asked { leg, attempt, slot, rank, .. } = self.asked[id];
        let shards = self.asked[id].record.shards.clone();
        let node = self.asked[id].record.node.clone();
        self.asked[id].record.outcome = Some(error.to_string());
        let memory = root.memory();
        let movable = movable(&error, question.deadline.expired());
        if movable {
            match error.kind {
                Kind::Gone => memory.lags(&node, &question.pinned.uid, &shards, &error),
                Kind::Expired => {}
                Kind::Overloaded => {
                    let time = error.retry_after.unwrap_or(settings.doubted_for);
                    memory.doubt(&node, time.min(settings.doubted_for), Doubt::Refused);
                }
                _ => memory.doubt(&node, settings.doubted_for, Doubt::Failed),
            }
            memory.keep(|node| question.view.known_node(node).is_some());
        }
        // What died of it may die of it again: two leaves are enough.
        let shape = question.danger.shape.filter(|_| deadly(&error));
        let spared = shape.is_some_and(|shape| memory.died(shape(), &node) > 1);
        let attempts = &mut self.legs[leg].attempts;
        attempts[attempt].slots[slot].open = attempts[attempt].slots[slot].open.saturating_sub(1);
        // Another call may fill the slot.
        let open = attempts[attempt].slots[slot].open > 0 || attempts[attempt].slots[slot].part.is_some();
        if self.legs[leg].done || self.legs[leg].attempts[attempt].failed || open {
            return Ok(());
        }
        if let Some(noted) = question.danger.spared.filter(|_| spared) {
            noted.store(true, Ordering::Relaxed);
        }
        let groups = if movable && !spared { self.others(leg, &shards, Trust::Any) } else { Vec::new() };
        // Where nobody is left to ask, nothing is spent.
        let allowed = !groups.is_empty()
            && match error.kind {
                Kind::Gone | Kind::Unavailable => {
                    memory.charge(groups.len());
                    true
                }
                _ => memory.retry(groups.len()),
            };
        if allowed {
            root.metrics().retries.increment(groups.len() as u64);
            root.counts().retry(groups.len());
            let slots = self.split(leg, attempt, slot, groups.len());
            for (slot, group) in slots.into_iter().zip(groups) {
                self.send(Place { leg, attempt, slot, rank }, group, Why::Retry)?;
            }
            return Ok(());
        }
        let leg_state = &mut self.legs[leg];
        leg_state.attempts[attempt].failed = true;
        if leg_state.attempts.iter().any(|attempt| !attempt.failed) {
            return Ok(());
        }
        if !(movable || error.kind == Kind::Expired) {
            return Err(error);
        }
        // Of a canary's death the others need not die too.
        let newer =
            error.kind == Kind::Gone && question.enough.as_ref().is_some_and(|enough| !enough.lagging);
        if question.enough.is_none() || newer || spared && !self.held.is_empty() {
            return Err(Error { message: format!("{}: {}", unanswered(&shards), error.message), ..error });
        }
        self.give_up(leg, Reason::of(&error))
    }

    /// Leaves a leg out of the answer.
    fn give_up(&mut self, leg: usize, reason: Reason) -> Result<(), Error> {
        self.close(leg);
        self.legs[leg].attempts.iter_mut().for_each(|attempt| attempt.failed = true);
        let shards = &self.legs[leg].shards;
        self.missing.extend(shards.iter().map(|at| Missing { shard: at.shard, reason }));
        self.question.enough.as_ref().map_or(Ok(()), |enough| possible(enough, &self.missing))
    }

    /// Makes so many slots of one.
    fn split(&mut self, leg: usize, attempt: usize, slot: usize, into: usize) -> Vec<usize> {
        let slots = &mut self.legs[leg].attempts[attempt].slots;
        let more = slots.len();
        slots.extend(Attempt::new(into.saturating_sub(1)).slots);
        std::iter::once(slot).chain(more..slots.len()).collect()
    }

    /// Other leaves for some shards of a leg; none where a shard has none that
    /// is trusted so far.
    fn others(&self, leg: usize, shards: &[ShardAt], trust: Trust) -> Vec<(NodeId, Vec<ShardAt>)> {
        let question = self.question;
        let tried = &self.legs[leg].tried;
        let (groups, missing) = question.cover(shards, tried, trust);
        if missing.is_empty() && (!question.whole || groups.len() == 1) { groups } else { Vec::new() }
    }

    /// Looks which calls are late, hedges what should be, gives up what need
    /// not be waited for; returns when to look again.
    fn look(&mut self) -> Result<Instant, Error> {
        let root = self.root();
        let settings = root.settings();
        let now = Instant::now();
        let median = median(&mut self.took);
        let stretch = root.memory().stretch();
        let far = now + settings.attempt_timeout;
        let mut next = far;
        for id in 0..self.asked.len() {
            let asked = &mut self.asked[id];
            let Some(sent) = &asked.open else { continue };
            let silent = sent.silent();
            if settings.hedging && !silent {
                if asked.ping_at <= now {
                    root.ping(&asked.record.node, quiet(root, asked.usual));
                    asked.ping_at = now + asked.record.sent.elapsed().max(settings.silent_after);
                }
                next = next.min(asked.ping_at);
            }
            let usual = asked.usual * sent.stretched(stretch);
            let late_after = if silent { 0.0 } else { settings.hedge.late_after(usual, median) };
            let late_at = asked.record.sent + seconds(late_after).min(settings.attempt_timeout);
            if late_at > now {
                next = next.min(late_at);
                continue;
            }
            if !asked.late {
                asked.late = true;
                root.metrics().late.increment(1);
                if sent.late() {
                    root.memory().note(true);
                }
            }
            let overdue_at = asked.record.sent + settings.attempt_timeout;
            if overdue_at <= now && !asked.overdue {
                asked.overdue = true;
                root.memory().doubt(&asked.record.node, settings.doubted_for, Doubt::Failed);
            } else if overdue_at > now {
                next = next.min(overdue_at);
            }
            let overdue = asked.overdue;
            if !settings.hedging && !overdue || !self.held.is_empty() {
                continue;
            }
            if asked.hedged || asked.rank >= settings.hedge.hedges_max {
                continue;
            }
            let at_once = overdue || silent;
            let patience = if at_once { 1.0 } else { settings.hedge.patience(self.open, self.legs.len()) };
            let hedge_at = asked.record.sent + seconds(late_after * patience).min(settings.attempt_timeout);
            let again = if hedge_at > now {
                hedge_at
            } else {
                match self.hedge(id, silent, overdue)? {
                    true => now + seconds(late_after),
                    // Nobody is left to ask, or nothing to spend: later, perhaps.
                    false => now + seconds(late_after).max(settings.attempt_timeout / 100),
                }
            };
            next = next.min(again);
        }
        if let Some(at) = self.leave_behind(now, median)? {
            next = next.min(at);
        }
        Ok(next)
    }

    /// Asks others for what a call was asked; whether it did.
    fn hedge(&mut self, id: usize, silent: bool, overdue: bool) -> Result<bool, Error> {
        let root = self.root();
        let Asked { leg, attempt, slot, rank, .. } = self.asked[id];
        let shards = self.asked[id].record.shards.clone();
        let groups = self.others(leg, &shards, if overdue { Trust::Any } else { Trust::Well });
        // A slot of several has one answer; the only one may become several.
        let several = self.legs[leg].attempts[attempt].slots.len() > 1;
        if groups.is_empty() || several && groups.len() > 1 {
            return Ok(false);
        }
        if let Err(why) = root.memory().hedge(groups.len(), !silent, silent || overdue) {
            // It is looked at again and again.
            if !std::mem::replace(&mut self.asked[id].withheld, true) {
                match why {
                    Withheld::Budget => root.metrics().withheld_budget.increment(1),
                    Withheld::EverythingIsSlow => root.metrics().withheld_slow.increment(1),
                }
                root.counts().withheld(why);
            }
            return Ok(false);
        }
        root.metrics().hedges.increment(groups.len() as u64);
        root.counts().hedge(groups.len());
        self.asked[id].hedged = true;
        let (attempt, slots) = if several {
            (attempt, vec![slot])
        } else {
            self.legs[leg].attempts.push(Attempt::new(groups.len()));
            (self.legs[leg].attempts.len() - 1, (0..groups.len()).collect())
        };
        for (slot, group) in slots.into_iter().zip(groups) {
            self.send(Place { leg, attempt, slot, rank: rank + 1 }, group, Why::Hedge)?;
        }
        Ok(true)
    }

    /// With enough covered, gives up the stragglers that are not worth the
    /// wait: as long again as the others took, or usually take, and no longer
    /// than the deadline allows. Returns when to look again.
    fn leave_behind(&mut self, now: Instant, median: Option<f64>) -> Result<Option<Instant>, Error> {
        let Some(enough) = &self.question.enough else { return Ok(None) };
        let mut open: u64 = 0;
        let mut usual: f64 = 0.0;
        for leg in self.legs.iter().filter(|leg| !leg.done) {
            open += leg.shards.iter().map(|at| documents(enough, at.shard)).sum::<u64>();
            let newest = leg.calls.last().map(|id| self.asked[*id].usual);
            usual = usual.max(newest.unwrap_or_default());
        }
        let lost: u64 = self.missing.iter().map(|missing| documents(enough, missing.shard)).sum();
        let whole: u64 = enough.documents.iter().sum();
        let covered = whole.saturating_sub(open).saturating_sub(lost);
        let at_last = self.question.deadline.instant();
        let until = if covered as f64 >= enough.least && !self.took.is_empty() {
            let took = self.took.iter().copied().fold(0.0, f64::max);
            let patience = self.root().settings().hedge.late_after(usual, median).max(took);
            (self.begun + seconds(2.0 * patience)).min(at_last)
        } else {
            at_last
        };
        if until > now {
            return Ok(Some(until));
        }
        if (covered as f64) < enough.least {
            // The calls' own deadlines say what is wrong.
            return Ok(None);
        }
        for leg in 0..self.legs.len() {
            if !self.legs[leg].done {
                let reason = if at_last <= now { Reason::Expired } else { Reason::Slow };
                self.give_up(leg, reason)?;
            }
        }
        Ok(None)
    }
}

impl<T> Drop for Flight<'_, '_, T> {
    fn drop(&mut self) {
        let mut open = 0;
        let mut calls = self.question.calls.0.lock().unwrap_or_else(PoisonError::into_inner);
        for mut asked in self.asked.drain(..) {
            if asked.open.is_some() {
                open += 1;
                asked.record.took = asked.record.sent.elapsed();
                asked.record.outcome = Some("given up".to_owned());
            }
            calls.push((self.question.phase, asked.record));
        }
        if open > 0 {
            self.question.root.metrics().cancels.increment(open as u64);
            self.question.root.counts().cancel(open);
        }
    }
}

pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(FAR)
}

fn median(values: &mut [f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let middle = values.len() / 2;
    Some(*values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

/// Whether another replica may do better.
fn movable(error: &Error, expired: bool) -> bool {
    match error.kind {
        Kind::Unavailable | Kind::Overloaded | Kind::Gone | Kind::Internal => true,
        // A leaf that cannot make it says so at once, and another may.
        Kind::Expired => !expired,
        _ => false,
    }
}
