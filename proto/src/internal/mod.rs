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

pub use client::{Remote, connect, fresh};
pub use faults::CALLS;
pub use server::{Settings, faulty_routes, routes};

/// A leaf's answer as it travels, without its frame: for benches, which measure
/// what it costs.
pub mod wire {
    use prost::Message;

    use super::v1;
    use crate::Error;
    use crate::leaf::Found;

    /// What a leaf sends.
    #[must_use]
    pub fn encode(found: Found) -> Vec<u8> {
        v1::SearchResponse::from(found).encode_to_vec()
    }

    /// What a root reads of it.
    ///
    /// # Errors
    /// When it is no leaf's answer.
    pub fn decode(bytes: &[u8]) -> Result<Found, Error> {
        let message = v1::SearchResponse::decode(bytes);
        message.map_err(|error| Error::internal(format!("no leaf's answer: {error}")))?.try_into()
    }
}

/// Largest message: a record's worth of operations, or a page of the largest
/// documents.
const MESSAGE_BYTES_MAX: usize = 128 << 20;

#[expect(unreachable_pub, clippy::allow_attributes, reason = "generated code; the .proto says it")]
pub(crate) mod v1 {
    tonic::include_proto!("windrow.internal.v1");
}
