//! `bench overload`: more than a cluster can do, for a while.
//!
//! ```text
//!  closed loop ─► the peak ─► a part of it ─► twice of it ─► a part of it
//!                             usual p99      goodput        back when?
//! ```

use std::time::Duration;

use ::load::generator::doubts;
use ::load::report::{Moment, Run};
use ::load::schedule::{Arrivals, Phase};
use ::load::target::{Http, Shape};
use ::load::{Pace, Queries, Servers, Step, system};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::processes::Node;

use super::cli::Overload;
use super::{cluster, finish, report, step, writable};
use crate::output::errln;

const INDEX: &str = "bench-overload";
const QUERIES: usize = 2_000;
/// Hits of an answer: merging and sending them is work for the root too.
const HITS: usize = 50;
const WARM_UP: Duration = Duration::from_secs(2);
/// Requests in flight in a closed loop; the best of them is the peak.
const CLOSED: [usize; 3] = [4, 12, 36];
const CLOSED_FOR: Duration = Duration::from_secs(5);
/// Times the peak that is sustained.
const SUSTAINED: f64 = 3.0;
/// How often that is done, each time between two closed loops: a machine that
/// others use is not always as fast.
const TURNS: u32 = 5;
/// Requests that the generator holds at most: each may have a connection of its
/// own, and they are files.
const IN_FLIGHT_MAX: usize = 10_000;
/// The part of a core beyond which the generator may hold back the rest.
const BUSY: f64 = 0.8;

pub(super) async fn run(options: Overload) -> Result<()> {
    writable(&options.out)?;
    ensure!((1..=64).contains(&options.leaves), "--leaves must be 1 to 64");
    ensure!(options.load > 0.0 && options.load < 1.0, "--load is a share of the capacity below 1");
    ensure!(options.times > 1.0 && options.times <= 100.0, "--times is above 1 and up to 100");
    ensure!(options.calm >= Duration::from_secs(2), "--calm must be at least 2s");
    let cores = Cores::split(system::cores(), options.generator_cores);
    cores.keep_to_servers()?;
    errln!("Starting {} leaves, a root and etcd.", options.leaves);
    let mut roles = vec!["root"];
    roles.resize(options.leaves + 1, "leaf");
    let nodes = cluster::start(roles, Vec::new()).await?;
    cores.keep_to_generator()?;
    let root = &nodes.nodes[0].client;
    errln!("Loading {} documents.", options.documents);
    let layout = (options.shards, options.copies);
    cluster::fill(root, INDEX, layout, options.documents, options.seed).await?;
    nodes.whole(0, options.copies as usize).await?;
    let queries = cluster::heavy(QUERIES, options.seed);
    let mut shape = Shape::new();
    shape.insert("limit".into(), HITS.into());
    shape.insert("count".into(), "exact".into());
    shape.insert("timeout".into(), format!("{}ms", options.timeout.as_millis()).into());
    let target = Http::new(&[root.url().to_owned()], INDEX, queries.texts(), &shape)?;
    let servers = Servers::of(root).await.with_processes(nodes.nodes.iter().filter_map(Node::pid));
    let most = peak(&target, &queries, &servers, &options).await?;
    let able = most.rate;
    let plan = surge(&options, able);
    let settings = json!({
        "leaves": options.leaves, "shards": options.shards, "copies": options.copies,
        "documents": options.documents, "peak_per_second": able, "hits": HITS, "step": plan,
        "timeout": options.timeout, "sustained": options.sustained,
        "cores_of_servers": cores.servers.len(), "cores_of_generator": cores.generator.len(),
    });
    let title = format!(
        "{} times what {} leaves can do, for {:?}, between {} of it",
        options.times, options.leaves, options.overload, options.load
    );
    let mut report = report("overload", &title, options.seed, settings);
    report.notes.push(format!(
        "The peak in a closed loop is {able:.0} queries a second; the generator {}.",
        cores.told()
    ));
    let mut run = step(&target, &queries, &servers, &plan).await?;
    report.notes.extend(doubts(&run, &plan));
    report.notes.extend(verdict(&mut run, &options, able));
    report.notes.extend(costs(&mut run));
    report.runs.push(run);
    if let Some(time) = options.sustained {
        let mut shares = Vec::new();
        let again = async || closed(most.in_flight, &target, &queries, &servers, &options).await;
        let mut before = again().await?;
        for turn in 1..=TURNS {
            let name = format!("{SUSTAINED} times the peak, {turn}");
            let plan = open(&name, SUSTAINED * before.rate, time / TURNS, &options);
            let mut run = step(&target, &queries, &servers, &plan).await?;
            let after = again().await?;
            report.notes.extend(doubts(&run, &plan));
            let share = 100.0 * run.throughput() / f64::midpoint(before.rate, after.rate);
            shares.push(share);
            run.figures.insert("goodput, % of the peak around".into(), share);
            if let (Some(before), Some(now), Some(after)) = (before.cpu, cpu_per_answer(&run), after.cpu) {
                let share = 100.0 * f64::midpoint(before, after) / now;
                run.figures.insert("answers per CPU second of servers, % of then".into(), share);
            }
            report.notes.extend(costs(&mut run));
            report.runs.push(run);
            before = after;
        }
        shares.sort_unstable_by(f64::total_cmp);
        let median = shares.get(shares.len() / 2).copied().unwrap_or_default();
        report.notes.push(format!(
            "At {SUSTAINED} times the peak the median goodput is {median:.0} % of the peak around it, with {} \
             requests at a time.",
            most.in_flight
        ));
    }
    finish(&report, &options.out)
}

