//! Backups: all that was acknowledged is in them, entry by entry.

use super::*;
use crate::store::EventText;
use crate::store::embedded::tables::{self, Room, Visitor};
use redb::{ReadTransaction, ReadableTable as _, TableDefinition, TableHandle as _};

/// Opens a data file in a folder of its own.
pub(super) async fn opened(file: std::fs::File) -> (TestHome, Arc<EmbeddedStore>) {
    let home = TestHome::new();
    let mut file = file;
    let mut data = std::fs::File::create(home.data()).unwrap();
    std::io::copy(&mut file, &mut data).unwrap();
    let store = home.try_open().await.unwrap();
    (home, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_holds_all_that_was_acknowledged_before_it_and_no_cursor_ahead() {
    let home = TestHome::new();
    let store = home.try_open().await.unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let acknowledged: [std::sync::atomic::AtomicU64; 4] = Default::default();
    let load = async |k: usize| {
        let mut round = 0;
        while !stop.load(Ordering::SeqCst) {
            round += 1;
            let stored = store.append(&log(k as u64), batch(round, 1 + round % 50)).await.unwrap();
            acknowledged[k].store(stored.last().0, Ordering::SeqCst);
            store.save_cursor(&log(k as u64), &model::subscription(0), stored.last()).await.unwrap();
            if round.is_multiple_of(40) {
                store.trim(&log(k as u64), UnixMillis(round.saturating_sub(200)), u64::MAX).await.unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    let backups = async {
        let mut epochs = std::collections::BTreeSet::from([store.epoch()]);
        for round in 0..8 {
            let before: Vec<u64> = acknowledged.iter().map(|at| at.load(Ordering::SeqCst)).collect();
            let file = store.backup().await.unwrap();
            let (copied, copy) = opened(file).await;
            assert!(epochs.insert(copy.epoch()), "an epoch of its own");
            assert_eq!(copy.last_clean_stop(), None);
            for (k, before) in before.into_iter().enumerate() {
                let log = log(k as u64);
                let state = copy.log_state(&log).await.unwrap();
                assert!(state.next.0 > before, "round {round}: {} of {before}", state.next.0 - 1);
                let found = copy.read(&log, Sequence(0), usize::MAX).await.unwrap();
                let mut next = state.earliest.0;
                for batch in &found {
                    assert!(batch.first.0 == next && matches!(batch.content, Content::Events(_)));
                    next = batch.last().0 + 1;
                }
                assert_eq!(next, state.next.0);
                for (_, at) in copy.cursors(&log).await.unwrap() {
                    assert!(at < state.next, "a cursor is ahead");
                }
            }
            copy.append(&log(0), batch(1, 1)).await.unwrap();
            copied.leave(copy).await;
        }
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(backups, load(0), load(1), load(2), load(3));
    let names: Vec<_> = std::fs::read_dir(home.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

/// What a file holds: each entry of each table, as it stands there.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entries(Vec<(String, String, Vec<u8>)>);

impl Entries {
    fn of(store: &EmbeddedStore) -> Self {
        store
            .shared
            .engine
            .read(|tx| {
                let mut found = Reading(tx, Self::default());
                tables::each(&mut found)?;
                let listed: std::collections::BTreeSet<_> = found.1.0.iter().map(|(table, ..)| table.clone()).collect();
                let there: std::collections::BTreeSet<_> =
                    tx.list_tables().unwrap().map(|table| table.name().to_owned()).collect();
                assert_eq!(listed, there, "a table is not listed, or the test leaves it empty");
                Ok(found.1)
            })
            .unwrap()
    }
}

struct Reading<'a>(&'a ReadTransaction, Entries);

impl Visitor for Reading<'_> {
    fn table<K: redb::Key + 'static>(
        &mut self,
        table: TableDefinition<'static, K, &'static [u8]>,
        _: Room,
    ) -> Result<(), Error> {
        let entries = self.0.open_table(table).unwrap();
        for entry in entries.iter().unwrap() {
            let (key, value) = entry.unwrap();
            let key = format!("{:?}", key.value());
            if key != format!("{:?}", engine::EPOCH_KEY) {
                self.1.0.push((table.name().to_owned(), key, value.value().to_vec()));
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_backup_is_no_longer_than_what_is_kept_takes() {
    let home = TestHome::new();
    let store = home.try_open().await.unwrap();
    // Each takes 64 KiB of the file.
    let event = vec![b'e'; 45_000];
    let content = || Content::Events(EventText::join([event.as_slice()]).unwrap());
    for _ in 0..40 {
        let batches = (0..10).map(|_| NewBatch { content: content(), ..batch(1, 1) }).collect();
        store.commit(&log(0), Commit { batches, ..Commit::default() }).await.unwrap();
    }
    for keep in [400 << 16, 100 << 16] {
        let kept = store.trim(&log(0), UnixMillis(0), keep).await.unwrap().bytes;
        let length = store.backup().await.unwrap().metadata().unwrap().len();
        assert!(kept > keep / 2 && length < kept + kept / 8 + (1 << 20), "{length} bytes for {kept}");
    }
    home.leave(store).await;
}

#[tokio::test]
async fn a_backup_of_a_full_store_is_restored_entry_by_entry() {
    let home = TestHome::new();
    let store = home.try_open().await.unwrap();
    for k in 0..3 {
        let log = log(k);
        for n in 1..=20 {
            store.append(&log, batch(n, n * 7)).await.unwrap();
        }
        store.append(&log, NewBatch { content: Content::PossibleLoss("reset".into()), ..batch(21, 1) }).await.unwrap();
        for n in 0..5 {
            store.save_cursor(&log, &model::subscription(n), Sequence(n + k)).await.unwrap();
        }
        for kind in [NoteKind::Subscription, NoteKind::DeadLetter, NoteKind::Webhook, NoteKind::Waiting] {
            let notes = (0..30).map(|n| (format!("{kind:?}/{n}"), Some(vec![n; 700].into()))).collect();
            store.keep_notes(&log, kind, notes).await.unwrap();
        }
        let (why, body) = ("garbage".to_owned(), vec![7; 40_000].into());
        let response = UnreadableResponse { received_at: UnixMillis(9), region: region(), why, body };
        model::quarantine(&*store, &log, response).await.unwrap();
    }
    store.keep_facts(&[("one", 1), ("two", 2)]).await.unwrap();
    let whole = Entries::of(&store);
    assert!(whole.0.len() > 400, "{}", whole.0.len());
    let (restored, copy) = opened(store.backup().await.unwrap()).await;
    assert!(Entries::of(&copy) == whole);
    restored.leave(copy).await;
}

#[tokio::test]
async fn a_backup_without_room_is_refused_and_takes_none() {
    let home = TestHome::new();
    let store = home.try_open().await.unwrap();
    store.append(&log(0), batch(1, 100)).await.unwrap();
    home.faults.show_free(Some(64 << 20));
    assert!(matches!(store.backup().await, Err(Error::Full(_))));
    store.append(&log(0), batch(2, 1)).await.unwrap();
    home.faults.show_free(None);
    assert!(store.backup().await.is_ok());
}
