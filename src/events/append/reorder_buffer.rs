//! [`ReorderBuffer`]: what the regions returned and what has not yet its place in the log, because earlier events of
//! other regions may still come (`order_window`).
//!
//! An entry's *time* is its event's `ms`. One without (a marker, an event that does not say, or says a time that this
//! machine's clock has not reached) has the time of the entry that its region returned before it. A batch waits for the
//! window's length after it came, whatever else comes or does not. Then all of it goes into the log, and before it, in
//! order of their times, the entries of other batches that are not later. An entry that comes with a time before one
//! that is in the log already is *late*: it goes into the log at once.
//!
//! What waits is kept beside the log, as [`notes`], before its poller reads again; and with it a *mark*: how many
//! entries of each such batch, in order of time, the log has; the log's end; and the same from before.
//!
//! Invariants: entries go into the log in the same commit as the mark that counts them, and a batch's note is removed
//! only by a later commit. An engine that failed may undo a commit's entries and keep its notes: then the log is
//! shorter than the mark says, and the mark's state from before counts. So at every instant each entry is either in the
//! log or will be moved there from its note: never both, never neither. Looking ([`ReorderBuffer::take_in`],
//! [`ReorderBuffer::due`]) changes nothing; [`ReorderBuffer::done`] follows the commit. Entries that were not late
//! stand in the log in order of their times. Memory is bounded: beyond [`MAX_BYTES`] the oldest batches are due at
//! once.

mod buffered_batch;
mod notes;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use self::buffered_batch::{BufferedBatch, merge, own_time};
use self::notes::{BATCHES, MARK, Mark, Progress, decode, encode, note_name};
use crate::events::log::Log;
use crate::kernel::names::RegionName;
use crate::store::{Content, Error, NewBatch, NoteKind, Notes, Sequence};

/// The text that waits in memory, at most, but for what one read of each region brings.
const MAX_BYTES: usize = 16 << 20;

/// What waits before one log.
#[derive(Debug)]
pub(super) struct ReorderBuffer {
    window: Duration,
    /// By number, so in the order they came.
    batches: BTreeMap<u64, BufferedBatch>,
    /// Batches that are in the log whole; their notes go with the next commit.
    spent: Vec<u64>,
    /// The number of the next batch.
    next: u64,
    /// How many numbers from there on a commit that failed may have kept notes under.
    tried: u64,
    /// The latest time in the log.
    high: u64,
    /// The time of the last entry that each region returned.
    last_times: BTreeMap<RegionName, u64>,
    /// Of the batches, about.
    bytes: usize,
}

/// A commit: what goes into the log, what is kept beside it, and what is so when it has succeeded.
#[derive(Debug)]
pub(super) struct ReorderPlan {
    pub(super) batches: Vec<NewBatch>,
    pub(super) notes: Notes,
    /// How many events are late.
    pub(super) late: u64,
    /// How many entries of batches that waited the log has then.
    taken: BTreeMap<u64, usize>,
    /// The latest time in the log then.
    high: u64,
    newcomers: Vec<Newcomer>,
}

/// A batch that comes with a commit.
#[derive(Debug)]
struct Newcomer {
    batch: BufferedBatch,
    /// The time that what its region returns next goes by.
    last_time: u64,
}

impl ReorderBuffer {
    /// Nothing waits, and nothing ever did.
    pub(super) fn new(window: Duration) -> Self {
        Self::with_progress(window, 0, 0)
    }

