//! [`Rate`]: how fast a number grows, over the last half to whole minute.

use std::time::Duration;

use tokio::time::Instant;

/// Looked at every few seconds; says nothing until that was long enough to say something.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::events::subscription) struct Rate {
    /// Where it is measured from.
    from: Option<(Instant, u64)>,
    /// Where it will be measured from when this is half a minute ago.
    then: Option<(Instant, u64)>,
    per_second: Option<f64>,
}

/// How long a number stands before another is measured from.
const HALF: Duration = Duration::from_secs(30);

/// In less nothing is known.
const LEAST: Duration = Duration::from_secs(4);

impl Rate {
    /// The number is so great now. One that has gone back begins anew.
    pub(in crate::events::subscription) fn sample(&mut self, now: Instant, count: u64) {
        if self.then.or(self.from).is_some_and(|(_, before)| before > count) {
            *self = Self::default();
        }
        let (at, before) = *self.from.get_or_insert((now, count));
        let passed = now.saturating_duration_since(at);
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let grown = (count - before) as f64;
        self.per_second = (passed >= LEAST).then(|| grown / passed.as_secs_f64());
        match self.then {
            None if passed >= HALF => self.then = Some((now, count)),
            Some((then, _)) if now.saturating_duration_since(then) >= HALF => {
                self.from = self.then.replace((now, count));
            }
            _ => {}
        }
    }

    /// `None` when it was not looked at for long enough.
    pub(in crate::events::subscription) fn per_second(&self) -> Option<f64> {
        self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_says_what_the_last_minute_was_like() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let mut count = 0;
        for second in (0..=600).step_by(5) {
            rate.sample(start + Duration::from_secs(second), count);
            match second {
                0 => assert_eq!(rate.per_second(), None),
                5..=300 => assert_eq!(rate.per_second(), Some(2.0)),
                // A minute and a few seconds after it has stopped nothing is left of it.
                370.. => assert_eq!(rate.per_second(), Some(0.0), "{second}"),
                _ => assert!(rate.per_second().is_some_and(|now| now < 2.0)),
            }
            count += if second < 300 { 10 } else { 0 };
        }
        rate.sample(start + Duration::from_secs(605), 3);
        assert_eq!(rate.per_second(), None, "it has gone back");
    }
}
