//! How much of something bounded one client may hold, so that no client can hold it all.
//!
//! Invariants ("dynamic thresholds", Choudhury and Hahne 1998, with a factor of [`OF_WHAT_IS_FREE`]): whoever holds
//! something already may take more only while it then holds no more than nine times what is left free. So one client
//! alone comes to nine tenths; several that take all they can get come to equal parts, and with n of them a part in
//! 9n + 1 stays free for who comes next. Whoever holds nothing may take the very last. Nothing is set aside while
//! nobody wants it but that tenth, and nobody has to be configured.

use bytes::Bytes;

use crate::kernel::fast_map::FastMap;
use crate::kernel::names::ClientName;

/// What a client may hold of what others leave free.
const OF_WHAT_IS_FREE: usize = 9;

/// Whether one that holds `held` may take `more`, where `taken` of `all` are taken (its own among them).
#[must_use]
pub fn may_take(more: usize, held: usize, taken: usize, all: usize) -> bool {
    let Some(free) = all.checked_sub(taken).and_then(|free| free.checked_sub(more)) else { return false };
    held == 0 || held.saturating_add(more) <= free.saturating_mul(OF_WHAT_IS_FREE)
}

/// What each client holds of something bounded, and what all of them do together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    taken: usize,
    /// Those who hold something.
    clients: FastMap<ClientName, usize>,
}

impl Holdings {
    /// What all clients hold together.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// What this client holds.
    #[must_use]
    pub fn of(&self, client: &ClientName) -> usize {
        self.clients.get(client).copied().unwrap_or(0)
    }

    /// Those who hold something, and what.
    pub fn iter(&self) -> impl Iterator<Item = (&ClientName, usize)> {
        self.clients.iter().map(|(client, held)| (client, *held))
    }

    /// Whether a client may take `more` of `all` there is: [`may_take`].
    #[must_use]
    pub fn may_take(&self, client: &ClientName, more: usize, all: usize) -> bool {
        may_take(more, self.of(client), self.taken, all)
    }

    /// A client takes so much more, asked or not.
    pub fn take(&mut self, client: &ClientName, more: usize) {
        if more > 0 {
            self.taken += more;
            *self.clients.entry(client.clone()).or_default() += more;
        }
    }

    /// A client gives back so much of what it holds.
    pub fn give_back(&mut self, client: &ClientName, less: usize) {
        self.taken -= less;
        if let Some(held) = self.clients.get_mut(client) {
            *held -= less;
            // A client that a reload took away must not be remembered for ever.
            if *held == 0 {
                self.clients.remove(client);
            }
        }
    }
}

/// These bytes, with what is held for them: it is let go with their last copy.
pub fn held_for<T: Send + 'static>(bytes: Bytes, held: T) -> Bytes {
    struct Both<T> {
        bytes: Bytes,
        _held: T,
    }
    impl<T> AsRef<[u8]> for Both<T> {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    Bytes::from_owner(Both { bytes, _held: held })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flood(clients: usize, all: usize) -> Vec<usize> {
        let mut held = vec![0; clients];
        loop {
            let before: usize = held.iter().sum();
            for n in 0..clients {
                let taken = held.iter().sum();
                held[n] += usize::from(may_take(1, held[n], taken, all));
            }
            if held.iter().sum::<usize>() == before {
                return held;
            }
        }
    }

    #[test]
    fn one_client_comes_to_nine_tenths_and_several_to_equal_parts() {
        assert_eq!(flood(1, 4096), [3686]);
        assert_eq!(flood(1, 1), [1]);
        for clients in [2, 3, 10, 100] {
            let held = flood(clients, 4096);
            let (least, most) = (held.iter().min().unwrap(), held.iter().max().unwrap());
            assert!(most - least <= 1, "{held:?}");
            let free = 4096 - held.iter().sum::<usize>();
            assert!(free >= 4096 / (9 * clients + 1), "{clients}: {free}");
        }
    }

    properties! {
        #[test]
        fn nothing_is_taken_twice_and_only_who_holds_nothing_takes_the_last(
            more in 0usize..100, held in 0usize..100, others in 0usize..100, all in 0usize..300,
        ) {
            let taken = held + others;
            if may_take(more, held, taken, all) {
                prop_assert!(taken + more <= all);
                prop_assert!(held == 0 || taken + more < all);
            }
            if held == 0 {
                prop_assert_eq!(may_take(more, 0, taken, all), taken + more <= all);
            }
        }
    }
}
