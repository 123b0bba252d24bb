use super::*;
use std::future::Future as _;
use std::pin::pin;

use proptest::prelude::*;
use tokio::time::advance;

/// A place, if there is one at once.
fn try_enter(door: &Door) -> Option<Place> {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    match pin!(door.enter()).poll(&mut cx) {
        Poll::Ready(place) => Some(place),
        Poll::Pending => None,
    }
}

fn enter(door: &Door) -> Place {
    try_enter(door).expect("a place at once")
}

/// A connection of this client without a request in hand.
fn idle(door: &Door, client: &str) -> Place {
    let place = enter(door);
    drop(place.seat().occupy(client).unwrap());
    place
}

fn must_go(place: &Place) -> bool {
    place.seat().poll_asked_to_go(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
}

/// Those that were asked go. Says which.
fn go(places: &mut Vec<(usize, Place)>) -> Vec<usize> {
    let gone = places.extract_if(.., |(_, place)| must_go(place));
    gone.map(|(name, _)| name).collect()
}

fn named(places: impl IntoIterator<Item = Place>) -> Vec<(usize, Place)> {
    places.into_iter().enumerate().collect()
}

#[tokio::test(start_paused = true)]
async fn strangers_go_first_the_longest_idle_of_them() {
    let door = Door::alone(8);
    let mut known = named([idle(&door, "a"), idle(&door, "a")]);
    let mut strangers = named((0..6).map(|_| enter(&door)));
    // One that asks is not idle; one that sends bytes without ever asking is, and nobody tells of them here.
    strangers[0].1.seat().asked();
    for (new, gone) in [(6, 1), (7, 2), (8, 3)] {
        let place = enter(&door);
        assert!(place.is_anothers());
        strangers.push((new, place));
        assert_eq!(go(&mut strangers), [gone]);
    }
    assert!(go(&mut known).is_empty());
}

#[tokio::test(start_paused = true)]
async fn then_idle_ones_of_the_client_that_has_most_and_never_one_with_a_request_in_hand() {
    let door = Door::alone(8);
    let mut few = named([idle(&door, "few"), idle(&door, "few")]);
    let mut many = named((0..6).map(|_| idle(&door, "many")));
    let in_hand = [0, 2].map(|n: usize| many[n].1.seat().occupy("many").unwrap());
    let mut new = Vec::new();
    for gone in [[1], [3]] {
        let place = enter(&door);
        new.push((place.seat().occupy("new").unwrap(), place));
        assert_eq!(go(&mut many), gone);
    }
    // Now it has four in all and the few two: it still has most, with those in hand.
    let last = enter(&door);
    assert_eq!((go(&mut many), go(&mut few)), (vec![4], vec![]));
    drop((in_hand, last));
}

#[tokio::test(start_paused = true)]
async fn where_each_has_a_request_in_hand_a_newcomer_waits_for_the_next_that_has_not() {
    let door = Door::alone(3);
    let mut held: Vec<_> = ["a", "b", "c"].map(|client| (enter(&door), client)).into();
    let mut in_hand: Vec<_> = held.iter().map(|(place, client)| place.seat().occupy(client).unwrap()).collect();
    assert!(try_enter(&door).is_none());
    let mut waiting = pin!(door.enter());
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    drop(in_hand.remove(1));
    let place = waiting.await;
    assert!(place.is_anothers() && must_go(&held[1].0) && !must_go(&held[0].0));
    drop(held.remove(1));
    // A stranger that has just come goes only where nobody else can.
    let newer = enter(&door);
    assert!(must_go(&place) && !must_go(&newer));
}

#[tokio::test(start_paused = true)]
async fn a_stranger_has_a_moment_while_strangers_have_less_than_their_share() {
    let door = Door::alone(16);
    let mut known = named((0..15).map(|_| idle(&door, "a")));
    let mut strangers = named([enter(&door)]);
    for n in 1..4 {
        strangers.push((n, enter(&door)));
        assert_eq!(go(&mut known), [n - 1], "each of four strangers came at the cost of a known one");
    }
    strangers.push((4, enter(&door)));
    assert_eq!((go(&mut known), go(&mut strangers)), (vec![], vec![0]));
    // The moment over, strangers go before known ones, however few they are.
    drop(strangers.drain(1..));
    known.extend((16..19).map(|n| (n, idle(&door, "a"))));
    advance(A_MOMENT).await;
    let _new = enter(&door);
    assert_eq!((go(&mut known), go(&mut strangers)), (vec![], vec![1]));
}

#[tokio::test(start_paused = true)]
async fn each_listener_keeps_places_that_no_other_takes() {
    let doors = Door::open(16, 2, Evicted::default());
    let mut tcp = named((0..14).map(|_| enter(&doors[0])));
    // Two are kept for the other: they are free, and stay so.
    tcp.push((14, enter(&doors[0])));
    assert_eq!(go(&mut tcp), [0]);
    let mut unix = named((0..2).map(|_| enter(&doors[1])));
    assert!(unix.iter().all(|(_, place)| !place.is_anothers()));
    assert!(go(&mut tcp).is_empty());
    // Beyond its own it gets what strangers elsewhere have, and they do not get its own.
    unix.push((2, enter(&doors[1])));
    assert_eq!(go(&mut tcp), [1]);
    tcp.push((15, enter(&doors[0])));
    assert_eq!((go(&mut tcp), go(&mut unix)), (vec![2], vec![]));
}

#[tokio::test(start_paused = true)]
async fn who_shows_who_it_is_in_the_last_moment_has_a_place_again() {
    let door = Door::alone(2);
    let (first, second) = (enter(&door), enter(&door));
    let third = enter(&door);
    assert!(must_go(&first) && !must_go(&second));
    // Its head was read before it heard that it has to go. As many as may be are on their way out, itself among them:
    // it comes back, and another goes for it.
    let occupied = first.seat().occupy("a").unwrap();
    assert!(!must_go(&first) && must_go(&second) && !must_go(&third));
    // And counts again.
    drop(second);
    let fourth = enter(&door);
    assert!(must_go(&third) && !must_go(&first));
    // Nobody else can go for the third: it is refused, and is on its way as before.
    let also = fourth.seat().occupy("b").unwrap();
    assert_eq!(third.seat().occupy("c").unwrap_err(), NoPlace);
    assert!(must_go(&third));
    door.places.table().check(3, 1, 2);
    drop((occupied, also));
}

#[tokio::test(start_paused = true)]
async fn one_client_never_has_all_places_in_hand() {
    let door = Door::alone(20);
    let places: Vec<_> = (0..20).map(|_| enter(&door)).collect();
    let occupied: Vec<_> = places.iter().map_while(|place| place.seat().occupy("a").ok()).collect();
    assert_eq!(occupied.len(), 18);
    // More requests on those that it has are no more connections.
    let more = places[0].seat().occupy("a").unwrap();
    assert!(places[19].seat().occupy("b").is_ok());
    drop((more, occupied));
    assert!(places[18].seat().occupy("a").is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_connection_counts_for_its_last_client() {
    let door = Door::alone(3);
    let balancer = enter(&door);
    let seat = balancer.seat();
    let (a, b) = (seat.occupy("a").unwrap(), seat.occupy("b").unwrap());
    drop(a);
    let mut of_b = named([idle(&door, "b"), idle(&door, "c")]);
    drop(b);
    // Two are b's.
    let new = enter(&door);
    assert_eq!(go(&mut of_b), [0], "of b's the longest idle: the balancer's was in hand until now");
    assert!(!must_go(&balancer));
    drop(new);
}

#[tokio::test(start_paused = true)]
async fn while_places_are_scarce_strangers_have_a_short_life() {
    let life = Duration::from_secs(10);
    let door = Door::alone(64);
    let mut strangers = named((0..32).map(|_| enter(&door)));
    advance(life).await;
    door.send_away(life);
    assert!(!door.is_crowded() && go(&mut strangers).is_empty(), "half of the places are free");
    strangers.push((32, enter(&door)));
    strangers[0].1.seat().asked();
    door.send_away(life);
    assert_eq!(go(&mut strangers), [1], "until half are free again");
    let known: Vec<_> = (0..40).map(|_| idle(&door, "a")).collect();
    go(&mut strangers);
    for _ in 0..8 {
        door.send_away(life);
        go(&mut strangers);
    }
    let left: Vec<_> = strangers.iter().map(|(name, _)| *name).collect();
    assert_eq!(left, [0, 32], "those that are not idle for so long");
    assert!(known.iter().all(|place| !must_go(place)));
}

#[derive(Clone, Debug)]
enum Step {
    Enter(usize),
    Leave(usize),
    Ask(usize),
    Occupy(usize, usize),
    Release(usize),
    Wait,
    SendAway,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0usize..3).prop_map(Step::Enter),
        2 => (0usize..40).prop_map(Step::Leave),
        1 => (0usize..40).prop_map(Step::Ask),
        4 => (0usize..40, 0usize..3).prop_map(|(place, client)| Step::Occupy(place, client)),
        3 => (0usize..40).prop_map(Step::Release),
        1 => Just(Step::Wait),
        1 => Just(Step::SendAway),
    ]
}

properties! {
    #[test]
    fn whatever_happens_the_book_is_true_and_nobody_in_hand_is_asked_to_go(
        places in 1usize..24, doors in 1usize..4, steps in prop::collection::vec(step(), 1..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let doors = Door::open(places, doors, Evicted::default());
            let mut open: Vec<(Place, Vec<SeatGuard>)> = Vec::new();
            for step in steps {
                let at = |n: usize| if open.is_empty() { None } else { Some(n % open.len()) };
                match step {
                    Step::Enter(n) => {
                        if let Some(place) = try_enter(&doors[n % doors.len()]) {
                            open.push((place, Vec::new()));
                        }
                    }
                    Step::Leave(n) => if let Some(n) = at(n) { drop(open.swap_remove(n)) },
                    Step::Ask(n) => if let Some(n) = at(n) { open[n].0.seat().asked() },
                    Step::Occupy(n, client) => {
                        let Some(n) = at(n) else { continue };
                        let client = ["a", "b", "c"][client];
                        let is_within_share = doors[0].places.table().share_of(client).is_ok();
                        match open[n].0.seat().occupy(client) {
                            Ok(occupied) => open[n].1.push(occupied),
                            // With one listener whoever is idle and has a place can go for one that was asked to.
                            Err(NoPlace) if is_within_share && doors.len() == 1 => {
                                let mut others = open.iter().filter(|(place, _)| !must_go(place));
                                assert!(others.all(|(_, occupied)| !occupied.is_empty()), "refused beside an idle one");
                            }
                            Err(NoPlace) => {}
                        }
                    }
                    Step::Release(n) => if let Some(n) = at(n) { drop(open[n].1.pop()) },
                    Step::Wait => advance(A_MOMENT).await,
                    Step::SendAway => doors[0].send_away(A_MOMENT),
                }
                for (place, occupied) in &open {
                    assert!(occupied.is_empty() || !must_go(place), "one in hand was asked to go");
                }
                let leaving = open.iter().filter(|(place, _)| must_go(place)).count();
                let in_hand = open.iter().filter(|(_, occupied)| !occupied.is_empty()).count();
                assert!(leaving <= most_leaving(places) && open.len() - leaving <= places);
                doors[0].places.table().check(open.len(), leaving, in_hand);
            }
        });
    }
}
