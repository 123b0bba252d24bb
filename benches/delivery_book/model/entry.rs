//! One entry: where it may be, and the transitions: what each deed makes of it.

use super::words::{Counts, Entry, Hand, Key, Leasing, Millis};

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum At {
    /// The subscription has no place yet: it begins at the earliest kept.
    Unborn,
    /// Not given, or given back; so many attempts lie behind it.
    Free(u32),
    Held(Hold),
    /// In an answer that did not arrive: the attempts, and when it is free at the latest.
    Away(u32, Millis),
    /// Given back for later: the attempts, and between when and when it is free.
    Waits(u32, (Millis, Millis)),
    /// Its attempts are spent; it waits to be put among the dead letters.
    GivenUp(u32),
    /// The same since an earlier run, which alone knew how many it might have: a plain reader may come first.
    Spent(u32),
    /// Settled. `seen`: somebody has it; otherwise it was in an answer that did not arrive.
    Done {
        seen: bool,
    },
    /// Retention took it first.
    Lost {
        told: bool,
    },
}

/// In flight: to whom, which attempt, until when (between these two), after how many it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Hold {
    pub(super) by: Hand,
    pub(super) tried: u32,
    pub(super) until: (Millis, Millis),
    pub(super) most: u32,
    pub(super) counts: Counts,
    /// It was [`At::Spent`], and is so again if this does not count.
    pub(super) was_spent: bool,
}

/// Whether it is among the dead letters, after how many attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Letter {
    No,
    Listed(u32),
    /// It is being given again, and waits for nobody; and whether it is on the list still.
    Again(u32, bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Now {
    pub(super) at: At,
    pub(super) letter: Letter,
}

/// A deed, as it is one for an entry.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Which deed.
    pub(super) deed: usize,
    pub(super) from: Millis,
    pub(super) to: Millis,
    pub(super) sure: bool,
    /// Whether it is stored before it is answered.
    pub(super) durable: bool,
    pub(super) act: Act,
}

#[derive(Clone, Debug)]
pub(super) enum Act {
    Plain,
    /// The attempt, if it was said.
    Lease(Leasing, Option<u32>),
    /// It may have been in an answer that did not arrive.
    MaybePlain,
    MaybeLease(Leasing),
    /// It was, and may come back.
    MaybeBack(Option<Hand>),
    /// Its reader has it, or has not.
    Resume(bool),
    /// By a hand; or by its name, and whether it was ever given.
    Ack(Option<Hand>, bool),
    Nack(Option<Hand>, Millis),
    Extend(Option<Hand>, Millis),
    NoLease(Hand),
    Taken(Hand),
    Failed(Hand, (Millis, Millis)),
    Doubted(Hand, (Millis, Millis)),
    Returned(Hand),
    /// It lies before the new place, or behind; `None`: who knows.
    Seek(Option<bool>),
    Delete,
    Redeliver,
    /// With all others, or by its name.
    Forget(bool),
    /// The attempts, and whether it is being given again.
    List(Option<(u32, bool)>),
    /// A marker told of what was lost: of all of it, or of what was lost when the marker was made.
    Tell(bool),
    /// None did, and something was given.
    TellNot,
    /// One that waits for it was given, to this hand.
    Passed(Option<Hand>),
    /// There is a place, since somebody has read.
    Born,
    /// A plain reader was given nothing.
    Nothing,
    /// The log begins at or before it.
    Kept,
    /// The log begins behind it.
    Cut,
    Kill,
    Stop,
    Drain,
}

impl At {
    /// It, however long it may be away.
    pub(super) fn at_any_time(self) -> Self {
        if let Self::Away(tried, _) = self { Self::Away(tried, 0) } else { self }
    }
}

impl Hold {
    /// Where it is when this was no attempt.
    fn uncounted(self) -> At {
        if self.was_spent { At::Spent(self.tried - 1) } else { At::Free(self.tried - 1) }
    }
}

