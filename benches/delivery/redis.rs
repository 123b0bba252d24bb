//! A Redis stream: a group for each subscriber, XREADGROUP and XACK, the append-only file synced before each answer.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::events;
use crate::stage::Process;

/// Most of what is stored at a time: as many as the vendor gives.
const AT_ONCE: usize = 1000;

pub struct Server {
    process: Process,
    port: u16,
}

impl Server {
    /// `None`: there is no `redis-server`.
    pub async fn start(dir: &Path) -> Option<Self> {
        let port = crate::free_port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir", &dir.to_string_lossy()])
            .args([
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--auto-aof-rewrite-percentage",
                "0",
            ])
            .args(["--maxclients", "12000"])
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        let server = Self { process: Process(child), port };
        let mut line = server.line().await;
        assert!(line.call(&[b"PING"]).await.starts_with(b"+PONG"));
        Some(server)
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    async fn line(&self) -> Line {
        Line { stream: crate::connect(self.port).await, buffer: Vec::with_capacity(1 << 16) }
    }

    pub async fn store(&self, count: usize) {
        let mut line = self.line().await;
        let all: Vec<usize> = (0..count).collect();
        for some in all.chunks(AT_ONCE) {
            let mut out = Vec::new();
            for &n in some {
                command(&mut out, &[b"XADD", b"events", b"*", b"e", events::event(n, Duration::ZERO).as_bytes()]);
            }
            line.stream.write_all(&out).await.unwrap();
            for _ in some {
                line.answer().await;
            }
        }
    }

    pub async fn publisher(&self) -> Publisher {
        Publisher(self.line().await)
    }

    pub async fn reader(&self, n: usize) -> Reader {
        let mut line = self.line().await;
        let group = format!("g{n}");
        let made = line.call(&[b"XGROUP", b"CREATE", b"events", group.as_bytes(), b"0", b"MKSTREAM"]).await;
        assert!(made.starts_with(b"+OK"), "{}", String::from_utf8_lossy(&made));
        let mut read = Vec::new();
        command(
            &mut read,
            &[
                b"XREADGROUP",
                b"GROUP",
                group.as_bytes(),
                b"c",
                b"COUNT",
                b"1000",
                b"BLOCK",
                b"5000",
                b"STREAMS",
                b"events",
                b">",
            ],
        );
        Reader { line, group, read, ids: Vec::new() }
    }
}

pub struct Publisher(Line);

impl Publisher {
    pub async fn publish(&mut self, n: usize) {
        let event = events::event(n, events::now());
        let answer = self.0.call(&[b"XADD", b"events", b"*", b"e", event.as_bytes()]).await;
        assert!(answer.starts_with(b"$"));
    }
}

pub struct Reader {
    line: Line,
    group: String,
    read: Vec<u8>,
    /// What the last read got.
    ids: Vec<Vec<u8>>,
}

impl Reader {
    /// Waits for events. What the last call got is acknowledged with the same write.
    pub async fn next(&mut self, stamps: Option<&mut Vec<Duration>>) -> usize {
        let acknowledged = !self.ids.is_empty();
        let mut out = self.acknowledge();
        out.extend_from_slice(&self.read);
        self.line.stream.write_all(&out).await.unwrap();
        if acknowledged {
            self.line.answer().await;
        }
        let answer = self.line.answer().await;
        entries(&answer, &mut self.ids);
        let came = events::count(&answer, stamps);
        assert_eq!(came, self.ids.len());
        came
    }

    pub async fn finish(&mut self) {
        if !self.ids.is_empty() {
            let out = self.acknowledge();
            self.line.stream.write_all(&out).await.unwrap();
            self.line.answer().await;
        }
    }

    fn acknowledge(&mut self) -> Vec<u8> {
        let ids = std::mem::take(&mut self.ids);
        let mut out = Vec::new();
        if !ids.is_empty() {
            let head: [&[u8]; 3] = [b"XACK", b"events", self.group.as_bytes()];
            let parts: Vec<&[u8]> = head.into_iter().chain(ids.iter().map(Vec::as_slice)).collect();
            command(&mut out, &parts);
        }
        out
    }
}

struct Line {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Line {
    async fn call(&mut self, parts: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        command(&mut out, parts);
        self.stream.write_all(&out).await.unwrap();
        self.answer().await
    }

    async fn answer(&mut self) -> Vec<u8> {
        loop {
            if let Some(end) = end_of_value(&self.buffer, 0) {
                let rest = self.buffer.split_off(end);
                let answer = std::mem::replace(&mut self.buffer, rest);
                assert_ne!(answer[0], b'-', "{}", String::from_utf8_lossy(&answer));
                return answer;
            }
            self.buffer.reserve(1 << 16);
            assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0, "closed");
        }
    }
}

fn command(out: &mut Vec<u8>, parts: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
    for part in parts {
        out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

/// The number on the line that begins at `at`, and where the line ends.
fn number(text: &[u8], at: usize) -> Option<(i64, usize)> {
    let length = memchr::memchr(b'\n', text.get(at..)?)?;
    let digits = std::str::from_utf8(&text[at + 1..at + length - 1]).unwrap();
    Some((digits.parse().unwrap_or(0), at + length + 1))
}

/// Where a RESP2 value ends. `None`: not here yet.
fn end_of_value(text: &[u8], at: usize) -> Option<usize> {
    let (count, mut end) = number(text, at)?;
    match text[at] {
        b'$' if count >= 0 => {
            end += usize::try_from(count).unwrap() + 2;
            (end <= text.len()).then_some(end)
        }
        b'*' => {
            for _ in 0..count {
                end = end_of_value(text, end)?;
            }
            Some(end)
        }
        _ => Some(end),
    }
}

/// The ids of the entries in an answer to XREADGROUP, of one stream.
fn entries(answer: &[u8], ids: &mut Vec<Vec<u8>>) {
    let Some((1, in_stream)) = number(answer, 0) else { return };
    let (_, name) = number(answer, in_stream).unwrap();
    let (count, mut at) = number(answer, end_of_value(answer, name).unwrap()).unwrap();
    for _ in 0..count {
        let (_, id) = number(answer, at).unwrap();
        let fields = end_of_value(answer, id).unwrap();
        let (length, text) = number(answer, id).unwrap();
        ids.push(answer[text..text + usize::try_from(length).unwrap()].to_vec());
        at = end_of_value(answer, fields).unwrap();
    }
}
