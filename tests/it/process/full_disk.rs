//! A disk without room: reading stops before anything is lost, the operator is told, and it goes on by itself.

use std::process::Command;

use rtm_gateway::kernel::names::Stream;
use rustix::process::{Resource, Rlimit, prlimit};

use super::gateway::{APP, Gateway, Home, api, vendor};
use crate::support::child::BINARY;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_reading_before_anything_is_lost_and_it_goes_on_when_there_is_room() {
    let vendor = vendor().await;
    let home = Home::new(&vendor);
    // Files cannot grow beyond a limit: writes fail as on a full disk, and the limit can be lifted from outside.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -S -f 6144; exec \"$0\" \"$@\"", BINARY]);
    let gateway = Gateway::of(command, &home.config());
    let mut emitted = Vec::new();
    let stuck = async {
        while gateway.admin("/readyz").await.0 == 200 {
            let waiting = vendor.ledger(APP, Stream::UserEvents).waiting.len();
            if waiting == 0 {
                let long = "x".repeat(2000);
                for n in 0..500 {
                    let text = format!(r#"{{"ms":1,"type":"Login","user_id":"u-{}-{n}-{long}"}}"#, emitted.len());
                    emitted.push(vendor.emit_raw(APP, Stream::UserEvents, &text).to_string());
                }
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), stuck).await.expect("the store fills up");
    let (status, body) = gateway.admin("/readyz").await;
    assert_eq!((status, &body["ready"]), (503, &serde_json::json!(false)), "{body}");
    let told = &body["degraded"][0];
    assert_eq!(
        (&told["part"], &told["app"], &told["code"]),
        (&"events".into(), &APP.into(), &"reading_stopped".into()),
        "{body}"
    );
    assert_eq!(gateway.admin("/readyz?for=events").await.0, 503);

    let unlimited = Rlimit { current: None, maximum: None };
    prlimit(Some(gateway.pid()), Resource::Fsize, unlimited).unwrap();
    gateway.admin_says("/readyz", |status, _| status == 200).await;
    let mut caller = gateway.caller("one").await;
    let mut received = Vec::new();
    while received.len() < emitted.len() {
        let body = caller.get(&api("vendor/user_events?wait=15s")).await.unwrap().json();
        let events = body["events"].as_array().unwrap().clone();
        assert!(!events.is_empty(), "{} of {} came", received.len(), emitted.len());
        received.extend(events.iter().map(ToString::to_string));
    }
    assert_eq!(received.len(), emitted.len());
    assert!(received.iter().zip(&emitted).all(|(a, b)| a == b), "all of them, in order, each once");
    assert_eq!(vendor.violations(), []);
}
