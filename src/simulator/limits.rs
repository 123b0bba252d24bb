//! The vendor's limits, counted in every sliding window.
//!
//! Invariants: of each window the instants of the last N requests are kept, so a request is compared with the one N
//! before it: at most W apart means that a window of length W (both ends in it) held N + 1, which is a breach. Refused
//! requests are counted too. Instants are taken under the lock that keeps them, so they never run backwards.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::kernel::names::BucketName;

/// The limit of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// So many requests in any window of this length.
    Own {
        /// N, at least 1.
        requests: usize,
        per: Duration,
    },
    /// Counted together with that bucket, which has its own limit.
    Share(BucketName),
}

impl Limit {
    /// So many a second.
    #[must_use]
    pub fn per_second(requests: usize) -> Self {
        Self::Own { requests, per: Duration::from_secs(1) }
    }
}

/// The limits of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits([Limit; BucketName::ALL.len()]);

impl Default for Limits {
    /// What the vendor publishes: events 10 a second each, history 100 each; *field*: messages 500 together.
    fn default() -> Self {
        let mut limits = Self([Limit::per_second(100); BucketName::ALL.len()]);
        limits.set(BucketName::UserEvents, Limit::per_second(10));
        limits.set(BucketName::ChannelEvents, Limit::per_second(10));
        limits.set(BucketName::Messages, Limit::per_second(500));
        limits
    }
}

impl Limits {
    /// These, with another limit for one bucket.
    #[must_use]
    pub fn with(mut self, bucket: BucketName, limit: Limit) -> Self {
        self.set(bucket, limit);
        self
    }

    /// The same limit for all buckets, each counted by itself: for benches that must not be limited.
    #[must_use]
    pub fn all(limit: Limit) -> Self {
        Self([limit; BucketName::ALL.len()])
    }

    /// Whether every share points at a limit of its own.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.0.iter().all(|limit| match limit {
            Limit::Own { .. } => true,
            Limit::Share(home) => matches!(self.0[*home as usize], Limit::Own { .. }),
        })
    }

    fn set(&mut self, bucket: BucketName, limit: Limit) {
        self.0[bucket as usize] = limit;
    }
}

/// What counting a request found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedRequest {
    /// The instant it was counted at.
    pub at: Instant,
    /// The breach, if it was one: the limit and one, and the time within which they were counted.
    pub breach: Option<(usize, Duration)>,
    /// The vendor answers 429. Also without a breach, when another user of the App ID has spent the limit.
    pub refused: bool,
}

/// The counters of one app.
#[derive(Debug)]
pub struct Counters {
    limits: Limits,
    windows: [Window; BucketName::ALL.len()],
}

impl Counters {
    /// Counters that have counted nothing.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, windows: Default::default() }
    }

    /// Counts one request of a caller.
    pub fn count(&mut self, bucket: BucketName, at: Instant) -> CountedRequest {
        let (home, requests, per) = self.resolve(bucket);
        self.windows[home as usize].count(at, requests, per)
    }

    /// Counts `requests` of somebody else who spends the same App ID: they can make callers be refused, and are never
    /// a violation.
    pub fn spend(&mut self, bucket: BucketName, requests: usize, at: Instant) {
        let (home, ..) = self.resolve(bucket);
        self.windows[home as usize].spent.extend(std::iter::repeat_n(at, requests));
    }

    /// Changes the limits; what was counted stays counted.
    pub fn relimit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// A share of a share is not limited: see [`Limits::is_sound`].
    fn resolve(&self, bucket: BucketName) -> (BucketName, usize, Duration) {
        let home = match self.limits.0[bucket as usize] {
            Limit::Own { .. } => bucket,
            Limit::Share(home) => home,
        };
        match self.limits.0[home as usize] {
            Limit::Own { requests, per } => (home, requests.max(1), per),
            Limit::Share(_) => (home, usize::MAX, Duration::ZERO),
        }
    }
}

#[derive(Debug, Default)]
struct Window {
    /// The last N requests of callers, refused ones included.
    own: VecDeque<Instant>,
    /// What filled the limit within the last W: callers' requests that were served, and somebody else's.
    spent: VecDeque<Instant>,
}

impl Window {
    fn count(&mut self, at: Instant, requests: usize, per: Duration) -> CountedRequest {
        // More than N are kept only after the limit was lowered.
        while self.own.len() > requests {
            self.own.pop_front();
        }
        let apart = (self.own.len() == requests).then(|| self.own.pop_front()).flatten();
        let apart = apart.map(|before| at.duration_since(before));
        self.own.push_back(at);
        while self.spent.front().is_some_and(|&t| at.duration_since(t) > per) {
            self.spent.pop_front();
        }
        let breach = apart.filter(|&apart| apart <= per).map(|apart| (requests + 1, apart));
        let refused = breach.is_some() || self.spent.len() >= requests;
        // A refused request is a caller's fault all the same, but it fills nothing: else one flood would refuse for
        // ever.
        if !refused {
            self.spent.push_back(at);
        }
        CountedRequest { at, breach, refused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BUCKET: BucketName = BucketName::UserEvents;

    fn counters(requests: usize, per_ms: u64) -> Counters {
        let per = Duration::from_millis(per_ms);
        Counters::new(Limits::default().with(BUCKET, Limit::Own { requests, per }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_across_the_edge_of_two_seconds_is_a_breach() {
        let (mut counters, t0) = (counters(10, 1000), Instant::now());
        let at = |ms| t0 + Duration::from_millis(ms);
        for _ in 0..10 {
            assert_eq!(counters.count(BUCKET, at(900)).breach, None);
        }
        let counted = counters.count(BUCKET, at(1100));
        assert_eq!(counted.breach, Some((11, Duration::from_millis(200))));
        assert!(counted.refused);
        // Exactly one window apart is still inside a closed window.
        assert!(counters.count(BUCKET, at(1900)).breach.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn somebody_elses_requests_refuse_without_a_violation() {
        let (mut counters, t0) = (counters(2, 1000), Instant::now());
        counters.spend(BUCKET, 2, t0);
        let counted = counters.count(BUCKET, t0 + Duration::from_millis(500));
        assert_eq!((counted.refused, counted.breach), (true, None));
        assert!(!counters.count(BUCKET, t0 + Duration::from_millis(1001)).refused);
    }

    #[tokio::test(start_paused = true)]
    async fn buckets_that_share_are_counted_together() {
        let limits = Limits::default()
            .with(BucketName::HistoryCreate, Limit::per_second(1))
            .with(BucketName::HistoryCount, Limit::Share(BucketName::HistoryCreate));
        let (mut counters, now) = (Counters::new(limits), Instant::now());
        assert_eq!(counters.count(BucketName::HistoryCreate, now).breach, None);
        assert!(counters.count(BucketName::HistoryCount, now).breach.is_some());
        assert_eq!(counters.count(BucketName::HistoryGet, now).breach, None);
    }

    properties! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        /// The comparison with the request N before finds exactly what looking at every window finds.
        #[test]
        fn a_breach_is_found_exactly_when_some_window_holds_too_many(
            steps in proptest::collection::vec(0_u64..400, 1..60), requests in 1_usize..6
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _inside = runtime.enter();
            let (mut counters, t0) = (counters(requests, 1000), Instant::now());
            let mut times = Vec::new();
            let mut now = 0;
            for step in steps {
                now += step;
                times.push(now);
                let found = counters.count(BUCKET, t0 + Duration::from_millis(now)).breach.is_some();
                let held = times.iter().filter(|&&t| t + 1000 >= now).count();
                prop_assert_eq!(found, held > requests);
            }
        }
    }
}
