//! What a node is told: a TOML file, then `WINDROW_*`, then flags.
//!
//! The flag `--lease`, the variable `WINDROW_LEASE` and the key `lease` are one
//! setting. Keys and variables that are none are errors.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, CommandFactory};
use runtime::faults::Spec;
use serde::Deserialize;
use store::Location;

/// Variables that are ours and no settings.
const TEST_VARIABLES: &str = "WINDROW_TEST_";

/// A duration as people write it, such as `500ms` or `2s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        edge::parse_duration(text)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no duration: write 500ms, 2s or 1m"))
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Answers clients.
    Root,
    /// Owns shards and serves them.
    Leaf,
    /// Takes writes of shards.
    Own,
    /// Serves searches of shards.
    Serve,
}

/// Options of `node`, each absent where it was not said.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// What this node does: root answers clients, leaf owns and serves shards;
    /// own and serve are the halves of leaf
    #[arg(long, value_enum, value_delimiter = ',', env = "WINDROW_ROLES", value_name = "ROLES")]
    pub roles: Option<Vec<Role>>,
    /// Where objects are kept: file:///path or s3://bucket/prefix
    #[arg(long, env = "WINDROW_STORE", value_name = "URL")]
    pub store: Option<String>,
    /// Where nodes agree: etcd://host:port,host:port/prefix, or embedded for a
    /// cluster of one
    #[arg(long, env = "WINDROW_COORDINATOR", value_name = "URL")]
    pub coordinator: Option<String>,
    /// Folder for what this node can rebuild
    #[arg(long, env = "WINDROW_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Address for clients; port 0 picks a free one
    #[arg(long, env = "WINDROW_PUBLIC", value_name = "ADDR:PORT")]
    pub public: Option<SocketAddr>,
    /// Address for other nodes; port 0 picks a free one
    #[arg(long, env = "WINDROW_INTERNAL", value_name = "ADDR:PORT")]
    pub internal: Option<SocketAddr>,
    /// Where other nodes reach this one, where that is not --internal
    #[arg(long, env = "WINDROW_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// This node's name, for as long as its folder lives; drawn once without it
    #[arg(long, env = "WINDROW_NODE_ID", value_name = "ID")]
    pub node_id: Option<String>,
    /// What this node shares its fate with, such as a rack; copies are spread
    /// over zones
    #[arg(long, env = "WINDROW_ZONE", value_name = "ZONE")]
    pub zone: Option<String>,
    /// How long a node that stopped answering counts as live
    #[arg(long, env = "WINDROW_LEASE", value_name = "TIME")]
    pub lease: Option<Span>,
    /// How long leaving may take: handing over, ending what runs
    #[arg(long, env = "WINDROW_DRAIN_TIMEOUT", value_name = "TIME")]
    pub drain_timeout: Option<Span>,
    /// How long a node that is leaving still listens, so that load balancers see
    /// that it is not ready
    #[arg(long, env = "WINDROW_DRAIN_DELAY", value_name = "TIME")]
    pub drain_delay: Option<Span>,
    /// How long a leaf may be gone before its shards are placed elsewhere
    #[arg(long, env = "WINDROW_PLACEMENT_GRACE", value_name = "TIME")]
    pub placement_grace: Option<Span>,
    /// How far behind a replica may be before cuts stop waiting for it
    #[arg(long, env = "WINDROW_LAG_MAX", value_name = "TIME")]
    pub lag_max: Option<Span>,
    /// How long a leaf may take before another replica is asked in any case
    #[arg(long, env = "WINDROW_ATTEMPT_TIMEOUT", value_name = "TIME")]
    pub attempt_timeout: Option<Span>,
    /// Whether a leaf that is late is not waited for: another replica is asked
    /// too, and the first answer wins
    #[arg(long, env = "WINDROW_HEDGING", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub hedging: Option<bool>,
    /// Further sends, hedges and retries together, for each first one: 0 to 1
    #[arg(long, env = "WINDROW_HEDGE_BUDGET", value_name = "SHARE")]
    pub hedge_budget: Option<f64>,
    /// Searches that take as long or longer are logged; 0s logs none
    #[arg(long, env = "WINDROW_SLOW_QUERY", value_name = "TIME")]
    pub slow_query: Option<Span>,
    /// Free megabytes of the data folder's disk below which writes are refused
    #[arg(long, env = "WINDROW_DISK_RESERVE_MB", value_name = "MB")]
    pub disk_reserve_mb: Option<u64>,
    /// Create an index, with an inferred schema, at its first write
    #[arg(long, env = "WINDROW_AUTO_CREATE", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub auto_create: Option<bool>,
    /// Allow faults to be injected into this node, for tests: with --faults, or
    /// while it runs, at /debug/faults of --internal
    #[arg(long, env = "WINDROW_ALLOW_FAULTS", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub allow_faults: Option<bool>,
    /// Faults to inject from the start, where --allow-faults is said
    #[arg(long, env = "WINDROW_FAULTS", value_name = "JSON", value_parser = faults)]
    pub faults: Option<Spec>,
    /// Which log lines to print, such as info or leaf=debug
    #[arg(long, env = "WINDROW_LOG", value_name = "FILTER")]
    pub log: Option<String>,
}

