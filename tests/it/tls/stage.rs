//! A gateway that speaks TLS, and callers with certificates.

use std::error::Error as _;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use rtm_gateway::app::reload::Reloader;
use rtm_gateway::kernel::clock::Clock;
use rtm_gateway::services::ReloadState;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::{default_provider, sign};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, Error, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::client::Client;
use crate::support::{self, settings};
use test_support::certificates::{Authority, DAY, Made, Says};

pub(super) const EVENTS: &str = "/dev/v2/project/demo-app/rtm/vendor/user_events";
pub(super) const BILLING: &str = "spiffe://corp/ns/prod/sa/billing";
pub(super) const CRM: &str = "crm.prod.svc";
pub(super) const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A running gateway. Clients: `billing` by SPIFFE ID, `crm` by DNS name; the key of each is its name and `-key`.
pub(super) struct Stage {
    stage: support::stage::Stage,
    pub(super) servers: Authority,
    pub(super) callers: Authority,
    reloader: Reloader,
}

impl Deref for Stage {
    type Target = support::stage::Stage;

    fn deref(&self) -> &Self::Target {
        &self.stage
    }
}

impl Stage {
    /// With this `client_auth`.
    pub(super) async fn start(client_auth: &str) -> Self {
        Self::with(client_auth, "").await
    }

    /// With these lines more in `[server]`.
    pub(super) async fn with(client_auth: &str, server: &str) -> Self {
        Self::configured(client_auth, server, "").await
    }

    /// With TLS on the operators' port, too, which shows `admin.pem`, and these lines more in `[admin.tls]`; `$DIR` is the folder.
    pub(super) async fn for_operators(admin_tls: &str) -> Self {
        Self::configured(
            "off",
            "",
            &format!("[admin.tls]\ncert = \"$DIR/admin.pem\"\nkey = \"$DIR/admin.key\"\n{admin_tls}\n"),
        )
        .await
    }

    async fn configured(client_auth: &str, server: &str, admin_tls: &str) -> Self {
        let mut stage = support::stage::Stage::new().await;
        stage.clock = Clock::anchored(Clock::system().wall());
        let now = stage.clock.wall();
        let (servers, callers) = (Authority::new("servers"), Authority::new("callers"));
        let shown = servers.issue(&Says::dns(now, "127.0.0.1"));
        stage.write("server.pem", shown.pem());
        stage.write("server.key", shown.key_pem());
        let shown = servers.issue(&Says::dns(now, "127.0.0.1"));
        stage.write("admin.pem", shown.pem());
        stage.write("admin.key", shown.key_pem());
        stage.write("ca.pem", callers.pem());
        stage.write("crl.pem", callers.revokes(&[], now + DAY));
        let admin_tls = admin_tls.replace("$DIR", stage.folder.path().to_str().unwrap());
        let text = configuration(&stage, client_auth, server);
        stage.configure(&text.replacen("[store]", &format!("{admin_tls}[store]"), 1));
        stage.run().await;
        let reloader = Reloader::new(stage.config_file(), stage.parts.clone(), None);
        Self { stage, servers, callers, reloader }
    }

    pub(super) fn now(&self) -> SystemTime {
        self.clock.wall()
    }

    /// Reads all files anew.
    pub(super) async fn reload(&self) -> Arc<ReloadState> {
        self.reloader.reload().await;
        self.parts.reload.load_full()
    }

    /// The number that a line of the metrics begins.
    pub(super) fn metric(&self, line: &str) -> u64 {
        let text = self.parts.metrics.text();
        let found = text.lines().find_map(|it| it.strip_prefix(line));
        found.map_or(0, |value| value.trim().parse().unwrap())
    }

    pub(super) fn billing(&self) -> Made {
        self.callers.issue(&Says::uri(self.now(), BILLING))
    }

