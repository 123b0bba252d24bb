//! A stream of events: Server-Sent Events, for as long as the caller takes them.
//!
//! Invariants:
//! - A stream is a body, polled by its connection: it has no task of its own, and while nothing comes it holds one read that
//!   waits, whose deadline is the heartbeat. A caller that leaves drops it.
//! - The next piece is made when the caller has taken the last, so a slow one holds back itself only: one read of the log
//!   (shared with all others) and one piece of text. The next read begins when the last was flushed; what a piece holds counts as
//!   handed over once the system at the other end has acknowledged it.
//! - What is refused is refused before the first byte: afterwards a stream goes on, or ends between two events, and its
//!   caller comes again with `Last-Event-ID`. It ends when the gateway stops, when what let its caller in has expired or was
//!   withdrawn, and when the store fails.
//! - What retention took before the reader came to it is said by `event: reset`, and reading goes on from the earliest.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use prometheus_client::metrics::gauge::Gauge;

use super::merged_reader::{Failed, Given, MergedReader};
use crate::events::{CursorPair, ReadError, Receipt};
use crate::http::body::handover::{Delivered, Ending};
use crate::http::body::{Body, Piece};
use crate::kernel::metrics::StreamLabels;
use crate::kernel::names::{AppId, Streams, SubscriptionName};
use crate::kernel::proof::Proof;
use crate::request::gateway::Gateway;
use crate::request::refusal::Refusal;
use crate::request::response::{HandlerResponse, Origin};
use crate::request::routes::RequestContext;
use crate::request::streaming::text::{self, Extra};
use crate::store::Content;

/// How often a stream in which nothing comes shows that it lives.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);

/// What a stream begins with: how many milliseconds a reader waits before it comes again.
pub(super) const BEGINNING: &[u8] = b"retry: 2000\n";
/// A comment. Neither has an empty line after it: there are readers that take each of those for an event.
pub(super) const BEAT: Bytes = Bytes::from_static(b":\n");

/// Bytes of events that a stream holds of what it has read, at most (one event at least): a thousand of 180 bytes. So much a
/// reader that does not take them costs, beside what the system holds for it; all who keep up share theirs.
pub(in crate::request::routes) const HOLDS: usize = 176 << 10;
/// Bytes of a piece that is made for one reader: more begin another piece.
const PIECE: usize = 32 << 10;
/// A shared text is a piece of its own from this size; smaller ones are copied together.
const LARGE: usize = 1024;
/// A reader that is not further behind than this reads what others read too: its texts are kept.
const NEAR_THE_END: u64 = 4000;

/// An open stream.
struct Open {
    gateway: Arc<Gateway>,
    proof: Proof,
    app: AppId,
    feed: MergedReader,
    is_begun: bool,
    _counted: Counted,
}

/// Answers with a stream.
pub(super) async fn open(
    asked: RequestContext<'_>,
    proof: Proof,
    mut feed: MergedReader,
    stored: Option<(SubscriptionName, Option<CursorPair>)>,
) -> Result<HandlerResponse, Refusal> {
    asked.guard.start_streaming()?;
    if let Some((name, last)) = stored {
        let (app, streams) = (&asked.app.id, feed.streams());
        let sittings = &asked.gateway.streaming.sittings;
        feed.sit(sittings.open(&asked.gateway.events, (app, streams), (&asked.payer.client, &name), last).await?);
    }
    let turn = feed.sitting().map(|sitting| sitting.turn());
    // What was taken by retention is said in the stream.
    if !matches!(turn, Some(None))
        && let Err(Failed { why, .. }) = feed.fill(asked.gateway, Duration::ZERO).await
        && !matches!(why, ReadError::Expired { .. })
    {
        return Err(why.into());
    }
    drop(turn);
    let open = Open {
        gateway: Arc::clone(asked.gateway),
        proof,
        app: asked.app.id.clone(),
        _counted: Counted::new(asked.gateway, &asked.app.id, feed.streams()),
        feed,
        is_begun: false,
    };
    Ok(served(futures_util::stream::unfold(Box::new(open), Open::next)))
}

/// The answer that such pieces are.
pub(super) fn served(pieces: impl futures_util::Stream<Item = Piece> + Send + 'static) -> HandlerResponse {
    let mut headers = HeaderMap::with_capacity(5);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx, and others after it: pass on what comes when it comes.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    HandlerResponse {
        status: StatusCode::OK,
        headers,
        body: Body::streaming(pieces),
        origin: Origin::Gateway,
        receipts: Vec::new(),
    }
}

