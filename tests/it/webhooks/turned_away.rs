//! An endpoint that says, in HTTP/2's words, that it did not process a delivery.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rtm_gateway::kernel::task::{Kind, Tasks};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::rig::{Rig, webhook};
use crate::support::server_tls::certified;

/// An endpoint on HTTP/2 that refuses the streams of so many deliveries and then takes all. Its address, the PEM of the
/// authority that vouches for it, and how many came.
async fn endpoint(tasks: &Tasks, refuses: usize) -> (String, String, Arc<AtomicUsize>) {
    let (tls, authority) = certified(&["h2"]);
    let tls = TlsAcceptor::from(tls);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/hook", listener.local_addr().unwrap());
    let came = Arc::new(AtomicUsize::new(0));
    let (counts, served) = (came.clone(), tasks.clone());
    tasks.spawn(Kind::Simulator, async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (tls, counts) = (tls.clone(), counts.clone());
            served.spawn(Kind::Simulator, async move {
                let Ok(stream) = tls.accept(tcp).await else { return };
                let service = service_fn(move |_| {
                    let number = counts.fetch_add(1, Ordering::SeqCst);
                    let refused = h2::Error::from(h2::Reason::REFUSED_STREAM);
                    let taken = Response::new(Full::<Bytes>::default());
                    std::future::ready(if number < refuses { Err(refused) } else { Ok(taken) })
                });
                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (url, authority, came)
}

async fn deliver(refuses: usize) -> (Rig, Arc<AtomicUsize>, Tasks) {
    let tasks = Tasks::new();
    let (url, ca, came) = endpoint(&tasks, refuses).await;
    let mut rig = Rig::start(&webhook("crm", "http://127.0.0.1:9/", "")).await;
    rig.write("ca.pem", &ca);
    rig.reload(&webhook("crm", &url, "ca_file = \"$DIR/ca.pem\"")).await;
    rig.emit(&["a"]);
    (rig, came, tasks)
}

const DELIVERED: &str = r#"rtm_gateway_webhook_attempts_total{app="demo-app",webhook="crm",outcome="delivered"}"#;
const UNREACHABLE: &str = r#"rtm_gateway_webhook_attempts_total{app="demo-app",webhook="crm",outcome="unreachable"}"#;

#[tokio::test]
async fn what_the_endpoint_did_not_process_is_sent_again_within_the_same_try() {
    let (mut rig, came, tasks) = deliver(2).await;
    rig.idle("crm").await;
    assert_eq!(came.load(Ordering::SeqCst), 3);
    assert_eq!((rig.metric(DELIVERED), rig.metric(UNREACHABLE)), (1.0, 0.0), "it costs none of its attempts");
    rig.stop().await;
    tasks.finish(std::time::Duration::ZERO).await;
}

#[tokio::test]
async fn an_endpoint_that_turns_all_away_costs_a_try_after_three() {
    let (mut rig, came, tasks) = deliver(4).await;
    let status = rig.stands("crm", |status| status.last_error.is_some()).await;
    assert!(status.last_error.unwrap().contains("refused"));
    assert_eq!(came.load(Ordering::SeqCst), 3);
    rig.stop().await;
    tasks.finish(std::time::Duration::ZERO).await;
}
