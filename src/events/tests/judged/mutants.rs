//! Mutants: a library in which one transition is broken, at what it stores or at what it is asked and answers. Each must be
//! found by what the model says of it.

use std::collections::BTreeSet;

use delivery_model::{Entry, Gift, Told};

use super::super::*;
use super::book::Book;
use super::door::Came;
use crate::events::subscription::Selection;
use crate::store::{NoteKind, PlaceChange, Sequence};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
    // What is stored.
    MarksAreNotStored,
    CursorIsOneBehind,
    CursorIsOneAhead,
    DelaysAreNotStored,
    PutBackIsNotStored,
    LettersAreNotStored,
    MissedIsNotStored,
    PlainIsNotStored,
    RemovalLeavesLetters,
    StopStoresNothing,
    LastCommitIsLost,
    // What is asked and answered.
    AckIsForgotten,
    AckOfOneMore,
    AckIsMiscounted,
    NackWithoutDelay,
    NackIsForgotten,
    ExtensionIsForgotten,
    LeaseIsNeverOver,
    LeaseIsShort,
    LeasedToTwo,
    AttemptIsNotCounted,
    GivenUpOneLate,
    GivenUpOneEarly,
    OrderIsBroken,
    FilterIsTooNarrow,
    GivenTwice,
    Swallowed,
    LossIsUntold,
    LossIsWrong,
    LossIsToldTwice,
    SeekIsOffByOne,
    SeekIsForgotten,
    SeekLeavesWhatWaits,
    RemovalIsForgotten,
    LetterIsHidden,
    LetterStays,
    RedeliveryIsForgotten,
    RedeliveredTwice,
    WordIsForgotten,
}

impl Mutant {
    pub(super) const ALL: [Self; 39] = [
        Self::MarksAreNotStored,
        Self::CursorIsOneBehind,
        Self::CursorIsOneAhead,
        Self::DelaysAreNotStored,
        Self::PutBackIsNotStored,
        Self::LettersAreNotStored,
        Self::MissedIsNotStored,
        Self::PlainIsNotStored,
        Self::RemovalLeavesLetters,
        Self::StopStoresNothing,
        Self::LastCommitIsLost,
        Self::AckIsForgotten,
        Self::AckOfOneMore,
        Self::AckIsMiscounted,
        Self::NackWithoutDelay,
        Self::NackIsForgotten,
        Self::ExtensionIsForgotten,
        Self::LeaseIsNeverOver,
        Self::LeaseIsShort,
        Self::LeasedToTwo,
        Self::AttemptIsNotCounted,
        Self::GivenUpOneLate,
        Self::GivenUpOneEarly,
        Self::OrderIsBroken,
        Self::FilterIsTooNarrow,
        Self::GivenTwice,
        Self::Swallowed,
        Self::LossIsUntold,
        Self::LossIsWrong,
        Self::LossIsToldTwice,
        Self::SeekIsOffByOne,
        Self::SeekIsForgotten,
        Self::SeekLeavesWhatWaits,
        Self::RemovalIsForgotten,
        Self::LetterIsHidden,
        Self::LetterStays,
        Self::RedeliveryIsForgotten,
        Self::RedeliveredTwice,
        Self::WordIsForgotten,
    ];

    /// Whether it needs a log that is cut.
    pub(super) fn is_of_cuts(self) -> bool {
        matches!(self, Self::MissedIsNotStored | Self::LossIsUntold | Self::LossIsWrong | Self::LossIsToldTwice)
    }

    /// What is written of a change.
    pub(super) fn written(self, change: PlaceChange) -> Option<PlaceChange> {
        let loses = |part: &'static str| matches!(&change, PlaceChange::Note(_, name, Some(_)) if name.contains(part));
        let is_lost = match self {
            Self::MarksAreNotStored => loses("/settled/"),
            Self::DelaysAreNotStored => loses("/delayed/"),
            Self::PutBackIsNotStored => loses("/again/"),
            Self::MissedIsNotStored => loses("/missed"),
            Self::PlainIsNotStored => loses("/plain"),
            Self::LettersAreNotStored => matches!(&change, PlaceChange::Note(NoteKind::DeadLetter, _, Some(_))),
            _ => false,
        };
        match (self, change) {
            _ if is_lost => None,
            (Self::CursorIsOneBehind, PlaceChange::Cursor(name, Sequence(at))) => {
                Some(PlaceChange::Cursor(name, Sequence(at.saturating_sub(1))))
            }
            (Self::CursorIsOneAhead, PlaceChange::Cursor(name, Sequence(at))) => {
                Some(PlaceChange::Cursor(name, Sequence(at + u64::from(at > 0))))
            }
            (_, change) => Some(change),
        }
    }

    /// What is asked instead of a read.
    pub(super) fn asked(self, mut read: ReadRequest) -> ReadRequest {
        if let Ack::Explicit { lease, max_attempts } = &mut read.ack {
            match self {
                Self::GivenUpOneLate => *max_attempts += 1,
                Self::GivenUpOneEarly => *max_attempts -= 1,
                Self::LeaseIsNeverOver => *lease = Duration::from_secs(24 * 3600),
                Self::LeaseIsShort => *lease -= Duration::from_millis(100),
                _ => {}
            }
        }
        if self == Self::FilterIsTooNarrow && !read.filter.is_all() {
            read.filter = Arc::new(Filter::new(&[], &["u1".to_owned()], &[]));
        }
        read
    }
}

/// What a mutant remembers.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) lost: Option<u64>,
    /// Given back for later: entries of each name.
    pub(super) waits: BTreeSet<(String, Entry)>,
    pub(super) redelivered: BTreeSet<(String, Entry)>,
}

/// What is answered instead of what came of a read.
pub(super) fn answered(
    mutant: Mutant,
    (events, book): (&Events, &Book),
    came: &mut Came,
    (memory, users): (&mut Memory, &[Option<u64>]),
) {
    let is_leased = came.lease.is_some();
    match mutant {
        Mutant::LeasedToTwo if is_leased => came.receipt = None,
        Mutant::GivenTwice if !is_leased => came.receipt = None,
        Mutant::Swallowed if !is_leased => drop(came.gifts.pop()),
        Mutant::AttemptIsNotCounted => {
            came.gifts.iter_mut().for_each(|gift| gift.attempt = gift.attempt.map(|_| 1));
        }
        Mutant::OrderIsBroken if is_leased => {
            let user = |gift: &Gift| users[gift.entry as usize - 1];
            let first = &came.gifts[0];
            if user(first).is_none() || !came.gifts[1..].iter().any(|other| user(other) == user(first)) {
                return;
            }
            let stream = events.stream(&app(), STREAM).unwrap();
            let one = Selection::Entries(vec![first.entry]);
            let back =
                stream.registry.get(&book.name).unwrap().give_back(&one, None, events.0.parts.shared.clock.now());
            if back.is_ok() {
                came.gifts.remove(0);
            }
        }
        Mutant::LossIsUntold => came.told = Told::Nothing,
        Mutant::LossIsWrong => {
            if let Told::Lost(Some(lost)) = &mut came.told {
                *lost += 1;
            }
        }
        Mutant::LossIsToldTwice => {
            if let Some(lost) = memory.lost.take() {
                came.told = Told::Lost(Some(lost));
            } else if let Told::Lost(Some(lost)) = came.told {
                memory.lost = Some(lost);
            }
        }
        _ => {}
    }
}
