//! The `windrow` program: settings, opening components, running roles,
//! draining; and the commands that talk to a running one.
//!
//! ```text
//! cli ─► config ─► up ─► lock, roles ─► edge ─► drain
//!   │               ▲
//!   ├─► demo ───────┘──► cargo_registry ─► load ─► five searches
//!   └─► load, search, cluster ─► client ─► a running server
//! ```
//!
//! **Invariant:** settings and the environment are read in [`config`] alone;
//! every failure ends as one line that says what and what to do (see [`exit`]).

mod cargo_registry;
pub mod cli;
mod cluster;
pub mod config;
mod corpus;
mod demo;
pub mod exit;
mod load;
mod lock;
mod metrics;
mod numbers;
mod out;
mod progress;
pub mod roles;
mod sample;
mod search;
pub mod up;

use std::process::ExitCode;

use cli::{Cli, Command};

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Up(arguments) => serving(async move { up::run(config::load(&arguments.server, "windrow-data")?).await }),
        Command::Demo(arguments) => serving(demo::run(arguments)),
        Command::Load(arguments) => calling(load::run(arguments)),
        Command::Search(arguments) => calling(search::run(arguments)),
        Command::Cluster(arguments) => calling(cluster::run(arguments)),
        Command::Completions { shell } => cli::completions(shell),
    }
}

/// A server uses every core.
fn serving(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

/// A client waits for the network: one thread leaves the cores to the server,
/// which often runs beside it.
fn calling(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
