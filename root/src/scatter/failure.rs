//! Calls that fail: who else is asked, and what is done without.

use std::sync::atomic::Ordering;

use model::ids::NodeId;
use model::standing::Doubt;
use proto::leaf::ShardAt;
use proto::{Error, Kind};

use super::call::{Asked, Why};
use super::flight::Flight;
use super::leg::{Attempt, Place};
use crate::cover::{Missing, Reason, Tried, Trust, possible};
use crate::memory::{deadly, lacking};

impl<T: Send + 'static> Flight<'_, '_, T> {
    /// Asks others after an error that others may not have.
    pub(super) fn failed(&mut self, id: usize, error: Error) -> Result<(), Error> {
        let question = self.question;
        let (root, settings) = (self.root(), self.root().settings());
        let Asked { leg, attempt, slot, .. } = self.asked[id];
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
            let there_are = question.view.nodes.len() + question.view.departed.len();
            memory.keep(there_are, |node| question.view.known_node(node).is_some());
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
        let groups =
            if movable && !spared { self.others(&self.tried(leg), &shards, Trust::Any) } else { Vec::new() };
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
                if self.legs[leg].done {
                    break;
                }
                self.send(Place { leg, attempt, slot }, group, Why::Retry)?;
            }
            return Ok(());
        }
        let leg_state = &mut self.legs[leg];
        leg_state.attempts[attempt].failed = true;
        if leg_state.attempts.iter().any(|attempt| !attempt.failed) {
            // What else is under way for this attempt fills nothing any more.
            self.cancel_where(leg, |asked| asked.attempt == attempt);
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
        let lost: Vec<ShardAt> = match error.kind {
            // The leaf has the others: they are asked for when it is begun anew.
            Kind::Gone => lacking(&shards, &error).into_iter().map(|(at, _)| at).collect(),
            _ => self.legs[leg].shards.clone(),
        };
        self.give_up(leg, &lost, Reason::of(&error))
    }

    /// Leaves a leg out, and shards of it out of the answer.
    pub(super) fn give_up(&mut self, leg: usize, shards: &[ShardAt], reason: Reason) -> Result<(), Error> {
        self.close(leg);
        self.legs[leg].attempts.iter_mut().for_each(|attempt| attempt.failed = true);
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

    /// Leaves but `these` for some shards; none where a shard has none that is
    /// trusted so far.
    pub(super) fn others(
        &self,
        these: &Tried<'_>,
        shards: &[ShardAt],
        trust: Trust,
    ) -> Vec<(NodeId, Vec<ShardAt>)> {
        let question = self.question;
        let (groups, missing) = question.cover(shards, these, trust);
        if missing.is_empty() && (!question.whole || groups.len() == 1) { groups } else { Vec::new() }
    }
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

/// Whether another replica may do better.
fn movable(error: &Error, expired: bool) -> bool {
    match error.kind {
        Kind::Unavailable | Kind::Overloaded | Kind::Gone | Kind::Internal => true,
        // A leaf that cannot make it says so at once, and another may.
        Kind::Expired => !expired,
        _ => false,
    }
}
