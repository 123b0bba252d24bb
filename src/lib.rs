//! rtm-gateway: an authenticating reverse proxy for a vendor's real-time-messaging REST API.

pub mod body;
pub mod clock;
pub mod config;
pub mod conn;
pub mod egress;
pub mod events;
pub mod flow;
pub mod gateway;
pub mod headers;
pub mod history;
pub mod identity;
pub mod listener;
pub mod metrics;
pub mod names;
pub mod order;
pub mod policy;
pub mod quota;
pub mod refusal;
pub mod request_id;
pub mod route;
pub mod routes;
pub mod secret;
pub mod store;
pub mod task;
pub mod vendor;
