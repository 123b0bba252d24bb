use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;
use crate::kernel::metrics::EndedWorkLabels;

const START: u64 = 1_000_000;

fn proofs() -> (Proofs, Clock) {
    let clock = Clock::anchored(SystemTime::UNIX_EPOCH + Duration::from_millis(START));
    (Proofs::new(clock.clone()), clock)
}

fn basis(number: u8) -> Basis {
    let evidence = Evidence { by: By::Key([number; 32]), certificate: None };
    Basis {
        client: ClientName::parse("c").unwrap(),
        evidence,
        app: AppId::parse("a").unwrap(),
        action: Action::Events,
        user: None,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_waits_for_the_judgement_of_its_own_proof_alone() {
    let (proofs, _) = proofs();
    let (one, other) = (
        proofs.enter(basis(1), proofs.generation(), Life::ENDLESS),
        proofs.enter(basis(2), proofs.generation(), Life::ENDLESS),
    );
    assert_eq!(one.stands().now_or_never(), Some(Ok(())));
    proofs.changed();
    assert_eq!((one.stands().now_or_never(), other.stands().now_or_never()), (None, None));
    let mut waits = Box::pin(one.stands());
    assert!(futures_util::poll!(&mut waits).is_pending());
    one.judge(proofs.generation(), Verdict::Good(Life::ENDLESS));
    assert_eq!(waits.now_or_never(), Some(Ok(())));
    assert_eq!(other.stands().now_or_never(), None, "the other waits for its own");
    let ended = Box::pin(other.ended());
    other.judge(proofs.generation(), Verdict::Ended(Ended::Withdrawn));
    assert_eq!(other.stands().now_or_never(), Some(Err(Ended::Withdrawn)));
    assert_eq!(ended.now_or_never(), Some(Ended::Withdrawn));
}

#[tokio::test(start_paused = true)]
async fn what_only_expired_ends_streams_and_lets_admitted_work_go_on_until_it_is_withdrawn_too() {
    let (proofs, clock) = proofs();
    let until = UnixMillis(clock.wall_ms().0 + 5000);
    let proof = proofs.enter(basis(1), 0, Life::until(until));
    tokio::time::advance(Duration::from_millis(4999)).await;
    assert_eq!(proof.stands().now_or_never(), Some(Ok(())));
    tokio::time::advance(Duration::from_millis(1)).await;
    // Nobody has looked yet: the clock is asked at each hand-over.
    assert_eq!(proof.stands().now_or_never(), Some(Err(Ended::Expired)));
    assert_eq!(proof.goes_on().now_or_never(), Some(Ok(())));
    assert!(proof.expire(clock.wall_ms()) && !proof.expire(clock.wall_ms()));
    let mut withdrawn = Box::pin(proof.withdrawn());
    assert!(futures_util::poll!(&mut withdrawn).is_pending());
    proofs.changed();
    proof.judge(proofs.generation(), Verdict::Good(Life::ENDLESS));
    assert_eq!(proof.stands().now_or_never(), Some(Err(Ended::Expired)), "what ended stays ended");
    proofs.changed();
    proof.judge(proofs.generation(), Verdict::Ended(Ended::Forbidden));
    assert_eq!(withdrawn.now_or_never(), Some(Ended::Forbidden));
    assert_eq!(proof.goes_on().now_or_never(), Some(Err(Ended::Forbidden)));
}

#[tokio::test(start_paused = true)]
async fn each_piece_of_work_that_ends_for_its_proof_is_counted_once_and_what_goes_on_is_not() {
    let (_, clock) = proofs();
    let counts = EndedWork::default();
    let proofs = Proofs::counted(clock.clone(), counts.clone());
    let counted = |work: Work, how: Ended| {
        counts.get_or_create(&EndedWorkLabels { work: work.as_str().into(), reason: how.as_str().into() }).get()
    };
    let until = UnixMillis(clock.wall_ms().0 + 5000);
    let shared = proofs.enter(basis(1), 0, Life::until(until));
    let (stream, export, message) = (shared.of(Work::Stream), shared.of(Work::Export), shared.of(Work::Message));
    let left = shared.of(Work::Poll);
    assert_eq!((stream.stands().await, message.goes_on().await), (Ok(()), Ok(())));
    drop(left);
    tokio::time::advance(Duration::from_secs(5)).await;
    // Its parts ask side by side, and again and again.
    let part = stream.clone();
    assert_eq!((stream.ended().await, part.stands().await), (Ended::Expired, Err(Ended::Expired)));
    assert_eq!((export.stands().await, message.goes_on().await), (Err(Ended::Expired), Ok(())));
    proofs.changed();
    shared.judge(proofs.generation(), Verdict::Ended(Ended::Withdrawn));
    assert_eq!((message.withdrawn().await, message.is_withdrawn()), (Ended::Withdrawn, true));
    assert_eq!(stream.ended().await, Ended::Withdrawn, "what had expired was withdrawn, too; it had ended already");
    for work in [Work::Stream, Work::Poll, Work::Export, Work::History, Work::Count, Work::Message] {
        let all = [Ended::Expired, Ended::Withdrawn, Ended::Forbidden].map(|how| counted(work, how));
        let expected = match work {
            Work::Stream | Work::Export => [1, 0, 0],
            Work::Message => [0, 1, 0],
            Work::Poll | Work::History | Work::Count => [0; 3],
        };
        assert_eq!(all, expected, "{work:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn equal_bases_are_one_proof_and_the_register_is_as_large_as_what_is_open() {
    let (proofs, _) = proofs();
    let open: Vec<_> = (0..100).map(|n| proofs.enter(basis(n % 4), 0, Life::ENDLESS)).collect();
    assert_eq!(proofs.all().len(), 4);
    assert!(open[0].is(&open[4]) && !open[0].is(&open[1]));
    // Whoever comes after an end is judged as anybody who comes.
    open[0].judge(0, Verdict::Ended(Ended::Withdrawn));
    let again = proofs.enter(basis(0), 0, Life::ENDLESS);
    assert!(!again.is(&open[0]) && again.stands().now_or_never() == Some(Ok(())));
    drop(open);
    assert_eq!(proofs.all().len(), 1, "the old one's end takes only itself out");
    drop(again);
    assert_eq!(proofs.all().len(), 0);
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Enter(u8),
    Leave(u8),
    Change,
    Judge(u8, u8),
    Pass(u64),
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..4u8).prop_map(Op::Enter),
        1 => (0..4u8).prop_map(Op::Leave),
        2 => Just(Op::Change),
        6 => (0..4u8, 0..6u8).prop_map(|(n, verdict)| Op::Judge(n, verdict)),
        1 => (0..700u64).prop_map(Op::Pass),
    ]
}

/// What is known of one proof, in as many words as it takes.
#[derive(Clone, Copy, Debug)]
struct Model {
    judged: u64,
    until: u64,
    found: Standing,
}

impl std::fmt::Debug for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.number())
    }
}

