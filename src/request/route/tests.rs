use super::*;
use crate::events::{Cursor, CursorPair, Filter};
use crate::kernel::names::SubscriptionName;
use crate::store::Sequence;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

fn parse(method: &str, target: &str) -> Result<Route, Refusal> {
    Route::parse(&Method::from_bytes(method.as_bytes()).unwrap(), &target.parse().unwrap())
}

fn kind(method: &str, target: &str) -> Kind {
    let route = parse(method, target).unwrap();
    assert_eq!(route.app.as_str(), "a1");
    route.kind
}

fn status(method: &str, target: &str) -> u16 {
    parse(method, target).unwrap_err().status().as_u16()
}

const RTM: &str = "/dev/v2/project/a1/rtm";

#[test]
fn each_route_is_read_with_its_values_decoded() {
    let query = EventsQuery {
        subscription: None,
        start: Start::Stored(StartPosition::Earliest),
        limit: 1000,
        wait: None,
        filter: Arc::default(),
        ack: None,
        last_event_id: None,
    };
    assert_eq!(
        kind("GET", &format!("{RTM}/vendor/user_events")),
        Kind::Events { streams: Streams::One(Stream::UserEvents), form: Form::Vendor, query: query.clone() }
    );
    assert_eq!(
        kind("GET", "/v1/apps/a1/events/channel_events"),
        Kind::Events { streams: Streams::One(Stream::ChannelEvents), form: Form::Native, query: query.clone() }
    );
    assert_eq!(
        kind("GET", "/v1/apps/a1/events/all"),
        Kind::Events { streams: Streams::All, form: Form::Native, query }
    );
    assert_eq!(kind("POST", &format!("{RTM}/message/history/query")), Kind::HistoryQuery);
    assert_eq!(
        kind("GET", &format!("{RTM}/message/history/query/MjIz%3D%3d")),
        Kind::HistoryFetch { handle: "MjIz==".into() }
    );
    assert_eq!(
        kind("GET", &format!("{RTM}/message/history/count?&source=%22u%22&x")),
        Kind::Count { query: vec![("source".into(), "\"u\"".into()), ("x".into(), String::new())] }
    );
    assert_eq!(
        kind("POST", &format!("{RTM}/users/%E7%94%A8+1/peer_messages?wait_for_ack=true&a=b+c%2F")),
        Kind::Message {
            to: Addressee::Peer,
            user: "用+1".into(),
            query: vec![("wait_for_ack".into(), "true".into()), ("a".into(), "b c/".into())],
        }
    );
}

#[test]
fn what_is_nowhere_is_404_and_the_wrong_method_405() {
    for target in [
        "/",
        "/x",
        "/dev/v2/project/a1/rtm",
        &format!("{RTM}/vendor/other"),
        &format!("{RTM}/vendor/all"),
        "/v1/apps/a1/events",
    ] {
        assert_eq!(status("GET", target), 404, "{target}");
    }
    for (method, path, allow) in [
        ("POST", "vendor/user_events", "GET"),
        ("HEAD", "vendor/user_events", "GET"),
        ("GET", "message/history/query", "POST"),
        ("DELETE", "message/history/query/x", "GET"),
        ("POST", "message/history/count", "GET"),
        ("GET", "users/u/peer_messages", "POST"),
    ] {
        let refusal = parse(method, &format!("{RTM}/{path}")).unwrap_err();
        assert_eq!(refusal, Refusal::MethodNotAllowed { allow }, "{method} {path}");
    }
    assert_eq!(parse("CONNECT", "a:443").unwrap_err().status(), 405);
}

