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

    /// The hash is there now, or has nothing; unless something else has become of it in the meantime.
    pub(super) fn settle(&self, hash: u64, from: Spot, to: Option<Place>) {
        if let Entry::Occupied(mut word) = self.shard(hash).spots.entry(hash)
            && word.get().is(from)
        {
            match to {
                Some(place) => drop(word.insert(word.get().moved(place))),
                None => drop(word.remove()),
            }
        }
    }

    /// Whether the hash is still there, and was read since.
    pub(super) fn is_wanted(&self, hash: u64, place: Place) -> bool {
        let shard = self.shard(hash);
        shard.spots.get(&hash).is_some_and(|word| word.is(Spot::Disk(place)) && word.was_read())
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

    /// As [`get`](Self::get), for somebody who reads it.
    pub(super) fn read(&mut self, hash: u64) -> Option<Spot> {
        let word = self.spots.get_mut(&hash)?;
        // Nothing but a word that is in use already: this costs no memory and no further line of the cache.
        word.0 |= Word::READ;
        Some(word.spot())
    }

    /// The operation with this ticket covers what the hash had.
    pub(super) fn cover(&mut self, hash: u64, ticket: u64) {
        self.spots.insert(hash, Word::of(Spot::Queue(ticket)));
    }
}

/// A [`Spot`] in eight bytes, and whether it was read since it came there.
#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    /// The bit that a place leaves free.
    const READ: u64 = 1 << 63;

    fn of(spot: Spot) -> Self {
        match spot {
            Spot::Disk(place) => Self(place.to_bits()),
            // No place has a length of 0.
            Spot::Queue(ticket) => Self((ticket & TICKETS) << OFFSET_AT),
        }
    }

    fn spot(self) -> Spot {
        let bits = self.0 & !Self::READ;
        match Place::from_bits(bits) {
            place if place.len() > 0 => Spot::Disk(place),
            _ => Spot::Queue(bits >> OFFSET_AT),
        }
    }

    fn is(self, spot: Spot) -> bool {
        self.0 & !Self::READ == Self::of(spot).0
    }

    /// A read in the queue counts; one that has already earned a second chance does not earn a third.
    fn moved(self, place: Place) -> Self {
        let read = match self.spot() {
            Spot::Disk(_) => 0,
            Spot::Queue(_) => self.0 & Self::READ,
        };
        Self(Self::of(Spot::Disk(place)).0 | read)
    }

    fn was_read(self) -> bool {
        self.0 & Self::READ != 0
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

#[cfg(test)]
mod tests {
    use super::{
        super::format::{MAX_RECORD, MAX_SEGMENT, UNIT},
        *,
    };

    #[test]
    fn a_word_keeps_what_it_is_made_of_at_the_edges() {
        let place = Place::new(u64::MAX, MAX_SEGMENT - UNIT as u64, MAX_RECORD);
        for spot in
            [Spot::Disk(place), Spot::Disk(Place::new(0, 0, UNIT)), Spot::Queue(0), Spot::Queue(TICKETS)]
        {
            let mut word = Word::of(spot);
            for read in [false, true] {
                assert_eq!((word.spot(), word.was_read()), (spot, read));
                assert!(word.is(spot));
                word.0 |= Word::READ;
            }
        }
        assert!(Word::of(Spot::Queue(3)).is(Spot::Queue(3 + TICKETS + 1)), "the low bits are kept");
    }
}
