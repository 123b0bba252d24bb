//! A [`MergedReader`]: what one caller reads, one stream or both merged, run by run.
//!
//! Invariants:
//! - Runs come in the order received, by the time of their batches and then by stream: none is given while the other
//!   stream may hold an older one. (What another stream receives at the same moment may be stored a little later; then
//!   it comes later.)
//! - At most one read of each stream is held. Its text is the log's own, and shared.
//! - A read's receipt goes with its last run, unless a session holds it. A reader that is dropped gives back what it
//!   has not given.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::session_handle::{SessionHandle, SessionTurn};
use super::stream_reader::{MergedRun, StreamReadError, StreamReader};
use super::stream_sessions::SessionRequest;
use super::{Delivery, ReadFrom, ReadRequest, Receipt};
use crate::events::log::{ReadError, Run};
use crate::events::subscription::StreamNumber;
use crate::events::{Cursor, CursorPair, Events};
use crate::kernel::names::{AppId, Stream, Streams, SubscriptionName};

/// What is read, from where.
pub(crate) struct MergedReader {
    events: Events,
    app: AppId,
    streams: Streams,
    readers: Vec<StreamReader>,
    /// Where its caller stands.
    cursor: CursorPair,
    /// When it is an open stream of a subscription.
    session: Option<SessionHandle>,
    /// Cancelled when the gateway stops: then nothing waits any more.
    stopping: CancellationToken,
}

/// The caller has come again elsewhere: nothing is read or said here any more.
pub(crate) struct SessionOver;

impl MergedReader {
    /// Reads by these requests until it is to stop. Each is settled by handing it over, and markers are given.
    pub(crate) fn new(
        events: Events,
        app: AppId,
        streams: Streams,
        request: impl Fn(Stream) -> ReadRequest,
        stopping: CancellationToken,
    ) -> Self {
        let mut cursor = CursorPair::default();
        let reader = |&stream: &Stream| {
            let request = request(stream);
            if let ReadFrom::After(at) = request.place {
                cursor.give(stream, at);
            }
            StreamReader::new(stream, request)
        };
        let readers = streams.each().iter().map(reader).collect();
        Self { events, app, streams, readers, cursor, session: None, stopping }
    }

    /// Lets a session hold the receipts: this is an open stream of a subscription, whose caller says how far it got.
    pub(crate) async fn open_session(
        &mut self,
        subscription: &SubscriptionName,
        last: Option<CursorPair>,
    ) -> Result<(), ReadError> {
        let [reader, ..] = &*self.readers else { return Ok(()) };
        let client = &reader.request.client;
        let request = SessionRequest { app: &self.app, streams: self.streams, client, subscription, last };
        self.session = Some(SessionHandle::open(&self.events.0.sessions, &self.events, request).await?);
        Ok(())
    }

    /// Its session, if it has one.
    pub(crate) fn session(&self) -> Option<&SessionHandle> {
        self.session.as_ref()
    }

    /// To be held while it reads, or says what it read: who takes over waits for the end of it. None is needed without
    /// a session.
    pub(crate) fn turn(&self) -> Result<Option<SessionTurn>, SessionOver> {
        self.session.as_ref().map(|session| session.turn().ok_or(SessionOver)).transpose()
    }

    pub(crate) fn streams(&self) -> Streams {
        self.streams
    }

    /// Where the reader stands.
    pub(crate) fn cursor(&self) -> CursorPair {
        self.cursor
    }

    /// Entries that are stored, not yet read, and not held here.
    pub(crate) fn lag(&self) -> u64 {
        self.readers.iter().map(|reader| reader.lag).sum()
    }

    /// Gets something to give, if there is nothing; waits for it. Leaves off at the deadline, and when it is to stop.
    pub(crate) async fn fill(&mut self, wait: Duration) -> Result<(), StreamReadError> {
        match &mut *self.readers {
            [reader] if reader.runs.is_empty() => {
                let (read, number) = (reader.read(wait), number(self.session.as_ref()));
                let delivery = self.events.read_in_stream(&self.app, reader.stream, read, number).await;
                reader.take(delivery, &mut self.cursor, self.session.as_ref())
            }
            [_] => Ok(()),
            // In a box: the usual case is one stream, and should not hold room for two.
            _ => Box::pin(self.fill_all(wait)).await,
        }
    }

