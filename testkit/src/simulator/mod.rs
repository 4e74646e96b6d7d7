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
mod queries;
mod scenario;
mod trace;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use cluster::{Directory, Index, Placement, View};
use load::report::Run;
use model::choice::Policy;
use model::ids::{IndexName, NodeId};
use model::schema::Schema;
use model::settings::Definition;
use proto::admin::{NodeState, OWN, SERVE};
use root::{Root, Tally};
use runtime::{CancellationToken, OnError, Random, Shutdown, TaskScope};
use store::Store;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

pub use queries::Slice;
pub use scenario::{Choice, Down, Join, Linger, Network, Pause, Phase, Scenario, Slow, Stalls};

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
    /// What happened when, by the intended starts.
    pub slices: Vec<Slice>,
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

async fn index(scenario: &Scenario, store: &Store) -> Result<Index> {
    let name = IndexName::new(INDEX)?;
    let definition =
        Definition { shards: scenario.shards, copies: scenario.copies, ..Definition::of(Schema::default()) };
    let soon = Instant::now() + slowed(Duration::from_secs(60));
    let uid = store.create_index(&name, &definition, soon).await?;
    let number = store.newest_definition(&uid).await?.0;
    let cut = Arc::new(store.newest_cut(&uid).await?);
    Ok(Index {
        name,
        uid,
        number,
        definition: Arc::new(definition),
        cut,
        owners: vec![None; scenario.shards as usize],
        declined: BTreeMap::new(),
        placement: Arc::new(Placement { serve: Vec::new(), own: Vec::new() }),
    })
}

/// The leaves of each shard at some moment.
fn placed(scenario: &Scenario, nodes: &[NodeState], at: Duration) -> Vec<Vec<NodeId>> {
    let there = |leaf: &u32| !scenario.joins.iter().any(|join| join.leaf == *leaf && at < join.at.0);
    let holders = |shard| {
        let leaves = scenario.holders(shard).into_iter().filter(there);
        leaves.filter_map(|leaf| nodes.get(leaf as usize)).map(|state| state.node.clone()).collect()
    };
    (0..scenario.shards).map(holders).collect()
}

async fn cluster_of(scenario: &Scenario, seed: u64, traced: bool) -> Result<Outcomes> {
    let store = Store::memory();
    let scope = TaskScope::new(&Shutdown::new());
    let nodes: Vec<NodeState> = (0..scenario.leaves()).map(|number| node(format!("leaf-{number}"))).collect();
    let index = index(scenario, &store).await?;
    let view = |at: Duration| {
        let mut index = index.clone();
        index.placement = Arc::new(Placement { serve: placed(scenario, &nodes, at), own: Vec::new() });
        Arc::new(View {
            known: true,
            nodes: nodes.iter().map(|state| (state.node.clone(), state.clone())).collect(),
            indexes: [(index.name.clone(), Arc::new(index))].into(),
            ..View::default()
        })
    };
    let (sender, watched) = watch::channel(view(Duration::ZERO));
    let begun = Instant::now();
    let warm_up = Duration::from_secs_f64(scenario.warm_up as f64 / scenario.rate());
    let world = Arc::new(World {
        scenario: scenario.clone(),
        begun,
        scope: scope.clone(),
        counts: Counts::default(),
        trace: Trace::new(begun, traced),
        measured: (warm_up, warm_up + scenario.length()),
        machines: OnceLock::new(),
    });
    let machines: Vec<Arc<Machine>> = (0..)
        .zip(&nodes)
        .map(|(number, state)| {
            let seed = part(seed, 1_000 + u64::from(number));
            Arc::new(Machine::new(&world, number, state.node.clone(), seed))
        })
        .collect();
    let machines = world.machines.get_or_init(|| machines);
    let roots: Vec<Root> = (0..u64::from(scenario.roots))
        .map(|number| {
            let leaves = Directory::new(watched.clone());
            let random = Random::seeded(part(seed, 100_000 + number));
            for (machine, state) in machines.iter().zip(&nodes) {
                let way = Way { machine: machine.clone(), random: random.clone() };
                leaves.insert(state.node.clone(), Arc::new(way));
            }
            let parts = root::Parts {
                store: store.clone(),
                view: watched.clone(),
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
    let turns = scenario.joins.iter().map(|join| (join.at.0, view(join.at.0)));
    let mut turns: Vec<(Duration, Arc<View>)> = turns.collect();
    turns.sort_by_key(|(at, _)| *at);
    scope.spawn("views", OnError::Log, |_| async move {
        for (at, view) in turns {
            sleep_until(begun + slowed(at)).await;
            sender.send_replace(view);
        }
    });
    let (mut run, slices) = queries::send(&world, &roots, seed).await?;
    run.name = format!("seed {seed}");
    let Counts { calls, cancelled, pings, worked, wasted, refused, expired } = &world.counts;
    let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed) as f64;
    run.counters = [
        ("leaf calls".to_owned(), count(calls)),
        ("cancels".to_owned(), count(cancelled)),
        ("pings".to_owned(), count(pings)),
        ("leaf work dropped as expired".to_owned(), count(expired)),
        ("shed by leaves".to_owned(), count(refused)),
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
    figures(&mut run, scenario, machines);
    Ok(Outcomes { run, slices, trace: world.trace.take() })
}

/// How evenly the leaves were asked.
fn figures(run: &mut Run, scenario: &Scenario, machines: &[Arc<Machine>]) {
    let counted: Vec<(f64, u64)> = machines.iter().map(|machine| machine.counted()).collect();
    let most = counted.iter().map(|(calls, _)| *calls).fold(0.0, f64::max);
    let mean = counted.iter().map(|(calls, _)| *calls).sum::<f64>() / counted.len() as f64;
    run.figures.insert("most in flight at a leaf, times the mean".to_owned(), most / mean.max(1e-9));
    let Some(join) = scenario.joins.first() else { return };
    // Its share is that of the leaves that hold what it holds.
    let mut peers: Vec<u32> = (0..scenario.shards)
        .map(|shard| scenario.holders(shard))
        .filter(|holders| holders.contains(&join.leaf))
        .flatten()
        .collect();
    peers.sort_unstable();
    peers.dedup();
    let calls = |leaf: u32| counted.get(leaf as usize).map_or(0, |(_, calls)| *calls) as f64;
    let mean = peers.iter().map(|leaf| calls(*leaf)).sum::<f64>() / peers.len() as f64;
    run.figures.insert(
        "calls of a newcomer in its first second, times its share".to_owned(),
        calls(join.leaf) / mean.max(1e-9),
    );
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
        reports: model::standing::Settings {
            service_lasts: usual.reports.service_lasts * f64::from(SLOWED),
            ..usual.reports
        },
        hedging: scenario.hedging,
        choice: match scenario.choice {
            Choice::Random => Policy::Random,
            Choice::TwoChoices => Policy::TwoChoices,
        },
        ..usual
    }
}
