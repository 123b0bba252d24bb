//! Work under way, shared by those who want the same.
//!
//! Invariants:
//! - One look-up-or-insert under one lock: identical requests of one app share one job, however they race.
//! - A job whose last caller left is dropped, unless a handle to it was given out (a promise); then it goes on to its
//!   end, bounded by a total time, unless what let in all who have one was withdrawn. While the gateway stops, only callers keep a job alive.
//! - Every job publishes an outcome exactly once, also when it panics or is forced to end.
//! - No client can begin all the jobs there may be: see [`share`].
//! - A job can be found by its number until its outcome is kept elsewhere: there is no gap between.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::query::Query;
use crate::egress::{Costs, Failure};
use crate::names::{AppId, ClientName};
use crate::proof::Proof;
use crate::share;
use crate::vendor::history::Filter;

/// Most jobs at a time.
const JOBS_MAX: usize = 1024;

/// So many proofs are remembered of those who were promised one job's result; then the newest stand for the others.
const PROMISED_MAX: usize = 256;

/// What is wanted of the vendor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ask {
    Messages(Query),
    Count(Filter),
}

/// What makes two requests the same. Never equal across apps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) app: AppId,
    pub(super) ask: Ask,
}

/// What a job made.
#[derive(Debug)]
pub(super) struct Product {
    /// The rendered member that holds it: `"messages":[…]` or `"count":N`.
    pub(super) member: Bytes,
    /// What it took.
    pub(super) costs: Costs,
}

pub(super) type Outcome = Result<Arc<Product>, Error>;

/// A job, or what is left of it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) key: Key,
    /// When it is given up, promise or no.
    pub(super) end: Instant,
    deadline: watch::Sender<Instant>,
    outcome: watch::Sender<Option<(Instant, Outcome)>>,
    /// Why it waits for a later deadline, when it does for want of quota.
    pub(super) stuck: watch::Sender<Option<Failure>>,
    abandoned: CancellationToken,
    /// The handle of each client that was given one.
    pub(super) handles: Mutex<Vec<(ClientName, Arc<str>)>>,
}

impl Job {
    /// When it ended, and how; `None` while it is under way.
    pub(super) fn outcome(&self) -> Option<(Instant, Outcome)> {
        self.outcome.borrow().clone()
    }

    /// When the last of those who wait for it gives up.
    pub(super) fn deadline(&self) -> watch::Receiver<Instant> {
        self.deadline.subscribe()
    }

    /// Waits so long for it to get stuck for want of quota, and says how.
    pub(super) async fn stuck(&self, patience: Duration) -> Option<Failure> {
        let mut stuck = self.stuck.subscribe();
        timeout(patience, stuck.wait_for(Option::is_some)).await.ok()?.ok()?.clone()
    }

    /// Resolves when nobody wants it any more.
    pub(super) async fn abandoned(&self) {
        self.abandoned.cancelled().await;
    }

    fn extend(&self, to: Instant) {
        let to = to.min(self.end);
        self.deadline.send_if_modified(|deadline| {
            let later = to > *deadline;
            *deadline = to.max(*deadline);
            later
        });
    }
}

/// All jobs under way. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Jobs(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    newest: HashMap<Key, u64>,
    jobs: HashMap<u64, Entry>,
    /// How many jobs each client began that are under way. None are of nobody.
    begun: HashMap<ClientName, usize>,
    last_number: u64,
    stopping: bool,
}

#[derive(Debug)]
struct Entry {
    job: Arc<Job>,
    by: ClientName,
    callers: usize,
    /// What let those in who were promised its result.
    promised: Vec<Proof>,
}