impl Open {
    /// The next piece. `None`: the stream is over.
    async fn next(mut self: Box<Self>) -> Option<(Piece, Box<Self>)> {
        if !std::mem::replace(&mut self.is_begun, true) {
            let bytes = Bytes::from_static(BEGINNING);
            return Some((bytes.into(), self));
        }
        loop {
            // One read at a time waits to be flushed: so each has its own flush, which its acknowledgement is known by.
            if let Some(sitting) = self.feed.sitting() {
                tokio::select! {
                    () = sitting.flushed() => {}
                    _ = self.proof.ended() => return None,
                }
            }
            // What is not handed over is given back.
            if self.is_over() || self.proof.stands().await.is_err() {
                return None;
            }
            // From here on who takes over waits: so nothing is said after it has.
            let turn = self.feed.sitting().map(|sitting| sitting.turn());
            if matches!(turn, Some(None)) {
                return None;
            }
            let turn = turn.flatten();
            if let Some(piece) = self.piece() {
                return Some((piece, self));
            }
            let filled = tokio::select! {
                // First: what the caller's other stream gives back is not to be taken here.
                biased;
                () = poll_fn(|cx| turn.as_ref().map_or(Poll::Pending, |turn| turn.poll_over(cx))) => return None,
                filled = self.feed.fill(&self.gateway, HEARTBEAT) => filled,
                _ = self.proof.ended() => return None,
            };
            match filled {
                Ok(()) if self.feed.peek().is_some() => {}
                // The deadline, or the gateway stops.
                Ok(()) if self.is_over() => return None,
                Ok(()) => return Some((BEAT.into(), self)),
                Err(Failed { stream, why: ReadError::Expired { earliest, lost } }) => {
                    self.feed.skip_to(stream, earliest);
                    let mut bytes = Vec::new();
                    let marks = self.feed.marks();
                    push_reset(&mut bytes, &marks.text(self.feed.streams()), lost, &self.extra(&stream));
                    return Some((Bytes::from(bytes).into(), self));
                }
                Err(Failed { stream, why }) => {
                    tracing::warn!(app = %self.app, %stream, %why, "a stream of events ends");
                    return None;
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        self.gateway.stopping.is_cancelled() || self.feed.sitting().is_some_and(|sitting| sitting.is_over())
    }

    /// Makes a piece of what was read. It ends where a read does.
    fn piece(&mut self) -> Option<Piece> {
        let mut made = Vec::new();
        while made.len() < PIECE {
            let Some(run) = self.feed.peek() else { break };
            let is_shared =
                self.feed.streams() != Streams::All && self.feed.lag() <= NEAR_THE_END && text::is_kept(&run.batch);
            let most = match &run.batch.content {
                Content::Events(events) if !is_shared => events.fit(run.entries.start, PIECE),
                _ => usize::MAX,
            };
            let Some(given) = self.feed.give(most) else { break };
            // A marker of what retention took is nobody else's.
            if is_shared && given.lost == 0 {
                let epoch = given.marks.of(given.stream).epoch;
                let shared = self.gateway.streaming.texts.of(&given.run.batch, given.run.entries.clone(), epoch);
                if made.is_empty() && shared.len() >= LARGE {
                    return Some(self.ended_by(&given, shared));
                }
                made.extend_from_slice(&shared);
            } else {
                self.push(&mut made, &given);
            }
            if given.is_last {
                return Some(self.ended_by(&given, made.into()));
            }
        }
        (!made.is_empty()).then(|| Bytes::from(made).into())
    }

    /// The piece that a run ends. Without a subscription there is nothing to be told of its flush.
    fn ended_by(&self, given: &Given, bytes: Bytes) -> Piece {
        let sitting = self.feed.sitting().filter(|_| given.is_last);
        Piece { bytes, ending: sitting.map(|sitting| sitting.gave(given.stream)) }
    }

    fn push(&self, out: &mut Vec<u8>, given: &Given) {
        let (streams, batch) = (self.feed.streams(), &given.run.batch);
        let mut marks = given.marks;
        for index in given.run.entries.clone() {
            let epoch = marks.of(given.stream).epoch;
            marks.give(given.stream, crate::events::Cursor { epoch, at: batch.first.plus(index as u64) });
            let (id, extra) = (marks.text(streams), self.extra(&given.stream));
            if given.lost > 0 {
                push_reset(out, &id, Some(given.lost), &extra);
            } else {
                text::push(out, batch, index, &id, &extra);
            }
        }
    }

    /// The fields that an event of this stream has more.
    fn extra<'a>(&self, stream: &'a crate::kernel::names::Stream) -> Vec<Extra<'a>> {
        match self.feed.streams() {
            Streams::All => vec![("stream", stream)],
            Streams::One(_) => Vec::new(),
        }
    }
}

/// Tells that so many entries before this place are gone.
pub(super) fn push_reset(out: &mut Vec<u8>, earliest: &str, lost: Option<u64>, extra: &[Extra<'_>]) {
    let data = serde_json::json!({ "earliest": earliest, "lost": lost });
    text::push_ours(out, &earliest, "reset", &data, extra);
}

/// The read that a piece ends.
#[derive(Debug)]
pub(super) struct HandedOver(pub(super) Receipt);

impl Ending for HandedOver {
    fn flushed(self: Box<Self>) -> Option<Box<dyn Delivered>> {
        Some(self)
    }
}

impl Delivered for HandedOver {
    fn acknowledged(self: Box<Self>) {
        self.0.handed_over();
    }
}

/// One open stream, as the metric counts it.
pub(super) struct Counted(Gauge);

impl Counted {
    pub(super) fn new(gateway: &Gateway, app: &AppId, streams: Streams) -> Self {
        let labels = StreamLabels { app: app.to_string(), stream: streams.to_string() };
        let gauge = gateway.metrics.event_streams.get_or_create_owned(&labels);
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
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
        let idle = size_of_returned(Open::next) + size_of::<Open>();
        assert!(idle <= IDLE, "{idle} bytes: {} of its state", size_of::<Open>());
    }

    /// Bytes: of that, nine tenths are the read that waits.
    const IDLE: usize = 1700;
}
