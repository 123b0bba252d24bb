//! The connections of one app, in one region, for one kind of request.
//!
//! Invariants:
//! - Nothing here is shared with another lane: what hangs on one app's messages takes no connection, stream or window
//!   from its reads of events, nor anything from another app.
//! - A request is handed to a connection only when that takes one more. Until then nothing of it was sent, and its
//!   caller may still leave.
//! - One connection is made at a time while nobody knows what the host speaks; who comes meanwhile waits for it, and
//!   fails with it. On HTTP/1.1 there is then one for each request under way. On HTTP/2 requests share one, and another
//!   is made when it takes no more, up to [`MAX_CONNECTIONS`]; beyond them requests wait, first come, first served.
//! - A further connection that cannot be made is no failure while another lives: its request waits like the others.
//! - Those who wait are bounded by the seats they hold. All state is under one short lock, in which nothing is sent,
//!   dropped or told.
//!
//! A slot is a client of hyper-util, which opens one HTTP/2 connection for itself and keeps idle ones for a while.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper_util::client::legacy::{Client, ResponseFuture};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::exchange::Exchange;
use super::fault::Fault;
use super::observer::{ConnectionObserver, ObservedConnector};
use super::{Connector, Upstream};
use crate::kernel::sync::lock;
use crate::upstream::credentials::Signed;

/// HTTP/2 connections of a lane. At the hundred streams that servers usually take, more than any bucket has seats.
const MAX_CONNECTIONS: usize = 16;

/// After a further connection could not be made, none is tried for so long.
pub(super) const REST: Duration = Duration::from_secs(1);

pub(super) type HttpClient = Client<ObservedConnector<Connector>, Full<Bytes>>;

/// The connections. Made when they are needed.
pub(crate) struct Lane(Arc<StreamQueue>);

pub(super) struct StreamQueue {
    upstream: Arc<Upstream>,
    /// How many are open.
    open: Gauge,
    state: Mutex<LaneState>,
}

#[derive(Default)]
struct LaneState {
    slots: Vec<Slot>,
    waiting: VecDeque<oneshot::Sender<PermitResult>>,
    /// Of slots and connections.
    numbers: u64,
    /// No further connection is tried before.
    rests_until: Option<Instant>,
}

struct Slot {
    number: u64,
    client: HttpClient,
    under_way: usize,
    connection: ConnectionState,
}

/// What is known of a slot's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionState {
    Cold,
    /// It is being made, for the first request.
    Opening,
    /// There is one for each request.
    Http1,
    /// All requests share it.
    Http2 {
        number: u64,
        /// How many at a time; `None`: it has not said yet.
        streams: Option<usize>,
    },
    /// The vendor goes away from a connection that the client would use again. Those under way have their end; then the
    /// slot goes, too.
    Left,
}

/// What one who waits is told.
pub(super) type PermitResult = Result<StreamPermit, Fault>;

/// The right to have one request under way in a slot. Given back when it is dropped.
pub(super) struct StreamPermit {
    queue: Arc<StreamQueue>,
    slot: u64,
    /// For whom the connection is made.
    opens: Option<Opens>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opens {
    First,
    /// Another beside those that take no more.
    Further,
}

impl Lane {
    pub(super) fn new(upstream: Arc<Upstream>, open: Gauge) -> Self {
        Self(Arc::new(StreamQueue { upstream, open, state: Mutex::default() }))
    }

    /// Begins an exchange, which is to be given up at `until` at the latest. Nothing happens before it is polled.
    pub(crate) fn send(&self, signed: Signed, until: Instant) -> Exchange {
        Exchange::new(signed, self.0.clone(), until, self.0.upstream.clock.clone())
    }
}

impl Slot {
    /// How many requests it takes at a time.
    fn takes(&self) -> usize {
        match self.connection {
            ConnectionState::Cold | ConnectionState::Opening | ConnectionState::Left => 0,
            ConnectionState::Http1 => usize::MAX,
            ConnectionState::Http2 { streams: None, .. } => 1,
            ConnectionState::Http2 { streams: Some(streams), .. } => streams,
        }
    }

