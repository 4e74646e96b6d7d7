//! A leaf that only takes time.
//!
//! It has a queue and some threads, as the real one; what it would compute is a
//! length of time that is drawn. The way to it has delays and losses.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use model::ids::{IndexUid, NodeId, Seq, ShardId};
use model::limit::{self, Limit};
use model::statistics::Statistics;
use proto::Error;
use proto::controller::Held;
use proto::leaf::{Fetch, Found, Leaf, Load, Search, ShardAt, ShardWrite, StatisticsRequest};
use proto::search::Document;
use runtime::{CancellationToken, Deadline, OnError, Random, TaskScope};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, sleep_until};

use super::scenario::Scenario;
use super::trace::Trace;
use super::{slowed, unslowed};

/// What all leaves share.
pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) begun: Instant,
    pub(super) scope: TaskScope,
    pub(super) counts: Counts,
    pub(super) trace: Trace,
    /// The time that is measured.
    pub(super) measured: (Duration, Duration),
    /// All leaves, once they are made.
    pub(super) machines: OnceLock<Vec<Arc<Machine>>>,
}

/// What happened, over all leaves.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) calls: AtomicU64,
    pub(super) cancelled: AtomicU64,
    pub(super) pings: AtomicU64,
    /// Work in simulated ns: all, and what nobody waited for any more.
    pub(super) worked: AtomicU64,
    pub(super) wasted: AtomicU64,
    /// Calls refused since there was too much to do, and work that was not
    /// begun since its deadline had passed.
    pub(super) refused: AtomicU64,
    pub(super) expired: AtomicU64,
}

impl World {
    /// Simulated time since the beginning.
    pub(super) fn now(&self) -> Duration {
        unslowed(self.begun.elapsed())
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// One simulated leaf.
pub(super) struct Machine {
    world: Arc<World>,
    number: u32,
    node: NodeId,
    threads: Semaphore,
    random: Random,
    stalls: Mutex<Stalled>,
    pauses: Vec<(Duration, Duration)>,
    limit: Mutex<Limit>,
    in_flight: Mutex<InFlight>,
}

/// Calls at a leaf over time.
#[derive(Debug, Default)]
struct InFlight {
    calls: u64,
    /// When that last changed.
    at: Duration,
    /// Calls times seconds, while it was measured.
    seconds: f64,
    /// Calls that came while newcomers are watched.
    watched: u64,
}

/// Stretches of simulated time in which nothing is done, in order.
#[derive(Default)]
struct Stalled {
    windows: Vec<(Duration, Duration)>,
}

impl Machine {
    pub(super) fn new(world: &Arc<World>, number: u32, node: NodeId, seed: u64) -> Self {
        let random = Random::seeded(seed);
        let pauses = world.scenario.pauses.iter().filter(|pause| {
            pause.leaves.contains(&number) || pause.share > 0.0 && random.unit() < pause.share
        });
        let limit =
            leaf::limit_settings(world.scenario.threads as usize, leaf::Settings::default().queue_max);
        Self {
            pauses: pauses.map(|pause| (pause.from.0, pause.to.0)).collect(),
            limit: Mutex::new(Limit::new(limit)),
            in_flight: Mutex::default(),
            world: world.clone(),
            number,
            node,
            threads: Semaphore::new(world.scenario.threads as usize),
            random,
            stalls: Mutex::default(),
        }
    }

    /// When work of this length ends that is begun at `from`.
    fn ends(&self, from: Duration, work: Duration) -> Duration {
        let (mut at, mut left) = (from, work);
        loop {
            let paused = self.pauses.iter().filter(|(_, end)| *end > at).min().copied();
            let still = self.stall(from, at).into_iter().chain(paused).min();
            let Some((begin, end)) = still.filter(|(begin, _)| at + left > *begin || at == *begin) else {
                return at + left;
            };
            left -= begin.saturating_sub(at);
            at = end;
        }
    }

    /// The stall that ends next after `at`.
    fn stall(&self, from: Duration, at: Duration) -> Option<(Duration, Duration)> {
        let stalls = self.world.scenario.stalls.as_ref()?;
        if !stalls.leaves.is_empty() && !stalls.leaves.contains(&self.number) {
            return None;
        }
        let mut stalled = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        // What is long past is never asked for again.
        let past = stalled.windows.iter().take_while(|(_, end)| *end + FORGET_AFTER < from).count();
        let past = past.min(stalled.windows.len().saturating_sub(1));
        stalled.windows.drain(..past);
        loop {
            if let Some(next) = stalled.windows.iter().find(|(_, end)| *end > at) {
                return Some(*next);
            }
            let last = stalled.windows.last().copied();
            let begin = match (last, stalls.in_turn) {
                (None, true) => stalls.every.0 * (self.number + 1),
                (Some((begin, _)), true) => begin + stalls.every.0 * self.world.scenario.leaves(),
                (last, false) => {
                    let gap = -(1.0 - self.random.unit()).ln() * stalls.every.0.as_secs_f64();
                    last.map_or(Duration::ZERO, |(_, end)| end) + Duration::from_secs_f64(gap)
                }
            };
            stalled.windows.push((begin, begin + stalls.length.0));
        }
    }

    /// Notes that a call came or went.
    fn count(&self, came: bool) {
        let (now, scenario) = (self.world.now(), &self.world.scenario);
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, to) = self.world.measured;
        let since = in_flight.at.clamp(from, to);
        in_flight.seconds += now.clamp(from, to).saturating_sub(since).as_secs_f64() * in_flight.calls as f64;
        in_flight.at = now;
        if came {
            in_flight.calls += 1;
            let watched = scenario.joins.iter().any(|join| (join.at.0..join.at.0 + WATCHED).contains(&now));
            in_flight.watched += u64::from(watched);
        } else {
            in_flight.calls -= 1;
        }
    }

    fn here(&self) -> u64 {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).calls
    }

