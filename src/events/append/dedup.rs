//! [`Dedup`]: drops an event that another region has returned already.
//!
//! The rule: a *sighting* is an event returned by a region (stored or dropped), remembered for `dedup_window`. An event
//! from a region is dropped if another region has more sightings of it than this region has. So an event that two
//! regions return is one; two equal events of one region are two; and when the other region returns both as well, they
//! are still two. With three regions the one with the most sightings counts. What a run knows of earlier ones is in the
//! log and in the notes of [`super::dropped_copies`]: see [`Dedup::recall`].
//!
//! Two events are equal when they are the same JSON value: the vendor's regions need not run one release, so the order
//! of members and the spaces between are not looked at. Text that is not JSON is equal to its own bytes only.
//!
//! Invariants: looking ([`Dedup::fresh`]) changes nothing, so an append that fails can be tried again; sightings are
//! recorded once the append has succeeded. Memory is bounded ([`MAX_SIGHTINGS`]): beyond it the oldest are forgotten,
//! and a late duplicate passes rather than an event being lost. The room of a burst is given back when the burst is
//! forgotten ([`ROOMY`]). Ages are by the monotonic clock, so no jump of the wall clock makes it forget. An event is
//! known by 128 bits of its SHA-256: user ids are anybody's text, so nobody must be able to make two events look equal.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::kernel::clock::UnixMillis;
use crate::kernel::names::RegionName;

/// The most sightings remembered, some 30 MiB: ten minutes of 400 events a second.
pub(super) const MAX_SIGHTINGS: usize = 1 << 18;

/// Room for more than so many times what is held is too much: what is left of it is for twice as much, so that the next
/// events do not make it grow again.
const ROOMY: usize = 4;

/// Room for so many sightings is never given back.
const ALWAYS: usize = 256;

/// What an event is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint(pub(super) u128);

impl Fingerprint {
    /// Of an event's text.
    pub(super) fn of(event: &[u8]) -> Self {
        // `Value` keeps members sorted by name.
        let even = serde_json::from_slice::<serde_json::Value>(event).and_then(|value| serde_json::to_vec(&value));
        let digest = Sha256::digest(even.as_deref().unwrap_or(event));
        Self(digest.iter().take(16).fold(0, |n, &byte| n << 8 | u128::from(byte)))
    }
}

/// The sightings of one log's regions.
#[derive(Debug)]
pub(super) struct Dedup {
    window: Duration,
    most_sightings: usize,
    regions: Vec<RegionName>,
    counts: HashMap<Fingerprint, Vec<RegionCount>>,
    sightings: VecDeque<Sighting>,
}

/// How often a region has returned an event.
#[derive(Clone, Copy, Debug)]
struct RegionCount {
    region: u16,
    times: u32,
}

#[derive(Clone, Copy, Debug)]
struct Sighting {
    at: Instant,
    event: Fingerprint,
    region: u16,
}

impl Dedup {
    pub(super) fn new(window: Duration) -> Self {
        Self {
            window,
            most_sightings: MAX_SIGHTINGS,
            regions: Vec::new(),
            counts: HashMap::new(),
            sightings: VecDeque::new(),
        }
    }

    /// How long a sighting is remembered.
    pub(super) fn window(&self) -> Duration {
        self.window
    }

    /// Changes how long a sighting is remembered.
    pub(super) fn set_window(&mut self, window: Duration) {
        self.window = window;
    }

    /// For each event of one answer, in order: whether it is to be kept.
    pub(super) fn fresh(&mut self, region: &RegionName, events: &[Fingerprint], now: Instant) -> Vec<bool> {
        self.forget(now);
        let region = self.number(region);
        let mut here = HashMap::<Fingerprint, u32>::new();
        let judge = |event: &Fingerprint| {
            let seen = self.counts.get(event).map_or(&[][..], Vec::as_slice);
            let own = seen.iter().find(|seen| seen.region == region).map_or(0, |seen| seen.times);
            let elsewhere = seen.iter().filter(|seen| seen.region != region).map(|seen| seen.times).max().unwrap_or(0);
            let before = here.entry(*event).or_default();
            let fresh = own + *before >= elsewhere;
            *before += 1;
            fresh
        };
        events.iter().map(judge).collect()
    }

    /// Records one answer's events, dropped ones too.
    pub(super) fn record(&mut self, region: &RegionName, events: &[Fingerprint], at: Instant) {
        let region = self.number(region);
        for &event in events {
            self.sightings.push_back(Sighting { at, event, region });
            let seen = self.counts.entry(event).or_default();
            match seen.iter_mut().find(|seen| seen.region == region) {
                Some(seen) => seen.times += 1,
                None => seen.push(RegionCount { region, times: 1 }),
            }
        }
        while self.sightings.len() > self.most_sightings {
            self.forget_oldest();
        }
    }

