//! What no section can judge by itself: references between them, who is reachable from where, values that fight.
//!
//! Invariant: a check that needs a part which could not be read says nothing; that part has its own fault.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::document::Document;
use super::draft::Draft;
use super::entry::Entry;
use super::{App, ClientAuth, Listen, ProxyProtocol, QuotaRule};

pub(super) fn all(doc: &Document<'_>, draft: &Draft) {
    addresses(doc, draft);
    anonymous(doc, draft);
    behind_balancer(doc, draft);
    admin_keys(doc, draft);
    admin_tls(doc, draft);
    allowed_apps(doc, draft);
    idle_parts(doc, draft);
    ways_in(doc, draft);
    times(doc, draft);
    for (n, app) in whole(&draft.apps) {
        polling(doc, n, app);
    }
}

/// What listeners have bound.
#[derive(Default)]
struct Bound<'a> {
    sockets: HashSet<&'a Path>,
    ports: HashMap<u16, HashSet<IpAddr>>,
    /// Ports that an IPv4 address is bound of.
    ports_of_v4: HashSet<u16>,
}

impl<'a> Bound<'a> {
    /// Whether one of them would keep it from being bound. Port 0 is a free port each time.
    fn clashes(&self, listen: &Listen) -> bool {
        let address = match listen {
            Listen::Unix(path) => return self.sockets.contains(path.as_path()),
            Listen::Tcp(address) if address.port() == 0 => return false,
            Listen::Tcp(address) => address,
        };
        let Some(bound) = self.ports.get(&address.port()) else { return false };
        // An IPv4 address inside an IPv6 one is that IPv4 address. All of IPv6 is all of IPv4 too.
        match address.ip().to_canonical() {
            ip if bound.contains(&ip) || bound.contains(&ANY_V6) || ip == ANY_V6 => true,
            ANY_V4 => self.ports_of_v4.contains(&address.port()),
            ip => ip.is_ipv4() && bound.contains(&ANY_V4),
        }
    }

    fn bind(&mut self, listen: &'a Listen) {
        match listen {
            Listen::Unix(path) => {
                self.sockets.insert(path);
            }
            Listen::Tcp(address) => {
                let ip = address.ip().to_canonical();
                self.ports.entry(address.port()).or_default().insert(ip);
                if ip.is_ipv4() {
                    self.ports_of_v4.insert(address.port());
                }
            }
        }
    }
}

const ANY_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

fn addresses(doc: &Document<'_>, draft: &Draft) {
    if !doc.sound("server.listen") || !doc.sound("admin.listen") {
        return;
    }
    let mut bound = Bound::default();
    for (n, here) in draft.server.listen.iter().enumerate() {
        if bound.clashes(here) {
            doc.fault_at(&format!("server.listen[{n}]"), "clashes with another listener", "Give each its own port");
        }
        bound.bind(here);
    }
    if bound.clashes(&draft.admin.listen) {
        doc.fault_at("admin.listen", "clashes with server.listen", "Give each its own port");
    }
}

fn anonymous(doc: &Document<'_>, draft: &Draft) {
    let Some(name) = &draft.server.anonymous_client else {
        if !draft.server.hosts.is_empty() && doc.sound("server.anonymous_client") {
            let what = "is for server.anonymous_client alone, and there is none";
            doc.warn_at("server.hosts", what, "Leave it out: who presents a credential may name any host");
        }
        return;
    };
    if all_named(&draft.clients) && !draft.clients.iter().any(|client| client.name.as_ref() == Some(name)) {
        let mend = "Add [[clients]] with that name, or correct it";
        doc.fault_at("server.anonymous_client", "names a client that is not configured", mend);
    }
    if doc.sound("server.listen") && !draft.server.listen.iter().all(Listen::is_local) {
        let what = "needs every address of server.listen to be loopback or a Unix socket";
        doc.fault_at("server.anonymous_client", what, "Leave it out, or listen on this machine only");
    }
}

