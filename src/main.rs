//! The `rtm-gateway` binary.

fn main() {}
