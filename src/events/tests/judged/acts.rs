//! What readers and operators do, each told to the model with the times of the request and the answer.

use delivery_model::{Counts, Entry, Gift, How, Leasing, Millis, NEVER, Named, Told, What};

use super::super::*;
use super::book::{Book, Kind, Lease, Pending};
use super::door::Came;
use super::stage::Stage;
use super::{LINGER, MOST};

impl Stage {
    /// Something with a subscription. Not to its end if its reader has no patience.
    pub(super) async fn act(&self, book: &Book, patience: Option<u64>) {
        self.operations.set(self.operations.get() + 1);
        let of_leases = if book.takes_leases() { 60 } else { 0 };
        match self.below(40 + of_leases) {
            0..4 if !self.is_hanging.get() => self.append().await,
            4..7 if !book.pending.borrow().is_empty() => self.end_one(book),
            7..10 if book.kind != Kind::Stream => self.seek_or_remove(book, patience).await,
            10..14 if book.takes_leases() => self.look_at_letters(book, patience).await,
            10..40 if book.kind == Kind::Stream => self.stream(book, patience).await,
            4..30 if matches!(book.kind, Kind::Plain | Kind::Shared | Kind::Mixed) => {
                self.read_plainly(book, patience).await;
            }
            10..65 if book.takes_leases() => self.lease(book, patience).await,
            65..100 => self.say(book, patience).await,
            _ if self.is_hanging.get() => {}
            _ => self.append().await,
        }
    }

    fn read_of(&self, book: &Book, ack: Ack) -> ReadRequest {
        let wait = if self.is_so(80) { 0 } else { self.pick(&[5, 300, 2500]) };
        ReadRequest {
            place: ReadFrom::Subscription { name: book.name.clone(), from: StartAt::Earliest },
            client: ClientName::parse("reader").unwrap(),
            limit: self.pick(&[1, 2, 3, 7, 100]),
            max_bytes: self.pick(&[usize::MAX, usize::MAX, 100]),
            wait: Duration::from_millis(wait),
            markers: true,
            filter: book.filter(),
            ack,
        }
    }

    /// `None`: the reader left before.
    async fn patiently<T>(&self, patience: Option<u64>, work: impl Future<Output = T>) -> Option<T> {
        match patience {
            Some(millis) => tokio::time::timeout(Duration::from_millis(millis), work).await.ok(),
            None => Some(work.await),
        }
    }

    /// Something may have been begun that goes on without who asked for it.
    fn lingers(&self, book: &Book) -> Millis {
        if self.is_hanging.get() || self.profile.takes_no_time() {
            return self.now();
        }
        let until = self.now() + LINGER;
        book.lingers.set(book.lingers.get().max(until));
        until
    }

    /// When something was taken that came now and was asked for then.
    fn taken_at(&self, from: Millis) -> (Millis, Millis) {
        let now = self.now();
        if self.profile.takes_no_time() { (now, now) } else { (from, now) }
    }

    pub(super) async fn read_plainly(&self, book: &Book, patience: Option<u64>) {
        let read = self.read_of(book, Ack::OnHandover);
        let (from, head, is_alone) = (self.now(), self.head(), self.is_alone.get());
        let came = self.patiently(patience, self.door.read(self.house(), book, read, None)).await;
        let when = self.taken_at(from);
        match came {
            Some(Ok(came)) if came.gifts.is_empty() => {
                // Who waited may have been passed by, but not who is alone.
                let up_to = if is_alone && book.pending.borrow().is_empty() && !book.takes_leases() { head } else { 0 };
                book.did((from, when.1), What::Nothing { up_to });
            }
            Some(Ok(came)) => self.plainly_came(book, came, when),
            Some(Err(ReadError::BeingRemoved)) => {}
            Some(Err(ReadError::Store(_))) if self.profile.fails() => {}
            Some(Err(why)) => self.is_wrong(book, format!("a plain read was answered {why}")),
            // It has made the subscription, if there was none.
            None if self.profile.takes_no_time() && !self.is_hanging.get() => {
                book.did((from, from), What::Nothing { up_to: 0 })
            }
            None => {}
        }
    }

