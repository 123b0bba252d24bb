//! What the store holds of a subscription beside its cursor, by name and bytes.
//!
//! | note | says |
//! | --- | --- |
//! | `NAME` | whose it is, and when it was read last |
//! | `NAME/settled/SEGMENT` | which entries of a segment are settled: `state::ack_bitmap` |
//! | `NAME/delayed/SEGMENT` | which open entries of it are to wait, and until when: `state::segment_numbers` |
//! | `NAME/united/SEGMENT` | which went out as one, by the number of the first: `state::segment_numbers` |
//! | `NAME/again/ENTRY` | an entry was put back by an operator, and is open: [`RetryState`] |
//! | `NAME/missed` | how many entries retention took of which no reader was told, and which: [`LostRanges`] |
//! | `NAME/lost` | how many entries retention took of it so far, and when: [`LossHistory`] |
//! | `NAME/telling` | how often who passes it on tried in vain to tell of that: [`RetryState`] |
//! | `NAME/plain` | what plain readers were handed over, and whether their word is believed: [`PlainHandovers`] |
//! | `NAME/place` | which place it is at, as a number: [`PlaceId`] |
//! | `NAME/left` | what it had not read when it was removed because nobody read it: [`UnreadRanges`] |
//! | `/removed` | the last entry of the log when one of its subscriptions was removed last |
//! | `NAME/ENTRY` | of the kind dead letter (all others are of the kind subscription): `dead_letters` |
//!
//! Numbers are 20 digits, so that their order is the names' order. No name holds a slash. All of this is on disk:
//! change it only so that what is there can still be read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::PlaceId;
use super::leases::MAX_LEASE;
use super::persistence::Remainder;
use super::state::loss_history::LossHistory;
use super::state::plain_handovers::PlainHandovers;
use super::state::{LostRanges, NewEntry, StoredSegment, own_key, segment_numbers};
use super::unread::UnreadRanges;
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::{ClientName, SubscriptionName};
use crate::store::{Error, LogKey, NoteKind, Store};

/// What is known of a subscription when it is made.
pub(in crate::events) struct SubscriptionRecords {
    /// The last entry up to which all are settled.
    pub(in crate::events) at: u64,
    pub(in crate::events) place: PlaceId,
    /// Whether the store says so.
    pub(in crate::events) stored: bool,
    pub(in crate::events) owner: Owner,
    pub(in crate::events) segments: Vec<(u64, StoredSegment)>,
    /// Until when entries are not to be handed out.
    pub(in crate::events) delays: BTreeMap<u64, Instant>,
    /// Which entries went out as one, with its number.
    pub(in crate::events) units: BTreeMap<u64, u64>,
    /// Entries that an operator put back.
    pub(in crate::events) again: BTreeMap<u64, RetryState>,
    pub(in crate::events) letters: BTreeSet<u64>,
    /// What retention took of which no reader was told.
    pub(in crate::events) missed: LostRanges,
    /// How often that was told in vain.
    pub(in crate::events) telling: RetryState,
    /// What retention took of it, whoever was told.
    pub(in crate::events) lost: LossHistory,
    pub(in crate::events) plain: PlainHandovers,
    /// The last entry that an earlier run may have given a reader.
    pub(in crate::events) end: u64,
    pub(in crate::events) now: Instant,
}

/// How often something was handed out in vain that is no part of a segment, and until when it is to wait.
///
/// Its note's bytes: nothing, or how often (4 bytes), and until when (8 bytes, in milliseconds since 1970; 0 for not at
/// all), big-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::events) struct RetryState {
    pub(in crate::events) attempts: u32,
    pub(in crate::events) delay_until: Option<Instant>,
}

impl RetryState {
    pub(super) fn of((attempts, delay_until): (u32, Option<Instant>)) -> Self {
        Self { attempts, delay_until }
    }

    /// As an entry that an operator put back: it waits for no other.
    pub(super) fn put_back(self, at: u64) -> NewEntry {
        NewEntry { at, key: own_key(at), attempts: self.attempts, delay_until: self.delay_until, alone: true }
    }

    pub(super) fn note(self, (now, wall): (Instant, UnixMillis)) -> Bytes {
        if self == Self::default() {
            return Bytes::new();
        }
        let until = self.delay_until.map_or(0, |until| wall.after(until.saturating_duration_since(now)).0);
        [&self.attempts.to_be_bytes()[..], &until.to_be_bytes()].concat().into()
    }

    fn parse(note: &[u8], due: impl Fn(u64) -> Instant) -> Self {
        let Some((attempts, until)) = note.split_first_chunk() else { return Self::default() };
        let until = until.try_into().map_or(0, u64::from_be_bytes);
        let delay_until = (until > 0).then(|| due(until));
        Self { attempts: u32::from_be_bytes(*attempts), delay_until }
    }
}

/// Whose a subscription is, and when it was read last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::events) struct Owner {
    pub(in crate::events) by: Option<ClientName>,
    pub(in crate::events) read_at: UnixMillis,
}

#[derive(Serialize, Deserialize)]
struct OwnerNote {
    by: Option<String>,
    read_at: u64,
}

