//! A cluster of real processes: etcd, nodes, a shared folder or S3, with every
//! link through a proxy that can be cut.
//!
//! ```text
//!            ┌─ proxy ─► etcd
//!  node n ◄──┤
//!    ▲       └─ proxy ─► S3 (where there is one)
//!    └ proxy ◄─ the other nodes
//! ```
//!
//! Everything is in one temporary folder, logs too; a test that fails keeps it
//! and says where it is.

mod proxy;

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use client::Client;
use cluster::process::{Process as Etcd, free_port};
use runtime::{Shutdown, TaskScope};
use store::moto::Moto;

pub use proxy::{Link, Proxy};

/// How long anything may take that a test waits for: a machine under load is
/// slow, a broken cluster is for ever.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program.
    pub program: PathBuf,
    /// Nodes with all roles, unless `roles` says otherwise.
    pub nodes: usize,
    /// Roles by node, where they are not `root,leaf`.
    pub roles: Vec<&'static str>,
    /// Zones by node.
    pub zones: Vec<&'static str>,
    /// Whether objects are in S3 instead of a shared folder.
    pub s3: bool,
    /// Whether nodes reach each other and etcd without our links between, which
    /// cost time and CPU; nothing can be cut then.
    pub direct: bool,
    /// Further arguments of every node.
    pub arguments: Vec<String>,
    /// Further arguments by node.
    pub own_arguments: Vec<Vec<String>>,
}

impl Plan {
    /// So many nodes of `program`, with a lease of 2 s, over a shared folder.
    #[must_use]
    pub fn of(program: impl Into<PathBuf>, nodes: usize) -> Self {
        Self {
            program: program.into(),
            nodes,
            roles: Vec::new(),
            zones: Vec::new(),
            s3: false,
            direct: false,
            arguments: vec!["--lease".into(), "2s".into(), "--log".into(), "info".into()],
            own_arguments: Vec::new(),
        }
    }
}

/// A running cluster.
pub struct Cluster {
    /// Where everything is.
    folder: PathBuf,
    /// etcd itself.
    pub etcd: Etcd,
    /// The S3 stand-in, where there is one.
    pub moto: Option<Moto>,
    /// The link to S3, where there is one: all nodes share it.
    pub s3: Option<Proxy>,
    /// The nodes.
    pub nodes: Vec<Node>,
    _scope: TaskScope,
}

/// One node's process.
pub struct Node {
    /// Its name.
    pub id: String,
    /// A client of its public listener.
    pub client: Client,
    /// Where it listens to other nodes, behind the link.
    pub address: SocketAddr,
    /// The link from the other nodes.
    pub internal: Proxy,
    /// The link to etcd.
    pub etcd: Proxy,
    /// Its own folder.
    pub data: PathBuf,
    /// Whether it answers clients.
    pub root: bool,
    child: Option<Child>,
    program: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    log: PathBuf,
}

impl Cluster {
    /// Starts etcd and the nodes, and waits until all are there. `None`, said
    /// on stderr, where etcd or the S3 stand-in is not installed.
    ///
    /// # Errors
    /// When a process does not start.
    pub async fn start(plan: &Plan) -> Result<Option<Self>> {
        let folder = tempfile::Builder::new().prefix("windrow-cluster-").tempdir()?.keep();
        let Some(etcd) = Etcd::start(&folder.join("etcd")) else { return Ok(None) };
        let scope = TaskScope::new(&Shutdown::new());
        let (mut moto, mut s3, mut variables) = (None, None, Vec::new());
        let mut store = format!("file://{}", folder.join("store").display());
        if plan.s3 {
            let Some(started) = Moto::start() else { return Ok(None) };
            started.create_bucket("windrow");
            let proxy = Proxy::start(started.address().parse()?, &scope).await?;
            store = "s3://windrow/cluster".to_owned();
            let endpoint = format!("http://{}", proxy.address());
            for (name, value) in [
                ("AWS_ACCESS_KEY_ID", "test"),
                ("AWS_SECRET_ACCESS_KEY", "test"),
                ("AWS_REGION", "us-east-1"),
                ("AWS_ENDPOINT_URL", &endpoint),
            ] {
                variables.push((name.to_owned(), value.to_owned()));
            }
            (moto, s3) = (Some(started), Some(proxy));
        }
        let mut nodes = Vec::new();
        for number in 0..plan.nodes {
            let id = format!("n{number}");
            let (public, internal) = (free_port(), free_port());
            let inbound = Proxy::start(internal, &scope).await?;
            let to_etcd = Proxy::start(etcd.address().parse()?, &scope).await?;
            let data = folder.join(&id);
            let agreement =
                if plan.direct { etcd.address().to_owned() } else { to_etcd.address().to_string() };
            let advertised = if plan.direct { internal } else { inbound.address() };
            let mut arguments = vec![
                "node".to_owned(),
                format!("--store={store}"),
                format!("--coordinator=etcd://{agreement}"),
                format!("--data={}", data.display()),
                format!("--public={public}"),
                format!("--internal={internal}"),
                format!("--advertise={advertised}"),
                format!("--node-id={id}"),
            ];
            arguments.extend(plan.roles.get(number).map(|roles| format!("--roles={roles}")));
            arguments.extend(plan.zones.get(number).map(|zone| format!("--zone={zone}")));
            arguments.extend(plan.arguments.iter().cloned());
            arguments.extend(plan.own_arguments.get(number).into_iter().flatten().cloned());
            let root = plan.roles.get(number).is_none_or(|roles| roles.contains("root"));
            let mut node = Node {
                root,
                client: Client::new(&format!("http://{public}"))?,
                address: internal,
                internal: inbound,
                etcd: to_etcd,
                data,
                child: None,
                program: plan.program.clone(),
                arguments,
                variables: variables.clone(),
                log: folder.join(format!("{id}.log")),
                id,
            };
            node.start()?;
            nodes.push(node);
        }
        let cluster = Self { folder, etcd, moto, s3, nodes, _scope: scope };
        cluster.joined(plan.nodes).await.with_context(|| cluster.last_words())?;
        Ok(Some(cluster))
    }

