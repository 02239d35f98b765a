//! What another capacity would do: small caches beside the real one, fed with a sample of its keys.
//!
//! Which keys belong to the sample is decided by their hash, so all that happens to one is seen, and a simulation with as
//! much less room evicts what a cache of that size would (SHARDS: Waldspurger, Park, Garthwaite and Ahmad, FAST 2015; miniature
//! simulations: Waldspurger, Saemundsson, Ahmad and Park, USENIX ATC 2017). Each simulation knows of its own entries when they
//! were loaded and what they depend on, so what has expired or was invalidated is a miss whatever the room.

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use foldhash::fast::RandomState;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter, unsync::Cache};
use swiftwater_core::{Counter, Tick};

use crate::{
    dep::Edge,
    entry::{Entry, Extra},
    scope::NEVER,
    stamps::Stamp,
};

/// What [`Region::advice`](crate::Region::advice) says of a region's capacity: all of it since the region was built or its
/// capacity was last changed.
///
/// Only the first is counted; the others are estimates, from a sample of the keys.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Advice {
    /// The share of the lookups that found a value which may be served as fresh, from 0 to 1.
    pub hit_ratio: f64,
    /// What it would have been with half the capacity.
    pub hit_ratio_at_half: f64,
    /// What it would have been with twice the capacity.
    pub hit_ratio_at_twice: f64,
    /// The share of the entries that left, for want of room or otherwise, without a hit.
    pub never_paid: f64,
    /// How many lookups the estimates of hit ratios stand on. Below some ten thousand, or fewer than several times the entries
    /// that there is room for, they say little.
    pub lookups: u64,
    /// How many entries `never_paid` stands on.
    pub entries: u64,
}

pub(crate) struct Advisor {
    /// Of this many keys one belongs to the sample, as a power of two.
    rate: AtomicU32,
    /// Of all keys.
    lookups: Counter,
    hits: Counter,
    /// About how much an entry weighs, as the builder was told: capacity and entries.
    room: (u64, usize),
    idle: Option<Duration>,
    /// The region's store evicts otherwise than the simulations do.
    differs: bool,
    sample: Mutex<Sample>,
}

struct Sample {
    rate: u32,
    capacity: u64,
    /// With half, the same and twice the room.
    sims: [Sim; 3],
    lookups: u64,
    /// What was counted when it began.
    before: (u64, u64),
}

struct Sim {
    cache: Cache<u64, Line, Weight, RandomState, Leaving>,
    hits: u64,
    left: Left,
}

/// An entry of a simulation.
#[derive(Clone)]
struct Line {
    birth: Arc<Birth>,
    used: Cell<Tick>,
    paid: Cell<bool>,
}

/// How an entry was loaded, or would have been.
pub(crate) struct Birth {
    edges: Arc<[Edge]>,
    stamp: Stamp,
    born: Tick,
    expires: Tick,
    refresh_at: Tick,
    weight: u32,
}

/// How many have left, and of these without a hit.
#[derive(Clone, Copy, Default)]
pub(crate) struct Left {
    all: u64,
    unpaid: u64,
}

impl Advisor {
    /// For so much weight, which is about so many entries.
    pub(crate) fn new(room: (u64, usize), idle: Option<Duration>, differs: bool) -> Self {
        let rate = rate(room.1 as f64);
        let sample = Mutex::new(Sample::new(rate, room.0, room, (0, 0)));
        let (lookups, hits) = (Counter::new(), Counter::new());
        Self { rate: AtomicU32::new(rate), lookups, hits, room, idle, differs, sample }
    }

    /// A lookup ends. Whether it belongs to the sample, and is to be followed.
    pub(crate) fn count(&self, hash: u64, hit: bool) -> bool {
        self.lookups.add(1);
        if hit {
            self.hits.add(1);
        }
        self.samples(hash)
    }

    pub(crate) fn samples(&self, hash: u64) -> bool {
        // Relaxed: whoever is late is turned away, or missing, once.
        in_sample(hash, self.rate.load(Relaxed))
    }

