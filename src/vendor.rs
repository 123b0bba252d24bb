//! The vendor's wire formats: how its requests are built and its responses read, for anyRTC and its sister Agora.
//!
//! Facts restated here, with their source: the vendor's page "events and history query RESTful API" (2022-09-20) unless
//! marked *field* (seen in its sibling documents, its token builder, or public client code). Readers are tolerant: new
//! members and new types pass through unchanged.
//!
//! - base URL `https://api.agrtc.cn/dev/v2/project/<appid>`; *field*: Agora at `https://api.agora.io`, same paths
//! - Basic `api_key:api_secret`, or `x-ar-token` and `x-ar-uid` (*field*: `x-agora-token`, `x-agora-uid`)
//! - times in seconds since 1970 (*field*: Agora takes ISO-8601)

pub mod events;
pub mod history;
pub mod order;

use hyper::StatusCode;
use hyper::header::HeaderName;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use self::order::{Message, Operation};
use crate::kernel::names::{AppId, Stream};

/// Which vendor's dialect is spoken (`upstream.vendor`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vendor {
    /// anyRTC.
    #[default]
    AnyRtc,
    /// Agora.
    Agora,
}

/// All but RFC 3986's unreserved characters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Vendor {
    /// The name in configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AnyRtc => "anyrtc",
            Self::Agora => "agora",
        }
    }

    /// Where its API is.
    #[must_use]
    pub fn base_url(self) -> &'static str {
        match self {
            Self::AnyRtc => "https://api.agrtc.cn",
            Self::Agora => "https://api.agora.io",
        }
    }

    /// The header that carries a token.
    #[must_use]
    pub fn token_header(self) -> HeaderName {
        HeaderName::from_static(match self {
            Self::AnyRtc => "x-ar-token",
            Self::Agora => "x-agora-token",
        })
    }

    /// The header that carries the uid a token was made for.
    #[must_use]
    pub fn uid_header(self) -> HeaderName {
        HeaderName::from_static(match self {
            Self::AnyRtc => "x-ar-uid",
            Self::Agora => "x-agora-uid",
        })
    }
}

/// The path and query of an operation, percent-encoded: built from its values, never pasted. The vendor's words stand
/// here as literals and nowhere else: what we call an endpoint or a stream elsewhere may be renamed, its address may
/// not.
#[must_use]
pub fn target(app: &AppId, operation: &Operation) -> String {
    // Room for most of them, so that it does not grow piece by piece.
    let mut path = String::with_capacity(128);
    for piece in ["/dev/v2/project/", app.as_str(), "/rtm/"] {
        path.push_str(piece);
    }
    match operation {
        Operation::ReadEvents(Stream::UserEvents) => path.push_str("vendor/user_events"),
        Operation::ReadEvents(Stream::ChannelEvents) => path.push_str("vendor/channel_events"),
        Operation::CreateHistory(_) => path.push_str("message/history/query"),
        Operation::FetchHistory(handle) => {
            path.push_str("message/history/query/");
            push_segment(&mut path, handle);
        }
        Operation::CountHistory(query) => {
            path.push_str("message/history/count");
            push_query(&mut path, query);
        }
        Operation::PeerMessage(message) => push_message(&mut path, message, "/peer_messages"),
        Operation::ChannelMessage(message) => push_message(&mut path, message, "/channel_messages"),
    }
    path
}

fn push_message(path: &mut String, message: &Message, end: &str) {
    path.push_str("users/");
    push_segment(path, &message.user);
    path.push_str(end);
    push_query(path, &message.query);
}

fn push_segment(path: &mut String, value: &str) {
    // A segment of dots alone would be a dot segment even percent-encoded: such values are refused at the route.
    path.extend(utf8_percent_encode(value, SEGMENT));
}

fn push_query(path: &mut String, query: &[(String, String)]) {
    if !query.is_empty() {
        path.push('?');
        let pairs = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        path.push_str(&pairs);
    }
}

/// Whether a status is the vendor's word about the caller's own request, which comes back as it is: what its page
/// documents (400, 404, 408, 410), and what it says to a body or an account that it cannot take (415, 435).
#[must_use]
pub fn is_for_the_caller(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 404 | 408 | 410 | 415 | 435)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_into_the_path_and_cannot_leave_their_segment() {
        let app = AppId::parse("a1").unwrap();
        let fetch = Operation::FetchHistory("MjIz/../x?y==".into());
        assert_eq!(target(&app, &fetch), "/dev/v2/project/a1/rtm/message/history/query/MjIz%2F..%2Fx%3Fy%3D%3D");
        let message = Message {
            user: "用户 7".into(),
            query: vec![("wait_for_ack".into(), "true&x".into())],
            body: bytes::Bytes::new(),
        };
        assert_eq!(
            target(&app, &Operation::PeerMessage(message)),
            "/dev/v2/project/a1/rtm/users/%E7%94%A8%E6%88%B7%207/peer_messages?wait_for_ack=true%26x"
        );
        assert_eq!(
            target(&app, &Operation::ReadEvents(Stream::UserEvents)),
            "/dev/v2/project/a1/rtm/vendor/user_events"
        );
    }

    /// The vendor's page, word for word. Whoever renames a label of ours must not come by here.
    #[test]
    fn every_operation_goes_to_the_address_on_the_vendors_page() {
        let message = Message { user: "u".into(), query: Vec::new(), body: bytes::Bytes::new() };
        for (operation, end) in [
            (Operation::ReadEvents(Stream::UserEvents), "vendor/user_events"),
            (Operation::ReadEvents(Stream::ChannelEvents), "vendor/channel_events"),
            (Operation::CreateHistory(bytes::Bytes::new()), "message/history/query"),
            (Operation::FetchHistory("h".into()), "message/history/query/h"),
            (Operation::CountHistory(vec![("source".into(), "u".into())]), "message/history/count?source=u"),
            (Operation::PeerMessage(message.clone()), "users/u/peer_messages"),
            (Operation::ChannelMessage(message), "users/u/channel_messages"),
        ] {
            assert_eq!(target(&AppId::parse("a1").unwrap(), &operation), format!("/dev/v2/project/a1/rtm/{end}"));
        }
    }
}
