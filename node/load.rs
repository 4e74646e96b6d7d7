//! Loads documents: read, group, send, several requests at a time.
//!
//! **Invariant:** a document counts as loaded when the server acknowledged it,
//! which it does when it is durable.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use client::{Client, Retry, SearchRequest, Written};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressStyle};
use model::token::Token;

use crate::cli::{Load, Output};
use crate::corpus::{self, Documents};
use crate::output::{errln, outln};

/// A request's documents and bytes: large enough that its own cost vanishes,
/// small enough that several in flight fit memory anywhere.
const BATCH_DOCUMENTS: usize = 2_000;
const BATCH_BYTES: usize = 2 << 20;
/// Batches read ahead of the requests.
const READ_AHEAD: usize = 4;
/// Times that a line is sent again because the server asked for it.
const RESENDS_MAX: u32 = 40;
/// Failing lines that are shown.
const SHOWN: usize = 5;
/// Between progress lines without a terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// What a load came to.
#[derive(Default, serde::Serialize)]
pub(crate) struct Summary {
    pub(crate) documents: u64,
    pub(crate) rejected: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// The first failures, as "file line: reason".
    pub(crate) failures: Vec<String>,
    /// Names everything that was acknowledged.
    #[serde(skip)]
    pub(crate) token: Option<Token>,
}

/// Told of each request that was answered: its documents that went in, and its
/// time.
pub(crate) struct Observer<'a>(pub(crate) &'a dyn Fn(u64, Duration));

struct Batch {
    body: Vec<u8>,
    documents: u64,
    /// Bytes of input.
    read: u64,
    /// The number of its first document in its source.
    first: u64,
    source: String,
}

pub(crate) async fn run(options: Load) -> Result<()> {
    let client = Client::new(&options.server.url)?;
    corpus::check(&options.files)?;
    client.ready().await?;
    let mut sources = Vec::new();
    let mut size = Some(0);
    for file in &options.files {
        size = size.zip(corpus::size(file)).map(|(sum, size)| sum + size);
        sources.push((file.display().to_string(), corpus::open(file, options.id_field.clone())?));
    }
    let summary =
        send(&client, &options.index, sources, size, options.in_flight.into(), &Observer(&|_, _| {})).await?;
    if let Some(token) = &summary.token {
        // Whoever loads searches next: say "done" when that will find it all.
        let seen = SearchRequest::new("*").limit(0_usize).count("none").token(token.encode());
        if let Err(error) = client.search(&options.index, &seen).await {
            errln!("everything acknowledged is durable, but not searchable yet: {error}");
        }
    }
    match options.output {
        Output::Json => outln!("{}", serde_json::to_string(&summary)?),
        Output::Text => summary.print(&options.index),
    }
    if summary.rejected > 0 {
        bail!("{} of {} documents did not go in", summary.rejected, summary.rejected + summary.documents);
    }
    Ok(())
}

impl Summary {
    pub(crate) fn print(&self, index: &str) {
        for failure in &self.failures {
            outln!("  {failure}");
        }
        let shown = self.failures.len() as u64;
        if self.rejected > shown {
            outln!("  … and {} more", self.rejected - shown);
        }
        let megabytes = self.bytes as f64 / 1e6;
        outln!(
            "{} documents in {index} ({} rejected), {megabytes:.1} MB in {:.1} s: {:.0} documents/s, {:.1} MB/s",
            self.documents,
            self.rejected,
            self.seconds,
            self.documents as f64 / self.seconds,
            megabytes / self.seconds,
        );
    }
}

/// Sends every document of the sources; failing lines are in the summary.
///
/// # Errors
/// When the server is away for longer than retries last, or a source cannot
/// be read.
pub(crate) async fn send(
    client: &Client,
    index: &str,
    sources: Vec<(String, Documents)>,
    size: Option<u64>,
    in_flight: usize,
    observer: &Observer<'_>,
) -> Result<Summary> {
    let started = Instant::now();
    let (sender, mut batches) = tokio::sync::mpsc::channel::<Result<Batch>>(READ_AHEAD);
    // Reading and decompressing block, so they have a thread.
    let reader = std::thread::spawn(move || read(sources, &sender));
    let mut progress = Progress::new(size);
    let mut summary = Summary::default();
    let mut running = FuturesUnordered::new();
    let mut reading = true;
    let mut broken = None;
    while reading || !running.is_empty() {
        tokio::select! {
            batch = batches.recv(), if reading && running.len() < in_flight => match batch {
                Some(Ok(batch)) => running.push(deliver(client, index, batch, observer)),
                Some(Err(error)) => {
                    broken = Some(error);
                    reading = false;
                }
                None => reading = false,
            },
            Some(delivered) = running.next() => {
                let delivered: Delivered = delivered?;
                summary.documents += delivered.accepted;
                summary.rejected += delivered.failures.len() as u64;
                summary.bytes += delivered.read;
                let room = SHOWN.saturating_sub(summary.failures.len());
                summary.failures.extend(delivered.failures.into_iter().take(room));
                for token in delivered.tokens {
                    match &mut summary.token {
                        // An index created anew meanwhile has other tokens.
                        Some(all) => {
                            if all.merge(&token).is_err() {
                                summary.token = Some(token);
                            }
                        }
                        none => *none = Some(token),
                    }
                }
                progress.tell(&summary, started.elapsed());
            }
        }
    }
    progress.end();
    drop(batches);
    let _ended = reader.join();
    summary.seconds = started.elapsed().as_secs_f64().max(1e-9);
    match broken {
        Some(error) => Err(error),
        None => Ok(summary),
    }
}

