//! What prints itself inside a process: `Debug` of all that holds a secret or knows where one is.

use std::path::Path;

use hyper::HeaderMap;
use rtm_gateway::config::load::from_text;
use rtm_gateway::config::show;
use rtm_gateway::http::headers;
use rtm_gateway::kernel::secret::redact::Redactor;
use rtm_gateway::kernel::secret::{Secret, SecretSource};

use super::plants::{Plants, random};
use super::rig::{Home, Vendors};
use super::search::{Plant, Search};

#[tokio::test]
async fn nothing_that_holds_a_secret_prints_it() {
    let plants = Plants::new();
    let vendors = Vendors::start(&plants).await;
    let home = Home::new(&plants, &vendors);
    // The key comes by a file here: tests share one environment.
    let key = home.path("secret");
    let text = home.text(&plants, &vendors);
    let text = text.replace("{ env = \"PLANTED_API_KEY\" }", &format!("{{ file = \"{}\" }}", key.display()));
    let loaded = from_text(&text, Path::new("gateway.toml")).unwrap();
    plants.minted(&format!("006x{}", random(40)), "x");
    let search = Search::new(&plants.list());

    let secret = SecretSource::File(key).read().unwrap();
    let mut shown = HeaderMap::new();
    shown.insert("authorization", format!("Bearer {}", plants.caller_key).parse().unwrap());
    shown.insert("x-api-key", plants.caller_key.parse().unwrap());
    shown.insert("cookie", plants.cookie.parse().unwrap());
    shown.insert("proxy-authorization", plants.proxy_password.parse().unwrap());
    assert!(!search.find(format!("{shown:?}").as_bytes()).is_empty(), "a head prints itself until it is marked");
    headers::mark_credentials(&mut shown);
    for (what, printed) in [
        ("secret", format!("{secret:?} {:?}", Secret::new(plants.certificate.clone()))),
        ("redactor", format!("{:?}", Redactor::new([plants.certificate.as_bytes()]))),
        ("configuration", format!("{loaded:#?}")),
        ("shown configuration", format!("{}{}", show::toml(&loaded.config), show::json(&loaded.config))),
        ("caller's head", format!("{shown:?}")),
    ] {
        assert!(!printed.is_empty());
        let leaks = search.find(printed.as_bytes());
        assert!(leaks.is_empty(), "{what}: {leaks:?}");
    }
    // Hashes of keys are as good as keys to who guesses them.
    let hash = home.text(&plants, &vendors);
    let hash = hash.lines().find_map(|l| l.strip_prefix("api_key_sha256 = ")).unwrap().trim_matches('"').to_owned();
    let hashes = Search::new(&[Plant { name: "hash".into(), secret: hash.into_bytes() }]);
    assert!(hashes.find(show::toml(&loaded.config).as_bytes()).is_empty());
}
