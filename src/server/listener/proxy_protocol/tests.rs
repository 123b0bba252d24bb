use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::header::{v1, v2};
use super::*;
use crate::kernel::metrics::Metrics;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn said(source: &str, destination: &str) -> Result<Option<Announced>, HeaderFault> {
    Ok(Some(Announced { source: source.parse().unwrap(), destination: destination.parse().unwrap() }))
}

/// A header of version 2 as its writers make it.
fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[0x20 | command, family], &length, rest].concat()
}

fn addresses(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let ip = |at: SocketAddr| match at.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    [ip(source), ip(destination), ports].concat()
}

#[test]
fn a_line_is_read_as_the_specification_has_it_and_in_no_other_form() {
    for (line, expected) in [
        ("PROXY TCP4 192.0.2.7 198.51.100.1 49152 443\r\n", said("192.0.2.7:49152", "198.51.100.1:443")),
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            said("255.255.255.255:65535", "255.255.255.255:65535"),
        ),
        ("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", said("0.0.0.0:0", "0.0.0.0:0")),
        ("PROXY TCP6 2001:db8::7 ::1 1 2\r\n", said("[2001:db8::7]:1", "[::1]:2")),
        ("PROXY UNKNOWN\r\n", Ok(None)),
        ("PROXY UNKNOWN ffff::1 what ever 1  2\r\n", Ok(None)),
    ] {
        assert_eq!(v1(line.as_bytes()), expected, "{line:?}");
    }
    for line in [
        "PROXY TCP4 192.0.2.7 198.51.100.1 49152 443\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 49152 443 \r\n",
        "PROXY TCP4  192.0.2.7 198.51.100.1 49152 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 49152\r\n",
        "PROXY TCP4 192.0.2.007 198.51.100.1 49152 443\r\n",
        "PROXY TCP4 192.0.2 198.51.100.1 49152 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 049152 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 +1 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        "PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
        "PROXY tcp4 192.0.2.7 198.51.100.1 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY \r\n",
    ] {
        assert!(matches!(v1(line.as_bytes()), Err(HeaderFault::Malformed(_))), "{line:?}");
    }
    for line in ["proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n", "GET / HTTP/1.1\r\n", "\r\n", " PROXY UNKNOWN\r\n"] {
        assert_eq!(v1(line.as_bytes()), Err(HeaderFault::Missing), "{line:?}");
    }
}

#[test]
fn the_binary_form_is_read_whatever_stands_behind_its_addresses() {
    let (source, destination) = ("192.0.2.7:49152".parse().unwrap(), "198.51.100.1:443".parse().unwrap());
    let (source6, destination6) = ("[2001:db8::7]:1".parse().unwrap(), "[::1]:2".parse().unwrap());
    let announced = |source, destination| Ok(Some(Announced { source, destination }));
    let tlv: &[u8] = &[0xea, 0, 3, 1, 2, 3];
    let (tcp4, tcp6) = (addresses(source, destination), addresses(source6, destination6));
    let malformed = |read: &Result<Option<Announced>, HeaderFault>| matches!(read, Err(HeaderFault::Malformed(_)));
    assert_eq!(v2(&header(1, 0x11, &tcp4)), announced(source, destination));
    assert_eq!(v2(&header(1, 0x11, &[&tcp4, tlv].concat())), announced(source, destination));
    assert_eq!(v2(&header(1, 0x21, &[&tcp6, tlv].concat())), announced(source6, destination6));
    // Nothing is announced: a look whether we live, callers by a Unix socket, datagrams, an unknown kind.
    for nothing in [
        header(0, 0x11, &tcp4),
        header(0, 0, &[]),
        header(0, 0xff, tlv),
        header(1, 0, &[]),
        header(1, 0, tlv),
        header(1, 0x31, &[0; 216]),
        header(1, 0x12, &tcp4),
    ] {
        assert_eq!(v2(&nothing), Ok(None), "{nothing:?}");
    }
    for wrong in [
        header(2, 0x11, &tcp4),
        header(1, 0x13, &tcp4),
        header(1, 0x41, &tcp4),
        header(1, 0x11, &tcp4[..11]),
        header(1, 0x21, &tcp6[..35]),
        header(1, 0x31, &[0; 215]),
        header(1, 0x11, &tcp4)[..27].to_vec(),
        [&header(1, 0x11, &tcp4)[..], b"x"].concat(),
    ] {
        assert!(malformed(&v2(&wrong)), "{wrong:?}");
    }
    assert!(malformed(&v2(&[SIGNATURE, &[0x11, 0x11, 0, 12], &tcp4].concat())), "version 1 in the form of version 2");
    assert_eq!(v2(b"PROXY UNKNOWN\r\nxxxxxxxx"), Err(HeaderFault::Missing));
}