    /// A connection takes no more.
    fn is_left_by(&mut self, connection: u64) {
        if matches!(self.connection, ConnectionState::Http2 { number, .. } if number == connection) {
            self.connection = ConnectionState::Cold;
        }
    }

    /// Whether it has a connection that takes requests, or may have one soon.
    fn lives(&self) -> bool {
        !matches!(self.connection, ConnectionState::Cold | ConnectionState::Left)
    }

    fn is_unused(&self) -> bool {
        self.under_way == 0 && !self.lives()
    }
}

impl LaneState {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.number == number)
    }

    /// Whether it is not known yet what a connection that is made or has just been made takes.
    fn is_opening(&self) -> bool {
        self.slots.iter().any(|slot| {
            matches!(slot.connection, ConnectionState::Opening | ConnectionState::Http2 { streams: None, .. })
        })
    }

    /// Takes a place for one more request, if there is one now.
    fn take(&mut self, queue: &Arc<StreamQueue>) -> Option<StreamPermit> {
        let permit = |slot: &mut Slot, opens| {
            slot.under_way += 1;
            Some(StreamPermit { queue: queue.clone(), slot: slot.number, opens })
        };
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.under_way < slot.takes()) {
            return permit(slot, None);
        }
        // A burst of a hundred requests would otherwise make a hundred connections, each with its own handshake, before
        // the first of them says that it speaks HTTP/2 and takes them all.
        if self.is_opening() {
            return None;
        }
        let is_first = !self.slots.iter().any(Slot::lives);
        if !is_first && self.rests_until.is_some_and(|until| queue.upstream.clock.now() < until) {
            return None;
        }
        if !self.slots.iter().any(|slot| slot.connection == ConnectionState::Cold) {
            if self.slots.iter().filter(|slot| slot.lives()).count() >= MAX_CONNECTIONS {
                return None;
            }
            let number = self.number();
            let observer =
                Arc::new(SlotObserver { queue: Arc::downgrade(queue), slot: number, open: queue.open.clone() });
            let client = queue.upstream.client(observer);
            self.slots.push(Slot { number, client, under_way: 0, connection: ConnectionState::Cold });
        }
        let slot = self.slots.iter_mut().find(|slot| slot.connection == ConnectionState::Cold)?;
        slot.connection = ConnectionState::Opening;
        permit(slot, Some(if is_first { Opens::First } else { Opens::Further }))
    }

    /// Takes out the slots that nobody uses any more, to be dropped where no lock is held: those that were left, and
    /// those at the end.
    fn trim(&mut self) -> Vec<Slot> {
        let used = self.slots.iter().rposition(|slot| !slot.is_unused()).map_or(0, |last| last + 1);
        let mut unused = self.slots.split_off(used);
        unused.extend(self.slots.extract_if(.., |slot| slot.connection == ConnectionState::Left && slot.is_unused()));
        unused
    }
}

impl StreamQueue {
    fn state(&self) -> MutexGuard<'_, LaneState> {
        lock(&self.state)
    }

    /// A place, now or, behind those who wait already, later.
    pub(super) fn permit(self: &Arc<Self>) -> Result<StreamPermit, oneshot::Receiver<PermitResult>> {
        let mut state = self.state();
        if state.waiting.is_empty()
            && let Some(permit) = state.take(self)
        {
            return Ok(permit);
        }
        let (turn, wait) = oneshot::channel();
        state.waiting.push_back(turn);
        drop(state);
        self.serve();
        Err(wait)
    }

    /// Whether no further connection is tried for a while.
    pub(super) fn rests(&self) -> bool {
        self.state().rests_until.is_some_and(|until| self.upstream.clock.now() < until)
    }

    /// Gives places to those who wait, as long as there are both.
    pub(super) fn serve(self: &Arc<Self>) {
        loop {
            let mut state = self.state();
            while state.waiting.front().is_some_and(oneshot::Sender::is_closed) {
                state.waiting.pop_front();
            }
            if state.waiting.is_empty() {
                return;
            }
            let Some(permit) = state.take(self) else { return };
            let turn = state.waiting.pop_front();
            // Not under the lock: who left drops the permit here and now, and that takes the lock again.
            drop(state);
            // One who left in this moment gives it back by that.
            if let Some(turn) = turn {
                let _ = turn.send(Ok(permit));
            }
        }
    }

    fn change(self: &Arc<Self>, slot: u64, change: impl FnOnce(&mut Slot)) {
        let mut state = self.state();
        if let Some(slot) = state.slot(slot) {
            change(slot);
        }
        let unused = state.trim();
        // Not under the lock: with a client foreign code is dropped, and what tells us of its connections takes it,
        // too.
        drop(state);
        drop(unused);
        self.serve();
    }
}

