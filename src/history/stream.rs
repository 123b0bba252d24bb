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
//! without one of the last two lines was cut.
//!
//! Invariants:
//! - The pager runs in a task of its own, so that what is under way at the vendor ends, and gives its seats back, while
//!   the reader takes nothing; but it asks for more only when what it has was taken. A reader that leaves ends it.
//! - A stream waits for the quota, in line with everybody; it ends when the vendor stalls, or the gateway stops.
//! - It holds none of the places of [`super::jobs`]; how many there are is bounded by [`super::streams`].

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::cursor::{self, Question};
use super::pager::Pager;
use super::resolver::{Patience, Resolver};
use super::steady::Steady;
use super::streams::Place;
use super::tally::Tally;
use super::{Error, History, Terms, query, render};
use crate::egress::Failure;
use crate::metrics::{AppLabels, StreamEndLabels};
use crate::names::AppId;
use crate::task::Kind;

/// After so long without a line the last cursor is given again: the reader, and what is between, see that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A part of a stream.
#[derive(Clone, Debug)]
pub enum Part {
    /// Whole lines, in pieces.
    Lines(Vec<Bytes>),
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
}

impl Stream for Messages {
    type Item = Part;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Part>> {
        match self.first.take() {
            Some(part) => Poll::Ready(Some(part)),
            None => self.parts.poll_recv(cx),
        }
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
            patience: Patience::Stream { stall: settings.deadline },
            tally: Tally::default(),
        };
        let pages = inner.metrics.history_stream_pages.get_or_create_owned(&AppLabels { app: app.to_string() });
        let pages = Arc::new(Steady { resolver, stall: settings.deadline, pages });
        let (sender, mut parts) = mpsc::channel(1);
        let writer = Writer {
            pager: Pager::resume(pages, &query, after),
            history: self.clone(),
            app: app.clone(),
            question,
            sender,
            draining,
            messages: 0,
            cursor: String::new(),
            _place: place,
        };
        inner.tasks.spawn(Kind::Resolver, writer.work());
        match timeout_at(terms.deadline, parts.recv()).await {
            Ok(Some(Part::Broken { error, .. })) => Err(error),
            // Its task was forced to end.
            Ok(None) => Err(Failure::Stopping.into()),
            Ok(first) => Ok(Messages { first, parts }),
            Err(_) => Ok(Messages { first: None, parts }),
        }
    }
}

/// A stream under way.
struct Writer {
    pager: Pager<Steady>,
    history: History,
    app: AppId,
    question: Question,
    sender: mpsc::Sender<Part>,
    draining: CancellationToken,
    /// How many were given.
    messages: u64,
    /// The last that was given, or is to be.
    cursor: String,
    _place: Place,
}

/// The reader left.
struct Left;

impl Writer {
    async fn work(mut self) {
        self.cursor = self.place().unwrap_or_default();
        let end = match self.give_all().await {
            Ok(Ok(())) => "complete",
            Ok(Err(error)) => {
                let cursor = std::mem::take(&mut self.cursor);
                tracing::debug!(app = %self.app, why = %error, "a history stream broke");
                let _ = self.give(Part::Broken { error, cursor }).await;
                "broken"
            }
            Err(Left) => "left",
        };
        let metrics = &self.history.0.metrics;
        let labels = StreamEndLabels { app: self.app.to_string(), end: end.into() };
        metrics.history_streams.get_or_create(&labels).inc();
        metrics
            .history_stream_repairs
            .get_or_create(&AppLabels { app: self.app.to_string() })
            .inc_by(self.pager.repairs());
    }

    async fn give_all(&mut self) -> Result<Result<(), Error>, Left> {
        let counter = AppLabels { app: self.app.to_string() };
        let counter = self.history.0.metrics.history_stream_messages.get_or_create_owned(&counter);
        loop {
            let messages = match self.next().await? {
                Ok(Some(messages)) => messages,
                Ok(None) => {
                    let line = render::end_line(self.messages, &self.cursor);
                    self.give(Part::Lines(vec![line])).await?;
                    return Ok(Ok(()));
                }
                Err(error) => return Ok(Err(error)),
            };
            self.messages += messages.len() as u64;
            counter.inc_by(messages.len() as u64);
            let place = self.place();
            let lines = render::lines(&messages, place.as_deref());
            // Where no cursor can be given the last one stays good.
            self.cursor = place.unwrap_or_else(|| std::mem::take(&mut self.cursor));
            self.give(Part::Lines(lines)).await?;
        }
    }

    /// The next messages; says meanwhile that it lives.
    async fn next(&mut self) -> Result<Result<Option<Vec<Bytes>>, Error>, Left> {
        let stopping = self.history.0.tasks.stopping();
        let mut next = pin!(self.pager.next());
        loop {
            tokio::select! {
                biased;
                () = self.sender.closed() => return Err(Left),
                () = self.draining.cancelled() => return Ok(Err(Failure::Stopping.into())),
                () = stopping.cancelled() => return Ok(Err(Failure::Stopping.into())),
                next = &mut next => return Ok(next),
                () = sleep(HEARTBEAT) => {
                    // A reader that has not taken the last part needs no sign of life.
                    let _ = self.sender.try_send(Part::Lines(vec![render::cursor_line(&self.cursor)]));
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
            room = self.sender.reserve() => room.map(|room| room.send(part)).map_err(|_| Left),
            () = settle => Err(Left),
        }
    }

    fn place(&self) -> Option<String> {
        cursor::write(self.question, self.pager.place())
    }
}
