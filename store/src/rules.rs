//! The promises of the log, against every schedule of a small world: an owner
//! is stopped, failed or killed at each of its puts and deletes while another
//! takes over, publishes and collects garbage, and then goes on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use model::cut::{Cut, CutEntry};
use model::ids::{DefinitionNumber, Epoch, Generation, IndexName, IndexUid, Seq, ShardId};
use model::settings::Definition;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};

use crate::conformance::{schema, soon};
use crate::garbage::Retention;
use crate::names::Entry;
use crate::scripted::{Gate, Scripted, Step};
use crate::{
    Appended, Body, Deletion, Kind, Manifest, Nonce, Operation, Published, Put, Record, Store, Take, keys,
};

const SHARD: ShardId = ShardId(0);

/// What an index holds: for each id ever written, the last write's seq and
/// value; a deleted one has none.
type State = BTreeMap<String, (u64, Option<String>)>;

/// A write that a client was told is durable.
#[derive(Clone, Debug)]
struct Ack {
    seq: Seq,
    nonce: Nonce,
    operations: Vec<Operation>,
}

/// Objects that several clients share, and what they were told.
#[derive(Clone)]
struct World {
    objects: Arc<dyn ObjectStore>,
    uid: IndexUid,
    acks: Arc<Mutex<Vec<Ack>>>,
}

/// A bug, planted to see it caught.
#[derive(Clone, Copy, PartialEq)]
enum Bug {
    None,
    /// Acknowledges, then puts.
    AckBeforePut,
    /// After a failed put, uses the seq for the next group, and takes "exists
    /// already" for its own.
    ReusedSeq,
}

struct Owner<'a> {
    world: &'a World,
    store: Store,
    bug: Bug,
    epoch: Epoch,
    next: Seq,
    manifest: Manifest,
    state: State,
}

impl World {
    async fn new() -> Self {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let definition = Definition { shards: 1, ..Definition::of(schema()) };
        let store = Store::new(Arc::clone(&objects));
        let uid = store.create_index(&name(), &definition, soon()).await.unwrap();
        Self { objects, uid, acks: Arc::default() }
    }

    fn client(&self) -> (Scripted, Store) {
        let scripted = Scripted::new(Arc::clone(&self.objects));
        let store = Store::new(Arc::new(scripted.clone()));
        (scripted, store)
    }

    /// Holds what a fresh owner finds against what clients were told.
    async fn check(&self) -> Result<(), String> {
        let store = Store::new(Arc::clone(&self.objects));
        let owner = Owner::take(self, store, Bug::None).await.ok_or("nobody can own the shard")?;
        let cut = owner.store.newest_cut(&self.uid).await.map_err(|error| error.to_string())?;
        let generation = cut.entries[0].generation;
        let kept = owner.store.manifest(&self.uid, SHARD, generation).await;
        let kept = kept.unwrap().ok_or("the newest cut's manifest is collected")?;
        for file in &kept.files {
            let file = owner.store.get_file(file).await;
            file.map_err(|error| format!("the newest cut's file: {error}"))?;
        }
        let mut ackers = BTreeMap::new();
        for ack in self.acks.lock().unwrap().iter() {
            if *ackers.entry(ack.seq).or_insert(ack.nonce) != ack.nonce {
                return Err(format!("two ackers for seq {}", ack.seq));
            }
            let mut wrote = State::new();
            apply(&mut wrote, ack.seq, &ack.operations);
            for (id, write) in wrote {
                let Some(found) = owner.state.get(&id) else {
                    return Err(format!("{id} of seq {} is lost", ack.seq));
                };
                if found.0 < write.0 || (found.0 == write.0 && found.1 != write.1) {
                    return Err(format!("{id} of seq {} is lost or undone: {found:?}", ack.seq));
                }
            }
        }
        Ok(())
    }
}

