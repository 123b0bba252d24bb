//! How each kind of value is read: text with a unit, an address, the name of something.
//!
//! Invariant: what is given back has passed its rule, and a fault says what belongs in the value's place, never what
//! stands there.
//!
//! Durations are humantime's texts (`"250ms"`, `"2s"`, `"1h 30m"`, `"7d"`) from 1 ms to ten years: a shorter one would
//! spin, a longer one would overflow clocks. Sizes are bytesize's texts (`"512B"`, `"1MiB"`, `"10MB"`). Neither is ever
//! a bare number: 30 what? Relative paths are taken from the working directory of the process.

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::Hash;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use hyper::Uri;
use toml::de::DeValue;

use super::Listen;
use super::document::node::Node;
use super::spelling::nearest;
use super::survey::Form;

const SHORTEST: Duration = Duration::from_millis(1);
pub(crate) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl<'d> Node<'d> {
    pub(super) fn text(self) -> Option<&'d str> {
        self.must_be(|| Form::Text);
        match self.value() {
            DeValue::String(text) => Some(text),
            _ => self.fault("must be a text", "Write it in quotes"),
        }
    }

    pub(super) fn flag(self) -> Option<bool> {
        self.must_be(|| Form::Flag);
        match self.value() {
            DeValue::Boolean(flag) => Some(*flag),
            _ => self.fault("must be true or false", "Write it without quotes"),
        }
    }

    /// A whole number of `1..=most`.
    pub(super) fn count(self, most: u32) -> Option<u32> {
        self.number(1, most)
    }

    /// A whole number of `0..=most`.
    pub(super) fn count_or_none(self, most: u32) -> Option<u32> {
        self.number(0, most)
    }

    fn number(self, least: u32, most: u32) -> Option<u32> {
        self.must_be(|| Form::Count { least, most });
        let DeValue::Integer(number) = self.value() else {
            return self.fault("must be a whole number", "Write it without quotes and without a point");
        };
        // TOML has 0x, 0o and 0b, too: the parser took the prefix off, and says the radix.
        let number = i64::from_str_radix(number.as_str(), number.radix()).ok().and_then(|n| u32::try_from(n).ok());
        match number.filter(|n| (least..=most).contains(n)) {
            Some(number) => Some(number),
            None => self.fault(format!("must be {least} to {most}"), "Write a number of that range"),
        }
    }

    pub(super) fn duration(self) -> Option<Duration> {
        self.must_be(|| Form::Duration);
        let (what, like) = ("must be a duration with a unit, as \"2s\"", "Write a number and one of ms, s, m, h, d");
        let DeValue::String(text) = self.value() else { return self.fault(what, like) };
        match parse_duration(text) {
            None => self.fault(what, like),
            Some(d) if d < SHORTEST || d > LONGEST => {
                self.fault("must be 1ms to 3650d", "Write a duration of that range")
            }
            Some(duration) => Some(duration),
        }
    }

    /// A duration, or `"0s"` for off.
    pub(super) fn duration_or_off(self) -> Option<Duration> {
        if self.value().as_str().and_then(parse_duration) == Some(Duration::ZERO) {
            self.must_be(|| Form::Duration);
            return Some(Duration::ZERO);
        }
        self.duration()
    }

    /// A positive number of bytes.
    pub(super) fn size(self) -> Option<u64> {
        self.must_be(|| Form::Size);
        let like = "Write a number and one of B, KiB, MiB, GiB";
        let DeValue::String(text) = self.value() else {
            return self.fault("must be a size with a unit, as \"1MiB\": a bare number does not say of what", like);
        };
        // bytesize reads `10` as ten bytes. Who meant megabytes would learn of it when the first body is refused.
        let has_unit = text.trim_end().ends_with(|c: char| c.is_ascii_alphabetic());
        match ByteSize::from_str(text).ok().filter(|_| has_unit) {
            None => self.fault("must be a size with a unit, as \"1MiB\"", like),
            Some(ByteSize(0)) => self.fault("must be more than nothing", like),
            Some(ByteSize(u64::MAX)) => self.fault("must be less than 16 EiB", like),
            Some(ByteSize(bytes)) => Some(bytes),
        }
    }

    /// One of a few words.
    pub(super) fn one_of<T: Copy>(self, words: &[(&str, T)]) -> Option<T> {
        words.iter().for_each(|(word, _)| self.must_be(|| Form::Word((*word).to_owned())));
        let text = self.value().as_str().unwrap_or_default();
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let mend = match nearest(text, &known) {
            Some(near) => format!("The nearest is \"{near}\""),
            None => "Write one of them, in quotes".to_owned(),
        };
        self.fault(format!("must be one of \"{}\"", known.join("\", \"")), mend)
    }

    /// An array of different values.
    pub(super) fn set<T: Clone + Eq + Hash>(self, like: &str, parse: impl Fn(Self) -> Option<T>) -> Option<Vec<T>> {
        let (mut set, mut there) = (Vec::new(), HashSet::new());
        let mut whole = true;
        for entry in self.entries(like)? {
            match parse(entry.clone()) {
                None => whole = false,
                // Of two equal entries one was meant to be another: the second key of a client, say, was never put in.
                Some(value) if !there.insert(value.clone()) => {
                    whole = false;
                    entry.fault::<()>("is there already", "Leave it out");
                }
                Some(value) => set.push(value),
            }
        }
        whole.then_some(set)
    }

    /// One value, or an array of different ones, at least one.
    pub(super) fn one_or_more<T: Clone + Eq + Hash>(
        self,
        like: &str,
        parse: impl Fn(Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.must_be(|| Form::OneOrMore);
        let DeValue::Array(entries) = self.value() else { return parse(self).map(|value| vec![value]) };
        if entries.is_empty() {
            return self.fault("must not be empty", format!("Write {like}, or leave it out"));
        }
        self.set(like, parse)
    }

    /// A name that has a rule of its own.
    pub(super) fn name<T, E: Display>(self, parse: impl Fn(&str) -> Result<T, E>) -> Option<T> {
        let text = self.clone().text()?;
        parse(text).map_or_else(|why| self.fault(why.to_string(), "Write a name that keeps to it"), Some)
    }

    pub(super) fn listen(self) -> Option<Listen> {
        let text = self.clone().text()?;
        if let Some(path) = text.strip_prefix("unix:") {
            // sockaddr_un holds 108 bytes, the last of them zero.
            if path.is_empty() || path.len() > 107 || path.contains(char::is_control) {
                return self.fault("must be \"unix:\" and a path of 1 to 107 bytes", "Give the socket a shorter path");
            }
            return Some(Listen::Unix(path.into()));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) => Some(Listen::Tcp(address)),
            Err(_) => self.fault(
                "must be an address and a port, as \"127.0.0.1:8080\", or \"unix:/path/to/socket\"",
                "Write the address as numbers; 0.0.0.0 or [::] is every address of the machine",
            ),
        }
    }

    /// A SHA-256 in hex.
    pub(super) fn sha256(self) -> Option<[u8; 32]> {
        // SHA-256 of nothing (FIPS 180-4): as the hash of a key it would let an empty key in.
        const OF_NOTHING: [u8; 4] = [0xe3, 0xb0, 0xc4, 0x42];
        self.must_be(|| Form::Sha256);
        let mend = "`rtm-gateway client-key NAME` makes a key and its SHA-256";
        let text = self.clone().text()?;
        match parse_hex(text) {
            None => self.fault("must be a SHA-256 as 64 hex digits", mend),
            Some(hash) if hash.starts_with(&OF_NOTHING) => self.fault("is the SHA-256 of an empty text", mend),
            Some(hash) => Some(hash),
        }
    }

    /// A vendor's address: scheme and authority, no more.
    pub(super) fn base_url(self) -> Option<Uri> {
        self.must_be(|| Form::Address);
        let text = self.clone().text()?;
        let Some((uri, encrypted)) = parse_base_url(text) else {
            return self.fault(
                "must be http:// or https:// and a host, with a port if need be, as \"https://api.agrtc.cn\"",
                "Leave out path, query, user and password: the gateway writes the path, and [apps.credential] holds the secret",
            );
        };
        if !encrypted && !uri.host().is_some_and(is_loopback) {
            self.warn("is plain http: credentials and messages cross the network in the clear", "Use https");
        }
        Some(uri)
    }

    /// A path of a file or folder, not looked at.
    pub(super) fn path(self) -> Option<PathBuf> {
        let text = self.clone().text()?;
        // A private key in PEM has lines.
        if text.is_empty() || text.contains(char::is_control) {
            return self.fault("must be a path", "Relative paths are taken from the working directory");
        }
        Some(text.into())
    }
}

/// A duration with a unit. Takes any text without a panic.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    // humantime panics where its sum of parts overflows at the last carry; a text that short cannot get there.
    if text.len() > 24 {
        return None;
    }
    humantime::parse_duration(text).ok()
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16).and_then(|d| u8::try_from(d).ok());
        *byte = digit(0)? << 4 | digit(1)?;
    }
    Some(hash)
}

/// The address, and whether it is https.
pub(super) fn parse_base_url(text: &str) -> Option<(Uri, bool)> {
    // Uri drops a fragment without a word.
    if text.contains(['#', '?', '@']) {
        return None;
    }
    let uri: Uri = text.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let encrypted = match scheme.as_str() {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let authority = uri.authority()?;
    let port_is_sane = match authority.as_str().rsplit_once(':') {
        Some((_, after)) if !after.ends_with(']') => after.parse::<u16>().is_ok_and(|port| port > 0),
        _ => true,
    };
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    if !bare || !port_is_sane || authority.host().is_empty() {
        return None;
    }
    let uri = format!("{scheme}://{authority}").parse().ok()?;
    Some((uri, encrypted))
}

pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    address.map_or_else(|_| host == "localhost" || host.ends_with(".localhost"), |ip| ip.to_canonical().is_loopback())
}