/// Who uses which cores: a generator that takes the servers' CPU takes more of
/// it the more it sends, and what they then answer says nothing of them.
struct Cores {
    servers: Vec<usize>,
    generator: Vec<usize>,
}

impl Cores {
    /// The first ones are the generator's, as far as one is left for servers.
    fn split(all: Vec<usize>, generator: usize) -> Self {
        let own = generator.min(all.len().saturating_sub(1));
        Self { servers: all[own..].to_vec(), generator: all[..own].to_vec() }
    }

    fn keep(&self, to: &[usize]) -> Result<()> {
        if self.generator.is_empty() {
            return Ok(());
        }
        let kept = system::keep_to(to);
        kept.context("the cores cannot be divided: use --generator-cores 0")
    }

    /// Before servers are started: they stay where who starts them is.
    fn keep_to_servers(&self) -> Result<()> {
        self.keep(&self.servers)
    }

    fn keep_to_generator(&self) -> Result<()> {
        self.keep(&self.generator)
    }

    fn told(&self) -> String {
        match (self.generator.len(), self.servers.len()) {
            (0, _) => "shares the servers' cores, and takes more of them the more it sends".to_owned(),
            (own, servers) => format!("has {own} of the cores to itself, the servers the other {servers}"),
        }
    }
}

/// The most that a cluster answers.
struct Peak {
    /// Requests in flight.
    in_flight: usize,
    /// Good answers a second.
    rate: f64,
    /// What one costs its servers, in seconds.
    cpu: Option<f64>,
}

fn cpu_per_answer(run: &Run) -> Option<f64> {
    run.server_cpu.filter(|cpu| *cpu > 0.0 && run.answered > 0).map(|cpu| cpu / run.answered as f64)
}

/// Finds it in closed loops.
async fn peak(target: &Http, queries: &Queries, servers: &Servers, options: &Overload) -> Result<Peak> {
    let mut most = Peak { in_flight: 0, rate: 0.0, cpu: None };
    for in_flight in CLOSED {
        let seen = closed(in_flight, target, queries, servers, options).await?;
        if seen.rate > most.rate {
            most = seen;
        }
    }
    Ok(most)
}

