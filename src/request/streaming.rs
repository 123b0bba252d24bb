//! What the open streams of events share: the text that several of them send, and which of a subscription are open.
//!
//! | file | what |
//! | --- | --- |
//! | `text` | events as Server-Sent Events, made once for all who read them |
//! | `stream_session` | which streams of a subscription are open, for those who come again |

pub(crate) mod stream_session;
pub(crate) mod text;

use std::sync::Arc;

/// What the open streams of a gateway share.
#[derive(Debug, Default)]
pub struct Streaming {
    pub(crate) texts: text::Texts,
    pub(crate) sittings: Arc<stream_session::StreamSessions>,
}
