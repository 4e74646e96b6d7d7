//! What a limit does by itself, and in front of a simulated service.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::choice::Draw;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn answered(latency: Duration) -> Ended {
    Ended::Answered { latency, unloaded: None }
}

/// Ends a window of twenty requests with this latency, `at` in milliseconds.
fn window(limit: &mut Limit, at: u64, in_flight: usize, latency: u64) {
    (0..20).for_each(|_| limit.ended(ms(at), in_flight, answered(ms(latency))));
}

#[test]
fn a_limit_that_is_not_used_does_not_grow() {
    let mut limit = Limit::new(Settings::default());
    (1..1_000).for_each(|step| window(&mut limit, step * 100, 20, 5));
    assert_eq!(limit.now(), 64);
}

#[test]
fn a_limit_that_is_used_grows_while_latency_stays_and_falls_back_when_idle() {
    let mut limit = Limit::new(Settings { probe_after: ms(1_000_000), ..Settings::default() });
    window(&mut limit, 100, 1, 5);
    for step in 2..300 {
        let used = limit.now();
        window(&mut limit, step * 100, used, 5);
    }
    assert_eq!(limit.now(), 1_000, "and not beyond its bound");
    (300..900).for_each(|step| window(&mut limit, step * 100, 1, 5));
    assert_eq!(limit.now(), 64);
}

#[test]
fn latency_above_what_is_allowed_shrinks_it_to_its_least_and_not_below() {
    let mut limit = Limit::new(Settings { probe_after: ms(1_000_000), ..Settings::default() });
    window(&mut limit, 100, 1, 5);
    for step in 1..20 {
        let used = limit.now();
        window(&mut limit, step * 10_000, used, 9_000);
    }
    assert_eq!(limit.now(), 4);
}

#[test]
fn requests_that_began_before_it_shrank_do_not_shrink_it_again() {
    let mut limit = Limit::new(Settings::default());
    window(&mut limit, 100, 1, 5);
    window(&mut limit, 3_000, 64, 2_000);
    let shrunk = limit.now();
    assert!(shrunk < 60);
    (0..10).for_each(|step| window(&mut limit, 5_100 + step * 100, 64, 2_000 + 200 * (step + 1)));
    assert_eq!(limit.now(), shrunk);
}

#[test]
fn refusals_further_down_shrink_it_unless_they_are_few() {
    for (refusals, smaller) in [(1, false), (20, true)] {
        let mut limit = Limit::new(Settings::default());
        window(&mut limit, 100, 1, 5);
        (0..refusals).for_each(|_| limit.ended(ms(150), 64, Ended::Refused));
        (0..2).for_each(|_| window(&mut limit, 200, 64, 5));
        assert_eq!(limit.now() < 64, smaller, "{refusals}: {}", limit.now());
    }
}

#[test]
fn an_impatient_caller_says_nothing_and_a_patient_one_that_gave_up_does() {
    let mut limit = Limit::new(Settings::default());
    window(&mut limit, 100, 1, 5);
    let lost = |limit: &mut Limit, latency| {
        (0..100).for_each(|_| limit.ended(ms(5_000), 64, Ended::Lost { latency: ms(latency) }));
    };
    lost(&mut limit, 1);
    assert_eq!((limit.now(), limit.unloaded()), (64, Some(ms(5))));
    lost(&mut limit, 1_000);
    assert!(limit.now() < 64);
}

#[test]
fn a_few_slow_requests_do_not_matter() {
    let mut limit = Limit::new(Settings::default());
    (1..4).for_each(|step| window(&mut limit, step * 100, 1, 5));
    for step in 1..100 {
        (0..4).for_each(|_| limit.ended(ms(step * 5_000), 64, answered(ms(3_000))));
        (0..16).for_each(|_| limit.ended(ms(step * 5_000), 64, answered(ms(5))));
    }
    assert!(limit.now() > 64, "{}", limit.now());
}

