//! Owns tasks.
//!
//! **Invariant:** every task belongs to a scope, and a scope does not end
//! before its tasks. This is the only place that calls [`tokio::spawn`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::task::AbortHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::Shutdown;

/// What happens when a task ends with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The process shuts down: others rely on this task.
    Shutdown,
    /// It is logged.
    Log,
}

/// What a task may return: nothing, or a result whose error is handled by [`OnError`].
pub trait Outcome: Send + 'static {
    /// The error's text, where there is one.
    fn error(self) -> Option<String>;
}

impl Outcome for () {
    fn error(self) -> Option<String> {
        None
    }
}

impl<E: Display + Send + 'static> Outcome for Result<(), E> {
    fn error(self) -> Option<String> {
        // `:#` prints an anyhow error with its causes.
        self.err().map(|error| format!("{error:#}"))
    }
}

/// Tasks did not end within the grace and were aborted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stop in time: {}", .tasks.join(", "))]
pub struct StillRunning {
    /// Their names.
    pub tasks: Vec<String>,
}

/// A set of tasks with one end. Clones share it; dropping the last one asks
/// the tasks to stop without waiting.
#[derive(Clone)]
pub struct TaskScope(Arc<Inner>);

struct Inner {
    token: CancellationToken,
    tracker: TaskTracker,
    tasks: Arc<Mutex<Tasks>>,
    shutdown: Shutdown,
    _stop: DropGuard,
}

#[derive(Default)]
struct Tasks {
    next: u64,
    running: BTreeMap<u64, (Cow<'static, str>, Option<AbortHandle>)>,
}

impl TaskScope {
    /// A scope whose failures go to `shutdown`.
    ///
    /// Its tasks are not stopped by `shutdown`: whoever drains decides the
    /// order in which scopes close.
    #[must_use]
    pub fn new(shutdown: &Shutdown) -> Self {
        Self::with(shutdown, CancellationToken::new())
    }

    /// A scope that is also asked to stop when this one is.
    #[must_use]
    pub fn child(&self) -> Self {
        Self::with(&self.0.shutdown, self.0.token.child_token())
    }

    fn with(shutdown: &Shutdown, token: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            _stop: token.clone().drop_guard(),
            token,
            tracker: TaskTracker::new(),
            tasks: Arc::default(),
            shutdown: shutdown.clone(),
        }))
    }

    /// The token that the scope's tasks get.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.0.token
    }

    /// Starts a task. It ends soon after its token is cancelled. A panic shuts
    /// the process down, whatever `on_error` says.
    pub fn spawn<F, T>(&self, name: impl Into<Cow<'static, str>>, on_error: OnError, task: F)
    where
        F: FnOnce(CancellationToken) -> T,
        T: Future<Output: Outcome> + Send + 'static,
    {
        let name = name.into();
        let future = task(self.0.token.clone());
        let number = {
            let mut tasks = lock(&self.0.tasks);
            tasks.next += 1;
            let number = tasks.next;
            tasks.running.insert(number, (name.clone(), None));
            number
        };
        let done = Done { tasks: self.0.tasks.clone(), number };
        let shutdown = self.0.shutdown.clone();
        let handle = spawn(self.0.tracker.track_future(async move {
            let _done = done;
            match AssertUnwindSafe(future).catch_unwind().await {
                Ok(outcome) => match (outcome.error(), on_error) {
                    (None, _) => {}
                    (Some(error), OnError::Log) => {
                        tracing::error!(task = %name, error, "a task failed");
                    }
                    (Some(error), OnError::Shutdown) => shutdown.fail(format!("{name}: {error}")),
                },
                Err(_panic) => shutdown.fail(format!("{name}: panicked")),
            }
        }));
        // The task may have ended already, and then there is no entry.
        if let Some(entry) = lock(&self.0.tasks).running.get_mut(&number) {
            entry.1 = Some(handle);
        }
    }

    /// Names of the tasks that run, in the order in which they started.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        let tasks = lock(&self.0.tasks);
        tasks.running.values().map(|(name, _)| name.to_string()).collect()
    }

    /// Asks the tasks to stop and waits for them.
    ///
    /// # Errors
    /// Names those that did not stop within `grace`; they are aborted.
    pub async fn close(&self, grace: Duration) -> Result<(), StillRunning> {
        self.0.token.cancel();
        self.0.tracker.close();
        if tokio::time::timeout(grace, self.0.tracker.wait()).await.is_ok() {
            return Ok(());
        }
        let tasks = self.running();
        for (_, handle) in lock(&self.0.tasks).running.values() {
            if let Some(handle) = handle {
                handle.abort();
            }
        }
        Err(StillRunning { tasks })
    }
}

struct Done {
    tasks: Arc<Mutex<Tasks>>,
    number: u64,
}

impl Drop for Done {
    fn drop(&mut self) {
        lock(&self.tasks).running.remove(&self.number);
    }
}

fn lock(tasks: &Mutex<Tasks>) -> MutexGuard<'_, Tasks> {
    tasks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a task that outlives every scope.
#[expect(clippy::disallowed_methods, reason = "scopes are built on it")]
pub(crate) fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> AbortHandle {
    tokio::spawn(task).abort_handle()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(1);

    fn false_now() -> bool {
        std::hint::black_box(false)
    }

    #[tokio::test(start_paused = true)]
    async fn closing_stops_tasks_and_waits_for_them() {
        let scope = TaskScope::new(&Shutdown::new());
        scope.spawn("a", OnError::Log, |token| async move { token.cancelled().await });
        assert_eq!(scope.running(), ["a"]);
        assert_eq!(scope.close(GRACE).await, Ok(()));
        assert!(scope.running().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn closing_names_who_is_still_running() {
        let scope = TaskScope::new(&Shutdown::new());
        scope.spawn("deaf", OnError::Log, |_| std::future::pending::<()>());
        let error = scope.close(GRACE).await.unwrap_err();
        assert_eq!(error.to_string(), "stop in time: deaf");
    }

    #[tokio::test]
    async fn a_failed_task_shuts_the_process_down() {
        let shutdown = Shutdown::new();
        let scope = TaskScope::new(&shutdown);
        scope.spawn("bad", OnError::Shutdown, |_| async { Err("no") });
        shutdown.requested().await;
        assert_eq!(shutdown.failure().as_deref(), Some("bad: no"));
    }

    #[tokio::test]
    async fn a_panic_shuts_the_process_down() {
        let shutdown = Shutdown::new();
        let scope = TaskScope::new(&shutdown);
        scope.spawn("bad", OnError::Log, |_| async { assert!(false_now(), "on purpose") });
        shutdown.requested().await;
        assert_eq!(shutdown.failure().as_deref(), Some("bad: panicked"));
    }

    #[tokio::test]
    async fn a_child_stops_with_its_parent_and_not_the_other_way() {
        let parent = TaskScope::new(&Shutdown::new());
        let child = parent.child();
        child.close(GRACE).await.unwrap();
        assert!(!parent.token().is_cancelled());
        let child = parent.child();
        parent.close(GRACE).await.unwrap();
        assert!(child.token().is_cancelled());
    }
}
