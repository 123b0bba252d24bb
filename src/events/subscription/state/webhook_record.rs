//! How far a webhook was, as an older gateway kept it beside its subscription: it becomes a part of the state.

use tokio::time::Instant;

use super::SubscriptionState;
use super::delivery_ranges::DeliveryRanges;
use crate::events::subscription::notes;
use crate::events::subscription::records::WebhookRecord;
use crate::kernel::clock::UnixMillis;

/// Takes over how far an older gateway was, as a record of its own says.
pub(in crate::events::subscription) fn take_over_record(
    state: &mut SubscriptionState,
    record: &WebhookRecord,
    (now, wall): (Instant, UnixMillis),
) {
    let low = state.floor;
    let mut next = low + 1;
    for held in record.held.iter().filter(|held| held.first <= held.last && held.last <= record.claimed) {
        let until = UnixMillis(held.due).since(wall);
        let delay_until = (held.attempts > 0 && !until.is_zero()).then(|| now + until);
        (next..held.first).for_each(|at| state.acks.mark(at));
        for at in held.first..=held.last {
            if state.letters.touch(at) {
                state.leases.remove(at, now);
                state.leases.admit([notes::RetryState::of((held.attempts, delay_until)).put_back(at)], now);
            } else if at > low && !state.acks.is_marked(at) {
                state.unopened.add(at, held.attempts, delay_until);
                if held.first < held.last {
                    state.leases.await_unit(at, held.first);
                }
                state.acks.touch(at);
            }
        }
        next = next.max(held.last + 1);
    }
    (next..=record.claimed).for_each(|at| state.acks.mark(at));
    state.ranges = DeliveryRanges::with_gaps(low, state.acks.iter().filter(|&settled| settled > low));
    state.settle_low();
}
