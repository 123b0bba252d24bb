//! [`Caller`]: one who waits for a job, and what it leaves behind when it goes.
//!
//! Invariant: who is dropped has left: the job's deadline, its sharers and what is owed are right again by then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::table::{JobEntry, JobTable, OwedAnswer, Promise};
use super::{JobRequest, Jobs};
use crate::history::job::{Job, Outcome};
use crate::kernel::proof::Proof;
use crate::vendor::order::Payer;

/// One who waits for a job. Leaves it when dropped.
#[derive(Debug)]
pub(in crate::history) struct Caller {
    jobs: Jobs,
    pub(in crate::history) job: Arc<Job>,
    payer: Payer,
    proof: Proof,
    keep_going: Duration,
    is_answered: AtomicBool,
}

impl Caller {
    /// One more who waits: the job goes on at least until this one gives up.
    pub(super) fn new(jobs: Jobs, job: &Arc<Job>, request: &JobRequest<'_>) -> Self {
        job.come(request.payer);
        job.extend(request.deadline);
        Self {
            jobs,
            job: Arc::clone(job),
            payer: request.payer.clone(),
            proof: request.proof.clone(),
            keep_going: request.keep_going,
            is_answered: AtomicBool::new(false),
        }
    }

    /// Waits for the outcome, no longer than to the deadline.
    pub(in crate::history) async fn wait(&self, deadline: Instant) -> Option<Outcome> {
        let mut outcome = self.job.outcome.subscribe();
        let published = timeout_at(deadline, outcome.wait_for(Option::is_some)).await.ok()?;
        // The job is held here, so its sender lives.
        let outcome = published.ok()?.as_ref().map(|(_, outcome)| outcome.clone());
        self.is_answered.store(true, Ordering::Relaxed);
        outcome
    }

    /// Lets the job go on to its end without callers, as long as what let this one in is not withdrawn.
    pub(in crate::history) fn promise(&self) {
        if let Some(entry) = self.jobs.table().jobs.get_mut(&self.job.number) {
            entry.promise(Promise { proof: self.proof.clone(), by_handle: true, until: self.job.end });
        }
        self.job.extend(self.job.end);
    }

    /// It was told all that it wanted to know for now.
    pub(in crate::history) fn is_content(&self) {
        self.is_answered.store(true, Ordering::Relaxed);
    }

    /// Who leaves without an answer comes back for it. Not for a failure: then it is tried anew.
    fn is_owed(&self, table: &JobTable) -> bool {
        let failed = matches!(self.job.outcome(), Some((_, Err(_))));
        !self.is_answered.load(Ordering::Relaxed) && !failed && !table.stopping && !self.keep_going.is_zero()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let (now, number) = (self.jobs.clock.now(), self.job.number);
        let mut table = self.jobs.table();
        self.job.leave(&self.payer);
        if self.is_owed(&table) {
            let until = now + self.keep_going;
            let is_last = table.jobs.get(&number).is_some_and(JobEntry::is_only_owed);
            if !is_last || table.has_room_for_owed(number) {
                let owed = OwedAnswer { job: number, as_of: self.job.began, until };
                table.owe((self.payer.client.clone(), self.job.key.clone()), owed, now);
                if let Some(entry) = table.jobs.get_mut(&number) {
                    entry.promise(Promise { proof: self.proof.clone(), by_handle: false, until });
                }
            }
        }
        table.abandon_if_unwanted(number, now);
    }
}
