//! Reports as benchmarks write them, for tests.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{FORMAT, Histogram, Machine, Moment, Report, Run};

/// Stretches into which latencies are split, as the meter does.
const BLOCKS: usize = 20;

/// A report of that many runs, each of a minute, at 200/s, 400/s, …
pub(super) fn report(count: usize) -> Report {
    Report {
        format: FORMAT,
        benchmark: "load".into(),
        title: "Three nodes answer searches over a million papers".into(),
        command: "windrow bench load --nodes 3 --shards 12 --rate 200..600 --duration 60s --seed 7".into(),
        seed: 7,
        started: "2026-03-04T05:06:07Z".into(),
        machine: Machine {
            windrow: "0.1.0".into(),
            system: "Linux 6.12.9".into(),
            processor: "AMD EPYC 9554".into(),
            cores: 16,
        },
        settings: serde_json::json!({"nodes": 3, "shards": 12, "load": {"duration": "60s", "arrivals": "poisson"}}),
        runs: (1..=count as u64).map(run).collect(),
        notes: vec!["The load ran on the machine of the servers: both took its cores.".into()],
    }
}

/// A minute at `200 × step` a second, slower the more there are.
pub(super) fn run(step: u64) -> Run {
    lasting(step, 60, 200 * step)
}

/// As many seconds at that rate. The servers stall once, at a third of it.
pub(super) fn lasting(step: u64, seconds: usize, rate: u64) -> Run {
    let mut random = StdRng::seed_from_u64(step);
    let mut run = Run {
        name: format!("{}/s", 200 * step),
        offered: Some(rate as f64),
        seconds: seconds as f64,
        blocks: vec![Histogram::default(); BLOCKS],
        server_cpu: Some(0.0),
        own_cpu: 1.5,
        ..Run::default()
    };
    for second in 0..seconds {
        second_of(&mut run, second, rate, step, &mut random);
    }
    run.figures.insert("documents, million".into(), 1.0);
    run.figures.insert("recovery after the stall, s".into(), 1.25 * step as f64);
    run
}

fn second_of(run: &mut Run, second: usize, rate: u64, step: u64, random: &mut StdRng) {
    let seconds = run.seconds as usize;
    let drift = 1.0 + 0.1 * normal(random);
    let stalled = second == seconds / 3;
    let mut latencies = Histogram::default();
    let mut moment = Moment { at: second as f64 + 1.0, seconds: 1.0, ..Moment::default() };
    for _ in 0..rate {
        moment.sent += 1;
        let slow = stalled || random.random::<f64>() < 0.002;
        if slow && random.random::<f64>() < 0.05 {
            moment.failed += 1;
            *run.failed.entry("deadline".into()).or_default() += 1;
            continue;
        }
        let median = 3_500.0 * drift * (step as f64).sqrt();
        let mut us = median * (0.4 * normal(random)).exp();
        us += if slow { 40_000.0 + 300_000.0 * random.random::<f64>() } else { 0.0 };
        let hit = !slow && random.random::<f64>() < 0.35;
        let us = (if hit { us / 8.0 } else { us }) as u64;
        latencies.record(us);
        run.blocks[second * BLOCKS / seconds].record(us);
        run.lag.record(20 + us / 400);
        moment.answered += 1;
        moment.hits += u64::from(hit);
        run.empty += u64::from(random.random::<f64>() < 0.01);
        *run.cache.entry(if hit { "hit" } else { "miss" }.into()).or_default() += 1;
    }
    (moment.p50, moment.p99, moment.max) =
        (latencies.percentile(50.0), latencies.percentile(99.0), latencies.max());
    let misses = (moment.sent - moment.hits) as f64;
    for (name, grown) in
        [("searches", misses), ("leaf calls", 4.1 * misses), ("hedges", (0.03 * misses).round())]
    {
        moment.counters.insert(name.into(), grown);
        *run.counters.entry(name.into()).or_default() += grown;
    }
    let cores = 0.2 + misses * 0.001 * (1.0 + 0.1 * normal(random));
    moment.server_cpu = Some(cores);
    run.server_cpu = run.server_cpu.map(|cpu| cpu + cores);
    run.latency.add(&latencies);
    run.sent += moment.sent;
    run.answered += moment.answered;
    run.moments.push(moment);
}

/// A draw with mean 0 and deviation 1: the sum of twelve even ones.
pub(super) fn normal(random: &mut StdRng) -> f64 {
    (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0
}
