//! `[[clients]]`: who calls, how it shows itself, what it may do.

use std::collections::HashSet;
use std::hash::Hash;
use std::num::NonZeroU32;

use super::document::node::Node;
use super::document::table::Table;
use super::entry::Entry;
use crate::kernel::names::{Action, AppId, ClientName, Pattern, SpiffeId};

/// One of `[[clients]]`. Each way to show itself may have several values, so that one can take over from another; no
/// value is another client's too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub name: ClientName,
    /// SHA-256 of its keys.
    pub api_key_sha256: Vec<[u8; 32]>,
    /// URI SAN of its certificate, as `spiffe://corp/ns/prod/sa/billing`.
    pub spiffe_id: Vec<SpiffeId>,
    /// DNS SAN of its certificate, in lower case.
    pub dns_san: Vec<String>,
    /// `sub` of its tokens.
    pub jwt_subject: Vec<String>,
    /// The user its process runs as, on Unix sockets.
    pub unix_uid: Vec<u32>,
    /// Share of a contended quota, at least 1.
    pub weight: NonZeroU32,
    /// Requests it may have in hand at a time; `None`: as many as the gateway takes.
    pub max_concurrent: Option<NonZeroU32>,
    /// Requests it may make in a second; `None`: as many as it likes.
    pub requests_per_second: Option<NonZeroU32>,
    /// Whether what it may not do is refused.
    pub mode: ClientMode,
    /// What it may do. Empty: nothing.
    pub allow: Vec<Allow>,
}

impl Client {
    /// A client with this name and rights, that nobody can be yet. For tests and defaults.
    #[must_use]
    pub fn named(name: ClientName, allow: Vec<Allow>) -> Self {
        Self {
            name,
            api_key_sha256: Vec::new(),
            spiffe_id: Vec::new(),
            dns_san: Vec::new(),
            jwt_subject: Vec::new(),
            unix_uid: Vec::new(),
            weight: NonZeroU32::MIN,
            max_concurrent: None,
            requests_per_second: None,
            mode: ClientMode::Enforce,
            allow,
        }
    }
}

/// `mode` of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientMode {
    /// What it may not do is refused.
    Enforce,
    /// It is logged and counted, and done all the same.
    Report,
}

impl ClientMode {
    /// As the configuration writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Report => "report",
        }
    }
}

/// An entry of a client's `allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// `None` is `"*"`.
    pub app: Option<AppId>,
    /// What may be done with it.
    pub actions: Vec<Action>,
    /// Whom it may send messages as. `None`: anyone.
    pub users: Option<Vec<Pattern>>,
}

pub(super) fn all(top: &Table<'_>) -> Vec<Entry<ClientName, Client>> {
    let entries =
        top.take("clients").and_then(|node| node.entries("[[clients]] above each client")).unwrap_or_default();
    let mut clients: Vec<Entry<ClientName, Client>> = Vec::with_capacity(entries.len());
    let mut names = HashSet::new();
    let mut taken = Taken::default();
    for entry in entries {
        let client = entry.table(client).unwrap_or(Entry { name: None, whole: None });
        if let Some(name) = &client.name
            && !names.insert(name.clone())
        {
            entry.fault_in("name", "is the name of another client", "Give each client its own");
        }
        if let Some(client) = &client.whole {
            refuse_shared(&entry, client, &mut taken);
        }
        clients.push(client);
    }
    clients
}

/// What shows one of the clients so far. Looked up, not searched: there are thousands of them.
#[derive(Default)]
struct Taken {
    api_key_sha256: HashSet<[u8; 32]>,
    spiffe_id: HashSet<SpiffeId>,
    dns_san: HashSet<String>,
    jwt_subject: HashSet<String>,
    unix_uid: HashSet<u32>,
}

/// What shows two clients shows neither.
fn refuse_shared(entry: &Node<'_>, client: &Client, taken: &mut Taken) {
    fn shared<T: Clone + Eq + Hash>(mine: &[T], taken: &mut HashSet<T>) -> bool {
        // All are taken, whichever was before.
        mine.iter().filter(|value| !taken.insert((*value).clone())).count() > 0
    }
    let checks = [
        ("api_key_sha256", shared(&client.api_key_sha256, &mut taken.api_key_sha256)),
        ("spiffe_id", shared(&client.spiffe_id, &mut taken.spiffe_id)),
        ("dns_san", shared(&client.dns_san, &mut taken.dns_san)),
        ("jwt_subject", shared(&client.jwt_subject, &mut taken.jwt_subject)),
        ("unix_uid", shared(&client.unix_uid, &mut taken.unix_uid)),
    ];
    for (key, _) in checks.into_iter().filter(|(_, is_shared)| *is_shared) {
        match key {
            "api_key_sha256" => {
                let mend = "Make it a key with `rtm-gateway client-key NAME`";
                entry.fault_in(key, "is the key of another client", mend);
            }
            _ => entry.fault_in(key, "shows another client too", "Give each client its own"),
        }
    }
}