impl<'a> Owner<'a> {
    async fn take(world: &'a World, store: Store, bug: Bug) -> Option<Self> {
        let Take::Taken(mut taken) = store.take_shard(&world.uid, SHARD, soon()).await.unwrap() else {
            return None;
        };
        let mut state = State::new();
        for file in &taken.manifest.files {
            // A replica or owner that meets 404 starts again.
            match store.get_file(file).await {
                Ok(bytes) => state = serde_json::from_slice(&bytes).unwrap(),
                Err(error) if error.kind() == Kind::NotFound => return None,
                Err(error) => panic!("{error}"),
            }
        }
        loop {
            match taken.replay.next().await {
                Ok(Some(record)) => {
                    if let Body::Operations(operations) = &record.body {
                        apply(&mut state, record.seq, operations);
                    }
                }
                Ok(None) => break,
                // Overtaken and collected while it was stopped, before its end.
                Err(_) if overtaken(&store, &world.uid, taken.fence).await => return None,
                Err(error) => panic!("{error}"),
            }
        }
        Some(Self {
            world,
            store,
            bug,
            epoch: taken.epoch,
            next: taken.fence.next(),
            manifest: taken.manifest,
            state,
        })
    }

    /// Returns whether the owner still owns.
    async fn write(&mut self, operations: Vec<Operation>) -> bool {
        let record = Record {
            seq: self.next,
            epoch: self.epoch,
            nonce: self.store.nonce(),
            definition: DefinitionNumber(1),
            body: Body::Operations(operations.clone()),
        };
        let ack = Ack { seq: record.seq, nonce: record.nonce, operations };
        let acks = || self.world.acks.lock().unwrap();
        if self.bug == Bug::AckBeforePut {
            acks().push(ack.clone());
        }
        if self.bug == Bug::ReusedSeq {
            let path = keys::record(&self.world.uid, SHARD, record.seq);
            let put = self.store.objects();
            let put = put.put_opts(&path, record.encode().into(), PutMode::Create.into()).await;
            if !matches!(put, Ok(_) | Err(object_store::Error::AlreadyExists { .. })) {
                return true;
            }
        } else {
            let appended = self.store.append(&self.world.uid, SHARD, &record, soon()).await;
            if appended.unwrap() != Appended::Mine {
                return false;
            }
        }
        if self.bug != Bug::AckBeforePut {
            acks().push(ack.clone());
        }
        apply(&mut self.state, self.next, &ack.operations);
        self.next = self.next.next();
        true
    }

    async fn publish(&mut self) -> bool {
        let generation = self.manifest.generation.next();
        let path = keys::segment(&self.world.uid, SHARD, self.epoch, &format!("{generation}"));
        let bytes = Bytes::from(serde_json::to_vec(&self.state).unwrap());
        let file = loop {
            match self.store.put_bytes_as_file(bytes.clone(), &path).await {
                Ok(file) => break file,
                Err(error) if error.kind() == Kind::Unavailable => {}
                Err(error) => panic!("{error}"),
            }
        };
        let manifest = Manifest {
            generation,
            epoch: self.epoch,
            nonce: self.store.nonce(),
            seq: Seq(self.next.0 - 1),
            files: vec![file],
            ..self.manifest.clone()
        };
        if self.store.publish(&manifest, soon()).await.unwrap() != Published::Mine {
            return false;
        }
        self.manifest = manifest;
        true
    }

    /// What the controller does, in the same process.
    async fn cut(&self) {
        let newest = self.store.newest_cut(&self.world.uid).await.unwrap();
        let entry = &newest.entries[0];
        if entry.generation < self.manifest.generation {
            let cut = Cut {
                number: newest.number.next(),
                nonce: self.store.nonce().into(),
                entries: vec![CutEntry {
                    generation: self.manifest.generation,
                    seq: self.manifest.seq,
                    ..entry.clone()
                }],
                ..newest
            };
            if matches!(self.store.put_cut(&cut, soon()).await.unwrap(), Put::Other(_)) {
                return;
            }
        }
        let later = SystemTime::now() + Duration::from_secs(3_600);
        let nothing = Retention { age: Duration::ZERO, cuts: 1 };
        // A scripted delete fails; the next collection tries again.
        let _ = self.store.collect_cuts(&self.world.uid, later, nothing).await;
    }

    async fn collect(&self) {
        let _ = self.store.collect_shard(&self.manifest).await;
    }
}

