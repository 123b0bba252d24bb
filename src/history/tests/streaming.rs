//! Streams: whole, gone on with after any cursor, patient, and no faster than their readers.

use tokio_util::sync::CancellationToken;

use super::*;
use crate::history::{MessageStream, StreamPart};
use crate::kernel::testing::pass;
use crate::upstream::egress::Reply;

impl World {
    pub(super) async fn stream(&self, parameters: &str, terms: Terms) -> Result<MessageStream, Error> {
        self.stream_until(parameters, terms, CancellationToken::new()).await
    }

    async fn stream_until(&self, more: &str, terms: Terms, stop: CancellationToken) -> Result<MessageStream, Error> {
        let query = format!("source=s&start_time=1400000000&end_time={}{more}", NOW + 60);
        let query: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        self.history.stream(&a1(), &query, terms, stop).await
    }

    /// MessageStream `from..to`, a line each.
    pub(super) fn lines(&self, from: usize, to: usize) -> Vec<String> {
        let list = self.vendor.list(from, to);
        let list: Vec<&serde_json::value::RawValue> = serde_json::from_str(&list).unwrap();
        list.iter().map(|message| message.get().to_owned()).collect()
    }
}

pub(super) async fn all(mut stream: MessageStream) -> Vec<StreamPart> {
    let mut parts = Vec::new();
    while let Some(part) = stream.next().await {
        parts.push(part);
    }
    parts
}

fn text(part: &StreamPart) -> String {
    let StreamPart::Lines { pieces, .. } = part else { panic!("{part:?}") };
    String::from_utf8(pieces.concat()).unwrap()
}

