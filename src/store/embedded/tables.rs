//! The tables of the data file: one list, from which a store is made, looked at, backed up and measured.
//!
//! Invariant: the file has no table beside this list, so none can be left out of a copy.

use redb::{ReadOnlyTable, ReadTransaction, ReadableTableMetadata as _, TableDefinition, TableError, TableHandle as _};

use super::engine::failed;
use crate::store::Error;

/// Who knows how much room a table takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// The rows of the logs say it.
    InRows,
    /// It is measured when somebody asks.
    Measured,
}

/// What is done with each table.
pub(super) trait Visitor {
    fn table<K: redb::Key + 'static>(
        &mut self,
        table: TableDefinition<'static, K, &'static [u8]>,
        room: Room,
    ) -> Result<(), Error>;
}

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident($key:ty) = $text:literal, $room:ident;)*) => {
        $($(#[$doc])* pub(super) const $name: TableDefinition<'static, $key, &[u8]> = TableDefinition::new($text);)*

        /// Shows all tables to a visitor.
        pub(super) fn each(visitor: &mut impl Visitor) -> Result<(), Error> {
            $(visitor.table($name, Room::$room)?;)*
            Ok(())
        }
    };
}

tables! {
    /// Batches by log and the number of their last entry.
    BATCHES((u32, u64)) = "batches", InRows;
    /// Rows of logs by `app/stream`.
    LOGS(&str) = "logs", Measured;
    /// Cursors by log and subscription.
    CURSORS((u32, &str)) = "cursors", Measured;
    /// Notes by log, kind and name. Stores of before there were notes have none: see [`existing`].
    NOTES((u32, u8, &str)) = "notes", Measured;
    /// Quarantined responses, in pieces, by log and number.
    QUARANTINE((u32, u64)) = "quarantine", InRows;
    /// What is said of each quarantined response, by log and the number of its last piece. Stores of before responses
    /// were kept in pieces have none.
    QUARANTINE_HEADS((u32, u64)) = "quarantine heads", Measured;
    /// The store's own facts.
    META(&str) = "meta", Measured;
}

/// A table, as a snapshot has it. `None`: the store is from before there was such a table.
pub(super) fn existing<K: redb::Key + 'static>(
    tx: &ReadTransaction,
    table: TableDefinition<'_, K, &'static [u8]>,
) -> Result<Option<ReadOnlyTable<K, &'static [u8]>>, Error> {
    match tx.open_table(table) {
        Err(TableError::TableDoesNotExist(name)) if [NOTES.name(), QUARANTINE_HEADS.name()].contains(&&*name) => {
            Ok(None)
        }
        table => table.map(Some).map_err(failed),
    }
}

/// Whether all tables are there and of their kinds.
pub(super) fn check(tx: &ReadTransaction) -> Result<(), Error> {
    struct Check<'a>(&'a ReadTransaction);

    impl Visitor for Check<'_> {
        fn table<K: redb::Key + 'static>(
            &mut self,
            table: TableDefinition<'static, K, &'static [u8]>,
            _: Room,
        ) -> Result<(), Error> {
            existing(self.0, table).map(drop)
        }
    }

    each(&mut Check(tx))
}

/// The room of the tables that the logs' rows do not speak of. Reads all their pages.
pub(super) fn measured(tx: &ReadTransaction) -> Result<u64, Error> {
    struct Measure<'a>(&'a ReadTransaction, u64);

    impl Visitor for Measure<'_> {
        fn table<K: redb::Key + 'static>(
            &mut self,
            table: TableDefinition<'static, K, &'static [u8]>,
            room: Room,
        ) -> Result<(), Error> {
            if room == Room::Measured
                && let Some(table) = existing(self.0, table)?
            {
                let stats = table.stats().map_err(failed)?;
                self.1 += stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes();
            }
            Ok(())
        }
    }

    let mut measure = Measure(tx, 0);
    each(&mut measure)?;
    Ok(measure.1)
}
