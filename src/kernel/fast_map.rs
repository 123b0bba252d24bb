//! [`FastMap`]: a map whose keys nobody outside chooses.
//!
//! A request looks a dozen things up by names from the configuration and by numbers of ours. std's hash withstands
//! whoever chooses keys so that they collide, and costs three times as much. What is looked up here is anybody's text;
//! what is *in* such a map is not, so nobody can make it slow.

use std::collections::HashMap;

/// A map by names that were configured, or by numbers of ours.
pub type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