    /// Calls here, on average while it was measured, and those that came in a
    /// newcomer's first second.
    pub(super) fn counted(&self) -> (f64, u64) {
        let in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, to) = self.world.measured;
        (in_flight.seconds / to.saturating_sub(from).as_secs_f64().max(1e-9), in_flight.watched)
    }

    fn factor(&self, now: Duration) -> f64 {
        let slow = self.world.scenario.slow.iter().filter(|slow| {
            (slow.leaves.is_empty() || slow.leaves.contains(&self.number))
                && (slow.from.0..slow.to.0).contains(&now)
        });
        slow.map(|slow| slow.factor).product()
    }

    /// Whether it is away at some moment of the stretch, and if so silently.
    fn away(&self, from: Duration, to: Duration) -> Option<bool> {
        let mut down = self.world.scenario.down.iter();
        down.find(|down| down.leaves.contains(&self.number) && down.from.0 <= to && down.to.0 > from)
            .map(|down| down.silent)
    }

    /// Queues, works, replies; ends early when the caller is gone, or another
    /// leaf has begun.
    async fn job(self: Arc<Self>, task: Task) {
        let world = &self.world;
        let Task { work, reply, left, deadline, tie } = task;
        let gone = async {
            left.cancelled().await;
            sleep(slowed(world.scenario.cancel.0)).await;
        };
        let mut gone = std::pin::pin!(gone);
        let (own, other) = tie.map_or((None, None), |(own, other)| (Some(own), Some(other)));
        let dropped = async {
            match &own {
                Some(own) => own.cancelled().await,
                None => std::future::pending().await,
            }
        };
        let queued = world.now();
        let permit = tokio::select! {
            biased;
            permit = self.threads.acquire() => permit,
            () = dropped => return,
            () = &mut gone => {
                world.counts.cancelled.fetch_add(1, Ordering::Relaxed);
                world.trace.say(|| format!("{} cancelled in the queue", self.node));
                return;
            }
        };
        let Ok(_permit) = permit else { return };
        if let Some(other) = other {
            let (network, random) = (world.scenario.network.clone(), self.random.clone());
            world.scope.spawn("tie", OnError::Log, |_| async move {
                sleep(slowed(network.delay.draw(&mut || random.unit()))).await;
                other.cancel();
            });
        }
        let begun = world.now();
        if begun > deadline {
            // As the real queue: expired work is dropped when it is taken off.
            world.counts.expired.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let ends = self.ends(begun, work.mul_f64(self.factor(begun)));
        let cancelled = tokio::select! {
            biased;
            () = sleep_until(world.begun + slowed(ends)) => false,
            () = &mut gone => true,
        };
        let worked = ns(world.now().saturating_sub(begun));
        world.counts.worked.fetch_add(worked, Ordering::Relaxed);
        if cancelled {
            world.counts.cancelled.fetch_add(1, Ordering::Relaxed);
            world.counts.wasted.fetch_add(worked, Ordering::Relaxed);
            world.trace.say(|| format!("{} cancelled at work", self.node));
            return;
        }
        world.trace.say(|| format!("{} worked {} µs", self.node, worked / 1_000));
        {
            let (latency, unloaded) = (world.now() - queued, world.now() - begun);
            let ended = limit::Ended::Answered { latency, unloaded: Some(unloaded) };
            let here = self.here() as usize;
            let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
            limit.ended(world.now(), here, ended);
        }
        let _gone = reply.send(()).await;
    }

    /// Begins a job.
    fn begin(self: &Arc<Self>, task: Task) {
        self.count(true);
        let machine = self.clone();
        self.world.scope.spawn("job", OnError::Log, |_| async move {
            machine.clone().job(task).await;
            machine.count(false);
        });
    }

    /// What it would work for a call.
    fn work(&self, shards: usize) -> Duration {
        let (scenario, mut unit) = (&self.world.scenario, || self.random.unit());
        let each = (0..shards).map(|_| scenario.service.draw(&mut unit)).sum::<Duration>();
        each + scenario.overhead.draw(&mut unit)
    }
}

