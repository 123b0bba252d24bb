//! [`CutOff`]: when retention will take the oldest event that a subscription has not read, if it reads no further.
//!
//! It is a forecast: by age it holds to half a minute (how often logs are trimmed); by bytes it supposes that events
//! come as fast, and are as large, as in the last minute. What the clock has jumped is kept longer, so it may be
//! later.

use std::time::Duration;

use super::RetentionLimit;
use crate::events::log::Retention;

/// In how long, and by which limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CutOff {
    pub(super) after: Duration,
    pub(super) by: RetentionLimit,
}

/// What a stream holds from the oldest unread event on, and how it grows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unread {
    /// How old the event is, as far as that is believed.
    pub(super) age: Duration,
    /// Bytes from it to the end.
    pub(super) bytes: u64,
    /// By how many bytes the stream grows in a second; `None`: not known yet.
    pub(super) growth: Option<f64>,
}

impl CutOff {
    /// By whichever limit is first.
    pub(super) fn of(unread: Unread, keeps: Retention) -> Self {
        let by_age = Self { after: keeps.age.saturating_sub(unread.age), by: RetentionLimit::Age };
        let room = keeps.bytes.saturating_sub(unread.bytes);
        #[expect(clippy::cast_precision_loss, reason = "a forecast")]
        let seconds = match unread.growth {
            _ if room == 0 => Some(0.0),
            Some(growth) if growth > 0.0 => Some(room as f64 / growth),
            _ => None,
        };
        let by_bytes = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        match by_bytes {
            Some(after) if after < by_age.after => Self { after, by: RetentionLimit::Bytes },
            _ => by_age,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whichever_limit_is_first_takes_it() {
        let keeps = Retention { age: Duration::from_secs(100), bytes: 1000 };
        let of = |age: u64, bytes: u64, growth: Option<f64>| {
            let CutOff { after, by } = CutOff::of(Unread { age: Duration::from_secs(age), bytes, growth }, keeps);
            (after.as_secs(), by.as_str())
        };
        assert_eq!(of(30, 400, None), (70, "retention"), "nothing is known of how it grows");
        assert_eq!(of(30, 400, Some(0.0)), (70, "retention"));
        assert_eq!(of(30, 400, Some(1.0)), (70, "retention"), "in ten minutes");
        assert_eq!(of(30, 400, Some(60.0)), (10, "retention_bytes"));
        assert_eq!(of(30, 2000, None), (0, "retention_bytes"), "it is over already");
        assert_eq!(of(300, 0, Some(1e-300)), (0, "retention"));
    }
}
