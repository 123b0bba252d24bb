//! The store as the library sees it here: it takes its time, fails or hangs when it is told to, and a mutant changes what
//! is written through it.

use std::borrow::Cow;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::mutants::Mutant;
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::SubscriptionName;
use crate::kernel::sync::lock;
use crate::kernel::testing::pass;
use crate::store::{
    Batch, Commit, Error, LogKey, LogState, NoteKind, PlaceChange, QuarantineEntry, Sequence, Space, Store,
};
use std::sync::{Arc, Mutex};

/// What writes meet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    /// Most milliseconds until a write is there, and from then until it is answered.
    pub(super) slow: (u64, u64),
    pub(super) trouble: Trouble,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Trouble {
    #[default]
    None,
    /// Writes of places fail, before they are there or after.
    Fails { after: bool },
    /// Writes never come to an end, before they are there or after.
    Hangs { after: bool },
}

pub(super) struct Seam {
    inner: Arc<dyn Store>,
    /// Whether it works on a disk.
    is_real: bool,
    weather: Mutex<Weather>,
    random: Mutex<StdRng>,
    mutant: Option<Mutant>,
    /// Of [`Mutant::LastCommitIsLost`]: answered and not there.
    late: Mutex<Vec<(LogKey, Commit)>>,
    /// Of [`Mutant::StopStoresNothing`].
    stops: Mutex<bool>,
}

impl Seam {
    pub(super) fn new((inner, is_real): (Arc<dyn Store>, bool), mutant: Option<Mutant>, seed: u64) -> Self {
        let random = Mutex::new(StdRng::seed_from_u64(seed));
        let (weather, late, stops) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { inner, is_real, weather, random, mutant, late, stops }
    }

    pub(super) fn set(&self, weather: Weather) {
        *lock(&self.weather) = weather;
    }

    /// The process stops in order.
    pub(super) fn stops(&self) {
        *lock(&self.stops) = true;
    }

    /// What takes time in truth takes none here: the paused clock stands still until it is answered.
    async fn at_once<T>(&self, work: impl Future<Output = T>) -> T {
        if !self.is_real {
            return work.await;
        }
        let (over, is_over) = std::sync::mpsc::channel::<()>();
        crate::kernel::task::detached(move || {
            let _ = is_over.recv();
        });
        let done = work.await;
        drop(over);
        done
    }

    /// Lets others go on, or not.
    async fn hesitate(&self) {
        let turns = lock(&self.random).random_range(0..3);
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }

    async fn pause(&self, most: u64) {
        let pause = if most == 0 { 0 } else { lock(&self.random).random_range(0..=most) };
        if pause > 0 {
            pass(Duration::from_millis(pause)).await;
        }
    }

    /// What is written instead of what was to be.
    async fn mutated(&self, mut all: Vec<(LogKey, Commit)>) -> Vec<(LogKey, Commit)> {
        let Some(mutant) = self.mutant else { return all };
        for (log, together) in &mut all {
            let mut kept = Vec::new();
            for change in std::mem::take(&mut together.places) {
                if let (Mutant::RemovalLeavesLetters, PlaceChange::Removed(name)) = (mutant, &change) {
                    let notes = self.inner.notes(log, NoteKind::DeadLetter, &format!("{name}/"), "", 1000).await;
                    kept.push(change);
                    let notes = notes.unwrap_or_default().into_iter();
                    kept.extend(notes.map(|(name, note)| PlaceChange::Note(NoteKind::DeadLetter, name, Some(note))));
                    continue;
                }
                kept.extend(mutant.written(change));
            }
            together.places = kept;
        }
        match mutant {
            Mutant::StopStoresNothing if *lock(&self.stops) => {
                all.iter_mut().for_each(|(_, together)| together.places.clear());
            }
            Mutant::LastCommitIsLost => {
                let mut late = lock(&self.late);
                let mut now = std::mem::take(&mut *late);
                let is_letter = |change: &PlaceChange| matches!(change, PlaceChange::Note(NoteKind::DeadLetter, ..));
                for (log, together) in all.iter_mut().filter(|(_, all)| !all.places.iter().any(is_letter)) {
                    let places = std::mem::take(&mut together.places);
                    late.push((log.clone(), Commit { places, ..Commit::default() }));
                }
                now.append(&mut all);
                // The answers are those of what was asked for last.
                return now;
            }
            _ => {}
        }
        all
    }
}

