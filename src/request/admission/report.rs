//! Report mode: what would be refused is said once a minute for each client and reason, not for each request.

use std::time::Duration;

use tokio::time::Instant;

use crate::kernel::names::ClientName;
use crate::request::refusal::Ceiling;

/// How often the same is said of the same client.
const EVERY: Duration = Duration::from_secs(60);

/// Why a request would be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `allow` does not allow it.
    Forbidden,
    /// `max_concurrent`.
    MaxConcurrent,
    /// `requests_per_second`.
    RequestsPerSecond,
}

impl Reason {
    /// Its word in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::MaxConcurrent => "max_concurrent",
            Self::RequestsPerSecond => "requests_per_second",
        }
    }

    fn place(self) -> usize {
        match self {
            Self::Forbidden => 0,
            Self::MaxConcurrent => 1,
            Self::RequestsPerSecond => 2,
        }
    }
}

impl From<Ceiling> for Reason {
    fn from(ceiling: Ceiling) -> Self {
        match ceiling {
            Ceiling::MaxConcurrent(_) => Self::MaxConcurrent,
            Ceiling::RequestsPerSecond(_) => Self::RequestsPerSecond,
        }
    }
}

/// What was said of a client, and what not yet.
#[derive(Debug, Default)]
pub(super) struct ReportLimiter([ReasonCount; 3]);

#[derive(Clone, Copy, Debug, Default)]
struct ReasonCount {
    said_at: Option<Instant>,
    unsaid: u64,
}

/// Something to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    reason: Reason,
    requests: u64,
}

impl ReportLimiter {
    pub(super) fn count(&mut self, reason: Reason, now: Instant) -> Option<Report> {
        let count = &mut self.0[reason.place()];
        count.unsaid += 1;
        if count.said_at.is_some_and(|at| now < at + EVERY) {
            return None;
        }
        count.said_at = Some(now);
        Some(Report { reason, requests: std::mem::take(&mut count.unsaid) })
    }
}

impl Report {
    pub(super) fn log(&self, client: &ClientName) {
        tracing::warn!(
            client = client.as_str(),
            reason = self.reason.as_str(),
            requests = self.requests,
            "would be refused, but for mode = \"report\""
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_kind_is_said_once_a_minute_with_how_many_there_were() {
        let mut reported = ReportLimiter::default();
        let began = Instant::now();
        assert_eq!(reported.count(Reason::Forbidden, began).map(|r| r.requests), Some(1));
        for second in 1..60 {
            assert_eq!(reported.count(Reason::Forbidden, began + Duration::from_secs(second)), None);
        }
        assert_eq!(reported.count(Reason::MaxConcurrent, began).map(|r| r.requests), Some(1));
        assert_eq!(reported.count(Reason::Forbidden, began + EVERY).map(|r| r.requests), Some(60));
    }
}
