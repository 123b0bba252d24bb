//! A [`MergedReader`]: what one caller reads, one stream or both merged, run by run.
//!
//! Invariants:
//! - Runs come in the order received, by the time of their batches and then by stream: none is given while the other stream
//!   may hold an older one. (What another stream receives at the same moment may be stored a little later; then it comes
//!   later.)
//! - At most one read of each stream is held. Its text is the log's own, and shared.
//! - A read's receipt goes with its last run, unless a `StreamSession` holds it. A feed that is dropped gives back what it has not
//!   given.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::events::{
    Ack, Cursor, CursorPair, Delivery, Events, Filter, ReadError, ReadFrom, ReadRequest, Receipt, Run, StartAt,
    StreamNumber,
};
use crate::kernel::names::{AppId, ClientName, Stream, Streams};
use crate::request::gateway::Gateway;
use crate::request::streaming::stream_session::Open;
use crate::store::{Content, Sequence};

/// What is read, from where.
pub(super) struct MergedReader {
    app: AppId,
    streams: Streams,
    /// Who reads.
    client: ClientName,
    /// How many entries each read brings at most, and how many bytes of events.
    most: (usize, usize),
    filter: Arc<Filter>,
    sides: Vec<Side>,
    marks: CursorPair,
    /// Of a stream of a subscription.
    sitting: Option<Open>,
}

/// One of the streams.
struct Side {
    stream: Stream,
    place: ReadFrom,
    /// What was read of it and not yet given.
    runs: VecDeque<Run>,
    receipt: Option<Receipt>,
    /// The place after them.
    next: Option<Cursor>,
    lag: u64,
    lost: u64,
    /// It was looked at since its last run was given, and nothing was there.
    is_dry: bool,
}

/// A run that is given.
pub(super) struct Given {
    pub(super) stream: Stream,
    pub(super) run: Run,
    /// When it is a marker of what retention took from a subscription: how many entries.
    pub(super) lost: u64,
    /// Where the reader stood before.
    pub(super) marks: CursorPair,
    /// It ends a read.
    pub(super) is_last: bool,
    /// Of that.
    pub(super) receipt: Option<Receipt>,
}

/// A read of one of the streams failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) stream: Stream,
    pub(super) why: ReadError,
}

impl MergedReader {
    /// Reads these places.
    pub(super) fn new(
        (app, streams): (&AppId, Streams),
        client: ClientName,
        most: (usize, usize),
        filter: Arc<Filter>,
        places: impl Fn(Stream) -> ReadFrom,
    ) -> Self {
        let mut marks = CursorPair::default();
        let side = |&stream: &Stream| {
            let place = places(stream);
            if let ReadFrom::After(cursor) = place {
                marks.give(stream, cursor);
            }
            Side { stream, place, runs: VecDeque::new(), receipt: None, next: None, lag: 0, lost: 0, is_dry: false }
        };
        let sides = streams.each().iter().map(side).collect();
        Self { app: app.clone(), streams, client, most, filter, sides, marks, sitting: None }
    }

    /// Lets this hold the receipts.
    pub(super) fn sit(&mut self, sitting: Open) {
        self.sitting = Some(sitting);
    }

    pub(super) fn sitting(&self) -> Option<&Open> {
        self.sitting.as_ref()
    }

    pub(super) fn streams(&self) -> Streams {
        self.streams
    }

    /// Where the reader stands.
    pub(super) fn marks(&self) -> CursorPair {
        self.marks
    }

    /// Entries that are stored, not yet read, and not held here.
    pub(super) fn lag(&self) -> u64 {
        self.sides.iter().map(|side| side.lag).sum()
    }

    /// Gets something to give, if there is nothing; waits for it. Leaves off at the deadline, and when the gateway stops.
    pub(super) async fn fill(&mut self, gateway: &Gateway, wait: Duration) -> Result<(), Failed> {
        match &mut *self.sides {
            [side] if side.runs.is_empty() => {
                let read = side.read(&self.client, self.most, &self.filter, wait);
                let number = self.sitting.as_ref().map(|open| open.number());
                let delivery =
                    side.deliver(gateway.events.read_in_stream(&self.app, side.stream, read, number).await)?;
                side.take(delivery, &mut self.marks, self.sitting.as_ref());
                Ok(())
            }
            [_] => Ok(()),
            // In a box: the usual case is one stream, and should not hold room for two.
            _ => Box::pin(self.fill_all(gateway, wait)).await,
        }
    }

