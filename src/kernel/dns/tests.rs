use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::*;

/// Name servers that answer when they are let, and hang until then.
struct Servers {
    asked: AtomicUsize,
    at_a_time: AtomicUsize,
    most: AtomicUsize,
    answers: Mutex<mpsc::Receiver<io::Result<Vec<SocketAddr>>>>,
}

type Let = mpsc::Sender<io::Result<Vec<SocketAddr>>>;

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 0))
}

/// Names that begin with `hangs` are answered when they are let; `gone` fails; others have an address at once.
fn servers(threads: usize) -> (Arc<Servers>, Let, Resolver) {
    let (answer, answers) = mpsc::channel();
    let servers = Arc::new(Servers {
        asked: AtomicUsize::new(0),
        at_a_time: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
        answers: Mutex::new(answers),
    });
    let at = servers.clone();
    let resolver = Resolver::with("dns-test", threads, Clock::system(), move |name| {
        at.asked.fetch_add(1, Ordering::SeqCst);
        let now = at.at_a_time.fetch_add(1, Ordering::SeqCst) + 1;
        at.most.fetch_max(now, Ordering::SeqCst);
        let found = if name.starts_with("hangs") {
            at.answers.lock().unwrap().recv().unwrap_or_else(|_| Err(io::Error::other("let go")))
        } else if name == "gone" {
            Err(io::Error::other("no such name"))
        } else {
            Ok(vec![address(1)])
        };
        at.at_a_time.fetch_sub(1, Ordering::SeqCst);
        found
    });
    (servers, answer, resolver)
}

#[tokio::test]
async fn all_who_want_a_name_share_one_look_up() {
    let (servers, answer, resolver) = servers(8);
    let mut asks: Vec<_> = (0..100).map(|_| Box::pin(resolver.look_up("hangs.example"))).collect();
    for ask in &mut asks {
        assert!(ask.now_or_never().is_none());
    }
    // Some leave; those who come later join.
    asks.truncate(50);
    asks.push(Box::pin(resolver.look_up("HANGS.example")));
    assert!(asks.last_mut().unwrap().now_or_never().is_none());
    answer.send(Ok(vec![address(7)])).unwrap();
    for found in join_all(asks).await {
        assert_eq!(*found.unwrap(), [address(7)]);
    }
    assert_eq!(servers.asked.load(Ordering::SeqCst), 1);
    // What was found is not kept as a cache is: the next connection looks it up anew.
    let (again, ()) = tokio::join!(resolver.look_up("hangs.example"), async {
        answer.send(Ok(vec![address(8)])).unwrap();
    });
    assert_eq!(*again.unwrap(), [address(8)]);
    assert_eq!(servers.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_look_up_that_hangs_costs_its_own_thread_and_no_other_name() {
    let (servers, answer, resolver) = servers(3);
    let hanging: Vec<_> = (0..2).map(|n| format!("hangs-{n}.example")).collect();
    let mut hanging: Vec<_> = hanging.iter().map(|name| Box::pin(resolver.look_up(name))).collect();
    for ask in &mut hanging {
        assert!(ask.now_or_never().is_none());
    }
    for n in 0..20 {
        let found = resolver.look_up(&format!("lives-{n}.example")).await;
        assert_eq!(*found.unwrap(), [address(1)]);
    }
    drop(answer);
    for found in join_all(hanging).await {
        assert!(found.unwrap_err().to_string().contains("let go"));
    }
    assert!(servers.most.load(Ordering::SeqCst) <= 3);
}

#[tokio::test]
async fn there_are_never_more_threads_than_may_be_and_what_waits_for_one_gets_it() {
    let (servers, answer, resolver) = servers(2);
    let names: Vec<_> = (0..5).map(|n| format!("hangs-{n}.example")).collect();
    let mut asks: Vec<_> = names.iter().map(|name| Box::pin(resolver.look_up(name))).collect();
    for ask in &mut asks {
        assert!(ask.now_or_never().is_none());
    }
    assert_eq!(resolver.0.state().threads, 2);
    assert_eq!(resolver.0.state().waiting.len(), 3);
    for n in 0..5 {
        answer.send(Ok(vec![address(n)])).unwrap();
    }
    assert!(join_all(asks).await.iter().all(Result::is_ok));
    assert!(servers.most.load(Ordering::SeqCst) <= 2);
}

#[tokio::test(start_paused = true)]
async fn the_last_good_addresses_serve_while_a_look_up_hangs_for_an_hour_and_no_longer() {
    let (servers, answer, resolver) = servers(2);
    answer.send(Ok(vec![address(7)])).unwrap();
    assert_eq!(*resolver.look_up("hangs.example").await.unwrap(), [address(7)]);
    let began = Instant::now();
    assert_eq!(*resolver.look_up("hangs.example").await.unwrap(), [address(7)]);
    assert!(began.elapsed() >= PATIENCE && began.elapsed() <= PATIENCE * 2, "{:?}", began.elapsed());
    // Who comes later does not wait for what is known to hang, and does not begin another.
    let later = Instant::now();
    for _ in 0..10 {
        assert_eq!(*resolver.look_up("hangs.example").await.unwrap(), [address(7)]);
    }
    assert_eq!(later.elapsed(), Duration::ZERO);
    tokio::time::advance(BELIEVED_FOR + Duration::from_secs(1)).await;
    let mut ask = Box::pin(resolver.look_up("hangs.example"));
    assert!((&mut ask).now_or_never().is_none(), "addresses of more than an hour ago were used");
    answer.send(Ok(vec![address(9)])).unwrap();
    assert_eq!(*ask.await.unwrap(), [address(9)]);
    assert_eq!(servers.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_look_up_that_fails_falls_back_on_the_last_good_one() {
    let (_servers, answer, resolver) = servers(2);
    answer.send(Ok(vec![address(7)])).unwrap();
    answer.send(Err(io::Error::other("try again"))).unwrap();
    answer.send(Ok(Vec::new())).unwrap();
    for _ in 0..3 {
        assert_eq!(*resolver.look_up("hangs.example").await.unwrap(), [address(7)]);
    }
    assert_eq!(resolver.look_up("gone").await.unwrap_err().to_string(), "cannot look up gone: no such name");
}

#[tokio::test]
async fn each_use_has_threads_of_its_own_and_the_system_knows_this_machine() {
    let all = [Use::Vendor, Use::Webhooks, Use::KeySets].map(Resolver::of);
    assert!(!Arc::ptr_eq(&all[0].0, &all[1].0) && !Arc::ptr_eq(&all[1].0, &all[2].0));
    assert!(Arc::ptr_eq(&all[0].0, &Resolver::of(Use::Vendor).0));
    let found = all[0].look_up("localhost").await.unwrap();
    assert!(found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
}

#[tokio::test]
async fn a_look_up_that_panics_is_an_error_and_its_thread_goes_on() {
    let resolver = Resolver::with("dns-test", 1, Clock::system(), |_| panic!("a bad library"));
    for _ in 0..3 {
        assert!(resolver.look_up("a.example").await.is_err());
    }
}
