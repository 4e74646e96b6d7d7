//! The program.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    windrow::run(windrow::cli::Arguments::parse())
}