impl Now {
    /// What is left of it when the process has ended: leases end with it.
    pub(super) fn image(self) -> Self {
        let at = match self.at {
            At::Held(hold) if hold.counts == Counts::Failing => hold.uncounted(),
            At::Held(Hold { tried, most, .. }) if tried >= most => At::Spent(tried),
            At::GivenUp(tried) => At::Spent(tried),
            At::Held(Hold { tried, .. }) | At::Away(tried, _) => At::Free(tried),
            other => other,
        };
        Self { at, ..self }
    }

    /// What has become of it by itself by then: a lease or a delay is over.
    pub(super) fn due(self, by: Millis) -> Option<Self> {
        let at = match self.at {
            At::Held(Hold { tried, until, most, .. }) if until.0 <= by => spent(tried, most, At::Free(tried)),
            At::Waits(tried, until) if until.0 <= by => At::Free(tried),
            At::Away(tried, _) => At::Free(tried),
            _ => return None,
        };
        Some(Self { at, ..self })
    }

    /// What may become of it without anybody's doing. `may_be_cut`: retention may take it.
    pub(super) fn by_itself(self, may_be_cut: bool) -> Vec<Self> {
        let mut next = match self.at {
            At::Unborn => vec![Self { at: At::Free(0), ..self }],
            At::GivenUp(tried) | At::Spent(tried) => {
                vec![Self { at: At::Done { seen: true }, letter: Letter::Listed(tried) }]
            }
            _ => Vec::new(),
        };
        // A letter stays, to be read.
        let lost = |told| Self { at: At::Lost { told }, letter: self.letter.put_aside() };
        match self.at {
            At::Unborn if may_be_cut => next.push(lost(true)),
            At::Free(_) | At::Waits(..) | At::GivenUp(_) | At::Spent(_) if may_be_cut => next.push(lost(false)),
            _ => {}
        }
        next
    }

    pub(super) fn is_over(self) -> bool {
        matches!(self.at, At::Done { seen: true } | At::Lost { told: true })
            && !matches!(self.letter, Letter::Again(..))
    }
}

impl Act {
    /// Of whose hold it is. (What is not in that hand is not changed, and will not be.)
    pub(super) fn by(&self) -> Option<Hand> {
        match self {
            Self::Ack(by, _) | Self::Nack(by, _) | Self::Extend(by, _) => *by,
            Self::Taken(by) | Self::Failed(by, _) | Self::Doubted(by, _) | Self::Returned(by) => Some(*by),
            _ => None,
        }
    }

    /// Whether it changes nothing, and says what must be.
    pub(super) fn is_assertion(&self) -> bool {
        let of_place = matches!(self, Self::Born | Self::Nothing | Self::Kept | Self::Cut | Self::Drain);
        of_place || matches!(self, Self::NoLease(_) | Self::List(_) | Self::TellNot | Self::Passed(_))
    }

    /// Whether the answer says how many it has changed.
    pub(super) fn is_counted(&self) -> bool {
        matches!(
            self,
            Self::Tell(_) | Self::Ack(..) | Self::Nack(..) | Self::Extend(..) | Self::Redeliver | Self::Forget(_)
        )
    }

    /// Whether it may open what is settled; `has_letter`: or given up.
    pub(super) fn opens(&self, has_letter: bool) -> bool {
        let is_moved = matches!(self, Self::Seek(None | Some(false)) | Self::Delete | Self::Resume(false));
        is_moved || (has_letter && matches!(self, Self::Redeliver))
    }

    /// Whether it may change what is settled; `has_letter`: or given up.
    pub(super) fn is_for_settled(&self, has_letter: bool) -> bool {
        match self {
            Self::Seek(_) | Self::Delete | Self::Resume(false) => true,
            Self::List(_) | Self::Redeliver | Self::Forget(_) => has_letter,
            _ => false,
        }
    }
}

impl Letter {
    /// It is not given again any more.
    fn put_aside(self) -> Self {
        match self {
            Self::Again(tried, true) => Self::Listed(tried),
            Self::Again(_, false) => Self::No,
            other => other,
        }
    }
}

/// Given up, when it was tried often enough.
fn spent(tried: u32, most: u32, otherwise: At) -> At {
    if tried >= most { At::GivenUp(tried) } else { otherwise }
}

