//! A [`StreamSession`]: one stream of a subscription, from its opening to its end, as the next one may ask about it.
//!
//! Why: whoever comes again with `Last-Event-ID` says how far it got. Its old connection may not be known to be dead, and
//! what was written to it counts neither as read nor as given back. So the new stream looks for the old one, settles for it
//! what the caller has, gives back the rest, and ends it: otherwise both would go on, and the old one would give events to
//! nobody. The old one is where the caller got to the place that it names, and any that it opened from that same place: of
//! those nothing has reached it.
//!
//! How one takes over from others, while none else of its client and subscription does:
//! 1. Those that were listed before it and are its caller's are over: they read nothing and say nothing from then on. One
//!    that is over before its own turn to take over came takes nothing over: a later one speaks for it.
//! 2. It waits until none of them is in the middle of reading, or of saying, something.
//! 3. In one go, which nothing cuts short: what they have on their way is settled or given back, and what the caller does not
//!    have is given again. In a stream of both logs that is stored before anything is given.
//!
//! Invariants: of each stream at most one read waits to be flushed; the next begins when it was. What is on its way is
//! settled once: by its acknowledgement by the other end's system, or when the session is over by the caller's word; what a
//! session says of it is so in the subscription, too, whenever the session's lock is free. A session can be found as long as anything
//! of it is on its way, also when its stream has ended; of what it was given out of order something is known for longer.
//! Only the same client's word counts.

mod side;

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::ops::{Deref, Range};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use self::side::{OnItsWay, Side, Stage};
use crate::events::{CursorPair, Events, ReadError, Receipt, StreamNumber};
use crate::http::body::handover::{Delivered, Ending};
use crate::kernel::names::{AppId, ClientName, Stream, Streams, SubscriptionName};
use crate::kernel::sync::lock;

/// How many streams that are gone, and were given something out of order, are remembered.
const GONE: usize = 256;

/// How long a new stream waits for others of its caller, which are over, to let go of what they were about to read.
const FOR_THE_OTHERS: Duration = Duration::from_secs(1);

/// The open streams of subscriptions.
#[derive(Debug, Default)]
pub(crate) struct StreamSessions {
    listed: Mutex<Listed>,
    /// How many there were.
    opened: AtomicU64,
}

#[derive(Debug, Default)]
struct Listed {
    open: BTreeMap<Key, Arc<StreamSession>>,
    /// Those that are gone, the last at the end.
    gone: VecDeque<Gone>,
}

type Key = (AppId, SubscriptionName, StreamNumber);

/// One open stream of a subscription.
#[derive(Debug)]
pub(crate) struct StreamSession {
    client: ClientName,
    key: Key,
    /// Where its caller said that it was.
    began: Option<CursorPair>,
    /// Held while one of the client's streams of the subscription takes over from others.
    seat: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
    /// Wakes those who wait until its turn ends.
    let_go: Notify,
    /// Wakes the stream, which waits for a flush.
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct State {
    /// By the order of [`Stream::ALL`].
    sides: [Side; 2],
    /// How many reads there were.
    reads: u64,
    is_over: bool,
    /// Whether it may take entries that it does not hold yet, or say what it holds.
    has_turn: bool,
}

/// What is remembered of a stream that is gone.
#[derive(Debug)]
struct Gone {
    client: ClientName,
    key: Key,
    began: Option<CursorPair>,
    sides: [Side; 2],
}

impl StreamSessions {
    /// A stream is opened. If its caller says how far it got in an earlier one, that one is ended, and what the caller has
    /// is settled, the rest given again.
    pub(crate) async fn open(
        self: &Arc<Self>,
        events: &Events,
        (app, streams): (&AppId, Streams),
        (client, name): (&ClientName, &SubscriptionName),
        last: Option<CursorPair>,
    ) -> Result<Open, ReadError> {
        let (open, earlier) = self.begin((app, name), client, last);
        if let Some(last) = last {
            self.take_over(&open, earlier, events, streams, last).await?;
        }
        Ok(open)
    }

