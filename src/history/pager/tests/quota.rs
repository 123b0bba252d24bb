//! How much of the quota a list's reading takes, and what it leaves: real buckets, in paused time.

use std::num::NonZeroU32;

use super::*;
use crate::config::Limit;
use crate::kernel::clock::Clock;
use crate::kernel::names::ClientName;
use crate::kernel::testing::pass;
use crate::upstream::quota::{Begin, Bucket};
use crate::vendor::order::Payer;

/// A vendor behind two buckets, whose list does not move: message `n` is at the `n`th third millisecond.
struct Metered {
    messages: u64,
    pages: AtomicUsize,
    rng: Mutex<StdRng>,
    create: Arc<Bucket>,
    get: Arc<Bucket>,
    payer: Payer,
    latency: Duration,
    /// How often a handle is `in progress`.
    in_progress: usize,
}

impl Metered {
    fn new(messages: u64, rate: u32, latency: u64, in_progress: usize) -> Self {
        let clock = Clock::anchored(std::time::SystemTime::UNIX_EPOCH + Duration::from_millis(NOW));
        let limit = Limit { requests: NonZeroU32::new(rate).unwrap(), per: Duration::from_secs(1) };
        let bucket = || Bucket::new(limit, Begin::Full, clock.clone());
        let (pages, rng) = (AtomicUsize::new(0), Mutex::new(StdRng::seed_from_u64(1)));
        let latency = Duration::from_millis(latency);
        Self { messages, pages, rng, create: bucket(), get: bucket(), payer: payer("export"), latency, in_progress }
    }

    /// One exchange; says how long it waited for its seat.
    async fn exchange(&self, bucket: &Arc<Bucket>, payer: &Payer) -> Duration {
        let began = Instant::now();
        let mut seat = bucket.seat(payer, began + Duration::from_secs(600)).await.unwrap();
        let waited = began.elapsed();
        seat.sending();
        let jitter = self.rng.lock().unwrap().random_range(0.8..1.2);
        pass(self.latency.mul_f64(jitter)).await;
        seat.answered();
        waited
    }
}

fn payer(name: &str) -> Payer {
    Payer { client: ClientName::parse(name).unwrap(), weight: 1 }
}

impl Pages for Metered {
    async fn page(&self, query: PageQuery) -> Result<Page, Error> {
        self.pages.fetch_add(1, Ordering::Relaxed);
        let began = Instant::now();
        let mut waited = self.exchange(&self.create, &self.payer).await;
        for _ in 0..self.in_progress {
            waited += self.exchange(&self.get, &self.payer).await;
            pass(Duration::from_secs(2)).await;
        }
        waited += self.exchange(&self.get, &self.payer).await;
        let end = self.messages.min(query.offset + query.limit as u64);
        let texts = (query.offset..end).map(|n| text(NOW + n * 3, 0)).collect();
        Ok(Page { texts, took: began.elapsed(), waited })
    }
}

async fn export(metered: &Arc<Metered>, direction: Direction) -> Duration {
    let began = Instant::now();
    let mut pager = Pager::resume(Arc::clone(metered), &query(0, usize::MAX, direction), None);
    while pager.next().await.unwrap().is_some() {}
    began.elapsed()
}

/// The least that it can take of the quota's own time: a seat is in use for a window and a round trip.
fn possible(latency: u64) -> f64 {
    1.0 + latency as f64 / 1000.0
}

#[tokio::test(start_paused = true)]
async fn an_export_takes_little_longer_than_the_quota_itself_does() {
    for (rate, latency, in_progress, pages, over) in [
        (10, 50, 0, 300, 1.05),
        (20, 50, 0, 600, 1.05),
        (100, 50, 0, 1500, 1.05),
        // The first seconds, in which it is found out how many pages must run, count for more here.
        (100, 400, 0, 3000, 1.1),
        (100, 50, 1, 2000, 1.2),
    ] {
        let metered = Arc::new(Metered::new(pages * 100, rate, latency, in_progress));
        let took = export(&metered, Direction::Asc).await;
        let own = Duration::from_secs(pages * (1 + in_progress as u64)) / rate;
        let ratio = took.as_secs_f64() / own.as_secs_f64();
        assert!(
            ratio < possible(latency) * over,
            "{rate} a second at {latency} ms: {ratio:.3} times the quota's own time"
        );
        assert!(latency > 50 || in_progress > 0 || ratio < 1.1, "{ratio:.3}");
        let begun = metered.pages.load(Ordering::Relaxed) as u64;
        assert!(begun < pages + pages / 30 + 150, "{begun} pages for {pages}");
    }
}

#[tokio::test(start_paused = true)]
async fn others_hardly_wait_beside_an_export_and_the_clients_own_orders_little_longer() {
    for rate in [20, 100] {
        let metered = Arc::new(Metered::new(u64::from(rate) * 20_000, rate, 50, 0));
        for name in ["other", "export"] {
            let payer = payer(name);
            let mut waits = Vec::new();
            let asking = async {
                pass(Duration::from_secs(8)).await;
                for _ in 0..50 {
                    pass(Duration::from_millis(373)).await;
                    waits.push(metered.exchange(&metered.create, &payer).await);
                }
            };
            tokio::select! {
                took = export(&metered, Direction::Asc) => panic!("over after {took:?}"),
                () = asking => {}
            }
            waits.sort_unstable();
            let turns = |wait: Duration| wait.as_secs_f64() * f64::from(rate);
            let (half, most) = (turns(waits[25]), turns(waits[40]));
            assert!(half < 5.0 && most < 8.0, "{name} at {rate} a second waits {half:.1} turns, {most:.1} at times");
        }
    }
}
