//! [`QuotaState`]: a bucket as operators see it; and what is told of a vendor that refuses although the quota is kept.

use super::buckets::AppBucket;
use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::names::{AppId, BucketName};
use crate::kernel::trouble::{Part, Symptom};
use crate::upstream::quota::{ClientUse, RefusalNews, VendorRefusals};
use tokio::time::Instant;

/// A bucket as it is now, for the admin API.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct QuotaState {
    /// The app.
    pub app: String,
    /// Its name in the configuration.
    pub bucket: &'static str,
    /// As configured: so many in any `per_seconds`.
    pub requests: u32,
    /// The window.
    pub per_seconds: f64,
    /// Seats that may be used: below `requests` after a refusal by the vendor.
    pub in_force: u32,
    /// Seats that would be given at once.
    pub free: u32,
    /// Seats that what is under way has.
    pub in_flight: u32,
    /// Orders that wait.
    pub waiting: usize,
    /// How long until the next seat comes free; zero when one is free.
    pub next_seconds: f64,
    /// While the vendor refuses although the quota is kept.
    pub others_spend: Option<OthersSpend>,
    /// Who has used it: who used most in the last minute first.
    pub clients: Vec<ClientUse>,
}

/// The vendor refuses (429) although the quota is kept: somebody else spends the same App ID, or the configuration
/// allows more than the vendor does.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct OthersSpend {
    /// When it began to.
    pub since: String,
    /// When it did so last.
    pub last: String,
    /// How many it has refused since.
    pub refused: u64,
}

impl QuotaState {
    pub(super) fn of(app: &AppId, bucket: &AppBucket, clock: &Clock) -> Self {
        let now = bucket.seats.snapshot();
        Self {
            app: app.to_string(),
            bucket: bucket.name.as_str(),
            requests: now.limit.requests.get(),
            per_seconds: now.limit.per.as_secs_f64(),
            in_force: now.in_force,
            free: now.free,
            in_flight: now.in_flight,
            waiting: now.waiting,
            next_seconds: now.next.as_secs_f64(),
            others_spend: bucket.seats.refusals().map(|refusals| OthersSpend::of(&refusals, clock)),
            clients: bucket.seats.clients(),
        }
    }
}

/// What readiness says of it while the vendor refuses although the quota is kept.
pub(super) fn trouble(bucket: &AppBucket, clock: &Clock) -> Option<(Part, Symptom, UnixMillis)> {
    let refusals = bucket.seats.refusals()?;
    let part = match bucket.name {
        BucketName::UserEvents | BucketName::ChannelEvents => Part::Events,
        BucketName::HistoryCreate | BucketName::HistoryGet | BucketName::HistoryCount | BucketName::Messages => {
            Part::Messages
        }
    };
    Some((part, Symptom::QuotaSpentByOthers, wall(refusals.since, clock)))
}

fn wall(at: Instant, clock: &Clock) -> UnixMillis {
    clock.wall_ms().before(clock.now().saturating_duration_since(at))
}

impl OthersSpend {
    fn of(refusals: &VendorRefusals, clock: &Clock) -> Self {
        Self {
            since: wall(refusals.since, clock).to_string(),
            last: wall(refusals.last, clock).to_string(),
            refused: refusals.refused,
        }
    }
}

/// Logs that the vendor began to refuse requests of a bucket, or refuses them no more: once each.
pub(super) fn tell_refusals(app: &AppId, bucket: &AppBucket) {
    while let Some(news) = bucket.seats.refusal_news() {
        tell(app, bucket, news);
    }
}

/// Logs the end of what was told to have begun, of a bucket that a reload has put out of use.
pub(super) fn tell_last_refusals(app: &AppId, bucket: &AppBucket) {
    if let Some(news) = bucket.seats.last_refusal_news() {
        tell(app, bucket, news);
    }
}

fn tell(app: &AppId, AppBucket { name: bucket, limit, .. }: &AppBucket, news: RefusalNews) {
    match news {
        RefusalNews::Began(now) => tracing::warn!(
            %app,
            %bucket,
            requests = limit.requests.get(),
            per_seconds = limit.per.as_secs_f64(),
            in_force = now.in_force,
            retry_after_seconds = now.retry_after.map_or(0.0, |asked| asked.as_secs_f64()),
            "the vendor refuses (429) although the quota was kept: somebody else spends the quota of this App ID \
             (another gateway, software with the vendor's credential), or apps.quota allows more than the vendor"
        ),
        RefusalNews::Ended(then) => tracing::warn!(
            %app,
            %bucket,
            refused = then.refused,
            lasted_seconds = lasted(&then),
            in_force = then.in_force,
            "the vendor refuses no more: all of the quota is in use again"
        ),
        RefusalNews::Unwatched(then) => tracing::warn!(
            %app,
            %bucket,
            refused = then.refused,
            lasted_seconds = lasted(&then),
            "the vendor's refusals are counted anew: a reload has put another bucket, or none, in this one's place"
        ),
    }
}

fn lasted(refusals: &VendorRefusals) -> f64 {
    refusals.last.saturating_duration_since(refusals.since).as_secs_f64()
}
