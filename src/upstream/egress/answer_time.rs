//! How long an endpoint takes to answer, smoothed as TCP smooths round trips (RFC 6298).

use std::time::Duration;

/// Smoothed over the answers of late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AnswerTime(Option<Smoothed>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Smoothed {
    mean: Duration,
    deviation: Duration,
}

impl AnswerTime {
    /// An answer took so long.
    pub(super) fn took(&mut self, time: Duration) {
        let Some(Smoothed { mean, deviation }) = &mut self.0 else {
            self.0 = Some(Smoothed { mean: time, deviation: time / 2 });
            return;
        };
        *deviation = (*deviation * 3 + mean.abs_diff(time)) / 4;
        *mean = (*mean * 7 + time) / 8;
    }

    /// Nearly all answers come within that; zero while none has come.
    pub(super) fn nearly_all(&self) -> Duration {
        self.0.map_or(Duration::ZERO, |Smoothed { mean, deviation }| mean + deviation * 4)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    properties! {
        #[test]
        fn nearly_all_answers_come_within_what_was_seen_before_them(
            least in 1..2000u64,
            spread in 0..1000u64,
            parts in prop::collection::vec(0.0..1.0f64, 200..300),
        ) {
            let mut of_late = AnswerTime::default();
            let mut beyond = 0;
            for (number, part) in parts.iter().enumerate() {
                let time = Duration::from_millis(least) + Duration::from_millis(spread).mul_f64(*part);
                beyond += usize::from(number > 20 && time > of_late.nearly_all());
                of_late.took(time);
            }
            prop_assert!(beyond <= parts.len() / 20, "{} of {}", beyond, parts.len());
            prop_assert!(of_late.nearly_all() <= Duration::from_millis(least + spread * 4));
        }
    }
}
