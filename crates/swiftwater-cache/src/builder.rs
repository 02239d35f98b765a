//! What a cache and its regions can be told, and what of it is nonsense.

use std::{fmt, hash::Hash, marker::PhantomData, sync::Arc, time::Duration};

use swiftwater_core::{BuildError, Clock};

use crate::{
    cache::Cache,
    engine::{Engine, Policy, Weigher},
    error::AnyError,
    region::Region,
    stamps::Stamps,
};

/// Makes a [`Cache`].
#[must_use = "a builder does nothing until it builds"]
#[derive(Clone, Debug)]
pub struct Builder {
    clock: Clock,
    version_cells: usize,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self { clock: Clock::coarse(), version_cells: DEFAULT_VERSION_CELLS }
    }

    /// Where lifetimes take the time from. Default: [`Clock::coarse`], so an entry may live about a millisecond too
    /// long. Invalidation uses no clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// How many version cells the dependencies of all entries share, rounded up to a power of two; 8 bytes each. Default:
    /// 65,536, half a MiB. With 32 KiB for kinds, this is all the memory that invalidation ever takes.
    ///
    /// Names that share a cell invalidate each other's entries: about `dependencies per entry * invalidations in its
    /// life / cells` of the hits are loaded once more than needed. Raise it where that share is not small.
    pub fn version_cells(mut self, cells: usize) -> Self {
        self.version_cells = cells;
        self
    }

    /// Builds the cache.
    ///
    /// # Errors
    ///
    /// `version_cells` must be 2 to 2^28 (2 GiB).
    pub fn build(self) -> Result<Cache, BuildError> {
        if !(2..=MAX_VERSION_CELLS).contains(&self.version_cells) {
            return Err(BuildError::new("version_cells", self.version_cells, "must be 2 to 2^28"));
        }
        let bits = self.version_cells.next_power_of_two().trailing_zeros();
        Ok(Cache::new(self.clock, Stamps::new(bits, KIND_BITS)))
    }
}

/// Makes a [`Region`].
#[must_use = "a builder does nothing until it builds"]
pub struct RegionBuilder<K, V, E = AnyError> {
    cache: Cache,
    name: &'static str,
    memory: u64,
    expected_entries: Option<usize>,
    ttl: Option<Duration>,
    weigher: Option<Weigher<K, V>>,
    enabled: bool,
    error: PhantomData<fn() -> E>,
}

impl<K, V> RegionBuilder<K, V> {
    pub(crate) fn new(cache: Cache, name: &'static str) -> Self {
        Self {
            cache,
            name,
            memory: DEFAULT_MEMORY,
            expected_entries: None,
            ttl: None,
            weigher: None,
            enabled: true,
            error: PhantomData,
        }
    }

    /// What the region's loaders fail with. Default: [`AnyError`], which every error converts into with `?`.
    pub fn error<E>(self) -> RegionBuilder<K, V, E> {
        let Self { cache, name, memory, expected_entries, ttl, weigher, enabled, error: _ } = self;
        RegionBuilder { cache, name, memory, expected_entries, ttl, weigher, enabled, error: PhantomData }
    }
}

impl<K, V, E> RegionBuilder<K, V, E> {
    /// Keeps entries in memory up to this total weight: a number of entries, unless a [`weigher`](Self::weigher) says
    /// otherwise. Default: 10,000. More costs memory, less costs loads.
    ///
    /// The capacity is divided evenly over shards (4 per CPU, fewer if small); an entry that is heavier than 97 % of its
    /// shard's share is returned to its callers and not stored.
    pub fn memory(mut self, capacity: u64) -> Self {
        self.memory = capacity;
        self
    }

    /// What an entry weighs, in the unit of [`memory`](Self::memory), such as its bytes. Called once per entry; zero counts
    /// as one. Default: every entry weighs one. If it panics, the load has failed, or the insert panics.
    pub fn weigher(mut self, weigher: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.weigher = Some(Box::new(weigher));
        self
    }

    /// About how many entries the capacity holds, for sizing shards and the history that eviction learns from.
    /// Default: the capacity, or a 1024th of it with a weigher, at most a million either way.
    pub fn expected_entries(mut self, entries: usize) -> Self {
        self.expected_entries = Some(entries);
        self
    }

    /// How long an entry may be served, counted from the start of its load, within the clock's lag. Default: until it is
    /// invalidated or evicted. A loader may decide otherwise with [`Scope::ttl`](crate::Scope::ttl).
    pub fn ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.ttl = ttl.into();
        self
    }

    /// Whether the region starts switched on, see law 7 of [`Region`]. Default: on.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Builds the region.
    ///
    /// # Errors
    ///
    /// `memory` must be 1 to 2^53, `expected_entries` at least 1, `ttl` longer than zero, and the name not that of a region
    /// of the cache that still lives: in a handle, or in a load that has not ended.
    pub fn build(self) -> Result<Region<K, V, E>, BuildError>
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: Send + Sync + 'static,
        E: Send + Sync + 'static,
    {
        if !(1..=MAX_MEMORY).contains(&self.memory) {
            return Err(BuildError::new("memory", self.memory, "must be 1 to 2^53"));
        }
        if self.expected_entries == Some(0) {
            return Err(BuildError::new("expected_entries", 0, "must be at least 1"));
        }
        if self.ttl == Some(Duration::ZERO) {
            return Err(BuildError::new(
                "ttl",
                "0s",
                "must be longer than zero; `enabled(false)` stores nothing",
            ));
        }
        let guess = self.memory / if self.weigher.is_some() { 1024 } else { 1 };
        let entries = self.expected_entries.unwrap_or_else(|| guess.clamp(MIN_GUESS, MAX_GUESS) as usize);
        let engine = Arc::new(Engine::new(
            self.name,
            self.cache.shared().clone(),
            (self.memory, entries),
            Policy { ttl: self.ttl, weigher: self.weigher },
            self.enabled,
        ));
        self.cache.shared().add_region(&engine)?;
        Ok(Region(engine))
    }
}

impl<K, V, E> fmt::Debug for RegionBuilder<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionBuilder")
            .field("name", &self.name)
            .field("memory", &self.memory)
            .field("ttl", &self.ttl)
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

const DEFAULT_MEMORY: u64 = 10_000;
/// Beyond it sums of weights could overflow, and a knob could not tell a whole number from its neighbour.
pub(crate) const MAX_MEMORY: u64 = 1 << 53;
const MIN_GUESS: u64 = 32;
const MAX_GUESS: u64 = 1 << 20;
/// 4096 cells for the kinds of dependencies.
const KIND_BITS: u32 = 12;
const DEFAULT_VERSION_CELLS: usize = 1 << 16;
const MAX_VERSION_CELLS: usize = 1 << 28;