    /// A stream takes over from those that were listed before it, as far as they are its caller's.
    async fn take_over(
        &self,
        open: &Open,
        mut earlier: Vec<Arc<StreamSession>>,
        events: &Events,
        streams: Streams,
        last: CursorPair,
    ) -> Result<(), ReadError> {
        let (app, name, _) = &open.key;
        let _taking_over = open.seat.lock().await;
        if open.is_over() {
            return Ok(());
        }
        earlier.retain(|earlier| earlier.ends_for(streams, &last));
        let over = earlier.iter().map(|earlier| earlier.rests());
        let _ = tokio::time::timeout(FOR_THE_OTHERS, join_all(over)).await;
        // From here on nothing waits: a caller that leaves does so before all of it, or after.
        let mut unheard = <[Vec<Range<u64>>; 2]>::default();
        let all = self.take_sides(open, &earlier, streams, &last);
        for (side, stream) in all.into_iter().flat_map(|sides| sides.into_iter().zip(Stream::ALL)) {
            unheard[stream as usize].extend(side.yield_to(given(&last, stream)));
        }
        for &stream in streams.each() {
            let place = (last.of(stream), last.was_given(stream));
            match events.resume((app, stream), name, place, &unheard[stream as usize]) {
                // It is not there any more, or of another store: then reading goes on where the subscription is.
                Ok(()) | Err(ReadError::NoSuchSubscription | ReadError::Expired { .. }) => {}
                // An app need not have both.
                Err(ReadError::NoSuchStream) if streams == Streams::All => {}
                Err(why) => return Err(why),
            }
        }
        if streams == Streams::All {
            // The places in this stream say how far its caller got in a log only once it is given something of that: until
            // then nobody says again after a kill what was said now.
            for &stream in streams.each() {
                match events.keep_place((app, stream), name).await {
                    Ok(()) | Err(ReadError::NoSuchSubscription | ReadError::NoSuchStream) => {}
                    Err(why) => return Err(why),
                }
            }
        }
        Ok(())
    }

    /// Lists a new stream. Also returns its client's others of the subscription: of two, the later knows of the earlier.
    fn begin(
        self: &Arc<Self>,
        (app, name): (&AppId, &SubscriptionName),
        client: &ClientName,
        began: Option<CursorPair>,
    ) -> (Open, Vec<Arc<StreamSession>>) {
        let mut listed = self.listed();
        let number = StreamNumber::MIN.saturating_add(self.opened.fetch_add(1, Ordering::Relaxed));
        let key = |number| (app.clone(), name.clone(), number);
        let earlier = listed.open.range(key(StreamNumber::MIN)..key(number)).map(|(_, earlier)| earlier);
        let earlier: Vec<Arc<StreamSession>> = earlier.filter(|earlier| earlier.client == *client).cloned().collect();
        let sitting = Arc::new(StreamSession {
            client: client.clone(),
            key: key(number),
            began,
            // All of a client that are there have the same.
            seat: earlier.first().map(|earlier| Arc::clone(&earlier.seat)).unwrap_or_default(),
            state: Mutex::default(),
            let_go: Notify::new(),
            waker: AtomicWaker::new(),
        });
        listed.open.insert(key(number), Arc::clone(&sitting));
        (Open(Arc::new(Hold { sitting, sittings: Arc::clone(self) })), earlier)
    }

    /// What there is of streams that are over, and of those that are gone, of the same client and subscription, of which the
    /// caller speaks. One that goes at this moment is one or the other.
    fn take_sides(
        &self,
        open: &Open,
        over: &[Arc<StreamSession>],
        streams: Streams,
        last: &CursorPair,
    ) -> Vec<[Side; 2]> {
        let (app, name, _) = &open.key;
        let is_of_it = |gone: &Gone| {
            (&gone.client, &gone.key.0, &gone.key.1) == (&open.client, app, name)
                && is_its_own(gone.began.as_ref(), &gone.sides, streams, last)
        };
        let mut listed = self.listed();
        let (own, rest): (VecDeque<Gone>, VecDeque<Gone>) =
            std::mem::take(&mut listed.gone).into_iter().partition(is_of_it);
        listed.gone = rest;
        let over = over.iter().map(|over| std::mem::take(&mut over.state().sides));
        own.into_iter().map(|gone| gone.sides).chain(over).collect()
    }

    fn listed(&self) -> MutexGuard<'_, Listed> {
        lock(&self.listed)
    }
}

/// As long as there is one, its session is listed.
#[derive(Debug)]
pub(crate) struct Hold {
    sitting: Arc<StreamSession>,
    sittings: Arc<StreamSessions>,
}

impl Deref for Hold {
    type Target = StreamSession;

    fn deref(&self) -> &StreamSession {
        &self.sitting
    }
}

/// An open stream's own hold on its session.
pub(crate) struct Open(Arc<Hold>);

impl Deref for Open {
    type Target = Arc<Hold>;

    fn deref(&self) -> &Arc<Hold> {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // What was given to the connection may arrive still.
        for side in self.0.state().of_its_own() {
            drop(side.reads.pop_back_if(|last| last.stage == Stage::Held));
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Before it is looked what there is: whoever takes over finds it here or there.
        let mut listed = self.sittings.listed();
        let mut sides = std::mem::take(&mut self.state().sides);
        sides.iter_mut().for_each(|side| side.reads.clear());
        // What was given in order lies after the caller's place, and comes again without that.
        let is_in_order = |(side, stream): (&Side, Stream)| side.is_in_order(self.began.map(|began| began.of(stream)));
        if !sides.iter().zip(Stream::ALL).all(is_in_order) {
            if listed.gone.len() == GONE {
                listed.gone.pop_front();
            }
            listed.gone.push_back(Gone {
                client: self.client.clone(),
                key: self.key.clone(),
                began: self.began,
                sides,
            });
        }
        listed.open.remove(&self.key);
    }
}

impl Hold {
    /// All of what was read last was given to the connection. The ending is to be told of its flush and of its
    /// acknowledgement.
    pub(crate) fn gave(self: &Arc<Self>, stream: Stream) -> Box<dyn Ending> {
        let mut state = self.state();
        let last = state.sides[stream as usize].reads.back_mut();
        // There is none when the caller has come again elsewhere.
        let number = last.map_or(0, |last| {
            last.stage = Stage::Given;
            last.number
        });
        Box::new(Given { sitting: Arc::clone(self), stream, number })
    }

