//! Work under way, shared by those who want the same.
//!
//! Invariants:
//! - One look-up-or-insert under one lock: identical requests of one app share one job, however they race.
//! - Nobody is given what was so before it asked: a job that has asked the vendor is joined by others only if its window
//!   was past by then, for nothing is sent into the past.
//! - But a client that left without its answer is owed it, for a while, and is given it when it asks the same again: as of
//!   its first asking. So who has less patience than the vendor needs comes to its answer, too. Not when it wants a younger
//!   one: then it gives up what it was owed.
//! - A job whose last caller left goes on as long as somebody is owed its answer, or was given a handle to it (a promise);
//!   bounded by a total time, and unless what let in all those was withdrawn. Of those that are only owed there may be so
//!   many, with shares. While the gateway stops, only callers keep a job alive.
//! - Every job publishes an outcome exactly once, also when it panics or is forced to end.
//! - No client can begin all the jobs there may be: see [`share`].
//! - A job can be found by its number until its outcome is kept elsewhere: there is no gap between.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::job::{Job, Key, Outcome};
use crate::kernel::clock::{Clock, UnixMillis};
use crate::kernel::names::ClientName;
use crate::kernel::proof::Proof;
use crate::kernel::share;
use crate::kernel::sync::lock;
use crate::upstream::egress::Failure;
use crate::vendor::order::{Payer, Sent};

/// Most jobs at a time.
const JOBS_MAX: usize = 1024;

/// Most jobs that go on only because somebody is owed their answer.
const OWED_JOBS_MAX: usize = 128;

/// Most answers that are owed.
const OWED_MAX: usize = 10_000;

/// So many proofs are remembered of those who were promised one job's result; then the newest stand for the others.
const PROMISED_MAX: usize = 256;

/// All jobs under way. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Jobs {
    table: Arc<Mutex<Table>>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Table {
    newest: HashMap<Key, u64>,
    jobs: HashMap<u64, Entry>,
    /// How many jobs each client began that are under way. None are of nobody.
    begun: HashMap<ClientName, usize>,
    /// Who left without an answer: of which job, and until when it is owed it. The job may have ended.
    owed: HashMap<(ClientName, Key), Owed>,
    last_number: u64,
    stopping: bool,
}

#[derive(Debug)]
struct Entry {
    job: Arc<Job>,
    by: ClientName,
    promised: Vec<Promise>,
}

/// Somebody comes back for the result.
#[derive(Debug)]
struct Promise {
    /// What let it in.
    proof: Proof,
    /// It has a handle; else it is owed an answer.
    by_handle: bool,
    until: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Owed {
    job: u64,
    /// As of when its answer is.
    as_of: UnixMillis,
    until: Instant,
}

/// How somebody comes to a job.
#[derive(Debug)]
pub(super) struct Asking<'a> {
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

impl Entry {
    fn promise(&mut self, promise: Promise) {
        if let Some(known) = self.promised.iter_mut().find(|known| known.proof == promise.proof) {
            known.by_handle |= promise.by_handle;
            known.until = known.until.max(promise.until);
            return;
        }
        if self.promised.len() >= PROMISED_MAX {
            self.promised.swap_remove(0);
        }
        self.promised.push(promise);
    }

    fn is_only_owed(&self) -> bool {
        self.job.callers() == 0 && self.promised.iter().all(|promise| !promise.by_handle)
    }
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

    fn abandon(&mut self, number: u64) {
        if let Some(entry) = self.jobs.get(&number) {
            entry.job.abandoned.cancel();
            self.owed.retain(|_, owed| owed.job != number);
            self.remove(number);
        }
    }

    fn abandon_if_unwanted(&mut self, number: u64, now: Instant) {
        // One that has ended stays until its outcome is kept.
        let is_left = |entry: &&mut Entry| entry.job.callers() == 0 && entry.job.is_under_way();
        let Some(entry) = self.jobs.get_mut(&number).filter(is_left) else { return };
        // Each is asked, also behind one that is wanted: what was promised is counted as ended when it is told so.
        entry.promised.retain(|promise| !promise.proof.is_withdrawn() && now < promise.until);
        match entry.promised.iter().map(|promise| promise.until).max() {
            Some(until) if !self.stopping => entry.job.goes_on_until(until),
            _ => self.abandon(number),
        }
    }

    /// Makes room for one more job of a client's that goes on only because its answer is owed: there are shares, and the
    /// client's own oldest goes first. Says whether there is room.
    fn has_room_for_owed(&mut self, number: u64) -> bool {
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
        if share::may_take(1, own, all, OWED_JOBS_MAX) {
            return true;
        }
        let Some(oldest) = oldest else { return false };
        self.abandon(oldest);
        true
    }

    /// Somebody left without an answer.
    fn owe(&mut self, who: (ClientName, Key), owed: Owed, now: Instant) {
        if self.owed.len() >= OWED_MAX {
            self.owed.retain(|_, owed| now < owed.until);
        }
        if self.owed.len() < OWED_MAX {
            self.owed.insert(who, owed);
        }
    }
}

/// How a caller came to a job.
pub(super) enum Came {
    /// It runs already.
    Joined(Caller),
    /// It was left by this client without an answer, and runs still.
    Returned(Caller),
    /// The same, and it has ended.
    Ended(u64),
    /// It is new: the runner is to be given to a task.
    Began(Caller, Runner),
}

impl Jobs {
    pub(super) fn new(clock: Clock) -> Self {
        Self { table: Arc::default(), clock }
    }

