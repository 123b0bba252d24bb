//! How long a window lasts by any of the clocks concerned: ours, the vendor's, and the timers of both.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Limit;

/// The grain of timers and clocks here and at the vendor's.
pub(super) const GRAIN: Duration = Duration::from_millis(2);

/// Two machines' clocks run apart by at most 500 parts in a million while one is being slewed (adjtimex(2)).
const SKEW_PARTS: u32 = 2000;
/// No window is longer. Keeps sums of times far from overflow.
const MAX_WINDOW: Duration = Duration::from_secs(366 * 24 * 3600);

/// `at + by`.
pub(super) fn later(at: Instant, by: Duration) -> Instant {
    // The sum is at hand for any window and any number of rounds; if it were not, a year stands for ever.
    at.checked_add(by).unwrap_or_else(|| at + MAX_WINDOW)
}

pub(super) fn window(limit: Limit) -> Duration {
    limit.per.min(MAX_WINDOW)
}

/// What is added to a window so that it is over by any of the clocks concerned.
pub(super) fn slack(window: Duration) -> Duration {
    GRAIN + window / SKEW_PARTS
}

/// From the instant a seat was last used to when it is free: the window, and what makes it over by any clock concerned.
#[must_use]
pub fn cycle(limit: Limit) -> Duration {
    let window = window(limit);
    window + slack(window)
}