/// Reads faults as `--faults` and `/debug/faults` take them.
///
/// # Errors
/// Says what is wrong and what would be accepted.
pub fn faults(json: &str) -> Result<Spec, String> {
    let spec: Spec = serde_json::from_str(json).map_err(|error| format!("these are no faults: {error}"))?;
    spec.check(&proto::internal::CALLS)?;
    Ok(spec)
}

/// Where nodes agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Agreement {
    /// In this process.
    Embedded,
    /// In etcd, under a prefix.
    Etcd { members: Vec<String>, prefix: String },
}

impl FromStr for Agreement {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "embedded" {
            return Ok(Self::Embedded);
        }
        let Some(rest) = text.strip_prefix("etcd://") else {
            bail!("--coordinator {text:?} is wrong: write etcd://host:port,host:port/prefix, or embedded");
        };
        let (members, prefix) = rest.split_once('/').unwrap_or((rest, "windrow"));
        let members: Vec<String> = members.split(',').map(str::to_owned).collect();
        for member in &members {
            let port = member
                .rsplit_once(':')
                .and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>().ok()).flatten());
            if port.is_none() {
                bail!("--coordinator names {member:?}, which is no address: write etcd://host:port");
            }
        }
        Ok(Self::Etcd { members, prefix: format!("{}/", prefix.trim_end_matches('/')) })
    }
}

/// What a node does, all of it said.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) root: bool,
    pub(crate) own: bool,
    pub(crate) serve: bool,
    pub(crate) store: Location,
    pub(crate) agreement: Agreement,
    pub(crate) data: PathBuf,
    pub(crate) public: SocketAddr,
    /// Without one, nobody else is reached.
    pub(crate) internal: Option<SocketAddr>,
    pub(crate) advertise: Option<String>,
    pub(crate) node_id: Option<String>,
    pub(crate) zone: Option<String>,
    pub(crate) lease: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) drain_delay: Duration,
    pub(crate) placement_grace: Duration,
    pub(crate) lag_max: Duration,
    pub(crate) attempt_timeout: Duration,
    pub(crate) hedging: bool,
    pub(crate) hedge_budget: f64,
    pub(crate) slow_query: Duration,
    pub(crate) disk_reserve_bytes: u64,
    pub(crate) auto_create: bool,
    /// Show metrics to clients too.
    pub(crate) public_metrics: bool,
    /// What is injected from the start; `None` where nothing ever may be.
    pub(crate) faults: Option<Spec>,
    pub(crate) log: String,
}

/// Longest and shortest time of each setting, where there are such.
const LEASE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
const ATTEMPT_LEAST: Duration = Duration::from_millis(10);

impl Settings {
    /// All roles in one process on one folder, as `up` runs them.
    pub(crate) fn up(data: &Path, public: SocketAddr, log: &str) -> Result<Self> {
        // A store's location is absolute, and its folder may not be there yet.
        let folder = std::path::absolute(data)
            .with_context(|| format!("{} is no folder: choose another with --data", data.display()))?;
        Ok(Self {
            root: true,
            own: true,
            serve: true,
            store: Location::Folder(folder.join("store")),
            agreement: Agreement::Embedded,
            data: data.to_owned(),
            public,
            internal: None,
            advertise: None,
            node_id: Some("local".to_owned()),
            zone: None,
            auto_create: true,
            public_metrics: true,
            drain_delay: Duration::ZERO,
            log: log.to_owned(),
            ..Self::default()
        })
    }