    /// A lookup of the sample; `hit` is what it has found, `is_current` says what has not been invalidated.
    pub(crate) fn look(
        &self,
        hash: u64,
        hit: Option<Birth>,
        (now, stamp): (Tick, Stamp),
        is_current: impl Fn(&[Edge], Stamp) -> bool,
    ) {
        let is_fresh = |line: &Line| {
            let is_idle = self.idle.is_some_and(|idle| now - line.used.get() >= idle);
            !is_idle && now < line.birth.expires && is_current(&line.birth.edges, line.birth.stamp)
        };
        let mut sample = self.sample();
        sample.lookups += 1;
        let mut birth = hit.map(Arc::new);
        // The roomiest first: it knows the most of how the entry was loaded.
        for sim in sample.sims.iter_mut().rev() {
            if let Some(line) = sim.look(hash, is_fresh) {
                line.used.set(now);
                line.paid.set(true);
                let mut line = line.clone();
                sim.hits += 1;
                if line.birth.refresh_at <= now {
                    line.birth = Arc::new(line.birth.again(now, stamp));
                    sim.put(hash, line.clone());
                }
                birth = birth.map(|_| line.birth);
            } else if let Some(birth) = &birth {
                // What was found here would have been loaded there.
                sim.put(hash, Line::new(Arc::new(birth.again(now, stamp)), now));
            }
        }
        self.bound(&mut sample);
    }

    /// An entry of the sample is stored: loaded, or inserted by hand.
    pub(crate) fn store(&self, hash: u64, birth: Birth, by_hand: bool) {
        let mut sample = self.sample();
        let birth = Arc::new(birth);
        for sim in &mut sample.sims {
            if by_hand {
                sim.remove(hash);
            } else if sim.cache.contains_key(&hash) {
                continue; // with so much room it would not have been loaded
            }
            sim.put(hash, Line::new(birth.clone(), birth.born));
        }
        self.bound(&mut sample);
    }

    /// The key was invalidated by itself, or there is no such thing.
    pub(crate) fn remove(&self, hash: u64) {
        self.sample().sims.iter_mut().for_each(|sim| sim.remove(hash));
    }

    /// Begins anew.
    pub(crate) fn set_capacity(&self, capacity: u64) {
        let (of, entries) = self.room;
        let rate = rate(entries as f64 * (capacity as f64 / of as f64));
        self.restart(&mut self.sample(), rate, capacity);
    }

    pub(crate) fn advice(&self) -> Advice {
        let sample = self.sample();
        let lookups = self.lookups.read().saturating_sub(sample.before.0);
        let hits = self.hits.read().saturating_sub(sample.before.1);
        let share = |part: f64, of: f64| if of > 0.0 { (part / of).clamp(0.0, 1.0) } else { 0.0 };
        // Scaled up are the misses. Hits would say too much or too little with each key in great demand, which hits with any
        // room, that the sample happens to have or not (SHARDS corrects itself to the same effect).
        let scale = (1_u64 << sample.rate) as f64;
        let [half, one, twice] = sample.sims.each_ref().map(|sim| {
            let misses = (sample.lookups - sim.hits) as f64 * scale;
            share(lookups as f64 - misses, lookups as f64)
        });
        let hit_ratio = share(hits as f64, lookups as f64);
        // What the other policy gains or loses is taken to be the same with any room.
        let gain = if self.differs { hit_ratio - one } else { 0.0 };
        let Left { all, unpaid } = sample.sims[1].left;
        Advice {
            hit_ratio,
            hit_ratio_at_half: (half + gain).clamp(0.0, 1.0),
            hit_ratio_at_twice: (twice + gain).clamp(0.0, 1.0),
            never_paid: share(unpaid as f64, all as f64),
            lookups: sample.lookups,
            entries: all,
        }
    }

    /// Where entries weigh less than was expected, a smaller sample has to do.
    fn bound(&self, sample: &mut Sample) {
        if sample.sims[2].cache.len() > MOST && sample.rate < MOST_RATE {
            let (rate, capacity) = (sample.rate + 1, sample.capacity);
            self.restart(sample, rate, capacity);
        }
    }

    fn restart(&self, sample: &mut Sample, rate: u32, capacity: u64) {
        *sample = Sample::new(rate, capacity, self.room, (self.lookups.read(), self.hits.read()));
        self.rate.store(rate, Relaxed);
    }

    fn sample(&self) -> MutexGuard<'_, Sample> {
        self.sample.lock().unwrap_or_else(PoisonError::into_inner) // no foreign code runs under it
    }
}

