//! What replica choice, hedging and admission do to the slowest queries, in the
//! simulator.
//!
//! `cargo bench --bench tails [-- SEEDS [SECTION …]]`, with the sections
//! `stalls`, `single`, `book`, `never-worse`, `slower`, `overload`, `even`, `newcomer` and `tied`; 20
//! seeds and all sections without any. Figures are means over the seeds ± their standard deviation;
//! each ratio is of two runs with the same seeds.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use load::report::Histogram;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use testkit::simulator::{Outcomes, Scenario, Slice, simulate};

const SEEDS: u64 = 20;
/// What is shown, by its name.
type Section = (&'static str, fn(u64));
/// Seeds of what takes long and is told to one digit.
const FEW: u64 = 5;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let seeds = arguments.next().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
    let wanted: Vec<String> = arguments.collect();
    let sections: [Section; 9] = [
        ("stalls", stalls),
        ("single", single),
        ("book", book),
        ("never-worse", never_worse),
        ("slower", slower),
        ("overload", overload),
        ("even", even),
        ("newcomer", newcomer),
        ("tied", tied),
    ];
    for (name, section) in sections {
        if wanted.is_empty() || wanted.iter().any(|it| it == name) {
            println!();
            section(seeds);
        }
    }
}

/// What is common: the way takes 0.1 ms, a cancel 0.5 ms.
const BASE: &str = r#"
    title = "tails"
    queries = 5000
    warm_up = 2000
    network = { delay = { constant = "100us" } }
    cancel = "500us"
"#;
/// A search by one leaf of one shard.
const SERVICE: &str = r#"service = { lognormal = { mean = "1ms", sigma = 0.8 } }"#;
const STALLS: &str = r#"stalls = { every = "10s", length = "100ms" }"#;

fn scenario(members: &[&str]) -> Scenario {
    let text = format!("{BASE}\n{}", members.join("\n"));
    let scenario: Scenario = toml::from_str(&text).expect("a scenario");
    scenario.check().expect("a scenario that makes sense");
    scenario
}

/// As many leaves as shards, three copies each, so that no two leaves hold the
/// same: what a leaf leaves undone is shared by six others.
fn scattered(shards: u32, members: &[&str]) -> Scenario {
    let (shape, mut random) =
        (format!("shards = {shards}\ncopies = 3\nleaves = {shards}"), StdRng::seed_from_u64(7));
    let mut scenario = scenario(&[&[shape.as_str(), SERVICE], members].concat());
    let mut columns: Vec<Vec<u32>> = Vec::new();
    while columns.len() < 3 {
        let mut column: Vec<u32> = (0..shards).collect();
        column.shuffle(&mut random);
        let collides = |shard: usize| columns.iter().any(|other| other[shard] == column[shard]);
        if !(0..shards as usize).any(collides) {
            columns.push(column);
        }
    }
    let of = |shard: usize| columns.iter().map(|column| column[shard]).collect();
    scenario.placement = Some((0..shards as usize).map(of).collect());
    scenario
}

/// Runs every seed, as many side by side as there are cores.
fn runs(scenario: &Scenario, seeds: u64) -> Vec<Outcomes> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed) as u64;
                    if seed >= seeds {
                        break;
                    }
                    let outcomes = simulate(scenario, seed, false).expect("a simulation");
                    done.lock().expect("no panic").push((seed, outcomes));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no panic");
    done.sort_by_key(|(seed, _)| *seed);
    done.into_iter().map(|(_, outcomes)| outcomes).collect()
}

/// A mean and a standard deviation.
struct Spread(f64, f64);

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{:.1} ± {:.1}", self.0, self.1))
    }
}

fn spread(values: impl IntoIterator<Item = f64>) -> Spread {
    let values: Vec<f64> = values.into_iter().collect();
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    Spread(mean, (squares / (count - 1.0).max(1.0)).sqrt())
}

fn at(runs: &[Outcomes], percentile: f64) -> Spread {
    spread(runs.iter().map(|it| it.run.latency.percentile(percentile) as f64 / 1e3))
}

