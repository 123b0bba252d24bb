//! The reference model of delivery takes what is promised, and complains of each thing that is not.

use delivery_model::*;

const TERMS: Terms = Terms { round: 500, seen_after: 100, requests: None, order: Order::None, cuts: false };

/// A model of a log with ten entries, of two users by turns.
fn begun(terms: Terms) -> Model {
    let mut model = Model::new(terms);
    (1..=10).for_each(|entry| model.stored(entry, 1 + entry % 2, 0));
    model
}

fn did((from, to): (Millis, Millis), what: What) -> Deed {
    Deed { from, to, sure: true, what }
}

fn plain(entries: impl IntoIterator<Item = Entry>) -> What {
    let gifts = entries.into_iter().map(|entry| Gift { entry, attempt: None }).collect();
    What::Given { how: How::Plain, gifts, told: Told::Nothing }
}

fn leased(by: Hand, entries: impl IntoIterator<Item = Entry>, attempt: u32) -> What {
    let gifts = entries.into_iter().map(|entry| Gift { entry, attempt: Some(attempt) }).collect();
    let leasing = Leasing { by, lease: 1000, most: 3, counts: Counts::Taking };
    What::Given { how: How::Leased(leasing), gifts, told: Told::Nothing }
}

fn pushed(by: Hand, entries: impl IntoIterator<Item = Entry>) -> What {
    let gifts = entries.into_iter().map(|entry| Gift { entry, attempt: None }).collect();
    let leasing = Leasing { by, lease: NEVER, most: 3, counts: Counts::Failing };
    What::Given { how: How::Leased(leasing), gifts, told: Told::Nothing }
}

fn told(entries: impl IntoIterator<Item = Entry>, lost: u64) -> What {
    match plain(entries) {
        What::Given { how, gifts, .. } => What::Given { how, gifts, told: Told::Lost(Some(lost)) },
        other => other,
    }
}

fn by(hand: Hand, changed: u64) -> Named {
    Named { by: Some(hand), entries: Vec::new(), changed: Some(changed) }
}

fn these(entries: &[Entry], changed: u64) -> Named {
    Named { by: None, entries: entries.to_vec(), changed: Some(changed) }
}

/// Each deed takes 10 ms, a hundred after the one before, unless it says when.
struct Story {
    model: Model,
    time: Millis,
    complaints: Vec<Complaint>,
}

impl Story {
    fn of(terms: Terms) -> Self {
        Self { model: begun(terms), time: 0, complaints: Vec::new() }
    }

    fn then(mut self, what: What) -> Self {
        self.time += 100;
        self.model.apply(did((self.time, self.time + 10), what));
        self
    }

    fn perhaps(mut self, what: What) -> Self {
        self.time += 100;
        self.model.apply(Deed { sure: false, ..did((self.time, self.time + 10), what) });
        self
    }

    /// It goes on since this long.
    fn since(mut self, ms: Millis, what: What) -> Self {
        self.model.apply(did((self.time - ms, self.time + 10), what));
        self
    }

    fn after(mut self, ms: Millis) -> Self {
        self.time += ms;
        self
    }

    fn judged(mut self) -> Self {
        self.complaints.extend(self.model.judge(self.time + 50));
        self
    }

    #[track_caller]
    fn holds(self) {
        let story = self.judged();
        assert_eq!(story.complaints, []);
    }

    #[track_caller]
    fn fails(self, entry: Option<Entry>, rule: &str) {
        let story = self.judged();
        let all: Vec<String> = story.complaints.iter().map(ToString::to_string).collect();
        assert!(story.complaints.iter().any(|c| c.entry == entry && c.rule == rule), "{entry:?} {rule}: {all:#?}");
        assert!(story.complaints.iter().all(|c| c.rule == rule), "{all:#?}");
    }
}

fn story() -> Story {
    Story::of(TERMS)
}