    /// What the options say, and the rest by default.
    ///
    /// # Errors
    /// One line that names the setting and says what would be right.
    pub(crate) fn node(options: Options) -> Result<Self> {
        let Some(store) = options.store else {
            bail!("--store is missing: write file:///path (shared by all nodes) or s3://bucket/prefix");
        };
        let store: Location = store.parse().map_err(|error| anyhow::anyhow!("--store: {error}"))?;
        let Some(coordinator) = options.coordinator else {
            bail!("--coordinator is missing: write etcd://host:port, or embedded for a cluster of one");
        };
        let roles = options.roles.unwrap_or_else(|| vec![Role::Root, Role::Leaf]);
        let is = |role| roles.contains(&role);
        let default = Self::default();
        let lease = options.lease.map_or(default.lease, |span| span.0);
        if !(LEASE.0..=LEASE.1).contains(&lease) {
            bail!("--lease is {lease:?}: choose {:?} to {:?}", LEASE.0, LEASE.1);
        }
        let allowed = options.allow_faults.unwrap_or(false);
        if let Some(faults) = &options.faults {
            if !allowed {
                bail!(
                    "faults are given and not allowed: take them away, or add --allow-faults (allow_faults = true) where nobody relies on this node"
                );
            }
            faults.check(&proto::internal::CALLS).map_err(|error| anyhow::anyhow!("--faults: {error}"))?;
        }
        let span = |said: Option<Span>, default| said.map_or(default, |span| span.0);
        let settings = Self {
            root: is(Role::Root),
            own: is(Role::Leaf) || is(Role::Own),
            serve: is(Role::Leaf) || is(Role::Serve),
            store,
            agreement: coordinator.parse()?,
            data: options.data.unwrap_or(default.data),
            public: options.public.unwrap_or(default.public),
            internal: options.internal.or(default.internal),
            advertise: options.advertise,
            node_id: options.node_id,
            zone: options.zone,
            lease,
            drain_timeout: span(options.drain_timeout, default.drain_timeout),
            drain_delay: span(options.drain_delay, default.drain_delay),
            placement_grace: span(options.placement_grace, default.placement_grace),
            lag_max: span(options.lag_max, default.lag_max),
            attempt_timeout: span(options.attempt_timeout, default.attempt_timeout),
            hedging: options.hedging.unwrap_or(default.hedging),
            hedge_budget: options.hedge_budget.unwrap_or(default.hedge_budget),
            slow_query: span(options.slow_query, default.slow_query),
            disk_reserve_bytes: options.disk_reserve_mb.map_or(default.disk_reserve_bytes, |mb| mb << 20),
            auto_create: options.auto_create.unwrap_or(false),
            public_metrics: false,
            faults: allowed.then(|| options.faults.unwrap_or_default()),
            log: options.log.unwrap_or(default.log),
        };
        if settings.attempt_timeout < ATTEMPT_LEAST {
            bail!(
                "--attempt-timeout is {:?}: it is how long a call to a leaf may take, {ATTEMPT_LEAST:?} at least; \
                 to hedge nothing set --hedging false",
                settings.attempt_timeout
            );
        }
        if !(0.0..=1.0).contains(&settings.hedge_budget) {
            bail!(
                "--hedge-budget is {}: it is a share of the calls, 0 to 1, such as 0.02",
                settings.hedge_budget
            );
        }
        if let Some(id) = &settings.node_id {
            check_id(id)?;
        }
        Ok(settings)
    }
}

