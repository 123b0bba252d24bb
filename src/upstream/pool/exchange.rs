//! One request under way, until the head of its answer.
//!
//! Invariants: the seat is settled exactly once. When the head comes, whoever polls then, it is told so (or that it was
//! a 429); when no connection could be made, it is given back unused; in every other case, being dropped included, it
//! counts as sent: by now, if the other end closed, else until the time by which the network has forgotten the request.
//! The credential's pass is told the vendor's verdict at the same moment.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::ResponseFuture;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep};

use super::fault::Fault;
use super::lane::{PermitResult, REST, StreamPermit, StreamQueue};
use super::observer::ConnectionInfo;
use super::retry_after;
use crate::kernel::clock::Clock;
use crate::upstream::credentials::{Pass, Signed};
use crate::upstream::quota::Seat;

/// A request under way. Resolves with the head of the answer.
pub(crate) struct Exchange {
    lane: Arc<StreamQueue>,
    state: ExchangeState,
    connection: CaptureConnection,
    /// When it had a connection: from then on the request may have left.
    connected: Option<Instant>,
    held: Option<(Seat, Pass)>,
    until: Instant,
    clock: Clock,
}

enum ExchangeState {
    /// It was not polled yet.
    New(Request<Full<Bytes>>),
    /// No connection takes it now. `again`: when another is to be tried.
    Waiting {
        request: Request<Full<Bytes>>,
        turn: oneshot::Receiver<PermitResult>,
        again: Option<Pin<Box<Sleep>>>,
    },
    /// A connection has it, or is made for it. `again`: what is to be sent elsewhere if it cannot be made.
    Sent {
        response: ResponseFuture,
        permit: StreamPermit,
        again: Option<Request<Full<Bytes>>>,
    },
    Over,
}

impl Exchange {
    pub(super) fn new(signed: Signed, lane: Arc<StreamQueue>, until: Instant, clock: Clock) -> Self {
        let (mut request, seat, pass) = signed.into_parts();
        let connection = capture_connection(&mut request);
        let (state, held) = (ExchangeState::New(request), Some((seat, pass)));
        Self { lane, state, connection, connected: None, held, until, clock }
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
    pub(crate) fn unless_sent(mut self: Box<Self>) -> Option<Box<Self>> {
        if self.connected.is_some() {
            return Some(self);
        }
        self.held = None;
        None
    }

    /// Takes the connection that an answer came by out of the pool if it is too old.
    fn leave_if_old(&self, head: &Response<Incoming>) {
        let said = head.extensions();
        let Some(ConnectionInfo { number, until: Some(until) }) = said.get() else { return };
        if until.leave_if_over(&self.connection, self.clock.now())
            && let Some(permit) = said.get::<Arc<StreamPermit>>()
        {
            permit.leave(*number);
        }
    }

    fn settle(&mut self, answer: &Result<Response<Incoming>, Fault>) {
        let Some((mut seat, pass)) = self.held.take() else { return };
        match answer {
            Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => {
                seat.sending();
                seat.refused(retry_after::of(response.headers(), || self.clock.wall_ms()));
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

impl ExchangeState {
    fn wait(lane: &Arc<StreamQueue>, request: Request<Full<Bytes>>) -> Self {
        match lane.permit() {
            Ok(permit) => Self::send(permit, request),
            Err(turn) => {
                let again = lane.rests().then(|| Box::pin(sleep(REST)));
                Self::Waiting { request, turn, again }
            }
        }
    }

    fn send(permit: StreamPermit, request: Request<Full<Bytes>>) -> Self {
        let again = permit.is_further().then(|| request.clone());
        match permit.send(request) {
            Some(response) => Self::Sent { response, permit, again },
            None => Self::Over,
        }
    }

    /// Resolves with the head, or with why there is none.
    fn poll(&mut self, lane: &Arc<StreamQueue>, cx: &mut Context<'_>) -> Poll<Result<Response<Incoming>, Fault>> {
        let ended = || Fault::NotSent { timed_out: false, why: "the lane has ended".into() };
        loop {
            match std::mem::replace(self, Self::Over) {
                Self::New(request) => *self = Self::wait(lane, request),
                Self::Waiting { request, mut turn, mut again } => {
                    if let Poll::Ready(turn) = Pin::new(&mut turn).poll(cx) {
                        *self = Self::send(turn.map_err(|_| ended())??, request);
                        continue;
                    }
                    let rested = again.as_mut().is_some_and(|again| again.as_mut().poll(cx).is_ready());
                    *self = Self::Waiting { request, turn, again: again.filter(|_| !rested) };
                    if !rested {
                        return Poll::Pending;
                    }
                    lane.serve();
                }
                Self::Sent { mut response, permit, again } => {
                    let Poll::Ready(answer) = Pin::new(&mut response).poll(cx) else {
                        *self = Self::Sent { response, permit, again };
                        return Poll::Pending;
                    };
                    match answer.map_err(Fault::of) {
                        Ok(mut head) => {
                            // It is under way until its body has come.
                            head.extensions_mut().insert(Arc::new(permit));
                            return Poll::Ready(Ok(head));
                        }
                        Err(fault @ Fault::NotSent { .. }) => match (permit.failed(&fault), again) {
                            (true, Some(request)) => *self = Self::wait(lane, request),
                            _ => return Poll::Ready(Err(fault)),
                        },
                        Err(fault) => return Poll::Ready(Err(fault)),
                    }
                }
                Self::Over => return Poll::Ready(Err(ended())),
            }
        }
    }
}

impl Future for Exchange {
    type Output = Result<Response<Incoming>, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Poll::Ready(answer) = this.state.poll(&this.lane, cx) else {
            if this.connected.is_none() && this.connection.connection_metadata().is_some() {
                this.connected = Some(this.clock.now());
            }
            return Poll::Pending;
        };
        this.settle(&answer);
        if let Ok(head) = &answer {
            this.leave_if_old(head);
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