/// A balancer carries the connections of others, wherever it listens itself.
fn behind_balancer(doc: &Document<'_>, draft: &Draft) {
    let server = &draft.server;
    if server.proxy_protocol == ProxyProtocol::Off {
        return;
    }
    if doc.sound("server.listen") && server.listen.iter().all(|listen| matches!(listen, Listen::Unix(_))) {
        let what = "is of no use: every address of server.listen is a Unix socket";
        doc.warn_at("server.proxy_protocol", what, "Leave it out, or listen on TCP");
    } else if server.anonymous_client.is_some() {
        let what = "cannot be where a balancer brings callers from elsewhere (server.proxy_protocol)";
        doc.fault_at("server.anonymous_client", what, "Leave one of them out");
    }
}

fn admin_keys(doc: &Document<'_>, draft: &Draft) {
    let admin = &draft.admin;
    let sound = |key: &str| doc.sound(&format!("admin.{key}"));
    if !admin.listen.is_local() && admin.api_key_sha256.is_none() && sound("api_key_sha256") {
        let what = "is needed unless admin.listen is loopback or a Unix socket";
        doc.fault_at("admin.api_key_sha256", what, "`rtm-gateway client-key NAME` makes a key and its SHA-256");
    }
    match (admin.api_key_sha256, admin.read_key_sha256) {
        // Who shows no key may do everything then: a key that may only read would say nothing.
        (None, Some(_)) if sound("api_key_sha256") => doc.fault_at(
            "admin.read_key_sha256",
            "needs admin.api_key_sha256: without that no key is needed for anything",
            "Write both, or neither",
        ),
        (Some(key), Some(read)) if key == read => {
            let what = "is that of admin.api_key_sha256: who may only read could do everything";
            doc.fault_at("admin.read_key_sha256", what, "Make a key for each: `rtm-gateway client-key NAME`");
        }
        _ => {}
    }
    let keys = [admin.api_key_sha256, admin.read_key_sha256];
    for key in keys.into_iter().flatten() {
        for (n, _) in whole(&draft.clients).filter(|(_, client)| client.api_key_sha256.contains(&key)) {
            let path = format!("clients[{n}].api_key_sha256");
            doc.warn_at(&path, "is that of the admin API too: this client can open it", "Make a key for each");
        }
    }
}

/// An operator's key that crosses the network in the clear, and TLS where none is spoken.
fn admin_tls(doc: &Document<'_>, draft: &Draft) {
    let admin = &draft.admin;
    if !doc.sound("admin.listen") || !doc.sound("admin.tls") {
        return;
    }
    if admin.tls.is_none() && !admin.listen.is_local() {
        let what = "is reached from other machines without TLS: the operator's key crosses the network in the clear";
        doc.warn_at("admin.listen", what, "Write [admin.tls], or let a mesh encrypt");
    }
    if admin.tls.is_some() && matches!(admin.listen, Listen::Unix(_)) {
        doc.warn_at("admin.tls", "is of no use: admin.listen is a Unix socket", "Leave it out");
    }
}

fn allowed_apps(doc: &Document<'_>, draft: &Draft) {
    if !all_named(&draft.apps) {
        return;
    }
    let known: HashSet<_> = draft.apps.iter().filter_map(|app| app.name.as_ref()).collect();
    for (n, client) in whole(&draft.clients) {
        for (m, allow) in client.allow.iter().enumerate() {
            if allow.app.as_ref().is_some_and(|app| !known.contains(app)) {
                let path = format!("clients[{n}].allow[{m}].app");
                doc.fault_at(&path, "names an app that is not configured", "Write the id of one of [[apps]], or \"*\"");
            }
        }
    }
}

/// Parts that nobody can use.
fn idle_parts(doc: &Document<'_>, draft: &Draft) {
    if draft.apps.is_empty() {
        doc.warn_at("apps", "is empty: nothing can be asked for", "Write [[apps]] with an id and an [apps.credential]");
    }
    if draft.clients.is_empty() {
        doc.warn_at("clients", "is empty: every call will be refused", "`rtm-gateway client-key NAME` makes a client");
        return;
    }
    for (n, client) in whole(&draft.clients) {
        let anonymous = draft.server.anonymous_client.as_ref() == Some(&client.name);
        let can_show_itself = !(client.api_key_sha256.is_empty()
            && client.spiffe_id.is_empty()
            && client.dns_san.is_empty()
            && client.jwt_subject.is_empty()
            && client.unix_uid.is_empty());
        if !can_show_itself && !anonymous {
            let mend = "Give it an api_key_sha256, a spiffe_id, a jwt_subject or a unix_uid, or make it server.anonymous_client";
            doc.warn_at(&format!("clients[{n}]"), "has no credential: no caller can be this client", mend);
        }
        if client.allow.is_empty() {
            doc.warn_at(&format!("clients[{n}]"), "is allowed nothing", "Give it an allow entry");
        }
    }
}

