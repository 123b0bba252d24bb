//! [`Proofs`]: the proofs that something rests on now, and the number of the present generation.
//!
//! Invariants: a proof is here exactly as long as something rests on it, so the register is as large as what is open.
//! What changes is put in force first and counted then: whoever reads the generation and then what is in force has read
//! nothing older than the generation says.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use tokio::sync::Notify;

use super::work::endings;
use super::{Basis, EndedWork, Life, Proof, ProofEntry};
use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::metrics::from_the_start;
use crate::kernel::sync::lock;

/// The proofs that something rests on. Cheap to clone.
#[derive(Clone)]
pub struct Proofs(Arc<Register>);

pub(super) struct Register {
    generation: AtomicU64,
    clock: Clock,
    table: Mutex<HashMap<Arc<Basis>, Weak<ProofEntry>>>,
    /// There is something to judge.
    work: Notify,
    /// What ended because its proof did.
    ended_work: EndedWork,
}

impl Proofs {
    /// None yet. Nobody counts what ends with them.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self::counted(clock, EndedWork::default())
    }

    /// None yet. What ends with them is counted there.
    #[must_use]
    pub fn counted(clock: Clock, ended_work: EndedWork) -> Self {
        from_the_start(&ended_work, endings());
        let (generation, table, work) = (AtomicU64::new(0), Mutex::default(), Notify::new());
        Self(Arc::new(Register { generation, clock, table, work, ended_work }))
    }

    /// Which generation it is. To be read before what is in force is.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation()
    }

    /// What is in force has changed: from now on nothing is handed over by a proof that is not judged anew.
    pub fn changed(&self) {
        self.0.generation.fetch_add(1, Ordering::AcqRel);
        self.0.work.notify_one();
    }

    /// Something rests on this from now on, which was found good by what was in force in the generation `seen` or
    /// later.
    #[must_use]
    pub fn enter(&self, basis: Basis, seen: u64, life: Life) -> Proof {
        // Dropped after the table's lock: the last of a proof takes it out of the table.
        let _before;
        let proof = {
            let mut table = self.0.table();
            let known = table.get(&basis).and_then(Weak::upgrade).map(Proof::from);
            match known {
                Some(proof) if proof.how_ended().is_none() => proof,
                known => {
                    _before = known;
                    let basis = Arc::new(basis);
                    let proof = Proof::new(Arc::clone(&basis), Arc::clone(&self.0), seen, life);
                    // The key too: it is the one that takes itself out.
                    table.remove(&basis);
                    table.insert(basis, Arc::downgrade(&proof.entry));
                    proof
                }
            }
        };
        if seen < self.generation() || life != Life::ENDLESS {
            self.0.work.notify_one();
        }
        proof
    }

    /// Every proof that something rests on now.
    #[must_use]
    pub fn all(&self) -> Vec<Proof> {
        self.0.table().values().filter_map(Weak::upgrade).map(Proof::from).collect()
    }

    /// Resolves when there may be something to judge.
    pub async fn work(&self) {
        self.0.work.notified().await;
    }
}

impl Register {
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn ended_work(&self) -> &EndedWork {
        &self.ended_work
    }

    pub(super) fn now(&self) -> UnixMillis {
        self.clock.wall_ms()
    }

    /// Nothing rests on this any more, unless somebody came again meanwhile.
    pub(super) fn left(&self, basis: &Arc<Basis>) {
        let mut table = self.table();
        if table.get(basis).is_some_and(|proof| proof.strong_count() == 0) {
            table.remove(basis);
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Arc<Basis>, Weak<ProofEntry>>> {
        lock(&self.table)
    }
}

impl fmt::Debug for Proofs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proofs").field("generation", &self.generation()).finish_non_exhaustive()
    }
}
