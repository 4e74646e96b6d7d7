//! Searches: attempts at one until it is answered, and what is told of them.

mod attempt;
mod documents;
mod reading;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster::Index;
use model::ids::IndexName;
use proto::search::{Answer, Profile, Request};
use proto::{Error, Kind};
use runtime::Deadline;

use self::trace::{Trace, tell};
use crate::admission::{Class, Permit};
use crate::cover::{Missing, Reason, failure};
use crate::root::Root;
use crate::scatter::Calls;

pub(crate) use self::reading::{Failed, Reading};

/// Between attempts at a search whose generation was gone, unless the index
/// moves sooner.
pub(crate) const RESTART_AFTER: Duration = Duration::from_millis(50);

/// The longest such time: each time it is twice as long.
const RESTART_AFTER_MAX: Duration = Duration::from_millis(400);

/// How often a search is begun anew since shards were lost on the way: more than
/// that fail at once only where something is wrong with all of them.
const LOST_TIMES_MAX: usize = 3;

#[async_trait]
impl proto::search::Search for Root {
    fn refusal(&self) -> Option<Error> {
        self.admission().refusal(Class::Interactive)
    }

    async fn search(&self, request: Request) -> Result<Answer, Error> {
        let mut trace = Trace::new();
        let calls = Calls::default();
        let started = trace.begun;
        let metrics = self.metrics();
        let mut permit = None;
        let mut answer = self.covered(&request, false, &mut trace, &calls, &mut permit).await;
        // A leaf has dropped a generation that this root still read, or has not
        // come to it yet: the whole query starts again, from statistics, on the
        // newest cut. From then on an answer may do without it, where it may lack
        // anything.
        let until = request.deadline.sooner(Deadline::after(self.settings().restart_within));
        let mut pause = RESTART_AFTER;
        while answer.as_ref().is_err_and(|error| error.kind == Kind::Gone) && request.at.is_none() {
            if until.expired() {
                answer = answer.map_err(|error| Error::unavailable(format!("{}: retry", error.message)));
                break;
            }
            self.another(&request.index, Deadline::after(pause).sooner(until)).await;
            pause = (2 * pause).min(RESTART_AFTER_MAX);
            metrics.restarts.increment(1);
            answer = self.covered(&request, true, &mut trace, &calls, &mut permit).await;
        }
        if let Some(permit) = permit {
            let refused = |answer: &Answer| {
                answer.coverage.missing.iter().any(|missing| missing.reason == Reason::Refused.name())
            };
            // Leaves that refuse are no less busy where an answer may lack them.
            let overload = || Error::overloaded("shards of the answer were refused");
            let lacking = answer.as_ref().is_ok_and(refused).then(overload);
            permit.done(answer.as_ref().err().or(lacking.as_ref()));
        }
        let took = started.elapsed();
        metrics.searches.increment(1);
        metrics.seconds.record(took.as_secs_f64());
        match &answer {
            Ok(answer) if !answer.coverage.missing.is_empty() => metrics.partial.increment(1),
            Ok(_) => {}
            Err(_) => metrics.failed.increment(1),
        }
        let slow = self.settings().slow_query;
        let slow = !slow.is_zero() && took >= slow && self.slow().admits(started);
        if !slow && !request.profile {
            return answer;
        }
        let calls = calls.take();
        if slow {
            tell(&request, &trace, &calls, took, answer.as_ref().err());
        }
        answer.map(|answer| {
            let profile = answer.profile.map(|profile| Profile { leaves: trace.leaves(calls), ..profile });
            Answer { profile, ..answer }
        })
    }
}

impl Root {
    /// An answer that covers enough: where shards are lost it is begun anew
    /// without them, so that it is what an index of the others would say.
    async fn covered<'a>(
        &'a self,
        request: &Request,
        lagging: bool,
        trace: &mut Trace,
        calls: &Calls,
        permit: &mut Option<Permit<'a>>,
    ) -> Result<Answer, Error> {
        let mut excluded: Vec<Missing> = Vec::new();
        for _ in 0..=LOST_TIMES_MAX {
            match self.attempt(request, trace, calls, permit, &excluded, lagging).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Error(error)) => return Err(error),
                // One more at least, each time.
                Err(Failed::Lost(missing)) => excluded = missing,
            }
        }
        Err(failure("one shard after another was lost on the way", &excluded, "retry"))
    }

    /// Waits for another state, or other places, of an index.
    pub(crate) async fn another(&self, name: &IndexName, within: Deadline) {
        let before = self.view().indexes.get(name).cloned();
        let same = |index: &Arc<Index>| {
            before.as_ref().is_some_and(|before| {
                (before.cut.number, &before.placement) == (index.cut.number, &index.placement)
            })
        };
        self.wait_for(within, |view| (!view.indexes.get(name).is_some_and(same)).then_some(())).await;
    }
}
