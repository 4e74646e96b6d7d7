//! A bounded pool of threads for CPU work.
//!
//! ```text
//! run() ──► queue of its class (bounded; full, or too late: refused at once) ──► threads
//!   └ future, holds a guard ── dropped ──► out of the queue, cancel flag ──────────┘
//! ```
//!
//! **Invariant:** a job whose future was dropped, or whose deadline passed,
//! while it was queued never starts. A running one sees [`Cancel::cancelled`].

mod metrics;
mod queue;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use self::metrics::Metrics;
pub use self::queue::Priority;
use self::queue::{CLASSES, Queue};
use crate::{Cancel, Deadline};

/// How a pool is built.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads. Search is CPU work: more than the cores only adds switching.
    pub threads: usize,
    /// Jobs of a class that may wait. Beyond this a caller is better off
    /// hearing "no".
    pub queue_max: usize,
    /// Name of the threads, and the metrics' label.
    pub name: String,
    /// How far the threads yield to others (`nice`), 0 to 19, where the system
    /// has that. Those who answer calls must not wait for those who compute: a
    /// refusal would be as slow as an answer.
    pub yielding: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            // A thousand searches of 1 ms are the second after which people give up.
            queue_max: 1024,
            name: "cpu".to_owned(),
            yielding: 0,
        }
    }
}

/// Why a job has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The queue is full; nothing was queued.
    #[error("queue work: the queue is full")]
    Full,
    /// What waits already takes longer than until its deadline; nothing was
    /// queued.
    #[error("queue work: it could not be done before its deadline")]
    Late,
    /// The deadline passed before the job started.
    #[error("start work: its deadline passed in the queue")]
    Expired,
    /// The job was cancelled before it started.
    #[error("start work: it was cancelled in the queue")]
    Cancelled,
    /// The job panicked; this is what it said.
    #[error("finish work: it panicked: {0}")]
    Panicked(String),
    /// The pool is closed.
    #[error("queue work: the pool is closed")]
    Closed,
}

/// How busy a pool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Jobs that run.
    pub running: usize,
    /// Jobs that wait and that somebody waits for.
    pub queued: usize,
    /// How long a [`Priority::Search`] runs lately; zero while nobody knows.
    pub service: Duration,
}

/// A pool. Clones share it; the last one dropped closes it.
#[derive(Clone)]
pub struct Pool(Arc<Owner>);

impl Pool {
    /// Starts the threads.
    ///
    /// # Panics
    /// When the system has no more threads.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let threads = settings.threads.max(1);
        let shared = Arc::new(Shared {
            queue: Mutex::new(State { jobs: Queue::new(), idle: 0, closed: false }),
            wake: Condvar::new(),
            alive: watch::Sender::new(threads),
            metrics: Metrics::new(&settings.name),
            threads,
            queue_max: settings.queue_max,
            queued: Default::default(),
            running: AtomicUsize::new(0),
            service: Default::default(),
        });
        for index in 0..threads {
            let shared = shared.clone();
            let yielding = settings.yielding;
            std::thread::Builder::new()
                .name(format!("{}-{index}", settings.name))
                .spawn(move || {
                    crate::system::yield_to_others(yielding);
                    shared.work();
                })
                .expect("the system gives us the few threads of a pool");
        }
        Self(Arc::new(Owner(shared)))
    }

    /// Queues `work` at once and returns the future of its result.
    ///
    /// It is refused where what waits before it, at the pace of late, takes
    /// longer than until its deadline. The future does not wake by itself at
    /// the deadline: a job that is still queued then is refused when a thread
    /// takes it, and a running one sees it through [`Cancel::check`]. Callers
    /// that must answer in time race it.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the job, queued or running.
    pub fn run<T, F>(&self, priority: Priority, deadline: Deadline, work: F) -> Run<T>
    where
        T: Send + 'static,
        F: FnOnce(&Cancel) -> T + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let cancel = Cancel::until(deadline);
        let waits = Arc::new(AtomicBool::new(true));
        let job = Job {
            priority,
            cancel: cancel.clone(),
            waits: waits.clone(),
            queued_at: Instant::now(),
            work: Box::new(move |verdict| match verdict {
                Verdict::Start(cancel) => {
                    let outcome = catch_unwind(AssertUnwindSafe(|| work(cancel)))
                        .map_err(|panic| PoolError::Panicked(said(panic.as_ref())));
                    Finished(Box::new(move || drop(reply.send(outcome))))
                }
                Verdict::Refuse(error) => Finished(Box::new(move || drop(reply.send(Err(error))))),
            }),
        };
        match self.0.0.submit(job, deadline) {
            Ok(()) => {
                let guard = Waiter { shared: self.0.0.clone(), priority, waits, cancel };
                Run { state: Waiting::For(result), guard: Guard(Some(guard)) }
            }
            Err(error) => Run { state: Waiting::Refused(Some(error)), guard: Guard(None) },
        }
    }

    /// How busy it is. A few loads: ask as often as you like.
    #[must_use]
    pub fn load(&self) -> Load {
        let shared = &*self.0.0;
        Load {
            running: shared.running.load(Ordering::Relaxed),
            queued: shared.queued.iter().map(|queued| queued.load(Ordering::Relaxed)).sum(),
            service: shared.service[Priority::Search.index()].mean(),
        }
    }

    /// Refuses new and queued jobs and waits for the running ones.
    ///
    /// # Cancel safety
    /// The pool stays closed.
    pub async fn close(&self) {
        self.0.0.shut();
        let mut alive = self.0.0.alive.subscribe();
        // The sender lives as long as `self`, so this ends with the last thread.
        let _ended = alive.wait_for(|threads| *threads == 0).await;
    }
}

