//! [`Waiting`]: what the regions returned and what has not yet its place in the log, because earlier events of other
//! regions may still come (`order_window`).
//!
//! An entry's *time* is its event's `ms`. One without (a marker, an event that does not say, or says a time that this
//! machine's clock has not reached) has the time of the entry that its region returned before it. A batch waits for the
//! window's length after it came, whatever else comes or does not. Then all of it goes into the log, and before it, in
//! order of their times, the entries of other batches that are not later. An entry that comes with a time before one that
//! is in the log already is *late*: it goes into the log at once.
//!
//! What is kept beside the log, as notes:
//!
//! | note | holds |
//! |---|---|
//! | `wait/NUMBER` | a batch, whole, as it came; written before its poller reads again |
//! | `mark` | how many entries of each such batch, in order of time, the log has; the log's end; and the same from before |
//!
//! Invariants: entries go into the log in the same commit as the mark that counts them, and a batch's note is removed
//! only by a later commit. An engine that failed may undo a commit's entries and keep its notes: then the log is shorter
//! than the mark says, and the mark's state from before counts. So at every instant each entry is either in the log or
//! will be moved there from its note: never both, never neither. Looking ([`Waiting::take_in`], [`Waiting::due`]) changes
//! nothing; [`Waiting::done`] follows the commit. Entries that were not late stand in the log in order of their times.
//! Memory is bounded: beyond [`MAX_BYTES`] the oldest batches are due at once.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::kernel::clock::UnixMillis;
use crate::kernel::names::RegionName;
use crate::store::{Content, EventText, NewBatch};
use crate::vendor::events::facts;

/// The text that waits in memory, at most, but for what one read of each region brings.
pub(in crate::events) const MAX_BYTES: usize = 16 << 20;

/// The names of batches' notes begin so.
pub(in crate::events) const BATCHES: &str = "wait/";
/// The mark's name.
pub(in crate::events) const MARK: &str = "mark";

/// How far the vendor's clock may be ahead of ours. A time beyond would make every other event late.
const AHEAD: Duration = Duration::from_secs(60);

/// Notes to keep or, with `None`, to remove.
pub(in crate::events) type Notes = Vec<(String, Option<Bytes>)>;

/// What waits before one log.
#[derive(Debug)]
pub(in crate::events) struct Waiting {
    window: Duration,
    held: BTreeMap<u64, Held>,
    /// Batches that are in the log whole; their notes go with the next commit.
    spent: Vec<u64>,
    /// The number of the next batch.
    next: u64,
    /// How many numbers from there on a commit that failed may have kept notes under.
    tried: u64,
    /// The latest time in the log.
    high: u64,
    /// The time of the last entry that each region returned.
    last: BTreeMap<RegionName, u64>,
    bytes: usize,
}

/// A batch, part of which waits.
#[derive(Clone, Debug)]
struct Held {
    batch: NewBatch,
    /// The time before its first entry.
    before: u64,
    /// Its entries by time: the time, and which one.
    order: Vec<(u64, u32)>,
    /// How many of them, in this order, the log has.
    taken: usize,
    due: Instant,
}

/// A commit: what goes into the log, what is kept beside it, and what is so when it has succeeded.
#[derive(Debug)]
pub(in crate::events) struct Plan {
    pub(in crate::events) batches: Vec<NewBatch>,
    pub(in crate::events) notes: Notes,
    /// How many events are late.
    pub(in crate::events) late: u64,
    taken: BTreeMap<u64, usize>,
    high: u64,
    comes: Vec<Comes>,
}

/// A batch that comes with a commit.
#[derive(Debug)]
struct Comes {
    held: Held,
    last: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    /// The number after the log's last entry.
    end: u64,
    next: u64,
    now: State,
    /// What holds if the log is shorter than `end`.
    before: State,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    high: u64,
    taken: Vec<(u64, usize)>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    received_at: u64,
    region: String,
    before: u64,
    /// Of events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ends: Vec<u32>,
}

