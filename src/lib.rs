//! rtm-gateway: an authenticating reverse proxy for a vendor's real-time-messaging REST API.

pub mod cli;
pub mod clock;
pub mod config;
pub mod credentials;
pub mod egress;
pub mod events;
pub mod history;
pub mod metrics;
pub mod names;
pub mod order;
pub mod quota;
pub mod secret;
pub mod simulator;
pub mod store;
pub mod task;
pub mod upstream;
pub mod vendor;
