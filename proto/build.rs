//! Compiles the protos in pure Rust: no protoc.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let public = protox::compile(["windrow/v1/windrow.proto"], ["proto"])?;
    #[expect(clippy::disallowed_methods, reason = "a build script's settings are its environment")]
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("windrow.v1.bin"), public.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".windrow.v1").compile_fds(public)?;
    let internal = protox::compile(["windrow/internal/v1/internal.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".windrow.internal.v1").compile_fds(internal)?;
    Ok(())
}
