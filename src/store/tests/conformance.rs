//! What every engine must do: one suite, run by each engine's tests through [`conformance!`].
//!
//! A [`Home`] is a place where a store can be opened, left and opened again. The checks know nothing else of an engine.

use std::sync::Arc;

use super::model::{self, events, log, region};
use crate::store::*;

/// A place where a store lives.
pub(in crate::store) trait Home {
    /// Opens the store there.
    async fn open(&self) -> Arc<dyn Store>;
    /// Leaves it without closing, as a crash does, and returns when it can be opened again.
    async fn leave(&self, store: Arc<dyn Store>);
}

/// Makes a test of each check, for homes that an expression makes.
macro_rules! conformance {
    ($home:expr) => {
        $crate::store::tests::conformance::conformance!($home;
            numbers_rise_by_one_and_batches_come_back_whole
            a_read_may_begin_inside_a_batch_and_stops_once_enough_is_covered
            logs_do_not_see_each_other
            numbers_do_not_go_back_when_everything_was_trimmed
            trimming_by_age_stops_at_the_first_batch_that_is_young_enough
            trimming_by_size_keeps_the_newest
            time_finds_the_first_entry_received_since_even_when_the_clock_went_back
            cursors_and_quarantine_outlive_a_crash
            notes_are_told_in_order_of_their_names_and_outlive_a_crash
            batches_notes_and_responses_are_kept_in_one_step
            a_removed_subscription_is_gone_with_its_notes_and_no_others
            a_subscription_is_renamed_with_all_that_is_its_own_and_nothing_of_others
            a_clean_stop_is_told_once
            facts_outlive_a_crash_and_are_kept_together
            a_closed_store_says_so
            appends_at_once_to_many_logs_are_all_kept_in_order
        );

        #[test]
        fn it_agrees_with_a_model() {
            properties!(proptest::test_runner::Config::with_cases(24), |(ops in $crate::store::tests::model::ops())| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on($crate::store::tests::conformance::it_agrees_with_a_model(&$home, ops));
            });
        }
    };
    ($home:expr; $($check:ident)+) => {$(
        #[tokio::test]
        async fn $check() {
            $crate::store::tests::conformance::$check(&$home).await;
        }
    )+};
}
pub(in crate::store) use conformance;

pub(in crate::store) async fn numbers_rise_by_one_and_batches_come_back_whole(home: &impl Home) {
    let store = home.open().await;
    let loss = Content::PossibleLoss("the vendor did not answer".into());
    let mut stored = Vec::new();
    for (received, content) in [(5, events(0, 3)), (6, loss), (7, events(3, 1000))] {
        let new = NewBatch { received_at: UnixMillis(received), region: region(), content };
        stored.push(store.append(&log(0), new).await.unwrap());
    }
    assert_eq!(stored.iter().map(|b| b.first.0).collect::<Vec<_>>(), [1, 4, 5]);
    let state = store.log_state(&log(0)).await.unwrap();
    assert_eq!((state.earliest, state.next), (Sequence(1), Sequence(1005)));
    assert!(state.bytes > 1000);
    home.leave(store).await;
    let store = home.open().await;
    assert_eq!(store.read(&log(0), Sequence(0), 5000).await.unwrap(), stored);
    assert_eq!(store.log_state(&log(0)).await.unwrap(), state);
}

pub(in crate::store) async fn a_read_may_begin_inside_a_batch_and_stops_once_enough_is_covered(home: &impl Home) {
    let store = home.open().await;
    for k in 0..5 {
        append(&*store, 0, k, 10).await;
    }
    for (after, entries, firsts) in [
        (0, 1, &[1][..]),
        (0, 10, &[1]),
        (0, 11, &[1, 11]),
        (9, 1, &[1]),
        (9, 2, &[1, 11]),
        (10, 10, &[11]),
        (35, 100, &[31, 41]),
        (49, 1, &[41]),
        (50, 1, &[]),
        (u64::MAX, 1, &[]),
        (0, 0, &[]),
    ] {
        let found = store.read(&log(0), Sequence(after), entries).await.unwrap();
        assert_eq!(found.iter().map(|b| b.first.0).collect::<Vec<_>>(), firsts, "{after} {entries}");
    }
}

