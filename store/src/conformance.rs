//! What any store must do for the log rules to hold: one suite for memory,
//! local disk, S3 and whatever comes.

use bytes::Bytes;
use futures::future::join_all;
use model::ids::{Epoch, IndexName, Seq, ShardId};
use model::settings::Definition;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode};
use tokio::time::{Duration, Instant};

use crate::{
    Appended, Body, Deletion, Kind, Operation, Ownership, Published, Put, Record, Store, Take, keys,
};

/// Runs the whole suite on an empty store. It leaves objects behind.
///
/// # Panics
/// When the store breaks a rule.
pub async fn suite(store: &Store) {
    one_of_32_racing_puts_wins(store).await;
    a_repeated_put_is_still_mine(store).await;
    missing_objects_are_no_errors(store).await;
    ranges_are_exact(store).await;
    the_newest_is_found_beyond_any_listing(store).await;
    damage_is_noticed(store).await;
    files_come_back_as_they_were(store).await;
    an_index_is_created_and_deleted_once(store).await;
    a_shard_is_taken_and_replayed(store).await;
}

/// A deadline that no healthy store comes near.
#[must_use]
pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

async fn one_of_32_racing_puts_wins(store: &Store) {
    let path = Path::from("conformance/race/1");
    let bytes = |n: u8| Bytes::from(vec![n; 1_000]);
    let puts = (0..32).map(|n| store.put_numbered(&path, bytes(n), soon()));
    let puts: Vec<Put> = join_all(puts).await.into_iter().map(|put| put.expect("puts succeed")).collect();
    let winners: Vec<usize> = (0..32).filter(|n| puts[*n] == Put::Mine).collect();
    assert_eq!(winners.len(), 1, "one put wins");
    let won = bytes(u8::try_from(winners[0]).expect("32 racers"));
    let lost = puts.iter().filter(|put| **put == Put::Other(won.clone())).count();
    assert_eq!(lost, 31, "all others see the winner's bytes");
    let raw = store.objects().put_opts(&path, won.into(), PutMode::Create.into()).await;
    assert!(
        matches!(raw, Err(object_store::Error::AlreadyExists { .. })),
        "creation of what exists is refused"
    );
}

async fn a_repeated_put_is_still_mine(store: &Store) {
    let path = Path::from("conformance/retry/1");
    for _ in 0..2 {
        let put = store.put_numbered(&path, Bytes::from_static(b"same"), soon()).await;
        assert_eq!(put.expect("a put succeeds"), Put::Mine);
    }
}

async fn missing_objects_are_no_errors(store: &Store) {
    let uid = store.uid();
    let none = store.record(&uid, ShardId(0), Seq(1)).await;
    assert_eq!(none.expect("absence is an answer"), None);
    let seq = store.newest_seq(&uid, ShardId(0)).await;
    assert_eq!(seq.expect("absence is an answer"), Seq(0));
    let error = store.newest_manifest(&uid, ShardId(0)).await.expect_err("no manifest is damage");
    assert_eq!(error.kind(), Kind::Internal);
    let name = IndexName::new("never-was").expect("a fine name");
    assert_eq!(store.name(&name).await.expect("absence is an answer"), None);
    store.delete(&Path::from("conformance/none")).await.expect("a missing object is deleted");
}

async fn ranges_are_exact(store: &Store) {
    let path = Path::from("conformance/ranges");
    store.objects().put(&path, "0123456789".into()).await.expect("a put succeeds");
    let get = |range| store.objects().get_range(&path, range);
    assert_eq!(get(2..5).await.expect("a range is read"), "234");
    assert_eq!(get(7..512).await.expect("a range past the end is cut"), "789");
}

