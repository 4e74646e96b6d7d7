//! Plans a query, scatters it over leaves and gathers one answer.
//!
//! ```text
//!  pin a cut ─► bind ─► (statistics) ─► scatter to a replica of each shard ─►
//!    gather by (score, id hash, id) ─► fetch the page's documents ─► answer
//! ```
//!
//! **Invariant:** a root keeps nothing that it cannot lose.
//!
//! **Invariant:** it never learns about the engine: leaves answer in the words
//! of `proto` and `model`.

mod admin;
pub mod admission;
mod cover;
mod fields;
mod gather;
mod memory;
pub mod metrics;
mod ping;
mod root;
mod scatter;
mod search;
mod slow;
mod statistics;
mod write;

pub use cluster::{Directory, Index, Registry, View};
pub use metrics::Tally;
pub use root::{Own, Parts, Root, Settings};
