//! What a caller meets: malformed requests, identity, routes, hand-over of events, drain. With bytes on real sockets
//! where a well-behaved client would not go.

pub(crate) mod acknowledging;
mod answers;
mod apart;
pub(crate) mod arrival;
mod balancer;
mod browsers;
mod ceilings;
mod connections;
mod early;
pub(crate) mod events;
pub(crate) mod handover;
mod history;
mod history_stream;
mod identity;
mod log;
mod malformed;
mod messages;
mod operator_acts;
mod operators;
mod peers;
mod places;
mod proofs;
mod refusals;
pub(crate) mod stage;
mod streaming;
mod tokens;
