//! The committed corpus of the fuzz targets as tests: every input that a fuzzer found worth keeping, and every one that
//! once broke a promise, is checked by the very functions that are fuzzed.

use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is a library where it is fuzzed")]
mod fuzz;

#[test]
fn every_input_of_the_corpus_keeps_the_promises_of_its_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut broken = Vec::new();
    for (target, check) in fuzz::TARGETS {
        let inputs: Vec<_> =
            std::fs::read_dir(corpus.join(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(inputs.len() > 1, "{target} has no corpus");
        for input in inputs {
            let bytes = std::fs::read(&input).unwrap();
            if std::panic::catch_unwind(|| check(&bytes)).is_err() {
                broken.push(input);
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_target_is_built_for_the_fuzzer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for (target, _) in fuzz::TARGETS {
        assert!(manifest.contains(&format!("path = \"targets/{target}.rs\"")), "{target} is not built");
        let source = std::fs::read_to_string(folder.join(format!("targets/{target}.rs"))).unwrap();
        assert!(source.contains(&format!("rtm_gateway_fuzz::{target}::check(data)")), "{target} fuzzes something else");
    }
    assert_eq!(manifest.matches("path = \"targets/").count(), fuzz::TARGETS.len());
}