#[test]
fn what_was_handed_over_is_not_given_again_but_after_a_kill_and_soon() {
    story().then(plain(1..=5)).then(plain(6..=10)).then(What::Drained { up_to: 10 }).holds();
    story().then(plain(1..=5)).then(plain(5..=10)).fails(Some(5), ONCE);
    story().then(plain(1..=5)).judged().then(What::Killed).judged().then(plain(1..=10)).holds();
    story().then(plain(1..=5)).after(700).then(What::Killed).then(plain(5..=10)).fails(Some(5), ONCE);
    story().then(plain(1..=5)).judged().after(700).then(What::Killed).then(plain(5..=10)).fails(Some(5), ONCE);
    story().then(plain(1..=5)).then(What::Stopped).judged().then(plain(5..=10)).fails(Some(5), ONCE);
}

#[test]
fn what_nobody_was_given_is_missed() {
    story().then(plain(1..=4)).then(plain(6..=10)).then(What::Nothing { up_to: 10 }).fails(Some(5), GIVEN);
    story().then(plain(1..=4)).then(plain(6..=10)).judged().then(What::Drained { up_to: 10 }).fails(Some(5), GIVEN);
    story().then(leased(1, 1..=10, 1)).then(What::Nothing { up_to: 10 }).holds();
    let in_order = Terms { order: Order::All, ..TERMS };
    Story::of(in_order).then(plain(1..=4)).then(plain([6])).fails(Some(5), IN_ORDER);
    Story::of(in_order).then(plain([1, 2, 4])).fails(Some(3), IN_ORDER);
    story().then(plain([1, 3, 2])).fails(Some(2), IN_ORDER);
}

#[test]
fn an_answer_that_broke_off_may_count_as_handed_over_up_to_its_limit() {
    let broke = |limit| What::Broke { how: How::Plain, seen: Vec::new(), limit };
    story().then(broke(5)).then(plain(1..=10)).holds();
    let lacking = story().then(broke(5)).then(plain(6..=10)).then(What::Drained { up_to: 10 }).judged();
    assert_eq!((&lacking.complaints[..], lacking.model.unseen()), (&[][..], Ok(5)));
    let lacking = story().then(broke(4)).then(plain(6..=10)).then(What::Drained { up_to: 10 }).judged();
    assert_eq!(lacking.model.unseen().unwrap_err().rule, UNSEEN);
    // It says nothing of what was handed over before.
    story().then(plain(1..=5)).then(broke(5)).then(plain(5..=10)).fails(Some(5), ONCE);
}

#[test]
fn an_event_is_leased_to_one_at_a_time_until_its_lease_is_over() {
    story().then(leased(1, 1..=3, 1)).then(leased(2, [3], 2)).fails(Some(3), LEASED);
    story().then(leased(1, 1..=3, 1)).then(plain(1..=3)).fails(Some(1), LEASED);
    story().then(leased(1, 1..=3, 1)).after(1000).then(leased(2, 1..=3, 2)).holds();
    story()
        .then(leased(1, [1], 1))
        .then(What::Extended(by(1, 1), 2000))
        .after(1000)
        .then(leased(2, [1], 2))
        .fails(Some(1), LEASED);
    story().then(leased(1, [1], 1)).then(What::Extended(by(1, 1), 1000)).after(1100).then(leased(2, [1], 2)).holds();
    story().then(leased(1, [1], 1)).then(What::NoSuchLease { by: 1 }).fails(Some(1), NO_LEASE);
    story().then(leased(1, [1], 1)).after(1000).then(What::NoSuchLease { by: 1 }).holds();
    story()
        .then(leased(1, [1], 1))
        .then(What::Stopped)
        .then(What::NoSuchLease { by: 1 })
        .then(leased(2, [1], 2))
        .holds();
}

