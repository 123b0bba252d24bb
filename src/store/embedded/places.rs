//! Where subscriptions stand: cursors, by log and name; and their renaming.
//!
//! Invariants: a subscription is renamed with all that is kept of it, in one commit. A store in which one has a client's
//! name (`$client.NAME`) says so by its format: versions that do not know these names would take them for damage, so they
//! refuse it before they change anything.

use redb::{ReadTransaction, ReadableTable as _, WriteTransaction};

use super::engine::{failed, with_names_of_clients};
use super::record::{Key, decode_note, decode_number, encode_note, encode_number};
use super::tables::{CURSORS, NOTES};
use crate::names::SubscriptionName;
use crate::store::{Error, NoteKind, Sequence};

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

/// Keeps a cursor.
pub(super) fn keep(tx: &WriteTransaction, log: u32, name: &SubscriptionName, at: Sequence) -> Result<(), Error> {
    if name.is_of_client() {
        with_names_of_clients(tx)?;
    }
    let value = encode_number(Key::Cursor(log, name.as_str()), at.0);
    let mut table = tx.open_table(CURSORS).map_err(failed)?;
    table.insert((log, name.as_str()), value.as_slice()).map_err(failed)?;
    Ok(())
}

/// Removes a cursor, if there is one.
pub(super) fn forget(tx: &WriteTransaction, log: u32, name: &SubscriptionName) -> Result<(), Error> {
    tx.open_table(CURSORS).map_err(failed)?.remove((log, name.as_str())).map_err(failed)?;
    Ok(())
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
    forget(tx, log, from)?;
    keep(tx, log, to, at)
}

fn rename_notes(tx: &WriteTransaction, (log, kind): (u32, u8), from: &str, to: &str) -> Result<(), Error> {
    let mut table = tx.open_table(NOTES).map_err(failed)?;
    let below = format!("{from}/");
    let mut names = Vec::new();
    if table.get((log, kind, from)).map_err(failed)?.is_some() {
        names.push(from.to_owned());
    }
    for entry in table.range((log, kind, below.as_str())..).map_err(failed)? {
        let key = entry.map_err(failed)?.0;
        let (of, of_kind, name) = key.value();
        if (of, of_kind) != (log, kind) || !name.starts_with(&below) {
            break;
        }
        names.push(name.to_owned());
    }
    for name in names {
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
        let value = encode_note(Key::Note(log, kind, &name), &note);
        table.insert((log, kind, name.as_str()), value.as_slice()).map_err(failed)?;
    }
    Ok(())
}
