//! The conformance suite on the embedded engine; then what only it can be asked: faults, damage, syncs.

use std::path::Path;
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::store::tests::conformance::{Home, conformance};
use crate::store::tests::model::{self, events, log, region};
use crate::store::{Content, NewBatch, UnreadableResponse};

mod backup;
mod quarantine;

/// A folder, and the disk under it.
struct TestHome {
    folder: tempfile::TempDir,
    faults: Faults,
    metrics: Metrics,
    tasks: Mutex<Tasks>,
}

impl TestHome {
    fn new() -> Self {
        let faults = Faults::default();
        faults.lie_about_syncs();
        Self { folder: tempfile::tempdir().unwrap(), faults, metrics: Metrics::new(), tasks: Mutex::default() }
    }

    async fn try_open(&self) -> Result<Arc<EmbeddedStore>, Error> {
        self.open_that_looks_every(std::time::Duration::ZERO).await
    }

    /// A store that believes for so long that there is room.
    async fn open_that_looks_every(&self, time: std::time::Duration) -> Result<Arc<EmbeddedStore>, Error> {
        let tasks = Tasks::new();
        *self.tasks.lock().unwrap() = tasks.clone();
        let options = Options { faults: self.faults.clone(), look_at_space_every: time, ..Options::default() };
        EmbeddedStore::open_with(self.folder.path(), options, tasks, Clock::system(), self.metrics.clone()).await
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("events.redb")
    }
}

impl Home for TestHome {
    async fn open(&self) -> Arc<dyn Store> {
        self.try_open().await.unwrap()
    }

    async fn leave(&self, store: Arc<dyn Store>) {
        drop(store);
        let tasks = self.tasks.lock().unwrap().clone();
        assert_eq!(tasks.finish(std::time::Duration::from_secs(10)).await, 0);
    }
}

conformance!(TestHome::new());

fn batch(received: u64, count: u64) -> NewBatch {
    NewBatch { received_at: UnixMillis(received), region: region(), content: events(received, count) }
}

#[tokio::test]
async fn quarantined_responses_are_bounded_and_the_newest_stay() {
    let home = TestHome::new();
    let options = Options { keep_quarantined: 4 << 10, faults: home.faults.clone(), ..Options::default() };
    let metrics = home.metrics.clone();
    let store =
        EmbeddedStore::open_with(home.folder.path(), options, Tasks::new(), Clock::system(), metrics).await.unwrap();
    for n in 0..40u64 {
        let body = vec![b'x'; 1000].into();
        let why = n.to_string();
        let response = UnreadableResponse { received_at: UnixMillis(n), region: region(), why, body };
        model::quarantine(&*store, &log(0), response).await.unwrap();
    }
    store.trim(&log(0), UnixMillis(0), u64::MAX).await.unwrap();
    let kept: Vec<String> =
        store.quarantined(&log(0), u64::MAX, 100).await.unwrap().into_iter().map(|entry| entry.why).collect();
    assert!((1..=4).contains(&kept.len()) && kept[0] == "39", "{kept:?}");
}

#[tokio::test]
async fn a_folder_is_open_once() {
    let home = TestHome::new();
    let store = home.open().await;
    let tasks = home.tasks.lock().unwrap().clone();
    let Err(Error::Io(why)) = home.try_open().await else { panic!("opened twice") };
    assert!(why.contains("in use by another gateway"), "{why}");
    *home.tasks.lock().unwrap() = tasks;
    home.leave(store).await;
    assert!(home.try_open().await.is_ok());
}

#[tokio::test]
async fn appends_that_wait_together_share_a_commit() {
    let home = TestHome::new();
    let store = home.open().await;
    store.append(&log(0), batch(0, 1)).await.unwrap();
    let before = home.faults.syncs();
    store.append(&log(0), batch(1, 1)).await.unwrap();
    let alone = home.faults.syncs() - before;
    let before = home.faults.syncs();
    let calls = (0..64).map(async |k| {
        store.append(&log(k % 8), batch(k, 1)).await.unwrap();
        store.save_cursor(&log(k % 8), &model::subscription(k), Sequence(1)).await.unwrap();
    });
    futures_util::future::join_all(calls).await;
    let together = home.faults.syncs() - before;
    // A first commit of what came first, one for the other appends, one or two for the cursors.
    assert!(together <= alone * 4, "{together} syncs for 128 changes, {alone} for one");
    assert!(home.metrics.text().contains("rtm_gateway_store_append_seconds_count 66"));
}

