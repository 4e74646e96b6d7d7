//! `bench run`: queries to any cluster.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use client::Client;
use load::generator::doubts;
use load::target::{Grpc, Http, Shape};
use load::{Pace, Servers, Step};
use serde_json::{Value, json};

use super::cli::{Protocol, Run};
use super::{Progress, finish, queries, report, writable};

pub(super) async fn run(options: Run) -> Result<()> {
    writable(&options.out)?;
    let queries = queries(&options.asked, options.seed)?;
    let urls: Vec<String> = options
        .url
        .iter()
        .map(|url| Client::new(url).map(|c| c.url().to_owned()))
        .collect::<Result<_, _>>()?;
    let client = Client::new(urls.first().context("name a server with --url")?)?;
    // What is wrong with the server or the index is said before the load.
    let index = client.describe_index(&options.index).await?;
    let shape = shape(&options.set)?;
    let servers = Servers::of(&client).await;
    let settings = json!({
        "index": options.index,
        "index_definition": index,
        "urls": urls,
        "protocol": options.protocol,
        "request": shape,
        "queries": options.asked.queries,
        "queries_read": queries.texts().len(),
        "column": options.asked.column,
        "weights": options.asked.weights,
    });
    let title = format!("{} queries to {}", queries.texts().len(), options.index);
    let mut report = report("run", &title, options.seed, settings);
    let http = Http::new(&urls, &options.index, queries.texts(), &shape)?;
    let grpc = match options.protocol {
        Protocol::Grpc => Some(Grpc::new(&urls, &options.index, queries.texts(), &shape)?),
        Protocol::Http => None,
    };
    let mut steps = Vec::new();
    for step in steps_of(&options) {
        let progress = Progress::new(&step);
        let tell = |now: Duration, moment: &load::report::Moment| progress.tell(now, moment);
        let run = match &grpc {
            Some(grpc) => step.run(grpc, &queries, &servers, tell).await?,
            None => step.run(&http, &queries, &servers, tell).await?,
        };
        drop(progress);
        report.notes.extend(doubts(&run, &step));
        report.runs.push(run);
        steps.push(step);
    }
    report.settings["steps"] = serde_json::to_value(&steps)?;
    finish(&report, &options.out)?;
    if report.runs.iter().all(|run| run.answered == 0) {
        bail!("nothing was answered");
    }
    Ok(())
}

fn steps_of(options: &Run) -> Vec<Step> {
    let arrivals = options.arrivals.into();
    let open = options.rate.iter().map(|rate| (format!("{rate}/s"), Pace::Open { rate: *rate, arrivals }));
    let closed = options
        .in_flight
        .iter()
        .map(|in_flight| (format!("{in_flight} in flight"), Pace::Closed { in_flight: *in_flight }));
    let paces: Vec<(String, Pace)> =
        if options.in_flight.is_empty() { open.collect() } else { closed.collect() };
    let each = |(name, pace)| Step {
        name,
        pace,
        warm_up: options.warm_up,
        duration: options.duration,
        timeout: options.timeout,
        in_flight_max: options.in_flight_max,
        seed: options.seed,
    };
    paces.into_iter().map(each).collect()
}

/// Reads `name=value`; a value that is no JSON is a string.
fn shape(set: &[String]) -> Result<Shape> {
    let mut shape = Shape::new();
    for member in set {
        let Some((name, value)) = member.split_once('=') else {
            bail!("--set {member:?}: write NAME=VALUE, such as limit=20");
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        shape.insert(name.to_owned(), value);
    }
    Ok(shape)
}
