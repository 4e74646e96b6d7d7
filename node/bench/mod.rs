//! `windrow bench`: load tests of any cluster, scenarios over clusters of its
//! own, simulations.

pub mod cli;
mod cluster;
mod load;
mod overload;
mod run;
mod shards;
mod sim;
mod tail;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use ::load::queries::Queries;
use ::load::report::{FORMAT, Moment, Report, Run, html, table};
use ::load::target::Http;
use ::load::{Pace, Servers, Step};
use anyhow::{Context, Result};
use cli::{Asked, Bench, Out};

use crate::cli::Output;
use crate::output::{err, out, outln};

/// Runs a benchmark.
pub(crate) async fn run(bench: Bench) -> Result<()> {
    match bench {
        Bench::Run(options) => run::run(options).await,
        Bench::Load(options) => load::run(options).await,
        Bench::Shards(options) => shards::run(options).await,
        Bench::Tail(options) => tail::run(options).await,
        Bench::Overload(options) => overload::run(options).await,
        Bench::Sim(options) => sim::run(&options),
        Bench::Compare(options) => {
            let (before, after) = (Report::read(&options.before)?, Report::read(&options.after)?);
            let compared = ::load::report::compare::compare(&before, &after);
            let compared = compared.map_err(|why| anyhow::anyhow!(why))?;
            match options.output {
                Output::Text => out!("{compared}"),
                Output::Json => outln!("{}", serde_json::to_string(&compared)?),
            }
            Ok(())
        }
        Bench::Report(options) => {
            let report = Report::read(&options.report)?;
            let Out { json: _, html } = Out { json: None, html: options.html };
            match html {
                Some(file) => std::fs::write(&file, html::page(&report))
                    .with_context(|| format!("{} cannot be written", file.display())),
                None => {
                    out!("{}", table::print(&report));
                    Ok(())
                }
            }
        }
    }
}

/// The command line, as a shell takes it.
fn command() -> String {
    let quoted = |argument: String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+".contains(c);
        if !argument.is_empty() && argument.chars().all(plain) {
            argument
        } else {
            format!("'{}'", argument.replace('\'', "'\\''"))
        }
    };
    let rest = std::env::args().skip(1).map(quoted);
    std::iter::once("windrow".to_owned()).chain(rest).collect::<Vec<_>>().join(" ")
}

/// A report without runs.
fn report(benchmark: &str, title: &str, seed: u64, settings: serde_json::Value) -> Report {
    Report {
        format: FORMAT,
        benchmark: benchmark.to_owned(),
        title: title.to_owned(),
        command: command(),
        seed,
        started: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        machine: ::load::system::machine(env!("CARGO_PKG_VERSION")),
        settings,
        runs: Vec::new(),
        notes: Vec::new(),
    }
}

/// Prints and writes what was measured.
fn finish(report: &Report, out: &Out) -> Result<()> {
    out!("{}", table::print(report));
    if let Some(file) = &out.json {
        report.write(file)?;
        outln!("Report: {}", file.display());
    }
    if let Some(file) = &out.html {
        std::fs::write(file, html::page(report))
            .with_context(|| format!("{} cannot be written", file.display()))?;
        outln!("Page: {}", file.display());
    }
    Ok(())
}

/// Fails before anything runs where a result could not be written.
fn writable(out: &Out) -> Result<()> {
    for file in [&out.json, &out.html].into_iter().flatten() {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder
            && !folder.is_dir()
        {
            anyhow::bail!("{} cannot be written: there is no folder {}", file.display(), folder.display());
        }
    }
    Ok(())
}

/// A line that tells how a step goes; on a terminal it is overwritten.
struct Progress {
    name: String,
    whole: Duration,
    terminal: bool,
}

impl Progress {
    fn new(step: &Step) -> Self {
        let whole = step.warm_up + step.duration;
        Self { name: step.name.clone(), whole, terminal: std::io::stderr().is_terminal() }
    }

    fn tell(&self, now: Duration, moment: &Moment) {
        if !self.terminal {
            return;
        }
        err!(
            "\r\x1b[K{} {:.0}/{:.0} s: {} sent, {} answered, {} failed, p50 {:.1} ms, p99 {:.1} ms",
            self.name,
            now.as_secs_f64(),
            self.whole.as_secs_f64(),
            moment.sent,
            moment.answered,
            moment.failed,
            moment.p50 as f64 / 1e3,
            moment.p99 as f64 / 1e3,
        );
        let _shown = std::io::stderr().flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            err!("\r\x1b[K");
        }
    }
}

fn queries(asked: &Asked, seed: u64) -> Result<Queries> {
    Queries::read(&asked.queries, asked.column, asked.weights, seed)
}

/// One step by HTTP with a progress line.
async fn step(target: &Http, queries: &Queries, servers: &Servers, step: &Step) -> Result<Run> {
    let progress = Progress::new(step);
    step.run(target, queries, servers, |now, moment| progress.tell(now, moment)).await
}

/// Good answers a second in a closed loop: about what the servers can do.
async fn capacity(target: &Http, queries: &Queries, servers: &Servers, seed: u64) -> Result<f64> {
    let full = Step {
        name: "capacity".into(),
        pace: Pace::Closed { in_flight: 32 },
        warm_up: Duration::from_secs(2),
        duration: Duration::from_secs(5),
        timeout: Duration::from_secs(10),
        in_flight_max: 32,
        seed,
    };
    let run = step(target, queries, servers, &full).await?;
    anyhow::ensure!(run.answered > 0, "nothing was answered: {:?}", run.failed);
    Ok(run.throughput())
}
