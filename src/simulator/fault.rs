//! What can go wrong with one request, in words a test, the control API and the configuration share.
//!
//! "Counted" is the instant at which the vendor counts a request against its limit; "acted" means that the request had
//! its effect (events were removed, a handle died, a message was stored). Unless a fault says otherwise, a request is
//! counted, acted on and answered.

use std::time::Duration;

use serde::Deserialize;

use super::coding::Coding;

/// One thing that goes wrong. Several at once: [`Fault::All`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Waits before the request is counted.
    DelayBefore(#[serde(with = "super::units")] Duration),
    /// Waits after the request was counted and acted on, before it is answered.
    DelayAfter(#[serde(with = "super::units")] Duration),
    /// As `DelayBefore`, for a random time up to this.
    JitterBefore(#[serde(with = "super::units")] Duration),
    /// As `DelayAfter`, for a random time up to this.
    JitterAfter(#[serde(with = "super::units")] Duration),
    /// The connection ends (FIN) before the request is counted.
    DropBefore,
    /// The connection ends (FIN) after the request was counted and acted on.
    DropAfter,
    /// As `DropBefore`, with a reset (RST).
    ResetBefore,
    /// As `DropAfter`, with a reset (RST).
    ResetAfter,
    /// HTTP/2's REFUSED_STREAM, before the request is counted. On HTTP/1.1 as `DropBefore`.
    RefuseStream,
    /// HTTP/2's GOAWAY that names the request before this one as the last, before this one is counted: it and those
    /// after it on the connection are not processed; those before it are answered, and then the connection ends. Where
    /// a later one was begun already, GOAWAY names that, and this one is processed as well. On HTTP/1.1 as
    /// `DropBefore`.
    GoAway,
    /// Counted and acted on, never answered; the connection stays open.
    Hang,
    /// Counted and acted on; the head and the first bytes of the body go out, then the connection ends.
    CutBody {
        /// How many bytes of the body go out.
        keep: usize,
    },
    /// As `CutBody`, but the connection stays open and silent.
    StallBody {
        /// How many bytes of the body go out.
        keep: usize,
    },
    /// The body goes out without a `Content-Length` (chunked in HTTP/1.1).
    Chunked,
    /// The body goes out behind a byte order mark.
    Marked,
    /// The body goes out in a content coding that nobody asked for.
    Encoded(Coding),
    /// The answer goes out whole, followed by so many bytes of blanks, which JSON allows.
    Pad(usize),
    /// The body goes out in pieces.
    Drip {
        /// Bytes of a piece.
        bytes: usize,
        /// Between pieces.
        #[serde(with = "super::units")]
        every: Duration,
    },
    /// The connection ends after the answer, without a word about it in the answer.
    CloseAfter,
    /// This is answered instead.
    Answer(Canned),
    /// All of these.
    All(Vec<Fault>),
}

/// A canned answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canned {
    pub status: u16,
    /// `Content-Type`; none is sent if empty.
    #[serde(default = "json")]
    pub content_type: String,
    /// `Retry-After`, as it stands.
    #[serde(default)]
    pub retry_after: Option<String>,
    /// The body. Does not go through any check.
    #[serde(default)]
    pub body: String,
    /// Whether the request had its effect all the same.
    #[serde(default)]
    pub acted: bool,
}

fn json() -> String {
    "application/json".to_owned()
}

impl Fault {
    /// This status with a body like the vendor's; the request had no effect.
    #[must_use]
    pub fn status(status: u16) -> Self {
        let body = format!(r#"{{"result":"failed","code":"simulated","status":{status}}}"#);
        Self::Answer(Canned { status, content_type: json(), retry_after: None, body, acted: false })
    }

    /// This status, though the request had its effect.
    #[must_use]
    pub fn status_but_acted(status: u16) -> Self {
        match Self::status(status) {
            Self::Answer(canned) => Self::Answer(Canned { acted: true, ..canned }),
            other => other,
        }
    }

    /// 429 with this `Retry-After`; the request had no effect.
    #[must_use]
    pub fn too_many(retry_after: Option<&str>) -> Self {
        match Self::status(429) {
            Self::Answer(canned) => Self::Answer(Canned { retry_after: retry_after.map(str::to_owned), ..canned }),
            other => other,
        }
    }

    /// 200 with this body, which is not what was asked for; the request had its effect.
    #[must_use]
    pub fn garbage(body: &str) -> Self {
        Self::Answer(Canned {
            status: 200,
            content_type: json(),
            retry_after: None,
            body: body.to_owned(),
            acted: true,
        })
    }

    /// Its kind's name, for counting.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::DelayBefore(_) => "delay_before",
            Self::DelayAfter(_) => "delay_after",
            Self::JitterBefore(_) => "jitter_before",
            Self::JitterAfter(_) => "jitter_after",
            Self::DropBefore => "drop_before",
            Self::DropAfter => "drop_after",
            Self::ResetBefore => "reset_before",
            Self::ResetAfter => "reset_after",
            Self::RefuseStream => "refuse_stream",
            Self::GoAway => "go_away",
            Self::Hang => "hang",
            Self::CutBody { .. } => "cut_body",
            Self::StallBody { .. } => "stall_body",
            Self::Chunked => "chunked",
            Self::Marked => "marked",
            Self::Encoded(_) => "encoded",
            Self::Pad(_) => "pad",
            Self::Drip { .. } => "drip",
            Self::CloseAfter => "close_after",
            Self::Answer(_) => "answer",
            Self::All(_) => "all",
        }
    }

    /// Several at once.
    #[must_use]
    pub fn all(faults: impl IntoIterator<Item = Self>) -> Self {
        Self::All(faults.into_iter().collect())
    }
}
