//! No byte of a secret comes out: everything is planted, everything is driven, everything that comes out is searched. It
//! looks at whole processes, their logs, their memory and their ends.

mod commands;
mod drive;
mod inside;
mod memory;
mod panics;
mod plants;
mod rig;
mod search;
mod vendor;
mod ways_in;
