//! A [`Parcel`]: what goes out in one request, on its way; and the [`Recorder`], who sees to it that what came of it is
//! on stable storage.
//!
//! Invariants: a parcel stands for its entries, which are in hand: dropped, it gives them back untried. What is
//! recorded of one from before a seek, or of a place that was removed, changes nothing. A marker of what retention took
//! is a parcel as any other: its tries, its wait and its end are kept in the subscription, though it waits here.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::condition::StoredCondition;
use super::endpoint::{AFTER_FAILURE, Deps};
use super::entry::Entry;
use super::message::{BATCH_BYTES, most_entries};
use super::pace::Disposition;
use crate::config::WebhookFormat;
use crate::events::{AckError, Delivery, Holding, Leased, Nack, Receipt};
use crate::kernel::metrics::WebhookLabels;
use crate::kernel::names::{AppId, Stream, SubscriptionName};
use crate::store::{Error, Sequence};

pub(super) struct Parcel {
    pub(super) entries: Vec<Entry>,
    receipt: Receipt,
    /// Under which lease its entries are in hand. `None`: it is the marker of what retention has cut off, which stands
    /// in no log; it waits here.
    leased: Option<Leased>,
    /// Tries in vain so far.
    pub(super) failures: u32,
    /// It is not sent before.
    pub(super) due: Instant,
}

impl Parcel {
    /// What one read brought: a marker, if there is one, and the entries that go out as one. What is too much for one
    /// message is given back.
    pub(super) fn all_of(delivery: Delivery, format: WebhookFormat, store: u64, now: Instant) -> Vec<Self> {
        let Delivery { runs, next, lost, mut receipt, leased, .. } = delivery;
        let mut entries = Entry::all_of(&runs, next.epoch, store);
        let mut attempts = leased.iter().flat_map(|leased| leased.attempts.iter().copied());
        let mut parcels = Vec::new();
        if lost > 0 && !entries.is_empty() {
            let (marker, (receipt, until)) = (entries.remove(0).apart(), receipt.split_marker());
            let (failures, due) = (attempts.next().unwrap_or(0), until.map_or(now, |until| until.max(now)));
            parcels.push(Self { entries: vec![marker], receipt, leased: None, failures, due });
        }
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.size();
            bytes <= BATCH_BYTES
        };
        let fit = entries.iter().take_while(fits).count().clamp(1, most_entries(format));
        if fit < entries.len() {
            let rest = entries.split_off(fit);
            let Some(kept) = receipt.only_before(Sequence(rest[0].number()), rest.len() as u64) else { return parcels };
            receipt = kept;
        }
        if !entries.is_empty() && leased.is_some() {
            let failures = attempts.max().unwrap_or(0);
            parcels.push(Self { entries, receipt, leased, failures, due: now });
        }
        parcels
    }

    pub(super) fn is_marker(&self) -> bool {
        self.leased.is_none()
    }

    /// Whether nobody wants it any more: its place is another now.
    pub(super) fn is_void(&self) -> bool {
        match &self.leased {
            Some(leased) => leased.is_over(),
            None => self.receipt.marker_over().is_some_and(CancellationToken::is_cancelled),
        }
    }

    /// Resolves when it is to be looked at again: when it is due, or nobody wants it any more.
    pub(super) fn rest(&self) -> impl Future<Output = ()> + 'static {
        let (over, due) = (self.receipt.marker_over().cloned().unwrap_or_default(), self.due);
        async move {
            over.run_until_cancelled(tokio::time::sleep_until(due)).await;
        }
    }
}

/// Sees to it that what came of a parcel is on stable storage. Cheap to clone.
#[derive(Clone)]
pub(super) struct Recorder {
    pub(super) deps: Deps,
    pub(super) app: AppId,
    pub(super) place: SubscriptionName,
    pub(super) labels: WebhookLabels,
    pub(super) condition: Arc<StoredCondition>,
    /// The delivery loop ends: what fails is not tried again.
    pub(super) leaving: CancellationToken,
}

