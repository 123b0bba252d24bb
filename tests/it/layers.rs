//! The order of the source: a module imports only from those that stand before it, so there is no circle.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A module may use those before it, in its own tier too. A new module must be given its place here.
const TIERS: [(&str, &str); 10] = [
    ("kernel", "metrics clock names share task files heap secret dns targets standard_webhooks conn proof descriptors"),
    ("http", "body headers request_id http2"),
    ("facts", "vendor config telemetry"),
    ("parts", "store quota credentials tls upstream jwks"),
    ("egress", "egress"),
    ("services", "events history webhooks"),
    ("requests", "refusal identity policy route openapi admission streaming gateway response trail routes flow"),
    ("operators", "services admin reload"),
    ("edges", "listener app"),
    ("roots", "cli main lib"),
];

/// Stands aside: it may use the kernel only, so that it cannot share a mistake with what it tests.
const SIMULATOR: &str = "simulator";

#[test]
fn a_module_imports_only_from_those_before_it() {
    let order = TIERS.iter().flat_map(|(_, names)| names.split(' '));
    let places: BTreeMap<&str, usize> = order.enumerate().map(|(place, name)| (name, place)).collect();
    let kernel = TIERS[0].1.split(' ').count();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut faults, mut seen) = (Vec::new(), 0);
    for file in files_below(&src) {
        let module = first_component(file.strip_prefix(&src).unwrap());
        if file.strip_prefix(&src).unwrap().to_string_lossy().contains("tests") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let place = match module.as_str() {
            SIMULATOR => kernel,
            other => *places.get(other).unwrap_or_else(|| panic!("{module} has no place")),
        };
        for used in uses(&text).into_iter().filter(|used| *used != module) {
            seen += 1;
            let is_behind = places.get(used.as_str()).is_some_and(|at| *at >= place);
            let is_simulator = used == SIMULATOR && module != "cli";
            if is_behind || is_simulator {
                faults.push(format!("{} uses {used}", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(seen > 1000, "{seen}");
}

#[test]
fn what_a_module_uses_is_read_rightly() {
    let code = "\
use crate::a::{self, B};
use crate::{b::{c, d::{E, F}}, g, h::*};
// crate::not
fn f() -> crate::i::J { other::crate_::k() }
#[cfg(test)]
mod tests { use crate::l; }
";
    assert_eq!(uses(code), ["a", "b", "g", "h", "i"]);
}

/// Files of their own: what the process writes itself, and what the kernel shows of the process.
const READ_THEIR_OWN: [&str; 5] = ["files.rs", "store/", "cli/history/part.rs", "clock.rs", "descriptors.rs"];

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
                faults.push(format!("{name} reads with {way}: what hangs there hangs the gateway. See files.rs"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
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

fn first_component(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The first path segment after each `crate::` of what is no comment and no test, with groups opened.
fn uses(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code: String =
        code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(members(group).into_iter().map(|member| ident(member.trim()))),
            None => found.push(ident(rest)),
        }
    }
    found
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

fn ident(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}
