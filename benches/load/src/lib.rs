//! Load for a search cluster, and what it measured.
//!
//! ```text
//! schedule ─► generator ─► server        intended start ─┐
//!                 └─► meter ◄── outcome, time since the ─┘
//! meter + servers' counters ─► Report ─► JSON, table, HTML, compare
//! ```
//!
//! **Invariant:** in an open loop a request's latency counts from the moment at
//! which the schedule wanted it sent, however late it was sent: a stall of the
//! server, or of this process, is in the figures and never hidden by them.

pub mod generator;
mod meter;
mod pacer;
pub mod queries;
pub mod report;
pub mod schedule;
pub mod servers;
pub mod system;
pub mod target;

pub use generator::{Pace, Step};
pub use meter::{Ended, Meter, Outcome};
pub use queries::Queries;
pub use report::Report;
pub use servers::Servers;
pub use target::Target;
