//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::output::errln;
use crate::settings::Options;

/// A search cluster: documents scattered over shards, one answer gathered.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXIT_CODES)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 all went well; 1 something failed, a line on stderr says what; \
2 the command line is wrong; 3 no Windrow answers.";

/// Reads the command line; a wrong one is told in one line, with exit code 2.
///
/// # Errors
/// The exit code, everything having been said.
pub fn parse() -> Result<Arguments, ExitCode> {
    Arguments::try_parse().map_err(|error| {
        if !error.use_stderr() {
            // Help and version are answers, not errors.
            let _printed = error.print();
            return ExitCode::SUCCESS;
        }
        let whole = error.render().to_string();
        let said = whole.split("Usage:").next().unwrap_or_default();
        let said = said.split("For more information").next().unwrap_or_default();
        let line: Vec<&str> = said.trim_start_matches("error:").split_whitespace().collect();
        errln!("windrow: {}: see windrow --help", line.join(" ").trim_end_matches([':', '.']));
        ExitCode::from(2)
    })
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in this process, on one folder
    Up(Up),
    /// Run one node of a cluster
    Node(Box<Node>),
    /// Show nodes, shards, owners, replicas, cuts and lag
    Cluster(Cluster),
    /// Load the sources of your Cargo registry and search them
    Demo(Demo),
    /// Load documents into an index
    Load(Load),
    /// Search an index
    Search(Search),
    /// Measure: load tests, scenarios, simulations
    #[command(subcommand)]
    Bench(crate::bench::cli::Bench),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Options of `up`.
#[derive(Args, Clone, Debug)]
pub struct Up {
    /// Folder for everything that is kept
    #[arg(long, default_value = "windrow-data", env = "WINDROW_DATA", value_name = "DIR")]
    pub data: PathBuf,
    /// Address to listen on; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:7700", env = "WINDROW_PUBLIC", value_name = "ADDR:PORT")]
    pub public: SocketAddr,
    /// Which log lines to print, such as info or leaf=debug
    #[arg(long, default_value = "warn", env = "WINDROW_LOG", value_name = "FILTER")]
    pub log: String,
}

/// Options of `node`.
#[derive(Args, Clone, Debug)]
pub struct Node {
    /// Settings file (TOML); variables and flags come before it
    #[arg(long, env = "WINDROW_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The rest
    #[command(flatten)]
    pub options: Options,
}

/// Options of `cluster`.
#[derive(Args, Clone, Debug)]
pub struct Cluster {
    /// How it is printed
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// The server
    #[command(flatten)]
    pub server: Server,
}

/// Options of `demo`.
#[derive(Args, Clone, Debug)]
pub struct Demo {
    /// Folder for everything that is kept
    #[arg(long, default_value = "windrow-demo", value_name = "DIR")]
    pub data: PathBuf,
    /// Address to listen on; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:7700", value_name = "ADDR:PORT")]
    pub public: SocketAddr,
    /// Load this file or folder instead of the Cargo registry
    #[arg(long, value_name = "PATH")]
    pub corpus: Option<PathBuf>,
    /// End after the queries instead of staying up
    #[arg(long)]
    pub exit: bool,
    /// Which log lines to print, such as info or leaf=debug
    #[arg(long, default_value = "warn", env = "WINDROW_LOG", value_name = "FILTER")]
    pub log: String,
}

/// Where a server is.
#[derive(Args, Clone, Debug)]
pub struct Server {
    /// Where Windrow listens
    #[arg(long, default_value = client::URL_DEFAULT, env = "WINDROW_URL")]
    pub url: String,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Options of `load`.
#[derive(Args, Clone, Debug)]
pub struct Load {
    /// NDJSON files (plain, .zst, .gz), folders of text files, or - for NDJSON on stdin
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The index; created with an inferred schema where it does not exist
    #[arg(long, value_name = "NAME")]
    pub index: String,
    /// The field that holds each document's id; without it, `id` is used where
    /// there is one, else a hash of the document
    #[arg(long, value_name = "FIELD")]
    pub id_field: Option<String>,
    /// Requests in flight
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub in_flight: u16,
    /// How the summary is printed
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// The server
    #[command(flatten)]
    pub server: Server,
}

/// Options of `search`.
#[derive(Args, Clone, Debug)]
pub struct Search {
    /// The index
    pub index: String,
    /// The query, as in: title:graph* AND "message passing"
    #[arg(allow_hyphen_values = true)]
    pub query: String,
    /// What hits must also match, unscored
    #[arg(long, value_name = "QUERY")]
    pub filter: Option<String>,
    /// Hits to return
    #[arg(long, default_value_t = 10)]
    pub limit: usize,
    /// Hits to skip
    #[arg(long, default_value_t = 0)]
    pub offset: usize,
    /// How exactly to count: bounded, exact or none
    #[arg(long)]
    pub count: Option<String>,
    /// Fields to return, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub fields: Option<Vec<String>>,
    /// The share of the documents that the answer must cover, 0 to 1; where
    /// shards are missing, it says which and why. The index's own if not given
    #[arg(long, value_name = "SHARE")]
    pub min_coverage: Option<f64>,
    /// Show where the time went
    #[arg(long)]
    pub profile: bool,
    /// How results are printed
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// The server
    #[command(flatten)]
    pub server: Server,
}
