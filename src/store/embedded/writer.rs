//! The writer: the one task that changes the store. What waits together is committed together, with one sync.
//!
//! Invariants:
//! - A change is answered only after its commit is on stable storage, and only then do readers see it.
//! - A group is committed whole or not at all; the numbers of its batches follow those that were acknowledged.
//! - After a commit that failed, the file is opened anew and set back to what was acknowledged, and the group is tried
//!   once more. If that fails too, every change of the group is answered with the error and the store is as it was.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redb::WriteTransaction;
use tokio::sync::{mpsc, oneshot};

use super::engine::failed;
use super::places::PlacesTables;
use super::record::{Key, Row, encode_batch, encode_row, room};
use super::shared::Shared;
use super::tables::{BATCHES, LOGS};
use super::{notes, places, quarantine, trim};
use crate::kernel::names::SubscriptionName;
use crate::kernel::task::{Lane, Tasks};
use crate::store::{Batch, Commit, Error, LogKey, NewBatch, Sequence};

/// Changes in one commit, at most: of as many subscribers as acknowledge at a time.
const GROUP: usize = 1024;
/// Bytes of content in one commit, about: a group takes no more changes once it holds these.
const GROUP_BYTES: usize = 16 << 20;
/// The size a probe writes: larger than any batch that is usual.
const PROBE: usize = 1 << 20;

pub(super) type Ack<T> = oneshot::Sender<Result<T, Error>>;

/// What the writer is asked to do.
pub(super) enum Command {
    /// Shares its commit with others.
    Write(Write),
    /// Mends the engine if it is broken.
    Mend(Ack<()>),
    /// Mends the engine and tries whether it can keep a batch.
    Probe(Ack<()>),
    /// Keeps numbers under names, or removes them.
    Facts(Vec<(Cow<'static, str>, Option<u64>)>, Ack<()>),
    /// Records a clean stop at that time, and ends.
    Close(u64, Ack<()>),
}

/// A change, and who waits for it.
pub(super) struct Write {
    pub(super) change: Change,
    pub(super) ack: Ack<Outcome>,
}

pub(super) enum Change {
    All(Vec<(LogKey, Commit)>),
    Rename(LogKey, SubscriptionName, SubscriptionName),
    Trim(LogKey, trim::Limits),
}

/// How a change was done.
pub(super) enum Outcome {
    /// The batches of each part.
    Stored(Vec<Vec<Arc<Batch>>>),
    Renamed,
    Trimmed {
        /// Whether another step has more to remove.
        more: bool,
    },
}

impl Write {
    fn size(&self) -> usize {
        match &self.change {
            Change::All(parts) => parts.iter().map(|(_, all)| all.size()).sum(),
            Change::Rename(..) | Change::Trim(..) => 0,
        }
    }
}

/// Runs until it is told to close, or nobody is left who could ask for anything. A stop of its tasks does not end it:
/// those who append must end first.
pub(super) async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Command>, tasks: Tasks) {
    let lane = Lane::new("store-writer", 1);
    let mut next = queue.recv().await;
    while let Some(command) = next.take() {
        let mut group = Vec::new();
        let mut bytes = 0;
        let mut control = None;
        let mut taken = Some(command);
        while let Some(command) = taken.take() {
            match command {
                Command::Write(write) => {
                    bytes += write.size();
                    group.push(write);
                }
                other => {
                    control = Some(other);
                    break;
                }
            }
            // What came while the last commit was synced is there by now. Nothing is waited for: an append alone is not
            // held up.
            if group.len() < GROUP && bytes < GROUP_BYTES {
                taken = queue.try_recv().ok();
            }
        }
        let ends = matches!(control, Some(Command::Close(..)));
        let at = shared.clone();
        let work = move || {
            let done = if group.is_empty() { Vec::new() } else { commit(&at, group) };
            // They are told before who asked for what comes after.
            let Some(control) = control else { return done };
            tell(done);
            obey(&at, control);
            Vec::new()
        };
        match tasks.blocking(&lane, work).await {
            // Here: to wake a thousand tasks from a thread that is none of the runtime's costs the more, and this task
            // is woken anyway.
            Ok(done) => tell(done),
            // The engine met what it holds to be impossible. Those who wait learn it from their dropped acks.
            Err(_) => shared.note(Error::Damaged("the engine panicked".into())),
        }
        if ends {
            return;
        }
        next = queue.recv().await;
    }
}

fn obey(shared: &Shared, command: Command) {
    // Whoever asked may have left.
    let _ = match command {
        Command::Write(write) => return tell(commit(shared, vec![write])),
        Command::Mend(ack) => ack.send(shared.mend()),
        // More than a look at free space: a disk may take small writes and refuse large ones, as a quota does.
        Command::Probe(ack) => {
            let tried = shared.twice(|| shared.engine.probe(PROBE));
            if tried.is_ok() {
                shared.well();
            }
            ack.send(tried)
        }
        Command::Facts(facts, ack) => ack.send(shared.twice(|| shared.engine.change_facts(&facts))),
        Command::Close(now, ack) => {
            let recorded = shared.twice(|| shared.engine.record_clean_stop(now));
            shared.closed.store(true, Ordering::Release);
            shared.engine.close();
            ack.send(recorded)
        }
    };
}

/// What is to be told of a commit, to whom.
type Told = (Ack<Outcome>, Result<Outcome, Error>);

fn tell(told: Vec<Told>) {
    for (ack, done) in told {
        // Whoever asked may have left.
        let _ = ack.send(done);
    }
}

fn commit(shared: &Shared, group: Vec<Write>) -> Vec<Told> {
    let acks = |group: Vec<Write>| group.into_iter().map(|write| write.ack);
    match shared.twice(|| attempt(shared, &group)) {
        Ok((rows, done)) => {
            // Before the acks: who is told of its entries must find them.
            shared.publish(rows);
            acks(group).zip(done.into_iter().map(Ok)).collect()
        }
        Err(error) => acks(group).map(|ack| (ack, Err(error.clone()))).collect(),
    }
}

type Rows = HashMap<LogKey, Row>;

fn attempt(shared: &Shared, group: &[Write]) -> Result<(Rows, Vec<Outcome>), Error> {
    shared.engine.commit(|tx| {
        let mut changed = PendingRows { shared, rows: Rows::new(), free_id: shared.free_id() };
        // The changes of a group see each other: two appends to one log must get numbers that follow each other.
        let mut done = Vec::with_capacity(group.len());
        let mut open = None;
        for write in group {
            done.push(match &write.change {
                Change::All(parts) if parts.iter().all(|(_, all)| all.is_of_places()) => {
                    let tables = match &mut open {
                        Some(tables) => tables,
                        None => open.insert(PlacesTables::open(tx)?),
                    };
                    for (log, all) in parts {
                        tables.change(changed.row(log).id, &all.places)?;
                    }
                    Outcome::Stored(vec![Vec::new(); parts.len()])
                }
                change => {
                    // It opens what it needs by itself.
                    open = None;
                    apply(tx, &mut changed, change)?
                }
            });
        }
        drop(open);
        let mut rows = changed.rows;
        // To acknowledge changes nothing of a log.
        rows.retain(|log, row| shared.row(log) != Some(*row));
        if !rows.is_empty() {
            let mut logs = tx.open_table(LOGS).map_err(failed)?;
            for (log, row) in &rows {
                let name = name(log);
                logs.insert(name.as_str(), encode_row(Key::Log(&name), row).as_slice()).map_err(failed)?;
            }
        }
        Ok((rows, done))
    })
}

/// A log's name in the table of logs.
pub(super) fn name(log: &LogKey) -> String {
    format!("{}/{}", log.app, log.stream)
}

/// The logs that a group changes, as they are by now.
struct PendingRows<'a> {
    shared: &'a Shared,
    rows: Rows,
    free_id: u32,
}

