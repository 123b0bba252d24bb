//! `events tail` against a gateway that is killed, and with a reader that leaves.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rtm_gateway::kernel::names::Stream;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::gateway::{APP, Gateway, Home, vendor};
use crate::support::child::BINARY;

const PATIENCE: Duration = Duration::from_secs(30);

/// A tail of the user events. Killed when dropped.
struct Tail {
    child: Child,
    out: Option<mpsc::Receiver<String>>,
    err: mpsc::Receiver<String>,
}

impl Tail {
    fn start(home: &Home, gateway: &Gateway, more: &[&str]) -> Self {
        std::fs::write(home.path("caller"), "one").unwrap();
        let mut child = Command::new(BINARY)
            .args(["events", "tail", "--app", APP, "--stream", "user_events", "--output", "json"])
            .args(["--url", &format!("http://{}", gateway.callers), "--key-file"])
            .arg(home.path("caller"))
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let err = lines(child.stderr.take().unwrap());
        Self { child, out: None, err }
    }

    fn event(&mut self) -> Value {
        let out = self.out.get_or_insert_with(|| lines(self.child.stdout.take().unwrap()));
        let line = out.recv_timeout(PATIENCE).expect("an event is printed");
        serde_json::from_str(&line).unwrap()
    }

    fn says(&self, wanted: &str) {
        let mut seen = Vec::new();
        while let Ok(line) = self.err.recv_timeout(PATIENCE) {
            if line.contains(wanted) {
                return;
            }
            seen.push(line);
        }
        panic!("never said {wanted:?}: {seen:#?}");
    }

    async fn ended(mut self) -> Option<i32> {
        tokio::task::spawn_blocking(move || self.child.wait().unwrap().code()).await.unwrap()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

fn lines(from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (say, heard) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = say.send(line);
        }
    });
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_prints_each_event_once_across_a_killed_gateway_and_takes_none_from_others() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    home.stay_at(&gateway);
    let mut emitted = vendor.emit_many(APP, Stream::UserEvents, 5);
    let mut tail = Tail::start(&home, &gateway, &["--from", "earliest"]);
    let mut printed: Vec<Value> = (0..5).map(|_| tail.event()).collect();
    gateway.kill();
    tail.says("connection lost");
    emitted.extend(vendor.emit_many(APP, Stream::UserEvents, 5));
    let gateway = Gateway::start(&home);
    tail.says("connected again");
    printed.extend((0..5).map(|_| tail.event()).filter(|line| line["type"] != "possible_loss"));
    while printed.len() < 10 {
        printed.extend([tail.event()].into_iter().filter(|line| line["type"] != "possible_loss"));
    }
    let events: Vec<String> = printed.iter().map(|line| line["event"].to_string()).collect();
    let wanted: Vec<String> = emitted.iter().map(ToString::to_string).collect();
    assert_eq!(events, wanted);
    assert!(printed.iter().all(|line| line["stream"] == "user_events" && line["cursor"].is_string()), "{printed:?}");
    let (_, subscriptions) = gateway.admin("/admin/v1/subscriptions").await;
    assert_eq!(subscriptions["subscriptions"].as_array().map(Vec::len), Some(0), "{subscriptions}");
    kill_process(Pid::from_child(&tail.child), Signal::TERM).unwrap();
    assert_eq!(tail.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_ends_quietly_when_its_reader_leaves_also_while_nothing_comes() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    vendor.emit_many(APP, Stream::UserEvents, 1);
    let mut tail = Tail::start(&home, &gateway, &["--from", "earliest"]);
    let mut first = [0];
    let mut out = tail.child.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    drop(out);
    let said = std::mem::replace(&mut tail.err, mpsc::channel().1);
    assert_eq!(tail.ended().await, Some(0));
    assert_eq!(said.iter().collect::<Vec<_>>(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_is_refused_says_why_and_ends_with_1_and_a_limit_ends_it_with_0() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let gateway = Gateway::start(&home);
    let refused = Tail::start(&home, &gateway, &["--from", "yesterday"]);
    refused.says("400: after: not understood");
    assert_eq!(refused.ended().await, Some(1));
    vendor.emit_many(APP, Stream::UserEvents, 3);
    let mut limited = Tail::start(&home, &gateway, &["--from", "earliest", "--limit", "2", "--filter", "type=*"]);
    let (one, two) = (limited.event(), limited.event());
    assert_ne!(one["cursor"], two["cursor"]);
    let out = limited.out.take().unwrap();
    assert_eq!(limited.ended().await, Some(0));
    assert_eq!(out.iter().count(), 0);
}
