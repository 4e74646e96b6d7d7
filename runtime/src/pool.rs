//! A bounded pool of threads for CPU work.
//!
//! ```text
//! run() ──► queue (FIFO, bounded; full: refused at once) ──► threads
//!   └ future, holds a guard ── dropped ──► cancel flag ────────┘
//! ```
//!
//! **Invariant:** a job whose future was dropped, or whose deadline passed,
//! while it was queued never starts. A running one sees [`Cancel::cancelled`].

use std::any::Any;
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tokio::sync::{oneshot, watch};

use crate::{Cancel, Deadline};

/// How a pool is built.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads. Search is CPU work: more than the cores only adds switching.
    pub threads: usize,
    /// Jobs that may wait. Beyond this a caller is better off hearing "no".
    pub queue_max: usize,
    /// Name of the threads, and the metrics' label.
    pub name: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            // A thousand searches of 1 ms are the second after which people give up.
            queue_max: 1024,
            name: "cpu".to_owned(),
        }
    }
}

/// Why a job has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The queue is full; nothing was queued.
    #[error("queue work: the queue is full")]
    Full,
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
            queue: Mutex::new(Queue { jobs: VecDeque::new(), idle: 0, closed: false }),
            wake: Condvar::new(),
            alive: watch::Sender::new(threads),
            metrics: Metrics::new(&settings.name),
            queue_max: settings.queue_max,
        });
        for index in 0..threads {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("{}-{index}", settings.name))
                .spawn(move || shared.work())
                .expect("the system gives us the few threads of a pool");
        }
        Self(Arc::new(Owner(shared)))
    }

    /// Queues `work` at once and returns the future of its result.
    ///
    /// The future does not wake by itself at the deadline: a job that is still
    /// queued then is refused when a thread takes it, and a running one sees it
    /// through [`Cancel::check`]. Callers that must answer in time race it.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the job, queued or running.
    pub fn run<T, F>(&self, deadline: Deadline, work: F) -> Run<T>
    where
        T: Send + 'static,
        F: FnOnce(&Cancel) -> T + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let cancel = Cancel::until(deadline);
        let job = Job {
            cancel: cancel.clone(),
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
        match self.0.0.submit(job) {
            Ok(()) => Run { state: State::Waiting(result), guard: Guard(Some(cancel)) },
            Err(error) => Run { state: State::Refused(Some(error)), guard: Guard(None) },
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
    state: State<T>,
    guard: Guard,
}

impl<T> Future for Run<T> {
    type Output = Result<T, PoolError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = match &mut self.state {
            State::Refused(error) => Err(error.take().unwrap_or(PoolError::Closed)),
            State::Waiting(result) => match Pin::new(result).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(outcome)) => outcome,
                Poll::Ready(Err(_gone)) => Err(PoolError::Closed),
            },
        };
        self.guard.0 = None;
        Poll::Ready(outcome)
    }
}

enum State<T> {
    Waiting(oneshot::Receiver<Result<T, PoolError>>),
    Refused(Option<PoolError>),
}

struct Guard(Option<Cancel>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(cancel) = &self.0 {
            cancel.cancel();
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
    cancel: Cancel,
    queued_at: Instant,
    work: Box<dyn FnOnce(Verdict<'_>) -> Finished + Send>,
}

enum Verdict<'a> {
    Start(&'a Cancel),
    Refuse(PoolError),
}

// Sends the reply. Apart from the work, so that the thread counts a job as done
// before anyone can see its result.
struct Finished(Box<dyn FnOnce()>);

struct Queue {
    jobs: VecDeque<Job>,
    idle: usize,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    alive: watch::Sender<usize>,
    metrics: Metrics,
    queue_max: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Jobs run outside the lock, so a poisoned queue is still whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, job: Job) -> Result<(), PoolError> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(PoolError::Closed);
        }
        if queue.jobs.len() >= self.queue_max {
            self.metrics.refused.increment(1);
            return Err(PoolError::Full);
        }
        queue.jobs.push_back(job);
        self.metrics.queued.increment(1);
        let wake = queue.idle > 0;
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
        Ok(())
    }

    fn shut(&self) {
        let dropped = {
            let mut queue = self.lock();
            queue.closed = true;
            std::mem::take(&mut queue.jobs)
        };
        self.wake.notify_all();
        for job in dropped {
            self.metrics.queued.decrement(1);
            ((job.work)(Verdict::Refuse(PoolError::Closed)).0)();
        }
    }

    fn work(&self) {
        while let Some(job) = self.take() {
            self.metrics.queued.decrement(1);
            self.handle(job);
        }
        self.alive.send_modify(|threads| *threads -= 1);
    }

    fn take(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue.idle += 1;
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    fn handle(&self, job: Job) {
        let metrics = &self.metrics;
        if job.cancel.cancelled() {
            metrics.cancelled_queued.increment(1);
            ((job.work)(Verdict::Refuse(PoolError::Cancelled)).0)();
            return;
        }
        if job.cancel.expired() {
            metrics.expired_queued.increment(1);
            ((job.work)(Verdict::Refuse(PoolError::Expired)).0)();
            return;
        }
        let started = Instant::now();
        let waited = started - job.queued_at;
        metrics.queue_seconds.record(waited.as_secs_f64());
        metrics.started.increment(1);
        metrics.running.increment(1);
        let cancel = job.cancel.after_queue(waited);
        let finished = (job.work)(Verdict::Start(&cancel));
        metrics.running.decrement(1);
        metrics.completed.increment(1);
        if let Some(since) = cancel.since() {
            let ended = Instant::now();
            metrics.cancelled_running.increment(1);
            metrics.wasted_us.increment(micros(ended - started));
            metrics.stop_seconds.record(ended.saturating_duration_since(since).as_secs_f64());
        }
        (finished.0)();
    }
}

fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn said(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "something that is not text".to_owned())
}

// Handles are looked up once: a lookup hashes its labels, which a job of 20 µs feels.
struct Metrics {
    queued: Gauge,
    running: Gauge,
    started: Counter,
    completed: Counter,
    refused: Counter,
    cancelled_queued: Counter,
    cancelled_running: Counter,
    expired_queued: Counter,
    wasted_us: Counter,
    queue_seconds: Histogram,
    stop_seconds: Histogram,
}

impl Metrics {
    fn new(name: &str) -> Self {
        let pool = || [("pool", name.to_owned())];
        Self {
            queued: gauge!("windrow_pool_queued", &pool()),
            running: gauge!("windrow_pool_running", &pool()),
            started: counter!("windrow_pool_started_total", &pool()),
            completed: counter!("windrow_pool_completed_total", &pool()),
            refused: counter!("windrow_pool_refused_total", &pool()),
            cancelled_queued: counter!("windrow_pool_cancelled_queued_total", &pool()),
            cancelled_running: counter!("windrow_pool_cancelled_running_total", &pool()),
            expired_queued: counter!("windrow_pool_expired_queued_total", &pool()),
            wasted_us: counter!("windrow_pool_cancelled_work_microseconds_total", &pool()),
            queue_seconds: histogram!("windrow_pool_queue_seconds", &pool()),
            stop_seconds: histogram!("windrow_pool_cancel_to_stop_seconds", &pool()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn pool(queue_max: usize) -> Pool {
        Pool::new(Settings { threads: 1, queue_max, name: "test".to_owned() })
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(30))
    }

    /// Occupies the only thread until the sender is dropped.
    async fn blocked(pool: &Pool) -> (Run<()>, mpsc::Sender<()>) {
        let (release, wait) = mpsc::channel::<()>();
        let (started, running) = oneshot::channel();
        let run = pool.run(soon(), move |_| {
            started.send(()).unwrap();
            let _released = wait.recv();
        });
        running.await.unwrap();
        (run, release)
    }

    #[tokio::test]
    async fn a_job_returns_its_value() {
        assert_eq!(pool(1).run(soon(), |_| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let pool = pool(1);
        let (_run, _release) = blocked(&pool).await;
        let _queued = pool.run(soon(), |_| ());
        assert_eq!(pool.run(soon(), |_| ()).await, Err(PoolError::Full));
    }

    #[tokio::test]
    async fn a_job_dropped_in_the_queue_never_starts() {
        let pool = pool(8);
        let (run, release) = blocked(&pool).await;
        let starts = Arc::new(AtomicUsize::new(0));
        let count = starts.clone();
        drop(pool.run(soon(), move |_| count.fetch_add(1, Ordering::Relaxed)));
        drop(release);
        run.await.unwrap();
        pool.run(soon(), |_| ()).await.unwrap();
        assert_eq!(starts.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_job_that_expired_in_the_queue_never_starts() {
        let pool = pool(8);
        let late = pool.run(Deadline::after(Duration::ZERO), |_| ());
        assert_eq!(late.await, Err(PoolError::Expired));
    }

    #[tokio::test]
    async fn a_running_job_sees_that_its_future_is_gone() {
        let pool = pool(8);
        let (started, running) = oneshot::channel();
        let run = pool.run(soon(), move |cancel| {
            started.send(()).unwrap();
            while !cancel.cancelled() {
                std::hint::spin_loop();
            }
        });
        running.await.unwrap();
        drop(run);
        pool.close().await;
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_thread_survives() {
        let pool = pool(8);
        let run = pool.run(soon(), |_| -> () { panic!("ouch") });
        assert_eq!(run.await, Err(PoolError::Panicked("ouch".to_owned())));
        assert_eq!(pool.run(soon(), |_| 1).await, Ok(1));
    }

    #[tokio::test]
    async fn closing_answers_the_queue_and_waits_for_what_runs() {
        let pool = pool(8);
        let (run, release) = blocked(&pool).await;
        let queued = pool.run(soon(), |_| ());
        let closing = pool.clone();
        let close = tokio::task::spawn_blocking(move || futures::executor::block_on(closing.close()));
        assert_eq!(queued.await, Err(PoolError::Closed));
        assert!(!close.is_finished());
        drop(release);
        assert_eq!(run.await, Ok(()));
        close.await.unwrap();
        assert_eq!(pool.run(soon(), |_| ()).await, Err(PoolError::Closed));
    }
}
