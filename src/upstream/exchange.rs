//! One request under way, until the head of its answer.
//!
//! Invariants: the seat is settled exactly once. When the head comes, whoever polls then, it is told so (or that it was
//! a 429); when no connection could be made, it is given back unused; in every other case, being dropped included, it
//! counts as sent: by now, if the other end closed, else until the time by which the network has forgotten the request.
//! The credential's pass is told the vendor's verdict at the same moment.

use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use hyper_util::client::legacy::ResponseFuture;
use hyper_util::client::legacy::connect::CaptureConnection;
use tokio::time::Instant;

use super::age;
use super::fault::Fault;
use super::retry_after;
use crate::clock::Clock;
use crate::credentials::Pass;
use crate::quota::Seat;

/// A request under way. Resolves with the head of the answer.
pub(crate) struct Exchange {
    response: ResponseFuture,
    connection: CaptureConnection,
    /// When it had a connection: from then on the request may have left.
    connected: Option<Instant>,
    held: Option<(Seat, Pass)>,
    until: Instant,
    clock: Clock,
}

impl Exchange {
    pub(super) fn new(
        response: ResponseFuture,
        connection: CaptureConnection,
        held: (Seat, Pass),
        until: Instant,
        clock: Clock,
    ) -> Self {
        Self { response, connection, connected: None, held: Some(held), until, clock }
    }

    /// When it is to be given up at the latest. Until then the vendor may count what was sent, and no longer.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// When it had a connection; `None`: nothing was sent yet. (The request is handed to the connection while this is
    /// polled and at no other time, so what is said here holds until it is polled again.)
    pub(crate) fn connected(&self) -> Option<Instant> {
        self.connected
    }

    /// Ends it if nothing was sent yet: the seat is free at once. Else gives it back.
    pub(crate) fn unless_sent(mut self) -> Option<Self> {
        if self.connected.is_some() {
            return Some(self);
        }
        self.held = None;
        None
    }

    fn settle(&mut self, answer: &Result<Response<Incoming>, Fault>) {
        let Some((mut seat, pass)) = self.held.take() else { return };
        match answer {
            Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => {
                seat.sending();
                seat.refused(retry_after::of(response.headers(), self.clock.wall_ms()));
            }
            Ok(response) => {
                seat.sending();
                seat.answered();
                match response.status() {
                    StatusCode::UNAUTHORIZED => pass.refused(),
                    // Says nothing about the credential: a server in trouble may not have looked at it.
                    StatusCode::REQUEST_TIMEOUT => {}
                    status if status.is_server_error() => {}
                    _ => pass.accepted(),
                }
            }
            // Dropped without a word: nothing was sent, the seat is free at once.
            Err(Fault::NotSent { .. }) => {}
            Err(Fault::Unprocessed { .. } | Fault::MaybeSent { ended_there: true, .. }) => {
                seat.sending();
                seat.answered();
            }
            Err(Fault::MaybeSent { ended_there: false, .. }) => seat.abandoned(self.until),
        }
    }
}

impl Future for Exchange {
    type Output = Result<Response<Incoming>, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match Pin::new(&mut self.response).poll(cx) {
            Poll::Pending => {
                if self.connected.is_none() && self.connection.connection_metadata().is_some() {
                    self.connected = Some(self.clock.now());
                }
                return Poll::Pending;
            }
            Poll::Ready(answer) => answer.map_err(|error| Fault::of(&error)),
        };
        self.settle(&answer);
        if answer.is_ok() {
            age::leave_if_old(&self.connection, self.clock.now());
        }
        Poll::Ready(answer)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some((seat, _)) = self.held.take() {
            seat.abandoned(self.until);
        }
    }
}
