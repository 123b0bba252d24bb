//! A subscription, with all that its readers know of it, and its model.

use std::cell::{Cell, RefCell};

use delivery_model::{Deed, Entry, Hand, Millis, Model, Order, Terms, What};

use super::super::*;
use super::Profile;

/// Who reads it, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One plain reader, who takes one answer after the other.
    Plain,
    /// Several plain readers.
    Shared,
    /// Readers that acknowledge.
    Leases,
    /// Readers that acknowledge what their filter admits.
    Picky,
    /// Readers that acknowledge, and plain ones.
    Mixed,
    /// One stream, that comes again and says how far it got.
    Stream,
}

pub(super) const KINDS: [Kind; 6] = [Kind::Plain, Kind::Shared, Kind::Leases, Kind::Picky, Kind::Mixed, Kind::Stream];

/// An answer on its way.
pub(super) struct Pending {
    pub(super) receipt: Receipt,
    pub(super) by: Hand,
    pub(super) is_leased: bool,
}

/// A lease, as its reader knows it.
#[derive(Clone)]
pub(super) struct Lease {
    pub(super) name: LeaseName,
    pub(super) by: Hand,
    pub(super) entries: Vec<Entry>,
}

pub(super) struct Book {
    pub(super) kind: Kind,
    pub(super) name: SubscriptionName,
    pub(super) model: RefCell<Model>,
    pub(super) pending: RefCell<Vec<Pending>>,
    pub(super) leases: RefCell<Vec<Lease>>,
    /// Entries that were given, the latest last.
    pub(super) seen: RefCell<Vec<Entry>>,
    /// The last entry that the stream's reader has, and whether it is to say so.
    pub(super) has: Cell<(Option<Entry>, bool)>,
    /// Which stream reads.
    pub(super) stream: Cell<u64>,
    /// What it was told, to show when something is wrong.
    told: RefCell<Vec<String>>,
    /// Until when nothing can be judged, since it may still happen.
    pub(super) lingers: Cell<Millis>,
}

/// Users whose events the picky are given.
const PICKED: [u64; 2] = [1, 3];

impl Book {
    pub(super) fn new(kind: Kind, profile: &Profile) -> Self {
        let order = match kind {
            Kind::Plain => Order::All,
            Kind::Leases | Kind::Picky => Order::Keys,
            Kind::Shared | Kind::Mixed | Kind::Stream => Order::None,
        };
        let terms = Terms { round: profile.round(), seen_after: 0, requests: None, order, cuts: profile.cuts() };
        Self {
            kind,
            name: SubscriptionName::parse(&format!("{kind:?}")).unwrap(),
            model: RefCell::new(Model::new(terms)),
            pending: RefCell::default(),
            leases: RefCell::default(),
            seen: RefCell::default(),
            has: Cell::default(),
            stream: Cell::new(1),
            told: RefCell::default(),
            lingers: Cell::new(0),
        }
    }

    pub(super) fn takes_leases(&self) -> bool {
        matches!(self.kind, Kind::Leases | Kind::Picky | Kind::Mixed)
    }

    /// Whether its filter admits the events of a user (`None`: a marker).
    pub(super) fn wants(&self, user: Option<u64>) -> bool {
        self.kind != Kind::Picky || user.is_none_or(|user| PICKED.contains(&user))
    }

    pub(super) fn filter(&self) -> Arc<Filter> {
        if self.kind != Kind::Picky {
            return Arc::default();
        }
        Arc::new(Filter::new(&[], &PICKED.map(|user| format!("u{user}")), &[]))
    }

    pub(super) fn did(&self, (from, to): (Millis, Millis), what: What) {
        self.tell(Deed { from, to, sure: true, what });
    }

    /// It may have happened.
    pub(super) fn may_have_done(&self, (from, to): (Millis, Millis), what: What) {
        self.tell(Deed { from, to, sure: false, what });
    }

    fn tell(&self, deed: Deed) {
        if !matches!(deed.what, What::Earliest(_)) {
            self.told.borrow_mut().push(format!("{} to {}, {}: {:?}", deed.from, deed.to, deed.sure, deed.what));
        }
        self.model.borrow_mut().apply(deed);
    }

    /// What is no deed, to show when something is wrong.
    pub(super) fn note(&self, what: String) {
        self.told.borrow_mut().push(what);
    }

    pub(super) fn saw(&self, entries: impl IntoIterator<Item = Entry>) {
        let mut seen = self.seen.borrow_mut();
        seen.extend(entries);
        let over = seen.len().saturating_sub(40);
        seen.drain(..over);
    }

    /// Nobody has what this hand was given.
    pub(super) fn forget(&self, by: Hand) {
        self.leases.borrow_mut().retain(|lease| lease.by != by);
    }

    /// Something is wrong that is no matter of the model's.
    pub(super) fn with_told(&self, what: &str) -> String {
        format!("{what}\n  {}", self.told.borrow().join("\n  "))
    }

    /// What is wrong with what came until now.
    pub(super) fn judge(&self, now: Millis) -> Vec<String> {
        let complaints = self.model.borrow_mut().judge(now);
        let mut told = self.told.borrow_mut();
        if complaints.is_empty() {
            // Enough to understand what comes next.
            let over = told.len().saturating_sub(400);
            told.drain(..over);
            return Vec::new();
        }
        let told = std::mem::take(&mut *told).join("\n  ");
        complaints.iter().map(|complaint| format!("{:?}: {complaint}\n  {told}", self.kind)).collect()
    }
}
