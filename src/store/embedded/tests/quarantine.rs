//! Responses in the quarantine: in pieces, beside those of versions that knew none, and always whole.

use super::*;
use crate::store::QuarantineRecord;
use crate::store::embedded::engine::failed;
use crate::store::embedded::record::{Key, encode_quarantined, encode_row, room};
use crate::store::embedded::tables::{LOGS, QUARANTINE, QUARANTINE_HEADS};

fn response(received: u64, bytes: usize) -> UnreadableResponse {
    let body: Vec<u8> = (0..bytes).map(|n| (n * 7 % 251) as u8).collect();
    UnreadableResponse { received_at: UnixMillis(received), region: region(), why: "cut".into(), body: body.into() }
}

async fn whole(store: &EmbeddedStore) -> Vec<UnreadableResponse> {
    model::quarantined(store, &log(0), usize::MAX).await.unwrap()
}

/// As a version before there were pieces and heads kept it.
fn keep_as_before(store: &EmbeddedStore, response: &UnreadableResponse) {
    let mut row = store.shared.row(&log(0)).unwrap();
    store
        .shared
        .engine
        .commit(|tx| {
            let value = encode_quarantined(Key::Quarantine(row.id, row.quarantine_next), response);
            let mut table = tx.open_table(QUARANTINE).map_err(failed)?;
            table.insert((row.id, row.quarantine_next), value.as_slice()).map_err(failed)?;
            row.quarantine_next += 1;
            row.quarantine_bytes += room(value.len());
            let name = writer::name(&log(0));
            let mut logs = tx.open_table(LOGS).map_err(failed)?;
            logs.insert(name.as_str(), encode_row(Key::Log(&name), &row).as_slice()).map_err(failed)?;
            Ok(())
        })
        .unwrap();
    store.shared.publish([(log(0), row)].into());
}

#[tokio::test]
async fn a_large_response_is_given_back_byte_for_byte_and_goes_as_a_whole() {
    let home = TestHome::new();
    let store = home.try_open().await.unwrap();
    let all = [response(1, 0), response(2, 5 << 20), response(3, 1), response(4, (1 << 20) - (4 << 10))];
    for response in &all {
        model::quarantine(&*store, &log(0), response.clone()).await.unwrap();
    }
    let newest_first: Vec<_> = all.iter().rev().cloned().collect();
    assert!(whole(&store).await == newest_first);
    home.leave(store).await;
    let store = home.try_open().await.unwrap();
    assert!(whole(&store).await == newest_first);
    // A page at a time, and nothing by the number of a piece that is not the last.
    let mut paged = Vec::new();
    let mut before = u64::MAX;
    while let [entry] = &store.quarantined(&log(0), before, 1).await.unwrap()[..] {
        (before, _) = (entry.id, paged.push(entry.bytes));
    }
    assert_eq!(paged, [(1 << 20) - (4 << 10), 1, 5 << 20, 0]);
    assert_eq!(store.quarantined_body(&log(0), 3).await.unwrap(), None);
    store.trim(&log(0), UnixMillis(3), u64::MAX).await.unwrap();
    assert!(whole(&store).await == newest_first[..2]);
    let heads = store.shared.engine.read(|tx| {
        let heads = tx.open_table(QUARANTINE_HEADS).map_err(failed)?;
        Ok(redb::ReadableTable::iter(&heads).map_err(failed)?.count())
    });
    assert_eq!(heads, Ok(2));
    store.trim(&log(0), UnixMillis(9), u64::MAX).await.unwrap();
    assert_eq!((whole(&store).await.len(), store.shared.row(&log(0)).unwrap().quarantine_bytes), (0, 0));
}

#[tokio::test]
async fn responses_of_a_version_without_heads_stand_among_the_others() {
    let home = TestHome::new();
    let store = home.try_open().await.unwrap();
    store.append(&log(0), batch(1, 1)).await.unwrap();
    let all: Vec<_> = (0..6).map(|n| response(n, 2_000_000 * (n as usize % 2))).collect();
    for (n, response) in all.iter().enumerate() {
        if n % 3 == 2 {
            model::quarantine(&*store, &log(0), response.clone()).await.unwrap();
        } else {
            keep_as_before(&store, response);
        }
    }
    assert!(whole(&store).await.into_iter().rev().eq(all.iter().cloned()));
    // Reading one again gives it a head.
    let entry = store.quarantined(&log(0), u64::MAX, 6).await.unwrap().remove(5);
    let more = Commit { redelivered: Some((entry.id, 4)), ..Commit::default() };
    store.commit(&log(0), more).await.unwrap();
    let again = store.quarantined(&log(0), u64::MAX, 6).await.unwrap().remove(5);
    assert_eq!(again, QuarantineEntry { delivered: 4, ..entry });
    store.trim(&log(0), UnixMillis(3), u64::MAX).await.unwrap();
    assert!(whole(&store).await.into_iter().rev().eq(all[3..].iter().cloned()));
}

#[tokio::test]
async fn heads_whose_pieces_another_version_removed_go_with_the_next_trimming() {
    let home = TestHome::new();
    let store = home.try_open().await.unwrap();
    for n in 1..=3 {
        model::quarantine(&*store, &log(0), response(n, 2_000_000)).await.unwrap();
    }
    let removed = store.shared.engine.commit(|tx| {
        let mut pieces = tx.open_table(QUARANTINE).map_err(failed)?;
        // The first, and a part of the second.
        pieces.retain_in((0, 0)..(0, 4), |_, _| false).map_err(failed)
    });
    assert_eq!(removed, Ok(()));
    store.trim(&log(0), UnixMillis(2), u64::MAX).await.unwrap();
    let left = store.quarantined(&log(0), u64::MAX, 9).await.unwrap();
    assert_eq!(left.iter().map(|entry| entry.received_at.0).collect::<Vec<_>>(), [3, 2]);
    assert!(matches!(store.quarantined_body(&log(0), left[1].id).await, Err(Error::Damaged(_))));
    store.trim(&log(0), UnixMillis(3), u64::MAX).await.unwrap();
    assert!(whole(&store).await == [response(3, 2_000_000)]);
}

#[tokio::test]
async fn what_one_read_brought_is_there_whole_or_not_at_all_wherever_the_disk_breaks() {
    let mut stored = 0;
    for left in (0..40).chain([u32::MAX]) {
        let home = TestHome::new();
        let store = home.try_open().await.unwrap();
        store.append(&log(0), batch(1, 1)).await.unwrap();
        home.faults.break_after(left);
        let all = Commit {
            batches: vec![batch(2, 3), NewBatch { content: Content::PossibleLoss("cut_body".into()), ..batch(2, 1) }],
            quarantined: Some(QuarantineRecord { response: response(2, 3 << 20), delivered: 3 }),
            ..Commit::default()
        };
        let done = store.commit(&log(0), all).await.is_ok();
        home.faults.heal();
        store.ready().await.unwrap();
        stored += u32::from(done);
        let check = async |store: &EmbeddedStore| {
            let entries = store.log_state(&log(0)).await.unwrap().next.0 - 2;
            let expected = if done { (4, vec![response(2, 3 << 20)]) } else { (0, Vec::new()) };
            assert!((entries, whole(store).await) == expected, "{left}");
        };
        // Mended in this run, and as the next finds it.
        check(&store).await;
        home.leave(store).await;
        check(&*home.try_open().await.unwrap()).await;
    }
    assert!((1..20).contains(&stored), "{stored}");
}
