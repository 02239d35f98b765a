//! A typed region: lookup, single-flight loading, insertion, invalidation by key.
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
    fmt,
    future::Future,
    hash::{BuildHasher, Hash},
    marker::PhantomData,
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
use swiftwater_core::{BuildError, Knob, Observe, Observer, Tick, Tunable, Visitor};
use tokio::runtime::Handle;

use crate::{
    cache::{Cache, Invalidation, Part, Shared},
    dep::Dep,
    entry::{Entry, Hit},
    error::{AnyError, LoadError},
    flight::{Flight, Landed},
    scope::{LoadCx, Loading, NEVER, Scope, Scoped, current, enter},
    stats::{self, Stats},
    store::{Evicted, Store},
};

/// A named map of a [`Cache`] from `K` to `V`. A cheap handle; clones are the same region, which lives as long as any of
/// them.
///
/// `E` is what its loaders fail with: anything ([`AnyError`]) unless chosen by [`RegionBuilder::error`].
///
/// # Laws
///
/// 1. A value that depends on `d` is never returned by a `get` that starts after `invalidate(d)` returned, if the load
///    of that value started before the call. The same for a key. *Depends* includes what the load read from other
///    entries, and what those had read.
/// 2. A load that started before an `insert` or an `invalidate` of its key is not stored after it.
/// 3. One load per key at a time; nobody waits for more than two loads: the running one, and one more if a dependency
///    moved while it ran.
/// 4. A caller that goes away leaves the load to the others. A panicking loader is an error to all who wait for it, and
///    the next caller loads anew.
/// 5. A value is not served beyond its lifetime, which counts from the start of its load and never exceeds that of
///    anything that the load read here.
/// 6. The weight of what is stored never exceeds the capacity by more than the rounding of its shards (less than one
///    unit each).
/// 7. Switched off, a region is transparent: `get` finds nothing, every loading call runs its own loader, nothing is
///    stored; and what is switched on again has missed no invalidation.
pub struct Region<K, V, E = AnyError>(Arc<Inner<K, V, E>>);

struct Inner<K, V, E> {
    name: &'static str,
    /// What every key is a part of as a dependency.
    key_space: Dep,
    cache: Arc<Shared>,
    store: Store<K, V>,
    flights: Box<[Mutex<Flights<K, V, E>>]>,
    hasher: RandomState,
    ttl: Option<Duration>,
    weigher: Option<Weigher<K, V>>,
    enabled: AtomicBool,
    /// Some load has read this region: from then on its keys are dependencies.
    read_by_loads: AtomicBool,
    stats: Stats,
}

type Flights<K, V, E> = HashMap<K, Arc<Flight<V, E>>, RandomState>;
type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u64 + Send + Sync>;

