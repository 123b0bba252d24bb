//! What the commands print when they are given secrets where they do not belong.

use std::fs;
use std::process::{Command, Stdio};

use super::plants::Plants;
use super::rig::{Heap, Home, TOKEN};
use crate::support::child::BINARY;

/// Configurations with a secret written in the wrong place: all are refused.
pub(crate) fn wrong_configurations(plants: &Plants, right: &str) -> Vec<String> {
    let (secret, key) = (&plants.api_secret, &plants.caller_key);
    let source = right.lines().find(|line| line.starts_with("api_secret")).unwrap();
    let mut wrong: Vec<String> = [
        format!("api_secret = \"{secret}\""),
        format!("api_secret = '{secret}"),
        format!("api_secret = {secret}"),
        format!("api_secret = {{ env = \"{secret}\" }}"),
        format!("api_secret = {{ env = \"{}\" }}", plants.certificate),
        format!("api_secret = {{ file = \"{secret}\" }}"),
        format!("api_secret = {{ value = \"{secret}\" }}"),
        format!("api_secret = {{ \"{secret}\" = \"file\" }}"),
        format!("api_secret = {{ {} = \"file\" }}", plants.certificate),
        format!("api_secret = [\"{secret}\"]"),
        format!("{source}\nkind = \"{secret}\""),
        format!("{source}\n{}", plants.certificate),
        format!("{source}\n\"{secret}\" = 1"),
        format!("{source}\n{} = 1", plants.certificate),
        format!("{source}\n{0} = 1\n{0} = 1", plants.certificate),
    ]
    .into_iter()
    .map(|line| right.replacen(source, &line, 1))
    .collect();
    let admin = right.lines().find(|line| line.starts_with("api_key_sha256")).unwrap();
    wrong.push(right.replacen(admin, &format!("api_key_sha256 = \"{}\"", plants.admin_key), 1));
    wrong.push(right.replacen("level = \"trace\"", &format!("level = \"{key}\""), 1));
    wrong.push(right.replacen("http://", &format!("http://{}:{secret}@", plants.api_key), 1));
    wrong.push(right.replacen("listen = [", &format!("listen = [\"{key}\", "), 1));
    wrong.push(right.replacen(
        "kind = \"token\"",
        &format!("kind = \"token\"\nuid = \"{}\\n\"", plants.certificate),
        1,
    ));
    let upstream = |keys: String| right.replacen("[upstream]\n", &format!("[upstream]\n{keys}\n"), 1);
    wrong.push(upstream(format!("proxy = \"http://u:{}@proxy:3128\"", plants.proxy_password)));
    wrong.push(upstream(format!(
        "proxy = \"http://proxy:3128\"\nproxy_user = \"u\"\nproxy_password = \"{}\"",
        plants.proxy_password
    )));
    wrong.push(format!("{right}\n[identity.jwt]\nissuer = \"i\"\naudience = \"a\"\njwks_file = \"{}\"\n", plants.jwt));
    wrong.push(format!("{right}\nallow = [{{ app = \"*\", actions = [\"{key}\"] }}]\n"));
    wrong
}

/// Runs every command with secrets in wrong places, and `check` on every wrong configuration.
pub(crate) fn all(heap: &Heap, plants: &Plants, home: &Home, token: &str) {
    let right = fs::read_to_string(home.config()).unwrap();
    let wrong = home.path("wrong.toml");
    let wrong = wrong.to_str().unwrap();
    for text in wrong_configurations(plants, &right) {
        fs::write(wrong, text).unwrap();
        for command in ["check", "serve"] {
            assert_eq!(run(heap, plants, &[command, "--config", wrong], true), 1);
        }
    }
    // The secret that was lost is there again.
    fs::write(home.path("lost"), &plants.lost_secret).unwrap();
    assert_eq!(run(heap, plants, &["check", "--config", home.config().to_str().unwrap()], true), 0);

    let certificate = home.path("certificate");
    let certificate = certificate.to_str().unwrap();
    let cut = &token[..token.len() - 3];
    let (secret, key) = (plants.certificate.as_str(), plants.api_secret.as_str());
    for (arguments, status) in [
        (&["token", "inspect", token, "--uid", "gateway", "--certificate-file", certificate][..], 0),
        (&["token", "inspect", token, "--uid", "gateway", "--certificate-file", certificate, "--json"], 0),
        (&["token", "inspect", token, "--uid", "other", "--certificate-file", certificate], 1),
        (&["token", "inspect", token, "--uid", "gateway", "--certificate-file", secret], 1),
        (&["token", "inspect", cut], 1),
        (&["token", "inspect", secret], 1),
        (&["token", "inspect", token, secret], 2),
        (&["token", "mint", "--app-id", TOKEN, "--uid", "u", "--certificate-file", secret], 1),
        (&["token", "mint", "--app-id", key, "--uid", "u", "--certificate-file", certificate], 2),
        (&["token", "mint", "--app-id", TOKEN, "--uid", "u", "--certificate-file", certificate, "--ts", secret], 2),
        (&["serve", "--config", wrong, "--log-format", secret], 2),
        (&["serve", secret], 2),
        (&[secret], 2),
        (&["check", "--config", wrong, key], 2),
        (&["client-key", key], 2),
    ] {
        assert_eq!(run(heap, plants, arguments, true), status, "{arguments:?}");
    }
    // What it prints on stdout is what it is for.
    run(heap, plants, &["token", "mint", "--app-id", TOKEN, "--uid", "u", "--certificate-file", certificate], false);
}

fn run(heap: &Heap, plants: &Plants, arguments: &[&str], stdout: bool) -> i32 {
    let mut command = Command::new(BINARY);
    command.args(arguments).env("PLANTED_API_KEY", &plants.api_key).env("RUST_BACKTRACE", "full").stdin(Stdio::null());
    let output = command.output().unwrap();
    let what = format!("{} {}", arguments[0], arguments.get(1).unwrap_or(&""));
    if stdout {
        heap.add(format!("stdout of {what}"), output.stdout);
    }
    heap.add(format!("stderr of {what}"), output.stderr);
    output.status.code().unwrap()
}
