//! Plain readers that come again and say how far they got: what is settled by that, and what comes again.

use std::ops::RangeInclusive;

use super::*;
use crate::events::StreamNumber;
use crate::kernel::testing::pass;

const LEASE: Duration = Duration::from_secs(30);

fn name() -> SubscriptionName {
    SubscriptionName::parse("a").unwrap()
}

fn leased(limit: usize) -> ReadRequest {
    ReadRequest { ack: Ack::Explicit { lease: LEASE, max_attempts: 2 }, markers: true, ..by("a", limit) }
}

fn entries(delivery: &Delivery) -> Vec<u64> {
    let numbers = |run: &Run| run.entries.clone().map(|entry| run.batch.first.0 + entry as u64).collect::<Vec<_>>();
    delivery.runs.iter().flat_map(numbers).collect()
}

fn numbered(range: RangeInclusive<u64>) -> Vec<u64> {
    range.collect()
}

impl Rig {
    async fn read_in(&self, stream: u64, limit: usize) -> Delivery {
        let number = StreamNumber::new(stream);
        let read = ReadRequest { markers: true, ..by("a", limit) };
        self.events.read_in_stream(&app(), STREAM, read, number).await.unwrap()
    }

    /// Reads in a stream, and hands over.
    async fn streamed(&self, stream: u64, limit: usize) -> Vec<u64> {
        let delivery = self.read_in(stream, limit).await;
        let entries = entries(&delivery);
        delivery.receipt.handed_over();
        entries
    }

    /// Reads plainly, and hands over.
    async fn polled(&self, limit: usize) -> Vec<u64> {
        let delivery = self.read(by("a", limit)).await.unwrap();
        let entries = entries(&delivery);
        delivery.receipt.handed_over();
        entries
    }

    async fn leased(&self, limit: usize) -> Vec<u64> {
        let delivery = self.read(leased(limit)).await.unwrap();
        let entries = entries(&delivery);
        delivery.receipt.handed_over();
        entries
    }

    /// All that a stream is given, until nothing comes.
    async fn all_in(&self, stream: u64) -> Vec<u64> {
        let mut all = Vec::new();
        loop {
            let got = self.streamed(stream, 7).await;
            if got.is_empty() {
                return all;
            }
            all.extend(got);
        }
    }

    fn cursors(&self, range: RangeInclusive<u64>) -> Holding {
        Holding::Entries(range.map(|at| self.cursor(at)).collect())
    }

    async fn acked(&self, range: RangeInclusive<u64>) -> Result<u64, AckError> {
        self.events.acknowledge(&app(), STREAM, &name(), &self.cursors(range)).await
    }

    fn resume(&self, last: u64) -> Result<(), ReadError> {
        self.events.resume((&app(), STREAM), &name(), (self.cursor(last), true), &[])
    }

