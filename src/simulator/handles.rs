//! History handles and counts that take their time.
//!
//! Invariants: a handle gives its messages once. A caller is blamed for asking again only if the answer that told it
//! so (the messages, or `in progress`) went out whole: what it never heard it cannot know.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::time::Instant;

use super::app::{HandleStyle, Rules};
use super::lock;
use super::messages::Message;
use super::query::{Filter, Query};

/// How many handles are remembered; older ones are unknown.
const REMEMBERED: usize = 20_000;

/// When an `in progress` went out, if it did.
pub(super) type LastInProgress = Arc<Mutex<Option<Instant>>>;

/// An app's handles and counts.
#[derive(Debug, Default)]
pub(super) struct Handles {
    known: HashMap<String, Handle>,
    order: VecDeque<String>,
    counts: HashMap<Filter, Progress>,
    serial: u64,
}

#[derive(Debug)]
struct Handle {
    query: Query,
    snapshot: Option<Vec<Arc<Message>>>,
    created: Instant,
    progress: Progress,
    /// Set when its messages were sent; true when they went out whole.
    spent: Option<Arc<AtomicBool>>,
}

/// How often something was asked for, and when the last `in progress` went out.
#[derive(Debug, Default)]
struct Progress {
    asked: u32,
    told: LastInProgress,
}

/// What became of a fetch.
#[derive(Debug)]
pub(super) enum Fetch {
    /// Never was, or is forgotten.
    Unknown,
    Expired,
    /// Gave its messages before. `heard`: whole.
    Spent {
        heard: bool,
    },
    /// Ask again.
    InProgress(LastInProgress),
    /// Gives its messages now; sets the flag when they went out whole.
    Ready {
        query: Query,
        snapshot: Option<Vec<Arc<Message>>>,
        heard: Arc<AtomicBool>,
    },
}

impl Handles {
    /// Makes a handle.
    pub(super) fn create(
        &mut self,
        query: Query,
        snapshot: Option<Vec<Arc<Message>>>,
        style: HandleStyle,
        now: Instant,
    ) -> String {
        self.serial += 1;
        let name = name(self.serial, style);
        let handle = Handle { query, snapshot, created: now, progress: Progress::default(), spent: None };
        self.known.insert(name.clone(), handle);
        self.order.push_back(name.clone());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        name
    }

    /// Fetches through a handle. Also says how much too early the caller asked, if it did.
    pub(super) fn fetch(&mut self, name: &str, rules: &Rules, now: Instant) -> (Fetch, Option<Duration>) {
        let Some(handle) = self.known.get_mut(name) else { return (Fetch::Unknown, None) };
        if let Some(heard) = &handle.spent {
            return (Fetch::Spent { heard: heard.load(Ordering::SeqCst) }, None);
        }
        if now.duration_since(handle.created) > rules.handle_ttl {
            return (Fetch::Expired, None);
        }
        // Blamed before it is answered: also the asking that is answered with the messages may have come too early.
        let early = handle.progress.early(rules.recheck, now);
        if handle.progress.ask(rules.in_progress) {
            return (Fetch::InProgress(handle.progress.told.clone()), early);
        }
        let heard = Arc::new(AtomicBool::new(false));
        handle.spent = Some(heard.clone());
        (Fetch::Ready { query: handle.query.clone(), snapshot: handle.snapshot.take(), heard }, early)
    }

    /// Asks for a count: `Some` while it is in progress. Also says how much too early the caller asked.
    pub(super) fn count(
        &mut self,
        filter: &Filter,
        rules: &Rules,
        now: Instant,
    ) -> (Option<LastInProgress>, Option<Duration>) {
        let progress = self.counts.entry(filter.clone()).or_default();
        let early = progress.early(rules.recheck, now);
        if progress.ask(rules.in_progress) {
            return (Some(progress.told.clone()), early);
        }
        self.counts.remove(filter);
        (None, early)
    }
}

impl Progress {
    /// Counts one asking; whether it is still in progress.
    fn ask(&mut self, in_progress: u32) -> bool {
        self.asked += 1;
        self.asked <= in_progress
    }

    fn early(&self, recheck: Duration, now: Instant) -> Option<Duration> {
        let told = (*lock(&self.told))?;
        (told + recheck).checked_duration_since(now).filter(|early| !early.is_zero())
    }
}

fn name(serial: u64, style: HandleStyle) -> String {
    // A walk over all numbers that looks random and never repeats.
    let mixed = serial.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    match style {
        HandleStyle::Digits => format!("{:012}", mixed % 1_000_000_000_000),
        // Sixteen digits and a colon: base64 ends in one `=` or two, as the vendor's do.
        HandleStyle::Padded => STANDARD.encode(format!("{:06}:{:09}", serial % 1_000_000, mixed % 1_000_000_000)),
        HandleStyle::Awkward => {
            let mut bytes = vec![0xFF, 0xEF, 0xBE];
            bytes.extend(mixed.to_be_bytes());
            bytes.extend([0xFB, 0xF0]);
            STANDARD.encode(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query() -> Query {
        let filter = Filter { source: Some("a".into()), destination: None, start: 0, end: 1 };
        Query { filter, offset: 0, limit: 20, descending: false }
    }

    #[tokio::test(start_paused = true)]
    async fn a_handle_is_in_progress_then_ready_once_then_dead() {
        let (mut handles, t0) = (Handles::default(), Instant::now());
        let rules = Rules { in_progress: 1, ..Rules::default() };
        let name = handles.create(query(), None, HandleStyle::Padded, t0);
        let (Fetch::InProgress(told), None) = handles.fetch(&name, &rules, t0) else { panic!("not in progress") };
        *lock(&told) = Some(t0);
        let (Fetch::Ready { heard, .. }, early) = handles.fetch(&name, &rules, t0 + Duration::from_millis(1500)) else {
            panic!("not ready")
        };
        assert_eq!(early, Some(Duration::from_millis(500)));
        assert!(matches!(handles.fetch(&name, &rules, t0), (Fetch::Spent { heard: false }, _)));
        heard.store(true, Ordering::SeqCst);
        assert!(matches!(handles.fetch(&name, &rules, t0), (Fetch::Spent { heard: true }, _)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_handle_nobody_fetches_expires() {
        let (mut handles, t0) = (Handles::default(), Instant::now());
        let name = handles.create(query(), None, HandleStyle::Digits, t0);
        let late = t0 + Rules::default().handle_ttl + Duration::from_millis(1);
        assert!(matches!(handles.fetch(&name, &Rules::default(), late), (Fetch::Expired, _)));
        assert!(matches!(handles.fetch("never", &Rules::default(), late), (Fetch::Unknown, _)));
    }

    #[test]
    fn styles_look_as_they_say() {
        assert!(name(7, HandleStyle::Digits).bytes().all(|b| b.is_ascii_digit()));
        assert!((1..50).all(|n| name(n, HandleStyle::Padded).ends_with('=')));
        let awkward = name(7, HandleStyle::Awkward);
        assert!(awkward.contains('/') && awkward.contains('+') && awkward.contains('='), "{awkward}");
    }
}
