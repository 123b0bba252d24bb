//! What jobs made, kept for a while: by handle for the client that was given it, by request for whoever asks the same.
//!
//! Invariants:
//! - A handle is 144 random bits and opens a result only to the client and app it was given to; to anybody else it does
//!   not exist. It can be used again and again until `handle_ttl` after it was given out, or after the result was
//!   there, whichever is later.
//! - A result is kept once, however many handles lead to it. All results together are bounded in bytes, with shares
//!   (the [`FairLru`]); handles and remembered requests in number: of those the least recently used go first.
//! - Expiry stands in the values and is judged by our clock; the caches only bound and evict.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use tokio::time::{Instant, sleep};

use super::error::Error;
use super::fair_lru::FairLru;
use super::job::{ClientHandle, Job, JobKey};
use super::jobs::Jobs;
use crate::kernel::clock::Clock;
use crate::kernel::names::{AppId, ClientName};
use crate::kernel::sync::lock;
use crate::kernel::task::{Kind, Tasks};
use crate::vendor::history::LOCATION;

/// Bytes of all kept results.
const MAX_RESULT_BYTES: usize = 128 << 20;

/// Handles given out and not expired.
const MAX_HANDLES: u64 = 100_000;

/// Requests whose result may be given again.
const MAX_ANSWERS: u64 = 10_000;

/// How long a result is given again to whoever asks the same. (Arrivals in a past window are rare, not impossible.)
const ANSWER_TTL: Duration = Duration::from_secs(60);

/// How often expired results are removed, while there are any.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// What is kept. Cheap to clone.
#[derive(Clone)]
pub(super) struct ResultCache {
    jobs: Jobs,
    results: Arc<Mutex<FairLru>>,
    handles: Cache<Arc<str>, HandleEntry>,
    answers: Cache<JobKey, RecentAnswer>,
    /// A task removes what has expired.
    is_swept: Arc<AtomicBool>,
}

#[derive(Clone)]
struct HandleEntry {
    client: ClientName,
    app: AppId,
    job: u64,
    given: Instant,
    ttl: Duration,
}

#[derive(Clone)]
struct RecentAnswer {
    job: u64,
    until: Instant,
}

impl ResultCache {
    pub(super) fn new(jobs: Jobs) -> Self {
        let lru = EvictionPolicy::lru;
        Self {
            jobs,
            results: Arc::new(Mutex::new(FairLru::new(MAX_RESULT_BYTES))),
            handles: Cache::builder().max_capacity(MAX_HANDLES).eviction_policy(lru()).build(),
            answers: Cache::builder().max_capacity(MAX_ANSWERS).eviction_policy(lru()).build(),
            is_swept: Arc::default(),
        }
    }

    /// Keeps a job of this client's whose outcome is published, so that handles lead to it. `again`: also for those who
    /// ask the same.
    pub(super) async fn keep(&self, job: &Arc<Job>, of: &ClientName, again: bool, now: Instant) {
        self.results().put(job, of);
        if again {
            self.answers.insert(job.key.clone(), RecentAnswer { job: job.number, until: now + ANSWER_TTL }).await;
        }
    }

    /// A kept job that answers this, and ended no longer ago than `max_age`.
    pub(super) async fn answer(&self, key: &JobKey, max_age: Option<Duration>, now: Instant) -> Option<Arc<Job>> {
        let remembered = self.answers.get(key).await.filter(|remembered| now < remembered.until)?;
        let job = self.of(remembered.job)?;
        let is_young = |max_age| job.outcome().is_some_and(|(at, _)| now.saturating_duration_since(at) <= max_age);
        max_age.is_none_or(is_young).then_some(job)
    }

    /// A kept job, by its number.
    pub(super) fn of(&self, number: u64) -> Option<Arc<Job>> {
        self.results().get(number)
    }