    /// What a caller of this certificate connects with.
    pub(super) fn caller(&self, made: Option<&Made>, version: &'static SupportedProtocolVersion) -> ClientConfig {
        match made {
            Some(made) => self.caller_with(made.chain.clone(), &made.key, version),
            None => self.builder(version).with_no_client_auth(),
        }
    }

    /// Of a caller that shows a certificate and proves it with a key, whether they fit or not.
    pub(super) fn caller_with(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: &rcgen::KeyPair,
        version: &'static SupportedProtocolVersion,
    ) -> ClientConfig {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let shown = SingleCertAndKey::from(CertifiedKey::new(chain, sign::any_supported_type(&key).unwrap()));
        let shown: Arc<dyn ResolvesClientCert> = Arc::new(shown);
        self.builder(version).with_client_cert_resolver(shown)
    }

    fn builder(
        &self,
        version: &'static SupportedProtocolVersion,
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        for pem in rustls::pki_types::pem::PemObject::pem_slice_iter(self.servers.pem().as_bytes()) {
            roots.add(pem.unwrap()).unwrap();
        }
        ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
    }

    /// Shakes hands.
    pub(super) async fn connect(&self, caller: &ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
        Self::connect_to(self.addr, caller).await
    }

    /// Shakes hands with another of its ports.
    pub(super) async fn connect_to(at: SocketAddr, caller: &ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(at).await?;
        let name = ServerName::from(at.ip());
        TlsConnector::from(Arc::new(caller.clone())).connect(name, tcp).await
    }

    /// A connection that speaks HTTP/1.1.
    pub(super) async fn http1(&self, caller: &ClientConfig) -> Client {
        Client::http1_over(self.connect(caller).await.unwrap(), "gateway").await
    }

    /// A connection that speaks HTTP/2.
    pub(super) async fn http2(&self, caller: &ClientConfig) -> Client {
        let mut caller = caller.clone();
        caller.alpn_protocols = vec![b"h2".to_vec()];
        Client::http2_over(self.connect(&caller).await.unwrap(), "gateway").await
    }

    /// Asks for events on a connection of its own: the answer's status, or the alert in its place.
    pub(super) async fn ask(&self, caller: &ClientConfig, key: Option<&str>) -> Result<u16, AlertDescription> {
        let stream = match self.connect(caller).await {
            Ok(stream) => stream,
            Err(refused) => return Err(alert(&refused)),
        };
        let mut client = Client::http1_over(stream, "gateway").await;
        if let Some(key) = key {
            client = client.with("x-api-key", key);
        }
        match client.get(EVENTS).await {
            Ok(reply) => Ok(reply.status.as_u16()),
            Err(refused) => {
                let mut source = refused.source();
                while let Some(error) = source {
                    if let Some(error) = error.downcast_ref::<std::io::Error>() {
                        return Err(alert(error));
                    }
                    source = error.source();
                }
                panic!("no alert but {refused:?}")
            }
        }
    }
}

pub(super) fn alert(error: &std::io::Error) -> AlertDescription {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(alert)) => *alert,
        _ => panic!("no alert but {error:?}"),
    }
}

fn configuration(stage: &support::stage::Stage, client_auth: &str, server: &str) -> String {
    let dir = stage.folder.path().display();
    let client = |name, by: String| {
        settings::client(name, &format!("{by}\nallow = [{{ app = \"*\", actions = [\"events\"] }}]"))
    };
    let certificates = if client_auth == "off" {
        String::new()
    } else {
        format!("client_ca = \"{dir}/ca.pem\"\nclient_auth = \"{client_auth}\"\nclient_crl = \"{dir}/crl.pem\"\n")
    };
    format!(
        r#"
[server]
listen = ["127.0.0.1:0", "unix:{dir}/gateway.sock"]
{server}
[server.tls]
cert = "{dir}/server.pem"
key = "{dir}/server.key"
{certificates}
{}{}{}"#,
        stage.demo_app(""),
        client("billing", format!("spiffe_id = \"{BILLING}\"")),
        client("crm", format!("dns_san = \"{CRM}\"")),
    )
}
