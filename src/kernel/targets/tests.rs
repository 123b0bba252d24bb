use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::dns::Name;
use tokio::net::TcpListener;
use tower::{Service, ServiceExt as _};

use super::*;

const STRICT: Guard = Guard { allow_private: false };
const OPEN: Guard = Guard { allow_private: true };

fn judged(guard: Guard, host: &str) -> Result<(), TargetRefused> {
    guard.judge(&format!("https://{host}/keys").parse::<Uri>().map_err(|_| TargetRefused::Host)?)
}

#[test]
fn this_machine_its_link_and_its_clouds_metadata_are_forbidden_in_every_form() {
    for (host, kind) in [
        ("127.0.0.1", AddressKind::ThisMachine),
        ("127.9.9.9:8443", AddressKind::ThisMachine),
        ("0.0.0.0", AddressKind::ThisMachine),
        ("[::1]", AddressKind::ThisMachine),
        ("[::]", AddressKind::ThisMachine),
        ("[::ffff:127.0.0.1]", AddressKind::ThisMachine),
        ("[::ffff:7f00:1]", AddressKind::ThisMachine),
        ("[::127.0.0.1]", AddressKind::ThisMachine),
        ("[::ffff:0:127.0.0.1]", AddressKind::ThisMachine),
        ("[64:ff9b::127.0.0.1]", AddressKind::ThisMachine),
        ("[2002:7f00:1::]", AddressKind::ThisMachine),
        ("[2001:db8::5efe:127.0.0.1]", AddressKind::ThisMachine),
        ("localhost", AddressKind::ThisMachine),
        ("LocalHost.", AddressKind::ThisMachine),
        ("vendor.localhost", AddressKind::ThisMachine),
        ("169.254.169.254", AddressKind::LinkLocal),
        ("169.254.0.1", AddressKind::LinkLocal),
        ("[fe80::1]", AddressKind::LinkLocal),
        ("[fec0::1]", AddressKind::LinkLocal),
        ("[::ffff:169.254.169.254]", AddressKind::LinkLocal),
        ("[64:ff9b::a9fe:a9fe]", AddressKind::LinkLocal),
        ("[2002:a9fe:a9fe::1]", AddressKind::LinkLocal),
        ("[fd00:ec2::254]", AddressKind::Metadata),
        ("[fd20:ce::254]", AddressKind::Metadata),
        ("100.100.100.200", AddressKind::Metadata),
        ("168.63.129.16", AddressKind::Metadata),
        ("[2001:0:1:2::3]", AddressKind::Translator),
        ("[64:ff9b:1::a9fe:a9fe]", AddressKind::Translator),
    ] {
        let refused = judged(STRICT, host);
        assert!(matches!(&refused, Err(TargetRefused::Address { kind: k, .. }) if *k == kind), "{host}: {refused:?}");
        assert_eq!(judged(OPEN, host), Ok(()), "{host}");
    }
}

#[test]
fn what_is_no_single_host_is_forbidden_whatever_is_allowed() {
    for host in ["224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.0.1", "[ff02::1]", "[::ffff:255.255.255.255]"] {
        for guard in [STRICT, OPEN] {
            let refused = judged(guard, host);
            assert!(
                matches!(&refused, Err(TargetRefused::Address { kind: AddressKind::NoHost, .. })),
                "{host}: {refused:?}"
            );
        }
    }
}

#[test]
fn public_and_private_networks_are_allowed() {
    for host in [
        "example.com",
        "example.com.:8443",
        "kubernetes.default.svc",
        "8.8.8.8",
        "10.0.0.1",
        "172.16.3.4",
        "192.168.1.1",
        "100.64.0.1",
        "[2606:4700::1111]",
        "[fd12:3456::1]",
        "[64:ff9b::8.8.8.8]",
        "[::ffff:10.0.0.1]",
        "host1",
        "0x.example",
    ] {
        assert_eq!(judged(STRICT, host), Ok(()), "{host}");
    }
}

#[test]
fn an_address_that_readers_differ_on_is_refused_unread() {
    for host in [
        "2130706433",
        "0x7f000001",
        "0X7F.1",
        "017700000001",
        "0177.0.0.1",
        "127.1",
        "127.0.1",
        "127.0.0.1.",
        "0x7f.0.0.0x1",
        "127.0.0.01",
        "1.2.3.4.5",
        "example.123",
        "0x",
    ] {
        for guard in [STRICT, OPEN] {
            assert!(
                matches!(judged(guard, host), Err(TargetRefused::OddAddress(_))),
                "{host}: {:?}",
                judged(guard, host)
            );
        }
    }
}

