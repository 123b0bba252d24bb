//! A whole gateway in front of a simulated vendor, and a caller that writes bytes.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) use crate::support::client::DEADLINE;
pub(crate) use crate::support::stage::{APP, VENDOR_SECRET};
use crate::support::{self, settings};

pub(crate) const RTM: &str = "/dev/v2/project/demo-app/rtm";

/// A running gateway. Clients: `all` may do everything, `reader` may read events, `bot` may send as `bot-*`; the key of
/// each is its name and `-key`.
pub(crate) struct Stage(support::stage::Stage);

impl Deref for Stage {
    type Target = support::stage::Stage;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Stage {
    pub(crate) async fn start() -> Self {
        Self::with("", "").await
    }

    /// With these lines more in `[server]`, and in `[[apps]]`.
    pub(crate) async fn with(server: &str, app: &str) -> Self {
        Self::on(support::stage::Stage::new().await, (server, "", app)).await
    }

    /// On a stage without a gateway, with these lines more in `[server]`, `[apps.quota]` and `[apps.events]`.
    pub(crate) async fn on(mut stage: support::stage::Stage, more: (&str, &str, &str)) -> Self {
        stage.configure(&configuration(&stage, more));
        stage.run().await;
        Self(stage)
    }

    pub(crate) fn socket_path(&self) -> PathBuf {
        self.path("gateway.sock")
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// Sends these bytes on a connection of their own and reads the first answer.
    pub(crate) async fn raw(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut tcp = self.connect().await;
        // A gateway that refuses early may close before it has read all.
        let _ = tcp.write_all(bytes.as_ref()).await;
        Answer::read(&mut tcp).await
    }

    /// A request of the client `all`.
    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.raw(request("GET", target, "all", "", "")).await
    }
}

/// A request with a client's key.
pub(crate) fn request(method: &str, target: &str, client: &str, headers: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {target} HTTP/1.1\r\nHost: gateway\r\nX-API-Key: {client}-key\r\n{length}{headers}\r\n{body}")
}

fn configuration(stage: &support::stage::Stage, (server, quota, app): (&str, &str, &str)) -> String {
    let dir = stage.folder.path().display();
    let client = |name, allow| settings::client(name, &format!("allow = [{allow}]"));
    let clients = [
        client("all", r#"{ app = "*", actions = ["events", "history", "count", "messages"] }"#),
        client("reader", r#"{ app = "demo-app", actions = ["events"] }"#),
        client("bot", r#"{ app = "demo-app", actions = ["messages"], users = ["bot-*"] }"#),
        client("nobody", ""),
    ];
    format!(
        r#"
[server]
listen = ["127.0.0.1:0", "unix:{dir}/gateway.sock"]
shutdown_grace = "10s"
request_body_limit = "64KiB"
{server}
{}{app}
{}"#,
        stage.demo_app(quota),
        clients.concat()
    )
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Reads one answer. Panics when it is cut short.
    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Self {
        let reading = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("a head"));
            }
            let head = String::from_utf8(head).unwrap();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            let mut answer = Self { status, head, body: Vec::new() };
            if status != 100 {
                let length = answer.header("content-length").expect("a length").parse().unwrap();
                answer.body = vec![0; length];
                stream.read_exact(&mut answer.body).await.expect("a whole body");
            }
            answer
        };
        tokio::time::timeout(DEADLINE, reading).await.expect("an answer in time")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        lines.filter_map(|l| l.split_once(": ")).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The `code` of a problem, which says all that a problem has to say.
    pub(crate) fn code(&self) -> String {
        let problem = self.json();
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(problem["status"], self.status, "{self:?}");
        assert_eq!(problem["result"], "failed", "{self:?}");
        assert_eq!(self.header("x-rtm-origin"), Some("gateway"), "{self:?}");
        assert_eq!(self.header("x-request-id"), problem["request_id"].as_str(), "{self:?}");
        problem["code"].as_str().expect("a code").to_owned()
    }
}

/// Writes a request and reads its answer, on a connection that stays.
pub(crate) async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.unwrap();
    Answer::read(stream).await
}
