//! Jobs of a pool.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use futures::FutureExt;

use super::*;

fn pool(queue_max: usize) -> Pool {
    Pool::new(Settings { threads: 1, queue_max, name: "test".to_owned(), ..Settings::default() })
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

/// Occupies the only thread until the sender is dropped.
async fn blocked(pool: &Pool) -> (Run<()>, mpsc::Sender<()>) {
    let (release, wait) = mpsc::channel::<()>();
    let (started, running) = oneshot::channel();
    let run = pool.run(Priority::Search, soon(), move |_| {
        started.send(()).unwrap();
        let _released = wait.recv();
    });
    running.await.unwrap();
    (run, release)
}

#[tokio::test]
async fn a_job_returns_its_value() {
    assert_eq!(pool(1).run(Priority::Search, soon(), |_| 7).await, Ok(7));
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let pool = pool(1);
    let (_run, _release) = blocked(&pool).await;
    let _queued = pool.run(Priority::Search, soon(), |_| ());
    assert_eq!(pool.run(Priority::Search, soon(), |_| ()).now_or_never(), Some(Err(PoolError::Full)));
}

#[tokio::test]
async fn a_job_dropped_in_the_queue_never_starts() {
    let pool = pool(8);
    let (run, release) = blocked(&pool).await;
    let starts = Arc::new(AtomicUsize::new(0));
    let count = starts.clone();
    drop(pool.run(Priority::Search, soon(), move |_| count.fetch_add(1, Ordering::Relaxed)));
    drop(release);
    run.await.unwrap();
    pool.run(Priority::Search, soon(), |_| ()).await.unwrap();
    assert_eq!((starts.load(Ordering::Relaxed), pool.load().queued), (0, 0));
}

#[tokio::test]
async fn a_job_whose_deadline_passes_in_the_queue_never_starts() {
    let pool = pool(8);
    let (run, release) = blocked(&pool).await;
    let job = pool.run(Priority::Search, Deadline::after(ms(20)), |_| ());
    tokio::time::sleep(ms(30)).await;
    drop(release);
    run.await.unwrap();
    assert_eq!(job.await, Err(PoolError::Expired));
}

#[tokio::test]
async fn a_job_that_expired_in_the_queue_never_starts() {
    let pool = pool(8);
    let late = pool.run(Priority::Search, Deadline::after(Duration::ZERO), |_| ());
    assert_eq!(late.now_or_never(), Some(Err(PoolError::Expired)));
}

#[tokio::test]
async fn a_running_job_sees_that_its_future_is_gone() {
    let pool = pool(8);
    let (started, running) = oneshot::channel();
    let run = pool.run(Priority::Search, soon(), move |cancel| {
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
    let run = pool.run(Priority::Search, soon(), |_| -> () { panic!("ouch") });
    assert_eq!(run.await, Err(PoolError::Panicked("ouch".to_owned())));
    assert_eq!(pool.run(Priority::Search, soon(), |_| 1).await, Ok(1));
}

#[tokio::test]
async fn closing_answers_the_queue_and_waits_for_what_runs() {
    let pool = pool(8);
    let (run, release) = blocked(&pool).await;
    let queued = pool.run(Priority::Search, soon(), |_| ());
    let closing = pool.clone();
    let close = tokio::task::spawn_blocking(move || futures::executor::block_on(closing.close()));
    assert_eq!(queued.await, Err(PoolError::Closed));
    assert!(!close.is_finished());
    drop(release);
    assert_eq!(run.await, Ok(()));
    close.await.unwrap();
    assert_eq!(pool.run(Priority::Search, soon(), |_| ()).await, Err(PoolError::Closed));
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Lets the pool learn that a search takes this long.
async fn taught(pool: &Pool, service: Duration) {
    pool.run(Priority::Search, soon(), move |_| std::thread::sleep(service)).await.unwrap();
}

#[tokio::test]
async fn a_job_that_could_not_be_done_in_time_is_refused_at_once() {
    let pool = pool(1_000);
    taught(&pool, ms(50)).await;
    let (_run, _release) = blocked(&pool).await;
    let queued: Vec<_> = (0..10).map(|_| pool.run(Priority::Search, soon(), |_| ())).collect();
    let in_time = Deadline::after(Duration::from_secs(5));
    assert!(!matches!(&pool.run(Priority::Search, in_time, |_| ()).state, Waiting::Refused(_)));
    let late = pool.run(Priority::Search, Deadline::after(ms(200)), |_| ());
    assert_eq!(late.now_or_never(), Some(Err(PoolError::Late)));
    // Nothing of its own class or a better one is before it.
    let fetch = pool.run(Priority::Fetch, Deadline::after(ms(200)), |_| ());
    assert!(!matches!(&fetch.state, Waiting::Refused(_)));
    drop(queued);
    // Nor here, now that nobody waits for those.
    let first = pool.run(Priority::Search, Deadline::after(ms(200)), |_| ());
    assert!(!matches!(&first.state, Waiting::Refused(_)));
}

#[tokio::test]
async fn fetches_begin_before_searches() {
    let pool = pool(8);
    let (run, release) = blocked(&pool).await;
    let (told, order) = mpsc::channel();
    let note = |name: &'static str| {
        let told = told.clone();
        move |_: &Cancel| told.send(name).unwrap()
    };
    let jobs = [
        pool.run(Priority::Search, soon(), note("search")),
        pool.run(Priority::Fetch, soon(), note("fetch")),
    ];
    drop(release);
    run.await.unwrap();
    for job in jobs {
        job.await.unwrap();
    }
    assert_eq!(order.try_iter().collect::<Vec<_>>(), ["fetch", "search"]);
}

#[tokio::test]
async fn each_class_has_a_queue_of_its_own() {
    let pool = pool(1);
    let (_run, _release) = blocked(&pool).await;
    let _queued = pool.run(Priority::Search, soon(), |_| ());
    assert_eq!(pool.run(Priority::Search, soon(), |_| ()).now_or_never(), Some(Err(PoolError::Full)));
    assert!(!matches!(&pool.run(Priority::Fetch, soon(), |_| ()).state, Waiting::Refused(_)));
}

#[tokio::test]
async fn what_nobody_waits_for_takes_no_room() {
    let pool = pool(4);
    let (_run, _release) = blocked(&pool).await;
    for _ in 0..100 {
        drop(pool.run(Priority::Search, soon(), |_| ()));
    }
    assert!(pool.0.0.lock().jobs.len(Priority::Search) <= 8);
    let queued: Vec<_> = (0..4).map(|_| pool.run(Priority::Search, soon(), |_| ())).collect();
    assert_eq!(pool.load().queued, 4);
    assert_eq!(pool.run(Priority::Search, soon(), |_| ()).now_or_never(), Some(Err(PoolError::Full)));
    drop(queued);
    assert_eq!(pool.load().queued, 0);
}

#[tokio::test]
async fn a_pool_says_how_busy_it_is() {
    let pool = pool(8);
    assert_eq!(pool.load(), Load::default());
    taught(&pool, ms(20)).await;
    let (run, release) = blocked(&pool).await;
    let queued = pool.run(Priority::Search, soon(), |_| ());
    let load = pool.load();
    assert_eq!((load.running, load.queued), (1, 1));
    assert!((ms(20)..ms(40)).contains(&load.service), "{:?}", load.service);
    drop(release);
    run.await.unwrap();
    queued.await.unwrap();
    let load = pool.load();
    assert_eq!((load.running, load.queued), (0, 0));
}
