//! `[[clients]]`: who calls, how it shows itself, what it may do.

use std::num::NonZeroU32;

use super::document::{Node, Table};
use super::load::Entry;
use super::{Allow, Client};
use crate::names::{Action, AppId, ClientName, Pattern};

pub(super) fn all(top: &Table<'_>) -> Vec<Entry<ClientName, Client>> {
    let entries =
        top.take("clients").and_then(|node| node.entries("[[clients]] above each client")).unwrap_or_default();
    let mut clients: Vec<Entry<ClientName, Client>> = Vec::new();
    for entry in entries {
        let client = entry.table(client).unwrap_or(Entry { name: None, whole: None });
        if client.name.is_some() && clients.iter().any(|other| other.name == client.name) {
            entry.fault_in("name", "is the name of another client", "Give each client its own");
        }
        let key = |c: &Entry<_, Client>| c.whole.as_ref().and_then(|client| client.api_key_sha256);
        if key(&client).is_some() && clients.iter().any(|other| key(other) == key(&client)) {
            entry.fault_in(
                "api_key_sha256",
                "is the key of another client",
                "Make it a key with `rtm-gateway client-key NAME`",
            );
        }
        clients.push(client);
    }
    clients
}

fn client(t: &Table<'_>) -> Entry<ClientName, Client> {
    t.later(&["spiffe_id", "dns_san", "jwt_subject", "unix_uid"]);
    let name = t.need("name", "Give the client a name").and_then(|n| n.name(ClientName::parse));
    let key = t.take("api_key_sha256");
    let key_is_faulty = key.is_some();
    let api_key_sha256 = key.and_then(Node::sha256);
    let key_is_faulty = key_is_faulty && api_key_sha256.is_none();
    let weight = t.or("weight", |n| n.count(1_000_000).and_then(NonZeroU32::new), NonZeroU32::MIN);
    let allow = match t.take("allow") {
        None => Some(Vec::new()),
        Some(node) => node.entries("[{ app = \"*\", actions = [\"events\"] }]").and_then(|entries| {
            let allow: Vec<Option<Allow>> = entries.iter().map(|entry| entry.table(allow).flatten()).collect();
            allow.into_iter().collect()
        }),
    };
    let whole = name.clone().zip(allow).filter(|_| !key_is_faulty);
    let whole = whole.map(|(name, allow)| Client { name, api_key_sha256, weight, allow });
    Entry { name, whole }
}

fn allow(t: &Table<'_>) -> Option<Allow> {
    let app = t.need("app", "Write an App ID, or \"*\" for every app").and_then(|n| match n.value().as_str() {
        Some("*") => Some(None),
        _ => n.name(AppId::parse).map(Some),
    });
    let known = Action::ALL.map(|action| (action.as_str(), action));
    let like = "[\"events\", \"history\", \"count\", \"messages\"], or some of them";
    let actions = t.need("actions", &format!("Write {like}")).and_then(|node| {
        let actions = node.clone().set(like, |entry| entry.one_of(&known))?;
        if actions.is_empty() {
            return node.fault("must name at least one action", "Leave the entry out to allow nothing");
        }
        Some(actions)
    });
    let node = t.take("users");
    let users = node.clone().map(|node| node.set("[\"bot-*\"]", pattern));
    if let (Some(node), Some(actions)) = (node, &actions) {
        if !actions.contains(&Action::Messages) {
            node.warn(
                "says whom to send messages as, but messages are not allowed here",
                "Leave it out, or add \"messages\"",
            );
        } else if users == Some(Some(Vec::new())) {
            node.warn("is empty: messages may be sent as nobody", "Name users, or leave it out for anybody");
        }
    }
    let users = match users {
        None => None,
        Some(users) => Some(users?),
    };
    Some(Allow { app: app?, actions: actions?, users })
}

fn pattern(node: Node<'_>) -> Option<Pattern> {
    let text = node.clone().text()?;
    if text.is_empty() {
        return node.fault("must be a user id, in which * stands for any characters", "Write an id or a pattern");
    }
    Some(Pattern::new(text))
}
