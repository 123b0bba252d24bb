//! Knowing that a response was handed over: what a connection and the bodies it carries tell each other.
//!
//! A response is handed over when its body was taken whole by the HTTP machinery and, after that, everything buffered
//! was written and flushed to the system. Where the connection dies before, its ending is dropped instead, and
//! the events of the response are given again.
//!
//! How it is known: the connection's I/O says [`Wire::flushed`] after each successful flush, and [`Wire::wrote`] when
//! it takes more bytes; the connection's driver says [`Wire::settle`] after each turn of the HTTP machinery.
//! - HTTP/1.1 flushes only when its write buffer is empty, so a flush after the body was taken carries all of it.
//! - HTTP/2 may flush between frames, but ends a turn with a flush only when no frame that fits the caller's
//!   window is left; and a body is over only when all of it fits (see `Body::bind`).
//!
//! What is not known: whether the peer's machine, or the program on it, has read the bytes. A response small enough for
//! the socket's buffers counts as handed over although the caller crashed before reading it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What happens when a response ends. Dropped when it was not handed over.
pub trait Ending: Send + fmt::Debug {
    /// How many bytes of the body the connection took.
    fn taken(&mut self, bytes: u64);
    /// All of the response was handed over.
    fn handed_over(self: Box<Self>);
}

/// What one connection knows of the responses it carries. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Wire(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    in_hand: AtomicU32,
    /// Everything written was also flushed.
    clean: AtomicBool,
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    /// Taken whole; bytes may be in a buffer.
    taken: Vec<Waiting>,
    /// A flush went through after that.
    flushed: Vec<Waiting>,
    closed: bool,
}

#[derive(Debug)]
struct Waiting {
    ending: Option<Box<dyn Ending>>,
    _ticket: Option<Ticket>,
}

/// One request in hand: from the call of the handler until its response was flushed, or given up.
#[derive(Debug)]
pub struct Ticket(Wire);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.0.in_hand.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Ticket {
    pub(super) fn taken_whole(self, ending: Option<Box<dyn Ending>>) {
        let wire = self.0.clone();
        let mut lists = wire.lists();
        if !lists.closed {
            lists.taken.push(Waiting { ending, _ticket: Some(self) });
        }
        // A closed connection drops both here.
    }

    /// A part of the body that has an ending of its own was taken; the request goes on.
    pub(super) fn part(&self, ending: Box<dyn Ending>) {
        let mut lists = self.0.lists();
        if !lists.closed {
            lists.taken.push(Waiting { ending: Some(ending), _ticket: None });
        }
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
        Ticket(self.clone())
    }

    /// How many requests are in hand. When none is, nothing of a handler's is in any buffer.
    #[must_use]
    pub fn in_hand(&self) -> u32 {
        self.0.in_hand.load(Ordering::Acquire)
    }

    /// Bytes were handed to the I/O.
    pub fn wrote(&self) {
        self.0.clean.store(false, Ordering::Release);
    }

    /// The I/O was flushed.
    pub fn flushed(&self) {
        self.0.clean.store(true, Ordering::Release);
        let mut lists = self.lists();
        let Lists { taken, flushed, .. } = &mut *lists;
        flushed.append(taken);
    }

    /// A turn of the HTTP machinery is over: tells the endings of what was handed over.
    pub fn settle(&self) {
        if !self.0.clean.load(Ordering::Acquire) {
            return;
        }
        let flushed = std::mem::take(&mut self.lists().flushed);
        for waiting in flushed {
            if let Some(ending) = waiting.ending {
                ending.handed_over();
            }
        }
    }

    /// The connection is gone: what was not handed over will not be.
    pub fn close(&self) {
        let mut lists = self.lists();
        lists.closed = true;
        let given_up = (std::mem::take(&mut lists.taken), std::mem::take(&mut lists.flushed));
        drop(lists);
        drop(given_up);
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.0.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
