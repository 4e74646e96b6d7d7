//! What waits, by class, and which is next.
//!
//! **Invariant:** the oldest of the first class that waits is next, but nobody
//! waits while more than [`PASSED_MAX`] jobs of classes before it begin.

use std::collections::VecDeque;

/// Jobs of classes before it that may begin while one waits: a class gets at
/// least a seventeenth of a pool that is never idle.
const PASSED_MAX: u32 = 16;

/// Which jobs begin first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// The rest of what was searched: small, and its search is paid for.
    Fetch,
    /// What somebody waits for.
    Search,
}

/// How many classes there are.
pub(super) const CLASSES: usize = 2;

impl Priority {
    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// Jobs that wait.
pub(super) struct Queue<J> {
    classes: [Class<J>; CLASSES],
}

struct Class<J> {
    jobs: VecDeque<J>,
    /// Jobs of classes before this one that began since the last of this one.
    passed: u32,
}

impl<J> Queue<J> {
    pub(super) fn new() -> Self {
        Self { classes: std::array::from_fn(|_| Class { jobs: VecDeque::new(), passed: 0 }) }
    }

    pub(super) fn push(&mut self, priority: Priority, job: J) {
        self.classes[priority.index()].jobs.push_back(job);
    }

    pub(super) fn pop(&mut self) -> Option<J> {
        let waits = |class: &Class<J>| !class.jobs.is_empty();
        // The last first: it is passed by the most.
        let due = self.classes.iter().rposition(|class| waits(class) && class.passed >= PASSED_MAX);
        let next = due.or_else(|| self.classes.iter().position(waits))?;
        let job = self.classes[next].jobs.pop_front();
        self.classes[next].passed = 0;
        for passed in &mut self.classes[next + 1..] {
            passed.passed = if waits(passed) { passed.passed + 1 } else { 0 };
        }
        job
    }

    /// Jobs of a class, those that nobody waits for included.
    pub(super) fn len(&self, priority: Priority) -> usize {
        self.classes[priority.index()].jobs.len()
    }

    /// Drops the jobs of a class that are not to be kept.
    pub(super) fn retain(&mut self, priority: Priority, keep: impl FnMut(&J) -> bool) {
        self.classes[priority.index()].jobs.retain(keep);
    }

    /// Takes everything out.
    pub(super) fn drain(&mut self) -> Vec<J> {
        self.classes.iter_mut().flat_map(|class| class.jobs.drain(..)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fetches_begin_before_searches() {
        let mut queue = Queue::new();
        for (number, priority) in
            [Priority::Search, Priority::Fetch, Priority::Search].into_iter().enumerate()
        {
            queue.push(priority, number);
        }
        let order: Vec<usize> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [1, 0, 2]);
    }

    #[test]
    fn nobody_waits_for_ever() {
        let mut queue = Queue::new();
        queue.push(Priority::Search, Priority::Search);
        let mut begun = Vec::new();
        for _ in 0..40 {
            queue.push(Priority::Fetch, Priority::Fetch);
            begun.extend(queue.pop());
        }
        let place = |priority| begun.iter().position(|begun| *begun == priority).unwrap();
        assert!(place(Priority::Search) <= 17, "{begun:?}");
        assert_eq!(begun.iter().filter(|begun| **begun == Priority::Fetch).count(), 39);
    }

    #[test]
    fn one_that_comes_late_is_not_due_at_once() {
        let mut queue = Queue::new();
        for _ in 0..40 {
            queue.push(Priority::Fetch, Priority::Fetch);
            queue.pop();
        }
        queue.push(Priority::Search, Priority::Search);
        queue.push(Priority::Fetch, Priority::Fetch);
        assert_eq!(queue.pop(), Some(Priority::Fetch));
    }
}
