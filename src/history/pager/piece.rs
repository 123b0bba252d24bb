//! [`PieceReader`]: a piece of the list that holds all of one millisecond, where a series' next page does not join on.
//!
//! Invariant: what comes out is an unbroken piece of the list that begins at or before the given millisecond and goes
//! beyond it, or to the list's end; or an error, when the list moves faster than it can be read.

use std::time::Duration;

use tokio::time::sleep;

use super::PAGE;
use super::list_end::{EndProbe, ListEnd};
use super::list_reader::{ListReader, Pages};
use super::plain_reading::{PlainReading, SecondReading};
use super::run::{self, Message, NotJoined, Run};
use super::series::JoinedPage;
use crate::history::error::Error;
use crate::kernel::backoff::Backoff;
use crate::vendor::history::Filter;

/// How often it is tried because the list moved meanwhile, and the wait after the first time.
pub(super) const MAX_TRIES: u32 = 8;
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Above the last of so many waits.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// How often the same messages may come in another order when they are read a second time.
const MAX_REORDERED: u32 = 3;

/// How often in a row a page of a piece may be asked for again further ahead.
const MAX_BACKS: u32 = 4;

/// So many pages in a row may bring hardly anything: less than any vendor's page holds.
const MAX_FRUITLESS: u32 = 16;
const HARDLY: usize = 4;

/// Most messages of one millisecond, so that an absurd list cannot take all memory.
const MAX_MESSAGES: usize = 100_000;

/// Where a piece may begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// Anywhere: nothing that is wanted lies before it.
    Any,
    Before,
}

/// What was read of a series.
enum Piece {
    /// All of the millisecond, and more.
    Whole(WholePiece),
    /// It begins too late.
    Late,
    /// A page does not join on those before. The last that begins before the millisecond is at that offset.
    Torn(u64),
}

/// A piece that holds all of the millisecond.
#[derive(Default)]
pub(super) struct WholePiece {
    pub(super) messages: Vec<Message>,
    /// The list ends with it.
    pub(super) is_last: bool,
    /// Its last page, if that was not full.
    pub(super) short: Option<ShortPage>,
}

/// A page that was not full: whether the list ends there is to be found out before more is asked for.
#[derive(Clone, Copy)]
pub(super) struct ShortPage {
    pub(super) length: usize,
    /// It brought something new.
    pub(super) is_new: bool,
}

/// Reads pieces of a list.
pub(super) struct PieceReader<'a, P> {
    pub(super) reader: &'a mut ListReader<P>,
    pub(super) end: &'a mut EndProbe,
}