#[test]
fn attempts_are_counted_on() {
    story().then(leased(1, [1], 1)).after(1000).then(leased(2, [1], 1)).fails(Some(1), ATTEMPTS);
    story().then(leased(1, [1], 2)).fails(Some(1), ATTEMPTS);
    // After a kill a first one may be forgotten, a second is not.
    for attempt in [1, 2] {
        story().then(leased(1, [1], 1)).then(What::Killed).judged().then(leased(2, [1], attempt)).holds();
    }
    let twice = || story().then(leased(1, [1], 1)).after(1000).then(leased(2, [1], 2)).then(What::Killed).judged();
    twice().then(leased(3, [1], 3)).holds();
    twice().then(leased(3, [1], 2)).fails(Some(1), ATTEMPTS);
    // What did not arrive was none.
    let leasing = Leasing { by: 1, lease: 1000, most: 3, counts: Counts::Taking };
    let broke = |seen| What::Broke { how: How::Leased(leasing), seen, limit: 10 };
    story().then(broke(vec![])).then(leased(2, [1], 1)).holds();
    story().then(broke(vec![])).after(1000).then(leased(2, [1], 2)).holds();
    story().then(leased(1, [1], 1)).then(broke(vec![1])).then(leased(2, [1], 1)).holds();
    story().then(leased(1, [1], 1)).then(broke(vec![])).then(leased(2, [1], 1)).fails(Some(1), LEASED);
}

#[test]
fn what_was_acknowledged_does_not_come_again_also_after_a_kill() {
    let given = || story().then(leased(1, 1..=3, 1));
    given().then(What::Acked(by(1, 3))).then(What::Acked(by(1, 0))).holds();
    given().then(What::Acked(by(1, 3))).after(1000).then(leased(2, [1], 2)).fails(Some(1), ONCE);
    given().then(What::Acked(by(1, 3))).then(What::Killed).then(leased(2, [1], 2)).fails(Some(1), ONCE);
    given().perhaps(What::Acked(by(1, 3))).then(What::Killed).then(leased(2, [1], 2)).holds();
    given().perhaps(What::Acked(by(1, 3))).then(What::Killed).then(What::Drained { up_to: 3 }).holds();
    given().after(1000).then(What::Acked(these(&[1], 1))).then(leased(2, [2, 3], 2)).holds();
    given().after(1000).then(What::Acked(these(&[1], 1))).then(leased(2, [1], 2)).fails(Some(1), ONCE);
    given().then(What::Acked(these(&[9], 1))).fails(Some(9), NO_LEASE);
}

#[test]
fn how_many_changed_is_counted() {
    let given = || story().then(leased(1, 1..=3, 1));
    given().then(What::Acked(by(1, 2))).fails(None, CHANGED);
    given().then(What::Acked(these(&[1], 1))).then(What::Acked(by(1, 3))).fails(None, CHANGED);
    given().then(What::Acked(these(&[1], 1))).then(What::Nacked(by(1, 2), 0)).holds();
    given().then(What::Acked(these(&[1], 1))).then(What::Extended(by(1, 3), 50)).fails(None, CHANGED);
    // At the same time either may have been first.
    for (acked, nacked) in [(3, 0), (0, 3)] {
        given().then(What::Acked(by(1, acked))).since(10, What::Nacked(by(1, nacked), 0)).holds();
    }
}

#[test]
fn a_delay_is_waited_out_also_after_a_kill() {
    let back = |delay| story().then(leased(1, [1], 1)).then(What::Nacked(by(1, 1), delay));
    back(0).then(leased(2, [1], 2)).holds();
    back(500).then(leased(2, [1], 2)).fails(Some(1), DELAY);
    back(500).then(plain([1])).fails(Some(1), DELAY);
    back(500).after(400).then(leased(2, [1], 2)).holds();
    back(500).then(What::Killed).judged().then(leased(2, [1], 2)).fails(Some(1), DELAY);
    back(500).then(What::Killed).judged().after(400).then(leased(2, [1], 2)).holds();
}

