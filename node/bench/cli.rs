//! What can be typed after `windrow bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use load::queries::{Source, Weights};
use load::schedule::Arrivals;

use crate::cli::Server;

/// A benchmark.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Send queries to a cluster, by a schedule or in a closed loop
    Run(Run),
    /// Load documents: cost, acknowledgement, time until they are found
    Load(Load),
    /// The same corpus with 1, 2, 4 … shards: latency, throughput, cost, advice
    Shards(Shards),
    /// Stop one leaf after another of a local cluster, and see who feels it
    Tail(Tail),
    /// Send a local cluster twice what it can do, and see how it comes back
    Overload(Overload),
    /// Simulate a cluster of any size in virtual time
    Sim(Sim),
    /// Say how two reports differ, and whether it is noise
    Compare(Compare),
    /// Write a report's page anew
    Report(Page),
}

/// Where results go, besides the table.
#[derive(Args, Clone, Debug)]
pub struct Out {
    /// Write everything measured, and all that is needed to repeat it
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with plots, whole in one file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Queries and how often each is asked.
#[derive(Args, Clone, Debug)]
pub struct Asked {
    /// File of queries, one a line or in a column; FILE=PART mixes several
    #[arg(long, required = true, value_name = "FILE[=PART]")]
    pub queries: Vec<Source>,
    /// Column of the query, from 1; without it the second where lines have tabs
    #[arg(long, value_name = "N")]
    pub column: Option<usize>,
    /// How often each is asked: uniform, zipf:S or column:N
    #[arg(long, default_value = "uniform", value_name = "WEIGHTS")]
    pub weights: Weights,
}

/// How requests are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 with JSON.
    #[default]
    Http,
    /// gRPC.
    Grpc,
}

/// How arrivals are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Spread {
    /// Independent of each other.
    #[default]
    Poisson,
    /// Evenly.
    Constant,
}

impl From<Spread> for Arrivals {
    fn from(spread: Spread) -> Self {
        match spread {
            Spread::Poisson => Self::Poisson,
            Spread::Constant => Self::Constant,
        }
    }
}

/// Reads a duration such as `500ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let read = runtime::duration::parse(text).filter(|time| *time <= Duration::from_secs(86_400));
    read.ok_or_else(|| format!("{text:?} is not {}, up to a day", runtime::duration::EXPECTED))
}

/// Options of `bench run`.
#[derive(Args, Clone, Debug)]
pub struct Run {
    /// The index
    #[arg(long, value_name = "NAME")]
    pub index: String,
    /// The queries
    #[command(flatten)]
    pub asked: Asked,
    /// Requests a second; several, separated by commas, are steps
    #[arg(long, value_delimiter = ',', default_value = "100", value_name = "N,…")]
    pub rate: Vec<f64>,
    /// Closed loop instead: so many requests always in flight
    #[arg(long, conflicts_with = "rate", value_delimiter = ',', value_name = "N,…")]
    pub in_flight: Vec<usize>,
    /// How arrivals are spread
    #[arg(long, value_enum, default_value_t)]
    pub arrivals: Spread,
    /// How long each step is measured
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub duration: Duration,
    /// Time before that, of each step
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub warm_up: Duration,
    /// How long an answer is waited for
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub timeout: Duration,
    /// How requests are sent
    #[arg(long, value_enum, default_value_t)]
    pub protocol: Protocol,
    /// Set a member of every request, such as limit=20 or count=exact
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Requests in flight at most; beyond, arrivals wait and that is counted
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub in_flight_max: usize,
    /// Seed of arrivals and draws
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Where Windrow listens; several take turns
    #[arg(long, default_value = client::URL_DEFAULT, env = "WINDROW_URL", value_delimiter = ',')]
    pub url: Vec<String>,
    /// Where results go
    #[command(flatten)]
    pub out: Out,
}

/// Options of `bench load`.
#[derive(Args, Clone, Debug)]
pub struct Load {
    /// NDJSON files (plain, .zst, .gz) or folders of text files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The index, which must not exist yet; it is deleted afterwards
    #[arg(long, default_value = "bench-load", value_name = "NAME")]
    pub index: String,
    /// The field that holds each document's id
    #[arg(long, value_name = "FIELD")]
    pub id_field: Option<String>,
    /// Shards of the index
    #[arg(long, default_value_t = 4, value_name = "N")]
    pub shards: u32,
    /// Copies of each shard
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub copies: u32,
    /// Requests in flight
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub in_flight: u16,
    /// Keep the index
    #[arg(long)]
    pub keep: bool,
    /// The server
    #[command(flatten)]
    pub server: Server,
    /// Where results go
    #[command(flatten)]
    pub out: Out,
}

