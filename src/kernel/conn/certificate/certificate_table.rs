//! [`CertificateTable`]: the certificates that open connections showed, each once.
//!
//! Invariants: two connections whose callers sent the same bytes hold the same [`PeerCertificate`], so that it is
//! judged once for all of them. The table holds none alive, and no more than twice as many as are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use super::PeerCertificate;
use crate::kernel::sync::lock;

/// The certificates of open connections.
#[derive(Debug, Default)]
pub struct CertificateTable(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    known: HashMap<[u8; 32], Weak<PeerCertificate>>,
    /// With so many those that are gone are taken out.
    full: usize,
}

/// Fewer are not worth taking out.
const FEW: usize = 64;

impl CertificateTable {
    /// This one, or its equal that another connection showed.
    #[must_use]
    pub fn one(&self, certificate: PeerCertificate) -> Arc<PeerCertificate> {
        let mut table = lock(&self.0);
        if let Some(known) = table.known.get(certificate.digest()).and_then(Weak::upgrade) {
            return known;
        }
        if table.known.len() >= table.full.max(FEW) {
            table.known.retain(|_, known| known.strong_count() > 0);
            table.full = table.known.len() * 2;
        }
        let certificate = Arc::new(certificate);
        table.known.insert(*certificate.digest(), Arc::downgrade(&certificate));
        certificate
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.0).known.len()
    }
}
