//! A vendor that fails and says for how long it wants to be left alone.

use super::streaming::{all, read};
use super::*;

#[tokio::test(start_paused = true)]
async fn after_a_failure_the_vendor_is_left_alone_for_as_long_as_it_wants() {
    for (endpoint, status) in ["history_create", "history_get", "history_count"].into_iter().zip([500, 408, 503]) {
        let ask = async |world: &World| match endpoint {
            "history_count" => world.count("source=s&start_time=1&end_time=2", terms("c", 30)).await,
            _ => world.query(present(20), terms("c", 30)).await,
        };
        let world = World::new(5);
        world.vendor.script(endpoint, [Act::Asks(status, 7)]);
        assert!(ask(&world).await.is_ok(), "{endpoint}");
        let seen = world.vendor.seen(endpoint);
        assert_eq!(seen[1] - seen[0], Duration::from_millis(7100), "{endpoint}");
        // Longer than anybody waits: told at once.
        let world = World::new(5);
        world.vendor.script(endpoint, (0..9).map(|_| Act::Asks(status, 120)));
        let began = Instant::now();
        let error = ask(&world).await.unwrap_err();
        let told = match &error {
            Error::Refused(reply) => (reply.status.as_u16(), reply.retry_after()),
            Error::Failing { status, retry_after } => (status.as_u16(), Some(*retry_after)),
            other => panic!("{other:?}"),
        };
        assert_eq!(told, (status, Some(Duration::from_secs(120))));
        assert_eq!(world.vendor.seen(endpoint).len(), 1, "{endpoint}");
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_wants_to_be_left_alone_is_as_long_as_a_stream_may_stall() {
    for status in [500, 503] {
        let world = World::new(5);
        world.vendor.script("history_create", [Act::Asks(status, 9)]);
        let parts = all(world.stream("", terms("c", 30)).await.unwrap()).await;
        assert_eq!(read(&parts).0, world.lines(0, 5), "{status}");
        let seen = world.vendor.seen("history_create");
        assert!(*seen.last().unwrap() > Duration::from_secs(9), "{status}: {seen:?}");
        // Longer than that: it breaks, and nobody has asked again.
        let world = World::new(5);
        world.vendor.script("history_create", (0..9).map(|_| Act::Asks(status, 120)));
        let error = world.stream("", terms("c", 30)).await.unwrap_err();
        assert!(matches!(error, Error::Failing { .. } | Error::Refused(_)), "{error:?}");
        let seen = world.vendor.seen("history_create");
        assert!(seen.iter().all(|at| *at < Duration::from_secs(1)), "{status}: {seen:?}");
    }
}
