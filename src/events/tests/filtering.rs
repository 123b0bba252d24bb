//! Filters: what is judged, how often, and who waits for whom. Work is counted; time plays no part.

use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::*;
use crate::kernel::names::ClientName;
use crate::kernel::task::Kind;

const BATCH: u64 = 300;

fn event(n: u64) -> String {
    format!(r#"{{"type":"Login","user_id":"u-{n}","ms":{n}}}"#)
}

impl Rig {
    async fn append_events(&self, range: std::ops::Range<u64>) {
        let events: Vec<_> = range.map(event).collect();
        self.append_content(Content::Events(EventText::join(events.iter().map(String::as_bytes)).unwrap())).await;
    }

    /// Events parsed, pairs judged, turns given.
    fn work(&self) -> (u64, u64, u64) {
        self.log().judge().work()
    }

    /// A read of all that there is, by a client and a filter for users.
    fn seeking(&self, client: &str, users: &[String]) -> ReadRequest {
        ReadRequest {
            place: ReadFrom::After(self.cursor(0)),
            client: ClientName::parse(client).unwrap(),
            filter: Arc::new(Filter::new(&[], users, &[])),
            ..by("x", 1000)
        }
    }
}

/// Patterns that no event fits, and each takes apart.
fn costly(which: u64) -> Vec<String> {
    (0..60).map(|n| format!("*{which}*nobody*{n}*")).collect()
}

#[tokio::test(start_paused = true)]
async fn an_event_is_parsed_once_and_held_against_a_filter_once_whoever_asks() {
    let rig = Rig::quiet().await;
    for n in 0..4 {
        rig.append_events(n * BATCH..(n + 1) * BATCH).await;
    }
    let all = 4 * BATCH;
    // Forty long polls of four clients, with three filters among them.
    let polls = (0..40).map(|n| {
        let client = format!("client-{}", n % 4);
        let read = wait(60, rig.seeking(&client, &costly(n % 3)));
        let events = rig.events.clone();
        async move { events.read(&app(), STREAM, read).await.unwrap() }.boxed()
    });
    let mut polls = join_all(polls);
    for _ in 0..1000 {
        assert!((&mut polls).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    assert_eq!((rig.work().0, rig.work().1), (all, 3 * all));
    // What comes is looked at; what was passed over is not looked at again.
    rig.append_events(all..all + 10).await;
    for _ in 0..1000 {
        assert!((&mut polls).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    assert_eq!((rig.work().0, rig.work().1), (all + 10, 3 * (all + 10)));
    // Nor when they come again from the beginning, by a subscription, or under a lease.
    let explicit = Ack::Explicit { lease: Duration::from_secs(30), max_attempts: 3 };
    let stored = ReadRequest { filter: Arc::new(Filter::new(&[], &costly(1), &[])), ..by("s", 1000) };
    for read in [rig.seeking("new", &costly(0)), stored.clone(), ReadRequest { ack: explicit, ..by("t", 10) }] {
        let read = ReadRequest { filter: stored.filter.clone(), ..read };
        assert_eq!(rig.take(read).await, numbers(0..0));
    }
    assert_eq!((rig.work().0, rig.work().1), (all + 10, 3 * (all + 10)));
    let wanted = rig.seeking("new", &["u-7".to_owned(), "u-119*".to_owned()]);
    assert_eq!(rig.take(wanted).await.join(","), [event(7), event(119)].join(","), "of the first thousand");
}

#[tokio::test(start_paused = true)]
async fn what_one_client_s_filters_cost_keeps_no_other_waiting() {
    let rig = Rig::quiet().await;
    for n in 0..20 {
        rig.append_events(n * 1000..(n + 1) * 1000).await;
    }
    let reads: Vec<_> = (0..30).map(|n| rig.seeking("greedy", &costly(n))).collect();
    let events = rig.events.clone();
    rig.tasks.spawn(Kind::Poller, async move {
        let app = app();
        join_all(reads.into_iter().map(|read| events.read(&app, STREAM, read))).await;
    });
    while rig.work().2 < 5 {
        tokio::task::yield_now().await;
    }
    // Who has no filter waits for no turn.
    let (_, _, before) = rig.work();
    let plain = ReadRequest { place: ReadFrom::After(rig.cursor(0)), ..by("x", 10) };
    assert_eq!(rig.take(plain).await.join(","), (0..10).map(event).collect::<Vec<_>>().join(","));
    assert!(rig.work().2 - before <= 1, "{} turns", rig.work().2 - before);
    // Who has one takes turns with the other, however many reads that has.
    let (_, _, before) = rig.work();
    let found = rig.take(rig.seeking("modest", &["u-19999".to_owned()])).await;
    assert_eq!(found, event(19_999).split(',').collect::<Vec<_>>());
    let (_, judged, turns) = rig.work();
    // Alone it would need 70 or so.
    assert!(turns - before <= 200, "{} turns for it", turns - before);
    assert!(judged < 20_000 * 20, "most of the other's is still to do: {judged}");
}
