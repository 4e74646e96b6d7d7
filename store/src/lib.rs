//! The object layout: write-ahead log, segments, manifests, cuts, definitions,
//! garbage collection.
//!
//! ```text
//! Location       a folder, or a prefix of a bucket             location
//! Store          typed objects over any object store          store, files
//!   s3           what is particular about buckets              s3
//!   check        asking at start-up whether it works           check
//!   slow         waiting on purpose, for tests                 slow
//!   log          put-if-absent, and what its outcomes mean    log
//!   shard        taking a shard, appending, publishing        shard
//!   index        creating and deleting an index               index
//!   garbage      what may be deleted, and deleting it         garbage
//! one module a kind of object: names, definition, wal, manifest, cuts; how
//! they look: frame; where they lie: keys.
//! ```
//!
//! **Invariant:** numbered objects are only ever created with put-if-absent.
//! Safety rests on that alone: not on leases, clocks or listings.

mod check;
pub mod cuts;
pub mod definition;
mod error;
mod files;
mod frame;
pub mod garbage;
mod index;
pub mod keys;
pub mod location;
mod log;
pub mod manifest;
pub mod names;
mod s3;
mod shard;
mod slow;
mod store;
pub mod wal;

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
#[cfg(feature = "test-util")]
pub mod moto;
#[cfg(any(test, feature = "test-util"))]
pub mod scripted;

#[cfg(test)]
mod rules;

pub use error::{Error, Kind};
pub use frame::Nonce;
pub use index::Deletion;
pub use location::Location;
pub use log::Put;
pub use manifest::{FileRef, Manifest};
pub use s3::S3;
pub use shard::{Appended, Ownership, Published, Replay, Take};
pub use store::Store;
pub use wal::{Body, Operation, Record};

/// The moment at which a caller stops waiting.
pub type Deadline = tokio::time::Instant;
