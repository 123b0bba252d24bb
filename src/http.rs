//! HTTP as both ports and the way out speak it.
//!
//! | module | what |
//! | --- | --- |
//! | `body` | what an answer carries, when it counts as handed over, and how a request's body is read |
//! | `headers`, `request_id` | names of our own headers, preferences as their RFCs have them; a request's name |
//! | `http2` | what HTTP/2 is set to, on both sides |

pub mod body;
pub mod headers;
pub(crate) mod http2;
pub mod request_id;
