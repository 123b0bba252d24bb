//! [`ClientBooks`]: who uses a bucket's seats, and who waits for them.
//!
//! Invariants:
//!
//! - A seat is its client's from when it was given until it is settled, and counts as used by it if something may have
//!   been sent with it: once, in the name of the client in whose line it was given, whoever shares what it was for.
//! - Time waited is added up by those who wait, as it passes: a client that never gets a seat is seen to wait.
//! - The series of the metrics are the books; nothing is counted twice. They are looked up when a client comes for the
//!   first time.
//! - There is a book for each client that ever came, as far as there is room for its series, and one for all others.

use std::collections::VecDeque;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use crate::kernel::fast_map::FastMap;
use crate::kernel::metrics::{ClientBucketLabels, Metrics, OTHER, SecondsTotal};
use crate::kernel::names::{AppId, BucketName, ClientName};

/// What was used in so much time is added up.
const SLOT: Duration = Duration::from_secs(5);

/// So many of them are a minute, the one that has just begun included.
const SLOTS: u64 = 12;

/// As what a bucket's clients are shown in the metrics.
#[derive(Clone)]
pub(crate) struct BucketLabel {
    pub(crate) metrics: Metrics,
    pub(crate) app: AppId,
    pub(crate) bucket: BucketName,
}

/// What one client has used of a bucket.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ClientUse {
    /// Its name; `$pollers` for the gateway's own reads, `other` for all for whose own books there was no room.
    pub client: String,
    /// Seats that it has used since the process began.
    pub seats: u64,
    /// Of these, in the last minute: 55 to 60 s.
    pub seats_last_minute: u64,
    /// Seats that it has now: what was sent with them is not answered yet.
    pub in_flight: u32,
    /// Its orders that wait in line. One that several clients share waits in the line of each.
    pub waiting: u32,
    /// How long its orders have waited in line, added up, those that wait still included.
    pub waited_seconds: f64,
}

/// The books of one bucket.
pub(super) struct ClientBooks {
    began: Instant,
    label: Option<BucketLabel>,
    books: Vec<ClientBook>,
    places: FastMap<ClientName, BookId>,
    /// That of all for whom there was no room.
    others: Option<BookId>,
}

/// Whose book it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct BookId(usize);

struct ClientBook {
    /// `None`: of all others.
    client: Option<ClientName>,
    series: ClientSeries,
    in_flight: u32,
    waiting: u32,
    /// Up to when the time of those who wait is in the series.
    waited_to: Instant,
    recent: RecentSeats,
}

/// The series of one client and bucket.
#[derive(Default)]
struct ClientSeries {
    used: Counter,
    /// In seconds.
    waited: SecondsTotal,
    waiting: Gauge,
}

