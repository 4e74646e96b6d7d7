//! Calls that take long: whose leaf is pinged, which are made to another leaf
//! too, and which are not waited for.

use std::time::Duration;

use model::standing::Doubt;
use proto::Error;
use tokio::time::Instant;

use super::call::{Asked, Why};
use super::flight::Flight;
use super::leg::{Attempt, Place};
use crate::cover::{Reason, Trust, documents};
use crate::memory::Withheld;
use crate::ping::quiet;

/// The part of `attempt_timeout` for which a straggler is waited for in any case:
/// 20 ms, in which a healthy machine may be busy with something else.
const STRAGGLER_PART: u32 = 25;

/// How much longer it may take to ask those again that have answered: they are
/// as busy as they were, give or take.
const AGAIN: f64 = 1.5;

/// Longer than anything is waited for.
const FAR: Duration = Duration::from_secs(1_000_000_000);

impl<T: Send + 'static> Flight<'_, '_, T> {
    /// Looks which calls are late, hedges what should be, gives up what need
    /// not be waited for; returns when to look again.
    pub(super) fn look(&mut self) -> Result<Instant, Error> {
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
                // It may be there and be long: one that is not is silent.
                root.memory().doubt(&asked.record.node, settings.doubted_for, Doubt::Late);
            } else if overdue_at > now {
                next = next.min(overdue_at);
            }
            let overdue = asked.overdue;
            if !settings.hedging && !overdue || !self.held.is_empty() {
                continue;
            }
            let (leg, sent) = (asked.leg, asked.record.sent);
            if asked.hedged || self.hedges(leg, id) >= settings.hedge.hedges_max as usize {
                continue;
            }
            let at_once = overdue || silent;
            let patience = if at_once { 1.0 } else { settings.hedge.patience(self.open, self.legs.len()) };
            let hedge_at = sent + seconds(late_after * patience).min(settings.attempt_timeout);
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

    /// How often others were asked for what a call was asked: each time for all of
    /// its shards, so that any of them tells.
    fn hedges(&self, leg: usize, id: usize) -> usize {
        let any = self.asked[id].record.shards.first();
        let calls = self.legs[leg].calls.iter().map(|id| &self.asked[*id].record);
        calls.filter(|call| call.why == Why::Hedge && any.is_some_and(|at| call.shards.contains(at))).count()
    }

    /// Asks others for what a call was asked; whether it did.
    fn hedge(&mut self, id: usize, silent: bool, overdue: bool) -> Result<bool, Error> {
        let root = self.root();
        let Asked { leg, attempt, slot, .. } = self.asked[id];
        let shards = self.asked[id].record.shards.clone();
        let trust = if overdue { Trust::Any } else { Trust::Well };
        let tried = self.tried(leg);
        let apart = tried.clone().apart(self.question.view, &shards);
        let mut groups = self.others(&apart, &shards, trust);
        // Nobody is left to wait for: a neighbour is better than none.
        if groups.is_empty() && (silent || overdue) {
            groups = self.others(&tried, &shards, trust);
        }
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
            if self.legs[leg].done || self.legs[leg].attempts[attempt].failed {
                break;
            }
            self.send(Place { leg, attempt, slot }, group, Why::Hedge)?;
        }
        Ok(true)
    }

    /// With enough covered, gives up the stragglers that are not worth the
    /// wait: twice as long again as the others took, or usually take, for the
    /// others are then asked once more; and no longer than the deadline leaves
    /// time for that. Returns when to look again.
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
            let least = self.root().settings().attempt_timeout / STRAGGLER_PART;
            let until = self.begun + seconds(3.0 * patience).max(least);
            // Where there never was time to ask again, the rest is worth the wait.
            let again = at_last.checked_sub(seconds(AGAIN * took));
            let again = again.filter(|again| *again >= self.begun + seconds(took));
            until.min(again.unwrap_or(at_last))
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
                let shards = self.legs[leg].shards.clone();
                self.give_up(leg, &shards, reason)?;
            }
        }
        Ok(None)
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
