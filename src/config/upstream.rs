//! `[upstream]`: how the vendor is reached, how long it may take, and what is done when it fails.
//!
//! Invariant: the first byte may not take longer than the whole.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;

use super::document::node::Node;
use super::document::table::{Table, by_default};
use super::survey::Form;
use super::{pem, secrets, values};
use crate::kernel::secret::SecretSource;
use crate::vendor::Vendor;

/// `[upstream]`: the way to the vendor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    pub vendor: Vendor,
    /// How long a connection may take to be made, proxy and TLS included.
    pub connect_timeout: Duration,
    /// How long the vendor may take to begin its answer; `None`: as long as the whole.
    pub first_byte_timeout: Option<Duration>,
    /// How long the vendor may pause in the middle of an answer.
    pub idle_timeout: Duration,
    /// How long the vendor may take to answer.
    pub request_timeout: Duration,
    /// The longest that the vendor's `Retry-After` is believed.
    pub max_retry_after: Duration,
    /// PEM file of trust anchors beside the public ones.
    pub ca_file: Option<PathBuf>,
    /// The way out, where there is no other.
    pub proxy: Option<Proxy>,
    /// `[upstream.retry]`.
    pub retry_budget: RetryBudget,
    /// `[upstream.breaker]`.
    pub breaker: Breaker,
}

/// An HTTP proxy that is asked with CONNECT (RFC 9110 section 9.3.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// `http://host:port`.
    pub url: Uri,
    /// What it is shown, if it asks.
    pub authorization: Option<ProxyAuthorization>,
    /// Hosts that are reached without it: names, `.domain`s, addresses, networks, `*`; each with `:port` if need be.
    pub no_proxy: Vec<String>,
}

/// Basic credentials for the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyAuthorization {
    /// The user; holds no colon.
    pub user: String,
    pub password: SecretSource,
}

/// `[upstream.retry]`: what of a client's orders may be sent again, of all that is sent. A vendor that fails is not
/// asked many times more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Retries for each hundred first tries.
    pub percent: u32,
    /// Retries a second that are always allowed.
    pub min_per_second: u32,
}

/// `[upstream.breaker]`: when a host that cannot be connected to is not asked at all, and when an endpoint whose
/// answers fail is asked in another region first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// So many failures in a row open it; 0 turns it off.
    pub failures: u32,
    /// How long it stays open at first.
    pub open_for: Duration,
}

impl Default for Upstream {
    fn default() -> Self {
        by_default("upstream", upstream)
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        by_default("upstream.retry", retry)
    }
}

impl Default for Breaker {
    fn default() -> Self {
        by_default("upstream.breaker", breaker)
    }
}

pub(super) fn upstream(t: &Table<'_>) -> Upstream {
    let vendors = [Vendor::AnyRtc, Vendor::Agora].map(|v| (v.as_str(), v));
    let upstream = Upstream {
        vendor: t.or_default("vendor", |n| n.one_of(&vendors)),
        connect_timeout: t.or_default("connect_timeout", Node::duration),
        first_byte_timeout: t.take("first_byte_timeout").and_then(Node::duration),
        idle_timeout: t.or_default("idle_timeout", Node::duration),
        request_timeout: t.or_default("request_timeout", Node::duration),
        max_retry_after: t.or_default("max_retry_after", Node::duration),
        ca_file: t.take("ca_file").and_then(pem::authorities),
        proxy: proxy(t),
        retry_budget: t.section("retry", retry),
        breaker: t.section("breaker", breaker),
    };
    if upstream.first_byte_timeout.is_some_and(|first| first > upstream.request_timeout)
        && let Some(node) = t.take("first_byte_timeout")
    {
        node.fault::<()>("is longer than request_timeout, which ends the whole", "Shorten it, or leave it out");
    }
    upstream
}

fn proxy(t: &Table<'_>) -> Option<Proxy> {
    let needs = ["proxy_user", "proxy_password", "no_proxy"];
    let Some(node) = t.take("proxy") else {
        t.refuse(&needs, "is of no use without proxy", "Write proxy = \"http://host:port\", or leave it out");
        return None;
    };
    let url = proxy_url(node);
    let (user, password) = (t.take("proxy_user"), t.take("proxy_password"));
    let authorization = match (user, password) {
        (None, None) => Some(None),
        (Some(user), Some(password)) => {
            let user = proxy_user(user);
            let password = secrets::source(password, |_| Ok(()));
            user.zip(password).map(|(user, password)| Some(ProxyAuthorization { user, password }))
        }
        // Half of the credentials is a slip, and a proxy would answer 407 to whatever is sent.
        (Some(node), None) | (None, Some(node)) => {
            node.fault("needs proxy_user and proxy_password, both", "Write the other too, or leave both out")
        }
    };
    let no_proxy = t.take("no_proxy").map_or(Some(Vec::new()), |node| {
        node.set("[\"localhost\", \".corp\", \"10.0.0.0/8\"]", |entry| {
            let text = entry.clone().text()?;
            if text.is_empty() || text.contains(char::is_whitespace) || !text.is_ascii() {
                return entry.fault("must be a host, a .domain, an address, a network or *", "Write one to an entry");
            }
            Some(text.to_ascii_lowercase())
        })
    });
    Some(Proxy { url: url?, authorization: authorization?, no_proxy: no_proxy? })
}

fn retry(t: &Table<'_>) -> RetryBudget {
    RetryBudget {
        percent: t.or_default("percent", |n| n.count_or_none(100)),
        min_per_second: t.or_default("min_per_second", |n| n.count_or_none(10_000)),
    }
}

fn breaker(t: &Table<'_>) -> Breaker {
    Breaker {
        failures: t.or_default("failures", |n| n.count_or_none(1_000_000)),
        open_for: t.or_default("open_for", Node::duration),
    }
}

fn proxy_url(node: Node<'_>) -> Option<Uri> {
    node.must_be(|| Form::Address);
    let text = node.clone().text()?;
    match values::parse_base_url(text) {
        Some((uri, false)) => Some(uri),
        _ => node.fault(
            "must be http:// and a host, with a port if need be, as \"http://proxy.corp:3128\"",
            "User and password go into proxy_user and proxy_password",
        ),
    }
}

fn proxy_user(node: Node<'_>) -> Option<String> {
    let text = node.clone().text()?;
    if text.is_empty() || text.contains(':') || text.chars().any(char::is_control) {
        return node.fault("must be a name without a colon", "Write the user that the proxy knows");
    }
    Some(text.to_owned())
}
