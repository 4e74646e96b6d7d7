//! An owner stopped before and after each of its puts, while another takes the
//! shard, publishes and collects garbage; then the first goes on. The real
//! owners, over a scripted store.
//!
//! No acknowledged write is lost, no delete undone.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::future::{Either, select};
use leaf::{Assignment, Leaf};
use model::ids::{Generation, IndexName, IndexUid, NodeId, Seq, ShardId};
use model::schema::{Field, FieldType, Schema};
use model::settings::Definition;
use proto::admin::Operation;
use proto::leaf::{Leaf as _, ShardAt, ShardWrite};
use runtime::{Shutdown, TaskScope};
use store::Store;
use store::scripted::{Scripted, Step};
use testkit::local::soon;

const SHARD: ShardId = ShardId(0);
/// More puts than an owner's script makes: reaching it means all were tried.
const PUTS_MAX: usize = 200;

struct World {
    uid: IndexUid,
    definition: Arc<Definition>,
    scope: TaskScope,
}

impl World {
    fn leaf(&self, name: &str, store: &Store) -> Result<Leaf> {
        let node = NodeId(name.into());
        let parts = leaf::Parts { node, store: store.clone(), scope: self.scope.clone() };
        let settings =
            leaf::Settings { threads: 1, writer_heap_bytes: 15_000_000, ..leaf::Settings::default() };
        Ok(Leaf::new(parts, settings)?)
    }

    /// Takes the shard; false when it was not to be had.
    async fn own(&self, leaf: &Leaf) -> Result<bool> {
        let definition = (model::ids::DefinitionNumber(1), self.definition.clone());
        let assignment = Assignment { uid: self.uid.clone(), shard: SHARD, definition };
        let mut changed = Box::pin(leaf.changed());
        leaf.assign(&assignment).await?;
        leaf.own(&assignment);
        while !leaf.owns(&self.uid, SHARD) {
            changed.await;
            // The second ring without ownership is its end.
            if !leaf.owns(&self.uid, SHARD) && !leaf.owning(&self.uid, SHARD) {
                return Ok(false);
            }
            changed = Box::pin(leaf.changed());
        }
        Ok(true)
    }

    async fn write(&self, leaf: &Leaf, operations: Vec<Operation>) -> Result<Seq, proto::Error> {
        let write = ShardWrite { uid: self.uid.clone(), shard: SHARD, operations, deadline: soon() };
        leaf.write(write).await
    }

    /// Publishes, and waits until a generation contains `seq`.
    async fn publish(&self, leaf: &Leaf, seq: Seq) -> Result<Option<Generation>> {
        loop {
            let changed = leaf.changed();
            let newest = newest(leaf, &self.uid);
            if let Some(open) = newest.filter(|open| open.seq >= seq) {
                return Ok(Some(open.generation));
            }
            if leaf.nudge(&self.uid, SHARD).await.is_err() {
                return Ok(None);
            }
            tokio::time::timeout(Duration::from_secs(60), changed).await.context("no commit in time")?;
        }
    }

    /// Takes the shard by a new leaf, writes and publishes. A first owner that
    /// is not stopped but was told a lie may take it back once or twice.
    async fn take_over(&self, base: &Store, name: &str, operations: &[Operation]) -> Result<()> {
        for attempt in 0..10 {
            let leaf = self.leaf(&format!("{name}, attempt {attempt}"), base)?;
            if self.own(&leaf).await?
                && let Ok(seq) = self.write(&leaf, operations.to_vec()).await
                && self.publish(&leaf, seq).await?.is_some()
            {
                return Ok(());
            }
        }
        anyhow::bail!("{name} never got the shard")
    }
}

/// The newest generation that is open.
fn newest(leaf: &Leaf, uid: &IndexUid) -> Option<proto::controller::Served> {
    leaf.opened().into_iter().find(|held| held.uid == *uid)?.generations.last().copied()
}

fn upsert(id: &str) -> Operation {
    Operation::Upsert { id: id.into(), source: Bytes::from(format!("{{\"id\":\"{id}\",\"body\":\"{id}\"}}")) }
}

fn delete(id: &str) -> Operation {
    Operation::Delete { id: id.into() }
}

/// What must be there, and what must not.
#[derive(Default)]
struct Ledger(BTreeMap<String, bool>);