impl Owner {
    pub(super) fn note(&self) -> Bytes {
        let note = OwnerNote { by: self.by.as_ref().map(ToString::to_string), read_at: self.read_at.0 };
        // Strings and numbers always serialize.
        serde_json::to_vec(&note).unwrap_or_default().into()
    }

    fn parse(note: &[u8]) -> Option<Self> {
        let OwnerNote { by, read_at } = serde_json::from_slice(note).ok()?;
        Some(Self { by: by.and_then(|by| ClientName::parse(&by).ok()), read_at: UnixMillis(read_at) })
    }
}

impl SubscriptionRecords {
    /// A subscription that begins after `at`.
    pub(in crate::events) fn begun(at: u64, by: Option<ClientName>, read_at: UnixMillis, now: Instant) -> Self {
        Self {
            at,
            place: PlaceId::random(),
            stored: false,
            owner: Owner { by, read_at },
            segments: Vec::new(),
            delays: BTreeMap::new(),
            units: BTreeMap::new(),
            again: BTreeMap::new(),
            letters: BTreeSet::new(),
            missed: LostRanges::default(),
            telling: RetryState::default(),
            lost: LossHistory::default(),
            plain: PlainHandovers::of_old(),
            end: 0,
            now,
        }
    }
}

/// What is left of subscriptions that are no more.
#[derive(Debug, Default)]
pub(in crate::events) struct Remainders {
    /// What those had not read that were removed because nobody read them.
    unread: BTreeMap<SubscriptionName, UnreadRanges>,
    /// The last entry that one of their readers can have been given.
    end: u64,
}

impl Remainders {
    /// How many left something unread.
    pub(in crate::events) fn len(&self) -> usize {
        self.unread.len()
    }

    /// One is removed.
    pub(in crate::events) fn add(&mut self, name: &SubscriptionName, left: &Remainder) {
        self.end = self.end.max(left.end);
        self.unread.extend(left.noted.clone().map(|unread| (name.clone(), unread)));
    }

    /// One of that name begins anew: who comes again is told of what lies before its beginning.
    pub(in crate::events) fn come_again(
        &mut self,
        name: &SubscriptionName,
        by_stream: bool,
        begun: &mut SubscriptionRecords,
    ) {
        begun.missed = self.unread.remove(name).map_or_else(LostRanges::default, |unread| unread.up_to(begun.at));
        begun.plain = PlainHandovers::begun(by_stream, self.end);
        // Of that nobody was told: it is told once, also to who names a place from before it.
        begun.missed.ranges().for_each(|lost| begun.plain.remove(lost));
    }
}

