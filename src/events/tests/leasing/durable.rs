//! What was answered stays so, whoever left or failed meanwhile and however the process ended; and what retention took is
//! told, once and with its number.

use super::*;
use crate::events::log::cursor::Origin;
use crate::events::subscription::{Hold, LeasedEntries, LogRange};
use crate::kernel::testing::pass;
use crate::store::Sequence;

/// How long a write takes here.
const SLOW: Duration = Duration::from_secs(1);

impl Rig {
    fn slow_down(&self) {
        self.store.delay.store(1000, Ordering::Relaxed);
    }

    fn speed_up(&self) {
        self.store.delay.store(0, Ordering::Relaxed);
    }

    /// Removes all entries up to now.
    async fn trim_all(&self) {
        pass(Duration::from_secs(3601)).await;
        self.stream().trim().await.unwrap();
    }

    /// A read of the first kind: what it was told was lost, and the numbers of its entries.
    async fn native(&self, limit: usize) -> (u64, Vec<u64>) {
        let delivery = self.read(ReadRequest { markers: true, ..by("a", limit) }).await.unwrap();
        let (lost, mut got) = (delivery.lost, entries(&delivery));
        if lost > 0 {
            got.remove(0);
        }
        delivery.receipt.handed_over();
        (lost, got)
    }
}

fn short_lived() -> config::App {
    let mut config = config(&[]);
    config.events.retention = Duration::from_secs(3600);
    config.events.subscription_ttl = Duration::ZERO;
    config
}

/// Begins something and leaves before it is done.
async fn leave<T>(asking: impl Future<Output = T>) {
    assert!(tokio::time::timeout(SLOW / 50, asking).await.is_err(), "it was done already");
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_is_durable_though_another_caller_left_during_its_write() {
    let rig = Rig::quiet().await;
    rig.append_of((1..=4).map(|n| (n, n))).await;
    let (lease, _) = rig.lease(leased(2)).await.unwrap();
    pass(SLOW).await;
    rig.slow_down();
    leave(rig.ack(Holding::Lease(lease))).await;
    assert_eq!(rig.ack(Holding::Lease(lease)).await, Ok(0), "it is settled already");
    rig.speed_up();
    let rig = rig.kill().await;
    assert_eq!(rig.lease(leased(10)).await.unwrap().1, [(3, 1), (4, 1)]);
}

/// What happens between the write that fails and the next.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meanwhile {
    Nothing,
    MoreIsAcknowledged,
    IsSought,
}