impl Step {
    /// Whether something may come of it: else it need not be tried.
    pub(super) fn may_act(&self, at: At) -> bool {
        match (&self.act, at) {
            (Act::MaybePlain | Act::MaybeLease(_) | Act::Plain | Act::Lease(..), at) => {
                matches!(at, At::Free(_) | At::Spent(_))
            }
            (Act::MaybeBack(None), at) => matches!(at, At::Done { .. }),
            (Act::MaybeBack(by), At::Held(hold)) => *by == Some(hold.by),
            (Act::MaybeBack(_), _) => false,
            (act, At::Held(hold)) => act.by().is_none_or(|by| by == hold.by),
            (act, _) => act.by().is_none(),
        }
    }

    /// Whether it need not have happened.
    pub(super) fn is_optional(&self) -> bool {
        !self.sure || matches!(self.act, Act::Doubted(..) | Act::MaybePlain | Act::MaybeLease(_) | Act::MaybeBack(_))
    }

    /// The transitions: what may come of it, and whether that is a change. None: it cannot have happened. `cuts`: whether
    /// retention may have taken its text.
    pub(super) fn outcomes(&self, now: Now, cuts: bool) -> Vec<(Now, bool)> {
        let Now { at, letter } = now;
        let same = || vec![(now, false)];
        let never = Vec::new;
        let to = |at: At| vec![(Now { at, letter }, true)];
        let or_same = |other: Vec<(Now, bool)>| [same(), other].concat();
        let done = |seen: bool| {
            // Acknowledged, it is no dead letter any more, if it has come again: by a redelivery, or by a seek.
            let has_come = !matches!(at, At::Done { .. } | At::Lost { .. });
            let letter = if has_come { Letter::No } else { letter };
            vec![(Now { at: At::Done { seen }, letter }, true)]
        };
        // It is no dead letter any more, also where it came again because of a seek.
        let acknowledged = || vec![(Now { at: At::Done { seen: true }, letter: Letter::No }, true)];
        let in_ms = |ms: (Millis, Millis)| (self.from.saturating_add(ms.0), self.to.saturating_add(ms.1));
        let taken = |tried: u32, leasing: Leasing| {
            let Leasing { by, lease, most, counts } = leasing;
            let was_spent = matches!(at, At::Spent(_));
            to(At::Held(Hold { by, tried: tried + 1, until: in_ms((lease, lease)), most, counts, was_spent }))
        };
        let away = |tried: u32| to(At::Away(tried, self.to));
        // Who holds it, if that is who is meant; without a name, whoever is to acknowledge it.
        let held = |by: Option<Hand>| match at {
            At::Held(hold) if by.map_or(hold.counts == Counts::Taking, |by| by == hold.by) => Some(hold),
            _ => None,
        };
        match (&self.act, at) {
            (Act::Plain, At::Free(_) | At::Spent(_)) => done(true),
            (Act::Plain, _) => never(),
            (Act::Lease(leasing, attempt), At::Free(tried) | At::Spent(tried))
                if tried < leasing.most && attempt.is_none_or(|attempt| attempt == tried + 1) =>
            {
                taken(tried, *leasing)
            }
            (Act::Lease(..), _) => never(),
            (Act::MaybePlain, At::Free(tried) | At::Spent(tried)) => or_same([done(false), away(tried)].concat()),
            (Act::MaybeLease(leasing), At::Free(tried) | At::Spent(tried)) if tried < leasing.most => {
                or_same([taken(tried, *leasing), away(tried)].concat())
            }
            (Act::MaybeBack(None), At::Done { .. }) => or_same(to(At::Free(0))),
            (Act::MaybeBack(Some(by)), _) if let Some(hold) = held(Some(*by)) => or_same(to(hold.uncounted())),
            (Act::Resume(true), At::Free(_) | At::Unborn | At::Done { .. }) => done(true),
            // What its reader had was not lost to it.
            (Act::Resume(true), At::Lost { told: false }) => to(At::Lost { told: true }),
            (Act::Resume(false), At::Done { .. }) if letter == Letter::No => to(At::Free(0)),
            // It was told to this reader, or to another that acknowledges.
            (Act::Resume(false), At::Lost { told: true }) => or_same(to(At::Lost { told: false })),
            (Act::Ack(Some(by), _) | Act::Taken(by), _) if held(Some(*by)).is_some() => acknowledged(),
            // By its name also when its lease is over, or its answer did not seem to arrive; not when it was never given.
            (Act::Ack(None, false), At::Free(0) | At::Unborn) => never(),
            (
                Act::Ack(None, _),
                At::Held(_) | At::Away(..) | At::Waits(..) | At::GivenUp(_) | At::Spent(_) | At::Free(_) | At::Unborn,
            ) => acknowledged(),
            (Act::Nack(by, delay), _) if let Some(Hold { tried, most, .. }) = held(*by) => {
                let back = if *delay == 0 { At::Free(tried) } else { At::Waits(tried, in_ms((*delay, *delay))) };
                to(spent(tried, most, back))
            }
            (Act::Extend(by, lease), _) if let Some(hold) = held(*by) => {
                let (low, high) = in_ms((*lease, *lease));
                // By its name it is not shortened.
                let before = if by.is_none() { hold.until } else { (0, 0) };
                to(At::Held(Hold { until: (low.max(before.0), high.max(before.1)), ..hold }))
            }
            (Act::NoLease(by), _) if held(Some(*by)).is_some() => never(),
            (Act::Failed(by, wait), _) if let Some(Hold { tried, most, .. }) = held(Some(*by)) => {
                to(spent(tried, most, At::Waits(tried, in_ms(*wait))))
            }
            (Act::Doubted(by, wait), _) if let Some(Hold { tried, most, .. }) = held(Some(*by)) => {
                let failed = to(spent(tried, most, At::Waits(tried, in_ms(*wait))));
                [acknowledged(), failed, to(At::Free(tried - 1))].concat()
            }
            (Act::Returned(by), _) if let Some(hold) = held(Some(*by)) => to(hold.uncounted()),
            (Act::Seek(settled), _) => {
                let letter = letter.put_aside();
                let place = |settled: bool| match at {
                    At::Lost { .. } => At::Lost { told: true },
                    _ if settled => At::Done { seen: true },
                    _ => At::Free(0),
                };
                let places = settled.map_or(vec![true, false], |settled| vec![settled]);
                places.into_iter().map(|settled| (Now { at: place(settled), letter }, false)).collect()
            }
            (Act::Delete, At::Lost { .. }) => vec![(Now { at: At::Lost { told: true }, letter: Letter::No }, false)],
            (Act::Delete, _) => vec![(Now { at: At::Unborn, letter: Letter::No }, false)],
            (Act::Redeliver, _) => match letter {
                Letter::Listed(tried) if !matches!(at, At::Lost { .. }) => {
                    let again = vec![(Now { at: At::Free(0), letter: Letter::Again(tried, true) }, true)];
                    if cuts { or_same(again) } else { again }
                }
                _ => same(),
            },
            (Act::Forget(all), _) => match letter {
                Letter::Listed(_) => vec![(Now { at, letter: Letter::No }, true)],
                // It comes all the same.
                Letter::Again(tried, true) if !all => vec![(Now { at, letter: Letter::Again(tried, false) }, true)],
                _ => same(),
            },
            (Act::List(said), _) => match (letter, said) {
                (Letter::No | Letter::Again(_, false), None) => same(),
                (Letter::Listed(tried), Some((said, false))) if tried == *said => same(),
                (Letter::Again(tried, true), Some((said, true))) if tried == *said => same(),
                _ => never(),
            },
            (Act::Tell(all), At::Lost { told: false }) => {
                let told = to(At::Lost { told: true });
                if *all { told } else { or_same(told) }
            }
            (Act::TellNot, At::Lost { told: false }) => never(),
            (Act::Passed(by), At::Held(hold)) if letter == Letter::No && *by != Some(hold.by) => never(),
            (Act::Passed(_), At::Unborn | At::Free(_) | At::Waits(..) | At::GivenUp(_) | At::Spent(_))
                if letter == Letter::No =>
            {
                never()
            }
            (Act::Born, At::Unborn) => never(),
            (Act::Nothing, At::Unborn | At::Free(_) | At::Spent(_)) => never(),
            (Act::Kept, At::Lost { .. }) => never(),
            // What was in somebody's hands is missed when it is to be given again.
            (Act::Cut, At::Unborn | At::Free(0)) => never(),
            (Act::Drain, At::Done { .. } | At::Lost { .. }) => same(),
            (Act::Drain, _) => never(),
            _ => same(),
        }
    }

