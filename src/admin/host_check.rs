//! Whether a request is for this port, and of whose page.
//!
//! Any page can lead a browser here: see [`browsers`].
//!
//! Invariants: a head that could be read in two ways is for nobody; without a key, a request names this machine or one
//! of `admin.hosts`, and nobody else. What only says whether all is well is answered whatever it names. A key cannot be
//! guessed by a page, and no page reaches a Unix socket: there any host will do. What changes something, or costs, is
//! done for no other site's page, key or not.

use hyper::StatusCode;
use hyper::http::request::Parts as Head;

use super::rejection::Rejection;
use crate::config::{Admin, Listen};
use crate::request::route::{browsers, target};

/// Refuses a request that is meant for another host, or for no one host.
///
/// # Errors
/// 421; 400.
pub(super) fn check(admin: &Admin, head: &Head, segments: &[&str]) -> Result<(), Rejection> {
    target::check_reading(head)?;
    // Probes name pods and nodes by address, and learn no more than that all is well.
    let anywhere = matches!(segments, [] | ["healthz" | "readyz" | "metrics"]);
    let any_host = admin.api_key_sha256.is_some() || matches!(admin.listen, Listen::Unix(_));
    let is_ours = browsers::names_only(head, |host| host.is_loopback() || admin.hosts.contains(host));
    if anywhere || any_host || is_ours {
        return Ok(());
    }
    let detail =
        "this port is not the host that the request names; admin.hosts lists the names it has beside localhost";
    Err(Rejection::coded(StatusCode::MISDIRECTED_REQUEST, "misdirected", detail))
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;
    use crate::kernel::names::HostName;
    use crate::request::refusal::Refusal;

    fn head(target: &str, headers: &[(&str, &str)]) -> Head {
        let request = headers.iter().fold(Request::builder().uri(target), |b, (name, value)| b.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    fn status(admin: &Admin, target: &str, hosts: &[&str]) -> Result<(), Rejection> {
        let hosts: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        check(admin, &head(target, &hosts), &["admin", "v1", "apps"])
    }

    #[test]
    fn without_a_key_only_this_machine_and_the_configured_hosts_are_meant() {
        let hosts = ["admin.corp.example", "10.1.2.3"].map(|host| HostName::parse(host).unwrap()).to_vec();
        let admin = Admin { hosts, ..Admin::default() };
        let path = "/admin/v1/apps";
        for ours in ["localhost:9090", "127.0.0.1:1", "[::1]:9090", "Admin.Corp.Example:80", "10.1.2.3"] {
            assert_eq!(status(&admin, path, &[ours]), Ok(()), "{ours}");
        }
        for other in ["evil.example:9090", "corp.example", "10.1.2.4", ""] {
            assert!(status(&admin, path, &[other]).is_err(), "{other}");
        }
    }

    #[test]
    fn a_head_that_names_two_hosts_or_none_is_for_nobody() {
        let keyed = Admin { api_key_sha256: Some([1; 32]), ..Admin::default() };
        for admin in [keyed, Admin::default()] {
            for path in [&["healthz"][..], &["admin", "v1", "apps"]] {
                let twice = head("/", &[("host", "localhost"), ("host", "localhost")]);
                assert_eq!(check(&admin, &twice, path), Err(Refusal::bad("Host: given twice").into()), "{path:?}");
                let never = head("/", &[]);
                assert_eq!(check(&admin, &never, path), Err(Refusal::bad("Host: missing").into()), "{path:?}");
            }
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
}
