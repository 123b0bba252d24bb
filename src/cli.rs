//! The commands.

pub mod check;
pub mod client_key;
pub mod token;
