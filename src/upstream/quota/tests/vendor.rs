//! A model vendor that counts in every sliding window, closed at both ends, and a bucket that is treated badly:
//! random arrivals, delays before and after counting, callers that leave, lost connections, refusals, reloads.

use proptest::prelude::*;
use tokio::time::timeout;

use super::*;
use crate::kernel::testing::pass;

/// How an exchange goes. The delay before the vendor counts and the one after are the network's.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    /// Answered 429, with that `Retry-After`.
    NoSeat(Option<u64>),
    /// The caller gives up before anything is sent.
    Unsent,
    /// The connection dies before the vendor counts, or after.
    Lost {
        counted: bool,
    },
}

#[derive(Clone, Debug)]
struct Arrival {
    at: u64,
    client: u8,
    wait: u64,
    /// The caller's patience: the future is dropped then.
    leaves_after: Option<u64>,
    before: u64,
    after: u64,
    fate: Fate,
}

#[derive(Clone, Copy, Debug)]
struct Change {
    at: u64,
    requests: u32,
    per: u64,
}

#[derive(Clone, Debug)]
struct Script {
    begin: Change,
    empty: bool,
    changes: Vec<Change>,
    arrivals: Vec<Arrival>,
}

const SPAN: u64 = 3000;

fn any_fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Answered),
        1 => prop::option::of(0..1500u64).prop_map(Fate::NoSeat),
        2 => Just(Fate::Unsent),
        2 => any::<bool>().prop_map(|counted| Fate::Lost { counted }),
    ]
}

fn any_arrival() -> impl Strategy<Value = Arrival> {
    (0..SPAN, 0..3u8, 0..2500u64, prop::option::weighted(0.2, 0..600u64), 0..=100u64, 0..=100u64, any_fate()).prop_map(
        |(at, client, wait, leaves_after, before, after, fate)| Arrival {
            at,
            client,
            wait,
            leaves_after,
            before,
            after,
            fate,
        },
    )
}

fn any_change() -> impl Strategy<Value = Change> {
    (0..SPAN, 1..8u32, prop_oneof![Just(300u64), 50..800u64]).prop_map(|(at, requests, per)| Change {
        at,
        requests,
        per,
    })
}

fn any_script() -> impl Strategy<Value = Script> {
    let arrivals = prop::collection::vec(any_arrival(), 1..150);
    let changes = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(any_change(), 1..4)];
    (any_change(), any::<bool>(), changes, arrivals).prop_map(|(begin, empty, mut changes, arrivals)| {
        changes.sort_by_key(|change| change.at);
        Script { begin, empty, changes, arrivals }
    })
}

/// A request the vendor counted.
#[derive(Clone, Copy, Debug)]
struct Counted {
    at: Instant,
    /// When its seat was given.
    given: Instant,
}

/// The windows of a limit that was in force when the last seat in them was given must hold no more than it allows.
fn breaches(counted: &[Counted], limits: &[(Instant, Limit)]) -> Vec<String> {
    let mut sorted = counted.to_vec();
    sorted.sort_by_key(|request| request.at);
    let mut found = Vec::new();
    for (from, first) in sorted.iter().enumerate() {
        for (index, (since, limit)) in limits.iter().enumerate() {
            let inside: Vec<_> = sorted[from..].iter().take_while(|r| r.at <= first.at + limit.per).collect();
            let Some(last) = inside.iter().map(|request| request.given).max() else { continue };
            let until = limits.get(index + 1).map(|(until, _)| *until);
            // A seat given in the very millisecond of a change is under either limit.
            let governs = (*since < last || index == 0) && until.is_none_or(|until| last < until);
            let most = limit.requests.get() as usize;
            if governs && inside.len() > most {
                found.push(format!("{} in {:?} from {:?}, allowed {most}", inside.len(), limit.per, first.at));
            }
        }
    }
    found
}

