//! `upstream.no_proxy`: which hosts are reached without the proxy.
//!
//! The rules are curl's and Go's `NO_PROXY`: a name stands for itself and all names below it, with or without a leading
//! dot; an address for itself, a network for its addresses; `*` for all. `:port` narrows any of them. Addresses are
//! compared only with hosts that are written as addresses: nothing is looked up. Invariant: a rule that cannot be
//! understood matches nothing, and a host that is neither a DNS name nor an address is named by none: in doubt the
//! proxy is used.

use std::net::IpAddr;

use hyper::Uri;

use crate::kernel::names::HostName;

/// The rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NoProxy(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    host: Host,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    /// Lower case, without dots at its ends.
    Name(String),
    Net(IpAddr, u32),
}

impl NoProxy {
    pub(super) fn new(entries: &[String]) -> Self {
        Self(entries.iter().filter_map(|entry| rule(entry)).collect())
    }

    /// Whether this is reached directly.
    pub(super) fn covers(&self, to: &Uri) -> bool {
        let Some(host) = to.host() else { return false };
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let address = bare.trim_end_matches('.').parse::<IpAddr>().ok();
        let name = match HostName::parse(host) {
            Some(HostName::Name(name)) => Some(name),
            Some(HostName::Address(_)) | None => None,
        };
        let port = to.port_u16().unwrap_or(if to.scheme_str() == Some("https") { 443 } else { 80 });
        self.0.iter().any(|rule| rule.port.is_none_or(|p| p == port) && rule.host.covers(name.as_deref(), address))
    }
}

impl Host {
    /// Of a host that is neither a DNS name nor an address nothing but `*` says anything.
    fn covers(&self, host: Option<&str>, address: Option<IpAddr>) -> bool {
        match (self, address) {
            (Self::Any, _) => true,
            (Self::Name(name), None) => host
                .and_then(|host| host.strip_suffix(name.as_str()))
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
            (Self::Net(net, length), Some(address)) => same_net(*net, address, *length),
            (Self::Name(_), Some(_)) | (Self::Net(..), None) => false,
        }
    }
}

fn rule(entry: &str) -> Option<Rule> {
    if let Some(host) = net(entry) {
        return Some(Rule { host, port: None });
    }
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (entry, None),
    };
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let name = || {
        let name = host.trim_matches('.').to_ascii_lowercase();
        match HostName::parse(&name)? {
            HostName::Name(name) => Some(Host::Name(name)),
            HostName::Address(_) => None,
        }
    };
    let host = if host == "*" { Host::Any } else { net(host).or_else(name)? };
    Some(Rule { host, port })
}

/// An address, or a network in CIDR notation.
fn net(text: &str) -> Option<Host> {
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = length.map_or(Some(most), |length| length.parse().ok().filter(|l| *l <= most))?;
    Some(Host::Net(address, length))
}

fn same_net(net: IpAddr, address: IpAddr, length: u32) -> bool {
    match (net, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(32 - length).unwrap_or(0) == 0,
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(128 - length).unwrap_or(0) == 0,
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_addresses_networks_and_ports_are_told_apart() {
        for (entry, to, covered) in [
            ("api.agrtc.cn", "https://api.agrtc.cn/x", true),
            ("api.agrtc.cn", "https://API.agrtc.cn./x", true),
            ("agrtc.cn", "https://api.agrtc.cn/", true),
            (".agrtc.cn", "https://api.agrtc.cn/", true),
            (".agrtc.cn", "https://agrtc.cn/", true),
            ("agrtc.cn", "https://notagrtc.cn/", false),
            ("api.agrtc.cn", "https://agrtc.cn/", false),
            ("agrtc.cn:443", "https://api.agrtc.cn/", true),
            ("agrtc.cn:8443", "https://api.agrtc.cn/", false),
            ("agrtc.cn:80", "http://api.agrtc.cn/", true),
            ("*", "https://anything/", true),
            ("*:443", "http://anything/", false),
            ("10.0.0.0/8", "http://10.1.2.3/", true),
            ("10.0.0.0/8", "http://11.1.2.3/", false),
            ("0.0.0.0/0", "http://8.8.8.8/", true),
            ("0.0.0.0/0", "http://[::1]/", false),
            ("10.1.2.3", "http://10.1.2.3:8080/", true),
            ("10.1.2.3:80", "http://10.1.2.3:8080/", false),
            ("10.1.2.3", "http://10.1.2.30/", false),
            ("::1", "http://[::1]:99/", true),
            ("[::1]:99", "http://[::1]:99/", true),
            ("[::1]:98", "http://[::1]:99/", false),
            ("fd00::/8", "http://[fd12::1]/", true),
            ("fd00::/8", "http://[fe80::1]/", false),
            ("::/0", "http://[fe80::1]/", true),
            ("10.0.0.0/33", "http://10.0.0.0/", false),
            ("*.agrtc.cn", "https://api.agrtc.cn/", false),
            ("agrtc.cn:port", "https://agrtc.cn/", false),
            (".", "https://agrtc.cn/", false),
            ("", "https://agrtc.cn/", false),
            ("2.3", "http://10.1.2.3/", false),
            ("]", "http://a]/", false),
            ("a&b", "http://a&b/", false),
            ("b", "http://a&.b/", false),
            ("*", "http://a&b/", true),
        ] {
            let rules = NoProxy::new(&[entry.to_owned()]);
            assert_eq!(to.parse().is_ok_and(|to| rules.covers(&to)), covered, "{entry} {to}");
        }
        assert!(!NoProxy::default().covers(&Uri::from_static("https://agrtc.cn/")));
    }
}