impl<P: Pages> PieceReader<'_, P> {
    /// Reads a window from an offset on until a message lies beyond `ms` or the list ends. The page there may have been
    /// taken already. Nothing when it begins too late.
    pub(super) async fn read_whole(
        &mut self,
        filter: &Filter,
        offset: u64,
        ms: u64,
        mut taken: Option<(u64, Vec<Message>)>,
        head: Head,
    ) -> Result<Option<WholePiece>, Error> {
        let (mut backoff, mut reordered) = (Backoff::new(FIRST_WAIT, MAX_WAIT), 0);
        for _ in 0..MAX_TRIES {
            if taken.is_none() {
                self.reader.series.begin_anew(filter.clone(), offset);
            }
            let from = match self.read_beyond(ms, taken.take(), head).await? {
                Piece::Whole(piece) => return Ok(Some(piece)),
                Piece::Late => return Ok(None),
                Piece::Torn(from) => from,
            };
            // What is in flight would stand still, and keep seats, while this is awaited.
            self.reader.series.in_flight.clear();
            let piece = PlainReading::read(self.reader, filter, from, ms).await?;
            let begins_before = piece.messages.first().is_some_and(|first| self.reader.is_before(first.ms, ms));
            if head == Head::Before && !begins_before {
                return Ok(None);
            }
            // What expired meanwhile has moved the millisecond's first messages before that offset: from here on they
            // would be missing.
            if from != offset && !begins_before {
                sleep(backoff.next_wait()).await;
                continue;
            }
            match piece.again(self.reader, filter, from, ms).await? {
                // Twice nothing is no proof: perhaps it was read behind the end of a list that has moved.
                SecondReading::Same { .. } if piece.messages.is_empty() => {}
                SecondReading::Moved if head == Head::Before => return Ok(None),
                SecondReading::Same { number, is_last } => {
                    let mut messages = piece.messages;
                    messages.truncate(number);
                    self.reader.series.begin_anew(filter.clone(), from.saturating_add(number as u64));
                    self.reader.series.go_on();
                    return Ok(Some(WholePiece { messages, is_last, short: None }));
                }
                SecondReading::Reordered => reordered += 1,
                SecondReading::Moved => {}
            }
            if reordered == MAX_REORDERED {
                return Err(untold());
            }
            sleep(backoff.next_wait()).await;
        }
        Err(moving())
    }

    /// Reads a series from its beginning, page by page that join on, until a message lies beyond `ms` or the list ends.
    async fn read_beyond(
        &mut self,
        ms: u64,
        mut taken: Option<(u64, Vec<Message>)>,
        head: Head,
    ) -> Result<Piece, Error> {
        let (mut read, mut piece, mut from): (Option<Run>, Vec<Message>, u64) =
            (None, Vec::new(), self.reader.series.at);
        let (mut torn, mut backs, mut is_joined) = (None, 0, false);
        let mut fruitless = 0;
        loop {
            let (offset, page) = match taken.take() {
                Some(taken) => taken,
                None => self.reader.next_of_series().await?,
            };
            let (length, crowd) = (page.len(), run::most_of_one(&page));
            let is_before = page.first().is_some_and(|first| self.reader.is_before(first.ms, ms));
            if is_before {
                from = offset;
            }
            let new = match &read {
                None if page.is_empty() && head == Head::Any => {
                    let short = Some(ShortPage { length: 0, is_new: false });
                    return Ok(Piece::Whole(WholePiece { messages: piece, is_last: false, short }));
                }
                None if head == Head::Any || is_before => page,
                None => {
                    self.reader.series.moved(None);
                    return Ok(Piece::Late);
                }
                Some(read) => match read.join(page, self.reader.series.shared(offset)) {
                    Ok(new) => {
                        backs = if is_joined { 0 } else { backs };
                        is_joined = true;
                        new
                    }
                    Err(NotJoined { page, moved_by }) => {
                        // Begin further ahead, where the page covers the millisecond, but not twice at one place: what
                        // is alike stays alike, and only a plain reading gets past it.
                        is_joined = false;
                        if moved_by > 0 {
                            self.reader.series.moved(Some(moved_by));
                        }
                        let is_near = page.first().is_some_and(|first| first.ms == read.last_ms);
                        match self.reader.series.before(read.crowd.number()) {
                            Some(offset) if is_near && torn != Some(self.reader.series.at) && backs < MAX_BACKS => {
                                (torn, backs) = (Some(self.reader.series.at), backs + 1);
                                self.reader.series.go_back(offset);
                                continue;
                            }
                            _ => return Ok(Piece::Torn(from)),
                        }
                    }
                },
            };
            match &mut read {
                Some(read) => read.advance(&new),
                None => read = Run::begin(self.reader.direction, &new),
            }
            let Some(run) = &read else { return Ok(Piece::Torn(from)) };
            let is_beyond = run.is_beyond(ms);
            self.reader.series.joined(JoinedPage { offset, length, crowd, before: 0, new: new.len() });
            let is_new = !new.is_empty();
            fruitless = if new.len() < HARDLY { fruitless + 1 } else { 0 };
            if fruitless > MAX_FRUITLESS {
                // The list grows in front of it as fast as it is read.
                return Ok(Piece::Torn(from));
            }
            piece.extend(new.into_iter().filter(|message| !self.reader.is_before(message.ms, ms)));
            bounded(piece.len())?;
            let is_over = match length < PAGE && !is_beyond {
                true => self.end.is_over(self.reader, run, is_new).await?,
                false => ListEnd::Beyond,
            };
            if is_over == ListEnd::Moved {
                return Ok(Piece::Torn(from));
            }
            if is_beyond || is_over == ListEnd::Here {
                let is_last = is_over == ListEnd::Here;
                let short = (length < PAGE).then_some(ShortPage { length, is_new });
                self.reader.series.settle_in();
                return Ok(Piece::Whole(WholePiece { messages: piece, is_last, short }));
            }
            if length < self.reader.series.size() {
                self.reader.series.ended_early(length);
            }
        }
    }
}

pub(super) fn moving() -> Error {
    Error::BadUpstream("the list of messages moves faster than it can be read".into())
}

pub(super) fn untold() -> Error {
    Error::BadUpstream("the messages of one millisecond come in another order each time".into())
}

pub(super) fn bounded(messages: usize) -> Result<(), Error> {
    if messages > MAX_MESSAGES {
        return Err(Error::BadUpstream("too many messages in one millisecond".into()));
    }
    Ok(())
}
