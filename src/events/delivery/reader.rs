//! Reading a [`Log`]: by a subscription or by a cursor, from memory or from the store, now or when something comes.
//!
//! Invariants: a reader that keeps up is served from the tail and never asks the store. A wait ends with the first entry
//! the reader wants, at its deadline, or when the gateway stops, whichever is first; markers alone do not end the wait
//! of a reader that does not want them. A read that is dropped while it waits or asks the store has taken nothing.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Delivery, MAX_IN_ONE_READ, ReadError, ReadFrom, ReadRequest, Receipt, Room, Run, StreamNumber};
use crate::events::log::Log;
use crate::events::log::judge::{CHUNK, Judging};
use crate::events::log::loss::Loss;
use crate::events::subscription::{Hold, MAX_OPEN, Subscription};
use crate::events::{Ack, Cursor, DeliveryOrder, Filter, InHand, Leased, MAX_LEASE, StartAt, lock};
use crate::kernel::names::{ClientName, SubscriptionName};
use crate::store::{Batch, Content, Error, EventText, Sequence};

/// What holds for the whole of a read.
pub(in crate::events) struct Terms {
    pub(in crate::events) limit: usize,
    most_bytes: usize,
    pub(in crate::events) wants: Wants,
    client: ClientName,
    ack: Ack,
    /// The stream that reads, if it is one.
    pub(in crate::events) sitting: Option<StreamNumber>,
    deadline: Instant,
    stopping: CancellationToken,
}

/// Which entries are handed over.
pub(in crate::events) struct Wants {
    pub(in crate::events) markers: bool,
    filter: Arc<Filter>,
}