async fn play(arrival: Arrival, bucket: Arc<Bucket>, counted: Arc<Mutex<Vec<Counted>>>) {
    let ms = Duration::from_millis;
    pass(ms(arrival.at)).await;
    let deadline = within(ms(arrival.wait));
    let payer = payer(["a", "b", "c"][usize::from(arrival.client)], 1 + u32::from(arrival.client));
    let patience = ms(arrival.leaves_after.unwrap_or(1_000_000));
    let Ok(answer) = timeout(patience, bucket.seat(&payer, deadline)).await else { return };
    let given = Instant::now();
    assert!(given <= deadline + ms(5), "late: {:?}", given - deadline);
    let look = bucket.snapshot();
    let most = look.limit.requests.get().max(look.in_flight + look.cooling);
    assert_eq!(sum(look), most, "{look:?}");
    let Ok(mut seat) = answer else { return };
    if let Fate::Unsent = arrival.fate {
        pass(ms(arrival.before)).await;
        return drop(seat);
    }
    seat.sending();
    pass(ms(arrival.before)).await;
    if let Fate::Lost { counted: false } = arrival.fate {
        return drop(seat);
    }
    counted.lock().unwrap().push(Counted { at: Instant::now(), given });
    pass(ms(arrival.after)).await;
    match arrival.fate {
        Fate::Answered => seat.answered(),
        Fate::NoSeat(retry_after) => seat.refused(retry_after.map(ms)),
        Fate::Unsent | Fate::Lost { .. } => drop(seat),
    }
}

async fn run(script: Script) -> Result<(), TestCaseError> {
    let ms = Duration::from_millis;
    let of = |change: Change| limit(change.requests, ms(change.per));
    let begin = if script.empty { Begin::Empty } else { Begin::Full };
    let bucket = Bucket::new(of(script.begin), begin, Clock::system());
    let (counted, mut tasks) = (Arc::new(Mutex::new(Vec::new())), JoinSet::new());
    let began = Instant::now();
    for arrival in script.arrivals {
        tasks.spawn(play(arrival, bucket.clone(), counted.clone()));
    }
    let mut limits = vec![(began, of(script.begin))];
    for change in script.changes {
        sleep_until(began + ms(change.at)).await;
        bucket.reconfigure(of(change));
        limits.push((Instant::now(), of(change)));
    }
    while let Some(ended) = tasks.join_next().await {
        prop_assert!(ended.is_ok(), "{ended:?}");
    }
    prop_assert_eq!(breaches(&counted.lock().unwrap(), &limits), Vec::<String>::new());
    // All that was taken comes back, and all that was retired.
    pass(Duration::from_secs(30)).await;
    let look = bucket.snapshot();
    prop_assert_eq!((look.free, look.waiting), (look.limit.requests.get(), 0), "{:?}", look);
    Ok(())
}

properties! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn no_window_is_ever_breached(script in any_script()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run(script))?;
    }
}

#[tokio::test(start_paused = true)]
async fn the_model_sees_a_breach_even_at_a_windows_very_edge() {
    let now = Instant::now();
    let at = |ms| Counted { at: now + Duration::from_millis(ms), given: now };
    let limits = [(now, limit(2, W))];
    assert_eq!(breaches(&[at(0), at(500), at(1001)], &limits), Vec::<String>::new());
    assert_eq!(breaches(&[at(0), at(500), at(1000)], &limits).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_window_is_breached_by_overload_with_random_delays() {
    use rand::RngExt as _;
    let delay = || Duration::from_millis(rand::rng().random_range(0..=100));
    let bucket = bucket(10, Begin::Full);
    let (counted, mut tasks) = (Arc::new(Mutex::new(Vec::new())), JoinSet::new());
    let began = Instant::now();
    for _ in 0..40 {
        let (bucket, counted) = (bucket.clone(), counted.clone());
        tasks.spawn(async move {
            while began.elapsed() < W * 100 {
                let mut seat = bucket.seat(&payer("a", 1), within(LONG)).await.unwrap();
                let given = Instant::now();
                seat.sending();
                pass(delay()).await;
                counted.lock().unwrap().push(Counted { at: Instant::now(), given });
                pass(delay()).await;
                seat.answered();
            }
        });
    }
    tasks.join_all().await;
    let counted = counted.lock().unwrap();
    assert_eq!(breaches(&counted, &[(began, limit(10, W))]), Vec::<String>::new());
    // The round trip is 100 ms in the mean.
    assert!(counted.len() as f64 >= 0.95 * 10.0 * 100.0 / 1.1, "{}", counted.len());
}
