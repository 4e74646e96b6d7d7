//! `bench shards`: how many shards this corpus wants here.

use std::time::Duration;

use ::load::generator::doubts;
use ::load::report::Run;
use ::load::schedule::Arrivals;
use ::load::target::{Http, Shape};
use ::load::{Pace, Queries, Servers, Step};
use anyhow::{Context, Result, ensure};
use client::{Client, IndexRequest, SearchRequest};
use model::schema::Schema;
use serde_json::json;
use testkit::processes::Node;

use super::cli::Shards;
use super::{capacity, cluster, finish, queries, report, step, writable};
use crate::corpus;
use crate::load::Observer;
use crate::output::errln;

const INDEX: &str = "bench-shards";

/// What one number of shards showed.
struct Measured {
    shards: u32,
    /// One query at a time: its median, in µs.
    alone: f64,
    /// At the common rate: the 99th percentile, in µs.
    p99: f64,
    /// Queries a second in a closed loop.
    capacity: f64,
    /// CPU of the servers a query, in µs.
    cpu: Option<f64>,
}

pub(super) async fn run(options: Shards) -> Result<()> {
    writable(&options.out)?;
    corpus::check(&options.files)?;
    ensure!(options.shards.iter().all(|shards| (1..=256).contains(shards)), "--shards are 1 to 256 each");
    ensure!(options.load > 0.0 && options.load <= 1.0, "--load is a share of the capacity, such as 0.5");
    ensure!((1..=32).contains(&options.nodes), "--nodes must be 1 to 32");
    let queries = queries(&options.asked, options.seed)?;
    let mut sample = Vec::new();
    for file in &options.files {
        let few = corpus::open(file, options.id_field.clone())?.take(500);
        sample.extend(few.collect::<Result<Vec<_>>>()?);
    }
    let schema = crate::load::schema_of(&sample)?;
    let cluster = cluster::start(vec!["root,leaf"; options.nodes], Vec::new()).await?;
    let client = &cluster.nodes[0].client;
    let servers = Servers::of(client).await.with_processes(cluster.nodes.iter().filter_map(Node::pid));
    let settings = json!({
        "files": options.files, "queries": options.asked.queries, "shards": options.shards,
        "nodes": options.nodes, "load": options.load, "schema": schema,
    });
    let title = format!("The same documents in {:?} shards over {} nodes", options.shards, options.nodes);
    let mut report = report("shards", &title, options.seed, settings);
    let mut rate = None;
    let mut all = Vec::new();
    for shards in &options.shards {
        errln!("Loading into {shards} shards.");
        load(&options, client, &schema, *shards).await?;
        cluster.whole(0, 1).await?;
        let (run, measured) = measure(&options, client, &queries, &servers, *shards, &mut rate).await?;
        report.notes.extend(doubts(&run.0, &run.1));
        report.runs.push(run.0);
        all.push(measured);
        client.delete_index(INDEX).await?;
    }
    report.notes.extend(advice(&all));
    finish(&report, &options.out)
}

async fn load(options: &Shards, client: &Client, schema: &Schema, shards: u32) -> Result<()> {
    let request = IndexRequest {
        shards: Some(shards),
        copies: Some(1),
        schema: Some(schema.clone()),
        ..IndexRequest::default()
    };
    client.create_index(INDEX, &request).await?;
    let mut sources = Vec::new();
    for file in &options.files {
        sources.push((file.display().to_string(), corpus::open(file, options.id_field.clone())?));
    }
    let summary = crate::load::send(client, INDEX, sources, None, 4, &Observer(&|_, _| {})).await?;
    let token = summary.token.context("no document was accepted")?;
    let seen = SearchRequest::new("*").limit(0_usize).count("none").token(token.encode());
    client.search(INDEX, &seen).await?;
    Ok(())
}

