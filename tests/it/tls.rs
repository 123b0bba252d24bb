//! TLS with callers: handshakes, certificates of both sides, and their change while connections live.

mod arrival;
mod balancer;
mod certificates;
mod dev_certs;
mod handshakes;
mod judgements;
mod operators;
mod rotation;
mod stage;
mod streams;
