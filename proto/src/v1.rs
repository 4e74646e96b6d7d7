//! The messages and services of `windrow.v1`, generated from
//! `proto/windrow/v1/windrow.proto`.

/// The descriptors of this package, encoded, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/windrow.v1.bin"));

pub use generated::*;

#[expect(clippy::allow_attributes, reason = "generated code")]
mod generated {
    tonic::include_proto!("windrow.v1");
}
