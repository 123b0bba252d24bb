//! Query strings: of events reads, of counts, and where none may be.
//!
//! Input: all after the `?`.

use std::time::Duration;

use hyper::{Method, Uri};
use rtm_gateway::history::fuzzing as history;
use rtm_gateway::http::request_id::RequestId;
use rtm_gateway::kernel::names::{ClientName, Stream, Streams};
use rtm_gateway::request::route::{EventsQuery, Form, Kind, Route, Start, StartPosition};
use rtm_gateway::vendor::Vendor;
use rtm_gateway::vendor::history::count_parameters;
use rtm_gateway::vendor::order::Payer;

/// Takes any bytes; panics when a promise is broken.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for streams in [Streams::One(Stream::UserEvents), Streams::All] {
        for form in [Form::Vendor, Form::Native] {
            events(text, streams, form);
        }
    }
    let Ok(uri) = format!("/dev/v2/project/a1/rtm/message/history/count?{text}").parse::<Uri>() else { return };
    if let Some(pairs) = count(&uri) {
        // What is accepted is read as the WHATWG says, so as a browser or a library wrote it.
        let whatwg = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned();
        assert_eq!(pairs, whatwg.collect::<Vec<_>>(), "{uri}");
        if let Ok(filter) = history::count(&pairs) {
            assert!(filter.source.is_some() || filter.destination.is_some());
            assert!(filter.start <= filter.end);
            for vendor in [Vendor::AnyRtc, Vendor::Agora] {
                let sent = count_parameters(vendor, &filter);
                let sent = form_urlencoded::Serializer::new(String::new()).extend_pairs(sent).finish();
                let uri = format!("/dev/v2/project/a1/rtm/message/history/count?{sent}").parse().expect("a target");
                let again = history::count(&count(&uri).expect("what is sent is accepted"));
                assert_eq!(again.ok().as_ref(), Some(&filter), "{sent}");
            }
        }
    }
    if let Ok(uri) = format!("/v1/apps/a1/history?{text}").parse::<Uri>()
        && let Ok(Route { kind: Kind::HistoryStream { query }, .. }) = Route::parse(&Method::GET, &uri)
    {
        match history::stream(&query) {
            Ok(asked) => {
                assert!(asked.limit > 0 && asked.offset == 0 && asked.filter.start <= asked.filter.end);
                let known = ["source", "destination", "start_time", "end_time", "limit", "order", "cursor"];
                assert!(query.iter().all(|(name, _)| known.contains(&name.as_str())), "{uri}");
            }
            Err(why) => assert!(why.to_string().len() < 1024, "{why}"),
        }
    }
    // Where no parameter may be, none is passed over.
    let fetch = format!("/dev/v2/project/a1/rtm/message/history/query/x?{text}").parse::<Uri>();
    if let Ok(uri) = fetch
        && Route::parse(&Method::GET, &uri).is_ok()
    {
        assert_eq!(form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).count(), 0, "{uri}");
    }
}

fn events(text: &str, streams: Streams, form: Form) {
    match EventsQuery::parse(Some(text), streams, form) {
        Ok(query) => {
            assert!((1..=1000).contains(&query.limit) && query.wait.is_none_or(|wait| wait.as_secs() <= 60));
            let again = written(&query, streams);
            assert_eq!(EventsQuery::parse(Some(&again), streams, form), Ok(query), "{again}");
        }
        Err(refusal) => {
            assert_eq!(refusal.status(), 400);
            let body = refusal.body(&RequestId::random());
            let body: serde_json::Value = serde_json::from_slice(&body).expect("a refusal is JSON");
            assert!(body["detail"].as_str().is_some_and(|detail| detail.len() < 1024), "{body}");
        }
    }
}

fn count(uri: &Uri) -> Option<Vec<(String, String)>> {
    match Route::parse(&Method::GET, uri).ok()?.kind {
        Kind::Count { query } => Some(query),
        other => panic!("{other:?}"),
    }
}

/// The query string that says the same, in one way.
pub(super) fn written(query: &EventsQuery, streams: Streams) -> String {
    let mut pairs = form_urlencoded::Serializer::new(String::new());
    // A name that no query string here is likely to hold stands for the default.
    let payer = Payer { client: ClientName::parse("none-1f0e").expect("a name"), weight: 1 };
    let subscription = query.subscription(&payer);
    if subscription.client().as_ref() != Some(&payer.client) {
        pairs.append_pair("subscription", subscription.as_str());
    }
    pairs.append_pair("limit", &query.limit.to_string());
    let duration = |time: Duration| format!("{}s {}ns", time.as_secs(), time.subsec_nanos());
    if let Some(wait) = query.wait {
        pairs.append_pair("wait", &duration(wait));
    }
    for (member, pattern) in query.filter.patterns() {
        pairs.append_pair(member, pattern);
    }
    if let Some(explicit) = query.ack {
        pairs.append_pair("ack", "explicit");
        if let Some(lease) = explicit.lease {
            pairs.append_pair("lease", &duration(lease));
        }
        if let Some(most) = explicit.max_attempts {
            pairs.append_pair("max_attempts", &most.to_string());
        }
    }
    if let Some(last) = query.last_event_id {
        pairs.append_pair("last_event_id", &last.text(streams));
    }
    match &query.start {
        Start::Stored(StartPosition::Earliest) => pairs.append_pair("from", "earliest"),
        Start::Stored(StartPosition::Latest) => pairs.append_pair("from", "latest"),
        Start::Stored(StartPosition::Since(at)) => pairs.append_pair("from", &at.to_string()),
        Start::Stored(StartPosition::After(marks)) => pairs.append_pair("from", &marks.text(streams)),
        Start::After(StartPosition::Earliest) => pairs.append_pair("after", "earliest"),
        Start::After(StartPosition::Latest) => pairs.append_pair("after", "latest"),
        Start::After(StartPosition::Since(at)) => pairs.append_pair("after", &at.to_string()),
        Start::After(StartPosition::After(marks)) => pairs.append_pair("after", &marks.text(streams)),
    };
    pairs.finish()
}
