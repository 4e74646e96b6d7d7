//! Gathers what became of requests.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::report::{Histogram, Moment, Run};
use crate::servers::Sample;

/// Stretches of time whose differences are the spread of a figure.
const BLOCKS: u32 = 20;

/// What became of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered well.
    Answered {
        /// Without a hit.
        empty: bool,
        /// What the cache says of it; "" where it says nothing.
        cache: String,
    },
    /// Turned away for load, or since nobody can answer it now; the reason.
    Refused(String),
    /// Not answered otherwise; the reason.
    Failed(String),
}

/// One request that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// When the schedule wanted it sent, from the beginning.
    pub intended: Duration,
    /// When it was.
    pub sent: Duration,
    /// When its whole answer was there.
    pub ended: Duration,
    /// What became of it.
    pub outcome: Outcome,
}

/// Gathers.
#[derive(Debug)]
pub struct Meter {
    warm_up: Duration,
    duration: Duration,
    run: Run,
    latencies: Vec<Histogram>,
    hits: Vec<u64>,
    begun: Option<Sample>,
    last: Option<Sample>,
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Meter {
    /// A meter of a run that lasts `duration` after `warm_up`.
    #[must_use]
    pub fn new(name: &str, offered: Option<f64>, warm_up: Duration, duration: Duration) -> Self {
        let blocks = vec![Histogram::default(); BLOCKS as usize];
        Self {
            warm_up,
            duration,
            run: Run {
                name: name.to_owned(),
                offered,
                seconds: duration.as_secs_f64(),
                blocks,
                ..Run::default()
            },
            latencies: Vec::new(),
            hits: Vec::new(),
            begun: None,
            last: None,
        }
    }

    /// The second in which a request begins, after the warm-up.
    fn second(&mut self, intended: Duration) -> Option<usize> {
        let after = intended.checked_sub(self.warm_up).filter(|after| *after < self.duration)?;
        let at = usize::try_from(after.as_secs()).ok()?;
        while self.run.moments.len() <= at {
            let begin = self.run.moments.len() as f64;
            let end = (begin + 1.0).min(self.run.seconds);
            self.run.moments.push(Moment { at: end, seconds: end - begin, ..Moment::default() });
            self.latencies.push(Histogram::default());
            self.hits.push(0);
        }
        Some(at)
    }

    /// Counts a request.
    pub fn count(&mut self, ended: &Ended) {
        let Some(at) = self.second(ended.intended) else { return };
        self.run.sent += 1;
        self.run.moments[at].sent += 1;
        self.run.lag.record(us(ended.sent.saturating_sub(ended.intended)));
        let latency = us(ended.ended.saturating_sub(ended.intended));
        let (empty, cache) = match &ended.outcome {
            Outcome::Failed(reason) | Outcome::Refused(reason) => {
                self.run.moments[at].failed += 1;
                *self.run.failed.entry(reason.clone()).or_default() += 1;
                if matches!(ended.outcome, Outcome::Refused(_)) {
                    // A refusal that was sent late is not a late refusal.
                    self.run.refusals.record(us(ended.ended.saturating_sub(ended.sent)));
                }
                return;
            }
            Outcome::Answered { empty, cache } => (*empty, cache),
        };
        self.run.answered += 1;
        self.run.empty += u64::from(empty);
        if !cache.is_empty() {
            *self.run.cache.entry(cache.clone()).or_default() += 1;
            self.hits[at] += u64::from(cache == "hit");
        }
        self.run.moments[at].answered += 1;
        self.latencies[at].record(latency);
        self.run.latency.record(latency);
        let after = ended.intended.saturating_sub(self.warm_up).as_secs_f64();
        let block = (after / self.run.seconds * f64::from(BLOCKS)) as usize;
        self.run.blocks[block.min(BLOCKS as usize - 1)].record(latency);
    }

    /// Notes what the servers say, so long after the beginning.
    pub(crate) fn sample(&mut self, at: Duration, sample: Sample) {
        if at < self.warm_up {
            self.last = Some(sample);
            return;
        }
        let begun = self.begun.get_or_insert_with(|| sample.clone());
        for (name, grown) in sample.since(begun) {
            self.run.counters.insert(name, grown);
        }
        self.run.server_cpu = sample.cpu.zip(begun.cpu).map(|(now, then)| now - then);
        if let Some(last) = self.last.replace(sample.clone()) {
            // The last second that has ended by now.
            let ended = us(at.saturating_sub(self.warm_up)).saturating_sub(500_000) / 1_000_000;
            let seconds = sample.at.saturating_duration_since(last.at).as_secs_f64();
            // Two samples that are near each other say nothing.
            if let Some(moment) = usize::try_from(ended).ok().and_then(|at| self.run.moments.get_mut(at))
                && seconds > 0.5
            {
                moment.counters = sample.since(&last).collect();
                moment.server_cpu = sample.cpu.zip(last.cpu).map(|(now, then)| (now - then) / seconds);
            }
        }
    }

    /// The last whole second, for a progress line.
    pub(crate) fn recent(&mut self, now: Duration) -> Option<Moment> {
        let ended = now.checked_sub(self.warm_up)?.as_secs().checked_sub(1)?;
        let at = usize::try_from(ended).ok()?;
        self.settle(at);
        self.run.moments.get(at).cloned()
    }

    fn settle(&mut self, at: usize) {
        if let (Some(moment), Some(latency)) = (self.run.moments.get_mut(at), self.latencies.get(at)) {
            moment.p50 = latency.percentile(50.0);
            moment.p99 = latency.percentile(99.0);
            moment.max = latency.max();
            moment.hits = self.hits[at];
        }
    }

    /// What was gathered.
    #[must_use]
    pub fn finish(mut self) -> Run {
        for at in 0..self.run.moments.len() {
            self.settle(at);
        }
        self.run
    }
}

/// Sums counters by name.
pub(crate) fn grown(now: &BTreeMap<String, f64>, then: &BTreeMap<String, f64>) -> Vec<(String, f64)> {
    now.iter()
        .map(|(name, value)| (name.clone(), (value - then.get(name).copied().unwrap_or(0.0)).max(0.0)))
        .collect()
}
