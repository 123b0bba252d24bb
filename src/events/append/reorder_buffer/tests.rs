//! The rule over a disk that fails, forgets, and keeps half of what it was told.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::kernel::clock::UnixMillis;
use crate::store::EventText;

const WINDOW: Duration = Duration::from_millis(100);

/// What becomes of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Succeeds,
    Fails,
    /// Its entries were undone, its notes not.
    FailsButKeepsNotes,
    /// All of it is there, but nobody hears of it: the machine died.
    SucceedsAndDies,
}

#[derive(Clone, Debug)]
enum Act {
    /// A region returns these: events with their `ms` or without, in one batch or two, and perhaps a marker behind
    /// them.
    Read(u8, Vec<Option<u64>>, usize, bool, Fate),
    Marker(u8, Fate),
    Pass(u64),
    Move(Fate),
    Die,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let fate = || {
        prop_oneof![
            8 => Just(Fate::Succeeds),
            1 => Just(Fate::Fails),
            1 => Just(Fate::FailsButKeepsNotes),
            1 => Just(Fate::SucceedsAndDies),
        ]
    };
    // One that no clock has reached is as none.
    let ms = prop_oneof![10 => (0..40u64).prop_map(Some), 1 => Just(None), 1 => Just(Some(10_000_000))];
    let act = prop_oneof![
        6 => (0..3u8, prop::collection::vec(ms, 1..5), 0..5usize, any::<bool>(), fate()).prop_map(
            |(region, events, split, marked, fate)| Act::Read(region, events, split, marked, fate)
        ),
        1 => (0..3u8, fate()).prop_map(|(region, fate)| Act::Marker(region, fate)),
        4 => (0..150u64).prop_map(Act::Pass),
        4 => fate().prop_map(Act::Move),
        1 => Just(Act::Die),
    ];
    prop::collection::vec(act, 1..40)
}

/// What the model knows of an entry, by its number.
#[derive(Clone, Debug)]
struct Known {
    region: u8,
    ms: Option<u64>,
    /// Whoever brought it was told that it is stored.
    acknowledged: bool,
    late: bool,
    came: Instant,
    /// The event that the same region had returned just before, in the same run.
    follows: Option<usize>,
}

