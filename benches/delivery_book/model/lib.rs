//! The reference model: what the gateway promises of one subscription, entry by entry, and a judge of what came.
//!
//! It is told, in plain words, what was asked and what was answered, and when ([`words`]); it has no clock, no network and
//! no chance of its own. Of each entry it knows where it may be ([`entry`]): not given, in flight (to whom, until when,
//! which attempt), waiting, done, given up, lost; and what of that the disk may say. Every deed is a transition of it.
//!
//! A deed happens at one instant between its two times. Of deeds whose times overlap either order is right; of others only
//! theirs. So the model keeps, for each entry, all that may be so, and drops at a deed's end all in which it has not
//! happened ([`sweep`]). When nothing is left, what came is not what was promised: a [`Complaint`]. Each entry is judged by
//! itself; what is promised of several together (what waits for what, how many) is judged of each, too, or counted.
//!
//! What may come again, and nothing else: after a kill what was handed over, or handed out for the first time, in the last
//! round ([`Terms::round`]); and what did not arrive. Of a webhook, at most [`Terms::requests`]. A stop in order repeats
//! nothing.

mod entry;
mod sweep;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use self::entry::{Act, Known, Range, Step};
use self::sweep::{Count, Sweep};
pub use self::words::*;

/// So many entries before the log's beginning are remembered.
const REMEMBERED: Entry = 5000;

/// See the module.
#[derive(Clone, Debug)]
pub struct Model {
    terms: Terms,
    entries: BTreeMap<Entry, Known>,
    deeds: Vec<Deed>,
    /// What each hand was given.
    hands: HashMap<Hand, Vec<Entry>>,
    /// What was in any of them.
    given: HashSet<Entry>,
    /// Until when all is judged.
    judged: Millis,
    /// Whether the subscription has a place: it was read since it was removed, or ever.
    is_born: bool,
    /// How many entries may be in plain answers that did not arrive.
    may_be_unseen: u64,
    /// Requests that gave what the last kill had undone.
    repeats: BTreeSet<Hand>,
    /// How many transitions were judged.
    pub steps: u64,
}

