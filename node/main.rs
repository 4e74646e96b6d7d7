//! The program.

use std::process::ExitCode;

fn main() -> ExitCode {
    windrow::main()
}
