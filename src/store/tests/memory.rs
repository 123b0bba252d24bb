//! A store in memory for tests: keeps the contract, counts, and fails or delays on command. It must pass the suite that
//! the real engine passes: a test that believes it would prove nothing otherwise.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::conformance::{Home, conformance};
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::SubscriptionName;
use crate::kernel::sync::lock;
use crate::kernel::testing::pass;
use crate::store::{
    Batch, Commit, Content, Error, LogKey, LogState, NewBatch, NoteKind, PlaceChange, QuarantineEntry,
    QuarantineRecord, Sequence, Space, Store, UnreadableResponse,
};

#[derive(Default)]
pub(crate) struct MemoryStore {
    logs: Mutex<HashMap<LogKey, MemoryLog>>,
    /// Appends and quarantine fail.
    pub(crate) broken: AtomicBool,
    /// Writes are there, and fail all the same.
    pub(crate) unsure: AtomicBool,
    /// `ready` fails.
    pub(crate) unready: AtomicBool,
    /// How long each append and save takes, in milliseconds.
    pub(crate) delay: AtomicU64,
    /// How long an append takes to say that it is done, in milliseconds.
    pub(crate) ack_delay: AtomicU64,
    pub(crate) reads: AtomicUsize,
    pub(crate) saves: AtomicUsize,
    pub(crate) commits: AtomicUsize,
    /// What `is_new` and `last_clean_stop` say.
    pub(crate) is_old: bool,
    pub(crate) clean_stop: Option<UnixMillis>,
    /// When it was closed, if it was.
    closed: Mutex<Option<UnixMillis>>,
    facts: Mutex<HashMap<Cow<'static, str>, u64>>,
}

#[derive(Default)]
struct MemoryLog {
    batches: Vec<Arc<Batch>>,
    last: u64,
    cursors: HashMap<SubscriptionName, Sequence>,
    /// By their numbers, which are not used again.
    quarantine: BTreeMap<u64, QuarantineRecord>,
    last_quarantined: u64,
    notes: BTreeMap<(NoteKind, String), Bytes>,
}

impl MemoryLog {
    fn state(&self) -> LogState {
        let next = Sequence(self.last + 1);
        LogState { earliest: self.batches.first().map_or(next, |b| b.first), next, bytes: self.bytes() }
    }

    fn append(&mut self, new: NewBatch) -> Arc<Batch> {
        let NewBatch { received_at, region, content } = new;
        let batch = Arc::new(Batch { first: Sequence(self.last + 1), received_at, region, content });
        self.last = batch.last().0;
        self.batches.push(Arc::clone(&batch));
        batch
    }

    fn keep(&mut self, kind: NoteKind, notes: Vec<(String, Option<Bytes>)>) {
        for (name, note) in notes {
            match note {
                Some(note) => self.notes.insert((kind, name), note),
                None => self.notes.remove(&(kind, name)),
            };
        }
    }

    fn store(&mut self, all: Commit) -> Vec<Arc<Batch>> {
        let Commit { batches, notes, places, quarantined, redelivered } = all;
        if let Some((kind, notes)) = notes {
            self.keep(kind, notes);
        }
        places.into_iter().for_each(|change| self.change(change));
        if let Some(kept) = quarantined {
            self.last_quarantined += 1;
            self.quarantine.insert(self.last_quarantined, kept);
        }
        if let Some((id, delivered)) = redelivered {
            self.quarantine.get_mut(&id).unwrap().delivered = delivered;
        }
        batches.into_iter().map(|new| self.append(new)).collect()
    }

