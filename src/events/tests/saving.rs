//! Rounds: how often, and how much at a time, the store is told where subscriptions stand.

use super::*;
use crate::events::subscription::LogRange;
use crate::store::Sequence;

#[tokio::test(start_paused = true)]
async fn what_was_passed_over_or_handed_over_is_not_lost_when_retention_takes_it_just_before_a_kill() {
    for passes_over in [true, false] {
        let mut config = config(&[]);
        config.events.retention_bytes = 20;
        let rig = Rig::over(MemoryStore::default(), config).await;
        rig.append(0..10).await;
        let all = ReadRequest { markers: true, ..by("a", 100) };
        let none = ReadRequest { filter: Arc::new(Filter::new(&[], &["nobody".to_owned()], &[])), ..all.clone() };
        match passes_over {
            true => assert_eq!(rig.take(none).await, numbers(0..0)),
            false => assert_eq!(rig.take(all.clone()).await, numbers(0..10)),
        }
        // So much that the first go at once.
        rig.append(10..15).await;
        assert_eq!(rig.range().0, 11);
        let rig = rig.kill().await;
        let delivery = rig.read(all).await.unwrap();
        assert_eq!((texts(&delivery), delivery.lost), (numbers(10..15), 0), "passes over: {passes_over}");
    }
}
use crate::kernel::clock::UnixMillis;
use crate::kernel::testing::pass;

const OTHER: Stream = Stream::ChannelEvents;

/// A read by a subscription whose filter nothing fits.
fn blind(name: &str) -> ReadRequest {
    ReadRequest { filter: Arc::new(Filter::new(&[], &["nobody".to_owned()], &[])), ..by(name, 1000) }
}

impl Rig {
    fn saves(&self) -> usize {
        self.store.saves.load(Ordering::Relaxed)
    }

    async fn stored(&self, name: &str) -> u64 {
        let cursors = self.store.cursors(&key()).await.unwrap();
        cursors.into_iter().find(|(stored, _)| stored.as_str() == name).unwrap().1.0
    }
}

#[tokio::test(start_paused = true)]
async fn a_round_is_one_commit_whatever_the_number_of_logs_and_subscriptions() {
    let mut config = config(&[]);
    config.events.streams.push(OTHER);
    let rig = Rig::over(MemoryStore::default(), config).await;
    for stream in [STREAM, OTHER] {
        let content = Content::Events(EventText::join([b"1".as_slice(), b"2"]).unwrap());
        let new = NewBatch { received_at: UnixMillis(0), region: RegionName::parse("cn").unwrap(), content };
        let stream = rig.events.stream(&app(), stream).unwrap();
        stream.append(&AppendRequest::new(vec![new], None)).await.unwrap();
    }
    let names: Vec<_> = (0..20).map(|n| format!("s{n}")).collect();
    let take_all = async || {
        for stream in [STREAM, OTHER] {
            for name in &names {
                let delivery = rig.events.read(&app(), stream, by(name, 1)).await.unwrap();
                delivery.receipt.handed_over();
            }
        }
    };
    take_all().await;
    pass(Duration::from_secs(1)).await;
    let before = rig.saves();
    take_all().await;
    pass(Duration::from_secs(1)).await;
    // One at once, and one for what came meanwhile.
    assert!(rig.saves() <= before + 2, "{} commits", rig.saves() - before);
    for stream in [STREAM, OTHER] {
        let cursors = rig.store.cursors(&LogKey { app: app(), stream }).await.unwrap();
        assert!(cursors.len() == names.len() && cursors.iter().all(|(_, at)| at.0 == 2));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_filter_passed_over_is_stored_in_a_longer_round() {
    let rig = Rig::quiet().await;
    rig.append(0..1).await;
    assert!(rig.take(blind("a")).await.is_empty());
    pass(Duration::from_secs(10)).await;
    let before = rig.saves();
    for n in 1..41 {
        rig.append(n..n + 1).await;
        assert!(rig.take(blind("a")).await.is_empty());
        pass(Duration::from_millis(100)).await;
    }
    assert_eq!((rig.saves(), rig.stored("a").await), (before, 1));
    pass(Duration::from_millis(1500)).await;
    assert_eq!((rig.saves(), rig.stored("a").await), (before + 1, 41));
}

#[tokio::test(start_paused = true)]
async fn what_a_filter_passed_over_is_stored_by_a_stop_in_order() {
    let rig = Rig::quiet().await;
    rig.append(0..10).await;
    assert!(rig.take(blind("a")).await.is_empty());
    let rig = rig.restart().await;
    assert_eq!(rig.stored("a").await, 10);
}

#[tokio::test(start_paused = true)]
async fn what_was_handed_over_is_stored_soon_though_it_lies_behind_what_a_filter_passed_over() {
    let rig = Rig::quiet().await;
    rig.append(0..10).await;
    rig.take(by("a", 2)).await;
    let subscription = rig.stream().registry.all().remove(0);
    let passed_over = LogRange::claim(&subscription, Sequence(1)..Sequence(11), 2, None).unwrap();
    let handed_over = LogRange::claim(&subscription, Sequence(1)..Sequence(11), 2, None).unwrap();
    handed_over.handed_over();
    pass(Duration::from_secs(1)).await;
    assert_eq!(rig.stored("a").await, 2);
    passed_over.pass_over();
    pass(Duration::from_millis(300)).await;
    assert_eq!(rig.stored("a").await, 6);
}