#[tokio::test(start_paused = true)]
async fn a_note_whose_removal_failed_settles_nothing_after_a_seek_back_and_a_kill() {
    for meanwhile in [Meanwhile::Nothing, Meanwhile::MoreIsAcknowledged, Meanwhile::IsSought] {
        let rig = Rig::quiet().await;
        rig.append_of((1..=1600).map(|n| (n, n))).await;
        let (first, _) = rig.lease(leased(1000)).await.unwrap();
        let (second, _) = rig.lease(leased(500)).await.unwrap();
        let (third, _) = rig.lease(leased(100)).await.unwrap();
        // Some of the first segment, out of order: a note says so.
        assert_eq!(rig.ack(Holding::Lease(second)).await, Ok(500));
        let seek = async || rig.events.seek(&app(), STREAM, &name(), StartAt::Earliest).await.unwrap();
        rig.store.broken.store(true, Ordering::Relaxed);
        // The cursor would move behind that segment, and its note go.
        if meanwhile == Meanwhile::IsSought {
            rig.slow_down();
            let seek = async {
                pass(SLOW / 2).await;
                seek().await
            };
            let mend = async {
                pass(SLOW + SLOW / 2).await;
                rig.store.broken.store(false, Ordering::Relaxed);
            };
            let (acked, ..) = tokio::join!(rig.ack(Holding::Lease(first)), seek, mend);
            assert!(acked.is_err());
        } else {
            assert!(rig.ack(Holding::Lease(first)).await.is_err());
            if meanwhile == Meanwhile::MoreIsAcknowledged {
                assert!(rig.ack(Holding::Lease(third)).await.is_err());
            }
            rig.store.broken.store(false, Ordering::Relaxed);
            pass(SLOW * 5).await;
            assert!(rig.store.cursors(&key()).await.unwrap()[0].1 >= Sequence(1500), "stored soon after");
            seek().await;
        }
        rig.speed_up();
        let rig = rig.kill().await;
        let mut got = Vec::new();
        while let Some((_, entries)) = rig.lease(leased(1000)).await {
            got.extend(entries.into_iter().map(|(at, _)| at));
        }
        assert!(got.iter().copied().eq(1..=1600), "{meanwhile:?}: {} of 1600", got.len());
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_caller_began_who_left_is_stored_soon_after() {
    let rig = Rig::quiet().await;
    rig.append_of((1..=6).map(|n| (n, n))).await;
    rig.give_up(1).await;
    let (lease, _) = rig.lease(leased(3)).await.unwrap();
    assert_eq!(rig.dead().await, [(1, 3)]);
    pass(SLOW).await;
    rig.slow_down();
    let letter = Redeliver::These(vec![rig.cursor(1)]);
    leave(rig.events.redeliver(&app(), STREAM, &name(), letter)).await;
    leave(rig.ack(Holding::Lease(lease))).await;
    pass(SLOW * 5).await;
    rig.speed_up();
    let rig = rig.kill().await;
    assert_eq!(rig.lease(leased(2)).await.unwrap().1, [(1, 1), (5, 1)]);
    rig.slow_down();
    leave(rig.events.seek(&app(), STREAM, &name(), StartAt::After(rig.cursor(5)))).await;
    pass(SLOW * 5).await;
    rig.speed_up();
    let rig = rig.kill().await;
    assert_eq!(rig.lease(leased(10)).await.unwrap().1, [(6, 1)]);
    rig.slow_down();
    leave(rig.events.clear_dead_letters(&app(), STREAM, &name(), None)).await;
    pass(SLOW * 5).await;
    assert_eq!((rig.dead().await, rig.events.subscriptions()[0].dead_letters), (vec![], 0));
    leave(rig.events.remove(&app(), STREAM, &name())).await;
    pass(SLOW * 5).await;
    rig.speed_up();
    assert_eq!(rig.lease(leased(1)).await.unwrap().1, [(1, 1)], "a new one begins");
}

#[tokio::test(start_paused = true)]
async fn the_count_of_dead_letters_is_theirs_whoever_clears_them_together() {
    let rig = Rig::quiet().await;
    rig.append_of((1..=3).map(|n| (n, n))).await;
    rig.give_up(3).await;
    assert!(rig.lease(leased(3)).await.is_none());
    rig.slow_down();
    let events = &rig.events;
    let (app, name, one) = (app(), name(), Some(rig.cursor(2)));
    let clear = |one| events.clear_dead_letters(&app, STREAM, &name, one);
    let cleared = tokio::join!(clear(one), clear(None), clear(one), clear(None));
    assert_eq!(cleared, (Ok(1), Ok(2), Ok(0), Ok(0)));
    assert_eq!(rig.events.subscriptions()[0].dead_letters, 0);
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_is_given_again_is_shown_as_such_until_it_is_acknowledged() {
    let rig = Rig::quiet().await;
    rig.append_of((1..=2).map(|n| (n, n))).await;
    rig.give_up(2).await;
    assert_eq!(rig.lease(leased(1)).await, None);
    let (events, app, name) = (&rig.events, app(), name());
    let list = || async {
        let letters = events.dead_letters(&app, STREAM, &name, None, 10).await.unwrap();
        letters.iter().map(|letter| (letter.cursor.at.0, letter.is_redelivering)).collect::<Vec<_>>()
    };
    events.redeliver(&app, STREAM, &name, Redeliver::These(vec![rig.cursor(1)])).await.unwrap();
    assert_eq!(list().await, [(1, true), (2, false)]);
    let (lease, got) = rig.lease(leased(1)).await.unwrap();
    assert_eq!(got, [(1, 1)]);
    rig.slow_down();
    let clear = || events.clear_dead_letters(&app, STREAM, &name, None);
    let again = || events.redeliver(&app, STREAM, &name, Redeliver::All);
    // Who is listed while the acknowledgement is written, and while nobody writes it.
    let (acked, listed) = tokio::join!(rig.ack(Holding::Lease(lease)), list());
    assert_eq!((acked, listed), (Ok(1), vec![(2, false)]));
    events.redeliver(&app, STREAM, &name, Redeliver::All).await.unwrap();
    let (lease, got) = rig.lease(leased(1)).await.unwrap();
    assert_eq!(got, [(2, 1)]);
    leave(rig.ack(Holding::Lease(lease))).await;
    let asked = tokio::join!(list(), again(), clear());
    assert_eq!(asked, (vec![], Ok(0), Ok(0)), "it is settled, though nobody heard that it is stored");
}

#[tokio::test(start_paused = true)]
async fn a_letter_in_hand_that_retention_takes_is_given_again_until_it_is_acknowledged_or_told() {
    let held = || ReadRequest { ack: Ack::Explicit { lease: LEASE * 1000, max_attempts: MOST }, ..leased(10) };
    for is_sought in [false, true] {
        for is_killed in [false, true] {
            let rig = Rig::over(MemoryStore::default(), short_lived()).await;
            rig.append_of([(1, 1)]).await;
            rig.give_up(1).await;
            assert_eq!(rig.lease(leased(1)).await, None);
            if is_sought {
                rig.events.seek(&app(), STREAM, &name(), StartAt::Earliest).await.unwrap();
            } else {
                rig.events.redeliver(&app(), STREAM, &name(), Redeliver::All).await.unwrap();
            }
            let (lease, got) = rig.lease(held()).await.unwrap();
            assert_eq!(got, [(1, 1)]);
            rig.trim_all().await;
            rig.append_of([(2, 2)]).await;
            assert_eq!(rig.lease(held()).await.unwrap().1, [(2, 1)], "nothing is lost yet");
            let letters = rig.events.dead_letters(&app(), STREAM, &name(), None, 10).await.unwrap();
            assert_eq!(letters.iter().map(|letter| letter.is_redelivering).collect::<Vec<_>>(), [!is_sought]);
            pass(SLOW).await;
            if is_killed {
                let rig = rig.kill().await;
                assert_eq!(rig.native(10).await, (1, vec![2]), "{is_sought}");
                assert_eq!(rig.dead().await, [(1, MOST)]);
            } else {
                assert_eq!(rig.ack(Holding::Lease(lease)).await, Ok(1));
                assert_eq!(rig.dead().await, [], "{is_sought}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_about_to_take_something_when_its_place_was_removed_takes_nothing() {
    let rig = Rig::quiet().await;
    rig.append_of((1..=4).map(|n| (n, 1))).await;
    let (lease, _) = rig.lease(leased(1)).await.unwrap();
    assert_eq!(rig.nack(Holding::Lease(lease), 45).await, Ok(1));
    rig.append_of([(5, 1)]).await;
    let subscription = rig.stream().registry.get(&name()).unwrap();
    let claim = LogRange::claim(&subscription, Sequence(1)..Sequence(6), 1, None).unwrap();
    rig.events.remove(&app(), STREAM, &name()).await.unwrap();
    let (entry, now) = (claim.range().start, rig.clock.now());
    claim.open(&[(entry, 1)], now);
    let hold = Hold::Lease { until: now + LEASE, max_attempts: MOST };
    assert!(LeasedEntries::claim(&subscription, 10, hold, now).is_none(), "another of the user waits");
    assert!(LogRange::claim(&subscription, Sequence(1)..Sequence(6), 10, None).is_none());
    assert_eq!(rig.lease(leased(1)).await.unwrap().1, [(1, 1)], "a new one begins");
}

#[tokio::test(start_paused = true)]
async fn attempts_are_counted_through_any_number_of_kills() {
    let mut rig = Rig::quiet().await;
    rig.append_of([(1, 1), (2, 2)]).await;
    for attempt in 1..=MOST {
        assert_eq!(rig.lease(leased(1)).await.unwrap().1, [(1, attempt)]);
        if attempt == 1 {
            // A first attempt alone may be forgotten, and no longer than this.
            pass(Duration::from_millis(250)).await;
        }
        rig = rig.kill().await;
    }
    assert_eq!(rig.lease(leased(10)).await.unwrap().1, [(2, 1)]);
    assert!(rig.lease(leased(10)).await.is_none());
    assert_eq!(rig.dead().await, [(1, MOST)]);
}

#[tokio::test(start_paused = true)]
async fn a_delay_outlives_a_kill() {
    let rig = Rig::quiet().await;
    rig.append_of([(1, 1), (2, 1), (3, 2)]).await;
    let (lease, _) = rig.lease(leased(1)).await.unwrap();
    assert_eq!(rig.nack(Holding::Lease(lease), 45).await, Ok(1));
    let rig = rig.kill().await;
    let began = Instant::now();
    assert_eq!(rig.lease(wait(60, leased(10))).await.unwrap().1, [(3, 1)], "the user's next waits behind it");
    assert_eq!(rig.lease(wait(60, leased(10))).await.unwrap().1, [(3, 2)]);
    assert_eq!(rig.lease(wait(60, leased(10))).await.unwrap().1, [(1, 2), (2, 1)]);
    assert_eq!(began.elapsed(), Duration::from_secs(45));
    let rig = rig.restart().await;
    assert_eq!(rig.lease(leased(1)).await.unwrap().1, [(1, 3)], "it is over");
}

#[tokio::test(start_paused = true)]
async fn what_retention_took_is_told_after_a_restart_too_and_once() {
    for in_order in [true, false] {
        let rig = Rig::over(MemoryStore::default(), short_lived()).await;
        rig.append_of((1..=10).map(|n| (n, n))).await;
        assert_eq!(rig.native(4).await, (0, vec![1, 2, 3, 4]));
        pass(SLOW).await;
        rig.trim_all().await;
        rig.append_of((11..=12).map(|n| (n, n))).await;
        let rig = if in_order { rig.restart().await } else { rig.kill().await };
        assert_eq!(rig.native(1).await, (6, vec![11]), "{in_order}");
        pass(SLOW).await;
        let rig = rig.kill().await;
        assert_eq!(rig.native(5).await, (0, vec![12]));
    }
}

#[tokio::test(start_paused = true)]
async fn what_retention_took_is_told_again_when_the_response_did_not_arrive_or_nothing_fitted_its_filter() {
    let rig = Rig::over(MemoryStore::default(), short_lived()).await;
    assert_eq!(rig.native(1).await, (0, vec![]));
    rig.append_of((1..=3).map(|n| (n, n))).await;
    rig.trim_all().await;
    rig.append_of([(4, 1), (5, 2)]).await;
    let filter = Arc::new(Filter::new(&[], &["u2".to_owned()], &[]));
    let picky = ReadRequest { markers: true, filter, ..by("a", 1) };
    drop(rig.read(picky.clone()).await.unwrap());
    assert_eq!(rig.native(1).await, (3, vec![4]));
    rig.append_of([(6, 1)]).await;
    rig.trim_all().await;
    rig.append_of([(7, 1)]).await;
    assert_eq!(rig.read(picky.clone()).await.unwrap().lost, 0, "there is nothing to tell it with");
    let rig = rig.restart().await;
    rig.append_of([(8, 2)]).await;
    let delivery = rig.read(picky).await.unwrap();
    assert_eq!((delivery.lost, entries(&delivery).len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn what_retention_took_from_under_leases_is_told_and_to_acknowledge_that_settles_nothing_else() {
    let rig = Rig::over(MemoryStore::default(), short_lived()).await;
    rig.append_of((1..=5).map(|n| (n, n))).await;
    let (lease, got) = rig.lease(leased(3)).await.unwrap();
    assert_eq!(got, [(1, 1), (2, 1), (3, 1)]);
    assert_eq!(rig.ack(rig.entry(2)).await, Ok(1));
    rig.trim_all().await;
    rig.append_of((6..=8).map(|n| (n, n))).await;
    let other = rig.read(leased(1)).await.unwrap();
    // 4 and 5 were not handed out; 1 and 3 are gone when their turn comes again.
    assert_eq!(other.lost, 4);
    assert_eq!(entries(&other), [5, 6]);
    other.receipt.handed_over();
    assert_eq!(rig.ack(Holding::Lease(lease)).await, Err(AckError::LeaseExpired));
    assert_eq!(rig.ack(rig.entry(5)).await, Ok(0), "the marker");
    let (_, got) = rig.lease(leased(10)).await.unwrap();
    assert_eq!(got, [(7, 1), (8, 1)]);
    pass(LEASE).await;
    let rig = rig.restart().await;
    assert_eq!(rig.lease(leased(10)).await.unwrap().1, [(6, 2), (7, 2), (8, 2)]);
}

#[tokio::test(start_paused = true)]
async fn what_retention_took_beside_a_lease_is_not_counted_once_more_by_a_restart() {
    let rig = Rig::over(MemoryStore::default(), short_lived()).await;
    rig.append_of((1..=4).map(|n| (n, n))).await;
    let held = ReadRequest { ack: Ack::Explicit { lease: LEASE * 1000, max_attempts: MOST }, ..leased(1) };
    assert_eq!(rig.lease(held).await.unwrap().1, [(1, 1)]);
    rig.trim_all().await;
    pass(SLOW).await;
    // What is held is lost when its lease is.
    let rig = rig.kill().await;
    rig.append_of([(5, 5)]).await;
    assert_eq!(rig.native(10).await, (4, vec![5]));
    pass(SLOW).await;
    let rig = rig.kill().await;
    rig.append_of([(6, 6)]).await;
    assert_eq!(rig.native(10).await, (0, vec![6]));
}

#[tokio::test(start_paused = true)]
async fn a_plain_response_is_no_attempt_whatever_becomes_of_it() {
    let rig = Rig::quiet().await;
    rig.append_of([(1, 1), (2, 2), (3, 3)]).await;
    let (first, _) = rig.lease(leased(1)).await.unwrap();
    // On its way while another's acknowledgement stores the book, and until the end.
    let on_its_way = rig.read(by("a", 1)).await.unwrap();
    assert_eq!(entries(&on_its_way), [2]);
    assert_eq!(rig.ack(Holding::Lease(first)).await, Ok(1));
    let lost = rig.read(by("a", 1)).await.unwrap();
    assert_eq!(entries(&lost), [3]);
    drop(lost);
    assert_eq!(rig.ack(rig.entry(3)).await, Ok(1), "it may have arrived");
    let rig = rig.kill().await;
    assert_eq!(rig.lease(leased(10)).await.unwrap().1, [(2, 1)]);
}

#[tokio::test(start_paused = true)]
async fn who_comes_again_after_its_subscription_was_removed_is_told_what_it_missed_and_dead_letters_keep_one() {
    let config = config::App {
        events: config::Events { subscription_ttl: Duration::from_secs(600), ..short_lived().events },
        ..short_lived()
    };
    let rig = Rig::over(MemoryStore::default(), config).await;
    rig.append_of((1..=5).map(|n| (n, n))).await;
    assert_eq!(rig.native(2).await, (0, vec![1, 2]));
    let dead = |limit| ReadRequest { ack: Ack::Explicit { lease: LEASE, max_attempts: 1 }, ..by("dead", limit) };
    let buried = SubscriptionName::parse("dead").unwrap();
    let (lease, _) = rig.lease(dead(1)).await.unwrap();
    rig.events.give_back(&app(), STREAM, &buried, &Holding::Lease(lease), Duration::ZERO).await.unwrap();
    assert_eq!(rig.lease(dead(1)).await.unwrap().1, [(2, 1)]);
    pass(Duration::from_secs(700)).await;
    let names: Vec<_> = rig.events.subscriptions().into_iter().map(|one| one.subscription).collect();
    assert_eq!(names, ["dead"]);
    let rig = rig.restart().await;
    let native = ReadRequest { markers: true, ..from(StartAt::Latest, by("a", 10)) };
    assert_eq!(rig.read(native.clone()).await.unwrap().lost, 0, "there is nothing to tell it with yet");
    rig.append_of([(6, 6)]).await;
    let rig = rig.kill().await;
    assert_eq!(rig.native(10).await, (3, vec![6]));
    let rig = rig.restart().await;
    rig.append_of([(7, 7)]).await;
    assert_eq!(rig.native(10).await, (0, vec![7]), "told once");
}

#[tokio::test(start_paused = true)]
async fn a_cursor_of_another_stream_settles_and_reads_nothing_and_one_of_an_older_gateway_is_good() {
    let rig = Rig::quiet().await;
    rig.append_of((1..=3).map(|n| (n, n))).await;
    rig.lease(leased(3)).await.unwrap();
    let channels = LogKey { stream: Stream::ChannelEvents, ..key() };
    let [foreign, old] = [Origin::new(rig.events.epoch(), &channels).epoch(), rig.events.epoch()]
        .map(|epoch| move |at| Cursor { epoch, at: Sequence(at) });
    assert_eq!(rig.ack(Holding::Entries(vec![foreign(1)])).await, Err(AckError::LeaseExpired));
    let after = |cursor| ReadRequest { place: ReadFrom::After(cursor), ..by("a", 10) };
    assert_eq!(rig.read(after(foreign(1))).await.unwrap_err(), ReadError::OfAnotherStream);
    let seek = |cursor| {
        let name = name();
        let events = &rig.events;
        async move { events.seek(&app(), STREAM, &name, StartAt::After(cursor)).await }
    };
    assert_eq!(seek(foreign(1)).await, Err(ReadError::OfAnotherStream));
    assert_eq!(rig.events.resume((&app(), STREAM), &name(), (foreign(1), true), &[]), Err(ReadError::OfAnotherStream));
    let app_of_others = LogKey { app: AppId::parse("other").unwrap(), ..key() };
    let elsewhere = Cursor { epoch: Origin::new(rig.events.epoch(), &app_of_others).epoch(), at: Sequence(1) };
    let expired = ReadError::Expired { earliest: rig.cursor(0), lost: None };
    assert_eq!(rig.read(after(elsewhere)).await.unwrap_err(), expired);
    assert_eq!(rig.ack(Holding::Entries(vec![old(1)])).await, Ok(1));
    assert_eq!(entries(&rig.read(after(old(1))).await.unwrap()), [2, 3]);
    assert_eq!(seek(old(2)).await, Ok(rig.cursor(2)));
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_put_back_keeps_its_attempts_and_its_delay_through_kills() {
    for sought in [false, true] {
        keeps_its_attempts_and_its_delay(sought).await;
    }
}

async fn keeps_its_attempts_and_its_delay(sought: bool) {
    let mut rig = Rig::quiet().await;
    rig.append_of([(1, 1), (2, 2)]).await;
    rig.give_up(1).await;
    let (second, got) = rig.lease(leased(2)).await.unwrap();
    assert_eq!((got, rig.dead().await), (vec![(2, 1)], vec![(1, MOST)]));
    rig.ack(Holding::Lease(second)).await.unwrap();
    if sought {
        rig.events.seek(&app(), STREAM, &name(), StartAt::Earliest).await.unwrap();
    }
    rig.events.redeliver(&app(), STREAM, &name(), Redeliver::All).await.unwrap();
    let (lease, got) = rig.lease(leased(1)).await.unwrap();
    assert_eq!(got, [(1, 1)]);
    rig.nack(Holding::Lease(lease), 45).await.unwrap();
    if sought {
        let (second, got) = rig.lease(leased(2)).await.unwrap();
        assert_eq!(got, [(2, 1)]);
        rig.ack(Holding::Lease(second)).await.unwrap();
    }
    rig = rig.kill().await;
    let began = Instant::now();
    for attempt in 2..=MOST {
        assert_eq!(rig.lease(wait(60, leased(1))).await.unwrap().1, [(1, attempt)]);
        assert_eq!(began.elapsed(), Duration::from_secs(45));
        rig = rig.kill().await;
    }
    assert!(rig.lease(leased(1)).await.is_none());
    assert_eq!(rig.dead().await, [(1, MOST)]);
}

#[tokio::test(start_paused = true)]
async fn a_plain_reader_waits_out_a_delay_too_also_after_a_kill() {
    let rig = Rig::quiet().await;
    rig.append_of((1..=3).map(|n| (n, n))).await;
    let (lease, _) = rig.lease(leased(2)).await.unwrap();
    rig.nack(Holding::Lease(lease), 45).await.unwrap();
    let rig = rig.kill().await;
    let began = Instant::now();
    assert_eq!(rig.native(10).await, (0, vec![3]));
    assert_eq!(entries(&rig.read(wait(60, by("a", 10))).await.unwrap()), [1, 2]);
    assert_eq!(began.elapsed(), Duration::from_secs(45));
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_a_seek_gives_again_is_given_once_and_leaves_the_list_when_it_is_acknowledged() {
    for kills in [false, true] {
        let mut rig = Rig::quiet().await;
        rig.append_of((1..=3).map(|n| (n, n))).await;
        for _ in 0..MOST {
            let (lease, _) = rig.lease(leased(3)).await.unwrap();
            rig.ack(rig.entry(1)).await.unwrap();
            rig.ack(rig.entry(2)).await.unwrap();
            rig.nack(Holding::Lease(lease), 0).await.unwrap();
        }
        assert!(rig.lease(leased(3)).await.is_none());
        rig.events.seek(&app(), STREAM, &name(), StartAt::Earliest).await.unwrap();
        assert_eq!(rig.events.redeliver(&app(), STREAM, &name(), Redeliver::All).await, Ok(1));
        if kills {
            rig = rig.kill().await;
        }
        assert_eq!(rig.lease(leased(1)).await.unwrap().1, [(3, 1)], "it waits for no other");
        assert_eq!(rig.ack(rig.entry(3)).await, Ok(1));
        let mut got = Vec::new();
        while let Some((lease, entries)) = rig.lease(leased(10)).await {
            got.extend(entries.into_iter().map(|(at, _)| at));
            rig.ack(Holding::Lease(lease)).await.unwrap();
        }
        assert_eq!((got, rig.dead().await), (vec![1, 2], vec![]), "{kills}");
        let rig = rig.restart().await;
        assert!(rig.lease(leased(10)).await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_letter_is_given_again_though_what_came_with_it_is_under_way_still() {
    for kills in [false, true] {
        let mut rig = Rig::quiet().await;
        rig.append_of((1..=3).map(|n| (n, n))).await;
        // As a webhook does: of what was opened together one is given up, and the others are tried on.
        let in_hand = InHand { turns: DeliveryOrder::EachKey, unites: false, most_open: 10 };
        let read = || rig.read(ReadRequest { ack: Ack::InHand(in_hand), ..leased(1) });
        let held = [read().await.unwrap(), read().await.unwrap(), read().await.unwrap()];
        assert_eq!(held.iter().map(entries).collect::<Vec<_>>(), [[1], [2], [3]]);
        let lease = |n: usize| held[n].leased.as_ref().unwrap().name;
        assert_eq!(rig.events.bury(&app(), STREAM, &name(), lease(1), (1, "test")).await, (1, Ok(())));
        assert_eq!(rig.events.redeliver(&app(), STREAM, &name(), Redeliver::All).await, Ok(1));
        if kills {
            rig = rig.kill().await;
        } else {
            assert_eq!(rig.ack(Holding::Lease(lease(0))).await, Ok(1));
            assert_eq!(rig.ack(Holding::Lease(lease(2))).await, Ok(1));
        }
        drop(held);
        assert_eq!(rig.dead().await, [(2, 1)], "it was not given yet");
        assert_eq!(rig.native(10).await, (0, vec![2]));
        if kills {
            assert_eq!((rig.native(10).await.1, rig.native(10).await.1), (vec![1], vec![3]));
        }
        pass(SLOW).await;
        assert_eq!(rig.dead().await, []);
    }
}

#[tokio::test(start_paused = true)]
async fn what_two_bury_at_the_same_time_is_on_the_list() {
    let mut rig = Rig::quiet().await;
    rig.append_of((1..=9).map(|n| (n, n))).await;
    for _ in 0..MOST {
        rig.lease(leased(5)).await;
        rig = rig.restart().await;
    }
    // Housekeeping looks every five seconds, and finds what these find.
    pass(Duration::from_secs(5)).await;
    rig.slow_down();
    let reads = (0..4).map(|_| rig.lease(leased(1)));
    let got: Vec<_> = futures_util::future::join_all(reads).await.into_iter().flatten().collect();
    assert_eq!(got.len(), 4);
    assert_eq!(rig.dead().await.len(), 5);
    assert_eq!(rig.events.subscriptions()[0].dead_letters, 5);
}

#[tokio::test(start_paused = true)]
async fn an_extension_by_cursor_shortens_nobodys_lease() {
    let rig = Rig::quiet().await;
    rig.append_of([(1, 1), (2, 2)]).await;
    rig.lease(leased(2)).await.unwrap();
    let extended = rig.events.extend(&app(), STREAM, &name(), &rig.entry(1), Duration::from_secs(1));
    assert_eq!(extended, Ok(2));
    pass(Duration::from_secs(2)).await;
    assert!(rig.lease(leased(2)).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_is_a_dead_letter_or_comes_again_whenever_it_is_killed_and_never_both() {
    // A write takes a second: the first kill comes before any is done, the last after all.
    for after in (0..=5).map(|n| Duration::from_millis(600 * n)) {
        let rig = Rig::quiet().await;
        rig.append_of([(1, 1), (2, 1)]).await;
        rig.give_up(1).await;
        pass(SLOW).await;
        rig.slow_down();
        let read = rig.read(leased(1));
        assert!(tokio::time::timeout(after, read).await.is_ok() == (after > SLOW), "one write, and no more");
        let rig = rig.kill().await;
        let is_dead = !rig.dead().await.is_empty();
        assert_eq!(rig.native(10).await.1, if is_dead { vec![2] } else { vec![1, 2] }, "killed after {after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_is_in_one_write_on_the_list_and_settled() {
    for is_there in [false, true] {
        let rig = Rig::quiet().await;
        rig.append_of([(1, 1), (2, 1)]).await;
        rig.give_up(1).await;
        pass(SLOW).await;
        let fails = if is_there { &rig.store.unsure } else { &rig.store.broken };
        fails.store(true, Ordering::Relaxed);
        assert!(matches!(rig.read(leased(1)).await, Err(ReadError::Store(_))), "the next of the user waits");
        assert!(matches!(rig.read(leased(1)).await, Err(ReadError::Store(_))), "as long as that is not stored");
        assert_eq!(rig.dead().await.len(), usize::from(is_there));
        fails.store(false, Ordering::Relaxed);
        assert_eq!(rig.lease(leased(1)).await.unwrap().1, [(2, 1)]);
        assert_eq!(rig.dead().await, [(1, MOST)]);
        let rig = rig.kill().await;
        assert_eq!(rig.dead().await, [(1, MOST)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_is_handed_over_plainly_is_none_any_more_though_that_is_not_stored_yet() {
    let rig = Rig::quiet().await;
    rig.append_of((1..=3).map(|n| (n, n))).await;
    rig.give_up(3).await;
    assert!(rig.lease(leased(3)).await.is_none());
    let again = async |which| rig.events.redeliver(&app(), STREAM, &name(), which).await;
    let of = |at| Redeliver::These(vec![rig.cursor(at)]);
    assert_eq!((again(of(1)).await, again(of(2)).await), (Ok(1), Ok(1)));
    rig.slow_down();
    assert_eq!(rig.native(1).await, (0, vec![1]));
    assert_eq!(rig.dead().await, [(2, MOST), (3, MOST)]);
    let page = rig.events.dead_letters(&app(), STREAM, &name(), None, 1).await.unwrap();
    assert_eq!(page[0].cursor.at.0, 2, "a page is full as long as more follow");
    assert_eq!(rig.native(1).await, (0, vec![2]));
    assert_eq!(again(of(2)).await, Err(ReadError::NoSuchDeadLetter));
    assert_eq!(rig.events.clear_dead_letters(&app(), STREAM, &name(), None).await, Ok(1));
    assert_eq!(rig.dead().await, []);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_back_after_its_neighbours_were_taken_by_retention_is_told_once_however_it_is_killed() {
    let rig = Rig::over(MemoryStore::default(), short_lived()).await;
    rig.append_of((1..=4).map(|n| (n, n))).await;
    let long = Ack::Explicit { lease: MAX_LEASE, max_attempts: MOST };
    let leases = [
        rig.lease(ReadRequest { ack: long, ..leased(1) }).await,
        rig.lease(ReadRequest { ack: long, ..leased(1) }).await,
    ];
    let plain = rig.read(by("a", 1)).await.unwrap();
    assert_eq!(entries(&plain), [3]);
    rig.trim_all().await;
    rig.append_of([(5, 5)]).await;
    assert_eq!(rig.native(1).await, (1, vec![5]), "the others are held");
    // They are given back, and the first is still held.
    drop(plain);
    let (second, _) = leases[1].clone().unwrap();
    rig.nack(Holding::Lease(second), 0).await.unwrap();
    rig.append_of([(6, 6)]).await;
    rig.trim_all().await;
    rig.append_of([(7, 7)]).await;
    pass(Duration::from_secs(10)).await;
    let rig = rig.kill().await;
    assert_eq!(rig.native(1).await, (4, vec![7]), "the first three, and the sixth");
}
