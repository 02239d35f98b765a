//! The second memory store: moka, for its admission policy.
//!
//! moka lets go of what it has evicted when and where its reclamation gets to it, maybe under a lock of ours. So it is given
//! slots instead of entries: a slot is emptied when it leaves, and what was in it is dropped by whoever empties it. Keys it
//! drops itself, since it compares them until then.
//!
//! Whichever thread finds moka's maintenance due does it, in the middle of any call. What leaves then waits in a list until
//! the next operation that may hand it back.

use std::{
    hash::{BuildHasherDefault, Hash, Hasher},
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use moka::{Equivalent, notification::RemovalCause, sync::Cache};

use super::{Evicted, Key};
use crate::{entry::Held, index::Follow};

/// The store as a region sees it: without what it needs of keys and values.
pub(crate) trait Moka<K, V>: Send + Sync {
    fn get(&self, wanted: Wanted<'_, K>) -> Option<Held<V>>;

    fn iter(&self) -> Entries<'_, K, V>;

    fn insert(&self, key: Hashed<K>, entry: Held<V>) -> Evicted<K, V>;

    /// Removes the entry; if one is given, only that one.
    fn remove(&self, wanted: Wanted<'_, K>, exactly: Option<&Held<V>>) -> Option<(Key<K>, Held<V>)>;

    /// Does what is due, and hands back what has left since it was last handed back.
    fn settle(&self) -> Evicted<K, V>;

    /// As of the last maintenance.
    fn len(&self) -> usize;

    /// As of the last maintenance.
    fn weight(&self) -> u64;

    fn capacity(&self) -> u64;
}

/// All that is there.
pub(crate) type Entries<'a, K, V> = Box<dyn Iterator<Item = (Arc<Hashed<K>>, Held<V>)> + Send + 'a>;

/// A key with its hash, which is made once per operation.
pub(crate) struct Hashed<K> {
    pub(crate) hash: u64,
    pub(crate) key: K,
}

impl<K: PartialEq> PartialEq for Hashed<K> {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.key == other.key
    }
}

impl<K: Eq> Eq for Hashed<K> {}

impl<K> Hash for Hashed<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// A key that is asked for, in whatever form.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a, K> {
    pub(crate) hash: u64,
    pub(crate) is: &'a dyn Fn(&K) -> bool,
}

impl<K> Hash for Wanted<'_, K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl<K> Equivalent<Hashed<K>> for Wanted<'_, K> {
    fn equivalent(&self, key: &Hashed<K>) -> bool {
        self.hash == key.hash && (self.is)(&key.key)
    }
}

/// Gives the hash back that a key comes with.
#[derive(Default)]
struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes are hashed");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

struct Slot<V> {
    weight: u32,
    entry: Mutex<Option<Held<V>>>,
}

type Shared<V> = triomphe::Arc<Slot<V>>;

impl<V> Slot<V> {
    fn entry(&self) -> MutexGuard<'_, Option<Held<V>>> {
        self.entry.lock().unwrap_or_else(PoisonError::into_inner) // no foreign code runs under it
    }
}

/// What has left and was not handed back yet.
struct Leaving<K, V>(Mutex<Vec<Left<K, V>>>);

struct Left<K, V> {
    key: Arc<Hashed<K>>,
    slot: Shared<V>,
    cause: RemovalCause,
}

impl<K, V> Leaving<K, V> {
    fn list(&self) -> MutexGuard<'_, Vec<Left<K, V>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner) // no foreign code runs under it
    }
}

pub(crate) struct Admitting<K, V> {
    map: Cache<Hashed<K>, Shared<V>, BuildHasherDefault<Ready>>,
    leaving: Arc<Leaving<K, V>>,
    /// Follows what is in the map, if the region has one.
    index: Option<Arc<dyn Follow<K>>>,
    capacity: u64,
    /// Held while something of a key is changed, so that what was looked at is what is removed.
    turns: [Mutex<()>; TURNS],
}

