//! [`PathQueue`]: the certificates that a path must be looked for, and the proofs that wait for each.
//!
//! Invariants: a certificate is looked for once at a time, however many proofs rest on it, so that one whose judgement
//! takes long takes one turn and no more. A proof waits once.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::kernel::proof::Proof;

/// Tells a certificate, with those that came with it, from others.
type Chain = [u8; 32];

/// What waits for paths.
#[derive(Debug, Default)]
pub(super) struct PathQueue {
    /// Whose turn has not come, in order.
    queue: VecDeque<Chain>,
    waiting: HashMap<Chain, Vec<Proof>>,
    looked_for: HashSet<Chain>,
    /// All proofs that wait or are looked for.
    set_aside: HashSet<Proof>,
}

/// What waited for one path.
pub(super) struct PathGroup {
    chain: Chain,
    /// At least one.
    pub(super) proofs: Vec<Proof>,
}

impl PathQueue {
    /// Whether it waits for one.
    pub(super) fn has(&self, proof: &Proof) -> bool {
        self.set_aside.contains(proof)
    }

    /// It waits for one. Without a certificate there is none to look for.
    pub(super) fn push(&mut self, proof: Proof) {
        let Some(certificate) = &proof.basis().evidence.certificate else { return };
        let chain = *certificate.digest();
        if !self.set_aside.insert(proof.clone()) {
            return;
        }
        let group = self.waiting.entry(chain).or_default();
        if group.is_empty() && !self.looked_for.contains(&chain) {
            self.queue.push_back(chain);
        }
        group.push(proof);
    }

    /// The next to be looked for.
    pub(super) fn next(&mut self) -> Option<PathGroup> {
        let chain = self.queue.pop_front()?;
        let proofs = self.waiting.remove(&chain)?;
        self.looked_for.insert(chain);
        Some(PathGroup { chain, proofs })
    }

    /// It was found, or not.
    pub(super) fn done(&mut self, group: &PathGroup) {
        for proof in &group.proofs {
            self.set_aside.remove(proof);
        }
        self.looked_for.remove(&group.chain);
        if self.waiting.contains_key(&group.chain) {
            self.queue.push_back(group.chain);
        }
    }
}
