//! What a request's head shows of who calls, before anybody judges it.
//!
//! Invariants: `X-API-Key` alone decides when it is there, because old software may go on sending the vendor's
//! `Authorization`. A header given twice proves nothing: which one a proxy before us looked at cannot be known.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName};
use zeroize::Zeroizing;

use super::auth_method::KeyHeader;
use crate::http::headers::X_API_KEY;

/// What a head shows.
pub(super) enum Credential<'a> {
    Nothing,
    /// Something, but nothing that can be read.
    Wrong,
    /// A key, in `X-API-Key`.
    Key(&'a str),
    /// A key or a token, as a Bearer.
    Bearer(&'a str),
    /// `NAME:KEY`, of Basic.
    Pair(Zeroizing<String>),
}

impl<'a> Credential<'a> {
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        match (single(headers, &X_API_KEY), single(headers, &AUTHORIZATION)) {
            (Single::One(key), _) => Self::Key(key),
            (Single::Bad, _) | (Single::Absent, Single::Bad) => Self::Wrong,
            (Single::Absent, Single::One(authorization)) => Self::authorized(authorization),
            (Single::Absent, Single::Absent) => Self::Nothing,
        }
    }

    /// Where a key was shown, if one was.
    pub(super) fn header(&self) -> KeyHeader {
        match self {
            Self::Pair(_) => KeyHeader::Basic,
            Self::Key(_) => KeyHeader::XApiKey,
            Self::Bearer(_) | Self::Nothing | Self::Wrong => KeyHeader::Bearer,
        }
    }

    fn authorized(value: &'a str) -> Self {
        let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        let rest = rest.trim_start();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Self::Bearer(rest);
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Self::Wrong;
        }
        let Ok(pair) = STANDARD.decode(rest).map(Zeroizing::new) else { return Self::Wrong };
        std::str::from_utf8(&pair).map_or(Self::Wrong, |pair| Self::Pair(Zeroizing::new(pair.to_owned())))
    }
}

/// Says which kind it is, never what.
impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Wrong => "Wrong",
            Self::Key(_) => "Key(..)",
            Self::Bearer(_) => "Bearer(..)",
            Self::Pair(_) => "Pair(..)",
        })
    }
}

/// A header that may be given at most once.
enum Single<'a> {
    Absent,
    One(&'a str),
    /// Twice, or not text.
    Bad,
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Single<'a> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (None, _) => Single::Absent,
        (Some(value), None) => value.to_str().map_or(Single::Bad, Single::One),
        (Some(_), Some(_)) => Single::Bad,
    }
}
