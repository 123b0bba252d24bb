//! Nothing that the vendor returned whole is lost, and every doubt is marked, whatever goes wrong.

use std::sync::atomic::AtomicU64;

use proptest::prelude::*;

use super::*;
use crate::kernel::testing::pass;

/// What happens to one read. All but `Refused` remove events at the vendor.
#[derive(Clone, Debug)]
enum Fault {
    None,
    Slow(u64),
    Refused,
    Reset,
    Cut,
    Garbage,
    Status(u16),
}

/// What is wrong with the store for a while.
#[derive(Clone, Debug)]
enum Trouble {
    Broken(u64),
    Unready(u64),
    Fine(u64),
}

/// A vendor whose queue always holds some events, numbered from 0; a read removes up to 20.
#[derive(Default)]
struct Vendor {
    next: AtomicU64,
    faults: Mutex<VecDeque<Fault>>,
    /// What was returned whole.
    returned: Mutex<Vec<String>>,
    doubts: AtomicU64,
}

impl Vendor {
    async fn answer(&self) -> Result<(u16, String), Failure> {
        let fault = lock(&self.faults).pop_front().unwrap_or(Fault::None);
        if matches!(fault, Fault::Refused) {
            return Err(Failure::Unreachable("refused".into()));
        }
        let first = self.next.fetch_add(7, Ordering::Relaxed);
        let removed = first..first + 7;
        if let Fault::Slow(seconds) = fault {
            // Longer than 15 s is given up, and comes late.
            self.doubts.fetch_add(u64::from(seconds > 15), Ordering::Relaxed);
            pass(Duration::from_secs(seconds)).await;
        }
        let lost = |partial: Option<&'static str>| Failure::Lost {
            why: "x".into(),
            partial: partial.map(Into::into),
            retry_after: None,
        };
        let doubt = || self.doubts.fetch_add(1, Ordering::Relaxed);
        match fault {
            Fault::Refused | Fault::None | Fault::Slow(_) => {
                lock(&self.returned).extend(numbers(removed.clone()));
                return Ok((200, events(removed)));
            }
            Fault::Reset => doubt(),
            Fault::Cut | Fault::Garbage => doubt(),
            Fault::Status(_) => doubt(),
        };
        match fault {
            Fault::Garbage => Ok((200, "<html>".into())),
            Fault::Status(status) => Ok((status, String::new())),
            Fault::Cut => Err(lost(Some("{"))),
            _ => Err(lost(None)),
        }
    }
}

#[async_trait]
impl Orders for Vendor {
    async fn send_for(&self, _: Order, _: &WorkCosts) -> Result<Reply, Failed> {
        unreachable!("a poller's reads are for no request")
    }

    async fn send(&self, order: Order) -> Result<Reply, Failed> {
        let costs = Costs::default();
        match self.answer().await {
            Ok((status, body)) => Ok(Reply {
                status: StatusCode::from_u16(status).unwrap(),
                headers: HeaderMap::new(),
                body: body.into(),
                region: order.region.unwrap(),
                costs,
            }),
            Err(why) => Err(Failed { why, costs }),
        }
    }

    fn may_repeat(&self, _: &AppId, _: &ClientName) -> bool {
        unreachable!("no read of events asks for it")
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        2 => prop_oneof![0..15u64, 16..60u64].prop_map(Fault::Slow),
        1 => Just(Fault::Refused),
        1 => Just(Fault::Reset),
        1 => Just(Fault::Cut),
        1 => Just(Fault::Garbage),
        1 => prop_oneof![Just(408), Just(500), Just(503)].prop_map(Fault::Status),
    ]
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        (0..20_000u64).prop_map(Trouble::Broken),
        (0..20_000u64).prop_map(Trouble::Unready),
        (0..40_000u64).prop_map(Trouble::Fine),
    ]
}

/// What is in the log in the end, and what should be.
struct Done {
    stored: Vec<String>,
    /// Events returned whole.
    returned: Vec<String>,
    /// The doubts that markers count, and the note of an outage.
    counted: u64,
    doubts: u64,
}

async fn run(faults: Vec<Fault>, troubles: Vec<Trouble>, grace: u64) -> Done {
    let vendor = Arc::new(Vendor { faults: Mutex::new(faults.into()), ..Vendor::default() });
    let (store, tasks) = (Arc::new(MemoryStore::default()), Tasks::new());
    store.delay.store(3, Ordering::Relaxed);
    let source: Arc<dyn Orders> = vendor.clone();
    let events = Events::with_source(store.clone(), source, tasks.clone(), clock(), Metrics::new());
    events.apply(&[config(&["cn"])], &config::Upstream::default(), &[]).await.unwrap();
    for trouble in troubles {
        let (broken, unready, millis) = match trouble {
            Trouble::Broken(millis) => (true, false, millis),
            Trouble::Unready(millis) => (false, true, millis),
            Trouble::Fine(millis) => (false, false, millis),
        };
        store.broken.store(broken, Ordering::Relaxed);
        store.unready.store(unready, Ordering::Relaxed);
        pass(Duration::from_millis(millis)).await;
    }
    tasks.finish(Duration::from_millis(grace)).await;
    store.broken.store(false, Ordering::Relaxed);
    events.flush().await.unwrap();
    let batches = store.read(&key(), crate::store::Sequence(0), usize::MAX).await.unwrap();
    let runs = batches.iter().map(|batch| Run { entries: 0..batch.content.len(), batch: Arc::clone(batch) }).collect();
    let stored = texts(&Delivery {
        runs,
        next: Cursor { epoch: 0, at: Default::default() },
        lag: 0,
        lost: 0,
        lost_from: None,
        receipt: Receipt::of_nothing(),
        leased: None,
    });
    let returned = lock(&vendor.returned).clone();
    let mut counted = 0;
    for batch in &batches {
        if let Content::PossibleLoss(text) = &batch.content {
            counted += Marker::read(text).outage.map_or(0, |outage| outage.count);
        }
    }
    // The note of an outage that has not ended.
    for (_, note) in store.notes(&key(), crate::store::NoteKind::Waiting, "outage/", "", 10).await.unwrap() {
        counted += serde_json::from_slice::<serde_json::Value>(&note).unwrap()["count"].as_u64().unwrap();
    }
    Done { stored, returned, counted, doubts: vendor.doubts.load(Ordering::Relaxed) }
}

properties! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_was_returned_whole_is_lost_and_every_doubt_is_marked(
        faults in prop::collection::vec(fault(), 0..40),
        troubles in prop::collection::vec(trouble(), 0..8),
        grace in 0..60_000u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let late = faults.iter().filter(|fault| matches!(fault, Fault::Slow(16..))).count();
        let Done { stored, mut returned, counted, doubts } = runtime.block_on(run(faults, troubles, grace));
        let (mut kept, markers): (Vec<_>, Vec<_>) = stored.into_iter().partition(|text| text.parse::<u64>().is_ok());
        kept.sort_unstable();
        returned.sort_unstable();
        prop_assert_eq!(kept, returned, "each once");
        // A read cut short by the end of the grace is one more doubt; one that was slow may have been either.
        let stopped = markers.iter().filter(|reason| *reason == "stopped").count() as u64;
        prop_assert!(stopped <= 1);
        // A read that comes late may have what others counted told before its events, and again behind them.
        prop_assert!(markers.len() <= doubts as usize + stopped as usize + late);
        prop_assert!(counted + stopped >= doubts, "{} of {} doubts", counted, doubts);
        prop_assert!(counted <= doubts || late > 0, "{} of {} doubts", counted, doubts);
    }
}
