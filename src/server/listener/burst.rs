//! So many at once, and so many a second: for what a caller may do for nothing.
//!
//! Invariant: the clock is read only when the stock is used up, so counting costs nothing in the usual case.

use tokio::time::Instant;

/// A stock that refills with time.
#[derive(Debug)]
pub(super) struct Burst {
    most: u32,
    per_second: u32,
    left: u32,
    refilled: Instant,
}

impl Burst {
    /// A full stock of `most`, and `per_second` more each second.
    pub(super) fn new(most: u32, per_second: u32) -> Self {
        Self { most, per_second, left: most, refilled: Instant::now() }
    }

    /// Takes one; false when there is none.
    pub(super) fn take(&mut self) -> bool {
        if self.left == 0 {
            let now = Instant::now();
            let since = now.saturating_duration_since(self.refilled).as_secs_f64();
            let earned = (since * f64::from(self.per_second)).min(f64::from(self.most)) as u32;
            if earned == 0 {
                return false;
            }
            self.left = earned;
            self.refilled = now;
        }
        self.left -= 1;
        true
    }

    /// Gives some back, up to the most.
    pub(super) fn give(&mut self, some: u32) {
        self.left = self.left.saturating_add(some).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn taken(allowance: &mut Burst) -> usize {
        (0..1000).take_while(|_| allowance.take()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stock_is_used_up_and_comes_back_with_time() {
        let mut allowance = Burst::new(100, 10);
        assert_eq!(taken(&mut allowance), 100);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(taken(&mut allowance), 30);
        allowance.give(7);
        assert_eq!(taken(&mut allowance), 7);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(taken(&mut allowance), 100);
    }
}
