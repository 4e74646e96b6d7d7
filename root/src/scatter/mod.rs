//! Asking a replica of each shard, and others where one is late or fails.
//!
//! ```text
//! ask(shards) ─► cover ─┬► leg: call ─────────────── answer ─► won
//!                       ├► leg: call ── error ─► call elsewhere ─► …
//!                       └► leg: call ── late ──► hedge ─► the first good answer wins,
//!                                                         the other calls are cancelled
//! ```
//!
//! A leg is the shards that were first asked of one leaf. An attempt at it has
//! one slot, or several where no other leaf holds all its shards; a slot is
//! filled by the first answer of its calls. What decides is [`model::hedge`],
//! [`model::standing`] and [`model::choice`].
//!
//! A late call's leaf is pinged. One that answers is busy, and its call is
//! hedged if the budget has something for ordinary lateness; one that does not
//! stands still, and all calls that it owes are hedged at once.
//!
//! **Invariant:** every shard of the question is answered exactly once, by one
//! replica at the generation that was asked for, or is named as missing, or the
//! whole is an error.
//!
//! **Invariant:** no leaf is asked twice for a shard of one leg, no hedge goes to
//! a host that was asked for it, and an attempt that fails harms no other.

mod call;
mod failure;
mod flight;
mod late;
mod leg;
mod question;

pub(crate) use call::{Calls, Record};
pub(crate) use late::seconds;
pub(crate) use question::{Call, Danger, Gathered, Part, Question};