#[test]
fn a_path_that_could_be_read_in_two_ways_is_refused() {
    for path in [
        "/dev/v2/project/a1/../a2/rtm/vendor/user_events",
        "/dev/v2/project/a1/./rtm/vendor/user_events",
        "/dev/v2/project/%2e%2E/rtm/vendor/user_events",
        "/dev/v2/project/a1/rtm/users/%2e/peer_messages",
        "/dev/v2/project/a1/rtm/users/a%2Fb/peer_messages",
        "/dev/v2/project/a1/rtm/users/a%5cb/peer_messages",
        "/dev/v2/project/a1/rtm/users/a\\b/peer_messages",
        "/dev/v2/project/a1/rtm/users//peer_messages",
        "/dev/v2/project/a1/rtm/users/a%00/peer_messages",
        "/dev/v2/project/a1/rtm/users/a%0d%0ab/peer_messages",
        "/dev/v2/project/a1/rtm/users/a%C2%85/peer_messages",
        "/dev/v2/project/a1/rtm/users/a%zz/peer_messages",
        "/dev/v2/project/a1/rtm/users/a%2/peer_messages",
        "/dev/v2/project/a1/rtm/users/%ff/peer_messages",
        "/dev/v2/project/a1/rtm/vendor/user_events/",
        "//dev/v2/project/a1/rtm/vendor/user_events",
        "/nowhere/..",
    ] {
        assert_eq!(status("POST", path), 400, "{path}");
    }
    // Twice encoded is one value with a percent sign in it: it leaves as it came.
    let route = parse("POST", &format!("{RTM}/users/a%252Fb/peer_messages")).unwrap();
    assert!(matches!(route.kind, Kind::Message { user, .. } if user == "a%2Fb"));
}

#[test]
fn a_count_whose_query_cannot_be_decoded_is_refused_by_its_parameter() {
    for (query, named) in
        [("&source=%ff", "source: "), ("&a&destination=%2", "destination: "), ("x=%0a", "x: "), ("%80=1", "query: ")]
    {
        match parse("GET", &format!("{RTM}/message/history/count?{query}")) {
            Err(Refusal::BadRequest(detail)) => assert!(detail.starts_with(named), "{query}: {detail}"),
            other => panic!("{query}: {other:?}"),
        }
    }
}

#[test]
fn an_app_that_can_be_nobodys_is_forbidden_like_any_other() {
    assert_eq!(parse("GET", "/v1/apps/a.1/events/user_events"), Err(Refusal::Forbidden));
}

#[test]
fn parameters_are_read_or_refused_by_name() {
    let read = |query: &str| match kind("GET", &format!("{RTM}/vendor/user_events?{query}")) {
        Kind::Events { query, .. } => query,
        other => panic!("{other:?}"),
    };
    let cursor = Cursor { epoch: 3, at: Sequence(9) };
    let marks = CursorPair::read(&cursor.to_string(), Streams::One(Stream::UserEvents)).unwrap();
    let all = read("subscription=s-1&limit=5&wait=20s&from=2024-01-01T00:00:00Z");
    assert_eq!(all.subscription.as_ref().map(SubscriptionName::as_str), Some("s-1"));
    assert_eq!((all.limit, all.wait), (5, Some(Duration::from_secs(20))));
    assert_eq!(all.start, Start::Stored(StartPosition::Since(crate::kernel::clock::UnixMillis(1_704_067_200_000))));
    assert_eq!(read("from=latest").start, Start::Stored(StartPosition::Latest));
    assert_eq!(read(&format!("after={cursor}")).start, Start::After(StartPosition::After(marks)));
    assert_eq!(read("after=latest").start, Start::After(StartPosition::Latest));
    assert_eq!(read(&format!("from={cursor}")).start, Start::Stored(StartPosition::After(marks)));
    assert_eq!(read("wait=7").wait, Some(Duration::from_secs(7)));
    assert_eq!(read("wait=1h").wait, Some(Duration::from_secs(60)));
    for (query, named) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=", "limit"),
        ("limit=5&limit=5", "limit"),
        ("wait=soon", "wait"),
        // Overflows the library that reads durations.
        ("wait=18446744073709551615s1000ms", "wait"),
        ("wait=-1s", "wait"),
        ("from=yesterday", "from"),
        ("after=0", "after"),
        ("subscription=a%20b", "subscription"),
        ("subscription=", "subscription"),
        ("cursor=1", "cursor"),
        // The vendor's form has no more parameters than these.
        ("type=Login", "type: unknown"),
        ("ack=explicit", "ack: unknown"),
        ("Limit=1", "Limit"),
        ("limit=%zz", "limit: holds a bad percent-encoding"),
        ("%zz=1", "query: a name holds a bad percent-encoding"),
        ("from=q%C2%94", "from: holds a control character"),
        ("a%0a=1", "query: a name holds a control character"),
        (&format!("from=latest&after={cursor}"), "from"),
    ] {
        match parse("GET", &format!("{RTM}/vendor/user_events?{query}")) {
            Err(Refusal::BadRequest(detail)) => assert!(detail.starts_with(named), "{query}: {detail}"),
            other => panic!("{query}: {other:?}"),
        }
    }
    assert_eq!(status("POST", &format!("{RTM}/message/history/query?limit=5")), 400);
}

