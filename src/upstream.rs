//! The way to the vendor: an order gets its seat, its credential and a connection, and comes back as a reply.
//!
//! ```text
//! Order -> egress -> quota --Seat--> credentials --Signed--> pool --Reply--> egress -> whoever ordered
//! ```
//!
//! Invariant: nothing else reaches the vendor than [`egress`], so nothing is sent unmetered or by a credential that is
//! refused.

pub mod credentials;
pub mod egress;
pub mod pool;
pub mod quota;