impl<K, V, E> Region<K, V, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// The stored value, if there is one that may be served. Never waits and never loads.
    ///
    /// Called while a loader of the same cache is being polled, it makes that load depend on the entry, or on its being
    /// absent.
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Option<Hit<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let inner = &*self.0;
        let reader = inner.reader();
        let found = inner.lookup(key);
        if let Some(reader) = reader {
            match &found {
                Some(entry) => reader.inherit(inner.key_dep(key), &entry.edges, entry.expires),
                None => reader.depends_on(inner.key_dep(key)),
            }
        }
        found.map(Hit)
    }

    /// The stored value, or the one that `load` gives, which is stored. One load per key runs at a time; further callers
    /// wait for it.
    ///
    /// Nothing is built or cloned on a hit: `load` is called on a miss only, and gets the key in its
    /// [`LoadCx`]. There it declares what the value depends on; what it reads from regions of this cache meanwhile is
    /// declared by itself. Its future is polled once right here; if it has to wait it goes on in a task of the current
    /// tokio runtime, so it ends however its callers fare. (Task-locals and tracing spans of the caller are therefore only
    /// there up to its first wait.)
    ///
    /// # Errors
    ///
    /// [`LoadError`]: the loader's own error, the same for all who waited for it, or why there was none. Errors are not
    /// stored.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future at any point loses nothing: a load that has begun goes on and is stored.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use swiftwater_cache::{Cache, Region, dep};
    ///
    /// let cache = Cache::builder().build()?;
    /// let names: Region<u64, String> = cache.region("names").build()?;
    /// let name = names
    ///     .get_or_load(&7, async |cx| {
    ///         cx.depends_on(dep!("user", *cx.key()));
    ///         Ok(format!("user {}", cx.key()))
    ///     })
    ///     .await?;
    /// assert_eq!(*name, "user 7");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_or_load<Q, F, Fut>(&self, key: &Q, load: F) -> Result<Hit<V>, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        F: FnOnce(LoadCx<K>) -> Fut,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
    {
        if let Some(hit) = self.get(key) {
            return Ok(hit);
        }
        let reader = self.0.reader();
        self.load(key.to_owned(), load, reader).await.map(Hit)
    }

    /// Stores a value that was got elsewhere, as known at this very moment: what is invalidated from now on counts.
    ///
    /// **A value that was read from a source before this call may be older than an invalidation in between.** Load through
    /// [`get_or_load`](Self::get_or_load) what can be loaded; `insert` is for values that are new by themselves, such as
    /// one that the caller has just written to the source.
    ///
    /// It takes the place of the stored value and of the one that is being loaded, and makes stale what was loaded from
    /// the old one.
    pub fn insert(&self, key: K, value: V) {
        self.insert_with(key, value, |_| ());
    }

    /// [`insert`](Self::insert), with dependencies or a lifetime of its own.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use swiftwater_cache::{Cache, Region, dep};
    ///
    /// let cache = Cache::builder().build()?;
    /// let prices: Region<u64, u32> = cache.region("prices").build()?;
    /// prices.insert_with(1, 995, |entry| {
    ///     entry.depends_on(dep!("tariff", "summer"));
    ///     entry.ttl(Duration::from_secs(60));
    /// });
    /// cache.invalidate(dep!("tariff", "summer"));
    /// assert!(prices.get(&1).is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn insert_with(&self, key: K, value: V, declare: impl FnOnce(&Scope)) {
        let inner = &*self.0;
        let flight = Flight::<V, E>::new(inner.cache.stamps.now());
        let start = inner.cache.clock.now();
        declare(&flight.scope);
        let entry = inner.entry(&key, value, &flight, start);
        let changed = inner.key_dep(&key);
        inner.stats.inserts.add(1);
        let mut flights = inner.flights(&key);
        let detached = flights.remove_entry(&key);
        let outgoing = if inner.servable(&entry) {
            inner.store.insert(key, entry.clone())
        } else {
            inner.store.remove(&key)
        };
        drop(flights);
        inner.count_outgoing(&outgoing, &entry);
        drop((detached, outgoing));
        // After the old value is gone, so that a load which has read it has a stamp from before. Whoever read it had set
        // the flag, and then took a lock that the store has taken since.
        if inner.read_by_loads.load(Relaxed) {
            inner.cache.stamps.invalidate(changed);
        }
    }

    /// Declares the entry of `key` wrong, and everything that was loaded from it, in every region.
    ///
    /// As with [`Cache::invalidate`], it takes effect when called; the future only tells how far it reached.
    pub fn invalidate<Q>(&self, key: &Q) -> Invalidation
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let inner = &*self.0;
        let (detached, removed) = {
            let mut flights = inner.flights(key);
            (flights.remove_entry(key), inner.store.remove(key))
        };
        drop((detached, removed));
        // After the entry is gone: a load that has read it took its stamp before this one.
        inner.cache.invalidate(inner.key_dep(key));
        Invalidation::local()
    }

    /// Reads on behalf of a load: for work that a loader has handed to another task or thread, where reading does not
    /// declare itself.
    pub fn within<'a>(&'a self, scope: &'a Scope) -> Within<'a, K, V, E> {
        Within { region: self, scope }
    }

    /// Switches the region on or off, see law 7. Switching off keeps what is stored.
    pub fn set_enabled(&self, enabled: bool) {
        self.0.enabled.store(enabled, Relaxed);
    }

    /// Whether the region is switched on.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.0.enabled()
    }

    /// The region's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// A miss: joins the running load of the key, or leads one.
    async fn load<F, Fut>(&self, key: K, load: F, reader: Option<Scope>) -> Landed<V, E>
    where
        F: FnOnce(LoadCx<K>) -> Fut,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
    {
        let inner = &self.0;
        if !inner.enabled() {
            let flight = Flight::new(inner.cache.stamps.now());
            let start = inner.cache.clock.now();
            inner.stats.loads.add(1);
            let loaded = Loading::start(&flight.scope, key.clone(), load).await;
            let result = inner.finish(&key, loaded, &flight, start);
            inner.inherit(reader.as_ref(), &key, &flight, &result);
            return result;
        }
        let asked = inner.cache.stamps.now();
        loop {
            let (flight, leads) = match inner.board(&key) {
                Boarded::Stored(entry) => {
                    if let Some(reader) = reader {
                        reader.inherit(inner.key_dep(&key), &entry.edges, entry.expires);
                    }
                    return Ok(entry);
                }
                Boarded::Joined(flight) => (flight, false),
                Boarded::Leads(flight) => (flight, true),
            };
            let landing = leads.then(|| Landing::new(inner.clone(), key.clone(), flight.clone()));
            let _waiting = match &reader {
                Some(reader) => Some(inner.cache.waits.wait(reader, &flight.scope).ok_or(LoadError::Cycle)?),
                None => None,
            };
            let result = if let Some(landing) = landing {
                lead(landing, load);
                flight.landed().await.clone()
            } else {
                inner.stats.joins.add(1);
                match flight.landed().await {
                    // Begun after we asked, or nothing of it has changed since it began: as good as our own.
                    Ok(entry)
                        if flight.stamp >= asked || inner.cache.stamps.current(&entry.edges, entry.stamp) =>
                    {
                        Ok(entry.clone())
                    }
                    // An error has no complete dependencies to go by, so only its age counts.
                    Err(error) if flight.stamp >= asked && !matches!(error, LoadError::Aborted) => {
                        Err(error.clone())
                    }
                    // From before we asked. The next load begins after this one ended, hence after we asked.
                    _ => continue,
                }
            };
            inner.inherit(reader.as_ref(), &key, &flight, &result);
            return result;
        }
    }
}