#[tokio::test]
async fn a_full_disk_refuses_appends_keeps_what_is_there_and_recovers_by_itself() {
    let home = TestHome::new();
    let store = home.open().await;
    store.append(&log(0), batch(0, 10)).await.unwrap();
    home.faults.fill_after(0);
    let mut kept = 1;
    let error = loop {
        match store.append(&log(0), batch(kept, 1000)).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 200, "the disk is never full");
    };
    assert!(matches!(error, Error::Full(_)), "{error}");
    assert!(matches!(store.ready().await, Err(Error::Full(_))));
    // What was kept is still read.
    assert_eq!(store.read(&log(0), Sequence(0), usize::MAX).await.unwrap().len() as u64, kept);
    home.faults.heal();
    store.ready().await.unwrap();
    let next = store.log_state(&log(0)).await.unwrap().next;
    assert_eq!(store.append(&log(0), batch(0, 1)).await.unwrap().first, next);
    assert!(home.metrics.text().contains("rtm_gateway_store_errors_total 1"));
}

#[tokio::test]
async fn the_reserve_counts_the_room_inside_the_file() {
    let home = TestHome::new();
    let store = home.open().await;
    store.ready().await.unwrap();
    home.faults.show_free(Some(1 << 20));
    assert!(matches!(store.ready().await, Err(Error::Full(_))));
    home.faults.show_free(Some((64 << 20) - 1));
    assert!(matches!(store.ready().await, Err(Error::Full(_))));
    for k in 0..10 {
        let text = vec![b'1'; 1 << 20];
        let content = Content::Events(crate::store::EventText::join([&text[..]]).unwrap());
        store.append(&log(0), NewBatch { content, ..batch(k, 1) }).await.unwrap();
    }
    assert!(matches!(store.ready().await, Err(Error::Full(_))));
    store.trim(&log(0), UnixMillis(u64::MAX), 0).await.unwrap();
    store.ready().await.unwrap();
}

/// Thousands of pollers ask before each read: the file system is asked for all of them at once.
#[tokio::test]
async fn the_file_system_is_asked_once_for_all_who_ask_while_there_is_room() {
    let home = TestHome::new();
    let hour = std::time::Duration::from_secs(3600);
    let store = home.open_that_looks_every(hour).await.unwrap();
    let all_ask = async || {
        let before = home.faults.looks();
        let answers = futures_util::future::join_all((0..1000).map(|_| store.ready())).await;
        (answers.iter().filter(|answer| answer.is_ok()).count(), home.faults.looks() - before)
    };
    // One began before the others asked: they wait for the next.
    let (ready, looks) = all_ask().await;
    assert!(ready == 1000 && (1..=2).contains(&looks), "{ready}, {looks}");
    assert_eq!(all_ask().await, (1000, 0));
    // A failure counts at once, however young the last look is.
    home.faults.break_after(0);
    assert!(store.append(&log(0), batch(0, 10)).await.is_err());
    let (ready, looks) = all_ask().await;
    assert!(ready == 0 && (1..=2).contains(&looks), "{ready}, {looks}");
    home.faults.heal();
    let (ready, looks) = all_ask().await;
    assert!(ready == 1000 && (1..=2).contains(&looks), "{ready}, {looks}");
    home.leave(store).await;
    // Room is not believed in that the store may have taken since.
    home.faults.show_free(Some((64 << 20) + (1 << 20)));
    let store = home.open_that_looks_every(hour).await.unwrap();
    store.ready().await.unwrap();
    home.faults.show_free(Some(1 << 20));
    store.ready().await.unwrap();
    for k in 0..2 {
        let text = vec![b'1'; 1 << 20];
        let content = Content::Events(crate::store::EventText::join([&text[..]]).unwrap());
        store.append(&log(0), NewBatch { content, ..batch(k, 1) }).await.unwrap();
    }
    assert!(matches!(store.ready().await, Err(Error::Full(_))));
    home.leave(store).await;
}