impl ClientBooks {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, label: None, books: Vec::new(), places: FastMap::default(), others: None }
    }

    /// Counts in these series from now on.
    pub(super) fn show_as(&mut self, label: BucketLabel, now: Instant) {
        let is_same = |old: &BucketLabel| old.app == label.app && old.bucket == label.bucket;
        if self.label.as_ref().is_some_and(is_same) {
            return;
        }
        self.label = Some(label);
        for at in 0..self.books.len() {
            let series = self.books[at].client.as_ref().map_or_else(
                || self.series_of_others(),
                |client| self.series(client).unwrap_or_else(|| self.series_of_others()),
            );
            self.books[at].move_to(series, now);
        }
    }

    /// The book of a client, begun now unless it has one.
    pub(super) fn of(&mut self, client: &ClientName, now: Instant) -> BookId {
        if let Some(book) = self.places.get(client) {
            return *book;
        }
        let book = match (self.series(client), self.others) {
            (Some(series), _) => self.begin(Some(client.clone()), series, now),
            (None, Some(others)) => others,
            (None, None) => {
                let others = self.begin(None, self.series_of_others(), now);
                self.others = Some(others);
                others
            }
        };
        self.places.insert(client.clone(), book);
        book
    }

    /// A seat was given.
    pub(super) fn given(&mut self, book: BookId) {
        self.books[book.0].in_flight += 1;
    }

    /// What became of it is known.
    pub(super) fn settled(&mut self, book: BookId, is_used: bool, now: Instant) {
        let slot = self.slot(now);
        let book = &mut self.books[book.0];
        book.in_flight = book.in_flight.saturating_sub(1);
        if is_used {
            book.series.used.inc();
            book.recent.add(slot);
        }
    }

    /// One more waits.
    pub(super) fn came(&mut self, book: BookId, now: Instant) {
        let book = &mut self.books[book.0];
        book.wait_to(now);
        book.waiting += 1;
        book.series.waiting.inc();
    }

    /// One waits no longer.
    pub(super) fn left(&mut self, book: BookId, now: Instant) {
        let book = &mut self.books[book.0];
        book.wait_to(now);
        book.waiting = book.waiting.saturating_sub(1);
        book.series.waiting.dec();
    }

    /// Brings the time waited up to now in all of them.
    pub(super) fn advance(&mut self, now: Instant) {
        self.books.iter_mut().for_each(|book| book.wait_to(now));
    }

    /// All of them: who used most in the last minute first, then who used most.
    pub(super) fn look(&mut self, now: Instant) -> Vec<ClientUse> {
        self.advance(now);
        let slot = self.slot(now);
        let mut all: Vec<_> = self.books.iter().map(|book| book.look(slot)).collect();
        all.sort_by(|a, b| (b.seats_last_minute, b.seats, &a.client).cmp(&(a.seats_last_minute, a.seats, &b.client)));
        all
    }

    fn begin(&mut self, client: Option<ClientName>, series: ClientSeries, now: Instant) -> BookId {
        let recent = RecentSeats::default();
        self.books.push(ClientBook { client, series, in_flight: 0, waiting: 0, waited_to: now, recent });
        BookId(self.books.len() - 1)
    }

    /// `None`: there is no room for them.
    fn series(&self, client: &ClientName) -> Option<ClientSeries> {
        match &self.label {
            None => Some(ClientSeries::default()),
            Some(label) => {
                let (series, is_own) = label.series(client.as_str());
                is_own.then_some(series)
            }
        }
    }

    fn series_of_others(&self) -> ClientSeries {
        self.label.as_ref().map_or_else(ClientSeries::default, |label| label.series(OTHER).0)
    }

    fn slot(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() / SLOT.as_secs()
    }
}

impl BucketLabel {
    /// The series of a client, and whether they are its own: where there are too many they are those of [`OTHER`].
    fn series(&self, client: &str) -> (ClientSeries, bool) {
        let Self { metrics, app, bucket } = self;
        let (app, bucket, client) = (app.to_string(), bucket.to_string(), client.to_owned());
        let labels = ClientBucketLabels { app, bucket, client };
        let series = ClientSeries {
            used: metrics.client_seats.get_or_create(&labels),
            waited: metrics.client_seat_wait.get_or_create(&labels),
            waiting: metrics.client_seats_waiting.get_or_create(&labels),
        };
        // A client of that name has no series of its own: with books of its own the view would show the same twice.
        let is_own = labels.client != OTHER && metrics.client_seats.has(&labels);
        (series, is_own)
    }
}

impl ClientBook {
    fn wait_to(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.waited_to);
        self.waited_to = now;
        if self.waiting > 0 {
            self.series.waited.inc_by(passed.as_secs_f64() * f64::from(self.waiting));
        }
    }

    fn move_to(&mut self, series: ClientSeries, now: Instant) {
        self.wait_to(now);
        self.series.waiting.dec_by(i64::from(self.waiting));
        series.waiting.inc_by(i64::from(self.waiting));
        self.series = series;
    }

    fn look(&self, slot: u64) -> ClientUse {
        ClientUse {
            client: self.client.as_ref().map_or(OTHER, ClientName::as_str).to_owned(),
            seats: self.series.used.get(),
            seats_last_minute: self.recent.sum(slot),
            in_flight: self.in_flight,
            waiting: self.waiting,
            waited_seconds: self.series.waited.get(),
        }
    }
}

/// How many seats were used in each slot of the last minute in which there were any.
#[derive(Default)]
struct RecentSeats(VecDeque<(u64, u64)>);

impl RecentSeats {
    fn add(&mut self, slot: u64) {
        match self.0.back_mut() {
            Some((last, seats)) if *last == slot => *seats += 1,
            _ => self.0.push_back((slot, 1)),
        }
        while self.0.front().is_some_and(|(first, _)| first + SLOTS <= slot) {
            self.0.pop_front();
        }
    }

    fn sum(&self, slot: u64) -> u64 {
        self.0.iter().filter(|(at, _)| at + SLOTS > slot).map(|(_, seats)| seats).sum()
    }
}
