//! The connections of one app, in one region, for one kind of request.
//!
//! Invariants:
//! - Nothing here is shared with another lane: what hangs on one app's messages takes no connection, stream or window from
//!   its reads of events, nor anything from another app.
//! - A request is handed to a connection only when that takes one more. Until then nothing of it was sent, and its caller
//!   may still leave.
//! - One connection is made at a time while nobody knows what the host speaks; who comes meanwhile waits for it, and fails
//!   with it. On HTTP/1.1 there is then one for each request under way. On HTTP/2 requests share one, and another is made
//!   when it takes no more, up to [`MOST`]; beyond them requests wait, first come, first served.
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
use super::watch::{Told, Watching};
use super::{Connector, Upstream};
use crate::kernel::sync::lock;
use crate::upstream::credentials::Signed;

/// HTTP/2 connections of a lane. At the hundred streams that servers usually take, more than any bucket has seats.
const MOST: usize = 16;

/// After a further connection could not be made, none is tried for so long.
pub(super) const REST: Duration = Duration::from_secs(1);

pub(super) type Sending = Client<Watching<Connector>, Full<Bytes>>;

/// The connections. Made when they are needed.
pub(crate) struct Lane(Arc<Shared>);

pub(super) struct Shared {
    upstream: Arc<Upstream>,
    /// How many are open.
    open: Gauge,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    waiting: VecDeque<oneshot::Sender<Turn>>,
    /// Of slots and connections.
    numbers: u64,
    /// No further connection is tried before.
    rests_until: Option<Instant>,
}

struct Slot {
    number: u64,
    client: Sending,
    under_way: usize,
    stage: Stage,
}

/// What is known of a slot's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// There is none.
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
pub(super) type Turn = Result<Place, Fault>;

/// The right to have one request under way in a slot. Given back when it is dropped.
pub(super) struct Place {
    shared: Arc<Shared>,
    slot: u64,
    /// For whom the connection is made.
    opens: Option<Opens>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opens {
    /// The only one.
    First,
    /// Another beside those that take no more.
    Further,
}

impl Lane {
    pub(super) fn new(upstream: Arc<Upstream>, open: Gauge) -> Self {
        Self(Arc::new(Shared { upstream, open, state: Mutex::default() }))
    }

    /// Begins an exchange, which is to be given up at `until` at the latest. Nothing happens before it is polled.
    pub(crate) fn send(&self, signed: Signed, until: Instant) -> Exchange {
        Exchange::new(signed, self.0.clone(), until, self.0.upstream.clock.clone())
    }
}

impl Slot {
    /// How many requests it takes at a time.
    fn takes(&self) -> usize {
        match self.stage {
            Stage::Cold | Stage::Opening | Stage::Left => 0,
            Stage::Http1 => usize::MAX,
            Stage::Http2 { streams: None, .. } => 1,
            Stage::Http2 { streams: Some(streams), .. } => streams,
        }
    }

    /// A connection takes no more.
    fn is_left_by(&mut self, connection: u64) {
        if matches!(self.stage, Stage::Http2 { number, .. } if number == connection) {
            self.stage = Stage::Cold;
        }
    }

    /// Whether it has a connection that takes requests, or may have one soon.
    fn lives(&self) -> bool {
        !matches!(self.stage, Stage::Cold | Stage::Left)
    }

    fn is_unused(&self) -> bool {
        self.under_way == 0 && !self.lives()
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.number == number)
    }