/// The schema that a server would infer from these documents.
///
/// # Errors
/// When there is none.
pub(crate) fn schema_of(sample: &[corpus::Document]) -> Result<model::schema::Schema> {
    let documents: Vec<&str> =
        sample.iter().filter_map(|document| std::str::from_utf8(&document.json).ok()).collect();
    anyhow::ensure!(!documents.is_empty(), "there are no documents");
    Ok(model::schema::infer(&documents))
}

fn read(sources: Vec<(String, Documents)>, sender: &tokio::sync::mpsc::Sender<Result<Batch>>) {
    for (source, documents) in sources {
        let new = |first| Batch { body: Vec::new(), documents: 0, read: 0, first, source: source.clone() };
        let mut batch = new(1);
        for document in documents {
            match document {
                Ok(document) => {
                    batch.body.extend_from_slice(&document.json);
                    batch.body.push(b'\n');
                    batch.documents += 1;
                    batch.read += document.read;
                }
                Err(error) => {
                    let _gone = sender.blocking_send(Ok(batch));
                    let _gone = sender.blocking_send(Err(error));
                    return;
                }
            }
            if batch.body.len() >= BATCH_BYTES || batch.documents as usize >= BATCH_DOCUMENTS {
                let next = new(batch.first + batch.documents);
                if sender.blocking_send(Ok(std::mem::replace(&mut batch, next))).is_err() {
                    return;
                }
            }
        }
        if batch.documents > 0 && sender.blocking_send(Ok(batch)).is_err() {
            return;
        }
    }
}

struct Delivered {
    accepted: u64,
    read: u64,
    failures: Vec<String>,
    tokens: Vec<Token>,
}

/// Sends a batch until every line is in or refused for good.
async fn deliver(client: &Client, index: &str, batch: Batch, observer: &Observer<'_>) -> Result<Delivered> {
    let Batch { body, documents: _, read, first, source } = batch;
    let retry = Retry::default();
    let mut body = Bytes::from(body);
    // The place of each line of `body` in the source.
    let mut numbers: Vec<u64> = Vec::new();
    let mut delivered = Delivered { accepted: 0, read, failures: Vec::new(), tokens: Vec::new() };
    for attempt in 0.. {
        let begun = Instant::now();
        let written: Written = retry.run(|| client.documents(index, body.clone(), false)).await?;
        (observer.0)(written.accepted, begun.elapsed());
        delivered.accepted += written.accepted;
        delivered.tokens.extend(written.token.and_then(|token| Token::decode(&token).ok()));
        let place = |line: u64| {
            let at = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
            numbers.get(at).copied().unwrap_or(first + line.saturating_sub(1))
        };
        let mut again = Vec::new();
        let mut waits = String::new();
        for failure in written.failures {
            if failure.retry && attempt < RESENDS_MAX {
                again.push(failure.line);
                waits = failure.reason;
            } else {
                delivered.failures.push(format!(
                    "{source}, document {}: {}",
                    place(failure.line),
                    failure.reason
                ));
            }
        }
        if again.is_empty() {
            break;
        }
        if attempt % 8 == 3 {
            errln!("{} documents are refused for now and sent again: {waits}", again.len());
        }
        let lines: Vec<&[u8]> = body.split(|byte| *byte == b'\n').collect();
        let mut rest = Vec::new();
        let mut places = Vec::new();
        for line in again {
            let at = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
            if let Some(bytes) = lines.get(at) {
                rest.extend_from_slice(bytes);
                rest.push(b'\n');
                places.push(place(line));
            }
        }
        (body, numbers) = (rest.into(), places);
        tokio::time::sleep(retry.pause(attempt, None, 0.5)).await;
    }
    Ok(delivered)
}

/// A bar on a terminal, plain lines elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    size: Option<u64>,
    told: Instant,
}

impl Progress {
    fn new(size: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(size.unwrap_or(0));
            let template =
                if size.is_some() { "{bar:40} {percent}% {msg} ETA {eta}" } else { "{spinner} {msg}" };
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style);
            bar
        });
        Self { bar, size, told: Instant::now() }
    }

    fn tell(&mut self, summary: &Summary, elapsed: Duration) {
        let rate = summary.bytes as f64 / 1e6 / elapsed.as_secs_f64().max(1e-9);
        let message = format!("{} documents, {rate:.1} MB/s", summary.documents);
        match &self.bar {
            Some(bar) => {
                bar.set_position(summary.bytes);
                bar.set_message(message);
            }
            None if self.told.elapsed() >= PLAIN_EVERY => {
                self.told = Instant::now();
                let share = self.size.filter(|size| *size > 0).map_or(String::new(), |size| {
                    format!("{:.0} %, ", summary.bytes as f64 * 100.0 / size as f64)
                });
                errln!("{share}{message}");
            }
            None => {}
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
