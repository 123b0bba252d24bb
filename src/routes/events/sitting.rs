//! A [`Sitting`]: one stream of a subscription, from its opening to its end, as the next one may ask about it.
//!
//! Why: whoever comes again with `Last-Event-ID` says how far it got. Its old connection may not be known to be dead, and
//! what was written to it counts neither as read nor as given back. So the new stream looks for the old one, settles for it
//! what the caller has, gives back the rest, and ends it: otherwise both would go on, and the old one would give events to
//! nobody. The old one is where the caller got to the place that it names, and any that it opened from that same place: of
//! those nothing has reached it.
//!
//! Invariants: of each stream at most one read waits to be flushed; the next begins when it was. What is on its way is
//! settled once, by whoever is first: its acknowledgement by the other end's system, or the caller's word. A sitting can be
//! found as long as anything of it is on its way, also when its stream has ended. Only the same client's word counts.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::ops::Range;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use crate::body::handover::{Delivered, Ending};
use crate::events::{Events, Marks, ReadError, Receipt, StreamNumber};
use crate::names::{AppId, ClientName, Stream, Streams, SubscriptionName};
use crate::store::Sequence;

/// How many runs of entries a stream remembers. A reader that is alone and wants all has one run; where others take of the
/// same subscription, or a filter passes over whole reads, there are gaps.
const REMEMBERED: usize = 64;

/// How long a new stream waits for others of its caller, which are over, to let go of what they were about to read.
const FOR_THE_OTHERS: Duration = Duration::from_secs(1);

/// The open streams of subscriptions.
#[derive(Debug, Default)]
pub(super) struct Sittings {
    open: Mutex<BTreeMap<Key, Weak<Sitting>>>,
    /// How many there were.
    opened: AtomicU64,
}

type Key = (AppId, SubscriptionName, StreamNumber);

/// One open stream of a subscription.
#[derive(Debug)]
pub(super) struct Sitting {
    client: ClientName,
    key: Key,
    /// Where its caller said that it was.
    began: Option<Marks>,
    sittings: Arc<Sittings>,
    state: Mutex<State>,
    /// Wakes those who wait until it reads no more.
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
    /// Whether it may take entries that it does not hold yet.
    is_reading: bool,
}

#[derive(Debug, Default)]
struct Side {
    /// What is on its way, in order: all but the last are flushed.
    reads: VecDeque<OnItsWay>,
    /// What was given before: runs of entries, the last at the end.
    recent: Vec<Range<u64>>,
}

/// A read of the log on its way to the caller.
#[derive(Debug)]
struct OnItsWay {
    number: u64,
    entries: Range<u64>,
    receipt: Receipt,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not all of it was given to the connection.
    Held,
    /// All of it was; it is not known to be flushed.
    Given,
    /// All of it is with the system.
    Flushed,
}

impl Sittings {
    /// A stream is opened. If its caller says how far it got in an earlier one, that one is ended, and what the caller has
    /// is settled, the rest given again.
    pub(super) async fn open(
        self: &Arc<Self>,
        events: &Events,
        (app, streams): (&AppId, Streams),
        (client, name): (&ClientName, &SubscriptionName),
        last: Option<Marks>,
    ) -> Result<Open, ReadError> {
        let (open, mut earlier) = self.begin((app, name), client, last);
        let Some(last) = last else { return Ok(open) };
        earlier.retain(|earlier| earlier.client == *client);
        let mut unheard = <[Vec<Range<u64>>; 2]>::default();
        earlier.iter().for_each(|earlier| earlier.yield_to(streams, &last, &mut unheard));
        // What they are taking at this moment they give back: nothing is to be taken before that.
        let over = earlier.iter().filter(|earlier| earlier.is_over()).map(|earlier| earlier.reads_no_more());
        let _ = tokio::time::timeout(FOR_THE_OTHERS, join_all(over)).await;
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
        Ok(open)
    }