fn figure(runs: &[Outcomes], name: &str) -> f64 {
    spread(runs.iter().map(|it| it.run.figures.get(name).copied().unwrap_or_default())).0
}

fn counter(runs: &[Outcomes], name: &str) -> f64 {
    runs.iter().map(|it| it.run.counters.get(name).copied().unwrap_or_default()).sum()
}

/// Every leaf stands still for 100 ms about every 10 s.
fn stalls(seeds: u64) {
    stalling("100 shards × 3 copies on 100 leaves, scattered", scattered_100, seeds);
}

/// The same where each leaf holds one shard, so that two can leave all to a third.
fn single(seeds: u64) {
    let single = |members: &[&str]| scenario(&[&["shards = 100\ncopies = 3", SERVICE], members].concat());
    stalling("100 shards × 3 copies on 300 leaves, one shard each", single, seeds.min(FEW));
}

fn scattered_100(members: &[&str]) -> Scenario {
    scattered(100, members)
}

fn stalling(layout: &str, of: fn(&[&str]) -> Scenario, seeds: u64) {
    println!("Stalls of 100 ms about every 10 s of each leaf: {layout}, 8 roots, ms");
    println!(
        "{:<6} {:<26} {:>14} {:>14} {:>8} {:>8} {:>7}",
        "load", "", "p99", "p99.9", "times", "further", "pings"
    );
    for load in ["0.5", "0.7", "0.85"] {
        let mut calm = 0.0;
        for (name, hedging, stalls) in [
            ("no stalls, hedging off", false, ""),
            ("no stalls", true, ""),
            ("stalls, hedging off", false, STALLS),
            ("stalls", true, STALLS),
        ] {
            let (load, hedging) = (format!("load = {load}"), format!("hedging = {hedging}"));
            let members = ["roots = 8", &load, &hedging, stalls];
            let runs = runs(&of(&members), seeds);
            let p999 = at(&runs, 99.9);
            if calm == 0.0 {
                calm = p999.0;
            }
            println!(
                "{:<6} {name:<26} {:>14} {p999:>14} {:>8.2} {:>6.2} % {:>5.1} %",
                &load[7..],
                at(&runs, 99.0),
                p999.0 / calm,
                figure(&runs, "further sends, %"),
                100.0 * counter(&runs, "pings") / counter(&runs, "leaf calls"),
            );
        }
    }
}

/// Dean and Barroso's example: one call in a hundred takes far too long.
fn book(seeds: u64) {
    println!("1 % of the leaf calls take 2 s, 3 copies: queries that take over 1 s");
    println!("{:<8} {:>12} {:>12} {:>9}", "fan-out", "hedging off", "hedging", "further");
    for shards in [5, 100] {
        let shape = format!("shards = {shards}\ncopies = 3");
        let run = |hedging: &str| {
            let scenario = scenario(&[
                &shape,
                SERVICE,
                hedging,
                "load = 0.1\nroots = 1\nattempt_timeout = \"10s\"",
                "linger = { share = 0.01, time = \"2s\" }",
            ]);
            runs(&scenario, seeds)
        };
        let (off, on) = (run("hedging = false"), run("hedging = true"));
        println!(
            "{shards:<8} {:>10.2} % {:>10.4} % {:>7.2} %",
            100.0 * above(&off, 1_000_000),
            100.0 * above(&on, 1_000_000),
            figure(&on, "further sends, %"),
        );
    }
}

/// The part of the answers that took longer, in µs.
fn above(runs: &[Outcomes], us: u64) -> f64 {
    let mut all = Histogram::default();
    runs.iter().for_each(|it| all.add(&it.run.latency));
    1.0 - all.share_within(us)
}

/// Hedging beside none, seed by seed.
fn never_worse(seeds: u64) {
    let loads = ["0.1", "0.3", "0.5", "0.7", "0.85", "0.95"];
    let cases = loads.map(|load| (format!("load {load}"), vec![format!("load = {load}")]));
    on_beside_off(seeds, cases.into());
}

