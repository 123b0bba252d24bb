//! Whether a request's head is one that every reader reads alike, and whom it is addressed to.
//!
//! Invariants: HTTP/1.1 has exactly one `Host`; HTTP/2 has an authority, and a `Host` beside it says the same. A
//! target in absolute form is served like the origin form only when it names a configured upstream host (so old
//! software may use us as its `http_proxy`) or the very address the connection came in on; we are nobody's open
//! proxy. Who shows no proof of its own names this machine, an upstream host or one of `server.hosts`, and is no other
//! site's page. A body has one length: what hyper hides from us of that is found by `listener::framing`.

use std::collections::HashSet;
use std::net::SocketAddr;

use hyper::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, Uri, Version};

use crate::config::Config;
use crate::kernel::names::HostName;
use crate::request::refusal::Refusal;
use crate::request::route::browsers;

/// Whom a request may be addressed to.
#[derive(Debug, Default)]
pub struct Hosts {
    /// What a target in absolute form may name.
    upstream: HashSet<(String, u16)>,
    /// What a request without any proof may name, beside this machine.
    unproven: HashSet<HostName>,
}

impl Hosts {
    /// Those of all apps' regions, and of `server.hosts`.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let regions = config.apps.iter().flat_map(|app| &app.regions);
        let of = |uri: &Uri| uri.authority().map(|a| host_and_port(a, uri.scheme_str()));
        // An `http://` base URL that old software uses for an `https://` upstream names port 80, or none.
        let both = |uri: &Uri| [of(uri), uri.authority().map(|a| host_and_port(a, Some("http")))];
        let upstream = regions.clone().filter_map(|r| r.base_url.authority().and_then(HostName::of_authority));
        let unproven = upstream.chain(config.server.hosts.iter().cloned()).collect();
        Self { upstream: regions.flat_map(|r| both(&r.base_url)).flatten().collect(), unproven }
    }

    /// Checks the head of a request that shows no proof of who sent it, and came by TCP: a page may have led a browser
    /// here.
    ///
    /// # Errors
    /// 421 when it names another host than this machine and those that are configured, 403 when a browser says that
    /// another site's page asks.
    pub fn check_unproven(&self, head: &Parts) -> Result<(), Refusal> {
        if !browsers::names_only(head, |host| host.is_loopback() || self.unproven.contains(host)) {
            return Err(Refusal::Misdirected);
        }
        if browsers::is_for_another_site(head) {
            return Err(Refusal::CrossSite);
        }
        Ok(())
    }

    /// Checks a head.
    ///
    /// # Errors
    /// 400 for a head that could be read in two ways, 404 for a target on somebody else's host.
    pub fn check(&self, head: &Parts, local: Option<SocketAddr>) -> Result<(), Refusal> {
        check_reading(head)?;
        if head.uri.path() == "*" {
            return Err(Refusal::bad("target: `*` names nothing here"));
        }
        let Some(authority) = head.uri.authority() else { return Ok(()) };
        if authority.as_str().contains('@') {
            return Err(Refusal::bad("target: holds user information"));
        }
        if !has_plain_port(authority) || !matches!(head.uri.scheme_str(), None | Some("http" | "https")) {
            return Err(Refusal::bad("target: not of http or https"));
        }
        match head.version < Version::HTTP_2 && head.method != Method::CONNECT {
            false => Ok(()),
            true => {
                let named = host_and_port(authority, head.uri.scheme_str());
                let ours = self.upstream.contains(&named) || local.is_some_and(|at| is_at(&named, at));
                if ours { Ok(()) } else { Err(Refusal::NoSuchRoute) }
            }
        }
    }
}

/// Checks that every reader reads a head alike: who is meant, and where its body ends.
///
/// # Errors
/// 400.
pub fn check_reading(head: &Parts) -> Result<(), Refusal> {
    check_host(head)?;
    check_framing(head)
}

fn check_host(head: &Parts) -> Result<(), Refusal> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) if head.version == Version::HTTP_11 => return Err(Refusal::bad("Host: missing")),
        (None, _) => return Ok(()),
        (Some(host), None) => host,
        (Some(_), Some(_)) => return Err(Refusal::bad("Host: given twice")),
    };
    // RFC 9112, 3.2: empty when the target has no authority.
    if host.is_empty() && head.version < Version::HTTP_2 {
        return Ok(());
    }
    let asks_to_compare = head.version == Version::HTTP_2 && head.uri.authority().is_some();
    if !asks_to_compare && is_plainly_a_host(host.as_bytes()) {
        return Ok(());
    }
    let parsed = Authority::try_from(host.as_bytes()).ok().filter(|a| !a.as_str().contains('@') && has_plain_port(a));
    let Some(parsed) = parsed else { return Err(Refusal::bad("Host: not a host")) };
    match head.uri.authority() {
        // RFC 9113, 8.3.1. (On HTTP/1.1 the absolute form wins, RFC 9112, 3.2.2.)
        Some(authority) if head.version == Version::HTTP_2 && *authority != parsed => {
            Err(Refusal::bad("Host: differs from :authority"))
        }
        _ => Ok(()),
    }
}

