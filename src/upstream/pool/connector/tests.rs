use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future::{Ready, ready};
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{capture_connection, dns::Name};
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::tls::Anchors;
use crate::upstream::pool::max_age;

/// Answers every name with these addresses, and counts how often it is asked.
#[derive(Clone)]
struct Names {
    addresses: Vec<SocketAddr>,
    asked: Arc<AtomicUsize>,
}

impl Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Ready<Result<Self::Response, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        self.asked.fetch_add(1, Ordering::Relaxed);
        ready(Ok(self.addresses.clone().into_iter()))
    }
}

fn names(addresses: &[SocketAddr]) -> Names {
    Names { addresses: addresses.to_vec(), asked: Arc::default() }
}

fn connector(names: &Names, timeout: Duration, max_age: Duration) -> Connector<Names> {
    let limits = ConnectLimits { timeout, max_age };
    Connector::new(names.clone(), Anchors::Public.client().unwrap(), limits, None, Clock::system())
}

const SOON: Duration = Duration::from_secs(5);

/// A socket that listens and whose queue is full: who connects hears nothing. Held open by what is returned.
async fn black_hole() -> (SocketAddr, Vec<tokio::net::TcpStream>, TcpListener) {
    let socket = tokio::net::TcpSocket::new_v6().unwrap();
    socket.bind((Ipv6Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    // Until one finds no place any more.
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(300), tokio::net::TcpStream::connect(address)).await
    {
        queued.push(connected.unwrap());
        assert!(queued.len() < 64, "the queue does not fill");
    }
    (address, queued, listener)
}

#[tokio::test]
async fn a_name_whose_first_addresses_are_dead_is_reached_by_the_living_one() {
    let living = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = living.local_addr().unwrap();
    let dead = TcpListener::bind("[::1]:0").await.unwrap().local_addr().unwrap();
    let also_dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for addresses in [vec![dead, address], vec![also_dead, address], vec![dead, also_dead, address], vec![address]] {
        let names = names(&addresses);
        let connected = connector(&names, SOON, SOON).call(Uri::from_static("http://vendor.test/")).await;
        assert!(connected.is_ok(), "{addresses:?}: {:?}", connected.err());
        living.accept().await.unwrap();
    }
}

#[tokio::test]
async fn a_silent_address_of_one_family_does_not_hold_up_the_other() {
    let (silent, _queued, _listener) = black_hole().await;
    let living = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let names = names(&[silent, living.local_addr().unwrap()]);
    let began = tokio::time::Instant::now();
    // Far longer than the race takes: the silent one is not waited for.
    let mut connector = connector(&names, Duration::from_secs(60), SOON);
    connector.call(Uri::from_static("http://vendor.test/")).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(began.elapsed() >= OTHER_FAMILY_AFTER);
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_hangs_is_a_connection_that_takes_too_long() {
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let resolver = Resolver::with("dns-test", 1, Clock::system(), move |_| {
        let _ = held.lock().unwrap().recv();
        Ok(Vec::new())
    });
    let limits = ConnectLimits { timeout: SOON, max_age: SOON };
    let mut connector = Connector::new(resolver, Anchors::Public.client().unwrap(), limits, None, Clock::system());
    let began = tokio::time::Instant::now();
    let error = connector.call(Uri::from_static("http://vendor.test/")).await.err().unwrap();
    assert!(error.is::<ConnectTimedOut>(), "{error}");
    assert_eq!(began.elapsed().as_secs(), SOON.as_secs());
    drop(hold);
}

/// Answers every request on every connection with an empty 200; counts connections.
async fn answer_all(listener: TcpListener) {
    let mut open = tokio::task::JoinSet::new();
    while let Ok((mut tcp, _)) = listener.accept().await {
        open.spawn(async move {
            let mut buffer = [0; 4096];
            while tcp.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            }
        });
    }
}

#[tokio::test]
async fn a_connection_in_constant_use_grows_old_and_the_name_is_looked_up_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for (max_age, lookups) in [(Duration::from_secs(3600), 1), (Duration::ZERO, 5)] {
        let names = names(&[address]);
        let client: Client<_, Empty<Bytes>> =
            Client::builder(TokioExecutor::new()).build(connector(&names, SOON, max_age));
        let ask = async {
            for _ in 0..5 {
                let mut request = Request::new(Empty::new());
                *request.uri_mut() = Uri::from_static("http://vendor.test/");
                let connection = capture_connection(&mut request);
                let answer = client.request(request).await.unwrap();
                let until = answer.extensions().get::<max_age::Until>().unwrap();
                until.leave_if_over(&connection, Clock::system().now());
                answer.into_body().collect().await.unwrap();
                // The pool takes a connection back in a task of its own.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
            }
        };
        let listener = TcpListener::from_std(listener_again(&listener)).unwrap();
        tokio::select! {
            () = answer_all(listener) => unreachable!("it listens for good"),
            () = ask => {}
        }
        assert_eq!(names.asked.load(Ordering::Relaxed), lookups);
    }
}

/// Another handle on the same listening socket.
fn listener_again(listener: &TcpListener) -> std::net::TcpListener {
    use std::os::fd::AsFd as _;
    std::net::TcpListener::from(listener.as_fd().try_clone_to_owned().unwrap())
}
