//! A [`RequestGuard`]: what a request occupies while it is being worked on, given back when it is dropped; and the
//! [`ResponseEnd`], which keeps it, the request's log and its receipts until the answer has gone out.
//!
//! Invariants: admission, connection and memory are free again as soon as the system has the whole answer, or nobody
//! waits for it any more. What stands for events waits for longer: until the caller's system has acknowledged them.

use std::fmt;

use crate::events::Receipt;
use crate::http::body::handover::{Delivered, Ending};
use crate::kernel::conn::places::SeatGuard;
use crate::request::admission::AdmissionPermit;
use crate::request::refusal::Refusal;
use crate::request::request_log::RequestLog;

/// What a request occupies. Empty until it is admitted.
#[derive(Debug, Default)]
pub struct RequestGuard {
    permit: Option<AdmissionPermit>,
    /// While it is there, the connection is not closed for a newcomer.
    connection: Option<SeatGuard>,
}

impl RequestGuard {
    /// The request is in hand from now on.
    pub(crate) fn admit(&mut self, permit: AdmissionPermit) {
        self.permit = Some(permit);
    }

    /// Its connection is not to be closed for a newcomer.
    pub(crate) fn occupy(&mut self, connection: Option<SeatGuard>) {
        self.connection = connection;
    }

    /// Takes memory for so many more bytes of the request's body.
    ///
    /// # Errors
    /// 503 when bodies take too much already.
    pub fn reserve(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.permit.as_mut().map_or(Ok(()), |permit| permit.reserve(bytes))
    }

    /// The answer goes on for as long as the caller likes: the request moves to the room for such, if there is any.
    ///
    /// # Errors
    /// 503 when there is none.
    pub fn start_streaming(&mut self) -> Result<(), Refusal> {
        self.permit.as_mut().map_or(Ok(()), AdmissionPermit::stream)
    }

    /// The request was refused: what cost nothing is not counted against its client's rate.
    pub(crate) fn refuse(&mut self, refusal: &Refusal) {
        if let Some(permit) = self.permit.as_mut().filter(|_| refusal.cost_nothing()) {
            permit.unspend();
        }
    }
}

/// What waits for the end of an answer.
pub(crate) struct ResponseEnd {
    // Dropped in this order: who sees the request's place free finds its line in the log.
    log: RequestLog,
    receipts: Vec<Receipt>,
    _guard: RequestGuard,
}

impl ResponseEnd {
    pub(crate) fn new(log: RequestLog, receipts: Vec<Receipt>, guard: RequestGuard) -> Self {
        Self { log, receipts, _guard: guard }
    }
}

impl fmt::Debug for ResponseEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseEnd").field("request", self.log.id()).finish_non_exhaustive()
    }
}

impl Ending for ResponseEnd {
    fn taken(&mut self, bytes: u64) {
        self.log.sent(bytes);
    }

    fn is_awaited(&self) -> bool {
        !self.receipts.is_empty()
    }

    fn flushed(mut self: Box<Self>) -> Option<Box<dyn Delivered>> {
        self.log.handed_over();
        let receipts = std::mem::take(&mut self.receipts);
        (!receipts.is_empty()).then(|| -> Box<dyn Delivered> { Box::new(Receipts(receipts)) })
    }
}

/// What stands for the events of an answer, until they are handed over or given back.
#[derive(Debug)]
struct Receipts(Vec<Receipt>);

impl Delivered for Receipts {
    fn acknowledged(self: Box<Self>) {
        self.0.into_iter().for_each(Receipt::handed_over);
    }
}
