//! The commands' exit status, and what they print where.

use std::fs;
use std::process::{Command, Output};

use crate::support::child::BINARY;

fn run(args: &[&str], dir: &std::path::Path) -> (Output, String, String) {
    let output = Command::new(BINARY).args(args).current_dir(dir).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output, out, err)
}

#[test]
fn a_bad_configuration_ends_with_1_and_every_fault_and_nothing_bound() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config =
        format!("[server]\nlisten = [\"{}\"]\nmax_conections = 1\n[log]\nlevel = 3\n", taken.local_addr().unwrap());
    fs::write(dir.path().join("g.toml"), config).unwrap();
    for command in ["check", "serve"] {
        let (output, out, err) = run(&[command, "--config", "g.toml"], dir.path());
        assert_eq!(output.status.code(), Some(1));
        assert!(
            out.is_empty() && err.contains("g.toml:3: server.max_conections") && err.contains("g.toml:5: log.level"),
            "{err}"
        );
        // A port that is taken is not reached: nothing is bound before all is valid.
        assert!(!err.contains("cannot listen"), "{err}");
    }
}

#[test]
fn a_port_that_is_taken_is_said_with_its_mend() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (output, _, err) = run(&["demo", "--once", "--port", &port], dir.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(err.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{err}");
}

#[test]
fn the_shipped_configuration_checks() {
    let (output, out, err) = run(&["check", "--config", "config/gateway.toml"], env!("CARGO_MANIFEST_DIR").as_ref());
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(out.contains("[server]") && err.contains("apps"), "{out}{err}");
}

#[test]
fn wrong_usage_ends_with_2_and_every_help_shows_an_example() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(&["serve"], dir.path()).0.status.code(), Some(2));
    assert_eq!(run(&["no-such-command"], dir.path()).0.status.code(), Some(2));
    let reads = ["--url", "http://127.0.0.1:1", "--app", "a"];
    assert_eq!(run(&[&["history", "export"][..], &reads].concat(), dir.path()).0.status.code(), Some(2));
    let tail = [&["events", "tail", "--stream", "all", "--filter", "Login"][..], &reads].concat();
    assert_eq!(run(&tail, dir.path()).0.status.code(), Some(2));
    for command in [
        &["serve"][..],
        &["check"],
        &["demo"],
        &["simulate"],
        &["token", "mint"],
        &["token", "inspect"],
        &["client-key"],
        &["events", "tail"],
        &["history", "export"],
        &[],
    ] {
        let (output, out, _) = run(&[command, &["--help"]].concat(), dir.path());
        assert_eq!(output.status.code(), Some(0));
        assert!(out.contains("Example"), "{command:?}: {out}");
    }
}

#[test]
fn a_minted_token_is_explained_by_inspect() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("certificate"), "5CFd2fd1755d40ecb72977518be15d3b\n").unwrap();
    let app = "970CA35de60c44645bbae8a215061b33";
    let mint = ["token", "mint", "--app-id", app, "--certificate-file", "certificate", "--uid", "u1"];
    let (output, token, err) = run(&mint, dir.path());
    assert_eq!(output.status.code(), Some(0), "{err}");
    let inspect = ["token", "inspect", token.trim(), "--uid", "u1", "--certificate-file", "certificate"];
    let (output, out, err) = run(&inspect, dir.path());
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(out.contains(app), "{out}");
}
