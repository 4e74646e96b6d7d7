//! Applies operations to segments and commits them.

use std::path::Path;

use model::ids::{Seq, id_hash};
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
    /// `heap_bytes` is the memory for documents that no segment holds yet.
    pub(crate) fn open(
        mapping: Mapping,
        files: &Files,
        meta: &str,
        heap_bytes: usize,
    ) -> Result<Self, Error> {
        let directory = files.directory();
        let index = if meta.is_empty() {
            let mut index = Index::create(directory, mapping.engine.clone(), IndexSettings::default())?;
            index.set_tokenizers(mapping.tokenizers());
            index
        } else {
            directory.atomic_write(Path::new("meta.json"), meta.as_bytes())?;
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
