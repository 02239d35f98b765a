//! The typed memory store: quick_cache, with the values that an operation pushes out handed back, so that no destructor
//! of the user's runs under a lock of ours.

use std::{borrow::Borrow, hash::Hash, sync::Arc};

use foldhash::fast::RandomState;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter, sync::Cache};

use crate::{dep::Dep, entry::Held, index::Follow};

pub(crate) struct Store<K, V> {
    map: Cache<K, Held<V>, Weight, RandomState, Outgoing<K>>,
    /// Follows what is in the map, if the region has one.
    index: Option<Arc<dyn Follow<K>>>,
}

/// What left the store: to be dropped where no lock is held.
pub(crate) struct Evicted<K, V> {
    /// Replaced, evicted, rejected, removed.
    pub(crate) entries: Vec<(K, Held<V>)>,
    /// How many of them had to go for lack of room.
    pub(crate) evicted: u64,
    /// An entry was to be stored, be it too heavy or not.
    pub(crate) stored: bool,
    /// It is heavier than a shard may hold.
    pub(crate) too_heavy: bool,
}

impl<K, V> Default for Evicted<K, V> {
    fn default() -> Self {
        Self { entries: Vec::new(), evicted: 0, stored: false, too_heavy: false }
    }
}

impl<K: Hash + Eq, V> Store<K, V> {
    pub(crate) fn new(
        (capacity, entries): (u64, usize),
        hasher: RandomState,
        index: Option<Arc<dyn Follow<K>>>,
    ) -> Self {
        let options = OptionsBuilder::new()
            .weight_capacity(capacity)
            .estimated_items_capacity(entries)
            .build()
            .expect("both capacities are given");
        Self { map: Cache::with_options(options, Weight, hasher, Outgoing(index.clone())), index }
    }

    #[inline]
    pub(crate) fn get<Q>(&self, key: &Q) -> Option<Held<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.map.get(key)
    }

    /// Without telling the policy that it was asked for.
    pub(crate) fn peek<Q>(&self, key: &Q) -> Option<Held<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.map.peek(key)
    }

    /// All that is there, a short lock for each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, Held<V>)>
    where
        K: Clone,
    {
        self.map.iter()
    }

    /// Stores the entry, or not if it is heavier than a shard may hold; the old one of that key leaves in either case.
    pub(crate) fn insert(&self, key: K, entry: Held<V>) -> Evicted<K, V> {
        if let Some(index) = &self.index {
            index.add(&key, entry.edges());
        }
        let mut evicted = Evicted::default();
        self.map.insert_with_lifecycle(key, entry.clone(), &mut evicted);
        evicted.too_heavy = evicted.entries.iter().any(|(_, other)| Held::ptr_eq(other, &entry));
        evicted.stored = true;
        evicted
    }

    pub(crate) fn remove<Q>(&self, key: &Q) -> Evicted<K, V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        Evicted { entries: self.left(self.map.remove(key)).into_iter().collect(), ..Evicted::default() }
    }

    /// Removes the entry unless another has taken its place.
    pub(crate) fn remove_exactly<Q>(&self, key: &Q, entry: &Held<V>) -> Option<(K, Held<V>)>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.left(self.map.remove_if(key, |stored| Held::ptr_eq(stored, entry)))
    }

    fn left(&self, removed: Option<(K, Held<V>)>) -> Option<(K, Held<V>)> {
        if let (Some(index), Some((key, entry))) = (&self.index, &removed) {
            index.remove(key, entry.edges());
        }
        removed
    }

    /// The keys of the entries that depend on it, if there is an index.
    pub(crate) fn dependents(&self, dep: Dep) -> Option<Vec<K>> {
        self.index.as_ref().map(|index| index.dependents(dep))
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn weight(&self) -> u64 {
        self.map.weight()
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.map.capacity()
    }

    pub(crate) fn set_capacity(&self, capacity: u64) {
        self.map.set_capacity(capacity);
    }
}

/// The weight that the entry carries.
#[derive(Clone)]
struct Weight;

impl<K, V> Weighter<K, Held<V>> for Weight {
    fn weight(&self, _: &K, entry: &Held<V>) -> u64 {
        entry.weight().into()
    }
}

/// Collects what is replaced, evicted or rejected.
struct Outgoing<K>(Option<Arc<dyn Follow<K>>>);

impl<K> Clone for Outgoing<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> Lifecycle<K, Held<V>> for Outgoing<K> {
    type RequestState = Evicted<K, V>;

    fn before_evict(&self, outgoing: &mut Evicted<K, V>, _: &K, _: &mut Held<V>) {
        outgoing.evicted += 1; // not called for what is merely replaced
    }

    fn on_evict(&self, outgoing: &mut Evicted<K, V>, key: K, entry: Held<V>) {
        if let Some(index) = &self.0 {
            index.remove(&key, entry.edges());
        }
        outgoing.entries.push((key, entry));
    }
}