#[tokio::test]
async fn the_reserve_does_not_count_the_room_of_what_is_kept_beside_the_logs() {
    let home = TestHome::new();
    let store = home.open().await;
    home.faults.show_free(Some((64 << 20) - 1));
    for k in 0..10 {
        let note = (format!("note/{k}"), Some(vec![1; 1 << 20].into()));
        store.keep_notes(&log(0), NoteKind::Waiting, vec![note]).await.unwrap();
    }
    assert!(matches!(store.ready().await, Err(Error::Full(_))));
}

#[tokio::test]
async fn a_broken_disk_is_told_and_mended_when_it_works_again() {
    let home = TestHome::new();
    let store = home.open().await;
    store.append(&log(0), batch(0, 10)).await.unwrap();
    home.faults.break_after(0);
    assert!(matches!(store.append(&log(0), batch(1, 10)).await, Err(Error::Io(_))));
    assert!(matches!(store.ready().await, Err(Error::Io(_))));
    home.faults.heal();
    // A read mends it too.
    assert_eq!(store.read(&log(0), Sequence(0), 100).await.unwrap().len(), 1);
    store.ready().await.unwrap();
    assert_eq!(store.append(&log(0), batch(2, 1)).await.unwrap().first, Sequence(11));
}

#[tokio::test]
async fn a_commit_that_took_effect_although_its_last_sync_failed_is_undone() {
    let home = TestHome::new();
    let store = home.open().await;
    store.append(&log(0), batch(0, 1)).await.unwrap();
    // Wherever in the commit the disk breaks.
    for left in 0..40 {
        home.faults.break_after(left);
        let before = store.log_state(&log(0)).await.unwrap();
        let stored = store.append(&log(0), batch(9, 2)).await;
        home.faults.heal();
        store.ready().await.unwrap();
        let after = store.log_state(&log(0)).await.unwrap();
        let grown = if stored.is_ok() { 2 } else { 0 };
        assert_eq!(after.next.0, before.next.0 + grown, "after {left} changes");
        let last = store.read(&log(0), Sequence(after.next.0 - 2), 9).await.unwrap();
        assert_eq!(last.last().unwrap().last().0 + 1, after.next.0);
    }
}

#[test]
fn it_agrees_with_a_model_on_a_disk_that_fails_now_and_then() {
    let fault = prop_oneof![3 => Just(None), 1 => (0..30_u32, any::<bool>()).prop_map(Some)];
    properties!(ProptestConfig::with_cases(16), |(ops in model::ops(), faults in prop::collection::vec(fault, 60))| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let home = TestHome::new();
            let mut model = model::Model::default();
            let store = home.open().await;
            for (op, fault) in ops.iter().zip(faults) {
                match fault {
                    Some((left, true)) => home.faults.fill_after(left),
                    Some((left, false)) => home.faults.break_after(left),
                    None => {}
                }
                let mut answer = model::run(&*store, op).await;
                home.faults.heal();
                if answer.is_err() {
                    // The store is as it was, so the call can be made again.
                    store.ready().await.unwrap();
                    answer = model::run(&*store, op).await;
                }
                assert_eq!(answer.unwrap(), model.run(op), "{op:?}");
            }
            model.check(&*store).await;
            home.leave(store).await;
            model.check(&*home.open().await).await;
        });
    });
}

/// Everything readable from a store whose file was damaged must be what was written.
async fn survey(home: &TestHome, written: &[Arc<Batch>]) -> &'static str {
    let store = match home.try_open().await {
        Ok(store) => store,
        Err(_) => return "refused",
    };
    let outcome = match store.read(&log(0), Sequence(0), usize::MAX).await {
        Ok(found) if found == written => "whole",
        Ok(found) => {
            // Every entry is accounted for, in its place: right, or said to be damaged.
            let mut next = 1;
            for batch in &found {
                assert_eq!(batch.first.0, next);
                next = batch.last().0 + 1;
                assert!(written.contains(batch) || matches!(batch.content, Content::Damaged(_)), "{batch:?}");
            }
            assert_eq!(next, written.last().unwrap().last().0 + 1);
            assert!(home.metrics.text().contains("rtm_gateway_store_damaged_total"));
            "contained"
        }
        Err(Error::Damaged(_)) => {
            // Batches that can be read alone must be right.
            for batch in written {
                if let Ok(found) = store.read(&log(0), Sequence(batch.first.0 - 1), 1).await {
                    assert_eq!(found[0], *batch);
                }
            }
            "damaged"
        }
        Err(error) => panic!("{error}"),
    };
    // Whatever it does now, it must answer.
    let _ = store.append(&log(0), batch(1, 1)).await;
    let _ = store.trim(&log(0), UnixMillis(u64::MAX), 0).await;
    home.leave(store).await;
    outcome
}