impl Model {
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            entries: BTreeMap::new(),
            deeds: Vec::new(),
            hands: HashMap::new(),
            given: HashSet::new(),
            judged: 0,
            is_born: false,
            may_be_unseen: 0,
            repeats: BTreeSet::new(),
            steps: 0,
        }
    }

    /// What holds from here on: a machine that is late makes rounds longer.
    pub fn holds(&mut self, terms: Terms) {
        self.terms = terms;
    }

    /// The log has an entry, since then at the latest.
    pub fn stored(&mut self, entry: Entry, key: Key, at: Millis) {
        self.entries.entry(entry).or_insert_with(|| Known::new(key, at));
    }

    /// Something was done.
    pub fn apply(&mut self, deed: Deed) {
        match &deed.what {
            What::Given { how: How::Leased(leasing), gifts, .. } => {
                self.hands.entry(leasing.by).or_default().extend(gifts.iter().map(|gift| gift.entry));
                self.given.extend(gifts.iter().map(|gift| gift.entry));
            }
            What::Broke { how: How::Plain, limit, .. } => self.may_be_unseen += *limit as u64,
            // Of what the log's beginning was seen to be, the first and the last time count.
            What::Earliest(at) => {
                let of_same = |deed: &Deed| matches!(deed.what, What::Earliest(other) if other == *at);
                let seen: Vec<usize> = (0..self.deeds.len()).filter(|&n| of_same(&self.deeds[n])).collect();
                if let [_, .., last] = seen[..] {
                    self.deeds.remove(last);
                }
            }
            _ => {}
        }
        self.deeds.push(deed);
    }

    /// Judges all that was applied. To be asked when nothing goes on: no deed that is told later may have begun before.
    pub fn judge(&mut self, now: Millis) -> Vec<Complaint> {
        let deeds = std::mem::take(&mut self.deeds);
        let (mut complaints, mut counts) = (misshapen(&deeds), vec![Count::default(); deeds.len()]);
        let everywhere = self.everywhere(&deeds);
        self.begin(&deeds);
        let changes_settled = everywhere.iter().any(|(_, step)| step.act.is_for_settled(false));
        let mut own = self.own(&deeds);
        for (&entry, known) in &mut self.entries {
            let mut steps = own.remove(&entry).unwrap_or_default();
            let (is_settled, has_letter) = (known.is_settled() && steps.is_empty(), known.has_letter());
            if is_settled && !has_letter && !changes_settled {
                continue;
            }
            // What is open once more is held against all.
            let opens = |(range, step): &(Range, Step)| {
                step.act.opens(has_letter) && step.to >= known.stored && range.contains(entry, known.key)
            };
            let is_settled = is_settled && !everywhere.iter().any(opens);
            let is_meant = |(range, step): &&(Range, Step)| {
                // Before it was stored nothing happened to it.
                step.to >= known.stored
                    && (!is_settled || step.act.is_for_settled(has_letter))
                    && range.contains(entry, known.key)
            };
            let of_all: Vec<&Step> = everywhere.iter().filter(is_meant).map(|(_, step)| step).collect();
            // That it was passed says nothing new long after it was last touched.
            let touches = steps.iter().chain(of_all.iter().copied().filter(|step| step.act.is_for_settled(true)));
            let last = touches.map(|step| step.to).max().unwrap_or(0).saturating_add(self.terms.round);
            let mut passed = 0;
            let says_new = |step: &&&Step| {
                passed += u32::from(matches!(step.act, Act::Passed(_)) && step.from > last);
                passed <= 3 || !matches!(step.act, Act::Passed(_)) || step.from <= last
            };
            steps.extend(of_all.iter().filter(says_new).map(|step| (*step).clone()));
            if steps.is_empty() && is_settled {
                continue;
            }
            self.steps += steps.len() as u64;
            let kept_until = kept_until(&deeds, entry);
            let (counts, complaints, repeats) = (&mut counts, &mut complaints, &mut self.repeats);
            let mut sweep = Sweep { terms: &self.terms, entry, kept_until, counts, complaints, repeats };
            sweep.run(known, &steps, (self.judged.max(known.stored), now), &deeds);
        }
        for (entry, steps) in own {
            // Retention has taken it long ago, or it never was.
            let given = steps.iter().find(|step| matches!(step.act, Act::Plain | Act::Lease(..)));
            complaints.extend(given.map(|step| deeds[step.deed].complain(Some(entry), "there is none".into(), ONCE)));
        }
        self.counted(&deeds, &counts, &mut complaints);
        let earliest = deeds.iter().filter_map(|deed| if let What::Earliest(at) = deed.what { Some(at) } else { None });
        // (A reader that comes again may ask for what it had.)
        let earliest = earliest.max().unwrap_or(0).saturating_sub(REMEMBERED);
        self.entries.retain(|&entry, known| entry >= earliest || !known.is_settled() || known.has_letter());
        let is_removed = deeds.iter().any(|deed| matches!(deed.what, What::Deleted));
        self.is_born = !is_removed && (self.is_born || deeds.iter().any(Deed::is_read));
        self.judged = now;
        complaints
    }

    /// How many entries nobody was seen to be given. Each was in an answer that did not arrive, or it is lost.
    pub fn unseen(&self) -> Result<u64, Complaint> {
        let (unseen, most) = (self.entries.values().filter(|k| k.is_unseen()).count() as u64, self.may_be_unseen);
        let came = format!("{unseen} entries were never seen");
        let expected = format!("at most {most} were in answers that broke off");
        let complaint = Complaint { entry: None, when: (0, self.judged), came, expected, rule: UNSEEN };
        if unseen <= most { Ok(unseen) } else { Err(complaint) }
    }

    /// Steps of the entries that a deed names.
    fn own(&self, deeds: &[Deed]) -> HashMap<Entry, Vec<Step>> {
        let mut own: HashMap<Entry, Vec<Step>> = HashMap::new();
        let of_hand = |by: Hand| self.hands.get(&by).cloned().unwrap_or_default();
        let of = |named: &Named| named.by.map_or_else(|| named.entries.clone(), of_hand);
        for (n, deed) in deeds.iter().enumerate() {
            let mut add = |entries: Vec<Entry>, durable: bool, act: Act| {
                for entry in entries {
                    own.entry(entry).or_default().push(deed.step(n, durable, act.clone()));
                }
            };
            match &deed.what {
                What::Given { how, gifts, .. } => {
                    for Gift { entry, attempt } in gifts.iter().copied() {
                        let act = match *how {
                            How::Plain => Act::Plain,
                            How::Leased(leasing) => Act::Lease(leasing, attempt),
                        };
                        // A second attempt is stored before it is handed out.
                        add(vec![entry], attempt.is_some_and(|attempt| attempt > 1), act);
                    }
                }
                What::Broke { how, seen, .. } => add(seen.clone(), false, Act::MaybeBack(how.by())),
                What::Acked(named) => {
                    for entry in of(named) {
                        add(vec![entry], true, Act::Ack(named.by, self.given.contains(&entry)));
                    }
                }
                What::Nacked(named, delay) => add(of(named), *delay > 0, Act::Nack(named.by, *delay)),
                What::Extended(named, lease) => add(of(named), false, Act::Extend(named.by, *lease)),
                What::NoSuchLease { by } => add(of_hand(*by), false, Act::NoLease(*by)),
                What::Taken { by } => add(of_hand(*by), false, Act::Taken(*by)),
                What::Failed { by, wait } => add(of_hand(*by), true, Act::Failed(*by, *wait)),
                What::Doubted { by, wait } => add(of_hand(*by), false, Act::Doubted(*by, *wait)),
                What::Returned { by } => add(of_hand(*by), false, Act::Returned(*by)),
                What::Redelivered { which: Some(which), .. } => add(which.clone(), true, Act::Redeliver),
                What::Forgotten { which: Some(which), .. } => add(which.clone(), true, Act::Forget(false)),
                What::Listed { letters, .. } => {
                    for &(entry, tried, again) in letters {
                        add(vec![entry], false, Act::List(Some((tried, again))));
                    }
                }
                _ => {}
            }
        }
        own
    }

    /// Steps of all entries, or of all in a range.
    fn everywhere(&self, deeds: &[Deed]) -> Vec<(Range, Step)> {
        let mut all = Vec::new();
        let births = self.births(deeds);
        let is_webhook = self.terms.requests.is_some();
        for (n, deed) in deeds.iter().enumerate() {
            let mut add = |range: Range, durable: bool, act: Act| all.push((range, deed.step(n, durable, act)));
            if births.contains(&n) {
                add(Range::all(), false, Act::Born);
            }
            match &deed.what {
                What::Given { how, gifts, told } => {
                    match told {
                        Told::Lost(_) => add(Range::all(), false, Act::Tell(!is_webhook)),
                        Told::Nothing if self.terms.cuts && !gifts.is_empty() => add(Range::all(), false, Act::TellNot),
                        Told::Nothing | Told::Cannot => {}
                    }
                    if let Some(before) = self.before(gifts, deeds) {
                        let mut but: Vec<Entry> = gifts.iter().map(|gift| gift.entry).collect();
                        but.sort_unstable();
                        add(Range { but, ..before }, false, Act::Passed(how.by()));
                    }
                }
                // Of some all is known that there was.
                What::Broke { how: How::Leased(_), limit: 0, .. } => {}
                What::Broke { how, seen, .. } => {
                    let act = match how {
                        How::Plain => Act::MaybePlain,
                        How::Leased(leasing) => Act::MaybeLease(*leasing),
                    };
                    let mut but = seen.clone();
                    but.sort_unstable();
                    add(Range { but, ..Range::all() }, false, act);
                }
                What::Nothing { up_to } => add(Range::up_to(*up_to), false, Act::Nothing),
                What::Resumed { last } => {
                    add(Range::up_to(*last), false, Act::Resume(true));
                    add(Range::after(*last), false, Act::Resume(false));
                }
                What::Sought { between: (low, high) } => {
                    add(Range::up_to(*low), true, Act::Seek(Some(true)));
                    add(Range::between(low + 1, *high), true, Act::Seek(None));
                    add(Range::after(*high), true, Act::Seek(Some(false)));
                }
                What::Deleted => add(Range::all(), true, Act::Delete),
                What::Redelivered { which: None, .. } => add(Range::all(), true, Act::Redeliver),
                What::Forgotten { which: None, .. } => add(Range::all(), true, Act::Forget(true)),
                What::Listed { letters, up_to } => {
                    let mut but: Vec<Entry> = letters.iter().map(|&(entry, ..)| entry).collect();
                    but.sort_unstable();
                    add(Range { but, ..Range::up_to(*up_to) }, false, Act::List(None));
                }
                What::Earliest(at) => {
                    // What a webhook has in hand it sends although it is cut.
                    if !is_webhook {
                        add(Range::up_to(at.saturating_sub(1)), false, Act::Cut);
                    }
                    add(Range::after(at.saturating_sub(1)), false, Act::Kept);
                }
                What::Killed => add(Range::all(), true, Act::Kill),
                What::Stopped => add(Range::all(), true, Act::Stop),
                What::Drained { up_to } => add(Range::up_to(*up_to), false, Act::Drain),
                _ => {}
            }
        }
        all
    }

    /// What came when there was a place is to be given by it.
    fn begin(&mut self, deeds: &[Deed]) {
        let born = self.births(deeds).first().map(|&birth| deeds[birth].to);
        let Some(born) = self.is_born.then_some(0).or(born) else { return };
        if !deeds.iter().any(|deed| matches!(deed.what, What::Deleted)) {
            self.entries.values_mut().filter(|known| known.stored > born).for_each(Known::begin);
        }
    }

    /// The first reads of a place: of all, and after each removal.
    fn births(&self, deeds: &[Deed]) -> Vec<usize> {
        let removals = deeds.iter().filter(|deed| matches!(deed.what, What::Deleted)).map(|deed| deed.to);
        let begins = removals.chain((!self.is_born).then_some(0));
        let first = |since| {
            let reads = (0..deeds.len()).filter(|&n| deeds[n].is_read() && deeds[n].sure && deeds[n].from >= since);
            reads.min_by_key(|&n| deeds[n].to)
        };
        begins.filter_map(first).collect()
    }

    /// The entries that must not wait, nor be in other hands, when these are given: earlier ones of their keys.
    fn before(&self, gifts: &[Gift], deeds: &[Deed]) -> Option<Range> {
        // What an operator has given again waits for nobody.
        let gives_again = |deed: &Deed, entry: &Entry| match &deed.what {
            What::Redelivered { which, .. } => which.as_ref().is_none_or(|which| which.contains(entry)),
            _ => false,
        };
        let is_in_turn = |entry: &Entry| {
            let has_letter = self.entries.get(entry).is_none_or(Known::has_letter);
            !has_letter && !deeds.iter().any(|deed| gives_again(deed, entry))
        };
        let entries = gifts.iter().map(|gift| gift.entry).filter(is_in_turn);
        match self.terms.order {
            Order::None => None,
            Order::All => entries.max().map(|last| Range::up_to(last.saturating_sub(1))),
            Order::Keys => {
                let keyed = entries.filter_map(|entry| Some((self.entries.get(&entry)?.key, entry)));
                // The last of a key counts.
                let before: HashMap<Key, Entry> = keyed.filter(|&(key, _)| key != 0).collect();
                (!before.is_empty()).then(|| Range { before: Some(before), ..Range::all() })
            }
        }
    }

    /// What was said of how many, and how many requests came again.
    fn counted(&mut self, deeds: &[Deed], counts: &[Count], complaints: &mut Vec<Complaint>) {
        for (deed, &Count { least, most }) in deeds.iter().zip(counts) {
            let tells = matches!(deed.what, What::Given { told: Told::Lost(_), .. });
            let rule = if tells { LOST } else { CHANGED };
            // What need not have happened was not counted.
            if tells && deed.sure && most == 0 {
                complaints.push(deed.complain(None, "nothing was lost that was not told".into(), rule));
            } else if let Some(said) = deed.what.said()
                && deed.sure
                && !(least..=most).contains(&said)
            {
                complaints.push(deed.complain(None, format!("it was {least} to {most}"), rule));
            }
        }
        let (again, ended) = (self.repeats.len(), |deed: &Deed| matches!(deed.what, What::Killed | What::Stopped));
        if let Some(most) = self.terms.requests.filter(|&most| again > most) {
            let (came, expected) = (format!("{again} requests came again after a kill"), format!("{most} may"));
            complaints.push(Complaint {
                entry: None,
                when: (self.judged, self.judged),
                came,
                expected,
                rule: REQUESTS,
            });
            self.repeats.clear();
        }
        // What is judged at a time ends with an end of the process, if it has one.
        if deeds.iter().any(ended) {
            self.repeats.clear();
        }
    }
}

impl Deed {
    fn is_read(&self) -> bool {
        matches!(self.what, What::Given { .. } | What::Nothing { .. })
    }

    fn step(&self, deed: usize, durable: bool, act: Act) -> Step {
        Step { deed, from: self.from, to: self.to, sure: self.sure, durable, act }
    }
}

/// Answers that cannot be right, whatever is so.
fn misshapen(deeds: &[Deed]) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for deed in deeds {
        let What::Given { gifts, .. } = &deed.what else { continue };
        for two in gifts.windows(2) {
            if two[0].entry >= two[1].entry {
                let expected = format!("entry {} stands behind {}", two[1].entry, two[0].entry);
                complaints.push(deed.complain(Some(two[1].entry), expected, IN_ORDER));
            }
        }
    }
    complaints
}

/// When retention had not taken an entry yet.
fn kept_until(deeds: &[Deed], entry: Entry) -> Millis {
    let kept = deeds.iter().filter(|deed| matches!(deed.what, What::Earliest(at) if at <= entry));
    kept.map(|deed| deed.from).max().unwrap_or(0)
}
