//! Which leaves a root asks, and when, of leaves that do as they are told: they
//! take some time and then answer, fail or die. Time is paused.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod asked;
mod deadly;
mod hedges;
mod lacking;
mod stage;
