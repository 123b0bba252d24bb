//! What the benchmarks stand on: a gateway in a process of its own, and a caller that costs little.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    reason = "each benchmark uses a part; real time is what is measured"
)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::kernel::names::BucketName;
use rtm_gateway::simulator::{App, Limit, Limits, Listen, Options, Rules, Sim, World};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The app, the vendor's credential and the callers' key that all benchmarks use.
pub const APP: &str = "bench-app";
pub const KEY: &str = "bench-key";
pub const SECRET: &str = "bench-secret";

/// A simulated vendor that remembers nothing it need not, with the same limit for every bucket.
pub async fn vendor(limit: Limit) -> Sim {
    let options = Options { seen: 0, ledger: 0, replicate: false };
    let world = World::new(Clock::system(), options);
    let rules = |rules: &mut Rules| rules.queue_capacity = 1_000_000;
    world.add(App::new(APP).basic(KEY, SECRET).limits(Limits::all(limit)).rules(rules));
    Sim::listen(&world, "here", Listen::default()).await.unwrap()
}

/// `[apps.quota]` with the same limit for every bucket.
pub fn quota(requests: usize) -> String {
    let line = |bucket: &BucketName| format!("{bucket} = {{ requests = {requests}, per = \"1s\" }}\n");
    format!("[apps.quota]\n{}", BucketName::ALL.iter().map(line).collect::<String>())
}

/// A configuration for a gateway in front of `vendor`, its data in `dir`.
pub fn configuration(dir: &Path, vendor: SocketAddr, app: &str, clients: usize) -> String {
    fs::write(dir.join("key"), KEY).unwrap();
    fs::write(dir.join("secret"), SECRET).unwrap();
    let mut text = format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
shutdown_grace = "2s"
[admin]
listen = "127.0.0.1:0"
[log]
access = false
[store]
path = "{dir}/data"
[[apps]]
id = "{APP}"
regions = [{{ name = "here", base_url = "http://{vendor}" }}]
[apps.credential]
kind = "basic"
api_key = {{ file = "{dir}/key" }}
api_secret = {{ file = "{dir}/secret" }}
{app}
"#,
        dir = dir.display()
    );
    for n in 0..clients {
        let hash: String = Sha256::digest(client_key(n).as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
        text += &format!(
            "[[clients]]\nname = \"c{n}\"\napi_key_sha256 = \"{hash}\"\n\
             allow = [{{ app = \"*\", actions = [\"events\", \"history\", \"count\", \"messages\"] }}]\n"
        );
    }
    text
}

/// The key of the nth client.
pub fn client_key(n: usize) -> String {
    format!("{KEY}-{n}")
}

/// A process. Killed when dropped.
pub struct Process(pub Child);

/// A gateway process.
pub struct Gateway {
    process: Process,
    pub address: SocketAddr,
    pub ready_after: Duration,
}

impl Gateway {
    /// Starts the binary that was built with the benchmark and waits until it says that it is ready.
    pub fn start(config: &Path) -> Self {
        // Named where a benchmark is of the gateway's own package.
        let Some(binary) = option_env!("CARGO_BIN_EXE_rtm-gateway") else { panic!("cargo names the binary it built") };
        Self::run(Command::new(binary), config)
    }

    /// The same with what begins its command line.
    pub fn run(mut command: Command, config: &Path) -> Self {
        let began = Instant::now();
        let mut child = command.args(["serve", "--config"]).arg(config).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut address = None;
        for line in lines.by_ref() {
            let line = line.unwrap();
            let Ok(entry) = serde_json::from_str::<serde_json::Value>(&line) else { panic!("{line}") };
            match entry["message"].as_str() {
                Some("listening for callers") => address = entry["address"].as_str().and_then(|a| a.parse().ok()),
                Some("ready") => break,
                _ => {}
            }
        }
        let ready_after = began.elapsed();
        std::thread::spawn(move || for _ in lines {});
        let process = Process(child);
        Self { process, address: address.expect("the gateway names its address"), ready_after }
    }
}

impl std::ops::Deref for Gateway {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl Process {
    /// CPU time that all its threads have used.
    pub fn cpu(&self) -> Duration {
        let tasks = PathBuf::from(format!("/proc/{}/task", self.0.id()));
        let spent = fs::read_dir(tasks).unwrap().filter_map(|task| {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(spent.sum())
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The most that was resident so far.
    pub fn peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One keep-alive connection that sends a prepared request again and again.
pub struct Line<S = TcpStream> {
    stream: S,
    buffer: Vec<u8>,
}

impl Line {
    pub async fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::with_capacity(1 << 20) }
    }

    /// Sends and reads the whole answer: its status and body.
    pub async fn ask(&mut self, request: &[u8]) -> (u16, &[u8]) {
        self.stream.write_all(request).await.unwrap();
        self.buffer.clear();
        let (head, length) = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                let head = std::str::from_utf8(&self.buffer[..at]).unwrap().to_ascii_lowercase();
                let length = head.split("content-length: ").nth(1).and_then(|r| r.split("\r\n").next());
                break (at + 4, length.unwrap_or("0").parse::<usize>().unwrap());
            }
            assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0, "closed");
        };
        while self.buffer.len() < head + length {
            assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0, "closed");
        }
        let status = std::str::from_utf8(&self.buffer[9..12]).unwrap().parse().unwrap();
        (status, &self.buffer[head..head + length])
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// A request's bytes.
pub fn request(method: &str, path: &str, auth: &str, body: &str) -> Vec<u8> {
    let length = if method == "POST" {
        format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len())
    } else {
        String::new()
    };
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{auth}\r\n{length}\r\n{body}").into_bytes()
}

/// The value below which a share of the samples lies. Sorts them.
pub fn percentile(samples: &mut [Duration], share: f64) -> Duration {
    samples.sort_unstable();
    samples[((samples.len() - 1) as f64 * share) as usize]
}
