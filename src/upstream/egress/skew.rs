//! How far the wall clock is from the vendor's, by the `Date` of its answers.
//!
//! Invariants: what cannot be known is not claimed: `Date` has whole seconds, and the vendor wrote it at some moment
//! between the request's leaving and the answer's coming, so a sample gives a range, and only a range that lies wholly
//! beyond [`TOLERATED`] is reported. At most one line in [`TOLD_EVERY`], one sample a second.
//!
//! It matters for token credentials: their end is reckoned by our clock and judged by the vendor's. They are not
//! corrected by it: one answer through a confused balancer would then take the whole app down.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::DATE;
use jiff::fmt::rfc2822::DateTimeParser;
use tokio::time::Instant;

use crate::kernel::clock::UnixMillis;

/// Half the life of a fresh token would do; a minute is what people ask of clocks.
const TOLERATED: f64 = 60.0;

/// A clock that stays wrong is spoken of this often.
const TOLD_EVERY: Duration = Duration::from_secs(600);

const SAMPLED_EVERY: Duration = Duration::from_secs(1);

/// What is known of one host's clock.
#[derive(Debug, Default)]
pub(super) struct Skew {
    /// The vendor's clock less ours, in seconds: the middle of the last range.
    pub(super) seconds: Option<f64>,
    sampled: Option<Instant>,
    told: Option<Instant>,
}

impl Skew {
    /// Takes an answer's head that came at `now` (`wall` by our clock), `after` its request had left. Returns what is
    /// to be told: the skew in seconds.
    pub(super) fn note(
        &mut self,
        headers: &HeaderMap,
        after: Duration,
        now: Instant,
        wall: impl FnOnce() -> UnixMillis,
    ) -> Option<f64> {
        if self.sampled.is_some_and(|at| now.saturating_duration_since(at) < SAMPLED_EVERY) {
            return None;
        }
        let date = DateTimeParser::new().parse_timestamp(headers.get(DATE)?.to_str().ok()?.trim()).ok()?;
        self.sampled = Some(now);
        // It was that second, somewhere in it, at some moment of the exchange.
        let latest = date.as_second() as f64 - wall().0 as f64 / 1000.0;
        let earliest = latest + 1.0 + after.as_secs_f64();
        self.seconds = Some(f64::midpoint(latest, earliest));
        let is_beyond = latest > TOLERATED || earliest < -TOLERATED;
        if !is_beyond || self.told.is_some_and(|at| now.saturating_duration_since(at) < TOLD_EVERY) {
            return None;
        }
        self.told = Some(now);
        self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the RFC's own example.
    const AT: u64 = 784_111_777;

    fn head(date: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(DATE, hyper::header::HeaderValue::from_static(date))])
    }

    #[test]
    fn only_what_is_beyond_doubt_is_told() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        // Our clock in seconds relative to the vendor's date, the exchange's time, whether it is told.
        for (ours, took, told) in [
            (0.0, 0.1, false),
            (59.0, 0.1, false),
            (61.0, 0.1, false),
            (61.5, 0.1, true),
            (65.0, 5.0, false),
            (-59.9, 0.0, false),
            (-60.1, 0.0, true),
            (3600.0, 0.1, true),
            (-3600.0, 10.0, true),
        ] {
            let wall = UnixMillis(((AT as f64 + ours) * 1000.0) as u64);
            let mut skew = Skew::default();
            let said = skew.note(&head(date), Duration::from_secs_f64(took), Instant::now(), || wall);
            assert_eq!(said.is_some(), told, "{ours} {took}");
            assert!((skew.seconds.unwrap() + ours - (1.0 + took) / 2.0).abs() < 0.01, "{ours}: {skew:?}");
        }
    }

    #[test]
    fn it_is_told_once_in_ten_minutes_and_a_bad_date_says_nothing() {
        let mut skew = Skew::default();
        let now = Instant::now();
        let wall = |seconds| UnixMillis((AT + 3600 + seconds) * 1000);
        let mut told = 0;
        for second in 0..1801 {
            let at = now + Duration::from_secs(second);
            let said = skew.note(&head("Sun, 06 Nov 1994 08:49:37 GMT"), Duration::ZERO, at, || wall(second));
            told += u32::from(said.is_some());
        }
        assert_eq!(told, 4);
        let mut skew = Skew::default();
        for date in ["", "yesterday", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(skew.note(&head(date), Duration::ZERO, now, || wall(0)), None);
        }
        assert_eq!(skew.seconds, None);
    }
}