/// What a caller who found nothing gets.
enum Boarded<V, E> {
    Joined(Arc<Flight<V, E>>),
    Leads(Arc<Flight<V, E>>),
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
    let start = landing.inner.cache.clock.now();
    landing.inner.stats.loads.add(1);
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
    inner: Arc<Inner<K, V, E>>,
    key: K,
    flight: Arc<Flight<V, E>>,
    landed: bool,
}

impl<K: Hash + Eq, V, E> Landing<K, V, E> {
    fn new(inner: Arc<Inner<K, V, E>>, key: K, flight: Arc<Flight<V, E>>) -> Self {
        Self { inner, key, flight, landed: false }
    }

    fn land(mut self, loaded: Result<V, LoadError<E>>, start: Tick) {
        let result = self.inner.finish(&self.key, loaded, &self.flight, start);
        self.end(result);
    }

    fn end(&mut self, result: Landed<V, E>) {
        self.landed = true;
        let entry = result.as_ref().ok().cloned();
        let outgoing = self.inner.arrive(&self.key, &self.flight, entry);
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

impl<K: Hash + Eq, V, E> Inner<K, V, E> {
    /// The stored entry, if it may be served. One that may not leaves the store.
    #[inline]
    fn lookup<Q>(&self, key: &Q) -> Option<Arc<Entry<V>>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if !self.enabled() {
            self.stats.misses_off.add(1);
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

    /// Finds the running load of the key, or starts one, unless a load has ended just now.
    fn board(&self, key: &K) -> Boarded<V, E>
    where
        K: Clone,
    {
        let owned = key.clone(); // the user's code, so before the lock
        let mut flights = self.flights(key);
        if let Some(flight) = flights.get(key) {
            return Boarded::Joined(flight.clone());
        }
        // What the caller missed may have been stored between its look and the lock.
        if let Some(entry) = self.store.get(key).filter(|entry| self.servable(entry)) {
            return Boarded::Stored(entry);
        }
        // The stamp is read under the lock, so that it is at least what everybody had read who waited for an earlier load.
        let flight = Arc::new(Flight::new(self.cache.stamps.now()));
        flights.insert(owned, flight.clone());
        Boarded::Leads(flight)
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
            let make = AssertUnwindSafe(|| self.entry(key, value, flight, start));
            catch_unwind(make).map_err(|_| LoadError::Panicked) // the weigher
        });
        if result.is_err() {
            self.stats.load_failures.add(1);
        }
        result
    }

    fn entry(&self, key: &K, value: V, flight: &Flight<V, E>, start: Tick) -> Arc<Entry<V>> {
        // The store keeps what weighs nothing for ever.
        let weight = self.weigher.as_ref().map_or(1, |weigh| weigh(key, &value).max(1));
        let declared = flight.scope.seal();
        let own = declared.ttl.or(self.ttl).map_or(NEVER, |ttl| start + ttl);
        let expires = own.min(declared.expires);
        Arc::new(Entry { value, edges: declared.edges.into(), stamp: flight.stamp, expires, weight })
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

    /// The load that has read a key depends on what that one depends on, be it a value or an error.
    fn inherit<Q>(&self, reader: Option<&Scope>, key: &Q, flight: &Flight<V, E>, result: &Landed<V, E>)
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        let Some(reader) = reader else { return };
        match result {
            Ok(entry) => reader.inherit(self.key_dep(key), &entry.edges, entry.expires),
            Err(_) => reader.inherit_failed(self.key_dep(key), &flight.scope),
        }
    }

    /// The load on whose behalf this thread is reading. The region is marked before anything is read, see `insert_with`.
    #[inline]
    fn reader(&self) -> Option<Scope> {
        let reader = current()?;
        // Relaxed: the locks that reader and writer take afterwards order it.
        self.read_by_loads.store(true, Relaxed);
        Some(reader)
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
    fn enabled(&self) -> bool {
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

/// Reads of a region on behalf of a load. Made by [`Region::within`].
pub struct Within<'a, K, V, E = AnyError> {
    region: &'a Region<K, V, E>,
    scope: &'a Scope,
}

impl<K, V, E> Within<'_, K, V, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// [`Region::get`]; the load depends on what it finds.
    pub fn get<Q>(&self, key: &Q) -> Option<Hit<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        enter(self.scope, || self.region.get(key))
    }

    /// [`Region::get_or_load`]; the load depends on what it gets.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn get_or_load<Q, F, Fut>(&self, key: &Q, load: F) -> Result<Hit<V>, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        F: FnOnce(LoadCx<K>) -> Fut,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
    {
        Scoped::new(self.scope.clone(), self.region.get_or_load(key, load)).await
    }
}

impl<K, V, E> Observe for Inner<K, V, E>
where
    K: Hash + Eq + Send + Sync,
    V: Send + Sync,
    E: Send + Sync,
{
    fn observe(&self, visitor: &mut dyn Visitor) {
        self.stats.observe(visitor);
        visitor.gauge(&stats::ENTRIES, self.store.len() as f64);
        visitor.gauge(&stats::WEIGHT, self.store.weight() as f64);
        visitor.gauge(&stats::CAPACITY, self.store.capacity() as f64);
    }
}

impl<K, V, E> Part for Inner<K, V, E>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn knobs(self: Arc<Self>, each: &mut dyn FnMut(Knob)) {
        let read = |inner: &Self| inner.store.capacity() as f64;
        let write = |inner: &Self, capacity: f64| inner.store.set_capacity(capacity as u64);
        each(Knob::new(&stats::CAPACITY, 1.0..=MAX_KNOB, 1.0, &self, read, write));
    }
}

