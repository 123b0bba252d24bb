//! Whether a request is for this port, and of whose page.
//!
//! A browser can be led here by any page: a name of the page's own is made to stand for 127.0.0.1 (DNS rebinding), and the
//! page may then read all answers, as its own; or it sends what it may send anywhere (cross-site requests), blind.
//!
//! Invariants: without a key, a request names this machine or one of `admin.hosts`, wherever it names a host (`Host`,
//! the target, `:authority`), and it names one. What only says whether all is well is answered whatever it names. A key
//! cannot be guessed by a page, and no page reaches a Unix socket: there any host will do. What changes something, or
//! costs, is done for no other site's page, key or not.

use hyper::StatusCode;
use hyper::header::{HOST, ORIGIN};
use hyper::http::request::Parts as Head;

use super::answer::Refused;
use crate::config::{Admin, Listen};
use crate::names::HostName;

/// Refuses a request that is meant for another host.
///
/// # Errors
/// 421.
pub(super) fn check(admin: &Admin, head: &Head, segments: &[&str]) -> Result<(), Refused> {
    let anywhere = matches!(segments, [] | ["healthz" | "readyz" | "metrics"]);
    let any_host = admin.api_key_sha256.is_some() || matches!(admin.listen, Listen::Unix(_));
    if anywhere || any_host || is_ours(admin, head) {
        return Ok(());
    }
    let detail =
        "this port is not the host that the request names; admin.hosts lists the names it has beside localhost";
    Err(Refused::coded(StatusCode::MISDIRECTED_REQUEST, "misdirected", detail))
}

fn is_ours(admin: &Admin, head: &Head) -> bool {
    let ours = |host: Option<HostName>| host.is_some_and(|host| host.is_loopback() || admin.hosts.contains(&host));
    let target = head.uri.authority().map(HostName::of_authority);
    let hosts = head.headers.get_all(HOST).iter().map(|host| HostName::of_header(host.as_bytes()));
    let mut named = target.into_iter().chain(hosts).peekable();
    // Every browser names a host; who names none is not known to be none.
    named.peek().is_some() && named.all(ours)
}

/// Whether no browser says that another site's page asks.
pub(super) fn is_same_origin(head: &Head) -> bool {
    let site = head.headers.get("sec-fetch-site").map(|site| site.as_bytes());
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return false;
    }
    let Some(origin) = head.headers.get(ORIGIN) else { return true };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    // HTTP/2 has the host in the target.
    let host = host.or_else(|| head.uri.authority().map(|authority| authority.as_str()));
    origin.is_some() && origin == host
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn head(target: &str, headers: &[(&str, &str)]) -> Head {
        let request = headers.iter().fold(Request::builder().uri(target), |b, (name, value)| b.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    fn status(admin: &Admin, target: &str, hosts: &[&str]) -> Result<(), Refused> {
        let hosts: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        check(admin, &head(target, &hosts), &["admin", "v1", "apps"])
    }

    #[test]
    fn without_a_key_only_this_machine_and_the_configured_hosts_are_meant() {
        let hosts = ["admin.corp.example", "10.1.2.3"].map(|host| HostName::parse(host).unwrap()).to_vec();
        let admin = Admin { hosts, ..Admin::default() };
        let path = "/admin/v1/apps";
        for ours in [
            "localhost:9090",
            "LOCALHOST.",
            "127.0.0.1:1",
            "127.3.2.1",
            "[::1]:9090",
            "Admin.Corp.Example:80",
            "10.1.2.3",
        ] {
            assert_eq!(status(&admin, path, &[ours]), Ok(()), "{ours}");
        }
        for other in
            ["evil.example", "evil.example:9090", "localhost.evil.example", "10.1.2.4", "0.0.0.0:9090", "", "a b"]
        {
            assert!(status(&admin, path, &[other]).is_err(), "{other}");
        }
        assert!(status(&admin, path, &[]).is_err(), "no host");
        assert!(status(&admin, path, &["localhost", "evil.example"]).is_err(), "two");
        assert_eq!(status(&admin, "http://localhost:9090/admin/v1/apps", &["localhost:9090"]), Ok(()));
        assert_eq!(status(&admin, "http://localhost:9090/admin/v1/apps", &[]), Ok(()), ":authority");
        for (target, host) in [
            ("http://evil.example/", "localhost"),
            ("http://localhost/", "evil.example"),
            ("http://localhost@evil.example/", "localhost"),
        ] {
            assert!(status(&admin, target, &[host]).is_err(), "{target} {host}");
        }
    }

    #[test]
    fn a_key_or_a_unix_socket_lets_any_host_be_named_and_so_does_what_only_says_how_all_is() {
        let other = head("/", &[("host", "evil.example")]);
        for path in [&["healthz"][..], &["readyz"], &["metrics"], &[]] {
            assert_eq!(check(&Admin::default(), &other, path), Ok(()), "{path:?}");
        }
        for path in [&["admin"][..], &["openapi.json"], &["healthz", ""], &["nothing"]] {
            assert!(check(&Admin::default(), &other, path).is_err(), "{path:?}");
        }
        let keyed = Admin { api_key_sha256: Some([1; 32]), ..Admin::default() };
        let unix = Admin { listen: Listen::Unix("/run/x".into()), ..Admin::default() };
        assert_eq!([keyed, unix].map(|admin| check(&admin, &other, &["admin"])), [Ok(()), Ok(())]);
    }

    #[test]
    fn a_page_of_another_site_changes_nothing() {
        let asks = |more: &[(&str, &str)]| is_same_origin(&head("/", &[&[("host", "127.0.0.1:9090")], more].concat()));
        assert!(asks(&[]), "no browser");
        assert!(asks(&[("origin", "http://127.0.0.1:9090"), ("sec-fetch-site", "same-origin")]));
        assert!(asks(&[("sec-fetch-site", "none")]), "an address that a person entered");
        for other in ["http://evil.example", "http://127.0.0.1:8000", "null", "http://127.0.0.1:9090.evil.example"] {
            assert!(!asks(&[("origin", other)]), "{other}");
        }
        for site in ["cross-site", "same-site", "?"] {
            assert!(!asks(&[("sec-fetch-site", site)]), "{site}");
        }
        let http2 = |origin| is_same_origin(&head("http://localhost:9090/", &[("origin", origin)]));
        assert!(http2("http://localhost:9090") && !http2("http://localhost:8000"));
    }
}
