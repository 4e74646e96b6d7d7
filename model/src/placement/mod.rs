//! Places shards on leaves: rendezvous hashing with bounded load.
//!
//! ```text
//!   current ─▶ drop what is replaced ─▶ repair ─▶ spread zones ─▶ place new
//!                                                                    │
//!                      next ◀─ balance first places ◀─ balance copies
//! ```
//!
//! A move takes two rounds or more: the new leaf joins the end of the list, and
//! the old one leaves once enough others serve. So what is on its way is seen
//! in the table itself, and a new controller goes on where the last one was.
//!
//! **Invariant:** no shard has two copies on a leaf; no live leaf is dropped
//! before enough others serve; a leaf that is away keeps what it has; and with
//! all leaves serving, repeated rounds come to rest.
//!
//! **Invariant:** the order of leaves for a shard ([`preference`]) is a
//! contract between releases: two controllers of different releases that take
//! turns must not undo each other's work.

mod board;
mod bound;
mod copies;
mod owners;
mod policy;
#[cfg(test)]
mod tests;

pub use bound::Bound;
pub use policy::{Candidate, Policy, Standing, Table, Wanted, next, preference};