/// Options of `bench shards`.
#[derive(Args, Clone, Debug)]
pub struct Shards {
    /// NDJSON files (plain, .zst, .gz) or folders of text files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The field that holds each document's id
    #[arg(long, value_name = "FIELD")]
    pub id_field: Option<String>,
    /// The queries
    #[command(flatten)]
    pub asked: Asked,
    /// Numbers of shards
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8", value_name = "N,…")]
    pub shards: Vec<u32>,
    /// Nodes of the local cluster; above 1 it needs etcd
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub nodes: usize,
    /// Part of the capacity at the first number that is sent to each
    #[arg(long, default_value_t = 0.3, value_name = "SHARE")]
    pub load: f64,
    /// How long each number is measured
    #[arg(long, default_value = "15s", value_parser = duration, value_name = "TIME")]
    pub duration: Duration,
    /// Seed of arrivals and draws
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Where results go
    #[command(flatten)]
    pub out: Out,
}

/// Options of `bench tail`.
#[derive(Args, Clone, Debug)]
pub struct Tail {
    /// Leaves
    #[arg(long, default_value_t = 6, value_name = "N")]
    pub leaves: usize,
    /// Shards of the index
    #[arg(long, default_value_t = 4, value_name = "N")]
    pub shards: u32,
    /// Copies of each shard
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub copies: u32,
    /// Documents to generate
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    pub documents: usize,
    /// Part of the capacity that is sent
    #[arg(long, default_value_t = 0.3, value_name = "SHARE")]
    pub load: f64,
    /// How long a leaf is stopped (SIGSTOP)
    #[arg(long, default_value = "300ms", value_parser = duration, value_name = "TIME")]
    pub stop: Duration,
    /// From one stop to the next, on average
    #[arg(long, default_value = "1s", value_parser = duration, value_name = "TIME")]
    pub every: Duration,
    /// How long each run is measured
    #[arg(long, default_value = "20s", value_parser = duration, value_name = "TIME")]
    pub duration: Duration,
    /// Runs of each kind
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub runs: u32,
    /// Seed of everything drawn
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Where results go
    #[command(flatten)]
    pub out: Out,
}

/// Options of `bench overload`.
#[derive(Args, Clone, Debug)]
pub struct Overload {
    /// Leaves
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub leaves: usize,
    /// Shards of the index
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub shards: u32,
    /// Copies of each shard
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub copies: u32,
    /// Documents to generate; more make each query more work
    #[arg(long, default_value_t = 300_000, value_name = "N")]
    pub documents: usize,
    /// Part of the capacity that is sent before and after
    #[arg(long, default_value_t = 0.5, value_name = "SHARE")]
    pub load: f64,
    /// Times the capacity that is sent in between
    #[arg(long, default_value_t = 2.0, value_name = "TIMES")]
    pub times: f64,
    /// How long
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub overload: Duration,
    /// How long before, and three times as long after
    #[arg(long, default_value = "8s", value_parser = duration, value_name = "TIME")]
    pub calm: Duration,
    /// Then three times the capacity for so long, such as 30s
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub sustained: Option<Duration>,
    /// How long a search may take before it is given up
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "TIME")]
    pub timeout: Duration,
    /// Cores of the generator's own, where there are more; 0: it shares the servers'
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub generator_cores: usize,
    /// Seed of everything drawn
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Where results go
    #[command(flatten)]
    pub out: Out,
}

/// Options of `bench sim`.
#[derive(Args, Clone, Debug)]
pub struct Sim {
    /// The scenario (TOML); several are runs of one report
    #[arg(long, required = true, value_name = "FILE", num_args = 1..)]
    pub scenario: Vec<PathBuf>,
    /// Its first seed instead of the file's
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Its number of seeds instead of the file's
    #[arg(long, value_name = "N")]
    pub seeds: Option<u32>,
    /// Write every event of the first seed
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Where results go
    #[command(flatten)]
    pub out: Out,
}

/// Options of `bench compare`.
#[derive(Args, Clone, Debug)]
pub struct Compare {
    /// What was measured before
    pub before: PathBuf,
    /// What was measured after
    pub after: PathBuf,
    /// How it is printed
    #[arg(long, value_enum, default_value_t)]
    pub output: crate::cli::Output,
}

/// Options of `bench report`.
#[derive(Args, Clone, Debug)]
pub struct Page {
    /// The report
    pub report: PathBuf,
    /// The page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}