    /// Comes back to the job of that key that the client left without an answer, joins the newest that will do, or begins
    /// one for the client.
    ///
    /// # Errors
    /// [`Error::Crowded`] when there are too many, or too many of this client's.
    pub(super) fn enter(&self, key: Key, asking: &Asking<'_>) -> Result<Came, Error> {
        let Asking { payer: Payer { client, .. }, deadline, is_past, end, .. } = *asking;
        let now = self.clock.now();
        let mut table = self.table();
        let caller = |job: &Arc<Job>| Caller {
            jobs: self.clone(),
            job: Arc::clone(job),
            payer: asking.payer.clone(),
            proof: asking.proof.clone(),
            keep_going: asking.keep_going,
            is_answered: AtomicBool::new(false),
        };
        let is_young = |owed: &Owed| match asking.max_age {
            None => true,
            Some(max_age) => !max_age.is_zero() && self.clock.wall_ms().before(max_age) <= owed.as_of,
        };
        let owed = table.owed.remove(&(client.clone(), key.clone())).filter(|owed| now < owed.until && is_young(owed));
        if asking.max_age != Some(Duration::ZERO) {
            if let Some(owed) = owed {
                let Some(entry) = table.jobs.get_mut(&owed.job) else { return Ok(Came::Ended(owed.job)) };
                entry.job.come(asking.payer);
                entry.job.extend(deadline);
                return Ok(Came::Returned(caller(&entry.job)));
            }
            let newest = table.newest.get(&key).copied();
            if let Some(entry) = newest.and_then(|number| table.jobs.get_mut(&number))
                && (entry.job.is_past || !entry.job.sent.is_sent())
            {
                entry.job.come(asking.payer);
                entry.job.extend(deadline);
                return Ok(Came::Joined(caller(&entry.job)));
            }
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
            began: self.clock.wall_ms(),
            is_past,
            sent: Sent::default(),
            end,
            deadline: watch::Sender::new(deadline.min(end)),
            outcome: watch::Sender::new(None),
            sharers: watch::Sender::default(),
            stuck: watch::Sender::new(None),
            abandoned: CancellationToken::new(),
            handles: Mutex::default(),
        });
        job.come(asking.payer);
        table.newest.insert(key, job.number);
        let entry = Entry { job: Arc::clone(&job), by: client.clone(), promised: Vec::new() };
        table.jobs.insert(job.number, entry);
        drop(table);
        Ok(Came::Began(caller(&job), Runner { jobs: self.clone(), job }))
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

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

/// One who waits for a job. Leaves it when dropped.
#[derive(Debug)]
pub(super) struct Caller {
    jobs: Jobs,
    pub(super) job: Arc<Job>,
    payer: Payer,
    proof: Proof,
    keep_going: Duration,
    is_answered: AtomicBool,
}

impl Caller {
    /// Waits for the outcome, no longer than to the deadline.
    pub(super) async fn wait(&self, deadline: Instant) -> Option<Outcome> {
        let mut outcome = self.job.outcome.subscribe();
        let published = timeout_at(deadline, outcome.wait_for(Option::is_some)).await.ok()?;
        // The job is held here, so its sender lives.
        let outcome = published.ok()?.as_ref().map(|(_, outcome)| outcome.clone());
        self.is_answered.store(true, Ordering::Relaxed);
        outcome
    }

    /// Lets the job go on to its end without callers, as long as what let this one in is not withdrawn.
    pub(super) fn promise(&self) {
        if let Some(entry) = self.jobs.table().jobs.get_mut(&self.job.number) {
            entry.promise(Promise { proof: self.proof.clone(), by_handle: true, until: self.job.end });
        }
        self.job.extend(self.job.end);
    }

    /// It was told all that it wanted to know for now.
    pub(super) fn is_content(&self) {
        self.is_answered.store(true, Ordering::Relaxed);
    }

    /// Who leaves without an answer comes back for it. Not for a failure: then it is tried anew.
    fn is_owed(&self, table: &Table) -> bool {
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
            let is_last = table.jobs.get(&number).is_some_and(Entry::is_only_owed);
            if !is_last || table.has_room_for_owed(number) {
                let owed = Owed { job: number, as_of: self.job.began, until };
                table.owe((self.payer.client.clone(), self.job.key.clone()), owed, now);
                if let Some(entry) = table.jobs.get_mut(&number) {
                    entry.promise(Promise { proof: self.proof.clone(), by_handle: false, until });
                }
            }
        }
        table.abandon_if_unwanted(number, now);
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
        let failed = matches!(self.job.outcome(), Some((_, Err(_))));
        let mut table = self.jobs.table();
        if failed {
            table.owed.retain(|_, owed| owed.job != self.job.number);
        }
        table.remove(self.job.number);
    }
}