    fn plainly_came(&self, book: &Book, came: Came, when: (Millis, Millis)) {
        let Came { gifts, told, receipt, .. } = came;
        let can_wait = book.kind != Kind::Plain && told == Told::Nothing;
        match self.below(10) {
            0..2 if can_wait && receipt.is_some() && book.pending.borrow().len() < 4 => {
                let by = self.in_hand(book, gifts, when);
                let receipt = receipt.expect("it is there");
                book.pending.borrow_mut().push(Pending { receipt, by, is_leased: false });
            }
            2 => {
                // Not even for that time was it anybody else's.
                let by = self.in_hand(book, gifts, when);
                drop(receipt);
                book.did((when.1, when.1), What::Returned { by });
            }
            _ => {
                book.saw(gifts.iter().map(|gift| gift.entry));
                book.did(when, What::Given { how: How::Plain, gifts, told });
                receipt.into_iter().for_each(Receipt::handed_over);
            }
        }
    }

    /// Tells of what is on its way to a plain reader: nobody else has it.
    fn in_hand(&self, book: &Book, gifts: Vec<Gift>, when: (Millis, Millis)) -> u64 {
        let by = self.hand();
        let leasing = Leasing { by, lease: NEVER, most: u32::MAX, counts: Counts::Failing };
        book.did(when, What::Given { how: How::Leased(leasing), gifts, told: Told::Cannot });
        by
    }

    /// An answer on its way arrives, or does not.
    pub(super) fn end_one(&self, book: &Book) {
        let at = self.below(book.pending.borrow().len() as u64) as usize;
        let Pending { receipt, by, is_leased } = book.pending.borrow_mut().swap_remove(at);
        let when = (self.now(), self.now());
        if self.is_so(50) {
            receipt.handed_over();
            if !is_leased {
                book.did(when, What::Taken { by });
            }
        } else {
            drop(receipt);
            book.forget(by);
            book.did(when, What::Returned { by });
        }
    }

    pub(super) async fn lease(&self, book: &Book, patience: Option<u64>) {
        let lease = self.pick(&[700, 1000, 1000, 2000, 3500]);
        let ack = Ack::Explicit { lease: Duration::from_millis(lease), max_attempts: MOST };
        let read = self.read_of(book, ack);
        let (limit, from) = (read.limit, self.now());
        let leasing = Leasing { by: self.hand(), lease, most: MOST, counts: Counts::Taking };
        let came = self.patiently(patience, self.door.read(self.house(), book, read, None)).await;
        let when = self.taken_at(from);
        match came {
            Some(Ok(came)) => self.leases_came(book, came, leasing, when),
            Some(Err(ReadError::BeingRemoved)) => {}
            Some(Err(ReadError::Store(_))) if self.profile.fails() => {
                book.did((from, when.1), What::Broke { how: How::Leased(leasing), seen: Vec::new(), limit });
            }
            Some(Err(why)) => self.is_wrong(book, format!("a leased read was answered {why}")),
            None if self.profile.takes_no_time() && !self.is_hanging.get() => {
                let what = What::Given { how: How::Leased(leasing), gifts: Vec::new(), told: Told::Nothing };
                book.did((from, from), what);
            }
            None => book.did((from, self.now()), What::Broke { how: How::Leased(leasing), seen: Vec::new(), limit }),
        }
    }

    fn leases_came(&self, book: &Book, came: Came, leasing: Leasing, when: (Millis, Millis)) {
        let Came { gifts, told, lease, receipt } = came;
        let entries: Vec<Entry> = gifts.iter().map(|gift| gift.entry).collect();
        let (by, has_lost) = (leasing.by, told != Told::Nothing);
        let fate = self.below(20);
        // A marker that does not arrive was not told.
        let arrives = fate > 3 || (has_lost && fate > 0);
        let told = if arrives { told } else { Told::Cannot };
        book.did(when, What::Given { how: How::Leased(leasing), gifts, told });
        let (Some(name), Some(receipt)) = (lease, receipt) else { return };
        let mut leases = book.leases.borrow_mut();
        leases.push(Lease { name, by, entries });
        let over = leases.len().saturating_sub(8);
        leases.drain(..over);
        if arrives {
            receipt.handed_over();
        } else if fate > 1 && !has_lost && book.pending.borrow().len() < 4 {
            book.pending.borrow_mut().push(Pending { receipt, by, is_leased: true });
        } else {
            drop(receipt);
            drop(leases);
            book.forget(by);
            book.did((when.1, when.1), What::Returned { by });
        }
    }