/// Whether it is a name or an IPv4 address, and a port of four digits at most: what most say, and what needs no parser.
fn is_plainly_a_host(host: &[u8]) -> bool {
    let end = host.iter().position(|b| *b == b':').unwrap_or(host.len());
    let (name, port) = host.split_at(end);
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    let is_port = || (2..=5).contains(&port.len()) && port[1..].iter().all(u8::is_ascii_digit);
    !name.is_empty() && name.iter().all(is_name) && (port.is_empty() || is_port())
}

fn check_framing(head: &Parts) -> Result<(), Refusal> {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(_), _) if head.headers.contains_key(CONTENT_LENGTH) => {
            Err(Refusal::bad("Transfer-Encoding: not with Content-Length"))
        }
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Refusal::bad("Transfer-Encoding: only chunked, and once")),
    }
}

/// Whether what follows the host is nothing or a port's number: the library takes anything, and reads it as no port.
fn has_plain_port(authority: &Authority) -> bool {
    let after = authority.as_str().split_at(authority.as_str().rfind('@').map_or(0, |at| at + 1)).1;
    match after.strip_prefix(authority.host()) {
        Some("") => true,
        Some(port) => {
            port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok())
        }
        None => false,
    }
}

/// Host in lower case, without IPv6 brackets or a trailing dot, and the port or its scheme's default.
fn host_and_port(authority: &Authority, scheme: Option<&str>) -> (String, u16) {
    let default = if scheme == Some("https") { 443 } else { 80 };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    (host.trim_end_matches('.').to_ascii_lowercase(), authority.port_u16().unwrap_or(default))
}

fn is_at((host, port): &(String, u16), local: SocketAddr) -> bool {
    let ip = local.ip().to_canonical();
    *port == local.port() && (host.parse() == Ok(ip) || (host == "localhost" && ip.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn hosts() -> Hosts {
        let uri = |u: &str| u.parse::<Uri>().unwrap();
        let authorities = ["https://api.agrtc.cn", "http://127.0.0.1:9000"].map(uri);
        let of = |u: &Uri, s: Option<&str>| host_and_port(u.authority().unwrap(), s);
        let upstream = authorities.iter().flat_map(|u| [of(u, u.scheme_str()), of(u, Some("http"))]).collect();
        Hosts { upstream, ..Hosts::default() }
    }

    fn check(target: &str, headers: &[(&str, &str)], version: Version) -> Result<(), Refusal> {
        let mut request = Request::builder().uri(target).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        hosts().check(&head, Some("127.0.0.1:8080".parse().unwrap()))
    }

    #[test]
    fn a_target_in_absolute_form_is_ours_only_on_a_configured_host() {
        for (target, ours) in [
            ("http://api.agrtc.cn/dev", true),
            ("http://API.agrtc.cn.:80/dev", true),
            ("http://api.agrtc.cn:443/dev", true),
            ("https://api.agrtc.cn/dev", true),
            ("http://127.0.0.1:9000/dev", true),
            ("http://127.0.0.1:8080/dev", true),
            ("http://localhost:8080/dev", true),
            ("http://127.0.0.1:8081/dev", false),
            ("http://api.agrtc.cn:8080/dev", false),
            ("http://api.agrtc.cn.evil/dev", false),
            ("http://evil/dev", false),
        ] {
            let checked = check(target, &[("host", "any")], Version::HTTP_11);
            assert_eq!(checked, if ours { Ok(()) } else { Err(Refusal::NoSuchRoute) }, "{target}");
        }
        for target in ["http://u@api.agrtc.cn/dev", "http://api.agrtc.cn:99999/dev", "ftp://api.agrtc.cn/dev"] {
            let checked = check(target, &[("host", "h")], Version::HTTP_11);
            assert!(matches!(checked, Err(Refusal::BadRequest(_))), "{target}");
        }
        // On HTTP/2 every target has an authority: it says nothing about a proxy.
        assert_eq!(check("http://gateway.internal/dev", &[], Version::HTTP_2), Ok(()));
    }

    #[test]
    fn a_head_that_could_be_read_in_two_ways_is_refused() {
        let v11 = Version::HTTP_11;
        for (headers, version) in [
            (&[][..], v11),
            (&[("host", "a"), ("host", "a")], v11),
            (&[("host", "a b")], v11),
            (&[("host", "u@a")], v11),
            (&[("host", "a/b")], v11),
            (&[("host", "a:b")], v11),
            (&[("host", "a:")], v11),
            (&[("host", "a:+80")], v11),
            (&[("host", "a:99999")], v11),
            (&[("host", "a"), ("transfer-encoding", "gzip, chunked")], v11),
            (&[("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], v11),
            (&[("host", "a"), ("transfer-encoding", "chunked"), ("content-length", "3")], v11),
        ] {
            assert!(matches!(check("/x", headers, version), Err(Refusal::BadRequest(_))), "{headers:?}");
        }
        assert!(check("http://a/x", &[("host", "b")], Version::HTTP_2).is_err());
        assert!(check("http://a/x", &[("host", "a")], Version::HTTP_2).is_ok());
        assert!(check("/x", &[("host", "")], v11).is_ok());
        assert!(check("/x", &[], Version::HTTP_10).is_ok());
        assert!(check("/x", &[("host", "[::1]:80"), ("transfer-encoding", "Chunked")], v11).is_ok());
        assert!(check("*", &[("host", "a")], v11).is_err());
    }
}
