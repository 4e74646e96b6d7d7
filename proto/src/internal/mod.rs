//! Between processes: the contracts of [`crate::leaf`] and
//! [`crate::controller`] over gRPC.
//!
//! ```text
//! Remote ── message ──► connection ──► Service: admission, deadline, panics
//!   ▲ value, error                        │ value
//!   └─────────────────────────────────────┘ the very trait that Remote has
//! ```
//!
//! **Invariant:** a value arrives as it was sent; a call through [`Remote`]
//! differs from a direct one in time only. One suite holds both to it.

mod client;
mod convert;
mod faults;
mod server;

pub use client::{Remote, connect};
pub use faults::CALLS;
pub use server::{Settings, faulty_routes, routes};

/// Largest message: a record's worth of operations, or a page of the largest
/// documents.
const MESSAGE_BYTES_MAX: usize = 128 << 20;

#[expect(unreachable_pub, clippy::allow_attributes, reason = "generated code; the .proto says it")]
pub(crate) mod v1 {
    tonic::include_proto!("windrow.internal.v1");
}