    fn change(&mut self, change: PlaceChange) {
        match change {
            PlaceChange::Cursor(name, at) => drop(self.cursors.insert(name, at)),
            PlaceChange::Note(kind, name, note) => self.keep(kind, vec![(name, note)]),
            PlaceChange::Removed(of) => {
                self.cursors.remove(&of);
                let is_on = |name: &str| {
                    name.strip_prefix(of.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                };
                self.notes.retain(|(kind, name), _| !NoteKind::of_subscriptions().contains(kind) || !is_on(name));
            }
        }
    }

    fn rename(&mut self, from: &SubscriptionName, to: &SubscriptionName) {
        let Some(at) = self.cursors.remove(from) else { return };
        self.cursors.insert(to.clone(), at);
        for (kind, name) in self.notes.keys().cloned().collect::<Vec<_>>() {
            let rest = name.strip_prefix(from.as_str()).filter(|rest| rest.is_empty() || rest.starts_with('/'));
            if let Some(rest) = rest.filter(|_| NoteKind::of_subscriptions().contains(&kind)) {
                let renamed = (kind, format!("{to}{rest}"));
                let note = self.notes.remove(&(kind, name)).unwrap();
                self.notes.insert(renamed, note);
            }
        }
    }

    fn bytes(&self) -> u64 {
        self.batches.iter().map(|batch| bytes(batch)).sum()
    }
}

fn entry(id: u64, kept: &QuarantineRecord) -> QuarantineEntry {
    let QuarantineRecord { response: UnreadableResponse { received_at, region, why, body }, delivered } = kept.clone();
    QuarantineEntry { id, received_at, region, why, bytes: body.len() as u64, delivered }
}

fn bytes(batch: &Batch) -> u64 {
    match &batch.content {
        Content::Events(events) => events.text().len() as u64,
        Content::PossibleLoss(reason) => reason.len() as u64,
        Content::Damaged(_) => 0,
    }
}

async fn pause(millis: &AtomicU64) {
    match millis.load(Ordering::Relaxed) {
        0 => {}
        millis => pass(Duration::from_millis(millis)).await,
    }
}

impl MemoryStore {
    /// The same contents, opened by another run.
    pub(crate) fn reopened(&self, clean_stop: Option<UnixMillis>) -> Self {
        let logs = std::mem::take(&mut *lock(&self.logs));
        let facts = std::mem::take(&mut *lock(&self.facts));
        let (logs, facts) = (Mutex::new(logs), Mutex::new(facts));
        Self { logs, facts, is_old: true, clean_stop, ..Self::default() }
    }

    fn with<T>(&self, log: &LogKey, work: impl FnOnce(&mut MemoryLog) -> T) -> T {
        work(lock(&self.logs).entry(log.clone()).or_default())
    }

    fn open_or_closed(&self) -> Result<(), Error> {
        if lock(&self.closed).is_some() { Err(Error::Closed) } else { Ok(()) }
    }

