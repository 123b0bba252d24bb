//! The [`Judge`]: which events filters admit: found once, remembered, a little at a time, the clients in turn.
//!
//! Why: a filter may have 64 patterns, and a reader that comes from far behind has its filter held against all that is
//! kept. Many such readers of one client must not keep others from being served.
//!
//! Invariants:
//! - At most one reader judges at a moment, and for at most [`STEP`] before it lets the next client go. Those who wait
//!   hold nothing but their place. So judging takes one thread at most, and no other work waits for more than a step of
//!   it.
//! - What an event says is parsed once, whatever the filters; and an event is held against a filter once, whoever asks,
//!   as long as it is remembered. Equal filters are one. Nothing of this outlives its bound: [`MAX_SAID`],
//!   [`MAX_VERDICTS`], [`MAX_FILTERS`].
//! - What filters make readers get from the store, beyond what is in memory, they get one at a time too, in turns of
//!   its own.
//!
//! Events are judged in chunks of up to 64, those of a batch from its beginning on: a chunk's verdict is a word.

mod recent;
mod turns;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use self::recent::Recent;
use self::turns::{Turn, Turns};
use crate::events::Filter;
use crate::kernel::names::ClientName;
use crate::kernel::sync::lock;
use crate::store::{EventText, Sequence};
use crate::vendor::events::{Facts, facts};

/// Judges events for all readers of all logs.
#[derive(Debug)]
pub(in crate::events) struct Judge {
    judging: Arc<Turns>,
    fetching: Arc<Turns>,
    filters: Mutex<Recent<Arc<Filter>, u64>>,
    said: Mutex<Recent<(u64, Sequence), Arc<Said>>>,
    verdicts: Mutex<Recent<(u64, Sequence, u64), Verdict>>,
    next: AtomicU64,
    parsed: AtomicU64,
    judged: AtomicU64,
}

/// One read's filter, held against the events of a log.
#[derive(Debug)]
pub(in crate::events) struct Judging<'a> {
    judge: &'a Judge,
    log: u64,
    filter: &'a Filter,
    filter_id: u64,
    client: &'a ClientName,
    turn: Option<Turn>,
    spent: usize,
}

/// What the events of a chunk say.
#[derive(Debug, Default)]
struct Said {
    text: String,
    /// Where a kind, a user and a group end, of each event.
    ends: Vec<[u32; 3]>,
}

/// Which events of a chunk a filter admits.
#[derive(Clone, Copy, Debug, Default)]
struct Verdict {
    bits: u64,
    /// How many were judged.
    of: usize,
}

impl Default for Judge {
    fn default() -> Self {
        Self {
            judging: Arc::default(),
            fetching: Arc::default(),
            filters: Mutex::new(Recent::new(MAX_FILTERS)),
            said: Mutex::new(Recent::new(MAX_SAID)),
            verdicts: Mutex::new(Recent::new(MAX_VERDICTS)),
            next: AtomicU64::default(),
            parsed: AtomicU64::default(),
            judged: AtomicU64::default(),
        }
    }
}

impl Judge {
    /// A number for a log, or a filter, that no other has.
    pub(in crate::events) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Holds a filter against events of a log, on a client's account.
    pub(in crate::events) fn hold<'a>(
        &'a self,
        log: u64,
        filter: &'a Arc<Filter>,
        client: &'a ClientName,
    ) -> Judging<'a> {
        let filter_id = {
            let mut filters = lock(&self.filters);
            filters.get(filter).unwrap_or_else(|| {
                let id = self.number();
                filters.put(Arc::clone(filter), id, filter.weight());
                id
            })
        };
        Judging { judge: self, log, filter, filter_id, client, turn: None, spent: 0 }
    }

    /// A turn to get from the store what a filter is to be held against.
    pub(in crate::events) async fn fetching(&self, client: &ClientName) -> Turn {
        self.fetching.turn(client).await
    }

    /// What the events of a chunk say, and what finding it out has cost.
    fn said(&self, log: u64, first: Sequence, events: &EventText, chunk: usize) -> (Arc<Said>, usize) {
        if let Some(said) = lock(&self.said).get(&(log, first)) {
            return (said, 0);
        }
        let (mut said, mut cost) = (Said::default(), 0);
        for index in chunk_of(events, chunk) {
            let event = events.slice(index..index + 1);
            cost += PARSING + event.len() / 2;
            said.push(&facts(&event));
        }
        self.parsed.fetch_add(said.ends.len() as u64, Ordering::Relaxed);
        let said = Arc::new(said);
        lock(&self.said).put((log, first), Arc::clone(&said), said.weight());
        (said, cost)
    }

    /// Events parsed, pairs of an event and a filter judged, and turns given for it.
    #[cfg(test)]
    pub(in crate::events) fn work(&self) -> (u64, u64, u64) {
        (self.parsed.load(Ordering::Relaxed), self.judged.load(Ordering::Relaxed), self.judging.given())
    }
}

