//! All that may be so of one entry, from deed to deed.
//!
//! Between two points in time (a beginning or an end of a deed) what goes on may happen, in any order, and what is due does;
//! at a deed's end only what has it behind it is left.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::entry::{Act, At, Config, Known, Letter, Now, Step};
use super::words::{
    ATTEMPTS, Complaint, Counts, DELAY, Deed, Entry, GIVEN, Hand, IN_ORDER, LEASED, LETTERS, LOST, Millis,
};
use super::words::{NO_LEASE, ONCE, Terms};

pub(super) struct Sweep<'a> {
    pub(super) terms: &'a Terms,
    pub(super) entry: Entry,
    /// Retention had not taken it then.
    pub(super) kept_until: Millis,
    pub(super) counts: &'a mut [Count],
    pub(super) complaints: &'a mut Vec<Complaint>,
    /// Requests that gave what a kill had undone.
    pub(super) repeats: &'a mut BTreeSet<Hand>,
}

/// Of how many entries a deed has changed something: of so many surely, of so many perhaps.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) least: u64,
    pub(super) most: u64,
}

impl Sweep<'_> {
    pub(super) fn run(&mut self, known: &mut Known, steps: &[Step], (start, end): (Millis, Millis), deeds: &[Deed]) {
        // Beginnings before ends: deeds that touch overlap.
        let mut points: Vec<(Millis, bool, usize)> = Vec::new();
        for (n, step) in steps.iter().enumerate() {
            points.extend([(step.from, false, n), (step.to, true, n)]);
        }
        points.sort_unstable();
        points.push((end, true, usize::MAX));
        let openings = steps.iter().filter(|step| step.act.opens(true)).map(|step| (step.from, step.to));
        let openings: Vec<(Millis, Millis)> = openings.collect();
        let (mut time, mut going): (Millis, BTreeMap<usize, u32>) = (start, BTreeMap::new());
        for (at, is_end, n) in points {
            let step = steps.get(n);
            // What is settled is of no account to most deeds, unless it is opened while they go on.
            if let Some(step) = step
                && going.is_empty()
                && !step.act.is_for_settled(true)
                && !matches!(step.act, Act::Plain | Act::Lease(..))
                && !openings.iter().any(|&(from, to)| from <= step.to && step.from <= to)
            {
                self.forget(&mut known.configs, at);
                if known.is_settled() {
                    continue;
                }
            }
            if at > time {
                self.pass(known, (time, at), steps, &going);
                time = at;
            }
            let Some(step) = step else { break };
            if is_end && !going.contains_key(&n) {
                continue;
            }
            if !is_end {
                let is_free = |bit: &u32| going.values().all(|taken| taken != bit);
                let bit = (0..u128::BITS).find(is_free).expect("not so many deeds go on at once");
                going.insert(n, bit);
                continue;
            }
            // Also of those that took no time.
            self.pass(known, (time, time), steps, &going);
            let bit = going.remove(&n).unwrap_or_default();
            self.end(known, step, bit, deeds);
        }
        self.forget(&mut known.configs, end);
    }

    /// What the disk must say by now is not what it may say.
    fn forget(&self, configs: &mut Vec<Config>, now: Millis) {
        for config in configs.iter_mut() {
            config.past.retain(|&(_, left)| left.saturating_add(self.terms.round) >= now);
        }
        all_of(configs);
    }

    fn pass(&self, known: &mut Known, (from, to): (Millis, Millis), steps: &[Step], going: &BTreeMap<usize, u32>) {
        self.forget(&mut known.configs, from);
        for config in &mut known.configs {
            // What was due at the beginning has happened.
            let is_late = match config.now.at {
                At::Held(hold) => hold.until.1 < from,
                At::Waits(_, until) => until.1 < from,
                At::Away(_, until) => until < from,
                _ => false,
            };
            if is_late {
                config.now = config.now.due(from).unwrap_or(config.now);
            }
        }
        if going.is_empty() && known.is_settled() {
            return;
        }
        // What only says something of it is best said as soon as it is so: then later nothing contradicts it.
        let (asserts, acts): (Vec<_>, Vec<_>) = going.iter().partition(|(n, _)| steps[**n].act.is_assertion());
        // Of answers that did not arrive the one that may last longest speaks for all.
        let lasts = |n: usize| match steps[n].act {
            Act::MaybePlain => Some((0, steps[n].to)),
            Act::MaybeLease(leasing) => Some((1, steps[n].to.saturating_add(leasing.lease))),
            _ => None,
        };
        let outlasted = |n: usize| {
            let others = going.keys().filter_map(|&other| Some((lasts(other)?, other)));
            lasts(n).is_some_and(|(kind, until)| {
                others.into_iter().any(|((other, to), by)| other == kind && (to, by) > (until, n))
            })
        };
        let acts: Vec<_> = acts.into_iter().filter(|(n, _)| !outlasted(**n)).collect();
        let mask = asserts.iter().fold(0, |mask, (_, bit)| mask | 1 << **bit);
        let said = |mut config: Config| {
            for &(&n, &bit) in &asserts {
                if config.applied >> bit & 1 == 0 && !steps[n].outcomes(config.now, self.terms.cuts).is_empty() {
                    config.applied |= 1 << bit;
                }
            }
            config
        };
        let mut open: Vec<Config> = std::mem::take(&mut known.configs).into_iter().map(said).collect();
        let mut merged = Merged::new(&mut known.configs, mask);
        while let Some(config) = open.pop() {
            let Some(config) = merged.add(config) else { continue };
            let may_be_cut = self.terms.cuts && to > self.kept_until;
            let by_itself = config.now.due(to).into_iter().chain(config.now.by_itself(may_be_cut));
            open.extend(by_itself.map(|now| said(config.moved(now, to))));
            let may =
                |(n, bit): &&(&usize, &u32)| config.applied >> **bit & 1 == 0 && steps[**n].may_act(config.now.at);
            for &(&n, &bit) in acts.iter().filter(may) {
                open.extend(self.happens(&config, &steps[n], bit, to).into_iter().map(said));
            }
        }
    }

    /// A deed happens.
    fn happens(&self, config: &Config, step: &Step, bit: u32, at: Millis) -> Vec<Config> {
        let mark = |mut config: Config, changed: bool| {
            // What need not happen may happen again: nobody counts it.
            if step.is_optional() {
                return config;
            }
            config.applied |= 1 << bit;
            config.changed |= u128::from(changed) << bit;
            config
        };
        if let Act::Kill | Act::Stop = step.act {
            // A kill leaves what the disk says.
            let past = config.past.iter().map(|&(past, _)| past).filter(|_| matches!(step.act, Act::Kill));
            let was_done = matches!(config.now.at, At::Done { .. });
            let of = |now: Now| {
                let undone = config.undone || (was_done && !matches!(now.at, At::Done { .. }));
                mark(Config { now, past: Vec::new(), undone, ..config.clone() }, false)
            };
            return std::iter::once(config.now.image()).chain(past).map(of).collect();
        }
        let mut all = Vec::new();
        for (now, changed) in step.outcomes(config.now, self.terms.cuts) {
            if (step.is_optional() || step.act.by().is_some()) && now == config.now && !changed {
                continue;
            }
            // What is handed over counts so when its arrival was seen.
            let late = if matches!(step.act, Act::Plain | Act::Tell(_)) { self.terms.seen_after } else { 0 };
            let mut next = config.moved(now, step.to.max(at).saturating_add(late));
            if step.durable && step.sure {
                next.past.clear();
            }
            next.undone &= !matches!(step.act, Act::Seek(_) | Act::Delete);
            all.push(mark(next, changed));
        }
        all
    }

    /// A deed is over: it has happened.
    fn end(&mut self, known: &mut Known, step: &Step, bit: u32, deeds: &[Deed]) {
        let may: BTreeSet<Now> = known.configs.iter().map(|config| config.now).collect();
        let going = known.configs.iter().fold(0, |all, config| all | config.applied);
        let is_in_hand = |now: Now| matches!(now.at, At::Held(hold) if Some(hold.by) == step.act.by());
        known.configs.retain(|config| {
            let has_happened = config.applied >> bit & 1 == 1;
            has_happened || step.is_optional() || (step.act.by().is_some() && !is_in_hand(config.now))
        });
        if known.configs.is_empty() {
            let (expected, rule) = expected(&step.act, &may);
            self.complaints.push(deeds[step.deed].complain(Some(self.entry), expected, rule));
            // From here on it counts as if that had been right.
            self.counts[step.deed].most = u64::MAX;
            let now = may.first().map(|now| step.forced(*now)).expect("something is so before");
            known.configs.push(Config { now, past: Vec::new(), applied: going, changed: 0, undone: false });
        }
        let changed = |config: &Config| config.changed >> bit & 1 == 1;
        if step.act.is_counted() {
            let count = &mut self.counts[step.deed];
            count.least += u64::from(known.configs.iter().all(changed));
            count.most = count.most.saturating_add(u64::from(known.configs.iter().any(changed)));
        }
        let is_given = matches!(step.act, Act::Lease(..) | Act::Plain);
        if let Act::Lease(leasing, _) = step.act
            && leasing.counts == Counts::Failing
            && known.configs.iter().all(|config| config.undone)
        {
            self.repeats.insert(leasing.by);
        }
        for config in &mut known.configs {
            config.applied &= !(1 << bit);
            config.changed &= !(1 << bit);
            config.undone &= !is_given;
        }
        all_of(&mut known.configs);
    }
}