#[async_trait]
impl Store for Seam {
    fn epoch(&self) -> u64 {
        self.inner.epoch()
    }

    fn last_clean_stop(&self) -> Option<UnixMillis> {
        self.inner.last_clean_stop()
    }

    fn is_new(&self) -> bool {
        self.inner.is_new()
    }

    async fn log_state(&self, log: &LogKey) -> Result<LogState, Error> {
        self.at_once(self.inner.log_state(log)).await
    }

    async fn commit_all(&self, all: Vec<(LogKey, Commit)>) -> Result<Vec<Vec<Arc<Batch>>>, Error> {
        let Weather { slow, trouble } = *lock(&self.weather);
        let only_places = all.iter().all(|(_, all)| all.batches.is_empty() && all.quarantined.is_none());
        let failure = || Err(Error::Io("by order of the test".into()));
        self.hesitate().await;
        self.pause(slow.0).await;
        match trouble {
            Trouble::Fails { after: false } if only_places => return failure(),
            Trouble::Hangs { after: false } => std::future::pending().await,
            _ => {}
        }
        let asked = all.len();
        let mut stored = self.at_once(async { self.inner.commit_all(self.mutated(all).await).await }).await?;
        let stored = stored.split_off(stored.len().saturating_sub(asked));
        self.hesitate().await;
        match trouble {
            Trouble::Fails { after: true } if only_places => return failure(),
            Trouble::Hangs { after: true } => std::future::pending().await,
            _ => {}
        }
        self.pause(slow.1).await;
        Ok(stored)
    }

    async fn read(&self, log: &LogKey, after: Sequence, entries: usize) -> Result<Vec<Arc<Batch>>, Error> {
        self.hesitate().await;
        self.at_once(self.inner.read(log, after, entries)).await
    }

    async fn first_since(&self, log: &LogKey, time: UnixMillis) -> Result<Sequence, Error> {
        self.at_once(self.inner.first_since(log, time)).await
    }

    async fn trim(&self, log: &LogKey, older_than: UnixMillis, keep_bytes: u64) -> Result<LogState, Error> {
        self.hesitate().await;
        self.at_once(self.inner.trim(log, older_than, keep_bytes)).await
    }

    async fn cursors(&self, log: &LogKey) -> Result<Vec<(SubscriptionName, Sequence)>, Error> {
        self.at_once(self.inner.cursors(log)).await
    }

    async fn rename_subscription(
        &self,
        log: &LogKey,
        from: &SubscriptionName,
        to: &SubscriptionName,
    ) -> Result<(), Error> {
        self.at_once(self.inner.rename_subscription(log, from, to)).await
    }

    async fn notes(
        &self,
        log: &LogKey,
        kind: NoteKind,
        prefix: &str,
        after: &str,
        most: usize,
    ) -> Result<Vec<(String, Bytes)>, Error> {
        self.hesitate().await;
        self.at_once(self.inner.notes(log, kind, prefix, after, most)).await
    }

    async fn quarantined(&self, log: &LogKey, before: u64, most: usize) -> Result<Vec<QuarantineEntry>, Error> {
        self.at_once(self.inner.quarantined(log, before, most)).await
    }

    async fn quarantined_body(&self, log: &LogKey, id: u64) -> Result<Option<(QuarantineEntry, Vec<Bytes>)>, Error> {
        self.at_once(self.inner.quarantined_body(log, id)).await
    }

    async fn fact(&self, name: &'static str) -> Result<Option<u64>, Error> {
        self.at_once(self.inner.fact(name)).await
    }

    async fn facts(&self, prefix: &'static str) -> Result<Vec<(String, u64)>, Error> {
        self.at_once(self.inner.facts(prefix)).await
    }

    async fn change_facts(&self, facts: Vec<(Cow<'static, str>, Option<u64>)>) -> Result<(), Error> {
        self.hesitate().await;
        self.at_once(self.inner.change_facts(facts)).await
    }

    async fn ready(&self) -> Result<(), Error> {
        self.at_once(self.inner.ready()).await
    }

    async fn space(&self) -> Result<Space, Error> {
        self.at_once(self.inner.space()).await
    }

    async fn backup(&self) -> Result<std::fs::File, Error> {
        self.at_once(self.inner.backup()).await
    }

    async fn close(&self, now: UnixMillis) -> Result<(), Error> {
        let late = std::mem::take(&mut *lock(&self.late));
        self.inner.commit_all(late).await?;
        self.at_once(self.inner.close(now)).await
    }
}
