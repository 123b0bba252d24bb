//! A panic says where it was and nothing else, before there is a log and after.

use std::process::Command;

use rtm_gateway::app::telemetry;
use rtm_gateway::config::LogFormat;
use rtm_gateway::kernel::task::{Kind, Lane, Tasks};

use super::search::{Plant, Search};

const PLANTED: &str = "PLANTED_IN_A_PANIC";

#[test]
fn a_panic_says_its_place_and_never_its_message() {
    if let Ok(secret) = std::env::var(PLANTED) {
        return panic_everywhere(&secret);
    }
    let secret = super::plants::random(32);
    let search = Search::new(&[Plant { name: "panic".into(), secret: secret.clone().into_bytes() }]);
    let name = "leaks::panics::a_panic_says_its_place_and_never_its_message";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(PLANTED, &secret).env("RUST_BACKTRACE", "full");
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{said}");
    let before = said.matches("rtm-gateway: panic at tests/it/leaks/panics.rs:").count();
    let after = said.lines().filter(|l| l.contains(r#""message":"panic""#) && l.contains("panics.rs:")).count();
    assert_eq!((before, after), (1, 3), "{said}");
    assert!(said.contains(r#""message":"task panicked""#), "{said}");
    let leaks = search.find(&text);
    assert!(leaks.is_empty(), "{leaks:?}");
}

/// In a process of its own: hooks and logs are the process's.
fn panic_everywhere(secret: &str) {
    let panicking = |secret: &str| {
        let secret = secret.to_owned();
        assert!(std::thread::spawn(move || panic!("the secret is {secret}")).join().is_err());
    };
    telemetry::hush_panics();
    panicking(secret);
    let _log = telemetry::init("trace", LogFormat::Json).unwrap();
    panicking(secret);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let secret = secret.to_owned();
    runtime.block_on(async move {
        let tasks = Tasks::new();
        let planted = secret.clone();
        tasks.spawn(Kind::Poller, async move { panic!("{planted}") });
        tasks.failed().cancelled().await;
        assert!(tasks.blocking(&Lane::new("panics", 1), move || panic!("{secret}")).await.is_err());
    });
}
