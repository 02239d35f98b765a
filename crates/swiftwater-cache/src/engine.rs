//! What one region does: it looks up, lets one load per key run, and stores what may be stored.
//!
//! # Who may store
//!
//! The table of flights is sharded by key, and its lock orders everything that changes one key: a load stores its value
//! only while its flight is still the table's one; `insert` and `invalidate` take the flight out of the table, so
//! that a load which began before them can never store after them. The user's code never runs under that lock, except
//! `Hash` and `Eq` of the key.

use std::{
    borrow::Borrow,
    collections::HashMap,
    future::Future,
    hash::{BuildHasher, Hash},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use foldhash::fast::RandomState;
use swiftwater_core::{Knob, Observe, Tick, Visitor};
use tokio::runtime::Handle;

use crate::{
    builder::MAX_MEMORY,
    cache::{Part, Shared},
    dep::Dep,
    entry::Entry,
    error::LoadError,
    flight::{Flight, Landed, Waiting},
    scope::{LoadCx, Loading, NEVER, Readers, Scope},
    stamps::Stamp,
    stats::{self, Stats},
    store::{Evicted, Store},
};

pub(crate) struct Engine<K, V, E> {
    pub(crate) name: &'static str,
    /// What every key is a part of as a dependency.
    key_space: Dep,
    cache: Arc<Shared>,
    store: Store<K, V>,
    flights: Box<[Mutex<Flights<K, V, E>>]>,
    hasher: RandomState,
    policy: Policy<K, V>,
    enabled: AtomicBool,
    /// Some load has read a region of this name: from then on its keys are dependencies.
    read_by_loads: Arc<AtomicBool>,
    stats: Stats,
}

/// What the builder was told about entries.
pub(crate) struct Policy<K, V> {
    pub(crate) ttl: Option<Duration>,
    pub(crate) weigher: Option<Weigher<K, V>>,
}

type Flights<K, V, E> = HashMap<K, Arc<Flight<V, E>>, RandomState>;
pub(crate) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u64 + Send + Sync>;

impl<K, V, E> Engine<K, V, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// A miss: joins the running load of the key, or leads one.
    pub(crate) async fn load<F, Fut>(self: &Arc<Self>, key: K, load: F, readers: Readers) -> Landed<V, E>
    where
        F: FnOnce(LoadCx<K>) -> Fut,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
    {
        let asked = self.cache.stamps.now();
        loop {
            if !self.enabled() {
                return self.load_alone(key, load, &readers).await;
            }
            let (flight, landing) = match self.board(&key) {
                Boarded::Joins(flight) => (flight, None),
                Boarded::Leads(landing) => (landing.flight.clone(), Some(landing)),
                Boarded::Stored(entry) => {
                    self.inherit_entry(&readers, &key, &entry);
                    return Ok(entry);
                }
            };
            let _waiting = wait(&readers, &flight)?;
            let result = if let Some(landing) = landing {
                lead(landing, load);
                flight.landed().await.clone()
            } else {
                self.stats.joins.add(1);
                let result = flight.landed().await;
                if !self.acceptable(result, flight.stamp, asked) {
                    // From before we asked. The next load begins after this one has ended, hence after we asked.
                    continue;
                }
                result.clone()
            };
            self.inherit(&readers, &key, &flight, &result);
            return result;
        }
    }

    /// A load that is nobody else's business: the region is off.
    async fn load_alone<F, Fut>(&self, key: K, load: F, readers: &Readers) -> Landed<V, E>
    where
        F: FnOnce(LoadCx<K>) -> Fut,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
    {
        let flight = self.flight();
        let start = self.cache.clock.now();
        let _waiting = wait(readers, &flight)?;
        self.stats.loads.add(1);
        let loaded = Loading::start(&flight.scope, key.clone(), load).await;
        let result = self.finish(&key, loaded, &flight, start);
        self.inherit(readers, &key, &flight, &result);
        result
    }

    /// Whether a load with that stamp may answer a caller who asked at that ticket.
    fn acceptable(&self, result: &Landed<V, E>, stamp: Stamp, asked: Stamp) -> bool {
        match result {
            Err(LoadError::Aborted) => false,
            // Nothing has been invalidated between the start of the load and the asking: as good as our own.
            _ if stamp >= asked => true,
            // Nothing that it depends on has.
            Ok(entry) => self.current(entry) && !self.expired(entry),
            // What an error is made of is not fully known, so only its age counts.
            Err(_) => false,
        }
    }
}

