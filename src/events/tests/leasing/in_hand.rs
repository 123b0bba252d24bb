//! What is in hand of who passes events on: what waits for what, what goes out as one, what of it outlives a kill, and what
//! an older gateway had written of it.

use serde_json::json;

use super::*;
use crate::kernel::names::WebhookName;
use crate::kernel::testing::pass;
use crate::store::NoteKind;

fn webhook() -> WebhookName {
    WebhookName::parse("crm").unwrap()
}

fn place() -> SubscriptionName {
    SubscriptionName::from(&webhook())
}

const EACH: InHand = InHand { turns: DeliveryOrder::EachKey, unites: false, most_open: 100 };
const ALL: InHand = InHand { turns: DeliveryOrder::All, ..EACH };
const AS_ONE: InHand = InHand { unites: true, ..EACH };

/// What was taken: its entries, how often the most tried of them failed, and how many entries were lost before.
struct Taken {
    entries: Vec<u64>,
    failures: u32,
    lost: u64,
    lease: LeaseName,
    receipt: Receipt,
}

impl Taken {
    fn said(&self) -> (Vec<u64>, u32) {
        (self.entries.clone(), self.failures)
    }
}

impl Rig {
    async fn take_by(&self, how: InHand, limit: usize, seconds: u64) -> Option<Taken> {
        let place = ReadFrom::Subscription { name: place(), from: StartAt::Earliest };
        let read = ReadRequest { place, ack: Ack::InHand(how), markers: true, ..wait(seconds, by("a", limit)) };
        let delivery = self.read(read).await.unwrap();
        let entries = entries(&delivery);
        let Delivery { leased, receipt, lost, .. } = delivery;
        let Leased { name, attempts, .. } = leased?;
        Some(Taken { entries, failures: attempts.into_iter().max().unwrap(), lost, lease: name, receipt })
    }

    async fn take_now(&self, how: InHand, limit: usize) -> Taken {
        self.take_by(how, limit, 0).await.expect("there is something to take")
    }

    async fn settle(&self, taken: Taken) {
        let lease = Holding::Lease(taken.lease);
        self.events.acknowledge(&app(), STREAM, &place(), &lease).await.unwrap();
        taken.receipt.handed_over();
    }

    async fn failed(&self, taken: Taken, seconds: u64) {
        let back = Nack::Failed(Duration::from_secs(seconds));
        self.events.back(&app(), STREAM, &place(), taken.lease, back).await.unwrap();
    }

    /// This entry dies by itself.
    async fn give_up_in_hand(&self, entry: u64) {
        let mut others = Vec::new();
        loop {
            let taken = self.take_now(EACH, 1).await;
            if taken.entries == [entry] {
                let buried = self.events.bury(&app(), STREAM, &place(), taken.lease, (1, "why")).await;
                return assert_eq!(buried, (1, Ok(())));
            }
            others.push(taken);
        }
    }

    /// All that can be had within so many seconds, each settled.
    async fn drain(&self, how: InHand, limit: usize, seconds: u64) -> Vec<(Vec<u64>, u32)> {
        let mut all = Vec::new();
        while let Some(taken) = self.take_by(how, limit, seconds).await {
            all.push(taken.said());
            self.settle(taken).await;
        }
        all
    }

    fn begin(&self, keeps_units: bool) {
        self.events.reopen(&app(), STREAM, &place(), keeps_units, Duration::from_secs(3600));
    }
}

#[tokio::test(start_paused = true)]
async fn each_waits_for_all_before_it_or_for_its_user_alone_and_that_may_change() {
    let rig = Rig::quiet().await;
    rig.append_of([(1, 1), (2, 2), (3, 1), (4, 3)]).await;
    let first = rig.take_now(ALL, 1).await;
    assert_eq!(first.said(), (vec![1], 0));
    assert!(rig.take_by(ALL, 1, 0).await.is_none(), "2 waits for 1");
    rig.failed(first, 60).await;
    assert!(rig.take_by(ALL, 1, 0).await.is_none());
    rig.begin(false);
    assert_eq!(rig.drain(EACH, 1, 0).await, [(vec![2], 0), (vec![4], 0)], "3 is of the user of 1");
    rig.begin(false);
    rig.append_of([(5, 4)]).await;
    assert!(rig.take_by(ALL, 1, 0).await.is_none());
    assert_eq!(rig.drain(ALL, 1, 61).await, [(vec![1], 1), (vec![3], 0), (vec![5], 0)]);
}

