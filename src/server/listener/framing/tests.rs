use super::*;
use proptest::prelude::*;

const GOOD: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// The faults of the heads in these bytes, fed in pieces of `piece`.
fn faults(bytes: &str, piece: usize, heads: usize) -> (Vec<Option<Fault>>, bool) {
    let watch = Watch::default();
    let mut framing = Framing::new(watch.clone());
    bytes.as_bytes().chunks(piece).for_each(|piece| drop(framing.feed(piece)));
    ((0..heads).map(|_| watch.next_head()).collect(), watch.is_between_requests())
}

#[test]
fn quotation_marks_are_found_in_request_lines_and_nowhere_else() {
    let post = "POST /a?\"b\"=c HTTP/1.1\r\nContent-Length: 3\r\nX: \"\r\n\r\n\"\"\"";
    let bytes = format!("{post}{GOOD}GET /\" HTTP/1.1\r\n");
    let last = bytes.rfind('"').unwrap();
    for piece in [1, 3, 7, 1000] {
        let mut framing = Framing::new(Watch::default());
        let mut found = Vec::new();
        for (n, part) in bytes.as_bytes().chunks(piece).enumerate() {
            found.extend(framing.feed(part).quotes.iter().map(|at| n * piece + at));
        }
        assert_eq!(found, [8, 10, last], "in pieces of {piece}");
    }
}

#[test]
fn what_hyper_mends_is_found_wherever_the_bytes_are_cut() {
    let post = |headers: &str, body: &str| format!("POST /x HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}");
    let both = post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n");
    let turned = post("transfer-encoding:chunked\r\nCONTENT-LENGTH:3\r\n", "");
    let twice = post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc");
    let sized = post("content-length:  27 \r\n", &GOOD.replace("Host", "Cook"));
    let chunked =
        post("Transfer-Encoding: chunked\r\n", "1a;x=y\r\nGET /#x HTTP/1.1\r\n\r\nabcdef\r\n0\r\nT: v\r\n\r\n");
    let fragment = "\r\n\r\nGET /x#y HTTP/1.1\r\nHost: a\r\n\r\n";
    let bare = "GET / HTTP/1.1\nHost: a\r\n\r\n".to_owned();
    for (bytes, expected, between) in [
        (GOOD.to_owned(), vec![None], true),
        (format!("{sized}{fragment}"), vec![None, Some(Fault::Fragment)], false),
        (format!("{chunked}{twice}{GOOD}"), vec![None, Some(Fault::LengthTwice), Some(Fault::Unfollowed)], false),
        (bare, vec![Some(Fault::BareLineFeed)], false),
        (GOOD.replace("Host: a\r", "Host: a"), vec![Some(Fault::BareLineFeed)], false),
        (GOOD.replace("\r\n\r\n", "\r\n\n"), vec![Some(Fault::BareLineFeed)], false),
        (post("Transfer-Encoding: gzip, chunked\r\n", ""), vec![Some(Fault::Coding)], false),
        (post("Transfer_Encoding: chunked\r\n", ""), vec![Some(Fault::LookAlike)], false),
        (post("Content-Length: +3\r\n", "abc"), vec![Some(Fault::LengthOdd)], false),
        (post("Content-Length: 03\r\n", "abc"), vec![Some(Fault::LengthOdd)], false),
        (post("Expect: 100-continue, 200-ok\r\n", ""), vec![Some(Fault::Expectation)], false),
        (format!("{GOOD}{both}{GOOD}"), vec![None, Some(Fault::TwoLengths), Some(Fault::Unfollowed)], false),
        (turned, vec![Some(Fault::TwoLengths)], false),
        (post("Content-Length: 5\r\n", "abc"), vec![None], false),
        ("GET / HT".to_owned(), vec![None], false),
        (post("Transfer-Encoding: chunked\r\n", "zz\r\n"), vec![None, Some(Fault::Unfollowed)], false),
    ] {
        for piece in [1, 2, 3, 7, bytes.len()] {
            assert_eq!(faults(&bytes, piece, expected.len()), (expected.clone(), between), "{bytes:?} by {piece}");
        }
    }
}

#[test]
fn a_chunked_body_that_others_might_read_otherwise_is_broken_off_where_it_goes_wrong() {
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (good, bad) in [
        ("3\r\nabc\r\n", "2\nab"),
        ("", "2 \r\nab"),
        ("", "0x2\r\nab"),
        ("", "+2\r\nab"),
        ("", "-2\r\nab"),
        ("", "2;\r\nab"),
        ("", "2;a\0\r\nab"),
        ("", "10000000000000000\r\nab"),
        ("", "ffffffffffffffff\r\nab"),
        ("", "40000001\r\nab"),
        ("", "\r\nab"),
        ("2;a=b\r\nab\r\n0\r\nT: v\r\n", "T: v\n\r\n"),
    ] {
        let bytes = format!("{head}{good}{bad}");
        let mut framing = Framing::new(Watch::default());
        let fed = framing.feed(bytes.as_bytes());
        assert_eq!(fed.broken.map(|(at, _)| at), Some(head.len() + good.len()), "{bytes:?}");
        let mut framing = Framing::new(Watch::default());
        assert!(bytes.as_bytes().chunks(1).any(|b| framing.feed(b).broken.is_some()), "{bytes:?}");
    }
    let mut framing = Framing::new(Watch::default());
    assert!(framing.feed("\r\n".repeat(5).as_bytes()).broken.is_some());
    assert!(Framing::new(Watch::default()).feed(b"\nGET / HTTP/1.1\r\n").broken.is_some());
}

#[tokio::test]
async fn http2_is_told_by_its_preface_and_not_followed() {
    let watch = Watch::default();
    let mut framing = Framing::new(watch.clone());
    framing.feed(&PREFACE[..10]);
    assert_eq!(watch.protocol(), Protocol::Unknown);
    framing.feed(&PREFACE[10..]);
    framing.feed(b"\0\0\x06\x04#\r\n\r\n");
    let flood: Vec<u8> = [PREFACE, &b"\0\0\0\x06\0\0\0\0\0".repeat(3000)].concat();
    assert!(Framing::new(Watch::default()).feed(&flood).broken.is_some());
    assert_eq!((watch.protocol(), watch.next_head()), (Protocol::Http2, None));
    let watch = Watch::default();
    Framing::new(watch.clone()).feed(b"PRIX");
    assert_eq!(watch.protocol(), Protocol::Http1);
}

properties! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Bytes of a body never count as a head, however they look.
    #[test]
    fn a_body_is_passed_over(body in "[GETPOS /#:\\r\\nContent\\-Lengthcdx0-9]{0,80}", chunk in 1..20usize, piece in 1..40usize) {
        let sized = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}{GOOD}", body.len());
        prop_assert_eq!(faults(&sized, piece, 2), (vec![None, None], true));
        let mut chunks = String::new();
        for part in body.as_bytes().chunks(chunk) {
            chunks += &format!("{:X}\r\n{}\r\n", part.len(), std::str::from_utf8(part).unwrap());
        }
        let chunked = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n{GOOD}");
        prop_assert_eq!(faults(&chunked, piece, 2), (vec![None, None], true));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), piece in 1..50usize) {
        let mut framing = Framing::new(Watch::default());
        bytes.chunks(piece).for_each(|piece| drop(framing.feed(piece)));
    }
}
