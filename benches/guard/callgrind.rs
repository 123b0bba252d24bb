//! A program under valgrind's callgrind, and what it counted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::stage::Process;

/// Instructions in user space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instructions {
    /// Of the program's own file: all Rust code, and the C code that is linked into it.
    pub own: u64,
    /// Of all else: the C library, which picks its copying by the processor.
    pub libraries: u64,
}

impl Instructions {
    pub fn total(self) -> u64 {
        self.own + self.libraries
    }

    /// For each of so many pieces of work.
    pub fn each(self, pieces: u64) -> Self {
        Self { own: self.own / pieces, libraries: self.libraries / pieces }
    }
}

/// So long nothing is asked.
const IDLE: Duration = Duration::from_secs(3);

/// Where one program's counts go. One folder serves one program.
pub struct Callgrind {
    dir: PathBuf,
    program: PathBuf,
    dumps: usize,
}

impl Callgrind {
    pub fn new(dir: &Path, program: &Path) -> Self {
        Self { dir: dir.to_owned(), program: program.to_owned(), dumps: 0 }
    }

    /// What runs it: one worker, whose turn the other threads take in order.
    pub fn command(&self) -> Command {
        let dir = self.dir.display();
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--quiet", "--fair-sched=try"])
            .arg(format!("--callgrind-out-file={dir}/counts"))
            .arg(format!("--log-file={dir}/valgrind.log"))
            .arg(self.vgdb_prefix())
            .arg(&self.program)
            .env("TOKIO_WORKER_THREADS", "1");
        command
    }

    /// What the process executes for `work`. What goes on in it by time, whatever it is asked, is counted beside it while
    /// nothing is asked, and taken off: how long the work takes depends on the machine.
    pub async fn count(&mut self, process: &Process, work: impl Future<Output = ()>) -> Instructions {
        let (with, took) = self.during(process, work).await;
        let (idle, idled) = self.during(process, tokio::time::sleep(IDLE)).await;
        let beside = |idle: u64| (idle as f64 * took.as_secs_f64() / idled.as_secs_f64()) as u64;
        Instructions {
            own: with.own.saturating_sub(beside(idle.own)),
            libraries: with.libraries.saturating_sub(beside(idle.libraries)),
        }
    }

    async fn during(&mut self, process: &Process, work: impl Future<Output = ()>) -> (Instructions, Duration) {
        self.tell(process, "zero");
        let began = Instant::now();
        work.await;
        self.tell(process, "dump");
        let took = began.elapsed();
        self.dumps += 1;
        let file = self.dir.join(format!("counts.{}", self.dumps));
        (sum(&std::fs::read_to_string(&file).unwrap(), &self.program), took)
    }

    fn tell(&self, process: &Process, what: &str) {
        let mut command = Command::new("vgdb");
        command.arg(self.vgdb_prefix()).arg(format!("--pid={}", process.0.id())).arg(what);
        let output = command.output().unwrap();
        assert!(output.status.success(), "vgdb {what}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn vgdb_prefix(&self) -> String {
        format!("--vgdb-prefix={}/vgdb", self.dir.display())
    }
}

/// Adds up a file of callgrind's by the object that the instructions are of. Lines that begin with a digit, `+`, `-` or
/// `*` are a position and its cost; one that follows `calls=` is what the called function took, which stands by itself.
fn sum(text: &str, program: &Path) -> Instructions {
    let (mut counted, mut is_own, mut is_call) = (Instructions::default(), false, false);
    let (mut total, mut own_number) = (None, None);
    for line in text.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            // Named once, then by number.
            let (number, name) = object.split_once(' ').unwrap_or((object, ""));
            if Path::new(name) == program {
                own_number = Some(number.to_owned());
            }
            is_own = own_number.as_deref() == Some(number);
        } else if let Some(object) = line.strip_prefix("cob=") {
            if let Some((number, name)) = object.split_once(' ')
                && Path::new(name) == program
            {
                own_number = Some(number.to_owned());
            }
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if let Some(sum) = line.strip_prefix("totals: ") {
            total = sum.trim().parse::<u64>().ok();
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost = line.split_whitespace().nth(1).and_then(|cost| cost.parse::<u64>().ok());
            match (std::mem::take(&mut is_call), is_own, cost) {
                (true, ..) | (_, _, None) => {}
                (false, true, Some(cost)) => counted.own += cost,
                (false, false, Some(cost)) => counted.libraries += cost,
            }
        }
    }
    assert_eq!(Some(counted.total()), total, "callgrind's own sum is another");
    counted
}
