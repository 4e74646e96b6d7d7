//! Applies operations to segments and commits them.

use std::path::Path;

use model::ids::{Epoch, Seq, id_hash};
use proto::admin::Operation;
use tantivy::index::{SegmentComponent, SegmentMeta};
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::{Directory, Index, IndexSettings, IndexWriter, TantivyDocument};

use super::directory::Files;
use super::mapping::Mapping;
use super::seen::Seen;
use super::{Error, Segment};

/// Share of deleted documents at which a segment is merged by itself: a
/// segment of only deletes costs every search, and the engine's default never
/// merges for them.
const DELETED_SHARE_MAX: f32 = 0.3;

/// Times that a list of segments is read because merges keep replacing it.
const LISTINGS_MAX: usize = 100;

/// What a commit left: everything that a manifest needs.
#[derive(Debug, Clone)]
pub(crate) struct Commit {
    /// The engine's list of segments.
    pub(crate) meta: String,
    /// The names of all segment files that the list needs.
    pub(crate) files: Vec<String>,
    /// Live documents.
    pub(crate) documents: u64,
}

/// The one writer of a shard's segments, in a scratch directory.
pub(crate) struct Writer {
    mapping: Mapping,
    index: Index,
    writer: IndexWriter,
    seen: Seen,
    applied: bool,
    skipped: u64,
}

impl Writer {
    /// Opens a writer over `files`, which hold the segments that `meta` lists
    /// (none when `meta` is empty).
    ///
    /// What it writes is named after `epoch`: no two writers of a shard may be
    /// opened with the same. `heap_bytes` is the memory for documents that no
    /// segment holds yet.
    pub(crate) fn open(
        mapping: Mapping,
        files: &Files,
        meta: &str,
        epoch: Epoch,
        heap_bytes: usize,
    ) -> Result<Self, Error> {
        let directory = files.directory();
        let index = if meta.is_empty() {
            let mut index = Index::create(directory, mapping.engine.clone(), IndexSettings::default())?;
            index.set_tokenizers(mapping.tokenizers());
            index
        } else {
            directory.atomic_write(Path::new("meta.json"), &stamped(meta, epoch)?)?;
            let mut index = Index::open(directory)?;
            index.set_tokenizers(mapping.tokenizers());
            index
        };
        let options = IndexWriterOptions::builder()
            .num_worker_threads(1)
            .num_merge_threads(1)
            .memory_budget_per_thread(heap_bytes)
            .build();
        let writer: IndexWriter = index.writer_with_options(options)?;
        let mut policy = LogMergePolicy::default();
        policy.set_del_docs_ratio_before_merge(DELETED_SHARE_MAX);
        writer.set_merge_policy(Box::new(policy));
        // The first stamp is the opened list's own, and is used up by nothing:
        // a merge of that list's segments would take a delete with it for one
        // that the list contains. It would apply it to those segments whose
        // deletes are older, and lose it for the others.
        writer.run(Vec::new())?;

        let mut seen = Seen::new();
        for segment in index.searchable_segments()? {
            let reader = tantivy::SegmentReader::open(&segment)?;
            let hashes = Segment::hash_column(&reader)?;
            for doc in reader.doc_ids_alive() {
                seen.insert(hashes.get_val(doc));
            }
        }
        Ok(Self { mapping, index, writer, seen, applied: false, skipped: 0 })
    }

    /// Applies operations in order. One that cannot be applied is skipped,
    /// the same way at every replay, and counted.
    pub(crate) fn apply(&mut self, operations: &[Operation]) -> Result<(), Error> {
        for operation in operations {
            self.applied = true;
            let known = self.seen.insert(id_hash(operation.id()));
            match operation {
                Operation::Delete { id } => {
                    if known {
                        self.writer.delete_term(self.mapping.id_term(id));
                    }
                }
                Operation::Upsert { id, source } => match self.document(id, source) {
                    Ok(document) => {
                        if known {
                            self.writer.delete_term(self.mapping.id_term(id));
                        }
                        self.writer.add_document(document)?;
                    }
                    Err(reason) => {
                        self.skipped += 1;
                        tracing::warn!(id, reason, "skipped an operation that cannot be applied");
                    }
                },
            }
        }
        Ok(())
    }

    fn document(&self, id: &str, source: &bytes::Bytes) -> Result<TantivyDocument, String> {
        let text = std::str::from_utf8(source).map_err(|error| error.to_string())?;
        let document = self.mapping.schema.validate(text).map_err(|error| error.to_string())?;
        if document.id != id {
            return Err(format!("the record says id {id:?}, the document {:?}", document.id));
        }
        self.mapping.document(&document, source).map_err(|error| error.to_string())
    }

