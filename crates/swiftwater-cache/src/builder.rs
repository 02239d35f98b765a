//! What a cache and its regions can be told, and what of it is nonsense.

#[cfg(feature = "layers")]
use std::path::PathBuf;
use std::{fmt, hash::Hash, marker::PhantomData, sync::Arc, time::Duration};

use foldhash::fast::RandomState;
use swiftwater_core::{BuildError, Clock};
use tokio::runtime::Handle;

#[cfg(feature = "layers")]
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    advice::Advisor,
    cache::Cache,
    engine::{Engine, Options},
    error::AnyError,
    index::{Follow, Index},
    lane::{Excess, Lane},
    links::Links,
    load::sleep,
    policy::{FailSafe, Policy},
    region::Region,
    review::{InvalidationPolicy, Judge, Review},
    sink::{Chosen, Converting, Sink, Writes},
    source::{AnySource, Source},
    stamps::Stamps,
    store::Store,
    storing::Outlet,
    warm::refresh_every,
};
#[cfg(feature = "layers")]
use crate::{
    below::Below,
    cache::Shared,
    life::Life,
    persist::Persist,
    shape,
    tier::Tier,
    tiers::{Codec, Tiers},
};

/// Makes a [`Cache`].
#[must_use = "a builder does nothing until it builds"]
#[derive(Clone, Debug)]
pub struct Builder {
    clock: Clock,
    version_cells: usize,
    max_links: usize,
    #[cfg(feature = "layers")]
    persist: Option<PathBuf>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            clock: Clock::coarse(),
            version_cells: DEFAULT_VERSION_CELLS,
            max_links: DEFAULT_MAX_LINKS,
            #[cfg(feature = "layers")]
            persist: None,
        }
    }

    /// Where lifetimes take the time from. Default: [`Clock::coarse`], so an entry may live about a millisecond too
    /// long. Invalidation uses no clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// How many version cells the dependencies of all entries share, rounded up to a power of two; 8 bytes each. Default:
    /// 65,536, half a MiB; as much again once a key is invalidated by its name, or a key of a region with layers. With 32 KiB for
    /// kinds, and 256 KiB once something is invalidated gently, this is all the memory that invalidation ever takes.
    ///
    /// Names that share a cell invalidate each other's entries: about `dependencies per entry * invalidations in its
    /// life / cells` of the hits are loaded once more than needed. Raise it where that share is not small.
    pub fn version_cells(mut self, cells: usize) -> Self {
        self.version_cells = cells;
        self
    }

    /// How many [links](Cache::link) there may be at a time. Default: 65,536.
    pub fn max_links(mut self, links: usize) -> Self {
        self.max_links = links;
        self
    }

    /// The file that [`Cache::close`] writes down in what has been invalidated, and that the next start reads. Default: none.
    ///
    /// With it, what layers have kept may be served after a restart; without it, or after a crash, nothing is that is from
    /// before, since it may have been invalidated meanwhile. The file is removed when it is read. Two caches may
    /// not share one, and a layer that is in use by two caches at a time serves each only its own.
    #[cfg(feature = "layers")]
    pub fn persist(mut self, path: impl Into<PathBuf>) -> Self {
        self.persist = Some(path.into());
        self
    }

    /// Builds the cache. Blocks on the disk, if it is to `persist`.
    ///
    /// # Errors
    ///
    /// `version_cells` must be 2 to 2^28 (2 GiB); `persist` a file that can be read and removed, if it is there, in a
    /// directory that is.
    pub fn build(self) -> Result<Cache, BuildError> {
        if !(2..=MAX_VERSION_CELLS).contains(&self.version_cells) {
            return Err(BuildError::new("version_cells", self.version_cells, "must be 2 to 2^28"));
        }
        let bits = self.version_cells.next_power_of_two().trailing_zeros();
        let (stamps, links) = (Stamps::new(bits, KIND_BITS), Links::new(self.max_links));
        #[cfg(feature = "layers")]
        {
            let Some(path) = self.persist else {
                return Ok(Cache::new(self.clock, stamps, links, (Life::begin(), None)));
            };
            let named = path.display().to_string();
            let (persist, resumed) = Persist::open(path, stamps.bits(), self.clock.now())
                .map_err(|error| BuildError::new("persist", format_args!("{named} ({error})"), PERSIST))?;
            let (life, stamps) = resumed.unwrap_or_else(|| (Life::begin(), stamps));
            Ok(Cache::new(self.clock, stamps, links, (life, Some(persist))))
        }
        #[cfg(not(feature = "layers"))]
        Ok(Cache::new(self.clock, stamps, links))
    }
}

