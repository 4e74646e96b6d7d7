//! Owns shards and serves them.
//!
//! ```text
//!  write ─► owner: group ─► WAL ─► ack ─► applier: writer ─► commit ─► publish
//!                                                                 │ manifest
//!  search ─► CPU pool ─► exec over snapshots ◄─── replica: fetch, open ◄┘
//! ```
//!
//! **Invariant:** this is the only crate that knows tantivy.
//!
//! **Invariant:** an operation is acknowledged after its record is durable in
//! the store and never before; a replica opens only what a manifest lists.

mod agent;
mod engine;
mod exec;
#[cfg(feature = "lab")]
pub mod lab;
pub mod metrics;
mod node;
mod owner;
mod replica;

pub use agent::{Agent, Settings as AgentSettings};
pub use engine::FINGERPRINT;
pub use node::{Assignment, Data, Leaf, Parts, Settings, limit_settings, retry_after};
