//! Addresses that are kept in a file, and what must not be repeated.

use std::path::Path;

use crate::config::load::from_text;
use crate::config::show;

#[test]
fn an_address_may_be_kept_in_a_file_and_its_path_is_shown_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(at("s"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let text = |url: &str| {
        format!(
            "[[apps]]\nid = \"a\"\ncredential = {{ kind = \"token\", app_certificate = {{ file = {s:?} }}, uid = \"u\" }}\n\
             [[apps.webhooks]]\nname = \"w\"\nurl = {url}\nsecrets = [{{ file = {s:?} }}]\n",
            s = at("s")
        )
    };
    let kept = format!("{{ file = {:?} }}", at("url"));
    for (url, in_file) in [("\"https://h.svc/hunter2?k=hunter3\"", ""), (&kept, "https://h.svc/hunter2?k=hunter3\n")] {
        std::fs::write(at("url"), in_file).unwrap();
        let loaded = from_text(&text(url), Path::new("x")).unwrap();
        let told = format!("{}{:?}", show::toml(&loaded.config), loaded.config);
        assert!(!told.contains("hunter"), "{told}");
    }
    for bad in ["ftp://h/hunter2", "hunter2", "https://u:hunter2@h/", "http://127.0.0.1/hunter2"] {
        std::fs::write(at("url"), bad).unwrap();
        let faults = from_text(&text(&kept), Path::new("x")).unwrap_err().to_string();
        assert!(faults.contains("apps[0].webhooks[0].url") && !faults.contains("hunter2"), "{faults}");
    }
}

#[test]
fn a_secret_in_the_place_of_a_key_or_of_a_file_s_name_is_not_repeated() {
    for text in [
        "hunter = 1\n",
        "[hunter]\n",
        "[server]\nhunter = 1\n",
        "[identity.jwt]\nissuer = \"i\"\naudience = \"a\"\njwks_url = \"https://i/k\"\njwks_token_file = \"hunter\"\n",
    ] {
        let faults = from_text(text, Path::new("x")).unwrap_err().to_string();
        assert!(!faults.contains("hunter"), "{faults}");
    }
}
