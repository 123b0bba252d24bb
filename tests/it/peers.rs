//! That the measure beside other proxies would start: it is not run by tests, and would rot unseen.

use std::process::Command;

#[test]
fn the_measure_beside_other_proxies_is_sound() {
    let output = Command::new("python3").args(["benches/peers/run", "--self-check"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
