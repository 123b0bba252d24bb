//! A [`Proof`]: what a request that goes on for long was let in by, and whether that still holds.
//!
//! Invariants:
//! - A request remembers what proved who asks ([`Basis`]): which key, token, certificate or user, and for what it was
//!   granted. Whether it holds was known when the request came; the register's generation counts what has changed
//!   since.
//! - A hand-over asks before it gives, and that compares one number: a proof that was judged in the present generation
//!   stands. One that was not is waited for, alone: who waits for one proof does not wait for another's judgement.
//! - Equal bases are one proof, judged once however many rest on it. What ended stays ended: whoever comes again is
//!   judged as anybody who comes.
//! - *Withdrawn* (the key, the client, the right, the authority … is gone) ends all that rests on the proof. *Expired*
//!   (its time is over) ends what hands over more and more; a request that was admitted goes on.
//!
//! | part | does |
//! | --- | --- |
//! | `basis` | what a proof is made of |
//! | `ground` | what becomes a proof if an order has to wait |
//! | `register` | the proofs that something rests on now |
//! | `verdict` | how it was judged, how it ended |
//! | `work` | what rests on them, and how much of it ended because they did |

mod basis;
mod ground;
mod register;
mod verdict;
mod work;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::names::{Action, AppId, ClientName};

pub use basis::{Basis, By, Evidence, Life, Token};
pub use ground::Ground;
pub use register::Proofs;
use register::Register;
use verdict::Standing;
pub use verdict::{Ended, Verdict};
use work::Piece;
pub use work::{EndedWork, Work};

/// One proof that something rests on. Cheap to clone; clones are of the same piece of work.
#[derive(Clone)]
pub struct Proof {
    entry: Arc<ProofEntry>,
    /// What rests on it, where that is counted.
    piece: Option<Arc<Piece>>,
}

struct ProofEntry {
    basis: Arc<Basis>,
    register: Arc<Register>,
    /// In which generation it was last judged.
    judged: AtomicU64,
    /// A [`Standing`].
    standing: AtomicU8,
    /// When its time is over, in milliseconds since 1970.
    until: AtomicU64,
    /// When it must be judged again though nothing changed: something that it rests on runs out.
    again: AtomicU64,
    told: Notify,
}

impl Proof {
    /// Of what nobody asked who could lose the right to: it does not end.
    #[must_use]
    pub fn unending(clock: Clock, client: ClientName, app: AppId, action: Action) -> Self {
        let evidence = Evidence { by: By::Nothing, certificate: None };
        Proofs::new(clock).enter(Basis { client, evidence, app, action, user: None }, 0, Life::ENDLESS)
    }

    /// For a piece of work that begins: when it is told that the proof has ended, that is counted.
    #[must_use]
    pub fn of(&self, work: Work) -> Self {
        let piece = Piece::new(work, self.entry.register.ended_work().clone());
        Self { entry: Arc::clone(&self.entry), piece: Some(Arc::new(piece)) }
    }

    /// What it is made of.
    #[must_use]
    pub fn basis(&self) -> &Basis {
        &self.entry.basis
    }

    /// Whether more may be handed over now. Waits for the judgement of this proof if something changed since the last.
    ///
    /// # Errors
    /// How it ended.
    pub async fn stands(&self) -> Result<(), Ended> {
        self.decided(|standing| match standing {
            Standing::Good => Some(Ok(())),
            Standing::Undecided => None,
            Standing::Ended(how) => Some(Err(how)),
        })
        .await
    }

    /// Whether work that was admitted may go on: it may when its proof has only expired.
    ///
    /// # Errors
    /// How it was withdrawn.
    pub async fn goes_on(&self) -> Result<(), Ended> {
        self.decided(|standing| match standing {
            Standing::Ended(how) if how != Ended::Expired => Some(Err(how)),
            _ => Some(Ok(())),
        })
        .await
    }

    /// Resolves when it has ended.
    pub async fn ended(&self) -> Ended {
        let how = self.told(|| self.how_ended()).await;
        self.count(how)
    }

    /// Resolves when it was withdrawn, expired or not.
    pub async fn withdrawn(&self) -> Ended {
        let how = self.told(|| self.how_withdrawn()).await;
        self.count(how)
    }

