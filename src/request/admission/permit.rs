//! [`AdmissionPermit`]: a request's place, for as long as it is in hand.

use std::sync::Arc;

use super::Admission;
use super::client_usage::Reservation;
use super::report::Reason;
use crate::kernel::names::ClientName;
use crate::request::refusal::Refusal;

/// One request in hand. Dropped, its place is free.
#[derive(Debug)]
pub struct AdmissionPermit {
    admission: Arc<Admission>,
    client: ClientName,
    reservation: Reservation,
}

impl AdmissionPermit {
    pub(super) fn new(admission: &Arc<Admission>, client: ClientName, reservation: Reservation) -> Self {
        Self { admission: Arc::clone(admission), client, reservation }
    }

    /// Takes memory for so many more bytes of its body, until it is no longer in hand.
    ///
    /// # Errors
    /// 503 when bodies take too much already.
    pub fn reserve(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.admission.with_usage(|usage| usage.reserve(&self.client, &mut self.reservation, bytes))
    }

    /// Its answer streams for as long as the caller likes: it moves to the room for such.
    ///
    /// # Errors
    /// 503 when there is no room, or the client has its share.
    pub fn stream(&mut self) -> Result<(), Refusal> {
        self.admission.with_usage(|usage| usage.stream(&self.client, &mut self.reservation))
    }

    /// It was refused without having cost anything: what it took of the client's rate is given back.
    pub fn unspend(&mut self) {
        self.admission.with_usage(|usage| usage.unspend(&self.client, &mut self.reservation));
    }

    /// Why it would be refused if its client were not in report mode.
    #[must_use]
    pub fn would_refuse(&self) -> Option<Reason> {
        self.reservation.would_refuse
    }
}

impl Drop for AdmissionPermit {
    fn drop(&mut self) {
        self.admission.with_usage(|usage| usage.leave(&self.client, &self.reservation));
    }
}
