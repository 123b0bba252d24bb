//! How `[[apps.webhooks]]` are read.

use std::collections::HashSet;

use hyper::Uri;
use toml::de::DeValue;

use super::{Patterns, Retry, Webhook, WebhookFormat, WebhookFrom, WebhookUrl, parse_webhook_url};
use crate::config::document::node::Node;
use crate::config::document::table::Table;
use crate::config::survey::Form;
use crate::config::{pem, secrets, values};
use crate::kernel::names::{Stream, WebhookName};
use crate::kernel::secret::{PrivateUrl, Secret, SecretSource};
use crate::kernel::standard_webhooks;
use crate::kernel::targets::Guard;

/// Each is a connection, or a stream of one.
const MAX_IN_FLIGHT: u32 = 256;

const MAX_ATTEMPTS: u32 = 1000;

/// One that signs, one that takes over, and room for those who keep more.
const MAX_SECRETS: usize = 8;

/// All webhooks of an app that reads these streams. `None` when one is too broken to have a value.
pub(in crate::config) fn all(app: &Table<'_>, read: &[Stream]) -> Option<Vec<Webhook>> {
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
    let (address, url) = (url.clone(), url.and_then(webhook_url));
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
    // A file that cannot be used must not come to mean the public authorities: others could then answer for the
    // endpoint.
    let has_bad_ca = ca_file.is_some();
    let ca_file = ca_file.and_then(pem::authorities);
    let has_bad_ca = has_bad_ca && ca_file.is_none();
    let format = t.or_default("format", |n| n.one_of(&formats));
    let max_in_flight = t.or_default("max_in_flight", |n| n.count(MAX_IN_FLIGHT)) as usize;
    let timeout = t.or_default("timeout", Node::duration);
    let max_attempts = t.or_default("max_attempts", |n| n.count(MAX_ATTEMPTS));
    let retry = t.section("retry", retry);
    let from = t.or_default("from", |n| n.one_of(&froms));
    let allow_private_targets = t.or_default("allow_private_targets", Node::flag);
    // After all keys are read: the one that allows the address may stand below it.
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
    let secrets = node.clone().set(like, |entry| secrets::source(entry, signs))?;
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

pub(super) fn retry(t: &Table<'_>) -> Retry {
    let retry = Retry { initial: t.or_default("initial", Node::duration), max: t.or_default("max", Node::duration) };
    if t.sound()
        && retry.initial > retry.max
        && let Some(node) = t.take("max").or_else(|| t.take("initial"))
    {
        node.fault::<()>("makes retry.initial longer than retry.max", "Let waits grow, not shrink");
    }
    retry
}

/// Where it is written, and where it leads now, as far as that may be looked at.
fn webhook_url(node: Node<'_>) -> Option<(WebhookUrl, Option<Uri>)> {
    node.must_be(|| Form::Address);
    node.must_be(|| Form::Secret);
    let (url, uri) = if let DeValue::Table(_) = node.value() {
        let what = "does not hold an https:// (or http://) address without user and fragment";
        let usable = |kept: &Secret| parse_webhook_url(kept.expose()).map(|_| ()).ok_or(what);
        let source = secrets::source(node.clone(), usable)?;
        if !node.looks() {
            return Some((WebhookUrl::Kept(source), None));
        }
        // What changed since is told at the next reading.
        let uri = source.read().ok().and_then(|kept| parse_webhook_url(kept.expose()))?;
        (WebhookUrl::Kept(source), uri)
    } else {
        let Some(uri) = parse_webhook_url(node.clone().text()?) else {
            return node.fault(
                "must be an https:// (or http://) address without user and fragment, or { file = \"PATH\" }",
                "As \"https://crm.prod.svc/hooks/rtm\"",
            );
        };
        (WebhookUrl::Written(PrivateUrl::new(uri.clone())), uri)
    };
    let is_plain = uri.scheme_str().is_some_and(|scheme| scheme.eq_ignore_ascii_case("http"));
    if is_plain && !uri.host().is_some_and(values::is_loopback) {
        node.warn("is plain http: events cross the network in the clear (signed all the same)", "Use https");
    }
    Some((url, Some(uri)))
}