impl Default for Settings {
    fn default() -> Self {
        let controller = cluster::controller::Settings::default();
        let root = root::Settings::default();
        let any = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            root: true,
            own: true,
            serve: true,
            store: Location::Folder(PathBuf::new()),
            agreement: Agreement::Embedded,
            data: PathBuf::from("windrow-data"),
            public: any(7700),
            internal: Some(any(7701)),
            advertise: None,
            node_id: None,
            zone: None,
            lease: cluster::membership::LEASE_DEFAULT,
            drain_timeout: Duration::from_secs(20),
            drain_delay: Duration::from_secs(2),
            placement_grace: controller.placement_grace,
            lag_max: controller.lag_max,
            attempt_timeout: root.attempt_timeout,
            hedging: root.hedging,
            hedge_budget: root.hedge.budget,
            slow_query: root.slow_query,
            disk_reserve_bytes: leaf::Settings::default().disk_reserve_bytes,
            auto_create: false,
            public_metrics: false,
            faults: None,
            log: "info".to_owned(),
        }
    }
}

/// A node's name is a part of keys and of log lines.
fn check_id(id: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if id.is_empty() || id.len() > 64 || !id.chars().all(plain) {
        bail!("--node-id {id:?} is wrong: 1 to 64 letters, digits, '-', '_' or '.'");
    }
    Ok(())
}

/// Reads a settings file; what the command line and the environment say comes
/// before it.
///
/// # Errors
/// Names the file, the place and the key.
pub(crate) fn with_file(options: Options, file: Option<&Path>) -> Result<Options> {
    let Some(path) = file else { return Ok(options) };
    let text = std::fs::read_to_string(path)
        .map_err(|error| anyhow::anyhow!("{} cannot be read ({error}): fix --config", path.display()))?;
    let file: Options = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        anyhow::anyhow!("{}, line {line}: {}", path.display(), error.message().replace('\n', " "))
    })?;
    Ok(Options {
        roles: options.roles.or(file.roles),
        store: options.store.or(file.store),
        coordinator: options.coordinator.or(file.coordinator),
        data: options.data.or(file.data),
        public: options.public.or(file.public),
        internal: options.internal.or(file.internal),
        advertise: options.advertise.or(file.advertise),
        node_id: options.node_id.or(file.node_id),
        zone: options.zone.or(file.zone),
        lease: options.lease.or(file.lease),
        drain_timeout: options.drain_timeout.or(file.drain_timeout),
        drain_delay: options.drain_delay.or(file.drain_delay),
        placement_grace: options.placement_grace.or(file.placement_grace),
        lag_max: options.lag_max.or(file.lag_max),
        attempt_timeout: options.attempt_timeout.or(file.attempt_timeout),
        hedging: options.hedging.or(file.hedging),
        hedge_budget: options.hedge_budget.or(file.hedge_budget),
        slow_query: options.slow_query.or(file.slow_query),
        disk_reserve_mb: options.disk_reserve_mb.or(file.disk_reserve_mb),
        auto_create: options.auto_create.or(file.auto_create),
        allow_faults: options.allow_faults.or(file.allow_faults),
        faults: options.faults.or(file.faults),
        log: options.log.or(file.log),
    })
}

