//! Messages of any number, as they come: lines of text, in order, with places to go on from.
//!
//! | line                                     | says                                                              |
//! | ---------------------------------------- | ----------------------------------------------------------------- |
//! | a message, as the vendor wrote it        |                                                                   |
//! | `{"cursor":"…"}`                         | all messages before it are given: one can go on here               |
//! | `{"end":true,"messages":N,"cursor":"…"}` | there are no more; the last line                                   |
//! | `{"error":{…},"cursor":"…"}`             | the stream broke; go on from `cursor`; the last line               |
//!
//! A message always has its time (`ms`, or `ts`), the other lines never do: so they cannot be taken for one another. A text
//! without one of the last two lines was cut. While there is nothing to say a space comes now and then, in front of the next
//! line.
//!
//! Invariants:
//! - The pager runs in a task of its own, so that what is under way at the vendor ends, and gives its seats back, while
//!   the reader takes nothing; but it asks for more only when what it has was taken. A reader that leaves ends it.
//! - A stream waits for the quota, in line with everybody; it ends when the vendor stalls, when the gateway stops, and when
//!   what let its reader in has expired or was withdrawn: then nothing more is asked, and nothing that lies ready is given.
//! - It holds none of the places of [`super::jobs`]; how many there are is bounded by [`super::streams`].

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::cursor::{self, Question};
use super::pager::Pager;
use super::resolver::{Patience, Resolver};
use super::retrying_pages::RetryingPages;
use super::streams::Place;
use super::tally::Tally;
use super::{Error, History, Terms, query, render};
use crate::kernel::metrics::{AppLabels, StreamEndLabels};
use crate::kernel::names::AppId;
use crate::kernel::proof::Proof;
use crate::kernel::task::Kind;
use crate::upstream::egress::Failure;

/// After so long without a line a space is given: the reader, and what is between, see that it lives. It says nothing of
/// where one can go on: readers keep cursors, and a cursor belongs right behind the messages that it stands for.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A part of a stream.
#[derive(Clone, Debug)]
pub enum Part {
    /// Whole lines, in pieces; or a sign of life, in front of the next.
    Lines {
        /// The text.
        pieces: Vec<Bytes>,
        /// Where to go on after them.
        cursor: String,
    },
    /// It broke: there is nothing after this.
    Broken {
        /// Why.
        error: Error,
        /// Where to go on.
        cursor: String,
    },
}

/// A stream of messages. Dropped, it asks for nothing more.
#[derive(Debug)]
pub struct Messages {
    first: Option<Part>,
    parts: mpsc::Receiver<Part>,
    proof: Proof,
    /// Where to go on after what was given.
    cursor: String,
    is_over: bool,
}

impl Messages {
    /// The next part; `None` after the last. What lies ready is given only if what let the caller in still stands.
    pub async fn next(&mut self) -> Option<Part> {
        if self.is_over {
            return None;
        }
        let part = match self.first.take() {
            Some(part) => part,
            None => self.parts.recv().await?,
        };
        let Part::Lines { pieces, cursor } = part else {
            self.is_over = true;
            return Some(part);
        };
        if let Err(how) = self.proof.stands().await {
            self.is_over = true;
            self.parts.close();
            let cursor = std::mem::take(&mut self.cursor);
            return Some(Part::Broken { error: Failure::from(how).into(), cursor });
        }
        self.cursor.clone_from(&cursor);
        Some(Part::Lines { pieces, cursor })
    }
}

impl History {
    /// `GET /v1/apps/{app}/history`: reads the decoded query parameters and begins to stream. Returns when there is
    /// something to say: lines, why there are none, or that it takes longer than a heartbeat or the terms' deadline, which
    /// bound nothing else. `draining` ends it.
    ///
    /// # Errors
    /// What went wrong before the first line; see [`Error`].
    pub async fn stream(
        &self,
        app: &AppId,
        parameters: &[(String, String)],
        terms: Terms,
        draining: CancellationToken,
    ) -> Result<Messages, Error> {
        let inner = &self.0;
        let (vendor, settings) = self.settings(app)?;
        let (query, cursor) = query::parse_stream(parameters)?;
        let question = cursor::question(app, &query);
        let after = cursor.map(|text| cursor::read(text, question, query.direction)).transpose()?.flatten();
        let place = inner.streams.enter(&terms.payer.client)?;
        let resolver = Resolver {
            door: Arc::clone(&inner.door),
            clock: inner.clock.clone(),
            metrics: inner.metrics.clone(),
            app: app.clone(),
            vendor,
            payer: terms.payer,
            sharers: None,
            proof: Some(terms.proof.clone()),
            patience: Patience::Stream { stall: settings.deadline },
            pauses: inner.pauses.clone(),
            sent: None,
            tally: Tally::default(),
        };
        let pages = inner.metrics.history_stream_pages.get_or_create_owned(&AppLabels { app: app.to_string() });
        let pages = Arc::new(RetryingPages { resolver, stall: settings.deadline, pages });
        let (sender, mut parts) = mpsc::channel(1);
        let writer = Writer {
            pager: Pager::resume(pages, &query, after),
            history: self.clone(),
            app: app.clone(),
            question,
            sender,
            draining,
            proof: terms.proof.clone(),
            messages: 0,
            cursor: String::new(),
            _place: place,
        };
        let cursor = writer.place();
        inner.tasks.spawn(Kind::Resolver, writer.work());
        let first = match timeout_at(terms.deadline, parts.recv()).await {
            Ok(Some(Part::Broken { error, .. })) => return Err(error),
            // Its task was forced to end.
            Ok(None) => return Err(Failure::Stopping.into()),
            Ok(first) => first,
            Err(_) => None,
        };
        terms.proof.stands().await.map_err(Failure::from)?;
        Ok(Messages { first, parts, proof: terms.proof, cursor, is_over: false })
    }
}