/// All subscriptions of a log, as they were; and those that are no more, but left something behind.
///
/// # Errors
/// When the store fails.
pub(in crate::events) async fn all(
    store: &dyn Store,
    log: &LogKey,
    now: (UnixMillis, Instant),
) -> Result<(HashMap<SubscriptionName, SubscriptionRecords>, Remainders), Error> {
    let mut left = Remainders::default();
    let mut all: HashMap<String, (SubscriptionName, SubscriptionRecords)> = HashMap::new();
    for (name, at) in store.cursors(log).await? {
        // One without a note of its owner counts as read now. A client's place is that client's, whatever else is
        // known.
        let begun = SubscriptionRecords::begun(at.0, name.client(), now.0, now.1);
        let recalled = SubscriptionRecords { stored: true, place: PlaceId::default(), ..begun };
        all.insert(name.to_string(), (name, recalled));
    }
    let mut after = String::new();
    loop {
        let notes = store.notes(log, NoteKind::Subscription, "", &after, AT_ONCE).await?;
        let Some((last, _)) = notes.last() else { break };
        after.clone_from(last);
        for (name, note) in &notes {
            let (of, what) = name.split_once('/').map_or((name.as_str(), None), |(of, what)| (of, Some(what)));
            let Some((subscription, recalled)) = all.get_mut(of) else {
                // Or of a subscription that was removed in part, by an older gateway.
                match what {
                    Some("left") => match SubscriptionName::parse_stored(of).ok().zip(UnreadRanges::parse(note)) {
                        Some((name, unread)) => drop(left.unread.insert(name, unread)),
                        None => {
                            tracing::error!(app = %log.app, note = name, "not understood: its readers are not told")
                        }
                    },
                    Some(_) if name == REMOVED => left.end = number(note).unwrap_or_default(),
                    _ => {}
                }
                continue;
            };
            match what.map(|what| what.split_once('/').unwrap_or((what, ""))) {
                None => {
                    if let Some(Owner { by, read_at }) = Owner::parse(note) {
                        recalled.owner = Owner { by: recalled.owner.by.take().or(by), read_at };
                    }
                }
                Some(("settled", number)) => {
                    let parsed = number.parse().ok().and_then(|n| Some((n, StoredSegment::parse(n, note)?)));
                    match parsed {
                        Some(segment) => recalled.segments.push(segment),
                        None => {
                            tracing::error!(app = %log.app, note = name, "not understood: its events are delivered again")
                        }
                    }
                }
                Some(("delayed", number)) => match numbers_of(number, note) {
                    Some(delays) => recalled
                        .delays
                        .extend(delays.into_iter().map(|(at, until)| (at, due(subscription, until, now)))),
                    None => tracing::error!(app = %log.app, note = name, "not understood: its events do not wait"),
                },
                Some(("united", number)) => match numbers_of(number, note) {
                    Some(units) => recalled.units.extend(units),
                    None => tracing::error!(app = %log.app, note = name, "not understood: its events go out anew"),
                },
                Some(("again", number)) => {
                    recalled.again.extend(
                        number
                            .parse()
                            .ok()
                            .map(|at: u64| (at, RetryState::parse(note, |until| due(subscription, until, now)))),
                    );
                }
                // It was made anew, and not stored whole, by an older gateway.
                Some(("left", _)) => {}
                Some(("place", _)) => recalled.place = number(note).map(PlaceId::of_note).unwrap_or_default(),
                Some(("missed", _)) => match LostRanges::parse(note) {
                    Some(missed) => recalled.missed = missed,
                    None => tracing::error!(app = %log.app, note = name, "not understood: its readers are not told"),
                },
                Some(("lost", _)) => match LossHistory::parse(note) {
                    Some(lost) => recalled.lost = lost,
                    None => tracing::error!(app = %log.app, note = name, "not understood: losses are counted anew"),
                },
                Some(("telling", _)) => {
                    recalled.telling = RetryState::parse(note, |until| due(subscription, until, now))
                }
                Some(("plain", _)) => match PlainHandovers::parse(note, recalled.at) {
                    Some(plain) => recalled.plain = plain,
                    None => {
                        tracing::error!(app = %log.app, note = name, "not understood: all counts as delivered by plain reads")
                    }
                },
                Some(_) => tracing::warn!(app = %log.app, note = name, "of a newer gateway; passed over"),
            }
        }
    }
    let mut after = String::new();
    loop {
        let letters = store.notes(log, NoteKind::DeadLetter, "", &after, AT_ONCE).await?;
        let Some((last, _)) = letters.last() else { break };
        after.clone_from(last);
        for (name, _) in &letters {
            let Some((of, number)) = name.split_once('/') else { continue };
            if let Some((_, recalled)) = all.get_mut(of) {
                recalled.letters.extend(number.parse::<u64>());
            }
        }
    }
    Ok((all.into_values().collect(), left))
}

/// The name of a segment's note.
pub(super) fn segment(name: &str, segment: u64) -> String {
    format!("{name}/settled/{segment:020}")
}

/// The name of a segment's note on who is to wait.
pub(super) fn delayed(name: &str, segment: u64) -> String {
    format!("{name}/delayed/{segment:020}")
}

/// The name of a segment's note on what went out as one.
pub(super) fn united(name: &str, segment: u64) -> String {
    format!("{name}/united/{segment:020}")
}

/// The name of the note that an entry was put back.
pub(in crate::events) fn again(name: &str, at: u64) -> String {
    format!("{name}/again/{at:020}")
}

/// The name of the note on what was missed.
pub(super) fn missed(name: &str) -> String {
    format!("{name}/missed")
}

/// The name of the note on what retention took so far.
pub(super) fn lost(name: &str) -> String {
    format!("{name}/lost")
}

/// The name of the note on what was told of that in vain.
pub(super) fn telling(name: &str) -> String {
    format!("{name}/telling")
}

/// The name of the note on what plain readers were handed over.
pub(super) fn plain(name: &str) -> String {
    format!("{name}/plain")
}

/// The name of the note on what was removed from a log.
pub(super) const REMOVED: &str = "/removed";

/// The name of the note on which place it is at.
pub(super) fn place(name: &str) -> String {
    format!("{name}/place")
}

/// The name of the note on where it stood when it was removed.
pub(in crate::events) fn left(name: &str) -> String {
    format!("{name}/left")
}

/// When what was to wait until then is due. However the clock was set meanwhile, nothing waits longer than it could be
/// told to.
fn due(name: &SubscriptionName, until: u64, (wall, now): (UnixMillis, Instant)) -> Instant {
    let longest = if name.is_of_webhook() { MAX_RETRY } else { MAX_LEASE };
    now + UnixMillis(until).since(wall).min(longest)
}

/// What a note says of a segment, which is the last part of its name.
fn numbers_of(segment: &str, note: &[u8]) -> Option<Vec<(u64, u64)>> {
    segment_numbers::parse(segment.parse().ok()?, note)
}

fn number(note: &[u8]) -> Option<u64> {
    std::str::from_utf8(note).ok()?.parse().ok()
}

/// The name of a dead letter.
pub(in crate::events) fn letter(name: &SubscriptionName, at: u64) -> String {
    format!("{name}/{at:020}")
}

const AT_ONCE: usize = 1000;

/// More than the configuration may say of a wait between a webhook's tries. Who reads for the webhook knows what it
/// says.
const MAX_RETRY: Duration = Duration::from_secs(5000 * 24 * 3600);
