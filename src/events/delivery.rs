//! What a reader asks for and what it gets.
//!
//! Invariants: a [`Delivery`] holds a run of entries without a gap (but for what retention took or the reader does not
//! want), oldest first; its text is shared with every other reader, never copied.

pub(super) mod reader;

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::subscription::{Claim, CutOff, Held};
use super::{Ack, Cursor, Filter, Leased};
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::{ClientName, SubscriptionName};
use crate::store::{Batch, Content, Sequence};

/// The most entries one read hands over: the vendor's own limit.
pub const MAX_IN_ONE_READ: usize = crate::vendor::events::MAX_IN_ONE_READ;

/// Where a new subscription starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum StartAt {
    Earliest,
    Latest,
    Since(UnixMillis),
    After(Cursor),
}

/// From where to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// From a subscription's stored cursor; what is handed over moves it.
    Subscription {
        /// Its name.
        name: SubscriptionName,
        /// Where it starts if it is new.
        from: StartAt,
    },
    /// From a cursor, moving nothing.
    After(Cursor),
}

/// Which open stream reads: no other of this run has or had its number.
pub type StreamNumber = NonZeroU64;

/// One read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// From where.
    pub place: Place,
    /// Who reads. A subscription that is new is this client's: no client can make all that there may be. And what its
    /// filters cost is charged to it.
    pub client: ClientName,
    /// At most this many entries, 1 to 1000; a number outside is taken as the nearest inside. (A marker of what retention
    /// has cut off from a subscription comes on top.)
    pub limit: usize,
    /// At most so many bytes of events, though one event at least.
    pub most_bytes: usize,
    /// How long to wait for the first entry.
    pub wait: Duration,
    /// Whether markers are wanted (native reads). Otherwise they are passed over, but the cursor moves past them.
    pub markers: bool,
    /// Which events are wanted. The others are passed over, and the cursor moves past them.
    pub filter: Arc<Filter>,
    /// How what a subscription hands over is settled. Nothing to a read by a cursor.
    pub ack: Ack,
}

/// A run of a batch's entries.
#[derive(Clone, Debug)]
pub struct Run {
    /// The batch.
    pub batch: Arc<Batch>,
    /// Which of its entries.
    pub entries: Range<usize>,
}

impl Run {
    /// The bytes of its events.
    pub(super) fn bytes(&self) -> usize {
        match &self.batch.content {
            Content::Events(events) => events.bytes(self.entries.clone()),
            Content::PossibleLoss(_) | Content::Damaged(_) => 0,
        }
    }

    /// Leaves the other events of its batch alone, if they are most of it and nobody else holds them in memory.
    pub(super) fn keep_apart(&mut self) {
        let Content::Events(events) = &self.batch.content else { return };
        if 2 * self.bytes() >= events.text().len() {
            return;
        }
        if let Some(apart) = events.apart(self.entries.clone()) {
            let Batch { first, received_at, ref region, .. } = *self.batch;
            let (first, region) = (first.plus(self.entries.start as u64), region.clone());
            self.batch = Arc::new(Batch { first, received_at, region, content: Content::Events(apart) });
            self.entries = 0..self.entries.len();
        }
    }
}

/// How much more one read hands over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

impl Room {
    /// For all that there is.
    pub(super) const ALL: Self = Self { entries: usize::MAX, bytes: usize::MAX };

    pub(super) fn is_full(&self) -> bool {
        self.entries == 0 || self.bytes == 0
    }

    /// So much of it is taken.
    pub(super) fn take(&mut self, entries: usize, bytes: usize) {
        self.entries = self.entries.saturating_sub(entries);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// How many entries of a batch from one on there is room for; one at least.
    pub(super) fn fits(&self, content: &Content, from: usize) -> usize {
        match content {
            Content::Events(events) => events.fit(from, self.bytes),
            Content::PossibleLoss(_) | Content::Damaged(_) => usize::MAX,
        }
    }

    /// Leaves of these runs what there is room for. Says which entry is the first that is left out, if one is.
    pub(super) fn cut(mut self, runs: &mut Vec<Run>) -> Option<u64> {
        for n in 0..runs.len() {
            let run = &mut runs[n];
            let (start, many) = (run.entries.start, self.fits(&run.batch.content, run.entries.start));
            let left_out = run.batch.first.0 + start as u64;
            if n > 0 && self.is_full() {
                runs.truncate(n);
                return Some(left_out);
            }
            if many < run.entries.len() {
                run.entries.end = start + many;
                runs.truncate(n + 1);
                return Some(left_out + many as u64);
            }
            self.take(runs[n].entries.len(), runs[n].bytes());
        }
        None
    }
}

/// What a read found. Dropping `receipt` without [`Receipt::handed_over`] gives the entries again to the next read.
#[derive(Debug)]
pub struct Delivery {
    /// The entries, oldest first. May be empty.
    pub runs: Vec<Run>,
    /// The place after the last entry.
    pub next: Cursor,
    /// Entries stored after `next`.
    pub lag: u64,
    /// How many entries retention removed before this subscription was given them; told once, and markers are wanted: then
    /// the first run is a marker of it.
    pub lost: u64,
    /// The first of those, where that is known; of those that are to be told, where there are no entries.
    pub lost_from: Option<Sequence>,
    /// To be told when the response was handed over whole.
    pub receipt: Receipt,
    /// What is to be acknowledged, when that was asked for and there is something.
    pub leased: Option<Leased>,
}

/// Stands for entries on their way to a reader.
#[derive(Debug)]
#[must_use]
pub struct Receipt(Option<Taken>);

#[derive(Debug)]
enum Taken {
    Claim(Claim),
    Held(Held),
    CutOff(CutOff),
}

impl Receipt {
    /// Stands for nothing: nobody has taken anything.
    pub(crate) fn of_nothing() -> Self {
        Self(None)
    }