    /// Whether it is not known yet what a connection that is made or has just been made takes.
    fn is_opening(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot.stage, Stage::Opening | Stage::Http2 { streams: None, .. }))
    }

    /// Takes a place for one more request, if there is one now.
    fn take(&mut self, shared: &Arc<Shared>) -> Option<Place> {
        let place = |slot: &mut Slot, opens| {
            slot.under_way += 1;
            Some(Place { shared: shared.clone(), slot: slot.number, opens })
        };
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.under_way < slot.takes()) {
            return place(slot, None);
        }
        if self.is_opening() {
            return None;
        }
        let is_first = !self.slots.iter().any(Slot::lives);
        if !is_first && self.rests_until.is_some_and(|until| shared.upstream.clock.now() < until) {
            return None;
        }
        if !self.slots.iter().any(|slot| slot.stage == Stage::Cold) {
            if self.slots.iter().filter(|slot| slot.lives()).count() >= MOST {
                return None;
            }
            let number = self.number();
            let told = Arc::new(Of { shared: Arc::downgrade(shared), slot: number, open: shared.open.clone() });
            let client = shared.upstream.client(told);
            self.slots.push(Slot { number, client, under_way: 0, stage: Stage::Cold });
        }
        let slot = self.slots.iter_mut().find(|slot| slot.stage == Stage::Cold)?;
        slot.stage = Stage::Opening;
        place(slot, Some(if is_first { Opens::First } else { Opens::Further }))
    }

    /// Takes out the slots that nobody uses any more, to be dropped where no lock is held: those that were left, and those
    /// at the end.
    fn trim(&mut self) -> Vec<Slot> {
        let used = self.slots.iter().rposition(|slot| !slot.is_unused()).map_or(0, |last| last + 1);
        let mut unused = self.slots.split_off(used);
        unused.extend(self.slots.extract_if(.., |slot| slot.stage == Stage::Left && slot.is_unused()));
        unused
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// A place, now or, behind those who wait already, later.
    pub(super) fn place(self: &Arc<Self>) -> Result<Place, oneshot::Receiver<Turn>> {
        let mut state = self.state();
        if state.waiting.is_empty()
            && let Some(place) = state.take(self)
        {
            return Ok(place);
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
            let Some(place) = state.take(self) else { return };
            let turn = state.waiting.pop_front();
            drop(state);
            // One who left in this moment gives it back by that.
            if let Some(turn) = turn {
                let _ = turn.send(Ok(place));
            }
        }
    }

    fn change(self: &Arc<Self>, slot: u64, change: impl FnOnce(&mut Slot)) {
        let mut state = self.state();
        if let Some(slot) = state.slot(slot) {
            change(slot);
        }
        let unused = state.trim();
        drop(state);
        drop(unused);
        self.serve();
    }
}

impl Place {
    /// Begins to send a request.
    pub(super) fn send(&self, request: Request<Full<Bytes>>) -> Option<ResponseFuture> {
        self.shared.state().slot(self.slot).map(|slot| slot.client.request(request))
    }

    /// Whether it makes a connection beside others.
    pub(super) fn is_further(&self) -> bool {
        self.opens == Some(Opens::Further)
    }

    /// Its connection could not be made. Whether its request is to wait for another place instead of failing.
    pub(super) fn failed(mut self, fault: &Fault) -> bool {
        let Some(opens) = self.opens.take() else { return false };
        let mut waiting = VecDeque::new();
        let mut state = self.shared.state();
        if let Some(slot) = state.slot(self.slot).filter(|slot| slot.stage == Stage::Opening) {
            slot.stage = Stage::Cold;
        }
        let lives = state.slots.iter().any(Slot::lives);
        if lives {
            state.rests_until = Some(self.shared.upstream.clock.now() + REST);
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
        self.shared.change(self.slot, |slot| slot.is_left_by(connection));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let opens = self.opens.is_some();
        self.shared.change(self.slot, |slot| {
            slot.under_way = slot.under_way.saturating_sub(1);
            if opens && slot.stage == Stage::Opening {
                slot.stage = Stage::Cold;
            }
        });
    }
}

/// A slot, as its connections know it.
struct Of {
    shared: Weak<Shared>,
    slot: u64,
    open: Gauge,
}

impl Told for Of {
    fn opened(&self, is_http_2: bool) -> u64 {
        self.open.inc();
        let Some(shared) = self.shared.upgrade() else { return 0 };
        let number = shared.state().number();
        shared.change(self.slot, |slot| {
            // Of one that was left, who was on the way to it may make another.
            if slot.stage != Stage::Left {
                slot.stage = if is_http_2 { Stage::Http2 { number, streams: None } } else { Stage::Http1 };
            }
        });
        number
    }

    fn takes(&self, connection: u64, takes: usize) {
        let Some(shared) = self.shared.upgrade() else { return };
        shared.change(self.slot, |slot| {
            if let Stage::Http2 { number, streams } = &mut slot.stage
                && *number == connection
            {
                *streams = Some(takes);
            }
        });
    }

    fn goes_away(&self) {
        let Some(shared) = self.shared.upgrade() else { return };
        // Whichever of its client's it is: of several that were made at a time, the client keeps one of its own choice.
        shared.change(self.slot, |slot| slot.stage = Stage::Left);
    }

    fn closed(&self, connection: u64) {
        self.open.dec();
        let Some(shared) = self.shared.upgrade() else { return };
        shared.change(self.slot, |slot| slot.is_left_by(connection));
    }
}
