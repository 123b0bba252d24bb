//! What counts as handed over is what the other end's system has acknowledged, counted below TLS.

use rustls::pki_types::ServerName;
use std::sync::Arc;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use super::stage::{Stage, VERSIONS};
use crate::front::arrival::{begin, emit, given_again, nothing_is_missing, stream, what_is_left, whole_events};
use crate::support::waiting::eventually;

#[tokio::test]
async fn a_stream_that_nobody_reads_is_cut_and_what_its_system_did_not_take_comes_again() {
    for version in VERSIONS {
        let stage = Stage::with("optional", "write_timeout = \"500ms\"").await;
        let sent = emit(&stage.sim, &stage.parts, 300).await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let (tcp, config) = (socket.connect(stage.addr).await.unwrap(), stage.caller(None, version));
        let name = ServerName::from(stage.addr.ip());
        let mut caller = TlsConnector::from(Arc::new(config.clone())).connect(name, tcp).await.unwrap();
        begin(&mut caller, &stream("crm")).await;
        eventually(|| stage.parts.metrics.connections.get() == 0).await;
        let had = whole_events(&what_is_left(&mut caller).await);
        let mut next = stage.connect(&config).await.unwrap();
        nothing_is_missing(&sent, &had, &given_again(&mut next, "crm").await);
        drop(next);
        stage.stopped().await;
    }
}
