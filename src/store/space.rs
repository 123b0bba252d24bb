//! How much room a store has, and how long that lasts at the rate at which it became less.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The room of a store, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// What the data files have of the disk.
    pub taken: u64,
    /// So much of that, about, holds something. The rest is used again before more is taken.
    pub used: u64,
    /// What is free on their file system.
    pub free: u64,
    /// What must be free, there or in the files: with less nothing more is read from the vendor.
    pub reserve: u64,
}

impl Space {
    /// What may come before nothing more is read.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.free.saturating_add(self.taken.saturating_sub(self.used)).saturating_sub(self.reserve)
    }
}

/// How the room changed over the last hour.
#[derive(Debug, Default)]
pub struct SpaceHistory(VecDeque<(Instant, Space)>);

/// Between two that are kept.
const APART: Duration = Duration::from_secs(60);
/// So many are kept.
const KEPT: usize = 60;
/// What is known of a shorter time says nothing of a rate.
const SHORTEST: Duration = Duration::from_secs(300);

impl SpaceHistory {
    /// Notes how it is now.
    pub fn note(&mut self, now: Instant, space: Space) {
        // The newest is as it is now; those before it stand apart.
        if let [.., (before, _), _] = self.0.make_contiguous()
            && now.saturating_duration_since(*before) < APART
        {
            self.0.pop_back();
        }
        self.0.push_back((now, space));
        if self.0.len() > KEPT {
            self.0.pop_front();
        }
    }

    /// How long from the newest look until nothing more is read, at the rate of the last hour. The logs together grow
    /// by `limit_left` bytes more at most. `None`: too little is known, it becomes no less, or the logs reach their
    /// limits first.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a forecast")]
    pub fn full_in(&self, limit_left: u64) -> Option<Duration> {
        let ((began, first), (ended, last)) = (self.0.front()?, self.0.back()?);
        let span = ended.saturating_duration_since(*began);
        if span < SHORTEST {
            return None;
        }
        let per_second = |before: u64, after: u64| (after as f64 - before as f64) / span.as_secs_f64();
        let shrinks = -per_second(first.left(), last.left());
        if shrinks <= 0.0 {
            return None;
        }
        let left = last.left() as f64;
        // What the logs have a part in ends where they reach their limits; what others write goes on.
        let grows = per_second(first.used, last.used).clamp(0.0, shrinks);
        let logs_grow_for = if grows > 0.0 { limit_left as f64 / grows } else { f64::INFINITY };
        let seconds = match left / shrinks {
            soon if soon <= logs_grow_for => soon,
            _ => logs_grow_for + (left - shrinks * logs_grow_for) / (shrinks - grows),
        };
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn space(used: u64, free: u64) -> Space {
        Space { taken: 100 * MIB, used: used * MIB, free: free * MIB, reserve: 64 * MIB }
    }

    /// What a look each minute finds.
    fn over(minutes: u64, at: impl Fn(u64) -> Space) -> SpaceHistory {
        let (mut history, began) = (SpaceHistory::default(), Instant::now());
        for minute in 0..=minutes {
            // Looks in between say no more.
            for seconds in [0, 20, 59].into_iter().take(if minute < minutes { 3 } else { 1 }) {
                history.note(began + Duration::from_secs(minute * 60 + seconds), at(minute));
            }
        }
        history
    }

    fn minutes(history: &SpaceHistory, limit_left: u64) -> Option<u64> {
        history.full_in(limit_left * MIB).map(|time| (time.as_secs_f64() / 60.0).round() as u64)
    }

    #[test]
    fn what_is_left_is_what_is_free_on_the_disk_and_in_the_file_beyond_the_reserve() {
        assert_eq!(space(90, 164).left(), 110 * MIB);
        assert_eq!(space(90, 10).left(), 0);
        assert_eq!(space(200, 65).left(), MIB);
    }

    #[test]
    fn it_is_told_when_it_is_full_at_the_rate_of_the_last_hour() {
        // The logs grow by a MiB a minute, in the file and then on the disk.
        let grows = |minute| space(10 + minute, 74);
        assert_eq!(minutes(&over(4, grows), 1000), None, "too little is known");
        assert_eq!(minutes(&over(20, grows), 1000), Some(80), "70 in the file and 10 on the disk");
        assert_eq!(minutes(&over(20, grows), 30), None, "they reach their limits first");
        // Another program fills the disk beside them.
        let both = |minute| space(10 + minute, 1064 - minute);
        assert_eq!(minutes(&over(20, both), 1000), Some(525));
        assert_eq!(minutes(&over(20, both), 100), Some(950), "a hundred minutes by two, then by one");
        // Nothing grows; it becomes more; only the last hour counts.
        assert_eq!(minutes(&over(20, |_| space(10, 74)), 1000), None);
        assert_eq!(minutes(&over(20, |minute| space(10, 74 + minute)), 1000), None);
        assert_eq!(minutes(&over(200, |minute| space(10, 1000 - minute.min(100))), 1000), None);
    }
}
