//! The vendor's URL space, taken literally: one spelling of each path and no other.

use hyper::{Method, StatusCode, Uri};
use percent_encoding::percent_decode_str;

use super::Endpoint;
use crate::kernel::names::Stream;

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Events(Stream),
    Create,
    Fetch(String),
    Count,
    Peer(String),
    Channel(String),
}

impl Call {
    pub(super) fn endpoint(&self) -> Endpoint {
        match self {
            Self::Events(stream) => Endpoint::from(*stream),
            Self::Create => Endpoint::HistoryCreate,
            Self::Fetch(_) => Endpoint::HistoryGet,
            Self::Count => Endpoint::HistoryCount,
            Self::Peer(_) => Endpoint::PeerMessages,
            Self::Channel(_) => Endpoint::ChannelMessages,
        }
    }
}

/// A target that is not one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoTarget {
    pub(super) status: StatusCode,
    pub(super) why: String,
}

fn no(status: StatusCode, why: impl Into<String>) -> NoTarget {
    NoTarget { status, why: why.into() }
}

/// Reads a target. Says the app and what is asked of it.
pub(super) fn parse(method: &Method, uri: &Uri) -> Result<(String, Call), NoTarget> {
    let path = uri.path();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let call = match segments.as_slice() {
        ["dev", "v2", "project", app, "rtm", rest @ ..] if is_app(app) => match rest {
            ["vendor", "user_events"] => Some((app, Call::Events(Stream::UserEvents))),
            ["vendor", "channel_events"] => Some((app, Call::Events(Stream::ChannelEvents))),
            ["message", "history", "query"] => Some((app, Call::Create)),
            ["message", "history", "count"] => Some((app, Call::Count)),
            ["message", "history", "query", handle] => Some((app, Call::Fetch(decode(handle)?))),
            ["users", user, "peer_messages"] => Some((app, Call::Peer(decode(user)?))),
            ["users", user, "channel_messages"] => Some((app, Call::Channel(decode(user)?))),
            _ => None,
        },
        _ => None,
    };
    let Some((app, call)) = call else {
        let lower = path.to_ascii_lowercase();
        let why = match &lower {
            _ if lower != path && lower.contains("/rtm/") => "no such path (letter case matters)",
            _ if segments.iter().any(|s| s.is_empty()) => "no such path (an empty segment)",
            _ => "no such path",
        };
        return Err(no(StatusCode::NOT_FOUND, why));
    };
    let expected = match call {
        Call::Events(_) | Call::Fetch(_) | Call::Count => Method::GET,
        Call::Create | Call::Peer(_) | Call::Channel(_) => Method::POST,
    };
    if *method != expected {
        return Err(no(StatusCode::METHOD_NOT_ALLOWED, format!("{method} where only {expected} is known")));
    }
    Ok(((*app).to_owned(), call))
}

fn is_app(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// A segment's value. Refuses what is not its one spelling: unreserved characters stand for themselves, escapes are
/// in capitals (RFC 3986, section 6.2.2).
fn decode(segment: &str) -> Result<String, NoTarget> {
    let bad = |why| no(StatusCode::BAD_REQUEST, why);
    if segment.is_empty() || segment == "." || segment == ".." {
        return Err(bad("an empty or dot segment"));
    }
    for (at, _) in segment.match_indices('%') {
        let hex = segment.get(at + 1..at + 3).ok_or_else(|| bad("a cut escape"))?;
        let byte = u8::from_str_radix(hex, 16).map_err(|_| bad("a broken escape"))?;
        // Two spellings of one path could be two entries in somebody's access rules.
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            return Err(bad("an escaped unreserved character"));
        }
        if hex.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(bad("an escape in small letters"));
        }
    }
    let text = percent_decode_str(segment).decode_utf8().map_err(|_| bad("not UTF-8"))?;
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(target: &str) -> Result<(String, Call), StatusCode> {
        parse(&Method::GET, &target.parse().unwrap()).map_err(|no| no.status)
    }

    #[test]
    fn each_endpoint_has_one_spelling() {
        let app = |call| Ok(("a1".to_owned(), call));
        assert_eq!(get("/dev/v2/project/a1/rtm/vendor/user_events"), app(Call::Events(Stream::UserEvents)));
        assert_eq!(
            get("/dev/v2/project/a1/rtm/message/history/query/MjIz%2FMDA3%3D%3D"),
            app(Call::Fetch("MjIz/MDA3==".into()))
        );
        for wrong in [
            "/dev/v2/project/a1/rtm/vendor/User_events",
            "/dev/v2/project/a1/rtm/vendor/user_events/",
            "/dev/v2/project/a1//rtm/vendor/user_events",
            "/dev/v2/project/a1/x/../rtm/vendor/user_events",
            "/dev/v2/project/a%31/rtm/vendor/user_events",
            "/dev/v2/project/a1/rtm/vendor%2Fuser_events",
        ] {
            assert_eq!(get(wrong), Err(StatusCode::NOT_FOUND), "{wrong}");
        }
        for bad in ["%4d", "%2f", "%zz", "%", "%FF", ".."] {
            let target = format!("/dev/v2/project/a1/rtm/message/history/query/{bad}");
            assert_eq!(get(&target), Err(StatusCode::BAD_REQUEST), "{bad}");
        }
        assert_eq!(get("/dev/v2/project/a1/rtm/message/history/query"), Err(StatusCode::METHOD_NOT_ALLOWED));
    }
}