impl Judging<'_> {
    /// Which of a chunk's events are admitted: the lowest bit is the first's. The batch begins at `first`.
    pub(in crate::events) async fn chunk(&mut self, first: Sequence, events: &EventText, chunk: usize) -> u64 {
        let first = first.plus((chunk * CHUNK) as u64);
        let key = (self.log, first, self.filter_id);
        let all = chunk_of(events, chunk).len();
        loop {
            let known = lock(&self.judge.verdicts).get(&key).unwrap_or_default();
            if known.of == all {
                return known.bits;
            }
            if self.turn.is_none() {
                // Meanwhile another may have judged it.
                self.turn = Some(self.judge.judging.turn(self.client).await);
                continue;
            }
            // Only within a turn, so no two readers parse the same events at once.
            let (said, cost) = self.judge.said(self.log, first, events, chunk);
            self.spent += cost;
            let verdict = self.judge(&said, known);
            lock(&self.judge.verdicts).put(key, verdict, size_of::<((u64, Sequence, u64), Verdict, usize)>());
            if self.spent >= STEP {
                // Only then it lets go, and stands in line again at once.
                tokio::task::yield_now().await;
                (self.turn, self.spent) = (None, 0);
            }
        }
    }

    /// Goes on with a verdict, as far as this step goes.
    fn judge(&mut self, said: &Said, mut verdict: Verdict) -> Verdict {
        let before = verdict.of;
        while verdict.of < said.ends.len() && (self.spent < STEP || verdict.of == before) {
            let facts = said.facts(verdict.of);
            self.spent += self.filter.cost(&facts);
            verdict.bits |= u64::from(self.filter.admits_what_says(&facts)) << verdict.of;
            verdict.of += 1;
        }
        self.judge.judged.fetch_add((verdict.of - before) as u64, Ordering::Relaxed);
        verdict
    }
}

impl Said {
    fn push(&mut self, facts: &Facts<'_>) {
        let ends = [&facts.kind, &facts.user_id, &facts.group_id].map(|member| {
            self.text.push_str(member.as_deref().unwrap_or_default());
            // A chunk's text is part of a batch's, which is below 4 GiB.
            u32::try_from(self.text.len()).unwrap_or(u32::MAX)
        });
        self.ends.push(ends);
    }

    /// What an event says. To a filter a member that is missing is an empty one.
    fn facts(&self, index: usize) -> Facts<'_> {
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before][2]);
        let [kind, user, group] = self.ends[index];
        let member = |from: u32, to: u32| self.text.get(from as usize..to as usize).map(Into::into);
        Facts { kind: member(begin, kind), user_id: member(kind, user), group_id: member(user, group), ms: None }
    }

    fn weight(&self) -> usize {
        size_of::<Self>() + self.text.capacity() + self.ends.capacity() * size_of::<[u32; 3]>() + 64
    }
}

/// The events of a chunk.
fn chunk_of(events: &EventText, chunk: usize) -> std::ops::Range<usize> {
    chunk * CHUNK..events.len().min((chunk + 1) * CHUNK)
}

/// Events that are judged together: as many as a word has bits.
pub(in crate::events) const CHUNK: usize = 64;

/// What is done in one turn, in steps of some ten nanoseconds; see [`Filter::cost`].
const STEP: usize = 20_000;

/// What parsing costs beside what it costs for each byte.
const PARSING: usize = 20;

/// Bytes of what events say.
const MAX_SAID: usize = 16 << 20;
/// Bytes of verdicts: some 250,000 chunks.
const MAX_VERDICTS: usize = 16 << 20;
/// Bytes of filters.
const MAX_FILTERS: usize = 4 << 20;
