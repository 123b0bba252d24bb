//! When an event is tried again: waits that grow, spread so that many that failed together do not come together again.

use std::time::Duration;

use crate::config::Retry;

/// Each wait is so many times the one before.
const GROWTH: u32 = 3;

/// How far a wait may be from what it should be, in either direction.
pub(super) const SPREAD: f64 = 0.2;

/// The wait after so many failures, at least one. `spread` is from -1 to 1.
pub(super) fn wait(retry: Retry, failures: u32, spread: f64) -> Duration {
    let steps = failures.saturating_sub(1);
    let grown = GROWTH.checked_pow(steps).map_or(retry.max, |by| retry.initial.saturating_mul(by).min(retry.max));
    grown.mul_f64(1.0 + SPREAD * spread.clamp(-1.0, 1.0))
}

/// What an endpoint said of how long to wait, as far as we go along with it. Nothing, or no time, is no word.
pub(super) fn asked(retry: Retry, retry_after: Option<Duration>) -> Option<Duration> {
    retry_after.filter(|wait| !wait.is_zero()).map(|wait| wait.min(retry.max))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_are_as_documented() {
        let waits: Vec<u64> = (1..10).map(|n| wait(Retry::default(), n, 0.0).as_secs()).collect();
        assert_eq!(waits, [5, 15, 45, 135, 405, 1215, 3600, 3600, 3600]);
    }

    #[test]
    fn what_an_endpoint_asks_for_is_honoured_up_to_the_longest_wait() {
        let retry = Retry { initial: Duration::from_secs(1), max: Duration::from_secs(60) };
        let asks = |seconds| asked(retry, Some(Duration::from_secs(seconds)));
        assert_eq!(
            (asks(30), asks(86_400), asks(0)),
            (Some(Duration::from_secs(30)), Some(Duration::from_secs(60)), None)
        );
        assert_eq!(asked(retry, None), None);
    }

    properties! {
        #[test]
        fn no_wait_shrinks_or_leaves_its_bounds(
            initial in 1u64..100_000, more in 0u64..400_000_000, failures in 1u32..2000, spread in -2.0f64..2.0,
        ) {
            let retry = Retry { initial: Duration::from_millis(initial), max: Duration::from_millis(initial + more) };
            let now = wait(retry, failures, spread);
            prop_assert!(now >= retry.initial.mul_f64(1.0 - SPREAD) && now <= retry.max.mul_f64(1.0 + SPREAD));
            prop_assert!(wait(retry, failures + 1, 0.0) >= wait(retry, failures, 0.0));
        }
    }
}
