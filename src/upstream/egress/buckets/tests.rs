//! A walk at random over configurations, with orders under way all along and the vendor's sliding windows as the judge:
//! limits change, endpoints share and part, the app goes and comes back, the network is late, callers leave.

use std::num::NonZeroU32;
use std::sync::Mutex;

use futures_util::FutureExt as _;
use proptest::prelude::*;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::*;
use crate::kernel::names::ClientName;
use crate::kernel::testing::pass;
use crate::upstream::egress::LastShutdown;
use crate::upstream::quota::NoSeat;
use crate::vendor::order::Payer;

/// How an exchange goes.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    Refused,
    Unsent,
    /// The connection dies before the vendor counts, or after.
    Lost {
        counted: bool,
    },
    /// Nobody watches any more from then on; the vendor counts all the same.
    Abandoned {
        after: u64,
    },
}

#[derive(Clone, Debug)]
struct Arrival {
    at: u64,
    endpoint: BucketName,
    client: u8,
    wait: u64,
    before: u64,
    after: u64,
    fate: Fate,
}

/// A reload: each endpoint's limit, or whom it shares with; `None`: the app is taken out.
#[derive(Clone, Debug)]
struct Reload {
    at: u64,
    quota: Option<Quota>,
}

/// Reloads and orders come within this time.
const SPAN: u64 = 4000;

fn any_fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Answered),
        1 => Just(Fate::Refused),
        2 => Just(Fate::Unsent),
        2 => any::<bool>().prop_map(|counted| Fate::Lost { counted }),
        2 => (0..500u64).prop_map(|after| Fate::Abandoned { after }),
    ]
}

/// Most of it is quick; some is later than any window is long.
fn any_delay() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..=50u64, 1 => 0..=2500u64]
}

fn any_arrival() -> impl Strategy<Value = Arrival> {
    let endpoint = prop::sample::select(&ENDPOINTS[..]);
    (0..SPAN, endpoint, 0..3u8, 0..2500u64, any_delay(), any_delay(), any_fate()).prop_map(
        |(at, endpoint, client, wait, before, after, fate)| Arrival { at, endpoint, client, wait, before, after, fate },
    )
}

/// Those that orders are made for.
const ENDPOINTS: [BucketName; 3] = [BucketName::HistoryCreate, BucketName::HistoryGet, BucketName::HistoryCount];

fn any_limit() -> impl Strategy<Value = Limit> {
    (1..5u32, prop_oneof![Just(300u64), 50..900u64]).prop_map(|(requests, per)| Limit {
        requests: NonZeroU32::new(requests).unwrap(),
        per: Duration::from_millis(per),
    })
}

/// Every endpoint has a bucket of its own, with the same limit.
fn each_its_own(limit: Limit) -> Quota {
    let own = QuotaRule::Own(limit);
    Quota {
        user_events: own,
        channel_events: own,
        history_create: own,
        history_get: own,
        history_count: own,
        messages: own,
    }
}

fn any_quota() -> impl Strategy<Value = Quota> {
    let rule = prop_oneof![
        any_limit().prop_map(QuotaRule::Own),
        prop::sample::select(&ENDPOINTS[..]).prop_map(QuotaRule::Share)
    ];
    (any_limit(), [rule.clone(), rule.clone(), rule]).prop_map(|(limit, rules)| {
        let [history_create, history_get, history_count] = rules;
        let mut quota = Quota { history_create, history_get, history_count, ..each_its_own(limit) };
        // Sharing does not chain, and goes to another.
        for name in ENDPOINTS {
            if let QuotaRule::Share(other) = quota.rule(name)
                && (other == name || matches!(quota.rule(other), QuotaRule::Share(_)))
            {
                set(&mut quota, name, QuotaRule::Own(limit));
            }
        }
        quota
    })
}

fn set(quota: &mut Quota, name: BucketName, rule: QuotaRule) {
    match name {
        BucketName::HistoryCreate => quota.history_create = rule,
        BucketName::HistoryGet => quota.history_get = rule,
        _ => quota.history_count = rule,
    }
}

fn any_reload() -> impl Strategy<Value = Reload> {
    (0..SPAN, prop::option::weighted(0.8, any_quota())).prop_map(|(at, quota)| Reload { at, quota })
}

/// A request the vendor counted.
#[derive(Clone, Copy, Debug)]
struct Counted {
    endpoint: BucketName,
    at: Instant,
    /// When its seat was given.
    given: Instant,
}