impl Log {
    /// Serves a read.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub(in crate::events) fn read(
        self: &Arc<Self>,
        read: ReadRequest,
        sitting: Option<StreamNumber>,
        stopping: CancellationToken,
    ) -> impl Future<Output = Result<Delivery, ReadError>> {
        let terms = Terms {
            limit: read.limit.clamp(1, MAX_IN_ONE_READ),
            most_bytes: read.most_bytes,
            wants: Wants { markers: read.markers, filter: read.filter },
            client: read.client,
            ack: read.ack,
            sitting,
            deadline: self.clock.now() + read.wait.min(MAX_WAIT),
            stopping,
        };
        let place = read.place;
        // No `async fn`: that would hold the read as well while it waits.
        async move {
            match place {
                ReadFrom::After(cursor) => self.read_after(cursor, &terms).await,
                ReadFrom::Subscription { name, from } => self.read_subscription(&name, from, &terms).await,
            }
        }
    }

    async fn read_after(&self, cursor: Cursor, terms: &Terms) -> Result<Delivery, ReadError> {
        let mut changes = self.next.subscribe();
        let mut at = cursor.at.0;
        loop {
            changes.mark_unchanged();
            self.at(Cursor { at: Sequence(at), ..cursor })?;
            let (_, next) = self.range();
            let wanted = at + 1..next.min(at + 1 + terms.looks_at());
            if wanted.is_empty() {
                if !terms.wait(&mut changes, std::future::pending()).await {
                    return Ok(self.delivery(Vec::new(), at, Receipt::of_nothing(), None));
                }
                continue;
            }
            let Some(found) = self.fetch(&wanted, terms, terms.room()).await? else { continue };
            at = found.end - 1;
            if !found.runs.is_empty() {
                return Ok(self.delivery(found.runs, at, Receipt::of_nothing(), None));
            }
        }
    }

    async fn read_subscription(
        self: &Arc<Self>,
        name: &SubscriptionName,
        from: StartAt,
        terms: &Terms,
    ) -> Result<Delivery, ReadError> {
        let subscription = self.subscription(name, from, &terms.client, terms.sitting.is_some()).await?;
        let _reading = subscription.reading(self.clock.wall_ms())?;
        let mut changes = self.next.subscribe();
        loop {
            let mut given_back = std::pin::pin!(subscription.given_back.notified());
            given_back.as_mut().enable();
            changes.mark_unchanged();
            let found = match terms.ack {
                Ack::OnHandover => self.hand_over(&subscription, terms).await?,
                // In a box: whoever waits otherwise, as most streams do, should not hold room for it.
                Ack::Explicit { .. } | Ack::InHand(_) => Box::pin(self.lease(&subscription, terms)).await?,
            };
            if let Some(delivery) = found {
                return Ok(delivery);
            }
            if subscription.is_removed() || !terms.wait(&mut changes, given_back).await {
                let nothing = self.delivery(Vec::new(), subscription.claimed(), Receipt::of_nothing(), None);
                return Ok(Delivery { lost_from: subscription.lost_from(), ..nothing });
            }
        }
    }

    /// Takes what can be had now, to be settled by handing it over.
    async fn hand_over(&self, subscription: &Arc<Subscription>, terms: &Terms) -> Result<Option<Delivery>, ReadError> {
        loop {
            if let Some(delivery) = self.hand_over_open(subscription, terms).await? {
                return Ok(Some(delivery));
            }
            if subscription.awaits_opening() {
                // Some are to wait, as an earlier run has promised: they are not handed over with their neighbours.
                let _turn = subscription.turn.lock().await;
                if Box::pin(self.open_more(subscription, terms)).await?.is_some() {
                    continue;
                }
            }
            let claim = subscription.claim(self.range(), terms.looks_at(), terms.sitting);
            let Some(mut claim) = claim else { return Ok(None) };
            // Trimmed meanwhile: the claim is given back, and what is left of it is taken again.
            let Some(found) = self.fetch(&claim.range(), terms, terms.room()).await? else { continue };
            claim.shorten(found.end);
            if claim.is_owed() {
                Box::pin(subscription.save(&*self.store)).await?;
            }
            if found.runs.is_empty() {
                claim.pass_over();
                continue;
            }
            claim.under_way(found.events);
            let mut runs = found.runs;
            let (lost, lost_from) = if terms.wants.markers { claim.cut_off() } else { (0, None) };
            if lost > 0 {
                runs.insert(0, self.cut_off_marker(claim.range().start, &runs[0].batch));
            }
            let delivery = self.delivery(runs, found.end - 1, Receipt::claim(claim), None);
            return Ok(Some(Delivery { lost, lost_from, ..delivery }));
        }
    }

    /// Gets the entries of a range that is not empty, as far as there is room. `None` when retention has removed some meanwhile; then the log's
    /// beginning has moved.
    pub(in crate::events) async fn fetch(
        &self,
        wanted: &Range<u64>,
        terms: &Terms,
        room: Room,
    ) -> Result<Option<Found>, Error> {
        let in_memory = lock(&self.tail).get(wanted);
        let is_shared = in_memory.is_some();
        let batches = match in_memory {
            Some(batches) => batches,
            None => {
                let most = usize::try_from(wanted.end - wanted.start).unwrap_or(usize::MAX);
                let _turn = match terms.wants.filter.is_all() {
                    true => None,
                    false => Some(Box::pin(self.shared.judge.fetching(&terms.client)).await),
                };
                self.store.read(&self.key, Sequence(wanted.start - 1), most).await?
            }
        };
        let judges = !terms.wants.filter.is_all();
        let mut judging = judges.then(|| self.shared.judge.hold(self.number, &terms.wants.filter, &terms.client));
        let mut found = Found::in_batches(&batches, wanted, &terms.wants, room, judging.as_mut()).await;
        if !is_shared {
            found.runs.iter_mut().for_each(Run::keep_apart);
        }
        if judges {
            // Where all is known already nothing else lets others go.
            tokio::task::yield_now().await;
        }
        drop(judging);
        if found.end > wanted.start {
            return Ok(Some(found));
        }
        let earliest = self.store.log_state(&self.key).await?.earliest.0;
        if earliest <= wanted.start {
            return Err(Error::Damaged(format!("entry {} of {:?} is missing", wanted.start, self.key)));
        }
        self.trimmed(earliest);
        Ok(None)
    }

    pub(in crate::events) fn delivery(
        &self,
        runs: Vec<Run>,
        at: u64,
        receipt: Receipt,
        leased: Option<Leased>,
    ) -> Delivery {
        let (_, next) = self.range();
        let (next, lag) = (self.cursor(at), next.saturating_sub(at + 1));
        Delivery { runs, next, lag, lost: 0, lost_from: None, receipt, leased }
    }

    /// Tells a native reader that retention took entries it had not read. The marker stands in no log: it is this
    /// subscription's own, at the place before the first that is not, which this batch holds. It says the same whenever it
    /// is made of the same place: who is told again knows it by that.
    pub(in crate::events) fn cut_off_marker(&self, before: u64, first: &Batch) -> Run {
        let marker = Batch {
            first: Sequence(before - 1),
            received_at: first.received_at,
            region: first.region.clone(),
            content: Loss::Retention.marker(),
        };
        Run { batch: Arc::new(marker), entries: 0..1 }
    }
}

impl Terms {
    /// How many entries one read looks at: more than it hands over when it does not want all of them.
    pub(in crate::events) fn looks_at(&self) -> u64 {
        let looks_at = if self.wants.filter.is_all() { self.limit } else { MAX_IN_ONE_READ };
        looks_at as u64
    }

    /// How much one read hands over.
    pub(in crate::events) fn room(&self) -> Room {
        Room { entries: self.limit, bytes: self.most_bytes }
    }

