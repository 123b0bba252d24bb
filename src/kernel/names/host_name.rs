//! [`HostName`]: the host that a URL or a `Host` header names, without its port.
//!
//! Invariant: two spellings of one host are one value: names in lower case and without the dot at their end, addresses
//! as numbers (an IPv4 address inside an IPv6 one is that IPv4 address).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::http::uri::Authority;

/// A host by name or address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostName {
    Address(IpAddr),
    Name(String),
}

impl HostName {
    /// Reads a name or an address, an IPv6 one in brackets or without. No port, no pattern.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let inside = text.strip_prefix('[').map(|rest| rest.strip_suffix(']'));
        if let Some(bare) = inside {
            return bare?.parse::<Ipv6Addr>().ok().map(|address| Self::Address(IpAddr::V6(address).to_canonical()));
        }
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Some(Self::Address(IpAddr::V6(address).to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if let Ok(address) = name.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let label = |l: &str| {
            (1..=63).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        (name.len() <= 253 && name.split('.').all(label)).then_some(Self::Name(name))
    }

    /// Reads the value of a `Host` header: a host, and a port that may be any.
    #[must_use]
    pub fn of_header(value: &[u8]) -> Option<Self> {
        Self::of_authority(&Authority::try_from(value).ok()?)
    }

    /// Whom an authority names. None when it holds user information, or a port that is none.
    #[must_use]
    pub fn of_authority(authority: &Authority) -> Option<Self> {
        let port = authority.as_str().strip_prefix(authority.host())?;
        let plain = port.is_empty()
            || port
                .strip_prefix(':')
                .is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok());
        if plain { Self::parse(authority.host()) } else { None }
    }

    /// Whether it is this machine, by a name or an address that nobody else can have: 127.0.0.0/8, ::1, `localhost` and
    /// what ends so (RFC 6761).
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Address(address) => address.is_loopback(),
            Self::Name(name) => name == "localhost" || name.ends_with(".localhost"),
        }
    }
}

/// As a URL has it, without brackets.
impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_host_are_one() {
        for (one, other) in [
            ("LocalHost", "localhost."),
            ("127.0.0.1", "[::ffff:127.0.0.1]:80"),
            ("::1", "[0:0:0:0:0:0:0:1]:9090"),
            ("admin.corp.example", "ADMIN.corp.example.:65535"),
        ] {
            let host = HostName::parse(one);
            assert!(host.is_some() && host == HostName::of_header(other.as_bytes()), "{one} {other}");
            assert_eq!(HostName::parse(&host.clone().unwrap().to_string()), host);
        }
    }

    #[test]
    fn what_is_no_host_is_none() {
        for wrong in ["", ".", "a..b", "a b", "[::1", "::1]", "[127.0.0.1]", "[::1].", "*", "a/b", &"a".repeat(64)] {
            assert_eq!(HostName::parse(wrong), None, "{wrong}");
        }
        for wrong in
            ["localhost:", "localhost:x", "localhost:65536", "localhost:+1", "localhost@evil.example", "::1", "a:1:2"]
        {
            assert_eq!(HostName::of_header(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn only_what_nobody_else_can_have_is_loopback() {
        for ours in
            ["localhost", "localhost.", "gateway.localhost", "127.0.0.1", "127.255.0.3", "[::1]", "::ffff:127.0.0.1"]
        {
            assert!(HostName::parse(ours).unwrap().is_loopback(), "{ours}");
        }
        for other in [
            "evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.nip.io",
            "0.0.0.0",
            "[::]",
            "169.254.169.254",
            "10.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "localhost.localdomain",
        ] {
            assert!(!HostName::parse(other).unwrap().is_loopback(), "{other}");
        }
    }
}
