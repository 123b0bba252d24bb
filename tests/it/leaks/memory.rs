//! The process's memory: no core file, nobody else looks in, and what was replaced is gone.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, chown};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use rustix::process::Signal;

use super::plants::Plants;
use super::rig::{BASIC, Gateway, Heap, Home, TOKEN, Vendors, ask, files};
use crate::support::child::BINARY;
use crate::support::client::Client;

/// `nobody`, or whoever runs the test when that is not root.
const NOBODY: u32 = 65534;

const MESSAGE: &str = r#"{"destination":"b","payload":"hello"}"#;

/// A gateway that was allowed to dump its core, run by someone who is not root.
fn start(home: &Home, plants: &Plants) -> Gateway {
    let folder = home.config().parent().unwrap().to_owned();
    let binary = folder.join("rtm-gateway");
    fs::copy(BINARY, &binary).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c unlimited; exec \"$0\" \"$@\""]).arg(&binary).current_dir(&folder);
    if rustix::process::getuid().is_root() {
        for path in files(&folder).iter().chain([&folder]) {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    Gateway::of(command, home, plants)
}

fn of_process(gateway: &Gateway, file: &str) -> String {
    format!("/proc/{}/{file}", gateway.pid().as_raw_nonzero())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_core_is_written_and_nobody_but_root_looks_into_the_process() {
    let plants = Plants::new();
    let vendors = Vendors::start(&plants).await;
    let home = Home::new(&plants, &vendors);
    let mut gateway = start(&home, &plants);
    let limits = fs::read_to_string(of_process(&gateway, "limits")).unwrap();
    let core: Vec<&str> =
        limits.lines().find(|l| l.starts_with("Max core file size")).unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "soft and hard");
    let status = fs::read_to_string(of_process(&gateway, "status")).unwrap();
    let uid = status.lines().find_map(|l| l.strip_prefix("Uid:")).unwrap().split_whitespace().next().unwrap();
    assert_ne!(uid, "0", "the gateway does not run as root");
    // What belongs to root although the process does not is what PR_SET_DUMPABLE closed (proc(5)).
    for file in ["mem", "environ", "maps"] {
        assert_eq!(fs::metadata(of_process(&gateway, file)).unwrap().uid(), 0, "{file}");
    }
    gateway.signal(Signal::ABORT);
    let end = gateway.ended();
    assert_eq!((end.signal(), end.core_dumped()), (Some(6), false));
    let left: Vec<_> = files(home.config().parent().unwrap());
    assert!(!left.iter().any(|f| f.file_name().is_some_and(|n| n.to_string_lossy().starts_with("core"))), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_was_replaced_and_the_keys_of_callers_that_left_are_wiped() {
    let (plants, heap) = (Plants::new(), Heap::default());
    let vendors = Vendors::start(&plants).await;
    let home = Home::new(&plants, &vendors);
    let gateway = start(&home, &plants);
    let headers = [("x-api-key", plants.caller_key.as_str()), ("content-type", "application/json")];
    let basic = STANDARD.encode(format!("all:{}", plants.reader_key));
    // In a new folder the quota begins spent, and fills within its window.
    for app in [BASIC, TOKEN] {
        let target = format!("/dev/v2/project/{app}/rtm/users/a/peer_messages");
        let filled = async {
            while ask(&heap, gateway.callers, false, (Method::POST, &target), &headers, MESSAGE).await.status != 200 {}
        };
        tokio::time::timeout(super::rig::PATIENCE, filled).await.expect("the quota fills");
    }
    for n in 0..100 {
        for app in [BASIC, TOKEN] {
            let target = format!("/dev/v2/project/{app}/rtm/users/a/peer_messages");
            let reply = ask(&heap, gateway.callers, n % 2 == 0, (Method::POST, &target), &headers, MESSAGE).await;
            assert_eq!(reply.status, 200);
        }
        let mut other = Client::http1(gateway.callers).await.with("authorization", &format!("Basic {basic}"));
        assert_eq!(other.get("/nowhere").await.unwrap().status, 401);
    }
    let token = vendors.token.seen().iter().find_map(|s| s.header("x-ar-token").map(str::to_owned)).unwrap();
    let old = [
        ("api secret", plants.api_secret.clone()),
        ("its Basic form", STANDARD.encode(format!("{}:{}", plants.api_key, plants.api_secret))),
        ("app certificate", plants.certificate.clone()),
        ("minted token", token),
        ("caller's key", plants.caller_key.clone()),
        ("key nobody knows", plants.reader_key.clone()),
        ("its Basic form", basic),
    ];
    // Nothing that is in use is missed.
    let Some(memory) = Memory::of(&gateway) else { return };
    for (what, secret) in &old[..4] {
        assert!(memory.count(secret) > 0, "{what} is in use, and was not found");
    }

    let second = super::plants::random(32);
    fs::write(home.path("secret"), &plants.second_secret).unwrap();
    fs::write(home.path("certificate"), &second).unwrap();
    for app in [BASIC, TOKEN] {
        let target = format!("/dev/v2/project/{app}/rtm/users/a/peer_messages");
        let renewed = async {
            loop {
                ask(&heap, gateway.callers, false, (Method::POST, &target), &headers, MESSAGE).await;
                let sim = if app == BASIC { &vendors.basic } else { &vendors.token };
                let last = sim.seen().pop().unwrap();
                let shown = last.header("authorization").or(last.header("x-ar-token")).unwrap().to_owned();
                if !old.iter().any(|(_, secret)| shown.ends_with(secret.as_str())) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(super::rig::PATIENCE, renewed).await.expect("the new secret is shown");
    }
    // A connection's buffers hold the last heads it carried until it closes.
    vendors.basic.cut_all(false);
    vendors.token.cut_all(false);
    // An app without traffic lets go of the old secret when the changed file is noticed, which may be a moment later.
    let mut left = Vec::new();
    let wiped = async {
        loop {
            let memory = Memory::of(&gateway).unwrap();
            assert!(memory.count(&second) > 0, "the new secret was not found");
            left = old.iter().map(|(what, secret)| (*what, memory.count(secret))).collect::<Vec<_>>();
            if left.iter().all(|(_, copies)| *copies == 0) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let wiped = tokio::time::timeout(super::rig::PATIENCE, wiped).await;
    assert!(wiped.is_ok(), "copies left: {left:?}");
}

/// All that a process has written to memory.
struct Memory(Vec<u8>);

impl Memory {
    /// `None` when we may not look, which is then what the test proves.
    fn of(gateway: &Gateway) -> Option<Self> {
        let file = match File::open(of_process(gateway, "mem")) {
            Ok(file) => file,
            Err(why) => {
                assert_eq!(why.kind(), std::io::ErrorKind::PermissionDenied);
                assert!(!rustix::process::getuid().is_root());
                return None;
            }
        };
        let mut all = Vec::new();
        for line in fs::read_to_string(of_process(gateway, "maps")).unwrap().lines() {
            let mut fields = line.split_whitespace();
            let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
            if !rights.starts_with("rw") {
                continue;
            }
            let (from, to) = range.split_once('-').unwrap();
            let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
            let mut page = [0; 4096];
            for at in (from..to).step_by(page.len()) {
                if file.read_exact_at(&mut page, at).is_ok() && page.iter().any(|b| *b != 0) {
                    all.extend_from_slice(&page);
                }
            }
            all.push(0);
        }
        Some(Self(all))
    }

    fn count(&self, secret: &str) -> usize {
        memchr::memmem::find_iter(&self.0, secret.as_bytes()).count()
    }
}