async fn the_newest_is_found_beyond_any_listing(store: &Store) {
    let folder = Path::from("conformance/newest");
    for number in [3, 1, 2, 10, 11] {
        let path = keys::numbered(&folder, number);
        let put = store.put_numbered(&path, Bytes::from_static(b"x"), soon()).await;
        assert_eq!(put.expect("a put succeeds"), Put::Mine);
    }
    let highest = |floor| store.highest(&folder, floor);
    assert_eq!(highest(0).await.expect("a folder is listed"), 11);
    assert_eq!(highest(12).await.expect("a folder is listed"), 12, "the floor holds");
    assert_eq!(store.numbers(&folder).await.expect("a folder is listed"), [1, 2, 3, 10, 11]);
}

async fn damage_is_noticed(store: &Store) {
    let uid = store.uid();
    let record = ordinary(store, 1, 1, "a");
    let mut bytes = record.encode().to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let path = keys::record(&uid, ShardId(0), Seq(1));
    store.objects().put(&path, bytes.into()).await.expect("a put succeeds");
    let error = store.record(&uid, ShardId(0), Seq(1)).await.expect_err("damage is an error");
    assert_eq!(error.kind(), Kind::Internal);
    assert!(error.to_string().contains(path.as_ref()), "{error} names the object");
}

async fn files_come_back_as_they_were(store: &Store) {
    let uid = store.uid();
    let path = keys::segment(&uid, ShardId(0), Epoch(1), "a.idx");
    let put = |bytes: &'static [u8]| store.put_bytes_as_file(Bytes::from_static(bytes), &path);
    let file = put(b"segment").await.expect("a file is put");
    assert_eq!(put(b"segment").await.expect("equal bytes are fine"), file);
    assert_eq!(put(b"another").await.expect_err("files never change").kind(), Kind::Conflict);
    assert_eq!(store.get_file(&file).await.expect("a file is read"), "segment");
    let mut wrong = file.clone();
    wrong.checksum = format!("{:032x}", 0);
    assert_eq!(store.get_file(&wrong).await.expect_err("damage").kind(), Kind::Internal);
    wrong.path.push('x');
    assert_eq!(store.get_file(&wrong).await.expect_err("missing").kind(), Kind::NotFound);
}

async fn an_index_is_created_and_deleted_once(store: &Store) {
    let name = IndexName::new("conformance-index").expect("a fine name");
    let definition = Definition { shards: 3, ..Definition::of(schema()) };
    let uid = store.create_index(&name, &definition, soon()).await.expect("an index is created");
    let again = store.create_index(&name, &definition, soon()).await;
    assert_eq!(again.expect_err("the name is taken").kind(), Kind::Conflict);
    assert_eq!(store.newest_cut(&uid).await.expect("cut 1").entries.len(), 3);
    assert_eq!(store.newest_definition(&uid).await.expect("definition 1").1, definition);

    let deleted = store.delete_index(&name, soon()).await.expect("an index is deleted");
    assert_eq!(deleted, Deletion::Now(uid.clone()));
    let deleted = store.delete_index(&name, soon()).await.expect("a deletion is repeated");
    assert_eq!(deleted, Deletion::Before(uid.clone()));
    for shard in 0..3 {
        let take = store.take_shard(&uid, ShardId(shard), soon()).await.expect("a shard answers");
        assert!(matches!(take, Take::Deleted), "{take:?}");
    }
    let next = store.create_index(&name, &definition, soon()).await.expect("the name is free");
    assert_ne!(next, uid, "each creation has its own uid");
    assert_eq!(store.name_entries(&name).await.expect("entries").len(), 3);
    assert!(store.finish_deletions(soon()).await.expect("nothing is left").is_empty());
}