properties! {
    /// What a balancer writes is read as it means it, and nothing else is.
    #[test]
    fn whatever_is_announced_is_read_back(source: (IpAddr, u16), destination: (IpAddr, u16), tlvs: Vec<u8>) {
        let (source, destination) = (SocketAddr::from(source), SocketAddr::from(destination));
        prop_assume!(tlvs.len() < 4000);
        let announced = Ok(Some(Announced { source, destination }));
        let is_one_family = source.is_ipv4() == destination.is_ipv4();
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let line = format!(
            "PROXY {family} {} {} {} {}\r\n", source.ip(), destination.ip(), source.port(), destination.port()
        );
        prop_assert!(line.len() <= V1_MOST);
        let read = v1(line.as_bytes());
        if is_one_family {
            prop_assert_eq!(read, announced);
            let family = if source.is_ipv4() { 0x11 } else { 0x21 };
            let written = header(1, family, &[addresses(source, destination), tlvs].concat());
            prop_assert_eq!(v2(&written), announced);
            prop_assert!(v2(&written[..written.len() - 1]).is_err());
        } else {
            prop_assert!(read.is_err());
        }
    }

    /// No bytes are a header by chance, and none make us panic.
    #[test]
    fn what_is_no_header_is_refused(bytes: Vec<u8>, at: usize, with: u8) {
        prop_assert!(v1(&bytes).is_err() && v2(&bytes).is_err());
        let mut turned = header(1, 0x11, &[7; 12]);
        let at = at % 14;
        prop_assume!(turned[at] != with);
        turned[at] = with;
        // Another command, or another family, may be one.
        let may_be = at >= 12;
        prop_assert!(may_be || v2(&turned).is_err());
    }
}

/// A connection whose far end writes this, and what was read of it: its peer and what stands behind the header.
async fn read(protocol: ProxyProtocol, pieces: &[&[u8]], behind: usize) -> (Metrics, Option<(Peer, Vec<u8>)>) {
    let metrics = Metrics::new();
    let reader = HeaderReader::new(protocol, &metrics).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    far.set_nodelay(true).unwrap();
    let (near, from) = listener.accept().await.unwrap();
    let conn = Conn::new(Peer::Tcp(from), None);
    let writing = async {
        for piece in pieces {
            far.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        far.shutdown().await.unwrap();
        far
    };
    let reading = reader.read(Tcp::new(near), conn, Duration::from_secs(60));
    let (_far, read) = tokio::join!(writing, reading);
    let Some((mut tcp, conn)) = read else { return (metrics, None) };
    let mut rest = vec![0; behind];
    tcp.read_exact(&mut rest).await.unwrap();
    assert_eq!(tcp.read(&mut [0]).await.unwrap(), 0, "nothing was left out or added");
    (metrics, Some((conn.peer, rest)))
}

#[tokio::test]
async fn exactly_the_header_is_taken_however_it_is_cut() {
    let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 49152 443\r\n".to_vec();
    let (source, destination) = ("192.0.2.7:49152".parse().unwrap(), "198.51.100.1:443".parse().unwrap());
    let binary = header(1, 0x11, &[addresses(source, destination), vec![0; 300]].concat());
    let behind = b"\r\n\x16PROXY UNKNOWN\r\n";
    for (protocol, header) in [(ProxyProtocol::V1, &line), (ProxyProtocol::V2, &binary)] {
        let whole = [header, &behind[..]].concat();
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        let mut cuts: Vec<Vec<&[u8]>> = vec![vec![&whole], bytes];
        cuts.extend((1..header.len() + 2).map(|at| vec![&whole[..at], &whole[at..]]));
        for pieces in cuts {
            let (_, found) = read(protocol, &pieces, behind.len()).await;
            assert_eq!(found, Some((Peer::Tcp(source), behind.to_vec())), "{pieces:?}");
        }
    }
}

#[tokio::test]
async fn what_does_not_begin_with_its_header_is_over_and_counted_by_what_was_wrong() {
    let long = [b"PROXY UNKNOWN ", &[b'x'; 100][..], b"\r\n"].concat();
    let longest = [b"PROXY UNKNOWN ", &[b'x'; 91][..], b"\r\n"].concat();
    assert_eq!(longest.len(), V1_MOST);
    assert!(read(ProxyProtocol::V1, &[&longest], 0).await.1.is_some());
    let too_long = header(1, 0, &[0; V2_MOST]);
    let v2 = header(1, 0, &[]);
    for (protocol, bytes, reason) in [
        (ProxyProtocol::V1, &b"GET / HTTP/1.1\r\n\r\n"[..], "missing"),
        (ProxyProtocol::V1, &v2, "missing"),
        (ProxyProtocol::V2, b"PROXY UNKNOWN\r\n", "missing"),
        (ProxyProtocol::V2, b"\x16\x03\x01", "missing"),
        (ProxyProtocol::V1, b"PROXY TCP4 a b c d\r\n", "malformed"),
        (ProxyProtocol::V2, &header(3, 0, &[]), "malformed"),
        (ProxyProtocol::V1, &long, "too_long"),
        (ProxyProtocol::V2, &too_long, "too_long"),
        (ProxyProtocol::V1, b"PROXY UNKN", "gone"),
        (ProxyProtocol::V2, &v2[..13], "gone"),
        (ProxyProtocol::V2, b"", "gone"),
    ] {
        let (metrics, found) = read(protocol, &[bytes], 0).await;
        assert_eq!(found, None, "{bytes:?}");
        let text = metrics.text();
        let line = format!("rtm_gateway_proxy_protocol_refused_total{{reason=\"{reason}\"}} 1");
        assert!(text.contains(&line), "{bytes:?}: {text}");
    }
}

#[tokio::test]
async fn a_header_that_does_not_end_is_waited_for_no_longer_than_a_head() {
    let metrics = Metrics::new();
    let reader = HeaderReader::new(ProxyProtocol::V2, &metrics).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    far.write_all(&SIGNATURE[..5]).await.unwrap();
    let (near, from) = listener.accept().await.unwrap();
    let conn = Conn::new(Peer::Tcp(from), None);
    assert!(reader.read(Tcp::new(near), conn, Duration::from_millis(20)).await.is_none());
    assert!(metrics.text().contains(r#"proxy_protocol_refused_total{reason="timed_out"} 1"#));
    assert_eq!(far.read(&mut [0; 9]).await.unwrap_or(0), 0, "without a word");
}
