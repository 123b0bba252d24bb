//! Notes: small things that services keep beside a log, by kind and name.
//!
//! Invariant: a note that cannot be read is told of and passed over. It must not keep the others, or a start, from
//! going on.

use bytes::Bytes;
use redb::{ReadTransaction, Table, WriteTransaction};

use super::engine::failed;
use super::record::{Key, decode_note, encode_note};
use super::tables::{self, NOTES};
use crate::store::{Error, NoteKind};

/// Which notes are asked for.
#[derive(Clone, Debug)]
pub(super) struct NoteQuery {
    pub(super) kind: NoteKind,
    pub(super) prefix: String,
    pub(super) after: String,
    pub(super) most: usize,
}

/// The notes of a log, in order of their names.
pub(super) fn read(tx: &ReadTransaction, log: u32, wanted: &NoteQuery) -> Result<Vec<(String, Bytes)>, Error> {
    let NoteQuery { kind, prefix, after, most } = wanted;
    let Some(table) = tables::existing(tx, NOTES)? else { return Ok(Vec::new()) };
    let from = prefix.as_str().max(after.as_str());
    let mut found = Vec::new();
    for entry in table.range((log, *kind as u8, from)..).map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        let (of, of_kind, name) = key.value();
        if of != log || of_kind != *kind as u8 || !name.starts_with(prefix.as_str()) || found.len() == *most {
            break;
        }
        if name == after {
            continue;
        }
        match decode_note(Key::Note(log, of_kind, name), value.value()) {
            Ok(note) => found.push((name.to_owned(), note)),
            Err(error) => tracing::error!(%error, "a stored note cannot be read"),
        }
    }
    Ok(found)
}

/// Keeps notes, and removes those for which there is `None`.
pub(super) fn keep(
    tx: &WriteTransaction,
    log: u32,
    kind: NoteKind,
    notes: &[(String, Option<Bytes>)],
) -> Result<(), Error> {
    let mut table = tx.open_table(NOTES).map_err(failed)?;
    notes.iter().try_for_each(|(name, note)| put(&mut table, (log, kind as u8), name, note.as_ref()))
}

/// Keeps a note, or removes it.
pub(super) fn put(
    table: &mut Table<'_, (u32, u8, &'static str), &'static [u8]>,
    (log, kind): (u32, u8),
    name: &str,
    note: Option<&Bytes>,
) -> Result<(), Error> {
    match note {
        Some(note) => {
            let value = encode_note(Key::Note(log, kind, name), note);
            table.insert((log, kind, name), value.as_slice()).map_err(failed)?;
        }
        None => {
            table.remove((log, kind, name)).map_err(failed)?;
        }
    }
    Ok(())
}
