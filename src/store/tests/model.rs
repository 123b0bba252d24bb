//! A store so simple that it is right: what engines are compared with, and the operations they are compared by.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use crate::kernel::names::{AppId, RegionName, Stream};
use crate::store::*;

/// One call, of few logs and small numbers, so that calls meet.
#[derive(Clone, Debug)]
pub(in crate::store) enum Op {
    Append {
        log: u64,
        received: u64,
        count: u64,
    },
    Read {
        log: u64,
        after: u64,
        entries: usize,
    },
    Since {
        log: u64,
        time: u64,
    },
    Trim {
        log: u64,
        older_than: u64,
        all: bool,
    },
    Cursor {
        log: u64,
        name: u64,
        at: u64,
    },
    Cursors {
        log: u64,
    },
    Quarantine {
        log: u64,
        what: u64,
    },
    Quarantined {
        log: u64,
        most: usize,
    },
    /// Leave without closing, and come back.
    Leave,
    Close,
}

pub(in crate::store) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let log = 0..3_u64;
    let op = prop_oneof![
        8 => (log.clone(), 0..60_u64, 0..6_u64).prop_map(|(log, received, count)| Op::Append { log, received, count }),
        4 => (log.clone(), 0..40_u64, 0..12_usize).prop_map(|(log, after, entries)| Op::Read { log, after, entries }),
        2 => (log.clone(), 0..70_u64).prop_map(|(log, time)| Op::Since { log, time }),
        2 => (log.clone(), 0..70_u64, prop::bool::weighted(0.1))
            .prop_map(|(log, older_than, all)| Op::Trim { log, older_than, all }),
        2 => (log.clone(), 0..3_u64, 0..40_u64).prop_map(|(log, name, at)| Op::Cursor { log, name, at }),
        1 => log.clone().prop_map(|log| Op::Cursors { log }),
        1 => (log.clone(), 0..90_u64).prop_map(|(log, what)| Op::Quarantine { log, what }),
        1 => (log, 0..4_usize).prop_map(|(log, most)| Op::Quarantined { log, most }),
        1 => Just(Op::Leave),
        1 => Just(Op::Close),
    ];
    prop::collection::vec(op, 0..60)
}

/// What a call answered.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::store) enum Answer {
    Stored(Arc<Batch>),
    Batches(Vec<Arc<Batch>>),
    Place(Sequence),
    State(Sequence, Sequence),
    Cursors(Vec<(SubscriptionName, Sequence)>),
    Quarantined(Vec<UnreadableResponse>),
    Done,
}

/// Makes the call on a store.
pub(in crate::store) async fn run(store: &dyn Store, op: &Op) -> Result<Answer, Error> {
    match *op {
        Op::Append { log: k, received, count } => store.append(&log(k), new(received, count)).await.map(Answer::Stored),
        Op::Read { log: k, after, entries } => store.read(&log(k), Sequence(after), entries).await.map(Answer::Batches),
        Op::Since { log: k, time } => store.first_since(&log(k), UnixMillis(time)).await.map(Answer::Place),
        Op::Trim { log: k, older_than, all } => {
            let state = store.trim(&log(k), UnixMillis(older_than), if all { 0 } else { u64::MAX }).await?;
            Ok(Answer::State(state.earliest, state.next))
        }
        Op::Cursor { log: k, name, at } => {
            store.save_cursor(&log(k), &subscription(name), Sequence(at)).await.map(|()| Answer::Done)
        }
        Op::Cursors { log: k } => {
            let mut cursors = store.cursors(&log(k)).await?;
            cursors.sort();
            Ok(Answer::Cursors(cursors))
        }
        Op::Quarantine { log: k, what } => quarantine(store, &log(k), unreadable(what)).await.map(|()| Answer::Done),
        Op::Quarantined { log: k, most } => quarantined(store, &log(k), most).await.map(Answer::Quarantined),
        Op::Leave | Op::Close => Ok(Answer::Done),
    }
}

/// The model.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Model(BTreeMap<u64, Log>);

#[derive(Clone, Debug)]
struct Log {
    next: u64,
    batches: Vec<Arc<Batch>>,
    cursors: BTreeMap<SubscriptionName, Sequence>,
    quarantine: Vec<UnreadableResponse>,
}