async fn measure(
    options: &Shards,
    client: &Client,
    queries: &Queries,
    servers: &Servers,
    shards: u32,
    rate: &mut Option<f64>,
) -> Result<((Run, Step), Measured)> {
    let target = Http::new(&[client.url().to_owned()], INDEX, queries.texts(), &Shape::new())?;
    let one = Step {
        name: format!("{shards} shards, one at a time"),
        pace: Pace::Closed { in_flight: 1 },
        warm_up: Duration::from_secs(2),
        duration: Duration::from_secs(5),
        timeout: Duration::from_secs(10),
        in_flight_max: 10_000,
        seed: options.seed,
    };
    let alone = step(&target, queries, servers, &one).await?;
    let able = capacity(&target, queries, servers, options.seed).await?;
    // All at the rate that the first can bear, so that they can be compared.
    let rate = *rate.get_or_insert(able * options.load);
    let open = Step {
        name: format!("{shards} shards"),
        pace: Pace::Open { rate, arrivals: Arrivals::Poisson },
        duration: options.duration,
        ..one
    };
    let mut run = step(&target, queries, servers, &open).await?;
    let cpu = run.server_cpu.map(|cpu| cpu * 1e6 / run.answered.max(1) as f64);
    let measured = Measured {
        shards,
        alone: alone.latency.percentile(50.0) as f64,
        p99: run.latency.percentile(99.0) as f64,
        capacity: able,
        cpu,
    };
    run.figures.insert("alone, p50, ms".into(), measured.alone / 1e3);
    run.figures.insert("capacity/s".into(), able);
    Ok(((run, open), measured))
}

/// How many shards, and why.
fn advice(all: &[Measured]) -> Vec<String> {
    let mut notes = Vec::new();
    let Some(best) = all.iter().map(|one| one.p99).min_by(f64::total_cmp) else { return notes };
    // The fewest that are as good as any, for each further one has its price.
    let near = |one: &&Measured| one.p99 <= best * 1.1;
    if let Some(chosen) = all.iter().filter(near).min_by_key(|one| one.shards) {
        notes.push(format!(
            "Advice: {} shards. Their 99th percentile of {:.1} ms is the best of all or within 10 % of it ({:.1} ms), and no fewer are as good; \
             a query alone takes {:.1} ms, and they bear {:.0} queries a second.",
            chosen.shards,
            chosen.p99 / 1e3,
            best / 1e3,
            chosen.alone / 1e3,
            chosen.capacity
        ));
    }
    let costs: Vec<(f64, f64)> =
        all.iter().filter_map(|one| Some((f64::from(one.shards), one.cpu?))).collect();
    if let Some((fixed, each)) = line(&costs) {
        notes.push(format!(
            "A query costs {fixed:.0} µs of CPU wherever its documents are, and {each:.0} µs more for each shard."
        ));
    }
    if let Some(most) = all.iter().map(|one| one.shards).max() {
        let meets = |shards: u32| 100.0 * (1.0 - 0.999_f64.powf(f64::from(shards)));
        notes.push(format!(
            "If one leaf call in a thousand is slow, a query over {most} leaves meets one {:.1} % of the time, over 1 leaf {:.1} %.",
            meets(most),
            meets(1)
        ));
    }
    notes
}

/// The line of least squares through points: where it begins, and its slope.
fn line(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    let (x, y) = (x / count, y / count);
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if points.len() < 2 || spread == 0.0 {
        return None;
    }
    let slope = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / spread;
    Some((y - slope * x, slope))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_shards_that_are_nearly_the_best_are_advised() {
        let measured =
            |shards, p99, cpu| Measured { shards, alone: 900.0, p99, capacity: 500.0, cpu: Some(cpu) };
        let notes =
            advice(&[measured(1, 9e3, 1_100.0), measured(2, 5e3, 1_200.0), measured(4, 4.9e3, 1_400.0)]);
        assert!(notes[0].starts_with("Advice: 2 shards"), "{notes:?}");
        assert!(notes[1].contains("1000 µs") && notes[1].contains("100 µs more"), "{notes:?}");
        assert!(notes[2].contains("0.4 %"), "{notes:?}");
        assert!(advice(&[]).is_empty());
    }
}
