//! What TLS with callers costs: CPU time a request against plain TCP in one run, and CPU time a handshake.
//!
//! `cargo bench --bench tls`. Requests are those of the bench `proxy`, in windows that alternate between a gateway that
//! speaks TLS and one that does not. Handshakes are made as fast as 32 callers can, each on a connection of its own that
//! says nothing more. CPU time is of the gateway's process alone; the vendor and the callers run in this one. Keys are
//! ECDSA P-256; TLS 1.3.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark")]

mod stage;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt as _;
use rtm_gateway::simulator::Limit;
use rustls::client::Resumption;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use stage::{APP, Line};
use test_support::certificates::{Authority, Made, Says};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const ROUNDS: usize = 10;
const WINDOW: Duration = Duration::from_secs(1);
const LIMIT: usize = 1_000_000;
const CONNECTIONS: usize = 32;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let vendor = runtime.block_on(stage::vendor(Limit::per_second(LIMIT)));
    let (authority, now) = (Authority::new("bench"), SystemTime::now());
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let server = authority.issue(&Says::dns(now, "127.0.0.1"));
    let write = |name: &str, text: String| {
        let path = dirs[1].path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let [cert, key] = [write("server.pem", server.pem()), write("server.key", server.key_pem())];
    let ca = write("ca.pem", authority.pem());
    let tls = format!("[server.tls]\ncert = \"{cert}\"\nkey = \"{key}\"\nclient_ca = \"{ca}\"\n");
    let app = format!("{}[apps.events]\nstreams = []\n", stage::quota(LIMIT));
    let [plain, secured] = [(&dirs[0], ""), (&dirs[1], tls.as_str())].map(|(dir, tls)| {
        let config = dir.path().join("gateway.toml");
        let text = stage::configuration(dir.path(), vendor.addr(), &app, 1);
        std::fs::write(&config, format!("{text}{tls}")).unwrap();
        stage::Gateway::start(&config)
    });
    let caller = authority.issue(&Says::uri(now, "spiffe://corp/bench"));
    let anonymous = config(&authority, None);
    let known = config(&authority, Some(&caller));

    let path = format!("/dev/v2/project/{APP}/rtm/users/u1/peer_messages");
    let body = r#"{"destination":"u2","enable_historical_messaging":false,"payload":"hello"}"#;
    let request = stage::request("POST", &path, &format!("x-api-key: {}", stage::client_key(0)), body);
    let (mut by_plain, mut by_tls) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        for (gateway, caller, spent) in [(&plain, None, &mut by_plain), (&secured, Some(&anonymous), &mut by_tls)] {
            let before = gateway.cpu();
            let asked = runtime.block_on(requests(gateway.address, caller, &request));
            // The first round warms up.
            if round > 0 {
                spent.push((gateway.cpu() - before) / asked);
            }
        }
    }
    println!("{CONNECTIONS} connections, {ROUNDS} windows of {WINDOW:?}, CPU a request in the gateway:");
    for (name, spent) in [("plain", &mut by_plain), ("TLS", &mut by_tls)] {
        println!("  {name}: least {:?}, median {:?}", stage::percentile(spent, 0.0), stage::percentile(spent, 0.5));
    }
    println!("{CONNECTIONS} callers, {ROUNDS} windows of {WINDOW:?}, handshakes:");
    for (name, caller, kind) in [
        ("full", &anonymous, HandshakeKind::Full),
        ("full, with a client's certificate", &known, HandshakeKind::Full),
        ("resumed", &anonymous, HandshakeKind::Resumed),
        ("resumed, with a client's certificate", &known, HandshakeKind::Resumed),
    ] {
        let (mut spent, mut rates) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let before = secured.cpu();
            let shaken = runtime.block_on(handshakes(secured.address, caller, kind));
            if round > 0 {
                spent.push((secured.cpu() - before) / shaken);
                rates.push(shaken);
            }
        }
        rates.sort_unstable();
        let (least, median) = (stage::percentile(&mut spent, 0.0), stage::percentile(&mut spent, 0.5));
        println!("  {name}: {} a second (median), CPU each: least {least:?}, median {median:?}", rates[ROUNDS / 2]);
    }
}

/// What a caller connects with: no session is resumed.
fn config(authority: &Authority, shows: Option<&Made>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in rustls::pki_types::pem::PemObject::pem_slice_iter(authority.pem().as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shows {
        None => builder.with_no_client_auth(),
        Some(made) => {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.key.serialize_der()));
            builder.with_client_auth_cert(made.chain.clone(), key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    config
}

async fn connect(to: SocketAddr, caller: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(to).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    TlsConnector::from(caller.clone()).connect(ServerName::from(to.ip()), tcp).await.unwrap()
}

/// Asks on all connections for one window; how often.
async fn requests(to: SocketAddr, caller: Option<&ClientConfig>, request: &[u8]) -> u32 {
    let until = Instant::now() + WINDOW;
    let caller = caller.map(|caller| Arc::new(caller.clone()));
    let mut lines = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (request, caller) = (request.to_vec(), caller.clone());
        lines.spawn(async move {
            match caller {
                None => ask(Line::open(to).await, &request, until).await,
                Some(caller) => ask(Line::over(connect(to, &caller).await), &request, until).await,
            }
        });
    }
    lines.join_all().await.into_iter().sum()
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut line: Line<S>, request: &[u8], until: Instant) -> u32 {
    let mut asked = 0;
    while Instant::now() < until {
        assert_eq!(line.ask(request).await.0, 200);
        asked += 1;
    }
    asked
}

/// Shakes hands again and again for one window; how often. The first of each caller is a full one.
async fn handshakes(to: SocketAddr, caller: &ClientConfig, kind: HandshakeKind) -> u32 {
    let until = Instant::now() + WINDOW;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut caller = caller.clone();
        if kind == HandshakeKind::Resumed {
            caller.resumption = Resumption::in_memory_sessions(64);
        }
        let caller = Arc::new(caller);
        callers.spawn(async move {
            let mut shaken = 0;
            while Instant::now() < until {
                let mut stream = connect(to, &caller).await;
                assert!(shaken == 0 || stream.get_ref().1.handshake_kind() == Some(kind));
                // Tickets come after the handshake.
                while kind == HandshakeKind::Resumed && stream.get_ref().1.tls13_tickets_received() == 0 {
                    stream.get_ref().0.readable().await.unwrap();
                    let _ = stream.read_u8().now_or_never();
                }
                shaken += 1;
            }
            shaken
        });
    }
    callers.join_all().await.into_iter().sum()
}
