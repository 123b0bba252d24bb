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
    parse_count(&form_urlencoded::parse(query.as_bytes()).into_owned().collect::<Vec<_>>())
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
        (with(r#""source":"a","start_time":0.5,"end_time":2"#, ""), "filter.start_time"),
        (with(r#""source":"a","start_time":1,"end_time":1e300"#, ""), "filter.end_time"),
        (with(r#""source":"a","start_time":1,"end_time":1e999"#, ""), "filter.end_time"),
        (with(r#""source":"a","start_time":1,"end_time":1564622530000"#, ""), "filter.end_time"),
        (with(r#""source":"a","start_time":"","end_time":2"#, ""), "filter.start_time"),
        (with(r#""source":"a","start_time":"soon","end_time":2"#, ""), "filter.start_time"),
        (with(r#""source":"a","start_time":"2019-08-01T01:22:10.5Z","end_time":2"#, ""), "filter.start_time"),
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
fn deep_json_is_no_danger() {
    let deep = "[".repeat(200_000);
    let closed = format!("{deep}{}", "]".repeat(200_000));
    assert!(body(&deep).is_err());
    let in_filter = format!(r#"{{"filter":{{"source":"a","start_time":{closed},"end_time":2}}}}"#);
    assert!(why(body(&in_filter)).starts_with("filter.start_time"));
    let beside = format!(r#"{{"x":{closed},"filter":{{"source":"a","start_time":1,"end_time":2}}}}"#);
    assert!(body(&beside).is_ok());
}

proptest! {
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
