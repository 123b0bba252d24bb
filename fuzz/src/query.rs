//! Query strings: of events reads, of counts, and where none may be.
//!
//! Input: all after the `?`.

use hyper::{Method, Uri};
use rtm_gateway::events::From;
use rtm_gateway::history::fuzzing as history;
use rtm_gateway::names::ClientName;
use rtm_gateway::order::Payer;
use rtm_gateway::request_id::RequestId;
use rtm_gateway::route::{EventsQuery, Kind, Route, Start};
use rtm_gateway::vendor::Vendor;
use rtm_gateway::vendor::history::count_parameters;

/// Takes any bytes; panics when a promise is broken.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match EventsQuery::parse(Some(text)) {
        Ok(query) => {
            assert!((1..=1000).contains(&query.limit) && query.wait.as_secs() <= 60);
            let again = written(&query);
            assert_eq!(EventsQuery::parse(Some(&again)), Ok(query), "{again}");
        }
        Err(refusal) => {
            assert_eq!(refusal.status(), 400);
            let body = refusal.body(&RequestId::random());
            let body: serde_json::Value = serde_json::from_slice(&body).expect("a refusal is JSON");
            assert!(body["detail"].as_str().is_some_and(|detail| detail.len() < 1024), "{body}");
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
    // Where no parameter may be, none is passed over.
    let fetch = format!("/dev/v2/project/a1/rtm/message/history/query/x?{text}").parse::<Uri>();
    if let Ok(uri) = fetch
        && Route::parse(&Method::GET, &uri).is_ok()
    {
        assert_eq!(form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).count(), 0, "{uri}");
    }
}

fn count(uri: &Uri) -> Option<Vec<(String, String)>> {
    match Route::parse(&Method::GET, uri).ok()?.kind {
        Kind::Count { query } => Some(query),
        other => panic!("{other:?}"),
    }
}

/// The query string that says the same, in one way.
pub(super) fn written(query: &EventsQuery) -> String {
    let mut pairs = form_urlencoded::Serializer::new(String::new());
    // A name that no query string here is likely to hold stands for the default.
    let payer = Payer { client: ClientName::parse("none-1f0e").expect("a name"), weight: 1 };
    let subscription = query.subscription(&payer);
    if subscription.as_str() != payer.client.as_str() {
        pairs.append_pair("subscription", subscription.as_str());
    }
    pairs.append_pair("limit", &query.limit.to_string());
    let wait = query.wait;
    pairs.append_pair("wait", &format!("{}s {}ns", wait.as_secs(), wait.subsec_nanos()));
    match &query.start {
        Start::Stored(From::Earliest) => pairs.append_pair("from", "earliest"),
        Start::Stored(From::Latest) => pairs.append_pair("from", "latest"),
        Start::Stored(From::Since(at)) => pairs.append_pair("from", &at.to_string()),
        Start::Stored(From::After(cursor)) => pairs.append_pair("from", &cursor.to_string()),
        Start::After(cursor) => pairs.append_pair("after", &cursor.to_string()),
    };
    pairs.finish()
}
