//! [`Listener`]: a region's socket, and the connections that come by it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::conn::{self, Conn};
use super::lock;
use super::region::{AcceptFault, Region};
use super::wire::{Transport, Wire};
use crate::kernel::task::Kind;

/// Where and how a region listens.
#[derive(Clone, Debug, Default)]
pub struct Listen {
    /// The address; `None` is a free port of 127.0.0.1.
    pub addr: Option<SocketAddr>,
    /// TLS, if any. ALPN is set to `h2` and `http/1.1` if it is empty.
    pub tls: Option<Arc<ServerConfig>>,
}

/// Accepts and serves.
pub(super) struct Listener {
    region: Arc<Region>,
    pub(super) addr: SocketAddr,
    tls: Option<TlsAcceptor>,
    /// `None` while it is down.
    open: Mutex<Option<Open>>,
}

/// A socket that accepts.
#[derive(Clone, Default)]
struct Open {
    /// Ends accepting.
    stop: CancellationToken,
    /// Told when the socket is closed.
    closed: CancellationToken,
}

impl Listener {
    /// Listens for a region.
    pub(super) async fn bind(region: Arc<Region>, listen: Listen) -> io::Result<Arc<Self>> {
        let addr = listen.addr.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let socket = TcpListener::bind(addr).await?;
        let tls = listen.tls.map(|mut config| {
            if config.alpn_protocols.is_empty() {
                Arc::make_mut(&mut config).alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            }
            TlsAcceptor::from(config)
        });
        let listener = Arc::new(Self { region, addr: socket.local_addr()?, tls, open: Mutex::default() });
        listener.accept(socket);
        Ok(listener)
    }

    /// One that has no socket.
    pub(super) fn without_socket(region: Arc<Region>) -> Arc<Self> {
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        Arc::new(Self { region, addr, tls: None, open: Mutex::default() })
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Closes the socket, and returns when it is closed.
    pub(super) async fn close(&self) {
        let open = lock(&self.open).take();
        if let Some(Open { stop, closed }) = open {
            stop.cancel();
            closed.cancelled().await;
        }
    }

    /// Listens again at the same address, if it does not.
    pub(super) async fn reopen(self: &Arc<Self>) -> io::Result<()> {
        if lock(&self.open).is_none() {
            self.accept(TcpListener::bind(self.addr).await?);
        }
        Ok(())
    }

    fn accept(self: &Arc<Self>, socket: TcpListener) {
        let open = Open::default();
        *lock(&self.open) = Some(open.clone());
        let listener = Arc::clone(self);
        self.spawn(async move {
            let all = listener.region.tasks.stopping();
            loop {
                let accepted = tokio::select! {
                    accepted = socket.accept() => accepted,
                    () = open.stop.cancelled() => break,
                    () = all.cancelled() => break,
                };
                match accepted {
                    Ok((tcp, _)) => listener.admit(tcp),
                    // Out of descriptors, say: accepting again at once would fail again.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
            drop(socket);
            open.closed.cancel();
        });
    }

    fn admit(&self, tcp: TcpStream) {
        // Answers are small: without this they would wait for acknowledgements.
        let _ = tcp.set_nodelay(true);
        let fault = lock(&self.region.accept_faults).pop_front();
        match fault {
            None => self.serve(tcp, self.tls.clone()),
            Some(AcceptFault::Reset) => tcp.reset_at_end(),
            Some(AcceptFault::Stall) => {
                let stop = self.region.tasks.stopping();
                self.spawn(async move {
                    stop.cancelled().await;
                    drop(tcp);
                });
            }
        }
    }

    pub(super) fn serve(&self, transport: impl Transport, tls: Option<TlsAcceptor>) {
        let region = self.region.clone();
        let mut number = 0;
        region.update(|stats| {
            stats.connections += 1;
            stats.open += 1;
            number = stats.connections;
        });
        let conn = Conn::new(number);
        lock(&region.conns).insert(number, conn.clone());
        self.spawn(async move {
            let wire = Wire::new(transport, conn.clone());
            let serving = async {
                match tls {
                    None => conn::serve(region.clone(), conn.clone(), wire).await,
                    Some(acceptor) => {
                        let stop = region.tasks.stopping();
                        let handshake = stop.run_until_cancelled(acceptor.accept(wire)).await;
                        if let Some(Ok(tls)) = handshake {
                            conn::serve(region.clone(), conn.clone(), tls).await;
                        }
                    }
                }
            };
            region.guarded(serving).await;
            conn::close(&region, &conn);
        });
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let region = self.region.clone();
        self.region.tasks.spawn(Kind::Simulator, async move { region.guarded(work).await });
    }
}
