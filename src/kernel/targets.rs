//! Where a fetch may go whose address an operator wrote and a name server completes: key sets and webhooks.
//!
//! Invariants:
//! - The address that is judged is the address that is connected to: a name is resolved once for each connection, every
//!   address it has is judged, and the connection is made to those very addresses. A name server that answers
//!   differently the second time (DNS rebinding) gains nothing.
//! - A name with one forbidden address is forbidden whole: nobody who means well mixes them.
//! - Nothing here follows a redirect: a redirect is an answer, and where it points is never asked.
//! - An IPv4 address inside an IPv6 one is judged as what it leads to; one that is written as no standard writes it
//!   (decimal, octal, hexadecimal, two or three parts) is refused unread, because readers differ on what it means.
//!
//! Private networks (RFC 1918, unique local IPv6) are allowed: that is where the services of a cluster live. What is
//! forbidden unless allowed is what lies nearer than the network: this machine, its link, and its cloud's metadata.

mod address;
mod connector;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;

pub use connector::Connector;

/// Judges whether an address may be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    allow_private: bool,
}

/// Why a target is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetRefused {
    /// It is no `http://` or `https://` address.
    #[error("only http:// and https:// addresses can be fetched")]
    Scheme,
    /// It has no host, or one that holds what no host holds.
    #[error("the address has no host that can be connected to")]
    Host,
    /// User and password in the address.
    #[error("the address holds user information")]
    UserInformation,
    /// An IP address in a form that readers differ on.
    #[error("{0} looks like an IP address, but is not in its standard form")]
    OddAddress(String),
    /// The address, or the name's address, may not be asked.
    #[error("{host} leads to {address}, {kind}; allow_private_targets would allow it")]
    Address {
        /// What was asked for.
        host: String,
        address: IpAddr,
        kind: AddressKind,
    },
    /// A name without addresses.
    #[error("{0} has no address")]
    NoAddress(String),
}

/// Where a forbidden address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// Loopback and "unspecified", which connects to this machine.
    ThisMachine,
    /// `169.254.0.0/16`, `fe80::/10`, `fec0::/10`.
    LinkLocal,
    /// The addresses outside of those under which clouds tell a machine its secrets.
    Metadata,
    /// Multicast, broadcast, reserved.
    NoHost,
    /// An IPv6 address that leads through a translator to an IPv4 address that cannot be told from it.
    Translator,
}

impl fmt::Display for AddressKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ThisMachine => "this machine",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud's metadata",
            Self::NoHost => "no single host",
            Self::Translator => "an unknown place behind a translator",
        })
    }
}

impl Guard {
    /// Forbids what is nearer than the network, unless `allow_private`.
    #[must_use]
    pub fn new(allow_private: bool) -> Self {
        Self { allow_private }
    }

    /// Judges what an address says by itself, before a name is resolved.
    ///
    /// # Errors
    /// Why it may not be fetched.
    pub fn judge(&self, target: &Uri) -> Result<(), TargetRefused> {
        if !matches!(target.scheme_str(), Some("http" | "https")) {
            return Err(TargetRefused::Scheme);
        }
        let authority = target.authority().ok_or(TargetRefused::Host)?;
        // Readers of URLs differ on where the host begins behind an `@`: one that is judged here could be another that
        // is asked.
        if authority.as_str().contains('@') {
            return Err(TargetRefused::UserInformation);
        }
        let host = authority.host();
        if let Some(inner) = host.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(TargetRefused::Host)?;
            // A zone (`%eth0`) does not parse, and only link-local addresses have one.
            let address =
                inner.parse::<std::net::Ipv6Addr>().map_err(|_| TargetRefused::OddAddress(host.to_owned()))?;
            return self.judge_address(host, address.into());
        }
        if host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
            return Err(TargetRefused::Host);
        }
        if let Ok(address) = host.parse::<std::net::Ipv4Addr>() {
            return self.judge_address(host, address.into());
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        if ends_in_a_number(name) {
            return Err(TargetRefused::OddAddress(host.to_owned()));
        }
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.eq_ignore_ascii_case("localhost") {
            // RFC 6761, 6.3: always this machine, whatever a name server says.
            return self.judge_address(host, std::net::Ipv4Addr::LOCALHOST.into());
        }
        Ok(())
    }

    /// Judges an address that `host` leads to.
    ///
    /// # Errors
    /// When it may not be connected to.
    pub fn judge_address(&self, host: &str, address: IpAddr) -> Result<(), TargetRefused> {
        match address::place(address) {
            None => Ok(()),
            Some(
                AddressKind::ThisMachine | AddressKind::LinkLocal | AddressKind::Metadata | AddressKind::Translator,
            ) if self.allow_private => Ok(()),
            Some(kind) => Err(TargetRefused::Address { host: host.to_owned(), address, kind }),
        }
    }
}

/// The last cause of a failed exchange: the one that says what happened.
pub(crate) fn innermost<'e>(error: &'e (dyn std::error::Error + 'static)) -> &'e (dyn std::error::Error + 'static) {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause
}

/// Whether some reader takes this name for an IPv4 address: its last part is a number (WHATWG URL, "ends in a number").
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()),
    }
}
