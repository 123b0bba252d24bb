//! A log that nobody reads, or that cannot be written, costs its lines and nothing else.

use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use rtm_gateway::kernel::names::Stream;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::Signal;

use super::gateway::{APP, Gateway, Home, api, client, vendor};
use crate::support::child::BINARY;
use crate::support::client::Client;

/// More lines than a pipe holds.
const MANY: usize = 600;

async fn call(gateway: &Gateway, times: usize) {
    let mut caller = gateway.caller("one").await;
    for _ in 0..times {
        assert_eq!(caller.get(&api("message/nothing")).await.unwrap().status, 404);
    }
}

async fn dropped(gateway: &Gateway) -> u64 {
    let reply = Client::http1(gateway.operators).await.get("/metrics").await.unwrap();
    let metrics = reply.text();
    let line = metrics.lines().find(|line| line.starts_with("rtm_gateway_log_lines_dropped_total ")).unwrap();
    line.split_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_reader_takes_nothing_stops_no_caller_no_probe_no_event_no_reload_and_no_stop() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let gateway = Gateway::unheard(&home);
    call(&gateway, MANY).await;
    assert_eq!(gateway.admin("/healthz").await.0, 200);
    vendor.emit_many(APP, Stream::UserEvents, 3);
    let mut reader = gateway.caller("one").await;
    let mut events = 0;
    while events < 3 {
        let reply = reader.get(&api("vendor/user_events?wait=10s")).await.unwrap();
        events += reply.json()["events"].as_array().unwrap().len();
    }
    home.write(&format!("{}{}{}{}", home.base(&vendor), client("one"), client("two"), client("three")));
    gateway.signal(Signal::HUP);
    let mut third = gateway.caller("three").await;
    while third.get(&api("message/nothing")).await.unwrap().status != 404 {}
    gateway.signal(Signal::TERM);
    let ended = tokio::time::timeout(Duration::from_secs(20), gateway.ended());
    assert_eq!(ended.await.expect("it ends although its last lines are not read").code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_read_on_has_every_line_that_was_buffered_and_the_last_one() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let mut gateway = Gateway::unheard(&home);
    call(&gateway, MANY).await;
    gateway.signal(Signal::TERM);
    gateway.hear();
    for _ in 0..MANY {
        gateway.logged("request");
    }
    gateway.logged("stopped");
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_reader_left_counts_its_lines_and_the_gateway_goes_on() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    let mut gateway = Gateway::unheard(&home);
    gateway.hang_up();
    call(&gateway, 50).await;
    while dropped(&gateway).await < 50 {
        tokio::task::yield_now().await;
    }
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_start_that_is_refused_ends_although_nobody_reads_why() {
    let home = Home::new(&vendor().await);
    home.write("nonsense = 1\n");
    let config = home.config().to_str().unwrap().to_owned();
    // What is in the file, and what was typed.
    assert_eq!(ended_unread(&["serve", "--config", &config]).await, Some(1));
    assert_eq!(ended_unread(&["serve", "--no-such-flag"]).await, Some(2));
}

/// How it ends with a stderr that is full and that nobody reads.
async fn ended_unread(arguments: &[&str]) -> Option<i32> {
    let (reader, mut full) = std::io::pipe().unwrap();
    fcntl_setfl(&full, OFlags::NONBLOCK).unwrap();
    while full.write(&[b' '; 512]).is_ok() {}
    while full.write(b" ").is_ok() {}
    fcntl_setfl(&full, OFlags::empty()).unwrap();
    let mut command = Command::new(BINARY);
    let mut child = command.args(arguments).stderr(full).spawn().unwrap();
    // Its copy of the pipe's end.
    drop(command);
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap());
    let ended = tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it ends").unwrap();
    drop(reader);
    ended.code()
}
