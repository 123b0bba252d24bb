//! A caller by hand: one connection, kept alive, that can read slowly or leave in the middle.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// No answer takes longer, however loaded the machine is.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How an answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Plain,
    /// In small pieces, with pauses.
    Slow,
    /// The connection is closed after so many bytes.
    Leave(usize),
}

/// How a request ended.
pub enum Ended {
    Answered(Answer),
    /// There was no connection to ask on.
    Unasked,
    /// No byte of an answer came: reset or closed.
    Nothing,
    /// The answer broke off.
    Broken,
    /// The caller left.
    Left,
    /// Nothing happened for [`PATIENCE`].
    Hung,
}

pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A connection to one address, opened when needed.
pub struct Caller {
    to: SocketAddr,
    key: String,
    stream: Option<TcpStream>,
}

impl Caller {
    pub fn new(to: SocketAddr, key: &str) -> Self {
        Self { to, key: key.to_owned(), stream: None }
    }

    pub async fn get(&mut self, path: &str, manner: Manner) -> Ended {
        self.send("GET", path, None, manner).await
    }

    pub async fn post(&mut self, path: &str, body: &str) -> Ended {
        self.send("POST", path, Some(body), Manner::Plain).await
    }

    pub async fn send(&mut self, method: &str, path: &str, body: Option<&str>, manner: Manner) -> Ended {
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {}\r\n", self.key);
        if let Some(body) = body {
            text += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        }
        text += "\r\n";
        text += body.unwrap_or_default();
        self.ask(text.as_bytes(), manner).await
    }

    async fn ask(&mut self, request: &[u8], manner: Manner) -> Ended {
        // Whatever goes wrong, the connection is not used again.
        let stream = self.stream.take();
        match tokio::time::timeout(PATIENCE, exchange(stream, self.to, request, manner)).await {
            Ok((ended, stream)) => {
                self.stream = stream;
                ended
            }
            Err(_) => Ended::Hung,
        }
    }
}

async fn exchange(
    stream: Option<TcpStream>,
    to: SocketAddr,
    request: &[u8],
    manner: Manner,
) -> (Ended, Option<TcpStream>) {
    let mut stream = match stream {
        Some(stream) => stream,
        None => match connect(to, manner).await {
            Ok(stream) => stream,
            Err(_) => return (Ended::Unasked, None),
        },
    };
    if stream.write_all(request).await.is_err() {
        return (Ended::Nothing, None);
    }
    let mut bytes = Vec::new();
    let mut whole = usize::MAX;
    while bytes.len() < whole {
        if let Manner::Leave(after) = manner
            && bytes.len() >= after
        {
            return (Ended::Left, None);
        }
        let mut piece = [0; 16 << 10];
        let most = if manner == Manner::Slow { 1500 } else { piece.len() };
        match stream.read(&mut piece[..most]).await {
            Ok(n @ 1..) => bytes.extend_from_slice(&piece[..n]),
            Ok(0) | Err(_) => return (if bytes.is_empty() { Ended::Nothing } else { Ended::Broken }, None),
        }
        if manner == Manner::Slow {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if whole == usize::MAX
            && let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n")
        {
            whole = at + 4 + content_length(&bytes[..at]);
        }
    }
    let at = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(0);
    let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
    let status = head.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
    let closes = head.to_ascii_lowercase().contains("connection: close");
    let answer = Answer { status, body: bytes.split_off(at + 4) };
    (Ended::Answered(answer), (!closes).then_some(stream))
}

async fn connect(to: SocketAddr, manner: Manner) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if manner != Manner::Plain {
        // So that an answer does not fit into the system's buffers at once.
        socket.set_recv_buffer_size(4096)?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    length.and_then(|l| l.trim().parse().ok()).unwrap_or(0)
}
