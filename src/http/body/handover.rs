//! Knowing that a response was handed over: what a connection and the bodies it carries tell each other.
//!
//! A response, or a part of one, comes to its caller in three steps:
//! 1. *taken*: the HTTP machinery has all of it, in its buffers or beyond;
//! 2. *flushed*: after that, everything buffered was given to the system. What waits for no more, as the request's
//!    place among those in hand, ends here ([`Ending`]);
//! 3. *acknowledged*: the system at the other end of the connection has said that it has all bytes up to there. Only
//!    then are the events in it handed over ([`Delivered`]).
//!
//! Where the connection dies before, what waits is dropped instead, and the events are given again.
//!
//! How it is known: the connection's I/O says [`Wire::flushed`] after each successful flush, with the number of bytes
//! that were written so far, [`Wire::wrote`] when it takes more bytes, and [`Wire::acknowledged`] when it has asked the
//! system; the connection's driver says [`Wire::settle`] after each turn of the HTTP machinery.
//! - HTTP/1.1 flushes only when its write buffer is empty, so a flush after the body was taken carries all of it.
//! - HTTP/2 may flush between frames, but ends a turn with a flush only when no frame that fits the caller's
//!   window is left; and a body is over only when all of it fits (see `Body::bind`).
//! - Bytes are counted below TLS and for all requests of the connection together: whatever lies between, a part that
//!   was flushed when so many bytes were written has arrived when so many are acknowledged.
//!
//! What is not known: whether the program at the other end has read the bytes. What its system has acknowledged counts
//! as handed over although the program crashed before reading it; and behind a proxy the other end is the proxy.

use crate::kernel::sync::lock;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// What happens when a response, or a part of it, was given to the system. Dropped when it was not.
pub trait Ending: Send + fmt::Debug {
    /// How many bytes of the body the connection took. Of a whole response only.
    fn taken(&mut self, _bytes: u64) {}

    /// Whether anything of it waits for the acknowledgement.
    fn is_awaited(&self) -> bool {
        false
    }

    /// All of it was given to the system. What is returned is told of the acknowledgement.
    fn flushed(self: Box<Self>) -> Option<Box<dyn Delivered>>;
}

/// What happens when the system at the other end has acknowledged all of a response, or of a part of it. Dropped when
/// it has not.
pub trait Delivered: Send + fmt::Debug {
    /// It has.
    fn acknowledged(self: Box<Self>);
}

/// What one connection knows of the responses it carries. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Wire(Arc<WireState>);

#[derive(Debug, Default)]
struct WireState {
    in_hand: AtomicU32,
    /// How many requests there were.
    requests: AtomicU64,
    /// Everything written was also flushed.
    clean: AtomicBool,
    /// Bytes written when it was flushed last.
    written: AtomicU64,
    /// It carries, or carried, what waits for acknowledgements.
    is_sparing: AtomicBool,
    /// Something has waited for longer than a first look.
    is_late: AtomicBool,
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    /// Taken whole; bytes may be in a buffer.
    taken: Vec<Waiting>,
    /// A flush went through after that.
    flushed: Vec<Waiting>,
    /// Given to the system when so many bytes were written, in order.
    given: VecDeque<(u64, Box<dyn Delivered>)>,
    /// Bytes that were acknowledged when last looked.
    acknowledged: u64,
    closed: bool,
}

#[derive(Debug)]
struct Waiting {
    request: u64,
    ending: Option<Box<dyn Ending>>,
    _ticket: Option<Ticket>,
}

