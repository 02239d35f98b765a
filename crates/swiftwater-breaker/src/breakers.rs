//! One breaker for each key, made when it is first asked for, and forgotten when it is no longer needed.
//!
//! Keys are spread over shards by their hash. A shard is a list of entries, in no order, and a table that finds a key's place
//! in it. To make room, a hand goes round the list, a few entries at a time, and takes the one that is missed least.

use std::{
    borrow::Borrow,
    fmt::{self, Display},
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hashbrown::HashTable;
use swiftwater_core::{BuildError, Counter, Desc, Knob, Observe, Observer, Tick, Tunable, Unit, Visitor};

use crate::{
    breaker::{self, Breaker},
    builder::Builder,
    event::Event,
    knobs::{self, Tuned},
    state::{Options, State},
};

/// A breaker for each key, such as an endpoint, a shard or a tenant: a handle, cloned freely; all clones are one registry.
///
/// ```
/// use std::time::Duration;
/// use swiftwater_breaker::{Breaker, Breakers, State, consecutive, stalled};
/// use swiftwater_core::Outcome;
///
/// let template = Breaker::builder().trip_when(consecutive(5).or(stalled(Duration::from_secs(5))));
/// let breakers: Breakers<(String, u32)> = Breakers::builder(template).max_keys(10_000).build()?;
///
/// let (left, right) = (("db.example".to_owned(), 1), ("db.example".to_owned(), 2)); // host and shard
/// for _ in 0..5 {
///     breakers.get(&left).try_acquire()?.finish(Outcome::Failure);
/// }
/// assert_eq!(breakers.get(&left).state(), State::Open);
/// assert_eq!(breakers.get(&right).state(), State::Closed); // what fails alone is cut off alone
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Laws
///
/// 1. There are never more than [`max_keys`](BreakersBuilder::max_keys) keys.
/// 2. While a key is there, every [`get`](Self::get) of it is the same breaker.
/// 3. To make room, one of the next 64 entries goes (of all, if there are fewer): the one that was not used for longest
///    among those that are healthy and in nobody's hands; if there is none, among those that are healthy; only if there is none
///    of these either, among those that are not. A breaker is healthy if it is closed with no failure since the last success, and
///    nobody has forced it.
/// 4. A key that was not used for the [`idle_timeout`](BreakersBuilder::idle_timeout), is in nobody's hands, not open and not
///    forced, goes when the hand comes by, or with [`evict_idle`](Self::evict_idle).
/// 5. Handles outlive their keys: who holds one goes on with it, apart from the breaker that the key may get anew.
///
/// # Costs
///
/// A `get` that finds its key hashes it and takes the shard's lock for reading; it allocates nothing. One that does not find
/// it makes a breaker, and looks at a few entries to make room: never at all of them. Hot callers keep the handle. A key takes
/// a KB and what it owns itself, for a breaker with one window (`memory` in `benches/results/versus-breaker.md`); busy ones take
/// more, as the crate's costs say. All keys share one set of options.
///
/// `Hash` runs under no lock; `Eq` under the shard's, so it must not use the registry. If it panics, nothing is broken.
pub struct Breakers<K>(Arc<Inner<K>>);

/// Makes a [`Breakers`]: every option has a default, [`build`](Self::build) judges them all.
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct BreakersBuilder<K> {
    template: Builder,
    max_keys: usize,
    idle_timeout: Option<Duration>,
    on_event: Option<OnEvent<K>>,
}

type OnEvent<K> = Arc<dyn Fn(&K, &Event) + Send + Sync>;

struct Inner<K> {
    template: Builder,
    /// Of all breakers. Held while they are changed, so that changes follow one another.
    options: Mutex<Arc<Options>>,
    on_event: Option<OnEvent<K>>,
    idle_timeout: Option<Duration>,
    hasher: RandomState,
    /// A power of two of them.
    shards: Box<[RwLock<Shard<K>>]>,
    /// Most entries of a shard.
    room: usize,
    made: AtomicU64,
    evicted_full: Counter,
    evicted_idle: Counter,
}

struct Shard<K> {
    /// Where in `entries` a key is.
    places: HashTable<usize>,
    entries: Vec<Arc<Entry<K>>>,
    /// Where to look next for what may go.
    hand: usize,
}

struct Entry<K> {
    hash: u64,
    key: K,
    breaker: Breaker,
    /// Nanoseconds of the breakers' clock.
    used: AtomicU64,
}

/// How much an entry would be missed, least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    Idle,
    Healthy,
    Held,
    Sick,
}

