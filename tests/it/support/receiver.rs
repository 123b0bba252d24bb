//! An endpoint: keeps what it was sent, answers as it was told.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rtm_gateway::kernel::task::{Kind, Tasks};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::support::client::DEADLINE;

/// What came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) at: Instant,
    /// What it was answered; 0 for nothing.
    pub(crate) answered: u16,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().unwrap()
    }

    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// `user_id` of a structured event.
    pub(crate) fn user(&self) -> String {
        self.json()["data"]["user_id"].as_str().unwrap().to_owned()
    }

    /// The `data` of a structured event, byte for byte.
    pub(crate) fn data(&self) -> String {
        let text = std::str::from_utf8(&self.body).unwrap();
        text.split_once(r#","data":"#).unwrap().1.strip_suffix('}').unwrap().to_owned()
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Status(u16),
    With(u16, &'static str, String),
    /// None, for as long as the receiver lives.
    Never,
}

type Rule = Box<dyn Fn(&Seen) -> Answer + Send>;

pub(crate) struct Receiver {
    addr: SocketAddr,
    inner: Arc<Inner>,
    _tasks: Tasks,
}

struct Inner {
    seen: watch::Sender<Vec<Seen>>,
    next: Mutex<VecDeque<Answer>>,
    rule: Mutex<Rule>,
}

impl Receiver {
    /// Answers 204 to all.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            seen: watch::Sender::default(),
            next: Mutex::default(),
            rule: Mutex::new(Box::new(|_| Answer::Status(204))),
        });
        let tasks = Tasks::new();
        let (kept, served) = (inner.clone(), tasks.clone());
        tasks.spawn(Kind::Simulator, async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let inner = kept.clone();
                let service = service_fn(move |request| answer(inner.clone(), request));
                let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service);
                served.spawn(Kind::Simulator, async move { drop(serving.await) });
            }
        });
        Self { addr, inner, _tasks: tasks }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Answers so, in turn, and then by the rule.
    pub(crate) fn next(&self, answers: impl IntoIterator<Item = Answer>) {
        self.inner.next.lock().unwrap().extend(answers);
    }

    /// Answers so from now on.
    pub(crate) fn rule(&self, rule: impl Fn(&Seen) -> Answer + Send + 'static) {
        *self.inner.rule.lock().unwrap() = Box::new(rule);
    }

    /// What has come.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.inner.seen.borrow().clone()
    }

    /// What has come, once it is as wanted.
    #[track_caller]
    pub(crate) fn until(&self, wanted: impl Fn(&[Seen]) -> bool) -> impl Future<Output = Vec<Seen>> {
        let mut changes = self.inner.seen.subscribe();
        let caller = std::panic::Location::caller();
        async move {
            let waited = {
                let waiting = changes.wait_for(|seen| wanted(seen));
                tokio::time::timeout(DEADLINE, waiting).await.map(|seen| seen.unwrap().clone())
            };
            waited.unwrap_or_else(|_| panic!("{caller}: {:#?}", changes.borrow()))
        }
    }

    /// What has come, once it is so many requests.
    #[track_caller]
    pub(crate) fn requests(&self, count: usize) -> impl Future<Output = Vec<Seen>> {
        self.until(move |seen| seen.len() >= count)
    }
}

async fn answer(inner: Arc<Inner>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    assert_eq!(head.method, "POST");
    // A try that the gateway gave up in the middle is none.
    let Ok(body) = body.collect().await else { return Ok(Response::default()) };
    let path = head.uri.path().to_owned();
    let mut seen = Seen { path, headers: head.headers, body: body.to_bytes(), at: Instant::now(), answered: 0 };
    let next = inner.next.lock().unwrap().pop_front();
    let answer = next.unwrap_or_else(|| (inner.rule.lock().unwrap())(&seen));
    seen.answered = match answer {
        Answer::Status(status) | Answer::With(status, ..) => status,
        Answer::Never => 0,
    };
    inner.seen.send_modify(|all| all.push(seen));
    let mut response = Response::new(Full::new(Bytes::from_static(b"whatever an endpoint says")));
    match answer {
        Answer::Status(status) => *response.status_mut() = StatusCode::from_u16(status).unwrap(),
        Answer::With(status, name, value) => {
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap());
        }
        Answer::Never => std::future::pending().await,
    }
    Ok(response)
}