impl<K, V> Admitting<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(crate) fn new(capacity: u64, index: Option<Arc<dyn Follow<K>>>) -> Self {
        let leaving = Arc::new(Leaving(Mutex::default()));
        let (list, follower) = (leaving.clone(), index.clone());
        let on_leave = move |key: Arc<Hashed<K>>, slot: Shared<V>, cause| {
            if let Some(index) = &follower {
                let edges = slot.entry().clone();
                let forget = || edges.iter().for_each(|entry| index.remove(&key.key, entry.edges()));
                // The key's `Hash` or `Eq`: moka would never call again.
                drop(catch_unwind(AssertUnwindSafe(forget)));
            }
            list.list().push(Left { key, slot, cause });
        };
        let map = Cache::builder()
            .max_capacity(capacity)
            .weigher(|_, slot: &Shared<V>| slot.weight)
            .eviction_listener(on_leave)
            .build_with_hasher(BuildHasherDefault::default());
        Self { map, leaving, index, capacity, turns: [const { Mutex::new(()) }; TURNS] }
    }

    fn turn(&self, hash: u64) -> MutexGuard<'_, ()> {
        self.turns[hash as usize % TURNS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called in the key's turn.
    fn take<Q>(&self, key: &Q) -> Option<(Key<K>, Held<V>)>
    where
        Q: Equivalent<Hashed<K>> + Hash + ?Sized,
    {
        let slot = self.map.remove(key)?;
        let mut list = self.leaving.list();
        let place = list.iter().rposition(|left| triomphe::Arc::ptr_eq(&left.slot, &slot))?;
        let left = list.swap_remove(place);
        drop(list);
        let entry = slot.entry().take()?;
        Some((Key::Shared(left.key), entry))
    }

    fn hand_back(&self, evicted: &mut Evicted<K, V>) {
        // What was removed is for who has removed it.
        let mut list = self.leaving.list();
        let mut kept = Vec::new();
        for left in mem::take(&mut *list) {
            if left.cause == RemovalCause::Explicit {
                kept.push(left);
                continue;
            }
            evicted.evicted += u64::from(left.cause == RemovalCause::Size);
            let entry = left.slot.entry().take();
            evicted.entries.extend(entry.map(|entry| (Key::Shared(left.key), entry)));
        }
        *list = kept;
    }
}

impl<K, V> Moka<K, V> for Admitting<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn get(&self, wanted: Wanted<'_, K>) -> Option<Held<V>> {
        self.map.get(&wanted)?.entry().clone()
    }

    fn iter(&self) -> Entries<'_, K, V> {
        Box::new(self.map.iter().filter_map(|(key, slot)| Some((key, slot.entry().clone()?))))
    }

    fn insert(&self, key: Hashed<K>, entry: Held<V>) -> Evicted<K, V> {
        let mut evicted = Evicted { stored: true, ..Evicted::default() };
        let turn = self.turn(key.hash);
        let weight = entry.weight();
        if u64::from(weight) > self.capacity {
            // moka would find that out later.
            evicted.entries.extend(self.take(&key));
            evicted.entries.push((Key::Own(key.key), entry));
            (evicted.too_heavy, evicted.evicted) = (true, 1);
        } else {
            if let Some(index) = &self.index {
                index.add(&key.key, entry.edges());
            }
            self.map.insert(key, triomphe::Arc::new(Slot { weight, entry: Mutex::new(Some(entry)) }));
        }
        drop(turn);
        self.hand_back(&mut evicted);
        evicted
    }

    fn remove(&self, wanted: Wanted<'_, K>, exactly: Option<&Held<V>>) -> Option<(Key<K>, Held<V>)> {
        let _turn = self.turn(wanted.hash);
        if let Some(entry) = exactly {
            let slot = self.map.get(&wanted)?;
            if !slot.entry().as_ref().is_some_and(|stored| Held::ptr_eq(stored, entry)) {
                return None;
            }
        }
        self.take(&wanted)
    }

    fn settle(&self) -> Evicted<K, V> {
        self.map.run_pending_tasks();
        let mut evicted = Evicted::default();
        self.hand_back(&mut evicted);
        evicted
    }

    fn len(&self) -> usize {
        self.map.entry_count() as usize
    }

    fn weight(&self) -> u64 {
        self.map.weighted_size()
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }
}

/// More than there are threads in it at a time, as a rule.
const TURNS: usize = 32;