/// Ways to show itself that the listeners do not offer, and keys that cross the network in the clear.
fn ways_in(doc: &Document<'_>, draft: &Draft) {
    let certificates = draft.server.tls.as_ref().is_some_and(|tls| tls.client_auth != ClientAuth::Off);
    let unix = draft.server.listen.iter().any(|listen| matches!(listen, Listen::Unix(_)));
    // Once: each asks all faults.
    let (sound_tls, sound_identity) = (doc.sound("server.tls"), doc.sound("identity"));
    let sound_listen = doc.sound("server.listen");
    for (n, client) in whole(&draft.clients) {
        let idle = |key: &str, what: &str, mend: &str| doc.warn_at(&format!("clients[{n}].{key}"), what, mend);
        let no_certificates = "is of no use: no client's certificate is asked for";
        if !certificates && sound_tls {
            let mend = "Write [server.tls] with a client_ca";
            if !client.spiffe_id.is_empty() {
                idle("spiffe_id", no_certificates, mend);
            }
            if !client.dns_san.is_empty() {
                idle("dns_san", no_certificates, mend);
            }
        }
        if !client.jwt_subject.is_empty() && draft.jwt.is_none() && sound_identity {
            idle("jwt_subject", "is of no use: no issuer's tokens are believed", "Write [identity.jwt]");
        }
        if !client.unix_uid.is_empty() && !unix && sound_listen {
            idle("unix_uid", "is of no use: no address of server.listen is a Unix socket", "Add \"unix:/path\"");
        }
    }
    let tls = draft.server.tls.is_some() || !sound_tls;
    if !tls && sound_listen && !draft.server.listen.iter().all(Listen::is_local) {
        let what = "is reached from other machines without TLS: keys and events cross the network in the clear";
        doc.warn_at("server.listen", what, "Write [server.tls], or let a mesh or load balancer encrypt");
    }
}

fn times(doc: &Document<'_>, draft: &Draft) {
    let request = draft.upstream.request_timeout;
    for (n, _) in whole(&draft.apps).filter(|(_, app)| request > app.history.deadline) {
        let path = format!("apps[{n}].history.deadline");
        let what = "is shorter than upstream.request_timeout: one slow answer uses it up";
        doc.warn_at(&path, what, "Raise it, or lower upstream.request_timeout");
    }
    if draft.server.shutdown_grace < request {
        let what = "is shorter than upstream.request_timeout: a stop may cut a read of events in flight";
        doc.warn_at("server.shutdown_grace", what, "Raise it, or lower upstream.request_timeout");
    }
}

/// Whether an app's pollers will be held back by its quota even while events flow calmly.
fn polling(doc: &Document<'_>, n: usize, app: &App) {
    for stream in &app.events.streams {
        let QuotaRule::Own(limit) = app.quota.rule(stream.bucket()) else { continue };
        // Each region is polled for itself, and the vendor counts the reads of all of them together.
        let reads = limit.per.as_secs_f64() / app.events.poll_interval.as_secs_f64() * app.regions.len() as f64;
        if reads > f64::from(limit.requests.get()) {
            let what = format!("asks for more reads of {stream} in all regions than its quota allows");
            doc.warn_at(
                &format!("apps[{n}].events.poll_interval"),
                what,
                "Raise it; the quota holds reads back anyway",
            );
        }
    }
}

fn whole<N, T>(entries: &[Entry<N, T>]) -> impl Iterator<Item = (usize, &T)> {
    entries.iter().enumerate().filter_map(|(n, entry)| entry.whole.as_ref().map(|whole| (n, whole)))
}

fn all_named<N, T>(entries: &[Entry<N, T>]) -> bool {
    entries.iter().all(|entry| entry.name.is_some())
}
