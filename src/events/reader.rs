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

use super::delivery::{Delivery, MOST_IN_ONE_READ, Place, Read, ReadError, Receipt, Run};
use super::log::Log;
use super::loss::Loss;
use super::subscription::Claim;
use super::{Cursor, From, lock};
use crate::names::{ClientName, SubscriptionName};
use crate::store::{Batch, Content, Error, Sequence};

/// What holds for the whole of a read.
struct Terms {
    limit: usize,
    markers: bool,
    deadline: Instant,
    stopping: CancellationToken,
}

impl Log {
    /// Serves a read.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub(super) async fn read(&self, read: Read, stopping: CancellationToken) -> Result<Delivery, ReadError> {
        let terms = Terms {
            limit: read.limit.clamp(1, MOST_IN_ONE_READ),
            markers: read.markers,
            deadline: self.clock.now() + read.wait.min(LONGEST_WAIT),
            stopping,
        };
        match read.place {
            Place::After(cursor) => self.read_after(cursor, &terms).await,
            Place::Subscription { name, from, by } => self.read_subscription(&name, from, &by, &terms).await,
        }
    }

    async fn read_after(&self, cursor: Cursor, terms: &Terms) -> Result<Delivery, ReadError> {
        let mut changes = self.next.subscribe();
        let mut at = cursor.at.0;
        loop {
            changes.mark_unchanged();
            let (earliest, next) = self.range();
            // Before the comparison with the end: a cursor of another store says nothing about this one.
            if cursor.epoch != self.store.epoch() || at.saturating_add(1) < earliest {
                return Err(ReadError::Expired { earliest: self.cursor(earliest - 1) });
            }
            if at >= next {
                return Err(ReadError::Ahead);
            }
            let wanted = at + 1..next.min(at + 1 + terms.limit as u64);
            if wanted.is_empty() {
                if !terms.wait(&mut changes, std::future::pending()).await {
                    return Ok(self.delivery(Vec::new(), at, Receipt(None)));
                }
                continue;
            }
            let Some(found) = self.fetch(&wanted, terms.markers).await? else { continue };
            at = found.end - 1;
            if !found.runs.is_empty() {
                return Ok(self.delivery(found.runs, at, Receipt(None)));
            }
        }
    }

    async fn read_subscription(
        &self,
        name: &SubscriptionName,
        from: From,
        by: &ClientName,
        terms: &Terms,
    ) -> Result<Delivery, ReadError> {
        let subscription = self.subscription(name, from, by).await?;
        let mut changes = self.next.subscribe();
        loop {
            let mut given_back = std::pin::pin!(subscription.given_back.notified());
            given_back.as_mut().enable();
            changes.mark_unchanged();
            let (earliest, next) = self.range();
            let Some(mut claim) = subscription.claim(earliest, next, terms.limit) else {
                if !terms.wait(&mut changes, given_back).await {
                    return Ok(self.delivery(Vec::new(), subscription.claimed(), Receipt(None)));
                }
                continue;
            };
            // Trimmed meanwhile: the claim is given back, and what is left of it is taken again.
            let Some(found) = self.fetch(&claim.range(), terms.markers).await? else { continue };
            claim.shorten(found.end);
            if found.runs.is_empty() {
                claim.settle();
                continue;
            }
            claim.under_way(found.events);
            let mut runs = found.runs;
            if terms.markers && claim.tells_cut_off() {
                runs.insert(0, self.cut_off_marker(&claim, &runs[0]));
            }
            return Ok(self.delivery(runs, found.end - 1, Receipt(Some(claim))));
        }
    }

    /// Gets the entries of a range that is not empty. `None` when retention has removed some meanwhile; then the log's
    /// beginning has moved.
    async fn fetch(&self, wanted: &Range<u64>, markers: bool) -> Result<Option<Found>, Error> {
        let in_memory = lock(&self.tail).get(wanted);
        let batches = match in_memory {
            Some(batches) => batches,
            None => {
                let most = usize::try_from(wanted.end - wanted.start).unwrap_or(usize::MAX);
                self.store.read(&self.key, Sequence(wanted.start - 1), most).await?
            }
        };
        let found = Found::in_batches(&batches, wanted, markers);
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

    fn delivery(&self, runs: Vec<Run>, at: u64, receipt: Receipt) -> Delivery {
        let (_, next) = self.range();
        Delivery { runs, next: self.cursor(at), lag: next.saturating_sub(at + 1), receipt }
    }

    /// Tells a native reader that retention took entries it had not read. The marker stands in no log: it is this
    /// subscription's own, at the last place that is gone.
    fn cut_off_marker(&self, claim: &Claim, first: &Run) -> Run {
        let marker = Batch {
            first: Sequence(claim.range().start - 1),
            received_at: self.clock.wall_ms(),
            region: first.batch.region.clone(),
            content: Loss::Retention.marker(),
        };
        Run { batch: Arc::new(marker), entries: 0..1 }
    }
}

impl Terms {
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
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The entries of a range that a reader wants.
struct Found {
    runs: Vec<Run>,
    /// How many of them are events.
    events: u64,
    /// The number after the last entry looked at.
    end: u64,
}

impl Found {
    fn in_batches(batches: &[Arc<Batch>], wanted: &Range<u64>, markers: bool) -> Self {
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
            found.end = end;
            let is_event = matches!(batch.content, Content::Events(_));
            if is_event || markers {
                // Both fit: a batch has less than 2^32 entries.
                let entries = (start - first) as usize..(end - first) as usize;
                found.events += if is_event { end - start } else { 0 };
                found.runs.push(Run { batch: Arc::clone(batch), entries });
            }
        }
        found
    }
}
