//! A list whose oldest go with each exchange, read oldest first: what is asked for in vain brings its end nearer.

use super::*;
use crate::kernel::testing::pass;

/// Seven messages share a millisecond, 350 a second; with each exchange three come and the two oldest go. A fifth of
/// the fetches fail, and some creations.
struct Ebbing {
    exchanges: AtomicUsize,
    rng: Mutex<StdRng>,
    evaluates_at_fetch: bool,
}

impl Ebbing {
    fn exchange(&self) -> u64 {
        self.exchanges.fetch_add(1, Ordering::Relaxed) as u64 + 1
    }

    async fn pause(&self, ms: std::ops::Range<u64>) {
        let ms = self.rng.lock().unwrap().random_range(ms);
        pass(Duration::from_millis(ms)).await;
    }

    fn evaluate(&self, query: &PageQuery, exchanges: u64) -> Vec<Bytes> {
        let ms = |n: u64| NOW - 90_000 + n / 7 * 20;
        let filter = &query.filter;
        let of_them = exchanges * 2..2000 + exchanges * 3;
        let of_them = of_them.filter(|n| filter.start * 1000 <= ms(*n) && ms(*n) < (filter.end + 1) * 1000);
        let mut there: Vec<_> = of_them.collect();
        if query.direction == Direction::Desc {
            there.reverse();
        }
        let page = there.into_iter().skip(query.offset as usize).take(query.limit);
        page.map(|n| format!(r#"{{"ms":{},"n":{n}}}"#, ms(n)).into()).collect()
    }
}

impl Pages for Ebbing {
    async fn page(&self, query: PageQuery) -> Result<Page, Error> {
        let fails = |share: f64| self.rng.lock().unwrap().random_bool(share);
        loop {
            self.pause(1..30).await;
            let created = self.exchange();
            if fails(0.05) {
                pass(Duration::from_millis(250)).await;
                continue;
            }
            self.pause(1..30).await;
            let fetched = self.exchange();
            if fails(0.2) {
                continue;
            }
            let texts = self.evaluate(&query, if self.evaluates_at_fetch { fetched } else { created });
            self.pause(1..30).await;
            return Ok(Page { texts, ..Page::default() });
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_whose_oldest_go_is_read_before_they_do() {
    let mut most = 0;
    for seed in 0..60 {
        for (direction, evaluates_at_fetch) in
            [(Direction::Asc, true), (Direction::Asc, false), (Direction::Desc, false)]
        {
            let rng = Mutex::new(StdRng::seed_from_u64(seed));
            let vendor = Arc::new(Ebbing { exchanges: AtomicUsize::new(0), rng, evaluates_at_fetch });
            let mut pager = Pager::new(Arc::clone(&vendor), &query(0, 1200, direction));
            let mut got: Vec<u64> = Vec::new();
            while let Some(messages) = pager.next().await.unwrap() {
                let number = |text: &Bytes| serde_json::from_slice::<serde_json::Value>(text).unwrap()["n"].as_u64();
                got.extend(messages.iter().map(|text| number(text).unwrap()));
            }
            let exchanges = vendor.exchanges.load(Ordering::Relaxed);
            most = most.max(exchanges);
            let holes: Vec<_> = got.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) != 1).collect();
            let found =
                format!("{seed} {direction:?} {evaluates_at_fetch}: {} from {} on, {holes:?}", got.len(), got[0]);
            assert!(got.len() == 1200 && holes.is_empty(), "{found}, {exchanges} exchanges");
        }
    }
    // Thirteen pages, each a creation and a fetch, of which a quarter are in vain.
    assert!(most <= 250, "{most} exchanges");
}
