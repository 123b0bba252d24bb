//! The judge: whenever what is in force changes, or time takes something away, what proved those who have something under
//! way is judged anew.
//!
//! Invariants:
//! - Each distinct proof is judged once a change, off the runtime's workers. What is only looked up (keys, tokens, users, a
//!   certificate's number in a revocation list) is judged at once; the paths of certificates to new authorities beside it,
//!   once for all proofs that rest on one, several at a time, and no round waits for them. So a judgement that takes long delays those alone that need as long.
//! - What cannot be judged now (the token issuer's new keys are not known yet) hands over nothing meanwhile, and ends when
//!   it has taken too long. What cannot be judged at all, because judging it failed, has ended.
//! - Jobs nobody wants any more are told at once.

#![expect(clippy::mutable_key_type, reason = "a proof is hashed by its place in memory, which does not change")]

mod paths;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::{Gateway, Live};
use crate::kernel::clock::UnixMillis;
use crate::kernel::proof::{Ended, Proof, Verdict};
use crate::kernel::task::{Lane, Tasks};
use paths::{Group, Paths};

/// How often it is looked whether time has taken something away, while it can.
const LOOK: Duration = Duration::from_millis(250);

/// How long a proof may stay undecided: as long as a fetch of the issuer's keys may take.
const DECIDED_WITHIN: Duration = Duration::from_secs(10);

/// How many paths of certificates are looked for at a time.
const AT_A_TIME: usize = 4;

/// What is remembered from one round to the next.
#[derive(Default)]
struct Memory {
    /// Whether the token issuer's keys were known.
    had_keys: Option<bool>,
    /// Since when there is any that could not be decided.
    undecided: Option<Instant>,
    /// Those that a path must be looked for: no round waits for them.
    paths: Paths,
    under_way: FuturesUnordered<BoxFuture<'static, (Group, u64)>>,
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
        let (mut memory, lane) = (Memory::default(), Lane::new("proofs", AT_A_TIME));
        // When to look by the clock, if time can end anything. Not put off by what else there is to do.
        let mut look_at = None;
        loop {
            let look = async {
                match look_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stopping.cancelled() => return,
                Some(judged) = memory.under_way.next() => self.set_back(judged, &mut memory),
                () = self.proofs.work() => look_at = self.round(&tasks, &mut memory).await,
                () = look => look_at = self.round(&tasks, &mut memory).await,
            }
            self.begin_slow(&tasks, &lane, &mut memory);
        }
    }

    /// Begins to look for as many paths as may be looked for at a time, by what is in force now.
    fn begin_slow(&self, tasks: &Tasks, lane: &Lane, memory: &mut Memory) {
        while memory.under_way.len() < AT_A_TIME
            && let Some(group) = memory.paths.next()
        {
            let (generation, live) = (self.proofs.generation(), self.live());
            let (tasks, lane, now) = (tasks.clone(), lane.clone(), self.clock.wall_ms());
            let judging = async move {
                if let Some(proof) = group.proofs.first() {
                    live.identity.prepare(&lane, &proof.basis().evidence, now).await;
                }
                let judged = group.proofs.clone();
                let judge_all = move || {
                    judged.iter().for_each(|proof| Found::default().judge(&live, proof, (generation, now)));
                };
                // What panics is seen when it is set back.
                let _ = tasks.blocking(&lane, judge_all).await;
                (group, generation)
            };
            memory.under_way.push(Box::pin(judging));
        }
    }

    /// Those that waited for one path are judged.
    fn set_back(&self, (group, generation): (Group, u64), memory: &mut Memory) {
        memory.paths.done(&group);
        let mut withdrawn = 0;
        for proof in group.proofs {
            if proof.is_due(generation, UnixMillis(0)) {
                tracing::error!(proof = ?proof.basis(), "could not be judged: what rests on it ends");
                proof.judge(generation, Verdict::Ended(Ended::Withdrawn));
            }
            withdrawn += usize::from(proof.is_withdrawn());
            if proof.is_due(self.proofs.generation(), self.clock.wall_ms()) {
                memory.paths.push(proof);
            }
        }
        if withdrawn > 0 {
            tracing::info!(withdrawn, "what callers had proved holds no more; what rests on it ends");
            self.history.review();
        }
    }

    /// One round. Says when the next must come, if time alone may end something.
    async fn round(&self, tasks: &Tasks, memory: &mut Memory) -> Option<Instant> {
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
        let is_due = |proof: &&Proof| proof.is_due(generation, now) && !memory.paths.has(proof);
        let due: Vec<_> = all.iter().filter(is_due).cloned().collect();
        if !due.is_empty() {
            let slow = self.judge_quick(tasks, &live, due, (generation, now), &found).await;
            slow.into_iter().for_each(|proof| memory.paths.push(proof));
        }
        self.give_up_undecided(memory, &all, generation);
        let (withdrawn, expired) = (found.withdrawn.load(Ordering::Relaxed), found.expired.load(Ordering::Relaxed));
        if withdrawn > 0 || expired > 0 {
            tracing::info!(withdrawn, expired, "what callers had proved holds no more; what rests on it ends");
        }
        all.iter().any(Proof::is_timed).then(|| self.clock.now() + LOOK)
    }

    /// Judges what is only looked up. Those that a path must be looked for.
    async fn judge_quick(
        &self,
        tasks: &Tasks,
        live: &Arc<Live>,
        due: Vec<Proof>,
        (generation, now): (u64, UnixMillis),
        found: &Arc<Found>,
    ) -> HashSet<Proof> {
        let (of_quick, live) = (Arc::clone(found), Arc::clone(live));
        let all = due.clone();
        let judging = tasks.survived_off_the_workers(move || {
            let mut slow = HashSet::new();
            for proof in due {
                if live.identity.is_quick(&proof.basis().evidence, now) {
                    of_quick.judge(&live, &proof, (generation, now));
                } else {
                    slow.insert(proof);
                }
            }
            slow
        });
        let slow = judging.await.unwrap_or_default();
        for proof in all.iter().filter(|proof| !slow.contains(*proof) && proof.is_due(generation, now)) {
            tracing::error!(proof = ?proof.basis(), "could not be judged: what rests on it ends");
            found.tell(proof, generation, Verdict::Ended(Ended::Withdrawn));
        }
        self.history.review();
        slow
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