    /// What counts as so after a deed that cannot have been.
    pub(super) fn forced(&self, now: Now) -> Now {
        match &self.act {
            Act::Kept => Now { at: At::Free(0), ..now },
            Act::Cut | Act::TellNot | Act::Tell(_) => Now { at: At::Lost { told: true }, ..now },
            Act::List(letter) => {
                let of = |(tried, again)| if again { Letter::Again(tried, true) } else { Letter::Listed(tried) };
                Now { letter: letter.map_or(Letter::No, of), ..now }
            }
            Act::Lease(leasing, attempt) => {
                let Leasing { by, most, counts, .. } = *leasing;
                let (until, was_spent) = ((0, Millis::MAX), false);
                Now { at: At::Held(Hold { by, tried: attempt.unwrap_or(1), until, most, counts, was_spent }), ..now }
            }
            _ => Now { at: At::Done { seen: true }, ..now },
        }
    }
}

/// An entry, and all that may be so of it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) key: Key,
    pub(super) stored: Millis,
    pub(super) configs: Vec<Config>,
}

/// One way in which it may be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Config {
    pub(super) now: Now,
    /// What the disk may still say, and since when it does not have to.
    pub(super) past: Vec<(Now, Millis)>,
    /// Which of the deeds that go on have happened, and which of them changed something.
    pub(super) applied: u128,
    pub(super) changed: u128,
    /// A kill has undone that it was settled.
    pub(super) undone: bool,
}

