//! Streams of events over real sockets: they bring each event once and in order, whatever is cut, and end in order.

mod listener;

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Method;
use rtm_gateway::config::Config;
use rtm_gateway::events::Cursor;
use rtm_gateway::kernel::metrics::{ShedLabels, StreamLabels};
use rtm_gateway::kernel::names::Stream;
use rtm_gateway::store::Sequence;
use tokio::io::AsyncWriteExt as _;

use self::listener::{Block, Blocks, Listener};
use super::handover::large_events;
use super::stage::{APP, DEADLINE, Stage, request};
use crate::support::client::Client;
use crate::support::waiting::{eventually, pause};

const USERS: &str = "/v1/apps/demo-app/events/user_events";
const ALL: &str = "/v1/apps/demo-app/events/all";

fn emit(stage: &Stage, count: usize) -> Vec<String> {
    stage.sim.emit_many(APP, Stream::UserEvents, count).iter().map(ToString::to_string).collect()
}

fn open_streams(stage: &Stage, stream: &str) -> i64 {
    let labels = StreamLabels { app: APP.into(), stream: stream.into() };
    stage.parts.metrics.event_streams.get_or_create(&labels).get()
}

async fn reload(stage: &Stage, change: impl FnOnce(&mut Config)) {
    let mut config = Config::clone(&stage.parts.config.load());
    change(&mut config);
    stage.parts.apply(&config).await.unwrap();
}

/// Lets so much time pass at once.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_stream_brings_each_event_when_it_comes_and_a_caller_that_leaves_frees_all_at_once() {
    let stage = Stage::start().await;
    let mut listener = Listener::open(&stage, USERS).await;
    for header in ["cache-control: no-store", "x-accel-buffering: no", "x-rtm-origin: gateway", "x-request-id: "] {
        assert!(listener.head.contains(&format!("\r\n{header}")), "{header} in {}", listener.head);
    }
    assert_eq!((open_streams(&stage, "user_events"), stage.parts.gateway.admission.in_hand()), (1, 0));
    let odd = "{\"type\":\"Log\\nin\",\r\n \"user_id\": \"用\"}";
    let sent = stage.sim.emit_raw(APP, Stream::UserEvents, odd);
    let event = listener.next().await.unwrap();
    assert_eq!((event.event.as_deref(), event.data()), (Some("Log in"), &*sent.replace('\r', "")));
    for text in emit(&stage, 3) {
        let event = listener.next().await.unwrap();
        assert_eq!(event.data(), text);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event.event.as_deref(), json["type"].as_str());
    }
    // What was streamed is read: the subscription has nothing left, and each `id` is a place to read after.
    let rest = stage.get(USERS).await.json();
    assert_eq!((rest["events"].as_array().unwrap().len(), &rest["lag"]), (0, &0.into()));
    let after = stage.get(&format!("{USERS}?after={}", event.id())).await.json();
    assert_eq!(after["events"].as_array().unwrap().len(), 3);
    drop(listener);
    eventually(|| open_streams(&stage, "user_events") == 0 && stage.parts.metrics.connections.get() == 0).await;
    stage.stopped().await;
}

/// Listens until `count` events came, and comes again with `Last-Event-ID` whenever the connection is cut, after any number
/// of bytes. Every other time the gateway is not told that it is cut.
async fn listen_with_cuts(stage: &Stage, url: &str, count: usize) -> Vec<Block> {
    let (mut got, mut open, mut cut) = (Vec::<Block>::new(), Vec::new(), 7);
    while got.len() + 200 < count {
        let last = got.last().map(|event| format!("Last-Event-ID: {}\r\n", event.id()));
        cut = cut * 48_271 % 65_521;
        let listener = Listener::with(stage, url, "all", &last.unwrap_or_default()).await;
        let (events, listener) = listener.cut_after(1000 + cut % 10_000).await;
        got.extend(events);
        open.extend(Some(listener).filter(|_| cut % 2 == 0));
    }
    // Those who cannot set the header say it in the URL.
    let target = format!("{url}&lastEventId={}", got.last().unwrap().id());
    let mut listener = Listener::open(stage, &target).await;
    while got.len() < count {
        got.push(listener.next().await.unwrap());
    }
    got
}

