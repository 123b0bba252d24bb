//! The one line a request leaves, and what must not be in it.

use std::io::Write;
use std::sync::{Arc, Mutex};

use rtm_gateway::names::Stream;
use tracing_subscriber::fmt::MakeWriter;

use super::handover::wait_until;
use super::stage::{APP, RTM, Stage, VENDOR_SECRET, request};

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

    fn requests(&self) -> Vec<serde_json::Value> {
        let lines = self.text();
        let all = lines.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
        all.filter(|line| line["target"] == "rtm_gateway::access").collect()
    }
}

#[tokio::test]
async fn a_request_leaves_one_line_without_secrets_when_its_answer_ended() {
    let lines = Lines::default();
    // Of this thread; the test's runtime has no other.
    let subscriber = tracing_subscriber::fmt().json().with_max_level(tracing::Level::TRACE).with_writer(lines.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let stage = Stage::start().await;
    stage.sim.emit_many(APP, Stream::UserEvents, 2);
    let target = format!("{RTM}/vendor/user_events?wait=20s&subscription=planted-in-query");
    let answer = stage.raw(request("GET", &target, "all", "X-Request-Id: r1\r\nCookie: planted-cookie\r\n", "")).await;
    assert_eq!(answer.status, 200);
    stage.raw(request("GET", &format!("{RTM}/message/history/query/planted-handle"), "all", "", "")).await;
    stage.raw(request("GET", "/planted-path", "wrong-planted", "", "")).await;
    wait_until(|| lines.requests().len() == 3).await;

    let line = &lines.requests()[0]["fields"];
    for (field, expected) in [
        ("request_id", "r1"),
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
    assert_eq!(lines.requests()[1]["fields"]["code"], "resource not exist");
    assert_eq!(lines.requests()[2]["fields"]["route"], "unmatched");
    stage.stopped().await;
    let text = lines.text();
    // hyper and h2 trace whole heads: what the gateway itself says is what counts.
    let ours = |l: &&str| l.contains("\"target\":\"rtm_gateway");
    for secret in ["planted", "all-key", VENDOR_SECRET, "dmVuZG9y"] {
        let told: Vec<&str> = text.lines().filter(ours).filter(|l| l.contains(secret)).collect();
        assert!(told.is_empty(), "{secret}: {told:#?}");
    }
    let metrics = stage.app.metrics.text();
    assert!(metrics.contains(r#"requests_total{route="user_events",client="all",status="200"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"requests_total{route="unmatched",client="",status="401"} 1"#), "{metrics}");
}
