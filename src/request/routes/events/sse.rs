//! A stream of events: Server-Sent Events, for as long as the caller takes them.
//!
//! Invariants:
//! - A stream is a body, polled by its connection: it has no task of its own, and while nothing comes it holds one read
//!   that waits, whose deadline is the heartbeat. A caller that leaves drops it.
//! - The next piece is made when the caller has taken the last, so a slow one holds back itself only: one read of the
//!   log (shared with all others) and one piece of text. The next read begins when the last was flushed; what a piece
//!   holds counts as handed over once the system at the other end has acknowledged it.
//! - What is refused is refused before the first byte: afterwards a stream goes on, or ends between two events, and its
//!   caller comes again with `Last-Event-ID`. It ends when the gateway stops, when what let its caller in has expired
//!   or was withdrawn, and when the store fails.
//! - How what it gives is settled is the one thing in which streams differ: by handing it over, or by the reader's
//!   word, in batches under a lease. `Last-Event-ID` says nothing to the latter.
//! - What retention took before the reader came to it is said by `event: reset`, and reading goes on from the earliest.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use prometheus_client::metrics::gauge::Gauge;

use super::sse_piece::{self, BEAT, BEGINNING};
use crate::events::{CursorPair, LeasedReader, MergedReader, ReadError, SessionOver, SessionTurn, StreamReadError};
use crate::http::body::{Body, Piece};
use crate::kernel::metrics::StreamLabels;
use crate::kernel::names::{AppId, Streams, SubscriptionName};
use crate::kernel::proof::Proof;
use crate::request::gateway::Gateway;
use crate::request::refusal::Refusal;
use crate::request::response::HandlerResponse;
use crate::request::routes::RequestContext;

/// How often a stream in which nothing comes shows that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// An open stream.
struct EventStream {
    gateway: Arc<Gateway>,
    proof: Proof,
    app: AppId,
    reader: EventReader,
    is_begun: bool,
    _gauge: OpenStreamGauge,
}

/// What a stream reads, by how that is settled.
pub(super) enum EventReader {
    /// By handing it over.
    OnHandover(MergedReader),
    /// By the reader's word. In a box: most streams are of the other kind, and should not hold room for it.
    Explicit(Box<LeasedReader>),
}

/// A subscription that a stream reads, and how far its caller got in an earlier stream.
pub(super) struct Resumption {
    pub(super) subscription: SubscriptionName,
    pub(super) last: Option<CursorPair>,
}

/// Answers with a stream.
pub(super) async fn open(
    context: RequestContext<'_>,
    proof: Proof,
    mut reader: EventReader,
    resumption: Option<Resumption>,
) -> Result<HandlerResponse, Refusal> {
    context.guard.start_streaming()?;
    reader.open(resumption).await?;
    let stream = EventStream {
        gateway: Arc::clone(context.gateway),
        proof,
        app: context.app.id.clone(),
        _gauge: OpenStreamGauge::new(context.gateway, &context.app.id, reader.streams()),
        reader,
        is_begun: false,
    };
    let mut headers = HeaderMap::with_capacity(5);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx, and others after it: pass on what comes when it comes.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    let body = Body::streaming(futures_util::stream::unfold(Box::new(stream), EventStream::next));
    Ok(HandlerResponse::of_gateway(StatusCode::OK, headers, body))
}

impl EventStream {
    /// The next piece. `None`: the stream is over.
    async fn next(mut self: Box<Self>) -> Option<(Piece, Box<Self>)> {
        if !std::mem::replace(&mut self.is_begun, true) {
            return Some((Bytes::from_static(BEGINNING).into(), self));
        }
        // A round that reads something makes the piece in the next: the proof may have ended while it waited.
        loop {
            let may_read = tokio::select! {
                may_read = self.reader.may_read() => may_read,
                _ = self.proof.ended() => return None,
            };
            // What is not handed over is given back.
            if self.is_over() || self.proof.stands().await.is_err() {
                return None;
            }
            if !may_read {
                return Some((BEAT.into(), self));
            }
            // From here on who takes over waits: so nothing is said after it has.
            let Ok(turn) = self.reader.turn() else { return None };
            if let Some(piece) = self.piece() {
                return Some((piece, self));
            }
            let filled = tokio::select! {
                // First: what the caller's other stream gives back is not to be taken here.
                biased;
                () = poll_fn(|cx| turn.as_ref().map_or(Poll::Pending, |turn| turn.poll_over(cx))) => return None,
                filled = self.reader.fill(HEARTBEAT) => filled,
                _ = self.proof.ended() => return None,
            };
            match filled {
                Ok(()) if self.reader.has_next() => {}
                // The deadline, or the gateway stops.
                Ok(()) if self.is_over() => return None,
                Ok(()) => return Some((BEAT.into(), self)),
                Err(failed) => return self.after(failed),
            }
        }
    }

