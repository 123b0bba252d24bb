//! NATS JetStream: a file store synced with each message, a durable pull consumer for each subscriber, explicit ack.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::events;
use crate::stage::Process;

/// Most that is published before the first is known to be stored.
const AT_ONCE: usize = 1000;
/// A reader has asked for at most so many, and asks again when half of them have come, as NATS's own clients do.
const ASKED: usize = 1000;

pub struct Server {
    process: Process,
    port: u16,
}

impl Server {
    /// `None`: there is none, or it is too old to sync each message (before 2.10).
    pub async fn start(dir: &Path) -> Option<Self> {
        let port = crate::free_port();
        let config = dir.join("nats.conf");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\nmax_connections: 12000\n\
             jetstream {{ store_dir: \"{}\", sync_interval: always }}\n",
            dir.display()
        );
        std::fs::write(&config, text).unwrap();
        let program = std::env::var_os("NATS_SERVER").unwrap_or_else(|| OsString::from("nats-server"));
        let checked = Command::new(&program).arg("-t").arg("-c").arg(&config).stderr(Stdio::null()).status().ok()?;
        if !checked.success() {
            return None;
        }
        let child = Command::new(&program).arg("-c").arg(&config).stderr(Stdio::null()).spawn().ok()?;
        let server = Self { process: Process(child), port };
        let mut line = server.line().await;
        let stream = r#"{"name":"EVENTS","subjects":["events"],"storage":"file","retention":"limits"}"#;
        let made = line.call("$JS.API.STREAM.CREATE.EVENTS", stream).await;
        assert!(!made.contains("\"error\""), "{made}");
        Some(server)
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    async fn line(&self) -> Line {
        let mut stream = crate::connect(self.port).await;
        let hello = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\nSUB in 1\r\nPING\r\n";
        let inbox = format!("in{}", stream.local_addr().unwrap().port());
        stream.write_all(hello.replace("in 1", &format!("{inbox} 1")).as_bytes()).await.unwrap();
        let mut line = Line { stream, inbox, buffer: Vec::with_capacity(1 << 16), done: 0 };
        while !matches!(line.message().await, Message::Pong) {}
        line
    }

    pub async fn store(&self, count: usize) {
        let mut line = self.line().await;
        let all: Vec<usize> = (0..count).collect();
        for some in all.chunks(AT_ONCE) {
            let mut out = Vec::new();
            for &n in some {
                publish(&mut out, "events", &line.inbox, &events::event(n, Duration::ZERO));
            }
            line.stream.write_all(&out).await.unwrap();
            for _ in some {
                line.stored().await;
            }
        }
    }

    pub async fn publisher(&self) -> Publisher {
        Publisher(self.line().await)
    }

    pub async fn reader(&self, n: usize) -> Reader {
        let mut line = self.line().await;
        let name = format!("c{n}");
        let consumer = format!(
            r#"{{"stream_name":"EVENTS","config":{{"durable_name":"{name}","ack_policy":"explicit","deliver_policy":"all","max_ack_pending":10000,"ack_wait":60000000000}}}}"#
        );
        let made = line.call(&format!("$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.{name}"), &consumer).await;
        assert!(!made.contains("\"error\""), "{made}");
        Reader { line, name, out: Vec::new(), left: 0 }
    }
}

pub struct Publisher(Line);

impl Publisher {
    pub async fn publish(&mut self, n: usize) {
        let mut out = Vec::new();
        publish(&mut out, "events", &self.0.inbox, &events::event(n, events::now()));
        self.0.stream.write_all(&out).await.unwrap();
        self.0.stored().await;
    }
}

pub struct Reader {
    line: Line,
    name: String,
    /// Acknowledgements of what the last call got.
    out: Vec<u8>,
    /// How many of those asked for have not come.
    left: usize,
}

impl Reader {
    /// Waits for events. What the last call got is acknowledged first, with the same write that asks for more.
    pub async fn next(&mut self, mut stamps: Option<&mut Vec<Duration>>) -> usize {
        let mut came = 0;
        loop {
            if self.left <= ASKED / 2 {
                let subject = format!("$JS.API.CONSUMER.MSG.NEXT.EVENTS.{}", self.name);
                let ask = format!(r#"{{"batch":{},"expires":60000000000}}"#, ASKED - self.left);
                publish(&mut self.out, &subject, &self.line.inbox, &ask);
                self.left = ASKED;
            }
            if !self.out.is_empty() {
                self.line.stream.write_all(&std::mem::take(&mut self.out)).await.unwrap();
            }
            // All that has come, then.
            let mut message = self.line.message().await;
            loop {
                if let Message::Over(unused) = message {
                    self.left = self.left.saturating_sub(unused);
                } else if let Message::Text { reply, text } = message {
                    came += events::count(text, stamps.as_deref_mut());
                    self.left -= 1;
                    let reply = std::str::from_utf8(reply).unwrap();
                    publish(&mut self.out, reply, "", "+ACK");
                }
                match self.line.parse() {
                    Some(next) => message = next,
                    None => break,
                }
            }
            if came > 0 {
                return came;
            }
        }
    }

    /// Acknowledges what the last call got, and waits until the server knows.
    pub async fn finish(&mut self) {
        self.line.stream.write_all(&std::mem::take(&mut self.out)).await.unwrap();
        let subject = format!("$JS.API.CONSUMER.INFO.EVENTS.{}", self.name);
        while !self.line.call(&subject, "").await.contains("\"num_ack_pending\":0,") {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

struct Line {
    stream: TcpStream,
    /// Answers come here.
    inbox: String,
    buffer: Vec<u8>,
    done: usize,
}

enum Message<'a> {
    Text {
        reply: &'a [u8],
        text: &'a [u8],
    },
    /// What was asked for came to an end, so many short of it.
    Over(usize),
    Pong,
    Other,
}

impl Line {
    async fn call(&mut self, subject: &str, text: &str) -> String {
        let mut out = Vec::new();
        publish(&mut out, subject, &self.inbox, text);
        self.stream.write_all(&out).await.unwrap();
        loop {
            if let Message::Text { text, .. } = self.message().await {
                return String::from_utf8_lossy(text).into_owned();
            }
        }
    }

    async fn stored(&mut self) {
        loop {
            if let Message::Text { text, .. } = self.message().await {
                assert!(memmem::find(text, b"\"seq\"").is_some(), "{}", String::from_utf8_lossy(text));
                return;
            }
        }
    }

    async fn message(&mut self) -> Message<'_> {
        while head(&self.buffer[self.done..]).is_none() {
            self.buffer.drain(..self.done);
            self.done = 0;
            self.buffer.reserve(1 << 16);
            assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0, "closed");
            if self.buffer.starts_with(b"PING\r\n") {
                self.stream.write_all(b"PONG\r\n").await.unwrap();
            }
        }
        self.parse().unwrap()
    }

    /// The next message that is here whole.
    fn parse(&mut self) -> Option<Message<'_>> {
        let at = self.done;
        let (line, end) = head(&self.buffer[at..])?;
        self.done += end;
        let (line, body) = (&self.buffer[at..at + line], &self.buffer[at + line + 2..at + end]);
        let mut words = line.split(|&b| b == b' ').skip(1);
        Some(match line {
            b"PONG" => Message::Pong,
            [b'M', b'S', b'G', ..] => {
                let words: [&[u8]; 4] = std::array::from_fn(|_| words.next().unwrap_or_default());
                // Without a reply subject the third is the length.
                let reply = if words[3].is_empty() { b"" } else { words[2] };
                Message::Text { reply, text: &body[..body.len() - 2] }
            }
            [b'H', ..] => {
                let unused = memmem::find(body, b"Nats-Pending-Messages: ").map(|at| &body[at + 23..]);
                let digits = unused.and_then(|rest| rest.split(|b| !b.is_ascii_digit()).next());
                let count = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
                Message::Over(count.unwrap_or(ASKED))
            }
            [b'-', ..] => panic!("{}", String::from_utf8_lossy(line)),
            _ => Message::Other,
        })
    }
}

/// How long the first line of a message is, and the message, if it is here whole.
fn head(buffer: &[u8]) -> Option<(usize, usize)> {
    let line = memchr::memchr(b'\n', buffer)? - 1;
    let has_body = buffer.starts_with(b"MSG") || buffer.starts_with(b"HMSG");
    let end = if has_body {
        let length = buffer[..line].rsplit(|&b| b == b' ').next().unwrap();
        line + 2 + std::str::from_utf8(length).unwrap().parse::<usize>().unwrap() + 2
    } else {
        line + 2
    };
    (end <= buffer.len()).then_some((line, end))
}

fn publish(out: &mut Vec<u8>, subject: &str, reply: &str, text: &str) {
    let space = if reply.is_empty() { "" } else { " " };
    out.extend_from_slice(format!("PUB {subject} {reply}{space}{}\r\n{text}\r\n", text.len()).as_bytes());
}
