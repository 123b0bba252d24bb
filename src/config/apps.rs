//! `[[apps]]`: the vendor's App IDs, each with its credential, limits, events and history.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::time::Duration;

use super::document::{Node, Table};
use super::load::Entry;
use super::webhooks;
use super::{App, Credential, Events, History, Limit, Quota, QuotaRule, Region};
use crate::kernel::names::{AppId, BucketName, RegionName, Stream};
use crate::kernel::secret::Secret;
use crate::vendor::Vendor;

/// More tokens than this in one bucket cost memory and can be no vendor's limit.
const MAX_REQUESTS: u32 = 1_000_000;

/// An answer is held in memory, twice in a moment.
const MAX_READ_BYTES: u64 = 1 << 30;

/// Every event waits so long. What a region brings later than a minute is no disorder but an outage.
const MAX_ORDER_WINDOW: Duration = Duration::from_secs(60);

pub(super) fn all(top: &Table<'_>, vendor: Vendor) -> Vec<Entry<AppId, App>> {
    // None at all is a warning (`checks`): the shipped file is whole without an app, and so can be tried.
    let entries = top.take("apps").and_then(|node| node.entries("[[apps]] above each app")).unwrap_or_default();
    let mut apps: Vec<Entry<AppId, App>> = Vec::with_capacity(entries.len());
    let mut ids = HashSet::new();
    for entry in entries {
        let app = entry.table(|t| app(t, vendor)).unwrap_or(Entry { name: None, whole: None });
        if let Some(id) = &app.name
            && !ids.insert(id.clone())
        {
            entry.fault_in("id", "is the id of another app", "Give each App ID one [[apps]]");
        }
        apps.push(app);
    }
    apps
}

fn app(t: &Table<'_>, vendor: Vendor) -> Entry<AppId, App> {
    let id = t.need("id", "Write the vendor's App ID").and_then(|n| n.name(AppId::parse));
    let regions = match t.take("regions") {
        Some(node) => regions(&node),
        None => default_region(vendor),
    };
    let credential = t
        .need("credential", "Write [apps.credential] with kind = \"basic\" or kind = \"token\"")
        .and_then(|node| node.table(credential).flatten());
    let quota = t.section("quota", quota);
    let events = t.section("events", events);
    let history = t.section("history", history);
    let webhooks = webhooks::all(t, &events.streams);
    if let (Some(id), Some(Credential::Token { .. })) = (&id, &credential)
        && id.as_str().len() != 32
        && let Some(node) = t.take("id")
    {
        node.warn("is not 32 characters long, as a token's App ID is at the vendor", "Look at the vendor's console");
    }
    let whole = id.clone().zip(regions).zip(credential).zip(webhooks);
    let whole = whole.map(|(((id, regions), credential), webhooks)| App {
        id,
        regions,
        credential,
        quota,
        events,
        history,
        webhooks,
    });
    Entry { name: id, whole }
}

fn default_region(vendor: Vendor) -> Option<Vec<Region>> {
    Some(vec![Region { name: RegionName::parse("default").ok()?, base_url: vendor.base_url().parse().ok()? }])
}

fn regions(node: &Node<'_>) -> Option<Vec<Region>> {
    let like = "[{ name = \"cn\", base_url = \"https://api.agrtc.cn\" }]";
    let entries = node.entries(like)?;
    if entries.is_empty() {
        return node.fault("must name at least one region", "Leave it out for the vendor's own");
    }
    let mut regions: Vec<Region> = Vec::new();
    let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
    let mut whole = true;
    for entry in entries {
        let region = entry.table(|t| {
            let name = t.need("name", "Give the region a name").and_then(|n| n.name(RegionName::parse));
            let base_url = t.need("base_url", "Write the region's https:// address").and_then(Node::base_url);
            name.zip(base_url).map(|(name, base_url)| Region { name, base_url })
        });
        let Some(region) = region.flatten() else {
            whole = false;
            continue;
        };
        if !names.insert(region.name.clone()) {
            entry.fault_in("name", "is the name of another region", "Give each region its own");
        }
        if !addresses.insert(region.base_url.clone()) {
            entry.warn("has the address of another region: they read one queue twice as often", "Keep one of them");
        }
        regions.push(region);
    }
    whole.then_some(regions)
}

