//! What opens the vendor's door.

pub mod token;