    async fn fill_all(&mut self, wait: Duration) -> Result<(), StreamReadError> {
        let deadline = self.events.0.parts.shared.clock.now() + wait;
        let number = number(self.session.as_ref());
        loop {
            // Both are looked at before one is given: what the other holds may have been received before.
            let (mut is_something, mut is_any) = (false, false);
            for reader in &mut self.readers {
                if reader.runs.is_empty() {
                    let read = reader.read(Duration::ZERO);
                    let delivery = self.events.read_in_stream(&self.app, reader.stream, read, number).await;
                    // An app need not have both.
                    if matches!(delivery, Err(ReadError::NoSuchStream)) {
                        reader.is_dry = true;
                        continue;
                    }
                    reader.take(delivery, &mut self.cursor, self.session.as_ref())?;
                }
                is_any = true;
                is_something |= !reader.runs.is_empty();
            }
            if !is_any {
                return Err(StreamReadError { stream: Stream::UserEvents, why: ReadError::NoSuchStream });
            }
            let left = deadline.saturating_duration_since(self.events.0.parts.shared.clock.now());
            if is_something || left.is_zero() || self.stopping.is_cancelled() {
                return Ok(());
            }
            let [one, other] = &mut *self.readers else { return Ok(()) };
            let (events, app) = (&self.events, &self.app);
            // The read that is dropped has taken nothing: only one that returns has.
            tokio::select! {
                delivery = or_never(events.read_in_stream(app, one.stream, one.read(left), number)) => {
                    one.take(delivery, &mut self.cursor, self.session.as_ref())?;
                }
                delivery = or_never(events.read_in_stream(app, other.stream, other.read(left), number)) => {
                    other.take(delivery, &mut self.cursor, self.session.as_ref())?;
                }
            }
        }
    }

    /// The run that is next to be given.
    pub(crate) fn peek(&self) -> Option<&Run> {
        self.first().and_then(|first| self.readers[first].runs.front())
    }

    /// Gives at most so many entries of the next run. `None`: it must be filled first.
    pub(crate) fn give(&mut self, max: usize) -> Option<MergedRun> {
        let first = self.first()?;
        self.readers[first].give(max, &mut self.cursor)
    }

    /// Gives back what it holds, less what was given; the receipts of the part that was given.
    pub(crate) fn give_back(&mut self) -> Vec<Receipt> {
        self.readers.iter_mut().filter_map(StreamReader::give_back).collect()
    }

    /// Retention has taken what was to be read next of a stream: goes on from the earliest kept.
    pub(crate) fn skip_to(&mut self, stream: Stream, earliest: Cursor) {
        for reader in self.readers.iter_mut().filter(|reader| reader.stream == stream) {
            reader.skip_to(earliest);
        }
        self.cursor.give(stream, earliest);
    }

    /// The reader whose run is next, if it is known which.
    fn first(&self) -> Option<usize> {
        if self.readers.iter().any(|reader| reader.runs.is_empty() && !reader.is_dry) {
            return None;
        }
        let received_at = |reader: &StreamReader| reader.runs.front().map(|run| run.batch.received_at);
        let waiting = self.readers.iter().enumerate().filter_map(|(n, reader)| Some((received_at(reader)?, n)));
        waiting.min().map(|(_, n)| n)
    }
}

fn number(session: Option<&SessionHandle>) -> Option<StreamNumber> {
    session.map(|session| session.number())
}

/// Reads. What an app does not have is waited for as long as anything.
async fn or_never(read: impl Future<Output = Result<Delivery, ReadError>>) -> Result<Delivery, ReadError> {
    match read.await {
        Err(ReadError::NoSuchStream) => std::future::pending().await,
        read => read,
    }
}
