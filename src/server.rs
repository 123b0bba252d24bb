//! What listens: sockets and their connections, and how many files this process may have open.

pub mod descriptors;
pub mod listener;
