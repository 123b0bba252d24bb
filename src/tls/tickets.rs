//! Tickets, by which callers resume sessions.
//!
//! Invariant: the library makes them by a clock of its own, which does not bear a time before 1970. While the wall
//! clock shows one there are no tickets: each handshake is a whole one.

use std::sync::{Arc, OnceLock};
use std::time::UNIX_EPOCH;

use rustls::Error;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;

use crate::kernel::clock::Clock;

/// How long a ticket counts, in seconds: the library's rule.
const LIFETIME: u32 = 12 * 60 * 60;

/// Keys for tickets.
#[derive(Debug)]
pub(super) struct Tickets {
    clock: Clock,
    made: OnceLock<Option<Arc<dyn ProducesTickets>>>,
}

impl Tickets {
    /// Keys of their own; made later where the clock is not right yet.
    pub(super) fn new(clock: &Clock) -> Result<Self, Error> {
        let tickets = Self { clock: clock.clone(), made: OnceLock::new() };
        if tickets.has_time() {
            let made = Ticketer::new()?;
            tickets.made.get_or_init(|| Some(made));
        }
        Ok(tickets)
    }

    fn has_time(&self) -> bool {
        self.clock.wall() >= UNIX_EPOCH
    }

    fn usable(&self) -> Option<&dyn ProducesTickets> {
        if !self.has_time() {
            return None;
        }
        self.made.get_or_init(|| Ticketer::new().ok()).as_deref()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.usable().is_some_and(ProducesTickets::enabled)
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.usable()?.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.usable()?.decrypt(cipher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn there_are_tickets_once_the_clock_bears_them_and_the_librarys_are_as_long() {
        let clock = Clock::anchored(UNIX_EPOCH - Duration::from_secs(3600));
        let tickets = Tickets::new(&clock).unwrap();
        assert!(!tickets.enabled());
        assert_eq!(tickets.encrypt(b"session"), None);
        assert_eq!(tickets.decrypt(b"session"), None);
        clock.jump(2 * 3_600_000);
        assert!(tickets.enabled());
        let ticket = tickets.encrypt(b"session").unwrap();
        assert_eq!(tickets.decrypt(&ticket).unwrap(), b"session");
        assert_eq!(tickets.lifetime(), Ticketer::new().unwrap().lifetime());
        clock.jump(-2 * 3_600_000);
        assert!(!tickets.enabled());
    }
}
