//! Forecasts against a vendor that knows when it overwrites.

use proptest::prelude::*;

use super::*;

/// A vendor's queue, and when each event of all time comes.
#[derive(Debug)]
struct Vendor {
    times: Vec<u64>,
    /// How many of them are gone: read, or overwritten.
    gone: usize,
}

impl Vendor {
    /// One event every so many microseconds.
    fn steady(apart: u64, seconds: u64) -> Self {
        Self { times: (1..=seconds * 1_000_000 / apart).map(|n| n * apart / 1000).collect(), gone: 0 }
    }

    fn read(&mut self, now: u64) -> Vec<u64> {
        let came = self.times.partition_point(|time| *time <= now);
        self.gone = self.gone.max(came.saturating_sub(KEPT_BY_VENDOR as usize));
        let read = self.times[self.gone..came].iter().copied().take(MAX_IN_ONE_READ).collect::<Vec<_>>();
        self.gone += read.len();
        read
    }

    /// How long until it overwrites if nobody reads.
    fn seconds_left(&self, now: u64) -> Option<f64> {
        let fatal = self.times.get(self.gone + KEPT_BY_VENDOR as usize)?;
        Some(Duration::from_millis(fatal.saturating_sub(now)).as_secs_f64())
    }
}

/// One stream of one region: the vendor, its reader, and what an hour shows of them.
struct World {
    vendor: Vendor,
    forecast: OverflowForecast,
    start: Instant,
    now: u64,
    stored: Vec<StoredRead>,
    last_good: u64,
    is_in_doubt: bool,
}

/// The wall clock at the start, in milliseconds.
const WALL: u64 = 1_800_000_000_000;

impl World {
    fn new(vendor: Vendor) -> Self {
        Self {
            vendor,
            forecast: OverflowForecast::default(),
            start: Instant::now(),
            now: 0,
            stored: Vec::new(),
            last_good: 0,
            is_in_doubt: false,
        }
    }

    fn at(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    fn wall(&self) -> UnixMillis {
        UnixMillis(WALL + self.now)
    }

    fn read(&mut self) -> usize {
        let times = self.vendor.read(self.now);
        let (began, events) = (self.at(), times.len());
        self.forecast.good_read(GoodRead { began, events }, || times.clone());
        self.last_good = self.now;
        if events > 0 {
            let follows_doubt = std::mem::take(&mut self.is_in_doubt);
            self.stored.push(StoredRead { at: self.wall(), events, times, follows_doubt });
        }
        self.now += 5;
        events
    }

    /// A read that takes events and brings none.
    fn read_in_doubt(&mut self) {
        self.vendor.read(self.now);
        self.forecast.read_in_doubt();
        self.is_in_doubt = true;
        self.now += 5;
    }

    /// Reads as the poller does: at once after a full read.
    fn run(&mut self, seconds: u64) {
        let until = self.now + seconds * 1000;
        while self.now < until {
            if self.read() < MAX_IN_ONE_READ {
                self.now += 200;
            }
        }
    }

    fn restart(&mut self, downtime: u64, is_known: bool) {
        // What follows a doubt is not known to have been quiet.
        let last = self.stored.last().map_or(self.wall(), |read| read.at);
        let stopped = if self.is_in_doubt { last } else { UnixMillis(WALL + self.last_good) };
        self.now += downtime * 1000;
        self.forecast = OverflowForecast::default();
        if is_known {
            self.forecast.recall(self.stored.clone(), stopped, (self.at(), self.wall()));
            if self.is_in_doubt {
                self.forecast.read_in_doubt();
            }
        }
    }

    fn left(&self) -> Option<f64> {
        self.forecast.seconds_left(self.at())
    }

    fn truth(&self) -> f64 {
        self.vendor.seconds_left(self.now).unwrap()
    }

    /// Nothing is read for so long; at each second what is shown is held against the truth.
    fn starve(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.check();
            self.now += 1000;
        }
        self.check();
    }

    /// Not more than the truth, but for what one event and the rounding of times make.
    fn check(&self) {
        let (shown, truth) = (self.left().expect("a time is in sight"), self.truth());
        assert!(shown <= truth * 1.05 + 0.1, "at {} ms: shown {shown}, true {truth}", self.now);
    }

    /// Nor less than half of it.
    fn check_closely(&self) {
        self.check();
        let (shown, truth) = (self.left().unwrap(), self.truth());
        assert!(shown >= truth * 0.5 - 0.5, "at {} ms: shown {shown}, true {truth}", self.now);
    }
}

/// 20 events a second.
const APART: u64 = 50_000;