/// The future of a job's result. Dropping it cancels the job.
#[must_use = "dropping the future cancels the job"]
pub struct Run<T> {
    state: Waiting<T>,
    guard: Guard,
}

impl<T> Future for Run<T> {
    type Output = Result<T, PoolError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = match &mut self.state {
            Waiting::Refused(error) => Err(error.take().unwrap_or(PoolError::Closed)),
            Waiting::For(result) => match Pin::new(result).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(outcome)) => outcome,
                Poll::Ready(Err(_gone)) => Err(PoolError::Closed),
            },
        };
        self.guard.0 = None;
        Poll::Ready(outcome)
    }
}

enum Waiting<T> {
    For(oneshot::Receiver<Result<T, PoolError>>),
    Refused(Option<PoolError>),
}

/// Cancels the job of a future that is dropped before it ended.
struct Guard(Option<Waiter>);

struct Waiter {
    shared: Arc<Shared>,
    priority: Priority,
    waits: Arc<AtomicBool>,
    cancel: Cancel,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(Waiter { shared, priority, waits, cancel }) = &self.0 else { return };
        cancel.cancel();
        if waits.swap(false, Ordering::AcqRel) {
            shared.left(*priority);
            shared.ended_queued(cancel);
        }
    }
}

struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.shut();
    }
}

struct Job {
    priority: Priority,
    cancel: Cancel,
    /// Whether it is queued and somebody waits for it. Whoever clears it, the
    /// thread that takes it or the guard, counts it out of the queue.
    waits: Arc<AtomicBool>,
    queued_at: Instant,
    work: Box<dyn FnOnce(Verdict<'_>) -> Finished + Send>,
}

impl Job {
    fn refuse(self, error: PoolError) {
        ((self.work)(Verdict::Refuse(error)).0)();
    }
}

enum Verdict<'a> {
    Start(&'a Cancel),
    Refuse(PoolError),
}

// Sends the reply. Apart from the work, so that the thread counts a job as done
// before anyone can see its result.
struct Finished(Box<dyn FnOnce()>);

struct State {
    jobs: Queue<Job>,
    idle: usize,
    closed: bool,
}

struct Shared {
    queue: Mutex<State>,
    wake: Condvar,
    alive: watch::Sender<usize>,
    metrics: Metrics,
    threads: usize,
    queue_max: usize,
    /// Jobs by class that wait and that somebody waits for.
    queued: [AtomicUsize; CLASSES],
    running: AtomicUsize,
    service: [Mean; CLASSES],
}

/// How long jobs run lately: each counts for a sixteenth, so that one odd job
/// changes little and a change is seen after some dozens.
#[derive(Default)]
struct Mean(AtomicU64);

impl Mean {
    fn note(&self, time: Duration) {
        let new = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
        // Of two that note at the same time one may be lost.
        let known = self.0.load(Ordering::Relaxed);
        let mean = if known == 0 { new } else { known - known / 16 + new / 16 };
        self.0.store(mean.max(1), Ordering::Relaxed);
    }

