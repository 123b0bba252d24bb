//! How long a caller that takes its answer slowly is waited for.
//!
//! One rule for the caller that stops reading and for the one that reads a byte now and then: it has a stock of
//! patience, `server.write_timeout` at most. Waiting for it uses the stock up; every byte it takes gives some back, at
//! the rate of [`SLOWEST`]. So a caller that takes nothing is cut after the whole time, one that takes less than
//! [`SLOWEST`] is cut a little later, and one that takes more is never cut, however large its answer is. (nginx's
//! `send_timeout` lets a byte every 59 seconds hold a connection for ever; a total bound, as Envoy's route timeout,
//! would cut large answers on slow lines. Kestrel's minimum data rate is the nearest relative.)
//!
//! Invariant: time runs only while something could not be written; an idle connection costs no timer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Bytes a second below which a caller loses patience faster than it earns it.
const SLOWEST: f64 = 1024.0;

/// The patience with one caller.
#[derive(Debug)]
pub(super) struct MinDataRate {
    whole: Duration,
    left: Duration,
    /// Made when first needed.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl MinDataRate {
    pub(super) fn new(whole: Duration) -> Self {
        Self { whole, left: whole, timer: None, waiting: false }
    }

    /// The caller takes nothing just now. Ready when patience is over.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = Instant::now() + self.left;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(until);
        }
        ready!(timer.as_mut().poll(cx));
        // However often it is asked, it stays over.
        self.left = Duration::ZERO;
        Poll::Ready(())
    }

    /// The caller took so many bytes.
    pub(super) fn took(&mut self, bytes: u64) {
        if self.waiting {
            self.waiting = false;
            let until = self.timer.as_ref().map(|timer| timer.deadline());
            self.left = until.map_or(self.left, |until| until.saturating_duration_since(Instant::now()));
        }
        if self.left < self.whole {
            let earned = Duration::try_from_secs_f64(bytes as f64 / SLOWEST).unwrap_or(self.whole);
            self.left = self.left.saturating_add(earned).min(self.whole);
        }
    }

    /// The caller took all there was.
    pub(super) fn took_all(&mut self) {
        self.waiting = false;
        self.left = self.whole;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    /// Takes `bytes` every `pause`, and says after how many times patience was over.
    async fn cut_after(patience: &mut MinDataRate, bytes: u64, pause: Duration, most: usize) -> usize {
        for n in 0..most {
            if tokio::time::timeout(pause, poll_fn(|cx| patience.poll_over(cx))).await.is_ok() {
                return n;
            }
            patience.took(bytes);
        }
        most
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_cut_and_who_trickles_is_too_but_not_who_is_slow() {
        let second = Duration::from_secs(1);
        let patience = || MinDataRate::new(30 * second);
        let began = Instant::now();
        let mut one = patience();
        poll_fn(|cx| one.poll_over(cx)).await;
        assert_eq!(began.elapsed().as_secs(), 30);
        // Two timers that end together may be seen in either order.
        let near = |times: usize, expected: usize| (expected - 1..=expected + 1).contains(&times);
        // A byte a second earns a thousandth of the second it took.
        assert!(near(cut_after(&mut patience(), 1, second, 1000).await, 30));
        assert!(near(cut_after(&mut patience(), 512, second, 1000).await, 59));
        assert_eq!(cut_after(&mut patience(), 1100, second, 1000).await, 1000);
        // A large piece at once earns no more than the whole.
        let mut greedy = patience();
        greedy.took(1 << 40);
        assert!(near(cut_after(&mut greedy, 0, second, 1000).await, 30));
        // Whoever took all begins anew.
        let mut done = patience();
        assert_eq!(cut_after(&mut done, 0, 20 * second, 1).await, 1);
        done.took_all();
        assert!(near(cut_after(&mut done, 0, second, 1000).await, 30));
    }
}
