//! The secrets of the ways in and of the way out: TLS keys, tokens, the token for the issuer, the proxy's password.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};
use rtm_gateway::kernel::clock::Clock;
use rustix::process::Signal;
use serde_json::json;

use super::plants::{Plants, random};
use super::rig::{Gateway, Heap, Home, Vendors};
use super::search::{Plant, Search};
use crate::support::issuer::{Issuer, Says, Signer, published};

/// A key, and its PEM without the first and the last line, which are no secret.
struct TlsKey {
    pair: KeyPair,
    secret: Vec<u8>,
}

impl TlsKey {
    fn new() -> Self {
        let pair = KeyPair::generate().unwrap();
        // PKCS #8 of a P-256 key (RFC 5208, RFC 5915): the private number is at 36, the public point behind it.
        let secret = pair.serialize_der()[36..68].to_vec();
        Self { pair, secret }
    }

    fn write(&self, certificate: &Path, key: &Path) {
        let made = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&self.pair).unwrap();
        fs::write(key, self.pair.serialize_pem()).unwrap();
        fs::write(certificate, made.pem()).unwrap();
    }
}

/// A proxy that lets nobody through and repeats what it was shown, in every place of its answer; and what it was shown.
fn refusing_proxy() -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                head.push(byte[0]);
            }
            if !head.ends_with(b"\r\n\r\n") {
                // Whoever wanted it has left meanwhile: nothing was asked.
                continue;
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let shown = head.lines().find_map(|line| line.strip_prefix("Proxy-Authorization: "));
            let shown = shown.or_else(|| head.lines().find_map(|line| line.strip_prefix("proxy-authorization: ")));
            let shown = shown.expect("the proxy was shown its credential");
            let answer =
                format!("HTTP/1.1 407 No {shown}\r\nX-Echo: {shown}\r\nContent-Length: {}\r\n\r\n{shown}", shown.len());
            let _ = stream.write_all(answer.as_bytes());
            let _ = tell.send(shown.to_owned());
        }
    });
    (address, told)
}

