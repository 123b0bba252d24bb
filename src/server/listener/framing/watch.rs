//! [`Watch`]: what [`Framing`](super::Framing) has found, for the connection's service.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::kernel::conn::Fault;
use crate::kernel::sync::lock;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::server::listener) enum Protocol {
    #[default]
    Unknown,
    Http1,
    Http2,
}

/// What was found, for the connection's service. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(in crate::server::listener) struct Watch(Arc<Mutex<Findings>>);

#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) protocol: Protocol,
    /// Heads handed to the service so far.
    pub(super) served: u64,
    pub(super) faults: VecDeque<(u64, Fault)>,
    /// From this head on nothing is known.
    pub(super) lost_from: Option<u64>,
    /// Whether the bytes so far end between two requests.
    pub(super) between: bool,
    /// Whether they end in a head, after so many whole ones.
    pub(super) in_head: bool,
    pub(super) heads: u64,
}

/// How far the bytes of a connection have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server::listener) enum Stage {
    /// Its protocol is not known.
    Unknown,
    Http2,
    /// HTTP/1.1: in a head, after so many.
    Head(u64),
    /// HTTP/1.1: between requests, of which so many were handed to the service.
    Between(u64),
    /// HTTP/1.1: in a body, or not followed any more.
    Elsewhere,
}

impl Watch {
    /// What the connection speaks, as far as its first bytes say.
    pub(in crate::server::listener) fn protocol(&self) -> Protocol {
        self.found().protocol
    }

    /// How far the bytes have come.
    pub(in crate::server::listener) fn stage(&self) -> Stage {
        let found = self.found();
        match found.protocol {
            Protocol::Unknown => Stage::Unknown,
            Protocol::Http2 => Stage::Http2,
            Protocol::Http1 if found.in_head => Stage::Head(found.heads),
            Protocol::Http1 if found.between => Stage::Between(found.served),
            Protocol::Http1 => Stage::Elsewhere,
        }
    }

    /// The service got the next head: what is wrong with it?
    pub(in crate::server::listener) fn next_head(&self) -> Option<Fault> {
        let mut found = self.found();
        let head = found.served;
        found.served += 1;
        match found.faults.front() {
            Some(&(at, fault)) if at == head => {
                found.faults.pop_front();
                Some(fault)
            }
            _ => found.lost_from.filter(|&from| head >= from).map(|_| Fault::Unfollowed),
        }
    }

    /// Whether the bytes so far end between two requests: the caller is not in the middle of sending one.
    pub(in crate::server::listener) fn is_between_requests(&self) -> bool {
        self.found().between
    }

    pub(super) fn found(&self) -> MutexGuard<'_, Findings> {
        lock(&self.0)
    }
}