    /// Operations skipped since this writer was opened.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Makes everything applied so far a durable list of segments, which
    /// contains the log up to `seq`.
    pub(crate) fn commit(&mut self, seq: Seq) -> Result<Commit, Error> {
        // An empty commit would write the same list of segments again.
        if std::mem::take(&mut self.applied) {
            let mut prepared = self.writer.prepare_commit()?;
            prepared.set_payload(&seq.to_string());
            prepared.commit()?;
        }
        self.listing()
    }

    /// Reads the current list of segments: the last commit's, or what merges
    /// have made of it since.
    ///
    /// A merge may replace segments at any moment, so the list is read until
    /// it stands still and every file of it is there.
    pub(crate) fn listing(&self) -> Result<Commit, Error> {
        let mut missing = String::new();
        for _ in 0..LISTINGS_MAX {
            let meta = self.meta()?;
            let metas = self.index.load_metas()?;
            if self.meta()? != meta {
                continue;
            }
            let mut files = Vec::new();
            for segment in &metas.segments {
                files.extend(needed(segment));
            }
            let directory = self.index.directory();
            let absent = |name: &&String| !directory.exists(Path::new(name)).unwrap_or(false);
            if let Some(name) = files.iter().find(absent) {
                missing.clone_from(name);
                continue;
            }
            files.sort_unstable();
            let documents = metas.segments.iter().map(|segment| u64::from(segment.num_docs())).sum();
            return Ok(Commit { meta, files, documents });
        }
        Err(Error::Corrupt(format!("segment file {missing:?} is gone from the writer's folder")))
    }

    fn meta(&self) -> Result<String, Error> {
        let meta = self.index.directory().atomic_read(Path::new("meta.json"));
        String::from_utf8(meta.map_err(tantivy::TantivyError::from)?)
            .map_err(|_| Error::Corrupt("the engine's meta.json is no text".into()))
    }

    /// Waits until no merge is running.
    #[cfg(feature = "lab")]
    pub(crate) fn close(self) -> Result<(), Error> {
        Ok(self.writer.wait_merging_threads()?)
    }
}

/// Operations that a writer can stamp before it uses stamps of the next epoch.
const STAMPS_PER_EPOCH: u64 = 1 << 32;

/// `meta` with the first stamp of `epoch`.
///
/// The engine numbers operations and commits with stamps, goes on where a list
/// of segments ends, and names a file of deletes by its segment and commit. So
/// after a generation that was prepared and never published the next owner
/// could come by the same name for other deletes, and a leaf that has the one
/// file would take it for the other.
fn stamped(meta: &str, epoch: Epoch) -> Result<Vec<u8>, Error> {
    let corrupt = |what: &dyn std::fmt::Display| Error::Corrupt(format!("the list of segments: {what}"));
    let mut meta: serde_json::Value = serde_json::from_str(meta).map_err(|error| corrupt(&error))?;
    let stamp = meta.get_mut("opstamp").ok_or_else(|| corrupt(&"no opstamp"))?;
    let last = stamp.as_u64().ok_or_else(|| corrupt(&"its opstamp is no number"))?;
    *stamp = epoch.0.saturating_mul(STAMPS_PER_EPOCH).max(last).into();
    serde_json::to_vec(&meta).map_err(|error| corrupt(&error))
}

