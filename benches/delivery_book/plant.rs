//! Faults that are planted, to see them found: in every run, beside what is judged.
//!
//! When a life of the gateway is to be judged, all that happened in it is known. So it is known, too, where one thing told
//! otherwise would be a fault of the gateway for certain: nothing that goes on at that time explains it. There it is told
//! otherwise, to a copy of the model, and the copy must complain of it. What it complains of says nothing of the gateway; that
//! it does says that such a fault of the gateway would have been seen.

use std::collections::BTreeMap;
use std::sync::Mutex;

use delivery_model::{
    ATTEMPTS, Counts, DELAY, Deed, Entry, GIVEN, Gift, Hand, How, IN_ORDER, LEASED, LETTERS, LOST, Leasing, Millis,
    NEVER, NO_LEASE, Named, ONCE, Order, Terms, Told, What,
};

/// One thing that is told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    /// An event was not given.
    Drop,
    /// A webhook's request did not come.
    DropRequest,
    /// An event was given twice.
    Double,
    /// An event was given back, and had been acknowledged.
    ForgetAck,
    /// It was, as soon as the process was killed.
    ForgetAckAtKill,
    /// An event came before its delay was over.
    EarlyAgain,
    /// One was leased to another though its lease had been extended.
    ForgetExtend,
    /// One was leased to two.
    LeaseToTwo,
    /// A lease that stands was said not to.
    RefuseLease,
    /// An attempt was counted twice.
    WrongAttempt,
    /// There was one attempt more than there may be.
    OneTooMany,
    /// A webhook's request came again though it was taken.
    TakenAgain,
    /// One that failed did not come again.
    FailedAndForgotten,
    /// A seek went to the entry before.
    SeekOffByOne,
    /// A removal was forgotten.
    ForgetRemoval,
    /// A reader that came again was not given what it lacked.
    ResumeTooFar,
    /// A dead letter was not on the list.
    HideLetter,
    /// One was to be given again, and is not.
    ForgetRedelivery,
    /// One was given again, and nobody had said so.
    RedeliverUnasked,
    /// One was forgotten, and is on the list.
    ForgetForgetting,
    /// What retention took was not told.
    LossNotTold,
    /// It was told twice.
    LossToldTwice,
    /// It was told as one more than it was.
    WrongLost,
    /// Something was given that retention had taken.
    GivenThoughCut,
    /// It was said that all was given, and something was left.
    DrainedTooEarly,
    /// After a stop in order something came again.
    StopRepeats,
    /// After a kill something came again that was handed over long before.
    KillRepeatsOld,
}

impl Sort {
    pub const ALL: [Self; 27] = [
        Self::Drop,
        Self::DropRequest,
        Self::Double,
        Self::ForgetAck,
        Self::ForgetAckAtKill,
        Self::EarlyAgain,
        Self::ForgetExtend,
        Self::LeaseToTwo,
        Self::RefuseLease,
        Self::WrongAttempt,
        Self::OneTooMany,
        Self::TakenAgain,
        Self::FailedAndForgotten,
        Self::SeekOffByOne,
        Self::ForgetRemoval,
        Self::ResumeTooFar,
        Self::HideLetter,
        Self::ForgetRedelivery,
        Self::RedeliverUnasked,
        Self::ForgetForgetting,
        Self::LossNotTold,
        Self::LossToldTwice,
        Self::WrongLost,
        Self::GivenThoughCut,
        Self::DrainedTooEarly,
        Self::StopRepeats,
        Self::KillRepeatsOld,
    ];

    /// What it is found by.
    pub fn rules(self) -> &'static [&'static str] {
        match self {
            Self::Drop | Self::DropRequest | Self::FailedAndForgotten => &[IN_ORDER],
            Self::Double | Self::ForgetAck | Self::ForgetAckAtKill | Self::StopRepeats | Self::KillRepeatsOld => {
                &[ONCE, LETTERS]
            }
            Self::EarlyAgain => &[DELAY],
            Self::ForgetExtend | Self::LeaseToTwo => &[LEASED],
            Self::RefuseLease => &[NO_LEASE],
            Self::WrongAttempt => &[ATTEMPTS],
            Self::OneTooMany => &[LETTERS, ONCE, ATTEMPTS, LEASED],
            Self::TakenAgain => &[ONCE, LEASED, LETTERS],
            Self::SeekOffByOne => &[ONCE, LETTERS],
            Self::ForgetRemoval => &[IN_ORDER, ONCE, GIVEN],
            Self::ResumeTooFar | Self::DrainedTooEarly => &[GIVEN],
            Self::HideLetter | Self::ForgetRedelivery | Self::RedeliverUnasked | Self::ForgetForgetting => &[LETTERS],
            Self::LossNotTold | Self::LossToldTwice | Self::WrongLost => &[LOST],
            Self::GivenThoughCut => &[ONCE, LOST],
        }
    }
}