pub(in crate::store) async fn logs_do_not_see_each_other(home: &impl Home) {
    let store = home.open().await;
    append(&*store, 0, 1, 2).await;
    append(&*store, 2, 1, 3).await;
    store.save_cursor(&log(0), &model::subscription(0), Sequence(2)).await.unwrap();
    assert_eq!(store.read(&log(1), Sequence(0), 10).await.unwrap(), []);
    assert_eq!(store.cursors(&log(2)).await.unwrap(), []);
    assert_eq!(store.log_state(&log(1)).await.unwrap().next, Sequence(1));
    assert_eq!(store.log_state(&log(2)).await.unwrap().next, Sequence(4));
    store.trim(&log(2), UnixMillis(u64::MAX), 0).await.unwrap();
    assert_eq!(store.read(&log(0), Sequence(0), 10).await.unwrap().len(), 1);
}

pub(in crate::store) async fn numbers_do_not_go_back_when_everything_was_trimmed(home: &impl Home) {
    let store = home.open().await;
    append(&*store, 0, 1, 7).await;
    let state = store.trim(&log(0), UnixMillis(u64::MAX), u64::MAX).await.unwrap();
    assert_eq!(state, LogState { earliest: Sequence(8), next: Sequence(8), bytes: 0 });
    home.leave(store).await;
    let store = home.open().await;
    assert_eq!(store.log_state(&log(0)).await.unwrap(), state);
    assert_eq!(store.first_since(&log(0), UnixMillis(0)).await.unwrap(), Sequence(8));
    assert_eq!(append(&*store, 0, 1, 1).await.first, Sequence(8));
}

pub(in crate::store) async fn trimming_by_age_stops_at_the_first_batch_that_is_young_enough(home: &impl Home) {
    let store = home.open().await;
    for received in [1, 2, 5, 3, 6] {
        append(&*store, 0, received, 10).await;
    }
    let state = store.trim(&log(0), UnixMillis(5), u64::MAX).await.unwrap();
    assert_eq!((state.earliest, state.next), (Sequence(21), Sequence(51)));
    let found = store.read(&log(0), Sequence(0), 100).await.unwrap();
    assert_eq!(found.iter().map(|b| b.first.0).collect::<Vec<_>>(), [21, 31, 41]);
}

pub(in crate::store) async fn trimming_by_size_keeps_the_newest(home: &impl Home) {
    let store = home.open().await;
    futures_util::future::join_all((0..700).map(|received| append(&*store, 0, received, 1))).await;
    let before = store.log_state(&log(0)).await.unwrap();
    let state = store.trim(&log(0), UnixMillis(0), before.bytes / 10).await.unwrap();
    assert!(state.bytes <= before.bytes / 10);
    assert_eq!(state.next, before.next);
    let kept = state.next.0 - state.earliest.0;
    assert!((60..=80).contains(&kept), "{kept}");
    let found = store.read(&log(0), Sequence(0), 1000).await.unwrap();
    assert_eq!((found[0].first, found.len() as u64), (state.earliest, kept));
    let state = store.trim(&log(0), UnixMillis(0), 0).await.unwrap();
    assert_eq!((state.earliest, state.bytes), (before.next, 0));
}

pub(in crate::store) async fn time_finds_the_first_entry_received_since_even_when_the_clock_went_back(
    home: &impl Home,
) {
    let store = home.open().await;
    for received in [10, 20, 15, 30, 30, 25] {
        append(&*store, 0, received, 3).await;
    }
    for (time, first) in [(0, 1), (10, 1), (11, 4), (20, 4), (21, 10), (30, 10), (31, 19)] {
        assert_eq!(store.first_since(&log(0), UnixMillis(time)).await.unwrap(), Sequence(first), "{time}");
    }
    assert_eq!(store.first_since(&log(1), UnixMillis(0)).await.unwrap(), Sequence(1));
}

pub(in crate::store) async fn cursors_and_quarantine_outlive_a_crash(home: &impl Home) {
    let store = home.open().await;
    for at in [3, 9] {
        store.save_cursor(&log(0), &model::subscription(0), Sequence(at)).await.unwrap();
    }
    store.save_cursor(&log(0), &model::subscription(1), Sequence(1)).await.unwrap();
    for k in 0..3 {
        model::quarantine(&*store, &log(0), model::unreadable(k)).await.unwrap();
    }
    home.leave(store).await;
    let store = home.open().await;
    let mut cursors = store.cursors(&log(0)).await.unwrap();
    cursors.sort();
    assert_eq!(cursors, [(model::subscription(0), Sequence(9)), (model::subscription(1), Sequence(1))]);
    let found = model::quarantined(&*store, &log(0), 2).await.unwrap();
    assert_eq!(found, [model::unreadable(2), model::unreadable(1)]);
}

