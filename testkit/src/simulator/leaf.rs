//! A leaf that only takes time.
//!
//! It has a queue and some threads, as the real one; what it would compute is a
//! length of time that is drawn. The way to it has delays and losses.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use model::ids::{IndexUid, NodeId, Seq, ShardId};
use model::statistics::Statistics;
use proto::Error;
use proto::controller::Held;
use proto::leaf::{Fetch, Found, Leaf, Load, Search, ShardAt, ShardWrite, StatisticsRequest};
use proto::search::Document;
use runtime::{Deadline, OnError, Random, TaskScope};
use tokio::sync::{Semaphore, oneshot};
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
    /// Calls here, at work or queued.
    here: AtomicU64,
    random: Random,
    stalls: Mutex<Stalled>,
}

/// Stretches of simulated time in which nothing is done, in order.
#[derive(Default)]
struct Stalled {
    windows: Vec<(Duration, Duration)>,
}

impl Machine {
    pub(super) fn new(world: &Arc<World>, number: u32, node: NodeId, seed: u64) -> Self {
        Self {
            world: world.clone(),
            number,
            node,
            threads: Semaphore::new(world.scenario.threads as usize),
            here: AtomicU64::new(0),
            random: Random::seeded(seed),
            stalls: Mutex::default(),
        }
    }

    /// When work of this length ends that is begun at `from`.
    fn ends(&self, from: Duration, work: Duration) -> Duration {
        let Some(stalls) = &self.world.scenario.stalls else { return from + work };
        if !stalls.leaves.is_empty() && !stalls.leaves.contains(&self.number) {
            return from + work;
        }
        let mut stalled = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut at, mut left) = (from, work);
        let mut next = 0;
        loop {
            if next == stalled.windows.len() {
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
            let (begin, end) = stalled.windows[next];
            next += 1;
            if end <= at {
                continue;
            }
            if at + left <= begin {
                break;
            }
            if at < begin {
                left -= begin - at;
            }
            at = end;
        }
        // What is long past is never asked for again.
        let past = stalled.windows.iter().take_while(|(_, end)| *end + FORGET_AFTER < from).count();
        let past = past.min(stalled.windows.len().saturating_sub(1));
        stalled.windows.drain(..past);
        at + left
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

    /// Queues, works, replies; ends early when the caller is gone.
    async fn job(self: Arc<Self>, work: Duration, reply: oneshot::Sender<()>, left: oneshot::Receiver<()>) {
        let world = &self.world;
        let gone = async {
            let _dropped = left.await;
            sleep(slowed(world.scenario.cancel.0)).await;
        };
        let mut gone = std::pin::pin!(gone);
        let permit = tokio::select! {
            biased;
            permit = self.threads.acquire() => permit,
            () = &mut gone => {
                world.counts.cancelled.fetch_add(1, Ordering::Relaxed);
                world.trace.say(|| format!("{} cancelled in the queue", self.node));
                return;
            }
        };
        let Ok(_permit) = permit else { return };
        let begun = world.now();
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
        let _gone = reply.send(());
    }
}

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
        let here = u32::try_from(machine.here.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let running = here.min(scenario.threads);
        let mean = scenario.service.mean_us() + scenario.overhead.mean_us();
        let service_us = (mean * machine.factor(machine.world.now()) * f64::from(super::SLOWED)) as u32;
        Load { running, queued: here - running, service_us }
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

    async fn call(&self, shards: usize) -> Result<Load, Error> {
        let (machine, world) = (&self.machine, &self.machine.world);
        world.counts.calls.fetch_add(1, Ordering::Relaxed);
        world.trace.say(|| format!("{} is asked for {shards}", machine.node));
        self.travel().await;
        let arrived = world.now();
        let refused = || Error::unavailable(format!("{} cannot be reached: retry", machine.node));
        match machine.away(arrived, arrived) {
            Some(true) => return std::future::pending().await,
            Some(false) => return Err(refused()),
            None => {}
        }
        let mut unit = || machine.random.unit();
        let scenario = &world.scenario;
        let each = (0..shards).map(|_| scenario.service.draw(&mut unit)).sum::<Duration>();
        let work = each + scenario.overhead.draw(&mut || machine.random.unit());
        machine.here.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        // Dropped with this call, whatever becomes of it.
        let (_here, left) = oneshot::channel();
        let job = {
            let machine = machine.clone();
            async move {
                machine.clone().job(work, reply, left).await;
                machine.here.fetch_sub(1, Ordering::Relaxed);
            }
        };
        world.scope.spawn("job", OnError::Log, |_| job);
        let answered = answer.await.is_ok();
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
        let called = self.call(search.shards.len());
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
