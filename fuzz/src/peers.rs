//! Names of peers: SPIFFE IDs of callers, and what `no_proxy` lets the gateway reach directly.
//!
//! Input: a SPIFFE ID; also, an entry of `no_proxy`, a line break, a URL.

use hyper::Uri;
use rtm_gateway::kernel::names::SpiffeId;
use rtm_gateway::upstream::pool::fuzzing::is_direct;

/// Takes any bytes; panics when a promise is broken.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(id) = SpiffeId::parse(text) {
        assert_eq!(id.as_str(), text);
        // Any reader of URIs sees the same trust domain and path, and nothing beside them.
        let uri: Uri = text.parse().expect("a SPIFFE ID is a URI");
        let host = uri.host().expect("a trust domain");
        assert_eq!(format!("spiffe://{host}{}", uri.path()), text);
        assert!(uri.port().is_none() && uri.query().is_none() && uri.path().len() > 1);
        assert!(uri.path().split('/').skip(1).all(|segment| !matches!(segment, "" | "." | "..")));
    }
    let (entry, to) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(to) = to.parse::<Uri>() else { return };
    let Some(host) = to.host() else { return };
    let direct = is_direct(&[entry.to_owned()], &to);
    assert!(is_direct(&["*".to_owned()], &to) && !is_direct(&[], &to));
    assert_eq!(is_direct(&[String::new(), entry.to_owned(), "/".to_owned()], &to), direct, "entries stand alone");
    if direct {
        // An entry is all, an address or network, or a name at the host's end.
        let host = host.trim_matches(['[', ']', '.']).to_ascii_lowercase();
        let name =
            entry.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(entry, |(name, _)| name);
        let name = name.trim_matches(['[', ']', '.']).to_ascii_lowercase();
        let is_name = host == name || host.ends_with(&format!(".{name}"));
        let is_network = name.split('/').next().is_some_and(|net| net.parse::<std::net::IpAddr>().is_ok())
            || entry.split('/').next().is_some_and(|net| net.parse::<std::net::IpAddr>().is_ok());
        assert!(name == "*" || is_name || (is_network && host.parse::<std::net::IpAddr>().is_ok()), "{entry} for {to}");
    }
}