    fn results(&self) -> MutexGuard<'_, FairLru> {
        lock(&self.results)
    }

    /// The location by which a client gets this job's result: one for each client, renewed when given again. `is_owed`:
    /// the client asked before.
    pub(super) async fn location(
        &self,
        job: &Job,
        client: &ClientName,
        is_owed: bool,
        ttl: Duration,
        now: Instant,
    ) -> Result<String, Error> {
        let text = {
            let mut handles = lock(&job.handles);
            match handles.iter_mut().find(|handle| handle.client == *client) {
                Some(handle) => {
                    handle.is_owed |= is_owed;
                    Arc::clone(&handle.text)
                }
                None => {
                    let text = unguessable()?;
                    handles.push(ClientHandle { client: client.clone(), text: Arc::clone(&text), is_owed });
                    text
                }
            }
        };
        let location = format!("{LOCATION}{text}");
        let handle = HandleEntry { client: client.clone(), app: job.key.app.clone(), job: job.number, given: now, ttl };
        self.handles.insert(text, handle).await;
        Ok(location)
    }

    /// The job that a client's handle leads to.
    pub(super) async fn open(&self, app: &AppId, client: &ClientName, handle: &str, now: Instant) -> Option<Arc<Job>> {
        let handle = self.handles.get(handle).await?;
        if handle.app != *app || handle.client != *client {
            return None;
        }
        let job = match self.jobs.find(handle.job) {
            Some(job) => job,
            None => self.of(handle.job)?,
        };
        (now < handle.until(&job)).then_some(job)
    }

    /// Sees to it that expired results are removed until there are none: then no task is left, either.
    pub(super) fn keep_swept(&self, tasks: &Tasks, clock: &Clock) {
        if self.is_swept.swap(true, Ordering::AcqRel) {
            return;
        }
        let (cache, clock, stopping) = (self.clone(), clock.clone(), tasks.stopping());
        tasks.spawn(Kind::Retention, async move {
            while stopping.run_until_cancelled(sleep(SWEEP_INTERVAL)).await.is_some() {
                if cache.sweep(clock.now()).await {
                    cache.is_swept.store(false, Ordering::Release);
                    // One may have been kept just before that, and its job have found the flag still set.
                    if cache.is_empty() || cache.is_swept.swap(true, Ordering::AcqRel) {
                        return;
                    }
                }
            }
        });
    }

    /// Forgets what has expired. Says whether nothing is left.
    async fn sweep(&self, now: Instant) -> bool {
        let mut in_use = self.jobs.owed();
        for (text, handle) in &self.handles {
            let job = self.jobs.find(handle.job).or_else(|| self.results().peek(handle.job).cloned());
            if job.is_some_and(|job| now < handle.until(&job)) {
                in_use.insert(handle.job);
            } else {
                self.handles.invalidate(&*text).await;
            }
        }
        for (key, remembered) in &self.answers {
            if now >= remembered.until {
                self.answers.invalidate(&*key).await;
            }
        }
        // One that is new may be about to be given its first handle.
        let is_new = |job: &Job| job.outcome().is_some_and(|(at, _)| now < at + ANSWER_TTL);
        self.results().retain(|job| is_new(job) || in_use.contains(&job.number));
        self.handles.run_pending_tasks().await;
        self.answers.run_pending_tasks().await;
        self.is_empty()
    }

    /// Exact at once, unlike the caches' own counts.
    pub(super) fn is_empty(&self) -> bool {
        self.results().is_empty() && self.handles.iter().next().is_none() && self.answers.iter().next().is_none()
    }
}

impl HandleEntry {
    fn until(&self, job: &Job) -> Instant {
        match job.outcome() {
            Some((at, _)) => self.given.max(at) + self.ttl,
            None => self.given.max(job.end) + self.ttl,
        }
    }
}

fn unguessable() -> Result<Arc<str>, Error> {
    let mut random = [0; 18];
    getrandom::fill(&mut random).map_err(|why| {
        tracing::error!(%why, "no random bits for a handle");
        Error::Crowded
    })?;
    Ok(URL_SAFE_NO_PAD.encode(random).into())
}