    /// Lists a new stream. Also returns the subscription's others: of two, the later knows of the earlier.
    fn begin(
        self: &Arc<Self>,
        (app, name): (&AppId, &SubscriptionName),
        client: &ClientName,
        began: Option<Marks>,
    ) -> (Open, Vec<Arc<Sitting>>) {
        let mut open = self.all();
        let number = StreamNumber::MIN.saturating_add(self.opened.fetch_add(1, Ordering::Relaxed));
        let key = |number| (app.clone(), name.clone(), number);
        // None is dropped here: that would look for the list.
        let earlier = open.range(key(StreamNumber::MIN)..key(number)).filter_map(|(_, weak)| weak.upgrade()).collect();
        let sitting = Arc::new(Sitting {
            client: client.clone(),
            key: key(number),
            began,
            sittings: Arc::clone(self),
            state: Mutex::default(),
            let_go: Notify::new(),
            waker: AtomicWaker::new(),
        });
        open.insert(key(number), Arc::downgrade(&sitting));
        (Open(sitting), earlier)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, Weak<Sitting>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open stream's own hold on its sitting.
pub(super) struct Open(Arc<Sitting>);

impl std::ops::Deref for Open {
    type Target = Arc<Sitting>;

    fn deref(&self) -> &Arc<Sitting> {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // What was given to the connection may arrive still.
        let mut state = self.0.state();
        let mut rest = Vec::new();
        for side in &mut state.sides {
            rest.extend(side.reads.pop_back_if(|last| last.stage == Stage::Held));
        }
        drop(state);
        drop(rest);
    }
}

impl Drop for Sitting {
    fn drop(&mut self) {
        self.sittings.all().remove(&self.key);
    }
}

impl Sitting {
    /// Which stream it is: no other has its number.
    pub(super) fn number(&self) -> StreamNumber {
        self.key.2
    }

    /// These entries were read, and are on their way.
    pub(super) fn hold(&self, stream: Stream, entries: Range<u64>, receipt: Receipt) {
        let mut state = self.state();
        if state.is_over {
            // It is given back.
            return;
        }
        state.reads += 1;
        let number = state.reads;
        state.sides[stream as usize].reads.push_back(OnItsWay { number, entries, receipt, stage: Stage::Held });
    }

    /// All of them were given to the connection. The ending is to be told of their flush and of their acknowledgement.
    pub(super) fn gave(self: &Arc<Self>, stream: Stream) -> Box<dyn Ending> {
        let mut state = self.state();
        let last = state.sides[stream as usize].reads.back_mut();
        // There is none when the caller has come again elsewhere.
        let number = last.map_or(0, |last| {
            last.stage = Stage::Given;
            last.number
        });
        Box::new(Given { sitting: Arc::clone(self), stream, number })
    }

    /// Waits until nothing that was given is still to be flushed.
    pub(super) async fn flushed(&self) {
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            let state = self.state();
            let is_given = |side: &Side| side.reads.back().is_some_and(|last| last.stage == Stage::Given);
            let is_waiting = !state.is_over && state.sides.iter().any(is_given);
            if is_waiting { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// To be held while it reads; `None` when it is over.
    pub(super) fn turn(self: &Arc<Self>) -> Option<Turn> {
        let mut state = self.state();
        state.is_reading = !state.is_over;
        state.is_reading.then(|| Turn(Arc::clone(self)))
    }

    async fn reads_no_more(&self) {
        loop {
            let mut let_go = pin!(self.let_go.notified());
            let_go.as_mut().enable();
            if !self.state().is_reading {
                return;
            }
            let_go.await;
        }
    }

    /// Whether the caller has come again elsewhere.
    pub(super) fn is_over(&self) -> bool {
        self.state().is_over
    }

    /// The caller has come again, and says how far it got. If that was here, or where it was when this began, so that it got
    /// nothing here, this is over.
    fn yield_to(&self, streams: Streams, last: &Marks, unheard: &mut [Vec<Range<u64>>; 2]) {
        let mut state = self.state();
        let given = |stream: Stream| last.was_given(stream).then(|| last.of(stream).at.0);
        let is_here = |stream: &Stream| given(*stream).is_some_and(|at| state.sides[*stream as usize].has(at));
        let is_its_own = self.began == Some(*last) || streams.each().iter().any(is_here);
        if state.is_over || !is_its_own {
            return;
        }
        state.is_over = true;
        let sides = std::mem::take(&mut state.sides);
        drop(state);
        for (mut side, stream) in sides.into_iter().zip(Stream::ALL) {
            unheard[stream as usize].extend(side.after(given(stream)));
            // The caller has what came before its last event. What is dropped is given back.
            let Some(at) = given(stream) else { continue };
            let Some(last) = side.reads.iter().position(|read| read.entries.contains(&at)) else { continue };
            side.reads.drain(..last).for_each(|read| read.receipt.handed_over());
            if let Some(OnItsWay { entries, receipt, .. }) = side.reads.pop_front() {
                let left = entries.end - (at + 1);
                receipt.only_before(Sequence(at + 1), left).into_iter().for_each(Receipt::handed_over);
            }
        }
        self.waker.wake();
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
        let side = &mut state.sides[stream as usize];
        let Some(OnItsWay { entries, receipt, .. }) = side.take(number) else { return };
        side.remember(entries);
        drop(state);
        receipt.handed_over();
    }

    /// A read will not arrive.
    fn give_back(&self, stream: Stream, number: u64) {
        let lost = self.state().sides[stream as usize].take(number);
        drop(lost);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// That a stream reads, until it is dropped.
pub(super) struct Turn(Arc<Sitting>);

impl Turn {
    /// Ready when the caller has come again elsewhere.
    pub(super) fn poll_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.waker.register(cx.waker());
        if self.0.is_over() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.state().is_reading = false;
        self.0.let_go.notify_waiters();
    }
}

impl Side {
    fn take(&mut self, number: u64) -> Option<OnItsWay> {
        let at = self.reads.iter().position(|read| read.number == number)?;
        self.reads.remove(at)
    }

    fn remember(&mut self, entries: Range<u64>) {
        match self.recent.last_mut() {
            Some(last) if last.end == entries.start => last.end = entries.end,
            _ => {
                if self.recent.len() == REMEMBERED {
                    self.recent.remove(0);
                }
                self.recent.push(entries);
            }
        }
    }

    /// What it was given for good after an entry; all, if it was not given that.
    fn after(&self, at: Option<u64>) -> Vec<Range<u64>> {
        if at.is_some_and(|at| self.reads.iter().any(|read| read.entries.contains(&at))) {
            return Vec::new();
        }
        let holds = at.and_then(|at| Some((at, self.recent.iter().rposition(|entries| entries.contains(&at))?)));
        let Some((at, index)) = holds else { return self.recent.clone() };
        let rest = at + 1..self.recent[index].end;
        std::iter::once(rest).chain(self.recent[index + 1..].iter().cloned()).collect()
    }

    fn has(&self, at: u64) -> bool {
        self.reads.iter().map(|read| &read.entries).chain(&self.recent).any(|entries| entries.contains(&at))
    }
}

/// Told when all of a read was flushed, and when it was acknowledged.
#[derive(Debug)]
struct Given {
    sitting: Arc<Sitting>,
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