/// How often each was planted, and found.
#[derive(Default)]
pub struct Planted(Mutex<BTreeMap<Sort, (u64, u64)>>);

impl Planted {
    pub fn count(&self, sort: Sort, is_found: bool) {
        let mut all = self.0.lock().unwrap();
        let (planted, found) = all.entry(sort).or_default();
        *planted += 1;
        *found += u64::from(is_found);
    }

    /// (planted, found)
    pub fn of(&self, sort: Sort) -> (u64, u64) {
        self.0.lock().unwrap().get(&sort).copied().unwrap_or_default()
    }
}

/// A life of the gateway, as one subscription's model is told it.
pub struct Scene<'s> {
    pub terms: Terms,
    pub began: Millis,
    /// In it, and in the one before.
    pub deeds: &'s [Deed],
    pub before: &'s [Deed],
    /// Entries that came in it, each with the time since when it can have been there.
    pub came: &'s BTreeMap<Entry, Millis>,
    /// The last entry that was given before it.
    pub given: Entry,
}

impl Scene<'_> {
    /// What is told with such a fault. `None`: there is no place where it would be one for certain.
    pub fn with(&self, sort: Sort) -> Option<Vec<Deed>> {
        match sort {
            Sort::Drop => self.without_an_event(),
            Sort::DropRequest => self.without_a_request(),
            Sort::Double => self.doubled(),
            Sort::ForgetAck => self.given_back(|named, _| What::Acked(named)),
            Sort::EarlyAgain => self.given_back(What::Nacked),
            Sort::ForgetAckAtKill => self.acknowledged_before_a_kill(),
            Sort::ForgetExtend => self.extended(),
            Sort::LeaseToTwo => self.leased_twice(),
            Sort::RefuseLease => self.refused(),
            Sort::WrongAttempt => self.counted_twice(),
            Sort::OneTooMany => self.tried_too_often(),
            Sort::TakenAgain => self.taken(),
            Sort::FailedAndForgotten => self.failed(),
            Sort::SeekOffByOne => self.sought(),
            Sort::ForgetRemoval => self.removed(),
            Sort::ResumeTooFar => self.resumed(),
            Sort::HideLetter => self.letters(false, |deeds, at, entry| {
                if let What::Listed { letters, .. } = &mut deeds[at].what {
                    letters.retain(|&(of, ..)| of != entry);
                }
            }),
            Sort::ForgetRedelivery if !self.terms.cuts => self.letters(false, |deeds, at, entry| {
                let what = What::Redelivered { which: Some(vec![entry]), changed: Some(1) };
                deeds.push(at_once(deeds[at].from - 1, what));
            }),
            Sort::ForgetRedelivery => None,
            Sort::ForgetForgetting => self.letters(false, |deeds, at, entry| {
                let what = What::Forgotten { which: Some(vec![entry]), changed: Some(1) };
                deeds.push(at_once(deeds[at].from - 1, what));
            }),
            Sort::RedeliverUnasked => self.letters(true, |deeds, at, entry| {
                let until = deeds[at].from;
                let is_it = |deed: &Deed| matches!(&deed.what, What::Redelivered { which, .. } if which.as_ref().is_none_or(|which| which.contains(&entry)));
                deeds.retain(|deed| !(is_it(deed) && deed.from < until));
            }),
            Sort::LossNotTold => self.told_nothing(),
            Sort::LossToldTwice => self.told_twice(),
            Sort::WrongLost => self.told_one_more(),
            Sort::GivenThoughCut => self.cut(),
            Sort::DrainedTooEarly => self.drained(),
            Sort::StopRepeats => None,
            Sort::KillRepeatsOld => self.repeated(),
        }
    }

    /// The life before ended by a kill, and something that was handed over in it came again. So if the end is told as a stop
    /// in order, that is a fault.
    pub fn is_repeated(&self) -> bool {
        let given = self.before.iter().filter_map(plain).flatten();
        let again: Vec<Entry> = self.deeds.iter().filter_map(plain).flatten().map(|gift| gift.entry).collect();
        self.was_killed()
            && self.is_calm(self.before, 0, NEVER)
            && self.is_calm(self.deeds, 0, NEVER)
            && given.into_iter().any(|gift| again.contains(&gift.entry))
    }

    fn was_killed(&self) -> bool {
        self.before.iter().any(|deed| matches!(deed.what, What::Killed))
    }

    fn in_order(&self) -> bool {
        self.terms.order == Order::All
    }

    fn is_webhook(&self) -> bool {
        self.terms.requests.is_some()
    }

    /// Nobody changes by hand what was given.
    fn is_calm(&self, deeds: &[Deed], from: Millis, to: Millis) -> bool {
        let changes = |deed: &Deed| {
            matches!(
                deed.what,
                What::Sought { .. }
                    | What::Deleted
                    | What::Resumed { .. }
                    | What::Redelivered { .. }
                    | What::Forgotten { .. }
            )
        };
        !deeds.iter().any(|deed| changes(deed) && deed.from <= to && deed.to >= from)
    }

    /// No answer was lost.
    fn is_whole(&self, from: Millis, to: Millis) -> bool {
        let is_lost = |deed: &Deed| matches!(&deed.what, What::Broke { .. });
        !self.deeds.iter().any(|deed| is_lost(deed) && deed.from <= to && deed.to >= from)
    }

    /// Nothing happened to an entry until then: it came in this life, and no answer was lost since.
    fn is_untouched(&self, entry: Entry, until: Millis) -> bool {
        let given = |deed: &Deed| deed.to < until && gifts(deed).iter().any(|gift| gift.entry == entry);
        let is_it =
            |since: Millis| since <= until && self.is_whole(since, until) && self.is_calm(self.deeds, since, until);
        self.since(entry).is_some_and(is_it) && !self.deeds.iter().any(given)
    }

    /// Since when it is there, if nothing happened to it before this life. (Of what webhooks are sent no answer is lost.)
    fn since(&self, entry: Entry) -> Option<Millis> {
        let is_old = self.is_webhook() && entry > self.given;
        self.came.get(&entry).copied().or(is_old.then_some(self.began))
    }

    /// When it is given first after a time.
    fn again(&self, entry: Entry, after: Millis) -> Option<&Deed> {
        let gives = |deed: &&Deed| deed.from > after && gifts(deed).iter().any(|gift| gift.entry == entry);
        self.deeds.iter().filter(gives).min_by_key(|deed| deed.to)
    }

    /// What a hand was given, when, and on which terms.
    fn hand(&self, by: Hand) -> Option<(&Deed, Leasing, &[Gift])> {
        let mut all = self.deeds.iter().filter_map(|deed| leased(deed).map(|(leasing, gifts)| (deed, leasing, gifts)));
        all.find(|(_, leasing, _)| leasing.by == by)
    }

    /// Whether something is said of a hand, or of entries.
    fn is_named(&self, (by, gifts): (Hand, &[Gift]), from: Millis, to: Millis) -> bool {
        let names = |deed: &Deed| match &deed.what {
            What::Acked(named) | What::Nacked(named, _) | What::Extended(named, _) => {
                named.by == Some(by) || gifts.iter().any(|gift| named.entries.contains(&gift.entry))
            }
            What::NoSuchLease { by: of } => *of == by,
            What::Broke { .. } => true,
            _ => false,
        };
        self.deeds.iter().any(|deed| names(deed) && deed.from <= to && deed.to >= from)
    }

    fn changed(&self, n: usize, change: impl FnOnce(&mut Deed)) -> Option<Vec<Deed>> {
        let mut deeds = self.deeds.to_vec();
        change(&mut deeds[n]);
        Some(deeds)
    }

    fn and(&self, deed: Deed) -> Option<Vec<Deed>> {
        let mut deeds = self.deeds.to_vec();
        deeds.push(deed);
        Some(deeds)
    }

    fn sure(&self) -> impl Iterator<Item = (usize, &Deed)> {
        self.deeds.iter().enumerate().filter(|(_, deed)| deed.sure)
    }

    fn without_an_event(&self) -> Option<Vec<Deed>> {
        if !self.in_order() || self.terms.cuts {
            return None;
        }
        let place = |&(n, deed): &(usize, &Deed)| match plain(&self.deeds[n]) {
            Some([first, _, ..]) => self.is_untouched(first.entry, deed.to),
            _ => false,
        };
        let (n, _) = self.sure().find(place)?;
        self.changed(n, |deed| {
            if let What::Given { gifts, .. } = &mut deed.what {
                gifts.remove(0);
            }
        })
    }

    fn without_a_request(&self) -> Option<Vec<Deed>> {
        if !self.in_order() || !self.is_webhook() || self.terms.cuts {
            return None;
        }
        let place = |deed: &Deed| {
            let (leasing, gifts) = leased(deed)?;
            let entry = gifts.first()?.entry;
            let next = self.next(deed)?;
            (self.is_taken(leasing.by)
                && self.is_untouched(entry, deed.to)
                && self.is_calm(self.deeds, deed.from, next.to))
            .then_some(leasing.by)
        };
        let by = self.deeds.iter().find_map(place)?;
        let is_it = |deed: &Deed| leased(deed).is_some_and(|(leasing, _)| leasing.by == by);
        Some(self.deeds.iter().filter(|deed| !is_it(deed)).cloned().collect())
    }

    /// What a webhook is given after this, that nobody has given again.
    fn next(&self, deed: &Deed) -> Option<&Deed> {
        let last = gifts(deed).last()?.entry;
        let is_next = |next: &&Deed| {
            next.to > deed.to
                && gifts(next).first().is_some_and(|gift| gift.entry > last && self.since(gift.entry).is_some())
        };
        self.deeds.iter().filter(is_next).min_by_key(|next| next.to)
    }

    fn is_taken(&self, by: Hand) -> bool {
        self.deeds.iter().any(|deed| deed.sure && matches!(deed.what, What::Taken { by: of } if of == by))
    }

    fn doubled(&self) -> Option<Vec<Deed>> {
        let is_place = |deed: &&Deed| {
            plain(deed).is_some_and(|gifts| !gifts.is_empty())
                && self.is_whole(deed.from, deed.to)
                && self.is_calm(self.deeds, deed.from, deed.to)
        };
        self.and(self.sure().map(|(_, deed)| deed).find(is_place)?.clone())
    }

    /// A lease is given back, and something of it is given again.
    fn given_back(&self, told: impl Fn(Named, Millis) -> What) -> Option<Vec<Deed>> {
        for (n, deed) in self.sure() {
            let What::Nacked(named @ Named { by: Some(by), changed, .. }, _) = &deed.what else { continue };
            let Some((given, leasing, gifts)) = self.hand(*by) else { continue };
            if *changed != Some(gifts.len() as u64) || deed.to + 50 > given.from + leasing.lease {
                continue;
            }
            let again = gifts.iter().filter_map(|gift| self.again(gift.entry, deed.to));
            let Some(again) = again.min_by_key(|again| again.to) else { continue };
            if self.is_calm(self.deeds, deed.from, again.to) && !self.is_named((*by, gifts), deed.to + 1, again.to) {
                let delay = again.to - deed.from + 200;
                return self.changed(n, |deed| deed.what = told(named.clone(), delay));
            }
        }
        None
    }

    fn acknowledged_before_a_kill(&self) -> Option<Vec<Deed>> {
        let before = Scene { deeds: self.before, before: &[], ..*self };
        let kill = self.before.iter().find(|deed| matches!(deed.what, What::Killed))?;
        for (_, deed) in before.sure() {
            let What::Acked(Named { by: Some(by), changed, .. }) = &deed.what else { continue };
            let Some((given, _, gifts)) = before.hand(*by) else { continue };
            let is_all = *changed == Some(gifts.len() as u64) && !gifts.is_empty();
            if is_all && deed.to + 300 > kill.from && self.is_calm(self.before, given.from, NEVER) {
                let leasing = Leasing { by: Hand::MAX, lease: 1000, most: 100, counts: Counts::Taking };
                let gifts = vec![Gift { entry: gifts[0].entry, attempt: None }];
                let what = What::Given { how: How::Leased(leasing), gifts, told: Told::Cannot };
                return self.and(at_once(self.began + 1, what));
            }
        }
        None
    }

    fn extended(&self) -> Option<Vec<Deed>> {
        for (_, deed) in self.sure() {
            let Some((leasing, gifts @ [gift, ..])) = leased(deed) else { continue };
            let Some(again) = self.again(gift.entry, deed.to + 2) else { continue };
            let (by, is_short) = (leasing.by, deed.to < deed.from + leasing.lease / 2);
            if leasing.counts == Counts::Taking
                && is_short
                && !self.is_named((by, gifts), deed.from, again.to)
                && self.is_calm(self.deeds, deed.from, again.to)
            {
                let what = What::Extended(Named { by: Some(by), entries: Vec::new(), changed: None }, again.to);
                return self.and(at_once(deed.to + 1, what));
            }
        }
        None
    }

    fn leased_twice(&self) -> Option<Vec<Deed>> {
        let is_place = |deed: &&Deed| {
            leased(deed).is_some_and(|(leasing, gifts)| {
                !gifts.is_empty() && deed.to < deed.from.saturating_add(leasing.lease / 2)
            }) && self.is_whole(deed.from, deed.to)
                && self.is_calm(self.deeds, deed.from, deed.to)
        };
        let mut deed = self.sure().map(|(_, deed)| deed).find(is_place)?.clone();
        if let What::Given { how: How::Leased(leasing), .. } = &mut deed.what {
            leasing.by = Hand::MAX;
        }
        self.and(deed)
    }

    fn refused(&self) -> Option<Vec<Deed>> {
        for (_, deed) in self.sure() {
            let Some((leasing, gifts @ [_, ..])) = leased(deed) else { continue };
            if leasing.counts == Counts::Taking
                && deed.to < deed.from + leasing.lease / 2
                && !self.is_named((leasing.by, gifts), deed.from, deed.to + 2)
                && self.is_calm(self.deeds, deed.from, deed.to + 2)
            {
                return self.and(at_once(deed.to + 1, What::NoSuchLease { by: leasing.by }));
            }
        }
        None
    }

    fn counted_twice(&self) -> Option<Vec<Deed>> {
        let is_place = |&(_, deed): &(usize, &Deed)| {
            leased(deed).is_some_and(|(leasing, gifts)| {
                leasing.counts == Counts::Taking && leasing.most > 1 && self.is_first(gifts, deed)
            })
        };
        let (n, _) = self.sure().find(is_place)?;
        self.changed(n, |deed| {
            if let What::Given { gifts, .. } = &mut deed.what {
                gifts[0].attempt = Some(2);
            }
        })
    }

    /// Whether this is the first that happens to the first of them.
    fn is_first(&self, gifts: &[Gift], deed: &Deed) -> bool {
        gifts.first().is_some_and(|gift| self.is_untouched(gift.entry, deed.to))
    }

    /// What was tried once, and is tried again, was to be tried once.
    fn tried_too_often(&self) -> Option<Vec<Deed>> {
        for (_, deed) in self.sure() {
            let by = match &deed.what {
                What::Failed { by, .. } => *by,
                What::Nacked(Named { by: Some(by), .. }, _) => *by,
                _ => continue,
            };
            let Some((given, leasing, gifts)) = self.hand(by) else { continue };
            let is_whole = match &deed.what {
                What::Nacked(named, _) => {
                    named.changed == Some(gifts.len() as u64) && deed.to + 50 < given.from + leasing.lease
                }
                _ => true,
            };
            let again = gifts.first().and_then(|gift| self.again(gift.entry, deed.from));
            if let Some((again, (leased_again, _))) = again.and_then(|again| Some((again, leased(again)?)))
                && is_whole
                && self.is_first(gifts, given)
                && self.is_calm(self.deeds, given.from, again.to)
            {
                let mut deeds = self.deeds.to_vec();
                for deed in &mut deeds {
                    if let What::Given { how: How::Leased(leasing), .. } = &mut deed.what
                        && (leasing.by == by || leasing.by == leased_again.by)
                    {
                        leasing.most = 1;
                    }
                }
                return Some(deeds);
            }
        }
        None
    }

    fn taken(&self) -> Option<Vec<Deed>> {
        for (n, deed) in self.sure() {
            let What::Failed { by, .. } = deed.what else { continue };
            let Some((given, _, [gift, ..])) = self.hand(by) else { continue };
            if let Some(again) = self.again(gift.entry, given.to)
                && again.to > deed.to
                && self.is_calm(self.deeds, given.from, again.to)
            {
                return self.changed(n, |deed| deed.what = What::Taken { by });
            }
        }
        None
    }

    fn failed(&self) -> Option<Vec<Deed>> {
        if !self.in_order() || !self.is_webhook() || self.terms.cuts {
            return None;
        }
        for (n, deed) in self.sure() {
            let What::Taken { by } = deed.what else { continue };
            let Some((given, _, gifts)) = self.hand(by) else { continue };
            if self.is_first(gifts, given)
                && let Some(next) = self.next(given)
                && self.is_calm(self.deeds, given.from, next.to)
            {
                return self.changed(n, |deed| deed.what = What::Failed { by, wait: (60_000, NEVER) });
            }
        }
        None
    }

    fn sought(&self) -> Option<Vec<Deed>> {
        for (n, deed) in self.sure() {
            let What::Sought { between: (at, to) } = deed.what else { continue };
            let Some(given) = self.again(at + 1, deed.to) else { continue };
            // It was there when the place was moved.
            let was_there =
                |earlier: &Deed| earlier.to < deed.from && gifts(earlier).iter().any(|gift| gift.entry > at);
            if at == to
                && self.before.iter().chain(self.deeds).any(was_there)
                && self.is_calm(self.deeds, deed.to + 1, given.to)
            {
                return self.changed(n, |deed| deed.what = What::Sought { between: (at + 1, at + 1) });
            }
        }
        None
    }

    fn removed(&self) -> Option<Vec<Deed>> {
        if !self.in_order() || self.is_webhook() || self.terms.cuts {
            return None;
        }
        let is_given = |deed: &&Deed| plain(deed).is_some_and(|gifts| !gifts.is_empty());
        let all: Vec<&Deed> = self.sure().map(|(_, deed)| deed).filter(is_given).collect();
        let is_place = |two: &&[&Deed]| {
            let (from, to) = (two[0].to, two[1].to);
            gifts(two[0]).last().map(|gift| gift.entry) < gifts(two[1]).first().map(|gift| gift.entry)
                && two[1].from > from + 2
                && self.is_whole(from, to)
                && self.is_calm(self.deeds, from, to)
        };
        let two = all.windows(2).find(is_place)?;
        self.and(at_once(two[0].to + 1, What::Deleted))
    }

    fn resumed(&self) -> Option<Vec<Deed>> {
        if self.terms.cuts {
            return None;
        }
        for (n, deed) in self.sure() {
            let What::Resumed { last } = deed.what else { continue };
            let had = |deed: &Deed| plain(deed).is_some_and(|gifts| gifts.iter().any(|gift| gift.entry == last));
            let says = |&&(_, other): &&(usize, &Deed)| matches!(other.what, What::Nothing { up_to } if up_to >= last && other.from > deed.to);
            let all: Vec<(usize, &Deed)> = self.sure().collect();
            let Some((_, nothing)) = all.iter().find(says) else { continue };
            if self.before.iter().chain(self.deeds).any(had)
                && self.is_whole(deed.from, nothing.to)
                && self.is_calm(self.deeds, deed.to + 1, nothing.to)
            {
                return self.changed(n, |deed| deed.what = What::Resumed { last: last - 1 });
            }
        }
        None
    }

    /// The list of dead letters was asked for twice, and a letter was on it both times. `again`: one that is given again by
    /// then, and was not.
    fn letters(&self, again: bool, change: impl FnOnce(&mut Vec<Deed>, usize, Entry)) -> Option<Vec<Deed>> {
        let mut lists: Vec<(usize, &Deed)> =
            self.sure().filter(|(_, deed)| matches!(deed.what, What::Listed { .. })).collect();
        lists.sort_by_key(|(_, deed)| deed.from);
        let listed = |deed: &Deed| match &deed.what {
            What::Listed { letters, .. } => letters.clone(),
            _ => Vec::new(),
        };
        for two in lists.windows(2) {
            let ((_, first), (n, second)) = (two[0], two[1]);
            let then = listed(second);
            let stays = |&&(entry, tried, was): &&(Entry, u32, bool)| !was && then.contains(&(entry, tried, again));
            let place = listed(first).iter().find(stays).map(|&(entry, ..)| entry);
            if let Some(entry) = place
                && second.from > first.to + 2
                && (again || self.is_calm(self.deeds, first.from, second.to))
            {
                let mut deeds = self.deeds.to_vec();
                change(&mut deeds, n, entry);
                return Some(deeds);
            }
        }
        None
    }

    /// Markers of what retention took, before something that was given.
    fn markers(&self) -> impl Iterator<Item = (usize, &Deed, Entry)> {
        let is_told = |(n, deed): (usize, &'_ Deed)| match &deed.what {
            What::Given { how: How::Plain, gifts, told: Told::Lost(_) } => Some((n, gifts.first()?.entry)),
            _ => None,
        };
        self.sure().filter_map(is_told).map(|(n, entry)| (n, &self.deeds[n], entry))
    }

    /// Where the log began: the last time that it was asked before, and the first time after.
    fn earliest(&self, from: Millis, to: Millis) -> (Option<Entry>, Option<Entry>) {
        let said = |deed: &Deed| if let What::Earliest(at) = deed.what { Some((deed.from, deed.to, at)) } else { None };
        let before =
            self.deeds.iter().filter_map(said).filter(|&(_, end, _)| end < from).max_by_key(|&(_, end, _)| end);
        let after = self.deeds.iter().filter_map(said).filter(|&(begin, ..)| begin > to).min();
        (before.map(|(.., at)| at), after.map(|(.., at)| at))
    }

    fn told_nothing(&self) -> Option<Vec<Deed>> {
        if !self.in_order() || self.is_webhook() {
            return None;
        }
        let is_place = |&(_, deed, first): &(usize, &Deed, Entry)| {
            let earliest = self.earliest(deed.from, deed.to).0.unwrap_or(0);
            let is_lost = |(&entry, &since): (&Entry, &Millis)| {
                let told = |other: &Deed| {
                    matches!(other.what, What::Given { told: Told::Lost(_), .. })
                        && other.to >= since
                        && other.to < deed.to
                };
                // The subscription was there before it.
                let read = |other: &Deed| other.to < since && !gifts(other).is_empty();
                (self.given > 0 || self.deeds.iter().any(read))
                    && entry < first.min(earliest)
                    && self.is_untouched(entry, deed.to)
                    && !self.deeds.iter().any(told)
            };
            self.came.iter().any(is_lost)
        };
        let (n, ..) = self.markers().find(is_place)?;
        self.changed(n, |deed| {
            if let What::Given { told, .. } = &mut deed.what {
                *told = Told::Nothing;
            }
        })
    }

    fn told_twice(&self) -> Option<Vec<Deed>> {
        if !self.in_order() || self.is_webhook() {
            return None;
        }
        let is_place = |&(_, deed, first): &(usize, &Deed, Entry)| {
            let last = gifts(deed).last().map_or(0, |gift| gift.entry);
            let is_next = |other: &Deed| !gifts(other).is_empty() && other.from > deed.to && other.from <= deed.to + 2;
            self.earliest(deed.from, deed.to + 1).0.is_some_and(|at| at >= first)
                && self.earliest(deed.from, deed.to + 1).1.is_some_and(|at| at <= last + 1)
                && !self.deeds.iter().any(is_next)
        };
        let (_, deed, _) = self.markers().find(is_place)?;
        let what = What::Given { how: How::Plain, gifts: Vec::new(), told: Told::Lost(None) };
        self.and(at_once(deed.to + 1, what))
    }

    /// A stream of one reader says how many: all that lies between what it had and where the log begins.
    fn told_one_more(&self) -> Option<Vec<Deed>> {
        for (n, deed) in self.sure() {
            let What::Given { told: Told::Lost(Some(lost)), .. } = deed.what else { continue };
            let (before, after) = self.earliest(deed.from, deed.to);
            let resumed = |other: &Deed| matches!(other.what, What::Resumed { .. }) && other.from == deed.from;
            if before.is_some() && before == after && self.deeds.iter().any(resumed) {
                return self.changed(n, |deed| {
                    if let What::Given { told, .. } = &mut deed.what {
                        *told = Told::Lost(Some(lost + 1));
                    }
                });
            }
        }
        None
    }

    fn cut(&self) -> Option<Vec<Deed>> {
        if !self.terms.cuts || self.is_webhook() {
            return None;
        }
        let is_place = |deed: &Deed| {
            let gift = plain(deed)?.last()?;
            (self.since(gift.entry)? + 2 < deed.from && self.is_untouched(gift.entry, deed.to))
                .then_some((deed.from, gift.entry))
        };
        let (from, entry) = self.sure().find_map(|(_, deed)| is_place(deed))?;
        self.and(at_once(from - 1, What::Earliest(entry + 1)))
    }

    fn drained(&self) -> Option<Vec<Deed>> {
        if self.terms.cuts {
            return None;
        }
        let is_place = |deed: &Deed| {
            let gift = gifts(deed).last()?;
            (self.since(gift.entry)? + 2 < deed.from && self.is_untouched(gift.entry, deed.to))
                .then_some((deed.from, gift.entry))
        };
        let (from, entry) = self.sure().find_map(|(_, deed)| is_place(deed))?;
        self.and(at_once(from - 1, What::Drained { up_to: entry }))
    }

    fn repeated(&self) -> Option<Vec<Deed>> {
        let kill = self.before.iter().find(|deed| matches!(deed.what, What::Killed))?;
        let known = self.terms.round + self.terms.seen_after + 100;
        let is_old =
            |deed: &&Deed| plain(deed).is_some_and(|g| !g.is_empty()) && deed.sure && deed.to + known < kill.from;
        let seen = |entry: Entry| {
            self.before.iter().any(|deed| matches!(&deed.what, What::Broke { seen, .. } if seen.contains(&entry)))
        };
        let old = self.before.iter().filter(is_old).max_by_key(|deed| deed.to)?;
        let entry = gifts(old).last()?.entry;
        if seen(entry) || !self.is_calm(self.before, old.from, NEVER) {
            return None;
        }
        let gifts = vec![Gift { entry, attempt: None }];
        let what = What::Given { how: How::Plain, gifts, told: Told::Cannot };
        self.and(at_once(self.began + 1, what))
    }
}

