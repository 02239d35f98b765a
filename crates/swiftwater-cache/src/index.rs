//! Which entries depend on what: an exact reverse index, for regions that ask for one.
//!
//! It follows the store: what is stored is added before, what leaves is taken out after, wherever it leaves. A key
//! may be added a second time before its first entry is taken out, so keys are counted.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash},
    sync::{Mutex, MutexGuard, PoisonError},
};

use foldhash::fast::RandomState;

use crate::dep::{Dep, Edge};

/// An index as the store sees it: without what it needs of keys.
pub(crate) trait Follow<K>: Send + Sync {
    /// Before an entry with these dependencies is stored.
    fn add(&self, key: &K, edges: &[Edge]);

    /// After an entry has left.
    fn remove(&self, key: &K, edges: &[Edge]);

    /// The keys whose entries say that they depend on it, be it by name, by kind, or because they depend on too much to
    /// say.
    fn dependents(&self, dep: Dep) -> Vec<K>;
}

pub(crate) struct Index<K> {
    shards: Box<[Mutex<Shard<K>>]>,
    hasher: RandomState,
}

/// The keys under an edge, and how many of their entries there are just now.
type Shard<K> = HashMap<Edge, HashMap<K, u32, RandomState>, RandomState>;

impl<K: Hash + Eq + Clone> Index<K> {
    pub(crate) fn new() -> Self {
        let hasher = RandomState::default();
        let shards = (0..SHARDS).map(|_| Mutex::new(HashMap::with_hasher(hasher.clone()))).collect();
        Self { shards, hasher }
    }

    fn shard(&self, edge: Edge) -> MutexGuard<'_, Shard<K>> {
        let shard = self.hasher.hash_one(edge) as usize & (SHARDS - 1);
        // A panic in the key's `Hash` or `Eq` leaves the maps as they were, but for a count.
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone + Send + Sync> Follow<K> for Index<K> {
    fn add(&self, key: &K, edges: &[Edge]) {
        for edge in edges {
            let mut shard = self.shard(*edge);
            let keys = shard.entry(*edge).or_insert_with(|| HashMap::with_hasher(self.hasher.clone()));
            *keys.entry(key.clone()).or_default() += 1;
        }
    }

    fn remove(&self, key: &K, edges: &[Edge]) {
        for edge in edges {
            let mut shard = self.shard(*edge);
            let Some(keys) = shard.get_mut(edge) else { continue };
            if let Some(count) = keys.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    keys.remove(key);
                }
            }
            if keys.is_empty() {
                shard.remove(edge);
            }
        }
    }

    fn dependents(&self, dep: Dep) -> Vec<K> {
        let mut found = Vec::new();
        for edge in [dep.edge(), dep.edge().coarse(), Edge::EVERYTHING] {
            found.extend(self.shard(edge).get(&edge).into_iter().flat_map(|keys| keys.keys()).cloned());
        }
        found
    }
}

const SHARDS: usize = 32;
