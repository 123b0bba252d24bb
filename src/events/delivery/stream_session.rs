//! A [`StreamSession`]: one stream of a subscription, from its opening to its end, as the next one may ask about it.
//!
//! Invariants: of each stream at most one read waits to be flushed; the next begins when it was. What is on its way is
//! settled once: by its acknowledgement by the other end's system, or when the session is over by the caller's word;
//! what a session says of it is so in the subscription, too, whenever the session's lock is free.

use std::future::poll_fn;
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::sent_entries::{InFlightRead, ReadProgress, SentEntries};
use crate::events::subscription::StreamNumber;
use crate::events::{CursorPair, Receipt};
use crate::kernel::names::{AppId, ClientName, Stream, Streams, SubscriptionName};
use crate::kernel::sync::lock;

/// Which session it is. By this order those of a subscription are together, the earlier first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionKey {
    pub(super) app: AppId,
    pub(super) subscription: SubscriptionName,
    pub(super) number: StreamNumber,
}

/// One open stream of a subscription.
#[derive(Debug)]
pub(crate) struct StreamSession {
    pub(super) client: ClientName,
    pub(super) key: SessionKey,
    /// Where its caller said that it was.
    pub(super) began: Option<CursorPair>,
    /// Held while one of the client's streams of the subscription takes over from others.
    pub(super) takeover: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<SessionState>,
    /// Wakes those who wait until its turn ends.
    turn_ended: Notify,
    /// Wakes the stream, which waits for a flush.
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct SessionState {
    /// By the order of [`Stream::ALL`].
    sent: [SentEntries; 2],
    /// How many reads there were.
    reads: u64,
    is_over: bool,
    /// Whether it may take entries that it does not hold yet, or say what it holds.
    has_turn: bool,
}

impl SessionState {
    /// What becomes of what is on its way is for the stream itself to say, unless it is over: then its caller does.
    fn own_sent(&mut self) -> &mut [SentEntries] {
        if self.is_over { &mut [] } else { &mut self.sent }
    }
}

impl StreamSession {
    pub(super) fn new(
        client: ClientName,
        key: SessionKey,
        began: Option<CursorPair>,
        takeover: Arc<tokio::sync::Mutex<()>>,
    ) -> Self {
        Self {
            client,
            key,
            began,
            takeover,
            state: Mutex::default(),
            turn_ended: Notify::new(),
            waker: AtomicWaker::new(),
        }
    }

    /// Which stream it is: no other has its number.
    pub(crate) fn number(&self) -> StreamNumber {
        self.key.number
    }

    /// Begins to read, or to say what was read; whoever takes over waits for the end of that. Not when it is over.
    pub(super) fn begin_turn(&self) -> bool {
        let mut state = self.state();
        state.has_turn = !state.is_over;
        state.has_turn
    }

    pub(super) fn end_turn(&self) {
        self.state().has_turn = false;
        self.turn_ended.notify_waiters();
    }

    /// Waits until it neither reads nor says anything.
    pub(super) async fn rests(&self) {
        loop {
            // Listened for before it is looked: a turn that ends in between is not missed.
            let mut turn_ended = pin!(self.turn_ended.notified());
            turn_ended.as_mut().enable();
            if !self.state().has_turn {
                return;
            }
            turn_ended.await;
        }
    }

    /// These entries were read, and are on their way.
    pub(crate) fn hold(&self, stream: Stream, entries: Range<u64>, receipt: Receipt) {
        let mut state = self.state();
        if state.is_over {
            // It is given back.
            return;
        }
        state.reads += 1;
        let number = state.reads;
        let read = InFlightRead { number, entries, receipt, progress: ReadProgress::Partial };
        state.sent[stream as usize].in_flight.push_back(read);
    }

    /// All of what was read last was given to the connection. Says which read that was.
    pub(super) fn was_written(&self, stream: Stream) -> u64 {
        let mut state = self.state();
        let last = state.sent[stream as usize].in_flight.back_mut();
        // There is none when the caller has come again elsewhere.
        last.map_or(0, |last| {
            last.progress = ReadProgress::Written;
            last.number
        })
    }

    /// Waits until nothing that was given is still to be flushed.
    pub(crate) async fn flushed(&self) {
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            let state = self.state();
            let is_unflushed =
                |sent: &SentEntries| sent.in_flight.back().is_some_and(|last| last.progress == ReadProgress::Written);
            let is_waiting = !state.is_over && state.sent.iter().any(is_unflushed);
            if is_waiting { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// A read was flushed.
    pub(super) fn was_flushed(&self, stream: Stream, number: u64) {
        let in_flight = |read: &&mut InFlightRead| read.number == number;
        if let Some(read) = self.state().sent[stream as usize].in_flight.iter_mut().find(in_flight) {
            read.progress = ReadProgress::Flushed;
        }
        self.waker.wake();
    }

    /// A read was acknowledged.
    pub(super) fn settle(&self, stream: Stream, number: u64) {
        // The lock is held until the subscription knows, so that nobody who takes over sees one without the other.
        let mut state = self.state();
        let Some(sent) = state.own_sent().get_mut(stream as usize) else { return };
        let Some(InFlightRead { entries, receipt, .. }) = sent.take(number) else { return };
        sent.remember(entries);
        receipt.handed_over();
    }

    /// A read will not arrive.
    pub(super) fn give_back(&self, stream: Stream, number: u64) {
        if let Some(sent) = self.state().own_sent().get_mut(stream as usize) {
            drop(sent.take(number));
        }
    }

    /// The stream itself is gone. What was given to the connection whole may arrive still.
    pub(super) fn give_back_unwritten(&self) {
        for sent in self.state().own_sent() {
            drop(sent.in_flight.pop_back_if(|last| last.progress == ReadProgress::Partial));
        }
    }

    /// Whether the caller has come again elsewhere.
    pub(crate) fn is_over(&self) -> bool {
        self.state().is_over
    }

    /// Ready when the caller has come again elsewhere.
    pub(super) fn poll_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.is_over() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The caller has come again, and says how far it got. If that was here, or where it was when this began, so that
    /// it got nothing here, this is over. Says whether it is.
    pub(super) fn ends_for(&self, streams: Streams, last: &CursorPair) -> bool {
        let mut state = self.state();
        let is_its_own = is_its_own(self.began.as_ref(), &state.sent, streams, last);
        state.is_over |= is_its_own;
        drop(state);
        self.waker.wake();
        is_its_own
    }

    /// Takes what it was given, and what of that is on its way.
    pub(super) fn take_sent(&self) -> [SentEntries; 2] {
        std::mem::take(&mut self.state().sent)
    }

    fn state(&self) -> MutexGuard<'_, SessionState> {
        lock(&self.state)
    }
}

/// Where a caller was, if it was given anything of this stream.
pub(super) fn given(last: &CursorPair, stream: Stream) -> Option<u64> {
    last.was_given(stream).then(|| last.of(stream).at.0)
}

/// Whether a caller that got to this place got there in a stream, or had it as its own place when that began.
pub(super) fn is_its_own(
    began: Option<&CursorPair>,
    sent: &[SentEntries; 2],
    streams: Streams,
    last: &CursorPair,
) -> bool {
    let is_here = |stream: &Stream| given(last, *stream).is_some_and(|at| sent[*stream as usize].has(at));
    began == Some(last) || streams.each().iter().any(is_here)
}
