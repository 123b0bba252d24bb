//! What let a caller in is withdrawn or expires while work is under way.

use super::*;
use crate::kernel::testing::pass;

#[tokio::test(start_paused = true)]
async fn a_promised_job_goes_on_when_its_askers_expire_and_ends_when_the_last_of_them_is_withdrawn() {
    let (world, proofs) = (World::new(20), proofs());
    world.vendor.script("history_get", (0..100_000).map(|_| Act::InProgress));
    let (of_c, of_d) = (proof(&proofs, "c"), proof(&proofs, "d"));
    let by = |proof: &Proof, client| Terms { proof: proof.clone(), respond_async: true, ..terms(client, 0) };
    let place = location(&world.query(present(20), by(&of_c, "c")).await.unwrap());
    world.query(present(20), by(&of_d, "d")).await.unwrap();
    let goes_on = async || {
        let before = world.vendor.orders().len();
        pass(Duration::from_secs(20)).await;
        world.vendor.orders().len() > before
    };
    assert!(goes_on().await);
    of_c.judge(0, WITHDRAWN);
    of_d.judge(0, EXPIRED);
    world.history.review();
    assert!(goes_on().await, "what began goes on for whoever has only expired");
    assert_eq!(text(&world.fetch(&place, "c").await.unwrap()), "\"code\":\"in progress\"");
    of_d.judge(0, WITHDRAWN);
    world.history.review();
    assert!(!goes_on().await);
    assert!(matches!(world.fetch(&place, "c").await, Err(Error::NoSuchHandle)));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_withdrawn_leaves_its_job_to_the_others_and_one_that_expires_is_answered() {
    for (verdict, is_answered) in [(WITHDRAWN, false), (EXPIRED, true)] {
        let (world, proofs) = (World::new(20), proofs());
        world.vendor.script("history_get", (0..3).map(|_| Act::InProgress));
        let of_c = proof(&proofs, "c");
        let by_c = Terms { proof: of_c.clone(), ..terms("c", 30) };
        let (one, other, ()) =
            tokio::join!(world.query(present(20), by_c), world.query(present(20), terms("d", 30)), async {
                pass(Duration::from_secs(1)).await;
                of_c.judge(0, verdict);
            });
        assert!(other.is_ok());
        match one {
            Ok(_) => assert!(is_answered),
            Err(Error::Egress(Failure::Unproven(Ended::Withdrawn))) => assert!(!is_answered),
            Err(why) => panic!("{why:?}"),
        }
    }
}
