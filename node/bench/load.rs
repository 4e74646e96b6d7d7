//! `bench load`: what documents cost, and when they can be found.

use std::time::{Duration, Instant};

use ::load::report::{Histogram, Moment, Run};
use ::load::{Servers, report};
use anyhow::{Context, Result, ensure};
use client::{Client, IndexRequest, SearchRequest};
use futures::FutureExt;
use serde_json::json;

use super::cli::Load;
use super::{finish, report as begin, writable};
use crate::corpus;
use crate::load::Observer;

/// Between documents whose way to the searcher is timed.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// How long CPU time is read after the load: merges are part of the cost.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);

pub(super) async fn run(options: Load) -> Result<()> {
    writable(&options.out)?;
    let client = Client::new(&options.server.url)?;
    corpus::check(&options.files)?;
    client.ready().await?;
    let mut sources = Vec::new();
    let mut size = Some(0);
    let mut sample = Vec::new();
    for file in &options.files {
        size = size.zip(corpus::size(file)).map(|(sum, size)| sum + size);
        sources.push((file.display().to_string(), corpus::open(file, options.id_field.clone())?));
        let few = corpus::open(file, options.id_field.clone())?.take(500);
        sample.extend(few.collect::<Result<Vec<_>>>()?);
    }
    let schema = crate::load::schema_of(&sample)?;
    let request = IndexRequest {
        shards: Some(options.shards),
        copies: Some(options.copies),
        schema: Some(schema),
        ..IndexRequest::default()
    };
    client
        .create_index(&options.index, &request)
        .await
        .context("the index must be new: name another with --index")?;
    let outcome = measure(&options, &client, sources, size).await;
    if !options.keep {
        client.delete_index(&options.index).await?;
    }
    finish(&outcome?, &options.out)
}

async fn measure(
    options: &Load,
    client: &Client,
    sources: Vec<(String, corpus::Documents)>,
    size: Option<u64>,
) -> Result<report::Report> {
    let servers = Servers::of(client).await;
    let before = servers.sample().await;
    let own = ::load::system::own_cpu();
    let acks = std::cell::RefCell::new((Histogram::default(), Vec::<Moment>::new()));
    let begun = Instant::now();
    let observer = Observer(&|documents, took: Duration| {
        let (latency, moments) = &mut *acks.borrow_mut();
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        latency.record(us);
        let at = usize::try_from(begun.elapsed().as_secs()).unwrap_or(0);
        while moments.len() <= at {
            moments.push(Moment { at: moments.len() as f64 + 1.0, seconds: 1.0, ..Moment::default() });
        }
        let moment = &mut moments[at];
        (moment.sent, moment.answered) = (moment.sent + documents, moment.answered + documents);
        (moment.p50, moment.p99, moment.max) = (us, moment.p99.max(us), moment.max.max(us));
    });
    let sending =
        crate::load::send(client, &options.index, sources, size, options.in_flight.into(), &observer);
    let mut sending = std::pin::pin!(sending.fuse());
    // Documents of our own, each timed until a search would find it.
    let mut found = Histogram::default();
    let mut number = 0_u64;
    let summary = loop {
        let probe = async {
            tokio::time::sleep(PROBE_EVERY).await;
            let begun = Instant::now();
            let body = format!("{{\"id\":\"windrow-bench-probe-{number}\"}}\n");
            let written = client.documents(&options.index, body.into(), true).await;
            (begun.elapsed(), written.is_ok_and(|written| written.searchable == Some(true)))
        };
        tokio::select! {
            biased;
            summary = &mut sending => break summary?,
            (took, seen) = probe => {
                number += 1;
                if seen {
                    found.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
                }
            }
        }
    };
    ensure!(summary.documents > 0, "no document was accepted: {:?}", summary.failures);
    let loaded = Instant::now();
    if let Some(token) = &summary.token {
        let seen = SearchRequest::new("*").limit(0_usize).count("none").token(token.encode());
        client.search(&options.index, &seen).await?;
    }
    let last = loaded.elapsed();
    let cpu = settled(&servers).await.zip(before.cpu()).map(|(after, before)| after - before);

    let (latency, moments) = acks.take();
    let mut run = Run {
        name: format!("{} documents", summary.documents),
        seconds: summary.seconds,
        sent: latency.len(),
        answered: latency.len(),
        latency,
        moments,
        own_cpu: ::load::system::own_cpu() - own,
        ..Run::default()
    };
    let documents = summary.documents as f64;
    let mut figure = |name: &str, value: f64| run.figures.insert(name.to_owned(), value);
    figure("documents/s", documents / summary.seconds);
    figure("MB/s", summary.bytes as f64 / 1e6 / summary.seconds);
    if let Some(cpu) = cpu.filter(|cpu| *cpu > 0.0) {
        figure("documents per CPU-second", documents / cpu);
    }
    if !found.is_empty() {
        figure("until searchable, p50, ms", found.percentile(50.0) as f64 / 1e3);
        figure("until searchable, p99, ms", found.percentile(99.0) as f64 / 1e3);
    }
    figure("until the last is searchable, ms", last.as_secs_f64() * 1e3);
    let settings = json!({
        "files": options.files, "shards": options.shards, "copies": options.copies,
        "in_flight": options.in_flight, "documents": summary.documents, "bytes": summary.bytes,
        "rejected": summary.rejected, "url": options.server.url,
    });
    let mut report =
        begin("load", "What loading costs: a request's time is until it is durable", 0, settings);
    report.runs.push(run);
    if summary.rejected > 0 {
        report.notes.push(format!(
            "{} documents were refused, such as: {:?}",
            summary.rejected,
            summary.failures.first()
        ));
    }
    if cpu.is_none() {
        report.notes.push("The servers do not run here, so their CPU time is not known.".to_owned());
    }
    Ok(report)
}

/// The servers' CPU time once they have nothing more to do.
async fn settled(servers: &Servers) -> Option<f64> {
    let until = Instant::now() + SETTLE_WITHIN;
    let mut before = servers.sample().await.cpu()?;
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = servers.sample().await.cpu()?;
        if now - before < 0.06 || Instant::now() > until {
            return Some(now);
        }
        before = now;
    }
}
