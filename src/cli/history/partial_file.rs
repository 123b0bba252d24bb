//! The file of an export under way: `FILE.part`, and beside it `FILE.part.json`, which says how far it is.
//!
//! Invariants:
//! - The record is written after what it speaks of was synced, and is replaced in one step: at any instant of a crash
//!   it tells a length of the part up to which all is there, and the cursor behind it.
//! - What lies beyond that length is cut off before anything is added: no message is in the file twice.
//! - After a write that failed nothing is added and nothing is recorded: where what was written ends is not known.
//! - An export of other messages does not go on here, nor does a second one at the same time.
//! - FILE is only ever a complete export: it gets its name last.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::packed::Packer;

/// What an export asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExportRequest {
    /// SHA-256 of all that tells one export from another.
    pub(super) digest: String,
    /// The window, fixed when the export began.
    pub(super) window: Window,
    /// Whether it is packed.
    pub(super) is_packed: bool,
}

/// From when to when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window {
    pub(super) start_time: String,
    pub(super) end_time: String,
}

/// How far an export is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    digest: String,
    window: Window,
    /// Bytes of the part.
    length: u64,
    messages: u64,
    /// Where the next begin; none at the beginning.
    cursor: Option<String>,
}

/// Why a file cannot be exported to.
#[derive(Debug, thiserror::Error)]
pub(super) enum PartialFileError {
    /// There is one of that name.
    #[error("{0} is there already: name another, remove it, or replace it with --restart")]
    IsThere(PathBuf),
    /// It was begun for other messages.
    #[error("{0} was begun with another app, filter, order or form: ask for the same, or begin anew with --restart")]
    OfOthers(PathBuf),
    /// Its record is missing, or does not fit.
    #[error("{0} cannot be gone on with: its record (.json) is missing or does not fit it. Begin anew with --restart")]
    NoRecord(PathBuf),
    /// Another process has it.
    #[error("{0} is being written by another export")]
    InUse(PathBuf),
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

/// A file under way.
#[derive(Debug)]
pub(super) struct PartialFile {
    path: PathBuf,
    part: PathBuf,
    record_path: PathBuf,
    file: File,
    packer: Packer,
    record: Record,
    /// What the record on the disk says.
    kept: Record,
    /// Bytes written, synced or not.
    written: u64,
    is_changed: bool,
    /// A write failed.
    is_torn: bool,
}

impl PartialFile {
    /// Begins, or goes on where the record says.
    pub(super) fn begin(path: &Path, request: &ExportRequest, restart: bool) -> Result<Self, PartialFileError> {
        let (part, record_path) = (beside(path, ".part"), beside(path, ".part.json"));
        let io = |why| PartialFileError::Io(part.clone(), why);
        if !restart && path.exists() {
            return Err(PartialFileError::IsThere(path.to_owned()));
        }
        let was_there = part.exists();
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&part).map_err(io)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(PartialFileError::InUse(part)),
            locked => locked.map_err(|why| io(why.into()))?,
        }
        // A record without its part is of an export that was killed when it had just got its name.
        let found = if restart || !was_there { None } else { read_record(&record_path).map_err(io)? };
        let record = match found {
            Some(Ok(record)) if record.digest != request.digest => return Err(PartialFileError::OfOthers(part)),
            Some(Ok(record)) if record.length > file.metadata().map_err(io)?.len() => {
                return Err(PartialFileError::NoRecord(part));
            }
            Some(Ok(record)) => record,
            Some(Err(BadRecord)) => return Err(PartialFileError::NoRecord(part)),
            // Whose it is cannot be told. An empty one is nobody's loss.
            None if was_there && !restart && file.metadata().map_err(io)?.len() > 0 => {
                return Err(PartialFileError::NoRecord(part));
            }
            None => {
                let (digest, window) = (request.digest.clone(), request.window.clone());
                Record { version: VERSION, digest, window, length: 0, messages: 0, cursor: None }
            }
        };
        // What was written and not recorded comes again, for the cursor is the record's.
        file.set_len(record.length).map_err(io)?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        let written = record.length;
        let packer = Packer::new(request.is_packed);
        let kept = record.clone();
        let (is_changed, is_torn, path) = (false, false, path.to_owned());
        let opened = Self { path, part, record_path, file, packer, record, kept, written, is_changed, is_torn };
        // From the first byte on there is a record.
        opened.keep_record().map_err(|why| PartialFileError::Io(opened.record_path.clone(), why))?;
        Ok(opened)
    }

    /// The window that it was begun with.
    pub(super) fn window(&self) -> &Window {
        &self.record.window
    }

    /// Messages that are in it; after a failed write, those that are recorded.
    pub(super) fn messages(&self) -> u64 {
        if self.is_torn { self.kept.messages } else { self.record.messages }
    }

    /// Where the next messages begin.
    pub(super) fn cursor(&self) -> Option<&str> {
        if self.is_torn { self.kept.cursor.as_deref() } else { self.record.cursor.as_deref() }
    }

    /// Where it is.
    pub(super) fn part(&self) -> &Path {
        &self.part
    }

    /// Adds all messages up to a cursor.
    pub(super) fn append(&mut self, text: Vec<u8>, messages: u64, cursor: &str) -> io::Result<()> {
        self.is_changed |= messages > 0 || self.record.cursor.as_deref() != Some(cursor);
        if !text.is_empty() {
            let bytes = self.packer.push(text);
            self.write(&bytes)?;
        }
        self.record.messages += messages;
        self.record.cursor = Some(cursor.to_owned());
        Ok(())
    }

    /// Makes sure that what was added stays, and that an export can go on behind it.
    pub(super) fn checkpoint(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.is_changed) {
            return self.intact();
        }
        // A gzip member has to end here, or what lies before the record's length could not be unpacked.
        let end = self.packer.end();
        self.write(&end)?;
        // Before the record: one that speaks of bytes that are not on the disk would be gone on with after a crash.
        self.or_torn(|part| part.file.sync_data())?;
        self.record.length = self.written;
        self.or_torn(|part| part.keep_record())?;
        self.kept = self.record.clone();
        Ok(())
    }

    /// It is complete: gives it its name.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.checkpoint()?;
        if self.written == 0 {
            let empty = self.packer.empty();
            self.write(&empty)?;
        }
        self.or_torn(|part| part.file.sync_all())?;
        // The name first, then the record goes: killed between them, the next run finds a complete file.
        fs::rename(&self.part, &self.path)?;
        fs::remove_file(&self.record_path)?;
        sync_folder(&self.path)
    }

    /// Nothing is in it: leaves nothing behind.
    pub(super) fn discard(self) {
        // What cannot be removed is empty, and is begun anew.
        let _ = fs::remove_file(&self.part);
        let _ = fs::remove_file(&self.record_path);
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.or_torn(|part| part.file.write_all(bytes))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Does something that the file is in doubt after when it fails.
    fn or_torn(&mut self, act: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        self.intact()?;
        let done = act(self);
        self.is_torn = done.is_err();
        done
    }

    fn intact(&self) -> io::Result<()> {
        if self.is_torn { Err(io::Error::other("a write failed before")) } else { Ok(()) }
    }

    fn keep_record(&self) -> io::Result<()> {
        let new = beside(&self.record_path, ".new");
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(&self.record)?)?;
            file.sync_data()?;
            fs::rename(&new, &self.record_path)
        };
        // What could not be written is left to nobody.
        write().inspect_err(|_| drop(fs::remove_file(&new)))?;
        sync_folder(&self.record_path)
    }
}

const VERSION: u32 = 1;

/// A record that cannot be read.
struct BadRecord;

fn read_record(path: &Path) -> io::Result<Option<Result<Record, BadRecord>>> {
    match fs::read(path) {
        Ok(text) => {
            let record = serde_json::from_slice(&text).ok().filter(|record: &Record| record.version == VERSION);
            Ok(Some(record.ok_or(BadRecord)))
        }
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
        Err(why) => Err(why),
    }
}

fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}

/// A new name stays.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