/// Notes that the readers wait for the flight. What they are made of can no longer be known if that closes a ring, so
/// their values will not be stored, whatever they make of the error.
fn wait<V, E>(readers: &Readers, flight: &Flight<V, E>) -> Result<[Option<Waiting>; 2], LoadError<E>> {
    let mut waiting = [None, None];
    for (place, reader) in readers.all().enumerate() {
        waiting[place] = Waiting::start(reader, &flight.scope);
        if waiting[place].is_none() {
            readers.all().for_each(Scope::taint);
            return Err(LoadError::Cycle);
        }
    }
    Ok(waiting)
}

impl<K: Hash + Eq, V, E> Engine<K, V, E> {
    /// `room` is the highest weight, and about how many entries that is.
    pub(crate) fn new(
        name: &'static str,
        cache: Arc<Shared>,
        room: (u64, usize),
        policy: Policy<K, V>,
        enabled: bool,
    ) -> Self {
        let hasher = RandomState::default();
        Self {
            name,
            key_space: Dep::of_region(name),
            store: Store::new(room.0, room.1, hasher.clone()),
            flights: (0..FLIGHT_SHARDS).map(|_| Mutex::new(HashMap::with_hasher(hasher.clone()))).collect(),
            hasher,
            policy,
            enabled: AtomicBool::new(enabled),
            read_by_loads: cache.read_by_loads(name),
            cache,
            stats: Stats::default(),
        }
    }