async fn written(home: &TestHome) -> Vec<Arc<Batch>> {
    let store = home.open().await;
    let mut written = Vec::new();
    for k in 0..30 {
        written.push(store.append(&log(0), batch(k, 1 + k * k % 300)).await.unwrap());
        store.save_cursor(&log(0), &model::subscription(k), Sequence(k)).await.unwrap();
    }
    store.close(UnixMillis(5)).await.unwrap();
    home.leave(store).await;
    written
}

fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_flipped_bit_gives_an_error_or_changes_nothing() {
    let home = TestHome::new();
    let written = written(&home).await;
    let whole = std::fs::read(home.data()).unwrap();
    let mut outcomes = std::collections::BTreeMap::new();
    let step = whole.len() / 70;
    // The head, where the engine keeps what it trusts most; then places all over the file.
    for at in (0..320).step_by(10).chain((0..whole.len()).step_by(step)) {
        std::fs::write(home.data(), &whole).unwrap();
        damage(&home.data(), |bytes| bytes[at] ^= 1 << (at % 8));
        *outcomes.entry(survey(&home, &written).await).or_insert(0) += 1;
    }
    println!("{outcomes:?}");
    assert!(outcomes.contains_key("contained") && outcomes.contains_key("whole"), "{outcomes:?}");
}

#[tokio::test]
async fn a_damaged_batch_is_passed_over_told_once_and_can_be_trimmed() {
    let home = TestHome::new();
    let store = home.open().await;
    let marked = |k: u64| {
        let text = format!("{{\"batch\":\"{k:0>40}\"}}");
        let content = Content::Events(crate::store::EventText::join([text.as_bytes(), b"1", b"2"]).unwrap());
        NewBatch { content, ..batch(10 * k, 1) }
    };
    for k in 0..9 {
        store.append(&log(0), marked(k)).await.unwrap();
    }
    store.close(UnixMillis(5)).await.unwrap();
    home.leave(store).await;
    damage(&home.data(), |bytes| {
        for k in [0, 3, 4, 8] {
            let text = format!("{k:0>40}");
            // Old copies of a page hold it too.
            let places: Vec<_> = (0..bytes.len() - 40).filter(|at| bytes[*at..].starts_with(text.as_bytes())).collect();
            assert!(!places.is_empty());
            places.into_iter().for_each(|at| bytes[at] ^= 1);
        }
    });
    let store = home.open().await;
    let shape = |found: &[Arc<Batch>]| {
        let one = |b: &Arc<Batch>| (b.first.0, b.last().0, matches!(b.content, Content::Damaged(_)));
        found.iter().map(one).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        let found = store.read(&log(0), Sequence(0), usize::MAX).await.unwrap();
        let bad = true;
        assert_eq!(
            shape(&found),
            [
                (1, 3, bad),
                (4, 6, !bad),
                (7, 9, !bad),
                (10, 12, bad),
                (13, 15, bad),
                (16, 18, !bad),
                (19, 21, !bad),
                (22, 24, !bad),
                (25, 27, bad)
            ]
        );
        assert!(home.metrics.text().contains("rtm_gateway_store_damaged_total 4\n"));
    }
    // From inside, and no more than asked for.
    assert_eq!(shape(&store.read(&log(0), Sequence(10), 2).await.unwrap()), [(11, 12, true)]);
    assert_eq!(shape(&store.read(&log(0), Sequence(26), 9).await.unwrap()), [(27, 27, true)]);
    assert_eq!(store.first_since(&log(0), UnixMillis(50)).await.unwrap(), Sequence(16));
    assert_eq!(store.append(&log(0), marked(9)).await.unwrap().first, Sequence(28));
    assert_eq!(store.read(&log(0), Sequence(21), 99).await.unwrap().len(), 3);
    let state = store.trim(&log(0), UnixMillis(50), u64::MAX).await.unwrap();
    // Damaged ones have no known age: they go with the next that goes.
    assert_eq!((state.earliest, state.next), (Sequence(10), Sequence(31)));
    assert_eq!(store.read(&log(0), Sequence(0), 99).await.unwrap().len(), 7);
    assert_eq!(store.trim(&log(0), UnixMillis(51), u64::MAX).await.unwrap().earliest, Sequence(19));
}

