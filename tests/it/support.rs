//! What tests of several rooms stand on: a caller, the binary as a child process, a whole gateway in this process, the parts
//! of a configuration, what is logged, an endpoint for webhooks, an issuer of tokens, what a server shows over TLS, and the only
//! ways to wait.

pub(crate) mod child;
pub(crate) mod client;
pub(crate) mod issuer;
pub(crate) mod log_lines;
pub(crate) mod receiver;
pub(crate) mod server_tls;
pub(crate) mod settings;
pub(crate) mod stage;
pub(crate) mod waiting;
