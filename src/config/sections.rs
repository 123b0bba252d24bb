//! The sections that stand once: `[server]`, `[admin]`, `[log]`, `[store]`.

use super::document::{Node, Table};
use super::{Admin, Log, LogFormat, Server, Store, UnixOwner, tls};
use crate::kernel::files;
use crate::kernel::names::{ClientName, HostName};

pub(super) fn server(t: &Table<'_>) -> Server {
    Server {
        listen: t.or_default("listen", listens),
        max_connections: t.or_default("max_connections", |n| n.count(1_000_000).map(|n| n as usize)),
        request_body_limit: t.or_default("request_body_limit", body_limit),
        header_read_timeout: t.or_default("header_read_timeout", Node::duration),
        idle_timeout: t.or_default("idle_timeout", Node::duration),
        shutdown_grace: t.or_default("shutdown_grace", Node::duration),
        anonymous_client: t.take("anonymous_client").and_then(|n| n.name(ClientName::parse)),
        hosts: t.or_default("hosts", |n| n.set("[\"gateway.corp.example\"]", host)),
        write_timeout: t.or_default("write_timeout", Node::duration),
        max_requests: t.or_default("max_requests", |n| n.count(1_000_000).map(|n| n as usize)),
        max_streams: t.or_default("max_streams", |n| n.count(1_000_000).map(|n| n as usize)),
        unix_mode: t.or_default("unix_mode", mode),
        unix_owner: t.take("unix_owner").and_then(owner).unwrap_or_default(),
        tls: t.take("tls").and_then(|node| node.table(tls::server).flatten()),
    }
}

pub(super) fn admin(t: &Table<'_>) -> Admin {
    Admin {
        listen: t.or_default("listen", Node::listen),
        api_key_sha256: t.take("api_key_sha256").and_then(Node::sha256),
        hosts: t.or_default("hosts", |n| n.set("[\"admin.corp.example\"]", host)),
    }
}

pub(super) fn log(t: &Table<'_>) -> Log {
    Log {
        level: t.or_default("level", Node::log_level),
        format: t.or_default("format", |n| n.one_of(&[("json", LogFormat::Json), ("text", LogFormat::Text)])),
        access: t.or_default("access", Node::flag),
    }
}

pub(super) fn store(t: &Table<'_>) -> Store {
    t.later(&["url"]);
    if let Some(kind) = t.take("kind") {
        match kind.value().as_str() {
            Some("redis") => kind.fault::<()>("\"redis\" is not available in this version", "Write \"embedded\""),
            _ => kind.one_of(&[("embedded", ())]),
        };
    }
    let path = t.or_default("path", Node::path);
    // A disk that hangs is the store's to tell: it must not keep a reload from taking effect.
    if let Some(node) = t.take("path")
        && node.looks()
        && files::is_no_folder(&path)
    {
        node.fault::<()>("names something that is not a folder", "Name a folder; it is made if it is not there");
    }
    Store { path }
}

fn listens(node: Node<'_>) -> Option<Vec<super::Listen>> {
    let like = "[\"127.0.0.1:8080\"]";
    let listens = node.clone().set(like, Node::listen)?;
    if listens.is_empty() {
        return node.fault("must name at least one address", format!("Write {like}"));
    }
    Some(listens)
}

fn host(node: Node<'_>) -> Option<HostName> {
    match HostName::parse(node.clone().text()?) {
        Some(host) => Some(host),
        None => node.fault("must be a host's name or address, without port or *", "Write it as its URL has it"),
    }
}

/// Permission bits as `chmod` takes them.
fn mode(node: Node<'_>) -> Option<u32> {
    let text = node.clone().text()?;
    match u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && mode & 0o600 == 0o600) {
        Some(mode) => Some(mode),
        None => node
            .fault("must be permission bits, as \"0660\", with the owner's", "Write it as chmod takes it, in quotes"),
    }
}

/// `"UID"`, `"UID:GID"` or `":GID"`.
fn owner(node: Node<'_>) -> Option<UnixOwner> {
    let text = node.clone().text()?;
    let (uid, gid) = text.split_once(':').unwrap_or((text, ""));
    let number = |text: &str| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
    match (number(uid), number(gid)) {
        (Some(uid), Some(gid)) if uid.is_some() || gid.is_some() => Some(UnixOwner { uid, gid }),
        _ => node.fault("must be numbers of a user and a group, as \"1000:1000\"", "`id` prints them"),
    }
}

/// Bodies are held whole, so their limit must stay far below the memory of a machine.
fn body_limit(node: Node<'_>) -> Option<usize> {
    match node.clone().size()? {
        bytes @ ..=0x4000_0000 => usize::try_from(bytes).ok(),
        _ => node.fault("must be at most 1GiB: a body is held in memory", "Write a smaller size"),
    }
}