impl<K> Breakers<K>
where
    K: Hash + Eq + Send + Sync + 'static,
{
    /// Starts from the defaults. Every key's breaker is made as the template says; with a [`seed`](Builder::seed) each draws
    /// from a seed of its own.
    pub fn builder(template: Builder) -> BreakersBuilder<K> {
        BreakersBuilder {
            template,
            max_keys: DEFAULT_MAX_KEYS,
            idle_timeout: Some(DEFAULT_IDLE_TIMEOUT),
            on_event: None,
        }
    }

    /// The breaker of this key; made if it is not there.
    pub fn get<Q>(&self, key: &Q) -> Breaker
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.0.hasher.hash_one(key);
        let shard = self.0.shard(hash);
        let now = self.0.template.clock.now();
        if let Some(entry) = read(shard).find(hash, key) {
            return entry.touch(now);
        }
        self.0.make(shard, hash, key.to_owned(), now)
    }

    /// The breaker of this key, if it is there. Not a use of it.
    #[must_use]
    pub fn peek<Q>(&self, key: &Q) -> Option<Breaker>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.0.hasher.hash_one(key);
        read(self.0.shard(hash)).find(hash, key).map(|entry| entry.breaker.clone())
    }

    /// Forgets a key. Its breaker, if it was there, goes on for whoever holds it.
    pub fn remove<Q>(&self, key: &Q) -> Option<Breaker>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.0.hasher.hash_one(key);
        let shard = self.0.shard(hash);
        let entry = {
            let mut shard = write(shard);
            let place = shard.place(hash, key)?;
            shard.take(place)
        };
        // Outside the lock: what the key does when it is dropped is its own affair.
        Some(entry.breaker.clone())
    }

    /// Forgets what has been idle for too long, and says how many keys that were. Looks at all of them: for a timer of
    /// yours, not for a request.
    pub fn evict_idle(&self) -> usize {
        let now = self.0.template.clock.now();
        let mut evicted = 0;
        for shard in &self.0.shards {
            let mut gone = Vec::new();
            let mut shard = write(shard);
            let mut place = 0;
            while let Some(entry) = shard.entries.get(place) {
                if self.0.worth(entry, now) == Worth::Idle {
                    gone.push(shard.take(place)); // another one is in its place now
                } else {
                    place += 1;
                }
            }
            drop(shard);
            evicted += gone.len();
        }
        self.0.evicted_idle.add(evicted as u64);
        evicted
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.shards.iter().map(|shard| read(shard).entries.len()).sum()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `each` for every key, in no order, under no lock: those that are there all the time are seen once.
    pub fn for_each(&self, mut each: impl FnMut(&K, &Breaker)) {
        for shard in &self.0.shards {
            let entries = read(shard).entries.clone();
            entries.iter().for_each(|entry| each(&entry.key, &entry.breaker));
        }
    }
}

impl<K> Clone for Breakers<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> fmt::Debug for Breakers<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: usize = self.0.shards.iter().map(|shard| read(shard).entries.len()).sum();
        f.debug_struct("Breakers").field("keys", &keys).finish_non_exhaustive()
    }
}

/// Each key is a part of kind `key`. Keys that come or go meanwhile may be missed or seen twice.
impl<K: Display + Send + Sync + 'static> Observe for Breakers<K> {
    fn observe(&self, visitor: &mut dyn Visitor) {
        self.0.observe(visitor);
    }
}

impl<K: Display + Send + Sync + 'static> From<&Breakers<K>> for Observer {
    fn from(breakers: &Breakers<K>) -> Self {
        Self::from(&breakers.0)
    }
}

/// The knobs of a [`Breaker`], each for all keys at once, and for those to come.
impl<K: Send + Sync + 'static> Tunable for Breakers<K> {
    fn knobs(&self, each: &mut dyn FnMut(Knob)) {
        knobs::offer(&self.0, each);
    }
}

impl<K> BreakersBuilder<K> {
    /// How many keys there may be. Default 10,000; from 1 to a million.
    ///
    /// More takes memory; fewer forgets what is known about keys that are still in use. Since keys are spread over shards,
    /// room has to be made from about nine tenths of a large maximum on.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// How long a key is kept that nobody uses. Default 10 minutes; `None` keeps it until its room is needed. From 1 s to 24
    /// hours.
    ///
    /// Shorter gives memory back sooner; longer keeps the windows of keys that are seldom used.
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = timeout.into();
        self
    }

    /// Calls `on_event` for every change of state of every breaker, with its key, as long as that is there; as
    /// [`Builder::on_event`] otherwise. A callback of the template is called as well, before this one.
    pub fn on_event(mut self, on_event: impl Fn(&K, &Event) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(on_event));
        self
    }

    /// Makes the registry, without a key.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the first option that cannot work, of the registry or of the template, its value and what it must
    /// be.
    pub fn build(self) -> Result<Breakers<K>, BuildError> {
        if !(1..=MAX_KEYS).contains(&self.max_keys) {
            return Err(BuildError::new("max_keys", self.max_keys, "must be from 1 to 1000000"));
        }
        if let Some(timeout) = self.idle_timeout
            && !(MIN_IDLE_TIMEOUT..=MAX_IDLE_TIMEOUT).contains(&timeout)
        {
            return Err(BuildError::new(
                "idle_timeout",
                format!("{timeout:?}"),
                "must be from 1 s to 24 hours",
            ));
        }
        let options = Mutex::new(Arc::new(self.template.options()?));
        // Few keys in one shard, so that its hand sees all of them.
        let shards = if self.max_keys < SHARDED_FROM { 1 } else { SHARDS };
        let shard = || RwLock::new(Shard { places: HashTable::new(), entries: Vec::new(), hand: 0 });
        Ok(Breakers(Arc::new(Inner {
            template: self.template,
            options,
            on_event: self.on_event,
            idle_timeout: self.idle_timeout,
            hasher: RandomState::new(),
            shards: (0..shards).map(|_| shard()).collect(),
            room: self.max_keys / shards,
            made: AtomicU64::new(0),
            evicted_full: Counter::new(),
            evicted_idle: Counter::new(),
        })))
    }
}