impl Waiting {
    /// Takes up what waits by these notes, before a log whose next entry has the number `end`. What waited before waits
    /// again for a whole window: so long may the other regions need.
    pub(in crate::events) fn recall(
        window: Duration,
        batches: &[(String, Bytes)],
        mark: Option<&Bytes>,
        end: u64,
        now: Instant,
    ) -> Self {
        let mark = mark.and_then(|mark| {
            let read = serde_json::from_slice::<Mark>(mark);
            // Without it entries may come twice, but none is lost.
            read.inspect_err(
                |error| tracing::error!(%error, "it is not known which of the waiting events had their turn"),
            )
            .ok()
        });
        let (next, state) = match mark {
            Some(mark) if mark.end <= end => (mark.next, mark.now),
            Some(mark) => (mark.next, mark.before),
            None => (0, State::default()),
        };
        let mut waiting = Self {
            window,
            held: BTreeMap::new(),
            spent: Vec::new(),
            next,
            tried: 0,
            high: state.high,
            last: BTreeMap::new(),
            bytes: 0,
        };
        let taken = BTreeMap::from_iter(state.taken);
        for (name, note) in batches {
            let number = name.strip_prefix(BATCHES).and_then(|number| u64::from_str_radix(number, 16).ok());
            let Some((number, (batch, before))) = number.zip(decode(note)) else {
                tracing::error!(name, "a batch that waits cannot be read; it stays where it is");
                continue;
            };
            waiting.next = waiting.next.max(number + 1);
            let mut held = Held::new(batch, before, now + window);
            held.taken = taken.get(&number).copied().unwrap_or_default();
            if held.is_spent() {
                waiting.spent.push(number);
                continue;
            }
            waiting.last.insert(held.batch.region.clone(), held.last());
            waiting.bytes += held.bytes();
            waiting.held.insert(number, held);
        }
        waiting
    }

    /// Changes the window for what comes from now on.
    pub(in crate::events) fn set_window(&mut self, window: Duration) {
        self.window = window;
    }

    /// How what one read brought is stored: what of it is late goes into the log, which ends before `end`, and the rest waits.
    /// A marker stands behind all events of its read.
    pub(in crate::events) fn take_in(&mut self, read: &[NewBatch], end: u64, now: Instant) -> Plan {
        let (mut comes, mut turns, mut late) = (Vec::<Comes>::with_capacity(read.len()), Vec::new(), 0);
        let mut latest = 0;
        for new in read {
            let known = comes.last().map(|before| before.last).or_else(|| self.last.get(&new.region).copied());
            let before = known.unwrap_or(self.high);
            let is_events = matches!(new.content, Content::Events(_));
            let time = if is_events { before } else { before.max(latest) };
            let mut held = Held::new(new.clone(), time, now + self.window);
            held.taken = held.order.partition_point(|(time, _)| *time < self.high);
            if let Content::Events(events) = &new.content {
                let own = events.iter().filter_map(|event| own_time(&event, new));
                late += own.filter(|ms| *ms < self.high).count() as u64;
            }
            let place = comes.len() as u64;
            turns.extend(held.order[..held.taken].iter().map(|&(time, index)| (time, place, index)));
            latest = latest.max(held.order.last().map_or(0, |(time, _)| *time));
            comes.push(Comes { last: if is_events { held.last() } else { before }, held });
        }
        let batches = merge(turns, |place| &comes[place as usize].held.batch);
        self.tried = self.tried.max(comes.len() as u64);
        self.plan(batches, BTreeMap::new(), self.high, (end, late, comes))
    }

    /// What goes into the log now, if anything does: what is due, and what is not later than that.
    pub(in crate::events) fn due(&self, end: u64, now: Instant) -> Option<Plan> {
        let mut bytes = self.bytes;
        let mut until = None;
        for held in self.held.values() {
            if held.due <= now || bytes > MAX_BYTES {
                until = until.max(held.order.last().map(|(time, _)| *time));
                bytes -= held.bytes();
            }
        }
        let until = until?;
        let mut turns = Vec::new();
        let mut taken = BTreeMap::new();
        for (&number, held) in &self.held {
            let upto = held.order.partition_point(|(time, _)| *time <= until);
            if upto > held.taken {
                turns.extend(held.order[held.taken..upto].iter().map(|&(time, index)| (time, number, index)));
                taken.insert(number, upto);
            }
        }
        let batches = merge(turns, |number| &self.held[&number].batch);
        Some(self.plan(batches, taken, until.max(self.high), (end, 0, Vec::new())))
    }

