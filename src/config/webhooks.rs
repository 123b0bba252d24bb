//! `[[apps.webhooks]]`: addresses that an app's events are pushed to.
//!
//! Invariants: names are unique in their app; a webhook has at least one stream that the app reads, and at least one
//! secret: nothing leaves unsigned. The address is one that [`crate::kernel::targets`] lets through.

mod read;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;

use super::document::table::by_default;
use crate::kernel::names::{Stream, WebhookName};
use crate::kernel::secret::{PrivateUrl, SecretSource};
pub(super) use read::all;

/// One of `[[apps.webhooks]]`: where events go, and how they are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    pub name: WebhookName,
    /// Where events are posted.
    pub url: WebhookUrl,
    /// Of which streams; at least one.
    pub streams: Vec<Stream>,
    /// Which of their events.
    pub filter: Patterns,
    /// Keys that sign, the first first; at least one.
    pub secrets: Vec<SecretSource>,
    /// How an event is written.
    pub format: WebhookFormat,
    /// Requests under way at a time; at least one. With one all events of a stream are in order, with more those of a
    /// user (or a channel).
    pub max_in_flight: usize,
    /// How long the endpoint may take to answer, connecting included.
    pub timeout: Duration,
    /// How often an event is tried before it goes to the dead letters; at least once.
    pub max_attempts: u32,
    /// When it is tried again.
    pub retry: Retry,
    /// Where a webhook begins that is new.
    pub from: WebhookFrom,
    /// Whether the address may lead to this machine or to link-local addresses.
    pub allow_private_targets: bool,
    /// PEM file of trust anchors in place of the public ones.
    pub ca_file: Option<PathBuf>,
}

/// `url`: where events are posted. Who knows some of these may post there: they are shown without path and query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookUrl {
    Written(PrivateUrl),
    /// In a file, read again when it changes.
    Kept(SecretSource),
}

/// The address in a text: `https` or `http`, with a host, without user and fragment.
pub(crate) fn parse_webhook_url(text: &str) -> Option<Uri> {
    let uri = text.parse::<Uri>().ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty()))?;
    let scheme = uri.scheme_str()?;
    let is_http = scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http");
    // Uri drops a fragment without a word.
    (is_http && !text.contains(['#', '@'])).then_some(uri)
}

/// `filter`: patterns with `*`. Of one kind any, of several all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    /// Of `type`.
    pub kinds: Vec<String>,
    /// Of `user_id`.
    pub user_ids: Vec<String>,
    /// Of `group_id`.
    pub group_ids: Vec<String>,
}

/// `retry`: the wait after the first failure, and the longest. In between each is three times the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    pub initial: Duration,
    pub max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        by_default("apps.webhooks.retry", read::retry)
    }
}

/// `format`: how CloudEvents 1.0 are bound to HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookFormat {
    /// One event a request, all of it in the body.
    Structured,
    /// Several events a request, all in the body.
    Batch,
    /// One event a request: the vendor's text in the body, the rest in `ce-` headers.
    Binary,
}

impl WebhookFormat {
    const ALL: [Self; 3] = [Self::Structured, Self::Batch, Self::Binary];

    /// As the configuration writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Structured => "structured",
            Self::Batch => "batch",
            Self::Binary => "binary",
        }
    }
}

/// `from`: where a webhook begins that is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookFrom {
    /// With the oldest event kept.
    Earliest,
    /// With the next event that comes.
    Latest,
}

impl WebhookFrom {
    const ALL: [Self; 2] = [Self::Earliest, Self::Latest];

    /// As the configuration writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Earliest => "earliest",
            Self::Latest => "latest",
        }
    }
}