impl Recorder {
    /// Sees to it that a parcel goes out again as it goes out now, whatever becomes of this process. Says whether it
    /// may.
    pub(super) async fn goes_out(&self, stream: Stream, parcel: &Parcel) -> bool {
        let Some(lease) = parcel.leased.as_ref().map(|leased| leased.name) else { return true };
        while let Err(error) = self.deps.events.goes_out(&self.app, stream, &self.place, lease).await {
            let (app, webhook) = (&self.app, &self.labels.webhook);
            tracing::warn!(%app, webhook, %error, "what is to be sent to a webhook could not be stored; trying again");
            if self.leaving.run_until_cancelled(tokio::time::sleep(AFTER_FAILURE)).await.is_none() {
                return false;
            }
        }
        true
    }

    /// Records what follows for a parcel, and why; and the endpoint's condition as it is now. Returns the parcel if it
    /// is to wait here.
    pub(super) async fn record(
        self,
        stream: Stream,
        mut parcel: Parcel,
        next: Disposition,
        why: String,
    ) -> Option<Parcel> {
        // Events wait in their subscription.
        if let (Disposition::Again(back), true) = (next, parcel.is_marker()) {
            let (wait, failed) = match back {
                Nack::Failed(wait) => (wait, 1),
                Nack::Uncounted => (Duration::ZERO, 0),
            };
            (parcel.failures, parcel.due) = (parcel.failures + failed, self.deps.clock.now() + wait);
        }
        while let Err(error) = self.try_to(stream, &mut parcel, next, &why).await {
            let (app, webhook) = (&self.app, &self.labels.webhook);
            tracing::warn!(%app, webhook, %error, "what came of a webhook's request could not be stored; trying again");
            if self.leaving.run_until_cancelled(tokio::time::sleep(AFTER_FAILURE)).await.is_none() {
                if next == Disposition::Bury {
                    // It is buried when there is another delivery loop. What the store knows of it is written when it
                    // can be.
                    let _ = self.give_up_later(stream, &mut parcel).await;
                    return None;
                }
                break;
            }
        }
        match next {
            // Of events the lease is over by now, so that to drop them gives nothing back a second time.
            Disposition::Again(_) => parcel.is_marker().then_some(parcel),
            Disposition::Settle | Disposition::Bury => {
                parcel.receipt.handed_over();
                None
            }
        }
    }

    async fn give_up_later(&self, stream: Stream, parcel: &mut Parcel) -> Result<(), Error> {
        let events = &self.deps.events;
        match parcel.leased.as_ref().map(|leased| leased.name) {
            Some(lease) => events.back(&self.app, stream, &self.place, lease, Nack::Failed(Duration::ZERO)).await,
            None => events.untold(&mut parcel.receipt, parcel.failures, self.deps.clock.now()).await,
        }
    }

    async fn try_to(&self, stream: Stream, parcel: &mut Parcel, next: Disposition, why: &str) -> Result<(), Error> {
        self.condition.keep().await?;
        let (events, app, place, failures) = (&self.deps.events, &self.app, &self.place, parcel.failures);
        let lease = parcel.leased.as_ref().map(|leased| leased.name);
        match (next, lease) {
            (Disposition::Settle, Some(lease)) => {
                match events.acknowledge(app, stream, place, &Holding::Lease(lease)).await {
                    Err(AckError::Store(error)) => Err(error),
                    Ok(_) | Err(AckError::LeaseExpired | AckError::NoSuchStream) => Ok(()),
                }
            }
            (Disposition::Settle, None) => events.told(&mut parcel.receipt).await,
            (Disposition::Again(back), Some(lease)) => events.back(app, stream, place, lease, back).await,
            (Disposition::Again(Nack::Failed(_)), None) => {
                events.untold(&mut parcel.receipt, failures, parcel.due).await
            }
            (Disposition::Again(Nack::Uncounted), None) => Ok(()),
            (Disposition::Bury, _) => {
                let (letters, stored) = match lease {
                    Some(lease) => events.bury(app, stream, place, lease, (failures, why)).await,
                    None => {
                        let at = parcel.entries.first().map(|marker| marker.cursor);
                        events.bury_marker(&mut parcel.receipt, at, (failures, why)).await
                    }
                };
                self.deps.metrics.webhook_dead_letters.get_or_create(&self.labels).inc_by(letters);
                stored
            }
        }
    }
}
