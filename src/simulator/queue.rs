//! One destructive event queue (of an app, a stream and a region) and the ledger of what became of its events.
//!
//! Invariants: an event is in exactly one place: waiting, overwritten, on its way in a [`Handover`], handed over whole,
//! or lost. Numbers are always kept; the texts only when the ledger is on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::lock;

/// What became of a queue's events, each as its JSON text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Handed over whole, in order.
    pub handed: Vec<Arc<str>>,
    /// Removed by a read whose answer was spoilt or never went out whole.
    pub lost: Vec<Arc<str>>,
    /// Overwritten because the queue was full.
    pub overwritten: Vec<Arc<str>>,
    /// Still in the queue.
    pub waiting: Vec<Arc<str>>,
    /// How many of each, kept also when the texts are not.
    pub counts: EventCounts,
}

/// One read, with what it took out of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsRead {
    /// When the request was there.
    pub received: Instant,
    /// What it took, each as its JSON text, in order.
    pub events: Vec<Arc<str>>,
    /// When the answer had gone out whole; `None` when it never did (or has not yet).
    pub whole: Option<Instant>,
}

/// Numbers of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct EventCounts {
    pub emitted: u64,
    pub handed: u64,
    pub lost: u64,
    pub overwritten: u64,
}

/// A queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Arc<str>>,
    ledger: Ledger,
    /// Every read, in the order in which they took. As many as `keep`.
    reads: Vec<EventsRead>,
    /// How many texts a list of the ledger may hold; more are only counted.
    keep: usize,
}

impl Queue {
    pub(super) fn new(keep: usize) -> Self {
        Self { keep, ..Self::default() }
    }

    /// Puts an event in; the oldest gives way when there are `cap` already. Says whether one did.
    pub(super) fn push(&mut self, event: Arc<str>, cap: usize) -> bool {
        self.ledger.counts.emitted += 1;
        // The vendor's page: the oldest is overwritten by the newest.
        let overwrote = self.waiting.len() >= cap;
        if overwrote && let Some(oldest) = self.waiting.pop_front() {
            self.ledger.counts.overwritten += 1;
            note(&mut self.ledger.overwritten, oldest, self.keep);
        }
        self.waiting.push_back(event);
        overwrote
    }

    /// Removes up to `max` events, oldest first, for a request that was `received` then.
    pub(super) fn take(queue: &Arc<Mutex<Self>>, max: usize, received: Instant) -> Handover {
        let mut this = lock(queue);
        let count = this.waiting.len().min(max);
        // Out of the queue before a byte of the answer is written: the vendor's read is destructive, and does not wait
        // to hear that anybody got it.
        let events: Vec<_> = this.waiting.drain(..count).collect();
        let place = this.reads.len();
        if place < this.keep {
            this.reads.push(EventsRead { received, events: events.clone(), whole: None });
        }
        Handover { events, queue: queue.clone(), place }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn reads(&self) -> Vec<EventsRead> {
        self.reads.clone()
    }

    pub(super) fn ledger(&self) -> Ledger {
        Ledger { waiting: self.waiting.iter().cloned().collect(), ..self.ledger.clone() }
    }

    pub(super) fn counts(&self) -> EventCounts {
        self.ledger.counts
    }
}

fn note(list: &mut Vec<Arc<str>>, event: Arc<str>, keep: usize) {
    if list.len() < keep {
        list.push(event);
    }
}

/// Events on their way in an answer. Dropped before [`Handover::whole`] they are lost.
#[derive(Debug)]
pub(super) struct Handover {
    queue: Arc<Mutex<Queue>>,
    events: Vec<Arc<str>>,
    /// Its place among the reads.
    place: usize,
}

impl Handover {
    pub(super) fn events(&self) -> &[Arc<str>] {
        &self.events
    }

    /// The answer went out whole, now.
    pub(super) fn whole(mut self, now: Instant) {
        let mut queue = lock(&self.queue);
        let queue = &mut *queue;
        if let Some(read) = queue.reads.get_mut(self.place) {
            read.whole = Some(now);
        }
        for event in std::mem::take(&mut self.events) {
            queue.ledger.counts.handed += 1;
            note(&mut queue.ledger.handed, event, queue.keep);
        }
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if self.events.is_empty() {
            return;
        }
        let mut queue = lock(&self.queue);
        let queue = &mut *queue;
        for event in std::mem::take(&mut self.events) {
            queue.ledger.counts.lost += 1;
            note(&mut queue.ledger.lost, event, queue.keep);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_ends_in_one_place() {
        let queue = Arc::new(Mutex::new(Queue::new(100)));
        for n in 0..7 {
            lock(&queue).push(n.to_string().into(), 5);
        }
        let now = Instant::now();
        let first = Queue::take(&queue, 2, now);
        let second = Queue::take(&queue, 2, now);
        drop(second);
        first.whole(now);
        let texts = |list: &[Arc<str>]| list.iter().map(|t| t.parse().unwrap()).collect::<Vec<u8>>();
        let ledger = lock(&queue).ledger();
        assert_eq!(texts(&ledger.overwritten), [0, 1]);
        assert_eq!(texts(&ledger.handed), [2, 3]);
        assert_eq!(texts(&ledger.lost), [4, 5]);
        assert_eq!(texts(&ledger.waiting), [6]);
        assert_eq!(ledger.counts, EventCounts { emitted: 7, handed: 2, lost: 2, overwritten: 2 });
        let reads = lock(&queue).reads();
        assert_eq!((texts(&reads[0].events), reads[0].whole), (vec![2, 3], Some(now)));
        assert_eq!((texts(&reads[1].events), reads[1].whole), (vec![4, 5], None));
    }
}
