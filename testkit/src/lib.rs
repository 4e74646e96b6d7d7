//! Clusters, oracles and scripted stores for tests.

pub mod generate;
pub mod local;
pub mod oracle;