    fn mean(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Jobs run outside the lock, so a poisoned queue is still whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, job: Job, deadline: Deadline) -> Result<(), PoolError> {
        let priority = job.priority;
        let queued = &self.queued[priority.index()];
        let mut state = self.lock();
        if state.closed {
            return Err(PoolError::Closed);
        }
        let left = deadline.remaining();
        if left.is_zero() {
            self.metrics.expired_queued.increment(1);
            return Err(PoolError::Expired);
        }
        if queued.load(Ordering::Relaxed) >= self.queue_max {
            self.metrics.refused.increment(1);
            return Err(PoolError::Full);
        }
        if self.takes(priority).is_some_and(|takes| takes > left) {
            self.metrics.late.increment(1);
            return Err(PoolError::Late);
        }
        // Those that nobody waits for any more take no more room than the others.
        if state.jobs.len(priority) >= self.queue_max.saturating_mul(2) {
            state.jobs.retain(priority, |job| job.waits.load(Ordering::Relaxed));
        }
        state.jobs.push(priority, job);
        queued.fetch_add(1, Ordering::Relaxed);
        self.metrics.queued.increment(1);
        let wake = state.idle > 0;
        drop(state);
        if wake {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// How long a job of this class would take, its wait included; `None` where
    /// it need not wait for others of the queue.
    fn takes(&self, priority: Priority) -> Option<Duration> {
        let ahead = self.queued[..=priority.index()].iter().zip(&self.service);
        let mut wait = Duration::ZERO;
        for (queued, service) in ahead {
            let queued = u32::try_from(queued.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
            wait = wait.saturating_add(service.mean().saturating_mul(queued));
        }
        let threads = u32::try_from(self.threads).unwrap_or(u32::MAX);
        (!wait.is_zero()).then(|| (wait / threads).saturating_add(self.service[priority.index()].mean()))
    }

    /// Counts a job out of the queue.
    fn left(&self, priority: Priority) {
        self.queued[priority.index()].fetch_sub(1, Ordering::Relaxed);
        self.metrics.queued.decrement(1);
    }

    /// Counts a job that ended in the queue.
    fn ended_queued(&self, cancel: &Cancel) -> PoolError {
        if cancel.expired() {
            self.metrics.expired_queued.increment(1);
            return PoolError::Expired;
        }
        self.metrics.cancelled_queued.increment(1);
        PoolError::Cancelled
    }

    fn shut(&self) {
        let dropped = {
            let mut state = self.lock();
            state.closed = true;
            state.jobs.drain()
        };
        self.wake.notify_all();
        for job in dropped {
            if job.waits.swap(false, Ordering::AcqRel) {
                self.left(job.priority);
                job.refuse(PoolError::Closed);
            }
        }
    }

    fn work(&self) {
        while let Some(job) = self.take() {
            // Otherwise its future is gone, and its guard has counted it.
            if job.waits.swap(false, Ordering::AcqRel) {
                self.left(job.priority);
                self.handle(job);
            }
        }
        self.alive.send_modify(|threads| *threads -= 1);
    }

    fn take(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn handle(&self, job: Job) {
        let metrics = &self.metrics;
        if job.cancel.cancelled() || job.cancel.expired() {
            let error = self.ended_queued(&job.cancel);
            job.refuse(error);
            return;
        }
        let started = Instant::now();
        let waited = started - job.queued_at;
        metrics.queue_seconds.record(waited.as_secs_f64());
        metrics.started.increment(1);
        metrics.running.increment(1);
        self.running.fetch_add(1, Ordering::Relaxed);
        let cancel = job.cancel.after_queue(waited);
        let finished = (job.work)(Verdict::Start(&cancel));
        let ended = Instant::now();
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.service[job.priority.index()].note(ended - started);
        metrics.running.decrement(1);
        metrics.completed.increment(1);
        if let Some(since) = cancel.since() {
            metrics.cancelled_running.increment(1);
            metrics.wasted_us.increment(micros(ended - started));
            metrics.stop_seconds.record(ended.saturating_duration_since(since).as_secs_f64());
            if cancel.expired() {
                metrics.expired_running.increment(1);
            }
        }
        (finished.0)();
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn said(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "something that is not text".to_owned())
}