/// The messages in some parts, and the cursors with how many messages were given before each.
pub(super) fn read(parts: &[StreamPart]) -> (Vec<String>, Vec<(usize, String)>) {
    let (mut messages, mut cursors) = (Vec::new(), Vec::new());
    for line in parts.iter().map(text).collect::<String>().lines().map(str::trim_start).filter(|line| !line.is_empty())
    {
        let value: Value = serde_json::from_str(line).unwrap();
        match value["cursor"].as_str() {
            Some(cursor) => cursors.push((messages.len(), cursor.to_owned())),
            None => messages.push(line.to_owned()),
        }
    }
    (messages, cursors)
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_whole_and_every_cursor_in_it_leads_to_exactly_the_rest() {
    let world = World::new(431);
    let parts = all(world.stream("", terms("c", 30)).await.unwrap()).await;
    let (messages, cursors) = read(&parts);
    assert_eq!(messages, world.lines(0, 431));
    let last = &cursors.last().unwrap().1;
    assert_eq!(text(parts.last().unwrap()), format!("{{\"end\":true,\"messages\":431,\"cursor\":\"{last}\"}}\n"));
    assert!(cursors.len() >= 5);
    for (given, cursor) in cursors {
        for (limit, to) in [("", 431), ("&limit=7", 431.min(given + 7))] {
            let rest = world.stream(&format!("&cursor={cursor}{limit}"), terms("d", 30)).await.unwrap();
            let (messages, cursors) = read(&all(rest).await);
            assert_eq!(messages, world.lines(given, to));
            let rest = world.stream(&format!("&cursor={}", cursors.last().unwrap().1), terms("d", 30)).await.unwrap();
            assert_eq!(read(&all(rest).await).0, world.lines(to, 431));
        }
    }
    assert_eq!(world.metric("rtm_gateway_history_streams_total{app=\"a1\",end=\"broken\"}").as_deref(), Some("0"));
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_before_the_first_line_is_an_error_and_costs_no_more() {
    let world = World::new(5);
    for more in ["&cursor=x", "&cursor=", "&limit=0", "&offset=3", "&order=up"] {
        let error = world.stream(more, terms("c", 30)).await.unwrap_err();
        assert!(matches!(error, Error::BadRequest(_)), "{error:?}");
    }
    assert!(world.vendor.orders().is_empty());
    world.vendor.script("history_create", [Act::Says(400, "no")]);
    let error = world.stream("", terms("c", 30)).await.unwrap_err();
    assert!(matches!(&error, Error::Refused(reply) if matches!(**reply, Reply { status, .. } if status == 400)));
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_fails_for_a_while_breaks_nothing() {
    let world = World::new(300);
    world.vendor.script("history_create", (0..9).map(|_| Act::Says(503, "")));
    world.vendor.script("history_get", (0..9).map(|_| Act::Lost));
    let stream = world.stream("", terms("c", 0)).await.unwrap();
    assert_eq!(read(&all(stream).await).0, world.lines(0, 300));
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_stalls_ends_the_stream_with_a_cursor_after_signs_of_life() {
    let world = World::new(300);
    let mut stream = world.stream("", terms("c", 30)).await.unwrap();
    let mut given = vec![stream.next().await.unwrap()];
    world.vendor.script("history_get", (0..1000).map(|_| Act::InProgress));
    world.vendor.script("history_create", (0..1000).map(|_| Act::Says(503, "")));
    let began = Instant::now();
    let (error, cursor) = loop {
        match stream.next().await.unwrap() {
            StreamPart::Broken { error, cursor } => break (error, cursor),
            lines @ StreamPart::Lines { .. } => given.push(lines),
        }
    };
    assert!(stream.next().await.is_none());
    let lived = began.elapsed();
    assert!((Duration::from_secs(26)..Duration::from_secs(62)).contains(&lived), "{lived:?}");
    assert!(matches!(error, Error::BadUpstream(_) | Error::StillRunning { .. }), "{error:?}");
    let (messages, cursors) = read(&given);
    assert_eq!(cursors.last(), Some(&(messages.len(), cursor.clone())));
    let (alive, parts): (Vec<_>, Vec<_>) = given.iter().partition(|part| text(part) == " ");
    assert!(!alive.is_empty() && parts.len() == cursors.len(), "a sign of life is no place: {given:?}");
    assert_eq!(world.metric("rtm_gateway_history_streams_total{app=\"a1\",end=\"broken\"}").as_deref(), Some("1"));

    // A vendor that is well gives the rest.
    let world = World::new(300);
    let rest = world.stream(&format!("&cursor={cursor}"), terms("c", 30)).await.unwrap();
    assert_eq!(read(&all(rest).await).0, world.lines(messages.len(), 300));
}

#[tokio::test(start_paused = true)]
async fn a_stream_waits_for_a_spent_retry_budget_once_and_goes_on_when_there_is_some() {
    for (refused, ends) in [(60, false), (u32::MAX, true)] {
        let world = World::new(300);
        let mut stream = world.stream("", terms("c", 30)).await.unwrap();
        let mut given = vec![stream.next().await.unwrap()];
        world.vendor.script("history_create", (0..8).map(|_| Act::Says(500, "")));
        world.vendor.refuse_repeats(refused);
        let began = Instant::now();
        given.extend(all(stream).await);
        let stall = config::History::default().deadline;
        assert!(began.elapsed() < stall + Duration::from_secs(5), "{:?}", began.elapsed());
        if let Some(StreamPart::Broken { error, .. }) = given.pop_if(|part| matches!(part, StreamPart::Broken { .. })) {
            assert!(ends && matches!(error, Error::Failing { .. }), "{error:?}");
            assert!(began.elapsed() >= stall, "{:?}", began.elapsed());
        } else {
            assert!(!ends);
            assert_eq!(read(&given).0, world.lines(0, 300));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_waits_for_the_quota_beyond_any_deadline() {
    let world = World::new(20);
    world.vendor.script("history_create", [Act::NoSeatInTime]);
    let began = Instant::now();
    let mut stream = world.stream("", terms("c", 1)).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(1), "the head does not wait");
    for _ in 0..20 {
        assert_eq!(text(&stream.next().await.unwrap()), " ", "a sign of life");
    }
    assert!(began.elapsed() >= Duration::from_secs(300));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_stops_the_vendor_and_one_that_leaves_ends_the_stream() {
    let world = World::new(20_000);
    let mut stream = world.stream("", terms("c", 30)).await.unwrap();
    let mut given = Vec::new();
    for _ in 0..10 {
        given.push(stream.next().await.unwrap());
    }
    pass(Duration::from_secs(10)).await;
    let asked = world.vendor.orders().len();
    assert!(asked < 200, "{asked}");
    pass(Duration::from_secs(3600)).await;
    assert_eq!(world.vendor.orders().len(), asked);
    given.push(stream.next().await.unwrap());
    given.push(stream.next().await.unwrap());
    let messages = read(&given).0;
    assert_eq!(messages, world.lines(0, messages.len()));
    drop(stream);
    pass(Duration::from_secs(1)).await;
    assert_eq!(world.metric("rtm_gateway_history_streams_total{app=\"a1\",end=\"left\"}").as_deref(), Some("1"));
    assert_eq!(world.tasks.finish(Duration::ZERO).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_drains_ends_a_stream_with_a_cursor() {
    let world = World::new(20_000);
    let stop = CancellationToken::new();
    let mut stream = world.stream_until("", terms("c", 30), stop.clone()).await.unwrap();
    let mut given = vec![stream.next().await.unwrap()];
    stop.cancel();
    let cursor = loop {
        match stream.next().await.unwrap() {
            StreamPart::Broken { error, cursor } => {
                assert!(matches!(error, Error::Egress(Failure::Stopping)), "{error:?}");
                break cursor;
            }
            lines @ StreamPart::Lines { .. } => given.push(lines),
        }
    };
    let messages = read(&given).0;
    let mut rest = world.stream(&format!("&cursor={cursor}"), terms("c", 30)).await.unwrap();
    let next = read(&[rest.next().await.unwrap()]).0;
    assert_eq!(next, world.lines(messages.len(), messages.len() + next.len()));
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_proof_ends_gives_nothing_that_lies_ready_asks_nothing_more_and_says_where_to_go_on() {
    for verdict in [WITHDRAWN, EXPIRED] {
        for pause in [Duration::ZERO, Duration::from_secs(60)] {
            let (world, proofs) = (World::new(20_000), proofs());
            let of_c = proof(&proofs, "c");
            let by_c = Terms { proof: of_c.clone(), ..terms("c", 30) };
            let mut stream = world.stream("", by_c).await.unwrap();
            let mut given = vec![stream.next().await.unwrap(), stream.next().await.unwrap()];
            pass(pause).await;
            of_c.judge(0, verdict);
            let asked = world.vendor.orders().len();
            pass(Duration::from_secs(60)).await;
            assert!(world.vendor.orders().len() <= asked + 1, "what was under way, and no more");
            let asked = world.vendor.orders().len();
            let Some(StreamPart::Broken { error, cursor }) = stream.next().await else { panic!("more was given") };
            assert!(matches!(error, Error::Egress(Failure::Unproven(_))), "{error:?}");
            assert!(stream.next().await.is_none());
            assert_eq!(world.vendor.orders().len(), asked);
            let messages = read(&given).0;
            let mut rest = world.stream(&format!("&cursor={cursor}"), terms("c", 30)).await.unwrap();
            given = vec![rest.next().await.unwrap()];
            let next = read(&given).0;
            assert_eq!(next, world.lines(messages.len(), messages.len() + next.len()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn times_with_fractions_cut_what_is_given_and_a_count_says_which_seconds_it_is_of() {
    let world = World::new(431);
    let ask = |order: &str, offset: u64, limit: usize| {
        json!({
            "filter": {"source": "s", "start_time": "2017-07-14T02:40:00.105Z", "end_time": 1_500_000_000.5},
            "order": order, "offset": offset, "limit": limit,
        })
        .to_string()
    };
    for (order, offset, limit, wanted) in [
        ("asc", 0, 20, (11..31).collect::<Vec<_>>()),
        ("asc", 30, 100, (41..51).collect()),
        ("asc", 0, 1000, (11..51).collect()),
        ("desc", 0, 3, vec![50, 49, 48]),
        ("desc", 38, 100, vec![12, 11]),
        ("desc", 40, 100, vec![]),
    ] {
        let answer = world.query(ask(order, offset, limit), terms("c", 30)).await.unwrap();
        let wanted: Vec<Value> = wanted
            .into_iter()
            .flat_map(|n| serde_json::from_str::<Vec<Value>>(&world.vendor.list(n, n + 1)).unwrap())
            .collect();
        assert_eq!(value(&answer)["messages"], json!(wanted), "{order} {offset} {limit}");
        assert_eq!(value(&answer)["limit"], limit);
    }
    assert!(world.vendor.orders().len() <= 2 * 12, "{}", world.vendor.orders().len());
    let counted = world.count("source=s&start_time=1500000000.105&end_time=2017-07-14T02:40:01.5Z", terms("c", 30));
    let range = r#""code":"ok","count":431,"start_time":1500000000,"end_time":1500000002"#;
    assert_eq!(super::text(&counted.await.unwrap()), range);
    let whole = world.count("source=s&start_time=1500000000.000&end_time=1500000001", terms("c", 30)).await.unwrap();
    assert_eq!(super::text(&whole), r#""code":"ok","count":431"#);
}
