//! The work of reading grows with the file and no faster. Judged by the processor's time of this thread and by a ratio,
//! so that a slow machine makes no difference. What shares the caches with this thread can make a run dearer, never
//! cheaper: so the cheapest of some runs counts, and work that grows evenly may seem to grow four times as fast. What
//! grows with the square of a file is dearer by [`TIMES`] times that.

use std::fmt::Write as _;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

use super::*;

const FEW: usize = 200;
/// So many times more.
const TIMES: usize = 32;
/// So many runs, of which the cheapest counts.
const RUNS: usize = 5;

/// Microseconds of the processor that reading `text` takes; how many findings it has.
fn cost(text: &str) -> (i64, usize) {
    let now = || clock_gettime(ClockId::ThreadCPUTime);
    let before = now();
    let findings = match from_text(text, Path::new("g")) {
        Ok(loaded) => loaded.warnings.len(),
        Err(faults) => faults.faults.len(),
    };
    let after = now();
    ((after.tv_sec - before.tv_sec) * 1_000_000 + (after.tv_nsec - before.tv_nsec) / 1000, findings)
}

/// That reading `all`, which is [`TIMES`] times as much as `few`, costs no more than that; the findings of `all`.
fn assert_grows_evenly(what: &str, few: &str, all: &str) -> usize {
    let cheapest = (0..RUNS).map(|_| cost(few).0).min().unwrap_or_default();
    let most = cheapest.max(1000) * 4 * i64::try_from(TIMES).unwrap();
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let (cost, findings) = cost(all);
        if cost <= most {
            return findings;
        }
        runs.push(cost);
    }
    panic!("{what}: {cheapest} µs for {FEW}, {runs:?} µs for {TIMES} times as many")
}

/// Clients of their own names and proofs, each with `rest`; as sections or all in one line.
fn clients(many: usize, rest: &str, in_one_line: bool) -> String {
    let mut text = String::new();
    for n in 0..many {
        let client =
            format!("name = \"client-{n}\"|api_key_sha256 = \"{n:064x}\"|{}", rest.replace('#', &n.to_string()));
        let written = if in_one_line {
            write!(text, "{}{{ {} }}", if n == 0 { "" } else { ", " }, client.replace('|', ", "))
        } else {
            write!(text, "[[clients]]\n{}\n", client.replace('|', "\n"))
        };
        written.unwrap();
    }
    if in_one_line { format!("clients = [{text}]\n") } else { text }
}

#[test]
fn the_cost_of_reading_clients_grows_with_their_number_and_no_faster() {
    let many = FEW * TIMES;
    for (what, rest, findings) in [
        ("sound", "allow = [{ app = \"*\", actions = [\"events\"] }]", 1),
        // All ways to show oneself, none of which the listeners offer, and nothing is allowed: five warnings each.
        (
            "warned of",
            "spiffe_id = \"spiffe://corp/#\"|dns_san = \"host-#\"|jwt_subject = \"sub-#\"|unix_uid = #",
            many * 5 + 1,
        ),
        ("faulty", "wieght = 2", many),
        ("of an unknown app", "allow = [{ app = \"none\", actions = [\"events\"] }]", many),
    ] {
        for in_one_line in [false, true] {
            let found = assert_grows_evenly(
                &format!("{what}, in one line {in_one_line}"),
                &clients(FEW, rest, in_one_line),
                &clients(many, rest, in_one_line),
            );
            assert!(found.abs_diff(findings) <= 1, "{what}: {found} findings");
        }
    }
}

#[test]
fn the_cost_of_reading_a_list_grows_with_its_length_and_no_faster() {
    let app = "[[apps]]\nid = \"a\"\n[apps.credential]\nkind = \"token\"\napp_certificate = { env = \"NONE\" }\nuid = \"u\"\n";
    let list = |many: usize, entry: &str| {
        (0..many)
            .map(|n| entry.replace('#', &format!("{n:064x}")).replace('~', &format!("{n:032x}")))
            .collect::<Vec<_>>()
            .join(",\n")
    };
    let many = FEW * TIMES;
    for (what, text, entry) in [
        ("keys", "[[clients]]\nname = \"c\"\napi_key_sha256 = [LIST]", "\"#\""),
        (
            "users",
            "[[clients]]\nname = \"c\"\nallow = [{ app = \"*\", actions = [\"messages\"], users = [LIST] }]",
            "\"#\"",
        ),
        ("hosts", "[admin]\nhosts = [LIST]", "\"a~.example\""),
        ("passed by", "[upstream]\nproxy = \"http://p:1\"\nno_proxy = [LIST]", "\"#\""),
        ("regions", "[[apps]]\nid = \"b\"\nregions = [LIST]", "{ name = \"#\", base_url = \"https://h~\" }"),
        ("listeners", "[server]\nlisten = [LIST]", "\"unix:/run/~\""),
        ("listeners that clash", "[server]\nlisten = [LIST]", "\"127.0.0.1:1\""),
        ("the same", "[admin]\nhosts = [LIST]", "\"localhost\""),
    ] {
        let text = |many: usize| format!("{}\n{app}", text.replace("LIST", &list(many, entry)));
        assert_grows_evenly(what, &text(FEW), &text(many));
    }
}
