//! What changes for who passes events on: its beginning, and what an older gateway kept of it.

use tokio::time::Instant;

use super::SubscriptionState;
use super::delivery_ranges::DeliveryRanges;
use crate::events::subscription::notes;
use crate::events::subscription::records::WebhookRecord;
use crate::kernel::clock::UnixMillis;

impl SubscriptionState {
    /// What is open and nobody holds is to be opened anew: by other keys, or with another filter. What went out as one does
    /// so again if that is kept. Nothing waits beyond `latest`.
    pub(in crate::events::subscription) fn reopen(&mut self, keeps_units: bool, latest: Instant, now: Instant) {
        let resting = self.leases.resting();
        for &at in &resting {
            let Some((attempts, delay_until)) = self.leases.known(at) else { continue };
            let unit = self.leases.unit_of(at);
            self.leases.remove(at, now);
            if attempts > 0 {
                self.attempts.insert(at, attempts);
            }
            self.delays.extend(delay_until.map(|until| (at, until)));
            match unit {
                Some(unit) if keeps_units => self.leases.await_unit(at, unit),
                Some(_) => self.acks.touch(at),
                None => {}
            }
        }
        if !keeps_units {
            self.leases.await_no_longer(.., now);
        }
        self.ranges.take_back(resting.into_iter());
        self.delays.values_mut().for_each(|until| *until = latest.min(*until));
        for &at in &self.again {
            let too_late = |known: &(u32, Option<Instant>)| known.1.is_some_and(|until| until > latest);
            if let Some((attempts, _)) = self.leases.known(at).filter(too_late) {
                self.leases.remove(at, now);
                self.leases.admit([notes::RetryState::of((attempts, Some(latest))).put_back(at)], now);
            }
        }
    }

    /// Takes over how far an older gateway was, as a record of its own says.
    pub(in crate::events::subscription) fn take_over(
        &mut self,
        record: &WebhookRecord,
        (now, wall): (Instant, UnixMillis),
    ) {
        let low = self.floor;
        let mut next = low + 1;
        for held in record.held.iter().filter(|held| held.first <= held.last && held.last <= record.claimed) {
            let until = UnixMillis(held.due).since(wall);
            let delay_until = (held.attempts > 0 && !until.is_zero()).then(|| now + until);
            (next..held.first).for_each(|at| self.acks.mark(at));
            for at in held.first..=held.last {
                if self.again.contains(&at) {
                    self.leases.remove(at, now);
                    self.leases.admit([notes::RetryState::of((held.attempts, delay_until)).put_back(at)], now);
                    self.again_new.insert(at);
                } else if at > low && !self.acks.is_marked(at) {
                    if held.attempts > 0 {
                        self.attempts.insert(at, held.attempts);
                    }
                    self.delays.extend(delay_until.map(|until| (at, until)));
                    if held.first < held.last {
                        self.leases.await_unit(at, held.first);
                    }
                    self.acks.touch(at);
                }
            }
            next = next.max(held.last + 1);
        }
        (next..=record.claimed).for_each(|at| self.acks.mark(at));
        self.ranges = DeliveryRanges::with_gaps(low, self.acks.iter().filter(|&settled| settled > low));
        self.settle_low();
    }
}