    pub(super) fn claim(claim: Claim) -> Self {
        Self(Some(Taken::Claim(claim)))
    }

    pub(super) fn held(held: Held) -> Self {
        Self(Some(Taken::Held(held)))
    }

    /// What stands for the marker of what retention has cut off, of a delivery in hand that begins with one: it is passed
    /// on by itself. Also says until when it is to wait. The entries are what this stands for from now on.
    pub(crate) fn split_marker(&mut self) -> (Self, Option<Instant>) {
        match &mut self.0 {
            Some(Taken::Held(held)) => {
                let cut_off = held.split_cut_off();
                let until = cut_off.tried().delay_until;
                (Self(Some(Taken::CutOff(cut_off))), until)
            }
            Some(Taken::Claim(_) | Taken::CutOff(_)) | None => (Self(None), None),
        }
    }

    /// What this stands for, if that is such a marker.
    pub(super) fn marker(&mut self) -> Option<&mut CutOff> {
        match &mut self.0 {
            Some(Taken::CutOff(cut_off)) => Some(cut_off),
            Some(Taken::Claim(_) | Taken::Held(_)) | None => None,
        }
    }

    /// Cancelled when nobody is to be told any more of what retention took, if this stands for the marker of that.
    pub(crate) fn marker_over(&self) -> Option<&CancellationToken> {
        match &self.0 {
            Some(Taken::CutOff(cut_off)) => Some(cut_off.over()),
            Some(Taken::Claim(_) | Taken::Held(_)) | None => None,
        }
    }

    /// Only the entries before `at` are on their way, `left` events fewer than there were; the others are given back.
    /// `None`: nothing is on its way.
    #[must_use]
    pub fn only_before(self, at: Sequence, left: u64) -> Option<Self> {
        let mut taken = self.0?;
        let some_are_kept = match &mut taken {
            Taken::Claim(claim) => claim.keep_before(at.0, left),
            Taken::Held(held) => held.keep_before(at.0, left),
            Taken::CutOff(_) => true,
        };
        some_are_kept.then_some(Self(Some(taken)))
    }

    /// The reader has all of it: the subscription's cursor moves, or the reader is to acknowledge it.
    pub fn handed_over(self) {
        match self.0 {
            Some(Taken::Claim(claim)) => claim.settle(),
            Some(Taken::Held(held)) => held.handed_over(),
            Some(Taken::CutOff(mut cut_off)) => cut_off.told(),
            None => {}
        }
    }
}

/// Why a read cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The cursor is older than what is kept, or of another store.
    #[error("the cursor is older than retention")]
    Expired {
        /// The place before the oldest entry kept: read after this.
        earliest: Cursor,
        /// How many entries after the cursor are gone; `None` when it is of another store, which says nothing.
        lost: Option<u64>,
    },
    /// The cursor is no place in this log (ahead of its end).
    #[error("the cursor is ahead of the log")]
    Ahead,
    /// The cursor is of the app's other stream.
    #[error("the cursor is of another stream")]
    OfAnotherStream,
    /// This app does not have this stream.
    #[error("the stream is not read for this app")]
    NoSuchStream,
    /// The subscription is being removed; a moment later a new one of that name can begin.
    #[error("the subscription is being removed")]
    BeingRemoved,
    /// The subscription has no such dead letter.
    #[error("the subscription has no such dead letter")]
    NoSuchDeadLetter,
    /// The client has as many subscriptions of the stream as it may have.
    #[error("the client has as many subscriptions of the stream as it may have")]
    TooManyOfClient {
        /// How many.
        most: usize,
    },
    /// The stream has no such subscription.
    #[error("the stream has no such subscription")]
    NoSuchSubscription,
    /// The stream has as many subscriptions as it may have, or the client its share of them.
    #[error("the stream has too many subscriptions")]
    TooManySubscriptions,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
}