/// A stream under way.
struct Writer {
    pager: Pager<RetryingPages>,
    history: History,
    app: AppId,
    question: Question,
    sender: mpsc::Sender<Part>,
    draining: CancellationToken,
    proof: Proof,
    /// How many were given.
    messages: u64,
    /// The last that was given, or is to be.
    cursor: String,
    _place: Place,
}

/// Why nothing more is given.
enum Left {
    /// The reader left.
    Reader,
    /// What let it in stands no more, and a part lies ready: in the place of that the reader is told so.
    Ended,
}

impl Writer {
    async fn work(mut self) {
        self.cursor = self.place();
        let ended = self.give_all().await;
        let Self { pager, history, app, sender, cursor, .. } = self;
        let (metrics, labels) = (&history.0.metrics, AppLabels { app: app.to_string() });
        metrics.history_stream_repairs.get_or_create(&labels).inc_by(pager.repairs());
        // Nothing more is asked for.
        drop(pager);
        let end = match ended {
            Ok(Ok(())) => "complete",
            Ok(Err(error)) => {
                tracing::debug!(%app, why = %error, "a history stream broke");
                // A reader that left needs no reason.
                let _ = sender.send(Part::Broken { error, cursor }).await;
                "broken"
            }
            Err(Left::Reader) => "left",
            Err(Left::Ended) => "broken",
        };
        metrics.history_streams.get_or_create(&StreamEndLabels { app: app.to_string(), end: end.into() }).inc();
    }

    async fn give_all(&mut self) -> Result<Result<(), Error>, Left> {
        let counter = AppLabels { app: self.app.to_string() };
        let counter = self.history.0.metrics.history_stream_messages.get_or_create_owned(&counter);
        loop {
            let messages = match self.next().await? {
                Ok(Some(messages)) => messages,
                Ok(None) => {
                    let line = render::end_line(self.messages, &self.cursor);
                    self.give(Part::Lines { pieces: vec![line], cursor: self.cursor.clone() }).await?;
                    return Ok(Ok(()));
                }
                Err(error) => return Ok(Err(error)),
            };
            self.messages += messages.len() as u64;
            counter.inc_by(messages.len() as u64);
            let cursor = self.place();
            let lines = render::lines(&messages, &cursor);
            self.cursor = cursor;
            self.give(Part::Lines { pieces: lines, cursor: self.cursor.clone() }).await?;
        }
    }

    /// The next messages; says meanwhile that it lives.
    async fn next(&mut self) -> Result<Result<Option<Vec<Bytes>>, Error>, Left> {
        let stopping = self.history.0.tasks.stopping();
        let mut next = pin!(self.pager.next());
        loop {
            tokio::select! {
                biased;
                () = self.sender.closed() => return Err(Left::Reader),
                how = self.proof.ended() => return Ok(Err(Failure::from(how).into())),
                () = self.draining.cancelled() => return Ok(Err(Failure::Stopping.into())),
                () = stopping.cancelled() => return Ok(Err(Failure::Stopping.into())),
                next = &mut next => return Ok(next),
                () = sleep(HEARTBEAT) => {
                    // A reader that has not taken the last part needs no sign of life.
                    let pieces = vec![render::ALIVE];
                    let _ = self.sender.try_send(Part::Lines { pieces, cursor: self.cursor.clone() });
                }
            }
        }
    }

    /// Gives a part when the one before was taken. What is under way at the vendor goes on to its end meanwhile.
    async fn give(&mut self, part: Part) -> Result<(), Left> {
        let settle = async {
            self.pager.settle().await;
            std::future::pending().await
        };
        tokio::select! {
            biased;
            room = self.sender.reserve() => room.map(|room| room.send(part)).map_err(|_| Left::Reader),
            _ = self.proof.ended() => Err(Left::Ended),
            () = settle => Err(Left::Reader),
        }
    }

    fn place(&self) -> String {
        cursor::write(self.question, self.pager.place())
    }
}
