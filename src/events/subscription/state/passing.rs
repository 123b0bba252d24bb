//! What changes for who passes events on: its beginning, and what an older gateway kept of it.

use tokio::time::Instant;

use super::State;
use crate::events::delivery_ranges::DeliveryRanges;
use crate::events::subscription::recalled;
use crate::events::subscription::records::Record;
use crate::kernel::clock::UnixMillis;

impl State {
    /// What is open and nobody holds is to be opened anew: by other keys, or with another filter. What went out as one does
    /// so again if that is kept. Nothing waits beyond `latest`.
    pub(in crate::events::subscription) fn reopen(&mut self, keeps_units: bool, latest: Instant, now: Instant) {
        let resting = self.book.resting();
        for &at in &resting {
            let Some((attempts, delay_until)) = self.book.known(at) else { continue };
            let unit = self.book.unit_of(at);
            self.book.remove(at, now);
            if attempts > 0 {
                self.attempts.insert(at, attempts);
            }
            self.delays.extend(delay_until.map(|until| (at, until)));
            match unit {
                Some(unit) if keeps_units => self.book.await_unit(at, unit),
                Some(_) => self.marks.touch(at),
                None => {}
            }
        }
        if !keeps_units {
            self.book.await_no_longer(.., now);
        }
        self.claims.take_back(resting.into_iter());
        self.delays.values_mut().for_each(|until| *until = latest.min(*until));
        for &at in &self.again {
            let too_late = |known: &(u32, Option<Instant>)| known.1.is_some_and(|until| until > latest);
            if let Some((attempts, _)) = self.book.known(at).filter(too_late) {
                self.book.remove(at, now);
                self.book.admit([recalled::Tried::of((attempts, Some(latest))).put_back(at)], now);
            }
        }
    }

    /// Takes over how far an older gateway was, as a record of its own says.
    pub(in crate::events::subscription) fn take_over(&mut self, record: &Record, (now, wall): (Instant, UnixMillis)) {
        let low = self.floor;
        let mut next = low + 1;
        for held in record.held.iter().filter(|held| held.first <= held.last && held.last <= record.claimed) {
            let until = UnixMillis(held.due).since(wall);
            let delay_until = (held.attempts > 0 && !until.is_zero()).then(|| now + until);
            (next..held.first).for_each(|at| self.marks.mark(at));
            for at in held.first..=held.last {
                if self.again.contains(&at) {
                    self.book.remove(at, now);
                    self.book.admit([recalled::Tried::of((held.attempts, delay_until)).put_back(at)], now);
                    self.again_new.insert(at);
                } else if at > low && !self.marks.is_marked(at) {
                    if held.attempts > 0 {
                        self.attempts.insert(at, held.attempts);
                    }
                    self.delays.extend(delay_until.map(|until| (at, until)));
                    if held.first < held.last {
                        self.book.await_unit(at, held.first);
                    }
                    self.marks.touch(at);
                }
            }
            next = next.max(held.last + 1);
        }
        (next..=record.claimed).for_each(|at| self.marks.mark(at));
        self.claims = DeliveryRanges::with_gaps(low, self.marks.iter().filter(|&settled| settled > low));
        self.settle_low();
    }
}