impl PendingRows<'_> {
    fn row(&mut self, log: &LogKey) -> &mut Row {
        self.rows.entry(log.clone()).or_insert_with(|| {
            self.shared.row(log).unwrap_or_else(|| {
                self.free_id += 1;
                Row::empty(self.free_id - 1)
            })
        })
    }
}

fn apply(tx: &WriteTransaction, changed: &mut PendingRows<'_>, change: &Change) -> Result<Outcome, Error> {
    match change {
        Change::All(parts) => {
            let stored = parts.iter().map(|(log, all)| store(tx, changed.row(log), all));
            stored.collect::<Result<_, _>>().map(Outcome::Stored)
        }
        Change::Rename(log, from, to) => places::rename(tx, changed.row(log).id, from, to).map(|()| Outcome::Renamed),
        Change::Trim(log, limits) => trim::step(tx, changed.row(log), *limits).map(|more| Outcome::Trimmed { more }),
    }
}

fn store(tx: &WriteTransaction, row: &mut Row, all: &Commit) -> Result<Vec<Arc<Batch>>, Error> {
    let Commit { batches, notes, places, quarantined, redelivered } = all;
    if let Some((kind, notes)) = notes {
        notes::keep(tx, row.id, *kind, notes)?;
    }
    if !places.is_empty() {
        PlacesTables::open(tx)?.change(row.id, places)?;
    }
    if let Some(kept) = quarantined {
        quarantine::keep(tx, row, kept)?;
    }
    if let Some((id, delivered)) = redelivered {
        quarantine::redelivered(tx, row, *id, *delivered)?;
    }
    batches.iter().map(|new| append(tx, row, new)).collect()
}

fn append(tx: &WriteTransaction, row: &mut Row, new: &NewBatch) -> Result<Arc<Batch>, Error> {
    let batch = Batch {
        first: Sequence(row.next),
        received_at: new.received_at,
        region: new.region.clone(),
        content: new.content.clone(),
    };
    let last = batch.last().0;
    // The wall clock may go back. The highest time so far is kept with each batch, so that a search by time can be
    // binary.
    row.high = row.high.max(batch.received_at.0);
    let value = encode_batch(Key::Batch(row.id, last), &batch, row.high);
    let mut table = tx.open_table(BATCHES).map_err(failed)?;
    table.insert((row.id, last), value.as_slice()).map_err(failed)?;
    row.bytes += room(value.len());
    row.next = last + 1;
    Ok(Arc::new(batch))
}
