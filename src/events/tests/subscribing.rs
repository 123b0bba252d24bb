//! Where subscriptions begin, and what of them outlives a restart.

use proptest::prelude::*;

use super::*;
use crate::events::subscription::registry::MAX_SUBSCRIPTIONS;
use crate::kernel::names::ClientName;
use crate::kernel::testing::pass;

#[tokio::test(start_paused = true)]
async fn a_new_subscription_begins_where_it_says_and_keeps_that() {
    let rig = Rig::quiet().await;
    rig.append(0..2).await;
    pass(Duration::from_secs(10)).await;
    let since = rig.events.0.parts.shared.clock.wall_ms();
    rig.append(2..4).await;
    assert_eq!(rig.take(from(StartAt::Since(since), by("since", 10))).await, numbers(2..4));
    assert_eq!(rig.take(from(StartAt::Latest, by("latest", 10))).await, numbers(0..0));
    assert_eq!(rig.take(from(StartAt::Earliest, by("earliest", 10))).await, numbers(0..4));
    let rig = rig.kill().await;
    rig.append(4..6).await;
    assert_eq!(rig.take(from(StartAt::Earliest, by("latest", 10))).await, numbers(4..6));
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_does_not_wait_for_the_store_and_is_stored_soon_after() {
    let rig = Rig::quiet().await;
    rig.append(0..100).await;
    rig.take(by("a", 1)).await;
    rig.store.delay.store(1000, Ordering::Relaxed);
    let saves = rig.store.saves.load(Ordering::Relaxed);
    let began = Instant::now();
    for n in 1..100 {
        assert_eq!(rig.take(by("a", 1)).await, numbers(n..n + 1));
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    pass(Duration::from_secs(5)).await;
    assert!(rig.store.saves.load(Ordering::Relaxed) <= saves + 3, "the latest place wins");
    assert_eq!(rig.store.cursors(&key()).await.unwrap()[0].1.0, 100);
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_cannot_be_stored_is_stored_when_the_store_recovers() {
    let rig = Rig::quiet().await;
    rig.append(0..10).await;
    rig.take(by("a", 1)).await;
    rig.store.broken.store(true, Ordering::Relaxed);
    rig.take(by("a", 4)).await;
    let refused = rig.read(by("new", 1)).await.unwrap_err();
    assert!(matches!(refused, ReadError::Store(_)), "a new place must be kept before it is used");
    pass(Duration::from_secs(60)).await;
    rig.store.broken.store(false, Ordering::Relaxed);
    pass(Duration::from_secs(5)).await;
    let rig = rig.kill().await;
    assert_eq!(rig.take(by("a", 10)).await, numbers(5..10));
}

#[tokio::test(start_paused = true)]
async fn subscriptions_are_bounded_in_number() {
    let rig = Rig::quiet().await;
    for n in 0..MAX_SUBSCRIPTIONS {
        rig.take(by(&n.to_string(), 1)).await;
    }
    assert_eq!(rig.read(by("one-more", 1)).await.unwrap_err(), ReadError::TooManySubscriptions);
    assert!(rig.read(by("7", 1)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn no_client_can_make_all_the_subscriptions_there_may_be() {
    let mut config = config(&[]);
    config.events.max_subscriptions_per_client = MAX_SUBSCRIPTIONS;
    let rig = Rig::over(MemoryStore::default(), config).await;
    let of_one = |n: usize| {
        let mut read = by(&n.to_string(), 1);
        read.client = ClientName::parse("one").unwrap();
        read
    };
    for n in 0..MAX_SUBSCRIPTIONS / 10 * 9 {
        rig.take(of_one(n)).await;
    }
    assert_eq!(rig.read(of_one(MAX_SUBSCRIPTIONS)).await.unwrap_err(), ReadError::TooManySubscriptions);
    assert!(rig.read(by("other", 1)).await.is_ok());
    assert!(rig.read(of_one(7)).await.is_ok(), "its own that are there");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_resumes_gets_each_event_once_and_takes_none_of_anothers() {
    let rig = Rig::quiet().await;
    rig.append(0..30).await;
    let name = SubscriptionName::parse("a").unwrap();
    let resume = |last| rig.events.resume((&app(), STREAM), &name, (rig.cursor(last), true), &[]);
    assert_eq!(resume(0), Err(ReadError::NoSuchSubscription));
    let (mine, others) = (rig.read(by("a", 10)).await.unwrap(), rig.read(by("a", 10)).await.unwrap());
    drop((mine, others));
    resume(14).unwrap();
    assert_eq!(rig.take(by("a", 10)).await, numbers(0..10));
    assert_eq!(rig.take(by("a", 10)).await, numbers(14..20));
    assert_eq!(rig.take(by("a", 10)).await, numbers(20..30));
    resume(25).unwrap();
    assert_eq!(rig.take(by("a", 10)).await, numbers(25..30), "handed over, and yet it never came");
    assert_eq!(resume(31), Err(ReadError::Ahead));
    assert!(matches!(
        rig.events.resume((&app(), STREAM), &name, (Cursor { epoch: 1, ..rig.cursor(1) }, true), &[]),
        Err(ReadError::Expired { lost: None, .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_seek_moves_a_subscription_either_way_and_what_was_under_way_does_not_move_it_back() {
    let rig = Rig::quiet().await;
    rig.append(0..10).await;
    let name = SubscriptionName::parse("a").unwrap();
    let (kept, lost) = (rig.read(by("a", 3)).await.unwrap(), rig.read(by("a", 3)).await.unwrap());
    let seek = async |rig: &Rig, to| rig.events.seek(&app(), STREAM, &name, to).await;
    seek(&rig, StartAt::After(rig.cursor(8))).await.unwrap();
    kept.receipt.handed_over();
    drop(lost);
    assert_eq!(rig.take(by("a", 10)).await, numbers(8..10));
    seek(&rig, StartAt::Earliest).await.unwrap();
    let rig = rig.kill().await;
    assert_eq!(rig.take(by("a", 10)).await, numbers(0..10), "durable when it is answered");
    assert_eq!(seek(&rig, StartAt::After(rig.cursor(11))).await, Err(ReadError::Ahead));
    let unknown = SubscriptionName::parse("b").unwrap();
    let refused = rig.events.seek(&app(), STREAM, &unknown, StartAt::Latest).await;
    assert_eq!(refused, Err(ReadError::NoSuchSubscription));
    assert_eq!(rig.take(from(StartAt::After(rig.cursor(7)), by("b", 10))).await, numbers(7..10));
}

#[derive(Clone, Debug)]
pub(super) enum Act {
    Append(u64),
    Mark,
    Read { limit: usize, markers: bool },
    HandOver(usize),
    Lose(usize),
    Restart,
    Kill,
}

pub(super) fn acts(most: usize) -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (1..30u64).prop_map(Act::Append),
        1 => Just(Act::Mark),
        6 => (1..20usize, any::<bool>()).prop_map(|(limit, markers)| Act::Read { limit, markers }),
        4 => (0..6usize).prop_map(Act::HandOver),
        2 => (0..6usize).prop_map(Act::Lose),
        1 => Just(Act::Restart),
        1 => Just(Act::Kill),
    ];
    prop::collection::vec(act, 0..most)
}

/// Does `acts`, then reads to the end. Returns how many events there were, and what was handed over, in its order.
pub(super) async fn run(mut rig: Rig, acts: &[Act]) -> (u64, Vec<String>) {
    let (mut appended, mut handed_over, mut on_their_way) = (0, Vec::new(), Vec::<Delivery>::new());
    for act in acts {
        match act {
            Act::Append(n) => {
                rig.append(appended..appended + n).await;
                appended += n;
            }
            Act::Mark => rig.append_content(Content::PossibleLoss("reset".into())).await,
            Act::Read { limit, markers } => {
                let delivery = rig.read(ReadRequest { markers: *markers, ..by("a", *limit) }).await.unwrap();
                assert!(texts(&delivery).len() <= *limit);
                on_their_way.push(delivery);
            }
            Act::HandOver(which) if !on_their_way.is_empty() => {
                let delivery = on_their_way.swap_remove(which % on_their_way.len());
                handed_over.extend(texts(&delivery));
                delivery.receipt.handed_over();
            }
            Act::Lose(which) if !on_their_way.is_empty() => {
                drop(on_their_way.swap_remove(which % on_their_way.len()));
            }
            Act::HandOver(_) | Act::Lose(_) => {}
            Act::Restart => {
                on_their_way.clear();
                rig = rig.restart().await;
            }
            Act::Kill => {
                on_their_way.clear();
                rig = rig.kill().await;
            }
        }
    }
    on_their_way.clear();
    loop {
        let rest = rig.take(by("a", 7)).await;
        if rest.is_empty() {
            break;
        }
        handed_over.extend(rest);
    }
    handed_over.retain(|text| text != "reset");
    let subscriptions = rig.events.subscriptions();
    assert_eq!((subscriptions[0].lag, subscriptions[0].in_flight), (0, 0));
    rig.tasks.finish(Duration::from_secs(1)).await;
    (appended, handed_over)
}

/// What is dropped, killed or read by several at once may come twice; otherwise a subscription is a queue.
pub(super) fn one_careful_reader(acts: &[Act]) -> Vec<Act> {
    let careful = acts.iter().filter(|act| !matches!(act, Act::Lose(_) | Act::Kill | Act::HandOver(_))).cloned();
    careful
        .flat_map(|act| match act {
            Act::Read { .. } => vec![act, Act::HandOver(0)],
            _ => vec![act],
        })
        .collect()
}

fn in_paused_time<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(work)
}

properties! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn every_event_reaches_the_subscription_whatever_fails(acts in acts(50)) {
        let (appended, handed_over) = in_paused_time(async { run(Rig::quiet().await, &acts).await });
        let distinct: std::collections::BTreeSet<u64> = handed_over.iter().map(|text| text.parse().unwrap()).collect();
        prop_assert!(distinct.into_iter().eq(0..appended));
        if !acts.iter().any(|act| matches!(act, Act::Restart | Act::Kill)) {
            prop_assert_eq!(handed_over.len() as u64, appended, "what fails is given again, what is handed over is not");
        }
    }

    #[test]
    fn one_reader_who_loses_nothing_gets_each_event_once_and_in_order(acts in acts(50)) {
        let (appended, handed_over) = in_paused_time(async { run(Rig::quiet().await, &one_careful_reader(&acts)).await });
        prop_assert_eq!(handed_over, numbers(0..appended));
    }
}
