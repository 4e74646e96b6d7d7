//! A real HTTP server of S3 for tests: moto, from PyPI.
//!
//! It checks and then writes, so it proves the protocol and not atomicity.
//! Where it is neither on the `PATH` nor can be installed, [`Moto::start`] says
//! so and gives nothing: the test skips.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path as Folder, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::{S3, Store};

/// What is installed where no `moto_server` is on the `PATH`.
const PACKAGE: &str = "moto[server]==5.2.5";
/// Longest wait for the server: Python imports a lot, on two shared cores.
const START_MAX: Duration = Duration::from_secs(120);
/// Runs the server until our end of its stdin closes: also when we are killed.
/// Its stderr belongs to the server alone, so that its end is the server's.
const KEEPER: &str =
    r#""$0" -H 127.0.0.1 -p 0 & moto=$!; exec 2>/dev/null; read -r _; kill $moto; wait $moto"#;
/// What the server prints before its port.
const READY: &str = "Running on http://";

/// A server of our own on a free port of this machine.
#[derive(Debug)]
pub struct Moto {
    /// Its URL, without a slash at the end.
    pub endpoint: String,
    keeper: Child,
}

impl Moto {
    /// Starts a server that takes any credentials. `None`, and a line on
    /// stderr, where there is no moto and none can be installed.
    ///
    /// # Panics
    /// When an installed moto does not start.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::run(None)
    }

    /// Starts a server that takes its first request from anybody, such as
    /// [`Moto::create_bucket`], and afterwards refuses credentials that it does
    /// not know: all of them.
    ///
    /// # Panics
    /// When an installed moto does not start.
    #[must_use]
    pub fn strict() -> Option<Self> {
        Self::run(Some("1"))
    }

    /// Creates a bucket and opens a store in it.
    ///
    /// # Panics
    /// When the server does not answer.
    #[must_use]
    pub fn store(&self, bucket: &str, prefix: &str) -> Store {
        self.create_bucket(bucket);
        Store::s3(&self.s3(bucket, prefix)).expect("the settings fit")
    }

    /// How to open a bucket of this server.
    #[must_use]
    pub fn s3(&self, bucket: &str, prefix: &str) -> S3 {
        S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: Some(self.endpoint.clone()),
            region: None,
            access_key_id: "test".to_owned(),
            secret_access_key: "test".to_owned(),
        }
    }

    /// Creates a bucket; one that is there already is fine.
    ///
    /// # Panics
    /// When the server does not answer, or refuses.
    pub fn create_bucket(&self, bucket: &str) {
        let answer = self.put(&format!("/{bucket}")).expect("moto answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "moto creates a bucket: {answer}");
    }

    /// The server's address, as host and port.
    #[must_use]
    pub fn address(&self) -> &str {
        self.endpoint.trim_start_matches("http://")
    }

    fn put(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.address())?;
        let host = self.address();
        write!(
            stream,
            "PUT {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn run(open_actions: Option<&str>) -> Option<Self> {
        let server = match find().map_or_else(install, Ok) {
            Ok(server) => server,
            Err(why) => {
                eprintln!("SKIPPED: there is no moto_server, and {PACKAGE} cannot be installed: {why}");
                return None;
            }
        };
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER]).arg(server).stdin(Stdio::piped()).stdout(Stdio::null());
        if let Some(actions) = open_actions {
            command.env("INITIAL_NO_AUTH_ACTION_COUNT", actions);
        }
        let mut keeper = command.stderr(Stdio::piped()).spawn().expect("a shell starts");
        let stderr = keeper.stderr.take().expect("stderr is piped");
        // Holds the keeper from here on, so that it ends whatever happens.
        let mut moto = Self { endpoint: String::new(), keeper };
        let address = announced(stderr).recv_timeout(START_MAX).expect("moto starts and names its port");
        moto.endpoint = format!("http://{address}");
        Some(moto)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        if let Err(error) = self.keeper.wait() {
            eprintln!("failed to wait for moto: {error}");
        }
    }
}

/// The address that the server announces. Reads on afterwards, since a full
/// pipe would stop the server; ends with it.
fn announced(stderr: ChildStderr) -> mpsc::Receiver<String> {
    let (found, announced) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let address = line.split_once(READY).map(|(_, address)| address.trim().to_owned());
            // The receiver is gone when it has what it wants.
            address.map(|address| found.send(address).ok());
        }
    });
    announced
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("moto_server")).find(|server| server.is_file())
}

/// Installs moto in a folder of the target, once for all who race for it.
fn install() -> Result<PathBuf, String> {
    let tmp = target().ok_or("the test lies in no target folder")?.join("tmp");
    let venv = tmp.join("moto");
    let server = venv.join("bin/moto_server");
    let done = venv.join("installed");
    let io = |error: io::Error| error.to_string();
    fs::create_dir_all(&tmp).map_err(io)?;
    let lock = File::create(tmp.join("moto.lock")).map_err(io)?;
    lock.lock().map_err(io)?;
    if !done.exists() {
        output("python3", &["-m".as_ref(), "venv".as_ref(), "--clear".as_ref(), &venv])?;
        let pip = venv.join("bin/pip");
        output(&pip.to_string_lossy(), &["install".as_ref(), "--quiet".as_ref(), PACKAGE.as_ref()])?;
        File::create(&done).map_err(io)?;
    }
    Ok(server)
}

fn output(program: &str, arguments: &[&Folder]) -> Result<(), String> {
    let ran = Command::new(program).args(arguments).output();
    let ran = ran.map_err(|error| format!("{program} does not run: {error}"))?;
    if ran.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&ran.stderr);
    Err(format!("{program} failed: {}", errors.lines().last().unwrap_or("it does not say why")))
}

/// The target folder of the running test: Cargo tags it.
fn target() -> Option<PathBuf> {
    let test = std::env::current_exe().ok()?;
    test.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file()).map(Folder::to_owned)
}
