//! Windrow's values and pure decisions: ids, schema, analysis, query trees,
//! statistics, merging, cuts.
//!
//! **Invariant:** nothing here awaits, reads a clock, draws a random number or
//! opens a socket. Every decision is a function of its arguments, so
//! production, property tests and simulation run the same code.

pub mod analysis;
pub mod choice;
pub mod cut;
pub mod gather;
pub mod hedge;
pub mod ids;
pub mod limit;
pub mod pace;
pub mod placement;
pub mod plan;
pub mod query;
pub mod schema;
pub mod settings;
pub mod standing;
pub mod statistics;
pub mod token;