/// One call at one leaf.
struct Task {
    work: Duration,
    reply: mpsc::Sender<()>,
    left: CancellationToken,
    deadline: Duration,
    /// What drops it while it waits, and what drops its twin.
    tie: Option<(CancellationToken, CancellationToken)>,
}

/// How long newcomers are watched.
const WATCHED: Duration = Duration::from_secs(1);
/// After this, nothing that began before is still being worked on.
const FORGET_AFTER: Duration = Duration::from_secs(100);

/// One root's way to one leaf.
pub(super) struct Way {
    pub(super) machine: Arc<Machine>,
    pub(super) random: Random,
}

impl Way {
    /// One way over the network.
    async fn travel(&self) {
        let network = &self.machine.world.scenario.network;
        let mut delay = network.delay.draw(&mut || self.random.unit());
        if network.loss > 0.0 && self.random.unit() < network.loss {
            delay += network.again_after.0;
        }
        if !delay.is_zero() {
            sleep(slowed(delay)).await;
        }
    }

    /// How busy the leaf is, as the real one says it.
    fn load(&self) -> Load {
        let (machine, scenario) = (&self.machine, &self.machine.world.scenario);
        let here = u32::try_from(machine.here()).unwrap_or(u32::MAX);
        let running = here.min(scenario.threads);
        let mean = scenario.service.mean_us() + scenario.overhead.mean_us();
        let service_us = (mean * machine.factor(machine.world.now()) * f64::from(super::SLOWED)) as u32;
        Load { running, queued: here - running, service_us }
    }

    /// The least busy other leaf that holds these shards.
    fn twin(&self, shards: &[ShardAt]) -> Option<Arc<Machine>> {
        let scenario = &self.machine.world.scenario;
        let machines = self.machine.world.machines.get()?;
        let holders = scenario.holders(shards.first()?.shard.0).into_iter();
        let holders = holders.filter(|leaf| {
            *leaf != self.machine.number
                && shards.iter().all(|at| scenario.holders(at.shard.0).contains(leaf))
        });
        let machines = holders.filter_map(|leaf| machines.get(leaf as usize));
        machines.min_by_key(|machine| machine.here()).cloned()
    }

    /// Answers as soon as it does not stand still.
    async fn answer_ping(&self) -> Result<Load, Error> {
        let (machine, world) = (&self.machine, &self.machine.world);
        world.counts.pings.fetch_add(1, Ordering::Relaxed);
        self.travel().await;
        let arrived = world.now();
        match machine.away(arrived, arrived) {
            Some(true) => return std::future::pending().await,
            Some(false) => return Err(Error::unavailable(format!("{} cannot be reached", machine.node))),
            None => {}
        }
        sleep_until(world.begun + slowed(machine.ends(arrived, Duration::ZERO))).await;
        let load = self.load();
        self.travel().await;
        Ok(load)
    }

