//! The tiers of the source: a module imports only from its own tier or lower ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lowest first. A new module must be given its place here.
const TIERS: [(&str, &[&str]); 8] = [
    (
        "kernel",
        &[
            "clock",
            "conn",
            "dns",
            "files",
            "heap",
            "http2",
            "secret",
            "names",
            "proof",
            "share",
            "standard_webhooks",
            "targets",
            "task",
            "metrics",
        ],
    ),
    ("facts", &["order", "vendor", "config", "telemetry"]),
    ("parts", &["store", "quota", "credentials", "upstream", "jwks", "tls"]),
    ("egress", &["egress"]),
    ("services", &["events", "history", "webhooks"]),
    (
        "requests",
        &[
            "admission",
            "identity",
            "policy",
            "route",
            "openapi",
            "routes",
            "gateway",
            "flow",
            "refusal",
            "body",
            "headers",
            "request_id",
        ],
    ),
    ("edges", &["listener", "admin", "app", "descriptors", "reload"]),
    ("roots", &["cli", "main", "lib"]),
];

/// Stands aside: it may use the kernel only, so that it cannot share a mistake with what it tests.
const SIMULATOR: &str = "simulator";

#[test]
fn a_module_imports_only_from_its_own_tier_or_lower_ones() {
    let tiers: BTreeMap<&str, usize> =
        TIERS.iter().enumerate().flat_map(|(tier, (_, names))| names.iter().map(move |name| (*name, tier))).collect();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut faults = Vec::new();
    for file in files_below(&src) {
        let module = first_component(file.strip_prefix(&src).unwrap());
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let allowed = if module == SIMULATOR {
            0
        } else {
            *tiers.get(module.as_str()).unwrap_or_else(|| panic!("{module} has no tier"))
        };
        if file.strip_prefix(&src).unwrap().to_string_lossy().contains("tests") {
            continue;
        }
        for used in uses(code) {
            let is_above = tiers.get(used.as_str()).is_some_and(|tier| *tier > allowed);
            let is_simulator = used == SIMULATOR && module != SIMULATOR && module != "cli";
            if is_above || is_simulator {
                faults.push(format!("{} uses {used}", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
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

/// The first path segment after each `crate::`, with groups opened one level.
fn uses(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let inside = group.split('}').next().unwrap_or_default();
            found.extend(inside.split(',').map(|item| ident(item.trim())));
        } else {
            found.push(ident(rest));
        }
    }
    found
}

fn ident(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}