/// One request in hand: from the call of the handler until its response was flushed, or given up.
#[derive(Debug)]
pub struct Ticket {
    wire: Wire,
    request: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.wire.0.in_hand.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Ticket {
    pub(super) fn taken_whole(self, ending: Option<Box<dyn Ending>>) {
        let wire = self.wire.clone();
        let mut lists = wire.lists();
        if !lists.closed {
            lists.taken.push(Waiting { request: self.request, ending, _ticket: Some(self) });
        }
        // A closed connection drops both here.
    }

    /// A part of the body that has an ending of its own was taken; the request goes on.
    pub(super) fn part(&self, ending: Box<dyn Ending>) {
        let mut lists = self.wire.lists();
        if !lists.closed {
            lists.taken.push(Waiting { request: self.request, ending: Some(ending), _ticket: None });
        }
    }

    /// The response is reset before its end: what was taken of it may never be written.
    pub(super) fn abandon(&self) {
        let is_of_it = |waiting: &mut Waiting| waiting.request == self.request;
        let mut lists = self.wire.lists();
        let Lists { taken, flushed, .. } = &mut *lists;
        let given_up: Vec<_> = taken.extract_if(.., is_of_it).chain(flushed.extract_if(.., is_of_it)).collect();
        drop(lists);
        drop(given_up);
    }

    /// What follows waits for acknowledgements, or goes on for long: the less of it waits in the system, the better.
    pub(super) fn be_sparing(&self) {
        self.wire.0.is_sparing.store(true, Ordering::Relaxed);
    }
}

impl Wire {
    /// Of a new connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A request arrived.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.0.in_hand.fetch_add(1, Ordering::AcqRel);
        let request = self.0.requests.fetch_add(1, Ordering::Relaxed);
        Ticket { wire: self.clone(), request }
    }

    /// How many requests are in hand. When none is, nothing of a handler's is in any buffer.
    #[must_use]
    pub fn in_hand(&self) -> u32 {
        self.0.in_hand.load(Ordering::Acquire)
    }

    /// Whether it carries, or carried, what waits for acknowledgements.
    #[must_use]
    pub fn is_sparing(&self) -> bool {
        self.0.is_sparing.load(Ordering::Relaxed)
    }

    /// Bytes were handed to the I/O.
    pub fn wrote(&self) {
        self.0.clean.store(false, Ordering::Release);
    }

    /// The I/O was flushed; so many bytes were written by then.
    pub fn flushed(&self, written: u64) {
        self.0.written.store(written, Ordering::Relaxed);
        self.0.clean.store(true, Ordering::Release);
        let mut lists = self.lists();
        let Lists { taken, flushed, .. } = &mut *lists;
        flushed.append(taken);
    }

    /// A turn of the HTTP machinery is over: tells the endings of what was given to the system.
    pub fn settle(&self) {
        if !self.0.clean.load(Ordering::Acquire) {
            return;
        }
        let mut lists = self.lists();
        if lists.flushed.is_empty() {
            return;
        }
        // Told without the lock. The list goes back, empty, for the next request.
        let mut flushed = std::mem::take(&mut lists.flushed);
        drop(lists);
        let mut is_awaiting = false;
        let written = self.0.written.load(Ordering::Relaxed);
        for waiting in flushed.drain(..) {
            if let Some(delivered) = waiting.ending.and_then(|ending| ending.flushed()) {
                self.lists().given.push_back((written, delivered));
                is_awaiting = true;
            }
        }
        let mut lists = self.lists();
        if lists.flushed.is_empty() {
            lists.flushed = flushed;
        }
        drop(lists);
        if is_awaiting {
            // It may be there already.
            self.acknowledged(0);
        }
    }

    /// Whether anything waits for an acknowledgement.
    #[must_use]
    pub fn is_awaiting(&self) -> bool {
        self.is_sparing() && !self.lists().given.is_empty()
    }

    /// So many of the bytes that were written are acknowledged: what they carried is handed over.
    pub fn acknowledged(&self, bytes: u64) {
        loop {
            let mut lists = self.lists();
            lists.acknowledged = lists.acknowledged.max(bytes);
            let acknowledged = lists.acknowledged;
            let is_there = |waiting: &mut (u64, _)| waiting.0 <= acknowledged;
            let Some((_, delivered)) = lists.given.pop_front_if(is_there) else { break };
            // Told without the lock: it settles events, which may end in this connection's lists again.
            drop(lists);
            delivered.acknowledged();
        }
    }

    /// Whether something has waited for longer than a first look.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.0.is_late.load(Ordering::Relaxed)
    }

    /// Says whether it has.
    pub fn set_late(&self, is_late: bool) {
        self.0.is_late.store(is_late, Ordering::Relaxed);
    }

    /// The connection is gone: what was not handed over will not be.
    pub fn close(&self) {
        let mut lists = self.lists();
        lists.closed = true;
        let given_up = std::mem::take(&mut *lists);
        lists.closed = true;
        drop(lists);
        drop(given_up);
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        lock(&self.0.lists)
    }
}
