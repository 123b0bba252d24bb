//! A [`Draft`]: what was read of a configuration, before its parts are held against each other.

use super::entry::Entry;
use super::{Admin, App, Client, Jwt, Log, Server, Store, Upstream};
use crate::kernel::names::{AppId, ClientName};

/// What was read, before the checks across parts. Entries keep their places in the file, so that paths are right.
pub(super) struct Draft {
    pub(super) server: Server,
    pub(super) admin: Admin,
    pub(super) log: Log,
    pub(super) store: Store,
    pub(super) upstream: Upstream,
    pub(super) jwt: Option<Jwt>,
    pub(super) apps: Vec<Entry<AppId, App>>,
    pub(super) clients: Vec<Entry<ClientName, Client>>,
}
