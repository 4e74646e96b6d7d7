//! Settings of a server: the file of `--config`, under `WINDROW_*`, under flags.
//!
//! **Invariant:** the one place that reads the environment. An unknown key, in
//! the file or in the environment, is an error.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::Server;
use crate::exit::Failure;

/// What a server is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Folder of all data; empty for the command's own.
    pub data: PathBuf,
    /// Address of the public API.
    pub public: SocketAddr,
    /// What is logged. The console of `up` is for people, so only what they
    /// should act on.
    pub log: String,
    /// Create an index at its first write.
    pub auto_create: bool,
    /// The leaf.
    pub leaf: Leaf,
}

/// What a leaf is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Leaf {
    /// Threads that search.
    pub threads: usize,
    /// Searches that wait for a thread.
    pub queue_max: usize,
    /// Memory of each owned shard for documents that no segment holds yet.
    pub writer_heap_mib: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: PathBuf::new(),
            public: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7700),
            log: "warn".to_owned(),
            auto_create: true,
            leaf: Leaf::default(),
        }
    }
}

impl Default for Leaf {
    fn default() -> Self {
        let leaf = leaf::Settings::default();
        Self {
            threads: leaf.threads,
            queue_max: leaf.queue_max,
            writer_heap_mib: leaf.writer_heap_bytes >> 20,
        }
    }
}

/// Variables that are no settings of a server.
const OTHER_VARIABLES: [&str; 2] = ["WINDROW_URL", "WINDROW_CONFIG"];
/// Variables that tests and benches read.
const TEST_VARIABLES: &str = "WINDROW_TEST_";
const VARIABLES: [&str; 7] = [
    "WINDROW_DATA",
    "WINDROW_PUBLIC",
    "WINDROW_LOG",
    "WINDROW_AUTO_CREATE",
    "WINDROW_LEAF_THREADS",
    "WINDROW_LEAF_QUEUE_MAX",
    "WINDROW_LEAF_WRITER_HEAP_MIB",
];

/// Puts the settings of a server together; `data` is the command's own folder.
///
/// # Errors
/// Names the wrong key or value, and what would be right.
pub fn load(flags: &Server, data: &str) -> anyhow::Result<Settings> {
    for (name, _) in std::env::vars_os() {
        if let Some(name) = name.to_str() {
            known_variable(name)?;
        }
    }
    let file = match &flags.config {
        Some(path) => read(path)?,
        None => Settings::default(),
    };
    let settings = over(file, flags, data);
    check(&settings)?;
    Ok(settings)
}

/// The folder where Cargo keeps what it downloads.
#[must_use]
pub fn cargo_home() -> Option<PathBuf> {
    let named = std::env::var_os("CARGO_HOME").filter(|home| !home.is_empty());
    named.map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cargo")))
}

/// How this program was called, for commands that a person may repeat.
#[must_use]
pub fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "windrow".to_owned())
}

fn known_variable(name: &str) -> Result<(), Failure> {
    let known = VARIABLES.contains(&name) || OTHER_VARIABLES.contains(&name) || name.starts_with(TEST_VARIABLES);
    if known || !name.starts_with("WINDROW_") {
        return Ok(());
    }
    Err(Failure::Usage(format!("{name} in the environment is no setting: unset it; there are {}", VARIABLES.join(", "))))
}

fn read(path: &Path) -> Result<Settings, Failure> {
    let usage = |what: String| Failure::Usage(format!("settings in {}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| usage(error.to_string()))?;
    parse(&text).map_err(usage)
}

fn parse(text: &str) -> Result<Settings, String> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        format!("{place}{}", error.message())
    })
}

fn over(mut settings: Settings, flags: &Server, data: &str) -> Settings {
    if settings.data.as_os_str().is_empty() {
        settings.data = data.into();
    }
    fn set<T: Clone>(setting: &mut T, flag: &Option<T>) {
        if let Some(value) = flag {
            setting.clone_from(value);
        }
    }
    set(&mut settings.data, &flags.data);
    set(&mut settings.public, &flags.public);
    set(&mut settings.log, &flags.log);
    set(&mut settings.auto_create, &flags.auto_create);
    set(&mut settings.leaf.threads, &flags.leaf_threads);
    set(&mut settings.leaf.queue_max, &flags.leaf_queue_max);
    set(&mut settings.leaf.writer_heap_mib, &flags.leaf_writer_heap_mib);
    settings
}

fn check(settings: &Settings) -> Result<(), Failure> {
    let range = |what: &str, value: usize, from: usize, to: usize| {
        if (from..=to).contains(&value) {
            return Ok(());
        }
        Err(Failure::Usage(format!("{what} is {value}; it must be {from} to {to}")))
    };
    range("leaf.threads", settings.leaf.threads, 1, 1_024)?;
    range("leaf.queue_max", settings.leaf.queue_max, 1, 1_000_000)?;
    // 15 MB is the engine's least, 4 GiB its most.
    range("leaf.writer_heap_mib", settings.leaf.writer_heap_mib, 16, 4_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = parse("public = \"127.0.0.1:1\"\nlog = \"info\"\n[leaf]\nthreads = 3\n").unwrap();
        let flags = Server { log: Some("debug".to_owned()), ..Server::default() };
        let settings = over(file, &flags, "here");
        assert_eq!(settings.log, "debug");
        assert_eq!(settings.public.port(), 1);
        assert_eq!(settings.leaf.threads, 3);
        assert_eq!(settings.leaf.queue_max, Leaf::default().queue_max);
        assert_eq!(settings.data, PathBuf::from("here"));
    }

    #[test]
    fn unknown_keys_are_errors_with_a_place() {
        let error = parse("log = \"info\"\n[leaf]\nthraeds = 3\n").unwrap_err();
        assert!(error.starts_with("line 3: unknown field `thraeds`"), "{error}");
        assert!(known_variable("WINDROW_DAT").is_err());
        assert!(known_variable("WINDROW_DATA").is_ok());
        assert!(known_variable("PATH").is_ok());
    }

    #[test]
    fn the_defaults_survive_a_round_trip() {
        let settings = Settings { data: "d".into(), ..Settings::default() };
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), settings);
        check(&settings).unwrap();
    }
}
