//! [`ClientUsage`]: what each client has in hand and what it has taken.
//!
//! Invariants: the sums are those of the entries; a refusal changes nothing; entries are of clients that were known, so
//! their number is bounded by the configuration.

use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use super::rate::{Rate, RateToken};
use super::report::{Reason, Report, ReportLimiter};
use super::{A_WHILE, Room};
use crate::config::ClientMode;
use crate::kernel::fast_map::FastMap;
use crate::kernel::metrics::{ClientLabels, Metrics};
use crate::kernel::names::ClientName;
use crate::kernel::share;
use crate::request::policy::Terms;
use crate::request::refusal::{Ceiling, Refusal, Shed};

pub(super) struct ClientUsage {
    pub(super) room: Room,
    metrics: Metrics,
    in_hand: usize,
    streams: usize,
    body_bytes: usize,
    clients: FastMap<ClientName, ClientCounts>,
}

struct ClientCounts {
    in_hand: usize,
    /// Those that stream; not among the others.
    streams: usize,
    /// Of both, the ones that its ceilings let through: all but those that were only reported.
    counted: u32,
    body_bytes: usize,
    rate: Rate,
    reports: ReportLimiter,
    gauge: Gauge,
}

/// What a client has in hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InHand {
    /// Requests, but for those that stream.
    pub requests: usize,
    /// Requests that stream.
    pub streams: usize,
}

/// What was given to a request, to be returned when it ends.
#[derive(Debug, Default)]
pub(super) struct Reservation {
    /// It counts against `max_concurrent`.
    pub(super) counted: bool,
    pub(super) streams: bool,
    /// It took one of `requests_per_second`.
    pub(super) taken: Option<RateToken>,
    /// Bytes of memory for its body.
    pub(super) body_bytes: usize,
    /// Why it would be refused if its client were not in report mode.
    pub(super) would_refuse: Option<Reason>,
}

impl ClientUsage {
    pub(super) fn new(metrics: Metrics, room: Room) -> Self {
        Self { room, metrics, in_hand: 0, streams: 0, body_bytes: 0, clients: FastMap::default() }
    }

    pub(super) fn in_hand(&self) -> usize {
        self.in_hand
    }

    pub(super) fn admit(&mut self, client: &ClientName, terms: &Terms, now: Instant) -> Result<Reservation, Refusal> {
        let (all, taken) = (self.room.requests, self.in_hand);
        if taken >= all {
            return Err(Refusal::shed(Shed::MaxRequests));
        }
        let entry = entry(&mut self.clients, &self.metrics, client);
        // Before the ceilings: what is refused for want of room must not have taken a token of the rate.
        if !share::may_take(1, entry.in_hand, taken, all) {
            return Err(Refusal::shed(Shed::FairShare));
        }
        // What it may not do anyway takes nothing of what it may do.
        let of_ceilings = if terms.would_forbid { None } else { Some(entry.within_ceilings(terms, now)) };
        let reservation = match (of_ceilings, terms.mode) {
            (None, _) => Reservation { would_refuse: Some(Reason::Forbidden), ..Reservation::default() },
            (Some(Ok(taken)), _) => Reservation { counted: true, taken, ..Reservation::default() },
            (Some(Err((ceiling, retry_after))), ClientMode::Enforce) => {
                return Err(Refusal::ClientLimit { ceiling, retry_after });
            }
            (Some(Err((ceiling, _))), ClientMode::Report) => {
                Reservation { would_refuse: Some(ceiling.into()), ..Reservation::default() }
            }
        };
        entry.in_hand += 1;
        entry.counted += u32::from(reservation.counted);
        self.in_hand += 1;
        entry.gauge.inc();
        Ok(reservation)
    }

    /// Takes memory for more of a body.
    pub(super) fn reserve(
        &mut self,
        client: &ClientName,
        reservation: &mut Reservation,
        bytes: usize,
    ) -> Result<(), Refusal> {
        let entry = entry(&mut self.clients, &self.metrics, client);
        if !share::may_take(bytes, entry.body_bytes, self.body_bytes, self.room.body_bytes) {
            return Err(Refusal::shed(Shed::BodyMemory));
        }
        reservation.body_bytes += bytes;
        entry.body_bytes += bytes;
        self.body_bytes += bytes;
        self.metrics.request_body_bytes.inc_by(signed(bytes));
        Ok(())
    }

