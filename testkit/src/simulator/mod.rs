//! A cluster of thousands of leaves in one thread and in no time.
//!
//! ```text
//!  schedule ─► root (the real one) ─► network ─► leaf: queue, threads, a drawn time
//!                 └ view, directory, choice, hedging: the code of production
//! ```
//!
//! Time is tokio's paused clock, which jumps to the next timer when nothing
//! runs. That clock counts milliseconds, and searches last microseconds: so
//! time runs [`SLOWED`] times slower for the real code than for the scenario,
//! and every length of time that it is told is as many times longer.
//!
//! **Invariant:** a scenario and a seed give the same events at the same
//! moments, every time.

mod leaf;
mod scenario;
mod trace;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use cluster::{Directory, Index, Placement, View};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use load::report::Run;
use load::schedule::{Arrivals, Schedule};
use load::{Ended, Meter, Outcome};
use model::choice::Policy;
use model::gather::Count;
use model::ids::{IndexName, NodeId};
use model::schema::Schema;
use model::settings::Definition;
use proto::admin::{NodeState, OWN, SERVE};
use proto::search::{Request, Search as _};
use root::{Root, Tally};
use runtime::{CancellationToken, Deadline, Random, Shutdown, TaskScope};
use store::Store;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

pub use scenario::{Choice, Down, Network, Scenario, Slow, Stalls};

use crate::local::Nobody;
use leaf::{Counts, Machine, Way, World};
use trace::Trace;

/// How many times slower time runs for the code under simulation: a
/// millisecond of tokio's timer is a microsecond.
pub const SLOWED: u32 = 1_000;

fn slowed(time: Duration) -> Duration {
    time.saturating_mul(SLOWED)
}

fn unslowed(time: Duration) -> Duration {
    time / SLOWED
}

/// What a simulation showed.
#[derive(Debug)]
pub struct Outcomes {
    /// As a real run's.
    pub run: Run,
    /// Every event, where they were wanted.
    pub trace: Vec<String>,
}

/// Runs a scenario with one seed.
///
/// # Errors
/// When the scenario makes no sense.
///
/// # Panics
/// When the code under simulation does.
pub fn simulate(scenario: &Scenario, seed: u64, traced: bool) -> Result<Outcomes> {
    scenario.check()?;
    // A thread of its own, for the caller may be in a runtime already.
    std::thread::scope(|scope| {
        let simulated = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .context("no runtime for the simulation")?;
            let mut outcomes = runtime.block_on(cluster_of(scenario, seed, traced))?;
            outcomes.run.own_cpu = load::system::thread_cpu();
            Ok(outcomes)
        });
        simulated.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn node(name: String) -> NodeState {
    NodeState {
        node: NodeId(name.into()),
        roles: vec![OWN.to_owned(), SERVE.to_owned()],
        public: None,
        internal: None,
        zone: None,
        draining: false,
    }
}

/// A seed of its own for each part, so that one more draw of one part changes
/// no other.
fn part(seed: u64, part: u64) -> u64 {
    Random::seeded(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ part).u64()
}

const INDEX: &str = "simulated";

async fn index(scenario: &Scenario, store: &Store, nodes: &[NodeState]) -> Result<Index> {
    let name = IndexName::new(INDEX)?;
    let definition =
        Definition { shards: scenario.shards, copies: scenario.copies, ..Definition::of(Schema::default()) };
    let soon = Instant::now() + slowed(Duration::from_secs(60));
    let uid = store.create_index(&name, &definition, soon).await?;
    let number = store.newest_definition(&uid).await?.0;
    let cut = Arc::new(store.newest_cut(&uid).await?);
    let holders = |shard| {
        let leaves = scenario.holders(shard).into_iter();
        leaves.filter_map(|leaf| nodes.get(leaf as usize)).map(|state| state.node.clone()).collect()
    };
    Ok(Index {
        name,
        uid,
        number,
        definition: Arc::new(definition),
        cut,
        owners: vec![None; scenario.shards as usize],
        declined: BTreeMap::new(),
        placement: Arc::new(Placement {
            serve: (0..scenario.shards).map(holders).collect(),
            own: Vec::new(),
        }),
    })
}

async fn cluster_of(scenario: &Scenario, seed: u64, traced: bool) -> Result<Outcomes> {
    let store = Store::memory();
    let scope = TaskScope::new(&Shutdown::new());
    let nodes: Vec<NodeState> = (0..scenario.leaves()).map(|number| node(format!("leaf-{number}"))).collect();
    let index = index(scenario, &store, &nodes).await?;
    let view = View {
        known: true,
        nodes: nodes.clone(),
        indexes: [(index.name.clone(), Arc::new(index))].into(),
        ..View::default()
    };
    let (sender, view) = watch::channel(Arc::new(view));
    let begun = Instant::now();
    let world = Arc::new(World {
        scenario: scenario.clone(),
        begun,
        scope: scope.clone(),
        counts: Counts::default(),
        trace: Trace::new(begun, traced),
    });
    let machines: Vec<Arc<Machine>> = (0..)
        .zip(&nodes)
        .map(|(number, state)| {
            let seed = part(seed, 1_000 + u64::from(number));
            Arc::new(Machine::new(&world, number, state.node.clone(), seed))
        })
        .collect();
    let roots: Vec<Root> = (0..u64::from(scenario.roots))
        .map(|number| {
            let leaves = Directory::new(view.clone());
            let random = Random::seeded(part(seed, 100_000 + number));
            for (machine, state) in machines.iter().zip(&nodes) {
                let way = Way { machine: machine.clone(), random: random.clone() };
                leaves.insert(state.node.clone(), Arc::new(way));
            }
            let parts = root::Parts {
                store: store.clone(),
                view: view.clone(),
                registry: Arc::new(Nobody),
                leaves,
                leaving: CancellationToken::new(),
                own: Arc::new(|_| Ok(())),
                random: Random::seeded(part(seed, 200_000 + number)),
                scope: world.scope.clone(),
            };
            Root::new(parts, settings(scenario))
        })
        .collect();
    let mut run = load(&world, &roots, seed).await?;
    run.name = format!("seed {seed}");
    let Counts { calls, cancelled, pings, worked, wasted } = &world.counts;
    let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed) as f64;
    run.counters = [
        ("leaf calls".to_owned(), count(calls)),
        ("cancels".to_owned(), count(cancelled)),
        ("pings".to_owned(), count(pings)),
        ("leaf seconds".to_owned(), count(worked) / 1e9),
        ("leaf seconds wasted".to_owned(), count(wasted) / 1e9),
    ]
    .into();
    let capacity = world.now().as_secs_f64() * f64::from(scenario.leaves() * scenario.threads);
    run.figures.insert("leaves' time in use".to_owned(), count(worked) / 1e9 / capacity);
    let tallies: Vec<Tally> = roots.iter().map(Root::tally).collect();
    let sum = |part: fn(&Tally) -> u64| tallies.iter().map(part).sum::<u64>() as f64;
    let further = sum(|tally| tally.hedges + tally.retries);
    let first = sum(|tally| tally.calls) - further;
    run.figures.insert("further sends, %".to_owned(), 100.0 * further / first.max(1.0));
    run.counters.extend([
        ("hedges".to_owned(), sum(|tally| tally.hedges)),
        ("hedges won".to_owned(), sum(|tally| tally.hedges_won)),
        ("retries".to_owned(), sum(|tally| tally.retries)),
        ("hedges withheld, no budget".to_owned(), sum(|tally| tally.withheld_budget)),
        ("hedges withheld, all is slow".to_owned(), sum(|tally| tally.withheld_slow)),
    ]);
    drop(sender);
    Ok(Outcomes { run, trace: world.trace.take() })
}

