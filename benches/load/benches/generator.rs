//! What a request costs the generator, and how near its figures are.
//!
//! `cargo bench -p windrow-load --bench generator`
//!
//! A trivial handler in another thread; the CPU time is that of the
//! generator's thread alone. For the second part the handler waits by a
//! distribution and notes how long each answer took it.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench may panic, and prints")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use load::report::{Histogram, Run};
use load::schedule::Arrivals;
use load::system::thread_cpu;
use load::target::Http;
use load::{Pace, Queries, Servers, Step};

const HIT: &str = r#"{"id":"1706.02216","score":11.25,"document":{"title":"a title","body":"a body"}}"#;

#[derive(Default)]
struct Server {
    asked: AtomicUsize,
    truth: Mutex<Histogram>,
}

async fn trivial() -> String {
    format!(
        "{{\"hits\":[{HIT},{HIT}],\"total\":{{\"value\":2,\"relation\":\"eq\"}},\"cut\":1,\"took_us\":12}}"
    )
}

async fn slow(State(server): State<Arc<Server>>) -> String {
    let begun = Instant::now();
    let turn = server.asked.fetch_add(1, Ordering::Relaxed) as u64;
    let spread = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    // 1 to 21 ms, and one in fifty 40 ms more.
    let us = 1_000 + spread % 20_000 + if turn.is_multiple_of(50) { 40_000 } else { 0 };
    tokio::time::sleep(Duration::from_micros(us)).await;
    server.truth.lock().unwrap().record(begun.elapsed().as_micros() as u64);
    trivial().await
}

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

fn run(url: &str, pace: Pace) -> (Run, f64) {
    let step = Step {
        name: String::new(),
        pace,
        warm_up: Duration::from_secs(1),
        duration: Duration::from_secs(8),
        timeout: Duration::from_secs(10),
        in_flight_max: 10_000,
        seed: 1,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let queries = Queries::of((0..1_000).map(|n| format!("query {n}")));
        let target = Http::new(&[url.to_owned()], "papers", queries.texts(), &Default::default()).unwrap();
        let servers = Servers::of(&client::Client::new(url).unwrap()).await;
        let begun = thread_cpu();
        let run = step.run(&target, &queries, &servers, |_, _| {}).await.unwrap();
        (run, thread_cpu() - begun)
    })
}

fn main() {
    let url = serve(Router::new().fallback(post(trivial)));
    for pace in [
        Pace::Closed { in_flight: 64 },
        Pace::Open { rate: 2_000.0, arrivals: Arrivals::Poisson },
        Pace::Open { rate: 8_000.0, arrivals: Arrivals::Poisson },
    ] {
        let (run, cpu) = run(&url, pace.clone());
        // The warm-up's requests cost as much, and are a ninth of all.
        let requests = run.answered as f64 * 9.0 / 8.0;
        println!(
            "{pace:?}: {:.0}/s answered, {:.1} µs of CPU each: {:.0} a second of its own CPU time; \
             sent late by {} µs at p50 and {} µs at p99",
            run.throughput(),
            cpu / requests * 1e6,
            requests / cpu,
            run.lag.percentile(50.0),
            run.lag.percentile(99.0)
        );
    }
    for rate in [200.0, 1_000.0] {
        let server = Arc::new(Server::default());
        let url = serve(Router::new().fallback(post(slow)).with_state(server.clone()));
        let (run, _) = run(&url, Pace::Open { rate, arrivals: Arrivals::Poisson });
        let truth = server.truth.lock().unwrap();
        print!("{rate}/s with known latencies, measured and true in µs:");
        for percentile in [50.0, 90.0, 99.0, 99.9] {
            let (near, known) = (run.latency.percentile(percentile), truth.percentile(percentile));
            print!(" p{percentile} {near} and {known},");
        }
        println!(" {} requests", run.answered);
    }
}