impl Model {
    /// What a store must answer.
    pub(in crate::store) fn run(&mut self, op: &Op) -> Answer {
        match *op {
            Op::Append { log, received, count } => {
                let log = self.log(log);
                let NewBatch { received_at, region, content } = new(received, count);
                let batch = Arc::new(Batch { first: Sequence(log.next), received_at, region, content });
                log.next = batch.last().0 + 1;
                log.batches.push(batch.clone());
                Answer::Stored(batch)
            }
            Op::Read { log, after, entries } => {
                let mut left = entries as u64;
                let fits = |batch: &&Arc<Batch>| {
                    let wanted = left > 0;
                    left = left.saturating_sub(batch.last().0 - after.max(batch.first.0 - 1));
                    wanted
                };
                let later = self.log(log).batches.iter().filter(|batch| batch.last().0 > after);
                Answer::Batches(later.take_while(fits).cloned().collect())
            }
            Op::Since { log, time } => {
                let log = self.log(log);
                let found = log.batches.iter().find(|batch| batch.received_at.0 >= time);
                Answer::Place(found.map_or(Sequence(log.next), |batch| batch.first))
            }
            Op::Trim { log, older_than, all } => {
                let log = self.log(log);
                let stays = log.batches.iter().position(|b| !all && b.received_at.0 >= older_than);
                log.batches.drain(..stays.unwrap_or(log.batches.len()));
                let stays = log.quarantine.iter().position(|r| r.received_at.0 >= older_than);
                log.quarantine.drain(..stays.unwrap_or(log.quarantine.len()));
                Answer::State(log.batches.first().map_or(Sequence(log.next), |b| b.first), Sequence(log.next))
            }
            Op::Cursor { log, name, at } => {
                self.log(log).cursors.insert(subscription(name), Sequence(at));
                Answer::Done
            }
            Op::Cursors { log } => Answer::Cursors(self.log(log).cursors.clone().into_iter().collect()),
            Op::Quarantine { log, what } => {
                self.log(log).quarantine.push(unreadable(what));
                Answer::Done
            }
            Op::Quarantined { log, most } => {
                Answer::Quarantined(self.log(log).quarantine.iter().rev().take(most).cloned().collect())
            }
            Op::Leave | Op::Close => Answer::Done,
        }
    }

    /// Compares everything.
    pub(in crate::store) async fn check(&mut self, store: &dyn Store) {
        for log in 0..3 {
            for op in [
                Op::Read { log, after: 0, entries: usize::MAX },
                Op::Cursors { log },
                Op::Quarantined { log, most: usize::MAX },
                Op::Trim { log, older_than: 0, all: false },
            ] {
                assert_eq!(run(store, &op).await.unwrap(), self.run(&op), "{op:?}");
            }
        }
    }

    fn log(&mut self, k: u64) -> &mut Log {
        let empty = Log { next: 1, batches: Vec::new(), cursors: BTreeMap::new(), quarantine: Vec::new() };
        self.0.entry(k).or_insert(empty)
    }
}

pub(in crate::store) fn log(k: u64) -> LogKey {
    LogKey { app: AppId::parse(&format!("app{}", k / 2)).unwrap(), stream: Stream::ALL[(k % 2) as usize] }
}

pub(in crate::store) fn region() -> RegionName {
    RegionName::parse("default").unwrap()
}

pub(in crate::store) fn subscription(k: u64) -> SubscriptionName {
    SubscriptionName::parse(&format!("subscription-{k}")).unwrap()
}

/// `count` events that tell `from` and following numbers.
pub(in crate::store) fn events(from: u64, count: u64) -> Content {
    let texts: Vec<_> = (from..from + count).map(|k| format!("{{\"ms\":{k},\"user_id\":\"u\"}}")).collect();
    Content::Events(EventText::join(texts.iter().map(String::as_bytes)).unwrap())
}

/// Keeps a response of which nothing is delivered.
pub(in crate::store) async fn quarantine(
    store: &dyn Store,
    log: &LogKey,
    response: UnreadableResponse,
) -> Result<(), Error> {
    let kept = QuarantineRecord { response, delivered: 0 };
    store.commit(log, Commit { quarantined: Some(kept), ..Commit::default() }).await.map(drop)
}

/// The newest responses, whole.
pub(in crate::store) async fn quarantined(
    store: &dyn Store,
    log: &LogKey,
    most: usize,
) -> Result<Vec<UnreadableResponse>, Error> {
    let mut found = Vec::new();
    for entry in store.quarantined(log, u64::MAX, most).await? {
        let Some((again, pieces)) = store.quarantined_body(log, entry.id).await? else { continue };
        assert_eq!((&again, again.bytes as usize), (&entry, pieces.iter().map(Bytes::len).sum()));
        let QuarantineEntry { received_at, region, why, .. } = entry;
        found.push(UnreadableResponse { received_at, region, why, body: pieces.concat().into() });
    }
    Ok(found)
}

pub(in crate::store) fn unreadable(k: u64) -> UnreadableResponse {
    let body = bytes::Bytes::from(vec![b'<'; 40 * k as usize]);
    UnreadableResponse { received_at: UnixMillis(k), region: region(), why: "not JSON".into(), body }
}

/// A batch of `count` events; none makes it a marker.
fn new(received: u64, count: u64) -> NewBatch {
    let content = if count == 0 { Content::PossibleLoss("in doubt".into()) } else { events(received, count) };
    NewBatch { received_at: UnixMillis(received), region: region(), content }
}