/// The names of the files that a segment consists of.
fn needed(segment: &SegmentMeta) -> Vec<String> {
    let mut components = vec![
        SegmentComponent::Postings,
        SegmentComponent::Positions,
        SegmentComponent::Terms,
        SegmentComponent::Store,
        SegmentComponent::FastFields,
        SegmentComponent::FieldNorms,
    ];
    if segment.has_deletes() {
        components.push(SegmentComponent::Delete);
    }
    let name = |component| segment.relative_path(component).to_string_lossy().into_owned();
    components.into_iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use model::schema::{Field, FieldType, Schema};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use tantivy::merge_policy::NoMergePolicy;

    use super::*;
    use crate::engine::{Caches, Snapshot};

    const HEAP_BYTES: usize = 15_000_000;
    const SEEDS: u64 = 10;

    fn mapping() -> Mapping {
        let fields = [("body".into(), Field::of(FieldType::Text))].into();
        Mapping::new(&Schema { fields, ..Schema::default() })
    }

    fn upsert(id: &str) -> Operation {
        Operation::Upsert { id: id.into(), source: format!(r#"{{"id":"{id}","body":"words"}}"#).into() }
    }

    fn delete(id: &str) -> Operation {
        Operation::Delete { id: id.into() }
    }

    /// What another process would find: the files of a commit, copied.
    fn published(writer: &Writer, files: &Files) -> (Commit, Files) {
        loop {
            let commit = writer.listing().unwrap();
            let copy = Files::memory();
            let copied = commit.files.iter().all(|name| match files.get(name) {
                Ok(bytes) => copy.put(name, &bytes).is_ok(),
                Err(_) => false,
            });
            // A merge may have replaced some.
            if copied {
                return (commit, copy);
            }
        }
    }

    fn assert_holds(files: &Files, meta: &str, ids: &BTreeSet<String>) {
        let snapshot = Snapshot::open(Arc::new(mapping()), files, meta, &Caches::default()).unwrap();
        let lost: Vec<&String> = ids.iter().filter(|id| snapshot.find(id).unwrap().is_none()).collect();
        assert_eq!((lost, snapshot.documents), (vec![], ids.len() as u64), "as many as there are ids");
    }

    #[test]
    fn the_first_delete_after_an_opening_is_not_lost_in_a_merge() {
        let files = Files::memory();
        let mut writer = Writer::open(mapping(), &files, "", Epoch(1), HEAP_BYTES).unwrap();
        writer.writer.set_merge_policy(Box::new(NoMergePolicy));
        // Two segments that are worth merging, the smaller with deletes by the
        // last commit.
        writer.apply(&["a", "b", "c", "d", "e", "f"].map(upsert)).unwrap();
        writer.commit(Seq(1)).unwrap();
        writer.apply(&["v", "w", "x"].map(upsert)).unwrap();
        writer.commit(Seq(2)).unwrap();
        writer.apply(&[delete("v")]).unwrap();
        let commit = writer.commit(Seq(3)).unwrap();
        drop(writer);
        let mut writer = Writer::open(mapping(), &files, &commit.meta, Epoch(2), HEAP_BYTES).unwrap();
        writer.apply(&[upsert("x")]).unwrap();
        writer.commit(Seq(4)).unwrap();
        let Writer { writer, .. } = writer;
        writer.wait_merging_threads().unwrap();
        let meta = String::from_utf8(files.directory().atomic_read(Path::new("meta.json")).unwrap()).unwrap();
        let ids = ["a", "b", "c", "d", "e", "f", "w", "x"].map(String::from).into();
        assert_holds(&files, &meta, &ids);
    }

    #[test]
    fn deletes_of_two_epochs_have_files_of_their_own() {
        let files = Files::memory();
        let mut writer = Writer::open(mapping(), &files, "", Epoch(1), HEAP_BYTES).unwrap();
        writer.apply(&["a", "b", "c", "d", "e", "f", "g"].map(upsert)).unwrap();
        writer.commit(Seq(1)).unwrap();
        let (commit, files) = published(&writer, &files);
        // Of both, one is never published.
        let deleting = |id: &str, epoch| {
            let copy = Files::memory();
            for name in &commit.files {
                copy.put(name, &files.get(name).unwrap()).unwrap();
            }
            let mut writer = Writer::open(mapping(), &copy, &commit.meta, Epoch(epoch), HEAP_BYTES).unwrap();
            writer.apply(&[delete(id)]).unwrap();
            let names = writer.commit(Seq(2)).unwrap().files.into_iter();
            names.filter(|name| !commit.files.contains(name)).collect::<BTreeSet<_>>()
        };
        let (one, other) = (deleting("a", 2), deleting("b", 3));
        assert!(!one.is_empty() && one.is_disjoint(&other), "{one:?} {other:?}");
    }

    #[test]
    fn merges_and_openings_lose_nothing_and_leave_nothing_twice() {
        for seed in 0..SEEDS {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut files, mut meta) = (Files::memory(), String::new());
            let mut ids = BTreeSet::new();
            for epoch in 1..7 {
                let mut writer = Writer::open(mapping(), &files, &meta, Epoch(epoch), HEAP_BYTES).unwrap();
                for _commit in 0..random.random_range(1..12) {
                    let operations: Vec<Operation> = (0..random.random_range(1..20))
                        .map(|_| {
                            let id = format!("{}", random.random_range(0..60));
                            if random.random_range(0..4) == 0 {
                                ids.remove(&id);
                                return delete(&id);
                            }
                            ids.insert(id.clone());
                            upsert(&id)
                        })
                        .collect();
                    writer.apply(&operations).unwrap();
                    writer.commit(Seq(1)).unwrap();
                    let (commit, copy) = published(&writer, &files);
                    assert_holds(&copy, &commit.meta, &ids);
                }
                // The process is killed; the next one has what was published.
                let (commit, copy) = published(&writer, &files);
                (meta, files) = (commit.meta, copy);
            }
        }
    }
}