/// The same while every leaf is slower, for two seconds.
fn slower(seeds: u64) {
    let cases = [(3, "0.25"), (2, "0.6")].map(|(factor, load)| {
        let slow = format!("slow = [{{ factor = {factor}.0, from = \"10s\", to = \"12s\" }}]");
        (format!("all {factor} × slower, load {load}"), vec![format!("load = {load}"), slow])
    });
    on_beside_off(seeds, cases.into());
}

fn on_beside_off(seeds: u64, cases: Vec<(String, Vec<String>)>) {
    println!("Hedging on beside off, 100 shards × 3 copies on 100 leaves, 8 roots, paired by seed");
    println!("{:<28} {:>12} {:>12} {:>12} {:>9}", "", "p99, times", "p99.9, times", "goodput", "further");
    for (name, members) in cases {
        let members: Vec<&str> = members.iter().map(String::as_str).collect();
        let run = |hedging: &str| {
            runs(&scattered(100, &[&members[..], &[hedging, "roots = 8\ntimeout = \"1s\""]].concat()), seeds)
        };
        let (off, on) = (run("hedging = false"), run("hedging = true"));
        let ratio = |percentile| {
            let pairs = on.iter().zip(&off).map(|(on, off)| {
                on.run.latency.percentile(percentile) as f64 / off.run.latency.percentile(percentile) as f64
            });
            let Spread(mean, deviation) = spread(pairs);
            format!("{mean:.2} ± {deviation:.2}")
        };
        let answered = |runs: &[Outcomes]| runs.iter().map(|it| it.run.answered).sum::<u64>() as f64;
        println!(
            "{name:<28} {:>12} {:>12} {:>12.4} {:>7.2} %",
            ratio(99.0),
            ratio(99.9),
            answered(&on) / answered(&off),
            figure(&on, "further sends, %")
        );
    }
}

/// The same moments of all seeds together.
fn pooled(runs: &[Outcomes]) -> Vec<Slice> {
    let mut all: Vec<Slice> = Vec::new();
    for run in runs {
        all.resize_with(all.len().max(run.slices.len()), Slice::default);
        all.iter_mut().zip(&run.slices).for_each(|(all, slice)| all.add(slice));
    }
    all
}

/// Overload, stalls of many, and what is left when they are over.
fn overload(seeds: u64) {
    println!("Triggers at 5 s: 20 shards × 3 copies on 20 leaves, 4 roots, timeout 1 s");
    println!(
        "{:<34} {:>9} {:>9} {:>9} {:>12} {:>10}",
        "", "p99 calm", "worst", "back in", "allowed", "attempts"
    );
    let run =
        |members: &[&str]| runs(&scattered(20, &[members, &["roots = 4\ntimeout = \"1s\""]].concat()), seeds);
    let surge = "phases = [{ times = 1.0, length = \"5s\" }, { times = 2.8571, length = \"5s\" }, { times = 1.0, length = \"20s\" }]";
    let even = "phases = [{ times = 1.0, length = \"20s\" }]";
    // The warm-up of 2,000 queries at 500 a second.
    let still = "pauses = [{ share = 0.3, from = \"9s\", to = \"11s\" }]";
    for (name, members, trigger) in [
        ("2 × overload for 5 s, else 0.7", vec!["load = 0.7", surge], 5.0),
        ("30 % stand still for 2 s, load 0.5", vec!["load = 0.5", even, still], 2.0),
    ] {
        let runs = run(&members);
        let slices = pooled(&runs);
        let p99 = |slice: &Slice| slice.latency.percentile(99.0) as f64 / 1e3;
        let begin = Duration::from_secs(5);
        let mut before = Histogram::default();
        slices.iter().filter(|slice| slice.end <= begin).for_each(|slice| before.add(&slice.latency));
        let calm = before.percentile(99.0) as f64 / 1e3;
        let over = begin + Duration::from_secs_f64(trigger);
        let worst = slices.iter().map(p99).fold(0.0, f64::max);
        let bad = slices.iter().filter(|slice| slice.end > over && slice.sent > 0 && p99(slice) > calm * 1.1);
        // The last moment of the time after the trigger in which it is not yet back, one odd
        // quarter of a second aside.
        let ends: Vec<f64> = bad.map(|slice| (slice.end - begin).as_secs_f64()).collect();
        let back = settled(&ends, trigger);
        let attempts = slices.iter().filter(|slice| slice.first > 0);
        let attempts =
            attempts.map(|slice| 1.0 + slice.further as f64 / slice.first as f64).fold(0.0, f64::max);
        println!(
            "{name:<34} {calm:>6.1} ms {worst:>6.0} ms {back:>7.2} s {:>10.0} s {attempts:>10.3}",
            2.0 * trigger,
        );
    }
    println!();
    println!("{:<12} {:>12} {:>10} {:>10} {:>10}", "sustained", "goodput/s", "of peak", "p99", "attempts");
    let mut peak: f64 = 0.0;
    for times in ["0.9", "1.0", "1.2", "1.5", "2.0", "3.0"] {
        let load = format!("load = {times}");
        let runs = run(&[&load, "phases = [{ times = 1.0, length = \"10s\" }]"]);
        let goodput = spread(runs.iter().map(|it| it.run.answered as f64 / it.run.seconds)).0;
        peak = peak.max(goodput);
        println!(
            "{times:<12} {goodput:>12.0} {:>8.1} % {:>7.0} ms {:>10.3}",
            100.0 * goodput / peak,
            at(&runs, 99.0).0,
            1.0 + figure(&runs, "further sends, %") / 100.0
        );
    }
}