impl<K> fmt::Debug for BreakersBuilder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakersBuilder")
            .field("template", &self.template)
            .field("max_keys", &self.max_keys)
            .field("idle_timeout", &self.idle_timeout)
            .finish_non_exhaustive()
    }
}

impl<K> Inner<K> {
    fn shard(&self, hash: u64) -> &RwLock<Shard<K>> {
        // Not the lowest bits nor the highest ones: the table goes by those.
        &self.shards[(hash >> 32) as usize & (self.shards.len() - 1)]
    }

    fn worth(&self, entry: &Entry<K>, now: Tick) -> Worth {
        let unused = now - Tick::from_nanos(entry.used.load(Relaxed));
        let idle = self.idle_timeout.is_some_and(|timeout| unused >= timeout);
        let held = entry.breaker.is_held_elsewhere();
        match entry.breaker.state() {
            State::Closed | State::Disabled | State::HalfOpen | State::Ramping if idle && !held => {
                Worth::Idle
            }
            State::Closed | State::Disabled if !entry.breaker.is_running() => match held {
                true => Worth::Held,
                false => Worth::Healthy,
            },
            _ => Worth::Sick,
        }
    }

    /// Takes out one entry, if the shard is full; otherwise idle ones that the hand comes by.
    fn make_room(&self, shard: &mut Shard<K>, now: Tick) -> Vec<Arc<Entry<K>>> {
        let full = shard.entries.len() >= self.room;
        let steps = if full { FEW } else { SOME };
        let mut gone = Vec::new();
        let mut least: Option<(Worth, u64, usize)> = None;
        for _ in 0..steps.min(shard.entries.len()) {
            if shard.hand >= shard.entries.len() {
                shard.hand = 0;
            }
            let entry = &shard.entries[shard.hand];
            let rank = (self.worth(entry, now), entry.used.load(Relaxed), shard.hand);
            if rank.0 == Worth::Idle {
                gone.push(shard.take(shard.hand)); // another one is in its place now
                self.evicted_idle.add(1);
                if full {
                    return gone;
                }
            } else {
                least = Some(least.map_or(rank, |least| least.min(rank)));
                shard.hand += 1;
            }
        }
        if full && let Some((_, _, place)) = least {
            gone.push(shard.take(place));
            self.evicted_full.add(1);
        }
        gone
    }

    fn options(&self) -> MutexGuard<'_, Arc<Options>> {
        // Nothing in here panics but a clock or an allocator; the options are whole all the same.
        self.options.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Send + Sync + 'static> Inner<K> {
    fn make(&self, shard: &RwLock<Shard<K>>, hash: u64, key: K, now: Tick) -> Breaker {
        let entry = Arc::new_cyclic(|entry| {
            let on_event = self.on_event_of(entry);
            let seed = self.template.seed.map(|seed| seed.wrapping_add(self.made.load(Relaxed)));
            let Builder { clock, enabled, observe_only, .. } = &self.template;
            let options = self.options().clone();
            let breaker = Breaker::new(options, clock.clone(), seed, *enabled, *observe_only, on_event);
            Entry { hash, key, breaker, used: AtomicU64::new(now.as_nanos()) }
        });
        let breaker = entry.breaker.clone();
        let gone = {
            let mut shard = write(shard);
            if let Some(other) = shard.find(hash, &entry.key) {
                return other.touch(now);
            }
            let gone = self.make_room(&mut shard, now);
            shard.add(entry);
            gone
        };
        self.made.fetch_add(1, Relaxed);
        // They may have been changed since: by somebody who did not find this one in the shard. Whoever changes them later
        // does. Under the lock, so that no later change is undone.
        breaker.set_options(&self.options());
        drop(gone); // outside the lock: what keys do when they are dropped is their own affair
        breaker
    }

