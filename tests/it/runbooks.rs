//! The questions of `docs/runbooks.md`: for each a test makes the trouble and what looks like it, and what the page says to look
//! at names the right client and number. A file a question.

mod callers;
mod disk;
mod lag;
mod losses;
mod operators;
mod pollers;
mod quota;
mod refusals;
mod secrets;
mod slowness;
mod versions;
mod webhooks;