async fn closed(
    in_flight: usize,
    target: &Http,
    queries: &Queries,
    servers: &Servers,
    options: &Overload,
) -> Result<Peak> {
    let full = Step {
        name: format!("{in_flight} at a time"),
        pace: Pace::Closed { in_flight },
        warm_up: WARM_UP,
        duration: CLOSED_FOR,
        timeout: options.timeout * 2,
        in_flight_max: in_flight,
        seed: options.seed,
    };
    let run = step(target, queries, servers, &full).await?;
    ensure!(run.answered > 0, "nothing was answered: {:?}", run.failed);
    errln!(
        "{in_flight} at a time: {:.0} a second, p50 {:.1} ms, p99 {:.1} ms, {} failed.",
        run.throughput(),
        run.latency.percentile(50.0) as f64 / 1e3,
        run.latency.percentile(99.0) as f64 / 1e3,
        run.failures()
    );
    Ok(Peak { in_flight, rate: run.throughput(), cpu: cpu_per_answer(&run) })
}

/// Calm, too much, calm.
fn surge(options: &Overload, able: f64) -> Step {
    let phase = |times: f64, time| Phase { rate: able * times, time };
    let phases = vec![
        phase(options.load, WARM_UP + options.calm),
        phase(options.times, options.overload),
        phase(options.load, options.calm * 3),
    ];
    Step {
        pace: Pace::Phases { phases, arrivals: Arrivals::Poisson },
        ..open(
            &format!("{} times the peak for {:?}", options.times, options.overload),
            able,
            options.calm * 4 + options.overload,
            options,
        )
    }
}

fn open(name: &str, rate: f64, duration: Duration, options: &Overload) -> Step {
    Step {
        name: name.to_owned(),
        pace: Pace::Open { rate, arrivals: Arrivals::Poisson },
        warm_up: WARM_UP,
        duration,
        // Longer than the searches': who says that time is up is the server.
        timeout: options.timeout * 2,
        in_flight_max: IN_FLIGHT_MAX,
        seed: options.seed,
    }
}

/// What became of the answers during the overload, and when all was as before.
fn verdict(run: &mut Run, options: &Overload, able: f64) -> Vec<String> {
    let begin = options.calm.as_secs_f64();
    let end = begin + options.overload.as_secs_f64();
    let between = |from: f64, to: f64| run.moments.iter().filter(move |at| at.at > from && at.at <= to);
    let mut usual: Vec<u64> = between(0.0, begin).map(|moment| moment.p99).collect();
    usual.sort_unstable();
    let Some(usual) = usual.get(usual.len() / 2).map(|us| *us as f64) else { return Vec::new() };
    // In the first second what was calm is still ending.
    let during: Vec<&Moment> = between(begin + 1.0, end).collect();
    let answered = during.iter().map(|moment| moment.answered).sum::<u64>() as f64;
    let seconds: f64 = during.iter().map(|moment| moment.seconds).sum();
    let share = 100.0 * answered / seconds.max(1.0) / able;
    let worst = during.iter().map(|moment| moment.p99).max().unwrap_or(0) as f64;
    let after: Vec<Moment> = between(end, f64::INFINITY).cloned().collect();
    let mut notes = vec![format!(
        "During the overload {:.0} queries a second were answered, {share:.0} % of the peak, with a 99th percentile \
         of at most {:.1} ms.",
        answered / seconds.max(1.0),
        worst / 1e3
    )];
    run.figures.insert("goodput in the overload, % of the peak".into(), share);
    let back = back(&after, usual);
    if let Some(back) = back {
        run.figures.insert("until p99 is back, s".into(), back as f64);
    }
    notes.push(match back {
        Some(seconds) => format!(
            "The 99th percentile was back within 10 % of its usual {:.1} ms after {seconds} s.",
            usual / 1e3
        ),
        None => format!(
            "The 99th percentile was not back within 10 % of its usual {:.1} ms after {:.0} s: it was {:.1} ms.",
            usual / 1e3,
            (options.calm * 3).as_secs_f64(),
            after.last().map_or(0.0, |moment| moment.p99 as f64 / 1e3)
        ),
    });
    notes
}