/// What may be so. What differs only in what the disk may say, or in what could be said of it (`asserts`), is one, with the
/// more of both.
struct Merged<'a> {
    configs: &'a mut Vec<Config>,
    asserts: u128,
    /// Where those of a key are; not kept while they are few.
    index: HashMap<Key, Vec<usize>>,
}

/// What those have in common that may be one.
type Key = (At, Letter, u128, u128, bool);

/// So many are looked through one by one.
const FEW: usize = 8;

impl<'a> Merged<'a> {
    fn new(configs: &'a mut Vec<Config>, asserts: u128) -> Self {
        Self { configs, asserts, index: HashMap::new() }
    }

    fn key(&self, config: &Config) -> Key {
        (config.now.at.at_any_time(), config.now.letter, config.changed, config.applied & !self.asserts, config.undone)
    }

    fn same(&self, new: &Config, key: &Key) -> Option<usize> {
        let may_be_said = |known: &Config| {
            let (mine, its) = (known.applied & self.asserts, new.applied & self.asserts);
            mine & its == mine || mine & its == its
        };
        if self.configs.len() > FEW {
            return self.index.get(key)?.iter().copied().find(|&at| may_be_said(&self.configs[at]));
        }
        self.configs.iter().position(|known| self.key(known) == *key && may_be_said(known))
    }

