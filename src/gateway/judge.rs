//! The judge: whenever what is in force changes, or time takes something away, what proved those who have something under
//! way is judged anew.
//!
//! Invariants:
//! - Each distinct proof is judged once a change, off the runtime's workers. What is only looked up (keys, tokens, users, a
//!   certificate's number in a revocation list) is judged first; the paths of certificates to new authorities after it,
//!   several at a time. So a judgement that takes long delays those alone that need as long.
//! - What cannot be judged now (the token issuer's new keys are not known yet) hands over nothing meanwhile, and ends when
//!   it has taken too long. What cannot be judged at all, because judging it failed, has ended.
//! - Jobs nobody wants any more are told at once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Gateway, Live};
use crate::clock::UnixMillis;
use crate::proof::{Ended, Proof, Verdict};
use crate::task::{Lane, Tasks};

/// How often it is looked whether time has taken something away, while it can.
const LOOK: Duration = Duration::from_millis(250);

/// How long a proof may stay undecided: as long as a fetch of the issuer's keys may take.
const DECIDED_WITHIN: Duration = Duration::from_secs(10);

/// How many paths of certificates are looked for at a time.
const PATHS: usize = 4;

/// What is remembered from one round to the next.
#[derive(Default)]
struct Memory {
    /// Whether the token issuer's keys were known.
    had_keys: Option<bool>,
    /// Since when there is any that could not be decided.
    undecided: Option<Instant>,
}

/// What one round found.
#[derive(Debug, Default)]
struct Found {
    withdrawn: AtomicUsize,
    expired: AtomicUsize,
}

impl Gateway {
    /// Judges until the tasks stop.
    pub async fn judge(self: Arc<Self>, tasks: Tasks) {
        let stopping = tasks.stopping();
        let mut memory = Memory::default();
        let mut is_timed = false;
        loop {
            let look = async {
                if is_timed {
                    tokio::time::sleep(LOOK).await;
                } else {
                    std::future::pending().await
                }
            };
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.proofs.work() => {}
                () = look => {}
            }
            is_timed = self.round(&tasks, &mut memory).await;
        }
    }

    /// One round. Says whether time alone may end something.
    async fn round(&self, tasks: &Tasks, memory: &mut Memory) -> bool {
        let generation = self.proofs.generation();
        let live = self.live();
        let had_keys = std::mem::replace(&mut memory.had_keys, live.identity.has_keys());
        if had_keys == Some(true) && memory.had_keys == Some(false) {
            // They have not been confirmed for too long. The next round judges.
            self.proofs.changed();
        }
        let (all, now) = (self.proofs.all(), self.clock.wall_ms());
        let found = Arc::new(Found::default());
        for proof in &all {
            found.note_expired(proof.expire(now));
        }
        let due: Vec<_> = all.iter().filter(|proof| proof.is_due(generation, now)).cloned().collect();
        if !due.is_empty() {
            self.judge_all(tasks, &live, due, (generation, now), &found).await;
        }
        self.give_up_undecided(memory, &all, generation);
        let (withdrawn, expired) = (found.withdrawn.load(Ordering::Relaxed), found.expired.load(Ordering::Relaxed));
        if withdrawn > 0 || expired > 0 {
            tracing::info!(withdrawn, expired, "what callers had proved holds no more; what rests on it ends");
        }
        all.iter().any(Proof::is_timed)
    }

    async fn judge_all(
        &self,
        tasks: &Tasks,
        live: &Arc<Live>,
        due: Vec<Proof>,
        (generation, now): (u64, UnixMillis),
        found: &Arc<Found>,
    ) {
        let (of_quick, live_of_quick) = (Arc::clone(found), Arc::clone(live));
        let all = due.clone();
        let lane = Lane::new(PATHS);
        let slow = tasks.blocking(&lane, move || {
            let mut slow = VecDeque::new();
            for proof in due {
                if live_of_quick.identity.is_quick(&proof.basis().evidence, now) {
                    of_quick.judge(&live_of_quick, &proof, (generation, now));
                } else {
                    slow.push_back(proof);
                }
            }
            slow
        });
        let slow = slow.await.unwrap_or_default();
        self.history.review();
        let slow = Arc::new(Mutex::new(slow));
        let judges = (0..PATHS).map(|_| {
            let (slow, found, live) = (Arc::clone(&slow), Arc::clone(found), Arc::clone(live));
            let lane = &lane;
            let next = move || slow.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            async move {
                while let Some(proof) = next() {
                    let (found, live) = (Arc::clone(&found), Arc::clone(&live));
                    // One that panics is seen below.
                    let _ = tasks.blocking(lane, move || found.judge(&live, &proof, (generation, now))).await;
                    self.history.review();
                }
            }
        });
        futures_util::future::join_all(judges).await;
        for proof in all.iter().filter(|proof| proof.is_due(generation, now)) {
            tracing::error!(proof = ?proof.basis(), "could not be judged: what rests on it ends");
            found.tell(proof, generation, Verdict::Ended(Ended::Withdrawn));
        }
        self.history.review();
    }

    fn give_up_undecided(&self, memory: &mut Memory, all: &[Proof], generation: u64) {
        let undecided: Vec<_> = all.iter().filter(|proof| proof.is_undecided()).collect();
        if undecided.is_empty() {
            memory.undecided = None;
            return;
        }
        let now = self.clock.now();
        let since = *memory.undecided.get_or_insert(now);
        if now.saturating_duration_since(since) >= DECIDED_WITHIN {
            memory.undecided = None;
            for proof in undecided {
                proof.judge(generation, Verdict::Ended(Ended::Expired));
            }
        }
    }
}

impl Found {
    fn judge(&self, live: &Live, proof: &Proof, (generation, now): (u64, UnixMillis)) {
        let basis = proof.basis();
        let verdict = match live.identity.judge(&basis.client, &basis.evidence, now) {
            Verdict::Good(_) | Verdict::Undecided if !live.policy.still_allows(basis) => {
                Verdict::Ended(Ended::Forbidden)
            }
            verdict => verdict,
        };
        self.tell(proof, generation, verdict);
    }

    fn tell(&self, proof: &Proof, generation: u64, verdict: Verdict) {
        proof.judge(generation, verdict);
        match verdict {
            Verdict::Good(_) | Verdict::Undecided => {}
            Verdict::Ended(Ended::Expired) => self.note_expired(true),
            Verdict::Ended(Ended::Withdrawn | Ended::Forbidden) => {
                self.withdrawn.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn note_expired(&self, is: bool) {
        self.expired.fetch_add(usize::from(is), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
