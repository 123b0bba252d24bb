//! What is wrong with a configuration, in words: faults refuse it, warnings do not.
//!
//! Invariant: no value of the file is in a finding. What stands where a value is wanted may be a secret pasted into the
//! wrong place, so findings name the key and the line, and say what belongs there.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The key's path, as `apps[0].quota.messages.per`. Empty when it is about the file as a whole.
    pub path: String,
    /// Where it stands in the file, from 1. For what is missing: the table it is missing from.
    pub line: Option<usize>,
    /// Its place in the line, in characters from 1.
    pub column: Option<usize>,
    /// What is wrong. Reads on after the path, without a full stop.
    pub what: String,
    /// What to do about it, a sentence without its full stop.
    pub mend: String,
}

impl Finding {
    /// `FILE:LINE: key.path: what. mend.`
    #[must_use]
    pub fn in_file<'a>(&'a self, file: &'a Path) -> impl fmt::Display + 'a {
        InFile { finding: self, file }
    }
}

/// Why a configuration was refused: every fault at once, in the file's order. `Debug` does not say which files it
/// refers to: what stands in the place of a name may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Faults {
    pub file: PathBuf,
    /// At least one.
    pub faults: Vec<Finding>,
    /// What else was seen on the way.
    pub warnings: Vec<Finding>,
    /// Every file that it refers to, as far as it could be read: what is wrong may be mended there.
    pub files: Vec<PathBuf>,
    /// Those of them that hold one secret and nothing else.
    pub secrets: BTreeSet<PathBuf>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, faults, warnings, files, .. } = self;
        let mut shown = f.debug_struct("Faults");
        shown.field("file", file).field("faults", faults).field("warnings", warnings).field("files", &files.len());
        shown.finish_non_exhaustive()
    }
}

/// One line a fault.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.faults.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", fault.in_file(&self.file))?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

struct InFile<'a> {
    finding: &'a Finding,
    file: &'a Path,
}

impl fmt::Display for InFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { path, line, what, mend, .. } = self.finding;
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = line {
            write!(f, "{line}:")?;
        }
        if !path.is_empty() {
            write!(f, " {path}:")?;
        }
        write!(f, " {what}. {mend}.")
    }
}
