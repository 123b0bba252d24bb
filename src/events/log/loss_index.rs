//! [`LossIndex`]: where in a log events may have been lost: its markers, and what of it is damaged. For operators.
//!
//! It is what the log itself says: whoever asks first has the log read from the time that is asked for, and what was
//! found stays in memory, so that later only what is new is read. So it needs nothing in the store, a kill leaves
//! nothing out, and a store of an older gateway tells as much. What retention removes is gone from here, too.
//!
//! Invariants: one reads at a time, a piece at a time, beside all others. What is known is one run of the log, up to
//! where it ended when it was last asked for. At most [`MAX_FOUND`] are kept, the newest.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Log;
use crate::kernel::clock::UnixMillis;
use crate::kernel::names::RegionName;
use crate::store::{Batch, Content, Error, Sequence};

/// A place in a log where events may have been lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::events) struct FoundLoss {
    /// The last entry of it.
    pub(in crate::events) at: Sequence,
    /// When the gateway wrote the marker; of what is damaged, when the last whole batch before it came.
    pub(in crate::events) received_at: UnixMillis,
    pub(in crate::events) region: RegionName,
    pub(in crate::events) what: LossKind,
}

/// What stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::events) enum LossKind {
    /// A marker, as it is stored.
    Marker(String),
    /// So many entries that were stored and cannot be read any more.
    Damaged(u64),
}

/// What is known of one log.
#[derive(Debug, Default)]
pub(in crate::events) struct LossIndex {
    seen: tokio::sync::Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Which entries were looked at; none at first.
    looked_at: Option<Range<Sequence>>,
    found: BTreeMap<Sequence, FoundLoss>,
}

/// What is kept of a log.
const MAX_FOUND: usize = 10_000;

/// Entries that are read at once.
const PIECE: usize = 1000;

impl LossIndex {
    /// What was received since then (of all that is kept, if no time is said), oldest first. Says also whether there is
    /// more than is told, which is older.
    ///
    /// # Errors
    /// When the store fails.
    pub(in crate::events) async fn list(
        &self,
        log: &Log,
        since: Option<UnixMillis>,
    ) -> Result<(Vec<FoundLoss>, bool), Error> {
        let Range { start: earliest, end } = log.range();
        let from = match since {
            Some(time) => log.store().first_since(log.key(), time).await?.max(earliest).min(end),
            None => earliest,
        };
        let mut seen = self.seen.lock().await;
        seen.forget_before(earliest);
        let known = seen.looked_at.clone().unwrap_or(end..end);
        let mut is_cut = false;
        if from < known.start {
            let older = look(log, from..known.start).await?;
            seen.found.extend(older);
            seen.looked_at = Some(from..known.end);
            is_cut = seen.keep_newest();
        }
        if known.end < end {
            let newer = look(log, known.end..end).await?;
            seen.found.extend(newer);
            let start = seen.looked_at.as_ref().map_or(known.start, |looked_at| looked_at.start);
            seen.looked_at = Some(start..end);
            is_cut |= seen.keep_newest();
        }
        let is_wanted = |found: &&FoundLoss| found.at >= from && since.is_none_or(|time| found.received_at >= time);
        Ok((seen.found.values().filter(is_wanted).cloned().collect(), is_cut))
    }
}

impl Seen {
    fn forget_before(&mut self, earliest: Sequence) {
        self.found = self.found.split_off(&earliest);
        if let Some(looked_at) = &mut self.looked_at {
            looked_at.start = looked_at.start.max(earliest);
            looked_at.end = looked_at.end.max(earliest);
        }
    }

    /// Says whether that were not all.
    fn keep_newest(&mut self) -> bool {
        let over = self.found.len().saturating_sub(MAX_FOUND);
        let Some(first_kept) = self.found.keys().nth(over).copied().filter(|_| over > 0) else { return false };
        self.found = self.found.split_off(&first_kept);
        if let Some(looked_at) = &mut self.looked_at {
            looked_at.start = first_kept;
        }
        true
    }
}

/// What there is in a part of the log.
async fn look(log: &Log, part: Range<Sequence>) -> Result<Vec<(Sequence, FoundLoss)>, Error> {
    let (mut found, mut at) = (Vec::new(), part.start);
    while at < part.end {
        let batches = log.store().read(log.key(), at.previous(), PIECE).await?;
        let Some(last) = batches.last() else { break };
        at = last.last().next();
        let of_part = batches.iter().filter(|batch| batch.first >= part.start && batch.first < part.end);
        found.extend(of_part.filter_map(|batch| loss(batch)).map(|loss| (loss.at, loss)));
    }
    Ok(found)
}

fn loss(batch: &Batch) -> Option<FoundLoss> {
    let what = match &batch.content {
        Content::Events(_) => return None,
        Content::PossibleLoss(marker) => LossKind::Marker(marker.clone()),
        Content::Damaged(entries) => LossKind::Damaged(*entries),
    };
    Some(FoundLoss { at: batch.last(), received_at: batch.received_at, region: batch.region.clone(), what })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::events::log::judge::Judge;
    use crate::kernel::names::{AppId, Stream};
    use crate::store::tests::memory::MemoryStore;
    use crate::store::{EventText, LogKey, NewBatch};

    async fn append(log: &Log, at: u64, reason: Option<&str>) {
        let content = match reason {
            Some(reason) => Content::PossibleLoss(reason.to_owned()),
            None => Content::Events(EventText::join([&b"{}"[..], b"{}"]).unwrap()),
        };
        let new = NewBatch { received_at: UnixMillis(at), region: RegionName::parse("cn").unwrap(), content };
        log.publish(log.store().append(log.key(), new).await.unwrap());
    }

    fn reasons(found: &[FoundLoss]) -> Vec<&str> {
        let reason = |found: &FoundLoss| match &found.what {
            LossKind::Marker(reason) => reason.clone(),
            LossKind::Damaged(_) => "damaged".to_owned(),
        };
        found.iter().map(reason).map(|reason| &*reason.leak()).collect()
    }

    #[tokio::test]
    async fn it_tells_what_the_log_holds_since_a_time_however_it_was_asked_before() {
        let key = LogKey { app: AppId::parse("a").unwrap(), stream: Stream::UserEvents };
        let log = Log::open(key.clone(), Arc::new(MemoryStore::default()), Arc::<Judge>::default()).await.unwrap();
        let index = LossIndex::default();
        let list = async |since: Option<u64>| index.list(&log, since.map(UnixMillis)).await.unwrap().0;
        assert!(list(None).await.is_empty());
        for at in 1..=9 {
            append(&log, 10 * at, None).await;
            append(&log, 10 * at + 1, Some(&format!("r{at}"))).await;
        }
        assert_eq!(reasons(&list(Some(71)).await), ["r7", "r8", "r9"]);
        assert_eq!(reasons(&list(Some(72)).await), ["r8", "r9"]);
        append(&log, 100, Some("new")).await;
        assert_eq!(reasons(&list(Some(50)).await), ["r5", "r6", "r7", "r8", "r9", "new"]);
        assert_eq!(list(None).await.len(), 10);
        let earliest = log.trim(UnixMillis(35), u64::MAX).await.unwrap();
        log.trimmed(earliest);
        assert_eq!(reasons(&list(None).await)[..2], ["r4", "r5"]);
        // Another run finds the same.
        let again = LossIndex::default().list(&log, None).await.unwrap();
        assert_eq!(again, (list(None).await, false));
    }
}
