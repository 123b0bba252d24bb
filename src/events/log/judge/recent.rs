//! [`Recent`]: what was needed lately, within a bound of memory.
//!
//! Invariant: it holds at most its bound, as its entries' weights say. What is asked for stays; of what is not, the
//! older half goes at once, when the younger is full. Neither asking nor putting looks at more than one entry
//! otherwise.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// A bounded map.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    young: HashMap<K, (V, usize)>,
    old: HashMap<K, (V, usize)>,
    /// Of the young ones alone.
    weight: usize,
    most: usize,
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    /// Holds entries of so much weight at most.
    pub(super) fn new(most: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), weight: 0, most }
    }

    pub(super) fn get<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if let Some((value, _)) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, (value, weight)) = self.old.remove_entry(key)?;
        self.put(key, value.clone(), weight);
        Some(value)
    }

    /// Puts an entry, or another in its place.
    pub(super) fn put(&mut self, key: K, value: V, weight: usize) {
        self.old.remove(&key);
        self.weight += weight;
        if let Some((_, before)) = self.young.insert(key, (value, weight)) {
            self.weight -= before;
        }
        if self.weight > self.most / 2 {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_bound_holds() {
        let mut recent = Recent::new(100);
        for n in 0..1000 {
            recent.put(n, n, 10);
            assert_eq!(recent.get(&0), Some(0), "{n}");
            assert!((recent.young.len() + recent.old.len()) * 10 <= 120);
        }
        assert_eq!((recent.get(&1), recent.get(&999)), (None, Some(999)));
        recent.put(999, 7, 10);
        assert_eq!(recent.get(&999), Some(7));
    }
}
