//! A real etcd for tests: free ports, a temporary folder, ended when dropped.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long etcd may take to answer after its start.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// One etcd process.
pub struct Process {
    child: Option<Child>,
    program: PathBuf,
    folder: PathBuf,
    client: SocketAddr,
    peer: SocketAddr,
}

/// A port that is free, and that no other test takes while this process lives.
///
/// # Panics
/// When the system has no port left.
#[must_use]
pub fn free_port() -> SocketAddr {
    let folder = std::env::temp_dir().join("windrow-test-ports");
    std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    // Processes begin at different places.
    let begin = std::process::id() as usize * 97 + taken.len();
    for step in 0..PORTS.len() {
        let port = PORTS.start + u16::try_from((begin + step) % PORTS.len()).expect("within the range");
        let Ok(lock) = std::fs::File::create(folder.join(port.to_string())) else { continue };
        if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            taken.push(lock);
            return ([127, 0, 0, 1], port).into();
        }
    }
    panic!("no port is free");
}

/// Below those that the kernel gives to outgoing connections: a process that is
/// killed and started again must find its port free.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// Ports of this process; other tests run beside it.
static TAKEN: Mutex<Vec<std::fs::File>> = Mutex::new(Vec::new());

/// Where etcd is installed.
#[must_use]
pub fn program() -> Option<PathBuf> {
    let folders = ["/usr/bin", "/usr/local/bin", "/bin", "/opt/etcd"];
    folders.iter().map(|folder| Path::new(folder).join("etcd")).find(|path| path.exists())
}

impl Process {
    /// Starts etcd with its data in `folder`; `None`, said on stderr, where it
    /// is not installed.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(folder: &Path) -> Option<Self> {
        let Some(program) = program() else {
            eprintln!("skipped: etcd is not installed (Debian: apt-get install etcd-server)");
            return None;
        };
        let (client, peer) = (free_port(), free_port());
        let mut process = Self { child: None, program, folder: folder.to_owned(), client, peer };
        process.begin();
        Some(process)
    }

    fn begin(&mut self) {
        std::fs::create_dir_all(&self.folder).expect("the folder is ours");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("etcd.log"))
            .expect("the folder is ours");
        let (client, peer) = (format!("http://{}", self.client), format!("http://{}", self.peer));
        let child = Command::new(&self.program)
            .args(["--name", "test", "--data-dir"])
            .arg(self.folder.join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("test={peer}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd starts");
        self.child = Some(child);
        let by = Instant::now() + READY_WITHIN;
        // It listens once it has joined; a look costs a loopback round trip.
        while !self.healthy() {
            assert!(Instant::now() < by, "etcd did not answer: see {}", self.folder.display());
            std::thread::yield_now();
        }
    }

    fn healthy(&self) -> bool {
        use std::io::{Read, Write};
        let asked = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.client)?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        asked().is_ok_and(|answer| answer.contains("\"true\""))
    }

    /// Where clients reach it, `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.client.to_string()
    }

    /// Sends a signal, such as `STOP` or `CONT`.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// `kill -9`, and wait for the end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }

    /// Starts it again, where it was, with its data.
    pub fn restart(&mut self) {
        self.kill();
        self.begin();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Process {
    /// Ends every lease at once, as a restored backup or a wrong clock would.
    ///
    /// # Panics
    /// When etcd does not answer.
    pub fn revoke_all_leases(&self) -> usize {
        let listed = self.post("/v3/lease/leases", "{}");
        let ids: Vec<&str> =
            listed.split("\"ID\":\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        for id in &ids {
            self.post("/v3/lease/revoke", &format!("{{\"ID\":\"{id}\"}}"));
        }
        ids.len()
    }

    /// Forgets all history up to a revision.
    ///
    /// # Panics
    /// When etcd does not answer.
    pub fn compact(&self, revision: u64) {
        self.post("/v3/kv/compaction", &format!("{{\"revision\":{revision},\"physical\":true}}"));
    }

    /// A call of etcd's JSON gateway.
    fn post(&self, path: &str, body: &str) -> String {
        use std::io::{Read, Write};
        let asked = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.client)?;
            stream.set_read_timeout(Some(READY_WITHIN))?;
            write!(
                stream,
                "POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = asked().expect("etcd answers");
        assert!(answer.contains(" 200 OK"), "{path}: {answer}");
        answer
    }
}
