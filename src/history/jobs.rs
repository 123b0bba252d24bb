//! Work under way, shared by those who want the same.
//!
//! Invariants:
//! - One look-up-or-insert under one lock: identical requests of one app share one job, however they race.
//! - Nobody is given what was so before it asked: a job that has asked the vendor is joined by others only if its
//!   window was past by then, for nothing is sent into the past.
//! - But a client that left without its answer is owed it, for a while, and is given it when it asks the same again: as
//!   of its first request. So who has less patience than the vendor needs comes to its answer, too. Not when it wants a
//!   younger one: then it gives up what it was owed.
//! - A job whose last caller left goes on as long as somebody is owed its answer, or was given a handle to it (a
//!   promise); bounded by a total time, and unless what let in all those was withdrawn. Of those that are only owed
//!   there may be so many, with shares. While the gateway stops, only callers keep a job alive.
//! - Every job publishes an outcome exactly once, also when it panics or is forced to end.
//! - No client can begin all the jobs there may be: see [`share`].
//! - A job can be found by its number until its outcome is kept elsewhere: there is no gap between.

mod caller;
mod table;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::error::Error;
use super::job::{Job, JobKey, Outcome};
use crate::kernel::clock::Clock;
use crate::kernel::proof::Proof;
use crate::kernel::share;
use crate::kernel::sync::lock;
use crate::upstream::egress::Failure;
use crate::vendor::order::Payer;
pub(super) use caller::Caller;
use table::{JobEntry, JobTable, OwedAnswer};

/// Most jobs at a time.
const MAX_JOBS: usize = 1024;

/// All jobs under way. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Jobs {
    table: Arc<Mutex<JobTable>>,
    clock: Clock,
}

/// How somebody comes to a job.
#[derive(Debug)]
pub(super) struct JobRequest<'a> {
    pub(super) payer: &'a Payer,
    /// What let it in.
    pub(super) proof: &'a Proof,
    /// How old an answer may be that it was owed; no work of others will do when zero.
    pub(super) max_age: Option<Duration>,
    /// Until when it waits.
    pub(super) deadline: Instant,
    /// Of a new job: whether nothing can be sent into its window any more,
    pub(super) is_past: bool,
    /// and when it is given up.
    pub(super) end: Instant,
    /// How long it is owed its answer when it leaves without.
    pub(super) keep_going: Duration,
}

/// How a caller came to a job.
pub(super) enum JobLookup {
    Joined(Caller),
    /// It was left by this client without an answer, and runs still.
    Returned(Caller),
    /// The same, and it has ended.
    Ended(u64),
    /// It is new: the runner is to be given to a task.
    Began(Caller, JobGuard),
}

impl Jobs {
    pub(super) fn new(clock: Clock) -> Self {
        Self { table: Arc::default(), clock }
    }

    /// Comes back to the job of that key that the client left without an answer, joins the newest that will do, or
    /// begins one for the client.
    /// Fails with [`Error::Crowded`] when there are too many, or too many of this client's.
    pub(super) fn enter(&self, key: JobKey, request: &JobRequest<'_>) -> Result<JobLookup, Error> {
        let JobRequest { payer: Payer { client, .. }, deadline, is_past, end, .. } = *request;
        let now = self.clock.now();
        let mut table = self.table();
        let caller = |job: &Arc<Job>| Caller::new(self.clone(), job, request);
        let is_young = |owed: &OwedAnswer| match request.max_age {
            None => true,
            Some(max_age) => !max_age.is_zero() && self.clock.wall_ms().before(max_age) <= owed.as_of,
        };
        let owed = table.owed.remove(&(client.clone(), key.clone())).filter(|owed| now < owed.until && is_young(owed));
        if request.max_age != Some(Duration::ZERO) {
            if let Some(owed) = owed {
                let Some(entry) = table.jobs.get_mut(&owed.job) else { return Ok(JobLookup::Ended(owed.job)) };
                return Ok(JobLookup::Returned(caller(&entry.job)));
            }
            let newest = table.newest.get(&key).copied();
            if let Some(entry) = newest.and_then(|number| table.jobs.get_mut(&number))
                && (entry.job.is_past || !entry.job.sent.is_sent())
            {
                return Ok(JobLookup::Joined(caller(&entry.job)));
            }
        }
        let begun = table.begun.get(client).copied().unwrap_or(0);
        if !share::may_take(1, begun, table.jobs.len(), MAX_JOBS) {
            return Err(Error::Crowded);
        }
        table.begun.insert(client.clone(), begun + 1);
        table.last_number += 1;
        let began = self.clock.wall_ms();
        let job = Arc::new(Job::new(table.last_number, key.clone(), began, is_past, deadline, end));
        // It has its caller before others can find it: one without is abandoned at the next look.
        let caller = caller(&job);
        table.newest.insert(key, job.number);
        let entry = JobEntry { job: Arc::clone(&job), by: client.clone(), promised: Vec::new() };
        table.jobs.insert(job.number, entry);
        drop(table);
        Ok(JobLookup::Began(caller, JobGuard { jobs: self.clone(), job }))
    }

