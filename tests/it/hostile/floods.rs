//! Floods over HTTP/2: whoever makes us work without asking for anything is cut, after little, and others do not notice.

use std::collections::BTreeMap;

use super::frames::*;
use crate::front::stage::{DEADLINE, RTM, Stage};

/// No flood may go on for longer.
const MOST: u32 = 200_000;

fn head(path: &str, key: &str) -> Vec<u8> {
    block(&[
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"gateway"),
        (b":path", path.as_bytes()),
        (b"x-api-key", key.as_bytes()),
    ])
}

/// Sends the beginning, then again and again what `next` makes of a number, until the connection ends. How often.
async fn flood(stage: &Stage, polite: bool, beginning: &[u8], next: impl Fn(u32) -> Vec<u8>) -> u32 {
    let mut caller = Caller::connect(stage, &[]).await;
    caller.polite = polite;
    caller.send(beginning).await;
    let Caller { mut reading, mut writing, .. } = caller;
    let mut sent = 0;
    let sending = async {
        while sent < MOST {
            let some: Vec<u8> = (sent..sent + 50).flat_map(&next).collect();
            if tokio::io::AsyncWriteExt::write_all(&mut writing, &some).await.is_err() {
                break;
            }
            sent += 50;
            // The gateway of a test runs on the same thread.
            tokio::task::yield_now().await;
        }
    };
    let hearing = async {
        let mut waste = vec![0; 65_536];
        while polite && matches!(tokio::io::AsyncReadExt::read(&mut reading, &mut waste).await, Ok(1..)) {}
        if !polite {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::time::timeout(DEADLINE, async {
        tokio::select! { () = sending => {}, () = hearing => {} }
    });
    ended.await.expect("the flood went on");
    assert!(sent < MOST, "the flood went on");
    sent
}

/// A harmless request on a connection of its own is answered.
async fn others_are_served(stage: &Stage) {
    let mut other = Caller::connect(stage, &[]).await;
    other.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &head("/nothing/here", "all-key"))).await;
    let heard = other.hear(|heard| !heard.statuses.is_empty()).await;
    assert_eq!(heard.statuses, BTreeMap::from([(1, 404)]));
}

#[tokio::test]
async fn a_flood_of_frames_that_do_no_work_is_cut() {
    let stage = Stage::with("", "streams = []").await;
    let nothing = head("/nothing", "all-key");
    let open = frame(HEADERS, END_HEADERS, 1, &head(&format!("{RTM}/message/history/query"), "all-key"));
    let stream = |n: u32| 2 * n + 1;
    let reset = |n: u32, key: &str, path: &str| {
        [
            frame(HEADERS, END_STREAM | END_HEADERS, stream(n), &head(path, key)),
            frame(RST_STREAM, 0, stream(n), &[0, 0, 0, 8]),
        ]
        .concat()
    };
    let wait = format!("{RTM}/vendor/user_events?wait=20s");
    type Next<'a> = Box<dyn Fn(u32) -> Vec<u8> + 'a>;
    let floods: Vec<(&str, bool, Vec<u8>, Next<'_>)> = vec![
        ("PING (CVE-2019-9512)", true, vec![], Box::new(|_| frame(PING, 0, 0, &[7; 8]))),
        ("PING, answers unread", false, vec![], Box::new(|_| frame(PING, 0, 0, &[7; 8]))),
        ("SETTINGS (CVE-2019-9515)", true, vec![], Box::new(|_| frame(SETTINGS, 0, 0, &[]))),
        ("SETTINGS, answers unread", false, vec![], Box::new(|_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]))),
        ("PRIORITY (CVE-2019-9513)", true, vec![], Box::new(|n| frame(PRIORITY, 0, stream(n), &[0, 0, 0, 0, 1]))),
        ("WINDOW_UPDATE", true, vec![], Box::new(|_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))),
        ("frames of an unknown kind", true, vec![], Box::new(|_| frame(77, 0, 0, &[]))),
        (
            "RST_STREAM of ended streams",
            true,
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &nothing),
            Box::new(|_| frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])),
        ),
        ("empty DATA (CVE-2019-9518)", true, open.clone(), Box::new(|_| frame(DATA, 0, 1, &[]))),
        ("DATA of padding", true, open.clone(), Box::new(|_| frame(DATA, PADDED, 1, &[3, 0, 0, 0]))),
        ("DATA of a byte", true, open.clone(), Box::new(|_| frame(DATA, 0, 1, b"x"))),
        (
            "CONTINUATION (CVE-2024-27316)",
            true,
            frame(HEADERS, END_STREAM, 1, &nothing),
            Box::new(|n| frame(CONTINUATION, 0, 1, &literal(format!("x-{n}").as_bytes(), &[b'y'; 1000]))),
        ),
        (
            "empty CONTINUATION",
            true,
            frame(HEADERS, END_STREAM, 1, &nothing),
            Box::new(|_| frame(CONTINUATION, 0, 1, &[])),
        ),
        (
            "empty CONTINUATION after an empty head",
            true,
            frame(HEADERS, END_STREAM, 1, &[]),
            Box::new(|_| frame(CONTINUATION, 0, 1, &[])),
        ),
        ("rapid reset (CVE-2023-44487), unknown caller", true, vec![], Box::new(|n| reset(n, "wrong", "/nothing"))),
        (
            "rapid reset (CVE-2023-44487), known caller, long poll",
            true,
            vec![],
            Box::new(|n| reset(n, "all-key", &wait)),
        ),
        // Have us reset the streams (CVE-2025-8671): by a window of nothing, by DATA after the end, by a bad frame.
        (
            "MadeYouReset by WINDOW_UPDATE",
            true,
            vec![],
            Box::new(|n| {
                [
                    frame(HEADERS, END_STREAM | END_HEADERS, stream(n), &head(&wait, "all-key")),
                    frame(WINDOW_UPDATE, 0, stream(n), &[0; 4]),
                ]
                .concat()
            }),
        ),
        (
            "MadeYouReset by overflow",
            true,
            vec![],
            Box::new(|n| {
                [
                    frame(HEADERS, END_STREAM | END_HEADERS, stream(n), &head(&wait, "all-key")),
                    frame(WINDOW_UPDATE, 0, stream(n), &0x7fff_ffff_u32.to_be_bytes()),
                ]
                .concat()
            }),
        ),
        (
            "MadeYouReset by DATA",
            true,
            vec![],
            Box::new(|n| {
                [
                    frame(HEADERS, END_STREAM | END_HEADERS, stream(n), &head(&wait, "all-key")),
                    frame(DATA, 0, stream(n), b"x"),
                ]
                .concat()
            }),
        ),
        (
            "MadeYouReset by malformed heads",
            true,
            vec![],
            Box::new(|n| frame(HEADERS, END_STREAM | END_HEADERS, stream(n), &block(&[(b":method", b"GET")]))),
        ),
        (
            "more streams than allowed",
            true,
            vec![],
            Box::new(|n| frame(HEADERS, END_STREAM | END_HEADERS, stream(n), &head(&wait, "all-key"))),
        ),
    ];
    for (name, polite, beginning, next) in floods {
        let sent = flood(&stage, polite, &beginning, next).await;
        println!("hostile | HTTP/2 flood | {name} | cut after at most {sent}");
        others_are_served(&stage).await;
        assert_eq!(stage.sim.stats().received(), 0, "{name}: the vendor heard");
    }
    stage.stopped().await;
}