    async fn fill_all(&mut self, gateway: &Gateway, wait: Duration) -> Result<(), Failed> {
        let deadline = gateway.clock.now() + wait;
        let number = self.sitting.as_ref().map(|open| open.number());
        loop {
            let (mut is_something, mut is_any) = (false, false);
            for side in &mut self.sides {
                if side.runs.is_empty() {
                    let read = side.read(&self.client, self.most, &self.filter, Duration::ZERO);
                    match side.deliver(gateway.events.read_in_stream(&self.app, side.stream, read, number).await) {
                        Ok(delivery) => side.take(delivery, &mut self.marks, self.sitting.as_ref()),
                        // An app need not have both.
                        Err(failed) if failed.why == ReadError::NoSuchStream => {
                            side.is_dry = true;
                            continue;
                        }
                        Err(failed) => return Err(failed),
                    }
                }
                is_any = true;
                is_something |= !side.runs.is_empty();
            }
            if !is_any {
                return Err(Failed { stream: Stream::UserEvents, why: ReadError::NoSuchStream });
            }
            let left = deadline.saturating_duration_since(gateway.clock.now());
            if is_something || left.is_zero() || gateway.stopping.is_cancelled() {
                return Ok(());
            }
            let (events, app, client) = (&gateway.events, &self.app, &self.client);
            let (most, filter) = (self.most, &self.filter);
            let [one, other] = &mut *self.sides else { return Ok(()) };
            let reads = (one.read(client, most, filter, left), other.read(client, most, filter, left));
            tokio::select! {
                read = or_never(events, (app, one.stream), reads.0, number) => {
                    let delivery = one.deliver(read)?;
                    one.take(delivery, &mut self.marks, self.sitting.as_ref());
                }
                read = or_never(events, (app, other.stream), reads.1, number) => {
                    let delivery = other.deliver(read)?;
                    other.take(delivery, &mut self.marks, self.sitting.as_ref());
                }
            }
        }
    }

    /// The run that is next to be given.
    pub(super) fn peek(&self) -> Option<&Run> {
        self.first().and_then(|side| self.sides[side].runs.front())
    }

    /// Gives at most so many entries of the next run. `None`: it must be filled first.
    pub(super) fn give(&mut self, most: usize) -> Option<Given> {
        let first = self.first()?;
        let (side, marks) = (&mut self.sides[first], self.marks);
        let mut run = side.runs.pop_front()?;
        if run.entries.len() > most {
            let rest = run.entries.start + most..run.entries.end;
            side.runs.push_front(Run { batch: Arc::clone(&run.batch), entries: rest.clone() });
            run.entries.end = rest.start;
        }
        let epoch = side.next.map_or(0, |next| next.epoch);
        let last = run.batch.first.plus(run.entries.end.saturating_sub(1) as u64);
        self.marks.give(side.stream, Cursor { epoch, at: last });
        let mut receipt = None;
        let is_last = side.runs.is_empty();
        if is_last {
            receipt = side.receipt.take();
            side.is_dry = false;
            if let Some(next) = side.next {
                self.marks.give(side.stream, next);
            }
        }
        Some(Given { stream: side.stream, run, lost: std::mem::take(&mut side.lost), marks, is_last, receipt })
    }

    /// Gives back what it holds, less what was given; the receipts of the part that was given.
    pub(super) fn give_back(&mut self) -> Vec<Receipt> {
        let mut receipts = Vec::new();
        for side in &mut self.sides {
            let (Some(receipt), Some(first)) = (side.receipt.take(), side.runs.front()) else { continue };
            let after = first.batch.first.plus(first.entries.start as u64);
            let left: u64 = side.runs.iter().filter_map(events_in).sum();
            let given = receipt.only_before(after, left);
            side.lag += side.runs.iter().map(|run| run.entries.len() as u64).sum::<u64>();
            side.runs.clear();
            receipts.extend(given);
        }
        receipts
    }

    /// Retention has taken what was to be read next of a stream: goes on from the earliest kept.
    pub(super) fn skip_to(&mut self, stream: Stream, earliest: Cursor) {
        for side in self.sides.iter_mut().filter(|side| side.stream == stream) {
            match &mut side.place {
                ReadFrom::After(cursor) => *cursor = earliest,
                ReadFrom::Subscription { from, .. } => *from = StartAt::After(earliest),
            }
        }
        self.marks.give(stream, earliest);
    }

    /// The side whose run is next, if it is known which.
    fn first(&self) -> Option<usize> {
        if self.sides.iter().any(|side| side.runs.is_empty() && !side.is_dry) {
            return None;
        }
        let at = |side: &Side| side.runs.front().map(|run| run.batch.received_at);
        let waiting = self.sides.iter().enumerate().filter_map(|(n, side)| Some((at(side)?, n)));
        waiting.min().map(|(_, n)| n)
    }
}