fn client(t: &Table<'_>) -> Entry<ClientName, Client> {
    let name = t.need("name", "Give the client a name").and_then(|n| n.name(ClientName::parse));
    let api_key_sha256 = shown(t, "api_key_sha256", Node::sha256);
    let spiffe_id = shown(t, "spiffe_id", spiffe_id);
    let dns_san = shown(t, "dns_san", dns_san);
    let jwt_subject = shown(t, "jwt_subject", subject);
    let unix_uid = shown(t, "unix_uid", uid);
    let weight = t.or_default("weight", |n| n.count(1_000_000).and_then(NonZeroU32::new));
    let ceiling = |key| t.take(key).and_then(|n| n.count(1_000_000)).and_then(NonZeroU32::new);
    let (max_concurrent, requests_per_second) = (ceiling("max_concurrent"), ceiling("requests_per_second"));
    let modes = [ClientMode::Enforce, ClientMode::Report].map(|mode| (mode.as_str(), mode));
    let mode = t.or_default("mode", |n| n.one_of(&modes));
    let allow = match t.take("allow") {
        None => Some(Vec::new()),
        Some(node) => node.entries("[{ app = \"*\", actions = [\"events\"] }]").and_then(|entries| {
            let allow: Vec<Option<Allow>> = entries.iter().map(|entry| entry.table(allow).flatten()).collect();
            allow.into_iter().collect()
        }),
    };
    let whole = (|| {
        Some(Client {
            name: name.clone()?,
            api_key_sha256: api_key_sha256?,
            spiffe_id: spiffe_id?,
            dns_san: dns_san?,
            jwt_subject: jwt_subject?,
            unix_uid: unix_uid?,
            weight,
            max_concurrent,
            requests_per_second,
            mode,
            allow: allow?,
        })
    })();
    Entry { name, whole }
}

/// One way to show itself: a value, several, or none. `None`: a faulty one.
fn shown<'d, T: Clone + Eq + Hash>(
    t: &Table<'d>,
    key: &'static str,
    parse: impl Fn(Node<'d>) -> Option<T>,
) -> Option<Vec<T>> {
    t.take(key).map_or(Some(Vec::new()), |node| node.one_or_more("one value, or [one, another]", parse))
}

fn spiffe_id(node: Node<'_>) -> Option<SpiffeId> {
    match SpiffeId::parse(node.clone().text()?) {
        Ok(id) => Some(id),
        Err(why) => node.fault(
            format!("is no SPIFFE ID of a workload, which {why}"),
            "Write the workload's URI, as \"spiffe://corp/ns/prod/sa/billing\"",
        ),
    }
}

fn dns_san(node: Node<'_>) -> Option<String> {
    // DNS names are compared without case (RFC 4343), and certificates have them as whoever asked for them typed them.
    let text = node.clone().text()?.to_ascii_lowercase();
    let label =
        |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if text.len() > 253 || !text.split('.').all(label) {
        return node.fault("must be a DNS name without *, as \"billing.prod.svc\"", "Write the certificate's DNS name");
    }
    Some(text)
}

fn subject(node: Node<'_>) -> Option<String> {
    let text = node.clone().text()?;
    if text.is_empty() || text.len() > 1024 || text.chars().any(char::is_control) {
        let what = "must be a token's sub, as \"system:serviceaccount:prod:billing\"";
        return node.fault(what, "Write it as the token has it");
    }
    Some(text.to_owned())
}

fn uid(node: Node<'_>) -> Option<u32> {
    // 2^32-1 is "no user" to the kernel.
    node.count_or_none(u32::MAX - 1)
}

fn allow(t: &Table<'_>) -> Option<Allow> {
    let app = t.need("app", "Write an App ID, or \"*\" for every app").and_then(|n| match n.clone().text() {
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