#[test]
fn what_is_no_plain_host_is_refused() {
    for host in ["[fe80::1%25eth0]", "127.0.0.%31", "a%2eb", "user@127.0.0.1", "u:p@example.com", "[::1"] {
        for guard in [STRICT, OPEN] {
            assert!(judged(guard, host).is_err(), "{host}");
        }
    }
    for target in ["ftp://example.com/", "file:///etc/passwd", "/keys", "gopher://h/"] {
        assert!(STRICT.judge(&target.parse().unwrap_or_default()).is_err(), "{target}");
    }
}

/// Answers each question with the next of its answers.
#[derive(Clone)]
struct Answers(Arc<Mutex<Vec<Vec<IpAddr>>>>);

impl Answers {
    fn new(answers: &[&[&str]]) -> Self {
        let parse = |all: &&[&str]| all.iter().map(|a| a.parse().unwrap()).collect();
        Self(Arc::new(Mutex::new(answers.iter().rev().map(parse).collect())))
    }
}

impl Service<Name> for Answers {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        let next = self.0.lock().unwrap().pop().unwrap_or_default();
        ready(Ok(next.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect::<Vec<_>>().into_iter()))
    }
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_is_not_connected_to_though_somebody_listens_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let target: Uri = format!("http://keys.example:{port}/").parse().unwrap();
    for answer in [&["127.0.0.1"][..], &["::ffff:127.0.0.1"], &["10.255.255.1", "127.0.0.1"], &[]] {
        let mut strict = Connector::with_resolver(STRICT, Duration::from_secs(5), Answers::new(&[answer]));
        let refused = strict.ready().await.unwrap().call(target.clone()).await;
        let why = format!("{:?}", refused.unwrap_err());
        assert!(why.contains("Address"), "{answer:?}: {why}");
    }
    let mut open = Connector::with_resolver(OPEN, Duration::from_secs(5), Answers::new(&[&["127.0.0.1"]]));
    open.ready().await.unwrap().call(target.clone()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    drop(accepted);
    // Nobody else came.
    assert!(futures_util::FutureExt::now_or_never(listener.accept()).is_none());
}

#[tokio::test]
async fn a_name_server_that_changes_its_answer_is_judged_by_each() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let target: Uri = format!("http://keys.example:{port}/").parse().unwrap();
    // 192.0.2.0/24 is documentation: nobody is there, and the first connection fails by itself or in time.
    let answers = Answers::new(&[&["192.0.2.1"], &["127.0.0.1"]]);
    let mut connector = Connector::with_resolver(STRICT, Duration::from_millis(50), answers);
    let first = connector.ready().await.unwrap().call(target.clone()).await;
    assert!(first.is_err());
    let second = connector.ready().await.unwrap().call(target).await;
    let why = format!("{:?}", second.unwrap_err());
    assert!(why.contains("ThisMachine"), "{why}");
    assert!(futures_util::FutureExt::now_or_never(listener.accept()).is_none());
}

#[tokio::test]
async fn what_the_systems_resolver_makes_of_an_odd_address_is_judged_too() {
    // Past the first judgement, as if it had a hole: getaddrinfo reads these as 127.0.0.1.
    use crate::kernel::dns::{Resolver, Use};
    let mut judged = super::connector::judged_for_tests(STRICT, Resolver::of(Use::Webhooks));
    for odd in ["2130706433", "0x7f.1", "localhost"] {
        let answer = judged.ready().await.unwrap().call(odd.parse().unwrap()).await;
        assert!(answer.is_err_and(|why| format!("{why:?}").contains("ThisMachine")), "{odd}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_hangs_keeps_the_end_waiting_no_longer_than_a_connection() {
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    let resolver =
        crate::kernel::dns::Resolver::with("dns-test", 1, crate::kernel::clock::Clock::system(), move |_| {
            let _ = held.lock().unwrap().recv();
            Ok(Vec::new())
        });
    let mut connector = Connector::with_resolver(STRICT, Duration::from_secs(5), resolver);
    let began = tokio::time::Instant::now();
    let refused = connector.ready().await.unwrap().call(Uri::from_static("http://hook.example/")).await;
    assert!(format!("{:?}", refused.unwrap_err()).contains("takes longer than 5s"));
    assert_eq!(began.elapsed().as_secs(), 5);
    drop(hold);
}