#[test]
fn nobody_is_given_a_later_event_of_a_user_while_an_earlier_one_waits_or_is_leased() {
    let keyed = || Story::of(Terms { order: Order::Keys, ..TERMS });
    keyed().then(leased(1, [1, 3], 1)).then(leased(2, [2, 4], 1)).holds();
    keyed().then(leased(1, [1], 1)).then(leased(2, [2, 3], 1)).fails(Some(1), IN_ORDER);
    keyed().then(leased(1, [3], 1)).fails(Some(1), IN_ORDER);
    keyed().then(leased(1, [1], 1)).then(What::Nacked(by(1, 1), 500)).then(leased(2, [3], 1)).fails(Some(1), IN_ORDER);
    keyed().then(leased(1, [1], 1)).then(What::Acked(by(1, 1))).then(leased(2, [3], 1)).holds();
    // Who asks at the time of the acknowledgement may be later.
    keyed().then(leased(1, [1], 1)).then(What::Acked(by(1, 1))).since(10, leased(2, [3], 1)).holds();
}

fn given_up() -> Story {
    let mut story = story();
    for attempt in 1..=3 {
        story = story.then(leased(attempt.into(), [1], attempt)).then(What::Nacked(by(attempt.into(), 1), 0));
    }
    story
}

#[test]
fn what_was_tried_often_enough_is_a_dead_letter_once_and_no_more() {
    let listed = |letters: &[(Entry, u32, bool)]| What::Listed { letters: letters.to_vec(), up_to: 10 };
    let drained = || What::Drained { up_to: 1 };
    given_up().then(listed(&[(1, 3, false)])).then(drained()).holds();
    given_up().then(drained()).then(What::Killed).judged().then(listed(&[(1, 3, false)])).holds();
    given_up().after(1000).then(drained()).then(listed(&[])).fails(Some(1), LETTERS);
    given_up().then(listed(&[(1, 2, false)])).fails(Some(1), LETTERS);
    given_up().then(leased(4, [1], 4)).fails(Some(1), LETTERS);
    story().then(listed(&[(1, 3, false)])).fails(Some(1), LETTERS);
    // A restart during the last attempt ends it.
    let last = || {
        let twice = story().then(leased(1, [1], 1)).then(What::Nacked(by(1, 1), 0));
        let twice = twice.then(leased(2, [1], 2)).then(What::Nacked(by(2, 1), 0));
        twice.then(leased(3, [1], 3)).then(What::Killed).judged()
    };
    last().then(listed(&[(1, 3, false)])).then(drained()).holds();
    last().then(leased(4, [1], 3)).fails(Some(1), LETTERS);
}

#[test]
fn a_letter_given_again_stays_on_the_list_until_it_is_acknowledged() {
    let listed = |letters: &[(Entry, u32, bool)]| What::Listed { letters: letters.to_vec(), up_to: 10 };
    let again =
        || given_up().then(listed(&[(1, 3, false)])).then(What::Redelivered { which: Some(vec![1]), changed: Some(1) });
    again().then(listed(&[(1, 3, true)])).then(leased(4, [1], 1)).then(What::Acked(by(4, 1))).then(listed(&[])).holds();
    again().then(What::Killed).judged().then(listed(&[(1, 3, true)])).then(leased(4, [1], 1)).holds();
    again().then(listed(&[])).fails(Some(1), LETTERS);
    again().then(What::Killed).judged().then(What::Drained { up_to: 1 }).fails(Some(1), GIVEN);
    again().then(leased(4, [1], 1)).then(What::Acked(by(4, 1))).then(listed(&[(1, 3, true)])).fails(Some(1), LETTERS);
    again().then(leased(4, [1], 4)).fails(Some(1), ATTEMPTS);
    let forgotten =
        |n| given_up().then(listed(&[(1, 3, false)])).then(What::Forgotten { which: None, changed: Some(n) });
    forgotten(1).then(listed(&[])).holds();
    forgotten(0).fails(None, CHANGED);
    // One that comes again because of a seek is on the list until then, without that word.
    let sought = || given_up().then(What::Sought { between: (0, 0) }).then(leased(4, [1], 1));
    sought().then(listed(&[(1, 3, false)])).then(What::Acked(by(4, 1))).then(listed(&[])).holds();
    sought().then(What::Acked(by(4, 1))).then(listed(&[(1, 3, false)])).fails(Some(1), LETTERS);
}

