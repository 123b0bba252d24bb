//! `[[apps.webhooks]]`: addresses that an app's events are pushed to.
//!
//! Invariants: names are unique in their app; a webhook has at least one stream that the app reads, and at least one
//! secret: nothing leaves unsigned. The address is one that [`crate::kernel::targets`] lets through.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use toml::de::DeValue;

use super::document::{Node, Table, by_default};
use super::survey::Form;
use crate::kernel::names::{Stream, WebhookName};
use crate::kernel::secret::{PrivateUrl, Secret, SecretSource};
use crate::kernel::standard_webhooks;
use crate::kernel::targets::Guard;

/// One of `[[apps.webhooks]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The name.
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
    /// In the configuration.
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
#[expect(missing_docs, reason = "the names say it")]
pub struct Retry {
    pub initial: Duration,
    pub max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        by_default("apps.webhooks.retry", retry)
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

/// All webhooks of an app that reads these streams. `None` when one is too broken to have a value.
pub(super) fn all(app: &Table<'_>, read: &[Stream]) -> Option<Vec<Webhook>> {
    let Some(node) = app.take("webhooks") else { return Some(Vec::new()) };
    let mut webhooks: Vec<Webhook> = Vec::new();
    let mut names = HashSet::new();
    let mut whole = true;
    for entry in node.entries("[[apps.webhooks]] above each webhook")? {
        let Some(webhook) = entry.table(|t| webhook(t, read)).flatten() else {
            whole = false;
            continue;
        };
        if !names.insert(webhook.name.clone()) {
            entry.fault_in("name", "is the name of another webhook of this app", "Give each its own");
        }
        webhooks.push(webhook);
    }
    whole.then_some(webhooks)
}

fn webhook(t: &Table<'_>, read: &[Stream]) -> Option<Webhook> {
    let name = t.need("name", "Give the webhook a name").and_then(|n| n.name(WebhookName::parse));
    let url = t.need("url", "Write the address that events are posted to");
    let (address, url) = (url.clone(), url.and_then(Node::webhook_url));
    let streams = match t.take("streams") {
        Some(node) => streams(node, read),
        None if read.is_empty() => {
            t.missing("streams", "There is no stream to push: name one in events.streams");
            None
        }
        None => Some(read.to_vec()),
    };
    let filter = t.section("filter", patterns);
    let secrets = t.need("secrets", "Write secrets = [{ file = \"PATH\" }]: requests are always signed");
    let secrets = secrets.and_then(secrets_of);
    let formats = WebhookFormat::ALL.map(|format| (format.as_str(), format));
    let froms = WebhookFrom::ALL.map(|from| (from.as_str(), from));
    let ca_file = t.take("ca_file");
    let has_bad_ca = ca_file.is_some();
    let ca_file = ca_file.and_then(Node::certificates);
    let has_bad_ca = has_bad_ca && ca_file.is_none();
    let format = t.or_default("format", |n| n.one_of(&formats));
    let max_in_flight = t.or_default("max_in_flight", |n| n.count(MAX_IN_FLIGHT)) as usize;
    let timeout = t.or_default("timeout", Node::duration);
    let max_attempts = t.or_default("max_attempts", |n| n.count(MAX_ATTEMPTS));
    let retry = t.section("retry", retry);
    let from = t.or_default("from", |n| n.one_of(&froms));
    let allow_private_targets = t.or_default("allow_private_targets", Node::flag);
    let (url, leads_to) = url.unzip();
    if let (Some(uri), Some(address)) = (leads_to.flatten(), address)
        && let Err(why) = Guard::new(allow_private_targets).judge(&uri)
    {
        return address.fault(
            format!("may not be posted to: {why}"),
            "Write another address, or allow_private_targets = true if it is meant",
        );
    }
    if has_bad_ca {
        return None;
    }
    Some(Webhook {
        name: name?,
        url: url?,
        streams: streams?,
        filter,
        secrets: secrets?,
        format,
        max_in_flight,
        timeout,
        max_attempts,
        retry,
        from,
        allow_private_targets,
        ca_file,
    })
}

fn streams(node: Node<'_>, read: &[Stream]) -> Option<Vec<Stream>> {
    let known = Stream::ALL.map(|stream| (stream.as_str(), stream));
    let streams = node.clone().set("[\"user_events\"]", |entry| {
        let stream = entry.clone().one_of(&known)?;
        if !read.contains(&stream) {
            return entry.fault("is not read for this app", "Add it to events.streams, or leave it out");
        }
        Some(stream)
    })?;
    if streams.is_empty() {
        return node.fault("must name at least one stream", "Leave it out for all that the app reads");
    }
    Some(streams)
}

fn patterns(t: &Table<'_>) -> Patterns {
    let read = |key: &'static str| {
        let texts = t.take(key).and_then(|node| node.one_or_more("[\"vip-*\"]", |n| n.text().map(str::to_owned)));
        texts.unwrap_or_default()
    };
    Patterns { kinds: read("type"), user_ids: read("user_id"), group_ids: read("group_id") }
}

