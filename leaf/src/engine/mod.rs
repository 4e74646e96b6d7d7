//! The engine: documents to segments, segments to snapshots.
//!
//! ```text
//! schema ──► Mapping ──► Writer ──commit──► Commit (files + meta)
//!                                             │ published as a generation
//!            Snapshot ◄──open── Files ◄──fetched┘
//! ```
//!
//! **Invariant:** what a snapshot answers depends on its live documents only,
//! never on how they are laid out in segments.

mod directory;
mod mapping;
mod seen;
mod snapshot;
mod tokenizer;
mod writer;

pub(crate) use directory::Files;
pub(crate) use mapping::Mapping;
pub(crate) use snapshot::{Caches, Segment, Snapshot, TextField};
pub(crate) use writer::Writer;

/// Names what must be equal for two replicas to answer alike to the bit: the
/// engine's version and the layout of our columns.
pub const FINGERPRINT: &str = "tantivy-0.27.0/windrow-1";

/// What the engine could not do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The engine itself.
    #[error("engine: {0}")]
    Tantivy(#[from] tantivy::TantivyError),
    /// A file.
    #[error("file: {0}")]
    Io(#[from] std::io::Error),
    /// A segment without one of our columns, or a document without its parts.
    #[error("corrupt segment: {0}")]
    Corrupt(String),
    /// The search was cancelled or its deadline passed.
    #[error("search stopped")]
    Stopped,
}