    /// Takes up what earlier runs have seen, whose events count if they were stamped at or after `since`; `came_at`
    /// says when that was.
    ///
    /// Where not all of that is known (retention has taken some of it, or damage), what was dropped counts only as long
    /// as it is known what it was a copy of. Or the region that returned that would seem to have returned the lesser
    /// number, and its next equal event would be dropped for a copy.
    pub(super) fn recall(&mut self, past: PastSightings, since: UnixMillis, came_at: impl Fn(UnixMillis) -> Instant) {
        let PastSightings { regions, mut sightings, is_whole } = past;
        // Of what was seen in the same millisecond the copies came later.
        sightings.sort_by_key(|seen| (seen.at, seen.is_dropped));
        let copied = sightings.iter().filter(|seen| seen.is_dropped);
        let mut known: HashMap<Fingerprint, Vec<KnownCounts>> = copied.map(|seen| (seen.event, Vec::new())).collect();
        for seen in sightings {
            if !is_whole
                && let Some(known) = known.get_mut(&seen.event)
                && !is_counted(known, &seen)
            {
                continue;
            }
            if seen.at >= since
                && let Some(region) = regions.get(usize::from(seen.region))
            {
                self.record(region, &[seen.event], came_at(seen.at));
            }
        }
    }

    /// Forgets what is older than the window, and gives back the room that it took.
    pub(super) fn forget(&mut self, now: Instant) {
        while self.sightings.front().is_some_and(|oldest| now.saturating_duration_since(oldest.at) > self.window) {
            self.forget_oldest();
        }
        let held = self.sightings.len().max(ALWAYS);
        if self.sightings.capacity() / ROOMY > held {
            self.sightings.shrink_to(2 * held);
        }
        let held = self.counts.len().max(ALWAYS);
        if self.counts.capacity() / ROOMY > held {
            self.counts.shrink_to(2 * held);
        }
    }

    /// How many sightings are remembered.
    #[cfg(test)]
    pub(super) fn sightings(&self) -> usize {
        self.sightings.len()
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.sightings.pop_front() else { return };
        if let Some(seen) = self.counts.get_mut(&oldest.event) {
            if let Some(at) = seen.iter().position(|seen| seen.region == oldest.region) {
                seen[at].times -= 1;
                if seen[at].times == 0 {
                    seen.swap_remove(at);
                }
            }
            if seen.is_empty() {
                self.counts.remove(&oldest.event);
            }
        }
    }

    fn number(&mut self, region: &RegionName) -> u16 {
        number(&mut self.regions, region)
    }
}

/// The place of a region's name in a list, to which it is added.
fn number(regions: &mut Vec<RegionName>, region: &RegionName) -> u16 {
    let known = regions.iter().position(|known| known == region);
    let at = known.unwrap_or_else(|| {
        regions.push(region.clone());
        regions.len() - 1
    });
    u16::try_from(at).unwrap_or(u16::MAX)
}

/// What earlier runs have seen, in any order.
#[derive(Debug, Default)]
pub(super) struct PastSightings {
    regions: Vec<RegionName>,
    sightings: Vec<PastSighting>,
    /// Nothing is missing of the time that counts, but what a kill may have taken of what was dropped.
    pub(super) is_whole: bool,
}

#[derive(Clone, Copy, Debug)]
struct PastSighting {
    at: UnixMillis,
    event: Fingerprint,
    region: u16,
    is_dropped: bool,
}

/// How often a region is known to have returned an event.
#[derive(Clone, Copy, Debug)]
struct KnownCounts {
    region: u16,
    stored: u32,
    dropped: u32,
}

impl PastSightings {
    /// Nothing was seen so far; `is_whole`: and nothing will be missing.
    pub(super) fn new(is_whole: bool) -> Self {
        Self { is_whole, ..Self::default() }
    }

    /// A region returned these, and they were stored.
    pub(super) fn add_stored(
        &mut self,
        region: &RegionName,
        events: impl IntoIterator<Item = Fingerprint>,
        at: UnixMillis,
    ) {
        self.add(region, events, at, false);
    }

    /// A region returned these, and they were dropped.
    pub(super) fn add_dropped(
        &mut self,
        region: &RegionName,
        events: impl IntoIterator<Item = Fingerprint>,
        at: UnixMillis,
    ) {
        self.add(region, events, at, true);
    }

    fn add(
        &mut self,
        region: &RegionName,
        events: impl IntoIterator<Item = Fingerprint>,
        at: UnixMillis,
        is_dropped: bool,
    ) {
        let region = number(&mut self.regions, region);
        self.sightings.extend(events.into_iter().map(|event| PastSighting { at, event, region, is_dropped }));
    }
}

