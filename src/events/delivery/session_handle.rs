//! A [`SessionHandle`]: an open stream's own hold on its [`StreamSession`], and what else keeps that listed.
//!
//! Invariant: a session is listed as long as its stream is open, has its turn, or has given something to the connection
//! that is not known to have arrived or to be lost.

use std::ops::Deref;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::stream_session::StreamSession;
use super::stream_sessions::{SessionRequest, StreamSessions};
use super::takeover::take_over;
use crate::events::Events;
use crate::events::log::ReadError;
use crate::http::body::handover::{Delivered, Ending};
use crate::kernel::names::Stream;

/// As long as there is one, its session is listed.
#[derive(Debug)]
struct SessionListing {
    session: Arc<StreamSession>,
    sessions: Arc<StreamSessions>,
}

impl Drop for SessionListing {
    fn drop(&mut self) {
        self.sessions.end(&self.session);
    }
}

/// An open stream's own hold on its session.
pub(crate) struct SessionHandle(Arc<SessionListing>);

impl Deref for SessionHandle {
    type Target = StreamSession;

    fn deref(&self) -> &StreamSession {
        &self.0.session
    }
}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        // The rest may arrive still, and keeps the session listed until that is known.
        self.give_back_unwritten();
    }
}

impl SessionHandle {
    /// A stream is opened. If its caller says how far it got in an earlier one, that one is ended, and what the caller
    /// has is settled, the rest given again.
    pub(crate) async fn open(
        sessions: &Arc<StreamSessions>,
        events: &Events,
        request: SessionRequest<'_>,
    ) -> Result<Self, ReadError> {
        let (handle, earlier) = Self::begin(sessions, &request);
        if let Some(last) = request.last {
            take_over(sessions, &handle, earlier, events, request.streams, last).await?;
        }
        Ok(handle)
    }

    fn begin(sessions: &Arc<StreamSessions>, request: &SessionRequest<'_>) -> (Self, Vec<Arc<StreamSession>>) {
        let (session, earlier) = sessions.begin(request);
        (Self(Arc::new(SessionListing { session, sessions: Arc::clone(sessions) })), earlier)
    }

    /// To be held while it reads, or says what it read; `None` when it is over.
    pub(crate) fn turn(&self) -> Option<SessionTurn> {
        self.begin_turn().then(|| SessionTurn(Arc::clone(&self.0)))
    }

    /// All of what was read last was given to the connection. What is returned is to be told of its flush and of its
    /// acknowledgement.
    pub(crate) fn written(&self, stream: Stream) -> Box<dyn Ending> {
        let number = self.was_written(stream);
        Box::new(WrittenRead { listing: Arc::clone(&self.0), stream, number })
    }
}

/// That a stream reads, or says what it read, until it is dropped.
pub(crate) struct SessionTurn(Arc<SessionListing>);

impl SessionTurn {
    /// Ready when the caller has come again elsewhere.
    pub(crate) fn poll_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.session.poll_over(cx)
    }
}

impl Drop for SessionTurn {
    fn drop(&mut self) {
        self.0.session.end_turn();
    }
}

/// Told when all of a read was flushed, and when it was acknowledged.
#[derive(Debug)]
struct WrittenRead {
    listing: Arc<SessionListing>,
    stream: Stream,
    number: u64,
}

impl Ending for WrittenRead {
    fn flushed(self: Box<Self>) -> Option<Box<dyn Delivered>> {
        self.listing.session.was_flushed(self.stream, self.number);
        Some(self)
    }
}

impl Delivered for WrittenRead {
    fn acknowledged(self: Box<Self>) {
        self.listing.session.settle(self.stream, self.number);
    }
}

/// It will not arrive, unless it was settled.
impl Drop for WrittenRead {
    fn drop(&mut self) {
        self.listing.session.give_back(self.stream, self.number);
    }
}

#[cfg(test)]
mod tests;
