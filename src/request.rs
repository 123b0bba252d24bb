//! A request of a caller, from its head to its answer, stage by stage: [`flow`] calls them one after another.
//!
//! | module | what |
//! | --- | --- |
//! | `flow` | the spine, with the table of the stages |
//! | `admission` | whether there is room, and what each client has in hand |
//! | `identity`, `jwks` | who calls; the keys that tokens are checked by |
//! | `policy`, `route` | what it may do; what is asked |
//! | `routes` | what each route does |
//! | `batch_text`, `sse_text`, `json_text` | the text of events, which their readers share; its two forms |
//! | `refusal`, `response` | why a request is refused; an answer on its way |
//! | `request_log` | what is logged and counted of a request |
//! | `guard` | what a request occupies until its answer has gone out |
//! | `gateway` | what a request may touch, and what of that a reload changes |
//! | `openapi` | the document of all that may be asked |

pub mod admission;
pub(crate) mod batch_text;
pub mod flow;
pub mod gateway;
pub mod guard;
pub mod identity;
pub(crate) mod json_text;
pub mod jwks;
pub mod openapi;
pub mod policy;
pub mod refusal;
pub mod request_log;
pub mod response;
pub mod route;
pub mod routes;
pub mod sse_text;