#[test]
fn a_seek_and_a_removal_begin_anew_and_what_goes_on_at_that_time_may_be_before_or_after() {
    let sought = |at| What::Sought { between: (at, at) };
    story().then(plain(1..=10)).then(sought(4)).then(plain(5..=10)).holds();
    story().then(plain(1..=10)).then(sought(4)).then(plain(4..=10)).fails(Some(4), ONCE);
    story().then(sought(4)).then(What::Killed).judged().then(plain(1..=10)).fails(Some(1), ONCE);
    story().then(plain(1..=10)).then(sought(4)).since(10, plain([4])).fails(Some(4), ONCE);
    story().then(plain(2..=10)).then(sought(0)).since(10, plain([1])).then(plain(1..=10)).holds();
    story().then(leased(1, [1], 1)).then(sought(0)).then(leased(2, [1], 1)).holds();
    story().then(leased(1, [1], 1)).then(sought(0)).then(leased(2, [1], 2)).fails(Some(1), ATTEMPTS);
    story().then(plain(1..=10)).then(What::Deleted).then(What::Killed).judged().then(plain(1..=10)).holds();
    story().then(plain(1..=10)).then(What::Sought { between: (3, 5) }).then(plain(5..=10)).holds();
    let nothing = || What::Nothing { up_to: 10 };
    story().then(plain(1..=10)).judged().after(700).judged().then(sought(9)).then(nothing()).fails(Some(10), GIVEN);
}

#[test]
fn a_read_that_breaks_off_may_take_what_a_seek_opens_while_it_goes_on() {
    let in_order = Story::of(Terms { order: Order::All, ..TERMS });
    let sought = in_order.then(plain(1..=10)).then(What::Sought { between: (0, 0) }).then(plain(6..=10)).after(50);
    let broke = || What::Broke { how: How::Plain, seen: Vec::new(), limit: 5 };
    sought.since(200, broke()).then(plain(1..=5)).then(What::Drained { up_to: 10 }).holds();
    let in_order = Story::of(Terms { order: Order::All, ..TERMS });
    let sought = in_order.then(plain(1..=10)).after(100).since(60, broke()).then(What::Sought { between: (0, 0) });
    sought.then(plain(6..=10)).fails(Some(1), IN_ORDER);
}

#[test]
fn what_retention_took_is_told_once_with_the_right_number() {
    let cut =
        || Story::of(Terms { cuts: true, ..TERMS }).then(plain(1..=2)).then(What::Earliest(1)).then(What::Earliest(6));
    cut().then(told(6..=8, 3)).then(plain(9..=10)).holds();
    cut().judged().then(told(6..=8, 3)).then(plain(9..=10)).holds();
    cut().then(told(6..=8, 4)).then(What::Earliest(6)).fails(None, LOST);
    cut().then(told(6..=8, 2)).fails(None, LOST);
    cut().then(plain(6..=8)).fails(Some(3), LOST);
    cut().then(told(6..=8, 3)).after(1000).judged().then(told(9..=10, 3)).then(What::Earliest(6)).fails(None, LOST);
    cut().then(told(6..=8, 3)).then(What::Killed).judged().then(told(6..=8, 3)).holds();
    cut()
        .then(told(6..=8, 3))
        .then(What::Stopped)
        .judged()
        .then(told(9..=10, 3))
        .then(What::Earliest(6))
        .fails(None, LOST);
    cut().then(plain(3..=8)).fails(Some(3), ONCE);
    // What somebody holds is missed when it is to be given again.
    let held = Story::of(Terms { cuts: true, ..TERMS }).then(leased(1, 1..=2, 1)).then(What::Earliest(3));
    held.then(What::Acked(by(1, 2))).then(plain(3..=10)).holds();
    Story::of(Terms { cuts: true, ..TERMS }).then(told(1..=3, 1)).then(What::Earliest(1)).fails(None, LOST);
    // What came before there was a reader need not be told; what came after, must.
    let begun = |first: Entry| {
        let mut story = Story::of(Terms { cuts: true, ..TERMS }).then(plain(1..=10)).judged().after(100);
        story.model.stored(11, 1, story.time);
        story.model.stored(12, 1, story.time);
        story.then(What::Earliest(12)).then(plain([first]))
    };
    begun(12).fails(Some(11), LOST);
    Story::of(Terms { cuts: true, ..TERMS }).then(What::Earliest(6)).then(plain(6..=10)).holds();
}