    async fn saved(&self) {
        pass(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_handed_over_plainly_behind_what_is_under_way_does_not_come_again_after_a_restart() {
    for clean in [true, false] {
        let rig = Rig::quiet().await;
        rig.append(0..3000).await;
        let leaver = rig.read(by("a", 3)).await.unwrap();
        assert_eq!(entries(&leaver), numbered(1..=3));
        assert_eq!(rig.polled(7).await, numbered(4..=10));
        assert_eq!(rig.streamed(1, 990).await, numbered(11..=1000));
        assert_eq!(rig.streamed(1, 1000).await, numbered(1001..=2000));
        let stalled = rig.read_in(2, 500).await;
        assert_eq!(rig.polled(500).await, numbered(2501..=3000));
        if !clean {
            rig.saved().await;
        }
        let rig = if clean { rig.restart().await } else { rig.kill().await };
        drop((leaver, stalled));
        let missing: Vec<_> = (1..=3).chain(2001..=2500).collect();
        assert_eq!(rig.all_in(3).await, missing, "clean: {clean}");
        rig.resume(1995).unwrap();
        assert_eq!(rig.all_in(4).await, numbered(1996..=3000), "a word gives it again all the same");
        let rig = rig.restart().await;
        assert!(rig.all_in(5).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_lies_behind_what_is_under_way_and_was_given_again_is_not_settled_by_its_first_hand_over() {
    let rig = Rig::quiet().await;
    rig.append(0..20).await;
    let leaver = rig.read(by("a", 3)).await.unwrap();
    assert_eq!(rig.streamed(1, 17).await, numbered(4..=20));
    rig.saved().await;
    rig.resume(10).unwrap();
    rig.saved().await;
    let rig = rig.kill().await;
    drop(leaver);
    let wanted: Vec<_> = (1..=3).chain(11..=20).collect();
    assert_eq!(rig.all_in(2).await, wanted);
}

#[tokio::test(start_paused = true)]
async fn what_another_leased_or_acknowledged_does_not_come_again_by_a_plain_readers_word() {
    for clean in [true, false] {
        let rig = Rig::quiet().await;
        rig.append(0..50).await;
        assert_eq!(rig.streamed(1, 10).await, numbered(1..=10));
        assert_eq!(rig.leased(40).await, numbered(11..=50));
        assert_eq!(rig.acked(11..=30).await, Ok(20));
        rig.resume(5).unwrap();
        assert_eq!(rig.all_in(2).await, numbered(6..=10), "31 to 50 are leased");
        assert_eq!(rig.acked(31..=40).await, Ok(10));
        assert_eq!(rig.acked(6..=7).await, Ok(0), "handed over plainly, and acknowledged as well");
        rig.resume(5).unwrap();
        let open = |from: &[_]| from.iter().cloned().flat_map(numbered).collect::<Vec<_>>();
        assert_eq!(rig.all_in(3).await, open(&[8..=10]));
        rig.saved().await;
        let rig = if clean { rig.restart().await } else { rig.kill().await };
        rig.resume(5).unwrap();
        assert_eq!(rig.all_in(4).await, open(&[8..=10, 41..=50]));
        rig.saved().await;
        let rig = rig.kill().await;
        rig.resume(45).unwrap();
        assert_eq!(rig.all_in(5).await, open(&[46..=50]), "handed over plainly by now");
        rig.resume(1).unwrap();
        assert_eq!(rig.all_in(5).await, open(&[2..=5, 8..=10, 41..=50]));
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_again_by_a_word_does_so_through_a_kill_and_what_lies_between_does_not() {
    let rig = Rig::quiet().await;
    rig.append(0..3000).await;
    assert_eq!(rig.polled(500).await, numbered(1..=500));
    while !rig.leased(500).await.is_empty() {}
    assert_eq!(rig.acked(501..=3000).await, Ok(2500));
    rig.saved().await;
    assert_eq!(rig.store.cursors(&key()).await.unwrap()[0].1.0, 3000);
    rig.resume(490).unwrap();
    rig.saved().await;
    assert_eq!(rig.store.cursors(&key()).await.unwrap()[0].1.0, 490);
    let rig = rig.kill().await;
    assert_eq!(rig.all_in(1).await, numbered(491..=500), "without a word");
    rig.saved().await;
    assert_eq!(rig.store.cursors(&key()).await.unwrap()[0].1.0, 3000);
}

#[tokio::test(start_paused = true)]
async fn a_letter_and_what_an_operator_gave_again_do_not_come_again_by_a_word() {
    let rig = Rig::quiet().await;
    rig.append(0..20).await;
    assert_eq!(rig.polled(5).await, numbered(1..=5));
    assert_eq!(rig.leased(15).await, numbered(6..=20));
    rig.events.give_back(&app(), STREAM, &name(), &rig.cursors(6..=8), Duration::ZERO).await.unwrap();
    assert_eq!(rig.acked(9..=20).await, Ok(12));
    assert_eq!(rig.leased(15).await, numbered(6..=8));
    rig.events.give_back(&app(), STREAM, &name(), &rig.cursors(6..=8), Duration::ZERO).await.unwrap();
    assert!(rig.leased(1).await.is_empty(), "buried");
    rig.resume(1).unwrap();
    assert_eq!(rig.all_in(1).await, numbered(2..=5));
    let these = Redeliver::These(vec![rig.cursor(7)]);
    rig.events.redeliver(&app(), STREAM, &name(), these).await.unwrap();
    rig.resume(1).unwrap();
    assert_eq!(rig.all_in(2).await, [7].into_iter().chain(2..=5).collect::<Vec<_>>(), "once each");
    rig.saved().await;
    let rig = rig.kill().await;
    rig.resume(3).unwrap();
    assert_eq!(rig.all_in(3).await, [4, 5, 7], "handed over plainly at last");
}

#[tokio::test(start_paused = true)]
async fn a_seek_is_not_undone_by_a_word_from_before_it() {
    let rig = Rig::quiet().await;
    rig.append(0..100).await;
    assert_eq!(rig.streamed(1, 50).await, numbered(1..=50));
    rig.events.seek(&app(), STREAM, &name(), StartAt::Latest).await.unwrap();
    rig.resume(40).unwrap();
    assert!(rig.all_in(1).await.is_empty());
    rig.events.seek(&app(), STREAM, &name(), StartAt::Earliest).await.unwrap();
    assert_eq!(rig.streamed(1, 10).await, numbered(1..=10));
    let rig = rig.kill().await;
    rig.resume(40).unwrap();
    assert_eq!(rig.streamed(1, 100).await.last(), Some(&100));
    assert!(rig.polled(100).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_connection_was_given_after_a_seek_comes_again_though_it_lies_before_the_readers_place() {
    let rig = Rig::quiet().await;
    rig.append(0..30).await;
    assert_eq!(rig.streamed(1, 10).await, numbered(1..=10));
    rig.events.seek(&app(), STREAM, &name(), StartAt::Earliest).await.unwrap();
    assert_eq!(rig.streamed(1, 5).await, numbered(1..=5));
    let place = (rig.cursor(10), true);
    rig.events.resume((&app(), STREAM), &name(), place, std::slice::from_ref(&(1..6))).unwrap();
    assert_eq!(rig.all_in(2).await, numbered(1..=30));
    // What was settled otherwise meanwhile does not.
    assert_eq!(rig.acked(2..=4).await, Ok(0));
    rig.events.resume((&app(), STREAM), &name(), (rig.cursor(30), true), &[1..6, 3..8]).unwrap();
    assert_eq!(rig.all_in(3).await, [1, 5, 6, 7]);
}

#[tokio::test(start_paused = true)]
async fn who_comes_again_from_before_what_is_kept_gets_the_rest_and_is_told_of_what_is_gone() {
    let mut config = config(&[]);
    config.events.retention = Duration::from_secs(1000);
    let rig = Rig::over(MemoryStore::default(), config).await;
    rig.append(0..10).await;
    assert_eq!(rig.streamed(1, 10).await, numbered(1..=10));
    pass(Duration::from_secs(600)).await;
    rig.append(10..20).await;
    assert_eq!(rig.streamed(1, 10).await, numbered(11..=20));
    pass(Duration::from_secs(600)).await;
    assert_eq!(rig.range(), (11, 21));
    rig.resume(4).unwrap();
    let delivery = rig.read_in(2, 100).await;
    assert_eq!((delivery.lost, &entries(&delivery)[1..]), (6, &numbered(11..=20)[..]));
    delivery.receipt.handed_over();
    // It was told, but names a place from before that: its program has not had it.
    rig.resume(4).unwrap();
    let delivery = rig.read_in(3, 100).await;
    assert_eq!((delivery.lost, &entries(&delivery)[1..]), (6, &numbered(11..=20)[..]));
    delivery.receipt.handed_over();
    rig.resume(10).unwrap();
    let delivery = rig.read_in(4, 100).await;
    assert_eq!((delivery.lost, entries(&delivery)), (0, numbered(11..=20)), "told once");
}

fn short_lived() -> config::App {
    let mut config = config(&[]);
    config.events.retention = Duration::from_secs(1000);
    config
}

#[tokio::test(start_paused = true)]
async fn what_a_cut_stream_had_is_not_lost_to_its_reader_when_retention_took_it_before_it_came_again() {
    let rig = Rig::over(MemoryStore::default(), short_lived()).await;
    rig.append(0..20).await;
    drop(rig.read_in(1, 10).await);
    pass(Duration::from_secs(1200)).await;
    rig.append(20..22).await;
    rig.resume(4).unwrap();
    let broken = rig.read_in(2, 1).await;
    assert_eq!((broken.lost, &entries(&broken)[1..]), (16, &[21][..]));
    drop(broken);
    // It did not arrive.
    rig.resume(4).unwrap();
    let broken = rig.read_in(3, 1).await;
    assert_eq!((broken.lost, &entries(&broken)[1..]), (16, &[21][..]));
    drop(broken);
    // It did, though the gateway has not seen that.
    rig.resume(21).unwrap();
    let delivery = rig.read_in(4, 10).await;
    assert_eq!((delivery.lost, entries(&delivery)), (0, vec![22]));
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_was_told_is_told_again_to_who_names_a_place_from_before_it() {
    for ends in ["not", "in order", "by a kill"] {
        let mut rig = Rig::over(MemoryStore::default(), short_lived()).await;
        rig.append(0..20).await;
        assert_eq!(rig.streamed(1, 5).await, numbered(1..=5));
        pass(Duration::from_secs(1200)).await;
        rig.append(20..22).await;
        let told = rig.read_in(2, 1).await;
        assert_eq!((told.lost, &entries(&told)[1..]), (15, &[21][..]));
        assert_eq!(told.lost_from, Some(crate::store::Sequence(6)));
        // It lies in the socket of a reader that leaves.
        told.receipt.handed_over();
        rig.saved().await;
        rig = match ends {
            "in order" => rig.restart().await,
            "by a kill" => rig.kill().await,
            _ => rig,
        };
        rig.resume(5).unwrap();
        let again = rig.read_in(3, 1).await;
        assert_eq!((again.lost, &entries(&again)[1..]), (15, &[21][..]), "{ends}");
        again.receipt.handed_over();
        // More is gone meanwhile.
        pass(Duration::from_secs(1200)).await;
        rig.append(22..24).await;
        rig.resume(5).unwrap();
        let again = rig.read_in(4, 1).await;
        assert_eq!((again.lost, &entries(&again)[1..]), (17, &[23][..]), "{ends}");
        again.receipt.handed_over();
        rig.resume(23).unwrap();
        let rest = rig.read_in(5, 10).await;
        assert_eq!((rest.lost, entries(&rest)), (0, vec![24]), "{ends}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_finds_nothing_is_told_from_where_on_it_is_to_be_told_of_what_is_lost() {
    let rig = Rig::over(MemoryStore::default(), short_lived()).await;
    rig.append(0..20).await;
    assert_eq!(rig.streamed(1, 5).await, numbered(1..=5));
    assert_eq!(rig.read_in(1, 5).await.lost_from, None);
    pass(Duration::from_secs(1200)).await;
    let nothing = rig.read_in(2, 5).await;
    assert_eq!((entries(&nothing), nothing.next.at.0), (vec![], 20));
    assert_eq!((nothing.lost, nothing.lost_from), (0, Some(crate::store::Sequence(6))));
}

#[tokio::test(start_paused = true)]
async fn who_comes_again_to_a_subscription_that_nobody_read_is_told_how_much_it_had_not_read() {
    let cases = ["before", "after"].into_iter().flat_map(|takes| [(takes, false), (takes, true)]);
    for (takes, stops, acknowledges) in cases.flat_map(|(takes, stops)| [(takes, stops, false), (takes, stops, true)]) {
        let mut config = short_lived();
        config.events.subscription_ttl = Duration::from_secs(if takes == "before" { 1500 } else { 500 });
        let mut rig = Rig::over(MemoryStore::default(), config).await;
        rig.append(0..20).await;
        assert_eq!(rig.streamed(1, 5).await, numbered(1..=5));
        if acknowledges {
            assert_eq!(rig.leased(6).await, numbered(6..=11));
            assert_eq!(rig.acked(8..=9).await, Ok(2));
        }
        // Retention takes what it had not read before it is removed, or after that.
        pass(Duration::from_secs(600)).await;
        assert_eq!(rig.events.subscriptions().len(), usize::from(takes == "before"));
        pass(Duration::from_secs(1400)).await;
        assert!(rig.events.subscriptions().is_empty());
        rig.append(20..22).await;
        if stops {
            rig = rig.restart().await;
        }
        if acknowledges {
            let told = rig.read_in(2, 1).await;
            assert_eq!((told.lost, &entries(&told)[1..]), (13, &[21][..]), "{takes} {stops}");
            continue;
        }
        // However often it comes with an old place before it has heard of that, and after it has.
        for (stream, arrives) in [(2, false), (3, false), (4, true), (5, true)] {
            assert!(matches!(rig.resume(5), Ok(()) | Err(ReadError::NoSuchSubscription)));
            let told = rig.read_in(stream, 1).await;
            assert_eq!((told.lost, &entries(&told)[1..]), (15, &[21][..]), "{takes} {stops} {stream}");
            if arrives {
                told.receipt.handed_over();
            }
        }
        rig.resume(21).unwrap();
        let rest = rig.read_in(6, 10).await;
        assert_eq!((rest.lost, entries(&rest)), (0, vec![22]));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_had_before_a_kill_is_not_lost_to_its_reader_when_retention_took_it_since() {
    for is_stored in [false, true] {
        let rig = Rig::over(MemoryStore::default(), short_lived()).await;
        rig.append(0..20).await;
        assert_eq!(rig.streamed(1, 5).await, numbered(1..=5));
        rig.saved().await;
        assert_eq!(rig.streamed(1, 5).await, numbered(6..=10));
        let mut rig = rig.kill().await;
        pass(Duration::from_secs(1200)).await;
        rig.append(20..21).await;
        if is_stored {
            rig = rig.restart().await;
        }
        rig.resume(10).unwrap();
        let delivery = rig.read_in(2, 100).await;
        assert_eq!((delivery.lost, &entries(&delivery)[1..]), (10, &[21][..]), "{is_stored}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lone_reader_gets_each_event_once_across_kills() {
    let rig = Rig::quiet().await;
    rig.append(0..4000).await;
    let (mut rig, mut got) = (rig, Vec::new());
    for round in 0..10 {
        if let Some(&last) = got.last() {
            rig.resume(last).unwrap();
        }
        for _ in 0..3 {
            got.extend(rig.streamed(round + 1, 100).await);
        }
        // What it has of the last.
        let broken = rig.read_in(round + 1, 100).await;
        got.extend(&entries(&broken)[..30]);
        if round % 3 == 0 {
            broken.receipt.handed_over();
        }
        if round % 2 == 0 {
            pass(Duration::from_millis(30)).await;
        }
        rig = rig.kill().await;
    }
    let all = got.len() as u64;
    assert_eq!(got, numbered(1..=all), "all of {all}");
}

#[tokio::test(start_paused = true)]
async fn a_readers_word_after_a_kill_settles_nothing_that_another_had() {
    // What the other does, and whether that is stored before the first stream goes on.
    for other in ["stream", "poll", "lease"] {
        let rig = Rig::quiet().await;
        rig.append(0..100).await;
        assert_eq!(rig.streamed(1, 10).await, numbered(1..=10));
        rig.saved().await;
        let others = match other {
            "stream" => rig.read_in(2, 10).await,
            "poll" => rig.read(by("a", 10)).await.unwrap(),
            _ => rig.read(leased(10)).await.unwrap(),
        };
        assert_eq!(entries(&others), numbered(11..=20), "{other}");
        let first = rig.streamed(1, 10).await;
        assert_eq!(first, numbered(21..=30), "{other}");
        let rig = rig.kill().await;
        rig.resume(30).unwrap();
        let again = rig.all_in(3).await;
        assert!((11..=20).chain(31..=100).all(|at| again.contains(&at)), "{other} {again:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_in_a_subscription_that_is_no_more_says_nothing_of_the_next_of_its_name() {
    let rig = Rig::quiet().await;
    rig.append(0..50).await;
    assert_eq!(rig.streamed(1, 50).await, numbered(1..=50));
    rig.events.remove(&app(), STREAM, &name()).await.unwrap();
    let rig = rig.restart().await;
    assert_eq!(rig.streamed(1, 10).await, numbered(1..=10));
    let rig = rig.kill().await;
    rig.resume(50).unwrap();
    assert_eq!(rig.streamed(2, 100).await.last(), Some(&50));
}

#[tokio::test(start_paused = true)]
async fn reading_makes_no_more_writes_than_its_places_need() {
    let writes = |rig: &Rig| rig.store.saves.load(Ordering::Relaxed);
    for how in ["stream", "polls", "leases"] {
        let rig = Rig::quiet().await;
        rig.append(0..1000).await;
        let before = writes(&rig);
        for n in 0..100 {
            match how {
                "stream" => drop(rig.streamed(1, 1).await),
                "polls" => drop(rig.polled(1).await),
                _ => drop(rig.leased(1).await),
            }
            if n % 10 == 9 {
                rig.saved().await;
            }
        }
        assert!(writes(&rig) - before <= 12, "{how}: {}", writes(&rig) - before);
    }
    // Two streams at once: no write for each turn.
    let rig = Rig::quiet().await;
    rig.append(0..1000).await;
    let before = writes(&rig);
    for _ in 0..20 {
        let (one, other) = (rig.read_in(1, 1).await, rig.read_in(2, 1).await);
        other.receipt.handed_over();
        one.receipt.handed_over();
        rig.saved().await;
    }
    assert!(writes(&rig) - before <= 24, "{}", writes(&rig) - before);
}