/// The windows of a limit that was in force when the last seat in them was given must hold no more than it allows.
fn breaches(counted: &[Counted], reloads: &[(Instant, Quota)]) -> Vec<String> {
    let mut sorted = counted.to_vec();
    sorted.sort_by_key(|request| request.at);
    let mut found = Vec::new();
    for (index, (since, quota)) in reloads.iter().enumerate() {
        let until = reloads.get(index + 1).map(|(until, _)| *until);
        for owner in ENDPOINTS {
            let QuotaRule::Own(limit) = quota.rule(owner) else { continue };
            let group: Vec<_> = sorted.iter().filter(|r| counted_in(quota, r.endpoint).0 == owner).collect();
            for (from, first) in group.iter().enumerate() {
                let inside: Vec<_> = group[from..].iter().take_while(|r| r.at <= first.at + limit.per).collect();
                let Some(last) = inside.iter().map(|request| request.given).max() else { continue };
                // A seat given in the very millisecond of a reload is under either.
                let governs = (*since < last || index == 0) && until.is_none_or(|until| last < until);
                let most = limit.requests.get() as usize;
                if governs && inside.len() > most {
                    let per = limit.per;
                    found.push(format!("{} of {owner} in {per:?} from {:?}, allowed {most}", inside.len(), first.at));
                }
            }
        }
    }
    found
}

struct World {
    buckets: Mutex<Buckets>,
    app_buckets: Mutex<Option<AppBuckets>>,
    counted: Mutex<Vec<Counted>>,
}

/// Nothing is on its way longer, by the rule that exchanges go by.
const LONGEST: Duration = Duration::from_millis(6000);

async fn play(arrival: Arrival, world: Arc<World>) {
    let ms = Duration::from_millis;
    pass(ms(arrival.at)).await;
    let deadline = Instant::now() + ms(arrival.wait);
    let payer = Payer {
        client: ClientName::parse(["a", "b", "c"][usize::from(arrival.client)]).unwrap(),
        weight: 1 + u32::from(arrival.client),
    };
    let place = BucketName::ALL.iter().position(|name| *name == arrival.endpoint).unwrap();
    let mut seat = loop {
        let bucket = world.app_buckets.lock().unwrap().as_ref().map(|app_buckets| app_buckets[place].clone());
        let Some(bucket) = bucket else { return };
        match bucket.seats.seat(&payer, deadline).await {
            Ok(seat) => break seat,
            Err(NoSeat::Moved) => {}
            Err(NoSeat::Spent { .. } | NoSeat::Crowded) => return,
        }
    };
    let given = Instant::now();
    if let Fate::Unsent = arrival.fate {
        pass(ms(arrival.before)).await;
        return drop(seat);
    }
    seat.sending();
    let count =
        || world.counted.lock().unwrap().push(Counted { endpoint: arrival.endpoint, at: Instant::now(), given });
    if let Fate::Abandoned { after } = arrival.fate {
        let (before, after) = (ms(arrival.before), ms(after));
        pass(before.min(after)).await;
        let mut seat = Some(seat);
        if after <= before {
            seat.take().unwrap().abandoned(given + LONGEST);
            pass(before - after).await;
        }
        count();
        if let Some(seat) = seat {
            pass(after - before).await;
            seat.abandoned(given + LONGEST);
        }
        return;
    }
    pass(ms(arrival.before)).await;
    if let Fate::Lost { counted: false } = arrival.fate {
        return drop(seat);
    }
    count();
    pass(ms(arrival.after)).await;
    match arrival.fate {
        Fate::Answered => seat.answered(),
        Fate::Refused => seat.refused(None),
        Fate::Unsent | Fate::Lost { .. } | Fate::Abandoned { .. } => drop(seat),
    }
}

fn reload(world: &World, quota: Option<&Quota>) {
    let app = AppId::parse("a").unwrap();
    let mut buckets = world.buckets.lock().unwrap();
    *world.app_buckets.lock().unwrap() = quota.map(|quota| buckets.of_app(&app, quota, Duration::from_secs(60)));
    buckets.prune(|_| quota.is_some());
}

async fn walk(first: Quota, mut reloads: Vec<Reload>, arrivals: Vec<Arrival>) -> Result<(), TestCaseError> {
    reloads.sort_by_key(|reload| reload.at);
    let mut buckets = Buckets::new(LastShutdown::None.into(), Clock::system(), Metrics::new());
    let app_buckets = buckets.of_app(&AppId::parse("a").unwrap(), &first, Duration::from_secs(60));
    buckets.opened();
    let world = Arc::new(World {
        buckets: Mutex::new(buckets),
        app_buckets: Mutex::new(Some(app_buckets)),
        counted: Mutex::default(),
    });
    let (mut tasks, began) = (JoinSet::new(), Instant::now());
    for arrival in arrivals {
        tasks.spawn(play(arrival, world.clone()));
    }
    let (mut last, mut in_force) = (first, vec![(began, first)]);
    for one in reloads {
        sleep_until(began + Duration::from_millis(one.at)).await;
        reload(&world, one.quota.as_ref());
        // While the app is away, orders that wait finish as they began.
        if let Some(quota) = one.quota {
            in_force.push((Instant::now(), quota));
            last = quota;
        }
    }
    while let Some(ended) = tasks.join_next().await {
        prop_assert!(ended.is_ok(), "{ended:?}");
    }
    prop_assert_eq!(breaches(&world.counted.lock().unwrap(), &in_force), Vec::<String>::new());
    // All that was taken comes back, and nothing is kept for an app that is gone.
    reload(&world, Some(&last));
    pass(Duration::from_secs(30)).await;
    for bucket in world.app_buckets.lock().unwrap().iter().flatten() {
        let look = bucket.seats.snapshot();
        prop_assert_eq!((look.free, look.waiting), (look.limit.requests.get(), 0), "{}: {:?}", bucket.name, look);
    }
    reload(&world, None);
    prop_assert!(world.buckets.lock().unwrap().all.is_empty());
    Ok(())
}

