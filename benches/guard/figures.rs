//! The kept figures, and how much what was counted may differ from them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::callgrind::Instructions;

/// More growth than this fails, in percent.
pub const MOST_GROWTH: f64 = 5.0;

const HEAD: &str = "\
# Instructions of one piece of work, by the `guard` profile. Written by `just guard --update`, read by `just guard`.
# A figure rises only in a commit that says why.
";

/// What was counted, and with what.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    pub with: With,
    pub instructions: BTreeMap<String, Figure>,
}

/// What the counts depend on beside the program.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct With {
    pub rustc: String,
    pub valgrind: String,
    pub libc: String,
    /// What valgrind shows the program of the processor, by which code is picked at run time.
    pub processor: String,
}

/// Of one piece of work.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    pub own: u64,
    pub libraries: u64,
}

impl From<Instructions> for Figure {
    fn from(Instructions { own, libraries }: Instructions) -> Self {
        Self { own, libraries }
    }
}

impl Figures {
    pub fn path() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("figures.toml")
    }

    pub fn read() -> Self {
        toml::from_str(&std::fs::read_to_string(Self::path()).unwrap()).unwrap()
    }

    pub fn write(&self) {
        let With { rustc, valgrind, libc, processor } = &self.with;
        let mut text = format!(
            "{HEAD}\n[with]\nrustc = {rustc:?}\nvalgrind = {valgrind:?}\nlibc = {libc:?}\nprocessor = {processor:?}\n\n\
             [instructions]\n"
        );
        for (name, Figure { own, libraries }) in &self.instructions {
            text += &format!("{name} = {{ own = {own}, libraries = {libraries} }}\n");
        }
        std::fs::write(Self::path(), text).unwrap();
    }

    /// Prints how far each has moved. Returns those that grew too much, or are missing on one side.
    pub fn compare(&self, kept: &Self) -> Vec<String> {
        let same_libraries = (&self.with.valgrind, &self.with.libc, &self.with.processor)
            == (&kept.with.valgrind, &kept.with.libc, &kept.with.processor);
        println!("counted with {:?}", self.with);
        if self.with != kept.with {
            println!("the kept figures were counted with {:?}", kept.with);
        }
        if !same_libraries {
            println!(
                "so only the program's own instructions are compared: what the C library takes may be its own doing"
            );
        }
        println!("{:<16} {:>12} {:>12} {:>12} {:>9}", "one", "own", "libraries", "kept", "moved");
        let mut faults = Vec::new();
        for (name, now) in &self.instructions {
            let Some(then) = kept.instructions.get(name) else {
                faults.push(format!("{name} has no kept figure: `just guard --update`"));
                continue;
            };
            let judged = |figure: &Figure| figure.own + if same_libraries { figure.libraries } else { 0 };
            let (judged, before) = (judged(now), judged(then));
            let moved = (judged as f64 / before as f64 - 1.0) * 100.0;
            println!("{name:<16} {:>12} {:>12} {before:>12} {moved:>+8.1}%", now.own, now.libraries);
            if moved > MOST_GROWTH {
                faults.push(format!("{name} grew by {moved:.1} %: at most {MOST_GROWTH} % is let pass"));
            } else if moved < -MOST_GROWTH {
                println!("  {name} fell: `just guard --update` keeps it there");
            }
        }
        let gone = kept.instructions.keys().filter(|name| !self.instructions.contains_key(*name));
        faults.extend(gone.map(|name| format!("{name} was not counted")));
        faults
    }
}

impl With {
    pub fn this() -> Self {
        let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
        // Valgrind knows nothing beyond AVX2, whatever the machine has.
        let level = ["avx2", "avx"].into_iter().find(|flag| has(flag)).unwrap_or("no avx");
        Self {
            rustc: first_line(&std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()), "--version"),
            valgrind: first_line("valgrind", "--version"),
            libc: first_line("getconf", "GNU_LIBC_VERSION"),
            processor: format!("{} with {level}", std::env::consts::ARCH),
        }
    }
}

fn first_line(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
}