    fn push(&mut self, new: Config, key: Key) {
        self.configs.push(new);
        match self.configs.len() {
            len if len <= FEW => {}
            len if len == FEW + 1 => {
                for at in 0..len {
                    let key = self.key(&self.configs[at]);
                    self.index.entry(key).or_default().push(at);
                }
            }
            len => self.index.entry(key).or_default().push(len - 1),
        }
    }

    /// Adds one. Says what it is now, if that is new.
    fn add(&mut self, new: Config) -> Option<Config> {
        let key = self.key(&new);
        let Some(same) = self.same(&new, &key) else {
            self.push(new.clone(), key);
            return Some(new);
        };
        let same = &mut self.configs[same];
        let before = (same.applied, same.now.at);
        same.applied |= new.applied;
        // The one that may be away for longer may be back as soon as the other.
        same.now.at = same.now.at.max(new.now.at);
        let mut is_more = before != (same.applied, same.now.at);
        for (now, left) in new.past {
            match same.past.iter_mut().find(|(past, _)| *past == now) {
                Some((_, known)) if *known >= left => continue,
                Some((_, known)) => *known = left,
                None => same.past.push((now, left)),
            }
            is_more = true;
        }
        is_more.then(|| same.clone())
    }
}

fn all_of(configs: &mut Vec<Config>) {
    if configs.len() > 1 {
        let all = std::mem::take(configs);
        let mut merged = Merged::new(configs, 0);
        all.into_iter().for_each(|config| {
            merged.add(config);
        });
    }
}

impl Config {
    /// It is so now; the disk may say for a while what was before.
    fn moved(&self, now: Now, at: Millis) -> Self {
        let mut config = Self { now, ..self.clone() };
        let (before, after) = (self.now.image(), now.image());
        if before != after {
            config.past.retain(|(other, _)| *other != before);
            config.past.push((before, at));
            config.past.sort_unstable();
        }
        config
    }
}

/// What should have been, and where it is written.
fn expected(act: &Act, may: &BTreeSet<Now>) -> (String, &'static str) {
    let is = |what: fn(&At) -> bool| may.iter().any(|now| what(&now.at));
    let rule = match act {
        Act::Plain | Act::Lease(..) if is(|at| matches!(at, At::Held(_))) => LEASED,
        Act::Plain | Act::Lease(..) if is(|at| matches!(at, At::Waits(..))) => DELAY,
        Act::Lease(..) if is(|at| matches!(at, At::Free(_))) => ATTEMPTS,
        Act::Plain | Act::Lease(..) if may.iter().any(|now| now.letter != Letter::No) => LETTERS,
        Act::List(_) => LETTERS,
        Act::Tell(_) | Act::TellNot | Act::Kept | Act::Cut => LOST,
        Act::Drain | Act::Nothing => GIVEN,
        Act::NoLease(_) | Act::Ack(None, _) => NO_LEASE,
        Act::Passed(_) => IN_ORDER,
        _ => ONCE,
    };
    let all: Vec<String> = may.iter().take(4).map(|now| format!("{:?}, {:?}", now.at, now.letter)).collect();
    (format!("it is {}", all.join(" or ")), rule)
}
