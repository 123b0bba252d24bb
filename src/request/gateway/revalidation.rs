//! Revalidation: whenever what is in force changes, or time takes something away, what proved those who have something
//! under way is judged anew.
//!
//! Invariants:
//! - Each distinct proof is judged once a change, off the runtime's workers. What is only looked up (keys, tokens,
//!   users, a certificate's number in a revocation list) is judged at once; the paths of certificates to new
//!   authorities beside it, once for all proofs that rest on one, several at a time, and no round waits for them. So a
//!   judgement that takes long delays those alone that need as long.
//! - What cannot be judged now (the token issuer's new keys are not known yet) hands over nothing meanwhile, and ends
//!   when it has taken too long. What cannot be judged at all, because judging it failed, has ended.
//! - Jobs nobody wants any more are told at once.

#![expect(clippy::mutable_key_type, reason = "a proof is hashed by its place in memory, which does not change")]

mod path_queue;

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
use path_queue::{PathGroup, PathQueue};

/// How often it is looked whether time has taken something away, while it can.
const LOOK: Duration = Duration::from_millis(250);

/// How long a proof may stay undecided: as long as a fetch of the issuer's keys may take.
const DECIDED_WITHIN: Duration = Duration::from_secs(10);

/// How many paths of certificates are looked for at a time.
const AT_A_TIME: usize = 4;

/// The task that judges, and what it remembers from one round to the next.
struct Revalidation {
    gateway: Arc<Gateway>,
    tasks: Tasks,
    lane: Lane,
    /// Whether the token issuer's keys were known.
    had_keys: Option<bool>,
    /// Since when there is any that could not be decided.
    undecided: Option<Instant>,
    /// Those that a path must be looked for: no round waits for them.
    paths: PathQueue,
    /// The search for a path, which answers with the generation that it judged by.
    under_way: FuturesUnordered<BoxFuture<'static, (PathGroup, u64)>>,
}

/// When it is judged, and what is in force then.
#[derive(Clone, Copy, Debug)]
struct Moment {
    generation: u64,
    now: UnixMillis,
}

/// What one round found.
#[derive(Debug, Default)]
struct RoundCounts {
    withdrawn: AtomicUsize,
    expired: AtomicUsize,
}

/// Judges what is under way at a gateway until the tasks stop.
pub(crate) async fn run(gateway: Arc<Gateway>, tasks: Tasks) {
    let (stopping, lane) = (tasks.stopping(), Lane::new("proofs", AT_A_TIME));
    let mut work = Revalidation {
        gateway,
        tasks,
        lane,
        had_keys: None,
        undecided: None,
        paths: PathQueue::default(),
        under_way: FuturesUnordered::new(),
    };
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
            Some((group, generation)) = work.under_way.next() => work.finish_path(group, generation),
            () = work.gateway.proofs.work() => look_at = work.round().await,
            () = look => look_at = work.round().await,
        }
        work.begin_paths();
    }
}

impl Revalidation {
    fn moment(&self) -> Moment {
        Moment { generation: self.gateway.proofs.generation(), now: self.gateway.clock.wall_ms() }
    }

    /// Begins to look for as many paths as may be looked for at a time, by what is in force now.
    fn begin_paths(&mut self) {
        while self.under_way.len() < AT_A_TIME
            && let Some(group) = self.paths.next()
        {
            let (moment, live) = (self.moment(), self.gateway.live());
            let (tasks, lane) = (self.tasks.clone(), self.lane.clone());
            let judging = async move {
                if let Some(proof) = group.proofs.first() {
                    live.identity.prepare(&lane, &proof.basis().evidence, moment.now).await;
                }
                let judged = group.proofs.clone();
                let judge_all = move || {
                    judged.iter().for_each(|proof| RoundCounts::default().judge(&live, proof, moment));
                };
                // What panics is seen when the path is finished: its proofs are still due then.
                let _ = tasks.blocking(&lane, judge_all).await;
                (group, moment.generation)
            };
            self.under_way.push(Box::pin(judging));
        }
    }