/// Seconds after which the median of three seconds' 99th percentiles is within a
/// tenth of the usual one and nothing fails: one second has too few answers to
/// have the same percentile as the next.
fn back(after: &[Moment], usual: f64) -> Option<usize> {
    let calm = |three: &[Moment]| {
        let mut p99: Vec<u64> = three.iter().map(|moment| moment.p99).collect();
        p99.sort_unstable();
        p99[1] as f64 <= usual * 1.1 && three.iter().all(|moment| moment.failed == 0)
    };
    after.windows(3).position(calm)
}

/// What refusals, attempts and late work cost.
fn costs(run: &mut Run) -> Vec<String> {
    let mut notes = Vec::new();
    if !run.refusals.is_empty() {
        let at = |percentile| run.refusals.percentile(percentile) as f64 / 1e3;
        notes.push(format!(
            "{}: {} were refused, in {:.2} ms at the median and {:.2} ms at the 99th percentile.",
            run.name,
            run.refusals.len(),
            at(50.0),
            at(99.0)
        ));
        let p99 = at(99.0);
        run.figures.insert("p99 of refusals, ms".into(), p99);
    }
    let grown = |name: &str| run.counters.get(name).copied().unwrap_or(0.0);
    let calls = grown("leaf calls");
    let first = calls - grown("retries") - grown("hedges");
    let started = grown("leaf work started");
    let expired = grown("leaf work expired while it ran");
    let figures = [
        ("attempts per sub-request", calls / first, first),
        ("expired work, % of what leaves started", 100.0 * expired / started, started),
    ];
    for (name, figure, of) in figures {
        if of > 0.0 {
            run.figures.insert(name.into(), figure);
        }
    }
    let core = run.own_cpu / run.seconds.max(1.0);
    if core > BUSY {
        notes.push(format!(
            "{}: the generator used {core:.2} of its one core, and may have been what held it back.",
            run.name
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(p99: &[(u64, u64)]) -> Vec<Moment> {
        p99.iter().map(|(p99, failed)| Moment { p99: *p99, failed: *failed, ..Moment::default() }).collect()
    }

    #[test]
    fn it_is_back_when_most_seconds_are_as_usual_and_none_fails() {
        let after = moments(&[(900, 0), (90, 1), (100, 0), (300, 0), (109, 0), (500, 0)]);
        assert_eq!(back(&after, 100.0), Some(2));
        assert_eq!(back(&moments(&[(900, 0); 9]), 100.0), None);
        assert_eq!(back(&[], 100.0), None);
    }

    #[test]
    fn a_core_is_left_for_servers_and_what_is_shared_is_said() {
        let split = |cores: usize, generator| Cores::split((0..cores).collect(), generator);
        let sizes = |cores: &Cores| (cores.generator.len(), cores.servers.len());
        assert_eq!(
            [(8, 1), (2, 1), (2, 5), (1, 1), (4, 0), (0, 1)].map(|(all, own)| sizes(&split(all, own))),
            [(1, 7), (1, 1), (1, 1), (0, 1), (0, 4), (0, 0)]
        );
        assert!(split(1, 1).told().starts_with("shares"));
    }

    #[test]
    fn attempts_are_told_beside_the_first_ones() {
        let mut run = Run { seconds: 1.0, ..Run::default() };
        for (name, grown) in [("leaf calls", 103.0), ("retries", 1.0), ("hedges", 2.0)] {
            run.counters.insert(name.into(), grown);
        }
        assert!(costs(&mut run).is_empty());
        assert_eq!(run.figures.get("attempts per sub-request"), Some(&1.03));
        run.own_cpu = 0.95;
        (0..100).for_each(|us| run.refusals.record(us));
        let notes = costs(&mut run).concat();
        assert!(notes.contains("100 were refused") && notes.contains("0.95 of its one core"), "{notes}");
    }
}