fn settings(scenario: &Scenario) -> root::Settings {
    let usual = root::Settings::default();
    root::Settings {
        owner_within: slowed(usual.owner_within),
        attempt_timeout: slowed(scenario.attempt_timeout.0),
        restart_within: slowed(usual.restart_within),
        doubted_for: slowed(usual.doubted_for),
        admission: root::admission::Settings {
            searches: model::limit::Settings {
                slack: slowed(usual.admission.searches.slack),
                window: slowed(usual.admission.searches.window),
                probe_after: slowed(usual.admission.searches.probe_after),
                ..usual.admission.searches
            },
            ..usual.admission
        },
        slow_query: Duration::ZERO,
        silent_after: slowed(usual.silent_after),
        hedging: scenario.hedging,
        choice: match scenario.choice {
            Choice::Random => Policy::Random,
            Choice::TwoChoices => Policy::TwoChoices,
        },
        ..usual
    }
}

/// Sends queries to the roots in turn, by one schedule.
async fn load(world: &World, roots: &[Root], seed: u64) -> Result<Run> {
    let scenario = &world.scenario;
    let rate = scenario.rate();
    let stretch = |queries: u64| Duration::from_secs_f64(queries as f64 / rate);
    let (warm_up, duration) = (stretch(scenario.warm_up), stretch(scenario.queries));
    let mut meter = Meter::new("simulated", Some(rate), warm_up, duration);
    let mut schedule = Schedule::new(rate, Arrivals::Poisson, part(seed, 1));
    let random = Random::seeded(part(seed, 2));
    let query = model::query::parse("*", &model::query::Limits::default())?.canonical();
    let request = Request {
        index: IndexName::new(INDEX)?,
        query,
        filter: None,
        limit: 0,
        offset: 0,
        fields: None,
        count: Count::None,
        deadline: Deadline::after(Duration::ZERO),
        token: None,
        at: None,
        min_coverage: None,
        profile: false,
    };
    let mut flights = FuturesUnordered::new();
    let mut turns = roots.iter().cycle();
    let mut next = schedule.next();
    loop {
        let now = world.now();
        while let Some(intended) = next.filter(|at| *at <= now && *at < warm_up + duration) {
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
        let due = next.filter(|at| *at < warm_up + duration);
        if due.is_none() && flights.is_empty() {
            break;
        }
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
                    Some(error) => Outcome::Failed(format!("{:?}", error.kind)),
                };
                let ended = world.now();
                world.trace.say(|| format!("a query of {:.6} ended: {outcome:?}", intended.as_secs_f64()));
                meter.count(&Ended { intended, sent: intended, ended, outcome });
            }
            () = wait => {}
        }
    }
    Ok(meter.finish())
}