fn credential(t: &Table<'_>) -> Option<Credential> {
    #[derive(Clone, Copy)]
    enum Kind {
        Basic,
        Token,
    }
    let (basic, token) = (["api_key", "api_secret"], ["app_certificate", "uid"]);
    let kind = t
        .need("kind", "Write \"basic\" or \"token\"")
        .and_then(|n| n.one_of(&[("basic", Kind::Basic), ("token", Kind::Token)]));
    let secret = "Write { env = \"NAME\" } or { file = \"PATH\" }";
    let Some(kind) = kind else {
        t.spare_the_rest(&basic);
        t.spare_the_rest(&token);
        return None;
    };
    match kind {
        Kind::Basic => {
            t.refuse(&token, "belongs to kind = \"token\"", "Leave it out, or change the kind");
            let api_key = t.need("api_key", secret).and_then(|n| n.secret(without_colon));
            let api_secret = t.need("api_secret", secret).and_then(|n| n.secret(|_| Ok(())));
            api_key.zip(api_secret).map(|(api_key, api_secret)| Credential::Basic { api_key, api_secret })
        }
        Kind::Token => {
            t.refuse(&basic, "belongs to kind = \"basic\"", "Leave it out, or change the kind");
            let app_certificate = t.need("app_certificate", secret).and_then(|n| n.secret(|_| Ok(())));
            let uid = t.need("uid", "Write the user the token is for, as \"rtm-gateway\"").and_then(uid);
            app_certificate.zip(uid).map(|(app_certificate, uid)| Credential::Token { app_certificate, uid })
        }
    }
}

/// Basic credentials end the name at the first colon (RFC 7617).
fn without_colon(key: &Secret) -> Result<(), &'static str> {
    if key.expose().contains(':') {
        Err("holds a colon, which Basic credentials cannot carry in a name")
    } else {
        Ok(())
    }
}

/// The uid leaves in a header.
fn uid(node: Node<'_>) -> Option<String> {
    let text = node.clone().text()?;
    if text.is_empty() || text.len() > 256 || text.chars().any(char::is_control) || text.trim() != text {
        return node.fault("must be 1 to 256 bytes without control characters and outer blanks", "Write the user's id");
    }
    Some(text.to_owned())
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

pub(super) fn events(t: &Table<'_>) -> Events {
    let streams = Stream::ALL.map(|stream| (stream.as_str(), stream));
    let read = |n: Node<'_>| n.set("[\"user_events\", \"channel_events\"]", |entry| entry.one_of(&streams));
    let retention = t.or_default("retention", Node::duration);
    let subscription_ttl = t.or_default("subscription_ttl", Node::duration_or_off);
    let events = Events {
        streams: t.or_default("streams", read),
        poll_interval: t.or_default("poll_interval", Node::duration),
        poll_interval_idle: t.or_default("poll_interval_idle", Node::duration),
        retention,
        retention_bytes: t.or_default("retention_bytes", Node::size),
        max_read_bytes: t.or_default("max_read_bytes", Node::size),
        dedup_window: t.or_default("dedup_window", Node::duration_or_off),
        subscription_ttl: if t.has("subscription_ttl") { subscription_ttl } else { subscription_ttl.max(retention) },
        max_subscriptions_per_client: t.or_default("max_subscriptions_per_client", |n| n.count(10_000)) as usize,
        order_window: t.or_default("order_window", Node::duration_or_off),
    };
    if events.max_read_bytes > MAX_READ_BYTES
        && let Some(node) = t.take("max_read_bytes")
    {
        node.fault::<()>("is larger than 1GiB", "An answer is held in memory until it is stored: write megabytes");
    }
    if events.order_window > MAX_ORDER_WINDOW
        && let Some(node) = t.take("order_window")
    {
        node.fault::<()>("is longer than a minute", "Events wait as long before anyone sees them: write seconds");
    }
    if t.sound()
        && events.poll_interval > events.poll_interval_idle
        && let Some(node) = t.take("poll_interval_idle").or_else(|| t.take("poll_interval"))
    {
        node.fault::<()>(
            "makes poll_interval longer than poll_interval_idle",
            "Let polling slow down when idle, not speed up",
        );
    }
    if !events.subscription_ttl.is_zero()
        && events.subscription_ttl < events.retention
        && let Some(node) = t.take("subscription_ttl")
    {
        node.warn(
            "is shorter than retention: who reads again after it has lost events that are still kept",
            "Leave it out, or make it at least as long as retention",
        );
    }
    if events.retention < events.dedup_window
        && let Some(node) = t.take("retention").or_else(|| t.take("dedup_window"))
    {
        node.warn(
            "makes retention shorter than dedup_window",
            "Keep events at least as long as their repeats are known",
        );
    }
    events
}

pub(super) fn history(t: &Table<'_>) -> History {
    let handle_ttl = t.or_default("handle_ttl", Node::duration);
    let history = History {
        deadline: t.or_default("deadline", Node::duration),
        handle_ttl,
        keep_going: t.take("keep_going").and_then(Node::duration_or_off).unwrap_or(handle_ttl),
        max_limit: t.or_default("max_limit", |n| n.count(10_000_000).map(|n| n as usize)),
    };
    if history.handle_ttl < history.deadline
        && let Some(node) = t.take("handle_ttl").or_else(|| t.take("deadline"))
    {
        node.warn(
            "makes handle_ttl shorter than deadline: a handle may die before its work is done",
            "Raise handle_ttl",
        );
    }
    history
}
