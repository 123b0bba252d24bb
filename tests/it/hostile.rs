//! Requests that lie, callers that are slow, floods: each ends in a 4xx of ours or a closed connection, in bounded time
//! and memory, and the vendor hears nothing of it.
//!
//! The cases are written down from public lists: the mutations of Smuggler (defparam), PortSwigger's articles on
//! request smuggling, the names of Http11Probe's and h2spec's cases, the advisories of hyper, h2, nginx, llhttp, and
//! the CVEs that the tests name. `-- --nocapture hostile` prints how the cases of each class ended.

mod chunks;
mod floods;
mod frames;
mod http2;
mod injection;
mod oversized;
mod rig;
mod slow;
mod smuggling;
mod strangers;
mod syntax;
mod targets;
