//! The order of the source: a room imports only from those that stand before it, and its modules use each other one way, so
//! there is no circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, each with its modules where they are more than parts of one thing. A module may use those before it, in its own
/// room too. A new one must be given its place here.
const ROOMS: [(&str, &str); 18] = [
    (
        "kernel",
        "version fast_map clock sync metrics testing cause log_list backoff names share task files heap secret dns targets standard_webhooks conn proof trouble",
    ),
    ("http", "body headers request_id http2"),
    ("vendor", ""),
    ("config", ""),
    ("store", ""),
    ("tls", ""),
    ("upstream", "quota credentials pool egress"),
    ("events", ""),
    ("history", ""),
    ("webhooks", ""),
    (
        "request",
        "refusal jwks identity policy openapi route admission batch_text sse_text json_text gateway response request_log guard routes flow",
    ),
    ("services", ""),
    ("admin", ""),
    ("server", "descriptors listener"),
    ("app", ""),
    ("cli", ""),
    ("main", ""),
    ("lib", ""),
];

/// Stands aside: it may use the kernel only, so that it cannot share a mistake with what it tests.
const SIMULATOR: &str = "simulator";

#[test]
fn a_module_imports_only_from_those_before_it() {
    let order = ROOMS.iter().flat_map(|(room, modules)| match *modules {
        "" => vec![(*room).to_owned()],
        modules => modules.split(' ').map(|module| format!("{room}::{module}")).collect(),
    });
    let places: BTreeMap<String, usize> = order.enumerate().map(|(place, name)| (name, place)).collect();
    let behind_kernel = places.iter().filter(|(name, _)| name.starts_with("kernel::")).count();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut faults, mut seen) = (Vec::new(), 0);
    for file in files_below(&src) {
        let path = file.strip_prefix(&src).unwrap().with_extension("").to_string_lossy().replace('/', "::");
        // The file of a room that has modules only lists them.
        if path.contains("tests") || ROOMS.iter().any(|(room, modules)| *room == path && !modules.is_empty()) {
            continue;
        }
        let module = module_of(&path);
        let place = match module.as_str() {
            SIMULATOR => behind_kernel,
            other => *places.get(other).unwrap_or_else(|| panic!("{module} has no place")),
        };
        let text = fs::read_to_string(&file).unwrap();
        for used in uses(&text).iter().map(|path| module_of(path)).filter(|used| *used != module) {
            seen += 1;
            let is_behind = match places.get(&used) {
                Some(at) => *at >= place,
                None if used == SIMULATOR => module != "cli",
                // Of the crate's root, or the room itself: a path that names no module.
                None => !matches!(used.as_str(), "" | "self"),
            };
            if is_behind {
                faults.push(format!("{} uses {used}", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(seen > 1000, "{seen}");
}

/// Within the crate the compiler cannot hold this: the stages are not below each other.
/// A name that a room's own file hands on counts as the module's that has it.
#[test]
fn the_modules_of_a_room_use_each_other_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut circles, mut seen) = (Vec::new(), 0);
    for (room, _) in ROOMS.iter().filter(|(room, _)| src.join(room).is_dir()) {
        let facade = fs::read_to_string(src.join(room).with_extension("rs")).unwrap();
        let handed_on: BTreeMap<String, String> = paths_after("self::", &facade)
            .into_iter()
            .filter_map(|path| Some((path.rsplit("::").next()?.to_owned(), path.split("::").next()?.to_owned())))
            .collect();
        let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in files_below(&src.join(room)) {
            let path = file.strip_prefix(&src).unwrap().with_extension("").to_string_lossy().replace('/', "::");
            if path.contains("test") {
                continue;
            }
            let own: Vec<&str> = path.split("::").collect();
            let text = fs::read_to_string(&file).unwrap();
            let mut used = uses(&text);
            for up in 1..own.len() {
                let root = "super::".repeat(up);
                let above = own[..own.len() - up].join("::");
                used.extend(paths_after(&root, &text).into_iter().map(|path| format!("{above}::{path}")));
            }
            let of_room =
                used.iter().filter_map(|path| path.strip_prefix(room)?.strip_prefix("::")?.split("::").next());
            let modules = of_room.map(|name| handed_on.get(name).map_or(name, String::as_str).to_owned());
            arrows.entry(own[1].to_owned()).or_default().extend(modules.filter(|used| used != own[1]));
        }
        seen += arrows.values().map(BTreeSet::len).sum::<usize>();
        let mut left: BTreeSet<String> = arrows.keys().cloned().collect();
        while let Some(free) = left.iter().find(|module| arrows[*module].is_disjoint(&left)).cloned() {
            left.remove(&free);
        }
        if !left.is_empty() {
            circles.push(format!("{room}: {left:?}"));
        }
    }
    assert!(circles.is_empty(), "what these use of each other goes into a module of its own: {circles:#?}");
    assert!(seen > 200, "{seen}");
}

#[test]
fn what_a_stage_hands_on_is_made_by_that_stage_alone() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (made, by) in [("Conn::new(", "server/"), ("Signed::new(", "upstream/egress/")] {
        let mut makers = 0;
        for file in files_below(&src) {
            let path = file.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
            if path.contains("tests") || path.starts_with(SIMULATOR) || !calls(&code_of(&file), made) {
                continue;
            }
            assert!(path.starts_with(by), "{path} makes what {by} makes: {made}");
            makers += 1;
        }
        assert!(makers > 0, "{made}");
    }
}

/// Whether it is called by that name, and not only something whose name ends so.
fn calls(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// The lines of a file that are no comments.
fn code_of(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_a_module_uses_is_read_rightly() {
    let code = "\
use crate::a::{self, B};
use crate::{b::{c, d::{E, F}}, g, h::*};
// crate::not
fn f() -> crate::i::j::K { other::crate_::k() }
use crate::l::{m::{N, o}, p};
#[cfg(test)]
mod tests { use crate::l; }
";
    let found = ["a::self", "a::B", "b::c", "b::d::E", "b::d::F", "g", "h", "i::j::K", "l::m::N", "l::m::o", "l::p"];
    assert_eq!(uses(code), found);
    let above = "use super::{a, b::C};\nuse super::super::d::E;\n";
    assert_eq!(paths_after("super::", above), ["a", "b::C"]);
    assert_eq!(paths_after("super::super::", above), ["d::E"]);
    assert_eq!(module_of("kernel::clock::Clock"), "kernel::clock");
    assert_eq!(module_of("events::log::tests"), "events");
}

/// Files of their own: what the process writes itself, and what the kernel shows of the process.
const READ_THEIR_OWN: [&str; 6] = [
    "kernel/files.rs",
    "store/",
    "cli/history/partial_file.rs",
    "kernel/clock.rs",
    "kernel/metrics/process.rs",
    "server/descriptors.rs",
];

#[test]
fn what_others_write_is_read_in_one_place_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut faults = Vec::new();
    for file in files_below(&src) {
        let name = file.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
        if READ_THEIR_OWN.iter().any(|own| name.starts_with(own)) || name.contains("tests") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\n").next().unwrap_or_default();
        for way in ["fs::read(", "fs::read_to_string(", "File::open(", "OpenOptions::new()", "File::options()"] {
            if code.contains(way) {
                faults
                    .push(format!("{name} reads with {way}: what hangs there hangs the gateway. See kernel/files.rs"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

pub(super) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

/// The module that a path leads into.
fn module_of(path: &str) -> String {
    let mut steps = path.split("::");
    let first = steps.next().unwrap_or_default();
    match ROOMS.iter().find(|(room, _)| *room == first) {
        Some((_, modules)) if !modules.is_empty() => format!("{first}::{}", steps.next().unwrap_or_default()),
        _ => first.to_owned(),
    }
}

/// The paths after each `crate::` of what is no comment and no test, with groups opened.
fn uses(text: &str) -> Vec<String> {
    paths_after("crate::", text)
}

/// The same of another root.
fn paths_after(root: &str, text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code: Vec<&str> = code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n");
    let mut found = Vec::new();
    for (at, _) in code.match_indices(root) {
        let is_whole = !code[..at].ends_with("super::") && !code[at + root.len()..].starts_with("super::");
        if is_whole {
            open(String::new(), &code[at + root.len()..], &mut found);
        }
    }
    found
}

/// Adds the paths that begin here, below `before`.
fn open(before: String, rest: &str, found: &mut Vec<String>) {
    let rest = rest.trim_start();
    if let Some(group) = rest.strip_prefix('{') {
        let members = members(group);
        members
            .iter()
            .filter(|member| !member.trim().is_empty())
            .for_each(|member| open(before.clone(), member, found));
        return;
    }
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let path = if before.is_empty() || name.is_empty() { before + &name } else { format!("{before}::{name}") };
    match rest[name.len()..].strip_prefix("::") {
        Some(rest) => open(path, rest, found),
        None => found.push(path),
    }
}

/// The members of a group of imports that has been opened, each whole.
fn members(group: &str) -> Vec<&str> {
    let (mut all, mut depth, mut begin) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                all.push(&group[begin..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                all.push(&group[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    all
}

/// Where a paused clock passes, and where real time does.
const WAITING: [&str; 2] = ["src/kernel/testing.rs", "tests/it/support/waiting.rs"];

#[test]
fn no_test_sleeps_but_by_what_asks_for_a_paused_clock_or_says_what_it_waits_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut faults, mut seen) = (Vec::new(), 0);
    for file in ["src", "tests"].into_iter().flat_map(|folder| files_below(&root.join(folder))) {
        let path = file.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).unwrap();
        let tests = match path.contains("test") {
            true => text.as_str(),
            false => text.split_once("\nmod tests {\n").map_or("", |(_, tests)| tests),
        };
        seen += usize::from(!tests.is_empty());
        let sleeps = |line: &&str| line.contains(concat!("sleep", "(")) && !line.trim_start().starts_with("//");
        if !WAITING.contains(&path.as_str()) {
            faults.extend(tests.lines().filter(sleeps).map(|line| format!("{path}: {}", line.trim())));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(seen > 150, "{seen}");
}