struct World {
    waiting: ReorderBuffer,
    now: Instant,
    log: Vec<usize>,
    notes: BTreeMap<String, Bytes>,
    known: Vec<Known>,
    /// The last event of each region in this run.
    last: HashMap<u8, usize>,
    /// What each region returned and could not be stored.
    unstored: HashMap<u8, Vec<NewBatch>>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let waiting = ReorderBuffer::of_notes(WINDOW, &[], None, Sequence(1), now);
        Self {
            waiting,
            now,
            log: Vec::new(),
            notes: BTreeMap::new(),
            known: Vec::new(),
            last: HashMap::new(),
            unstored: HashMap::new(),
        }
    }

    fn end(&self) -> Sequence {
        Sequence(self.log.len() as u64 + 1)
    }

    fn commit(&mut self, plan: ReorderPlan, fate: Fate) {
        if fate == Fate::Fails {
            return;
        }
        for (name, note) in &plan.notes {
            match note {
                Some(note) => self.notes.insert(name.clone(), note.clone()),
                None => self.notes.remove(name),
            };
        }
        if fate != Fate::FailsButKeepsNotes {
            self.log.extend(plan.batches.iter().flat_map(ids));
        }
        match fate {
            Fate::Succeeds => self.waiting.done(plan),
            Fate::SucceedsAndDies => self.die(),
            Fate::Fails | Fate::FailsButKeepsNotes => {}
        }
    }

    fn die(&mut self) {
        let batches: Vec<_> = self.notes.iter().filter(|(name, _)| name.starts_with(BATCHES)).collect();
        let batches: Vec<_> = batches.into_iter().map(|(name, note)| (name.clone(), note.clone())).collect();
        self.waiting = ReorderBuffer::of_notes(WINDOW, &batches, self.notes.get(MARK), self.end(), self.now);
        let now = self.now;
        self.known.iter_mut().for_each(|known| known.came = now);
        self.last.clear();
        self.unstored.clear();
    }

    /// A region returns entries, and perhaps a marker behind them. What could not be stored is tried again first, as
    /// pollers do.
    fn take_in(&mut self, region: u8, (first, second): (&[Option<u64>], &[Option<u64>]), is_marked: bool, fate: Fate) {
        self.try_again(region);
        let batch = |content| {
            let region = RegionName::parse(&format!("r{region}")).unwrap();
            NewBatch { received_at: UnixMillis(1000), region, content }
        };
        let mut read = Vec::new();
        let mut follows = self.last.get(&region).copied();
        for entries in [first, second].into_iter().filter(|entries| !entries.is_empty()) {
            let text = |(id, ms): (usize, &Option<u64>)| match ms {
                Some(ms) => format!(r#"{{"id":{id},"ms":{ms}}}"#),
                None => format!(r#"{{"id":{id}}}"#),
            };
            let texts: Vec<_> = (self.known.len()..).zip(entries).map(text).collect();
            for ms in entries {
                let ms = ms.filter(|ms| *ms < 1000);
                follows = Some(self.known.len());
                self.known.push(Known { region, ms, acknowledged: false, late: false, came: self.now, follows: None });
            }
            read.push(batch(Content::Events(EventText::join(texts.iter().map(String::as_bytes)).unwrap())));
        }
        if is_marked {
            read.push(batch(Content::PossibleLoss(self.known.len().to_string())));
            self.known.push(Known { region, ms: None, acknowledged: false, late: false, came: self.now, follows });
        }
        self.store(region, &read, fate);
    }

    fn try_again(&mut self, region: u8) {
        if let Some(read) = self.unstored.remove(&region) {
            self.store(region, &read, Fate::Succeeds);
        }
    }

    fn store(&mut self, region: u8, read: &[NewBatch], fate: Fate) {
        let ids: Vec<_> = read.iter().flat_map(ids).collect();
        let high = self.log.iter().filter_map(|id| self.known[*id].ms).max().unwrap_or(0);
        for id in &ids {
            let known = &mut self.known[*id];
            known.late = known.ms.is_some_and(|ms| ms < high);
            known.acknowledged = fate == Fate::Succeeds;
            known.came = self.now;
        }
        let late: Vec<_> = ids.iter().copied().filter(|id| self.known[*id].late).collect();
        let (end, now) = (self.end(), self.now);
        let plan = self.waiting.take_in(read, end, now);
        assert_eq!(plan.late, late.len() as u64);
        self.commit(plan, fate);
        match fate {
            Fate::Succeeds => {
                assert!(late.iter().all(|id| self.log.contains(id)), "what is late is there at once");
                let events = read.iter().filter(|new| matches!(new.content, Content::Events(_)));
                if let Some(last) = events.flat_map(self::ids).last() {
                    self.last.insert(region, last);
                }
            }
            Fate::Fails | Fate::FailsButKeepsNotes => {
                self.unstored.insert(region, read.to_vec());
            }
            Fate::SucceedsAndDies => {}
        }
    }

    fn move_due(&mut self, fate: Fate) {
        while let Some(plan) = self.waiting.due(self.end(), self.now) {
            self.commit(plan, fate);
            if fate != Fate::Succeeds {
                return;
            }
        }
        for (id, known) in self.known.iter().enumerate().filter(|(_, known)| known.acknowledged) {
            assert!(self.log.contains(&id) || self.now < known.came + WINDOW, "{id} waits longer than the window");
        }
        assert!(self.waiting.next_due(self.now).is_none_or(|due| due > self.now));
    }
}

fn ids(batch: &NewBatch) -> Vec<usize> {
    match &batch.content {
        Content::Events(events) => events
            .iter()
            .map(|event| {
                let event: serde_json::Value = serde_json::from_slice(&event).unwrap();
                usize::try_from(event["id"].as_u64().unwrap()).unwrap()
            })
            .collect(),
        Content::PossibleLoss(id) => vec![id.parse().unwrap()],
        Content::Damaged(_) => unreachable!(),
    }
}

properties! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn nothing_is_lost_or_doubled_nothing_waits_too_long_and_what_is_not_late_stands_by_its_time(acts in acts()) {
        let mut world = World::new();
        for act in acts {
            match act {
                Act::Read(region, events, split, is_marked, fate) => {
                    world.take_in(region, events.split_at(split.min(events.len())), is_marked, fate);
                }
                Act::Marker(region, fate) => world.take_in(region, (&[], &[]), true, fate),
                Act::Pass(ms) => world.now += Duration::from_millis(ms),
                Act::Move(fate) => world.move_due(fate),
                Act::Die => world.die(),
            }
        }
        (0..3).for_each(|region| world.try_again(region));
        world.waiting.hurry(world.now);
        world.move_due(Fate::Succeeds);
        for name in world.waiting.farewell().expect("nothing waits any more") {
            world.notes.remove(&name.0);
        }
        prop_assert_eq!(world.notes.len(), 0);

        let places: HashMap<usize, usize> = world.log.iter().enumerate().map(|(place, id)| (*id, place)).collect();
        prop_assert_eq!(places.len(), world.log.len(), "nothing is there twice");
        for (id, known) in world.known.iter().enumerate() {
            prop_assert!(places.contains_key(&id) || !known.acknowledged, "{} is lost", id);
            if let Some(before) = known.follows.filter(|_| known.acknowledged) {
                prop_assert!(places[&before] < places[&id], "the marker {} left its place", id);
            }
        }
        let in_time = |id: &&usize| world.known[**id].acknowledged && !world.known[**id].late && world.known[**id].ms.is_some();
        let in_time: Vec<_> = world.log.iter().filter(in_time).map(|id| (world.known[*id].ms, *id)).collect();
        prop_assert!(in_time.is_sorted_by_key(|(ms, _)| *ms), "{:?}", in_time);
        for region in 0..3 {
            let own: Vec<_> = in_time.iter().filter(|(_, id)| world.known[*id].region == region).collect();
            prop_assert!(own.is_sorted(), "equal times stand as they came: {:?}", own);
        }
    }
}

#[test]
fn memory_is_bounded_the_oldest_do_not_wait() {
    let now = Instant::now();
    let mut waiting = ReorderBuffer::of_notes(WINDOW, &[], None, Sequence(1), now);
    let text = format!(r#"{{"ms":1,"text":"{}"}}"#, "x".repeat(MAX_BYTES / 4));
    let content = Content::Events(EventText::join([text.as_bytes()]).unwrap());
    let mut end = Sequence(1);
    for n in 0..8 {
        let new = NewBatch {
            received_at: UnixMillis(1000 + n),
            region: RegionName::parse("r").unwrap(),
            content: content.clone(),
        };
        let plan = waiting.take_in(std::slice::from_ref(&new), end, now);
        waiting.done(plan);
        while let Some(plan) = waiting.due(end, now) {
            end = end.plus(plan.batches.len() as u64);
            waiting.done(plan);
        }
        assert!(waiting.bytes <= MAX_BYTES);
    }
    assert!(end > Sequence(4), "{end}");
}
