//! A connection, and the answer that comes on it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

/// How a chunked body ends.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// What a read has brought.
pub(crate) enum Progress {
    /// The answer goes on.
    More,
    /// The answer is whole.
    Answered { status: u16, keep: bool },
    /// The connection is gone; `asked`: before its answer was there.
    Lost { asked: bool },
}

/// What is known of the body that comes.
enum Body {
    Sized { left: usize },
    Chunked { tail: Vec<u8> },
}

struct Head {
    status: u16,
    keep: bool,
    body: Body,
}

impl Head {
    fn parse(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let body = if text.contains("transfer-encoding: chunked") {
            // Begins as if a line had ended, so that a body of no chunk ends as any other.
            Body::Chunked { tail: b"\r\n".to_vec() }
        } else {
            Body::Sized { left: length.unwrap_or(0) }
        };
        Self {
            status: text.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0),
            keep: !text.contains("connection: close"),
            body,
        }
    }

    /// Takes bytes of the body, and says whether it is whole.
    fn take(&mut self, bytes: &[u8]) -> bool {
        match &mut self.body {
            Body::Sized { left } => {
                *left = left.saturating_sub(bytes.len());
                *left == 0
            }
            Body::Chunked { tail } => {
                tail.extend_from_slice(&bytes[bytes.len().saturating_sub(LAST_CHUNK.len())..]);
                tail.drain(..tail.len().saturating_sub(LAST_CHUNK.len()));
                tail == LAST_CHUNK
            }
        }
    }
}

/// A kept connection that has one request at a time.
pub(crate) struct Connection {
    stream: TcpStream,
    due: Instant,
    asked: bool,
    head_bytes: Vec<u8>,
    head: Option<Head>,
}

impl Connection {
    /// # Errors
    /// Those of the system.
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, due: Instant::now(), asked: false, head_bytes: Vec::new(), head: None })
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// When the request under way, or the last one, was to be sent.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// # Errors
    /// Those of the system, and a request that it does not take whole: so small a one fits an idle connection.
    pub(crate) fn send(&mut self, request: &[u8], due: Instant) -> io::Result<()> {
        self.head = None;
        self.head_bytes.clear();
        self.due = due;
        self.asked = true;
        let sent = self.stream.write(request)?;
        if sent < request.len() { Err(ErrorKind::WriteZero.into()) } else { Ok(()) }
    }

    /// Reads once, and adds to `bytes` what came.
    pub(crate) fn read(&mut self, buffer: &mut [u8], bytes: &mut u64) -> Progress {
        let came = match self.stream.read(buffer) {
            Ok(0) => return Progress::Lost { asked: self.asked },
            Ok(came) => came,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::More,
            Err(_) => return Progress::Lost { asked: self.asked },
        };
        *bytes += came as u64;
        self.take(&buffer[..came])
    }

    fn take(&mut self, mut bytes: &[u8]) -> Progress {
        if self.head.is_none() {
            let before = self.head_bytes.len();
            self.head_bytes.extend_from_slice(bytes);
            let Some(end) = self.head_bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
                return Progress::More;
            };
            self.head = Some(Head::parse(&self.head_bytes[..end]));
            bytes = &bytes[end + 4 - before..];
        }
        let Some(head) = &mut self.head else { return Progress::More };
        if !head.take(bytes) {
            return Progress::More;
        }
        self.asked = false;
        Progress::Answered { status: head.status, keep: head.keep }
    }

    /// The other end has neither closed it nor sent what nobody asked for.
    pub(crate) fn is_open(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}
