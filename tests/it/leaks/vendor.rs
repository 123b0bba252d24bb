//! A vendor that repeats what it was sent, in every way it can, and fails in every way it can.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use rtm_gateway::kernel::names::Stream;
use rtm_gateway::simulator::{Canned, Coding, Endpoint, Fault, Sim};

use super::plants::Plants;
use super::rig::{Gateway, Heap, PATIENCE, ask};
use crate::support::waiting::{found_within, pause};

/// One of the two apps: what the vendor was sent for it.
pub(crate) struct Target<'a> {
    pub(crate) sim: &'a Sim,
    pub(crate) app: &'a str,
    pub(crate) http2: bool,
    /// The credential as its header shows it.
    pub(crate) header: String,
    /// The same as people would write it.
    pub(crate) plain: String,
}

impl Target<'_> {
    /// Bodies and content types that repeat the credential.
    fn echoes(&self) -> Vec<(String, String)> {
        let (header, plain) = (&self.header, &self.plain);
        let each = |form: &dyn Fn(u8) -> String| plain.bytes().map(form).collect::<String>();
        let json = |text: &str| serde_json::to_string(text).unwrap();
        let html = plain.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&#39;");
        let percent = percent_encoding::utf8_percent_encode(plain, percent_encoding::NON_ALPHANUMERIC);
        let form: String = form_urlencoded::byte_serialize(plain.as_bytes()).collect();
        [
            ("application/json", format!(r#"{{"result":"failed","authorization":{}}}"#, json(header))),
            ("application/json", format!(r#"{{"result":"failed","why":{}}}"#, json(plain))),
            ("application/json", format!(r#"{{"request_id":{},"result":{}}}"#, json(header), json(plain))),
            ("application/json", format!(r#"{{"why":{}}}"#, json(header).replace('/', "\\/"))),
            ("application/json", format!(r#"{{"why":"{}"}}"#, each(&|b| format!("\\u{b:04x}")))),
            ("text/plain", format!("you sent {plain}, that is {header}")),
            ("text/html; charset=utf-8", format!("<p>you sent {html}</p><!-- {header} -->")),
            ("text/plain", STANDARD.encode(format!("Authorization: {header}\r\nHost: x\r\n"))),
            ("text/plain", STANDARD.encode(format!("A: {plain}\r\n"))),
            ("text/plain", format!("?credential={percent}&again={form}")),
            ("text/plain", each(&|b| format!("{b:02x}"))),
            ("text/plain", each(&|b| format!("{b:02X}"))),
            (&format!("text/plain; token={header}"), "in the head".to_owned()),
        ]
        .map(|(kind, body)| (kind.to_owned(), body))
        .into()
    }

    fn canned(&self, status: u16, (content_type, body): (String, String)) -> Fault {
        Fault::Answer(Canned { status, content_type, retry_after: None, body, acted: false })
    }

    /// Every fault there is. A new one is not silently left out: see [`label`].
    fn faults(&self) -> Vec<Fault> {
        let short = Duration::from_millis(5);
        let echo = self.echoes()[5].clone();
        let inside = echo.1.find(&self.plain).unwrap() + self.plain.len() / 2;
        let cut = |shape: Fault| Fault::all([self.canned(400, echo.clone()), shape]);
        vec![
            Fault::DelayBefore(short),
            Fault::DelayAfter(short),
            Fault::JitterBefore(short),
            Fault::JitterAfter(short),
            Fault::DropBefore,
            Fault::DropAfter,
            Fault::ResetBefore,
            Fault::ResetAfter,
            Fault::RefuseStream,
            Fault::GoAway,
            Fault::Hang,
            cut(Fault::CutBody { keep: inside }),
            cut(Fault::StallBody { keep: inside }),
            cut(Fault::Chunked),
            cut(Fault::Marked),
            cut(Fault::Encoded(Coding::Brotli)),
            cut(Fault::Pad(100)),
            cut(Fault::Drip { bytes: 7, every: Duration::from_millis(1) }),
            Fault::CloseAfter,
            Fault::all([self.canned(200, echo.clone()), Fault::CutBody { keep: inside }]),
            Fault::all([self.canned(200, echo.clone()), Fault::Encoded(Coding::Gzip)]),
            Fault::all([self.canned(200, echo.clone()), Fault::Encoded(Coding::Deflate), Fault::CutBody { keep: 90 }]),
            Fault::all([Fault::Chunked, self.canned(200, echo)]),
        ]
    }

    async fn request(&self, heap: &Heap, gateway: &Gateway, plants: &Plants, endpoint: Endpoint) {
        let rtm = format!("/dev/v2/project/{}/rtm", self.app);
        let window = "start_time=0&end_time=4102444800";
        let nonce: u32 = rand::random();
        let (method, target, body) = match endpoint {
            Endpoint::PeerMessages | Endpoint::ChannelMessages => (
                Method::POST,
                format!("{rtm}/users/u/{}", endpoint.as_str()),
                r#"{"destination":"x","channel_name":"x","payload":"y"}"#.to_owned(),
            ),
            Endpoint::HistoryCreate | Endpoint::HistoryGet => {
                let filter = format!(r#"{{"source":"{nonce}","start_time":0,"end_time":4102444800}}"#);
                (Method::POST, format!("{rtm}/message/history/query"), format!(r#"{{"filter":{filter}}}"#))
            }
            Endpoint::HistoryCount => {
                (Method::GET, format!("{rtm}/message/history/count?source={nonce}&{window}"), String::new())
            }
            Endpoint::UserEvents | Endpoint::ChannelEvents => unreachable!("read by pollers"),
        };
        let headers =
            [("x-api-key", plants.caller_key.as_str()), ("prefer", "wait=3"), ("content-type", "application/json")];
        ask(heap, gateway.callers, self.http2, (method, &target), &headers, &body).await;
    }

    /// Drives one endpoint that callers reach through all faults and echoes.
    async fn callers_endpoint(&self, heap: &Heap, gateway: &Gateway, plants: &Plants, endpoint: Endpoint) {
        let mut script = self.faults();
        script.extend(self.echoes().into_iter().map(|echo| self.canned(400, echo)));
        for status in [200, 301, 403, 404, 408, 410, 500, 501, 503] {
            script.push(self.canned(status, self.echoes()[0].clone()));
        }
        for fault in script {
            self.sim.on(endpoint, fault);
            self.request(heap, gateway, plants, endpoint).await;
        }
        // A retry may have met a fault that was meant for the next request.
        self.request(heap, gateway, plants, endpoint).await;
    }

    /// Drives a stream's reads through all faults and echoes, and lets events occur that hold the credential.
    async fn stream(&self, stream: Stream) {
        let endpoint = Endpoint::from(stream);
        let mut script = self.faults();
        script.extend(self.echoes().into_iter().map(|echo| self.canned(200, echo)));
        for status in [400, 404, 408, 500, 503] {
            script.push(self.canned(status, self.echoes()[2].clone()));
        }
        let json = serde_json::to_string(&self.header).unwrap();
        let typed = [format!(r#"{{"events":{json}}}"#), format!(r#"{{"result":{json},"events":[{{"n":1}}]}}"#)];
        script.extend(typed.map(|body| self.canned(200, ("application/json".to_owned(), body))));
        // A good read after each: the poller's pause grows with failures in a row.
        let script: Vec<_> = script.into_iter().flat_map(|fault| [fault, Fault::DelayBefore(Duration::ZERO)]).collect();
        let count = script.len() as u64;
        let before = self.sim.stats().of(endpoint).faulted;
        for fault in script {
            self.sim.on(endpoint, fault);
        }
        let seen = self.sim.wait_within(PATIENCE, |stats| stats.of(endpoint).faulted >= before + count).await;
        seen.unwrap();
        let plain = serde_json::to_string(&self.plain).unwrap();
        self.sim.emit_raw(self.app, stream, &format!(r#"{{"type":"Login","user_id":{json},"note":{plain},"ms":1}}"#));
    }

    /// All of it.
    pub(crate) async fn drive(&self, heap: &Heap, gateway: &Gateway, plants: &Plants) {
        let callers = [
            Endpoint::PeerMessages,
            Endpoint::ChannelMessages,
            Endpoint::HistoryCreate,
            Endpoint::HistoryGet,
            Endpoint::HistoryCount,
        ];
        let callers = callers.map(|endpoint| self.callers_endpoint(heap, gateway, plants, endpoint));
        let streams = Stream::ALL.map(|stream| self.stream(stream));
        tokio::join!(futures_util::future::join_all(callers), futures_util::future::join_all(streams));
        let stats = self.sim.stats();
        for endpoint in Endpoint::ALL {
            let faulted = stats.of(endpoint).faulted;
            assert!(faulted >= self.faults().len() as u64, "{} met {faulted} faults", endpoint.as_str());
        }
        let mut labels: Vec<_> = self.faults().iter().flat_map(labels).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), 21, "{labels:?}");
    }

    /// The vendor refuses the credential and repeats it. Comes last: the gateway then asks no more.
    pub(crate) async fn refuse(&self, heap: &Heap, gateway: &Gateway, plants: &Plants) {
        let answered = |status| self.sim.always(Endpoint::PeerMessages, self.canned(status, self.echoes()[0].clone()));
        answered(429);
        for _ in 0..3 {
            self.request(heap, gateway, plants, Endpoint::PeerMessages).await;
        }
        answered(401);
        // What the 429s and the faults before them left behind may keep a request from the vendor for a while.
        let before = heap.said("credential_refused");
        let asking = found_within(PATIENCE, async || {
            self.request(heap, gateway, plants, Endpoint::PeerMessages).await;
            pause(Duration::from_millis(500)).await;
            (heap.said("credential_refused") > before + 1).then_some(())
        });
        asking.await.expect("the refused credential is told");
    }
}

/// A fault's names. Without a wildcard: who adds a fault to the simulator adds it here, and to the list above.
fn labels(fault: &Fault) -> Vec<&'static str> {
    vec![match fault {
        Fault::DelayBefore(_) => "delay before",
        Fault::DelayAfter(_) => "delay after",
        Fault::JitterBefore(_) => "jitter before",
        Fault::JitterAfter(_) => "jitter after",
        Fault::DropBefore => "drop before",
        Fault::DropAfter => "drop after",
        Fault::ResetBefore => "reset before",
        Fault::ResetAfter => "reset after",
        Fault::RefuseStream => "refuse stream",
        Fault::GoAway => "go away",
        Fault::Hang => "hang",
        Fault::CutBody { .. } => "cut body",
        Fault::StallBody { .. } => "stall body",
        Fault::Chunked => "chunked",
        Fault::Marked => "marked",
        Fault::Encoded(_) => "encoded",
        Fault::Pad(_) => "pad",
        Fault::Drip { .. } => "drip",
        Fault::CloseAfter => "close after",
        Fault::Answer(_) => "answer",
        Fault::All(faults) => return faults.iter().flat_map(labels).chain(["all"]).collect(),
    }]
}
