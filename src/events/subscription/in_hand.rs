//! Reading for who passes events on, as webhooks do: what was read stays in hand, for as long as that takes, and no
//! longer than the receipt is kept.
//!
//! Invariants: there is one such reader of a subscription. What it has in hand is settled when that is on stable
//! storage, and not before; what it tried in vain is given back with its attempts, its delay, and what it went out
//! with, all durable on return. What it has in hand from before a seek, or of a subscription that was removed, is of no
//! account: whatever it says of it changes nothing.

use std::time::Duration;

use tokio::time::Instant;

/// How entries are taken in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InHand {
    /// Which wait for which.
    pub turns: DeliveryOrder,
    /// Whether what one read takes goes out as one. What was given back after it went out so is taken so again: the
    /// same entries, and no others.
    pub unites: bool,
    /// So many entries, at most, are open at once: in hand, waiting for their time or behind one that does.
    pub most_open: usize,
}

/// Which entries wait for which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryOrder {
    /// Each for all before it.
    All,
    /// Each for those before it of its user, or its channel.
    EachKey,
}

/// What became of entries that were in hand, and are not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nack {
    /// They were tried in vain: so long they are not to be tried again.
    Failed(Duration),
    /// They went out, but that counts for nothing.
    Uncounted,
}

/// What of a subscription was tried in vain, and what can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// Entries that are open: in hand, waiting for their time, or behind one that does.
    pub open: usize,
    /// The most tries in vain of any entry.
    pub failures: u32,
    /// When the next can be tried, as far as its own time goes.
    pub next: Option<Instant>,
    /// Entries that are not settled.
    pub lag: u64,
}