#[test]
fn the_native_form_has_more_parameters_and_some_only_together() {
    let read = |query: &str| match kind("GET", &format!("/v1/apps/a1/events/user_events?{query}")) {
        Kind::Events { query, .. } => query,
        other => panic!("{other:?}"),
    };
    let texts = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    let filter = Filter::new(&texts(&["Log*", "Join"]), &texts(&["a b"]), &texts(&[""]));
    assert_eq!(*read("type=Log*&user_id=a+b&type=Join&group_id=").filter, filter);
    let explicit = ExplicitAck { lease: Some(Duration::from_secs(45)), max_attempts: Some(7) };
    assert_eq!(read("ack=explicit&lease=45s&max_attempts=7").ack, Some(explicit));
    assert_eq!((read("ack=explicit").ack, read("ack=auto").ack), (Some(ExplicitAck::default()), None));
    let one = Cursor { epoch: 3, at: Sequence(9) };
    let mut both = CursorPair::default();
    both.give(Stream::ChannelEvents, one);
    let both = both.text(Streams::All);
    for (query, named) in [
        ("lease=30s", "lease"),
        ("ack=auto&max_attempts=3", "max_attempts"),
        ("ack=explicit&lease=0s", "lease"),
        ("ack=explicit&max_attempts=0", "max_attempts"),
        ("ack=maybe", "ack"),
        (&format!("ack=explicit&after={one}"), "ack"),
        (&format!("after={both}"), "after"),
        (&format!("type={}", "x".repeat(257)), "type"),
        (&"user_id=x&".repeat(65), "user_id"),
    ] {
        match parse("GET", &format!("/v1/apps/a1/events/user_events?{query}")) {
            Err(Refusal::BadRequest(detail)) => assert!(detail.starts_with(named), "{query}: {detail}"),
            other => panic!("{query}: {other:?}"),
        }
    }
    for query in ["ack=explicit", &format!("after={one}"), &format!("from={one}")] {
        assert_eq!(status("GET", &format!("/v1/apps/a1/events/all?{query}")), 400, "{query}");
    }
}