impl StreamPermit {
    /// Begins to send a request.
    pub(super) fn send(&self, request: Request<Full<Bytes>>) -> Option<ResponseFuture> {
        self.queue.state().slot(self.slot).map(|slot| slot.client.request(request))
    }

    /// Whether it makes a connection beside others.
    pub(super) fn is_further(&self) -> bool {
        self.opens == Some(Opens::Further)
    }

    /// Its connection could not be made. Whether its request is to wait for another place instead of failing.
    pub(super) fn failed(mut self, fault: &Fault) -> bool {
        let Some(opens) = self.opens.take() else { return false };
        let mut waiting = VecDeque::new();
        let mut state = self.queue.state();
        if let Some(slot) = state.slot(self.slot).filter(|slot| slot.connection == ConnectionState::Opening) {
            slot.connection = ConnectionState::Cold;
        }
        let lives = state.slots.iter().any(Slot::lives);
        if lives {
            // Others serve meanwhile: a host that takes no more connections is not asked for one by each request.
            state.rests_until = Some(self.queue.upstream.clock.now() + REST);
        } else {
            waiting = std::mem::take(&mut state.waiting);
        }
        drop(state);
        for turn in waiting {
            let _ = turn.send(Err(fault.clone()));
        }
        lives && opens == Opens::Further
    }

    /// The slot's connection is used no more: the next is made as the first was.
    pub(super) fn leave(&self, connection: u64) {
        self.queue.change(self.slot, |slot| slot.is_left_by(connection));
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let opens = self.opens.is_some();
        self.queue.change(self.slot, |slot| {
            slot.under_way = slot.under_way.saturating_sub(1);
            if opens && slot.connection == ConnectionState::Opening {
                slot.connection = ConnectionState::Cold;
            }
        });
    }
}

/// A slot, as its connections know it.
struct SlotObserver {
    queue: Weak<StreamQueue>,
    slot: u64,
    open: Gauge,
}

impl ConnectionObserver for SlotObserver {
    fn opened(&self, is_http_2: bool) -> u64 {
        self.open.inc();
        let Some(queue) = self.queue.upgrade() else { return 0 };
        let number = queue.state().number();
        queue.change(self.slot, |slot| {
            // Of one that was left, who was on the way to it may make another.
            if slot.connection != ConnectionState::Left {
                slot.connection =
                    if is_http_2 { ConnectionState::Http2 { number, streams: None } } else { ConnectionState::Http1 };
            }
        });
        number
    }

    fn takes(&self, connection: u64, takes: usize) {
        let Some(queue) = self.queue.upgrade() else { return };
        queue.change(self.slot, |slot| {
            if let ConnectionState::Http2 { number, streams } = &mut slot.connection
                && *number == connection
            {
                *streams = Some(takes);
            }
        });
    }

    fn goes_away(&self) {
        let Some(queue) = self.queue.upgrade() else { return };
        // Whichever of its client's it is: of several that were made at a time, the client keeps one of its own choice.
        queue.change(self.slot, |slot| slot.connection = ConnectionState::Left);
    }

    fn closed(&self, connection: u64) {
        self.open.dec();
        let Some(queue) = self.queue.upgrade() else { return };
        queue.change(self.slot, |slot| slot.is_left_by(connection));
    }
}