pub(in crate::store) async fn notes_are_told_in_order_of_their_names_and_outlive_a_crash(home: &impl Home) {
    let store = home.open().await;
    let note = |name: &str, text: &'static str| (name.to_owned(), Some(Bytes::from(text)));
    let (letters, webhooks) = (NoteKind::DeadLetter, NoteKind::Webhook);
    assert_eq!(store.notes(&log(0), letters, "", "", 10).await.unwrap(), []);
    let kept = ["a/2", "b/1", "a/1", "a/3", "a0"].map(|name| note(name, "first"));
    store.keep_notes(&log(0), letters, kept.to_vec()).await.unwrap();
    store.keep_notes(&log(0), letters, vec![note("a/1", "second"), ("a/2".into(), None)]).await.unwrap();
    store.keep_notes(&log(0), webhooks, vec![note("a/9", "")]).await.unwrap();
    store.keep_notes(&log(1), letters, vec![note("a/8", "other")]).await.unwrap();
    home.leave(store).await;
    let store = home.open().await;
    let (first, second) = (Bytes::from("first"), Bytes::from("second"));
    for (prefix, after, most, names) in [
        ("a/", "", 10, &[("a/1", &second), ("a/3", &first)][..]),
        ("a/", "", 1, &[("a/1", &second)]),
        ("a/", "a/1", 10, &[("a/3", &first)]),
        ("", "a/1", 10, &[("a/3", &first), ("a0", &first), ("b/1", &first)]),
        ("a/", "b", 10, &[]),
        ("c", "", 10, &[]),
    ] {
        let found = store.notes(&log(0), letters, prefix, after, most).await.unwrap();
        let expected: Vec<_> = names.iter().map(|(name, text)| ((*name).to_owned(), Bytes::clone(text))).collect();
        assert_eq!(found, expected, "{prefix} {after} {most}");
    }
    assert_eq!(store.notes(&log(0), webhooks, "", "", 10).await.unwrap(), [("a/9".into(), Bytes::new())]);
}