#[test]
fn a_reader_that_comes_again_has_each_once() {
    let resumed = |last| What::Resumed { last };
    let cut = || story().then(plain(1..=8)).then(What::Broke { how: How::Plain, seen: (1..=8).collect(), limit: 10 });
    cut().then(resumed(5)).then(plain(6..=10)).holds();
    cut().then(resumed(8)).then(plain(8..=10)).fails(Some(8), ONCE);
    cut().then(resumed(5)).then(plain(7..=10)).then(What::Nothing { up_to: 10 }).fails(Some(6), GIVEN);
    story().then(plain(1..=8)).then(What::Killed).judged().then(resumed(8)).then(plain(9..=10)).holds();
    story().then(plain(1..=8)).then(What::Killed).judged().then(resumed(8)).then(plain(8..=10)).fails(Some(8), ONCE);
    // What it has is not lost to it, though the gateway did not know.
    let cuts = || Story::of(Terms { cuts: true, ..TERMS }).then(plain(1..=8)).then(What::Killed).judged();
    cuts().then(What::Earliest(7)).then(resumed(5)).then(told(7..=10, 1)).holds();
    cuts().then(What::Earliest(7)).then(resumed(5)).then(told(7..=10, 6)).fails(None, LOST);
}

#[test]
fn of_a_webhook_a_kill_repeats_as_many_requests_as_may_be_under_way() {
    let terms = Terms { requests: Some(1), order: Order::All, ..TERMS };
    let taken = |hand| What::Taken { by: hand };
    let two = || Story::of(terms).then(pushed(1, [1])).then(taken(1)).then(pushed(2, [2])).then(taken(2));
    two().then(pushed(3, [3])).then(taken(3)).holds();
    two().then(pushed(3, [2])).fails(Some(2), ONCE);
    two().then(What::Killed).judged().then(pushed(3, [2])).then(taken(3)).holds();
    two().then(What::Stopped).judged().then(pushed(3, [2])).fails(Some(2), ONCE);
    let both = two().then(What::Killed).judged().then(pushed(3, [1])).then(taken(3)).then(pushed(4, [2]));
    both.fails(None, REQUESTS);
    let failed = |hand| What::Failed { by: hand, wait: (300, NEVER) };
    let one = || Story::of(terms).then(pushed(1, [1])).then(failed(1));
    one().after(300).then(pushed(2, [1])).holds();
    one().then(pushed(2, [1])).fails(Some(1), DELAY);
    one().after(300).then(pushed(2, [2])).fails(Some(1), IN_ORDER);
    one().then(What::Killed).judged().then(pushed(2, [1])).fails(Some(1), DELAY);
    let again = one().after(300).then(pushed(2, [1])).then(failed(2)).after(300).then(pushed(3, [1])).then(failed(3));
    again.then(What::Listed { letters: vec![(1, 3, false)], up_to: 10 }).then(pushed(4, [2])).holds();
}
