//! The contracts between roles and with clients.
//!
//! The roles meet here and nowhere else: [`search::Search`] is what a cache and
//! a root both are, [`admin::Admin`] is a root's other half, [`leaf::Leaf`] is
//! a leaf, [`controller::Controller`] hears what leaves have open. In one
//! process they are called directly; between processes a transport carries the
//! same values.
//!
//! **Invariant:** this is the only crate that knows prost messages.

pub mod admin;
pub mod controller;
pub mod convert;
pub mod error;
pub mod internal;
pub mod leaf;
pub mod search;
pub mod status;
pub mod v1;

pub use error::{Error, Kind};