#[tokio::test]
async fn headers_that_grow_when_they_are_decoded_are_refused() {
    let stage = Stage::with("", "streams = []").await;
    let usual = head("/nothing", "all-key");
    // An entry of 4000 bytes in the dynamic table, and a byte for each use of it (CVE-2016-6581 and others).
    let entry = [&[0x40_u8][..], &integer(7, 1), b"x", &integer(7, 3900), &[b'y'; 3900]].concat();
    let bomb = [&usual[..], &entry, &[0x80 | 62].repeat(12_000)].concat();
    let mut caller = Caller::connect(&stage, &[]).await;
    caller.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb)).await;
    caller.send(&frame(HEADERS, END_STREAM | END_HEADERS, 3, &usual)).await;
    let heard = caller.hear(|heard| heard.statuses.contains_key(&3) || heard.goaway.is_some()).await;
    assert!(
        heard.statuses.get(&1) == Some(&431) || heard.resets.contains_key(&1) || heard.goaway.is_some(),
        "{heard:?}"
    );
    // More headers, and larger ones, than are taken.
    for large in [literal(b"x", &[b'y'; 16_000]).repeat(5), literal(b"x", b"y").repeat(20_000)] {
        let block = [&usual[..], &large].concat();
        let mut parts = block.chunks(16_384);
        let mut frames = frame(HEADERS, END_STREAM, 1, parts.next().unwrap());
        let count = parts.len();
        for (n, part) in parts.enumerate() {
            frames.extend(frame(CONTINUATION, if n + 1 == count { END_HEADERS } else { 0 }, 1, part));
        }
        let mut caller = Caller::connect(&stage, &[]).await;
        caller.send(&frames).await;
        let heard =
            caller.hear(|heard| !heard.statuses.is_empty() || !heard.resets.is_empty() || heard.goaway.is_some()).await;
        assert!(heard.statuses.values().all(|status| *status == 431), "{heard:?}");
    }
    // A table as large as a caller likes: our encoder does not fill it.
    let mut caller = Caller::connect(&stage, &[(1, u32::MAX), (3, 0), (6, 1)]).await;
    caller.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &usual)).await;
    let heard = caller.hear(|heard| !heard.statuses.is_empty()).await;
    assert_eq!(heard.statuses, BTreeMap::from([(1, 404)]));
    assert_eq!(stage.sim.stats().received(), 0);
    stage.stopped().await;
}