#[test]
fn what_is_unloaded_falls_soon_and_rises_slowly() {
    let mut limit = Limit::new(Settings::default());
    window(&mut limit, 100, 1, 100);
    (2..12).for_each(|step| window(&mut limit, step * 100, 1, 5));
    assert!(limit.unloaded() < Some(ms(6)), "{:?}", limit.unloaded());
    window(&mut limit, 1_200, 1, 100);
    assert!(limit.unloaded() < Some(ms(8)), "{:?}", limit.unloaded());
    (13..400).for_each(|step| window(&mut limit, step * 100, 1, 100));
    assert!(limit.unloaded() > Some(ms(90)), "{:?}", limit.unloaded());
}

#[test]
fn where_the_time_of_the_work_is_known_only_the_queue_counts() {
    let told = |latency, unloaded| {
        let mut limit = Limit::new(Settings::default());
        for step in 1..20 {
            let used = limit.now();
            (0..20).for_each(|_| {
                let ended = Ended::Answered { latency: ms(latency), unloaded: Some(ms(unloaded)) };
                limit.ended(ms(step * 5_000), used, ended);
            });
        }
        assert!(!limit.probing());
        limit.now()
    };
    assert!(told(900, 800) > 64);
    assert!(told(900, 1) < 64);
}

/// A service of some threads with a queue before them, and a limit before that.
struct Service {
    limit: Option<Limit>,
    threads: usize,
    now: f64,
    draw: Draw,
    /// When each was taken in.
    queue: VecDeque<f64>,
    /// When each thread ends, and when its request was taken in.
    running: BinaryHeap<Reverse<(u64, u64)>>,
    /// Takes this long on average, by a law of its own.
    service: Box<dyn Fn(&mut Draw) -> f64>,
    /// When each ended, and after how long.
    answers: Vec<(f64, f64)>,
    /// Seconds of work begun.
    work: f64,
    refused: usize,
}

fn uniform(draw: &mut Draw) -> f64 {
    (draw.below(1 << 30) as f64 + 0.5) / f64::from(1 << 30)
}

fn exponential(draw: &mut Draw, mean: f64) -> f64 {
    -mean * uniform(draw).ln()
}

impl Service {
    fn new(threads: usize, service: impl Fn(&mut Draw) -> f64 + 'static, limit: Option<Limit>) -> Self {
        Self {
            limit,
            threads,
            now: 0.0,
            draw: Draw::new(7),
            queue: VecDeque::new(),
            running: BinaryHeap::new(),
            service: Box::new(service),
            answers: Vec::new(),
            work: 0.0,
            refused: 0,
        }
    }

    fn in_flight(&self) -> usize {
        self.queue.len() + self.running.len()
    }

    fn begin(&mut self) {
        while self.running.len() < self.threads {
            let Some(taken) = self.queue.pop_front() else { return };
            let work = (self.service)(&mut self.draw);
            self.work += work;
            self.running.push(Reverse((((self.now + work) * 1e9) as u64, (taken * 1e9) as u64)));
        }
    }

    fn arrive(&mut self) {
        if self.limit.as_ref().is_some_and(|limit| self.in_flight() >= limit.now()) {
            self.refused += 1;
            return;
        }
        self.queue.push_back(self.now);
        self.begin();
    }

    /// Ends what ends before `until`.
    fn end(&mut self, until: f64) -> bool {
        let Some(Reverse((ends, taken))) = self.running.peek().copied() else { return false };
        let (ends, taken) = (ends as f64 / 1e9, taken as f64 / 1e9);
        if ends > until {
            return false;
        }
        let in_flight = self.in_flight();
        self.running.pop();
        self.now = self.now.max(ends);
        self.answers.push((self.now, self.now - taken));
        if let Some(limit) = &mut self.limit {
            let latency = Duration::from_secs_f64(self.now - taken);
            limit.ended(Duration::from_secs_f64(self.now), in_flight, answered(latency));
        }
        self.begin();
        true
    }