/// The end of the run of bad moments that begins with the trigger.
fn settled(bad: &[f64], trigger: f64) -> f64 {
    let mut until = trigger;
    for end in bad {
        if *end <= until + 0.51 {
            until = *end;
        }
    }
    until
}

/// Roots that do not know of each other.
fn even(seeds: u64) {
    // Long enough for chance to even out at each leaf.
    of_eight(seeds.min(FEW), 20_000, "most in flight at a leaf, times the mean", "");
}

/// A replica that they have not heard of.
fn newcomer(seeds: u64) {
    // Its first second is over before they are.
    let joins = "joins = [{ leaf = 2, at = \"3s\" }]";
    of_eight(seeds, 8_000, "calls of a newcomer in its first second, times its share", joins);
}

fn of_eight(seeds: u64, queries: u64, name: &str, more: &str) {
    println!("8 roots that do not know of each other, 100 shards × 3 copies on 300 leaves");
    println!("{:<6} {name}", "load");
    for load in ["0.3", "0.5", "0.7"] {
        let of = format!("load = {load}");
        let mut scenario = scenario(&["shards = 100\ncopies = 3\nroots = 8", SERVICE, &of, more]);
        scenario.queries = queries;
        let runs = runs(&scenario, seeds);
        let values = runs.iter().filter_map(|it| it.run.figures.get(name).copied());
        let Spread(mean, deviation) = spread(values);
        println!("{load:<6} {mean:.2} ± {deviation:.2}");
    }
}

/// Tied requests beside and with hedging.
fn tied(seeds: u64) {
    println!("Tied requests, 100 shards × 3 copies on 100 leaves, 8 roots, ms");
    println!("{:<6} {:<8} {:<24} {:>14} {:>14} {:>9}", "load", "", "", "p99", "p99.9", "work");
    for load in ["0.5", "0.7", "0.85"] {
        for (what, stalls) in [("calm", ""), ("stalls", STALLS)] {
            let mut work = 0.0;
            for (name, members) in [
                ("hedging", "hedging = true"),
                ("tied", "hedging = false\ntied = true"),
                ("hedging and tied", "tied = true"),
            ] {
                let of = format!("load = {load}");
                let runs = runs(&scattered(100, &["roots = 8", &of, members, stalls]), seeds.min(FEW));
                let done = counter(&runs, "leaf seconds");
                if work == 0.0 {
                    work = done;
                }
                println!(
                    "{load:<6} {what:<8} {name:<24} {:>14} {:>14} {:>7.1} %",
                    at(&runs, 99.0),
                    at(&runs, 99.9),
                    100.0 * (done / work - 1.0)
                );
            }
        }
    }
}