/// Refuses variables that look like settings and are none: most often a typing
/// error.
///
/// # Errors
/// Names the variable, and the nearest one that is a setting.
pub(crate) fn check_variables() -> Result<()> {
    let command = crate::cli::Arguments::command();
    let known: Vec<String> = command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned))
        .collect();
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("WINDROW_")) else { continue };
        if !name.starts_with(TEST_VARIABLES) && !known.iter().any(|known| known == name) {
            let mut known = known.clone();
            known.sort();
            known.dedup();
            bail!("{name} is set and is no setting: unset it, or use one of {}", known.join(", "));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(toml: &str) -> Result<Options> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("windrow.toml");
        std::fs::write(&path, toml).unwrap();
        with_file(Options::default(), Some(&path))
    }

    #[test]
    fn a_file_sets_what_nothing_else_does() {
        let options = options(
            "store = \"s3://b/p\"\ncoordinator = \"etcd://a:1,b:2\"\nlease = \"5s\"\nroles = [\"own\"]\n",
        );
        let mut options = options.unwrap();
        options.lease = Some(Span(Duration::from_secs(4)));
        let settings = Settings::node(options).unwrap();
        assert_eq!(settings.lease, Duration::from_secs(4));
        assert!(settings.own && !settings.serve && !settings.root);
        let members = vec!["a:1".to_owned(), "b:2".to_owned()];
        assert_eq!(settings.agreement, Agreement::Etcd { members, prefix: "windrow/".to_owned() });
    }

    #[test]
    fn the_example_names_every_setting_and_its_default() {
        let example = std::fs::read_to_string("deploy/windrow.toml").unwrap();
        let said: Vec<&str> = example
            .lines()
            .map(|line| line.strip_prefix("# ").unwrap_or(line))
            .filter(|line| {
                let key = line.split_once(" = ").map_or("", |(key, _)| key);
                !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
            })
            .collect();
        let unknown = options("nothing = 1\n").unwrap_err().to_string();
        let known: Vec<&str> = unknown.split('`').skip(3).step_by(2).collect();
        assert!(known.len() > 20, "{unknown}");
        for key in known {
            let times = said.iter().filter(|line| line.starts_with(&format!("{key} = "))).count();
            assert_eq!(times, if key == "store" { 2 } else { 1 }, "{key}");
        }
        // Some have no default; there the example is one.
        let without = ["store = \"file", "advertise", "node_id", "zone", "faults"];
        let whole = said.iter().filter(|line| !without.iter().any(|key| line.starts_with(key)));
        let whole: Vec<&str> = whole.copied().collect();
        let needed = whole.iter().filter(|line| line.starts_with("store") || line.starts_with("coordinator"));
        let needed: Vec<&str> = needed.copied().collect();
        let settings =
            |lines: Vec<&str>| format!("{:?}", Settings::node(options(&lines.join("\n")).unwrap()).unwrap());
        assert_eq!(settings(whole), settings(needed));
    }

    #[test]
    fn faults_are_a_table_that_must_be_allowed() {
        let told = |allow: &str, faults: &str| {
            let needed = "store = \"file:///x\"\ncoordinator = \"embedded\"\n";
            options(&format!("{needed}{allow}[faults]\n{faults}")).and_then(Settings::node)
        };
        let table = "errors = 0.5\ndelay = { length = { constant = \"5ms\" } }\n";
        let spec = told("allow_faults = true\n", table).unwrap().faults;
        assert_eq!(spec, faults(r#"{"errors": 0.5, "delay": {"length": {"constant": "5ms"}}}"#).ok());
        let error = |allow, faults| told(allow, faults).unwrap_err().to_string();
        for not in ["", "allow_faults = false\n"] {
            assert!(error(not, table).contains("allow_faults = true"), "{}", error(not, table));
        }
        let wild = error("allow_faults = true\n", "drops = 7\n");
        assert!(wild.contains("--faults: drops is 7; it must be 0 to 1"), "{wild}");
        let unknown = error("allow_faults = true\n", "dorps = 1\n");
        assert!(unknown.contains("unknown field `dorps`, expected one of `seed`"), "{unknown}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error =
            |toml: &str| options(toml).and_then(|o| Settings::node(o).map(|_| ())).unwrap_err().to_string();
        assert!(
            error("stoer = \"x\"\n").contains("line 1: unknown field `stoer`"),
            "{}",
            error("stoer = \"x\"\n")
        );
        assert!(error("\nlease = \"5 parsecs\"\n").contains("line 2"));
        let good = "store = \"file:///x\"\n";
        assert!(error("").contains("--store is missing"));
        assert!(error(good).contains("--coordinator is missing"));
        assert!(error("store = \"ftp://x\"\ncoordinator = \"embedded\"\n").contains("--store"));
        for bad in ["zk://a:1", "etcd://a", "etcd://:1", "etcd://a:x"] {
            assert!(error(&format!("{good}coordinator = {bad:?}\n")).contains("--coordinator"), "{bad}");
        }
        let lease = format!("{good}coordinator = \"embedded\"\nlease = \"1s\"\n");
        assert!(error(&lease).contains("choose 2s to 60s"), "{}", error(&lease));
        let attempt = format!("{good}coordinator = \"embedded\"\nattempt_timeout = \"0s\"\n");
        assert!(error(&attempt).contains("10ms at least"), "{}", error(&attempt));
        let id = format!("{good}coordinator = \"embedded\"\nnode_id = \"a/b\"\n");
        assert!(error(&id).contains("--node-id"));
    }
}