    /// The last lines that each node logged.
    fn last_words(&self) -> String {
        let words = self.nodes.iter().map(|node| {
            let logged = node.logged();
            let lines: Vec<&str> = logged.lines().rev().take(4).collect();
            format!("{}:\n{}", node.id, lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        });
        words.collect::<Vec<_>>().join("\n")
    }

    /// Where everything is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until every running node that answers clients sees this many nodes and a controller.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn joined(&self, count: usize) -> Result<()> {
        for node in self.nodes.iter().filter(|node| node.runs() && node.root) {
            eventually(&format!("{} sees {count} nodes", node.id), async || {
                node.client
                    .cluster()
                    .await
                    .is_ok_and(|seen| seen.nodes.len() == count && seen.controller.is_some())
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until every shard has an owner, and `copies` live replicas that
    /// serve the newest cut, as `node` sees it.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn whole(&self, node: usize, copies: usize) -> Result<()> {
        let client = &self.nodes[node].client;
        eventually("the cluster is whole", async || {
            let Ok(seen) = client.cluster().await else { return false };
            let live = |id: &String| seen.nodes.iter().any(|node| node.node == *id && !node.draining);
            seen.controller.is_some()
                && seen.indexes.iter().flat_map(|index| &index.shards).all(|shard| {
                    let serving = shard.replicas.iter().filter(|replica| {
                        replica.live && replica.generation.is_some_and(|newest| newest >= shard.generation)
                    });
                    shard.owner.as_ref().is_some_and(live) && serving.count() >= copies
                })
        })
        .await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.clear();
        self.etcd.kill();
        if std::thread::panicking() {
            eprintln!("the cluster's logs are kept in {}", self.folder.display());
        } else if std::env::var_os("WINDROW_TEST_KEEP").is_none() {
            let _removed = std::fs::remove_dir_all(&self.folder);
        }
    }
}

impl Node {
    /// Starts the process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} does not start", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Whether it was started and not ended from here.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What it has logged so far.
    #[must_use]
    pub fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal, such as `STOP`, `CONT` or `TERM`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, name: &str) -> Result<()> {
        let pid = self.pid().context("it does not run")?.to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status()?;
        anyhow::ensure!(sent.success(), "kill -{name} {pid} failed");
        Ok(())
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn leave(&mut self) -> Result<ExitStatus> {
        self.signal("TERM")?;
        let mut child = self.child.take().context("it does not run")?;
        let ended = tokio::task::spawn_blocking(move || child.wait());
        Ok(tokio::time::timeout(PATIENCE, ended).await.context("it does not end")???)
    }

    /// Cuts it off from the other nodes and from etcd.
    pub fn cut_off(&self) {
        self.internal.set(Link::Cut);
        self.etcd.set(Link::Cut);
    }

    /// Ends what [`Node::cut_off`] did.
    pub fn heal(&self) {
        self.internal.set(Link::Up);
        self.etcd.set(Link::Up);
    }

    /// Replaces an argument of its next start.
    pub fn argue(&mut self, flag: &str, value: &str) {
        self.arguments.retain(|argument| !argument.starts_with(&format!("{flag}=")));
        self.arguments.push(format!("{flag}={value}"));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for a condition, looking often.
///
/// # Errors
/// Names the condition when it does not come within [`PATIENCE`].
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) -> Result<()> {
    let look = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.with_context(|| format!("in vain: {what}"))
}

/// A port that is free, and that no other test takes while this process lives.
#[must_use]
pub fn port() -> SocketAddr {
    free_port()
}
