//! The work of reading grows with the file and no faster. Judged by the processor's time of this thread, so that a busy
//! machine makes no difference, and by a ratio, so that a slow one makes none.

use std::fmt::Write as _;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

use super::*;

const FEW: usize = 200;
/// So many times more.
const TIMES: usize = 16;

/// Microseconds of the processor that reading `text` takes, at best of so many times; how many findings it has.
fn cost(text: &str, times: usize) -> (i64, usize) {
    let now = || clock_gettime(ClockId::ThreadCPUTime);
    let once = || {
        let before = now();
        let findings = match from_text(text, Path::new("g")) {
            Ok(loaded) => loaded.warnings.len(),
            Err(faults) => faults.faults.len(),
        };
        let after = now();
        ((after.tv_sec - before.tv_sec) * 1_000_000 + (after.tv_nsec - before.tv_nsec) / 1000, findings)
    };
    (0..times).map(|_| once()).min().unwrap_or_default()
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
            let (few, _) = cost(&clients(FEW, rest, in_one_line), 5);
            let (all, found) = cost(&clients(many, rest, in_one_line), 1);
            assert!(found.abs_diff(findings) <= 1, "{what}: {found} findings");
            let most = few.max(1000) * 2 * i64::try_from(TIMES).unwrap();
            assert!(all <= most, "{what}, in one line {in_one_line}: {few} µs for {FEW}, {all} µs for {many}");
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
        let (few, _) = cost(&text(FEW), 5);
        let (all, _) = cost(&text(many), 1);
        let most = few.max(1000) * 2 * i64::try_from(TIMES).unwrap();
        assert!(all <= most, "{what}: {few} µs for {FEW}, {all} µs for {many}");
    }
}
