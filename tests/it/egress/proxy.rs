//! The way out through an HTTP proxy.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rtm_gateway::config::{Config, Proxy, ProxyAuthorization};
use rtm_gateway::kernel::secret::SecretSource;
use rtm_gateway::upstream::egress::Failure;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::rig::{Rig, SECRET, count, message, vendor};
use super::tls;

/// base64("gateway:the-proxys-pass")
const SHOWN: &str = "Basic Z2F0ZXdheTp0aGUtcHJveHlzLXBhc3M=";
const PASSWORD: &str = "the-proxys-pass";

/// A proxy on loopback: keeps the heads it was sent, and tunnels unless it is to answer something else.
struct TestProxy {
    address: std::net::SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl TestProxy {
    async fn start(answer: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let (mut tasks, kept) = (JoinSet::new(), heads.clone());
        tasks.spawn(async move {
            let mut tunnels = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                tunnels.spawn(tunnel(tcp, kept.clone(), answer));
            }
        });
        Self { address, heads, _tasks: tasks }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn tunnel(tcp: TcpStream, heads: Arc<Mutex<Vec<String>>>, answer: Option<&'static str>) {
    let mut tcp = BufReader::new(tcp);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if tcp.read_line(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    heads.lock().unwrap().push(head);
    if let Some(answer) = answer {
        let _ = tcp.write_all(answer.as_bytes()).await;
        return;
    }
    let mut vendor = TcpStream::connect(target).await.unwrap();
    tcp.write_all(b"HTTP/1.1 200 Connection established\r\nvia: 1.1 test\r\n\r\n").await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut tcp, &mut vendor).await;
}

fn through(proxy: &TestProxy, folder: &tempfile::TempDir, no_proxy: &[&str], config: &mut Config) {
    let file = folder.path().join("password");
    std::fs::write(&file, PASSWORD).unwrap();
    config.upstream.connect_timeout = Duration::from_secs(2);
    config.upstream.proxy = Some(Proxy {
        url: format!("http://{}", proxy.address).parse().unwrap(),
        authorization: Some(ProxyAuthorization { user: "gateway".into(), password: SecretSource::File(file) }),
        no_proxy: no_proxy.iter().map(ToString::to_string).collect(),
    });
}

#[tokio::test]
async fn the_vendor_is_reached_through_the_proxy_which_sees_no_credential_but_its_own() {
    let (sim, proxy, folder) = (vendor().await, TestProxy::start(None).await, tempfile::tempdir().unwrap());
    let rig = Rig::with(&sim.base_url(), |config| through(&proxy, &folder, &["localhost"], config));
    for order in [count(), message(), count()] {
        assert_eq!(rig.egress.send(order).await.unwrap().status.as_u16(), 200);
    }
    let host = sim.base_url().replace("http://", "");
    let version = env!("CARGO_PKG_VERSION");
    let head = format!(
        "CONNECT {host} HTTP/1.1\r\nhost: {host}\r\nuser-agent: rtm-gateway/{version}\r\n\
         proxy-authorization: {SHOWN}\r\n\r\n"
    );
    // Two kinds of request: a connection for each.
    assert_eq!(proxy.heads(), [head.clone(), head]);
    assert_eq!(sim.violations(), []);
    sim.stop().await;
}

/// The certificate is for 127.0.0.1: the proxy leads elsewhere than it is asked to.
#[tokio::test]
async fn the_vendors_name_is_verified_through_the_tunnel() {
    let (sim, ca) = tls::vendor(&["h2", "http/1.1"]).await;
    let (proxy, folder) = (TestProxy::start(None).await, tempfile::tempdir().unwrap());
    let rig = tls::rig_with(&sim.base_url(), Some(&ca), |config| through(&proxy, &folder, &[], config));
    assert_eq!(rig.egress.send(count()).await.unwrap().status.as_u16(), 200);
    let named = format!("https://localhost:{}", sim.addr().port());
    let rig = tls::rig_with(&named, Some(&ca), |config| through(&proxy, &folder, &[], config));
    let failed = rig.egress.send(message()).await.unwrap_err();
    assert!(matches!(&failed.why, Failure::Unreachable(why) if why.to_string().contains("certificate")), "{failed:?}");
    assert!(proxy.heads().iter().all(|head| head.starts_with("CONNECT ")));
    assert!(proxy.heads().len() >= 2);
    assert_eq!(sim.seen().len(), 1);
    sim.stop().await;
}

#[tokio::test]
async fn hosts_of_no_proxy_are_reached_without_it() {
    let (sim, proxy, folder) = (vendor().await, TestProxy::start(None).await, tempfile::tempdir().unwrap());
    let rig = Rig::with(&sim.base_url(), |config| through(&proxy, &folder, &["127.0.0.0/8"], config));
    rig.egress.send(count()).await.unwrap();
    assert_eq!(proxy.heads(), Vec::<String>::new());
    sim.stop().await;
}

#[tokio::test]
async fn a_proxy_that_gives_no_tunnel_is_named_and_nothing_was_sent() {
    let sim = vendor().await;
    let huge: &'static str = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(100_000)).leak();
    for (answer, says) in [
        ("HTTP/1.1 407 No\r\nproxy-authenticate: Basic\r\ncontent-length: 0\r\n\r\n", "proxy_password (407)"),
        ("HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno", "does not allow the vendor's host (403"),
        ("HTTP/1.1 302 Found\r\nlocation: http://x/\r\ncontent-length: 0\r\n\r\n", "does not allow"),
        ("HTTP/1.1 502 Bad\r\n\r\n<html>the-proxys-pass", "cannot reach the vendor (502"),
        ("SSH-2.0-OpenSSH_9.9\r\n", "speaks no HTTP"),
        ("", "speaks no HTTP"),
        ("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "spoke before it was spoken to"),
        (huge, "speaks no HTTP"),
    ] {
        let (proxy, folder) = (TestProxy::start(Some(answer)).await, tempfile::tempdir().unwrap());
        let rig = Rig::with(&sim.base_url(), |config| through(&proxy, &folder, &[], config));
        let failed = rig.egress.send(message()).await.unwrap_err();
        assert!(matches!(&failed.why, Failure::Unreachable(why) if why.to_string().contains(says)), "{failed:?}");
        assert_eq!((failed.costs.exchanges, rig.free()), (0, 20));
        let told = format!("{failed:?}{}", rig.metrics.text());
        assert!(!told.contains(PASSWORD) && !told.contains(SHOWN) && !told.contains(SECRET), "{told}");
    }
    assert_eq!(sim.stats().connections, 0);
    sim.stop().await;
}