    async fn write(&self) -> Result<(), Error> {
        self.open_or_closed()?;
        pause(&self.delay).await;
        if self.broken.load(Ordering::Relaxed) { Err(Error::Full("test".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn epoch(&self) -> u64 {
        77
    }

    fn last_clean_stop(&self) -> Option<UnixMillis> {
        self.clean_stop
    }

    fn is_new(&self) -> bool {
        !self.is_old
    }

    async fn log_state(&self, log: &LogKey) -> Result<LogState, Error> {
        Ok(self.with(log, |log| log.state()))
    }

    async fn commit_all(&self, all: Vec<(LogKey, Commit)>) -> Result<Vec<Vec<Arc<Batch>>>, Error> {
        // What was only said of subscriptions is counted for itself, and held up by nothing after it is there.
        let is_of_places = |all: &Commit| Commit { places: Vec::new(), ..all.clone() }.is_empty();
        let only_places = all.iter().all(|(_, all)| is_of_places(all));
        let counted = if only_places { &self.saves } else { &self.commits };
        counted.fetch_add(1, Ordering::Relaxed);
        self.write().await?;
        let store = |(log, all)| self.with(&log, |log| log.store(all));
        let stored = all.into_iter().map(store).collect();
        if self.unsure.load(Ordering::Relaxed) {
            return Err(Error::Io("test".into()));
        }
        if !only_places {
            pause(&self.ack_delay).await;
        }
        Ok(stored)
    }

    async fn read(&self, log: &LogKey, after: Sequence, entries: usize) -> Result<Vec<Arc<Batch>>, Error> {
        self.open_or_closed()?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        Ok(self.with(log, |log| {
            let mut found = Vec::new();
            let mut covered = 0;
            for batch in log.batches.iter().filter(|batch| batch.last() > after) {
                if covered >= entries as u64 {
                    break;
                }
                covered += batch.last().0 - after.0.max(batch.first.0 - 1);
                found.push(Arc::clone(batch));
            }
            found
        }))
    }

    async fn first_since(&self, log: &LogKey, time: UnixMillis) -> Result<Sequence, Error> {
        Ok(self.with(log, |log| {
            let first = log.batches.iter().find(|batch| batch.received_at >= time);
            first.map_or(Sequence(log.last + 1), |batch| batch.first)
        }))
    }

    async fn trim(&self, log: &LogKey, older_than: UnixMillis, keep_bytes: u64) -> Result<LogState, Error> {
        Ok(self.with(log, |log| {
            while log.batches.first().is_some_and(|b| b.received_at < older_than || log.bytes() > keep_bytes) {
                log.batches.remove(0);
            }
            while log.quarantine.first_entry().is_some_and(|first| first.get().response.received_at < older_than) {
                log.quarantine.pop_first();
            }
            log.state()
        }))
    }

    async fn cursors(&self, log: &LogKey) -> Result<Vec<(SubscriptionName, Sequence)>, Error> {
        Ok(self.with(log, |log| log.cursors.clone().into_iter().collect()))
    }

    async fn rename_subscription(
        &self,
        log: &LogKey,
        from: &SubscriptionName,
        to: &SubscriptionName,
    ) -> Result<(), Error> {
        self.write().await?;
        self.with(log, |log| log.rename(from, to));
        Ok(())
    }

    async fn notes(
        &self,
        log: &LogKey,
        kind: NoteKind,
        prefix: &str,
        after: &str,
        most: usize,
    ) -> Result<Vec<(String, Bytes)>, Error> {
        Ok(self.with(log, |log| {
            let of_kind = log.notes.iter().filter(|((of, name), _)| *of == kind && name.starts_with(prefix));
            let wanted = of_kind.filter(|((_, name), _)| name.as_str() > after).take(most);
            wanted.map(|((_, name), note)| (name.clone(), note.clone())).collect()
        }))
    }

    async fn quarantined(&self, log: &LogKey, before: u64, most: usize) -> Result<Vec<QuarantineEntry>, Error> {
        Ok(self.with(log, |log| {
            log.quarantine.range(..before).rev().take(most).map(|(id, kept)| entry(*id, kept)).collect()
        }))
    }

    async fn quarantined_body(&self, log: &LogKey, id: u64) -> Result<Option<(QuarantineEntry, Vec<Bytes>)>, Error> {
        Ok(self.with(log, |log| {
            let kept = log.quarantine.get(&id)?;
            Some((entry(id, kept), vec![kept.response.body.clone()]))
        }))
    }

    async fn fact(&self, name: &'static str) -> Result<Option<u64>, Error> {
        Ok(lock(&self.facts).get(name).copied())
    }

    async fn facts(&self, prefix: &'static str) -> Result<Vec<(String, u64)>, Error> {
        let facts = lock(&self.facts);
        let found = facts.iter().filter(|(name, _)| name.starts_with(prefix));
        Ok(found.map(|(name, number)| (name.to_string(), *number)).collect())
    }

    async fn change_facts(&self, facts: Vec<(Cow<'static, str>, Option<u64>)>) -> Result<(), Error> {
        self.write().await?;
        let mut kept = lock(&self.facts);
        for (name, number) in facts {
            match number {
                Some(number) => kept.insert(name, number),
                None => kept.remove(&name),
            };
        }
        Ok(())
    }

    async fn ready(&self) -> Result<(), Error> {
        self.open_or_closed()?;
        if self.unready.load(Ordering::Relaxed) { Err(Error::Full("test".into())) } else { Ok(()) }
    }

    async fn space(&self) -> Result<Space, Error> {
        self.open_or_closed()?;
        Ok(Space { free: u64::MAX, ..Space::default() })
    }

    async fn backup(&self) -> Result<std::fs::File, Error> {
        Err(Error::Io("there is no file".into()))
    }

    async fn close(&self, now: UnixMillis) -> Result<(), Error> {
        self.open_or_closed()?;
        *lock(&self.closed) = Some(now);
        Ok(())
    }
}

/// Where a store in memory lives while nobody has it open.
#[derive(Default)]
struct MemoryHome(Mutex<Option<Arc<MemoryStore>>>);

impl Home for MemoryHome {
    async fn open(&self) -> Arc<dyn Store> {
        let mut last = lock(&self.0);
        let opened = match last.as_deref() {
            None => MemoryStore::default(),
            Some(left) => left.reopened(lock(&left.closed).take()),
        };
        last.insert(Arc::new(opened)).clone()
    }

    async fn leave(&self, store: Arc<dyn Store>) {
        drop(store);
    }
}

conformance!(MemoryHome::default());