pub(in crate::store) async fn batches_notes_and_responses_are_kept_in_one_step(home: &impl Home) {
    let store = home.open().await;
    append(&*store, 0, 1, 2).await;
    let note = |name: &str| (name.to_owned(), Some(Bytes::from("waits")));
    store.keep_notes(&log(0), NoteKind::Waiting, vec![note("a"), note("b")]).await.unwrap();
    let new = |received, count| NewBatch {
        received_at: UnixMillis(received),
        region: region(),
        content: events(received, count),
    };
    let all = |batches, notes| Commit {
        batches,
        notes: Some((NoteKind::Waiting, notes)),
        quarantined: Some(QuarantineRecord { response: model::unreadable(3), delivered: 2 }),
        ..Commit::default()
    };
    let with = all(vec![new(9, 3), new(5, 1)], vec![("a".to_owned(), None), note("c")]);
    let stored = store.commit(&log(0), with).await.unwrap();
    assert_eq!(stored.iter().map(|batch| batch.first.0).collect::<Vec<_>>(), [3, 6]);
    let none = store.commit(&log(0), all(Vec::new(), vec![note("d")])).await.unwrap();
    assert_eq!(none, []);
    home.leave(store).await;
    let store = home.open().await;
    assert_eq!(store.read(&log(0), Sequence(2), 10).await.unwrap(), stored);
    assert_eq!(store.log_state(&log(0)).await.unwrap().next, Sequence(7));
    let names: Vec<_> = store.notes(&log(0), NoteKind::Waiting, "", "", 10).await.unwrap();
    assert_eq!(names.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b", "c", "d"]);
    let delivered = async || {
        let entries = store.quarantined(&log(0), u64::MAX, 10).await.unwrap();
        entries.into_iter().map(|entry| (entry.id, entry.delivered)).collect::<Vec<_>>()
    };
    let found = delivered().await;
    assert!(found[0].0 > found[1].0 && found.iter().all(|(_, delivered)| *delivered == 2), "{found:?}");
    let more = Commit { redelivered: Some((found[1].0, 7)), ..Commit::default() };
    store.commit(&log(0), more).await.unwrap();
    assert_eq!(delivered().await, [found[0], (found[1].0, 7)]);
    assert_eq!(store.quarantined(&log(0), found[0].0, 10).await.unwrap().len(), 1);
}

pub(in crate::store) async fn a_removed_subscription_is_gone_with_its_notes_and_no_others(home: &impl Home) {
    let store = home.open().await;
    let removed = |name: &str| vec![PlaceChange::Removed(SubscriptionName::parse(name).unwrap())];
    store.change_places(&log(0), removed("a")).await.unwrap();
    let note = |kind: NoteKind, name: &str| PlaceChange::Note(kind, name.into(), Some(Bytes::from(name.to_owned())));
    let [cursors, others] = [["a", "a-b"], ["a", "b"]].map(|names| {
        names.map(|name| PlaceChange::Cursor(SubscriptionName::parse(name).unwrap(), Sequence(3))).to_vec()
    });
    let mut changes = cursors;
    for kind in NoteKind::of_subscriptions() {
        changes.extend(["a", "a/1", "a/x/2", "a-b", "a-b/1", "b/1"].map(|name| note(kind, name)));
    }
    store.change_places(&log(0), changes.clone()).await.unwrap();
    store.change_places(&log(1), others).await.unwrap();
    store.keep_notes(&log(0), NoteKind::Webhook, vec![("a/1".into(), Some(Bytes::new()))]).await.unwrap();
    // In order: what is said of it after that stands.
    let again = PlaceChange::Note(NoteKind::DeadLetter, "a/9".into(), Some(Bytes::new()));
    store.change_places(&log(0), [removed("a"), vec![again]].concat()).await.unwrap();
    home.leave(store).await;
    let store = home.open().await;
    let names = async |kind| {
        let notes = store.notes(&log(0), kind, "", "", 100).await.unwrap();
        notes.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(store.cursors(&log(0)).await.unwrap().len(), 1);
    assert_eq!(store.cursors(&log(1)).await.unwrap().len(), 2);
    assert_eq!(names(NoteKind::Subscription).await, ["a-b", "a-b/1", "b/1"]);
    assert_eq!(names(NoteKind::DeadLetter).await, ["a-b", "a-b/1", "a/9", "b/1"]);
    assert_eq!(names(NoteKind::Webhook).await, ["a/1"]);
}

pub(in crate::store) async fn a_subscription_is_renamed_with_all_that_is_its_own_and_nothing_of_others(
    home: &impl Home,
) {
    let store = home.open().await;
    let named = |text: &str| SubscriptionName::parse_stored(text).unwrap();
    for name in ["a", "a-b"] {
        store.save_cursor(&log(0), &named(name), Sequence(7)).await.unwrap();
    }
    let notes = ["a", "a-b", "a-b/again/1", "a/again/1", "a/settled/2"].map(|name| (name.into(), Some(name.into())));
    for kind in [NoteKind::Subscription, NoteKind::DeadLetter, NoteKind::Webhook] {
        store.keep_notes(&log(0), kind, notes.to_vec()).await.unwrap();
    }
    store.keep_notes(&log(1), NoteKind::Subscription, notes.to_vec()).await.unwrap();
    // Once more changes nothing.
    for _ in 0..2 {
        store.rename_subscription(&log(0), &named("a"), &named("$client.a")).await.unwrap();
        store.rename_subscription(&log(1), &named("a"), &named("$client.a")).await.unwrap();
    }
    home.leave(store).await;
    let store = home.open().await;
    let mut cursors = store.cursors(&log(0)).await.unwrap();
    cursors.sort();
    assert_eq!(cursors, [(named("$client.a"), Sequence(7)), (named("a-b"), Sequence(7))]);
    assert_eq!(store.cursors(&log(1)).await.unwrap(), []);
    let there = async |k: u64, kind| -> Vec<(String, Bytes)> { store.notes(&log(k), kind, "", "", 10).await.unwrap() };
    let renamed = [
        ("$client.a", "a"),
        ("$client.a/again/1", "a/again/1"),
        ("$client.a/settled/2", "a/settled/2"),
        ("a-b", "a-b"),
        ("a-b/again/1", "a-b/again/1"),
    ];
    for kind in NoteKind::of_subscriptions() {
        assert_eq!(there(0, kind).await, renamed.map(|(name, note)| (name.to_owned(), Bytes::from(note))));
    }
    let untouched = notes.map(|(name, note)| (name, note.unwrap()));
    assert_eq!(there(0, NoteKind::Webhook).await, untouched);
    assert_eq!(there(1, NoteKind::Subscription).await, untouched);
}

pub(in crate::store) async fn a_clean_stop_is_told_once(home: &impl Home) {
    let store = home.open().await;
    assert!(store.is_new());
    assert_eq!(store.last_clean_stop(), None);
    let epoch = store.epoch();
    store.close(UnixMillis(77)).await.unwrap();
    home.leave(store).await;
    for told in [Some(UnixMillis(77)), None] {
        let store = home.open().await;
        assert_eq!((store.is_new(), store.epoch(), store.last_clean_stop()), (false, epoch, told));
        home.leave(store).await;
    }
}

pub(in crate::store) async fn facts_outlive_a_crash_and_are_kept_together(home: &impl Home) {
    let store = home.open().await;
    assert_eq!(store.fact("a").await.unwrap(), None);
    store.keep_facts(&[("a", 1), ("b", u64::MAX)]).await.unwrap();
    store.keep_facts(&[("a", 2)]).await.unwrap();
    home.leave(store).await;
    let store = home.open().await;
    assert_eq!((store.fact("a").await.unwrap(), store.fact("b").await.unwrap()), (Some(2), Some(u64::MAX)));
    assert_eq!(store.fact("c").await.unwrap(), None);
    let all = async || {
        let mut all = store.facts("a").await.unwrap();
        all.sort();
        all
    };
    store.change_facts(vec![("ab".into(), Some(3)), ("aa".into(), Some(4)), ("b".into(), None)]).await.unwrap();
    assert_eq!(all().await, [("a".to_owned(), 2), ("aa".to_owned(), 4), ("ab".to_owned(), 3)]);
    store.change_facts(vec![("a".into(), None), ("ab".into(), None), ("never".into(), None)]).await.unwrap();
    assert_eq!((all().await, store.fact("b").await.unwrap()), (vec![("aa".to_owned(), 4)], None));
}

pub(in crate::store) async fn a_closed_store_says_so(home: &impl Home) {
    let store = home.open().await;
    append(&*store, 0, 1, 1).await;
    store.close(UnixMillis(1)).await.unwrap();
    let new = NewBatch { received_at: UnixMillis(1), region: region(), content: events(0, 1) };
    assert_eq!(store.append(&log(0), new).await, Err(Error::Closed));
    assert_eq!(store.read(&log(0), Sequence(0), 1).await, Err(Error::Closed));
    assert_eq!(store.ready().await, Err(Error::Closed));
    assert_eq!(store.close(UnixMillis(2)).await, Err(Error::Closed));
}

pub(in crate::store) async fn appends_at_once_to_many_logs_are_all_kept_in_order(home: &impl Home) {
    let store = home.open().await;
    let one = async |k: u64| {
        for round in 0..20 {
            assert_eq!(append(&*store, k, round, 2).await.first, Sequence(1 + round * 2));
        }
    };
    futures_util::future::join_all((0..6).map(one)).await;
    for k in 0..6 {
        let found = store.read(&log(k), Sequence(0), 100).await.unwrap();
        assert_eq!(found.iter().map(|b| b.received_at.0).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    }
}

pub(in crate::store) async fn it_agrees_with_a_model(home: &impl Home, ops: Vec<model::Op>) {
    let mut model = model::Model::default();
    let mut store = home.open().await;
    for op in ops {
        match op {
            model::Op::Leave => {
                home.leave(store).await;
                store = home.open().await;
            }
            model::Op::Close => {
                store.close(UnixMillis(1)).await.unwrap();
                home.leave(store).await;
                store = home.open().await;
            }
            op => assert_eq!(model::run(&*store, &op).await.unwrap(), model.run(&op), "{op:?}"),
        }
    }
    model.check(&*store).await;
}

async fn append(store: &dyn Store, k: u64, received: u64, count: u64) -> Arc<Batch> {
    let new = NewBatch { received_at: UnixMillis(received), region: region(), content: events(received, count) };
    store.append(&log(k), new).await.unwrap()
}