async fn overtaken(store: &Store, uid: &IndexUid, fence: Seq) -> bool {
    store.newest_seq(uid, SHARD).await.unwrap() > fence
}

/// An owner's life, until its end or until it steps down.
async fn live(world: &World, store: Store, who: &str, bug: Bug) -> Option<()> {
    let own = |n: u8| format!("{who}{n}");
    let mut owner = Owner::take(world, store, bug).await?;
    let go = |still: bool| still.then_some(());
    go(owner.write(vec![upsert("x", who), upsert(&own(1), who), upsert(&own(2), who)]).await)?;
    go(owner.write(vec![delete(&own(1)), upsert("y", who)]).await)?;
    go(owner.publish().await)?;
    owner.cut().await;
    owner.collect().await;
    go(owner.write(vec![delete("x"), upsert(&own(3), who)]).await)?;
    go(owner.write(vec![upsert(&own(2), "again"), delete("y")]).await)?;
    go(owner.publish().await)?;
    go(owner.publish().await)?;
    owner.cut().await;
    owner.collect().await;
    go(owner.write(vec![upsert(&own(4), who)]).await)
}

fn apply(state: &mut State, seq: Seq, operations: &[Operation]) {
    for operation in operations {
        let value = match operation {
            Operation::Upsert { source, .. } => Some(String::from_utf8(source.to_vec()).unwrap()),
            Operation::Delete { .. } => None,
        };
        state.insert(operation.id().to_owned(), (seq.0, value));
    }
}

fn upsert(id: &str, source: &str) -> Operation {
    Operation::Upsert { id: id.to_owned(), source: Bytes::copy_from_slice(source.as_bytes()) }
}

fn delete(id: &str) -> Operation {
    Operation::Delete { id: id.to_owned() }
}

fn name() -> IndexName {
    IndexName::new("world").unwrap()
}

/// Where the first owner is disturbed.
#[derive(Clone, Copy, Debug)]
enum At {
    Put(usize),
    Delete(usize),
}

/// How its story goes on after the second owner's life.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// It goes on where it was, and then tries to own once more.
    GoesOn,
    /// It was killed.
    Killed,
}

async fn play(at: At, step: Step, then: Then, bug: Bug) -> Result<(), String> {
    let world = World::new().await;
    let (scripted, first) = world.client();
    let gate = gate(&scripted, at, step);
    let others = async {
        gate.reached().await;
        let (_, second) = world.client();
        live(&world, second, "b", Bug::None).await;
        // Landing on what another put is refused, as it should be.
        let _ = gate.land().await;
        gate.resume();
    };
    let story = async {
        live(&world, first.clone(), "a", bug).await;
        live(&world, first, "c", bug).await;
    };
    if then == Then::GoesOn {
        tokio::join!(story, others);
    } else {
        let mut story = Box::pin(story);
        tokio::select! {
            biased;
            () = gate.reached() => {}
            () = &mut story => return Ok(()),
        }
        drop(story);
        gate.rearm();
        others.await;
    }
    world.check().await.map_err(|broken| format!("{at:?} {step:?} {then:?}: {broken}"))
}

fn gate(scripted: &Scripted, at: At, step: Step) -> Gate {
    match at {
        At::Put(n) => scripted.at_put(n, step),
        At::Delete(n) => scripted.at_delete(n, step),
    }
}

/// Every schedule; returns what was broken.
async fn play_all(bug: Bug) -> Vec<String> {
    let world = World::new().await;
    let (scripted, store) = world.client();
    live(&world, store, "a", bug).await.expect("an undisturbed owner lives");
    let (puts, deletes) = (scripted.puts(), scripted.deletes());
    assert!(puts > 12 && deletes > 4, "{puts} puts and {deletes} deletes: {:?}", scripted.log());
    world.check().await.expect("an undisturbed owner keeps its promises");
    let points = (1..=puts).map(At::Put).chain((1..=deletes).map(At::Delete));
    let mut broken = Vec::new();
    for at in points {
        use Step::{Fail, FailAfter, FailThenLand, PauseAfter, PauseBefore};
        for step in [PauseBefore, PauseAfter, Fail, FailAfter, FailThenLand] {
            for then in [Then::GoesOn, Then::Killed] {
                broken.extend(play(at, step, then, bug).await.err());
            }
        }
    }
    broken
}