#[tokio::test]
async fn a_reader_that_is_cut_anywhere_and_comes_again_gets_each_event_once_and_in_order() {
    let stage = Stage::start().await;
    let sent = emit(&stage, 1500);
    let first = Listener::open(&stage, &format!("{USERS}?subscription=other&limit=1")).await.next().await.unwrap();
    let data = |events: &[Block]| events.iter().map(|event| event.data().to_owned()).collect::<Vec<_>>();
    let stateless = format!("{USERS}?after={}&limit=100", first.id());
    assert_eq!(data(&listen_with_cuts(&stage, &stateless, 1499).await), sent[1..]);
    for limit in [1, 100, 1000] {
        let stored = format!("{USERS}?subscription=of-{limit}&limit={limit}");
        assert_eq!(data(&listen_with_cuts(&stage, &stored, 1500).await), sent, "{limit}");
    }
    // Nothing is left, and nothing comes again when all that were cut are known to be.
    eventually(|| stage.parts.events.subscriptions().iter().all(|s| s.subscription == "other" || s.lag == 0)).await;
}

#[tokio::test]
async fn who_comes_again_from_the_same_place_ends_the_streams_that_were_opened_there_and_gets_all_of_them() {
    let stage = Stage::start().await;
    let mut sent = emit(&stage, 60);
    for limit in [1, 5, 1000] {
        let url = format!("{USERS}?subscription=half-open-{limit}&limit={limit}");
        let (mut got, mut open, mut first) = (Vec::new(), Vec::new(), Listener::open(&stage, &url).await);
        for _ in 0..3 {
            got.push(first.next().await.unwrap());
        }
        open.push(first);
        let last = format!("Last-Event-ID: {}\r\n", got[2].id());
        for _ in 0..3 {
            // It is given events that nobody takes, and is not known to be dead.
            open.push(Listener::with(&stage, &url, "all", &last).await);
            pause(Duration::from_millis(20)).await;
        }
        sent.extend(emit(&stage, 40));
        let mut listener = Listener::with(&stage, &url, "all", &last).await;
        while got.len() < sent.len() {
            got.push(listener.next().await.unwrap());
        }
        assert_eq!(got.iter().map(Block::data).collect::<Vec<_>>(), sent, "{limit}");
        let _open = open;
    }
}

