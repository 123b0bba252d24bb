//! A token issuer's HTTPS server: answers what it is told to, and remembers who asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rtm_gateway::kernel::task::{Kind, Tasks};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::server_tls::certified;

pub(crate) use test_support::tokens::{Signer, published};

/// How it answers.
#[derive(Clone)]
pub(crate) enum Says {
    /// 200 and this.
    Keys(String),
    /// This status, with this `Location` if there is one.
    Status(u16, Option<String>),
    /// Nothing, ever.
    Nothing,
}

/// A running issuer.
pub(crate) struct Issuer {
    pub(crate) addr: SocketAddr,
    /// The PEM of the authority that vouches for it.
    pub(crate) ca: String,
    state: Arc<Mutex<State>>,
    _tasks: Tasks,
}

struct State {
    says: Says,
    /// The bearer token that it demands.
    demands: Option<String>,
    /// The `Authorization` of each request.
    asked: Vec<Option<String>>,
}

impl Issuer {
    pub(crate) async fn start(says: Says) -> Self {
        let (tls, ca) = certified(&[]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { says, demands: None, asked: Vec::new() }));
        let tasks = Tasks::new();
        tasks.spawn(Kind::Simulator, serve(listener, TlsAcceptor::from(tls), state.clone(), tasks.clone()));
        Self { addr, ca, state, _tasks: tasks }
    }

    pub(crate) fn says(&self, says: Says) {
        self.state.lock().unwrap().says = says;
    }

    pub(crate) fn demands(&self, token: &str) {
        self.state.lock().unwrap().demands = Some(token.to_owned());
    }

    pub(crate) fn asked(&self) -> Vec<Option<String>> {
        self.state.lock().unwrap().asked.clone()
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, state: Arc<Mutex<State>>, tasks: Tasks) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (tls, state) = (tls.clone(), state.clone());
        tasks.spawn(Kind::Simulator, async move {
            let Ok(stream) = tls.accept(tcp).await else { return };
            let service = service_fn(move |request| answer(request, state.clone()));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer<B>(request: Request<B>, state: Arc<Mutex<State>>) -> hyper::Result<Response<Full<Bytes>>> {
    let shown = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let says = {
        let mut state = state.lock().unwrap();
        state.asked.push(shown.clone());
        let is_known = state.demands.as_ref().is_none_or(|token| shown == Some(format!("Bearer {token}")));
        if is_known { state.says.clone() } else { Says::Status(401, None) }
    };
    let mut response = Response::new(Full::default());
    match says {
        Says::Keys(document) => *response.body_mut() = Full::new(document.into()),
        Says::Status(status, location) => {
            *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap();
            if let Some(location) = location {
                response.headers_mut().insert("location", location.parse().unwrap());
            }
        }
        Says::Nothing => std::future::pending().await,
    }
    Ok(response)
}
