//! The simulator: repeatable, and true where theory says what is true.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use testkit::simulator::{Scenario, simulate};

fn scenario(more: &str) -> Scenario {
    let base = r#"
        title = "a test"
        shards = 4
        copies = 2
        queries = 3000
        warm_up = 200
        load = 0.5
        service = { exponential = "1ms" }
    "#;
    let scenario: Scenario = toml::from_str(&format!("{base}\n{more}")).unwrap();
    scenario.check().unwrap();
    scenario
}

#[test]
fn the_same_seed_gives_the_same_trace_line_by_line() {
    let faulty = scenario(
        r#"
        roots = 3
        attempt_timeout = "20ms"
        network = { delay = { exponential = "100us" }, loss = 0.01, again_after = "10ms" }
        stalls = { every = "300ms", length = "30ms" }
        cancel = "500us"
        down = [{ leaves = [3], from = "200ms", to = "400ms" }]
        "#,
    );
    let (one, two) = (simulate(&faulty, 7, true).unwrap(), simulate(&faulty, 7, true).unwrap());
    assert!(one.trace.len() > 20_000, "{}", one.trace.len());
    for (line, (one, two)) in one.trace.iter().zip(&two.trace).enumerate() {
        assert_eq!(one, two, "line {line}");
    }
    assert_eq!(one.trace.len(), two.trace.len());
    assert_ne!(one.trace, simulate(&faulty, 8, true).unwrap().trace);
}

/// One shard, one leaf, one thread: the queue M/M/1, whose times are known.
#[test]
fn a_single_queue_is_as_theory_says() {
    let single = Scenario { shards: 1, copies: 1, queries: 200_000, ..scenario("") };
    let run = simulate(&single, 1, false).unwrap().run;
    assert_eq!((run.answered, run.failures()), (run.sent, 0));
    // Times are exponential with mean 1 ms / (1 - 0.5).
    let mean = run.latency.mean() / 1e3;
    assert!((mean / 2.0 - 1.0).abs() < 0.05, "{mean} ms");
    let p99 = run.latency.percentile(99.0) as f64 / 1e3;
    assert!((p99 / (2.0 * 100_f64.ln()) - 1.0).abs() < 0.08, "{p99} ms");
    let used = run.figures["leaves' time in use"];
    assert!((used - 0.5).abs() < 0.02, "{used}");
}

#[test]
fn a_stall_is_seen_and_a_dead_leaf_is_passed_over() {
    let calm = simulate(&scenario("cancel = \"0ms\""), 3, false).unwrap().run;
    let stalls =
        scenario("hedging = false\nstalls = { every = \"200ms\", length = \"100ms\", leaves = [0] }");
    // The other copy's leaf takes twice as much meanwhile.
    let stalls = Scenario { load: Some(0.3), ..stalls };
    let stalled = simulate(&stalls, 3, false).unwrap().run;
    assert!(calm.latency.percentile(99.0) < 25_000);
    assert!(stalled.latency.percentile(99.0) > 50_000);
    let hedged = Scenario { hedging: true, ..stalls };
    let hedged = simulate(&hedged, 3, false).unwrap().run;
    assert!(hedged.latency.percentile(99.0) < 40_000, "{}", hedged.latency.percentile(99.0));
    // 2 % of 12,800 sends, and the burst of 30.
    assert!(hedged.figures["further sends, %"] <= 2.8, "{:?}", hedged.figures);
    // The others take twice as much.
    let down = Scenario { load: Some(0.3), ..scenario("down = [{ leaves = [0, 2] }]") };
    let passed = simulate(&down, 3, false).unwrap().run;
    assert_eq!(passed.failures(), 0, "{:?}", passed.failed);
    let gone = scenario("down = [{ leaves = [0, 1] }]");
    let failed = simulate(&gone, 3, false).unwrap().run;
    assert_eq!((failed.answered, failed.failures()), (0, failed.sent), "shard 0 is nowhere");
}

#[test]
fn two_choices_are_better_than_one() {
    let many = |choice: &str| {
        let mut many = scenario(&format!("hedging = false\nchoice = \"{choice}\""));
        (many.shards, many.copies, many.load) = (20, 3, Some(0.7));
        (1..=3).map(|seed| simulate(&many, seed, false).unwrap().run.latency.percentile(99.0)).sum::<u64>()
    };
    let (random, two) = (many("random"), many("two_choices"));
    assert!(two * 4 < random * 3, "{two} µs, at random {random} µs");
}

#[test]
fn pauses_surges_newcomers_and_lingering_answers_are_simulated() {
    let paused = scenario(
        "hedging = false\npauses = [{ leaves = [0], from = \"1s\", to = \"1500ms\" }]\nattempt_timeout = \"5s\"",
    );
    let slices = simulate(&paused, 3, false).unwrap().slices;
    let worst = slices.iter().map(|slice| slice.latency.max()).max().unwrap();
    assert!((300_000..700_000).contains(&worst), "{worst}");
    let phases = "phases = [{ times = 1.0, length = \"1s\" }, { times = 2.0, length = \"1s\" }]";
    let sent: Vec<u64> =
        simulate(&scenario(phases), 3, false).unwrap().slices.iter().map(|it| it.sent).collect();
    let (one, two) = (sent[..4].iter().sum::<u64>(), sent[4..8].iter().sum::<u64>());
    assert!(two * 10 > one * 17 && two * 10 < one * 23, "{sent:?}");
    let newcomer = scenario("joins = [{ leaf = 1, at = \"1s\" }]");
    let run = simulate(&newcomer, 3, false).unwrap().run;
    let share = run.figures["calls of a newcomer in its first second, times its share"];
    assert!((0.7..1.4).contains(&share), "{share}");
    let lingering = scenario("linger = { share = 0.1, time = \"100ms\" }\nhedging = false");
    let run = simulate(&lingering, 3, false).unwrap().run;
    // Four calls, of which none may linger.
    let within = run.latency.share_within(100_000);
    assert!((within - 0.9_f64.powi(4)).abs() < 0.04, "{within}");
}

#[test]
fn tied_calls_wait_less_and_cost_nothing() {
    let mut calls = scenario("hedging = false\nchoice = \"random\"");
    calls.load = Some(0.7);
    let alone = simulate(&calls, 3, false).unwrap().run;
    let tied = simulate(&Scenario { tied: true, ..calls }, 3, false).unwrap().run;
    assert!(tied.latency.percentile(99.0) * 3 < alone.latency.percentile(99.0) * 2);
    let work = |run: &load::report::Run| run.counters["leaf seconds"];
    assert!((work(&tied) / work(&alone) - 1.0).abs() < 0.1, "{} {}", work(&tied), work(&alone));
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (from, to, says) in [
        ("copies = 2", "copies = 0", "copies"),
        ("load = 0.5", "", "load"),
        ("load = 0.5", "load = -1.0", "above 0"),
        ("exponential = \"1ms\"", "lognormal = { mean = \"1ms\", sigma = 9.0 }", "sigma"),
    ] {
        let base = "title = \"t\"\nshards = 4\ncopies = 2\nqueries = 10\nload = 0.5\nservice = { exponential = \"1ms\" }\n";
        let wrong: Scenario = toml::from_str(&base.replace(from, to)).unwrap();
        let error = wrong.check().unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scenario.toml");
    std::fs::write(&file, "title = \"t\"\nshard = 4\n").unwrap();
    let error = format!("{:#}", Scenario::read(&file).unwrap_err());
    assert!(error.contains("line 2") && error.contains("shard"), "{error}");
    assert!(Scenario::read(&folder.path().join("none.toml")).is_err());
}