#[tokio::test]
async fn a_file_cut_short_gives_an_error_or_changes_nothing() {
    let home = TestHome::new();
    let written = written(&home).await;
    let whole = std::fs::read(home.data()).unwrap();
    for sixteenth in 1..16 {
        std::fs::write(home.data(), &whole).unwrap();
        damage(&home.data(), |bytes| bytes.truncate(whole.len() * sixteenth / 16));
        survey(&home, &written).await;
    }
}

#[tokio::test]
async fn a_file_that_is_something_else_is_refused() {
    let home = TestHome::new();
    for content in [&b"h"[..], b"hello", &[0; 100_000]] {
        std::fs::write(home.data(), content).unwrap();
        assert!(matches!(home.try_open().await.map(|_| ()), Err(Error::Damaged(_))), "{} bytes", content.len());
        assert_eq!(std::fs::read(home.data()).unwrap(), content, "left as it was");
    }
}

#[tokio::test]
async fn a_half_made_store_is_made_anew() {
    let home = TestHome::new();
    std::fs::write(home.folder.path().join("events.redb.new"), b"half").unwrap();
    let store = home.open().await;
    assert!(store.is_new());
    store.append(&log(0), batch(1, 1)).await.unwrap();
}

#[tokio::test]
async fn an_empty_data_file_is_a_new_store() {
    let home = TestHome::new();
    std::fs::write(home.data(), b"").unwrap();
    let store = home.open().await;
    assert!(store.is_new());
    store.append(&log(0), batch(1, 1)).await.unwrap();
    home.leave(store).await;
    assert!(!home.open().await.is_new());
}

#[tokio::test]
async fn a_store_of_a_newer_format_is_refused_with_a_sentence_and_left_as_it_is_byte_for_byte() {
    for stopped_in_order in [true, false] {
        let home = TestHome::new();
        let store = home.try_open().await.unwrap();
        store.append(&log(0), batch(1, 10)).await.unwrap();
        store.shared.engine.raise_format().unwrap();
        if stopped_in_order {
            store.close(UnixMillis(7)).await.unwrap();
        }
        // Of one that was killed what the file holds now is all there is.
        let killed = std::fs::read(home.data()).unwrap();
        home.leave(store).await;
        if !stopped_in_order {
            std::fs::write(home.data(), &killed).unwrap();
        }
        let before = std::fs::read(home.data()).unwrap();
        let Err(refused) = home.try_open().await else { panic!("opened") };
        assert_eq!(refused, Error::Format { found: engine::FORMAT + 1, known: engine::FORMAT });
        assert!(
            refused.to_string().contains("format 3") && refused.to_string().contains("left untouched"),
            "{refused}"
        );
        assert!(std::fs::read(home.data()).unwrap() == before, "stopped in order: {stopped_in_order}");
    }
}

#[tokio::test]
async fn a_store_that_has_a_client_s_place_is_one_that_older_versions_refuse() {
    let home = TestHome::new();
    let store = home.try_open().await.unwrap();
    let format = |store: &EmbeddedStore| store.shared.engine.read(|tx| engine::number(tx, engine::FORMAT_KEY)).unwrap();
    store.save_cursor(&log(0), &model::subscription(0), Sequence(1)).await.unwrap();
    assert_eq!(format(&store), Some(1), "nothing in it is new to them");
    let own = SubscriptionName::parse_stored("$client.crm").unwrap();
    store.rename_subscription(&log(0), &model::subscription(0), &own).await.unwrap();
    assert_eq!(format(&store), Some(2));
    let (_home, copy) = backup::opened(store.backup().await.unwrap()).await;
    assert_eq!((format(&copy), copy.cursors(&log(0)).await.unwrap()), (Some(2), vec![(own, Sequence(1))]));
}