#[test]
fn a_stream_goes_on_where_its_reader_says_and_has_parameters_of_its_own() {
    let accepted = |query: &str, headers: &[(&'static str, &str)]| {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let route = parse("GET", &format!("/v1/apps/a1/events/user_events?{query}"))?.accepted(&map)?;
        match route.kind {
            Kind::Events { form, query, .. } => Ok::<_, Refusal>((form, query)),
            other => panic!("{other:?}"),
        }
    };
    let sse = ("accept", "text/event-stream");
    let [older, newer] = [4, 9].map(|at| Cursor { epoch: 3, at: Sequence(at) }.to_string());
    let marks = |text: &str| CursorPair::read(text, Streams::One(Stream::UserEvents)).unwrap();
    assert_eq!(accepted("wait=5s", &[]).unwrap().0, Form::Native);
    let (form, query) = accepted("", &[sse, ("last-event-id", "")]).unwrap();
    assert_eq!((form, query.last_event_id), (Form::Stream, None));
    let url = format!("last_event_id={older}");
    assert_eq!(accepted(&url, &[sse]).unwrap().1.last_event_id, Some(marks(&older)));
    assert_eq!(accepted(&url, &[sse, ("last-event-id", &newer)]).unwrap().1.last_event_id, Some(marks(&newer)));
    // As browsers' stand-ins for `EventSource` say it: newer than what is written in the URL, and the header wins.
    let added = format!("lastEventId={newer}");
    assert_eq!(accepted(&added, &[sse]).unwrap().1.last_event_id, Some(marks(&newer)));
    assert_eq!(accepted(&format!("{url}&{added}"), &[sse]).unwrap().1.last_event_id, Some(marks(&newer)));
    assert_eq!(accepted(&format!("{url}&lastEventId="), &[sse]).unwrap().1.last_event_id, Some(marks(&older)));
    assert_eq!(accepted(&added, &[sse, ("last-event-id", &older)]).unwrap().1.last_event_id, Some(marks(&older)));
    let (_, query) = accepted(&format!("after={older}&{added}"), &[sse]).unwrap();
    assert_eq!(query.start, Start::After(StartPosition::After(marks(&newer))));
    for wrong in [format!("{added}&{added}"), "lastEventId=7".to_owned()] {
        assert_eq!(accepted(&wrong, &[sse]).unwrap_err().status(), 400);
    }
    assert_eq!(accepted(&added, &[]).unwrap_err().status(), 400);
    let (_, query) = accepted(&format!("after={older}"), &[sse, ("last-event-id", &newer)]).unwrap();
    assert_eq!(query.start, Start::After(StartPosition::After(marks(&newer))));
    assert_eq!(accepted(&url, &[]).unwrap_err().status(), 400);
    assert_eq!(accepted("wait=5s", &[sse]).unwrap_err().status(), 400);
    assert_eq!(accepted("", &[sse, ("last-event-id", "7")]).unwrap_err().status(), 400);
}

properties! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever a stranger sends, the values that come out stay in their segment.
    #[test]
    fn no_value_ever_leaves_its_segment(
        parts in prop::collection::vec(
            prop_oneof![
                Just("dev".to_owned()), Just("v2".to_owned()), Just("project".to_owned()), Just("rtm".to_owned()),
                Just("users".to_owned()), Just("peer_messages".to_owned()), Just("message".to_owned()),
                Just("history".to_owned()), Just("query".to_owned()), Just("a1".to_owned()),
                "[a-z%./\\\\0-9A-F;:@=+~-]{0,8}", "(%[0-9a-fA-F]{2}){0,4}",
            ],
            0..9,
        ),
        query in "[a-z=&%0-9+]{0,24}",
        post in any::<bool>(),
    ) {
        let target = format!("/{}?{query}", parts.join("/"));
        let method = if post { Method::POST } else { Method::GET };
        let Ok(uri) = target.parse::<Uri>() else { return Ok(()) };
        if let Ok(route) = Route::parse(&method, &uri) {
            let values = match route.kind {
                Kind::HistoryFetch { handle } => vec![handle],
                Kind::Message { user, .. } => vec![user],
                _ => vec![],
            };
            for value in values {
                prop_assert!(!value.is_empty() && value != "." && value != "..", "{target}");
                prop_assert!(!value.contains(['/', '\\']) && !value.chars().any(char::is_control), "{target}");
            }
        }
    }

    /// A value that may stand in a path comes out as it was put in.
    #[test]
    fn a_user_id_comes_out_as_it_went_in(user in "[^/\\\\\\p{Cc}]{1,20}") {
        prop_assume!(user != "." && user != "..");
        let encoded = percent_encoding::utf8_percent_encode(&user, percent_encoding::NON_ALPHANUMERIC);
        let route = parse("POST", &format!("{RTM}/users/{encoded}/channel_messages")).unwrap();
        prop_assert_eq!(route.kind, Kind::Message { to: Addressee::Channel, user, query: vec![] });
    }
}
