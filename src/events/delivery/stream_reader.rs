//! A [`StreamReader`]: one of the streams that a caller reads, one read at a time.
//!
//! Invariant: what is given of a read lies before what is not, and only its last run ends it: so what was given can be
//! settled and the rest given back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::session_handle::SessionHandle;
use super::{Delivery, ReadFrom, ReadRequest, Receipt};
use crate::events::log::{ReadError, Run, StartAt};
use crate::events::{Ack, Cursor, CursorPair};
use crate::kernel::names::Stream;
use crate::store::{Content, Sequence};

/// One of the streams that a caller reads.
pub(super) struct StreamReader {
    pub(super) stream: Stream,
    /// What each read asks; only how long it waits is said with each.
    pub(super) request: ReadRequest,
    /// What was read of it and not yet given.
    pub(super) runs: VecDeque<Run>,
    receipt: Option<Receipt>,
    /// The place after them.
    next: Option<Cursor>,
    pub(super) lag: u64,
    lost: u64,
    /// It was looked at since its last run was given, and nothing was there.
    pub(super) is_dry: bool,
}

/// A run that is given.
pub(crate) struct MergedRun {
    pub(crate) stream: Stream,
    pub(crate) run: Run,
    /// When it is a marker of what retention took from a subscription: how many entries.
    pub(crate) lost: u64,
    /// Where the reader stood before.
    pub(crate) before: CursorPair,
    /// It ends a read, whose receipt goes with it unless a session holds that.
    pub(crate) is_last: bool,
    pub(crate) receipt: Option<Receipt>,
}

/// A read of one of the streams failed.
#[derive(Debug)]
pub(crate) struct StreamReadError {
    pub(crate) stream: Stream,
    pub(crate) why: ReadError,
}

impl StreamReader {
    /// Reads by this request, settled by handing it over; markers are given.
    pub(super) fn new(stream: Stream, request: ReadRequest) -> Self {
        let request = ReadRequest { markers: true, ack: Ack::OnHandover, ..request };
        let runs = VecDeque::new();
        Self { stream, request, runs, receipt: None, next: None, lag: 0, lost: 0, is_dry: false }
    }

    /// What it asks next.
    pub(super) fn read(&self, wait: Duration) -> ReadRequest {
        ReadRequest { wait, ..self.request.clone() }
    }

    /// Takes what was read; a session holds its receipt, where there is one. `cursor` is where the caller stands.
    pub(super) fn take(
        &mut self,
        delivery: Result<Delivery, ReadError>,
        cursor: &mut CursorPair,
        session: Option<&SessionHandle>,
    ) -> Result<(), StreamReadError> {
        let delivery = delivery.map_err(|why| StreamReadError { stream: self.stream, why })?;
        let Delivery { runs, next, lag, lost, lost_from, receipt, .. } = delivery;
        (self.next, self.lag, self.lost) = (Some(next), lag, lost);
        self.is_dry = runs.is_empty();
        cursor.renew(self.stream, next);
        let before = runs.first().map(|run| run.batch.first.0 + run.entries.start as u64 - 1);
        // Who is given the other stream's first, and leaves, has not heard of what is lost here.
        let unheard = |at: u64| lost_from.map_or(at, |from| at.min(from.0.saturating_sub(1)));
        let begun = |at: u64| Cursor { epoch: next.epoch, at: Sequence(unheard(at)) };
        match (&mut self.request.place, before) {
            (ReadFrom::After(place), _) => {
                *place = next;
                if before.is_none() {
                    cursor.give(self.stream, next);
                }
            }
            (ReadFrom::Subscription { .. }, before) => cursor.begin(self.stream, begun(before.unwrap_or(next.at.0))),
        }
        self.runs = runs.into();
        match (session, before) {
            (_, None) => {}
            (Some(session), Some(before)) => session.hold(self.stream, before + 1..next.at.0 + 1, receipt),
            (None, Some(_)) => self.receipt = Some(receipt),
        }
        Ok(())
    }

    /// Gives at most so many entries of its next run.
    pub(super) fn give(&mut self, max: usize, cursor: &mut CursorPair) -> Option<MergedRun> {
        let mut run = self.runs.pop_front()?;
        if run.entries.len() > max {
            let rest = run.entries.start + max..run.entries.end;
            self.runs.push_front(Run { batch: Arc::clone(&run.batch), entries: rest.clone() });
            run.entries.end = rest.start;
        }
        let before = *cursor;
        let epoch = self.next.map_or(0, |next| next.epoch);
        let last = run.batch.first.plus(run.entries.end.saturating_sub(1) as u64);
        cursor.give(self.stream, Cursor { epoch, at: last });
        let mut receipt = None;
        let is_last = self.runs.is_empty();
        if is_last {
            receipt = self.receipt.take();
            self.is_dry = false;
            // After its last run a read may have passed over entries that the filter does not want: neither are those
            // read again by who comes back with this place.
            if let Some(next) = self.next {
                cursor.give(self.stream, next);
            }
        }
        Some(MergedRun { stream: self.stream, run, lost: std::mem::take(&mut self.lost), before, is_last, receipt })
    }

    /// Retention has taken what was to be read next: goes on from the earliest kept.
    pub(super) fn skip_to(&mut self, earliest: Cursor) {
        match &mut self.request.place {
            ReadFrom::After(cursor) => *cursor = earliest,
            ReadFrom::Subscription { from, .. } => *from = StartAt::After(earliest),
        }
    }

    /// Gives back what it holds, less what was given; the receipt of the part that was.
    pub(super) fn give_back(&mut self) -> Option<Receipt> {
        let (first, receipt) = (self.runs.front()?, self.receipt.take()?);
        let after = first.batch.first.plus(first.entries.start as u64);
        let left: u64 = self.runs.iter().filter_map(events_in).sum();
        let given = receipt.only_before(after, left);
        self.lag += self.runs.iter().map(|run| run.entries.len() as u64).sum::<u64>();
        self.runs.clear();
        given
    }
}

/// How many events a run holds, if it holds events.
fn events_in(run: &Run) -> Option<u64> {
    matches!(run.batch.content, Content::Events(_)).then_some(run.entries.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::tests::by;
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
            let (mut cursor, stream) = (CursorPair::default(), Stream::ChannelEvents);
            let request = ReadRequest { place: place.clone(), ..by("a", 1) };
            StreamReader::new(stream, request).take(Ok(delivery), &mut cursor, None).unwrap();
            (cursor.of(stream).at.0, cursor.was_given(stream))
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