fn secrets_of(node: Node<'_>) -> Option<Vec<SecretSource>> {
    let like = "[{ file = \"PATH\" }]";
    let secrets = node.clone().set(like, |entry| entry.secret(signs))?;
    if secrets.is_empty() || secrets.len() > MAX_SECRETS {
        return node.fault(
            format!("must hold 1 to {MAX_SECRETS} secrets"),
            format!("Write {like}; a second one while one takes over from another"),
        );
    }
    Some(secrets)
}

fn signs(secret: &Secret) -> Result<(), &'static str> {
    standard_webhooks::Key::parse(secret).map(|_| ()).map_err(|why| match why {
        standard_webhooks::BadKey::Prefix => "begins with neither whsec_ nor whsk_",
        standard_webhooks::BadKey::Base64 => "is not base64 after its prefix",
        standard_webhooks::BadKey::Length => "does not hold 24 to 64 bytes after whsec_",
        standard_webhooks::BadKey::NoKeyPair => "holds no ed25519 key after whsk_",
    })
}

fn retry(t: &Table<'_>) -> Retry {
    let retry = Retry { initial: t.or_default("initial", Node::duration), max: t.or_default("max", Node::duration) };
    if t.sound()
        && retry.initial > retry.max
        && let Some(node) = t.take("max").or_else(|| t.take("initial"))
    {
        node.fault::<()>("makes retry.initial longer than retry.max", "Let waits grow, not shrink");
    }
    retry
}

impl Node<'_> {
    /// Where it is written, and where it leads now, as far as that may be looked at.
    fn webhook_url(self) -> Option<(WebhookUrl, Option<Uri>)> {
        self.must_be(|| Form::Address);
        self.must_be(|| Form::Secret);
        let (url, uri) = if let DeValue::Table(_) = self.value() {
            let what = "does not hold an https:// (or http://) address without user and fragment";
            let usable = |kept: &Secret| parse_webhook_url(kept.expose()).map(|_| ()).ok_or(what);
            let source = self.clone().secret(usable)?;
            if !self.looks() {
                return Some((WebhookUrl::Kept(source), None));
            }
            // What changed since is told at the next reading.
            let uri = source.read().ok().and_then(|kept| parse_webhook_url(kept.expose()))?;
            (WebhookUrl::Kept(source), uri)
        } else {
            let Some(uri) = parse_webhook_url(self.clone().text()?) else {
                return self.fault(
                    "must be an https:// (or http://) address without user and fragment, or { file = \"PATH\" }",
                    "As \"https://crm.prod.svc/hooks/rtm\"",
                );
            };
            (WebhookUrl::Written(PrivateUrl::new(uri.clone())), uri)
        };
        let is_plain = uri.scheme_str().is_some_and(|scheme| scheme.eq_ignore_ascii_case("http"));
        if is_plain && !uri.host().is_some_and(super::values::is_loopback) {
            self.warn("is plain http: events cross the network in the clear (signed all the same)", "Use https");
        }
        Some((url, Some(uri)))
    }
}

/// Each is a connection, or a stream of one.
const MAX_IN_FLIGHT: u32 = 256;

const MAX_ATTEMPTS: u32 = 1000;

/// One that signs, one that takes over, and room for those who keep more.
const MAX_SECRETS: usize = 8;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::load::from_text;
    use crate::config::show;

    #[test]
    fn an_address_may_be_kept_in_a_file_and_its_path_is_shown_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(at("s"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let text = |url: &str| {
            format!(
                "[[apps]]\nid = \"a\"\ncredential = {{ kind = \"token\", app_certificate = {{ file = {s:?} }}, uid = \"u\" }}\n\
                 [[apps.webhooks]]\nname = \"w\"\nurl = {url}\nsecrets = [{{ file = {s:?} }}]\n",
                s = at("s")
            )
        };
        let kept = format!("{{ file = {:?} }}", at("url"));
        for (url, in_file) in
            [("\"https://h.svc/hunter2?k=hunter3\"", ""), (&kept, "https://h.svc/hunter2?k=hunter3\n")]
        {
            std::fs::write(at("url"), in_file).unwrap();
            let loaded = from_text(&text(url), Path::new("x")).unwrap();
            let told = format!("{}{:?}", show::toml(&loaded.config), loaded.config);
            assert!(!told.contains("hunter"), "{told}");
        }
        for bad in ["ftp://h/hunter2", "hunter2", "https://u:hunter2@h/", "http://127.0.0.1/hunter2"] {
            std::fs::write(at("url"), bad).unwrap();
            let faults = from_text(&text(&kept), Path::new("x")).unwrap_err().to_string();
            assert!(faults.contains("apps[0].webhooks[0].url") && !faults.contains("hunter2"), "{faults}");
        }
    }

    #[test]
    fn a_secret_in_the_place_of_a_key_or_of_a_file_s_name_is_not_repeated() {
        for text in [
            "hunter = 1\n",
            "[hunter]\n",
            "[server]\nhunter = 1\n",
            "[identity.jwt]\nissuer = \"i\"\naudience = \"a\"\njwks_url = \"https://i/k\"\njwks_token_file = \"hunter\"\n",
        ] {
            let faults = from_text(text, Path::new("x")).unwrap_err().to_string();
            assert!(!faults.contains("hunter"), "{faults}");
        }
    }
}
