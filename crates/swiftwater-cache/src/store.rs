//! The typed memory store: quick_cache, or moka for those who choose it, with the values that an operation pushes out
//! handed back, so that no destructor of the user's runs under a lock of ours.

#[cfg(feature = "moka")]
use std::hash::BuildHasher;
use std::{borrow::Borrow, hash::Hash, ops::Deref, sync::Arc};

use foldhash::fast::RandomState;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter, sync::Cache};
use smallvec::SmallVec;

use crate::{dep::Dep, entry::Held, index::Follow};

#[cfg(feature = "moka")]
mod moka;

pub(crate) struct Store<K, V> {
    map: Map<K, V>,
    /// Follows what is in the map, if the region has one.
    index: Option<Arc<dyn Follow<K>>>,
}

enum Map<K, V> {
    #[cfg(feature = "moka")]
    Moka(Box<dyn moka::Moka<K, V>>, RandomState),
    Quick(Cache<K, Held<V>, Weight, RandomState, Outgoing<K>>),
}

/// What left the store: to be dropped where no lock is held.
pub(crate) struct Evicted<K, V> {
    /// Replaced, evicted, rejected, removed: one, as a rule.
    pub(crate) entries: SmallVec<[(Key<K>, Held<V>); 1]>,
    /// How many of them had to go for lack of room.
    pub(crate) evicted: u64,
    /// An entry was to be stored, be it too heavy or not.
    pub(crate) stored: bool,
    /// It is heavier than a shard may hold.
    pub(crate) too_heavy: bool,
}

/// A key that left the store.
pub(crate) enum Key<K> {
    Own(K),
    /// The store has not let go of it yet.
    #[cfg(feature = "moka")]
    Shared(Arc<moka::Hashed<K>>),
}

impl<K> Deref for Key<K> {
    type Target = K;

    fn deref(&self) -> &K {
        match self {
            Self::Own(key) => key,
            #[cfg(feature = "moka")]
            Self::Shared(shared) => &shared.key,
        }
    }
}

impl<K, V> Default for Evicted<K, V> {
    fn default() -> Self {
        Self { entries: SmallVec::new(), evicted: 0, stored: false, too_heavy: false }
    }
}

impl<K, V> Store<K, V> {
    /// With room for so much weight, which is about so many entries.
    pub(crate) fn new(
        (capacity, entries): (u64, usize),
        hasher: RandomState,
        index: Option<Arc<dyn Follow<K>>>,
    ) -> Self
    where
        K: Hash + Eq,
    {
        let options = OptionsBuilder::new()
            .weight_capacity(capacity)
            .estimated_items_capacity(entries)
            .build()
            .expect("both capacities are given");
        let map = Cache::with_options(options, Weight, hasher, Outgoing(index.clone()));
        // Its slab grows by doubling, and once it is full it holds half as many keys again, of what has left. Begun with that,
        // and a bit more, divided by a power of two, it ends no larger than it has to be. `reserve` doubles what it is told.
        let mut first = entries / 16 * 3 + entries / 64;
        while first > MOST_RESERVED {
            first /= 2;
        }
        map.reserve(first.max(LEAST_RESERVED));
        Self { map: Map::Quick(map), index }
    }

    #[cfg(feature = "moka")]
    pub(crate) fn moka(capacity: u64, hasher: RandomState, index: Option<Arc<dyn Follow<K>>>) -> Self
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: Send + Sync + 'static,
    {
        let map = Box::new(moka::Admitting::new(capacity, index.clone()));
        Self { map: Map::Moka(map, hasher), index }
    }
}