    /// A read has failed. What retention took is told, and the stream goes on; all else ends it.
    fn after(mut self: Box<Self>, StreamReadError { stream, why }: StreamReadError) -> Option<(Piece, Box<Self>)> {
        match (&mut self.reader, why) {
            (EventReader::OnHandover(reader), ReadError::Expired { earliest, lost }) => {
                reader.skip_to(stream, earliest);
                let piece = sse_piece::reset(reader, stream, lost);
                Some((piece, self))
            }
            (_, why) => {
                tracing::warn!(app = %self.app, %stream, %why, "a stream of events ends");
                None
            }
        }
    }

    fn is_over(&self) -> bool {
        self.gateway.stopping.is_cancelled() || self.reader.is_over()
    }

    fn piece(&mut self) -> Option<Piece> {
        match &mut self.reader {
            EventReader::OnHandover(reader) => sse_piece::of_runs(reader, &self.gateway.sse_texts),
            EventReader::Explicit(reader) => {
                reader.give().map(|(delivery, leased)| sse_piece::of_lease(delivery, leased))
            }
        }
    }
}

impl EventReader {
    /// The first read, at once: what is refused is refused before the first byte. What was taken by retention is said
    /// in the stream, where it can be.
    async fn open(&mut self, resumption: Option<Resumption>) -> Result<(), ReadError> {
        let reader = match self {
            Self::OnHandover(reader) => reader,
            Self::Explicit(reader) => return reader.fill(Duration::ZERO).await,
        };
        if let Some(Resumption { subscription, last }) = resumption {
            reader.open_session(&subscription, last).await?;
        }
        // Who has come again elsewhere meanwhile is told nothing here.
        let Ok(_turn) = reader.turn() else { return Ok(()) };
        match reader.fill(Duration::ZERO).await {
            Err(StreamReadError { why, .. }) if !matches!(why, ReadError::Expired { .. }) => Err(why),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn streams(&self) -> Streams {
        match self {
            Self::OnHandover(reader) => reader.streams(),
            Self::Explicit(reader) => Streams::One(reader.stream()),
        }
    }

    /// Waits until it may read more; `false`: it may not yet, and it is time for a heartbeat.
    async fn may_read(&mut self) -> bool {
        match self {
            Self::OnHandover(reader) => {
                // One read at a time waits to be flushed: so each has its own flush, which its acknowledgement is known
                // by.
                if let Some(session) = reader.session() {
                    session.flushed().await;
                }
                true
            }
            // In a box, and so is its read: most streams have none, and should not hold room for it.
            Self::Explicit(reader) => Box::pin(reader.has_room(HEARTBEAT)).await,
        }
    }

    fn turn(&self) -> Result<Option<SessionTurn>, SessionOver> {
        match self {
            Self::OnHandover(reader) => reader.turn(),
            Self::Explicit(_) => Ok(None),
        }
    }

    /// Whether the caller has come again elsewhere.
    fn is_over(&self) -> bool {
        match self {
            Self::OnHandover(reader) => reader.session().is_some_and(|session| session.is_over()),
            Self::Explicit(_) => false,
        }
    }

    async fn fill(&mut self, wait: Duration) -> Result<(), StreamReadError> {
        match self {
            Self::OnHandover(reader) => reader.fill(wait).await,
            Self::Explicit(reader) => {
                let filled = Box::pin(reader.fill(wait)).await;
                filled.map_err(|why| StreamReadError { stream: reader.stream(), why })
            }
        }
    }

    fn has_next(&self) -> bool {
        match self {
            Self::OnHandover(reader) => reader.peek().is_some(),
            Self::Explicit(reader) => reader.has_next(),
        }
    }
}

/// One open stream, as the metric counts it.
struct OpenStreamGauge(Gauge);

impl OpenStreamGauge {
    fn new(gateway: &Gateway, app: &AppId, streams: Streams) -> Self {
        let labels = StreamLabels { app: app.to_string(), stream: streams.to_string() };
        let gauge = gateway.metrics.event_streams.get_or_create_owned(&labels);
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for OpenStreamGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How large what a function returns is.
    fn size_of_returned<A, R>(_: fn(A) -> R) -> usize {
        size_of::<R>()
    }

    #[test]
    fn an_idle_stream_holds_little() {
        let idle = size_of_returned(EventStream::next) + size_of::<EventStream>();
        assert!(idle <= IDLE, "{idle} bytes: {} of its state", size_of::<EventStream>());
    }

    /// Bytes: of that, nine tenths are the read that waits.
    const IDLE: usize = 1700;
}
