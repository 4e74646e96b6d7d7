//! Shards on the bench: segments and searches without log, pool or service.
//!
//! For measurements only. What is measured is what production runs: the same
//! writer, snapshots and execution.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use model::gather::Count;
use model::ids::{Epoch, Seq, ShardId};
use model::plan::Node;
use model::schema::Schema;
use proto::admin::Operation;
use runtime::Cancel;

use crate::engine::{Caches, Files, Mapping, Snapshot, Writer};
use crate::exec::{self, Job};

/// One shard, built once.
pub struct Shard(Snapshot);

/// A hit: score and tie-break hash.
pub type Hit = (f32, u64);

impl Shard {
    /// Indexes documents into `folder` with `segments` commits.
    ///
    /// # Panics
    /// When the engine fails.
    #[must_use]
    pub fn build(
        schema: &Schema,
        documents: &[(String, Bytes)],
        folder: &Path,
        segments: usize,
        heap_bytes: usize,
    ) -> Self {
        let mapping = Mapping::new(schema);
        let files = Files::folder(folder).expect("the folder can be made");
        let mut writer =
            Writer::open(mapping.clone(), &files, "", Epoch(1), heap_bytes).expect("a writer opens");
        for part in documents.chunks(documents.len().div_ceil(segments).max(1)) {
            let upserts: Vec<Operation> = part
                .iter()
                .map(|(id, source)| Operation::Upsert { id: id.clone(), source: source.clone() })
                .collect();
            writer.apply(&upserts).expect("documents apply");
            writer.commit(Seq(1)).expect("a commit succeeds");
        }
        let meta = writer.listing().expect("segments are listed").meta;
        writer.close().expect("merges end");
        // Merges may have ended after the listing; read it again.
        let meta = std::fs::read_to_string(folder.join("meta.json")).unwrap_or(meta);
        let caches = Caches::default();
        Self(Snapshot::open(Arc::new(mapping), &files, &meta, &caches).expect("the segments open"))
    }

    /// The engine's searcher over the very same segments.
    #[must_use]
    pub fn searcher(&self) -> &tantivy::Searcher {
        &self.0.searcher
    }

    /// The name of the field that holds id and source.
    #[must_use]
    pub fn stored_field(&self) -> tantivy::schema::Field {
        self.0.mapping.stored
    }
}

/// Searches shards of one index, statistics counted on the way.
///
/// # Panics
/// When the engine fails.
#[must_use]
pub fn search(shards: &[Shard], query: &Node, limit: usize, count: Count) -> (Vec<Hit>, u64) {
    let snapshots: Vec<&Snapshot> = shards.iter().map(|shard| &shard.0).collect();
    let cancel = Cancel::new();
    let counted = exec::count(&snapshots, &exec::terms(query), &cancel).expect("terms are counted");
    let statistics = counted.expect("nothing stops it");
    let opens: Vec<(ShardId, &Snapshot)> =
        shards.iter().zip(0..).map(|(shard, number)| (ShardId(number), &shard.0)).collect();
    let job = Job { query, filter: None, statistics: &statistics, limit, count };
    let outcome = exec::search(&opens, &job, &cancel).expect("nothing stops it");
    (outcome.entries.iter().map(|entry| (entry.score, entry.hash)).collect(), outcome.matches)
}
