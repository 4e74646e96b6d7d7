//! Where objects lie.
//!
//! ```text
//! names/{name}/{n}
//! indexes/{uid}/definition/{n}
//! indexes/{uid}/cuts/{n}
//! indexes/{uid}/shards/{shard}/wal/{seq}
//! indexes/{uid}/shards/{shard}/manifests/{generation}
//! indexes/{uid}/shards/{shard}/segments/{epoch}/{file}
//! ```
//!
//! **Invariant:** numbers have 20 digits, so that text order is number order,
//! in listings and in `ls`.

use model::ids::{CutNumber, DefinitionNumber, Epoch, Generation, IndexName, IndexUid, Seq, ShardId};
use object_store::path::Path;

/// The folder of all names.
#[must_use]
pub fn names() -> Path {
    Path::from("names")
}

/// The folder of one name's entries.
#[must_use]
pub fn name_folder(name: &IndexName) -> Path {
    names().join(name.as_str())
}

/// The folder of all indexes.
#[must_use]
pub fn indexes() -> Path {
    Path::from("indexes")
}

/// The folder of an index.
#[must_use]
pub fn index(uid: &IndexUid) -> Path {
    indexes().join(uid.as_str())
}

/// The folder of an index's definitions.
#[must_use]
pub fn definitions(uid: &IndexUid) -> Path {
    index(uid).join("definition")
}

/// One definition.
#[must_use]
pub fn definition(uid: &IndexUid, number: DefinitionNumber) -> Path {
    numbered(&definitions(uid), number.0)
}

/// The folder of an index's cuts.
#[must_use]
pub fn cuts(uid: &IndexUid) -> Path {
    index(uid).join("cuts")
}

/// One cut.
#[must_use]
pub fn cut(uid: &IndexUid, number: CutNumber) -> Path {
    numbered(&cuts(uid), number.0)
}

/// The folder of a shard.
#[must_use]
pub fn shard(uid: &IndexUid, shard: ShardId) -> Path {
    numbered(&index(uid).join("shards"), shard.0.into())
}

/// The folder of a shard's write-ahead log.
#[must_use]
pub fn wal(uid: &IndexUid, shard_id: ShardId) -> Path {
    shard(uid, shard_id).join("wal")
}

/// One record of the write-ahead log.
#[must_use]
pub fn record(uid: &IndexUid, shard: ShardId, seq: Seq) -> Path {
    numbered(&wal(uid, shard), seq.0)
}

/// The folder of a shard's manifests.
#[must_use]
pub fn manifests(uid: &IndexUid, shard_id: ShardId) -> Path {
    shard(uid, shard_id).join("manifests")
}

/// One manifest.
#[must_use]
pub fn manifest(uid: &IndexUid, shard: ShardId, generation: Generation) -> Path {
    numbered(&manifests(uid, shard), generation.0)
}

/// The folder of a shard's segment files, of all epochs.
#[must_use]
pub fn segments(uid: &IndexUid, shard_id: ShardId) -> Path {
    shard(uid, shard_id).join("segments")
}

/// One segment file.
#[must_use]
pub fn segment(uid: &IndexUid, shard: ShardId, epoch: Epoch, file: &str) -> Path {
    numbered(&segments(uid, shard), epoch.0).join(file)
}

/// Object `number` of a numbered folder.
#[must_use]
pub fn numbered(folder: &Path, number: u64) -> Path {
    folder.clone().join(format!("{number:020}"))
}

/// The number that a path ends in, when it lies directly in `folder`.
#[must_use]
pub fn number(folder: &Path, path: &Path) -> Option<u64> {
    let mut parts = path.prefix_match(folder)?;
    let number = parse(parts.next()?.as_ref())?;
    parts.next().is_none().then_some(number)
}

/// The epoch of a segment file's path.
#[must_use]
pub fn segment_epoch(segments: &Path, path: &Path) -> Option<Epoch> {
    parse(path.prefix_match(segments)?.next()?.as_ref()).map(Epoch)
}

fn parse(digits: &str) -> Option<u64> {
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_never_changes() {
        let uid = IndexUid::from_bits(7);
        let path = segment(&uid, ShardId(3), Epoch(2), "a.store");
        assert_eq!(
            path.as_ref(),
            "indexes/00000000000000000000000000000007/shards/00000000000000000003/segments/00000000000000000002/a.store"
        );
        assert_eq!(segment_epoch(&segments(&uid, ShardId(3)), &path), Some(Epoch(2)));
        let path = record(&uid, ShardId(0), Seq(12));
        assert_eq!(number(&wal(&uid, ShardId(0)), &path), Some(12));
        assert_eq!(number(&manifests(&uid, ShardId(0)), &path), None);
    }
}
