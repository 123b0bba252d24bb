//! The words: what was asked of a subscription, what was answered, and when; and what is wrong with it.

use std::fmt;

/// Milliseconds since some beginning.
pub type Millis = u64;
/// The number of an entry in its log.
pub type Entry = u64;
/// Who holds something: a lease, or a webhook's request.
pub type Hand = u64;
/// Whose an entry is (a user, a channel); 0: nobody's.
pub type Key = u64;

/// Of a time: it does not come.
pub const NEVER: Millis = Millis::MAX;

/// What holds for a subscription.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long ago something may have changed that a kill undoes, though nobody waited until it was stored.
    pub round: Millis,
    /// How long it may take until the gateway has seen that what it sent has arrived.
    pub seen_after: Millis,
    /// A webhook: a kill undoes at most so many requests.
    pub requests: Option<usize>,
    /// Which entries wait for which.
    pub order: Order,
    /// Whether retention may remove entries.
    pub cuts: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    None,
    /// Those of one key.
    Keys,
    All,
}

/// What was asked and answered.
#[derive(Clone, Debug)]
pub struct Deed {
    /// It was asked, or can have happened at the earliest.
    pub from: Millis,
    /// It was answered, or can have happened at the latest.
    pub to: Millis,
    /// Whether it is known to have happened: a request without an answer may have.
    pub sure: bool,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    /// Given, and arrived whole.
    Given { how: How, gifts: Vec<Gift>, told: Told },
    /// An answer that did not arrive whole: of what is not known (at most `limit`), some may count as handed over, or be
    /// held until the lease is over; what was `seen` of it may be given again.
    Broke { how: How, seen: Vec<Entry>, limit: usize },
    /// A plain reader was answered with nothing, when the log had all up to an entry.
    Nothing { up_to: Entry },
    /// A plain reader that is alone says that it has all up to there, and nothing after it.
    Resumed { last: Entry },
    /// Settled: what a lease holds, or these.
    Acked(Named),
    /// Given back for later.
    Nacked(Named, Millis),
    /// Held for so long from then on.
    Extended(Named, Millis),
    /// "The lease has run out, was given back, or never was".
    NoSuchLease { by: Hand },
    /// A webhook's request was taken.
    Taken { by: Hand },
    /// It failed, and is tried again after between so long and so long.
    Failed { by: Hand, wait: (Millis, Millis) },
    /// Nobody knows: it was taken, or failed, or does not count.
    Doubted { by: Hand, wait: (Millis, Millis) },
    /// It ended in a way that does not count.
    Returned { by: Hand },
    /// All up to a place (between these two) is settled, and nothing after it.
    Sought { between: (Entry, Entry) },
    /// The place, leases and dead letters are gone; who reads begins anew.
    Deleted,
    /// Dead letters are given again: these, or all. So many.
    Redelivered { which: Option<Vec<Entry>>, changed: Option<u64> },
    /// Dead letters are forgotten: these, or all. So many.
    Forgotten { which: Option<Vec<Entry>>, changed: Option<u64> },
    /// The list of dead letters up to an entry: the attempts of each, and whether it is being given again.
    Listed { letters: Vec<(Entry, u32, bool)>, up_to: Entry },
    /// The log's first entry is this.
    Earliest(Entry),
    /// `kill -9`; leases end.
    Killed,
    /// A stop in order; leases end.
    Stopped,
    /// All that can be had was had, up to an entry.
    Drained { up_to: Entry },
}

/// How entries are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By handing them over.
    Plain,
    /// To be acknowledged.
    Leased(Leasing),
}

/// To whom, for how long (a webhook's request has no end of its own), how often at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leasing {
    pub by: Hand,
    pub lease: Millis,
    pub most: u32,
    pub counts: Counts,
}

/// What counts as an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counts {
    /// That it was handed out.
    Taking,
    /// That it failed.
    Failing,
}

/// An entry that was given, and as which attempt, if that was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gift {
    pub entry: Entry,
    pub attempt: Option<u32>,
}

/// What an answer says of what retention has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// This form has no word for it.
    Cannot,
    /// There was no marker.
    Nothing,
    /// There was one; so many, if it says how many.
    Lost(Option<u64>),
}

/// What a request names: what a lease holds, or entries. It is answered with how many changed.
#[derive(Clone, Debug)]
pub struct Named {
    pub by: Option<Hand>,
    pub entries: Vec<Entry>,
    pub changed: Option<u64>,
}

/// What came and should not have, or did not and should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    pub entry: Option<Entry>,
    pub when: (Millis, Millis),
    pub came: String,
    pub expected: String,
    /// What the documentation says.
    pub rule: &'static str,
}

pub const ONCE: &str = "docs/events.md: what it was given it is not given again";
pub const LEASED: &str = "docs/events-ack.md: an event is leased to one of them at a time";
pub const NO_LEASE: &str = "docs/events-ack.md: a lease that has run out, was given back or never was is 410";
pub const DELAY: &str = "docs/events-ack.md: again, not before the delay is over";
pub const ATTEMPTS: &str = "docs/events-ack.md: attempt counts from 1 and goes on after a restart";
pub const LETTERS: &str = "docs/events-ack.md: what was not acknowledged in max_attempts goes to the dead letters";
pub const LOST: &str =
    "docs/events.md: lost counts entries that this reader had not read; told once, with the next event";
pub const GIVEN: &str = "docs/events.md: different subscriptions each get everything";
pub const IN_ORDER: &str = "docs/events.md, events-ack.md, webhooks.md: what waits for another comes after it";
pub const CHANGED: &str = "docs/events-ack.md: N is how many events it was that changed";
pub const REQUESTS: &str = "docs/webhooks.md: after a crash at most max_in_flight requests come again";
pub const UNSEEN: &str = "docs/events.md: an answer that breaks off is given again, unless its end had arrived";

impl How {
    pub(super) fn by(&self) -> Option<Hand> {
        if let Self::Leased(leasing) = self { Some(leasing.by) } else { None }
    }
}

impl What {
    /// What the answer said of how many.
    pub(super) fn said(&self) -> Option<u64> {
        match self {
            Self::Given { told: Told::Lost(lost), .. } => *lost,
            Self::Acked(named) | Self::Nacked(named, _) | Self::Extended(named, _) => named.changed,
            Self::Redelivered { changed, .. } | Self::Forgotten { changed, .. } => *changed,
            _ => None,
        }
    }
}

impl Deed {
    pub(super) fn complain(&self, entry: Option<Entry>, expected: String, rule: &'static str) -> Complaint {
        let mut came = format!("{:?}", self.what);
        if let Some((end, _)) = came.char_indices().nth(300) {
            came.replace_range(end.., "…");
        }
        Complaint { entry, when: (self.from, self.to), came, expected, rule }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, when, came, expected, rule } = self;
        let entry = entry.map_or(String::new(), |entry| format!("entry {entry}, "));
        write!(f, "{entry}{} to {} ms: {came}; but {expected} ({rule})", when.0, when.1)
    }
}
