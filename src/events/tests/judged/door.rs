//! What the driver asks of the library, and how it is answered; a mutant stands in between.

use std::cell::RefCell;

use delivery_model::{Entry, Gift, Told};

use super::super::*;
use super::book::Book;
use super::house::House;
use super::mutants::{Memory, Mutant, answered};

/// What came of a read.
pub(super) struct Came {
    pub(super) gifts: Vec<Gift>,
    pub(super) told: Told,
    pub(super) lease: Option<LeaseName>,
    /// `None` only for a mutant.
    pub(super) receipt: Option<Receipt>,
}

/// A dead letter: its entry, its attempts, whether it is given again.
pub(super) type Letter = (Entry, u32, bool);

#[derive(Default)]
pub(super) struct Door {
    pub(super) mutant: Option<Mutant>,
    memory: RefCell<Memory>,
    /// Whose each entry is, from the first on; `None`: a marker, or nobody's.
    pub(super) users: RefCell<Vec<Option<u64>>>,
}

impl Door {
    pub(super) fn new(mutant: Option<Mutant>) -> Self {
        Self { mutant, ..Self::default() }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub(super) async fn read(
        &self,
        house: &House,
        book: &Book,
        read: ReadRequest,
        stream: Option<u64>,
    ) -> Result<Came, ReadError> {
        let is_leased = read.ack != Ack::OnHandover;
        let read = self.mutant.map_or(read.clone(), |mutant| mutant.asked(read));
        let number = stream.and_then(StreamNumber::new);
        let delivery = house.events.read_in_stream(&app(), STREAM, read, number).await?;
        let mut entries = entries(&delivery);
        let Delivery { lost, receipt, leased, .. } = delivery;
        let mut attempts = leased.as_ref().map(|leased| leased.attempts.clone()).unwrap_or_default();
        if lost > 0 {
            entries.remove(0);
            attempts.drain(..attempts.len().min(1));
        }
        let attempt = |n: usize| attempts.get(n).copied().filter(|_| is_leased);
        let gifts = entries.iter().enumerate().map(|(n, &entry)| Gift { entry, attempt: attempt(n) }).collect();
        let told = if lost > 0 { Told::Lost(Some(lost)) } else { Told::Nothing };
        let mut came = Came { gifts, told, lease: leased.map(|leased| leased.name), receipt: Some(receipt) };
        if let Some(mutant) = self.mutant
            && !came.gifts.is_empty()
        {
            let mut memory = self.memory.borrow_mut();
            answered(mutant, (&house.events, book), &mut came, (&mut memory, &self.users.borrow()));
        }
        Ok(came)
    }

    /// `entries`: what it is about, as far as the caller knows. Says how many were changed; a mutant may not.
    pub(super) async fn ack(
        &self,
        house: &House,
        book: &Book,
        what: &Holding,
        entries: &[Entry],
    ) -> Result<Option<u64>, AckError> {
        let name = book.name.to_string();
        let mine = |&&at: &&Entry| self.memory.borrow().redelivered.contains(&(name.clone(), at));
        if self.is(Mutant::AckIsForgotten) || (self.is(Mutant::RedeliveredTwice) && entries.iter().any(|at| mine(&at)))
        {
            self.memory.borrow_mut().redelivered.clear();
            return Ok(None);
        }
        let acked = house.events.acknowledge(&app(), STREAM, &book.name, what).await?;
        if self.is(Mutant::AckOfOneMore) {
            let next = entries.last().map_or(1, |last| last + 1);
            let one = Holding::Entries(vec![house.cursor(next)]);
            let _ = house.events.acknowledge(&app(), STREAM, &book.name, &one).await;
        }
        Ok(Some(acked + u64::from(self.is(Mutant::AckIsMiscounted))))
    }

    pub(super) async fn nack(
        &self,
        house: &House,
        book: &Book,
        (what, entries): (&Holding, &[Entry]),
        delay: Duration,
    ) -> Result<Option<u64>, AckError> {
        if self.is(Mutant::NackIsForgotten) {
            return Ok(None);
        }
        if !delay.is_zero() {
            let waits = entries.iter().map(|&at| (book.name.to_string(), at));
            self.memory.borrow_mut().waits.extend(waits);
        }
        let delay = if self.is(Mutant::NackWithoutDelay) { Duration::ZERO } else { delay };
        house.events.give_back(&app(), STREAM, &book.name, what, delay).await.map(Some)
    }

    pub(super) fn extend(
        &self,
        house: &House,
        book: &Book,
        what: &Holding,
        lease: Duration,
    ) -> Result<Option<u64>, AckError> {
        if self.is(Mutant::ExtensionIsForgotten) {
            return Ok(None);
        }
        house.events.extend(&app(), STREAM, &book.name, what, lease).map(Some)
    }

    pub(super) async fn seek(&self, house: &House, book: &Book, to: StartAt) -> Result<Entry, ReadError> {
        let name = book.name.to_string();
        let Sequence(at) = house.log().place(to).await?;
        let cursor = |at| StartAt::After(house.cursor(at));
        let (earliest, next) = house.range();
        let instead = match self.mutant {
            Some(Mutant::SeekIsForgotten) => return Ok(at),
            Some(Mutant::SeekIsOffByOne) if at > earliest => cursor(at - 1),
            Some(Mutant::SeekIsOffByOne) if at + 1 < next => cursor(at + 1),
            Some(Mutant::SeekLeavesWhatWaits) => {
                let mut memory = self.memory.borrow_mut();
                let waits = memory.waits.iter().find(|(of, entry)| *of == name && *entry <= at && *entry >= earliest);
                let first = waits.map(|&(_, entry)| entry);
                memory.waits.retain(|(of, _)| *of != name);
                first.map_or(to, |entry| cursor(entry - 1))
            }
            _ => to,
        };
        let came = house.events.seek(&app(), STREAM, &book.name, instead).await?;
        Ok(if self.mutant.is_some() { at } else { came.at.0 })
    }

    pub(super) async fn remove(&self, house: &House, book: &Book) -> Result<(), ReadError> {
        if self.is(Mutant::RemovalIsForgotten) {
            return Ok(());
        }
        house.events.remove(&app(), STREAM, &book.name).await
    }

    pub(super) async fn letters(&self, house: &House, book: &Book) -> Result<Vec<Letter>, ReadError> {
        let letters = house.events.dead_letters(&app(), STREAM, &book.name, None, 1000).await?;
        let each = letters.iter().map(|letter| (letter.cursor.at.0, letter.attempts, letter.is_redelivering));
        Ok(each.skip(usize::from(self.is(Mutant::LetterIsHidden))).collect())
    }

    pub(super) async fn redeliver(
        &self,
        house: &House,
        book: &Book,
        which: Option<&[Entry]>,
    ) -> Result<Option<u64>, ReadError> {
        let listed = match self.mutant {
            Some(_) => house.events.dead_letters(&app(), STREAM, &book.name, None, 1000).await?,
            None => Vec::new(),
        };
        let all = || listed.iter().filter(|letter| !letter.is_redelivering).map(|letter| letter.cursor.at.0).collect();
        let meant: Vec<Entry> = which.map_or_else(all, <[Entry]>::to_vec);
        if self.is(Mutant::RedeliveryIsForgotten) {
            return Ok(None);
        }
        self.memory.borrow_mut().redelivered.extend(meant.into_iter().map(|at| (book.name.to_string(), at)));
        let which =
            which.map_or(Redeliver::All, |these| Redeliver::These(these.iter().map(|&at| house.cursor(at)).collect()));
        house.events.redeliver(&app(), STREAM, &book.name, which).await.map(Some)
    }

    pub(super) async fn clear(&self, house: &House, book: &Book, one: Option<Entry>) -> Result<Option<u64>, ReadError> {
        if self.is(Mutant::LetterStays) {
            return Ok(None);
        }
        let one = one.map(|at| house.cursor(at));
        house.events.clear_dead_letters(&app(), STREAM, &book.name, one).await.map(Some)
    }

    pub(super) fn resume(&self, house: &House, book: &Book, last: Entry) -> Result<(), ReadError> {
        if self.is(Mutant::WordIsForgotten) {
            return Ok(());
        }
        let last = (house.cursor(last), true);
        house.events.resume((&app(), STREAM), &book.name, last, &[])
    }
}

/// The numbers of the entries in a delivery.
fn entries(delivery: &Delivery) -> Vec<Entry> {
    let numbers = |run: &Run| run.entries.clone().map(|entry| run.batch.first.0 + entry as u64).collect::<Vec<_>>();
    delivery.runs.iter().flat_map(numbers).collect()
}
