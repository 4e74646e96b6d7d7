//! The queries, and what became of them.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use load::report::{Histogram, Run};
use load::schedule::{Arrivals, Phase, Schedule};
use load::{Ended, Meter, Outcome};
use model::gather::Count;
use model::ids::IndexName;
use proto::Kind;
use proto::search::{Request, Search as _};
use root::Root;
use runtime::{Deadline, Random};
use tokio::time::{sleep, sleep_until};

use super::leaf::World;
use super::{INDEX, part, slowed};

/// How long one is.
const SLICE: Duration = Duration::from_millis(250);

/// A stretch of time, from the end of the warm-up on.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// Its end, after the warm-up.
    pub end: Duration,
    /// Latency in µs of the queries that were to begin in it and were answered.
    pub latency: Histogram,
    /// Queries that were to begin in it.
    pub sent: u64,
    /// Those of them that were not answered.
    pub failed: u64,
    /// First calls to leaves that were made in it.
    pub first: u64,
    /// Hedges and retries.
    pub further: u64,
}

impl Slice {
    /// Adds the same stretch of another run.
    pub fn add(&mut self, other: &Self) {
        self.end = other.end;
        self.latency.add(&other.latency);
        self.sent += other.sent;
        self.failed += other.failed;
        self.first += other.first;
        self.further += other.further;
    }
}

struct Slices {
    warm_up: Duration,
    slices: Vec<Slice>,
    /// First and further calls so far.
    calls: (u64, u64),
}

impl Slices {
    fn at(&mut self, moment: Duration) -> Option<&mut Slice> {
        let after = moment.checked_sub(self.warm_up)?;
        let place = usize::try_from(after.as_nanos() / SLICE.as_nanos()).ok()?;
        while self.slices.len() <= place {
            let end = SLICE * u32::try_from(self.slices.len() + 1).ok()?;
            self.slices.push(Slice { end, ..Slice::default() });
        }
        self.slices.get_mut(place)
    }

    fn count(&mut self, ended: &Ended) {
        let Some(slice) = self.at(ended.intended) else { return };
        slice.sent += 1;
        match ended.outcome {
            Outcome::Answered { .. } => {
                let latency = ended.ended.saturating_sub(ended.intended);
                slice.latency.record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
            }
            _ => slice.failed += 1,
        }
    }

    /// Notes what the roots did until this moment.
    fn sample(&mut self, roots: &[Root], until: Duration) {
        let tallies = roots.iter().map(Root::tally);
        let (all, further) = tallies.fold((0, 0), |(all, further), tally| {
            (all + tally.calls, further + tally.hedges + tally.retries)
        });
        let now = (all - further, further);
        let before = std::mem::replace(&mut self.calls, now);
        if let Some(slice) = self.at(until.saturating_sub(SLICE / 2)) {
            slice.first += now.0 - before.0;
            slice.further += now.1 - before.1;
        }
    }
}

/// Sends queries to the roots in turn, by one schedule.
pub(super) async fn send(world: &World, roots: &[Root], seed: u64) -> Result<(Run, Vec<Slice>)> {
    let scenario = &world.scenario;
    let rate = scenario.rate();
    let (warm_up, end) = world.measured;
    let mut meter = Meter::new("simulated", Some(rate), warm_up, end - warm_up);
    let mut slices = Slices { warm_up, slices: Vec::new(), calls: (0, 0) };
    let mut phases = vec![Phase { rate, time: warm_up }];
    phases
        .extend(scenario.phases.iter().map(|phase| Phase { rate: rate * phase.times, time: phase.length.0 }));
    let mut schedule = match scenario.phases.is_empty() {
        true => Schedule::new(rate, Arrivals::Poisson, part(seed, 1)),
        false => Schedule::phases(&phases, Arrivals::Poisson, part(seed, 1)),
    };
    let random = Random::seeded(part(seed, 2));
    let query = model::query::parse("*", &model::query::Limits::default())?.canonical();
    let request = Request::new(IndexName::new(INDEX)?, query, Deadline::after(Duration::ZERO));
    let request = Request { limit: 0, count: Count::None, ..request };
    let mut flights = FuturesUnordered::new();
    let mut turns = roots.iter().cycle();
    let mut next = schedule.next();
    let mut sampled = warm_up;
    loop {
        let now = world.now();
        while sampled <= now && sampled <= end {
            slices.sample(roots, sampled);
            sampled += SLICE;
        }
        while let Some(intended) = next.filter(|at| *at <= now && *at < end) {
            next = schedule.next();
            let root = turns.next().context("there is no root")?;
            let own = scenario.root.draw(&mut || random.unit());
            let deadline = Deadline::at(world.begun + slowed(intended + scenario.timeout.0));
            let request = Request { deadline, ..request.clone() };
            flights.push(async move {
                if !own.is_zero() {
                    sleep(slowed(own)).await;
                }
                let answered = root.search(request).await;
                (intended, answered.err())
            });
        }
        let due = next.filter(|at| *at < end);
        if due.is_none() && flights.is_empty() {
            break;
        }
        let due = due.into_iter().chain((sampled <= end).then_some(sampled)).min();
        let wait = async {
            match due {
                Some(at) => sleep_until(world.begun + slowed(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some((intended, error)) = flights.next(), if !flights.is_empty() => {
                let outcome = match error {
                    None => Outcome::Answered { empty: false, cache: String::new() },
                    Some(error) if error.kind == Kind::Overloaded => Outcome::Refused("Overloaded".to_owned()),
                    Some(error) => Outcome::Failed(format!("{:?}", error.kind)),
                };
                let ended = world.now();
                world.trace.say(|| format!("a query of {:.6} ended: {outcome:?}", intended.as_secs_f64()));
                let ended = Ended { intended, sent: intended, ended, outcome };
                slices.count(&ended);
                meter.count(&ended);
            }
            () = wait => {}
        }
    }
    Ok((meter.finish(), slices.slices))
}
