//! Clients' own subscriptions: what an older gateway stored under a client's name becomes that client's, whole, and
//! nothing else does.

use super::*;
use crate::kernel::names::ClientName;
use crate::store::NoteKind;

/// A read of a subscription as a gateway asked for it that knew clients' own ones by their names alone.
fn as_of_old(subscription: &str, client: &str, limit: usize) -> ReadRequest {
    let name = SubscriptionName::parse_stored(subscription).unwrap();
    let client = ClientName::parse(client).unwrap();
    ReadRequest { place: ReadFrom::Subscription { name, from: StartAt::Earliest }, client, ..by("x", limit) }
}

fn explicit(read: ReadRequest) -> ReadRequest {
    ReadRequest { ack: Ack::Explicit { lease: Duration::from_secs(30), max_attempts: 2 }, ..read }
}

/// Names, clients, and how many entries are not settled.
fn shown(rig: &Rig) -> Vec<(String, Option<String>, u64)> {
    let each = rig.events.subscriptions().into_iter();
    let mut shown: Vec<_> = each.map(|s| (s.subscription, s.client, s.lag)).collect();
    shown.sort();
    shown
}

fn row(name: &str, client: &str, lag: u64) -> (String, Option<String>, u64) {
    (name.to_owned(), Some(client.to_owned()), lag)
}

/// `crm` has two places of its own making: one of its name, with a dead letter and an entry that was acknowledged out of
/// order, and a shared one; and `ops` has one that is called as another client may be.
async fn old_store() -> Rig {
    let rig = Rig::quiet().await;
    rig.append(0..6).await;
    let own = SubscriptionName::parse("crm").unwrap();
    for _ in 0..2 {
        let delivery = rig.read(explicit(as_of_old("crm", "crm", 1))).await.unwrap();
        let lease = Holding::Lease(delivery.leased.clone().unwrap().name);
        delivery.receipt.handed_over();
        rig.events.give_back(&app(), STREAM, &own, &lease, Duration::ZERO).await.unwrap();
    }
    // The first is given up, the second is held, the third acknowledged.
    let delivery = rig.read(explicit(as_of_old("crm", "crm", 2))).await.unwrap();
    assert_eq!(texts(&delivery), numbers(1..3));
    delivery.receipt.handed_over();
    let third = Holding::Entries(vec![rig.cursor(3)]);
    rig.events.acknowledge(&app(), STREAM, &own, &third).await.unwrap();
    assert_eq!(rig.take(as_of_old("team", "crm", 2)).await, numbers(0..2));
    assert_eq!(rig.take(as_of_old("new", "ops", 4)).await, numbers(0..4));
    rig
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_recorded_as_its_namesake_s_becomes_its_own_with_all_it_has() {
    let mut rig = old_store().await;
    for _ in 0..2 {
        rig = rig.restart().await;
        let expected = [row("$client.crm", "crm", 4), row("new", "ops", 2), row("team", "crm", 4)];
        assert_eq!(shown(&rig), expected);
        let own = SubscriptionName::from(&ClientName::parse("crm").unwrap());
        let letters = rig.events.dead_letters(&app(), STREAM, &own, None, 10).await.unwrap();
        assert_eq!(letters.iter().map(|letter| &letter.event[..]).collect::<Vec<_>>(), [b"0"]);
        assert!(rig.store.notes(&key(), NoteKind::Subscription, "crm", "", 10).await.unwrap().is_empty());
    }
    // The third is settled and does not come again.
    assert_eq!(rig.take(as_of_old("$client.crm", "crm", 9)).await, numbers(1..2));
    assert_eq!(rig.take(as_of_old("$client.crm", "crm", 9)).await, numbers(3..6));
    assert!(rig.metric(r#"events_delivered_total{app="app",stream="user_events",subscription="$client.crm"} 4"#));
    assert!(!rig.metrics.text().contains(r#"subscription="crm""#));
    // What others have called as `new` may be is not a new client's: that one begins anew.
    assert_eq!(rig.take(as_of_old("$client.new", "new", 9)).await, numbers(0..6));
    assert_eq!(rig.take(as_of_old("new", "ops", 9)).await, numbers(4..6));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_cut_short_while_it_renames_goes_on_at_the_next() {
    let rig = old_store().await;
    for name in ["a", "b", "c"] {
        rig.take(as_of_old(name, name, 3)).await;
    }
    assert_eq!(rig.tasks.finish(Duration::from_secs(30)).await, 0);
    rig.events.flush().await.unwrap();
    let store = Arc::new(rig.store.reopened(Some(rig.clock.wall_ms())));
    // One is renamed, then the store fails.
    let (from, own) = ("b", "$client.b");
    let parsed = |name: &str| SubscriptionName::parse_stored(name).unwrap();
    store.rename_subscription(&key(), &parsed(from), &parsed(own)).await.unwrap();
    store.broken.store(true, Ordering::Relaxed);
    let open = || {
        let source: Arc<dyn Orders> = Arc::<Script>::default();
        Events::with_source(store.clone(), source, Tasks::new(), clock(), Metrics::new())
    };
    let config = [config(&[])];
    assert!(open().apply(&config, &config::Upstream::default(), &[]).await.is_err());
    store.broken.store(false, Ordering::Relaxed);
    let events = open();
    events.apply(&config, &config::Upstream::default(), &[]).await.unwrap();
    let mut lags: Vec<_> = events.subscriptions().into_iter().map(|s| (s.subscription, s.lag)).collect();
    lags.sort();
    let lag = |name: &str, lag| (name.to_owned(), lag);
    let own = [lag("$client.a", 3), lag("$client.b", 3), lag("$client.c", 3), lag("$client.crm", 4)];
    assert_eq!(lags, [&own[..], &[lag("new", 2), lag("team", 4)]].concat());
}

#[tokio::test(start_paused = true)]
async fn a_place_without_a_recorded_owner_is_its_namesake_s_if_there_is_one_at_the_first_start() {
    let store = Arc::new(MemoryStore::default());
    for name in ["crm", "team"] {
        let name = SubscriptionName::parse(name).unwrap();
        store.save_cursor(&key(), &name, crate::store::Sequence(0)).await.unwrap();
    }
    // A client that comes later is not given what was shared until then.
    for clients in [&["crm"][..], &["crm", "team"]] {
        let source: Arc<dyn Orders> = Arc::<Script>::default();
        let events = Events::with_source(store.clone(), source, Tasks::new(), clock(), Metrics::new());
        let named = |name: &&str| config::Client::named(ClientName::parse(name).unwrap(), Vec::new());
        let clients: Vec<_> = clients.iter().map(named).collect();
        events.apply(&[config(&[])], &config::Upstream::default(), &clients).await.unwrap();
        let mut shown: Vec<_> = events.subscriptions().into_iter().map(|s| (s.subscription, s.client)).collect();
        shown.sort();
        assert_eq!(shown, [("$client.crm".to_owned(), Some("crm".to_owned())), ("team".to_owned(), None)]);
    }
}