impl<K, V, E> Observe for Region<K, V, E>
where
    K: Hash + Eq + Send + Sync,
    V: Send + Sync,
    E: Send + Sync,
{
    fn observe(&self, visitor: &mut dyn Visitor) {
        self.0.observe(visitor);
    }
}

impl<K, V, E> Tunable for Region<K, V, E>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// `capacity`, from 1 to 2^53: the weight of what is stored. Lowering it evicts at once.
    fn knobs(&self, each: &mut dyn FnMut(Knob)) {
        self.0.clone().knobs(each);
    }
}

impl<K, V, E> From<&Region<K, V, E>> for Observer
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn from(region: &Region<K, V, E>) -> Self {
        Self::from(&region.0)
    }
}

impl<K, V, E> Clone for Region<K, V, E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V, E> fmt::Debug for Region<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl<K, V, E> fmt::Debug for Within<'_, K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Within").field("region", self.region).field("scope", self.scope).finish()
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
    /// The capacity is divided evenly over shards (4 per CPU, fewer if small); an entry that is heavier than its shard's
    /// share is returned to its callers and not stored.
    pub fn memory(mut self, capacity: u64) -> Self {
        self.memory = capacity;
        self
    }

    /// What an entry weighs, in the unit of [`memory`](Self::memory), such as its bytes. Called once per entry; zero counts
    /// as one. Default: every entry weighs one. If it panics, the load has failed.
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
    /// invalidated or evicted. A loader may decide otherwise with [`Scope::ttl`].
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
    /// `memory` and `expected_entries` must be at least 1, `ttl` longer than zero, and the name not that of a living
    /// region of the cache.
    pub fn build(self) -> Result<Region<K, V, E>, BuildError>
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: Send + Sync + 'static,
        E: Send + Sync + 'static,
    {
        if self.memory == 0 {
            return Err(BuildError::new("memory", 0, "must be at least 1"));
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
        let hasher = RandomState::default();
        let inner = Arc::new(Inner {
            name: self.name,
            key_space: Dep::of_region(self.name),
            cache: self.cache.shared().clone(),
            store: Store::new(self.memory, entries, hasher.clone()),
            flights: (0..FLIGHT_SHARDS).map(|_| Mutex::new(HashMap::with_hasher(hasher.clone()))).collect(),
            hasher,
            ttl: self.ttl,
            weigher: self.weigher,
            enabled: AtomicBool::new(self.enabled),
            read_by_loads: AtomicBool::new(false),
            stats: Stats::default(),
        });
        self.cache.shared().add_region(&inner)?;
        Ok(Region(inner))
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

/// Locks that misses, inserts and invalidations of different keys share.
const FLIGHT_SHARDS: usize = 32;
const DEFAULT_MEMORY: u64 = 10_000;
const MIN_GUESS: u64 = 32;
const MAX_GUESS: u64 = 1 << 20;
/// The largest whole number that a knob can tell from its neighbours.
const MAX_KNOB: f64 = 9_007_199_254_740_992.0;
