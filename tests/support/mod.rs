//! A real `windrow up` for process tests: free port, temporary folder, killed
//! when dropped.

#![allow(dead_code, clippy::allow_attributes, reason = "each test uses a part of it")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use client::Client;

/// The program.
pub(crate) fn windrow() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windrow"));
    command.env_remove("WINDROW_URL").env_remove("WINDROW_DATA").stdin(Stdio::null());
    command
}

/// A server that listens.
pub(crate) struct Up {
    child: Child,
    /// Where.
    pub(crate) url: String,
    /// Its client.
    pub(crate) client: Client,
}

impl Up {
    /// Starts on a folder and waits until it is ready, which it says.
    pub(crate) fn start(data: &Path) -> Self {
        let mut child = windrow()
            .args(["up", "--public", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()
            .expect("windrow starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let line = loop {
            let line = lines.next().expect("windrow says where it listens").expect("stdout is text");
            if line.starts_with("Windrow is up on ") {
                break line;
            }
        };
        // Keep reading, so that it never blocks on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let url = line.split_whitespace().nth(4).expect("an address").to_owned();
        let client = Client::new(&url).expect("the address is good");
        Self { child, url, client }
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and wait for the end.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("the process ends");
    }

    /// Ctrl-C, and the exit code.
    pub(crate) fn interrupt(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status().expect("kill runs");
        assert!(sent.success());
        self.child.wait().expect("the process ends").code()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Runs a command to its end; returns exit code and stderr.
pub(crate) fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = windrow().args(arguments).output().expect("windrow runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is text");
    (status.code(), text(stdout), text(stderr))
}
