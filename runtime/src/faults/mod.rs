//! Trouble on purpose, for tests and load tests: how often, how long, where.
//!
//! ```text
//! Spec ──► Faults ─┬─ stall, fate ──► calls that arrive from other nodes
//!                  ├─ hold ─────────► tasks of the CPU pool
//!                  └─ slow ─────────► operations of the object store
//! ```
//!
//! **Invariants:** no fault holds longer than [`HELD_MAX`]; a seed repeats
//! what is drawn at each of the three places, whatever happens at the others.

mod inject;
mod spec;
mod stalls;

pub use inject::{Fate, Faults};
pub use spec::{Chance, HELD_MAX, Spec, Stall};
