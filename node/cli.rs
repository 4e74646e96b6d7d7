//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::exit;

/// A search cluster: documents scattered over shards, one answer gathered.
#[derive(Debug, Parser)]
#[command(name = "windrow", version, after_help = exit::HELP, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run all roles in one process
    Up(Up),
    /// Run all roles on a folder of their own, load a corpus and search it
    Demo(Demo),
    /// Load documents into an index
    ///
    /// FILE is NDJSON (one JSON object a line; zstd and gzip are recognised), a folder of text
    /// files (one document a file: id, path, name, extension, bytes, body), or `-` for NDJSON on
    /// stdin. Loading the same documents twice changes nothing.
    Load(Load),
    /// Search an index
    Search(Search),
    /// Show nodes, indexes and shards
    Cluster(Cluster),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Settings of a server: flags, over `WINDROW_*`, over the file of `--config`.
#[derive(Clone, Debug, Default, Args)]
pub struct Server {
    /// TOML file with settings; unknown keys are errors
    #[arg(long, value_name = "FILE", env = "WINDROW_CONFIG")]
    pub config: Option<PathBuf>,
    /// Folder of all data
    #[arg(long, value_name = "DIR", env = "WINDROW_DATA")]
    pub data: Option<PathBuf>,
    /// Address of the public API; port 0 takes any free one
    #[arg(long, value_name = "ADDR:PORT", env = "WINDROW_PUBLIC")]
    pub public: Option<SocketAddr>,
    /// What is logged to stderr, such as `info` or `warn,leaf=debug`
    #[arg(long, value_name = "FILTER", env = "WINDROW_LOG")]
    pub log: Option<String>,
    /// Create an index at its first write, with an inferred schema
    #[arg(long, value_name = "BOOL", env = "WINDROW_AUTO_CREATE", num_args = 0..=1, default_missing_value = "true")]
    pub auto_create: Option<bool>,
    /// Threads that search
    #[arg(long, value_name = "N", env = "WINDROW_LEAF_THREADS")]
    pub leaf_threads: Option<usize>,
    /// Searches that wait for a thread before more are refused
    #[arg(long, value_name = "N", env = "WINDROW_LEAF_QUEUE_MAX")]
    pub leaf_queue_max: Option<usize>,
    /// Memory of each owned shard for documents that no segment holds yet
    #[arg(long, value_name = "MIB", env = "WINDROW_LEAF_WRITER_HEAP_MIB")]
    pub leaf_writer_heap_mib: Option<usize>,
}

/// `windrow up`
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub struct Up {
    /// Settings.
    #[command(flatten)]
    pub server: Server,
}

/// `windrow demo`
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub struct Demo {
    /// Settings.
    #[command(flatten)]
    pub server: Server,
    /// File or folder to load instead of the crates in Cargo's registry folder
    #[arg(long, value_name = "PATH")]
    pub corpus: Option<PathBuf>,
    /// End after the searches instead of staying up
    #[arg(long)]
    pub exit: bool,
}

/// Which server is asked.
#[derive(Clone, Debug, Args)]
pub struct Remote {
    /// URL of the server
    #[arg(long, value_name = "URL", env = "WINDROW_URL", default_value = client::URL_DEFAULT)]
    pub url: String,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// One JSON document
    Json,
}

/// `windrow load`
#[derive(Clone, Debug, Args)]
#[command(after_help = exit::HELP)]
pub struct Load {
    /// NDJSON files, folders of text files, or `-`
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Index to load into
    #[arg(long, value_name = "NAME")]
    pub index: String,
    /// Field whose value becomes the id; without it the field `id`, else a hash of the document
    #[arg(long, value_name = "FIELD")]
    pub id_field: Option<String>,
    /// Requests in flight
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub requests: u8,
    /// The server.
    #[command(flatten)]
    pub remote: Remote,
}

/// `windrow search`
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub struct Search {
    /// Index to search
    pub index: String,
    /// What to search, such as `title:graph* AND "message passing"`
    pub query: String,
    /// What hits must also match, unscored
    #[arg(long, value_name = "QUERY")]
    pub filter: Option<String>,
    /// Hits wanted
    #[arg(long, short = 'n', value_name = "N")]
    pub limit: Option<usize>,
    /// Hits skipped
    #[arg(long, value_name = "N")]
    pub offset: Option<usize>,
    /// Fields of the documents to return
    #[arg(long, value_name = "FIELD,…", value_delimiter = ',')]
    pub fields: Option<Vec<String>>,
    /// How matches are counted: bounded, exact or none
    #[arg(long, value_name = "HOW")]
    pub count: Option<String>,
    /// How long the search may take, in milliseconds
    #[arg(long, value_name = "MS")]
    pub timeout_ms: Option<u64>,
    /// Read at or after the write that returned this token
    #[arg(long)]
    pub token: Option<String>,
    /// Show where the time went
    #[arg(long)]
    pub profile: bool,
    /// The server.
    #[command(flatten)]
    pub remote: Remote,
}

/// `windrow cluster`
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub struct Cluster {
    /// The server.
    #[command(flatten)]
    pub remote: Remote,
}

/// Reads the process's arguments.
///
/// # Errors
/// The code to end with, after help or one line about what is wrong.
pub(crate) fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| {
        if !error.use_stderr() {
            // Nobody reads help from a closed pipe.
            let _unread = error.print();
            return ExitCode::from(exit::OK);
        }
        if matches!(error.kind(), clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand) {
            let _unread = error.print();
        } else {
            eprintln!("windrow: {}", one_line(&error.render().to_string()));
        }
        ExitCode::from(exit::USAGE)
    })
}

/// What clap says over several lines, on one.
fn one_line(rendered: &str) -> String {
    let about: Vec<&str> = rendered
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
        .collect();
    let usage = about.iter().position(|line| line.starts_with("Usage:")).unwrap_or(about.len());
    let what = about[..usage].join(" ");
    let command: Vec<&str> = about
        .get(usage)
        .map(|line| line.trim_start_matches("Usage:").split_whitespace())
        .into_iter()
        .flatten()
        .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase()))
        .collect();
    let command = if command.is_empty() { "windrow".to_owned() } else { command.join(" ") };
    format!("{}; `{command} --help` shows what there is", what.trim_start_matches("error: "))
}

pub(crate) fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "windrow", &mut script);
    crate::out::bytes(&script)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(arguments: &[&str]) -> String {
        one_line(&Cli::try_parse_from(arguments).unwrap_err().render().to_string())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_flag_is_one_line_with_the_way_to_help() {
        let said = refused(&["windrow", "load", "x", "--indx", "a"]);
        assert!(said.starts_with("unexpected argument '--indx' found"), "{said}");
        assert!(said.ends_with("; `windrow load --help` shows what there is"), "{said}");
        assert!(!said.contains('\n'));
        let said = refused(&["windrow", "load", "x"]);
        assert!(said.contains("--index <NAME>"), "{said}");
    }
}
