//! Where two things meet: a redelivery and a seek, a cut and a lease, a plain answer and a word, a removal and a read.

use super::*;
use crate::kernel::testing::pass;

impl Rig {
    async fn redeliver_all(&self) -> Result<u64, ReadError> {
        self.events.redeliver(&app(), STREAM, &name(), Redeliver::All).await
    }

    async fn seek_to_the_first(&self) {
        self.events.seek(&app(), STREAM, &name(), StartAt::Earliest).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_seek_brought_back_and_an_operator_gives_again_counts_anew_and_waits_for_nobody() {
    let rig = Rig::quiet().await;
    rig.append_of([(1, 1), (2, 1), (3, 1)]).await;
    let (first, _) = rig.lease(leased(1)).await.unwrap();
    assert_eq!(rig.ack(Holding::Lease(first)).await, Ok(1));
    rig.give_up(1).await;
    assert_eq!(rig.lease(leased(1)).await.unwrap().1, [(3, 1)]);
    assert_eq!(rig.dead().await, [(2, MOST)]);
    rig.seek_to_the_first().await;
    let (all, got) = rig.lease(leased(3)).await.unwrap();
    assert_eq!(got, [(1, 1), (2, 1), (3, 1)]);
    assert_eq!(rig.redeliver_all().await, Ok(1));
    let (again, got) = rig.lease(leased(3)).await.unwrap();
    assert_eq!(got, [(2, 1)], "though 1 is leased");
    assert_eq!(rig.ack(Holding::Lease(all)).await, Ok(2), "2 is not its any more");
    assert_eq!(rig.dead().await, [(2, MOST)]);
    assert_eq!(rig.ack(Holding::Lease(again)).await, Ok(1));
    assert_eq!(rig.dead().await, []);
    let rig = rig.kill().await;
    assert!(rig.lease(leased(3)).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_is_acknowledged_when_retention_has_taken_its_event_is_none_any_more() {
    for by_a_seek in [true, false] {
        let mut config = config(&[]);
        config.events.retention_bytes = 200;
        let rig = Rig::over(MemoryStore::default(), config).await;
        rig.append_of([(1, 1)]).await;
        rig.give_up(1).await;
        assert!(rig.lease(leased(1)).await.is_none());
        match by_a_seek {
            true => rig.seek_to_the_first().await,
            false => assert_eq!(rig.redeliver_all().await, Ok(1)),
        }
        let (lease, got) = rig.lease(leased(1)).await.unwrap();
        assert_eq!(got, [(1, 1)]);
        for n in 2..9 {
            rig.append_of([(n, n)]).await;
        }
        assert!(rig.range().0 > 1);
        // Another looks, and the subscription is cut.
        rig.lease(leased(1)).await.unwrap();
        assert_eq!(rig.ack(Holding::Lease(lease)).await, Ok(1));
        assert_eq!(rig.dead().await, [], "by a seek: {by_a_seek}");
        let rig = rig.kill().await;
        assert_eq!(rig.dead().await, []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_word_on_an_entry_gives_nothing_back_that_is_on_its_way_to_a_plain_reader() {
    let rig = Rig::quiet().await;
    rig.append_of([(1, 1)]).await;
    rig.lease(leased(1)).await.unwrap();
    pass(LEASE).await;
    let plain = rig.read(by("a", 1)).await.unwrap();
    assert_eq!(entries(&plain), [1]);
    assert_eq!(rig.nack(rig.entry(1), 5).await, Ok(0));
    plain.receipt.handed_over();
    assert!(rig.lease(wait(10, leased(1))).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_failed_and_is_there_all_the_same_leaves_no_place_that_the_store_does_not_know() {
    let rig = Rig::quiet().await;
    rig.append_of((1..=3).map(|n| (n, n))).await;
    let (lease, _) = rig.lease(leased(2)).await.unwrap();
    assert_eq!(rig.ack(Holding::Lease(lease)).await, Ok(2));
    rig.store.unsure.store(true, Ordering::Relaxed);
    let removed = rig.events.remove(&app(), STREAM, &name()).await;
    assert!(matches!(removed, Err(ReadError::Store(_))), "{removed:?}");
    rig.store.unsure.store(false, Ordering::Relaxed);
    // It is gone, here as there: what is acknowledged from now on stays so.
    let (lease, got) = rig.lease(leased(1)).await.unwrap();
    assert_eq!(got, [(1, 1)]);
    assert_eq!(rig.ack(Holding::Lease(lease)).await, Ok(1));
    let rig = rig.kill().await;
    assert_eq!(rig.lease(leased(10)).await.unwrap().1, [(2, 1), (3, 1)]);
    rig.store.broken.store(true, Ordering::Relaxed);
    assert!(rig.events.remove(&app(), STREAM, &name()).await.is_err());
    rig.store.broken.store(false, Ordering::Relaxed);
    assert!(rig.lease(leased(10)).await.is_none(), "as it was");
}

#[tokio::test(start_paused = true)]
async fn who_reads_while_the_subscription_is_removed_is_given_nothing_of_what_comes_after() {
    let rig = Rig::quiet().await;
    rig.append_of([(1, 1), (2, 1)]).await;
    rig.give_up(1).await;
    rig.append_of([(3, 1)]).await;
    pass(Duration::from_secs(1)).await;
    rig.store.delay.store(1000, Ordering::Relaxed);
    // The read buries the first; meanwhile the place goes.
    let app = app();
    let name = name();
    let (read, removed) = tokio::join!(rig.read(leased(10)), rig.events.remove(&app, STREAM, &name));
    assert_eq!(removed, Ok(()));
    assert_eq!(read.map(|delivery| entries(&delivery)), Ok(Vec::new()));
}
