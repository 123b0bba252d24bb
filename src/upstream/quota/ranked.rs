//! [`Ranked`]: a sorted map that knows how many of its entries come before a key.
//!
//! A treap (Seidel and Aragon, 1996): a search tree by key and a heap by random priority, which keeps it as shallow as
//! one that was filled in random order. With n entries everything is O(log n), but for going through all.
//!
//! Priorities come of a counter that is scrambled. Nobody outside has a say in them, so nobody can make it deep.

use std::cmp::Ordering;

/// A sorted map.
#[derive(Debug)]
pub(super) struct Ranked<K, V> {
    root: Tree<K, V>,
    made: u64,
}

type Tree<K, V> = Option<Box<Node<K, V>>>;

#[derive(Debug)]
struct Node<K, V> {
    key: K,
    value: V,
    priority: u64,
    /// Of the tree below, itself included.
    len: usize,
    left: Tree<K, V>,
    right: Tree<K, V>,
}

impl<K: Ord, V> Ranked<K, V> {
    pub(super) fn new() -> Self {
        Self { root: None, made: 0 }
    }

    pub(super) fn len(&self) -> usize {
        len(&self.root)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Puts in what is not there yet.
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.made += 1;
        let node = Box::new(Node { key, value, priority: scrambled(self.made), len: 1, left: None, right: None });
        insert(&mut self.root, node);
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        remove(&mut self.root, key)
    }

    pub(super) fn first(&self) -> Option<(&K, &V)> {
        let mut node = self.root.as_deref()?;
        while let Some(left) = node.left.as_deref() {
            node = left;
        }
        Some((&node.key, &node.value))
    }

    pub(super) fn pop_first(&mut self) -> Option<(K, V)> {
        pop_first(&mut self.root)
    }

    /// How many come before `key`, which need not be there.
    pub(super) fn rank(&self, key: &K) -> usize {
        let (mut rank, mut tree) = (0, &self.root);
        while let Some(node) = tree {
            tree = if node.key < *key {
                rank += 1 + len(&node.left);
                &node.right
            } else {
                &node.left
            };
        }
        rank
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        let mut tree = &self.root;
        while let Some(node) = tree {
            tree = match key.cmp(&node.key) {
                Ordering::Equal => return true,
                Ordering::Less => &node.left,
                Ordering::Greater => &node.right,
            };
        }
        false
    }

    /// `key`, or what comes after it, and all behind, in order.
    pub(super) fn iter_from(&self, key: &K) -> Iter<'_, K, V> {
        let (mut above, mut tree) = (Vec::new(), &self.root);
        while let Some(node) = tree {
            tree = if node.key < *key {
                &node.right
            } else {
                above.push(&**node);
                &node.left
            };
        }
        Iter { above }
    }

    /// All in order, but for so many at the beginning.
    pub(super) fn iter_after(&self, mut skipped: usize) -> Iter<'_, K, V> {
        let (mut above, mut tree) = (Vec::new(), &self.root);
        while let Some(node) = tree {
            let before = len(&node.left);
            tree = if skipped > before {
                skipped -= before + 1;
                &node.right
            } else {
                above.push(&**node);
                if skipped == before {
                    break;
                }
                &node.left
            };
        }
        Iter { above }
    }
}

/// Goes through a [`Ranked`] in order.
pub(super) struct Iter<'a, K, V> {
    /// The next on top. Below it those that come after its right side.
    above: Vec<&'a Node<K, V>>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let node = self.above.pop()?;
        let mut tree = &node.right;
        while let Some(node) = tree {
            self.above.push(node);
            tree = &node.left;
        }
        Some((&node.key, &node.value))
    }
}

impl<K, V> Node<K, V> {
    fn count(&mut self) {
        self.len = 1 + len(&self.left) + len(&self.right);
    }
}

fn len<K, V>(tree: &Tree<K, V>) -> usize {
    tree.as_ref().map_or(0, |node| node.len)
}