    /// Makes all that waits due.
    pub(in crate::events) fn hurry(&mut self, now: Instant) {
        self.held.values_mut().for_each(|held| held.due = now);
    }

    /// When something is due next.
    pub(in crate::events) fn next_due(&self, now: Instant) -> Option<Instant> {
        if self.bytes > MAX_BYTES { Some(now) } else { self.held.values().map(|held| held.due).min() }
    }

    /// The plan's commit has succeeded.
    pub(in crate::events) fn done(&mut self, plan: Plan) {
        self.high = plan.high;
        self.tried = 0;
        self.spent.clear();
        for (number, taken) in plan.taken {
            if let Some(held) = self.held.get_mut(&number) {
                held.taken = taken;
            }
        }
        let spent: Vec<_> = self.held.iter().filter(|(_, held)| held.is_spent()).map(|(number, _)| *number).collect();
        for number in spent {
            self.bytes -= self.held.remove(&number).map_or(0, |held| held.bytes());
            self.spent.push(number);
        }
        for Comes { held, last } in plan.comes {
            self.last.insert(held.batch.region.clone(), last);
            if !held.is_spent() {
                self.bytes += held.bytes();
                self.held.insert(self.next, held);
                self.next += 1;
            }
        }
    }

    /// The notes to remove when nothing is to wait any more; `None` while something does.
    pub(in crate::events) fn farewell(&self) -> Option<Notes> {
        let tried = self.next..=self.next + self.tried;
        let rest = self.spent.iter().copied().chain(tried).map(|number| (name(number), None));
        self.held.is_empty().then(|| rest.chain([(MARK.to_owned(), None)]).collect())
    }

    /// The events that are not in the log, with their batches.
    pub(in crate::events) fn not_taken(&self) -> impl Iterator<Item = (&NewBatch, Vec<Bytes>)> {
        self.held.values().filter_map(|held| {
            let Content::Events(events) = &held.batch.content else { return None };
            let rest = held.order[held.taken..].iter().map(|&(_, index)| one(events, index)).collect();
            Some((&held.batch, rest))
        })
    }

    fn plan(
        &self,
        batches: Vec<NewBatch>,
        taken: BTreeMap<u64, usize>,
        high: u64,
        more: (u64, u64, Vec<Comes>),
    ) -> Plan {
        let (end, late, comes) = more;
        let mut notes: Notes = self.spent.iter().map(|number| (name(*number), None)).collect();
        let waits: Vec<_> = comes.iter().filter(|comes| !comes.held.is_spent()).map(|comes| &comes.held).collect();
        notes.extend((self.next..).zip(&waits).map(|(number, held)| (name(number), Some(encode(held)))));
        let next = self.next + waits.len() as u64;
        // Batches whose commit failed may have been kept under these numbers.
        notes.extend((next..=self.next + self.tried).map(|number| (name(number), None)));
        let before: BTreeMap<_, _> = self.held.iter().map(|(number, held)| (*number, held.taken)).collect();
        let mut now = before.clone();
        now.extend(&taken);
        now.extend((self.next..).zip(&waits).map(|(number, held)| (number, held.taken)));
        let mark = Mark {
            end: end + batches.iter().map(|batch| batch.content.len() as u64).sum::<u64>(),
            next,
            now: State { high, taken: now.into_iter().collect() },
            before: State { high: self.high, taken: before.into_iter().collect() },
        };
        let mark = serde_json::to_vec(&mark).expect("numbers and names can be written");
        notes.push((MARK.to_owned(), Some(mark.into())));
        Plan { batches, notes, late, taken, high, comes }
    }
}

