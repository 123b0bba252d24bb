//! [`JobTable`]: the jobs under way, who began them, and to whom their answers are owed or promised.
//!
//! Invariants: it is only ever touched under the one lock of [`Jobs`](super::Jobs). A job is in it until its outcome is
//! kept elsewhere. Each client that began a job is counted while the job is in it.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::history::job::{Job, JobKey};
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::ClientName;
use crate::kernel::proof::Proof;
use crate::kernel::share;

/// Most jobs that go on only because somebody is owed their answer.
const MAX_OWED_JOBS: usize = 128;

/// Most answers that are owed.
const MAX_OWED: usize = 10_000;

/// So many proofs are remembered of those who were promised one job's result; then the newest stand for the others.
const MAX_PROMISED: usize = 256;

#[derive(Debug, Default)]
pub(super) struct JobTable {
    pub(super) newest: HashMap<JobKey, u64>,
    pub(super) jobs: HashMap<u64, JobEntry>,
    /// How many jobs each client began that are under way. None are of nobody.
    pub(super) begun: HashMap<ClientName, usize>,
    /// Who left without an answer: of which job, and until when it is owed it. The job may have ended.
    pub(super) owed: HashMap<(ClientName, JobKey), OwedAnswer>,
    pub(super) last_number: u64,
    pub(super) stopping: bool,
}

#[derive(Debug)]
pub(super) struct JobEntry {
    pub(super) job: Arc<Job>,
    pub(super) by: ClientName,
    pub(super) promised: Vec<Promise>,
}

/// Somebody comes back for the result.
#[derive(Debug)]
pub(super) struct Promise {
    /// What let it in.
    pub(super) proof: Proof,
    /// It has a handle; else it is owed an answer.
    pub(super) by_handle: bool,
    pub(super) until: Instant,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct OwedAnswer {
    pub(super) job: u64,
    /// As of when its answer is.
    pub(super) as_of: UnixMillis,
    pub(super) until: Instant,
}

impl JobEntry {
    pub(super) fn promise(&mut self, promise: Promise) {
        if let Some(known) = self.promised.iter_mut().find(|known| known.proof == promise.proof) {
            known.by_handle |= promise.by_handle;
            known.until = known.until.max(promise.until);
            return;
        }
        if self.promised.len() >= MAX_PROMISED {
            self.promised.swap_remove(0);
        }
        self.promised.push(promise);
    }

    pub(super) fn is_only_owed(&self) -> bool {
        self.job.callers() == 0 && self.promised.iter().all(|promise| !promise.by_handle)
    }
}

impl JobTable {
    pub(super) fn remove(&mut self, number: u64) {
        let Some(entry) = self.jobs.remove(&number) else { return };
        if self.newest.get(&entry.job.key) == Some(&number) {
            self.newest.remove(&entry.job.key);
        }
        if let Some(begun) = self.begun.get_mut(&entry.by) {
            *begun -= 1;
            if *begun == 0 {
                self.begun.remove(&entry.by);
            }
        }
    }

    fn abandon(&mut self, number: u64) {
        if let Some(entry) = self.jobs.get(&number) {
            entry.job.abandoned.cancel();
            self.owed.retain(|_, owed| owed.job != number);
            self.remove(number);
        }
    }

    pub(super) fn abandon_if_unwanted(&mut self, number: u64, now: Instant) {
        // One that has ended stays until its outcome is kept: who comes back in between must find it somewhere.
        let is_left = |entry: &&mut JobEntry| entry.job.callers() == 0 && entry.job.is_under_way();
        let Some(entry) = self.jobs.get_mut(&number).filter(is_left) else { return };
        // Each is asked, also behind one that is wanted: what was promised is counted as ended when it is told so.
        entry.promised.retain(|promise| !promise.proof.is_withdrawn() && now < promise.until);
        match entry.promised.iter().map(|promise| promise.until).max() {
            Some(until) if !self.stopping => entry.job.goes_on_until(until),
            _ => self.abandon(number),
        }
    }

    /// Makes room for one more job of a client's that goes on only because its answer is owed: there are shares, and
    /// the client's own oldest goes first. Says whether there is room.
    pub(super) fn has_room_for_owed(&mut self, number: u64) -> bool {
        let Some(by) = self.jobs.get(&number).map(|entry| entry.by.clone()) else { return false };
        let others = self.jobs.iter().filter(|(other, entry)| **other != number && entry.is_only_owed());
        let (mut all, mut own, mut oldest) = (0, 0, None);
        for (other, entry) in others {
            all += 1;
            if entry.by == by {
                own += 1;
                oldest = oldest.min(Some(*other)).or(Some(*other));
            }
        }
        if share::may_take(1, own, all, MAX_OWED_JOBS) {
            return true;
        }
        let Some(oldest) = oldest else { return false };
        self.abandon(oldest);
        true
    }

    /// Somebody left without an answer.
    pub(super) fn owe(&mut self, who: (ClientName, JobKey), owed: OwedAnswer, now: Instant) {
        if self.owed.len() >= MAX_OWED {
            self.owed.retain(|_, owed| now < owed.until);
        }
        if self.owed.len() < MAX_OWED {
            self.owed.insert(who, owed);
        }
    }
}
