//! Several regions over sockets: all are read, what two of them return is kept once, and an order window merges them.

use rtm_gateway::simulator::{Listen, Options, World};

use super::*;
use crate::support::waiting::eventually;

struct Regions {
    cn: Sim,
    eu: Sim,
}

impl Regions {
    async fn start() -> Self {
        let world = World::new(Clock::system(), Options::default());
        world.add(app());
        let listen = async |name| Sim::listen(&world, name, Listen::default()).await.unwrap();
        Self { cn: listen("cn").await, eu: listen("eu").await }
    }

    async fn stop(self) {
        assert_eq!(self.cn.violations(), []);
        self.cn.stop().await;
        self.eu.stop().await;
    }
}

/// Waits until the pollers have stored or dropped so many events, and each region has been read.
async fn until_kept(rig: &Rig, events: u64) {
    let kept = || rig.events.pollers().iter().map(|poller| poller.events + poller.duplicates).sum::<u64>();
    let all_have_read = || rig.events.pollers().iter().all(|poller| poller.reads > 0);
    eventually(|| kept() >= events && all_have_read()).await;
}

async fn all(rig: &Rig, subscription: &str, events: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < events {
        let (more, markers) = rig.next(subscription).await;
        assert_eq!(markers, Vec::<String>::new());
        all.extend(more);
    }
    all
}

#[tokio::test]
async fn what_two_regions_return_is_kept_once_and_equal_events_of_one_region_are_kept() {
    let (regions, folder) = (Regions::start().await, tempfile::tempdir().unwrap());
    let Regions { cn, eu } = &regions;
    let rig = Rig::start_with(config(&[cn, eu], folder.path()), folder.path()).await;
    let event =
        |n: u32| format!(r#"{{"type":"Login","ms":{},"user_id":"u{n}"}}"#, 1_700_000_000_000_u64 + u64::from(n));
    // 0..60 of cn alone, 30 of them twice; 40..100 of eu alone or too, one of them twice as in cn, in another spelling.
    let spelled =
        |n: u32| format!(r#"{{ "user_id":"u{n}", "ms": {}, "type":"Login" }}"#, 1_700_000_000_000_u64 + u64::from(n));
    for n in 0..60 {
        cn.emit_raw(APP, STREAM, &event(n));
        if n < 30 || n == 50 {
            cn.emit_raw(APP, STREAM, &event(n));
        }
    }
    until_kept(&rig, 91).await;
    for n in 40..100 {
        eu.emit_raw(APP, STREAM, &spelled(n));
        if n == 50 {
            eu.emit_raw(APP, STREAM, &spelled(n));
        }
    }
    until_kept(&rig, 91 + 61).await;
    let numbers = |event: &String| {
        serde_json::from_str::<serde_json::Value>(event).unwrap()["user_id"].as_str().unwrap()[1..]
            .parse::<u32>()
            .unwrap()
    };
    let mut kept: Vec<_> = all(&rig, "reader", 131).await.iter().map(numbers).collect();
    kept.sort_unstable();
    let mut expected: Vec<_> = (0..100).chain(0..30).chain([50]).collect();
    expected.sort_unstable();
    assert_eq!(kept, expected);
    let duplicates: Vec<_> =
        rig.events.pollers().iter().map(|poller| (poller.region.clone(), poller.duplicates)).collect();
    assert_eq!(duplicates, [("cn".to_owned(), 0), ("eu".to_owned(), 21)]);
    rig.stop().await;
    regions.stop().await;
}

#[tokio::test]
async fn an_order_window_merges_regions_by_time() {
    let (regions, folder) = (Regions::start().await, tempfile::tempdir().unwrap());
    let Regions { cn, eu } = &regions;
    let event = |ms: u64| format!(r#"{{"type":"Login","ms":{},"user_id":"u"}}"#, 1_700_000_000_000 + ms);
    for ms in (0..200).filter(|ms| ms % 3 == 0) {
        cn.emit_raw(APP, STREAM, &event(ms));
    }
    // The other region is read later, and returns some that the first returned.
    eu.on(Endpoint::UserEvents, Fault::DelayBefore(Duration::from_millis(100)));
    for ms in (0..200).filter(|ms| ms % 3 != 0 || ms % 12 == 0) {
        eu.emit_raw(APP, STREAM, &event(ms));
    }
    let mut config = config(&[cn, eu], folder.path());
    config.apps[0].events.order_window = Duration::from_secs(60);
    let rig = Rig::start_with(config.clone(), folder.path()).await;
    until_kept(&rig, 67 + 133 + 17).await;
    let place = ReadFrom::Subscription { name: SubscriptionName::parse("early").unwrap(), from: StartAt::Earliest };
    let client = ClientName::parse("early").unwrap();
    let read = ReadRequest {
        place,
        client,
        limit: 1000,
        max_bytes: usize::MAX,
        wait: Duration::ZERO,
        markers: true,
        filter: Arc::default(),
        ack: Ack::OnHandover,
    };
    let early = rig.events.read(&AppId::parse(APP).unwrap(), STREAM, read).await.unwrap();
    assert!(early.runs.is_empty(), "nobody sees what has no place yet");
    drop(early);
    // A minute is long: without a window what waits is let go, in order. (That time ends it is tested in paused time.)
    config.apps[0].events.order_window = Duration::ZERO;
    rig.events.apply(&config.apps, &config.upstream, &[]).await.unwrap();
    let expected: Vec<_> = (0..200).map(event).collect();
    assert_eq!(all(&rig, "reader", 200).await, expected);
    rig.stop().await;
    regions.stop().await;
}