/// Makes a [`Region`].
#[must_use = "a builder does nothing until it builds"]
pub struct RegionBuilder<K, V, E = AnyError> {
    cache: Cache,
    name: &'static str,
    memory: u64,
    #[cfg(feature = "moka")]
    is_moka: bool,
    expected_entries: Option<usize>,
    policy: Policy<K, V>,
    max_loads: Option<(usize, Excess)>,
    source: Option<Arc<dyn AnySource<K, V, E>>>,
    refresh_every: Option<Duration>,
    #[cfg(feature = "layers")]
    layers: Layers<K, V>,
    outlet: Option<Chosen<K, V, E>>,
    /// There was a source, and an outlet, for another type of errors.
    lost: [bool; 2],
    index: bool,
    advice: bool,
    enabled: bool,
}

/// What is below memory.
#[cfg(feature = "layers")]
struct Layers<K, V> {
    schema: Option<u32>,
    /// Of the types, as traced.
    shape: u64,
    codec: Option<Codec<K, V>>,
    tiers: Vec<Tier>,
}

impl<K, V> RegionBuilder<K, V> {
    pub(crate) fn new(cache: Cache, name: &'static str) -> Self {
        Self {
            cache,
            name,
            memory: DEFAULT_MEMORY,
            #[cfg(feature = "moka")]
            is_moka: ALWAYS_MOKA,
            expected_entries: None,
            policy: Policy::default(),
            max_loads: None,
            source: None,
            refresh_every: None,
            #[cfg(feature = "layers")]
            layers: Layers { schema: None, shape: 0, codec: None, tiers: Vec::new() },
            outlet: None,
            lost: [false; 2],
            index: false,
            advice: false,
            enabled: true,
        }
    }

    /// What the region's loaders fail with. Default: [`AnyError`], which every error converts into with `?`. To be said before
    /// what depends on it: a [`source`](Self::source), [`writes`](Self::writes).
    pub fn error<E>(self) -> RegionBuilder<K, V, E> {
        RegionBuilder {
            cache: self.cache,
            name: self.name,
            memory: self.memory,
            #[cfg(feature = "moka")]
            is_moka: self.is_moka,
            expected_entries: self.expected_entries,
            policy: self.policy,
            max_loads: self.max_loads,
            source: None,
            refresh_every: self.refresh_every,
            #[cfg(feature = "layers")]
            layers: self.layers,
            outlet: None,
            lost: [self.source.is_some(), self.outlet.is_some()],
            index: self.index,
            advice: self.advice,
            enabled: self.enabled,
        }
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
        #[cfg(feature = "moka")]
        {
            self.is_moka = ALWAYS_MOKA;
        }
        self
    }

    /// [`memory`](Self::memory), in [moka](https://docs.rs/moka) instead of quick_cache; the later of the two calls wins. For who wants its
    /// admission policy, TinyLFU: what is new only takes the place of what was asked for less often, so that a scan
    /// evicts next to nothing.
    ///
    /// Costs, where both were measured bare (`benches/results/versus-cache.md` in the repository): a hit 11 times as much, an eighth of the hits a
    /// second with two threads, an insert that evicts 16 times as much, and 227 bytes per entry against 102; and here another
    /// block of 32 bytes per entry. On six traces its hit ratio was up to 16 points higher and up to 13 lower, so measure yours.
    ///
    /// What differs besides: moka evicts when its maintenance is due, so the weight overshoots under bursts, by hundreds of
    /// entries; an entry is too heavy if it is heavier than the capacity; the capacity cannot be changed, so there is no
    /// knob for it; an [`explain`](Region::explain) counts as a use. An entry that is not admitted counts as an eviction, and goes
    /// to layers as one. What maintenance has evicted is counted, handed to layers and dropped at the next insert,
    /// [sweep](Cache::sweep) or observation. moka drops keys later and anywhere, so a key's destructor must not use the cache.
    #[cfg(feature = "moka")]
    pub fn memory_moka(mut self, capacity: u64) -> Self {
        self.memory = capacity;
        self.is_moka = true;
        self
    }

    /// What an entry weighs, in the unit of [`memory`](Self::memory), such as its bytes. Called once per entry; zero counts
    /// as one. Default: every entry weighs one. If it panics, the load has failed, or the insert panics.
    pub fn weigher(mut self, weigher: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.policy.weigher = Some(Box::new(weigher));
        self
    }

