//! What of a request says whether a web page could have led a browser here.
//!
//! Two ways lead from any page to a port that needs no proof: a name of the page's own is made to stand for 127.0.0.1,
//! and the page reads all answers as its own (DNS rebinding); or it sends what may be sent anywhere, blind (cross-site
//! requests). The first shows in the host that is named, the second in what browsers say of themselves.
//!
//! Invariants: a host is named wherever it may be (`Host`, the target, `:authority`), all of them must be ours, and one
//! must be named: every browser does. What browsers alone can say (`Sec-Fetch-Site`) decides before `Origin`, which a
//! proxy that changes `Host` passes on as it was.

use hyper::header::{HOST, ORIGIN};
use hyper::http::request::Parts;

use crate::kernel::names::HostName;

/// Whether the request names a host, and none that is not ours.
pub fn names_only(head: &Parts, ours: impl Fn(&HostName) -> bool) -> bool {
    let target = head.uri.authority().map(HostName::of_authority);
    let hosts = head.headers.get_all(HOST).iter().map(|host| HostName::of_header(host.as_bytes()));
    let mut named = target.into_iter().chain(hosts).peekable();
    // Who names none is not known to be none.
    named.peek().is_some() && named.all(|host| host.is_some_and(|host| ours(&host)))
}

/// Whether a browser says that another site's page asks.
#[must_use]
pub fn is_for_another_site(head: &Parts) -> bool {
    let mut sites = head.headers.get_all("sec-fetch-site").iter().peekable();
    if sites.peek().is_some() {
        return !sites.all(|site| site == "same-origin" || site == "none");
    }
    let mut origins = head.headers.get_all(ORIGIN).iter().peekable();
    if origins.peek().is_none() {
        return false;
    }
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    // HTTP/2 has the host in the target.
    let host = host.or_else(|| head.uri.authority().map(|authority| authority.as_str()));
    !origins.all(|origin| {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
        origin.is_some() && origin == host
    })
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
        let request = headers.iter().fold(Request::builder().uri(target), |b, (name, value)| b.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_host_is_ours_wherever_it_is_named_and_one_is_named() {
        let ours = |target: &str, hosts: &[&str]| {
            let hosts: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            names_only(&head(target, &hosts), HostName::is_loopback)
        };
        for host in ["localhost:9090", "LOCALHOST.", "127.0.0.1:1", "127.3.2.1", "[::1]:9090", "a.localhost"] {
            assert!(ours("/x", &[host]), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9090",
            "localhost.evil.example",
            "10.1.2.4",
            "0.0.0.0:9090",
            "",
            "a b",
            "[::2]",
        ] {
            assert!(!ours("/x", &[host]), "{host}");
        }
        assert!(!ours("/x", &[]), "no host");
        assert!(!ours("/x", &["localhost", "evil.example"]), "two");
        assert!(ours("http://localhost:9090/x", &["localhost:9090"]));
        assert!(ours("http://localhost:9090/x", &[]), ":authority");
        for (target, host) in [
            ("http://evil.example/", "localhost"),
            ("http://localhost/", "evil.example"),
            ("http://localhost@evil.example/", "localhost"),
        ] {
            assert!(!ours(target, &[host]), "{target} {host}");
        }
    }

    #[test]
    fn a_page_of_another_site_is_told_by_what_browsers_say() {
        let other =
            |more: &[(&str, &str)]| is_for_another_site(&head("/", &[&[("host", "127.0.0.1:9090")], more].concat()));
        assert!(!other(&[]), "no browser");
        assert!(!other(&[("origin", "http://127.0.0.1:9090"), ("sec-fetch-site", "same-origin")]));
        assert!(!other(&[("sec-fetch-site", "none")]), "an address that a person entered");
        let behind = [("origin", "http://localhost:5173"), ("sec-fetch-site", "same-origin")];
        assert!(!other(&behind), "a proxy of the page's own site, which changes the host");
        for origin in ["http://evil.example", "http://127.0.0.1:8000", "null", "http://127.0.0.1:9090.evil.example"] {
            assert!(other(&[("origin", origin)]), "{origin}");
            assert!(other(&[("origin", "http://127.0.0.1:9090"), ("origin", origin)]), "{origin}");
        }
        for site in ["cross-site", "same-site", "?", ""] {
            assert!(other(&[("sec-fetch-site", site)]), "{site}");
            assert!(other(&[("sec-fetch-site", site), ("origin", "http://127.0.0.1:9090")]), "{site}");
            assert!(other(&[("sec-fetch-site", "none"), ("sec-fetch-site", site)]), "{site}");
        }
        let http2 = |origin| is_for_another_site(&head("http://localhost:9090/", &[("origin", origin)]));
        assert!(!http2("http://localhost:9090") && http2("http://localhost:8000"));
    }
}
