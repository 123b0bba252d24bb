//! The gateway as a process: started, watched, hurt.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::Value;
use tokio::sync::mpsc;

use super::caller::{Caller, Ended, Manner, PATIENCE};

/// What all lives of the gateway have logged.
#[derive(Clone, Default)]
pub struct LogTally {
    /// How often each message came, by level.
    lines: Arc<Mutex<BTreeMap<String, u64>>>,
    /// What must not be in a log.
    bad: Arc<Mutex<Vec<String>>>,
}

impl LogTally {
    fn take(&self, line: &str) -> Value {
        let entry: Value = serde_json::from_str(line).unwrap_or(Value::Null);
        let key = match (entry["level"].as_str(), entry["message"].as_str()) {
            (Some(level), Some(message)) => format!("{level} {message}"),
            _ => "(no JSON)".to_owned(),
        };
        *self.lines.lock().unwrap().entry(key.clone()).or_default() += 1;
        // A panic is text, not JSON; a task that panicked is told in JSON too.
        if entry.is_null() || line.contains("panicked") {
            self.bad.lock().unwrap().push(line.to_owned());
        }
        entry
    }

    pub fn bad(&self) -> Vec<String> {
        self.bad.lock().unwrap().clone()
    }

    pub fn lines(&self) -> BTreeMap<String, u64> {
        self.lines.lock().unwrap().clone()
    }
}

pub struct Gateway {
    child: Child,
    pub callers: SocketAddr,
    pub operators: SocketAddr,
}

/// A start that came to nothing: it was killed, or ended by itself.
pub struct NotStarted(pub ExitStatus);

impl Gateway {
    /// Starts the gateway and waits until it is ready; `kill_after`: kills it so soon after it was started.
    pub async fn start(dir: &Path, tally: &LogTally, kill_after: Option<Duration>) -> Result<Self, NotStarted> {
        let mut command = Command::new("sh");
        // A file may be kept from growing (the full disk): that is an error, not the process's end.
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_rtm-gateway")]);
        command.args(["serve", "--config"]).arg(dir.join("gateway.toml")).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (say, mut said) = mpsc::unbounded_channel();
        let (tally, path) = (tally.clone(), dir.join("gateway.log"));
        std::thread::spawn(move || {
            let mut log = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            while let Some(Ok(line)) = lines.next() {
                writeln!(log, "{line}").unwrap();
                let _ = say.send(tally.take(&line));
            }
        });
        if let Some(after) = kill_after {
            tokio::time::sleep(after).await;
            let _ = child.kill();
        }
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut gateway = Self { child, callers: nowhere, operators: nowhere };
        let address = |entry: &Value| entry["address"].as_str().unwrap().parse().unwrap();
        loop {
            let Some(entry) = tokio::time::timeout(PATIENCE, said.recv()).await.expect("a start ends") else {
                return Err(NotStarted(gateway.wait().await));
            };
            match entry["message"].as_str() {
                Some("listening for callers") => gateway.callers = address(&entry),
                Some("listening for operators") => gateway.operators = address(&entry),
                Some("ready") if kill_after.is_none() => return Ok(gateway),
                _ => {}
            }
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        // It may have ended already.
        let _ = kill_process(self.pid(), signal);
    }

    /// How it ended.
    pub async fn wait(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Keeps files from growing beyond `most` bytes; `None` lifts that.
    pub fn limit_files(&self, most: Option<u64>) {
        let _ = prlimit(Some(self.pid()), Resource::Fsize, Rlimit { current: most, maximum: None });
    }

    /// What the operator's port says; `Null` if it says nothing.
    pub async fn admin(&self, path: &str) -> Value {
        match Caller::new(self.operators, "").get(path, Manner::Plain).await {
            Ended::Answered(answer) => answer.json(),
            _ => Value::Null,
        }
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> Option<usize> {
        Some(fs::read_dir(self.proc("fd")).ok()?.count())
    }

    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.child.id()))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
