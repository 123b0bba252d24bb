//! What an endpoint meets: events in order, signed, tried again; what its answers do; that no other waits for it; that
//! reloads, stops and starts lose and repeat nothing. A real HTTP server is the endpoint.

mod answers;
mod delivery;
mod lasting;
mod operators;
mod places;
mod retention;
pub(crate) mod rig;
mod trying;
mod turned_away;
