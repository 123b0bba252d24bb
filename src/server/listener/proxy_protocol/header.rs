//! The header's two forms, as the specification has them and in no other (haproxy.org: proxy-protocol.txt).
//!
//! Invariant: what is accepted could have been written by a balancer that keeps to it: no leading zero, no second
//! blank, no other case.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::HeaderFault as Fault;

/// Bytes of a line of version 1, its end included: the longest that there can be (section 2.1).
pub(super) const V1_MOST: usize = 107;
/// Bytes of version 2 before what its length counts.
pub(super) const V2_FIXED: usize = 16;
/// Bytes of a header of version 2. Addresses have 216 at most; the rest is TLVs, which balancers keep short of a
/// packet.
pub(super) const V2_MOST: usize = 4096;

const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Whose connection it is, by the balancer's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    /// The caller.
    pub(super) source: SocketAddr,
    /// Where the caller connected.
    pub(super) destination: SocketAddr,
}

/// Whether a line may go on so.
pub(super) fn v1_begins(line: &[u8]) -> Result<(), Fault> {
    let word = b"PROXY ";
    let length = line.len().min(word.len());
    if line[..length] == word[..length] { Ok(()) } else { Err(Fault::Missing) }
}

/// What a line announces; `None`: nothing.
///
/// # Errors
/// What is wrong with it.
pub(super) fn v1(line: &[u8]) -> Result<Option<Announced>, Fault> {
    v1_begins(line)?;
    let line = line.strip_suffix(b"\r\n").ok_or(Fault::Malformed("it does not end in CR LF"))?;
    if line == b"PROXY UNKNOWN" || line.starts_with(b"PROXY UNKNOWN ") {
        return Ok(None);
    }
    let line = std::str::from_utf8(line).map_err(|_| Fault::Malformed("it is not ASCII"))?;
    let words: Vec<&str> = line.split(' ').collect();
    let &["PROXY", family, source, destination, source_port, destination_port] = &words[..] else {
        return Err(Fault::Malformed("it has not its six words"));
    };
    let address: fn(&str) -> Option<IpAddr> = match family {
        "TCP4" => |text| text.parse().map(IpAddr::V4).ok(),
        "TCP6" => |text| text.parse().map(IpAddr::V6).ok(),
        _ => return Err(Fault::Malformed("its protocol is not TCP4, TCP6 or UNKNOWN")),
    };
    let at = |ip: &str, number: &str| Some(SocketAddr::new(address(ip)?, port(number)?));
    match (at(source, source_port), at(destination, destination_port)) {
        (Some(source), Some(destination)) => Ok(Some(Announced { source, destination })),
        _ => Err(Fault::Malformed("an address or a port is none")),
    }
}

/// A number from 0 to 65535, without leading zeros.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

/// Whether a header may go on so.
pub(super) fn v2_begins(header: &[u8]) -> Result<(), Fault> {
    let length = header.len().min(V2_SIGNATURE.len());
    if header[..length] != V2_SIGNATURE[..length] {
        return Err(Fault::Missing);
    }
    match header.get(V2_SIGNATURE.len()) {
        Some(0x20 | 0x21) | None => Ok(()),
        Some(_) => Err(Fault::Malformed("its version or its command is unknown")),
    }
}

/// How many bytes follow the fixed part.
pub(super) fn v2_rest(fixed: &[u8]) -> usize {
    fixed.get(14..V2_FIXED).map_or(0, |length| usize::from(u16::from_be_bytes([length[0], length[1]])))
}

/// What a whole header announces; `None`: nothing.
///
/// # Errors
/// What is wrong with it.
pub(super) fn v2(header: &[u8]) -> Result<Option<Announced>, Fault> {
    v2_begins(header)?;
    let (Some(fixed), Some(rest)) = (header.get(..V2_FIXED), header.get(V2_FIXED..)) else {
        return Err(Fault::Malformed("it is cut"));
    };
    if rest.len() != v2_rest(fixed) {
        return Err(Fault::Malformed("it is cut"));
    }
    let (is_local, family) = (fixed[12] == 0x20, fixed[13]);
    let short = Fault::Malformed("it is too short for its addresses");
    match family {
        // The balancer's own: it looks whether we live.
        _ if is_local => Ok(None),
        0x11 => {
            let (ips, ports) = rest.split_first_chunk::<8>().ok_or(short)?;
            let ip = |at: usize| Ipv4Addr::new(ips[at], ips[at + 1], ips[at + 2], ips[at + 3]).into();
            announced(ip(0), ip(4), ports).ok_or(short).map(Some)
        }
        0x21 => {
            let (source, rest) = rest.split_first_chunk::<16>().ok_or(short)?;
            let (destination, ports) = rest.split_first_chunk::<16>().ok_or(short)?;
            announced(Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into(), ports).ok_or(short).map(Some)
        }
        // Two paths of 108 bytes: callers on the balancer's own machine.
        0x31 | 0x32 if rest.len() < 216 => Err(short),
        // And what is no connection: datagrams. To be taken as if nothing were announced (section 2.2).
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => Ok(None),
        _ => Err(Fault::Malformed("its address family is unknown")),
    }
}

fn announced(source: IpAddr, destination: IpAddr, ports: &[u8]) -> Option<Announced> {
    let [a, b, c, d, ..] = *ports else { return None };
    let at = |ip, port| SocketAddr::new(ip, u16::from_be_bytes(port));
    Some(Announced { source: at(source, [a, b]), destination: at(destination, [c, d]) })
}
