//! Sends requests as a schedule wants them.
//!
//! One task holds every request in flight, so that a thousand of them cost one
//! thread. In an open loop a request is sent when its time has come, whatever
//! became of the others.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::meter::{Ended, Meter, Outcome};
use crate::pacer::Pacer;
use crate::queries::Queries;
use crate::report::{Moment, Run};
use crate::schedule::{Arrivals, Phase, Schedule};
use crate::servers::Servers;
use crate::target::Target;

/// When requests are sent.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// By a schedule, so many a second.
    Open {
        /// Requests a second.
        rate: f64,
        /// How they are spread.
        arrivals: Arrivals,
    },
    /// By a schedule, one rate after another; together they last as long as the
    /// step.
    Phases {
        /// The rates.
        phases: Vec<Phase>,
        /// How arrivals are spread.
        arrivals: Arrivals,
    },
    /// Each when an earlier one has ended: so many are always in flight. It
    /// hides stalls, for nobody arrives while one lasts.
    Closed {
        /// Requests in flight.
        in_flight: usize,
    },
}

/// One step of a load.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Step {
    /// What the report calls it.
    pub name: String,
    /// When requests are sent.
    pub pace: Pace,
    /// Time before anything is measured.
    pub warm_up: Duration,
    /// Time that is measured.
    pub duration: Duration,
    /// How long one answer is waited for.
    pub timeout: Duration,
    /// Requests in flight at one time: beyond, arrivals wait, and the wait is
    /// part of their latency.
    pub in_flight_max: usize,
    /// The seed of arrivals and draws.
    pub seed: u64,
}

/// Between samples of the servers.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

impl Step {
    fn check(&self) -> Result<()> {
        match &self.pace {
            Pace::Phases { phases, .. } => {
                ensure!(
                    !phases.is_empty() && phases.iter().all(|phase| phase.rate > 0.0 && phase.rate <= 1e6),
                    "each phase needs a rate above 0 and up to 1000000"
                );
            }
            Pace::Open { rate, .. } => {
                let rate = *rate;
                ensure!(
                    rate > 0.0 && rate <= 1e6,
                    "a rate of {rate} requests a second: give one above 0 and up to 1000000"
                );
                ensure!(
                    rate * self.duration.as_secs_f64() >= 1.0,
                    "{rate} requests a second for {:?} are not even one: measure for longer",
                    self.duration
                );
            }
            Pace::Closed { in_flight } => {
                let in_flight = *in_flight;
                ensure!(in_flight > 0, "nothing is in flight: give a number above 0");
                ensure!(
                    in_flight <= self.in_flight_max,
                    "{in_flight} requests in flight are above the bound of {}",
                    self.in_flight_max
                );
            }
        }
        Ok(())
    }

    /// Sends the load, tells `progress` of each second that has passed, and
    /// returns what it measured.
    ///
    /// # Errors
    /// When the step makes no sense; what fails on the way is in the run.
    pub async fn run(
        &self,
        target: &impl Target,
        queries: &Queries,
        servers: &Servers,
        mut progress: impl FnMut(Duration, &Moment),
    ) -> Result<Run> {
        self.check()?;
        let (offered, mut schedule, mut room) = match &self.pace {
            Pace::Open { rate, arrivals } => {
                (Some(*rate), Some(Schedule::new(*rate, *arrivals, self.seed)), self.in_flight_max)
            }
            Pace::Phases { phases, arrivals } => {
                let schedule = Schedule::phases(phases, *arrivals, self.seed);
                let sent: f64 = phases.iter().map(|phase| phase.rate * phase.time.as_secs_f64()).sum();
                let whole = (self.warm_up + self.duration).as_secs_f64();
                (Some(sent / whole), Some(schedule), self.in_flight_max)
            }
            Pace::Closed { in_flight } => (None, None, *in_flight),
        };
        let whole = self.warm_up + self.duration;
        let mut meter = Meter::new(&self.name, offered, self.warm_up, self.duration);
        let mut random = StdRng::seed_from_u64(self.seed ^ 0x5bd1_e995);
        let mut pacer = Pacer::new()?;
        let own = crate::system::own_cpu();
        let mut flights = FuturesUnordered::new();
        let mut samples = FuturesUnordered::new();
        samples.push(servers.sample());
        let begun = Instant::now();
        let mut sampled = Duration::ZERO;
        let mut next = schedule.as_mut().and_then(Iterator::next);
        loop {
            let now = begun.elapsed();
            // All that is due; an open loop that fell behind catches up.
            while room > 0 {
                let intended = match (&mut schedule, next) {
                    (Some(schedule), Some(at)) if at <= now && at < whole => {
                        next = schedule.next();
                        at
                    }
                    (None, _) if now < whole => begun.elapsed(),
                    _ => break,
                };
                room -= 1;
                flights.push(self.one(target, queries.draw(&mut random), begun, intended));
            }
            // And one where the warm-up ends, from which on all is counted.
            let warm = sampled < self.warm_up && now >= self.warm_up;
            if (warm || sampled + SAMPLE_EVERY <= now) && samples.is_empty() {
                sampled = now;
                samples.push(servers.sample());
                if let Some(moment) = meter.recent(now) {
                    progress(now, &moment);
                }
            }
            if now >= whole && flights.is_empty() {
                break;
            }
            let due = if room > 0 { next.filter(|at| *at < whole) } else { None };
            let mut due = due.unwrap_or(now + SAMPLE_EVERY).min(sampled + SAMPLE_EVERY);
            if sampled < self.warm_up {
                due = due.min(self.warm_up);
            }
            let due = due.max(now);
            tokio::select! {
                biased;
                Some(ended) = flights.next(), if !flights.is_empty() => {
                    room += 1;
                    meter.count(&ended);
                }
                Some(sample) = samples.next(), if !samples.is_empty() => {
                    meter.sample(begun.elapsed(), sample);
                }
                () = pacer.until(begun + due) => {}
            }
        }
        meter.sample(begun.elapsed().max(whole), servers.sample().await);
        let mut run = meter.finish();
        run.own_cpu = crate::system::own_cpu() - own;
        Ok(run)
    }

    async fn one(&self, target: &impl Target, query: usize, begun: Instant, intended: Duration) -> Ended {
        let sent = begun.elapsed();
        let outcome = match tokio::time::timeout(self.timeout, target.send(query)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failed(format!("no answer within {:?}", self.timeout)),
        };
        Ended { intended, sent, ended: begun.elapsed(), outcome }
    }
}

/// What a reader of a run must know about the load itself, a sentence each.
#[must_use]
pub fn doubts(run: &Run, step: &Step) -> Vec<String> {
    let mut doubts = Vec::new();
    if run.answered == 0 {
        let why = run.failed.iter().max_by_key(|(_, count)| **count);
        let why = why.map_or(String::new(), |(why, _)| format!(" ({why})"));
        doubts.push(format!("{}: nothing was answered{why}: the figures say nothing.", run.name));
    }
    let lag = run.lag.percentile(99.0);
    if step.pace_is_open() && lag > 1_000 && lag * 10 > run.latency.percentile(99.0) {
        doubts.push(format!(
            "{}: the generator fell behind: 1 % of the requests were sent over {:.1} ms late, with at most {} in \
             flight. Lower the rate, or run it on another machine.",
            run.name,
            lag as f64 / 1e3,
            step.in_flight_max
        ));
    }
    doubts
}

impl Step {
    fn pace_is_open(&self) -> bool {
        !matches!(self.pace, Pace::Closed { .. })
    }
}
