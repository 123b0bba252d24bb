//! The one line a request leaves, and what must not be in it.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};

use rtm_gateway::kernel::names::Stream;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use super::stage::{APP, RTM, Stage, VENDOR_SECRET, request};
use crate::support::waiting::eventually;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines of the request of this id.
    fn of(&self, id: &str) -> Vec<serde_json::Value> {
        let lines = self.text();
        let all = lines.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
        let all = all.filter(|line| line["target"] == "rtm_gateway::access");
        all.map(|line| line["fields"].clone()).filter(|fields| fields["request_id"] == id).collect()
    }

    /// All that the gateways of this process log. One for all tests: whether a line is wanted is remembered by the
    /// process, not by the thread.
    fn of_this_process() -> Self {
        static LINES: OnceLock<Lines> = OnceLock::new();
        let install = || {
            let lines = Lines::default();
            // hyper and h2 trace whole heads: what the gateway itself says is what counts.
            let ours = Targets::new().with_target("rtm_gateway", tracing::Level::TRACE);
            let layer = tracing_subscriber::fmt::layer().json().with_writer(lines.clone());
            tracing::subscriber::set_global_default(tracing_subscriber::registry().with(ours).with(layer)).unwrap();
            lines
        };
        LINES.get_or_init(install).clone()
    }
}

#[tokio::test]
async fn a_request_leaves_one_line_without_secrets_when_its_answer_ended() {
    let lines = Lines::of_this_process();
    let stage = Stage::start().await;
    stage.sim.emit_many(APP, Stream::UserEvents, 2);
    let target = format!("{RTM}/vendor/user_events?wait=20s&subscription=planted-in-query");
    let ask = |target: &str, client: &str, id: &str| {
        let headers = format!("X-Request-Id: {id}\r\nCookie: planted-cookie\r\n");
        stage.raw(request("GET", target, client, &headers, ""))
    };
    let answer = ask(&target, "all", "line-1").await;
    assert_eq!(answer.status, 200);
    ask(&format!("{RTM}/message/history/query/planted-handle"), "all", "line-2").await;
    ask("/planted-path", "wrong-planted", "line-3").await;
    eventually(|| ["line-1", "line-2", "line-3"].iter().all(|id| lines.of(id).len() == 1)).await;

    let line = &lines.of("line-1")[0];
    for (field, expected) in [
        ("client", "all"),
        ("app", APP),
        ("route", "user_events"),
        ("method", "GET"),
        ("query", "wait,subscription"),
        ("origin", "gateway"),
        ("end", "handed_over"),
    ] {
        assert_eq!(line[field], expected, "{line}");
    }
    assert_eq!((&line["status"], &line["bytes"]), (&200.into(), &answer.body.len().into()), "{line}");
    assert_eq!(lines.of("line-2")[0]["code"], "resource not exist");
    assert_eq!(lines.of("line-3")[0]["route"], "unmatched");
    stage.stopped().await;
    let text = lines.text();
    for secret in ["planted", "all-key", VENDOR_SECRET, "dmVuZG9y"] {
        let told: Vec<&str> = text.lines().filter(|l| l.contains(secret)).collect();
        assert!(told.is_empty(), "{secret}: {told:#?}");
    }
    let metrics = stage.parts.metrics.text();
    assert!(metrics.contains(r#"requests_total{route="user_events",client="all",status="200"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"requests_total{route="unmatched",client="",status="401"} 1"#), "{metrics}");
}