    /// Something is said of what a lease holds, or of single entries.
    async fn say(&self, book: &Book, patience: Option<u64>) {
        let leases = book.leases.borrow().clone();
        let Some(lease) = leases.get(self.below(leases.len().max(1) as u64) as usize).cloned() else {
            return self.lease(book, patience).await;
        };
        let house = self.house();
        let is_whole = self.is_so(55);
        let (holding, entries) = if is_whole {
            (Holding::Lease(lease.name), lease.entries.clone())
        } else {
            let all = if self.is_so(80) { lease.entries.clone() } else { book.seen.borrow().clone() };
            let mut some: Vec<Entry> = all.into_iter().filter(|_| self.is_so(60)).collect();
            some.sort_unstable();
            some.dedup();
            if some.is_empty() {
                return;
            }
            (Holding::Entries(some.iter().map(|&at| house.cursor(at)).collect()), some)
        };
        let named = |changed: Option<u64>| Named {
            by: is_whole.then_some(lease.by),
            entries: if is_whole { Vec::new() } else { entries.clone() },
            changed,
        };
        let from = self.now();
        let house = self.house();
        let (said, what): (_, Box<dyn Fn(Option<u64>) -> What>) = match self.below(10) {
            0..5 => (
                self.patiently(patience, self.door.ack(house, book, &holding, &entries)).await,
                Box::new(|changed| What::Acked(named(changed))),
            ),
            5..8 => {
                let delay = self.pick(&[0, 0, 400, 1500, 4000]);
                let nack = self.door.nack(house, book, (&holding, &entries), Duration::from_millis(delay));
                (self.patiently(patience, nack).await, Box::new(move |changed| What::Nacked(named(changed), delay)))
            }
            _ if !is_whole => return,
            _ => {
                let more = self.pick(&[300, 1500, 5000, 5000]);
                let said = self.door.extend(house, book, &holding, Duration::from_millis(more));
                (Some(said), Box::new(move |changed| What::Extended(named(changed), more)))
            }
        };
        let when = (from, self.now());
        match said {
            Some(Ok(changed)) => book.did(when, what(changed)),
            Some(Err(AckError::LeaseExpired)) if is_whole => book.did(when, What::NoSuchLease { by: lease.by }),
            // One of them is not to be had, or was not given.
            Some(Err(AckError::LeaseExpired)) => {}
            Some(Err(AckError::Store(_))) if self.profile.fails() => book.may_have_done(when, what(None)),
            Some(Err(why)) => self.is_wrong(book, format!("a word was answered {why}")),
            None => book.may_have_done(when, what(None)),
        }
    }

    async fn seek_or_remove(&self, book: &Book, patience: Option<u64>) {
        // Where the log is cut it is to be known who made the place that is told of it.
        let removes = self.is_so(30) && (self.is_alone.get() || !self.profile.cuts());
        let from = self.now();
        if removes {
            match self.patiently(patience, self.door.remove(self.house(), book)).await {
                Some(Ok(())) => book.did((from, self.now()), What::Deleted),
                Some(Err(ReadError::Store(_))) if self.profile.fails() => {
                    book.may_have_done((from, self.now()), What::Deleted);
                }
                Some(Err(ReadError::NoSuchSubscription | ReadError::BeingRemoved)) => {}
                Some(Err(why)) => self.is_wrong(book, format!("a removal was answered {why}")),
                None => book.may_have_done((from, self.lingers(book)), What::Deleted),
            }
            return;
        }
        let house = self.house();
        let (earliest, next) = house.range();
        let low = earliest - 1;
        let (to, between) = match self.below(4) {
            0 => (StartAt::Earliest, low),
            1 => (StartAt::Latest, next - 1),
            _ => {
                let at = low + self.below(next - low);
                (StartAt::After(house.cursor(at)), at)
            }
        };
        // Until it is done there may be more.
        let may_be = |stage: &Self| match to {
            StartAt::Earliest => (low, stage.house().range().0 - 1),
            StartAt::Latest => (between, stage.head()),
            _ => (between, between),
        };
        match self.patiently(patience, self.door.seek(self.house(), book, to)).await {
            Some(Ok(at)) => book.did((from, self.now()), What::Sought { between: (at, at) }),
            Some(Err(ReadError::Store(_))) if self.profile.fails() => {
                book.may_have_done((from, self.now()), What::Sought { between: may_be(self) });
            }
            Some(Err(ReadError::NoSuchSubscription | ReadError::BeingRemoved | ReadError::Expired { .. })) => {}
            Some(Err(why)) => self.is_wrong(book, format!("a seek was answered {why}")),
            None => book.may_have_done((from, self.now()), What::Sought { between: may_be(self) }),
        }
    }

