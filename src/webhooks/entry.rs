//! An [`Entry`]: one entry of a log on its way to an endpoint.
//!
//! Invariant: its id is the same whenever it is made of the same entry of the same store: after a restart, in another
//! format, by another webhook.

use std::sync::Arc;

use crate::events::{Cursor, EntryContent, Run};
use crate::kernel::names::{AppId, Stream};
use crate::store::{Batch, Sequence};

/// One entry of a log, or a marker that stands in none. Shares the log's text.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) cursor: Cursor,
    store: u64,
    pub(super) batch: Arc<Batch>,
    index: usize,
    /// It stands in no log, but at the place of an entry that is gone, which the endpoint may have had.
    is_apart: bool,
}

impl Entry {
    /// The entries that were read, in order. `log` is the epoch of their cursors, `store` the store's own.
    pub(super) fn all_of(runs: &[Run], log: u64, store: u64) -> Vec<Self> {
        let of_run = |run: &Run| {
            let batch = Arc::clone(&run.batch);
            run.shown().map(move |(index, at)| Self {
                cursor: Cursor { epoch: log, at },
                store,
                batch: Arc::clone(&batch),
                index,
                is_apart: false,
            })
        };
        runs.iter().flat_map(of_run).collect()
    }

    /// As the marker of what retention took.
    pub(super) fn apart(self) -> Self {
        Self { is_apart: true, ..self }
    }

    /// Its number in its log.
    pub(super) fn number(&self) -> u64 {
        let Sequence(number) = self.cursor.at;
        number
    }

    /// What names it for ever: no two entries of a store have the same. Has no full stop, which Standard Webhooks
    /// forbids in an id.
    pub(super) fn id(&self, app: &AppId, stream: Stream) -> String {
        // As older gateways have named it: receivers know it by that.
        let of_marker = if self.is_apart { ":retention" } else { "" };
        format!("{app}:{stream}:{}{of_marker}", Cursor { epoch: self.store, ..self.cursor })
    }

    pub(super) fn content(&self) -> EntryContent {
        EntryContent::of(&self.batch, self.index)
    }

    /// Its text's length, about.
    pub(super) fn size(&self) -> usize {
        match self.content() {
            EntryContent::Event(text) => text.len(),
            EntryContent::PossibleLoss(record) => record.to_string().len(),
        }
    }
}