    /// A request's answer streams: it moves from one room to the other.
    pub(super) fn stream(&mut self, client: &ClientName, reservation: &mut Reservation) -> Result<(), Refusal> {
        let entry = entry(&mut self.clients, &self.metrics, client);
        if reservation.streams {
            return Ok(());
        }
        if !share::may_take(1, entry.streams, self.streams, self.room.streams) {
            return Err(Refusal::shed(Shed::Streams));
        }
        reservation.streams = true;
        entry.streams += 1;
        self.streams += 1;
        entry.in_hand -= 1;
        entry.gauge.dec();
        self.in_hand -= 1;
        Ok(())
    }

    /// A request was refused that cost nothing: it gives back what it took of the rate.
    pub(super) fn unspend(&mut self, client: &ClientName, reservation: &mut Reservation) {
        if let Some(taken) = reservation.taken.take() {
            entry(&mut self.clients, &self.metrics, client).rate.give_back(taken);
        }
    }

    /// A request is no longer in hand.
    pub(super) fn leave(&mut self, client: &ClientName, reservation: &Reservation) {
        let entry = entry(&mut self.clients, &self.metrics, client);
        entry.counted -= u32::from(reservation.counted);
        entry.body_bytes -= reservation.body_bytes;
        if reservation.streams {
            entry.streams -= 1;
            self.streams -= 1;
        } else {
            entry.in_hand -= 1;
            entry.gauge.dec();
            self.in_hand -= 1;
        }
        self.body_bytes -= reservation.body_bytes;
        self.metrics.request_body_bytes.dec_by(signed(reservation.body_bytes));
    }

    /// What each client has in hand.
    pub(super) fn by_client(&self) -> impl Iterator<Item = (&ClientName, InHand)> {
        self.clients.iter().map(|(name, counts)| (name, InHand { requests: counts.in_hand, streams: counts.streams }))
    }

    /// What to say of a request that would be refused. `None`: nothing now.
    pub(super) fn report(&mut self, client: &ClientName, reason: Reason, now: Instant) -> Option<Report> {
        entry(&mut self.clients, &self.metrics, client).reports.count(reason, now)
    }

    /// Forgets those who are gone and have nothing that must be remembered.
    pub(super) fn forget(&mut self, stays: impl Fn(&ClientName) -> bool, now: Instant) {
        let metrics = &self.metrics;
        self.clients.retain(|name, entry| {
            let kept = stays(name) || entry.in_hand + entry.streams > 0 || !entry.rate.is_new(now);
            if !kept {
                metrics.requests_in_hand.remove(&ClientLabels { client: name.to_string() });
            }
            kept
        });
    }
}

/// A client's name, requests in hand, those of them that are counted, bytes, and rate.
#[cfg(test)]
pub(super) type UsageView = (ClientName, usize, u32, usize, Rate);

#[cfg(test)]
impl ClientUsage {
    pub(super) fn knows(&self, client: &ClientName) -> bool {
        self.clients.contains_key(client)
    }

    /// All that counts: requests, bytes, and of each client that has anything, what it has.
    pub(super) fn look(&mut self, now: Instant) -> (usize, usize, Vec<UsageView>) {
        for entry in self.clients.values_mut() {
            entry.rate.is_new(now);
        }
        let of = |(name, e): (&ClientName, &ClientCounts)| {
            (name.clone(), e.in_hand, e.counted, e.body_bytes, e.rate.clone())
        };
        let mut clients: Vec<_> = self.clients.iter().map(of).collect();
        clients.retain(|(_, in_hand, _, _, rate)| *in_hand > 0 || *rate != Rate::default());
        clients.sort_by(|a, b| a.0.cmp(&b.0));
        (self.in_hand, self.body_bytes, clients)
    }
}

impl ClientCounts {
    /// Takes of the client's own ceilings, both or none; the rate last, so that it is taken from only when the request
    /// is admitted.
    fn within_ceilings(&mut self, terms: &Terms, now: Instant) -> Result<Option<RateToken>, (Ceiling, Duration)> {
        if let Some(most) = terms.max_concurrent
            && self.counted >= most.get()
        {
            return Err((Ceiling::MaxConcurrent(most), A_WHILE));
        }
        let Some(rate) = terms.requests_per_second else { return Ok(None) };
        self.rate.take(rate, now).map(Some).map_err(|wait| (Ceiling::RequestsPerSecond(rate), wait))
    }
}

fn entry<'a>(
    clients: &'a mut FastMap<ClientName, ClientCounts>,
    metrics: &Metrics,
    client: &ClientName,
) -> &'a mut ClientCounts {
    clients.entry(client.clone()).or_insert_with(|| ClientCounts {
        in_hand: 0,
        streams: 0,
        counted: 0,
        body_bytes: 0,
        rate: Rate::default(),
        reports: ReportLimiter::default(),
        gauge: metrics.requests_in_hand.get_or_create(&ClientLabels { client: client.to_string() }),
    })
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
