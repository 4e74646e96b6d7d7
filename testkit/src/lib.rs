//! Clusters, oracles and scripted stores for tests.

pub mod generate;
pub mod ledger;
pub mod local;
pub mod oracle;
pub mod processes;
pub mod simulator;
