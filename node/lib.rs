//! The command line over the library: settings, opening components, running
//! roles, draining.

pub mod bench;
pub mod cli;
mod cluster;
mod corpus;
mod crates;
mod demo;
mod load;
mod lock;
mod output;
mod running;
mod search;
pub mod settings;
mod up;

use crate::output::errln;
use std::process::ExitCode;

use clap::CommandFactory;
use cli::{Arguments, Command};

/// Everything went well.
const OK: u8 = 0;
/// Something failed; a line on stderr says what and what to do.
const FAILED: u8 = 1;
/// No Windrow answers.
const AWAY: u8 = 3;

/// A failure with the exit code that tells it to scripts.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<client::Error>() {
        Some(client::Error::Away { .. }) => AWAY,
        _ => FAILED,
    }
}

/// Runs a command to its end.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    if let Command::Completions { shell } = arguments.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Arguments::command(), "windrow", &mut script);
        output::out!("{}", String::from_utf8_lossy(&script));
        return if output::failed() { FAILED } else { OK }.into();
    }
    if matches!(arguments.command, Command::Up(_) | Command::Node(_) | Command::Demo(_) | Command::Bench(_))
        && let Err(error) = runtime::system::raise_open_files()
    {
        errln!("windrow: the limit of open files stays as it is ({error}): raise it with ulimit -n");
    }
    let built = match arguments.command {
        // A load takes one core and leaves the others to what it measures.
        Command::Bench(_) => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        _ => tokio::runtime::Builder::new_multi_thread().enable_all().build(),
    };
    let outcome =
        built.map_err(anyhow::Error::from).and_then(|tokio| tokio.block_on(command(arguments.command)));
    match outcome {
        Ok(()) if output::failed() => FAILED.into(),
        Ok(()) => OK.into(),
        Err(error) => {
            errln!("windrow: {error:#}");
            code(&error).into()
        }
    }
}

async fn command(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(options) => up::run(options).await,
        Command::Node(options) => up::node(*options).await,
        Command::Cluster(options) => cluster::run(options).await,
        Command::Demo(options) => demo::run(options).await,
        Command::Load(options) => load::run(options).await,
        Command::Search(options) => search::run(options).await,
        Command::Bench(bench) => bench::run(bench).await,
        Command::Completions { .. } => Ok(()),
    }
}
