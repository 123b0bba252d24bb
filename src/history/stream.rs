//! Messages of any number, as they come: lines of text, in order, with places to go on from.
//!
//! | line                                     | says                                                              |
//! | ---------------------------------------- | ----------------------------------------------------------------- |
//! | a message, as the vendor wrote it        |                                                                   |
//! | `{"cursor":"…"}`                         | all messages before it are given: one can go on here               |
//! | `{"end":true,"messages":N,"cursor":"…"}` | there are no more; the last line                                   |
//! | `{"error":{…},"cursor":"…"}`             | the stream broke; go on from `cursor`; the last line               |
//!
//! A message always has its time (`ms`, or `ts`), the other lines never do: so they cannot be taken for one another. A
//! text without one of the last two lines was cut. While there is nothing to say a space comes now and then, in front
//! of the next line.
//!
//! Invariants:
//! - The pager runs in a task of its own, so that what is under way at the vendor ends, and gives its seats back, while
//!   the reader takes nothing; but it asks for more only when what it has was taken. A reader that leaves ends it.
//! - A stream waits for the quota, in line with everybody; it ends when the vendor stalls, when the gateway stops, and
//!   when what let its reader in has expired or was withdrawn: then nothing more is asked, and nothing that lies ready
//!   is given.
//! - It holds none of the places of [`super::jobs`]; how many there are is bounded by [`super::stream_permits`].

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::cursor::{self, QueryHash};
use super::error::Error;
use super::pager::{Pager, Run};
use super::query::Query;
use super::retrying_pages::RetryingPages;
use super::stream_permits::StreamPermit;
use super::{Service, render};
use crate::kernel::metrics::{AppLabels, Metrics, StreamEndLabels};
use crate::kernel::names::AppId;
use crate::kernel::proof::Proof;
use crate::kernel::task::Kind;
use crate::upstream::egress::Failure;

/// After so long without a line a space is given: the reader, and what is between, see that it lives. It says nothing
/// of where one can go on: readers keep cursors, and a cursor belongs right behind the messages that it stands for.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A part of a stream.
#[derive(Clone, Debug)]
pub enum StreamPart {
    /// Whole lines, in pieces; or a sign of life, in front of the next.
    Lines {
        pieces: Vec<Bytes>,
        /// Where to go on after them.
        cursor: String,
    },
    /// It broke: there is nothing after this.
    Broken {
        error: Error,
        /// Where to go on.
        cursor: String,
    },
}

/// A stream of messages. Dropped, it asks for nothing more.
#[derive(Debug)]
pub struct MessageStream {
    first: Option<StreamPart>,
    parts: mpsc::Receiver<StreamPart>,
    proof: Proof,
    /// Where to go on after what was given.
    cursor: String,
    is_over: bool,
}

/// What a stream is begun with.
pub(super) struct StreamStart {
    pub(super) app: AppId,
    pub(super) query: Query,
    /// The end of what was given before, by a cursor.
    pub(super) after: Option<Run>,
    pub(super) hash: QueryHash,
    pub(super) pages: RetryingPages,
    pub(super) permit: StreamPermit,
    pub(super) proof: Proof,
    pub(super) draining: CancellationToken,
}

impl MessageStream {
    /// Begins to stream. Returns when there is something to say: lines, why there are none, or that it takes longer
    /// than a heartbeat or until `deadline`, which bounds nothing else.
    ///
    /// # Errors
    /// What went wrong before the first line.
    pub(super) async fn open(service: &Service, start: StreamStart, deadline: Instant) -> Result<Self, Error> {
        let StreamStart { app, query, after, hash, pages, permit, proof, draining } = start;
        // One part ahead: what lies ready when the proof ends is given up, and it is no more than this.
        let (sender, mut parts) = mpsc::channel(1);
        let writer = StreamWriter {
            pager: Pager::resume(Arc::new(pages), &query, after),
            metrics: service.metrics.clone(),
            stopping: service.tasks.stopping(),
            app,
            hash,
            sender,
            draining,
            proof: proof.clone(),
            messages: 0,
            cursor: String::new(),
            _permit: permit,
        };
        let cursor = writer.place();
        service.tasks.spawn(Kind::Resolver, writer.run());
        let first = match timeout_at(deadline, parts.recv()).await {
            Ok(Some(StreamPart::Broken { error, .. })) => return Err(error),
            // Its task was forced to end.
            Ok(None) => return Err(Failure::Stopping.into()),
            Ok(first) => first,
            Err(_) => None,
        };
        proof.stands().await.map_err(Failure::from)?;
        Ok(Self { first, parts, proof, cursor, is_over: false })
    }

