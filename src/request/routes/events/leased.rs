//! A stream of events that are acknowledged one by one or by lease: Server-Sent Events, each batch under a lease.
//!
//! Invariants: as those of [`super::sse`], but that what a piece holds is leased, not handed over, and that a reader has at
//! most `limit` events that it has not settled: the next batch is leased when one before it is over. `Last-Event-ID` says
//! nothing here: what was not acknowledged comes again by itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select_all;

use super::sse::{BEAT, BEGINNING, Counted, HEARTBEAT, HandedOver, push_reset, served};
use crate::events::{Cursor, Delivery, Leased, ReadRequest};
use crate::http::body::Piece;
use crate::http::body::handover::Ending;
use crate::kernel::names::{AppId, Stream, Streams};
use crate::kernel::proof::Proof;
use crate::request::gateway::Gateway;
use crate::request::refusal::Refusal;
use crate::request::response::HandlerResponse;
use crate::request::routes::RequestContext;
use crate::request::streaming::text;

/// An open stream.
struct Open {
    gateway: Arc<Gateway>,
    proof: Proof,
    app: AppId,
    stream: Stream,
    /// What each read asks; its limit is the most events that are out at a time.
    read: ReadRequest,
    is_begun: bool,
    /// What was read before the first byte.
    first: Option<Delivery>,
    /// What is out, and how many events of each.
    out: Vec<Leased>,
    _counted: Counted,
}

/// Answers with a stream.
pub(super) async fn open(
    asked: RequestContext<'_>,
    proof: Proof,
    stream: Stream,
    read: ReadRequest,
) -> Result<HandlerResponse, Refusal> {
    asked.guard.start_streaming()?;
    let at_once = ReadRequest { wait: Duration::ZERO, ..read.clone() };
    let first = asked.gateway.events.read(&asked.app.id, stream, at_once).await?;
    let open = Open {
        gateway: Arc::clone(asked.gateway),
        proof,
        app: asked.app.id.clone(),
        stream,
        read,
        is_begun: false,
        first: first.leased.is_some().then_some(first),
        out: Vec::new(),
        _counted: Counted::new(asked.gateway, &asked.app.id, Streams::One(stream)),
    };
    Ok(served(futures_util::stream::unfold(Box::new(open), Open::next)))
}

impl Open {
    /// The next piece. `None`: the stream is over.
    async fn next(mut self: Box<Self>) -> Option<(Piece, Box<Self>)> {
        if !std::mem::replace(&mut self.is_begun, true) {
            return Some((Bytes::from_static(BEGINNING).into(), self));
        }
        if self.gateway.stopping.is_cancelled() || self.proof.stands().await.is_err() {
            return None;
        }
        if let Some(first) = self.first.take() {
            return self.given(first);
        }
        let waited = tokio::time::sleep(HEARTBEAT);
        tokio::pin!(waited);
        while self.room() == 0 {
            let over = select_all(self.out.iter().map(|leased| Box::pin(leased.over())));
            let is_late = tokio::select! {
                _ = over => false,
                () = &mut waited => true,
                () = self.gateway.stopping.cancelled() => return None,
                _ = self.proof.ended() => return None,
            };
            if is_late {
                return Some((BEAT.into(), self));
            }
        }
        let read = ReadRequest { limit: self.room(), wait: HEARTBEAT, ..self.read.clone() };
        let reading = self.gateway.events.read(&self.app, self.stream, read);
        let delivery = tokio::select! {
            read = reading => read,
            () = self.gateway.stopping.cancelled() => return None,
            _ = self.proof.ended() => return None,
        };
        match delivery {
            Ok(Delivery { leased: None, .. }) => Some((BEAT.into(), self)),
            // What is not handed over is given back.
            Ok(_) if self.proof.stands().await.is_err() => None,
            Ok(delivery) => self.given(delivery),
            Err(why) => {
                tracing::warn!(app = %self.app, stream = %self.stream, %why, "a stream of events ends");
                None
            }
        }
    }

    fn given(mut self: Box<Self>, mut delivery: Delivery) -> Option<(Piece, Box<Self>)> {
        let leased = delivery.leased.take()?;
        let piece = piece(delivery, &leased);
        self.out.push(leased);
        Some((piece, self))
    }

    /// How many events more may be out.
    fn room(&mut self) -> usize {
        self.out.retain(|leased| !leased.is_over());
        let out: usize = self.out.iter().map(|leased| leased.attempts.len()).sum();
        self.read.limit.saturating_sub(out)
    }
}

fn piece(delivery: Delivery, leased: &Leased) -> Piece {
    let Delivery { runs, next, lost, receipt, .. } = delivery;
    let mut bytes = Vec::new();
    let entries = runs.iter().flat_map(|run| run.entries.clone().map(move |index| (&run.batch, index)));
    for (number, ((batch, index), attempt)) in entries.zip(&leased.attempts).enumerate() {
        let id = Cursor { at: batch.first.plus(index as u64), ..next };
        if number == 0 && lost > 0 {
            push_reset(&mut bytes, &id.to_string(), Some(lost), &[]);
        } else {
            text::push(&mut bytes, batch, index, &id, &[("lease", &leased.name), ("attempt", attempt)]);
        }
    }
    let ending: Box<dyn Ending> = Box::new(HandedOver(receipt));
    Piece { bytes: bytes.into(), ending: Some(ending) }
}