    /// Takes `rate` requests a second for `time` seconds.
    fn open(&mut self, rate: f64, time: f64) {
        let until = self.now + time;
        loop {
            let next = self.now + exponential(&mut self.draw, 1.0 / rate);
            while self.end(next.min(until)) {}
            self.now = next.min(until);
            if next >= until {
                return;
            }
            self.arrive();
        }
    }

    /// The 99th percentile of latency since `from`.
    fn p99(&self, from: f64) -> f64 {
        let mut latencies: Vec<f64> =
            self.answers.iter().filter(|(at, _)| *at > from).map(|(_, latency)| *latency).collect();
        latencies.sort_unstable_by(f64::total_cmp);
        latencies.get(latencies.len() * 99 / 100).copied().unwrap_or(0.0)
    }

    /// The part of what the threads could do in `time` that they did. All of it
    /// is goodput: nothing that was admitted is given up.
    fn open_and_use(&mut self, rate: f64, time: f64) -> f64 {
        let work = self.work;
        self.open(rate, time);
        (self.work - work) / time / self.threads as f64
    }
}

/// Calm, three times what it can do, calm again: nothing is lost in the first,
/// nearly nothing of what can be done in the second, and the third is as the
/// first. Returns the 99th percentiles of all three.
fn overloaded(threads: usize, mean: f64, service: impl Fn(&mut Draw) -> f64 + 'static) -> [f64; 3] {
    let limit = Limit::new(Settings::default());
    let able = threads as f64 / mean;
    let mut service = Service::new(threads, service, Some(limit));
    // Long enough for a 99th percentile that is the same each time.
    let time = (300_000.0 / able).max(20.0);
    service.open(able * 0.7, time);
    let calm = service.p99(0.0);
    let sent = able * 0.7 * time;
    assert!((service.refused as f64) < 0.002 * sent, "{} refused without need", service.refused);
    service.open(able * 3.0, time * 0.05);
    let settled = service.now;
    let goodput = service.open_and_use(able * 3.0, time);
    let loaded = service.p99(settled);
    assert!(goodput > 0.97, "{goodput}");
    let back = loaded.max(0.5);
    service.open(able * 0.7, back);
    let (begun, refused) = (service.now, service.refused);
    service.open(able * 0.7, time);
    let after = service.p99(begun);
    let refused = service.refused - refused;
    assert!((refused as f64) < 0.01 * sent, "{refused} of {sent} refused without need afterwards");
    [calm, loaded, after]
}

#[test]
fn three_times_too_much_costs_no_goodput_and_is_soon_forgotten() {
    for (threads, mean) in [(2, 0.01), (8, 0.05), (2, 0.000_5), (32, 0.02), (4, 0.2)] {
        let [calm, loaded, after] = overloaded(threads, mean, move |draw| exponential(draw, mean));
        assert!(loaded < 3.0 * (2.0 * mean + 0.1) + 6.0 * mean, "{threads} × {mean}: p99 {loaded}");
        assert!(after < calm * 1.1, "{threads} × {mean}: {after} after {calm}");
    }
}

#[test]
fn cheap_and_expensive_requests_together_do_not_mislead_it() {
    // Nine of ten take 2 ms, one takes 100 ms.
    let mixed = |draw: &mut Draw| if draw.below(10) == 0 { 0.1 } else { 0.002 };
    let [calm, loaded, after] = overloaded(4, 0.0118, mixed);
    assert!(loaded < 0.5, "{loaded}");
    assert!(after < calm * 1.1, "{after} after {calm}");
}

#[test]
fn an_overload_that_lasts_does_not_raise_what_is_allowed() {
    let limit = Limit::new(Settings::default());
    let mut service = Service::new(4, |draw| exponential(draw, 0.01), Some(limit));
    // From its first moment on.
    service.open(1_200.0, 30.0);
    let soon = service.p99(10.0);
    let goodput = service.open_and_use(1_200.0, 300.0);
    let late = service.p99(310.0);
    assert!(late < soon * 1.3 && late < 0.3, "{soon} became {late}");
    let unloaded = service.limit.and_then(|limit| limit.unloaded());
    assert!(unloaded < Some(ms(20)), "{unloaded:?}");
    assert!(goodput > 0.97, "{goodput}");
}

