//! Where the newest record of each hash is: on disk, or still in the queue.
//!
//! An operation in the queue covers what is on disk until it has been written or lost; its ticket, given in the order of the
//! queue, tells it from later ones of the same hash. A hash that two keys share belongs to whoever came last: the record
//! has the key, so the other one gets nothing, never the wrong thing.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;

use super::format::Place;
use crate::layer::LayerKey;

pub(super) struct Index {
    shards: Box<[Mutex<Shard>]>,
    /// Hashes that have a value; changed under the lock of their shard.
    entries: AtomicUsize,
}

/// What a `put` was given.
pub(super) struct Item {
    pub(super) key: LayerKey,
    pub(super) value: Bytes,
}

#[derive(Default)]
pub(super) struct Shard {
    /// 16 bytes per entry, and what the map leaves free: 20 to 40 bytes all in.
    places: HashMap<u64, Place, BuildHasherDefault<AsItIs>>,
    pending: HashMap<u64, Pending, BuildHasherDefault<AsItIs>>,
}

pub(super) struct Pending {
    ticket: u64,
    /// `None`: removed.
    pub(super) item: Option<Arc<Item>>,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), entries: AtomicUsize::new(0) }
    }

    /// Without locks, while nobody else has it.
    pub(super) fn restore(&mut self, hash: u64, place: Option<Place>) {
        let shard = self.shards[shard_of(hash)].get_mut().unwrap_or_else(PoisonError::into_inner);
        let entries = self.entries.get_mut();
        let before = match place {
            Some(place) => {
                *entries += 1;
                shard.places.insert(hash, place)
            }
            None => shard.places.remove(&hash),
        };
        *entries -= usize::from(before.is_some());
    }

    pub(super) fn entries(&self) -> usize {
        self.entries.load(Relaxed)
    }

    pub(super) fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        lock(&self.shards[shard_of(hash)])
    }

    /// Covers what the hash had.
    pub(super) fn cover(&self, shard: &mut Shard, hash: u64, ticket: u64, item: Option<Arc<Item>>) {
        self.change(shard, hash, |shard| {
            shard.pending.insert(hash, Pending { ticket, item });
        });
    }

    /// The operation with this ticket has been written.
    pub(super) fn settle(&self, hash: u64, ticket: u64, place: Option<Place>) {
        let mut shard = self.shard(hash);
        self.change(&mut shard, hash, |shard| {
            // A later one covers the place whatever it is, and will say what becomes of it.
            if shard.uncover(hash, ticket) {
                match place {
                    Some(place) => shard.places.insert(hash, place),
                    None => shard.places.remove(&hash),
                };
            }
        });
    }

    /// The operation with this ticket will not be written: the hash has nothing, least of all what it had before.
    pub(super) fn lose(&self, hash: u64, ticket: u64) {
        let mut shard = self.shard(hash);
        self.change(&mut shard, hash, |shard| {
            shard.uncover(hash, ticket);
            shard.places.remove(&hash);
        });
    }

    /// Forgets the hash if it is still there.
    pub(super) fn forget(&self, hash: u64, place: Place) {
        let mut shard = self.shard(hash);
        self.change(&mut shard, hash, |shard| {
            if shard.places.get(&hash) == Some(&place) {
                shard.places.remove(&hash);
            }
        });
    }

    /// Forgets what is on disk where `keep` says no.
    pub(super) fn retain(&self, keep: impl Fn(Place) -> bool) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            let gone: Vec<u64> =
                shard.places.iter().filter(|(_, place)| !keep(**place)).map(|(hash, _)| *hash).collect();
            for hash in gone {
                self.change(&mut shard, hash, |shard| {
                    shard.places.remove(&hash);
                });
            }
        }
    }

    /// Forgets everything and gives its memory back.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            let gone = shard.places.keys().filter(|hash| !shard.pending.contains_key(hash)).count()
                + shard.pending.values().filter(|pending| pending.item.is_some()).count();
            *shard = Shard::default();
            self.entries.fetch_sub(gone, Relaxed);
        }
    }

    fn change(&self, shard: &mut Shard, hash: u64, change: impl FnOnce(&mut Shard)) {
        let before = shard.has(hash);
        change(shard);
        match (before, shard.has(hash)) {
            // Relaxed: a number to look at.
            (false, true) => drop(self.entries.fetch_add(1, Relaxed)),
            (true, false) => drop(self.entries.fetch_sub(1, Relaxed)),
            _ => {}
        }
    }
}

impl Shard {
    pub(super) fn pending(&self, hash: u64) -> Option<&Pending> {
        self.pending.get(&hash)
    }

    pub(super) fn place(&self, hash: u64) -> Option<Place> {
        self.places.get(&hash).copied()
    }

    fn has(&self, hash: u64) -> bool {
        match self.pending.get(&hash) {
            Some(pending) => pending.item.is_some(),
            None => self.places.contains_key(&hash),
        }
    }

    fn uncover(&mut self, hash: u64, ticket: u64) -> bool {
        let last = self.pending.get(&hash).is_some_and(|pending| pending.ticket == ticket);
        if last {
            self.pending.remove(&hash);
        }
        last
    }
}

/// Nothing under our locks panics halfway.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The map takes its bucket from the low bits and its tag from the high ones.
fn shard_of(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

/// The keys are hashes.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 are hashed");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Enough that callers seldom meet in one; also how finely the memory of the index grows.
const SHARDS: usize = 64;