    /// Whether it was withdrawn.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.how_withdrawn().map(|how| self.count(how)).is_some()
    }

    /// Whether both are the same, whatever rests on them.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.entry, &other.entry)
    }

    /// Whether it must be judged: something changed since it was, or what it rests on ran out.
    #[must_use]
    pub fn is_due(&self, generation: u64, now: UnixMillis) -> bool {
        self.how_withdrawn().is_none()
            && (self.judged_in() < generation || self.entry.again.load(Ordering::Acquire) <= now.0)
    }

    /// What was found of it in that generation.
    pub fn judge(&self, generation: u64, verdict: Verdict) {
        let entry = &*self.entry;
        let standing = match verdict {
            Verdict::Good(life) => {
                entry.until.store(life.until.0, Ordering::Release);
                entry.again.store(life.again.0, Ordering::Release);
                Standing::Good
            }
            Verdict::Undecided | Verdict::Ended(_) => {
                entry.again.store(u64::MAX, Ordering::Release);
                if let Verdict::Ended(how) = verdict { Standing::Ended(how) } else { Standing::Undecided }
            }
        };
        // Before the generation: who sees that it was judged in the present one must see what was found in it.
        self.set(standing);
        entry.judged.fetch_max(generation, Ordering::AcqRel);
        entry.told.notify_waiters();
    }

    /// Ends it if its time is over. Says whether it ended just now.
    pub fn expire(&self, now: UnixMillis) -> bool {
        let is_over = now.0 >= self.entry.until.load(Ordering::Acquire);
        let ends = is_over && !matches!(self.standing(), Standing::Ended(_));
        if ends {
            self.set(Standing::Ended(Ended::Expired));
            self.entry.told.notify_waiters();
        }
        ends
    }

    /// Whether time alone can end it.
    #[must_use]
    pub fn is_timed(&self) -> bool {
        let entry = &*self.entry;
        let is_watched =
            entry.until.load(Ordering::Acquire) != u64::MAX || entry.again.load(Ordering::Acquire) != u64::MAX;
        match self.standing() {
            Standing::Good => is_watched,
            Standing::Undecided => true,
            Standing::Ended(_) => false,
        }
    }

    /// Whether the last judgement could not decide.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        self.standing() == Standing::Undecided
    }

    fn new(basis: Arc<Basis>, register: Arc<Register>, seen: u64, life: Life) -> Self {
        Self::from(Arc::new(ProofEntry {
            basis,
            register,
            judged: AtomicU64::new(seen),
            standing: AtomicU8::new(Standing::Good.number()),
            until: AtomicU64::new(life.until.0),
            again: AtomicU64::new(life.again.0),
            told: Notify::new(),
        }))
    }

    /// The work that this is for ends for it.
    fn count(&self, how: Ended) -> Ended {
        if let Some(piece) = &self.piece {
            piece.told(how, &self.entry.basis);
        }
        how
    }

    async fn decided(&self, decide: impl Fn(Standing) -> Option<Result<(), Ended>>) -> Result<(), Ended> {
        self.told(|| {
            // In this order: what is found is written before the generation in which it was.
            let is_judged = self.judged_in() >= self.entry.register.generation();
            let standing = self.how_ended().map_or_else(|| self.standing(), Standing::Ended);
            // What was withdrawn needs no further judgement; what only expired may have been withdrawn since.
            (is_judged || self.how_withdrawn().is_some()).then(|| decide(standing)).flatten()
        })
        .await
        .map_err(|how| self.count(how))
    }

    /// Asks now, and each time that something was found of this proof.
    async fn told<T>(&self, ask: impl Fn() -> Option<T>) -> T {
        loop {
            if let Some(found) = ask() {
                return found;
            }
            let mut told = std::pin::pin!(self.entry.told.notified());
            // From here on it is told; what was found before is seen now.
            told.as_mut().enable();
            if let Some(found) = ask() {
                return found;
            }
            told.await;
        }
    }

    fn how_ended(&self) -> Option<Ended> {
        match self.standing() {
            Standing::Ended(how) => Some(how),
            Standing::Good | Standing::Undecided => {
                let until = self.entry.until.load(Ordering::Acquire);
                (until != u64::MAX && self.entry.register.now().0 >= until).then_some(Ended::Expired)
            }
        }
    }

    fn how_withdrawn(&self) -> Option<Ended> {
        match self.standing() {
            Standing::Ended(how) if how != Ended::Expired => Some(how),
            _ => None,
        }
    }

    fn judged_in(&self) -> u64 {
        self.entry.judged.load(Ordering::Acquire)
    }

    fn standing(&self) -> Standing {
        Standing::of(self.entry.standing.load(Ordering::Acquire))
    }

    /// What ended stays ended; what has expired may still be withdrawn.
    fn set(&self, standing: Standing) {
        let may = |now: u8| match Standing::of(now) {
            Standing::Good | Standing::Undecided => Some(standing.number()),
            Standing::Ended(Ended::Expired) => match standing {
                Standing::Ended(_) => Some(standing.number()),
                Standing::Good | Standing::Undecided => None,
            },
            Standing::Ended(Ended::Withdrawn | Ended::Forbidden) => None,
        };
        // Refused by `may`: it stays as it is.
        let _ = self.entry.standing.fetch_update(Ordering::AcqRel, Ordering::Acquire, may);
    }
}

/// For nothing in particular.
impl From<Arc<ProofEntry>> for Proof {
    fn from(entry: Arc<ProofEntry>) -> Self {
        Self { entry, piece: None }
    }
}

/// Whether both are one.
impl PartialEq for Proof {
    fn eq(&self, other: &Self) -> bool {
        self.is(other)
    }
}

impl Eq for Proof {}

impl Hash for Proof {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.entry).hash(state);
    }
}

impl Drop for ProofEntry {
    fn drop(&mut self) {
        self.register.left(&self.basis);
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof").field("basis", &self.entry.basis).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