    /// About how many entries the capacity holds, for sizing shards, the history that eviction learns from, and the room that
    /// is reserved at first.
    /// Default: the capacity, or a 1024th of it with a weigher, at most a million either way.
    pub fn expected_entries(mut self, entries: usize) -> Self {
        self.expected_entries = Some(entries);
        self
    }

    /// How long an entry may be served, counted from the start of its load. Default: `None`, as long as it is not
    /// invalidated or evicted. A loader may decide otherwise with [`Scope::ttl`](crate::Scope::ttl).
    pub fn ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.policy.ttl = ttl.into();
        self
    }

    /// By what share of its lifetime, at most, an entry expires earlier, drawn for each: so that what was loaded together
    /// does not expire together. Default: 0. From 0 to 1.
    pub fn jitter(mut self, share: f64) -> Self {
        self.policy.jitter = share;
        self
    }

    /// After how long an entry that nobody asks for expires, whatever its lifetime. Default: `None`, never. Up to a
    /// sixteenth later, since a use is not noted more often. Costs two more blocks
    /// of memory per entry, of about 110 bytes with two dependencies: once, whichever it has of this, `fail_safe`,
    /// `invalidation_policy`, `refresh_after` and `usage`.
    pub fn idle(mut self, idle: impl Into<Option<Duration>>) -> Self {
        self.policy.idle = idle.into();
        self
    }

    /// Another lifetime for values that say that something is not there, often a shorter one: when `is_negative` says so.
    /// Default: none are told apart. If it panics, the load has failed, or the insert panics.
    pub fn negative(
        mut self,
        ttl: Duration,
        is_negative: impl Fn(&V) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.policy.negative = Some((Box::new(is_negative), ttl));
        self
    }

    /// For how long after an entry has expired a loading call may be served it, marked as stale, while it is loaded anew in
    /// the background (stale-while-revalidate). Default: zero, not at all.
    ///
    /// Entries that expired in time only: one that was invalidated strictly is never served.
    pub fn stale_for(mut self, time: Duration) -> Self {
        self.policy.stale_for = time;
        self
    }

    /// For how long after an entry has expired it is served, marked as stale, in the place of a load that fails or takes too
    /// long; and for how long after such a failure no other load of it is tried. Default: not at all. Costs the
    /// memory that [`idle`](Self::idle) does.
    ///
    /// Entries that expired in time only: one that was invalidated strictly is never served.
    pub fn fail_safe(mut self, max_stale: Duration, throttle: Duration) -> Self {
        self.policy.fail_safe = Some(FailSafe { max_stale, throttle });
        self
    }

    /// After what share of its lifetime an entry that is asked for is loaded anew in the background, so that those that
    /// are in demand never expire. Default: `None`, never early. From 0 to 1; 0.8 is common. Costs the memory that
    /// [`idle`](Self::idle) does.
    pub fn refresh_after(mut self, share: impl Into<Option<f64>>) -> Self {
        self.policy.refresh_after = share.into();
        self
    }

    /// How long a caller waits for a load before it is served the expired entry that [`fail_safe`](Self::fail_safe) allows, if
    /// there is one. The load goes on and is stored. Default: `None`, as long as the load takes. Needs a runtime
    /// with timers.
    pub fn soft_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.policy.timeouts.soft = timeout.into();
        self
    }

    /// How long a load may take before it is dropped and has failed, with [`LoadError::TimedOut`](crate::LoadError::TimedOut).
    /// Default: `None`, as long as it likes. Counts from its first wait, and needs a runtime with timers.
    pub fn load_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.policy.timeouts.hard = timeout.into();
        self
    }

    /// How many loads of the region may run at a time, and what becomes of others: so that a mass miss is no storm on the
    /// source. Default: any number. Loads in the background are not begun while there is no place for them.
    ///
    /// A load within a load needs a place as well, in its own region. Where both might wait for ever, since loads of the
    /// region wait for each other, by themselves or by way of other regions, one that another load waits for goes without:
    /// from the first time that they do so on, while those regions live. What a loader hands to another task has to
    /// read [`within`](Region::within), or it waits for the place that its own load holds.
    ///
    /// A caller who waits for its turn and is neither polled nor dropped holds up those who want the same key, and
    /// once its turn has come a place.
    pub fn max_loads(mut self, loads: usize, excess: Excess) -> Self {
        self.max_loads = Some((loads, excess));
        self
    }

    /// Where the region's values come from, for those who [`fetch`](Region::fetch) them, for
    /// [`refresh_every`](Self::refresh_every) and for [`warm`](Region::warm). Default: none, every call brings its loader. To be
    /// said after [`error`](RegionBuilder::error): its errors are those of the region.
    pub fn source<S>(mut self, source: S) -> Self
    where
        K: Clone + Send + Sync + 'static,
        V: Send + 'static,
        S: Source<K, V, Error = E>,
    {
        self.source = Some(Arc::new(source));
        self
    }

    /// How often everything that is in memory and still good is loaded anew from the [`source`](Self::source), whether somebody
    /// asks for it or not, so that nobody waits for a load and nothing is older: 100 keys at a time, one such load after the other, in
    /// a task that begins with `build` and ends when it would next load and the region is gone. Default: `None`, never.
    ///
    /// That takes a load of each entry in that time; [`refresh_after`](Self::refresh_after) loads only what is asked
    /// for. What nobody asks for still goes [idle](Self::idle).
    pub fn refresh_every(mut self, every: impl Into<Option<Duration>>) -> Self {
        self.refresh_every = every.into();
        self
    }

    /// Counts how much entries are used, for [`usage`](Region::usage), which tells what to [`warm`](Region::warm) the next
    /// process with, and for an [`invalidation_policy`](Self::invalidation_policy). Default: `None`, not.
    ///
    /// What is counted are the sixteenths of a half-life in which the entry was used at all, and the count halves with every
    /// half-life: an entry that is always in use comes to about 24, one that was used once at one, and at
    /// half a half-life later. It survives a load of the entry, not its eviction or an insert. What nobody has used for
    /// 2^27 half-lives (four years of seconds, one day and a half of milliseconds) may count as it did. Costs the memory that
    /// [`idle`](Self::idle) does, and a use one look more in each sixteenth of a half-life.
    pub fn usage(mut self, half_life: impl Into<Option<Duration>>) -> Self {
        self.policy.usage = half_life.into();
        self
    }

    /// What decides of entries in memory whether they are still good enough, beside their lifetime and their dependencies; it
    /// is asked by lookups, of each entry about once in `every`, and by [`sweep`](Cache::sweep). Default: none. Costs the
    /// memory that [`idle`](Self::idle) does.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use swiftwater_cache::{Cache, Facts, Judgement, Region};
    ///
    /// let cache = Cache::builder().build()?;
    /// let spare = |facts: &Facts<'_, String>| match facts.value().as_str() {
    ///     "gone" if facts.age() > Duration::from_secs(60) => Judgement::Drop,
    ///     _ => Judgement::Keep,
    /// };
    /// let names: Region<u64, String> =
    ///     cache.region("names").invalidation_policy(spare, Duration::from_secs(1)).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn invalidation_policy(mut self, policy: impl InvalidationPolicy<V>, every: Duration) -> Self {
        let judge: Judge<V> = Box::new(move |facts| policy.judge(facts));
        self.policy.review = Some(Review { judge, every });
        self
    }

    /// Where [`Region::store`] writes to, and in which [mode](Writes). Default: nowhere. To be said after [`error`](RegionBuilder::error), since
    /// the sink's errors become those of the region.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::{collections::HashMap, sync::{Arc, Mutex}};
    /// use swiftwater_cache::{Cache, Hit, Region, Sink, Writes};
    ///
    /// #[derive(Default)]
    /// struct Database(Mutex<HashMap<u64, String>>);
    ///
    /// impl Sink<u64, String> for Database {
    ///     type Error = std::io::Error;
    ///     async fn store(&self, writes: Vec<(u64, Hit<String>)>) -> Result<(), Self::Error> {
    ///         let rows = writes.into_iter().map(|(key, name)| (key, name.clone().to_string()));
    ///         self.0.lock().unwrap().extend(rows); // INSERT .. ON CONFLICT DO UPDATE
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let database = Arc::new(Database::default());
    /// let cache = Cache::builder().build()?;
    /// let names: Region<u64, String> = cache.region("names").writes(Writes::behind(database.clone())).build()?;
    /// names.store(7, "Ada".to_owned()).await?;
    /// assert_eq!(*names.get(&7).unwrap(), "Ada");
    /// names.flush().await?;
    /// assert_eq!(database.0.lock().unwrap()[&7], "Ada");
    /// # Ok(())
    /// # }
    /// ```
    pub fn writes<S>(mut self, writes: impl Into<Writes<S>>) -> Self
    where
        K: Send + Sync + 'static,
        V: Send + Sync + 'static,
        E: From<S::Error> + 'static,
        S: Sink<K, V>,
    {
        let Writes { sink, mode } = writes.into();
        self.outlet = Some((Box::new(Converting(sink, PhantomData)), mode));
        self
    }

    /// Whether the region keeps an exact index from dependencies to keys, for [`dependents`](Region::dependents) and
    /// [`purge`](Region::purge). Default: no, since invalidating needs none. Costs a place in a map, with the key, for each
    /// dependency of each entry, and a lock for each of them whenever an entry comes or goes.
    pub fn index(mut self, index: bool) -> Self {
        self.index = index;
        self
    }

    /// Whether the region keeps what [`advice`](Region::advice) stands on. Default: no.
    ///
    /// Costs up to about two MiB; with every lookup a hash of the key, two counts and the longer way through a hit, some
    /// tens of nanoseconds; and with each of the sampled keys (of a region of 100,000 entries one in 64, of a small
    /// one all) a lock that all of them share and three lookups in simulations.
    pub fn advice(mut self, advice: bool) -> Self {
        self.advice = advice;
        self
    }

    /// The version of what the region's values mean, for [layers](Self::layer) that outlive the process. Raise it when a
    /// value that was written by an older program may not be read by a newer one although its type looks the same.
    #[cfg(feature = "layers")]
    pub fn schema(mut self, version: u32) -> Self {
        self.layers.schema = Some(version);
        self
    }

    /// Adds a layer below memory, and below those that were added before. What memory has not is looked for in the
    /// layers, in order, before it is loaded, and rises to those above with what is left of its lifetime.
    ///
    /// Values are encoded with [postcard](https://docs.rs/postcard), under a checksum, beside the dependencies and the
    /// version that decide whether they may be served, and a hash of the [schema](Self::schema) and of the shape of
    /// both types: the names and types of fields and variants. A value whose shape has changed is not found.
    ///
    /// What goes to layers does so in tasks of the current runtime, up to 1,024 at a time for the region; what is beyond that,
    /// as when very much is loaded at once, is not written to the layer and counted as `skipped`.
    ///
    /// A layer never fails a load: while it fails, hangs or lies it is as if it had nothing. The loader of a call is
    /// made before the layers are asked, and dropped unpolled if one of them has the value.
    #[cfg(feature = "layers")]
    pub fn layer(mut self, layer: impl Into<Tier>) -> Self
    where
        K: Serialize + DeserializeOwned,
        V: Serialize + DeserializeOwned,
    {
        self.layers.shape = shape::of::<K, V>();
        self.layers.codec = Some(Codec::POSTCARD);
        self.layers.tiers.push(layer.into());
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
    /// - `memory` must be 1 to 2^53, `expected_entries` at least 1, `max_loads` 1 to 2^20.
    /// - Every time but `stale_for` and a throttle must be longer than zero; `jitter` and
    ///   `refresh_after` from 0 to 1; a `soft_timeout` shorter than the `load_timeout` and together with `fail_safe`.
    /// - `source` and `writes` must be said after `error`; `refresh_every` together with a `source`, within a runtime with timers.
    /// - Of `writes` behind, `max_pending` must be 1 to 2^24, `max_batch` at least 1 and the `delay` a day at most.
    /// - Layers need a `schema`.
    /// - The name must not be that of a region of the cache that still lives: in a handle, in a load that has not ended, or
    ///   in a write that is pending.
    pub fn build(self) -> Result<Region<K, V, E>, BuildError>
    where
        K: Hash + Eq + Clone + Send + Sync + 'static,
        V: Send + Sync + 'static,
        E: Send + Sync + 'static,
    {
        if !(1..=MAX_MEMORY).contains(&self.memory) {
            return Err(BuildError::new("memory", self.memory, "must be 1 to 2^53"));
        }
        if self.expected_entries == Some(0) {
            return Err(BuildError::new("expected_entries", 0, "must be at least 1"));
        }
        self.policy.check()?;
        if let Some((loads, _)) = self.max_loads
            && !(1..=Lane::MOST).contains(&loads)
        {
            return Err(BuildError::new("max_loads", loads, "must be 1 to 2^20"));
        }
        let said = [("source", self.source.is_some()), ("writes", self.outlet.is_some())];
        for ((option, is_said), was_lost) in said.into_iter().zip(self.lost) {
            if was_lost && !is_said {
                return Err(BuildError::new(option, "before `error`", "must be said after `error`"));
            }
        }
        if let Some((_, mode)) = &self.outlet {
            mode.check()?;
        }
        #[cfg(feature = "layers")]
        let below = self.layers.build(self.name, self.cache.shared())?;
        #[cfg(not(feature = "layers"))]
        let below = None;
        if let Some(every) = self.refresh_every {
            let nonsense = if every.is_zero() {
                "must be longer than zero"
            } else if self.source.is_none() {
                "needs a `source`"
            } else if Handle::try_current().is_err() || sleep(every).is_none() {
                "needs a runtime with timers around `build`"
            } else {
                ""
            };
            if !nonsense.is_empty() {
                return Err(BuildError::new("refresh_every", format_args!("{every:?}"), nonsense));
            }
        }
        let guess = self.memory / if self.policy.weigher.is_some() { 1024 } else { 1 };
        let entries = self.expected_entries.unwrap_or_else(|| guess.clamp(MIN_GUESS, MAX_GUESS) as usize);
        let hasher = RandomState::default();
        let index = self.index.then(|| Arc::new(Index::new()) as Arc<dyn Follow<K>>);
        #[cfg(feature = "moka")]
        let store = if self.is_moka {
            Store::moka(self.memory, hasher.clone(), index)
        } else {
            Store::new((self.memory, entries), hasher.clone(), index)
        };
        #[cfg(not(feature = "moka"))]
        let store = Store::new((self.memory, entries), hasher.clone(), index);
        let advisor = self.advice.then(|| {
            let (room, idle) = ((self.memory, entries), self.policy.idle_after());
            Box::new(Advisor::new(room, idle, !store.is_default()))
        });
        let options = Options {
            store,
            hasher,
            advisor,
            policy: self.policy,
            lane: self.max_loads.map(|(loads, excess)| Lane::new(loads, excess)),
            below,
            source: self.source,
            outlet: self.outlet.map(|(sink, mode)| Outlet::new(sink, mode)),
            enabled: self.enabled,
        };
        let engine = Arc::new(Engine::new(self.name, self.cache.shared().clone(), options));
        self.cache.shared().add_region(&engine)?;
        if let (Some(every), Ok(runtime)) = (self.refresh_every, Handle::try_current()) {
            drop(runtime.spawn(refresh_every(Arc::downgrade(&engine), every)));
        }
        Ok(Region(engine))
    }
}

