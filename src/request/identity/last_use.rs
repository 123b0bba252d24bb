//! [`ClientUses`]: when each way of a client to show itself was last used, so that an old key can go.
//!
//! Invariants: a request costs two stores without a lock. What was counted outlives a reload for as long as the client
//! has the key or the way (a configuration takes the counts of the one before it); nothing of it outlives the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config;
use crate::kernel::clock::UnixMillis;
use crate::kernel::proof::By;

/// How often something was used, and when last.
#[derive(Debug, Default)]
struct UseCount {
    uses: AtomicU64,
    /// In milliseconds since 1970; 0: never.
    last: AtomicU64,
}

impl UseCount {
    fn count(&self, now: UnixMillis) {
        self.uses.fetch_add(1, Ordering::Relaxed);
        self.last.store(now.0, Ordering::Relaxed);
    }

    fn last_use(&self) -> LastUse {
        let last = self.last.load(Ordering::Relaxed);
        LastUse { uses: self.uses.load(Ordering::Relaxed), last: (last > 0).then_some(UnixMillis(last)) }
    }
}

/// How often something was used since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastUse {
    pub uses: u64,
    /// When last; `None`: not since the process began.
    pub last: Option<UnixMillis>,
}

/// Of each way that a client has to show itself.
#[derive(Debug)]
pub(super) struct ClientUses {
    /// By their digests, in the configuration's order.
    keys: Vec<([u8; 32], Arc<UseCount>)>,
    other: Arc<OtherUses>,
}

#[derive(Debug, Default)]
struct OtherUses {
    jwt: UseCount,
    certificate: UseCount,
    unix_peer: UseCount,
    anonymous: UseCount,
}

/// A way that a client has to show itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofUse {
    /// `key:1`, as its place among the client's keys, or `jwt`, `certificate`, `unix_peer`, `anonymous`.
    pub proof: String,
    /// Of a key, how its configured SHA-256 begins: eight hex digits.
    pub sha256: Option<String>,
    pub used: LastUse,
}

impl ClientUses {
    /// Nothing was used yet.
    pub(super) fn new(client: &config::Client) -> Self {
        Self {
            keys: client.api_key_sha256.iter().map(|digest| (*digest, Arc::default())).collect(),
            other: Arc::default(),
        }
    }

    /// Goes on from what was counted before.
    pub(super) fn go_on_from(&mut self, before: &Self) {
        self.other = before.other.clone();
        for (digest, count) in &mut self.keys {
            if let Some((_, counted)) = before.keys.iter().find(|(known, _)| known == digest) {
                *count = counted.clone();
            }
        }
    }

    /// This was shown. Says which of the keys it is, from 1.
    pub(super) fn count(&self, by: &By, now: UnixMillis) -> Option<usize> {
        let count = match by {
            // It was found by its digest before: how long this takes says nothing new.
            By::Key(digest) => {
                let place = self.keys.iter().position(|(known, _)| known == digest)?;
                self.keys[place].1.count(now);
                return Some(place + 1);
            }
            By::Token(_) => &self.other.jwt,
            By::Certificate => &self.other.certificate,
            By::User(_) => &self.other.unix_peer,
            By::Nothing => &self.other.anonymous,
        };
        count.count(now);
        None
    }

    /// Each way that the client has by its configuration.
    pub(super) fn list(&self, client: &config::Client, is_anonymous: bool) -> Vec<ProofUse> {
        let keys = self.keys.iter().enumerate().map(|(place, (digest, count))| ProofUse {
            proof: format!("key:{}", place + 1),
            sha256: Some(digest[..4].iter().map(|byte| format!("{byte:02x}")).collect()),
            used: count.last_use(),
        });
        let has_certificate = !client.spiffe_id.is_empty() || !client.dns_san.is_empty();
        let others = [
            ("jwt", &self.other.jwt, !client.jwt_subject.is_empty()),
            ("certificate", &self.other.certificate, has_certificate),
            ("unix_peer", &self.other.unix_peer, !client.unix_uid.is_empty()),
            ("anonymous", &self.other.anonymous, is_anonymous),
        ];
        let others = others.into_iter().filter(|(_, _, has)| *has).map(|(proof, count, _)| ProofUse {
            proof: proof.to_owned(),
            sha256: None,
            used: count.last_use(),
        });
        keys.chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::names::ClientName;

    fn client(keys: &[u8]) -> config::Client {
        config::Client {
            api_key_sha256: keys.iter().map(|key| [*key; 32]).collect(),
            unix_uid: vec![7],
            ..config::Client::named(ClientName::parse("billing").unwrap(), Vec::new())
        }
    }

    #[test]
    fn what_was_counted_of_a_key_outlives_a_reload_that_moves_it_and_not_its_removal() {
        let counts = |uses: &ClientUses, client: &config::Client| -> Vec<(String, u64, Option<u64>)> {
            let list = uses.list(client, false);
            list.into_iter().map(|way| (way.proof, way.used.uses, way.used.last.map(|at| at.0))).collect()
        };
        let (old, new) = (client(&[0xa1, 0xb2]), client(&[0xb2, 0xc3]));
        let before = ClientUses::new(&old);
        assert_eq!(before.count(&By::Key([0xb2; 32]), UnixMillis(5)), Some(2));
        assert_eq!(before.count(&By::User(7), UnixMillis(6)), None);
        let mut after = ClientUses::new(&new);
        after.go_on_from(&before);
        // A request that came before the reload counts all the same.
        before.count(&By::Key([0xb2; 32]), UnixMillis(9));
        before.count(&By::Key([0xa1; 32]), UnixMillis(9));
        let of = |name: &str, uses, last| (name.to_owned(), uses, last);
        let expected = vec![of("key:1", 2, Some(9)), of("key:2", 0, None), of("unix_peer", 1, Some(6))];
        assert_eq!(counts(&after, &new), expected);
        assert_eq!(after.list(&new, true)[0].sha256.as_deref(), Some("b2b2b2b2"));
    }
}
