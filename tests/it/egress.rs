//! What leaves the gateway, what it costs, and what happens when the vendor or the network misbehaves.

mod apart;
mod asked;
mod credential;
mod faults;
mod lanes;
mod limits;
mod proxy;
mod redirect;
mod reload;
mod resilience;
mod rig;
mod room;
mod stops;
pub(crate) mod tls;
mod unprocessed;
mod wire;