impl Sample {
    fn new(rate: u32, capacity: u64, (of, entries): (u64, usize), before: (u64, u64)) -> Self {
        let sim = |share: f64| {
            let capacity = capacity as f64 * share / (1_u64 << rate) as f64;
            let entries = (capacity / of as f64 * entries as f64).clamp(1.0, MOST as f64);
            Sim::new(capacity.max(1.0) as u64, entries as usize)
        };
        Self { rate, capacity, sims: [0.5, 1.0, 2.0].map(sim), lookups: 0, before }
    }
}

impl Sim {
    fn new(capacity: u64, entries: usize) -> Self {
        let options = OptionsBuilder::new()
            .weight_capacity(capacity)
            .estimated_items_capacity(entries)
            .build()
            .expect("both capacities are given");
        let cache = Cache::with_options(options, Weight, RandomState::default(), Leaving);
        Self { cache, hits: 0, left: Left::default() }
    }

    /// What is there, if it may be served.
    fn look(&mut self, hash: u64, is_fresh: impl Fn(&Line) -> bool) -> Option<&Line> {
        if !is_fresh(self.cache.get(&hash)?) {
            self.remove(hash);
        }
        self.cache.peek(&hash)
    }

    fn put(&mut self, hash: u64, line: Line) {
        self.cache.insert_with_lifecycle(hash, line, &mut self.left);
    }

    fn remove(&mut self, hash: u64) {
        if let Some((_, line)) = self.cache.remove(&hash) {
            self.left.count(&line);
        }
    }
}

impl Line {
    fn new(birth: Arc<Birth>, now: Tick) -> Self {
        Self { birth, used: Cell::new(now), paid: Cell::new(false) }
    }
}

impl Birth {
    pub(crate) fn of<V>(entry: &Entry<V>, now: Tick) -> Self {
        Self {
            edges: entry.edges().into(),
            stamp: entry.stamp(),
            born: now,
            expires: entry.expires(),
            refresh_at: entry.extra().map_or(NEVER, Extra::refresh_at),
            weight: entry.weight(),
        }
    }

    /// The same, loaded now.
    fn again(&self, now: Tick, stamp: Stamp) -> Self {
        let moved = |tick: Tick| if tick == NEVER { NEVER } else { now + (tick - self.born) };
        Self {
            edges: self.edges.clone(),
            stamp,
            born: now,
            expires: moved(self.expires),
            refresh_at: moved(self.refresh_at),
            weight: self.weight,
        }
    }
}

impl Left {
    fn count(&mut self, line: &Line) {
        self.all += 1;
        self.unpaid += u64::from(!line.paid.get());
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<u64, Line> for Weight {
    fn weight(&self, _: &u64, line: &Line) -> u64 {
        line.birth.weight.into()
    }
}

/// Counts what is evicted.
#[derive(Clone)]
struct Leaving;

impl Lifecycle<u64, Line> for Leaving {
    type RequestState = Left;

    fn before_evict(&self, left: &mut Left, _: &u64, line: &mut Line) {
        left.count(line); // not called for what is merely replaced
    }
}

/// At which about `WANTED` to twice as many entries are simulated.
fn rate(entries: f64) -> u32 {
    ((entries / WANTED).log2().max(0.0) as u32).min(MOST_RATE)
}

fn in_sample(hash: u64, rate: u32) -> bool {
    // Mixed: the store looks at bits of the hash as they are, and should not be given keys that look alike.
    rate == 0 || hash.wrapping_mul(MIX) >> (64 - rate) == 0
}

const WANTED: f64 = 1024.0;
/// Entries of the roomiest simulation: twice as many as are expected of it at most.
const MOST: usize = 8192;
const MOST_RATE: u32 = 40;
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(all(test, not(swiftwater_loom)))]
mod tests {
    use super::*;

    #[test]
    fn simulations_stay_small_however_light_entries_are() {
        let advisor = Advisor::new((1 << 40, 100), None, false);
        let hasher = RandomState::default();
        let birth = || Birth {
            edges: [].into(),
            stamp: Stamp::from_number(1),
            born: Tick::default(),
            expires: NEVER,
            refresh_at: NEVER,
            weight: 1,
        };
        for key in (0..4).flat_map(|_| 0..200_000_u64) {
            let hash = std::hash::BuildHasher::hash_one(&hasher, key);
            if advisor.samples(hash) {
                advisor.store(hash, birth(), false);
                assert!(advisor.sample().sims.iter().all(|sim| sim.cache.len() <= MOST));
            }
        }
        assert_eq!(advisor.sample().rate, 5, "200,000 / 2^5 fit, twice as many do not");
    }
}
