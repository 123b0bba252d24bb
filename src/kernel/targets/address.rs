//! Which addresses lead nearer than the network.
//!
//! Invariant: an IPv6 address that carries an IPv4 address (RFC 4291 2.5.5, RFC 3056, RFC 5214, RFC 6052, RFC 7915) is
//! what that address is; where what it carries cannot be read for sure it is [`AddressKind::Translator`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::AddressKind;

/// What is at a forbidden address; `None` for one that may be anybody's.
pub(super) fn place(address: IpAddr) -> Option<AddressKind> {
    match address {
        IpAddr::V4(v4) => place_v4(v4),
        IpAddr::V6(v6) => place_v6(v6),
    }
}

fn place_v4(address: Ipv4Addr) -> Option<AddressKind> {
    match address.octets() {
        // "This host on this network" (RFC 1122, 3.2.1.3): connecting to it connects to loopback.
        [0 | 127, ..] => Some(AddressKind::ThisMachine),
        [169, 254, ..] => Some(AddressKind::LinkLocal),
        // Alibaba Cloud; Azure's wire server; Oracle Cloud. (Most others use 169.254.169.254.)
        [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192] => Some(AddressKind::Metadata),
        // Multicast, reserved, broadcast; protocol assignments (RFC 6890); 6to4 relays (RFC 7526).
        [224..=255, ..] | [192, 0, 0, _] | [192, 88, 99, _] => Some(AddressKind::NoHost),
        _ => None,
    }
}

fn place_v6(address: Ipv6Addr) -> Option<AddressKind> {
    let s = address.segments();
    let inner = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Some(AddressKind::ThisMachine),
        // Compatible (deprecated), mapped, translated (SIIT), NAT64's well-known prefix.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => place_v4(inner(high, low)),
        // NAT64 with a network's own prefix (RFC 8215), where the IPv4 address lies is its secret. Teredo.
        [0x64, 0xff9b, 1, ..] | [0x2001, 0, ..] => Some(AddressKind::Translator),
        // 6to4.
        [0x2002, high, low, ..] => place_v4(inner(high, low)),
        // AWS (IMDS is fd00:ec2::254), Google Cloud.
        [0xfd00, 0x0ec2, ..] | [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254] => Some(AddressKind::Metadata),
        [0xfe80..=0xfeff, ..] => Some(AddressKind::LinkLocal),
        [0xff00..=0xffff, ..] => Some(AddressKind::NoHost),
        // ISATAP.
        [_, _, _, _, 0 | 0x0200, 0x5efe, high, low] => place_v4(inner(high, low)),
        _ => None,
    }
}