properties! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn no_window_is_breached_whatever_reloads_make_of_the_buckets(
        first in any_quota(),
        reloads in prop::collection::vec(any_reload(), 1..8),
        arrivals in prop::collection::vec(any_arrival(), 1..150),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(walk(first, reloads, arrivals))?;
    }
}

/// Two reloads within a window, and an endpoint that goes to another's bucket and comes back.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_comes_back_from_another_bucket_has_spent_what_it_spent_there() {
    let limit = Limit { requests: NonZeroU32::new(100).unwrap(), per: Duration::from_secs(1) };
    let alone = each_its_own(limit);
    let shared = Quota { history_count: QuotaRule::Share(BucketName::HistoryGet), ..alone };
    for late in [Duration::ZERO, Duration::from_secs(5)] {
        let app = AppId::parse("a").unwrap();
        let mut buckets = Buckets::new(LastShutdown::None.into(), Clock::system(), Metrics::new());
        let payer = Payer { client: ClientName::parse("a").unwrap(), weight: 1 };
        let count = |app_buckets: &AppBuckets| app_buckets[4].seats.clone();
        let own = buckets.of_app(&app, &alone, Duration::from_secs(60));
        buckets.opened();
        // Sent, and answered so late.
        let mut sent = Vec::new();
        for _ in 0..100 {
            let mut seat = count(&own).seat(&payer, Instant::now()).await.unwrap();
            seat.sending();
            sent.push(seat);
        }
        let bucket = count(&own);
        let mut waits = std::pin::pin!(bucket.seat(&payer, Instant::now() + LONGEST));
        assert!((&mut waits).now_or_never().is_none());
        let there = buckets.of_app(&app, &shared, Duration::from_secs(60));
        assert_eq!(waits.await.map(drop), Err(NoSeat::Moved));
        assert_eq!(count(&own).seat(&payer, Instant::now()).await.map(drop), Err(NoSeat::Moved));
        assert_eq!(count(&there).snapshot().free, 0, "what was spent by each is spent by both");
        let back = buckets.of_app(&app, &alone, Duration::from_secs(60));
        assert_eq!(count(&back).snapshot().free, 0);
        pass(late).await;
        assert_eq!(count(&back).snapshot().free, 0, "the vendor may still count what was sent");
        drop(sent);
        let answered = Instant::now();
        let again = count(&back).seat(&payer, answered + LONGEST).await.unwrap();
        assert!(answered.elapsed() > limit.per, "{:?}", answered.elapsed());
        drop(again);
        assert!(buckets_are_the_same(&back, &buckets.of_app(&app, &alone, Duration::from_secs(60))));
    }

    fn buckets_are_the_same(one: &AppBuckets, other: &AppBuckets) -> bool {
        one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(&one.seats, &other.seats))
    }
}

/// While requests are under way reloads have two endpoints share a bucket and part again, over and over.
#[tokio::test(start_paused = true)]
async fn a_request_under_way_counts_once_however_often_its_buckets_change() {
    let limit = Limit { requests: NonZeroU32::new(10).unwrap(), per: Duration::from_secs(1) };
    let alone = each_its_own(limit);
    let shared = Quota { history_count: QuotaRule::Share(BucketName::HistoryGet), ..alone };
    let app = AppId::parse("a").unwrap();
    let mut buckets = Buckets::new(LastShutdown::None.into(), Clock::system(), Metrics::new());
    let payer = Payer { client: ClientName::parse("a").unwrap(), weight: 1 };
    let mut app_buckets = buckets.of_app(&app, &alone, Duration::from_secs(60));
    buckets.opened();
    let (mut sent, given) = (Vec::new(), Instant::now());
    for _ in 0..4 {
        let mut seat = app_buckets[4].seats.seat(&payer, given).await.unwrap();
        seat.sending();
        sent.push(seat);
    }
    sent.pop().unwrap().abandoned(given + LONGEST);
    for _ in 0..12 {
        buckets.of_app(&app, &shared, Duration::from_secs(60));
        app_buckets = buckets.of_app(&app, &alone, Duration::from_secs(60));
    }
    sent.pop().unwrap().abandoned(given + LONGEST);
    pass(Duration::from_secs(2)).await;
    // Of history_get, too: it shared the bucket while they were under way.
    for bucket in &app_buckets[3..5] {
        let look = bucket.seats.snapshot();
        assert_eq!((look.in_flight, look.free), (4, 6), "{}: {look:?}", bucket.name);
    }
    drop(sent);
    for (passed, free) in [(0, 6), (2000, 8), (6000, 10)] {
        pass(Duration::from_millis(passed)).await;
        for bucket in &app_buckets[3..5] {
            assert_eq!(bucket.seats.snapshot().free, free, "{}, {passed} ms later", bucket.name);
        }
    }
}
