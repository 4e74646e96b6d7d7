//! The program.

use std::process::ExitCode;

fn main() -> ExitCode {
    match windrow::cli::parse() {
        Ok(arguments) => windrow::run(arguments),
        Err(code) => code,
    }
}
