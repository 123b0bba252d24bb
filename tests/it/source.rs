//! What the sources keep to, beside the order of their imports: names, comments, documentation, seeds.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::layers::files_below;

/// A comment is read beside the code, and is no wider.
const WIDTH: usize = 120;

/// A file of the library.
struct Source {
    /// As `events/log.rs`.
    name: String,
    text: String,
}

impl Source {
    fn all() -> Vec<Self> {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = files_below(&src);
        files.sort();
        let name = |file: &Path| file.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
        files.iter().map(|file| Self { name: name(file), text: fs::read_to_string(file).unwrap() }).collect()
    }

    /// Those that are no tests, without what is tests in them.
    fn without_tests() -> Vec<Self> {
        let is_test = |name: &str| name.split('/').any(|step| matches!(step, "tests" | "tests.rs"));
        let sources =
            Self::all().into_iter().filter(|source| !is_test(&source.name) && !source.name.contains("testing"));
        sources.map(|source| Self { text: before_tests(&source.text).to_owned(), ..source }).collect()
    }

    fn room(&self) -> &str {
        self.name.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    fn place(&self, line: usize) -> String {
        format!("src/{}:{}", self.name, line + 1)
    }
}

/// What stands before `mod tests {`: types there are nobody else's.
fn before_tests(text: &str) -> &str {
    let is_module = |line: &&str| line.contains("mod ") && line.ends_with('{');
    let is_tests = |at: &usize| text[*at..].lines().take(4).any(|line| is_module(&line));
    let mut begins = text.match_indices("\n#[cfg(").map(|(at, _)| at + 1);
    let tests = begins.find(|at| text[*at..].lines().next().is_some_and(|line| line.contains("test")) && is_tests(at));
    &text[..tests.unwrap_or(text.len())]
}

/// The kind of item that a line begins, and its name.
fn declared(line: &str) -> Option<(&str, &str)> {
    let is_before =
        |word: &&str| word.starts_with("pub") || word.ends_with(')') || matches!(*word, "async" | "unsafe" | "const");
    let mut words = line.split_whitespace().skip_while(is_before);
    let (kind, name) = (words.next()?, words.next()?);
    Some((kind, name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()))
}

/// A reader who looks for a type finds one in a room, and the one that is meant.
#[test]
fn no_two_types_of_a_room_share_a_name() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in Source::without_tests() {
        for (at, line) in source.text.lines().enumerate() {
            let Some((kind, name)) = declared(line) else { continue };
            // An indented `type` belongs to an implementation, of a trait that has named it.
            let is_alias = kind == "type" && !line.starts_with(' ');
            if !name.is_empty() && (is_alias || matches!(kind, "struct" | "enum" | "trait" | "union")) {
                places.entry(format!("{}::{name}", source.room())).or_default().push(source.place(at));
            }
        }
    }
    assert!(places.len() > 500, "{}", places.len());
    let shared = places.iter().filter(|(_, places)| places.len() > 1);
    let shared: Vec<String> = shared.map(|(name, places)| format!("{name}: {}", places.join(", "))).collect();
    assert!(shared.is_empty(), "give each of these types a name of its own in its room:\n{}", shared.join("\n"));
}

#[test]
fn no_comment_is_wider_than_the_code() {
    // A row of a table and a drawing cannot be wrapped.
    let is_wide = |line: &str| {
        let line_start = line.trim_start();
        line_start.starts_with("//") && !line_start.starts_with("//! |") && line.chars().count() > WIDTH
    };
    let mut wide = Vec::new();
    for source in Source::without_tests() {
        let lines = source.text.lines().enumerate().filter(|(_, line)| is_wide(line));
        wide.extend(lines.map(|(at, _)| source.place(at)));
    }
    assert!(wide.is_empty(), "wrap these comments at {WIDTH}:\n{}", wide.join("\n"));
}

/// rustc's `missing_docs` asks it of fields and variants, too, where a good name says all; so it is asked here, of items.
#[test]
fn each_public_item_says_what_it_is_for() {
    let (mut bare, mut seen) = (Vec::new(), 0);
    for source in Source::without_tests() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.trim_start().starts_with("pub ")) {
            let Some((kind, name)) = declared(line) else { continue };
            if !matches!(kind, "fn" | "struct" | "enum" | "trait" | "union" | "type" | "static") {
                continue;
            }
            seen += 1;
            // Between an item and its documentation there are attributes only.
            let ends_another = |line: &&&str| line.is_empty() || line.ends_with(['{', '}', ';']);
            let mut above = lines[..at].iter().rev().take_while(|line| !ends_another(line)).map(|line| line.trim());
            if !above.any(|line| line.starts_with("///") || line.starts_with("$(#[")) {
                bare.push(format!("{name}: {}", source.place(at)));
            }
        }
    }
    assert!(seen > 500, "{seen}");
    assert!(bare.is_empty(), "say what these are for:\n{}", bare.join("\n"));
}

/// What `proptest!` finds it would write where nobody looks: see `src/tests.rs`.
#[test]
fn properties_keep_their_seeds_beside_them() {
    let others = Source::all().into_iter().filter(|source| source.name != "tests.rs");
    let others = others.filter(|source| source.text.contains("proptest! {") || source.text.contains("proptest!("));
    let others: Vec<String> = others.map(|source| source.name).collect();
    assert!(others.is_empty(), "write properties! for proptest! in {others:?}");
}