    fn on_event_of(&self, entry: &Weak<Entry<K>>) -> Option<breaker::OnEvent> {
        let template = self.template.on_event.clone();
        let Some(registry) = self.on_event.clone() else { return template };
        let entry = entry.clone();
        Some(Arc::new(move |event| {
            if let Some(template) = &template {
                template(event);
            }
            // A breaker that has outlived its key, in somebody's hands, has no name any more.
            if let Some(entry) = entry.upgrade() {
                registry(&entry.key, event);
            }
        }))
    }
}

impl<K: Send + Sync + 'static> Tuned for Inner<K> {
    fn options(&self) -> Arc<Options> {
        self.options().clone()
    }

    fn change(&self, change: &dyn Fn(&mut Options)) {
        let mut options = self.options();
        let mut changed = Options::clone(&options);
        change(&mut changed);
        *options = Arc::new(changed);
        for shard in &self.shards {
            let entries = read(shard).entries.clone();
            entries.iter().for_each(|entry| entry.breaker.set_options(&options));
        }
    }
}

impl<K: Display + Send + Sync + 'static> Observe for Inner<K> {
    fn observe(&self, visitor: &mut dyn Visitor) {
        let keys: usize = self.shards.iter().map(|shard| read(shard).entries.len()).sum();
        visitor.gauge(&KEYS, keys as f64);
        visitor.counter(&MADE, self.made.load(Relaxed));
        visitor.counter(&EVICTED_FULL, self.evicted_full.read());
        visitor.counter(&EVICTED_IDLE, self.evicted_idle.read());
        for shard in &self.shards {
            let mut place = 0;
            // One at a time: a copy of the list would be an allocation, and the visitor is not called under a lock.
            loop {
                let entry = read(shard).entries.get(place).cloned();
                let Some(entry) = entry else { break };
                visitor.part("key", &entry.key, &entry.breaker);
                place += 1;
            }
        }
    }
}

impl<K> Shard<K> {
    fn place<Q>(&self, hash: u64, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let is = |place: &usize| {
            let entry = &self.entries[*place];
            entry.hash == hash && entry.key.borrow() == key
        };
        self.places.find(hash, is).copied()
    }

    fn find<Q>(&self, hash: u64, key: &Q) -> Option<&Entry<K>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.place(hash, key).map(|place| &*self.entries[place])
    }

    /// A key that is not there yet.
    fn add(&mut self, entry: Arc<Entry<K>>) {
        let hash = entry.hash;
        self.entries.push(entry);
        let entries = &self.entries;
        self.places.insert_unique(hash, entries.len() - 1, |place| entries[*place].hash);
    }

    /// The last entry takes the place.
    fn take(&mut self, place: usize) -> Arc<Entry<K>> {
        let last = self.entries.len() - 1;
        for (from, to) in [(place, None), (last, Some(place))] {
            let hash = self.entries[from].hash;
            if let Ok(found) = self.places.find_entry(hash, |at| *at == from) {
                match to {
                    None => drop(found.remove()),
                    Some(to) => *found.into_mut() = to,
                }
            }
        }
        self.entries.swap_remove(place)
    }
}

impl<K> Entry<K> {
    fn touch(&self, now: Tick) -> Breaker {
        // Written now and then: every store costs all other threads a miss.
        let used = Tick::from_nanos(self.used.load(Relaxed));
        if now - used >= TOUCH {
            self.used.store(now.as_nanos(), Relaxed);
        }
        self.breaker.clone()
    }
}

// Under these locks runs `Eq` of the keys, which may panic, while nothing is half done.
fn read<K>(shard: &RwLock<Shard<K>>) -> RwLockReadGuard<'_, Shard<K>> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<K>(shard: &RwLock<Shard<K>>) -> RwLockWriteGuard<'_, Shard<K>> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}

static KEYS: Desc = Desc::new("keys", Unit::Count, "keys that have a breaker");
static MADE: Desc = Desc::new("made", Unit::Count, "breakers made");
static EVICTED_FULL: Desc = Desc::new("evicted_full", Unit::Count, "keys forgotten to make room");
static EVICTED_IDLE: Desc = Desc::new("evicted_idle", Unit::Count, "keys forgotten because nobody used them");
const DEFAULT_MAX_KEYS: usize = 10_000;
const MAX_KEYS: usize = 1_000_000;
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
const MIN_IDLE_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// As many threads seldom meet in one of them.
const SHARDS: usize = 16;
const SHARDED_FROM: usize = 1024;
/// What is looked at to make room.
const FEW: usize = 64;
/// What is looked at when there is room, so that idle keys go faster than new ones come: every other one, as what takes the
/// place of one that goes is the newest.
const SOME: usize = 4;
/// How exactly it is known when a key was used: to a tenth of the shortest idle time-out.
const TOUCH: Duration = Duration::from_millis(100);