#[test]
fn requests_that_become_expensive_under_pressure_are_learned() {
    let limit = Limit::new(Settings::default());
    let mut service = Service::new(16, |draw| exponential(draw, 0.005), Some(limit));
    service.open(1_600.0, 20.0);
    service.service = Box::new(|draw| exponential(draw, 0.6));
    service.open(80.0, 40.0);
    let goodput = service.open_and_use(80.0, 120.0);
    assert!(goodput > 0.95, "{goodput}");
    assert!(service.p99(60.0) < 6.0, "{}", service.p99(60.0));
}

proptest! {
    #[test]
    fn it_stays_within_its_bounds_whatever_comes(
        least in 0_usize..50,
        least_refused in 0_usize..50,
        most in 0_usize..500,
        first in 0_usize..2_000,
        samples in 0_usize..50,
        slack in 0_u64..100,
        events in prop::collection::vec((0_u64..400, 0_usize..3_000, 0_u64..20_000, 0_u8..5), 0..600),
    ) {
        let slack = ms(slack);
        let settings = Settings { least, least_refused, first, most, samples, slack, ..Settings::default() };
        let mut limit = Limit::new(settings);
        let most = most.max(1);
        let least = least.min(least_refused).clamp(1, most);
        let (mut at, mut before) = (0, limit.now());
        for (step, in_flight, latency, kind) in events {
            at += step;
            let latency = ms(latency);
            let ended = match kind {
                0 => Ended::Refused,
                1 => Ended::Lost { latency },
                2 => Ended::Answered { latency, unloaded: Some(latency / 3) },
                _ => answered(latency),
            };
            // Another thread's clock was read a little earlier.
            limit.ended(ms(at.saturating_sub(u64::from(kind))), in_flight, ended);
            let now = limit.now();
            prop_assert!((least..=most).contains(&now), "{now} of {least} to {most}");
            prop_assert!(limit.probing() || now as f64 <= before as f64 + (most as f64).sqrt() + 1.0);
            before = if limit.probing() { most } else { now };
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_the_service_nothing_is_lost_at_three_times_its_capacity(
        threads in 1_usize..48,
        micros in 1_000_u64..60_000,
    ) {
        let mean = micros as f64 / 1e6;
        let limit = Limit::new(Settings::default());
        let able = threads as f64 / mean;
        let mut service = Service::new(threads, move |draw| exponential(draw, mean), Some(limit));
        let time = (1_500.0 / able).max(12.0);
        service.open(able * 3.0, time);
        let goodput = service.open_and_use(able * 3.0, time);
        prop_assert!(goodput > 0.95, "{goodput}");
    }
}

#[test]
fn what_takes_long_brings_it_less_low_than_refusals() {
    let settings =
        Settings { least: 32, least_refused: 8, probe_after: ms(10_000_000), ..Settings::default() };
    let mut limit = Limit::new(settings);
    window(&mut limit, 100, 1, 5);
    let slow = |limit: &mut Limit, from: u64| {
        (0..50).for_each(|step| window(limit, from + step * 5_000, 64, 4_000));
    };
    slow(&mut limit, 5_000);
    assert_eq!(limit.now(), 32);
    for step in 0..20 {
        (0..20).for_each(|_| limit.ended(ms(300_000 + step * 100), 64, Ended::Refused));
    }
    assert_eq!(limit.now(), 8);
    // Nor does it lift what refusals brought down.
    limit.ended(ms(310_000), 64, Ended::Refused);
    window(&mut limit, 315_000, 64, 4_000);
    assert!(limit.now() < 32, "{}", limit.now());
}