    /// Those that waited for one path were judged, by what was in force at that generation.
    fn finish_path(&mut self, group: PathGroup, generation: u64) {
        self.paths.done(&group);
        let mut withdrawn = 0;
        for proof in group.proofs {
            if proof.is_due(generation, UnixMillis(0)) {
                tracing::error!(proof = ?proof.basis(), "a credential could not be checked: what rests on it ends");
                proof.judge(generation, Verdict::Ended(Ended::Withdrawn));
            }
            withdrawn += usize::from(proof.is_withdrawn());
            // There was a change while it was looked for.
            let Moment { generation, now } = self.moment();
            if proof.is_due(generation, now) {
                self.paths.push(proof);
            }
        }
        if withdrawn > 0 {
            tracing::info!(withdrawn, "credentials were withdrawn or expired; what rests on them ends");
            self.gateway.history.review();
        }
    }

    /// One round. Says when the next must come, if time alone may end something.
    async fn round(&mut self) -> Option<Instant> {
        // The number is read before what it is of: a change in between is judged once more.
        let generation = self.gateway.proofs.generation();
        let live = self.gateway.live();
        let had_keys = std::mem::replace(&mut self.had_keys, live.identity.has_keys());
        if had_keys == Some(true) && self.had_keys == Some(false) {
            // They have not been confirmed for too long. The next round judges.
            self.gateway.proofs.changed();
        }
        let (all, now) = (self.gateway.proofs.all(), self.gateway.clock.wall_ms());
        let found = Arc::new(RoundCounts::default());
        for proof in &all {
            found.note_expired(proof.expire(now));
        }
        let is_due = |proof: &&Proof| proof.is_due(generation, now) && !self.paths.has(proof);
        let due: Vec<_> = all.iter().filter(is_due).cloned().collect();
        if !due.is_empty() {
            let slow = self.judge_quick(&live, due, Moment { generation, now }, &found).await;
            slow.into_iter().for_each(|proof| self.paths.push(proof));
        }
        self.give_up_undecided(&all, generation);
        let (withdrawn, expired) = (found.withdrawn.load(Ordering::Relaxed), found.expired.load(Ordering::Relaxed));
        if withdrawn > 0 || expired > 0 {
            tracing::info!(withdrawn, expired, "credentials were withdrawn or expired; what rests on them ends");
        }
        all.iter().any(Proof::is_timed).then(|| self.gateway.clock.now() + LOOK)
    }

    /// Judges what is only looked up. Those that a path must be looked for.
    async fn judge_quick(
        &mut self,
        live: &Arc<Live>,
        due: Vec<Proof>,
        moment: Moment,
        found: &Arc<RoundCounts>,
    ) -> HashSet<Proof> {
        let (of_quick, live) = (Arc::clone(found), Arc::clone(live));
        let all = due.clone();
        let judging = self.tasks.survived_off_the_workers(move || {
            let mut slow = HashSet::new();
            for proof in due {
                if live.identity.is_quick(&proof.basis().evidence, moment.now) {
                    of_quick.judge(&live, &proof, moment);
                } else {
                    slow.insert(proof);
                }
            }
            slow
        });
        let slow = judging.await.unwrap_or_default();
        let Moment { generation, now } = moment;
        for proof in all.iter().filter(|proof| !slow.contains(*proof) && proof.is_due(generation, now)) {
            tracing::error!(proof = ?proof.basis(), "a credential could not be checked: what rests on it ends");
            found.record(proof, generation, Verdict::Ended(Ended::Withdrawn));
        }
        self.gateway.history.review();
        slow
    }

    fn give_up_undecided(&mut self, all: &[Proof], generation: u64) {
        let undecided: Vec<_> = all.iter().filter(|proof| proof.is_undecided()).collect();
        if undecided.is_empty() {
            self.undecided = None;
            return;
        }
        let now = self.gateway.clock.now();
        let since = *self.undecided.get_or_insert(now);
        if now.saturating_duration_since(since) >= DECIDED_WITHIN {
            self.undecided = None;
            for proof in undecided {
                proof.judge(generation, Verdict::Ended(Ended::Expired));
            }
        }
    }
}

impl RoundCounts {
    fn judge(&self, live: &Live, proof: &Proof, Moment { generation, now }: Moment) {
        let basis = proof.basis();
        let verdict = match live.identity.judge(&basis.client, &basis.evidence, now) {
            Verdict::Good(_) | Verdict::Undecided if !live.policy.still_allows(basis) => {
                Verdict::Ended(Ended::Forbidden)
            }
            verdict => verdict,
        };
        self.record(proof, generation, verdict);
    }

    fn record(&self, proof: &Proof, generation: u64, verdict: Verdict) {
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