/// Whether a sighting counts beside what is known of its event before it; then it is known as well.
fn is_counted(known: &mut Vec<KnownCounts>, seen: &PastSighting) -> bool {
    let elsewhere = known.iter().filter(|known| known.region != seen.region);
    let elsewhere = elsewhere.map(|known| known.stored + known.dropped).max().unwrap_or(0);
    let at = known.iter().position(|known| known.region == seen.region).unwrap_or_else(|| {
        known.push(KnownCounts { region: seen.region, stored: 0, dropped: 0 });
        known.len() - 1
    });
    let own = &mut known[at];
    match seen.is_dropped {
        false => own.stored += 1,
        true if own.dropped >= elsewhere => return false,
        true => own.dropped += 1,
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_order_of_members_and_spaces_do_not_make_an_event_another() {
        let one = Fingerprint::of(br#"{"type":"Join","ms":1,"user_id":"\u0061"}"#);
        assert_eq!(one, Fingerprint::of(br#"{ "user_id" : "a", "ms":1,"type":"Join" }"#));
        assert_ne!(one, Fingerprint::of(br#"{"type":"Join","ms":2,"user_id":"a"}"#));
        assert_ne!(Fingerprint::of(b"x"), Fingerprint::of(b" x"));
    }

    /// The rule, stated naively over a list of all sightings.
    fn model(seen: &[(u64, u8, u8)], window: u64, now: u64, region: u8, event: u8) -> bool {
        let times = |of: u8| seen.iter().filter(|s| now - s.0 <= window && s.1 == of && s.2 == event).count();
        (0..3).filter(|&other| other != region).all(|other| times(region) >= times(other))
    }

    properties! {
        #[test]
        fn dedup_agrees_with_its_rule(
            answers in prop::collection::vec((0..3u8, 0..60u64, prop::collection::vec(0..4u8, 0..6), any::<bool>()), 1..40)
        ) {
            let window = 100;
            let mut dedup = Dedup::new(Duration::from_millis(window));
            let t0 = Instant::now();
            let at = |ms| t0 + Duration::from_millis(ms);
            let (mut seen, mut now) = (Vec::new(), 0);
            for (region, pause, events, stored) in answers {
                now += pause;
                let name = RegionName::parse(&format!("r{region}")).unwrap();
                let prints: Vec<_> = events.iter().map(|event| Fingerprint::of(&[*event])).collect();
                let fresh = dedup.fresh(&name, &prints, at(now));
                let before = seen.len();
                for (event, fresh) in events.iter().zip(fresh) {
                    prop_assert_eq!(fresh, model(&seen, window, now, region, *event));
                    seen.push((now, region, *event));
                }
                if stored {
                    dedup.record(&name, &prints, at(now));
                } else {
                    seen.truncate(before); // The append failed: as if it had never been looked at.
                }
            }
        }

        #[test]
        fn what_two_regions_both_return_is_stored_once_in_any_interleaving(
            events in prop::collection::vec(0..4u8, 0..30), order in prop::collection::vec(any::<bool>(), 60)
        ) {
            let mut dedup = Dedup::new(Duration::from_secs(600));
            let now = Instant::now();
            let names = ["a", "b"].map(|name| RegionName::parse(name).unwrap());
            let (mut read, mut stored) = ([0, 0], Vec::new());
            for second in order {
                // When one region has nothing left, the other goes on.
                let region = if read[usize::from(second)] < events.len() { usize::from(second) } else { usize::from(!second) };
                let Some(event) = events.get(read[region]) else { break };
                read[region] += 1;
                let print = [Fingerprint::of(&[*event])];
                if dedup.fresh(&names[region], &print, now)[0] {
                    stored.push(*event);
                }
                dedup.record(&names[region], &print, now);
            }
            let (mut expected, mut stored) = (events, stored);
            expected.sort_unstable();
            stored.sort_unstable();
            prop_assert_eq!(stored, expected);
        }
    }

    #[test]
    fn the_room_of_a_burst_is_given_back_when_it_is_forgotten() {
        let mut dedup = Dedup::new(Duration::from_secs(60));
        let (region, began) = (RegionName::parse("a").unwrap(), Instant::now());
        let burst: Vec<_> = (0..100_000).map(Fingerprint).collect();
        dedup.record(&region, &burst, began);
        assert!(dedup.sightings.capacity() >= burst.len() && dedup.counts.capacity() >= burst.len());
        dedup.forget(began + Duration::from_secs(61));
        assert!(dedup.sightings.capacity() <= ROOMY * ALWAYS, "{}", dedup.sightings.capacity());
        assert!(dedup.counts.capacity() <= ROOMY * ALWAYS, "{}", dedup.counts.capacity());
        // Growing by a little at a time, it does not come and go.
        dedup.record(&region, &burst[..ALWAYS], began + Duration::from_secs(62));
        let before = (dedup.sightings.capacity(), dedup.counts.capacity());
        dedup.forget(began + Duration::from_secs(62));
        assert_eq!((dedup.sightings.capacity(), dedup.counts.capacity()), before);
    }

    #[test]
    fn memory_is_bounded() {
        let mut dedup = Dedup { most_sightings: 1500, ..Dedup::new(Duration::from_secs(600)) };
        let region = RegionName::parse("a").unwrap();
        for n in 0..5 {
            let events: Vec<_> = (0..1000).map(|event| Fingerprint(event + n * 1000)).collect();
            dedup.record(&region, &events, Instant::now());
        }
        assert_eq!((dedup.sightings.len(), dedup.counts.len()), (1500, 1500));
    }
}