/// What happened to an entry, in a few words each.
pub fn story(deeds: &[Deed], entry: Entry) -> Vec<String> {
    let has = |gifts: &[Gift]| gifts.iter().any(|gift| gift.entry == entry);
    let hands: Vec<Hand> =
        deeds.iter().filter_map(leased).filter(|(_, gifts)| has(gifts)).map(|(leasing, _)| leasing.by).collect();
    let is_of_it = |deed: &&Deed| match &deed.what {
        What::Given { gifts, .. } => has(gifts),
        What::Acked(named) | What::Nacked(named, _) | What::Extended(named, _) => {
            named.by.is_some_and(|by| hands.contains(&by)) || named.entries.contains(&entry)
        }
        What::Taken { by }
        | What::Failed { by, .. }
        | What::Doubted { by, .. }
        | What::Returned { by }
        | What::NoSuchLease { by } => hands.contains(by),
        What::Earliest(_) | What::Nothing { .. } | What::Listed { .. } | What::Drained { .. } => false,
        _ => true,
    };
    let mut story: Vec<&Deed> = deeds.iter().filter(is_of_it).collect();
    story.sort_by_key(|deed| (deed.from, deed.to));
    let told = |deed: &&Deed| {
        let Deed { from, to, sure, what } = deed;
        format!("{from} to {to}{}: {what:?}", if *sure { "" } else { ", perhaps" }).chars().take(240).collect()
    };
    story.iter().map(told).collect()
}

fn at_once(at: Millis, what: What) -> Deed {
    Deed { from: at, to: at, sure: true, what }
}

fn gifts(deed: &Deed) -> &[Gift] {
    if let What::Given { gifts, .. } = &deed.what { gifts } else { &[] }
}

/// What was handed over.
fn plain(deed: &Deed) -> Option<&[Gift]> {
    if let What::Given { how: How::Plain, gifts, .. } = &deed.what { Some(gifts) } else { None }
}

/// What was leased, and how.
fn leased(deed: &Deed) -> Option<(Leasing, &[Gift])> {
    if let What::Given { how: How::Leased(leasing), gifts, .. } = &deed.what { Some((*leasing, gifts)) } else { None }
}