async fn a_shard_is_taken_and_replayed(store: &Store) {
    let name = IndexName::new("conformance-shard").expect("a fine name");
    let definition = Definition { shards: 1, ..Definition::of(schema()) };
    let uid = store.create_index(&name, &definition, soon()).await.expect("an index is created");
    let first = taken(store.take_shard(&uid, ShardId(0), soon()).await.expect("a shard"));
    assert_eq!((first.epoch, first.fence, first.manifest.generation.0), (Epoch(1), Seq(1), 2));
    let record = ordinary(store, 2, 1, "a");
    let appended = store.append(&uid, ShardId(0), &record, soon()).await;
    assert_eq!(appended.expect("an append"), Appended::Mine);

    let mut second = taken(store.take_shard(&uid, ShardId(0), soon()).await.expect("a shard"));
    assert_eq!((second.epoch, second.fence), (Epoch(2), Seq(3)));
    let mut replayed = Vec::new();
    while let Some(record) = second.replay.next().await.expect("records are there") {
        replayed.push(record);
    }
    assert_eq!(replayed.len(), 3);
    assert_eq!(replayed[1], record);

    let late = ordinary(store, 3, 1, "late");
    let late = store.append(&uid, ShardId(0), &late, soon()).await.expect("an append");
    assert!(matches!(late, Appended::StepDown(other) if other.body == Body::Fence));
    let mut manifest = first.manifest.clone();
    manifest.generation = manifest.generation.next();
    manifest.nonce = store.nonce();
    let late = store.publish(&manifest, soon()).await.expect("a publish");
    assert!(matches!(late, Published::StepDown(other) if other.epoch == Epoch(2)));
}

fn taken(take: Take) -> Box<Ownership> {
    match take {
        Take::Taken(ownership) => ownership,
        other => panic!("the shard is free: {other:?}"),
    }
}

fn ordinary(store: &Store, seq: u64, epoch: u64, id: &str) -> Record {
    Record {
        seq: Seq(seq),
        epoch: Epoch(epoch),
        nonce: store.nonce(),
        definition: model::ids::DefinitionNumber(1),
        body: Body::Operations(vec![Operation::Upsert {
            id: id.to_owned(),
            source: Bytes::from_static(b"{}"),
        }]),
    }
}

/// A schema for tests that never look at it.
#[must_use]
pub fn schema() -> model::schema::Schema {
    model::schema::Schema::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_conforms() {
        suite(&Store::memory()).await;
    }

    #[tokio::test]
    async fn a_local_folder_conforms() {
        let folder = tempfile::tempdir().unwrap();
        suite(&Store::local(&folder.path().join("data")).unwrap()).await;
    }

    #[tokio::test]
    async fn files_are_linked_in_and_out_of_a_local_folder() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::local(&folder.path().join("data")).unwrap();
        files_travel(&store, folder.path()).await;
    }

    #[tokio::test]
    async fn files_are_copied_in_and_out_of_memory() {
        let folder = tempfile::tempdir().unwrap();
        files_travel(&Store::memory(), folder.path()).await;
    }

    async fn files_travel(store: &Store, folder: &std::path::Path) {
        for (name, bytes) in [("small", 10_usize), ("empty", 0), ("large", (16 << 20) + 1)] {
            let content: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
            let scratch = folder.join(name);
            std::fs::write(&scratch, &content).unwrap();
            let path = keys::segment(&store.uid(), ShardId(0), Epoch(1), name);
            let file = store.put_file(&scratch, &path).await.unwrap();
            assert_eq!(store.put_file(&scratch, &path).await.unwrap(), file);
            std::fs::remove_file(&scratch).unwrap();
            let dest = folder.join("replica").join(name);
            for _ in 0..2 {
                store.fetch_file_to(&file, &dest).await.unwrap();
                assert_eq!(std::fs::read(&dest).unwrap(), content);
            }
            let mut wrong = file.clone();
            wrong.checksum = "0".repeat(32);
            std::fs::remove_file(&dest).unwrap();
            let error = store.fetch_file_to(&wrong, &dest).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Internal);
            assert!(!dest.exists(), "a damaged file is not left behind");
            store.delete(&path).await.unwrap();
            let error = store.fetch_file_to(&file, &dest).await.unwrap_err();
            assert_eq!(error.kind(), Kind::NotFound);
        }
    }
}