impl Model {
    fn stands(&self, generation: u64, now: u64) -> Option<Result<(), Ended>> {
        match self.found {
            Standing::Ended(how) if how != Ended::Expired => Some(Err(how)),
            _ if self.judged < generation => None,
            Standing::Ended(how) => Some(Err(how)),
            _ if now >= self.until => Some(Err(Ended::Expired)),
            Standing::Undecided => None,
            Standing::Good => Some(Ok(())),
        }
    }

    fn goes_on(&self, generation: u64) -> Option<Result<(), Ended>> {
        match self.found {
            Standing::Ended(how) if how != Ended::Expired => Some(Err(how)),
            _ if self.judged < generation => None,
            _ => Some(Ok(())),
        }
    }
}

properties! {
    #[test]
    fn through_any_changes_a_proof_says_what_was_last_found_and_never_more(ops in prop::collection::vec(any_op(), 0..80)) {
        runtime().block_on(async {
            let (proofs, clock) = proofs();
            let mut open: [Option<(Proof, Model)>; 4] = Default::default();
            for op in ops {
                let (generation, now) = (proofs.generation(), clock.wall_ms().0);
                match op {
                    Op::Enter(n) => {
                        let until = now + 1000;
                        let proof = proofs.enter(basis(n), generation, Life::until(UnixMillis(until)));
                        let slot = &mut open[usize::from(n)];
                        let goes_on = slot.as_ref().is_some_and(|(before, _)| before.is(&proof));
                        let had_ended = slot.as_ref().is_some_and(|(_, model)| {
                            matches!(model.found, Standing::Ended(_)) || now >= model.until
                        });
                        assert_eq!(goes_on, slot.is_some() && !had_ended);
                        if !goes_on {
                            *slot = Some((proof, Model { judged: generation, until, found: Standing::Good }));
                        }
                    }
                    Op::Leave(n) => open[usize::from(n)] = None,
                    Op::Change => proofs.changed(),
                    Op::Pass(ms) => tokio::time::advance(Duration::from_millis(ms)).await,
                    Op::Judge(n, verdict) => {
                        let Some((proof, model)) = &mut open[usize::from(n)] else { continue };
                        let until = now + 500;
                        let (verdict, found) = match verdict {
                            0 | 1 => (Verdict::Good(Life::until(UnixMillis(until))), Standing::Good),
                            2 => (Verdict::Undecided, Standing::Undecided),
                            n => {
                                let how = [Ended::Expired, Ended::Withdrawn, Ended::Forbidden][usize::from(n) - 3];
                                (Verdict::Ended(how), Standing::Ended(how))
                            }
                        };
                        proof.judge(generation, verdict);
                        model.judged = generation;
                        if found == Standing::Good {
                            model.until = until;
                        }
                        match (model.found, found) {
                            (Standing::Ended(Ended::Expired), Standing::Ended(_)) => model.found = found,
                            (Standing::Ended(_), _) => {}
                            _ => model.found = found,
                        }
                    }
                }
                let (generation, now) = (proofs.generation(), clock.wall_ms().0);
                for (proof, model) in open.iter().flatten() {
                    assert_eq!(proof.stands().now_or_never(), model.stands(generation, now), "{op:?} {model:?}");
                    assert_eq!(proof.goes_on().now_or_never(), model.goes_on(generation), "{op:?} {model:?}");
                    assert_eq!(proof.is_withdrawn(), matches!(model.goes_on(generation), Some(Err(_))));
                }
                assert_eq!(proofs.all().len(), open.iter().flatten().count());
            }
        });
    }
}