    /// On which terms what is taken now is held.
    pub(in crate::events) fn hold(&self, now: Instant) -> Hold {
        match self.ack {
            Ack::OnHandover => Hold::Response,
            Ack::Explicit { lease, max_attempts } => {
                Hold::Lease { until: now + lease.min(MAX_LEASE), max_attempts: max_attempts.max(1) }
            }
            Ack::InHand(InHand { unites, .. }) => Hold::InHand { unites },
        }
    }

    /// Which entries wait for which.
    pub(in crate::events) fn turns(&self) -> DeliveryOrder {
        if let Ack::InHand(in_hand) = self.ack { in_hand.turns } else { DeliveryOrder::EachKey }
    }

    /// How many entries may be open at once.
    pub(in crate::events) fn most_open(&self) -> usize {
        if let Ack::InHand(in_hand) = self.ack { in_hand.most_open.min(MAX_OPEN) } else { MAX_OPEN }
    }

    /// Waits for something new. `false` at the deadline, or when the gateway stops.
    async fn wait(&self, changes: &mut watch::Receiver<u64>, given_back: impl Future<Output = ()>) -> bool {
        tokio::select! {
            biased;
            changed = changes.changed() => changed.is_ok(),
            () = given_back => true,
            () = tokio::time::sleep_until(self.deadline) => false,
            () = self.stopping.cancelled() => false,
        }
    }
}

/// No wait is longer, whatever is asked for.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// The entries of a range that a reader wants.
pub(in crate::events) struct Found {
    pub(in crate::events) runs: Vec<Run>,
    /// How many of them are events.
    events: u64,
    /// The number after the last entry looked at.
    pub(in crate::events) end: u64,
}

impl Found {
    /// Looks at batches, in order; `judging` says what the filter admits, if there is one.
    async fn in_batches(
        batches: &[Arc<Batch>],
        wanted: &Range<u64>,
        wants: &Wants,
        mut room: Room,
        mut judging: Option<&mut Judging<'_>>,
    ) -> Self {
        let mut found = Self { runs: Vec::new(), events: 0, end: wanted.start };
        for batch in batches {
            let first = batch.first.0;
            let start = found.end;
            let end = wanted.end.min(batch.last().0 + 1);
            if first > start {
                break; // A gap: the next read finds it at its beginning.
            }
            if end <= start {
                continue;
            }
            // Both fit: a batch has less than 2^32 entries.
            let entries = (start - first) as usize..(end - first) as usize;
            match (&batch.content, &mut judging) {
                (Content::Events(events), None) => {
                    if found.events > 0 && events.bytes(entries.start..entries.start + 1) > room.bytes {
                        break;
                    }
                    let fits = entries.len().min(events.fit(entries.start, room.bytes));
                    let run = Run { batch: Arc::clone(batch), entries: entries.start..entries.start + fits };
                    room.take(fits, run.bytes());
                    found.events += fits as u64;
                    found.runs.push(run);
                    found.end = start + fits as u64;
                }
                (Content::Events(events), Some(judging)) => {
                    // In a box: the usual case has no filter, and should not hold room for one.
                    let looking = Box::pin(found.push_admitted(batch, events, entries, (judging, &mut room)));
                    let looked_at = looking.await;
                    found.end = first + looked_at as u64;
                }
                _ if wants.markers => {
                    room.take(1, 0);
                    found.runs.push(Run { batch: Arc::clone(batch), entries });
                    found.end = end;
                }
                _ => found.end = end,
            }
            if room.is_full() || found.end < end {
                break;
            }
        }
        found
    }

    /// Adds those of a batch's entries that a filter admits, neighbours as one run, until there is no room for more. Returns
    /// the entry after the last one looked at.
    async fn push_admitted(
        &mut self,
        batch: &Arc<Batch>,
        events: &EventText,
        entries: Range<usize>,
        (judging, room): (&mut Judging<'_>, &mut Room),
    ) -> usize {
        let mut run = entries.start..entries.start;
        let runs = &mut self.runs;
        let mut push = |run: &mut Range<usize>, next: usize| {
            let ended = std::mem::replace(run, next..next);
            if !ended.is_empty() {
                runs.push(Run { batch: Arc::clone(batch), entries: ended });
            }
        };
        let mut looked_at = entries.start;
        let (mut chunk, mut admitted) = (usize::MAX, 0);
        while looked_at < entries.end && !room.is_full() {
            let index = looked_at;
            if chunk != index / CHUNK {
                chunk = index / CHUNK;
                admitted = judging.chunk(batch.first, events, chunk).await;
            }
            if (admitted >> (index % CHUNK)) & 1 == 1 {
                let bytes = events.bytes(index..index + 1);
                if self.events > 0 && bytes > room.bytes {
                    room.bytes = 0;
                    break;
                }
                looked_at += 1;
                run.end = looked_at;
                room.take(1, bytes);
                self.events += 1;
            } else {
                looked_at += 1;
                push(&mut run, looked_at);
            }
        }
        push(&mut run, looked_at);
        looked_at
    }
}
