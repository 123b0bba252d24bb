//! A request's head: which targets are accepted, and what leaves for the vendor because of them.
//!
//! Input: `METHOD TARGET VERSION`, then a header a line.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;

use hyper::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{Method, Request, Uri, Version};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rtm_gateway::config::load::from_text;
use rtm_gateway::request::route::target::Hosts;
use rtm_gateway::request::route::{Addressee, Kind, Route};
use rtm_gateway::vendor;
use rtm_gateway::vendor::order::{Message, Operation};

/// The address the connection came in on.
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// What a target in absolute form may name: the regions of [`CONFIG`], with and without `https`, and [`LOCAL`].
const OURS: [(&str, u16); 5] =
    [("api.agrtc.cn", 443), ("api.agrtc.cn", 80), ("127.0.0.1", 9000), ("127.0.0.1", 8080), ("localhost", 8080)];

const CONFIG: &str = r#"
[[apps]]
id = "a1"
regions = [{ name = "cn", base_url = "https://api.agrtc.cn" }, { name = "test", base_url = "http://127.0.0.1:9000" }]
credential = { kind = "basic", api_key = { file = "fuzz/files/secret" }, api_secret = { file = "fuzz/files/secret" } }
"#;

static HOSTS: LazyLock<Hosts> = LazyLock::new(|| {
    let loaded = from_text(CONFIG, std::path::Path::new("gateway.toml"));
    Hosts::new(
        &loaded.unwrap_or_else(|faults| panic!("{faults} (the working directory must be the repository)")).config,
    )
});

/// Takes any bytes; panics when a promise is broken.
pub fn check(data: &[u8]) {
    let Some(head) = head(data) else { return };
    if HOSTS.check(&head, Some(LOCAL)).is_ok() {
        accepted_heads_are_read_alike(&head);
    }
    if let Ok(route) = Route::parse(&head.method, &head.uri) {
        accepted_segments_are_plain(head.uri.path(), &route);
        assert_eq!(
            Route::parse(&method(&route), &written(&route)),
            Ok(route.clone()),
            "not the same when written again"
        );
        what_leaves_stays_in_its_place(&route);
    }
}

fn head(data: &[u8]) -> Option<Parts> {
    let mut lines = data.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = lines.next()?.split(|&b| b == b' ');
    let method = Method::from_bytes(words.next()?).ok()?;
    let uri = Uri::try_from(words.next()?).ok()?;
    let version = match words.next() {
        Some(b"HTTP/1.0") => Version::HTTP_10,
        Some(b"HTTP/2") => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    let (mut head, ()) = Request::new(()).into_parts();
    (head.method, head.uri, head.version) = (method, uri, version);
    for line in lines {
        let Some(colon) = line.iter().position(|&b| b == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            head.headers.append(name, value);
        }
    }
    Some(head)
}

fn accepted_heads_are_read_alike(head: &Parts) {
    let count = |name| head.headers.get_all(name).iter().count();
    assert!(count(HOST) <= 1 && (head.version != Version::HTTP_11 || count(HOST) == 1), "hosts");
    assert!(count(TRANSFER_ENCODING) <= 1, "codings");
    assert!(count(TRANSFER_ENCODING) == 0 || count(CONTENT_LENGTH) == 0, "two lengths");
    if let Some(host) = head.headers.get(HOST) {
        assert!(!host.as_bytes().iter().any(|b| b"@/?#\\ ".contains(b)), "{host:?}");
    }
    let text = head.uri.to_string();
    let absolute = head.version < Version::HTTP_2 && head.method != Method::CONNECT;
    if let Some((scheme, rest)) = text.split_once("://").filter(|_| absolute && !text.starts_with('/')) {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((host, port)) => (host, port.parse().ok()),
            None => (authority, None),
        };
        let port = port.unwrap_or(if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 });
        let named = (&*host.trim_end_matches('.').to_ascii_lowercase(), port);
        assert!(OURS.contains(&named), "an open proxy to {named:?}");
    }
}

