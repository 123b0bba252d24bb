//! The whole of a case: the library, its subscriptions and their models, what has occurred, and chance.

use std::cell::{Cell, RefCell};

use delivery_model::{Entry, Hand, Millis, What};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::*;
use super::Profile;
use super::book::{Book, KINDS, Kind};
use super::door::Door;
use super::house::House;
use super::mutants::Mutant;
use super::seam::{Trouble, Weather};
use crate::kernel::testing::pass;

/// Events of so many users, and of nobody.
const USERS: u64 = 5;

pub(super) struct Stage {
    /// `None` only between two runs.
    house: Option<House>,
    pub(super) door: Door,
    pub(super) books: Vec<Book>,
    pub(super) profile: Profile,
    random: RefCell<StdRng>,
    began: Instant,
    hands: Cell<Hand>,
    numbers: Cell<u64>,
    appending: tokio::sync::Mutex<()>,
    /// Whether nothing else is asked meanwhile.
    pub(super) is_alone: Cell<bool>,
    /// Whether writes hang, until it is killed.
    pub(super) is_hanging: Cell<bool>,
    pub(super) operations: Cell<u64>,
    pub(super) wrong: RefCell<Vec<String>>,
}

impl Stage {
    pub(super) async fn new(profile: Profile, seed: u64, mutant: Option<Mutant>) -> Self {
        let mut config = config(&[]);
        config.events.retention = Duration::from_secs(365 * 24 * 3600);
        if profile.cuts() {
            config.events.retention_bytes = 900;
        }
        let house = House::begin(profile == Profile::Folder, config, mutant, seed).await;
        // What a filter does not admit is not told to the model: it cannot be counted as lost.
        let kinds = KINDS.into_iter().filter(|&kind| kind != Kind::Picky || !profile.cuts());
        let stage = Self {
            house: Some(house),
            door: Door::new(mutant),
            books: kinds.map(|kind| Book::new(kind, &profile)).collect(),
            profile,
            random: RefCell::new(StdRng::seed_from_u64(seed)),
            began: Instant::now(),
            hands: Cell::default(),
            numbers: Cell::default(),
            appending: tokio::sync::Mutex::default(),
            is_alone: Cell::new(true),
            is_hanging: Cell::new(false),
            operations: Cell::default(),
            wrong: RefCell::default(),
        };
        stage.weather(Trouble::None);
        stage
    }

    pub(super) fn house(&self) -> &House {
        self.house.as_ref().expect("there is one")
    }

    pub(super) fn now(&self) -> Millis {
        self.began.elapsed().as_millis() as Millis
    }

    pub(super) fn below(&self, most: u64) -> u64 {
        self.random.borrow_mut().random_range(0..most)
    }

    pub(super) fn is_so(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<T: Copy>(&self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    pub(super) fn hand(&self) -> Hand {
        self.hands.set(self.hands.get() + 1);
        self.hands.get()
    }

    pub(super) fn is_wrong(&self, book: &Book, what: String) {
        self.wrong.borrow_mut().push(book.with_told(&format!("{:?} at {}: {what}", book.kind, self.now())));
    }

    /// The last entry of the log.
    pub(super) fn head(&self) -> Entry {
        self.house().range().1 - 1
    }

    pub(super) fn weather(&self, trouble: Trouble) {
        self.is_hanging.set(matches!(trouble, Trouble::Hangs { .. }));
        self.house().seam.set(Weather { slow: self.profile.slow(), trouble });
        let now = self.now();
        self.books.iter().for_each(|book| book.note(format!("{now}: {trouble:?}")));
    }

    pub(super) fn calm(&self) {
        self.house().seam.set(Weather::default());
    }

    pub(super) async fn pause(millis: u64) {
        pass(Duration::from_millis(millis)).await;
    }

    /// Events of some users occur, or a marker.
    pub(super) async fn append(&self) {
        let _turn = self.appending.lock().await;
        let (from, first) = (self.now(), self.head() + 1);
        let (content, users) = if self.is_so(8) {
            (Content::PossibleLoss("reset".to_owned()), vec![None])
        } else {
            let users: Vec<u64> = (0..=self.below(6)).map(|_| self.below(USERS)).collect();
            let event = |&user: &u64| {
                self.numbers.set(self.numbers.get() + 1);
                let whose = if user == 0 { String::new() } else { format!(r#","user_id":"u{user}""#) };
                format!(r#"{{"n":{}{whose},"type":"Login"}}"#, self.numbers.get())
            };
            let events: Vec<String> = users.iter().map(event).collect();
            let text = EventText::join(events.iter().map(|event| event.as_bytes())).unwrap();
            (Content::Events(text), users.into_iter().map(Some).collect())
        };
        for (entry, &user) in (first..).zip(&users) {
            let whose = user.filter(|&user| user > 0);
            self.door.users.borrow_mut().push(whose);
            for book in self.books.iter().filter(|book| book.wants(user)) {
                book.model.borrow_mut().stored(entry, whose.unwrap_or(0), from);
            }
        }
        let received_at = self.house().events.0.parts.shared.clock.wall_ms();
        let new = NewBatch { received_at, region: RegionName::parse("cn").unwrap(), content };
        self.house().stream().append(&AppendRequest::new(vec![new], None)).await.unwrap();
    }

    /// Tells where the log begins.
    pub(super) fn look_at_the_beginning(&self) {
        if self.profile.cuts() {
            let (at, now) = (self.house().range().0, self.now());
            self.books.iter().for_each(|book| book.did((now, now), What::Earliest(at)));
        }
    }

    pub(super) fn judge(&self) {
        let now = self.now();
        for book in self.books.iter().filter(|book| book.lingers.get() < now) {
            let complaints = book.judge(now);
            self.wrong.borrow_mut().extend(complaints);
        }
    }

    /// What is on its way arrives, or does not.
    async fn settle_all(&self) {
        for book in &self.books {
            while !book.pending.borrow().is_empty() {
                self.end_one(book);
            }
        }
        Self::pause(1).await;
    }

    fn ended(&self, (from, to): (Millis, Millis), how: &What) {
        for book in &self.books {
            book.did((from, to), how.clone());
            let (last, _) = book.has.get();
            book.has.set((last, last.is_some()));
            book.stream.set(book.stream.get() + 1);
        }
    }

    pub(super) async fn restart(&mut self) {
        self.calm();
        self.settle_all().await;
        if self.books.iter().any(|book| book.lingers.get() >= self.now()) {
            Self::pause(super::LINGER).await;
        }
        self.look_at_the_beginning();
        Self::pause(1).await;
        let from = self.now();
        let seed = self.below(u64::MAX);
        let house = self.house.take().expect("there is one").stop(seed).await;
        self.house = Some(house);
        self.ended((from, self.now()), &What::Stopped);
        self.weather(Trouble::None);
        Self::pause(1).await;
        self.judge();
    }

    /// Ends without a word.
    pub(super) async fn kill(&mut self) {
        let from = self.now();
        self.house().drop_tasks().await;
        let to = self.now();
        self.books.iter().for_each(|book| book.pending.borrow_mut().clear());
        let seed = self.below(u64::MAX);
        let house = self.house.take().expect("there is one").reopen(false, seed).await;
        self.house = Some(house);
        self.ended((from, to), &What::Killed);
        self.weather(Trouble::None);
        Self::pause(1).await;
        self.look_at_the_beginning();
        Self::pause(1).await;
        self.judge();
    }
}
