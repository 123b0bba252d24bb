//! How far an export is: a bar on a terminal, a plain line now and then elsewhere. On stderr.

use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::kernel::clock::Clock;

/// How often a plain line is written.
const EVERY: Duration = Duration::from_secs(5);

/// Tells how far an export is.
pub(super) struct Progress<'a> {
    err: &'a mut dyn Write,
    bar: Option<ProgressBar>,
    clock: Clock,
    began: Instant,
    told: Instant,
    total: Option<u64>,
    /// Messages that were there before.
    before: u64,
    messages: u64,
}

impl<'a> Progress<'a> {
    /// Begins at `before` messages of `total`, if that is known.
    pub(super) fn new(err: &'a mut dyn Write, clock: Clock, before: u64, total: Option<u64>) -> Self {
        // A list that grew meanwhile has more.
        let total = total.map(|total| total.max(before));
        let bar = io::stderr().is_terminal().then(|| {
            let (bar, form) = match total {
                Some(total) => (ProgressBar::new(total), "{bar:30} {pos}/{len} messages, {per_sec}, {eta} left"),
                None => (ProgressBar::new_spinner(), "{spinner} {pos} messages, {per_sec}, {elapsed}"),
            };
            let style = ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.with_style(style).with_position(before)
        });
        if let Some(bar) = &bar {
            bar.reset_eta();
        }
        let began = clock.now();
        Self { err, bar, began, told: began, clock, total, before, messages: before }
    }

    /// So many more were written.
    pub(super) fn more(&mut self, messages: u64) {
        self.messages += messages;
        if let Some(bar) = &self.bar {
            bar.set_position(self.messages);
            return;
        }
        let now = self.clock.now();
        if now - self.told >= EVERY {
            self.told = now;
            let line = line(self.messages, self.before, self.total, now - self.began);
            // A closed stderr leaves nobody to tell.
            let _ = writeln!(self.err, "rtm-gateway: {line}");
        }
    }

    /// Says something beside.
    pub(super) fn say(&mut self, text: &str) {
        let err = &mut *self.err;
        let mut write = || drop(writeln!(err, "rtm-gateway: {text}"));
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Leaves the terminal as it was, and says what it came to: so many messages are there.
    pub(super) fn end(mut self, what: &str, messages: u64) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let took = self.clock.now() - self.began;
        let done = messages.saturating_sub(self.before);
        let _ = writeln!(
            self.err,
            "rtm-gateway: {what}: {messages} messages, {done} of them now, in {:.1} s ({:.0}/s)",
            took.as_secs_f64(),
            rate(done, took)
        );
    }
}

fn rate(messages: u64, took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "it is shown rounded")]
    let messages = messages as f64;
    messages / took.as_secs_f64().max(0.001)
}

fn line(messages: u64, before: u64, total: Option<u64>, took: Duration) -> String {
    let rate = rate(messages - before, took);
    let Some(total) = total.filter(|total| *total >= messages) else {
        return format!("{messages} messages, {rate:.0}/s");
    };
    #[expect(clippy::cast_precision_loss, reason = "it is shown rounded")]
    let left = (rate > 0.0).then(|| (total - messages) as f64 / rate);
    let left = left.map_or(String::new(), |left| format!(", about {left:.0} s left"));
    format!("{messages} of {total} messages, {rate:.0}/s{left}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_count_rate_and_time_left_as_far_as_they_are_known() {
        let took = Duration::from_secs(10);
        assert_eq!(line(1500, 500, Some(2500), took), "1500 of 2500 messages, 100/s, about 10 s left");
        assert_eq!(line(1500, 500, None, took), "1500 messages, 100/s");
        // More came than were counted.
        assert_eq!(line(1500, 500, Some(1400), took), "1500 messages, 100/s");
        assert_eq!(line(500, 500, Some(1400), took), "500 of 1400 messages, 0/s");
    }
}
