//! Where the newest record of each hash is: on disk, or still in the queue.
//!
//! An operation in the queue covers what is on disk for good: what becomes of the hash is said by the last operation, told
//! by its ticket, when it has been written or lost. A hash that two keys share belongs to whoever came last: the record
//! has the key, so the other one gets nothing, never the wrong thing.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasherDefault, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::format::{OFFSET_AT, Place};

pub(super) struct Index {
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Default)]
pub(super) struct Shard {
    /// 16 bytes per entry, and what the map leaves free: 20 to 40 bytes all in.
    spots: HashMap<u64, Word, BuildHasherDefault<AsItIs>>,
}

/// Where what is known of a hash is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    Disk(Place),
    /// The operation with this ticket, of which the low [`TICKETS`] bits are kept.
    Queue(u64),
}

impl Index {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// Without locks, while nobody else has it.
    pub(super) fn restore(&mut self, hash: u64, place: Option<Place>) {
        let shard = self.shards[shard_of(hash)].get_mut().unwrap_or_else(PoisonError::into_inner);
        match place {
            Some(place) => shard.spots.insert(hash, Word::of(Spot::Disk(place))),
            None => shard.spots.remove(&hash),
        };
    }

    /// How many hashes have a value. One whose removal is in the queue counts until it has been written.
    pub(super) fn entries(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).spots.len()).sum()
    }

    pub(super) fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        lock(&self.shards[shard_of(hash)])
    }

    /// The hash has what is there, or nothing; unless something else has become of it in the meantime.
    pub(super) fn settle(&self, hash: u64, from: Spot, to: Option<Place>) {
        if let Entry::Occupied(mut spot) = self.shard(hash).spots.entry(hash)
            && spot.get().is(from)
        {
            match to {
                Some(place) => drop(spot.insert(Word::of(Spot::Disk(place)))),
                None => drop(spot.remove()),
            }
        }
    }

    /// Forgets what is on disk where `keep` says no.
    pub(super) fn retain(&self, keep: impl Fn(Place) -> bool) {
        let keep = |word: Word| match word.spot() {
            Spot::Disk(place) => keep(place),
            Spot::Queue(_) => true,
        };
        for shard in &self.shards {
            lock(shard).spots.retain(|_, word| keep(*word));
        }
    }

    /// Forgets everything and gives its memory back.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            *lock(shard) = Shard::default();
        }
    }
}

impl Shard {
    pub(super) fn get(&self, hash: u64) -> Option<Spot> {
        self.spots.get(&hash).map(|word| word.spot())
    }

    /// The operation with this ticket covers what the hash had.
    pub(super) fn cover(&mut self, hash: u64, ticket: u64) {
        self.spots.insert(hash, Word::of(Spot::Queue(ticket)));
    }
}

/// A [`Spot`] in eight bytes.
#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    fn of(spot: Spot) -> Self {
        match spot {
            Spot::Disk(place) => Self(place.to_bits()),
            // No place has a length of 0.
            Spot::Queue(ticket) => Self((ticket & TICKETS) << OFFSET_AT),
        }
    }

    fn spot(self) -> Spot {
        match Place::from_bits(self.0) {
            place if place.len() > 0 => Spot::Disk(place),
            _ => Spot::Queue(self.0 >> OFFSET_AT),
        }
    }

    fn is(self, spot: Spot) -> bool {
        self.0 == Self::of(spot).0
    }
}

/// Nothing under our locks panics halfway.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The map takes its bucket from the low bits and its tag from the high ones.
pub(super) fn shard_of(hash: u64) -> usize {
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

/// The bits of a ticket that an entry has room for: enough to tell those apart that are in the queue.
pub(super) const TICKETS: u64 = (1 << (63 - OFFSET_AT)) - 1;
/// Enough that callers seldom meet in one; also how finely the memory of the index grows.
const SHARDS: usize = 64;