/// The path as another reader sees it: split first, then decoded.
fn accepted_segments_are_plain(path: &str, route: &Route) {
    let segments: Vec<_> =
        path.split('/').skip(1).map(|raw| percent_decode_str(raw).decode_utf8().expect("UTF-8")).collect();
    for segment in &segments {
        assert!(!matches!(segment.as_ref(), "" | "." | ".."), "{path}");
        assert!(!segment.contains(['/', '\\']) && !segment.chars().any(char::is_control), "{path}");
    }
    // Percent-encoding cannot hide the two endpoints whose reading removes events.
    let raw_events = segments.iter().any(|s| s == "user_events" || s == "channel_events")
        && segments.iter().any(|s| s == "vendor" || s == "events");
    let is_value = matches!(&route.kind, Kind::Message { .. } | Kind::HistoryFetch { .. });
    let is_events = matches!(route.kind, Kind::Events { .. } | Kind::Acknowledge { .. } | Kind::NextEvents { .. });
    assert!(!raw_events || is_value || is_events, "{path}");
    assert_eq!(segments.iter().filter(|s| **s == route.app.as_str()).count().min(1), 1, "{path}");
}

fn method(route: &Route) -> Method {
    match route.kind {
        Kind::HistoryQuery | Kind::Message { .. } | Kind::Acknowledge { .. } | Kind::NextEvents { .. } => Method::POST,
        Kind::Events { .. } | Kind::HistoryFetch { .. } | Kind::HistoryStream { .. } | Kind::Count { .. } => {
            Method::GET
        }
    }
}

/// The target that says the same, in one way.
fn written(route: &Route) -> Uri {
    let app = &route.app;
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let query =
        |pairs: &[(String, String)]| form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let target = match &route.kind {
        Kind::Events { streams, form: rtm_gateway::request::route::Form::Vendor, query } => {
            format!("/dev/v2/project/{app}/rtm/vendor/{streams}?{}", super::query::written(query, *streams))
        }
        Kind::Events { streams, query, .. } => {
            format!("/v1/apps/{app}/events/{streams}?{}", super::query::written(query, *streams))
        }
        Kind::Acknowledge { stream, what } => format!("/v1/apps/{app}/events/{stream}/{}", what.as_str()),
        Kind::NextEvents { stream } => format!("/v1/apps/{app}/events/{stream}/next"),
        Kind::HistoryQuery => format!("/dev/v2/project/{app}/rtm/message/history/query"),
        Kind::HistoryFetch { handle } => {
            format!("/dev/v2/project/{app}/rtm/message/history/query/{}", encoded(handle))
        }
        Kind::HistoryStream { query: pairs } => format!("/v1/apps/{app}/history?{}", query(pairs)),
        Kind::Count { query: pairs } => format!("/dev/v2/project/{app}/rtm/message/history/count?{}", query(pairs)),
        Kind::Message { to, user, query: pairs } => {
            format!("/dev/v2/project/{app}/rtm/users/{}/{}?{}", encoded(user), endpoint(*to), query(pairs))
        }
    };
    target.parse().unwrap_or_else(|why| panic!("{target}: {why}"))
}

fn endpoint(to: Addressee) -> &'static str {
    match to {
        Addressee::Peer => "peer_messages",
        Addressee::Channel => "channel_messages",
    }
}

fn what_leaves_stays_in_its_place(route: &Route) {
    let Kind::Message { to, user, query } = &route.kind else { return };
    let message = Message { user: user.clone(), query: query.clone(), body: bytes::Bytes::new() };
    let operation = match to {
        Addressee::Peer => Operation::PeerMessage(message),
        Addressee::Channel => Operation::ChannelMessage(message),
    };
    let target = vendor::target(&route.app, &operation);
    assert!(target.bytes().all(|b| b.is_ascii_graphic() && !b"\\#\"<>".contains(&b)), "{target}");
    let uri: Uri = target.parse().unwrap_or_else(|why| panic!("{target}: {why}"));
    let segments: Vec<&str> = uri.path().split('/').collect();
    let ["", "dev", "v2", "project", app, "rtm", "users", sent, end] = segments.as_slice() else {
        panic!("{target} is no message");
    };
    assert_eq!((*app, *end), (route.app.as_str(), endpoint(*to)), "{target}");
    assert_eq!(&percent_decode_str(sent).decode_utf8().expect("UTF-8"), user, "{target}");
    let pairs: Vec<_> = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    assert_eq!(&pairs, query, "{target}");
}