    /// The stored entry, if it may be served; the loads on whose behalf it is read depend on it, or on its absence.
    #[inline]
    pub(crate) fn get<Q>(&self, key: &Q, readers: &Readers) -> Option<Arc<Entry<V>>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if readers.is_empty() {
            return self.lookup(key);
        }
        // Before anything is read, see `insert`. Relaxed: the locks that reader and writer take afterwards order it.
        self.read_by_loads.store(true, Relaxed);
        let found = self.lookup(key);
        match &found {
            Some(entry) => self.inherit_entry(readers, key, entry),
            None => readers.of(self.cache.id()).for_each(|reader| reader.depends_on(self.key_dep(key))),
        }
        found
    }

    /// The stored entry, if it may be served. One that may not leaves the store.
    #[inline]
    fn lookup<Q>(&self, key: &Q) -> Option<Arc<Entry<V>>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if !self.enabled() {
            self.stats.misses_off.add(1);
            if self.read_by_loads.load(Relaxed) {
                drop(self.flights(key)); // the lock that orders a reader's mark, which no store takes for it here
            }
            return None;
        }
        let Some(entry) = self.store.get(key) else {
            self.stats.misses_absent.add(1);
            return None;
        };
        let reason = if self.expired(&entry) {
            &self.stats.misses_expired
        } else if !self.current(&entry) {
            &self.stats.misses_stale
        } else {
            self.stats.hits.add(1);
            return Some(entry);
        };
        reason.add(1);
        drop(self.store.remove_exactly(key, &entry));
        None
    }

    pub(crate) fn insert(&self, key: K, value: V, declare: impl FnOnce(&Scope)) {
        let scope = Scope::new(self.cache.id());
        declare(&scope);
        let (stamp, start) = (self.cache.stamps.now(), self.cache.clock.now());
        let entry = self.entry(&key, value, &scope, stamp, start);
        let changed = self.key_dep(&key);
        self.stats.inserts.add(1);
        let mut flights = self.flights(&key);
        let detached = flights.remove_entry(&key);
        let outgoing = if self.servable(&entry) {
            self.store.insert(key, entry.clone())
        } else {
            self.store.remove(&key)
        };
        drop(flights);
        // After the old value is gone, so that a load which has read it has a stamp from before. Whoever read it had set
        // the mark, and then took a lock that was taken here since.
        if self.read_by_loads.load(Relaxed) {
            self.cache.stamps.invalidate(changed);
        }
        self.count_outgoing(&outgoing, &entry);
        // Last, since the user's destructors may panic.
        drop((detached, outgoing));
    }

    pub(crate) fn invalidate<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut flights = self.flights(key);
        let detached = flights.remove_entry(key);
        let removed = self.store.remove(key);
        drop(flights);
        // After the entry is gone: a load that has read it took its stamp before this one.
        self.cache.invalidate(self.key_dep(key));
        drop((detached, removed));
    }

    pub(crate) fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Relaxed);
    }

    /// Finds the running load of the key, or starts one, unless a load has ended just now.
    fn board(self: &Arc<Self>, key: &K) -> Boarded<K, V, E>
    where
        K: Clone,
    {
        let (owned, landing_key) = (key.clone(), key.clone()); // the user's code, so before the lock
        let mut flights = self.flights(key);
        // One that has landed and is still here could not be taken out: the key's `Hash` or `Eq` panicked.
        if let Some(flight) = flights.get(key).filter(|flight| !flight.has_landed()) {
            return Boarded::Joins(flight.clone());
        }
        // What the caller missed may have been stored between its look and the lock.
        if let Some(entry) = self.store.get(key).filter(|entry| self.servable(entry)) {
            return Boarded::Stored(entry);
        }
        // The stamp is read under the lock, so that it is at least what everybody had read who waited for an earlier load.
        let flight = Arc::new(self.flight());
        let landed = flights.insert(owned, flight.clone());
        drop(flights);
        drop(landed);
        Boarded::Leads(Landing { engine: self.clone(), key: landing_key, flight, landed: false })
    }

    /// A load that begins now.
    fn flight(&self) -> Flight<V, E> {
        Flight::new(self.cache.stamps.now(), self.cache.id())
    }

    /// Makes an entry out of what a loader returned.
    fn finish(
        &self,
        key: &K,
        loaded: Result<V, LoadError<E>>,
        flight: &Flight<V, E>,
        start: Tick,
    ) -> Landed<V, E> {
        let result = loaded.and_then(|value| {
            let make = AssertUnwindSafe(|| self.entry(key, value, &flight.scope, flight.stamp, start));
            catch_unwind(make).map_err(|_| LoadError::Panicked) // the weigher
        });
        if result.is_err() {
            self.stats.load_failures.add(1);
        }
        result
    }

    fn entry(&self, key: &K, value: V, scope: &Scope, stamp: Stamp, start: Tick) -> Arc<Entry<V>> {
        // The store keeps what weighs nothing for ever.
        let weight = self.policy.weigher.as_ref().map_or(1, |weigh| weigh(key, &value).max(1));
        let declared = scope.seal();
        let own = declared.ttl.or(self.policy.ttl).map_or(NEVER, |ttl| start + ttl);
        let expires = own.min(declared.expires);
        Arc::new(Entry { value, edges: declared.edges.into(), stamp, expires, weight })
    }

    /// Takes the flight out of the table and stores its entry, if the flight is still the table's own and nothing moved
    /// meanwhile. Returns what is to be dropped outside of locks.
    fn arrive(
        &self,
        key: &K,
        flight: &Arc<Flight<V, E>>,
        entry: Option<Arc<Entry<V>>>,
    ) -> (Evicted<K, V>, Option<K>) {
        let mut flights = self.flights(key);
        let ours = flights.get(key).is_some_and(|current| Arc::ptr_eq(current, flight));
        let key = if ours { flights.remove_entry(key).map(|(key, _)| key) } else { None };
        let Some(entry) = entry else {
            return (Evicted::default(), key);
        };
        match key {
            Some(key) if self.servable(&entry) => {
                let outgoing = self.store.insert(key, entry.clone());
                drop(flights);
                self.count_outgoing(&outgoing, &entry);
                (outgoing, None)
            }
            key => {
                self.stats.unstored.add(1);
                (Evicted::default(), key)
            }
        }
    }

    fn count_outgoing(&self, outgoing: &Evicted<K, V>, stored: &Arc<Entry<V>>) {
        let too_heavy = outgoing.entries.iter().any(|(_, entry)| Arc::ptr_eq(entry, stored));
        if too_heavy {
            self.stats.too_heavy.add(1);
        }
        self.stats.evictions.add(outgoing.evicted - u64::from(too_heavy));
    }

    /// A load that has read a key depends on what that one depends on, be it a value or an error.
    fn inherit(&self, readers: &Readers, key: &K, flight: &Flight<V, E>, result: &Landed<V, E>) {
        match result {
            Ok(entry) => self.inherit_entry(readers, key, entry),
            Err(_) => readers
                .of(self.cache.id())
                .for_each(|reader| reader.inherit_failed(self.key_dep(key), &flight.scope)),
        }
    }

    fn inherit_entry<Q: Hash + ?Sized>(&self, readers: &Readers, key: &Q, entry: &Entry<V>) {
        for reader in readers.of(self.cache.id()) {
            reader.inherit(self.key_dep(key), &entry.edges, entry.expires);
        }
    }

    fn servable(&self, entry: &Entry<V>) -> bool {
        self.enabled() && !self.expired(entry) && self.current(entry)
    }

    #[inline]
    fn current(&self, entry: &Entry<V>) -> bool {
        self.cache.stamps.current(&entry.edges, entry.stamp)
    }

    #[inline]
    fn expired(&self, entry: &Entry<V>) -> bool {
        entry.expires != NEVER && entry.expires <= self.cache.clock.now()
    }

    #[inline]
    pub(crate) fn enabled(&self) -> bool {
        // Relaxed: a switch, not a message; what matters is stored and checked under other orders.
        self.enabled.load(Relaxed)
    }

    /// What loads depend on that read this key.
    fn key_dep<Q: Hash + ?Sized>(&self, key: &Q) -> Dep {
        self.key_space.with(key)
    }

    fn flights<Q: Hash + ?Sized>(&self, key: &Q) -> MutexGuard<'_, Flights<K, V, E>> {
        let shard = self.hasher.hash_one(key) as usize & (FLIGHT_SHARDS - 1);
        // A panic in the key's `Hash` or `Eq` leaves the map as it was.
        self.flights[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a caller who found nothing gets.
enum Boarded<K: Hash + Eq, V, E> {
    Joins(Arc<Flight<V, E>>),
    Leads(Landing<K, V, E>),
    Stored(Arc<Entry<V>>),
}

/// Runs the load of a flight, here while it does not wait, then in a task of its own. Not async: a leader cannot be
/// cancelled half-way.
fn lead<K, V, E, F, Fut>(landing: Landing<K, V, E>, load: F)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
    F: FnOnce(LoadCx<K>) -> Fut,
    Fut: Future<Output = Result<V, E>> + Send + 'static,
{
    let start = landing.engine.cache.clock.now();
    landing.engine.stats.loads.add(1);
    let mut loading = Loading::start(&landing.flight.scope, landing.key.clone(), load);
    // A waker that does nothing is enough: the task polls again as soon as it runs.
    match Pin::new(&mut loading).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(loaded) => landing.land(loaded, start),
        Poll::Pending => match Handle::try_current() {
            Ok(runtime) => {
                let task = async move {
                    let loaded = loading.await;
                    landing.land(loaded, start);
                };
                drop(runtime.spawn(task));
            }
            Err(_) => landing.land(Err(LoadError::NoRuntime), start),
        },
    }
}

