//! What the command line asks for.

use std::net::SocketAddr;
use std::time::Duration;

/// What is sent where, how often and how long.
pub(crate) struct Options {
    /// Where the proxy listens.
    pub(crate) address: SocketAddr,
    /// How many connections are open.
    pub(crate) connections: usize,
    /// Before the window; its answers do not count.
    pub(crate) warmup: Duration,
    /// Of the window.
    pub(crate) duration: Duration,
    /// Requests a second; `None`: a closed loop.
    pub(crate) rate: Option<f64>,
    /// Ends the run when so many were answered.
    pub(crate) requests: Option<u64>,
    /// One request on each connection, then none.
    pub(crate) hold: bool,
    /// Processes whose CPU time is measured.
    pub(crate) pids: Vec<u32>,
    path: String,
    headers: Vec<String>,
    body: Option<String>,
}

impl Options {
    /// Reads `--name value` pairs.
    ///
    /// # Errors
    /// A name that is not known, a value that cannot be read or is missing, an address that is not loopback.
    pub(crate) fn from_args(args: impl Iterator<Item = String>) -> Result<Self, Box<dyn std::error::Error>> {
        let mut options = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            connections: 48,
            warmup: Duration::ZERO,
            duration: Duration::from_secs(1),
            rate: None,
            requests: None,
            hold: false,
            pids: Vec::new(),
            path: "/".into(),
            headers: Vec::new(),
            body: None,
        };
        let mut args = args;
        while let Some(name) = args.next() {
            if name == "--hold" {
                options.hold = true;
                continue;
            }
            let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--address" => options.address = value.parse()?,
                "--path" => options.path = value,
                "--header" => options.headers.push(value),
                "--body" => options.body = Some(value),
                "--connections" => options.connections = value.parse()?,
                "--warmup" => options.warmup = Duration::try_from_secs_f64(value.parse()?)?,
                "--seconds" => options.duration = Duration::try_from_secs_f64(value.parse()?)?,
                "--rate" => options.rate = Some(value.parse()?),
                "--requests" => options.requests = Some(value.parse()?),
                "--pids" => options.pids = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
                _ => return Err(format!("{name} is not known").into()),
            }
        }
        if !options.address.ip().is_loopback() {
            return Err("only loopback is loaded".into());
        }
        Ok(options)
    }

    /// The bytes of a request.
    pub(crate) fn request(&self) -> Vec<u8> {
        let method = if self.body.is_some() { "POST" } else { "GET" };
        let mut request = format!("{method} {} HTTP/1.1\r\nHost: gateway.test\r\n", self.path);
        for header in &self.headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        if let Some(body) = &self.body {
            request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        } else {
            request.push_str("\r\n");
        }
        request.into_bytes()
    }
}
