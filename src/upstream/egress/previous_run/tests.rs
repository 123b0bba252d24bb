//! What one run tells the next.

use std::num::NonZeroU32;
use std::time::SystemTime;

use super::*;
use crate::kernel::metrics::Metrics;
use crate::kernel::task::Tasks;
use crate::store::embedded::EmbeddedStore;

/// Runs that follow each other over one store.
struct Runs {
    folder: tempfile::TempDir,
    clock: Clock,
}

impl Runs {
    fn new() -> Self {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        Self { folder: tempfile::tempdir().unwrap(), clock: Clock::anchored(at) }
    }

    /// A run that finds what the one before left and, if it ends in order, leaves `sent` behind.
    async fn run(&self, sent: Option<&CountedUntil>) -> PreviousRun {
        let tasks = Tasks::new();
        let (at, clock) = (self.folder.path(), self.clock.clone());
        let store = EmbeddedStore::open(at, tasks.clone(), clock.clone(), Metrics::new()).await.unwrap();
        let before = PreviousRun::of(&*store, &clock).await.unwrap();
        if let Some(sent) = sent {
            note_stop(&*store, &clock, sent).await.unwrap();
            store.close(clock.wall_ms()).await.unwrap();
        }
        drop(store);
        tasks.finish(Duration::from_secs(10)).await;
        before
    }
}

fn app() -> AppId {
    AppId::parse("a").unwrap()
}

const ENDPOINT: BucketName = BucketName::Messages;

fn limit(per: Duration) -> Limit {
    Limit { requests: NonZeroU32::new(5).unwrap(), per }
}

fn sent(lasts: Duration) -> CountedUntil {
    CountedUntil::from([((app(), ENDPOINT), Instant::now() + lasts)])
}

#[tokio::test(start_paused = true)]
async fn how_long_a_stop_took_is_not_asked_of_the_wall_clock() {
    let (runs, nothing, hour) = (Runs::new(), CountedUntil::new(), 3_600_000);
    // A new folder may stand where one was lost.
    assert_eq!(runs.run(Some(&nothing)).await.previous_run, LastShutdown::Unknown);
    runs.clock.jump(hour);
    // The clock said that an hour had passed; then that none had.
    assert!(
        matches!(runs.run(Some(&nothing)).await.previous_run, LastShutdown::Clean(ago) if ago < Duration::from_secs(60))
    );
    runs.clock.jump(-2 * hour);
    tokio::time::advance(Duration::from_secs(100)).await;
    assert!(matches!(runs.run(None).await.previous_run, LastShutdown::Clean(ago) if ago >= Duration::from_secs(100)));
    assert_eq!(runs.run(Some(&nothing)).await.previous_run, LastShutdown::Unknown, "the last run did not end in order");
}

#[test]
fn a_bucket_begins_full_only_when_nothing_can_be_held_against_it() {
    let second = Duration::from_secs(1);
    assert_eq!(LastShutdown::None.begin(second), Begin::Full);
    assert_eq!(LastShutdown::Clean(second * 2).begin(second), Begin::Full);
    assert_eq!(LastShutdown::Clean(second).begin(second), Begin::Empty);
    assert_eq!(
        LastShutdown::Clean(second + Duration::from_millis(1)).begin(second),
        Begin::Empty,
        "clocks have grains"
    );
    assert_eq!(LastShutdown::Unknown.begin(second), Begin::Empty);
}

/// The wall clock jumps both ways, the next run is killed, and another ends in order: none of it shortens the wait.
#[tokio::test(start_paused = true)]
async fn what_was_cut_off_keeps_the_end_waiting_by_every_run_until_its_time() {
    let (runs, second) = (Runs::new(), Duration::from_secs(1));
    let until = Instant::now() + second * 60;
    runs.run(Some(&sent(second * 60))).await;
    for (jump, ends) in [(-7_200_000, false), (7_200_000, true), (7_200_000, true)] {
        runs.clock.jump(jump);
        tokio::time::advance(second * 5).await;
        let before = runs.run(None).await;
        let Begin::UsedUntil(at) = before.begin(&app(), &[ENDPOINT], limit(second), Instant::now()) else {
            panic!("{before:?}");
        };
        assert!(at >= until && at < until + second, "{:?} early", until.saturating_duration_since(at));
        // Another endpoint's bucket, and another app's, have nothing to wait for.
        for (app, endpoint) in [("a", BucketName::UserEvents), ("b", ENDPOINT)] {
            let other = before.begin(&AppId::parse(app).unwrap(), &[endpoint], limit(second), Instant::now());
            assert!(matches!(other, Begin::Full | Begin::Empty), "{other:?}");
        }
        // Counted in one with others, these wait, too.
        let both = [BucketName::UserEvents, ENDPOINT];
        assert!(matches!(before.begin(&app(), &both, limit(second), Instant::now()), Begin::UsedUntil(_)));
        if ends {
            let left = before.sent_after(Instant::now()).map(|(key, until)| (key.clone(), until)).collect();
            runs.run(Some(&left)).await;
        }
    }
    tokio::time::advance(second * 60).await;
    let before = runs.run(Some(&CountedUntil::new())).await;
    assert_eq!(before.begin(&app(), &[ENDPOINT], limit(second), Instant::now()), Begin::Full);
    assert!(matches!(before.begin(&app(), &[ENDPOINT], limit(second * 3600), Instant::now()), Begin::UsedUntil(_)));
    assert!(runs.run(None).await.sent.is_empty(), "what is over is forgotten");
}

/// After a boot nobody knows how long ago that was: it lasts as long as it would have then.
#[tokio::test(start_paused = true)]
async fn after_a_boot_what_was_cut_off_lasts_as_long_as_it_did_at_the_stop() {
    let (runs, second) = (Runs::new(), Duration::from_secs(1));
    tokio::time::advance(second * 1000).await;
    runs.run(Some(&sent(second * 60))).await;
    // The time since boot begins anew.
    let rebooted = Runs { clock: Clock::anchored(SystemTime::UNIX_EPOCH), ..runs };
    tokio::time::advance(second * 5).await;
    let before = rebooted.run(None).await;
    assert_eq!(before.previous_run, LastShutdown::Unknown);
    let until = before.sent[&(app(), ENDPOINT)];
    let lasts = until - Instant::now();
    assert!(lasts >= second * 60 && lasts < second * 61, "{lasts:?}");
}