#[tokio::test(start_paused = true)]
async fn no_schedule_loses_an_acknowledged_write_or_undoes_a_delete() {
    assert_eq!(play_all(Bug::None).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_ack_before_the_put_is_caught() {
    let broken = play_all(Bug::AckBeforePut).await;
    assert!(broken.iter().any(|broken| broken.contains("lost")), "{broken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reused_seq_is_caught() {
    let broken = play_all(Bug::ReusedSeq).await;
    assert!(broken.iter().any(|broken| broken.contains("lost")), "{broken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_put_that_never_succeeds_ends_unknown_at_its_deadline() {
    let scripted = Scripted::new(Arc::new(InMemory::new()));
    let gates: Vec<Gate> = (1..100).map(|n| scripted.at_put(n, Step::Fail)).collect();
    let store = Store::new(Arc::new(scripted.clone()));
    let path = keys::record(&store.uid(), SHARD, Seq(1));
    let put = store.put_numbered(&path, Bytes::from_static(b"x"), soon()).await;
    let error = put.unwrap_err();
    assert_eq!(error.kind(), Kind::Unknown);
    assert!(error.to_string().contains("a scripted failure"), "{error}");
    assert!((20..gates.len()).contains(&scripted.puts()), "{} tries", scripted.puts());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_ends_unknown_at_the_deadline() {
    let scripted = Scripted::new(Arc::new(InMemory::new()));
    let _gate = scripted.at_put(1, Step::PauseBefore);
    let store = Store::new(Arc::new(scripted));
    let path = keys::record(&store.uid(), SHARD, Seq(1));
    let put = store.put_numbered(&path, Bytes::from_static(b"x"), soon()).await;
    assert_eq!(put.unwrap_err().kind(), Kind::Unknown);
}

#[tokio::test]
async fn a_missing_record_is_an_error_never_an_end() {
    let world = World::new().await;
    let (_, store) = world.client();
    let mut owner = Owner::take(&world, store.clone(), Bug::None).await.unwrap();
    assert!(owner.write(vec![upsert("a", "1")]).await);
    assert!(owner.write(vec![upsert("b", "1")]).await);
    store.objects().delete(&keys::record(&world.uid, SHARD, Seq(2))).await.unwrap();
    let Take::Taken(mut taken) = store.take_shard(&world.uid, SHARD, soon()).await.unwrap() else {
        panic!("the shard is free");
    };
    assert_eq!(taken.replay.next().await.unwrap().unwrap().body, Body::Fence);
    assert_eq!(taken.replay.next().await.unwrap_err().kind(), Kind::Internal);
}

#[tokio::test]
async fn racing_takers_never_share_an_epoch() {
    let world = World::new().await;
    let takes = (0..32).map(|_| async {
        let (_, store) = world.client();
        tokio::task::yield_now().await;
        store.take_shard(&world.uid, SHARD, soon()).await.unwrap()
    });
    let takes = futures::future::join_all(takes).await;
    let mut epochs: Vec<Epoch> = takes
        .into_iter()
        .filter_map(|take| match take {
            Take::Taken(taken) => Some(taken.epoch),
            _ => None,
        })
        .collect();
    let taken = epochs.len();
    assert!(taken > 0, "somebody takes it");
    epochs.sort_unstable();
    epochs.dedup();
    assert_eq!(epochs.len(), taken, "no two owners share an epoch");
}

#[tokio::test(start_paused = true)]
async fn a_create_that_is_cut_short_is_whole_or_unseen() {
    use Step::{FailAfter, FailThenLand, PauseAfter, PauseBefore};
    let definition = Definition { shards: 2, ..Definition::of(schema()) };
    // Definition, two manifests, the cut, the name.
    for n in 1..=5 {
        for step in [PauseBefore, PauseAfter, FailAfter, FailThenLand] {
            for goes_on in [false, true] {
                let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
                let scripted = Scripted::new(Arc::clone(&objects));
                let first = Store::new(Arc::new(scripted.clone()));
                let gate = scripted.at_put(n, step);
                let second = Store::new(objects);
                let name = name();
                let mut create = Box::pin(first.create_index(&name, &definition, soon()));
                tokio::select! {
                    biased;
                    () = gate.reached() => {}
                    created = &mut create => panic!("{n} {step:?}: {created:?}"),
                }
                let again = second.create_index(&name, &definition, soon()).await;
                let _ = gate.land().await;
                gate.resume();
                if goes_on {
                    let first = create.await;
                    assert!(first.is_ok() != again.is_ok(), "{n} {step:?}: {first:?} {again:?}");
                } else {
                    drop(create);
                }
                whole(&second, &name, &definition).await;
                assert!(matches!(second.delete_index(&name, soon()).await.unwrap(), Deletion::Now(_)));
            }
        }
    }
}

/// Whether every part of the index that a name stands for is there.
async fn whole(store: &Store, name: &IndexName, definition: &Definition) {
    let Some((_, Entry::Live { uid })) = store.name(name).await.unwrap() else {
        panic!("no index is seen");
    };
    assert_eq!(store.newest_definition(&uid).await.unwrap().1, *definition);
    assert_eq!(store.newest_cut(&uid).await.unwrap().entries.len(), 2);
    for shard in 0..2 {
        let take = store.take_shard(&uid, ShardId(shard), soon()).await.unwrap();
        assert!(matches!(take, Take::Taken(_)), "{take:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_is_cut_short_is_finished_by_whoever_comes_next() {
    use Step::{FailAfter, FailThenLand, PauseAfter, PauseBefore};
    let definition = Definition { shards: 2, ..Definition::of(schema()) };
    // The name, two tombstones.
    for n in 1..=3 {
        for step in [PauseBefore, PauseAfter, FailAfter, FailThenLand] {
            for by_repeating in [false, true] {
                let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
                let clean = Store::new(Arc::clone(&objects));
                let name = name();
                let uid = clean.create_index(&name, &definition, soon()).await.unwrap();
                let take = clean.take_shard(&uid, ShardId(1), soon()).await.unwrap();
                let Take::Taken(owner) = take else { panic!("{take:?}") };

                let scripted = Scripted::new(objects);
                let gate = scripted.at_put(n, step);
                let killed = Store::new(Arc::new(scripted.clone()));
                let mut delete = Box::pin(killed.delete_index(&name, soon()));
                tokio::select! {
                    biased;
                    () = gate.reached() => {}
                    deleted = &mut delete => panic!("{n} {step:?}: {deleted:?}"),
                }
                drop(delete);
                // The owner goes on until it meets the tombstone.
                let mut record = Record {
                    seq: owner.fence.next(),
                    epoch: owner.epoch,
                    nonce: clean.nonce(),
                    definition: DefinitionNumber(1),
                    body: Body::Operations(vec![upsert("a", "1")]),
                };
                let mut acked = 0;
                for _ in 0..2 {
                    let append = clean.append(&uid, ShardId(1), &record, soon()).await.unwrap();
                    if append != Appended::Mine {
                        break;
                    }
                    acked += 1;
                    record.seq = record.seq.next();
                    record.nonce = clean.nonce();
                }
                let seen = clean.name(&name).await.unwrap();
                let deleted = matches!(seen, Some((_, Entry::Deleted { .. })));
                let _ = gate.land().await;
                if by_repeating || !deleted {
                    let again = clean.delete_index(&name, soon()).await.unwrap();
                    assert!(matches!(again, Deletion::Before(found) | Deletion::Now(found) if found == uid));
                } else {
                    clean.finish_deletions(soon()).await.unwrap();
                }
                for shard in 0..2 {
                    let take = clean.take_shard(&uid, ShardId(shard), soon()).await.unwrap();
                    assert!(matches!(take, Take::Deleted), "{n} {step:?} {acked}: {take:?}");
                }
                let append = clean.append(&uid, ShardId(1), &record, soon()).await.unwrap();
                assert!(matches!(append, Appended::StepDown(_)), "a tombstone ends the log");
                assert_eq!(clean.newest_manifest(&uid, SHARD).await.unwrap().generation, Generation(1));
            }
        }
    }
}