#[tokio::test(start_paused = true)]
async fn a_steady_rate_is_told_from_the_second_read_on_and_runs_down_while_nothing_is_read() {
    let mut world = World::new(Vendor::steady(APART, 1000));
    assert_eq!(world.left(), None);
    world.run(1);
    world.check();
    world.run(30);
    world.check_closely();
    assert!((world.left().unwrap() - 100.0).abs() < 5.0, "{:?}", world.left());
    world.starve(150);
    assert_eq!(world.left(), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn the_first_read_after_a_restart_tells_it_whether_or_not_the_earlier_run_is_known() {
    for (is_known, downtime) in [(true, 10), (false, 10), (true, 60), (false, 60), (true, 600), (false, 600)] {
        let mut world = World::new(Vendor::steady(APART, 2000));
        world.run(3);
        world.restart(downtime, is_known);
        if is_known {
            world.check();
        }
        let first = world.read();
        assert_eq!(first == MAX_IN_ONE_READ, downtime >= 60, "{first}");
        world.check_closely();
        world.starve(120);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_and_an_outage_in_which_reads_took_events_change_nothing_about_the_rate() {
    for is_fresh in [true, false] {
        let mut world = World::new(Vendor::steady(APART, 3000));
        world.run(if is_fresh { 1 } else { 400 });
        world.starve(300);
        world.read();
        world.check_closely();
        for _ in 0..300 {
            world.read_in_doubt();
            world.now += 200;
        }
        world.read();
        world.check_closely();
        world.run(5);
        world.check_closely();
    }
}

#[tokio::test(start_paused = true)]
async fn bursts_are_not_forgotten_before_the_next() {
    // 900 events in three seconds, once a minute.
    let times = (0..60 * 18_000).filter(|n| n % 18_000 < 900).map(|n| n * 10 / 3);
    let mut world = World::new(Vendor { times: times.collect(), gone: 0 });
    for _ in 0..50 {
        world.run(11);
        let (shown, truth) = (world.left().unwrap(), world.truth());
        assert!(shown <= truth * 2.0, "at {} ms: shown {shown}, true {truth}", world.now);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_for_long_leaves_no_time_in_sight_and_the_first_events_are_seen_at_once() {
    let busy = (0..2000).map(|n| n * 10);
    let again = (0..6000).map(|n| 7_200_000 + n * 10);
    let mut world = World::new(Vendor { times: busy.chain(again).collect(), gone: 0 });
    world.run(15);
    world.check();
    world.run(7180);
    assert_eq!(world.left(), None);
    assert!(world.forecast.per_second() < 0.001);
    world.run(7);
    let (shown, truth) = (world.left().unwrap(), world.truth());
    assert!(shown <= truth * 2.0, "at {} ms: shown {shown}, true {truth}", world.now);
    world.run(10);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_time_that_is_wrong_and_events_without_one_make_it_shorter_at_most() {
    for wrong in [0, u64::MAX] {
        let mut times: Vec<_> = (0..999).map(|n| 1_000_000 + n * 50).collect();
        times.push(wrong);
        let mut forecast = OverflowForecast::default();
        let now = Instant::now();
        forecast.good_read(GoodRead { began: now, events: 1000 }, || times);
        let left = forecast.seconds_left(now).unwrap();
        assert!((left - 50.0).abs() < 2.0, "{left}");
    }
    let mut forecast = OverflowForecast::default();
    forecast.good_read(GoodRead { began: Instant::now(), events: 1000 }, Vec::new);
    assert!(forecast.seconds_left(Instant::now()).unwrap() <= 1.0);
}

#[derive(Clone, Debug)]
enum Act {
    Run(u64),
    Starve(u64),
    Doubts(u64),
    Restart(u64, bool),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        (1_u64..90).prop_map(Act::Run),
        (1_u64..200).prop_map(Act::Starve),
        (1_u64..50).prop_map(Act::Doubts),
        ((1_u64..200), any::<bool>()).prop_map(|(downtime, is_known)| Act::Restart(downtime, is_known)),
    ];
    proptest::collection::vec(act, 1..8)
}

properties! {
    #[test]
    fn what_is_shown_is_never_above_twice_the_truth(
        // From 1000 events a second to one in ten seconds.
        apart in prop_oneof![1000_u64..20_000, 20_000_u64..10_000_000],
        acts in acts(),
    ) {
        let mut world = World::new(Vendor::steady(apart, 2_000 + 2_100 * apart / 1_000_000));
        // Times are in whole milliseconds, and one event more or less comes into a second.
        let slack = Duration::from_micros(apart * 2000).as_secs_f64() * 0.05 + 0.1;
        let check = |world: &World| {
            let (shown, truth) = (world.left().unwrap_or(f64::INFINITY), world.truth());
            prop_assert!(shown <= truth * 2.0 + slack, "at {} ms: shown {shown}, true {truth}", world.now);
            Ok(())
        };
        let spacing = apart.div_ceil(1_000_000);
        world.run(2 + 2 * spacing);
        for act in acts {
            match act {
                Act::Run(seconds) => world.run(seconds),
                Act::Starve(seconds) => {
                    for _ in 0..seconds {
                        world.now += 1000;
                        check(&world)?;
                    }
                }
                Act::Doubts(count) => (0..count).for_each(|_| { world.read_in_doubt(); world.now += 1000; }),
                Act::Restart(downtime, is_known) => {
                    world.restart(downtime, is_known);
                    // Of a queue that was empty nothing is known.
                    world.run(if is_known { 1 } else { 2 + 2 * spacing });
                }
            }
            check(&world)?;
        }
    }
}