fn insert<K: Ord, V>(tree: &mut Tree<K, V>, mut new: Box<Node<K, V>>) {
    match tree {
        // Of lesser priority: what is here goes below the new one.
        Some(node) if node.priority >= new.priority => {
            node.len += 1;
            insert(if new.key < node.key { &mut node.left } else { &mut node.right }, new);
        }
        below => {
            (new.left, new.right) = split(below.take(), &new.key);
            new.count();
            *below = Some(new);
        }
    }
}

fn remove<K: Ord, V>(tree: &mut Tree<K, V>, key: &K) -> Option<V> {
    let node = tree.as_mut()?;
    let removed = match key.cmp(&node.key) {
        Ordering::Less => remove(&mut node.left, key),
        Ordering::Greater => remove(&mut node.right, key),
        Ordering::Equal => {
            let node = *tree.take()?;
            *tree = merge(node.left, node.right);
            return Some(node.value);
        }
    };
    if removed.is_some() {
        node.len -= 1;
    }
    removed
}

fn pop_first<K, V>(tree: &mut Tree<K, V>) -> Option<(K, V)> {
    let node = tree.as_mut()?;
    if node.left.is_some() {
        node.len -= 1;
        return pop_first(&mut node.left);
    }
    let node = *tree.take()?;
    *tree = node.right;
    Some((node.key, node.value))
}

/// Those before `key`, and the others.
fn split<K: Ord, V>(tree: Tree<K, V>, key: &K) -> (Tree<K, V>, Tree<K, V>) {
    let Some(mut node) = tree else { return (None, None) };
    if node.key < *key {
        let (left, right) = split(node.right.take(), key);
        node.right = left;
        node.count();
        (Some(node), right)
    } else {
        let (left, right) = split(node.left.take(), key);
        node.left = right;
        node.count();
        (left, Some(node))
    }
}

/// Both, all of `left` before all of `right`.
fn merge<K, V>(left: Tree<K, V>, right: Tree<K, V>) -> Tree<K, V> {
    match (left, right) {
        (None, only) | (only, None) => only,
        (Some(mut left), Some(mut right)) => {
            if left.priority >= right.priority {
                left.right = merge(left.right.take(), Some(right));
                left.count();
                Some(left)
            } else {
                right.left = merge(Some(left), right.left.take());
                right.count();
                Some(right)
            }
        }
    }
}

/// The nth number of SplitMix64 (Steele, Lea and Flood, 2014).
fn scrambled(n: u64) -> u64 {
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn depth<K, V>(tree: &Tree<K, V>) -> usize {
        tree.as_ref().map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
    }

    #[test]
    fn it_stays_shallow_in_whatever_order_it_is_filled() {
        let mut rising = Ranked::new();
        let mut falling = Ranked::new();
        let mut queue = Ranked::new();
        for n in 0..100_000 {
            rising.insert(n, ());
            falling.insert(100_000 - n, ());
            queue.insert(n, ());
            if n >= 10_000 {
                queue.pop_first();
            }
        }
        for tree in [&rising, &falling, &queue] {
            assert!(depth(&tree.root) < 60, "{}", depth(&tree.root));
        }
    }

    properties! {
        #[test]
        fn it_is_a_sorted_map_with_ranks(ops in prop::collection::vec((0..4u8, 0..50u32), 0..200)) {
            let (mut ranked, mut model) = (Ranked::new(), BTreeMap::new());
            for (value, (op, key)) in ops.into_iter().enumerate() {
                match op {
                    0 | 1 if !model.contains_key(&key) => {
                        ranked.insert(key, value);
                        model.insert(key, value);
                    }
                    2 => prop_assert_eq!(ranked.pop_first(), model.pop_first()),
                    _ => prop_assert_eq!(ranked.remove(&key), model.remove(&key)),
                }
                prop_assert_eq!(ranked.rank(&key), model.range(..key).count());
                prop_assert_eq!(ranked.contains(&key), model.contains_key(&key));
                prop_assert_eq!(ranked.first(), model.first_key_value());
                prop_assert_eq!((ranked.len(), ranked.is_empty()), (model.len(), model.is_empty()));
                prop_assert!(ranked.iter_from(&key).eq(model.range(key..)));
                let skipped = usize::try_from(key).unwrap();
                prop_assert!(ranked.iter_after(skipped).eq(model.iter().skip(skipped)));
            }
        }
    }
}
