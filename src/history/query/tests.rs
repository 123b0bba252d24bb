//! What is taken, what is refused, and by which name.

use proptest::prelude::*;

use super::*;

fn why(result: Result<impl std::fmt::Debug, Error>) -> String {
    match result {
        Err(Error::BadRequest(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn count(query: &str) -> Result<Filter, Error> {
    parse_count(&form_urlencoded::parse(query.as_bytes()).into_owned().collect::<Vec<_>>()).map(|(filter, _)| filter)
}

fn body(text: &str) -> Result<Query, Error> {
    parse_body(text.as_bytes(), 10_000)
}

#[test]
fn requests_that_mean_the_same_are_equal() {
    let plain = body(r#"{"filter":{"destination":"a","start_time":1564622530,"end_time":1564622531}}"#).unwrap();
    assert_eq!((plain.offset, plain.limit, plain.direction), (0, 20, Direction::Asc));
    for same in [
        r#"{"order":"asc","limit":20.0,"offset":0.0,"filter":{"source":"","destination":"a","start_time":"1564622530","end_time":1564622531.0}}"#,
        r#" {"x":[{}],"limit":null,"filter":{"source":null,"destination":"\u0061","y":1,"end_time":"2019-08-01T09:22:11+08:00","start_time":"2019-08-01T01:22:10Z"}}"#,
    ] {
        assert_eq!(body(same).unwrap(), plain, "{same}");
    }
    for same in [
        "&destination=\"a\"&start_time=1564622530&end_time=1564622531",
        "destination=%22a%22&source=\"\"&start_time=%222019-08-01T01:22:10Z%22&end_time=1564622531&other=1",
        "start_time=2019-08-01T09:22:10%2B08:00&end_time=1564622531&destination=a&",
    ] {
        assert_eq!(count(same).unwrap(), plain.filter, "{same}");
    }
}

#[test]
fn a_refusal_names_the_parameter() {
    let with = |filter: &str, rest: &str| format!(r#"{{"filter":{{{filter}}}{rest}}}"#);
    let times = r#""start_time":1,"end_time":2"#;
    let good = format!(r#""source":"a",{times}"#);
    for (text, named) in [
        (String::new(), "body"),
        ("[1]".into(), "body"),
        ("{".into(), "body"),
        ("{}".into(), "filter"),
        (r#"{"filter":[]}"#.into(), "filter"),
        (r#"{"filter":{},"filter":{}}"#.into(), "body is not a JSON object: duplicate field `filter`"),
        (with(times, ""), "filter.source and filter.destination"),
        (with(&format!(r#""source":"","destination":"",{times}"#), ""), "filter.source"),
        (with(&format!(r#""source":7,{times}"#), ""), "filter.source"),
        (with(&format!(r#""destination":"{}",{times}"#, "x".repeat(1025)), ""), "filter.destination"),
        (with(r#""source":"a","end_time":2"#, ""), "filter.start_time"),
        (with(r#""source":"a","start_time":2"#, ""), "filter.end_time"),
        (with(r#""source":"a","start_time":3,"end_time":2"#, ""), "filter.start_time is after"),
        (with(r#""source":"a","start_time":-1,"end_time":2"#, ""), "filter.start_time"),
        (with(r#""source":"a","start_time":1,"end_time":1e300"#, ""), "filter.end_time"),
        (with(r#""source":"a","start_time":1,"end_time":1e999"#, ""), "filter.end_time"),
        (with(r#""source":"a","start_time":1,"end_time":1564622530000"#, ""), "filter.end_time"),
        (with(r#""source":"a","start_time":"","end_time":2"#, ""), "filter.start_time"),
        (with(r#""source":"a","start_time":"soon","end_time":2"#, ""), "filter.start_time"),
        (with(r#""source":"a","start_time":"2019-08-01T01:22:10.","end_time":2"#, ""), "filter.start_time"),
        (with(r#""source":"a","start_time":"1.","end_time":2"#, ""), "filter.start_time"),
        (with(r#""source":"a","start_time":".5","end_time":2"#, ""), "filter.start_time"),
        (with(r#""source":"a","start_time":2.0021,"end_time":2.001"#, ""), "filter.start_time is after"),
        (with(r#""source":"a","start_time":1,"end_time":"9999-12-31T23:59:59-01:00""#, ""), "filter.end_time"),
        (with(r#""source":"a","start_time":"1969-08-01T01:22:10Z","end_time":2"#, ""), "filter.start_time"),
        (with(&good, r#","offset":-1"#), "offset"),
        (with(&good, r#","offset":1.5"#), "offset"),
        (with(&good, r#","offset":18446744073709551615"#), "offset"),
        (with(&good, r#","limit":0"#), "limit"),
        (with(&good, r#","limit":10001"#), "limit"),
        (with(&good, r#","limit":"20""#), "limit"),
        (with(&good, r#","order":"ASC""#), "order"),
        (with(&good, r#","order":1"#), "order"),
    ] {
        let why = why(body(&text));
        assert!(why.starts_with(named), "{text}: {why}");
    }
    for (text, named) in [
        ("", "source"),
        ("source=a&source=a&start_time=1&end_time=2", "source is given twice"),
        ("source=%22a&start_time=1&end_time=2", "source has quotation marks"),
        ("source=a%22&start_time=1&end_time=2", "source has quotation marks"),
        ("destination=%22&start_time=1&end_time=2", "destination has quotation marks"),
        ("destination=%22%22a%22%22&start_time=1&end_time=2", "destination has quotation marks"),
        ("source=a&start_time=%221&end_time=2", "start_time has quotation marks"),
        ("source=a&start_time&end_time=2", "start_time"),
        ("source=a&start_time=1&end_time=99999999999999999999", "end_time"),
        ("source=a&start_time=2&end_time=1", "start_time is after"),
    ] {
        assert!(why(count(text)).starts_with(named), "{text}");
    }
}

#[test]
fn a_stream_takes_its_own_parameters_and_no_others() {
    let asked = |query: &str| {
        let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        parse_stream(&pairs).map(|(query, cursor)| (query, cursor.map(str::to_owned)))
    };
    let filter = "source=a&start_time=1&end_time=1970-01-01T00:00:02Z";
    let (query, cursor) = asked(filter).unwrap();
    assert_eq!((query.limit, query.direction, cursor), (usize::MAX, Direction::Asc, None));
    assert_eq!(query.filter, count(filter).unwrap());
    let (query, cursor) = asked(&format!("{filter}&order=desc&limit=7&cursor=AQ")).unwrap();
    assert_eq!((query.limit, query.direction, cursor.as_deref()), (7, Direction::Desc, Some("AQ")));
    for (more, named) in [
        ("&limit=0", "limit"),
        ("&limit=-1", "limit"),
        ("&order=up", "order"),
        ("&order=asc&order=asc", "order is given twice"),
        ("&source=a", "source is given twice"),
        ("&offset=5", "offset: unknown parameter"),
        ("&%3Cb%3E=5", "…: unknown parameter"),
    ] {
        assert!(why(asked(&format!("{filter}{more}"))).starts_with(named), "{more}");
    }
    assert!(why(asked("source=a&start_time=1")).starts_with("end_time is missing"));
}

#[test]
fn times_may_have_fractions_and_reach_to_the_end_of_the_calendar() {
    let window = |start: &str, end: &str| {
        let query = body(&format!(r#"{{"filter":{{"source":"a","start_time":{start},"end_time":{end}}}}}"#)).unwrap();
        (query.filter.start, query.filter.end, query.within.from, query.within.to)
    };
    let iso = |second: u64, from, to| (1_564_622_530, second, from, to);
    for (start, end, wanted) in [
        // What `Date.toISOString()` writes, and Dart, and a clock in seconds.
        (
            r#""2019-08-01T01:22:10.039Z""#,
            r#""2019-08-01T01:22:11.500Z""#,
            iso(1_564_622_532, Some(1_564_622_530_039), Some(1_564_622_531_500)),
        ),
        (
            r#""2019-08-01T01:22:10.039123Z""#,
            r#""2019-08-01T01:22:11.500001Z""#,
            iso(1_564_622_532, Some(1_564_622_530_039), Some(1_564_622_531_501)),
        ),
        ("1564622530.123", "1564622531.1230000", iso(1_564_622_532, Some(1_564_622_530_123), Some(1_564_622_531_123))),
        (
            r#""1564622530.1""#,
            r#""1564622531.0001""#,
            iso(1_564_622_532, Some(1_564_622_530_100), Some(1_564_622_531_001)),
        ),
        ("1564622530.000", r#""2019-08-01T01:22:11.000Z""#, iso(1_564_622_531, None, None)),
        ("1.56462253e9", r#""9999-12-31T23:59:59Z""#, iso(253_402_300_799, None, None)),
        ("1564622530", r#""9999-12-31T23:59:59.999+00:00""#, iso(253_402_300_799, None, Some(253_402_300_799_999))),
        ("1564622530", "253402300799", iso(253_402_300_799, None, None)),
        ("1564622530", r#""9999-12-31T23:59:59+08:00""#, iso(253_402_271_999, None, None)),
    ] {
        assert_eq!(window(start, end), wanted, "{start} {end}");
    }
    assert!(body(r#"{"filter":{"source":"a","start_time":1,"end_time":253402300800}}"#).is_err());
}

#[test]
fn deep_json_is_no_danger() {
    let deep = "[".repeat(200_000);
    let closed = format!("{deep}{}", "]".repeat(200_000));
    assert!(body(&deep).is_err());
    let in_filter = format!(r#"{{"filter":{{"source":"a","start_time":{closed},"end_time":2}}}}"#);
    assert!(why(body(&in_filter)).starts_with("filter.start_time"));
    let beside = format!(r#"{{"x":{closed},"filter":{{"source":"a","start_time":1,"end_time":2}}}}"#);
    assert!(body(&beside).is_ok());
}

properties! {
    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), number in any::<f64>(), text in ".*") {
        let _ = parse_body(&bytes, 100);
        let _ = parse_body(&serde_json::to_vec(&serde_json::json!({
            "filter": {"source": &text, "start_time": number, "end_time": &text},
        })).unwrap(), 100);
        let _ = count(&text);
        let _ = count(&format!("source={text}&start_time={number}&end_time={text}"));
    }
}
