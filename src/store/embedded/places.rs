//! Where subscriptions stand: cursors, by log and name, and the notes on them; and their renaming.
//!
//! Invariants: a subscription is changed, renamed or removed with all that is kept of it, in one commit. A store in
//! which one has a client's name (`$client.NAME`) says so by its format: versions that do not know these names would
//! take them for damage, so they refuse it before they change anything.

use redb::{ReadTransaction, ReadableTable as _, Table, WriteTransaction};

use super::engine::{failed, with_names_of_clients};
use super::notes;
use super::record::{Key, decode_note, decode_number, encode_number};
use super::tables::{CURSORS, NOTES};
use crate::kernel::names::SubscriptionName;
use crate::store::{Error, NoteKind, PlaceChange, Sequence};

/// All cursors of a log.
pub(super) fn all(tx: &ReadTransaction, log: u32) -> Result<Vec<(SubscriptionName, Sequence)>, Error> {
    let table = tx.open_table(CURSORS).map_err(failed)?;
    let mut found = Vec::new();
    for entry in table.range((log, "")..).map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        let (of, name) = key.value();
        if of != log {
            break;
        }
        let at = Sequence(decode_number(Key::Cursor(log, name), value.value())?);
        let name =
            SubscriptionName::parse_stored(name).map_err(|e| Error::Damaged(format!("a subscription's name {e}")))?;
        found.push((name, at));
    }
    Ok(found)
}

/// The tables of subscriptions, open in a commit for as long as only those are changed: a thousand acknowledgements
/// that share a commit open them once.
pub(super) struct PlacesTables<'tx> {
    tx: &'tx WriteTransaction,
    cursors: Table<'tx, (u32, &'static str), &'static [u8]>,
    notes: NotesTable<'tx>,
    /// Whether the format says that clients' names are there.
    says_clients: bool,
}

impl<'tx> PlacesTables<'tx> {
    pub(super) fn open(tx: &'tx WriteTransaction) -> Result<Self, Error> {
        let cursors = tx.open_table(CURSORS).map_err(failed)?;
        let notes = tx.open_table(NOTES).map_err(failed)?;
        Ok(Self { tx, cursors, notes, says_clients: false })
    }

    /// Changes what is kept of subscriptions, in this order.
    pub(super) fn change(&mut self, log: u32, changes: &[PlaceChange]) -> Result<(), Error> {
        let is_of_client = |change: &PlaceChange| matches!(change, PlaceChange::Cursor(name, _) if name.is_of_client());
        if !self.says_clients && changes.iter().any(is_of_client) {
            with_names_of_clients(self.tx)?;
            self.says_clients = true;
        }
        let Self { cursors, notes, .. } = self;
        for change in changes {
            match change {
                PlaceChange::Cursor(name, at) => {
                    let value = encode_number(Key::Cursor(log, name.as_str()), at.0);
                    cursors.insert((log, name.as_str()), value.as_slice()).map_err(failed)?;
                }
                PlaceChange::Note(kind, name, note) => notes::put(notes, (log, *kind as u8), name, note.as_ref())?,
                PlaceChange::Removed(name) => {
                    for kind in NoteKind::of_subscriptions() {
                        for note in names_on(notes, (log, kind as u8), name.as_str())? {
                            notes::put(notes, (log, kind as u8), &note, None)?;
                        }
                    }
                    cursors.remove((log, name.as_str())).map_err(failed)?;
                }
            }
        }
        Ok(())
    }
}

/// Moves a cursor, and the notes of its subscription, to another name. Nothing is done when there is no cursor.
pub(super) fn rename(
    tx: &WriteTransaction,
    log: u32,
    from: &SubscriptionName,
    to: &SubscriptionName,
) -> Result<(), Error> {
    let at = {
        let cursors = tx.open_table(CURSORS).map_err(failed)?;
        let Some(value) = cursors.get((log, from.as_str())).map_err(failed)? else { return Ok(()) };
        Sequence(decode_number(Key::Cursor(log, from.as_str()), value.value())?)
    };
    for kind in NoteKind::of_subscriptions() {
        rename_notes(tx, (log, kind as u8), from.as_str(), to.as_str())?;
    }
    tx.open_table(CURSORS).map_err(failed)?.remove((log, from.as_str())).map_err(failed)?;
    PlacesTables::open(tx)?.change(log, &[PlaceChange::Cursor(to.clone(), at)])
}

type NotesTable<'tx> = Table<'tx, (u32, u8, &'static str), &'static [u8]>;

/// The names of the notes on a subscription: its own, and those below.
fn names_on(table: &NotesTable<'_>, (log, kind): (u32, u8), of: &str) -> Result<Vec<String>, Error> {
    let below = format!("{of}/");
    let mut names = Vec::new();
    if table.get((log, kind, of)).map_err(failed)?.is_some() {
        names.push(of.to_owned());
    }
    for entry in table.range((log, kind, below.as_str())..).map_err(failed)? {
        let key = entry.map_err(failed)?.0;
        let (of_log, of_kind, name) = key.value();
        if (of_log, of_kind) != (log, kind) || !name.starts_with(&below) {
            break;
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn rename_notes(tx: &WriteTransaction, (log, kind): (u32, u8), from: &str, to: &str) -> Result<(), Error> {
    let mut table = tx.open_table(NOTES).map_err(failed)?;
    for name in names_on(&table, (log, kind), from)? {
        let note = match table.get((log, kind, name.as_str())).map_err(failed)? {
            Some(value) => decode_note(Key::Note(log, kind, &name), value.value()),
            None => continue,
        };
        let note = match note {
            Ok(note) => note,
            // It stays where it is, and is told of whenever it is read.
            Err(error) => {
                tracing::error!(%error, "a stored note cannot be read");
                continue;
            }
        };
        table.remove((log, kind, name.as_str())).map_err(failed)?;
        let name = format!("{to}{}", &name[from.len()..]);
        notes::put(&mut table, (log, kind), &name, Some(&note))?;
    }
    Ok(())
}