#[cfg(feature = "layers")]
impl<K, V> Layers<K, V> {
    fn build(
        self,
        region: &'static str,
        cache: &Arc<Shared>,
    ) -> Result<Option<Arc<dyn Below<K, V>>>, BuildError>
    where
        K: Hash + Send + Sync + 'static,
        V: Send + Sync + 'static,
    {
        let Some(codec) = self.codec else { return Ok(None) };
        let Some(version) = self.schema else {
            return Err(BuildError::new("schema", "none", "a region with layers needs one: `.schema(1)`"));
        };
        if self.tiers.iter().any(|tier| tier.timeout.is_zero()) {
            return Err(BuildError::new("timeout", "0s", "must be longer than zero"));
        }
        let schema = shape::schema(region, version, self.shape);
        Ok(Some(Arc::new(Tiers::new(region, schema, cache.clone(), codec, self.tiers))))
    }
}

impl<K, V, E> fmt::Debug for RegionBuilder<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionBuilder")
            .field("name", &self.name)
            .field("memory", &self.memory)
            .field("ttl", &self.policy.ttl)
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

const DEFAULT_MEMORY: u64 = 10_000;
/// So that one suite tests both stores: `--cfg swiftwater_moka` puts moka wherever nothing else is possible to ask for.
#[cfg(feature = "moka")]
const ALWAYS_MOKA: bool = cfg!(swiftwater_moka);
/// Beyond it sums of weights could overflow, and a knob could not tell a whole number from its neighbour.
pub(crate) const MAX_MEMORY: u64 = 1 << 53;
const MIN_GUESS: u64 = 32;
const MAX_GUESS: u64 = 1 << 20;
/// 4096 cells for the kinds of dependencies.
const KIND_BITS: u32 = 12;
#[cfg(feature = "layers")]
const PERSIST: &str = "must be a file that can be read and removed, in a directory that is there";
const DEFAULT_MAX_LINKS: usize = 1 << 16;
const DEFAULT_VERSION_CELLS: usize = 1 << 16;
const MAX_VERSION_CELLS: usize = 1 << 28;