/// Ends a flight on every way out: `Aborted`, if its task was dropped.
struct Landing<K: Hash + Eq, V, E> {
    engine: Arc<Engine<K, V, E>>,
    key: K,
    flight: Arc<Flight<V, E>>,
    landed: bool,
}

impl<K: Hash + Eq, V, E> Landing<K, V, E> {
    fn land(mut self, loaded: Result<V, LoadError<E>>, start: Tick) {
        let result = self.engine.finish(&self.key, loaded, &self.flight, start);
        self.end(result);
    }

    fn end(&mut self, result: Landed<V, E>) {
        self.landed = true;
        let entry = result.as_ref().ok().cloned();
        // If the key's `Hash` or `Eq` panics nothing is stored, but nobody is left waiting; the panic has been reported.
        let outgoing = catch_unwind(AssertUnwindSafe(|| self.engine.arrive(&self.key, &self.flight, entry)));
        self.flight.land(result);
        // Now that everybody is on the way: the user's destructors.
        drop(outgoing);
    }
}

impl<K: Hash + Eq, V, E> Drop for Landing<K, V, E> {
    fn drop(&mut self) {
        if !self.landed {
            self.end(Err(LoadError::Aborted));
        }
    }
}

impl<K, V, E> Observe for Engine<K, V, E>
where
    K: Hash + Eq + Send + Sync,
    V: Send + Sync,
    E: Send + Sync,
{
    fn observe(&self, visitor: &mut dyn Visitor) {
        visitor.state(&stats::MODE, if self.enabled() { &"on" } else { &"off" });
        self.stats.observe(visitor);
        visitor.gauge(&stats::ENTRIES, self.store.len() as f64);
        visitor.gauge(&stats::WEIGHT, self.store.weight() as f64);
        visitor.gauge(&stats::CAPACITY, self.store.capacity() as f64);
    }
}

impl<K, V, E> Part for Engine<K, V, E>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn knobs(self: Arc<Self>, each: &mut dyn FnMut(Knob)) {
        let read = |engine: &Self| engine.store.capacity() as f64;
        let write = |engine: &Self, capacity: f64| engine.store.set_capacity(capacity as u64);
        each(Knob::new(&stats::CAPACITY, 1.0..=MAX_MEMORY as f64, 1.0, &self, read, write));
    }
}

/// Locks that misses, inserts and invalidations of different keys share.
const FLIGHT_SHARDS: usize = 32;