impl<K: Hash + Eq, V> Store<K, V> {
    #[inline]
    pub(crate) fn get<Q>(&self, key: &Q) -> Option<Held<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        match &self.map {
            #[cfg(feature = "moka")]
            Map::Moka(map, hasher) => wanted(hasher, key, |wanted| map.get(wanted)),
            Map::Quick(map) => map.get(key),
        }
    }

    /// Without telling the policy that it was asked for, except moka's, which has no such way.
    pub(crate) fn peek<Q>(&self, key: &Q) -> Option<Held<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        match &self.map {
            #[cfg(feature = "moka")]
            Map::Moka(..) => self.get(key),
            Map::Quick(map) => map.peek(key),
        }
    }

    /// All that is there, a short lock for each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, Held<V>)>
    where
        K: Clone,
    {
        #[cfg(feature = "moka")]
        let (of_moka, of_quick) = match &self.map {
            Map::Moka(map, _) => (Some(map.iter().map(|(key, entry)| (key.key.clone(), entry))), None),
            Map::Quick(map) => (None, Some(map.iter())),
        };
        #[cfg(feature = "moka")]
        return of_moka.into_iter().flatten().chain(of_quick.into_iter().flatten());
        #[cfg(not(feature = "moka"))]
        match &self.map {
            Map::Quick(map) => map.iter(),
        }
    }

    /// Stores the entry, or not if it is heavier than a shard may hold; the old one of that key leaves in either case.
    pub(crate) fn insert(&self, key: K, entry: Held<V>, evicted: &mut Evicted<K, V>) {
        match &self.map {
            #[cfg(feature = "moka")]
            Map::Moka(map, hasher) => {
                let key = moka::Hashed { hash: hasher.hash_one(&key), key };
                *evicted = map.insert(key, entry);
            }
            Map::Quick(map) => {
                if let Some(index) = &self.index {
                    index.add(&key, entry.edges());
                }
                let address = Held::as_ptr(&entry);
                map.insert_with_lifecycle(key, entry, evicted);
                evicted.too_heavy = evicted.entries.iter().any(|(_, other)| Held::as_ptr(other) == address);
                evicted.stored = true;
            }
        }
    }

    pub(crate) fn remove<Q>(&self, key: &Q, evicted: &mut Evicted<K, V>)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let removed = match &self.map {
            #[cfg(feature = "moka")]
            Map::Moka(map, hasher) => wanted(hasher, key, |wanted| map.remove(wanted, None)),
            Map::Quick(map) => self.left(map.remove(key)),
        };
        evicted.entries.extend(removed);
    }

    /// Removes the entry unless another has taken its place.
    pub(crate) fn remove_exactly<Q>(&self, key: &Q, entry: &Held<V>) -> Option<(Key<K>, Held<V>)>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        match &self.map {
            #[cfg(feature = "moka")]
            Map::Moka(map, hasher) => wanted(hasher, key, |wanted| map.remove(wanted, Some(entry))),
            Map::Quick(map) => self.left(map.remove_if(key, |stored| Held::ptr_eq(stored, entry))),
        }
    }

    fn left(&self, removed: Option<(K, Held<V>)>) -> Option<(Key<K>, Held<V>)> {
        let (key, entry) = removed?;
        if let Some(index) = &self.index {
            index.remove(&key, entry.edges());
        }
        Some((Key::Own(key), entry))
    }

    /// The keys of the entries that depend on it, if there is an index.
    pub(crate) fn dependents(&self, dep: Dep) -> Option<Vec<K>> {
        self.index.as_ref().map(|index| index.dependents(dep))
    }

    /// Does what the store has put off, and gives what has left since an insert last did.
    pub(crate) fn settle(&self) -> Evicted<K, V> {
        match &self.map {
            #[cfg(feature = "moka")]
            Map::Moka(map, _) => map.settle(),
            Map::Quick(_) => Evicted::default(),
        }
    }

    /// Exact once it is settled.
    pub(crate) fn len(&self) -> usize {
        match &self.map {
            #[cfg(feature = "moka")]
            Map::Moka(map, _) => map.len(),
            Map::Quick(map) => map.len(),
        }
    }

    /// Exact once it is settled.
    pub(crate) fn weight(&self) -> u64 {
        match &self.map {
            #[cfg(feature = "moka")]
            Map::Moka(map, _) => map.weight(),
            Map::Quick(map) => map.weight(),
        }
    }

    pub(crate) fn capacity(&self) -> u64 {
        match &self.map {
            #[cfg(feature = "moka")]
            Map::Moka(map, _) => map.capacity(),
            Map::Quick(map) => map.capacity(),
        }
    }

    /// Whether it is quick_cache, whose capacity can be set.
    pub(crate) fn is_default(&self) -> bool {
        match &self.map {
            #[cfg(feature = "moka")]
            Map::Moka(..) => false,
            Map::Quick(_) => true,
        }
    }

    /// Changes nothing if it is not the default store.
    pub(crate) fn set_capacity(&self, capacity: u64) {
        match &self.map {
            #[cfg(feature = "moka")]
            Map::Moka(..) => {}
            Map::Quick(map) => map.set_capacity(capacity),
        }
    }
}

/// What moka is asked with. Not inlined, for the other store's sake.
#[cfg(feature = "moka")]
#[inline(never)]
fn wanted<K, Q, T>(hasher: &RandomState, key: &Q, ask: impl FnOnce(moka::Wanted<'_, K>) -> T) -> T
where
    K: Borrow<Q>,
    Q: Hash + Eq + ?Sized,
{
    ask(moka::Wanted { hash: hasher.hash_one(key), is: &|own: &K| own.borrow() == key })
}

/// Bounds of what `reserve` is told: half a MiB at most, where keys take eight bytes, as a rule untouched until it is used.
const MOST_RESERVED: usize = 1 << 13;
const LEAST_RESERVED: usize = 8;

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
        outgoing.entries.push((Key::Own(key), entry));
    }
}