impl Table {
    fn remove(&mut self, number: u64) {
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

    fn abandon_if_unwanted(&mut self, number: u64) {
        if let Some(entry) = self.jobs.get(&number)
            && entry.callers == 0
            // Each is asked, also behind one that is wanted: what was promised is counted as ended when it is told so.
            && (self.stopping || entry.promised.iter().filter(|proof| !proof.is_withdrawn()).count() == 0)
        {
            entry.job.abandoned.cancel();
            self.remove(number);
        }
    }
}

/// How a caller came to a job.
pub(super) enum Came {
    /// It runs already.
    Joined(Caller),
    /// It is new: the runner is to be given to a task.
    Began(Caller, Runner),
}

impl Jobs {
    /// Joins the newest job of that key (`join`), or begins one for `client`.
    ///
    /// # Errors
    /// [`Error::Crowded`] when there are too many, or too many of this client's.
    pub(super) fn enter(
        &self,
        key: Key,
        client: &ClientName,
        join: bool,
        deadline: Instant,
        end: Instant,
    ) -> Result<Came, Error> {
        let mut table = self.table();
        if join
            && let Some(number) = table.newest.get(&key).copied()
            && let Some(entry) = table.jobs.get_mut(&number)
        {
            entry.callers += 1;
            entry.job.extend(deadline);
            return Ok(Came::Joined(Caller { jobs: self.clone(), job: Arc::clone(&entry.job) }));
        }
        let begun = table.begun.get(client).copied().unwrap_or(0);
        if !share::may_take(1, begun, table.jobs.len(), JOBS_MAX) {
            return Err(Error::Crowded);
        }
        table.begun.insert(client.clone(), begun + 1);
        table.last_number += 1;
        let job = Arc::new(Job {
            number: table.last_number,
            key: key.clone(),
            end,
            deadline: watch::Sender::new(deadline.min(end)),
            outcome: watch::Sender::new(None),
            stuck: watch::Sender::new(None),
            abandoned: CancellationToken::new(),
            handles: Mutex::default(),
        });
        table.newest.insert(key, job.number);
        let entry = Entry { job: Arc::clone(&job), by: client.clone(), callers: 1, promised: Vec::new() };
        table.jobs.insert(job.number, entry);
        drop(table);
        let caller = Caller { jobs: self.clone(), job: Arc::clone(&job) };
        Ok(Came::Began(caller, Runner { jobs: self.clone(), job }))
    }

    /// The job of that number, while it is under way.
    pub(super) fn find(&self, number: u64) -> Option<Arc<Job>> {
        self.table().jobs.get(&number).map(|entry| Arc::clone(&entry.job))
    }

    /// What let callers in was judged anew: jobs that are wanted by none who may ask end now.
    pub(super) fn review(&self) {
        let mut table = self.table();
        let promised = table.jobs.iter().filter(|(_, entry)| !entry.promised.is_empty());
        let numbers: Vec<_> = promised.map(|(number, _)| *number).collect();
        for number in numbers {
            table.abandon_if_unwanted(number);
        }
    }

    /// The gateway stops: jobs that nobody waits for end now, the others when their callers have left.
    pub(super) fn stop(&self) {
        let mut table = self.table();
        table.stopping = true;
        let numbers: Vec<_> = table.jobs.keys().copied().collect();
        for number in numbers {
            table.abandon_if_unwanted(number);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits for a job. Leaves it when dropped.
#[derive(Debug)]
pub(super) struct Caller {
    jobs: Jobs,
    pub(super) job: Arc<Job>,
}

impl Caller {
    /// Waits for the outcome, no longer than to the deadline.
    pub(super) async fn wait(&self, deadline: Instant) -> Option<Outcome> {
        let mut outcome = self.job.outcome.subscribe();
        let published = timeout_at(deadline, outcome.wait_for(Option::is_some)).await.ok()?;
        // The job is held here, so its sender lives.
        published.ok()?.as_ref().map(|(_, outcome)| outcome.clone())
    }

    /// Lets the job go on to its end without callers, as long as this is not withdrawn.
    pub(super) fn promise(&self, proof: &Proof) {
        let mut table = self.jobs.table();
        if let Some(entry) = table.jobs.get_mut(&self.job.number)
            && !entry.promised.contains(proof)
        {
            if entry.promised.len() >= PROMISED_MAX {
                entry.promised.swap_remove(0);
            }
            entry.promised.push(proof.clone());
        }
        drop(table);
        self.job.extend(self.job.end);
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let mut table = self.jobs.table();
        if let Some(entry) = table.jobs.get_mut(&self.job.number) {
            entry.callers -= 1;
        }
        table.abandon_if_unwanted(self.job.number);
    }
}

/// The duty to publish a job's outcome and to take it off the table.
#[derive(Debug)]
pub(super) struct Runner {
    jobs: Jobs,
    pub(super) job: Arc<Job>,
}

impl Runner {
    /// Tells those who wait. The job is still found by its number until this is dropped.
    pub(super) fn publish(&self, at: Instant, outcome: Outcome) {
        self.job.outcome.send_if_modified(|slot| {
            let first = slot.is_none();
            slot.get_or_insert((at, outcome));
            first
        });
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // Only a task that panicked or was forced to end comes here without an outcome.
        self.publish(self.job.end, Err(Failure::Stopping.into()));
        self.jobs.table().remove(self.job.number);
    }
}