fn curl(heap: &Heap, from: &str, args: &[&str]) -> String {
    let Output { status, stdout, .. } =
        Command::new("curl").args(["-ski", "--max-time", "20"]).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned();
    heap.add(format!("{from} ({status})"), stdout);
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_tls_key_a_token_or_the_proxy_s_password_comes_out() {
    let (plants, heap) = (Plants::new(), Heap::default());
    let vendors = Vendors::start(&plants).await;
    let home = Home::new(&plants, &vendors);
    let (first, second, stranger) = (TlsKey::new(), TlsKey::new(), Signer::p256("k1"));
    let signer = Signer::p256("k1");
    let issuer = Issuer::start(Says::Keys(published(&[&signer]))).await;
    let own_token = random(40);
    issuer.demands(&own_token);
    first.write(&home.path("server.pem"), &home.path("server.key"));
    for (name, text) in
        [("own-token", &own_token), ("proxy-password", &plants.proxy_password), ("issuer-ca.pem", &issuer.ca)]
    {
        fs::write(home.path(name), text).unwrap();
    }
    let at = |name: &str| home.path(name).display().to_string();
    let text = home.text(&plants, &vendors);
    let text = text.replacen(
        "[admin]",
        &format!("[server.tls]\ncert = \"{}\"\nkey = \"{}\"\n[admin]", at("server.pem"), at("server.key")),
        1,
    );
    let (proxy, shown_to_proxy) = refusing_proxy();
    let text = text.replacen(
        "[upstream]\n",
        &format!(
            "[upstream]\nproxy = \"http://{proxy}\"\nproxy_user = \"gateway\"\nproxy_password = {{ file = \"{}\" }}\n",
            at("proxy-password")
        ),
        1,
    );
    let subject = "system:serviceaccount:prod:billing";
    let text = format!(
        "{text}\n[identity.jwt]\nissuer = \"https://issuer\"\naudience = \"rtm-gateway\"\njwks_url = \"https://{}/jwks\"\n\
         jwks_ca_file = \"{}\"\njwks_token_file = \"{}\"\njwks_allow_private_targets = true\n[[clients]]\nname = \"billing\"\n\
         jwt_subject = \"{subject}\"\nallow = [{{ app = \"*\", actions = [\"events\", \"messages\"] }}]\n",
        issuer.addr,
        at("issuer-ca.pem"),
        at("own-token")
    );
    fs::write(home.config(), &text).unwrap();
    let now = Clock::system().wall_ms().seconds();
    let claims =
        json!({ "iss": "https://issuer", "sub": subject, "aud": "rtm-gateway", "exp": now + 600, "jti": random(40) });
    let (good, forged) = (signer.honest("ES256", &claims), stranger.honest("ES256", &claims));

    let mut gateway = Gateway::start(&home, &plants);
    let url = |rest: &str| format!("https://{}/dev/v2/project/basic-app/rtm/{rest}", gateway.callers);
    let (events, message) = (url("vendor/user_events"), url("users/a/peer_messages"));
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    for version in ["--http1.1", "--http2"] {
        for (token, status) in [(&good, "200"), (&forged, "401"), (&good[..good.len() - 9].to_owned(), "401")] {
            let answer = curl(&heap, "a token", &[version, "-H", &bearer(token), &events]);
            assert!(answer.lines().next().unwrap().contains(status), "{version}: {answer}");
        }
        let json = ["-H", "Content-Type: application/json", "-d", "{\"destination\":\"b\",\"payload\":\"p\"}"];
        let shown = bearer(&good);
        let message = [&[version, "-H", &shown], &json[..], &[&message]].concat();
        // A new gateway's buckets begin spent: nobody knows what was sent before it. So the first are 429 or 504.
        let mut refused = std::iter::repeat_with(|| curl(&heap, "the proxy refuses", &message)).take(100);
        assert!(refused.any(|answer| answer.lines().next().unwrap().contains("503")), "the proxy was asked");
    }
    curl(&heap, "a token in the query", &[&format!("{events}?access_token={good}")]);
    let plain = events.replace("https:", "http:");
    curl(&heap, "plain HTTP to the TLS port", &["-H", &bearer(&good), &plain]);
    let mut tcp = TcpStream::connect(gateway.callers).unwrap();
    tcp.write_all(format!("\x16\x03\x01{}", bearer(&good)).as_bytes()).unwrap();
    drop(tcp);

    // Replaced by a key of another certificate, then by both; and keys where others belong.
    let refusals = |text: &str| text.matches("configuration refused").count();
    fs::write(home.path("server.key"), second.pair.serialize_pem()).unwrap();
    gateway.logged("configuration refused; the one in force stays");
    second.write(&home.path("server.pem"), &home.path("server.key"));
    gateway.logged("configuration applied");
    for (key, value) in [
        ("cert", at("server.key")),
        ("client_ca", at("server.key")),
        ("client_crl", at("server.key")),
        ("cert", second.pair.serialize_pem().replace('\n', "\\n")),
    ] {
        let before = refusals(&String::from_utf8_lossy(&gateway.written()));
        let line = format!("[server.tls]\n{key} = \"{value}\"\n#");
        fs::write(home.config(), text.replacen("[server.tls]\n", &line, 1)).unwrap();
        gateway.signal(Signal::HUP);
        let told = async {
            while refusals(&String::from_utf8_lossy(&gateway.written())) == before {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(super::rig::PATIENCE, told).await.unwrap();
        heap.reply("config", &gateway.admin(&plants.admin_key, "/admin/v1/config").await);
    }
    for path in ["/metrics", "/readyz", "/admin/v1/identity", "/admin/v1/regions", "/admin/v1/apps", "/admin/v1/backup"]
    {
        heap.reply(path, &gateway.admin(&plants.admin_key, path).await);
    }
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0));
    heap.add("stdout and stderr", gateway.written());
    assert_eq!(issuer.asked().last(), Some(&Some(format!("Bearer {own_token}"))), "the issuer was shown the token");

    let plant = |name: &str, secret: &[u8]| Plant { name: name.to_owned(), secret: secret.to_vec() };
    // A token's head says only how it is signed. Its claims and its signature are what opens.
    let secret_of = |token: &str| token.split_once('.').unwrap().1.to_owned();
    let proxy_pair = STANDARD.encode(format!("gateway:{}", plants.proxy_password));
    assert_eq!(shown_to_proxy.recv(), Ok(format!("Basic {proxy_pair}")));
    let search = Search::new(&[
        plant("TLS key", &first.secret),
        plant("second TLS key", &second.secret),
        plant("token", secret_of(&good).as_bytes()),
        plant("forged token", secret_of(&forged).as_bytes()),
        plant("token for the issuer", own_token.as_bytes()),
        plant("proxy's password", plants.proxy_password.as_bytes()),
        plant("what the proxy is shown", proxy_pair.as_bytes()),
        plant("api secret", plants.api_secret.as_bytes()),
    ]);
    assert!(!search.find(&fs::read(home.path("server.key")).unwrap()).is_empty(), "the search knows a key's PEM");
    let leaks: Vec<_> = heap
        .texts()
        .into_iter()
        .flat_map(|(from, text)| search.find(&text).into_iter().map(move |leak| (from.clone(), leak)))
        .take(10)
        .collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}
