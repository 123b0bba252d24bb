//! The user at the other end of a Unix socket: `unix_uid`.
//!
//! Invariants: the uid is the kernel's word (`SO_PEERCRED`) for the process that connected, at the moment it connected;
//! who hands its connection on hands its identity on. A uid that no client has says nothing, it is not wrong: every
//! process has one, and it may have a key too.

use std::collections::HashMap;

use super::AuthOutcome;
use crate::config;
use crate::kernel::conn::{Conn, Peer};
use crate::kernel::names::ClientName;
use crate::kernel::proof::By;

/// All clients' users.
#[derive(Debug)]
pub(super) struct UnixPeers(HashMap<u32, ClientName>);

impl UnixPeers {
    pub(super) fn new(clients: &[config::Client]) -> Self {
        let uids = clients.iter().flat_map(|client| client.unix_uid.iter().map(|uid| (*uid, client.name.clone())));
        Self(uids.collect())
    }

    /// Whose user it is.
    pub(super) fn owner(&self, uid: u32) -> Option<&ClientName> {
        self.0.get(&uid)
    }

    /// Who connected. Never [`AuthOutcome::Wrong`].
    pub(super) fn identify(&self, conn: &Conn) -> AuthOutcome<'_> {
        match conn.peer {
            Peer::Unix { uid: Some(uid) } => {
                self.owner(uid).map_or(AuthOutcome::Nothing, |name| AuthOutcome::Known(name, By::User(uid)))
            }
            Peer::Unix { uid: None } | Peer::Tcp(_) => AuthOutcome::Nothing,
        }
    }
}
