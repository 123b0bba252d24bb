//! [`Reader`]: one read of a stream: by a subscription or by a cursor, from memory or from the store, now or when
//! something comes.
//!
//! Invariants: a reader that keeps up is served from the tail and never asks the store. A wait ends with the first
//! entry the reader wants, at its deadline, or when the gateway stops, whichever is first; markers alone do not end the
//! wait of a reader that does not want them. A read that is dropped while it waits or asks the store has taken nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Delivery, MAX_IN_ONE_READ, ReadFrom, ReadRequest, Receipt};
use crate::events::app_stream::AppStream;
use crate::events::log::loss::Loss;
use crate::events::log::{Fetched, Found, ReadError, ReadFilter, Room, Run, StartAt};
use crate::events::subscription::{Hold, LogRange, MAX_OPEN, StreamNumber, Subscription};
use crate::events::{Ack, Cursor, DeliveryOrder, InHand, Leased, MAX_LEASE};
use crate::kernel::names::SubscriptionName;
use crate::store::{Batch, Sequence};

/// One read of a stream.
pub(in crate::events) struct Reader {
    pub(in crate::events) stream: Arc<AppStream>,
    pub(in crate::events) filter: ReadFilter,
    /// The open stream that reads, if it is one.
    pub(in crate::events) session: Option<StreamNumber>,
    limit: usize,
    max_bytes: usize,
    ack: Ack,
    deadline: Instant,
    stopping: CancellationToken,
}