    /// Takes up what waits by the store. `None` when nothing ever did.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn recall(log: &Log, window: Duration, now: Instant) -> Result<Option<Self>, Error> {
        let notes = |prefix| log.store().notes(log.key(), NoteKind::Waiting, prefix, "", usize::MAX);
        let (batches, mark) = (notes(BATCHES).await?, notes(MARK).await?);
        let mark: Option<&Bytes> = mark.first().map(|(_, mark)| mark);
        let end = log.store().log_state(log.key()).await?.next;
        let is_new = batches.is_empty() && mark.is_none();
        Ok((!is_new).then(|| Self::of_notes(window, &batches, mark, end, now)))
    }

    /// What waits by these notes, before a log whose next entry has the number `end`. What waited before waits again
    /// for a whole window: so long may the other regions need.
    fn of_notes(
        window: Duration,
        batches: &[(String, Bytes)],
        mark: Option<&Bytes>,
        end: Sequence,
        now: Instant,
    ) -> Self {
        let mark = mark.and_then(|mark| {
            let tell = |error: &serde_json::Error| {
                tracing::error!(%error, "it is not known which of the waiting events had their turn");
            };
            // Without it entries may come twice, but none is lost.
            serde_json::from_slice::<Mark>(mark).inspect_err(tell).ok()
        });
        let (next, progress) = match mark {
            Some(mark) if mark.end <= end.0 => (mark.next, mark.now),
            Some(mark) => (mark.next, mark.before),
            None => (0, Progress::default()),
        };
        let mut waiting = Self::with_progress(window, next, progress.high);
        let taken = BTreeMap::from_iter(progress.taken);
        for (name, note) in batches {
            let number = name.strip_prefix(BATCHES).and_then(|number| u64::from_str_radix(number, 16).ok());
            let Some((number, (batch, before))) = number.zip(decode(note)) else {
                tracing::error!(name, "a batch that waits cannot be read; it stays where it is");
                continue;
            };
            waiting.next = waiting.next.max(number + 1);
            let mut batch = BufferedBatch::new(batch, before, now + window);
            batch.taken = taken.get(&number).copied().unwrap_or_default();
            if batch.is_spent() {
                waiting.spent.push(number);
                continue;
            }
            waiting.last_times.insert(batch.batch.region.clone(), batch.last());
            waiting.bytes += batch.bytes();
            waiting.batches.insert(number, batch);
        }
        waiting
    }

    fn with_progress(window: Duration, next: u64, high: u64) -> Self {
        let (batches, spent, last_times) = Default::default();
        Self { window, batches, spent, next, tried: 0, high, last_times, bytes: 0 }
    }

    /// Changes the window for what comes from now on.
    pub(super) fn set_window(&mut self, window: Duration) {
        self.window = window;
    }

    /// How what one read brought is stored: what of it is late goes into the log, which ends before `end`, and the rest
    /// waits. A marker stands behind all events of its read.
    pub(super) fn take_in(&mut self, read: &[NewBatch], end: Sequence, now: Instant) -> ReorderPlan {
        let (mut newcomers, mut turns, mut late) = (Vec::<Newcomer>::with_capacity(read.len()), Vec::new(), 0);
        let mut latest = 0;
        for new in read {
            let known = newcomers.last().map(|before| before.last_time);
            let known = known.or_else(|| self.last_times.get(&new.region).copied());
            let before = known.unwrap_or(self.high);
            let is_events = matches!(new.content, Content::Events(_));
            let time = if is_events { before } else { before.max(latest) };
            let mut batch = BufferedBatch::new(new.clone(), time, now + self.window);
            // By time and not by arrival: entries earlier than the log's latest can stand in order nowhere any more,
            // and to let them wait would only make them later.
            batch.taken = batch.order.partition_point(|(time, _)| *time < self.high);
            if let Content::Events(events) = &new.content {
                let own = events.iter().filter_map(|event| own_time(&event, new));
                late += own.filter(|ms| *ms < self.high).count() as u64;
            }
            let place = newcomers.len() as u64;
            turns.extend(batch.order[..batch.taken].iter().map(|&(time, index)| (time, place, index)));
            latest = latest.max(batch.order.last().map_or(0, |(time, _)| *time));
            newcomers.push(Newcomer { last_time: if is_events { batch.last() } else { before }, batch });
        }
        let batches = merge(turns, |place| &newcomers[place as usize].batch.batch);
        // Should the commit fail it may leave these numbers' notes; the next that succeeds removes or overwrites them.
        self.tried = self.tried.max(newcomers.len() as u64);
        let (notes, taken) = Default::default();
        self.with_notes(end, ReorderPlan { batches, notes, late, taken, high: self.high, newcomers })
    }

    /// What goes into the log now, if anything does: what is due, and what is not later than that.
    pub(super) fn due(&self, end: Sequence, now: Instant) -> Option<ReorderPlan> {
        let mut bytes = self.bytes;
        let mut until = None;
        for batch in self.batches.values() {
            if batch.due <= now || bytes > MAX_BYTES {
                until = until.max(batch.order.last().map(|(time, _)| *time));
                bytes -= batch.bytes();
            }
        }
        // All of a batch that is due goes, so that nothing waits longer than the window; and of the others what is not
        // later than that, or the log would not be in order.
        let until = until?;
        let mut turns = Vec::new();
        let mut taken = BTreeMap::new();
        for (&number, batch) in &self.batches {
            let upto = batch.order.partition_point(|(time, _)| *time <= until);
            if upto > batch.taken {
                turns.extend(batch.order[batch.taken..upto].iter().map(|&(time, index)| (time, number, index)));
                taken.insert(number, upto);
            }
        }
        let batches = merge(turns, |number| &self.batches[&number].batch);
        let (notes, newcomers) = Default::default();
        let plan = ReorderPlan { batches, notes, late: 0, taken, high: until.max(self.high), newcomers };
        Some(self.with_notes(end, plan))
    }

    /// Makes all that waits due.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.batches.values_mut().for_each(|batch| batch.due = now);
    }

    /// When something is due next.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        if self.bytes > MAX_BYTES { Some(now) } else { self.batches.values().map(|batch| batch.due).min() }
    }

    /// The plan's commit has succeeded.
    pub(super) fn done(&mut self, plan: ReorderPlan) {
        self.high = plan.high;
        self.tried = 0;
        self.spent.clear();
        for (number, taken) in plan.taken {
            if let Some(batch) = self.batches.get_mut(&number) {
                batch.taken = taken;
            }
        }
        for (number, batch) in self.batches.extract_if(.., |_, batch| batch.is_spent()) {
            self.bytes -= batch.bytes();
            self.spent.push(number);
        }
        for Newcomer { batch, last_time } in plan.newcomers {
            self.last_times.insert(batch.batch.region.clone(), last_time);
            if !batch.is_spent() {
                self.bytes += batch.bytes();
                self.batches.insert(self.next, batch);
                self.next += 1;
            }
        }
    }

    /// The notes to remove when nothing is to wait any more; `None` while something does.
    pub(super) fn farewell(&self) -> Option<Notes> {
        let tried = self.next..=self.next + self.tried;
        let rest = self.spent.iter().copied().chain(tried).map(|number| (note_name(number), None));
        self.batches.is_empty().then(|| rest.chain([(MARK.to_owned(), None)]).collect())
    }

    /// The events that are not in the log, with their batches.
    pub(super) fn not_taken(&self) -> impl Iterator<Item = (&NewBatch, Vec<Bytes>)> {
        self.batches.values().filter_map(|batch| Some((&batch.batch, batch.not_taken()?)))
    }

    /// Adds to a plan what is kept beside a log that ends before `end`.
    fn with_notes(&self, end: Sequence, plan: ReorderPlan) -> ReorderPlan {
        let mut notes: Notes = self.spent.iter().map(|number| (note_name(*number), None)).collect();
        let newcomers = plan.newcomers.iter().map(|newcomer| &newcomer.batch);
        let waits: Vec<_> = (self.next..).zip(newcomers.filter(|batch| !batch.is_spent())).collect();
        notes.extend(waits.iter().map(|&(number, batch)| (note_name(number), Some(encode(batch)))));
        let next = self.next + waits.len() as u64;
        // Batches whose commit failed may have been kept under these numbers.
        notes.extend((next..=self.next + self.tried).map(|number| (note_name(number), None)));
        let before: BTreeMap<_, _> = self.batches.iter().map(|(number, batch)| (*number, batch.taken)).collect();
        let mut now = before.clone();
        now.extend(&plan.taken);
        now.extend(waits.iter().map(|&(number, batch)| (number, batch.taken)));
        let mark = Mark {
            end: end.0 + plan.batches.iter().map(|batch| batch.content.len() as u64).sum::<u64>(),
            next,
            now: Progress { high: plan.high, taken: now.into_iter().collect() },
            before: Progress { high: self.high, taken: before.into_iter().collect() },
        };
        notes.push((MARK.to_owned(), Some(mark.encode())));
        ReorderPlan { notes, ..plan }
    }
}

#[cfg(test)]
mod tests;