    /// To be held while it reads, or says what it read; `None` when it is over.
    pub(crate) fn turn(self: &Arc<Self>) -> Option<Turn> {
        let mut state = self.state();
        state.has_turn = !state.is_over;
        state.has_turn.then(|| Turn(Arc::clone(self)))
    }
}

impl StreamSession {
    /// Which stream it is: no other has its number.
    pub(crate) fn number(&self) -> StreamNumber {
        self.key.2
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
        state.sides[stream as usize].reads.push_back(OnItsWay { number, entries, receipt, stage: Stage::Held });
    }

    /// Waits until nothing that was given is still to be flushed.
    pub(crate) async fn flushed(&self) {
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            let state = self.state();
            let is_given = |side: &Side| side.reads.back().is_some_and(|last| last.stage == Stage::Given);
            let is_waiting = !state.is_over && state.sides.iter().any(is_given);
            if is_waiting { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Waits until it neither reads nor says anything.
    async fn rests(&self) {
        loop {
            let mut let_go = pin!(self.let_go.notified());
            let_go.as_mut().enable();
            if !self.state().has_turn {
                return;
            }
            let_go.await;
        }
    }

    /// Whether the caller has come again elsewhere.
    pub(crate) fn is_over(&self) -> bool {
        self.state().is_over
    }

    /// The caller has come again, and says how far it got. If that was here, or where it was when this began, so that it got
    /// nothing here, this is over. Says whether it is.
    fn ends_for(&self, streams: Streams, last: &CursorPair) -> bool {
        let mut state = self.state();
        let is_its_own = is_its_own(self.began.as_ref(), &state.sides, streams, last);
        state.is_over |= is_its_own;
        drop(state);
        self.waker.wake();
        is_its_own
    }

    /// A read was flushed.
    fn was_flushed(&self, stream: Stream, number: u64) {
        if let Some(read) = self.state().sides[stream as usize].reads.iter_mut().find(|read| read.number == number) {
            read.stage = Stage::Flushed;
        }
        self.waker.wake();
    }

    /// A read was acknowledged.
    fn settle(&self, stream: Stream, number: u64) {
        let mut state = self.state();
        let Some(side) = state.of_its_own().get_mut(stream as usize) else { return };
        let Some(OnItsWay { entries, receipt, .. }) = side.take(number) else { return };
        side.remember(entries);
        receipt.handed_over();
    }

    /// A read will not arrive.
    fn give_back(&self, stream: Stream, number: u64) {
        if let Some(side) = self.state().of_its_own().get_mut(stream as usize) {
            drop(side.take(number));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Where a caller was, if it was given anything of this stream.
fn given(last: &CursorPair, stream: Stream) -> Option<u64> {
    last.was_given(stream).then(|| last.of(stream).at.0)
}

/// Whether a caller that got to this place got there in a stream, or had it as its own place when that began.
fn is_its_own(began: Option<&CursorPair>, sides: &[Side; 2], streams: Streams, last: &CursorPair) -> bool {
    let is_here = |stream: &Stream| given(last, *stream).is_some_and(|at| sides[*stream as usize].has(at));
    began == Some(last) || streams.each().iter().any(is_here)
}

/// That a stream reads, or says what it read, until it is dropped.
pub(crate) struct Turn(Arc<Hold>);

impl Turn {
    /// Ready when the caller has come again elsewhere.
    pub(crate) fn poll_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.waker.register(cx.waker());
        if self.0.is_over() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.state().has_turn = false;
        self.0.let_go.notify_waiters();
    }
}

impl State {
    /// What becomes of what is on its way is for the stream itself to say, unless it is over: then its caller does.
    fn of_its_own(&mut self) -> &mut [Side] {
        if self.is_over { &mut [] } else { &mut self.sides }
    }
}

/// Told when all of a read was flushed, and when it was acknowledged.
#[derive(Debug)]
struct Given {
    sitting: Arc<Hold>,
    stream: Stream,
    number: u64,
}

impl Ending for Given {
    fn flushed(self: Box<Self>) -> Option<Box<dyn Delivered>> {
        self.sitting.was_flushed(self.stream, self.number);
        Some(self)
    }
}

impl Delivered for Given {
    fn acknowledged(self: Box<Self>) {
        self.sitting.settle(self.stream, self.number);
    }
}

/// It will not arrive, unless it was settled.
impl Drop for Given {
    fn drop(&mut self) {
        self.sitting.give_back(self.stream, self.number);
    }
}

#[cfg(test)]
mod tests;