#[tokio::test(start_paused = true)]
async fn what_went_out_as_one_does_so_again_through_kills_and_new_beginnings() {
    let mut rig = Rig::quiet().await;
    rig.append_of((1..=5).map(|n| (n, n))).await;
    let first = rig.take_now(AS_ONE, 3).await;
    assert_eq!(first.said(), (vec![1, 2, 3], 0));
    rig.failed(first, 30).await;
    let second = rig.take_now(AS_ONE, 3).await;
    assert_eq!(second.said(), (vec![4, 5], 0));
    // Nobody's fault, but it may have arrived.
    rig.events.back(&app(), STREAM, &place(), second.lease, Nack::Uncounted).await.unwrap();
    rig.append_of((6..=7).map(|n| (n, n))).await;
    for kills in [true, false] {
        if kills {
            rig = rig.kill().await;
        }
        rig.begin(true);
        let again = rig.take_now(AS_ONE, 100).await;
        assert_eq!(again.said(), (vec![4, 5], 0));
        assert_eq!(rig.take_now(AS_ONE, 1).await.said(), (vec![6], 0), "dropped, it is as it was");
    }
    let drained = rig.drain(AS_ONE, 100, 31).await;
    assert_eq!(drained, [(vec![4, 5], 0), (vec![6, 7], 0), (vec![1, 2, 3], 1)]);
    let rig = rig.kill().await;
    assert!(rig.take_by(AS_ONE, 100, 60).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_was_tried_in_vain_and_is_settled_since_counts_for_nothing_after_a_kill() {
    let rig = Rig::quiet().await;
    rig.append_of((1..=3).map(|n| (n, n))).await;
    for entry in 1..=3 {
        let first = rig.take_by(ALL, 1, 10).await.unwrap();
        rig.failed(first, 5).await;
        let again = rig.take_by(ALL, 1, 10).await.unwrap();
        assert_eq!(again.said(), (vec![entry], 1));
        rig.settle(again).await;
    }
    let rig = rig.kill().await;
    assert_eq!(rig.events.tries(&app(), STREAM, &place()), Tries::default());
}

#[tokio::test(start_paused = true)]
async fn what_goes_out_as_one_for_the_first_time_does_so_again_after_a_kill_in_the_middle() {
    let mut rig = Rig::quiet().await;
    rig.append_of((1..=3).map(|n| (n, n))).await;
    let first = rig.take_now(AS_ONE, 100).await;
    rig.events.goes_out(&app(), STREAM, &place(), first.lease).await.unwrap();
    for _ in 0..2 {
        rig.append_of([(4, 4)]).await;
        rig = rig.kill().await;
        rig.begin(true);
        assert_eq!(rig.take_now(AS_ONE, 100).await.said(), (vec![1, 2, 3], 0));
    }
    assert_eq!(rig.drain(AS_ONE, 100, 0).await, [(vec![1, 2, 3], 0), (vec![4, 5], 0)]);
}

#[tokio::test(start_paused = true)]
async fn dead_letters_of_what_went_out_as_one_are_given_again_by_themselves_after_a_restart_too() {
    for kills in [true, false] {
        let rig = Rig::quiet().await;
        rig.append_of((1..=3).map(|n| (n, n))).await;
        let first = rig.take_now(AS_ONE, 100).await;
        rig.failed(first, 5).await;
        let last = rig.take_by(AS_ONE, 100, 10).await.unwrap();
        assert_eq!(rig.events.bury(&app(), STREAM, &place(), last.lease, (2, "why")).await, (3, Ok(())));
        assert_eq!(rig.events.redeliver(&app(), STREAM, &place(), Redeliver::All).await, Ok(3));
        let one = rig.take_now(AS_ONE, 100).await;
        assert_eq!(one.said(), (vec![1], 0));
        rig.failed(one, 5).await;
        let rig = if kills { rig.kill().await } else { rig.restart().await };
        rig.begin(true);
        assert_eq!(rig.drain(AS_ONE, 100, 10).await, [(vec![2], 0), (vec![3], 0), (vec![1], 1)], "{kills}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_to_go_out_one_by_one_now_is_not_kept_together() {
    let rig = Rig::quiet().await;
    rig.append_of((1..=3).map(|n| (n, n))).await;
    let first = rig.take_now(AS_ONE, 100).await;
    rig.failed(first, 5).await;
    rig.begin(false);
    rig.events.save_cursors().await.unwrap();
    let rig = rig.kill().await;
    assert_eq!(rig.drain(EACH, 1, 10).await, [(vec![1], 1), (vec![2], 1), (vec![3], 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_gone_or_that_nobody_wants_any_more_is_not_waited_for() {
    let rig = Rig::quiet().await;
    rig.append_of([(1, 1), (2, 2), (3, 3)]).await;
    let first = rig.take_now(AS_ONE, 100).await;
    rig.failed(first, 5).await;
    rig.begin(true);
    let filter = Arc::new(Filter::new(&[], &["u1".to_owned(), "u3".to_owned()], &[]));
    let place = ReadFrom::Subscription { name: place(), from: StartAt::Earliest };
    let read = ReadRequest { place, ack: Ack::InHand(AS_ONE), filter, markers: true, ..wait(60, by("a", 100)) };
    assert_eq!(entries(&rig.read(read).await.unwrap()), [1, 3]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_counts_when_it_has_failed_and_then_for_good() {
    let mut rig = Rig::quiet().await;
    rig.append_of([(1, 1)]).await;
    for failures in 0..3 {
        let taken = rig.take_by(EACH, 1, 60).await.unwrap();
        assert_eq!(taken.failures, failures);
        // The process does not outlive that try: it is nobody's fault.
        rig = rig.kill().await;
        let taken = rig.take_now(EACH, 1).await;
        assert_eq!(taken.failures, failures);
        rig.failed(taken, 10).await;
        rig = rig.kill().await;
        assert!(rig.take_by(EACH, 1, 5).await.is_none(), "its wait outlives that, too");
    }
    let taken = rig.take_by(EACH, 1, 60).await.unwrap();
    assert_eq!(rig.events.bury(&app(), STREAM, &place(), taken.lease, (4, "why")).await, (1, Ok(())));
    let rig = rig.kill().await;
    assert!(rig.take_by(EACH, 1, 60).await.is_none());
    let letters = rig.events.dead_letters(&app(), STREAM, &place(), None, 10).await.unwrap();
    assert_eq!(letters.iter().map(|l| (l.attempts, l.reason.as_str())).collect::<Vec<_>>(), [(4, "why")]);
}

#[tokio::test(start_paused = true)]
async fn what_is_stuck_opens_no_more_than_it_may() {
    let rig = Rig::quiet().await;
    rig.append_of([(1, 1)].into_iter().chain((2..=900).map(|n| (n, 1)))).await;
    let first = rig.take_now(EACH, 1).await;
    rig.failed(first, 3600).await;
    assert!(rig.take_by(EACH, 1, 0).await.is_none());
    let tries = rig.events.tries(&app(), STREAM, &place());
    assert_eq!((tries.open, tries.failures, tries.next), (100, 1, Some(rig.clock.now() + Duration::from_secs(3600))));
}

#[tokio::test(start_paused = true)]
async fn what_is_in_hand_from_before_a_seek_or_of_a_removed_place_is_of_no_account() {
    for removes in [false, true] {
        let rig = Rig::quiet().await;
        rig.append_of((1..=4).map(|n| (n, n))).await;
        let held = [
            rig.take_now(EACH, 1).await,
            rig.take_now(EACH, 1).await,
            rig.take_now(EACH, 1).await,
            rig.take_now(EACH, 1).await,
        ];
        if removes {
            rig.events.remove(&app(), STREAM, &place()).await.unwrap();
        } else {
            rig.events.seek(&app(), STREAM, &place(), StartAt::Earliest).await.unwrap();
        }
        let taken = rig.take_now(EACH, 1).await;
        let [settled, failed, buried, dropped] = held;
        let lease = Holding::Lease(settled.lease);
        assert_eq!(rig.events.acknowledge(&app(), STREAM, &place(), &lease).await, Err(AckError::LeaseExpired));
        rig.failed(failed, 100).await;
        assert_eq!(rig.events.bury(&app(), STREAM, &place(), buried.lease, (1, "why")).await, (0, Ok(())));
        drop(dropped);
        drop(taken);
        let all = rig.drain(EACH, 1, 0).await;
        assert_eq!(all, [(vec![1], 0), (vec![2], 0), (vec![3], 0), (vec![4], 0)]);
        assert!(rig.events.dead_letters(&app(), STREAM, &place(), None, 10).await.unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_seek_to_the_end_drops_what_waits_and_wakes_who_waits_for_it() {
    let rig = Rig::quiet().await;
    rig.append_of((1..=4).map(|n| (n, 1))).await;
    let first = rig.take_now(EACH, 1).await;
    rig.failed(first, 50).await;
    let waiting = rig.take_by(EACH, 1, 3000);
    let seeking = async {
        pass(Duration::from_secs(1)).await;
        rig.events.seek(&app(), STREAM, &place(), StartAt::Latest).await.unwrap();
        assert_eq!(rig.events.tries(&app(), STREAM, &place()), Tries::default());
        rig.append_of([(5, 1)]).await;
    };
    let (taken, ()) = tokio::join!(waiting, seeking);
    assert_eq!(taken.unwrap().said(), (vec![5], 0));
}

#[tokio::test(start_paused = true)]
async fn what_retention_took_is_told_apart_from_what_is_in_hand() {
    let mut config = config(&[]);
    config.events.retention = Duration::from_secs(3600);
    let rig = Rig::over(MemoryStore::default(), config).await;
    rig.append_of((1..=4).map(|n| (n, n))).await;
    drop(rig.take_now(EACH, 1).await);
    pass(Duration::from_secs(3601)).await;
    rig.stream().trim().await.unwrap();
    rig.append_of([(5, 5)]).await;
    let mut taken = rig.take_now(EACH, 1).await;
    assert_eq!((taken.lost, taken.entries.clone()), (4, vec![4, 5]), "the marker stands before the entry");
    let (marker, _) = taken.receipt.split_marker();
    rig.settle(taken).await;
    drop(marker);
    rig.append_of([(6, 6)]).await;
    let mut taken = rig.take_now(EACH, 1).await;
    assert_eq!(taken.lost, 4, "it was not told");
    taken.receipt.split_marker().0.handed_over();
    rig.settle(taken).await;
    rig.append_of([(7, 7)]).await;
    assert_eq!(rig.take_now(EACH, 1).await.lost, 0);
}

#[tokio::test(start_paused = true)]
async fn what_became_of_a_marker_outlives_a_kill_and_says_nothing_of_the_entries_beside_it() {
    let mut config = config(&[]);
    config.events.retention = Duration::from_secs(3600);
    for what in ["nothing", "in vain", "told", "given up"] {
        let rig = Rig::over(MemoryStore::default(), config.clone()).await;
        rig.append_of((1..=4).map(|n| (n, n))).await;
        rig.give_up_in_hand(4).await;
        pass(Duration::from_secs(3601)).await;
        rig.stream().trim().await.unwrap();
        rig.append_of([(5, 5)]).await;
        let mut taken = rig.take_now(EACH, 1).await;
        assert_eq!((taken.lost, taken.failures), (3, 0));
        let (mut marker, until) = taken.receipt.split_marker();
        assert_eq!(until, None);
        let due = rig.events.0.parts.shared.clock.now() + Duration::from_secs(60);
        match what {
            "in vain" => rig.events.untold(&mut marker, 2, due).await.unwrap(),
            "told" => rig.events.told(&mut marker).await.unwrap(),
            "given up" => {
                let at = Some(rig.cursor(4));
                let buried = rig.events.bury_marker(&mut marker, at, (2, "why")).await;
                assert_eq!(buried, (1, Ok(())));
                assert_eq!(rig.events.bury_marker(&mut marker, at, (2, "why")).await, (0, Ok(())), "once");
            }
            _ => {}
        }
        let rig = rig.kill().await;
        rig.begin(false);
        let mut taken = rig.take_now(EACH, 1).await;
        let (_, until) = taken.receipt.split_marker();
        let letters = rig.events.dead_letters(&app(), STREAM, &place(), None, 10).await.unwrap();
        let letters: Vec<_> = letters.iter().map(|letter| (letter.cursor.at.0, letter.attempts)).collect();
        let (lost, failures, until_, of_marker) = match what {
            "nothing" => (3, 0, None, vec![]),
            "in vain" => (3, 2, Some(due), vec![]),
            "told" => (0, 0, None, vec![]),
            // An event that died has the place that the marker stands at.
            _ => (0, 0, None, vec![(3, 2)]),
        };
        assert_eq!((taken.lost, taken.failures, until), (lost, failures, until_), "{what}");
        assert_eq!(letters, [of_marker, vec![(4, 1)]].concat(), "{what}");
        drop(marker);
    }
}

/// A subscription of ten entries, nothing of it settled, and what an older gateway wrote of it; with `place` unless it is
/// another's.
async fn of_old(mut record: serde_json::Value, is_its_own: bool) -> Rig {
    let rig = Rig::quiet().await;
    rig.append_of((1..=12).map(|n| (n, n))).await;
    drop(rig.take_now(EACH, 1).await);
    rig.events.save_cursors().await.unwrap();
    let log = rig.log();
    let (store, key) = (log.store(), log.key().clone());
    let named = store.note(&key, NoteKind::Subscription, "$webhook.crm/place").await.unwrap().unwrap();
    let named: u64 = std::str::from_utf8(&named).unwrap().parse().unwrap();
    record["place"] = json!(if is_its_own { named } else { named - 1 });
    let notes = vec![("crm".to_owned(), Some(record.to_string().into()))];
    store.keep_notes(&key, NoteKind::Webhook, notes).await.unwrap();
    drop(log);
    rig.kill().await
}

async fn record_of(rig: &Rig) -> Option<String> {
    let log = rig.log();
    let note = log.store().note(log.key(), NoteKind::Webhook, "crm").await.unwrap();
    note.map(|note| String::from_utf8(note.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn what_an_older_gateway_had_delivered_does_not_come_again_and_the_rest_goes_on_as_it_was() {
    let due = clock().wall_ms().0 + 60_000;
    let held = json!([
        { "first": 2, "last": 4, "attempts": 2, "due": due },
        { "first": 7, "last": 7, "attempts": 1, "due": 0 },
        { "first": 9, "last": 9, "attempts": 0, "due": 0 },
    ]);
    let mut rig = of_old(json!({ "claimed": 10, "held": held, "disabled": null }), true).await;
    assert_eq!(record_of(&rig).await, None);
    for kills in [true, false] {
        rig.begin(true);
        let seven = rig.take_now(AS_ONE, 100).await;
        assert_eq!(seven.said(), (vec![7], 1));
        let nine = rig.take_now(AS_ONE, 100).await;
        assert_eq!(nine.said(), (vec![9], 0));
        let rest = rig.take_now(AS_ONE, 100).await;
        assert_eq!(rest.said(), (vec![11, 12], 0));
        drop((seven, nine, rest));
        if kills {
            rig = rig.kill().await;
        }
    }
    assert_eq!(rig.drain(AS_ONE, 100, 0).await, [(vec![7], 1), (vec![9, 11, 12], 0)]);
    assert_eq!(rig.drain(AS_ONE, 100, 61).await, [(vec![2, 3, 4], 2)]);
    let rig = rig.restart().await;
    assert!(rig.take_by(AS_ONE, 100, 100).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_an_older_gateway_wrote_of_another_place_says_nothing_but_that_it_is_disabled() {
    let disabled = json!({ "since": 5, "why": "gone" });
    let rig = of_old(json!({ "claimed": 10, "held": [], "disabled": disabled }), false).await;
    assert_eq!(record_of(&rig).await, Some(r#"{"disabled":{"since":5,"why":"gone"}}"#.to_owned()));
    assert_eq!(rig.drain(AS_ONE, 100, 0).await, [((1..=12).collect(), 0)]);
    let rig = rig.restart().await;
    assert!(record_of(&rig).await.is_some());
    assert!(rig.take_by(AS_ONE, 100, 0).await.is_none());
}