impl Held {
    fn new(batch: NewBatch, before: u64, due: Instant) -> Self {
        let mut last = before;
        let mut order: Vec<_> = match &batch.content {
            Content::Events(events) => {
                let mut time = |event: Bytes| {
                    last = own_time(&event, &batch).unwrap_or(last);
                    last
                };
                (0..).zip(events.iter()).map(|(index, event)| (time(event), index)).collect()
            }
            // One thing, with however many entries.
            Content::PossibleLoss(_) | Content::Damaged(_) => vec![(before, 0)],
        };
        order.sort_unstable();
        Self { batch, before, order, taken: 0, due }
    }

    fn is_spent(&self) -> bool {
        self.taken >= self.order.len()
    }

    /// The time of the entry that came last.
    fn last(&self) -> u64 {
        self.order.iter().max_by_key(|(_, index)| *index).map_or(self.before, |(time, _)| *time)
    }

    fn bytes(&self) -> usize {
        let text = match &self.batch.content {
            Content::Events(events) => events.text().len() + 20 * events.len(),
            Content::PossibleLoss(reason) => reason.len(),
            Content::Damaged(_) => 0,
        };
        text + 256
    }
}

/// The time that an event says and that may be believed.
fn own_time(event: &[u8], batch: &NewBatch) -> Option<u64> {
    let ahead = u64::try_from(AHEAD.as_millis()).unwrap_or(u64::MAX);
    facts(event).ms.filter(|ms| *ms <= batch.received_at.0.saturating_add(ahead))
}

/// The entries in order of (time, number of their batch, place in it), neighbours from one batch together.
fn merge<'a>(mut turns: Vec<(u64, u64, u32)>, batch: impl Fn(u64) -> &'a NewBatch) -> Vec<NewBatch> {
    turns.sort_unstable();
    let run = |run: &[(u64, u64, u32)]| {
        let whole = batch(run[0].1);
        let content = match &whole.content {
            Content::Events(events) => {
                let texts: Vec<_> = run.iter().map(|&(_, _, index)| one(events, index)).collect();
                let some = EventText::join(texts.iter().map(|text| &text[..]));
                Content::Events(some.expect("a part of a batch is not empty, nor larger than the batch"))
            }
            other => other.clone(),
        };
        NewBatch { content, ..whole.clone() }
    };
    turns.chunk_by(|a, b| a.1 == b.1).map(run).collect()
}

fn one(events: &EventText, index: u32) -> Bytes {
    let index = index as usize;
    events.slice(index..index + 1)
}

fn name(number: u64) -> String {
    format!("{BATCHES}{number:016x}")
}

/// One line of JSON, then the text of the events or the marker's reason.
fn encode(held: &Held) -> Bytes {
    let (ends, text) = match &held.batch.content {
        Content::Events(events) => (events.ends().to_vec(), events.text().clone()),
        Content::PossibleLoss(reason) => (Vec::new(), Bytes::copy_from_slice(reason.as_bytes())),
        Content::Damaged(_) => (Vec::new(), Bytes::new()),
    };
    let (received_at, region) = (held.batch.received_at.0, held.batch.region.to_string());
    let head = Head { received_at, region, before: held.before, ends };
    let mut note = BytesMut::from(&serde_json::to_vec(&head).expect("numbers and names can be written")[..]);
    note.extend_from_slice(b"\n");
    note.extend_from_slice(&text);
    note.freeze()
}

/// The batch, and the time before it.
fn decode(note: &Bytes) -> Option<(NewBatch, u64)> {
    let line = note.iter().position(|&byte| byte == b'\n')?;
    let head: Head = serde_json::from_slice(&note[..line]).ok()?;
    let text = note.slice(line + 1..);
    let content = if head.ends.is_empty() {
        Content::PossibleLoss(String::from_utf8(text.to_vec()).ok()?)
    } else {
        Content::Events(EventText::from_parts(text, head.ends.into())?)
    };
    let region = RegionName::parse(&head.region).ok()?;
    Some((NewBatch { received_at: UnixMillis(head.received_at), region, content }, head.before))
}

#[cfg(test)]
mod tests;