/// The first owner's life; what it was told is written down as it is told.
async fn first(world: &World, leaf: &Leaf, acknowledged: &std::sync::Mutex<Vec<Operation>>) -> Result<()> {
    if !world.own(leaf).await? {
        return Ok(());
    }
    for round in 0..3 {
        let mut operations = vec![upsert(&format!("first-{round}")), upsert(&format!("gone-{round}"))];
        for part in [std::mem::take(&mut operations), vec![delete(&format!("gone-{round}"))]] {
            let Ok(seq) = world.write(leaf, part.clone()).await else { return Ok(()) };
            acknowledged.lock().expect("nobody panics with it").extend(part);
            if round != 1 && world.publish(leaf, seq).await?.is_none() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Runs the first owner with a stop at its put `n`; false when it made fewer.
async fn stopped_at(n: usize, step: Step) -> Result<bool> {
    let base = Store::memory();
    let schema = Schema { fields: [("body".into(), Field::of(FieldType::Text))].into(), ..Schema::default() };
    let definition = Definition { shards: 1, refresh_interval_ms: 3_600_000, ..Definition::of(schema) };
    let uid = base.create_index(&IndexName::new("log")?, &definition, soon().instant()).await?;
    let scope = TaskScope::new(&Shutdown::new());
    let world = World { uid: uid.clone(), definition: Arc::new(definition), scope };
    let scripted = Scripted::new(base.objects().clone());
    let gate = scripted.at_put(n, step);
    let one = world.leaf("one", &Store::new(Arc::new(scripted.clone())))?;
    let told = std::sync::Mutex::new(Vec::new());
    let mut life = pin!(first(&world, &one, &told));
    let over = match select(&mut life, pin!(gate.reached())).await {
        Either::Left((ended, _)) => {
            ended?;
            true
        }
        Either::Right(_) => false,
    };
    // A put that fails may end the first's life at once.
    let reached = scripted.puts() >= n;
    let mut ledger = Ledger::default();
    if reached {
        // What the first was told so far, the second may delete.
        let before: BTreeSet<String> =
            told.lock().expect("nobody panics with it").iter().map(|op| op.id().to_owned()).collect();
        let mut operations = vec![upsert("second")];
        operations.extend(before.iter().filter(|id| id.starts_with("first-0")).map(|id| delete(id)));
        world.take_over(&base, "two", &operations).await?;
        let newest = base.newest_manifest(&uid, SHARD).await?;
        base.collect_shard(&newest).await?;
        if n.is_multiple_of(2) {
            // Several takeovers in a row: another takes it from the second.
            world.take_over(&base, "two and a half", &[upsert("second")]).await?;
            base.collect_shard(&base.newest_manifest(&uid, SHARD).await?).await?;
        }
        // A put that was said to have failed lands only now, if it can.
        let _taken = gate.land().await;
        gate.resume();
        if !over {
            life.await?;
        }
        let told = told.lock().expect("nobody panics with it");
        for operation in told.iter() {
            ledger.0.insert(operation.id().to_owned(), matches!(operation, Operation::Upsert { .. }));
        }
        for operation in &operations {
            ledger.0.insert(operation.id().to_owned(), matches!(operation, Operation::Upsert { .. }));
        }
    } else {
        for operation in told.lock().expect("nobody panics with it").iter() {
            ledger.0.insert(operation.id().to_owned(), matches!(operation, Operation::Upsert { .. }));
        }
    }
    // A third reads everything back from the store alone.
    let three = world.leaf("three", &base)?;
    ensure!(world.own(&three).await?, "the third owner did not get the shard");
    let open = newest(&three, &uid).context("nothing is open")?;
    let at = ShardAt { shard: SHARD, generation: open.generation };
    for (id, there) in &ledger.0 {
        let found = three.get(&uid, at, id, soon()).await?.is_some();
        ensure!(found == *there, "{step:?} at put {n}: {id} is there: {found}, must be: {there}");
    }
    world.scope.close(Duration::from_secs(60)).await?;
    Ok(reached)
}

async fn every_put(step: Step) -> Result<()> {
    for n in 1..PUTS_MAX {
        if !stopped_at(n, step).await? {
            ensure!(n > 10, "the script made only {n} puts");
            println!("{step:?}: {n} puts");
            return Ok(());
        }
    }
    anyhow::bail!("the script never ended")
}

#[tokio::test]
async fn an_owner_stopped_before_each_put_loses_nothing() -> Result<()> {
    every_put(Step::PauseBefore).await
}

#[tokio::test]
async fn an_owner_whose_put_lands_late_loses_nothing() -> Result<()> {
    every_put(Step::FailThenLand).await
}

#[tokio::test]
async fn an_owner_stopped_after_each_put_loses_nothing() -> Result<()> {
    every_put(Step::PauseAfter).await
}
