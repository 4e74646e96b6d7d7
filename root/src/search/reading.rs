//! What all questions of a search have in common.

use std::time::Duration;

use cluster::{Index, View};
use proto::Error;
use runtime::Deadline;

use crate::cover::{Enough, Missing};
use crate::memory::Phase;
use crate::root::Root;
use crate::scatter::{Call, Calls, Danger, Gathered, Question};

/// Of the time that is left, so much is kept for merging, and no more than so
/// much.
const MERGING: u32 = 20;
const MERGING_MAX: Duration = Duration::from_millis(20);

/// Leaves the time for merging.
pub(super) fn less_merging(deadline: Deadline) -> Deadline {
    deadline.less((deadline.remaining() / MERGING).min(MERGING_MAX))
}

/// Why an attempt has no answer.
pub(crate) enum Failed {
    Error(Error),
    /// Shards were lost on the way: what was scored with their statistics is
    /// not what an index without them would say.
    Lost(Vec<Missing>),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// A state that is read, and how.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    pub(crate) root: &'a Root,
    pub(crate) view: &'a View,
    pub(crate) pinned: &'a Index,
    pub(crate) enough: Option<&'a Enough>,
    /// Whether it was read before, in vain.
    pub(crate) again: bool,
    pub(crate) calls: &'a Calls,
}

impl<'a> Reading<'a> {
    /// A question that each leaf answers for its shards, and that can do no harm.
    pub(crate) fn question<'q, T>(
        &self,
        phase: Phase,
        deadline: Deadline,
        call: &'q Call<'q, T>,
    ) -> Question<'q, T>
    where
        'a: 'q,
    {
        let Self { root, view, pinned, enough, again, calls } = *self;
        Question {
            root,
            view,
            pinned,
            call,
            load: |_| None,
            phase,
            whole: false,
            deadline,
            again,
            enough: enough.cloned(),
            danger: Danger::NONE,
            calls,
        }
    }

    /// What was gathered, unless shards were lost on the way.
    pub(crate) fn unless_lost<T>(&self, gathered: Gathered<T>) -> Result<Gathered<T>, Failed> {
        let known = self.enough.map_or(0, |enough| enough.missing.len());
        if gathered.missing.len() > known { Err(Failed::Lost(gathered.missing)) } else { Ok(gathered) }
    }
}
