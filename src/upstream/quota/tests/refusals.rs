//! A vendor that refuses although the quota is kept: an episode, told once when it begins and once when it ends.

use super::*;

async fn refused(bucket: &Arc<Bucket>, retry_after: Option<Duration>) {
    let mut seat = seat(bucket, LONG).await.unwrap();
    seat.sending();
    seat.refused(retry_after);
}

#[tokio::test(start_paused = true)]
async fn an_episode_begins_with_a_refusal_and_ends_when_all_seats_are_in_use_again() {
    let bucket = bucket(4, Begin::Full);
    use_up(seat(&bucket, LONG).await.unwrap());
    assert_eq!((bucket.refusals(), bucket.refusal_news()), (None, None));
    let began = Instant::now();
    refused(&bucket, Some(W * 3)).await;
    let now = bucket.refusals().unwrap();
    let expected =
        VendorRefusals { since: began, last: began, refused: 1, retry_after: Some(W * 3), in_force: 2, binds: true };
    assert_eq!(now, expected);
    assert_eq!(bucket.refusal_news(), Some(RefusalNews::Began(expected)));
    assert_eq!(bucket.refusal_news(), None, "once");
    // More of them are the same episode, and are told of only when asked.
    refused(&bucket, None).await;
    let now = bucket.refusals().unwrap();
    assert_eq!((now.since, now.refused, now.retry_after, now.in_force), (began, 2, None, 1));
    assert_eq!(bucket.refusal_news(), None);
    let last = now.last;
    assert_eq!(last, Instant::now());
    // It pauses for a window, and a seat grows back in each clean one after that.
    let mut ended = None;
    while ended.is_none() {
        pass(Duration::from_millis(50)).await;
        ended = bucket.refusal_news();
    }
    let Some(RefusalNews::Ended(then)) = ended else { panic!("{ended:?}") };
    assert_eq!((then.since, then.last, then.refused, then.in_force), (began, last, 2, 4));
    assert!(last.elapsed() > W * 4 && last.elapsed() < W * 6, "{:?}", last.elapsed());
    assert_eq!((bucket.refusals(), bucket.refusal_news()), (None, None));
    refused(&bucket, None).await;
    assert!(matches!(bucket.refusal_news(), Some(RefusalNews::Began(again)) if again.refused == 1));
}

#[tokio::test(start_paused = true)]
async fn it_is_told_that_one_began_also_when_nobody_looked_before_it_was_over() {
    let bucket = bucket(1, Begin::Full);
    refused(&bucket, None).await;
    pass(W * 10).await;
    assert_eq!(bucket.refusals(), None);
    assert!(matches!(bucket.refusal_news(), Some(RefusalNews::Began(then)) if then.refused == 1));
    assert!(matches!(bucket.refusal_news(), Some(RefusalNews::Ended(then)) if then.refused == 1));
    assert_eq!(bucket.refusal_news(), None);
}

#[tokio::test(start_paused = true)]
async fn it_binds_while_seats_are_out_of_use_and_not_in_the_window_in_which_it_is_watched() {
    let bucket = bucket(1, Begin::Full);
    refused(&bucket, None).await;
    assert!(bucket.refusals().unwrap().binds, "the pause");
    pass(TURN + GRACE).await;
    assert!(!bucket.refusals().unwrap().binds);
    pass(W).await;
    assert_eq!(bucket.refusals(), None);
}

#[tokio::test(start_paused = true)]
async fn of_a_bucket_that_is_retired_the_end_is_told_if_the_beginning_was_and_nothing_after_that() {
    for (was_told, was_over) in [(true, false), (true, true), (false, false), (false, true)] {
        let elder = bucket(4, Begin::Full);
        let mut late = seat(&elder, LONG).await.unwrap();
        late.sending();
        refused(&elder, None).await;
        if was_told {
            assert!(matches!(elder.refusal_news(), Some(RefusalNews::Began(_))));
        }
        if was_over {
            pass(W * 10).await;
        }
        let heir = bucket(4, Begin::Empty);
        elder.retire(std::slice::from_ref(&heir));
        assert_eq!(elder.refusal_news(), None);
        match (elder.last_refusal_news(), was_over) {
            (Some(RefusalNews::Unwatched(then)), false) | (Some(RefusalNews::Ended(then)), true) => {
                assert!(was_told && then.refused == 1);
            }
            (told, _) => assert_eq!((told, was_told), (None, false)),
        }
        // What is refused later its heir tells.
        late.refused(None);
        assert_eq!((elder.refusal_news(), elder.last_refusal_news()), (None, None));
        assert!(matches!(heir.refusal_news(), Some(RefusalNews::Began(then)) if then.refused == 1));
    }
}