    /// The job of that number, while it is under way.
    pub(super) fn find(&self, number: u64) -> Option<Arc<Job>> {
        self.table().jobs.get(&number).map(|entry| Arc::clone(&entry.job))
    }

    /// Waits until a job's deadline has passed and nobody wants it any more: then it is abandoned.
    pub(super) async fn outlived(&self, job: &Job) {
        let mut deadline = job.deadline();
        loop {
            let until = *deadline.borrow_and_update();
            let moved = match timeout_at(until, deadline.changed()).await {
                Ok(moved) => moved,
                Err(_) => {
                    self.table().abandon_if_unwanted(job.number, self.clock.now());
                    // Those who wait are about to leave, which moves it again.
                    deadline.changed().await
                }
            };
            if moved.is_err() {
                return;
            }
        }
    }

    /// The jobs whose answers are owed to somebody, and forgets what is owed no longer.
    pub(super) fn owed(&self) -> HashSet<u64> {
        let now = self.clock.now();
        let mut table = self.table();
        table.owed.retain(|_, owed| now < owed.until);
        table.owed.values().map(|owed| owed.job).collect()
    }

    /// What let callers in was judged anew: jobs that are wanted by none who may ask end now.
    pub(super) fn review(&self) {
        let mut table = self.table();
        let promised = table.jobs.iter().filter(|(_, entry)| !entry.promised.is_empty());
        let numbers: Vec<_> = promised.map(|(number, _)| *number).collect();
        for number in numbers {
            table.abandon_if_unwanted(number, self.clock.now());
        }
    }

    /// The gateway stops: jobs that nobody waits for end now, the others when their callers have left.
    pub(super) fn stop(&self) {
        let mut table = self.table();
        table.stopping = true;
        let numbers: Vec<_> = table.jobs.keys().copied().collect();
        for number in numbers {
            table.abandon_if_unwanted(number, self.clock.now());
        }
    }

    fn table(&self) -> MutexGuard<'_, JobTable> {
        lock(&self.table)
    }
}

/// The duty to publish a job's outcome and to take it off the table.
#[derive(Debug)]
pub(super) struct JobGuard {
    jobs: Jobs,
    pub(super) job: Arc<Job>,
}

impl JobGuard {
    /// Tells those who wait. The job is still found by its number until this is dropped.
    pub(super) fn publish(&self, at: Instant, outcome: Outcome) {
        self.job.outcome.send_if_modified(|slot| {
            let first = slot.is_none();
            slot.get_or_insert((at, outcome));
            first
        });
    }
}

impl Drop for JobGuard {
    fn drop(&mut self) {
        // Only a task that panicked or was forced to end comes here without an outcome.
        self.publish(self.job.end, Err(Failure::Stopping.into()));
        let failed = matches!(self.job.outcome(), Some((_, Err(_))));
        let mut table = self.jobs.table();
        if failed {
            table.owed.retain(|_, owed| owed.job != self.job.number);
        }
        table.remove(self.job.number);
    }
}
