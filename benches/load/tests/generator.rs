//! The generator against servers whose latencies are known.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use load::generator::doubts;
use load::report::{Histogram, Run};
use load::schedule::Arrivals;
use load::target::Http;
use load::{Pace, Queries, Servers, Step};
use runtime::{OnError, Shutdown, TaskScope};

const ANSWER: &str = r#"{"hits": [], "cache": "miss"}"#;

#[derive(Default)]
struct Server {
    asked: AtomicUsize,
    stalled: AtomicBool,
    /// Of each answer, as the server saw it.
    truth: Mutex<Histogram>,
}

async fn answer(State(server): State<Arc<Server>>) -> &'static str {
    let begun = Instant::now();
    let turn = server.asked.fetch_add(1, Ordering::Relaxed);
    // One in fifty is slow.
    let wait = if turn.is_multiple_of(50) { 60 } else { 3 };
    tokio::time::sleep(Duration::from_millis(wait)).await;
    while server.stalled.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let us = u64::try_from(begun.elapsed().as_micros()).unwrap();
    server.truth.lock().unwrap().record(us);
    ANSWER
}

async fn refuse() -> (axum::http::StatusCode, &'static str) {
    (axum::http::StatusCode::SERVICE_UNAVAILABLE, r#"{"title": "Unavailable"}"#)
}

/// Serves in a thread of its own, so that it and the generator do not wait for
/// each other.
fn serve(router: Router) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
    });
    format!("http://{address}")
}

fn step(pace: Pace) -> Step {
    Step {
        name: "test".into(),
        pace,
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(4),
        timeout: Duration::from_secs(10),
        in_flight_max: 10_000,
        seed: 1,
    }
}

async fn run(url: &str, step: &Step) -> Run {
    let queries = Queries::of(["hay".to_owned(), "rain".to_owned()]);
    let target = Http::new(&[url.to_owned()], "papers", queries.texts(), &Default::default()).unwrap();
    let client = client::Client::new(url).unwrap();
    let servers = Servers::of(&client).await;
    step.run(&target, &queries, &servers, |_, _| {}).await.unwrap()
}

#[tokio::test]
async fn latencies_are_those_that_the_server_made() {
    let server = Arc::new(Server::default());
    let url = serve(Router::new().fallback(post(answer)).with_state(server.clone()));
    let run = run(&url, &step(Pace::Open { rate: 500.0, arrivals: Arrivals::Poisson })).await;
    assert!(run.sent > 1_700 && run.failures() == 0 && run.empty == run.sent, "{:?}", run.failed);
    assert_eq!(run.cache.get("miss"), Some(&run.sent));
    let truth = server.truth.lock().unwrap().clone();
    // One in fifty is slow: the 99th percentile is among those, the 97th not.
    // A machine that is busy adds to both ends, so the bounds are wide; the
    // bench says how near it is.
    let (near, known) = (run.latency.percentile(99.0), truth.percentile(99.0));
    assert!(near >= 60_000 && near < known + 30_000, "{near} µs, in truth {known} µs");
    assert!(run.latency.percentile(97.0) >= 3_000);
    let blocks: u64 = run.blocks.iter().map(Histogram::len).sum();
    assert_eq!((blocks, run.moments.len()), (run.sent, 4));
}

#[tokio::test]
async fn a_stall_is_in_the_figures_of_an_open_loop() {
    for (pace, open) in [
        (Pace::Open { rate: 200.0, arrivals: Arrivals::Constant }, true),
        (Pace::Closed { in_flight: 4 }, false),
    ] {
        let server = Arc::new(Server::default());
        let url = serve(Router::new().fallback(post(answer)).with_state(server.clone()));
        let scope = TaskScope::new(&Shutdown::new());
        let stalling = server.clone();
        scope.spawn("stall", OnError::Log, |_| async move {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            stalling.stalled.store(true, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
            stalling.stalled.store(false, Ordering::Relaxed);
        });
        let run = run(&url, &step(pace)).await;
        let over = 1.0 - run.latency.share_within(500_000);
        // 4 s at an even rate: who came in the first half of the stall waited
        // over half a second.
        if open {
            assert!(over > 0.09, "only {over} over 500 ms");
            assert!(run.latency.max() > 900_000);
        } else {
            assert!(over < 0.03, "a closed loop hides it: {over}");
        }
    }
}

#[tokio::test]
async fn refusals_and_silence_are_counted_by_reason() {
    let url = serve(Router::new().fallback(post(refuse)));
    let mut short = step(Pace::Closed { in_flight: 2 });
    short.duration = Duration::from_millis(200);
    let refused = run(&url, &short).await;
    assert_eq!((refused.answered, refused.failed.len()), (0, 1));
    assert!(refused.failed.contains_key("HTTP 503 Unavailable"), "{:?}", refused.failed);
    assert_eq!(refused.refusals.len(), refused.sent, "how quick a refusal is counts too");
    assert!(refused.refusals.max() < 100_000 && refused.latency.is_empty());
    assert!(doubts(&refused, &short)[0].contains("nothing was answered"));

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = run(&format!("http://{closed}"), &short).await;
    assert!(away.failed.contains_key("no connection"), "{:?}", away.failed);
    assert!(away.refusals.is_empty(), "nobody refused");

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    short.timeout = Duration::from_millis(50);
    let unanswered = run(&format!("http://{}", silent.local_addr().unwrap()), &short).await;
    assert!(unanswered.failed.contains_key("no answer within 50ms"), "{:?}", unanswered.failed);
}

#[tokio::test]
async fn a_rate_beyond_what_can_be_sent_is_said() {
    let server = Arc::new(Server::default());
    let url = serve(Router::new().fallback(post(answer)).with_state(server));
    let mut beyond = step(Pace::Open { rate: 2_000.0, arrivals: Arrivals::Poisson });
    beyond.duration = Duration::from_secs(1);
    // Answers take over 3 ms, so that two in flight are at most 666 a second.
    beyond.in_flight_max = 2;
    let run = run(&url, &beyond).await;
    assert_eq!(run.sent, run.answered, "nobody is forgotten");
    let doubts = doubts(&run, &beyond);
    assert!(doubts.len() == 1 && doubts[0].contains("fell behind"), "{doubts:?}");
    for (pace, says) in [
        (Pace::Open { rate: 0.0, arrivals: Arrivals::Poisson }, "above 0"),
        (Pace::Open { rate: 0.5, arrivals: Arrivals::Poisson }, "not even one"),
        (Pace::Closed { in_flight: 0 }, "above 0"),
    ] {
        let step = Step { duration: Duration::from_secs(1), ..step(pace) };
        let queries = Queries::of(["hay".to_owned()]);
        let target =
            Http::new(std::slice::from_ref(&url), "papers", queries.texts(), &Default::default()).unwrap();
        let servers = Servers::of(&client::Client::new(&url).unwrap()).await;
        let error = step.run(&target, &queries, &servers, |_, _| {}).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}
