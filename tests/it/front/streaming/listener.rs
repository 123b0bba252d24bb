//! A caller that listens to Server-Sent Events, byte by byte: over HTTP/1.1 by itself, so that it can be cut anywhere.

use std::collections::VecDeque;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::front::stage::{DEADLINE, Stage, request};

/// One block of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) id: Option<String>,
    pub(super) event: Option<String>,
    pub(super) data: Option<String>,
    /// `retry`, comments (by an empty name), and what parsers do not know.
    pub(super) more: Vec<(String, String)>,
}

impl Block {
    fn of(text: &str) -> Self {
        let mut block = Self::default();
        for line in text.lines() {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match name {
                "id" => block.id = Some(value),
                "event" => block.event = Some(value),
                "data" => match &mut block.data {
                    None => block.data = Some(value),
                    Some(data) => *data += &format!("\n{value}"),
                },
                name => block.more.push((name.to_owned(), value)),
            }
        }
        block
    }

    pub(super) fn data(&self) -> &str {
        self.data.as_deref().unwrap_or_else(|| panic!("no data: {self:?}"))
    }

    pub(super) fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_else(|| panic!("no id: {self:?}"))
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.more.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn is_heartbeat(&self) -> bool {
        *self == Self { more: vec![(String::new(), String::new())], ..Self::default() }
    }

    fn is_beginning(&self) -> bool {
        self.field("retry").is_some()
    }
}

/// The blocks of a text as it comes.
#[derive(Default)]
pub(super) struct Blocks {
    text: Vec<u8>,
    whole: VecDeque<Block>,
}

impl Blocks {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
        loop {
            // The first line of a stream and a heartbeat have no empty line after them.
            let is_alone = self.text.starts_with(b"retry:") || self.text.starts_with(b":\n");
            let end: &[u8] = if is_alone { b"\n" } else { b"\n\n" };
            let Some(at) = self.text.windows(end.len()).position(|some| some == end) else { break };
            let block: Vec<u8> = self.text.drain(..at + end.len()).collect();
            self.whole.push_back(Block::of(std::str::from_utf8(&block[..at]).unwrap()));
        }
    }

    pub(super) fn next(&mut self) -> Option<Block> {
        self.whole.pop_front()
    }
}

/// A caller that listens.
pub(super) struct Listener<S = TcpStream> {
    io: S,
    pub(super) head: String,
    raw: Vec<u8>,
    /// Bytes of the chunk that are still to come.
    left: usize,
    is_begun: bool,
    blocks: Blocks,
    is_over: bool,
}

impl Listener {
    /// Opens a stream of the client `all`.
    pub(super) async fn open(stage: &Stage, target: &str) -> Self {
        Self::with(stage, target, "all", "").await
    }

    /// Opens a stream, with these headers more, and sees that it begins as it should.
    pub(super) async fn with(stage: &Stage, target: &str, client: &str, headers: &str) -> Self {
        let mut tcp = stage.connect().await;
        let headers = format!("Accept: text/event-stream\r\n{headers}");
        tcp.write_all(request("GET", target, client, &headers, "").as_bytes()).await.unwrap();
        let mut listener = Self::begin(tcp).await;
        let first = listener.block().await.unwrap();
        assert!(first.is_beginning(), "{first:?}");
        listener
    }
}

impl<S: AsyncRead + Unpin> Listener<S> {
    pub(super) async fn begin(mut io: S) -> Self {
        let mut head = Vec::new();
        let reading = async {
            while !head.ends_with(b"\r\n\r\n") {
                head.push(io.read_u8().await.expect("a head"));
            }
        };
        tokio::time::timeout(DEADLINE, reading).await.expect("a head in time");
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(head.contains("\r\ncontent-type: text/event-stream\r\n"), "{head}");
        Self { io, head, raw: Vec::new(), left: 0, is_begun: false, blocks: Blocks::default(), is_over: false }
    }

    /// The next event. `None`: the stream ended, and ended in order.
    pub(super) async fn next(&mut self) -> Option<Block> {
        loop {
            let block = self.block().await?;
            if !block.is_heartbeat() {
                return Some(block);
            }
        }
    }

    /// The data of the next events.
    pub(super) async fn data(&mut self, count: usize) -> Vec<String> {
        let mut data = Vec::new();
        while data.len() < count {
            data.push(self.next().await.expect("an event").data().to_owned());
        }
        data
    }

    /// The next block, heartbeats too.
    pub(super) async fn block(&mut self) -> Option<Block> {
        loop {
            if let Some(block) = self.blocks.next() {
                return Some(block);
            }
            if self.is_over {
                assert!(self.blocks.text.is_empty(), "cut in the middle of an event");
                return None;
            }
            let some = tokio::time::timeout(DEADLINE, self.read(4096)).await.expect("something in time");
            assert!(some > 0, "the connection was cut");
        }
    }

    /// Reads so many bytes, or to the end; gives the events that came whole.
    pub(super) async fn cut_after(mut self, bytes: usize) -> (Vec<Block>, Self) {
        let mut left = bytes;
        let reading = async {
            while left > 0 && !self.is_over {
                let some = self.read(left).await;
                assert!(some > 0, "the connection was cut");
                left = left.saturating_sub(some);
            }
        };
        tokio::time::timeout(DEADLINE, reading).await.expect("something in time");
        let mut events = Vec::new();
        while let Some(block) = self.blocks.next() {
            events.extend(Some(block).filter(|block| block.id.is_some()));
        }
        (events, self)
    }

    async fn read(&mut self, most: usize) -> usize {
        let mut piece = vec![0; most];
        let some = self.io.read(&mut piece).await.unwrap_or(0);
        self.raw.extend_from_slice(&piece[..some]);
        // Chunks (RFC 9112, 7.1): a size, so many bytes, a line break.
        loop {
            let here = self.left.min(self.raw.len());
            self.blocks.feed(&self.raw[..here]);
            self.raw.drain(..here);
            self.left -= here;
            if self.left > 0 {
                break;
            }
            let start = if self.is_begun { 2 } else { 0 };
            let Some(at) = self.raw.get(start..).and_then(|rest| rest.windows(2).position(|two| two == b"\r\n")) else {
                break;
            };
            let size = std::str::from_utf8(&self.raw[start..start + at]).unwrap();
            self.left = usize::from_str_radix(size, 16).unwrap();
            self.is_over |= self.left == 0;
            self.is_begun = true;
            self.raw.drain(..start + at + 2);
            if self.is_over {
                break;
            }
        }
        some
    }
}
