//! A question under way: its legs, their calls, and what becomes of each.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use model::ids::NodeId;
use proto::Error;
use proto::leaf::ShardAt;
use tokio::time::Instant;

use super::call::{Asked, Record, Running, Why};
use super::leg::{Attempt, Leg, Place};
use super::question::{Gathered, Part, Question};
use crate::cover::{Missing, Tried};
use crate::memory::History;
use crate::ping::quiet;
use crate::root::Root;

/// A question under way.
pub(super) struct Flight<'q, 'a, T> {
    pub(super) question: &'q Question<'a, T>,
    pub(super) history: Arc<History>,
    pub(super) legs: Vec<Leg<T>>,
    pub(super) asked: Vec<Asked<T>>,
    pub(super) running: FuturesUnordered<Running<T>>,
    /// Legs without an answer.
    pub(super) open: usize,
    /// Legs that wait for a canary.
    pub(super) held: Vec<(NodeId, Vec<ShardAt>)>,
    /// Seconds that legs took which have ended.
    pub(super) took: Vec<f64>,
    pub(super) missing: Vec<Missing>,
    pub(super) begun: Instant,
}

impl<'q, 'a, T: Send + 'static> Flight<'q, 'a, T> {
    pub(super) fn new(question: &'q Question<'a, T>, missing: Vec<Missing>) -> Self {
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

    pub(super) fn root(&self) -> &'q Root {
        self.question.root
    }

    /// Who was asked for what of a leg.
    pub(super) fn tried(&self, leg: usize) -> Tried<'_> {
        let records = self.legs[leg].calls.iter().map(|id| &self.asked[*id].record);
        Tried::of(records.map(|record| (&record.node, &record.shards[..])))
    }

    pub(super) async fn run(mut self, mut groups: Vec<(NodeId, Vec<ShardAt>)>) -> Result<Gathered<T>, Error> {
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
        let known = self.missing.len();
        loop {
            if self.open == 0 {
                // A canary that was given up has shown nothing, and the search is
                // begun anew without it.
                if self.held.is_empty() || self.missing.len() > known {
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
        // What is done twice earns nothing: it is a further send itself.
        match self.question.again {
            false => self.root().memory().earn(groups.len()),
            true => self.root().memory().charge(groups.len()),
        }
        for group in groups {
            let leg = self.legs.len();
            self.legs.push(Leg {
                shards: group.1.clone(),
                attempts: vec![Attempt::new(1)],
                calls: Vec::new(),
                done: false,
            });
            self.open += 1;
            self.send(Place { leg, attempt: 0, slot: 0 }, group, Why::First)?;
        }
        Ok(())
    }

    pub(super) fn send(
        &mut self,
        place: Place,
        group: (NodeId, Vec<ShardAt>),
        why: Why,
    ) -> Result<(), Error> {
        let root = self.root();
        let Place { leg, attempt, slot } = place;
        let (node, shards) = group;
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
                    self.cancel_where(leg, |asked| asked.attempt == attempt && asked.slot == slot);
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

    pub(super) fn close(&mut self, leg: usize) {
        self.legs[leg].done = true;
        self.open -= 1;
        for id in std::mem::take(&mut self.legs[leg].calls) {
            self.cancel(id);
        }
    }

    /// Cancels what nobody waits for any more of a leg.
    pub(super) fn cancel_where(&mut self, leg: usize, such: impl Fn(&Asked<T>) -> bool) {
        for place in 0..self.legs[leg].calls.len() {
            let id = self.legs[leg].calls[place];
            if such(&self.asked[id]) {
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