    async fn call(&self, shards: &[ShardAt], deadline: Deadline) -> Result<Load, Error> {
        let (machine, world) = (&self.machine, &self.machine.world);
        world.counts.calls.fetch_add(1, Ordering::Relaxed);
        world.trace.say(|| format!("{} is asked for {}", machine.node, shards.len()));
        self.travel().await;
        let arrived = world.now();
        let refused = || Error::unavailable(format!("{} cannot be reached: retry", machine.node));
        match machine.away(arrived, arrived) {
            Some(true) => return std::future::pending().await,
            Some(false) => return Err(refused()),
            None => {}
        }
        if machine.here() >= machine.limit.lock().unwrap_or_else(PoisonError::into_inner).now() as u64 {
            world.counts.refused.fetch_add(1, Ordering::Relaxed);
            self.travel().await;
            let Load { queued, service_us, .. } = self.load();
            let wait = unslowed(Duration::from_micros(u64::from(service_us) * u64::from(queued)));
            let retry_after = slowed(leaf::retry_after(wait / world.scenario.threads));
            let refused = Error::overloaded(format!("{} has too much to do", machine.node));
            return Err(refused.retry_after(retry_after));
        }
        let (reply, mut answer) = mpsc::channel(2);
        // Cancelled when this call is dropped, whatever becomes of it.
        let left = CancellationToken::new();
        let _here = left.clone().drop_guard();
        let task = |machine: &Machine, tie| {
            let (work, reply, left) = (machine.work(shards.len()), reply.clone(), left.clone());
            Task { work, reply, left, deadline: unslowed(deadline.instant() - world.begun), tie }
        };
        let twin = if world.scenario.tied && machine.here() > 0 { self.twin(shards) } else { None };
        match twin {
            Some(twin) => {
                let (one, two) = (CancellationToken::new(), CancellationToken::new());
                twin.begin(task(&twin, Some((two.clone(), one.clone()))));
                machine.begin(task(machine, Some((one, two))));
            }
            None => machine.begin(task(machine, None)),
        }
        drop(reply);
        let answered = answer.recv().await.is_some();
        if let Some(linger) = &world.scenario.linger
            && machine.random.unit() < linger.share
        {
            sleep(slowed(linger.time.0)).await;
        }
        match machine.away(arrived, world.now()) {
            Some(true) => return std::future::pending().await,
            Some(false) => return Err(refused()),
            None if !answered => return Err(refused()),
            None => {}
        }
        let load = self.load();
        self.travel().await;
        Ok(load)
    }
}

fn unasked() -> Error {
    Error::internal("a simulated leaf only searches")
}

#[async_trait]
impl Leaf for Way {
    async fn search(&self, search: Search) -> Result<Found, Error> {
        let called = self.call(&search.shards, search.deadline);
        match tokio::time::timeout_at(search.deadline.instant(), called).await {
            Ok(called) => called.map(|load| Found { load: Some(load), ..Found::default() }),
            Err(_) => Err(Error::expired("the search did not end within its timeout")),
        }
    }

    async fn write(&self, _: ShardWrite) -> Result<Seq, Error> {
        Err(unasked())
    }
    async fn nudge(&self, _: &IndexUid, _: ShardId) -> Result<(), Error> {
        Err(unasked())
    }
    async fn follow(&self, _: &IndexUid, _: ShardAt, _: Deadline) -> Result<(), Error> {
        Err(unasked())
    }
    async fn statistics(&self, request: StatisticsRequest) -> Result<Vec<Statistics>, Error> {
        Ok(request.shards.iter().map(|_| Statistics::default()).collect())
    }
    async fn fetch(&self, _: Fetch) -> Result<Vec<Document>, Error> {
        Err(unasked())
    }
    async fn get(&self, _: &IndexUid, _: ShardAt, _: &str, _: Deadline) -> Result<Option<Document>, Error> {
        Err(unasked())
    }
    async fn held(&self) -> Result<Vec<Held>, Error> {
        Err(unasked())
    }
    async fn ping(&self, deadline: Deadline) -> Result<Load, Error> {
        let answered = tokio::time::timeout_at(deadline.instant(), self.answer_ping()).await;
        answered.unwrap_or_else(|_| Err(Error::expired("silent")))
    }
}