    /// The next part; `None` after the last. What lies ready is given only if what let the caller in still stands.
    pub async fn next(&mut self) -> Option<StreamPart> {
        if self.is_over {
            return None;
        }
        let part = match self.first.take() {
            Some(part) => part,
            None => self.parts.recv().await?,
        };
        let StreamPart::Lines { pieces, cursor } = part else {
            self.is_over = true;
            return Some(part);
        };
        if let Err(how) = self.proof.stands().await {
            self.is_over = true;
            self.parts.close();
            let cursor = std::mem::take(&mut self.cursor);
            return Some(StreamPart::Broken { error: Failure::from(how).into(), cursor });
        }
        self.cursor.clone_from(&cursor);
        Some(StreamPart::Lines { pieces, cursor })
    }
}

/// A stream under way.
struct StreamWriter {
    pager: Pager<RetryingPages>,
    metrics: Metrics,
    stopping: CancellationToken,
    app: AppId,
    hash: QueryHash,
    sender: mpsc::Sender<StreamPart>,
    draining: CancellationToken,
    proof: Proof,
    /// How many were given.
    messages: u64,
    /// The last that was given, or is to be.
    cursor: String,
    _permit: StreamPermit,
}

/// Why nothing more is given.
enum StopReason {
    ReaderLeft,
    /// What let it in stands no more, and a part lies ready: in the place of that the reader is told so.
    ProofEnded,
}

impl StreamWriter {
    async fn run(mut self) {
        self.cursor = self.place();
        let ended = self.give_all().await;
        let Self { pager, metrics, app, sender, cursor, .. } = self;
        let labels = AppLabels { app: app.to_string() };
        metrics.history_stream_repairs.get_or_create(&labels).inc_by(pager.repairs());
        // Nothing more is asked for.
        drop(pager);
        let end = match ended {
            Ok(Ok(())) => "complete",
            Ok(Err(error)) => {
                tracing::debug!(%app, why = %error, "a history stream broke");
                // A reader that left needs no reason.
                let _ = sender.send(StreamPart::Broken { error, cursor }).await;
                "broken"
            }
            Err(StopReason::ReaderLeft) => "left",
            Err(StopReason::ProofEnded) => "broken",
        };
        metrics.history_streams.get_or_create(&StreamEndLabels { app: app.to_string(), end: end.into() }).inc();
    }

    async fn give_all(&mut self) -> Result<Result<(), Error>, StopReason> {
        let counter = AppLabels { app: self.app.to_string() };
        let counter = self.metrics.history_stream_messages.get_or_create_owned(&counter);
        loop {
            let messages = match self.next().await? {
                Ok(Some(messages)) => messages,
                Ok(None) => {
                    let line = render::end_line(self.messages, &self.cursor);
                    self.give(StreamPart::Lines { pieces: vec![line], cursor: self.cursor.clone() }).await?;
                    return Ok(Ok(()));
                }
                Err(error) => return Ok(Err(error)),
            };
            self.messages += messages.len() as u64;
            counter.inc_by(messages.len() as u64);
            let cursor = self.place();
            let lines = render::lines(&messages, &cursor);
            self.cursor = cursor;
            self.give(StreamPart::Lines { pieces: lines, cursor: self.cursor.clone() }).await?;
        }
    }

    /// The next messages; says meanwhile that it lives.
    async fn next(&mut self) -> Result<Result<Option<Vec<Bytes>>, Error>, StopReason> {
        let mut next = pin!(self.pager.next());
        loop {
            tokio::select! {
                biased;
                () = self.sender.closed() => return Err(StopReason::ReaderLeft),
                how = self.proof.ended() => return Ok(Err(Failure::from(how).into())),
                () = self.draining.cancelled() => return Ok(Err(Failure::Stopping.into())),
                () = self.stopping.cancelled() => return Ok(Err(Failure::Stopping.into())),
                next = &mut next => return Ok(next),
                () = sleep(HEARTBEAT) => {
                    // A reader that has not taken the last part needs no sign of life.
                    let pieces = vec![render::ALIVE];
                    let _ = self.sender.try_send(StreamPart::Lines { pieces, cursor: self.cursor.clone() });
                }
            }
        }
    }

    /// Gives a part when the one before was taken. What is under way at the vendor goes on to its end meanwhile.
    async fn give(&mut self, part: StreamPart) -> Result<(), StopReason> {
        let settle = async {
            self.pager.settle().await;
            std::future::pending().await
        };
        tokio::select! {
            biased;
            room = self.sender.reserve() => room.map(|room| room.send(part)).map_err(|_| StopReason::ReaderLeft),
            _ = self.proof.ended() => Err(StopReason::ProofEnded),
            () = settle => Err(StopReason::ReaderLeft),
        }
    }

    fn place(&self) -> String {
        cursor::write(self.hash, self.pager.place())
    }
}
