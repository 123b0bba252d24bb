//! Every command of the README runs, as a reader would run it.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::child::{BINARY, Running};

#[test]
fn the_readme_s_commands_are_those_of_the_gate_and_of_this_test() {
    let blocks = blocks("sh");
    let known = [
        "cargo run --release -- demo",
        "cargo test --locked",
        "cargo bench --profile release --bench soak -- --for 2m",
        "curl ",
        "rtm-gateway ",
    ];
    for line in blocks.iter().flat_map(|b| b.lines()).filter(|l| !l.starts_with('#') && !l.is_empty()) {
        assert!(known.iter().any(|k| line.starts_with(k)), "nothing runs this command: {line}");
    }
    let gate = fs::read_to_string(root(".ci/run")).unwrap();
    assert!(gate.lines().any(|l| l == "cargo test --locked"), "the gate runs another test command than the README");
    // What `just gate` does, the gate does.
    let recipes = fs::read_to_string(root("justfile")).unwrap();
    let of_just = recipes.lines().find_map(|line| line.strip_prefix("gate: ")).unwrap().replace(" test-all ", " ");
    let loops =
        gate.lines().filter_map(|line| line.strip_prefix("for recipe in ")?.strip_suffix("; do run \"$recipe\"; done"));
    assert_eq!(loops.collect::<Vec<_>>().join(" "), of_just);
}

#[test]
fn each_file_that_the_documents_name_is_there() {
    let folders = ["src/", "tests/", "benches/", "fuzz/", "config/", "certs/", "deploy/", "docs/"];
    let dev = fs::read_dir(root("docs/dev")).unwrap();
    let pages = fs::read_dir(root(".")).unwrap().chain(fs::read_dir(root("docs")).unwrap()).chain(dev);
    let mut named = 0;
    for page in pages.map(|page| page.unwrap().path()).filter(|page| page.extension().is_some_and(|e| e == "md")) {
        let text = fs::read_to_string(&page).unwrap();
        let is_place =
            |word: &&str| folders.iter().any(|folder| word.starts_with(folder)) && !word.contains([' ', '*', '{']);
        // `TARGET` stands for a name of the reader's.
        for word in text.split('`').skip(1).step_by(2).filter(is_place).filter(|word| !word.contains("TARGET")) {
            named += 1;
            assert!(fs::exists(root(word)).unwrap(), "{}: {word}", page.display());
        }
    }
    assert!(named > 50, "{named}");
}

#[test]
fn the_demo_answers_each_curl_line_of_the_readme() {
    let demo = Demo::start();
    let curls: Vec<String> = blocks("sh")
        .iter()
        .flat_map(|b| b.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|l| l.starts_with("curl "))
        .collect();
    let expected = [
        "\"events\":[{",
        "\"next\"",
        "\"messages\":[{",
        "\"count\":",
        "\ndata: {",
        "{\"end\":true,\"messages\":",
        "\"subscriptions\"",
    ];
    assert_eq!(curls.len(), expected.len());
    for (line, expected) in curls.iter().zip(expected) {
        let here = line.replace("127.0.0.1:8080", &demo.gateway).replace("127.0.0.1:9090", &demo.admin);
        let output = Command::new("sh").args(["-c", &here]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains(expected), "{here}\n{text}");
    }
}

#[test]
fn the_demo_answers_each_curl_line_of_the_page_on_events() {
    let demo = Demo::start();
    let page = fs::read_to_string(root("docs/events.md")).unwrap();
    let curls: Vec<&str> = page.lines().filter(|line| line.starts_with("curl ")).collect();
    let expected = ["\"events\":[{", "data: {", "\"stream\":\""];
    assert!(curls.len() >= expected.len());
    for (line, expected) in curls.iter().zip(expected) {
        let here = line.replace("127.0.0.1:8080", &demo.gateway);
        // A stream ends when curl's time is over, which is no success to it.
        let output = Command::new("sh").args(["-c", &here]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(expected), "{here}\n{text}");
    }
}

#[test]
fn the_demo_serves_each_command_of_the_readme_that_asks_a_gateway() {
    let demo = Demo::start();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("key"), "demo-crm\n").unwrap();
    let readme = blocks("sh");
    let lines: Vec<_> = readme.iter().flat_map(|b| b.lines()).filter(|l| l.contains(" --url ")).collect();
    assert_eq!(lines.len(), 2);
    for line in lines {
        let line = line.replace("127.0.0.1:8080", &demo.gateway);
        let args = line.split_whitespace().skip(1);
        // A tail goes on until it is ended.
        let ends = line.contains(" tail ").then_some(["--limit", "1"]);
        let output =
            Command::new(BINARY).args(args).args(ends.iter().flatten()).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
        if ends.is_some() {
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.lines().count() == 1 && text.contains("_events "), "{line}\n{text}");
        } else {
            assert_eq!(fs::read_to_string(dir.path().join("lobby.ndjson")).unwrap().lines().count(), 250, "{line}");
        }
    }
}

#[test]
fn the_readme_s_configuration_is_valid_and_its_commands_take_it() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("rtm-api-secret");
    fs::write(&secret, "s3cret\n").unwrap();
    let config = blocks("toml").remove(0).replace("/run/secrets/rtm-api-secret", secret.to_str().unwrap());
    fs::write(dir.path().join("gateway.toml"), config.replace("127.0.0.1:8080", "127.0.0.1:0")).unwrap();
    for line in blocks("sh").iter().flat_map(|b| b.lines()).filter(|l| l.starts_with("rtm-gateway ")) {
        if line.contains(" serve ") || line.contains(" --url ") {
            continue; // run by the tests of the binary, and against the demo below
        }
        let args = line.split_whitespace().skip(1);
        let output =
            Command::new(BINARY).args(args).env("RTM_API_KEY", "key").current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(!String::from_utf8_lossy(&output.stdout).contains("s3cret"));
    }
}

fn root(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// The fenced blocks of one language.
fn blocks(language: &str) -> Vec<String> {
    let readme = fs::read_to_string(root("README.md")).unwrap();
    let fence = format!("```{language}\n");
    readme.split(&fence).skip(1).filter_map(|rest| rest.split("```").next().map(str::to_owned)).collect()
}

struct Demo {
    /// Its stdout is read on: a demo whose reader has left ends, and it may still be writing the rest of its lines.
    _running: Running,
    gateway: String,
    admin: String,
}

impl Demo {
    /// Starts the demo on free ports and waits until it says where it is.
    fn start() -> Self {
        let mut command = Command::new(BINARY);
        command.args(["demo", "--port", "0", "--admin-port", "0"]).stdout(Stdio::piped());
        let running = Running::spawn(&mut command);
        running.line(|line| line.starts_with(b"Try it").then_some(()));
        let said = running.written();
        let said = String::from_utf8_lossy(&said);
        let named = |what: &str| said.lines().find_map(|line| line.strip_prefix(what)).map(str::to_owned);
        let (gateway, admin) = (named("gateway  http://"), named("operator http://"));
        let (gateway, admin) = (gateway.expect("the demo names its port"), admin.expect("and the operator's"));
        Self { _running: running, gateway, admin }
    }
}
