//! `[[apps]]`: the vendor's App IDs, each with its regions and its credential.

use std::collections::HashSet;

use hyper::Uri;

use super::document::node::Node;
use super::document::table::Table;
use super::entry::Entry;
use super::quota::Quota;
use super::webhooks::{self, Webhook};
use super::{Events, History, events, history, quota, secrets};
use crate::kernel::names::{AppId, RegionName};
use crate::kernel::secret::{Secret, SecretSource};
use crate::vendor::Vendor;

/// One of `[[apps]]`: an App ID at the vendor and what is done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    pub id: AppId,
    /// At least one, names unique; the first serves what keeps no state in a region.
    pub regions: Vec<Region>,
    /// What opens the vendor's door.
    pub credential: Credential,
    pub quota: Quota,
    pub events: Events,
    pub history: History,
    /// `[[apps.webhooks]]`, names unique.
    pub webhooks: Vec<Webhook>,
}

/// One of an app's regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its name; `"default"` if none was given.
    pub name: RegionName,
    /// Scheme and authority, no path.
    pub base_url: Uri,
}

/// `[apps.credential]`: how the vendor knows that it is us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    Basic {
        /// Left of the colon; holds no colon.
        api_key: SecretSource,
        /// Right of the colon.
        api_secret: SecretSource,
    },
    /// A minted RTM token.
    Token {
        app_certificate: SecretSource,
        /// The user the token is for.
        uid: String,
    },
}

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
    let quota = t.section("quota", quota::quota);
    let events = t.section("events", events::events);
    let history = t.section("history", history::history);
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
            let api_key = t.need("api_key", secret).and_then(|n| secrets::source(n, without_colon));
            let api_secret = t.need("api_secret", secret).and_then(|n| secrets::source(n, |_| Ok(())));
            api_key.zip(api_secret).map(|(api_key, api_secret)| Credential::Basic { api_key, api_secret })
        }
        Kind::Token => {
            t.refuse(&basic, "belongs to kind = \"basic\"", "Leave it out, or change the kind");
            let app_certificate = t.need("app_certificate", secret).and_then(|n| secrets::source(n, |_| Ok(())));
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
