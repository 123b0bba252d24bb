//! What tests sign with: authorities and their certificates, keys and the tokens of their issuer.

pub mod certificates;
pub mod tokens;
