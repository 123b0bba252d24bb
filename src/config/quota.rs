//! `[apps.quota]`: the vendor's limits, a bucket each.
//!
//! Invariant: a bucket that is counted in another is counted in one that has a limit of its own.

use std::num::NonZeroU32;
use std::time::Duration;

use super::document::node::Node;
use super::document::table::{Table, by_default};
use crate::kernel::names::BucketName;

/// More tokens than this in one bucket cost memory and can be no vendor's limit.
const MAX_REQUESTS: u32 = 1_000_000;

/// So many requests in any window of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub requests: NonZeroU32,
    pub per: Duration,
}

/// A bucket of its own, or another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaRule {
    Own(Limit),
    /// Counted in that bucket, which has its own limit (sharing does not chain).
    Share(BucketName),
}

/// `[apps.quota]`: the limit of each bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub user_events: QuotaRule,
    pub channel_events: QuotaRule,
    pub history_create: QuotaRule,
    pub history_get: QuotaRule,
    pub history_count: QuotaRule,
    pub messages: QuotaRule,
}

impl Quota {
    /// The rule of a bucket.
    #[must_use]
    pub fn rule(&self, bucket: BucketName) -> QuotaRule {
        match bucket {
            BucketName::UserEvents => self.user_events,
            BucketName::ChannelEvents => self.channel_events,
            BucketName::HistoryCreate => self.history_create,
            BucketName::HistoryGet => self.history_get,
            BucketName::HistoryCount => self.history_count,
            BucketName::Messages => self.messages,
        }
    }
}

impl Default for Quota {
    fn default() -> Self {
        by_default("apps.quota", quota)
    }
}

pub(super) fn quota(t: &Table<'_>) -> Quota {
    let of = |bucket: BucketName| t.or_default(bucket.as_str(), |node| node.table(|t| rule(t, &node)).flatten());
    let quota = Quota {
        user_events: of(BucketName::UserEvents),
        channel_events: of(BucketName::ChannelEvents),
        history_create: of(BucketName::HistoryCreate),
        history_get: of(BucketName::HistoryGet),
        history_count: of(BucketName::HistoryCount),
        messages: of(BucketName::Messages),
    };
    // A chain could close to a ring, and who reads the file would have to follow it to learn a limit.
    for bucket in BucketName::ALL {
        let (QuotaRule::Share(other), Some(node)) = (quota.rule(bucket), t.take(bucket.as_str())) else { continue };
        if other == bucket {
            node.fault_in("share", "is the bucket itself", "Name another bucket, or write requests and per");
        } else if let QuotaRule::Share(_) = quota.rule(other) {
            let what = format!("names {other}, which has no limit of its own");
            node.fault_in("share", &what, "Sharing does not chain");
        }
    }
    quota
}

fn rule(t: &Table<'_>, node: &Node<'_>) -> Option<QuotaRule> {
    let (requests, per, share) = (t.take("requests"), t.take("per"), t.take("share"));
    if let Some(share) = share {
        if requests.is_some() || per.is_some() {
            return node.fault(
                "has both a limit and a share",
                "Write { requests = N, per = \"1s\" } or { share = \"BUCKET\" }",
            );
        }
        return share.one_of(&BucketName::ALL.map(|bucket| (bucket.as_str(), bucket))).map(QuotaRule::Share);
    }
    if requests.is_none() {
        t.missing("requests", "Write how many requests the window may hold");
    }
    if per.is_none() {
        t.missing("per", "Write the window's length, as \"1s\"");
    }
    let requests = requests.and_then(|n| n.count(MAX_REQUESTS)).and_then(NonZeroU32::new);
    let per = per.and_then(Node::duration);
    requests.zip(per).map(|(requests, per)| QuotaRule::Own(Limit { requests, per }))
}