impl Side {
    fn read(
        &self,
        client: &ClientName,
        (limit, most_bytes): (usize, usize),
        filter: &Arc<Filter>,
        wait: Duration,
    ) -> ReadRequest {
        let (place, client, filter) = (self.place.clone(), client.clone(), Arc::clone(filter));
        ReadRequest { place, client, limit, most_bytes, wait, markers: true, filter, ack: Ack::OnHandover }
    }

    fn deliver(&self, read: Result<Delivery, ReadError>) -> Result<Delivery, Failed> {
        read.map_err(|why| Failed { stream: self.stream, why })
    }

    fn take(&mut self, delivery: Delivery, marks: &mut CursorPair, sitting: Option<&Open>) {
        let Delivery { runs, next, lag, lost, lost_from, receipt, .. } = delivery;
        (self.next, self.lag, self.lost) = (Some(next), lag, lost);
        self.is_dry = runs.is_empty();
        marks.renew(self.stream, next);
        let before = runs.first().map(|run| run.batch.first.0 + run.entries.start as u64 - 1);
        // Who is given the other stream's first, and leaves, has not heard of what is lost here.
        let unheard = |at: u64| lost_from.map_or(at, |from| at.min(from.0.saturating_sub(1)));
        let begun = |at: u64| Cursor { epoch: next.epoch, at: Sequence(unheard(at)) };
        match (&mut self.place, before) {
            (ReadFrom::After(cursor), _) => {
                *cursor = next;
                if before.is_none() {
                    marks.give(self.stream, next);
                }
            }
            (ReadFrom::Subscription { .. }, before) => marks.begin(self.stream, begun(before.unwrap_or(next.at.0))),
        }
        self.runs = runs.into();
        match (sitting, before) {
            (_, None) => {}
            (Some(sitting), Some(before)) => sitting.hold(self.stream, before + 1..next.at.0 + 1, receipt),
            (None, Some(_)) => self.receipt = Some(receipt),
        }
    }
}

/// Reads. What an app does not have is waited for as long as anything.
async fn or_never(
    events: &Events,
    (app, stream): (&AppId, Stream),
    read: ReadRequest,
    number: Option<StreamNumber>,
) -> Result<Delivery, ReadError> {
    match events.read_in_stream(app, stream, read, number).await {
        Err(ReadError::NoSuchStream) => std::future::pending().await,
        read => read,
    }
}

/// How many events a run holds, if it holds events.
fn events_in(run: &Run) -> Option<u64> {
    matches!(run.batch.content, Content::Events(_)).then_some(run.entries.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::StartAt;
    use crate::kernel::names::SubscriptionName;
    use crate::store::{Batch, EventText};

    /// What is given from 21 on, when so many before were lost.
    fn delivery(lost: u64, lost_from: Option<u64>) -> Delivery {
        let run = |first: u64, content: Content| {
            let (received_at, region) =
                (crate::kernel::clock::UnixMillis(1), crate::kernel::names::RegionName::parse("cn").unwrap());
            Run { batch: Arc::new(Batch { first: Sequence(first), received_at, region, content }), entries: 0..1 }
        };
        let mut runs = vec![run(21, Content::Events(EventText::join(std::iter::once(&b"{}"[..])).unwrap()))];
        if lost > 0 {
            runs.insert(0, run(20, Content::PossibleLoss("retention".to_owned())));
        }
        let next = Cursor { epoch: 7, at: Sequence(21) };
        let lost_from = lost_from.map(Sequence);
        Delivery { runs, next, lag: 0, lost, lost_from, receipt: Receipt::of_nothing(), leased: None }
    }

    #[test]
    fn who_has_not_heard_of_what_is_lost_in_a_log_stands_before_that() {
        let name = SubscriptionName::parse("a").unwrap();
        let place = ReadFrom::Subscription { name, from: StartAt::Earliest };
        let of = |delivery: Delivery| {
            let (mut marks, stream) = (CursorPair::default(), Stream::ChannelEvents);
            let (runs, receipt, next) = (VecDeque::new(), None, None);
            let mut side = Side { stream, place: place.clone(), runs, receipt, next, lag: 0, lost: 0, is_dry: false };
            side.take(delivery, &mut marks, None);
            (marks.of(stream).at.0, marks.was_given(stream))
        };
        assert_eq!(of(delivery(0, None)), (20, false));
        assert_eq!(of(delivery(15, Some(6))), (5, false));
        assert_eq!(of(delivery(15, None)), (19, false), "where they were is not known");
        // They are to be told with the next event, which has not come.
        let nothing = |lost_from| Delivery { runs: Vec::new(), ..delivery(0, lost_from) };
        assert_eq!(of(nothing(None)), (21, false));
        assert_eq!(of(nothing(Some(6))), (5, false));
    }
}