/// All events of a stream until it ends, or until it has this one.
async fn until_end(mut listener: Listener, last: &str) -> (Vec<String>, Option<Listener>) {
    let mut got = Vec::new();
    while let Some(event) = listener.next().await {
        got.extend(event.data);
        if got.last().is_some_and(|text| text == last) {
            return (got, Some(listener));
        }
    }
    (got, None)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_streams_opened_at_once_from_one_place_one_goes_on_and_gets_each_event_once() {
    let stage = Stage::start().await;
    for round in 0..ROUNDS {
        let url = format!("{USERS}?subscription=at-once-{round}&from=latest&limit=4");
        let mut first = Listener::open(&stage, &url).await;
        let mut sent = emit(&stage, 10);
        let mut last = String::new();
        for text in &sent[..3] {
            let event = first.next().await.unwrap();
            assert_eq!(event.data(), text);
            last = event.id().to_owned();
        }
        let header = format!("Last-Event-ID: {last}\r\n");
        let at_once = (0..4).map(|_| Listener::with(&stage, &url, "all", &header));
        let open = futures_util::future::join_all(at_once).await;
        // From now on one alone may speak of what is new.
        sent.extend(emit(&stage, 10));
        let newest = sent.last().unwrap();
        let heard = futures_util::future::join_all(open.into_iter().map(|listener| until_end(listener, newest))).await;
        let (on, ended): (Vec<_>, Vec<_>) = heard.into_iter().partition(|(_, goes_on)| goes_on.is_some());
        assert_eq!(on.len(), 1, "round {round}");
        assert_eq!(on[0].0, sent[3..], "round {round}");
        for (got, _) in ended {
            assert!(got.iter().all(|text| sent[3..10].contains(text)), "round {round}: {got:?}");
        }
        drop(first);
    }
}

const ROUNDS: usize = 60;

#[tokio::test]
async fn a_reader_of_both_streams_that_is_cut_and_comes_again_gets_each_event_once_and_in_order() {
    let stage = Stage::start().await;
    for _ in 0..40 {
        emit(&stage, 15);
        stage.sim.emit_many(APP, Stream::ChannelEvents, 10);
        pause(Duration::from_millis(3)).await;
    }
    eventually(|| stage.parts.events.pollers().iter().map(|poller| poller.events).sum::<u64>() == 1000).await;
    let mut all = Vec::new();
    let mut whole = Listener::open(&stage, ALL).await;
    while all.len() < 1000 {
        all.push(whole.next().await.unwrap());
    }
    let named = |events: &[Block]| {
        let of = |event: &Block| (event.field("stream").unwrap().to_owned(), event.data().to_owned());
        events.iter().map(of).collect::<Vec<_>>()
    };
    for limit in [7, 300] {
        let got = listen_with_cuts(&stage, &format!("{ALL}?subscription=of-{limit}&limit={limit}"), 1000).await;
        assert_eq!(named(&got), named(&all), "{limit}");
    }
}

#[tokio::test]
async fn filters_pass_over_what_is_not_wanted_in_streams_and_in_answers() {
    let stage = Stage::start().await;
    for n in 0..40 {
        let kind = if n % 2 == 0 { "Login" } else { "Logout" };
        let event =
            format!(r#"{{"ms":{n},"type":"{kind}","user_id":"{}-{n}"}}"#, if n % 3 == 0 { "vip" } else { "web" });
        stage.sim.emit_raw(APP, Stream::UserEvents, &event);
    }
    let query = "type=Log*n&user_id=vip-*&user_id=web-38";
    let mut listener = Listener::open(&stage, &format!("{USERS}?{query}&limit=2")).await;
    let wanted: Vec<u64> = (0..40).filter(|n| n % 6 == 0 || *n == 38).collect();
    let number = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["ms"].as_u64().unwrap();
    let got: Vec<u64> = listener.data(wanted.len()).await.iter().map(|text| number(text)).collect();
    assert_eq!(got, wanted);
    let mut answered = Vec::new();
    while answered.len() < wanted.len() {
        let answer = stage.get(&format!("{USERS}?{query}&limit=3&wait=20s&subscription=pull")).await.json();
        let events = answer["events"].as_array().unwrap();
        assert!((1..=3).contains(&events.len()));
        answered.extend(events.iter().map(|event| event["event"]["ms"].as_u64().unwrap()));
    }
    assert_eq!(answered, wanted);
}

#[tokio::test]
async fn both_streams_come_in_the_order_received_in_answers_and_in_a_stream() {
    let stage = Stage::start().await;
    for _ in 0..30 {
        emit(&stage, 3);
        stage.sim.emit_many(APP, Stream::ChannelEvents, 5);
        pause(Duration::from_millis(3)).await;
    }
    eventually(|| stage.parts.events.pollers().iter().map(|poller| poller.events).sum::<u64>() == 240).await;
    let streamed = |event: &serde_json::Value| (event["stream"].clone(), event["event"].clone());
    let mut pulled = Vec::new();
    while pulled.len() < 240 {
        let answer = stage.get(&format!("{ALL}?subscription=pull&limit=7&wait=20s")).await;
        let body = answer.json();
        assert_eq!(answer.header("x-rtm-cursor"), body["next"].as_str());
        let events = body["events"].as_array().unwrap().clone();
        assert!((1..=7).contains(&events.len()));
        let gone = pulled.len() + events.len();
        // Repeating a read after a cursor gives the same.
        if let Some(before) = pulled.last() {
            let before: &serde_json::Value = before;
            let again = stage.get(&format!("{ALL}?after={}&limit=7", before["cursor"].as_str().unwrap())).await.json();
            let texts = |events: &[serde_json::Value]| events.iter().map(streamed).collect::<Vec<_>>();
            assert_eq!(texts(&again["events"].as_array().unwrap()[..events.len()]), texts(&events));
        }
        assert_eq!(body["lag"], 240 - gone, "{body}");
        pulled.extend(events);
    }
    let order = |event: &serde_json::Value| {
        let stream = Stream::parse(event["stream"].as_str().unwrap()).unwrap();
        (event["received_at"].as_str().unwrap().to_owned(), stream)
    };
    assert!(pulled.is_sorted_by_key(order));
    let expected: Vec<_> = pulled.iter().map(streamed).collect();
    let mut listener = Listener::open(&stage, &format!("{ALL}?limit=50")).await;
    assert_eq!(open_streams(&stage, "all"), 1);
    let mut got = Vec::new();
    while got.len() < 100 {
        got.push(listener.next().await.unwrap());
    }
    drop(listener);
    let after = format!("{ALL}?after={}", got.last().unwrap().id());
    let mut listener = Listener::open(&stage, &after).await;
    while got.len() < 240 {
        got.push(listener.next().await.unwrap());
    }
    let as_pulled =
        |block: &Block| (block.field("stream").unwrap().into(), serde_json::from_str(block.data()).unwrap());
    assert_eq!(got.iter().map(as_pulled).collect::<Vec<_>>(), expected);
    // And what comes now comes at once, whichever stream it is of.
    let now = stage.sim.emit_many(APP, Stream::ChannelEvents, 1)[0].to_string();
    assert_eq!(listener.next().await.unwrap().data(), now);
    let now = emit(&stage, 1).remove(0);
    assert_eq!(listener.next().await.unwrap().data(), now);
}

#[tokio::test]
async fn all_of_an_app_that_has_one_stream_is_that_stream() {
    let stage = Stage::with("", "streams = [\"channel_events\"]").await;
    let mut listener = Listener::open(&stage, ALL).await;
    let sent = stage.sim.emit_many(APP, Stream::ChannelEvents, 2);
    assert_eq!(listener.data(2).await, sent.iter().map(ToString::to_string).collect::<Vec<_>>());
    let none = stage.raw(request("GET", USERS, "all", "Accept: text/event-stream\r\n", "")).await;
    assert_eq!((none.status, none.code().as_str()), (404, "no_such_route"));
}

#[tokio::test]
async fn while_nothing_comes_a_heartbeat_does() {
    // A poller that sleeps for an hour has no read under way when time is made to pass.
    let stage = Stage::with("", "").await;
    reload(&stage, |config| {
        for app in &mut config.apps {
            app.events.poll_interval = Duration::from_secs(3600);
            app.events.poll_interval_idle = Duration::from_secs(3600);
        }
    })
    .await;
    eventually(|| stage.parts.events.pollers().iter().all(|poller| poller.state == "waiting")).await;
    let mut listener = Listener::open(&stage, USERS).await;
    let mut beats = 0;
    while beats < 3 {
        pass(Duration::from_secs(15)).await;
        let block = listener.block().await.unwrap();
        beats += u32::from(block.is_heartbeat());
        // A read that was under way all the same may have run out of its time.
        assert!(block.is_heartbeat() || block.event.as_deref() == Some("possible_loss"), "{block:?}");
    }
}

#[tokio::test]
async fn what_retention_took_is_said_in_the_stream_and_reading_goes_on_from_the_earliest() {
    let stage = Stage::with("", "retention_bytes = \"1MiB\"").await;
    let (mut sent, mut cursor) = (Vec::new(), String::new());
    for n in 0..48 {
        let event = format!(r#"{{"ms":{n},"type":"Login","user_id":"{}"}}"#, "x".repeat(32 << 10));
        sent.push(stage.sim.emit_raw(APP, Stream::UserEvents, &event).to_string());
        // One read of the vendor each, so that retention takes them one by one.
        eventually(|| stage.parts.events.pollers().iter().map(|poller| poller.events).sum::<u64>() > n).await;
        if n == 2 {
            let beginning = stage.get(&format!("{USERS}?subscription=early&limit=3")).await.json();
            cursor = beginning["events"][0]["cursor"].as_str().unwrap().to_owned();
            assert_eq!(stage.get(&format!("{USERS}?after={cursor}&limit=1")).await.status, 200);
        }
    }
    let gone = async {
        while stage.get(&format!("{USERS}?after={cursor}&limit=1")).await.status != 410 {
            pass(Duration::from_secs(31)).await;
        }
    };
    tokio::time::timeout(DEADLINE * 100, gone).await.unwrap();
    // Whenever time passes a read of the vendor may time out: its marker takes room, and retention another event.
    let earliest = async || {
        let gone = stage.get(&format!("{USERS}?after={cursor}")).await.json();
        gone["earliest"].as_str().unwrap().parse::<Cursor>().unwrap().at
    };
    let is_between = |earlier: Sequence, said: &str, later: Sequence| {
        let said = said.parse::<Cursor>().unwrap().at;
        assert!((earlier..=later).contains(&said), "{earlier:?} {said:?} {later:?}");
    };
    // With a cursor, and of a subscription: 1 was read of the first, 3 of the other.
    let mut lost = Vec::new();
    for (target, read) in [(format!("{USERS}?after={cursor}"), 1), (format!("{USERS}?subscription=early"), 3)] {
        let before = earliest().await;
        let mut listener = Listener::open(&stage, &target).await;
        let reset = listener.next().await.unwrap();
        assert_eq!(reset.event.as_deref(), Some("reset"), "{reset:?}");
        let data: serde_json::Value = serde_json::from_str(reset.data()).unwrap();
        assert_eq!(data["earliest"], reset.id());
        is_between(before, reset.id(), earliest().await);
        let count = usize::try_from(data["lost"].as_u64().unwrap()).unwrap();
        lost.push(count + read);
        let rest = listener.data(sent.len() - read - count).await;
        assert!(rest.len() > 1 && rest == sent[read + count..], "{} of {}", rest.len(), sent.len());
    }
    assert!(lost[0] <= lost[1], "{lost:?}");
    // A cursor of another store says nothing about this one: how many were lost is not known.
    let other = Cursor { epoch: 7, at: Sequence(5) };
    let before = earliest().await;
    let reset = Listener::open(&stage, &format!("{USERS}?after={other}")).await.next().await.unwrap();
    assert_eq!(reset.data(), serde_json::json!({"earliest": reset.id(), "lost": null}).to_string());
    is_between(before, reset.id(), earliest().await);
}

#[tokio::test]
async fn a_stop_ends_streams_in_order_and_what_they_had_not_been_given_is_kept() {
    let stage = Stage::start().await;
    let mut idle = Listener::open(&stage, USERS).await;
    let mut both = Listener::open(&stage, ALL).await;
    let mut busy = Listener::open(&stage, &format!("{USERS}?subscription=busy")).await;
    let sent = emit(&stage, 1);
    assert_eq!(busy.data(1).await, sent);
    let mut http2 = Client::http2(stage.addr).await.with("x-api-key", "all-key");
    let over_http2 = http2.head(Method::GET, USERS, &[("accept", "text/event-stream")], "").await.unwrap();
    stage.stop();
    for listener in [&mut idle, &mut both, &mut busy] {
        while let Some(event) = listener.next().await {
            assert_eq!(event.data(), sent[0]);
        }
    }
    let ended = tokio::time::timeout(DEADLINE, over_http2.into_body().collect()).await.expect("the stream ends");
    ended.expect("and not by a reset");
    stage.stopped().await;
}

#[tokio::test]
async fn streams_share_an_http2_connection_and_one_that_is_reset_gives_back_what_it_was_given() {
    let stage = Stage::start().await;
    let mut client = Client::http2(stage.addr).await.with("x-api-key", "all-key").with("accept", "text/event-stream");
    let kept = client.head(Method::GET, &format!("{USERS}?subscription=kept"), &[], "").await.unwrap();
    let cut = client.head(Method::GET, &format!("{USERS}?subscription=cut&limit=1000"), &[], "").await.unwrap();
    assert_eq!(open_streams(&stage, "user_events"), 2);
    // More than the window of a stream, so that a part is not taken.
    let sent = large_events(&stage).await;
    let mut cut = cut.into_body();
    assert!(cut.frame().await.unwrap().unwrap().data_ref().unwrap().starts_with(b"retry: "));
    assert!(cut.frame().await.unwrap().is_ok());
    drop(cut);
    eventually(|| open_streams(&stage, "user_events") == 1).await;
    let (mut blocks, mut got, mut kept) = (Blocks::default(), Vec::new(), kept.into_body());
    while got.len() < sent.len() {
        let frame = tokio::time::timeout(DEADLINE, kept.frame()).await.unwrap().unwrap().unwrap();
        blocks.feed(frame.data_ref().unwrap());
        while let Some(block) = blocks.next() {
            got.extend(block.data);
        }
    }
    assert_eq!(got, sent);
    // All of the last read that was not taken whole comes again.
    let again = Listener::open(&stage, &format!("{USERS}?subscription=cut")).await.next().await.unwrap();
    assert!(sent.iter().any(|text| text == again.data()), "{again:?}");
}

#[tokio::test]
async fn a_caller_that_takes_nothing_holds_back_itself_only_and_holds_one_read() {
    let stage = Stage::start().await;
    let mut slow = super::handover::small_caller(&stage).await;
    let target = format!("{USERS}?subscription=slow&limit=10");
    slow.write_all(request("GET", &target, "all", "Accept: text/event-stream\r\n", "").as_bytes()).await.unwrap();
    eventually(|| open_streams(&stage, "user_events") == 1).await;
    let mut quick = Listener::open(&stage, &format!("{USERS}?subscription=quick")).await;
    let sent = large_events(&stage).await;
    assert_eq!(quick.data(sent.len()).await, sent);
    let of_slow = || {
        let all = stage.parts.events.subscriptions();
        all.into_iter().find(|subscription| subscription.subscription == "slow").unwrap()
    };
    eventually(|| of_slow().in_flight > 0).await;
    // What the sockets' buffers took is handed over; of the rest one read is on its way, and no more is held.
    let standing = of_slow();
    assert!(standing.in_flight <= 10 && standing.lag > standing.in_flight, "{standing:?}");
    drop(slow);
    eventually(|| of_slow().in_flight == 0 && open_streams(&stage, "user_events") == 1).await;
}

#[tokio::test]
async fn streams_take_no_places_of_requests_and_have_a_room_of_their_own() {
    let stage = Stage::with("max_requests = 1\nmax_streams = 2", "").await;
    let first = Listener::open(&stage, USERS).await;
    // A client that has one may not take the last.
    let refused = stage.raw(request("GET", USERS, "all", "Accept: text/event-stream\r\n", "")).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "unavailable"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(stage.parts.metrics.requests_shed.get_or_create(&ShedLabels { reason: "streams".into() }).get(), 1);
    let other = Listener::with(&stage, USERS, "reader", "").await;
    assert_eq!(stage.get(USERS).await.status, 200);
    drop((first, other));
    eventually(|| open_streams(&stage, "user_events") == 0).await;
    Listener::open(&stage, USERS).await;
}

#[tokio::test]
async fn a_stream_counts_against_its_clients_ceiling_and_ends_when_its_right_is_taken() {
    let stage = Stage::start().await;
    reload(&stage, |config| client(config).max_concurrent = std::num::NonZeroU32::new(1)).await;
    let target = format!("{USERS}?subscription=s");
    let mut listener = Listener::with(&stage, &target, "reader", "").await;
    let refused = stage.raw(request("GET", &target, "reader", "", "")).await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "client_limit_exceeded"));
    reload(&stage, |config| client(config).allow.clear()).await;
    let sent = emit(&stage, 1);
    assert_eq!(listener.next().await, None);
    // It was given to nobody.
    assert_eq!(Listener::open(&stage, &target).await.data(1).await, sent);
}

fn client(config: &mut Config) -> &mut rtm_gateway::config::Client {
    config.clients.iter_mut().find(|client| client.name.as_str() == "reader").unwrap()
}

#[tokio::test]
async fn what_a_stream_cannot_be_asked_is_refused_before_it_begins() {
    let stage = Stage::start().await;
    emit(&stage, 1);
    let event = Listener::open(&stage, USERS).await.next().await.unwrap();
    let channels = USERS.replace("user", "channel");
    for (target, header, named) in [
        (format!("{USERS}?wait=5s"), "", "wait"),
        (USERS.to_owned(), "Last-Event-ID: 12\r\n", "Last-Event-ID"),
        (format!("{USERS}?last_event_id=12"), "", "last_event_id"),
        (format!("{USERS}?lastEventId=12"), "", "lastEventId"),
        (format!("{ALL}?after={}", event.id()), "", "after"),
        (format!("{channels}?after={}", event.id()), "", "after"),
        (format!("{ALL}?ack=explicit"), "", "ack"),
    ] {
        let answer =
            stage.raw(request("GET", &target, "all", &format!("Accept: text/event-stream\r\n{header}"), "")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{target}");
        assert!(answer.json()["detail"].as_str().unwrap().starts_with(named), "{target}: {answer:?}");
    }
    let forbidden = stage
        .raw(request("GET", &format!("{USERS}?subscription=reader"), "all", "Accept: text/event-stream\r\n", ""))
        .await;
    assert_eq!(forbidden.status, 403);
    // Whoever takes anything gets one answer.
    for accept in ["*/*", "application/json, text/event-stream;q=0.9"] {
        let answer = stage.raw(request("GET", USERS, "all", &format!("Accept: {accept}\r\n"), "")).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{accept}");
    }
}