impl Known {
    pub(super) fn new(key: Key, stored: Millis) -> Self {
        let now = Now { at: At::Unborn, letter: Letter::No };
        Self { key, stored, configs: vec![Config { now, past: Vec::new(), applied: 0, changed: 0, undone: false }] }
    }

    /// There is a place that it is to be given by.
    pub(super) fn begin(&mut self) {
        if let [Config { now: Now { at: at @ At::Unborn, .. }, .. }] = &mut self.configs[..] {
            *at = At::Free(0);
        }
    }

    /// Whether it is settled, and nothing but an operator or its reader's word can change that.
    pub(super) fn is_settled(&self) -> bool {
        matches!(&self.configs[..], [one] if one.past.is_empty() && one.now.is_over())
    }

    pub(super) fn has_letter(&self) -> bool {
        self.configs.iter().any(|config| config.now.letter != Letter::No)
    }

    /// Whether nobody was seen to be given it.
    pub(super) fn is_unseen(&self) -> bool {
        self.configs.iter().all(|config| config.now.at == At::Done { seen: false })
    }
}

/// Which entries an act is about.
#[derive(Clone, Debug)]
pub(super) struct Range {
    pub(super) from: Entry,
    pub(super) to: Entry,
    /// In order.
    pub(super) but: Vec<Entry>,
    /// Only those of these keys, each before an entry.
    pub(super) before: Option<std::collections::HashMap<Key, Entry>>,
}

impl Range {
    pub(super) fn between(from: Entry, to: Entry) -> Self {
        Self { from, to, but: Vec::new(), before: None }
    }

    pub(super) fn all() -> Self {
        Self::between(0, Entry::MAX)
    }

    pub(super) fn up_to(to: Entry) -> Self {
        Self::between(0, to)
    }

    pub(super) fn after(at: Entry) -> Self {
        Self::between(at.saturating_add(1), Entry::MAX)
    }

    pub(super) fn contains(&self, entry: Entry, key: Key) -> bool {
        let is_before = |before: &std::collections::HashMap<Key, Entry>| before.get(&key).is_some_and(|&at| entry < at);
        (self.from..=self.to).contains(&entry)
            && self.before.as_ref().is_none_or(is_before)
            && self.but.binary_search(&entry).is_err()
    }
}