impl Reader {
    /// Serves a read.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub(in crate::events) fn read(
        stream: Arc<AppStream>,
        request: ReadRequest,
        session: Option<StreamNumber>,
        stopping: CancellationToken,
    ) -> impl Future<Output = Result<Delivery, ReadError>> {
        let reader = Self {
            filter: ReadFilter { markers: request.markers, filter: request.filter, client: request.client },
            session,
            limit: request.limit.clamp(1, MAX_IN_ONE_READ),
            max_bytes: request.max_bytes,
            ack: request.ack,
            deadline: stream.shared.clock.now() + request.wait.min(MAX_WAIT),
            stopping,
            stream,
        };
        let from = request.place;
        // No `async fn`: that would hold the request as well while it waits, for each of ten thousand open streams.
        async move {
            match from {
                ReadFrom::After(cursor) => reader.read_after(cursor).await,
                ReadFrom::Subscription { name, from } => reader.read_subscription(&name, from).await,
            }
        }
    }

    async fn read_after(&self, cursor: Cursor) -> Result<Delivery, ReadError> {
        let log = &self.stream.log;
        let mut changes = log.changes();
        let mut at = cursor.at;
        loop {
            // Before the log is looked at: an entry that comes after the look is then a change, and ends the wait.
            changes.mark_unchanged();
            log.at(Cursor { at, ..cursor })?;
            let wanted = at.next()..log.range().end.min(at.next().plus(self.looks_at()));
            if wanted.is_empty() {
                if !self.wait(&mut changes, std::future::pending()).await {
                    return Ok(self.delivery(Vec::new(), at, Receipt::of_nothing(), None));
                }
                continue;
            }
            let fetched = log.fetch(&wanted, &self.filter, self.room()).await?;
            let Some(found) = self.found(fetched) else { continue };
            at = found.end.previous();
            if !found.runs.is_empty() {
                return Ok(self.delivery(found.runs, at, Receipt::of_nothing(), None));
            }
        }
    }

    async fn read_subscription(&self, name: &SubscriptionName, from: StartAt) -> Result<Delivery, ReadError> {
        let by_stream = self.session.is_some();
        let subscription = self.stream.registry.get_or_begin(name, from, &self.filter.client, by_stream).await?;
        let _reading = subscription.reading(self.stream.shared.clock.wall_ms())?;
        let mut changes = self.stream.log.changes();
        loop {
            // Both before anything is looked for: what comes, or is given back, between the look and the wait ends the
            // wait. The other way round a reader could sleep until its deadline with an entry waiting for it.
            let mut given_back = std::pin::pin!(subscription.given_back.notified());
            if given_back.as_mut().enable() {
                // That was said before this look, which sees what it was about: most acknowledgements leave such a word
                // behind, and it would make each read look twice.
                given_back.set(subscription.given_back.notified());
                given_back.as_mut().enable();
            }
            changes.mark_unchanged();
            let found = match self.ack {
                Ack::OnHandover => self.hand_over(&subscription).await?,
                // In a box: whoever waits otherwise, as most streams do, should not hold room for it.
                Ack::Explicit { .. } | Ack::InHand(_) => Box::pin(self.lease(&subscription)).await?,
            };
            if let Some(delivery) = found {
                return Ok(delivery);
            }
            if subscription.is_removed() || !self.wait(&mut changes, given_back).await {
                let nothing = self.delivery(Vec::new(), subscription.claimed(), Receipt::of_nothing(), None);
                return Ok(Delivery { lost_from: subscription.lost_from(), ..nothing });
            }
        }
    }

    /// Takes what can be had now, to be settled by handing it over.
    async fn hand_over(&self, subscription: &Arc<Subscription>) -> Result<Option<Delivery>, ReadError> {
        loop {
            if let Some(delivery) = self.hand_over_open(subscription).await? {
                return Ok(Some(delivery));
            }
            if subscription.awaits_opening() {
                // Some are to wait, as an earlier run has promised: they are not handed over with their neighbours.
                let _turn = subscription.turn.lock().await;
                if Box::pin(self.open_more(subscription)).await?.is_some() {
                    continue;
                }
            }
            let claim = LogRange::claim(subscription, self.stream.log.range(), self.looks_at(), self.session);
            let Some(mut claim) = claim else { return Ok(None) };
            // Trimmed meanwhile: the claim is given back, and what is left of it is taken again.
            let fetched = self.stream.log.fetch(&claim.range(), &self.filter, self.room()).await?;
            let Some(found) = self.found(fetched) else { continue };
            claim.keep_before(found.end, 0);
            if claim.is_owed() {
                Box::pin(subscription.save(self.stream.log.store())).await?;
            }
            if found.runs.is_empty() {
                claim.pass_over();
                continue;
            }
            claim.under_way(found.events);
            let mut runs = found.runs;
            let (lost, lost_from) = if self.filter.markers { claim.lost() } else { (0, None) };
            if lost > 0 {
                runs.insert(0, Self::cut_off_marker(claim.range().start, &runs[0].batch));
            }
            let delivery = self.delivery(runs, found.end.previous(), Receipt::of_range(claim), None);
            return Ok(Some(Delivery { lost, lost_from, ..delivery }));
        }
    }

    /// What was found. `None` when retention has removed some meanwhile; then the log's beginning has moved. (No
    /// wrapper of [`Log::fetch`](crate::events::log::Log::fetch): each stream that waits would hold room for another
    /// future.)
    pub(in crate::events) fn found(&self, fetched: Fetched) -> Option<Found> {
        match fetched {
            Fetched::Found(found) => Some(found),
            Fetched::Trimmed(earliest) => {
                self.stream.registry.trimmed(earliest);
                None
            }
        }
    }

    pub(in crate::events) fn delivery(
        &self,
        runs: Vec<Run>,
        at: Sequence,
        receipt: Receipt,
        leased: Option<Leased>,
    ) -> Delivery {
        let log = &self.stream.log;
        let (next, lag) = (log.cursor(at), log.range().end.since(at.next()));
        Delivery { runs, next, lag, lost: 0, lost_from: None, receipt, leased }
    }

    /// Tells a native reader that retention took entries it had not read. The marker stands in no log: it is this
    /// subscription's own, at the place before the first that is not, which this batch holds. It says the same whenever
    /// it is made of the same place: who is told again knows it by that.
    pub(in crate::events) fn cut_off_marker(before: Sequence, first: &Batch) -> Run {
        let marker = Batch {
            first: before.previous(),
            received_at: first.received_at,
            region: first.region.clone(),
            content: Loss::Retention.marker(),
        };
        Run { batch: Arc::new(marker), entries: 0..1 }
    }

    /// How many entries one read looks at: more than it hands over when it does not want all of them.
    pub(in crate::events) fn looks_at(&self) -> u64 {
        let looks_at = if self.filter.admits_all() { self.limit } else { MAX_IN_ONE_READ };
        looks_at as u64
    }

    /// How much one read hands over.
    pub(in crate::events) fn room(&self) -> Room {
        Room { entries: self.limit, bytes: self.max_bytes }
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
    async fn wait(&self, changes: &mut watch::Receiver<Sequence>, given_back: impl Future<Output = ()>) -> bool {
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