    async fn look_at_letters(&self, book: &Book, patience: Option<u64>) {
        let from = self.now();
        let house = self.house();
        let listed = match self.door.letters(house, book).await {
            Ok(letters) => letters,
            Err(ReadError::NoSuchSubscription | ReadError::BeingRemoved) => return,
            Err(why) => return self.is_wrong(book, format!("the list of letters was answered {why}")),
        };
        book.did((from, self.now()), What::Listed { letters: listed.clone(), up_to: Entry::MAX });
        let some: Vec<Entry> = listed.iter().map(|letter| letter.0).filter(|_| self.is_so(50)).collect();
        let from = self.now();
        let (said, what): (_, Box<dyn Fn(Option<u64>) -> What>) = match self.below(10) {
            0..4 if !some.is_empty() => {
                let work = self.door.redeliver(house, book, Some(&some));
                let said = self.patiently(patience, work).await;
                (said, Box::new(move |changed| What::Redelivered { which: Some(some.clone()), changed }))
            }
            4 => {
                let said = self.patiently(patience, self.door.redeliver(house, book, None)).await;
                (said, Box::new(|changed| What::Redelivered { which: None, changed }))
            }
            5..7 if !some.is_empty() => {
                let said = self.patiently(patience, self.door.clear(house, book, Some(some[0]))).await;
                (said, Box::new(move |changed| What::Forgotten { which: Some(vec![some[0]]), changed }))
            }
            7 => {
                let said = self.patiently(patience, self.door.clear(house, book, None)).await;
                (said, Box::new(|changed| What::Forgotten { which: None, changed }))
            }
            _ => return,
        };
        match said {
            Some(Ok(changed)) => book.did((from, self.now()), what(changed)),
            Some(Err(ReadError::Store(_))) if self.profile.fails() => {
                book.may_have_done((from, self.now()), what(None));
            }
            Some(Err(ReadError::NoSuchSubscription | ReadError::NoSuchDeadLetter | ReadError::Expired { .. })) => {}
            Some(Err(why)) => self.is_wrong(book, format!("a word on letters was answered {why}")),
            None => book.may_have_done((from, self.lingers(book)), what(None)),
        }
    }

    /// The stream comes again if it is to, reads, and may be cut.
    pub(super) async fn stream(&self, book: &Book, patience: Option<u64>) {
        let (last, is_to_say) = book.has.get();
        if let (Some(last), true) = (last, is_to_say) {
            if self.is_so(8) {
                // A reader that has forgotten.
                book.has.set((None, false));
            } else {
                let now = self.now();
                match self.door.resume(self.house(), book, last) {
                    Ok(()) => book.did((now, now), What::Resumed { last }),
                    Err(why) => self.is_wrong(book, format!("a word was answered {why}")),
                }
                book.has.set((Some(last), false));
                Self::pause(1).await;
            }
        }
        let (read, from, head) = (self.read_of(book, Ack::OnHandover), self.now(), self.head());
        let reading = self.door.read(self.house(), book, read, Some(book.stream.get()));
        let came = match self.patiently(patience, reading).await {
            Some(Ok(came)) => came,
            Some(Err(ReadError::Store(_))) if self.profile.fails() => return,
            None => return,
            Some(Err(why)) => return self.is_wrong(book, format!("a stream was answered {why}")),
        };
        let when = self.taken_at(from);
        let Came { gifts, told, receipt, .. } = came;
        if gifts.is_empty() {
            let up_to = if self.is_alone.get() { head } else { 0 };
            return book.did((from, when.1), What::Nothing { up_to });
        }
        let (last, _) = book.has.get();
        if let Some(last) = last.filter(|&last| gifts[0].entry <= last) {
            self.is_wrong(book, format!("entry {} came after {last}", gifts[0].entry));
        }
        let got = 1 + self.below(gifts.len() as u64) as usize;
        let entry = |got: usize| Some(gifts[got - 1].entry);
        match self.below(10) {
            // It is cut, and has some of it; the other system had acknowledged all, or not.
            0..2 => {
                book.has.set((entry(got), true));
                receipt.into_iter().for_each(Receipt::handed_over);
                book.did(when, What::Given { how: How::Plain, gifts, told });
                book.stream.set(book.stream.get() + 1);
            }
            2..4 => {
                drop(receipt);
                if self.is_so(70) {
                    book.has.set((entry(got), true));
                } else {
                    book.has.set((last, true));
                }
                book.stream.set(book.stream.get() + 1);
            }
            _ => {
                book.has.set((entry(gifts.len()), false));
                receipt.into_iter().for_each(Receipt::handed_over);
                book.did(when, What::Given { how: How::Plain, gifts, told });
            }
        }
    }
}
