//! Faults that the driver plants in what it tells the model, to see them found.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use delivery_model::{ATTEMPTS, Complaint, DELAY, GIVEN, IN_ORDER, LETTERS, LOST, ONCE};

/// One fault, once, some time after the beginning.
pub struct Plant {
    what: Option<Sort>,
    /// How many occasions are let pass.
    left: AtomicU32,
    pub done: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// An event that came is not told.
    Drop,
    /// An event that came is told twice.
    Double,
    /// An acknowledgement is told and was not sent.
    ForgetAck,
    /// A marker is told with one more than it said.
    WrongLost,
    /// An event is told as one attempt more.
    WrongAttempt,
    /// A dead letter on the list is not told.
    HideLetter,
    /// A delay is told as longer than it was.
    EarlyAgain,
    /// A kill is told as a stop in order.
    KillAsStop,
    /// A webhook's request that was refused is told as taken.
    RefusedAsTaken,
}

impl Plant {
    pub fn new(what: Option<Sort>) -> Self {
        Self { what, left: AtomicU32::new(20), done: AtomicBool::new(false) }
    }

    /// Whether it is to be done now: there is an occasion.
    pub fn now(&self, sort: Sort) -> bool {
        if self.what != Some(sort) || self.done.load(Ordering::SeqCst) {
            return false;
        }
        // Some occasions are rare.
        let skip = if matches!(sort, Sort::WrongLost | Sort::HideLetter | Sort::KillAsStop) { 19 } else { 1 };
        let left = self.left.load(Ordering::SeqCst);
        self.left.store(left.saturating_sub(skip), Ordering::SeqCst);
        let is_now = left <= 1;
        self.done.fetch_or(is_now, Ordering::SeqCst);
        is_now
    }

    /// Whether these complaints are of it.
    pub fn is_found(&self, complaints: &[(String, Complaint)]) -> bool {
        let rules: &[&str] = match self.what {
            None => return false,
            Some(Sort::Drop) => &[GIVEN, IN_ORDER],
            Some(Sort::Double | Sort::ForgetAck | Sort::KillAsStop | Sort::RefusedAsTaken) => &[ONCE],
            Some(Sort::WrongLost) => &[LOST],
            Some(Sort::WrongAttempt) => &[ATTEMPTS],
            Some(Sort::HideLetter) => &[LETTERS],
            Some(Sort::EarlyAgain) => &[DELAY],
        };
        self.done.load(Ordering::SeqCst) && complaints.iter().any(|(_, complaint)| rules.contains(&complaint.rule))
    }
}
