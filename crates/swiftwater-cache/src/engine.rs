//! What one region holds: lookup, storing, and who may store. How values are loaded is in [`load`](crate::load).
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
    hash::{BuildHasher, Hash},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, PoisonError,
        atomic::{
            AtomicU8,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    time::Duration,
};

use foldhash::fast::RandomState;
use swiftwater_core::{Clock, Knob, Observe, Tick, Visitor};

use crate::{
    advice::{Advice, Advisor, Birth},
    behind::{Queued, Refused},
    below::{Below, Found, Moment, Waits},
    builder::MAX_MEMORY,
    cache::{CloseError, Keys, Part, Shared, Swept},
    dep::{Dep, Edge},
    entry::{Entry, Held},
    error::LoadError,
    explain::{Cause, Explanation, Verdict},
    flight::{Flight, Landed},
    lane::Lane,
    load::{Landing, sleep},
    policy::{Past, Phase, Policy},
    relaxed::Fate,
    review::Judgement,
    scope::{NEVER, Readers, Scope},
    sink::MOST_PENDING,
    skip::NOTHING,
    source::AnySource,
    stamps::Stamp,
    stats::{self, Stats},
    store::{Evicted, Store},
    storing::Outlet,
    sync::{Mutex, MutexGuard},
    usage::Usage,
    waits::Home,
};

pub(crate) struct Engine<K, V, E> {
    pub(crate) name: &'static str,
    /// What every key is a part of as a dependency.
    whole: Dep,
    pub(crate) home: Home,
    pub(crate) cache: Arc<Shared>,
    clock: Clock,
    store: Store<K, V>,
    flights: Box<[Mutex<Flights<K, V, E>>]>,
    hasher: RandomState,
    pub(crate) policy: Policy<K, V>,
    pub(crate) lane: Option<Lane>,
    pub(crate) below: Option<Arc<dyn Below<K, V>>>,
    pub(crate) source: Option<Arc<dyn AnySource<K, V, E>>>,
    pub(crate) outlet: Option<Outlet<K, V, E>>,
    state: AtomicU8,
    /// What is told of every lookup and of every entry, if the region has one.
    advisor: Option<Box<Advisor>>,
    /// Shared by all regions of this name that there ever were.
    keys: Arc<Keys>,
    pub(crate) stats: Stats,
}

/// What the builder was told.
pub(crate) struct Options<K, V, E> {
    pub(crate) store: Store<K, V>,
    /// What the store hashes with.
    pub(crate) hasher: RandomState,
    pub(crate) policy: Policy<K, V>,
    pub(crate) lane: Option<Lane>,
    pub(crate) below: Option<Arc<dyn Below<K, V>>>,
    pub(crate) source: Option<Arc<dyn AnySource<K, V, E>>>,
    pub(crate) advisor: Option<Box<Advisor>>,
    pub(crate) outlet: Option<Outlet<K, V, E>>,
    pub(crate) enabled: bool,
}

/// What is on its way of the keys of a shard.
struct Flights<K, V, E> {
    loads: HashMap<K, Arc<Flight<V, E>>, RandomState>,
    /// Values on their way to the source that may be stored afterwards. Empty, as a rule.
    stores: HashMap<K, Stores, RandomState>,
}

/// Of one key.
struct Stores {
    running: usize,
    /// Another store, an insert or an invalidation came in between: which of them is the last nobody knows.
    disturbed: bool,
}

impl<K: Hash + Eq, V, E> Flights<K, V, E> {
    fn new(hasher: RandomState) -> Self {
        Self { loads: HashMap::with_hasher(hasher.clone()), stores: HashMap::with_hasher(hasher) }
    }

    /// The key has changed: takes its load out of the table, and a store that is running is not the last.
    fn detach<Q>(&mut self, key: &Q) -> Option<(K, Arc<Flight<V, E>>)>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if !self.stores.is_empty()
            && let Some(stores) = self.stores.get_mut(key)
        {
            stores.disturbed = true;
        }
        if self.loads.is_empty() { None } else { self.loads.remove_entry(key) } // which would hash the key first
    }

    /// Gives the key back where it is not needed.
    fn begin_store(&mut self, key: K) -> Option<K> {
        if let Some(stores) = self.stores.get_mut(&key) {
            stores.running += 1;
            stores.disturbed = true;
            return Some(key);
        }
        self.stores.insert(key, Stores { running: 1, disturbed: false });
        None
    }

    /// Whether nothing has come in between; and the key, once no store of it is running any more.
    fn end_store(&mut self, key: &K) -> (bool, Option<K>) {
        let Some(stores) = self.stores.get_mut(key) else { return (false, None) };
        let alone = !stores.disturbed;
        stores.running -= 1;
        let ended = stores.running == 0;
        (alone, if ended { self.stores.remove_entry(key).map(|(key, _)| key) } else { None })
    }
}

/// What a look at a key finds.
pub(crate) enum Look<V> {
    /// May be served.
    Fresh(Held<V>),
    /// May be served; it is time to load it anew.
    Due(Held<V>),
    /// May be served as stale, by who loads it anew.
    Stale(Held<V>),
    /// May be served as stale, and is not to be loaded.
    Throttled(Held<V>),
    /// May be served as stale if the load fails or takes too long.
    Fallback(Held<V>),
    /// Nothing, or what may not be served any more.
    Miss(Option<Held<V>>),
}

/// What a caller who found nothing gets.
pub(crate) enum Boarded<K: Hash + Eq, V, E> {
    Joins(Arc<Flight<V, E>>),
    Leads(Landing<K, V, E>),
    Stored(Held<V>),
}

impl<K: Hash + Eq, V, E> Engine<K, V, E> {
    pub(crate) fn new(name: &'static str, cache: Arc<Shared>, options: Options<K, V, E>) -> Self {
        let Options { store, hasher, policy, lane, below, source, outlet, advisor, enabled } = options;
        Self {
            name,
            whole: Dep::whole(name),
            home: Home::new(cache.id()),
            store,
            flights: (0..FLIGHT_SHARDS).map(|_| Mutex::new(Flights::new(hasher.clone()))).collect(),
            hasher,
            policy,
            lane,
            below,
            source,
            outlet,
            state: AtomicU8::new(if enabled { ON } else { 0 } | if advisor.is_some() { ADVISED } else { 0 }),
            advisor,
            keys: cache.keys(name),
            clock: cache.clock.clone(),
            cache,
            stats: Stats::default(),
        }
    }

    /// The stored entry, if it may be served as fresh. Read on nobody's behalf.
    #[inline]
    pub(crate) fn hit<Q>(&self, key: &Q) -> Option<Held<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        match self.try_hit(key) {
            Ok(entry) => Some(entry),
            Err(found) => self.fresh(self.judge(key, found)),
        }
    }

    /// The stored entry, if two words or its cells say that it may be served; or, whatever else there is, uncounted.
    #[inline]
    pub(crate) fn try_hit<Q>(&self, key: &Q) -> Result<Held<V>, Option<Held<V>>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let Some(entry) = self.store.get(key) else { return Err(None) };
        // Where somebody is told of every lookup, none is that simple.
        if self.state.load(Relaxed) == ON && self.is_plain(key, &entry) {
            self.stats.hits.add(1);
            return Ok(entry);
        }
        Err(Some(entry))
    }

    /// Its time has not come, and nothing has been invalidated, anywhere, since it was last found current; or at least
    /// nothing that it depends on.
    #[inline]
    fn is_plain<Q: Hash + ?Sized>(&self, key: &Q, entry: &Entry<V>) -> bool {
        let ticket = self.cache.stamps.now();
        if entry.stamp() != ticket && !self.is_current(key, entry, ticket) {
            return false;
        }
        let due = entry.due();
        due == NEVER || self.clock.now() < due
    }

    /// Whether nothing that it depends on has moved up to the ticket, which was read before.
    #[inline(never)]
    fn is_current<Q: Hash + ?Sized>(&self, key: &Q, entry: &Entry<V>, ticket: Stamp) -> bool {
        let stamp = entry.stamp();
        let is_current =
            self.cache.relaxed.is_quiet(stamp) && self.cache.current(self.names(key), entry.edges(), stamp);
        if is_current && stamp < ticket {
            entry.restamp(ticket);
        }
        is_current
    }

    /// The stored entry, if it may be served as fresh; the loads on whose behalf it is read depend on it, or on its
    /// absence.
    pub(crate) fn get<Q>(&self, key: &Q, readers: &Readers) -> Option<Held<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let found = self.fresh(self.look(key, readers));
        if found.is_none() {
            let depend = |reader: &Scope| reader.depends_on_key(self.key_dep(key), self.whole);
            readers.of(self.cache.id()).for_each(depend);
        }
        found
    }

    fn fresh(&self, found: Look<V>) -> Option<Held<V>> {
        match found {
            Look::Fresh(entry) | Look::Due(entry) => {
                self.stats.hits.add(1);
                Some(entry)
            }
            Look::Stale(_) | Look::Throttled(_) | Look::Fallback(_) | Look::Miss(_) => None,
        }
    }

    /// What there is of the key. One that may not be served in any way leaves the store. What is fresh counts as read by
    /// the readers.
    pub(crate) fn look<Q>(&self, key: &Q, readers: &Readers) -> Look<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if !readers.is_empty() {
            self.keys.read(); // before anything is read, see `insert`
            if !self.store.is_default() {
                fence(SeqCst); // moka's lookups take no lock that would order the mark
            }
        }
        let found = self.judge(key, self.store.get(key));
        if let Look::Fresh(entry) | Look::Due(entry) = &found {
            self.inherit_entry(readers, key, entry);
        }
        found
    }

    /// The readers read the key without a look at what there is of it.
    pub(crate) fn pass_by<Q: Hash + ?Sized>(&self, key: &Q, readers: &Readers) {
        if !readers.is_empty() {
            self.keys.read(); // before anything is read, see `insert`
            drop(self.flights(key)); // the lock that orders the mark
        }
    }

    /// What is found of the key that the store has this of.
    #[inline(never)]
    pub(crate) fn judge<Q>(&self, key: &Q, found: Option<Held<V>>) -> Look<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if !self.enabled() {
            self.stats.misses_off.add(1);
            if self.keys.matter() {
                drop(self.flights(key)); // the lock that orders a reader's mark, which no store takes for it here
            }
            return Look::Miss(None);
        }
        let Some(entry) = found else {
            self.stats.misses_absent.add(1);
            self.advise(key, None);
            return Look::Miss(None);
        };
        let now = self.clock.now();
        let phase = self.policy.phase(&entry, now);
        let found = match (self.fate(key, &entry, now), phase) {
            (Fate::Stale, _) => {
                self.stats.misses_stale.add(1);
                Look::Miss(Some(entry))
            }
            (_, Phase::Over) => {
                self.stats.misses_expired.add(1);
                Look::Miss(Some(entry))
            }
            (Fate::Soft, Phase::Fresh | Phase::Due | Phase::Stale) | (_, Phase::Stale) => Look::Stale(entry),
            (_, Phase::Fresh) => Look::Fresh(entry),
            (_, Phase::Due) => Look::Due(entry),
            (_, Phase::Throttled) => Look::Throttled(entry),
            (_, Phase::Fallback) => Look::Fallback(entry),
        };
        if let Look::Miss(Some(entry)) = &found {
            drop(self.store.remove_exactly(key, entry));
        }
        match &found {
            Look::Fresh(entry) | Look::Due(entry) => self.advise(key, Some(entry)),
            Look::Stale(_) | Look::Throttled(_) | Look::Fallback(_) | Look::Miss(_) => self.advise(key, None),
        }
        found
    }

    /// Tells of a lookup and of what it has found fresh.
    fn advise<Q: Hash + ?Sized>(&self, key: &Q, hit: Option<&Held<V>>) {
        let Some(advisor) = &self.advisor else { return };
        if !advisor.count(self.hasher.hash_one(key), hit.is_some()) {
            return;
        }
        let (now, stamp, name, share) =
            (self.clock.now(), self.cache.stamps.now(), self.key_dep(key), self.share(key));
        let is_current = |edges: &[Edge], stamp| {
            self.cache.fate((self.whole, || name), edges, stamp, now, || share) < Fate::Soft
        };
        advisor.look(
            self.hasher.hash_one(key),
            hit.map(|entry| Birth::of(entry, now)),
            (now, stamp),
            is_current,
        );
    }

    /// Whoever is to be told what becomes of the key, with its hash.
    fn advisor<Q: Hash + ?Sized>(&self, key: &Q) -> Option<(&Advisor, u64)> {
        let advisor = self.advisor.as_deref()?;
        let hash = self.hasher.hash_one(key);
        advisor.samples(hash).then_some((advisor, hash))
    }

    pub(crate) fn advice(&self) -> Option<Advice> {
        self.advisor.as_deref().map(Advisor::advice)
    }

    /// Whether the entry has been invalidated, and how.
    fn fate<Q: Hash + ?Sized>(&self, key: &Q, entry: &Entry<V>, now: Tick) -> Fate {
        // Before the cells are looked at: up to there is known afterwards what has moved.
        let ticket = self.cache.stamps.now();
        let stamp = entry.stamp();
        if stamp == ticket {
            return Fate::Clean;
        }
        let fate = self.cache.fate(self.names(key), entry.edges(), stamp, now, || self.share(key));
        if fate == Fate::Clean && stamp < ticket {
            entry.restamp(ticket);
        }
        fate
    }

    /// Why a `get` would find the key, or not. Changes nothing.
    pub(crate) fn explain<Q>(&self, key: &Q) -> Explanation
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let is_loading = self.flights(key).loads.get(key).is_some_and(|flight| !flight.has_landed());
        let entry = self.store.peek(key);
        let now = self.clock.now();
        let mut explanation = Explanation {
            verdict: Verdict::Absent,
            is_loading,
            expires_in: None,
            dependencies: entry.as_ref().map_or(0, |entry| entry.edges().len()),
        };
        explanation.verdict = if !self.enabled() {
            Verdict::Off
        } else if let Some(entry) = entry {
            let (stamps, relaxed, stamp) = (&self.cache.stamps, &self.cache.relaxed, entry.stamp());
            let strict = |current: bool| if current { Fate::Clean } else { Fate::Stale };
            let gentle = |edge| relaxed.fate([edge], stamp, now, self.share(key));
            let (region, name) = (self.whole, self.key_dep(key));
            let everywhere = [
                (Cause::Everything, strict(stamps.is_current(Edge::ALL, stamp)), Edge::ALL),
                (Cause::Region, strict(stamps.is_current(region.edge().own(), stamp)), region.edge()),
                (Cause::Key, strict(stamps.is_current_itself(|| name, stamp)), name.edge()),
            ];
            let own = entry
                .edges()
                .iter()
                .map(|edge| (Cause::of(*edge), strict(stamps.is_current(*edge, stamp)), *edge));
            let causes = everywhere.into_iter().chain(own);
            let worst = causes
                .map(|(cause, fate, edge)| (fate.max(gentle(edge)), cause))
                .max_by_key(|(fate, _)| *fate);
            let idle = entry.extra().is_some_and(|extra| extra.idle_end() <= now);
            match worst {
                Some((Fate::Stale, cause)) => Verdict::Invalidated(cause),
                _ if idle => Verdict::Expired(now - entry.expires().min(now)),
                _ if entry.expires() <= now => Verdict::Expired(now - entry.expires()),
                _ if self.policy.judgement(&entry, now) == Judgement::Drop => Verdict::Unwanted,
                Some((Fate::Soft, cause)) => Verdict::Softened(cause),
                _ => {
                    explanation.expires_in = (entry.expires() != NEVER).then(|| entry.expires() - now);
                    Verdict::Fresh
                }
            }
        } else {
            Verdict::Absent
        };
        explanation
    }

    /// All that is in memory, served or not; a short lock for each.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (K, Held<V>)>
    where
        K: Clone,
    {
        self.store.iter()
    }

    /// Whether the entry would be served as fresh. Notes nothing.
    pub(crate) fn is_fresh(&self, key: &K, entry: &Entry<V>) -> bool {
        let phase = self.policy.phase_untouched(entry, self.clock.now());
        matches!(phase, Phase::Due | Phase::Fresh) && self.servable(key, entry)
    }

    /// Whether there is an entry that would be served as fresh. Notes nothing; but one that nobody can be served any more leaves
    /// the store, and stands in no load's way.
    pub(crate) fn is_there(&self, key: &K) -> bool {
        let Some(entry) = self.store.peek(key) else { return false };
        if self.policy.phase_untouched(&entry, self.clock.now()) == Phase::Over {
            drop(self.store.remove_exactly(key, &entry));
            return false;
        }
        self.is_fresh(key, &entry)
    }

    /// What was used, and how much, if that is counted.
    pub(crate) fn usage(&self, most: usize) -> Option<Usage<K>>
    where
        K: Clone,
    {
        self.policy.usage?;
        let now = self.clock.now();
        let used = self.entries().filter_map(|(key, entry)| Some((key, self.policy.uses(&entry, now)?)));
        Some(Usage::of(used.collect(), most))
    }

    /// The keys of the entries that depend on it, if there is an index.
    pub(crate) fn dependents(&self, dep: Dep) -> Option<Vec<K>> {
        self.store.dependents(dep)
    }

    /// Invalidates it and lets go at once of the entries that depend on it, if there is an index.
    pub(crate) fn purge(&self, dep: Dep) -> Option<usize> {
        self.cache.invalidate(dep.into());
        let keys = self.store.dependents(dep)?;
        let removed = |key: &K| {
            self.store.peek(key).and_then(|entry| {
                // Not what has been loaded since.
                let stale = !self.cache.stamps.current(entry.edges(), entry.stamp());
                if stale { self.store.remove_exactly(key, &entry) } else { None }
            })
        };
        Some(keys.iter().filter_map(removed).count())
    }

    /// Lets go of what cannot be served any more, so many entries a second.
    pub(crate) async fn sweep(&self, per_second: u32) -> Swept
    where
        K: Clone,
    {
        self.settle();
        let mut swept = Swept::default();
        let pause = Duration::from_secs(1) * BATCH as u32 / per_second;
        // That there are none is only told by a panic, which is caught and yet reported: once is enough.
        let mut has_timers = true;
        for (key, entry) in self.store.iter() {
            swept.visited += 1;
            let now = self.clock.now();
            if self.fate(&key, &entry, now) == Fate::Stale
                || self.policy.phase_untouched(&entry, now) == Phase::Over
            {
                swept.freed += u64::from(self.store.remove_exactly(&key, &entry).is_some());
            }
            if swept.visited.is_multiple_of(BATCH) {
                match has_timers.then(|| sleep(pause)).flatten() {
                    Some(pause) => pause.await,
                    None => {
                        has_timers = false;
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
        self.stats.swept.add(swept.freed);
        swept
    }

    pub(crate) fn insert(&self, key: K, value: V, declare: impl FnOnce(&Scope))
    where
        K: Clone,
    {
        let (entry, stamp) = self.make(&key, value, declare);
        let spare = self.spare(&key);
        self.stats.inserts.add(1);
        self.put(self.flights(&key), (key, spare), entry, stamp, Since::Now);
    }

    /// [`insert`](Self::insert) of what `queue` has put in line for the source; unless it refuses. `start` is told at once whether
    /// the line wants a task.
    pub(crate) fn insert_queued(
        &self,
        key: K,
        entry: &Held<V>,
        stamp: Stamp,
        queue: impl FnOnce(Held<V>) -> Result<Queued<K, V>, (Refused, [K; 2])>,
        start: impl FnOnce(bool),
    ) -> Result<(), Refused>
    where
        K: Clone,
    {
        let spare = self.spare(&key);
        let flights = self.flights(&key);
        match queue(entry.clone()) {
            Ok(queued) => {
                // Before anything of the user's is dropped, which may panic.
                start(queued.start);
                self.put(flights, (key, spare), entry.clone(), stamp, Since::Now);
                drop(queued);
                Ok(())
            }
            Err((refused, keys)) => {
                drop(flights);
                drop(keys);
                Err(refused)
            }
        }
    }

    /// A value of the key is on its way to the source.
    pub(crate) fn begin_store(&self, key: K) {
        let mut flights = self.flights(&key);
        let unused = flights.begin_store(key);
        drop(flights);
        drop(unused);
    }

    /// It may have arrived there.
    pub(crate) fn end_store(&self, key: &K) {
        let mut flights = self.flights(key);
        let noted = flights.end_store(key);
        self.forget(flights, key);
        drop(noted);
    }

    /// It has arrived, as this entry.
    pub(crate) fn end_store_with(&self, (key, spare): (K, Option<K>), entry: Held<V>, stamp: Stamp) {
        let mut flights = self.flights(&key);
        let (alone, noted) = flights.end_store(&key);
        if alone {
            self.put(flights, (key, spare), entry, stamp, Since::Stamp);
        } else {
            self.forget(flights, &key);
        }
        drop(noted);
    }

    /// Makes an entry of a value that does not come from a loader, as known from now on.
    pub(crate) fn make(&self, key: &K, value: V, declare: impl FnOnce(&Scope)) -> (Held<V>, Stamp) {
        let scope = Scope::new(self.home);
        declare(&scope);
        let (stamp, start) = (self.cache.stamps.now(), self.clock.now());
        let entry = self.entry(key, value, &scope, (stamp, start), Past::default());
        scope.retire();
        (entry, stamp)
    }

    /// The key once more, for layers; cloned before any lock is taken.
    pub(crate) fn spare(&self, key: &K) -> Option<K>
    where
        K: Clone,
    {
        self.below.is_some().then(|| key.clone())
    }

    /// Stores an entry that was [made](Self::make) here, unless what it depends on has been invalidated since its stamp.
    fn put(
        &self,
        flights: MutexGuard<'_, Flights<K, V, E>>,
        (key, spare): (K, Option<K>),
        entry: Held<V>,
        stamp: Stamp,
        since: Since,
    ) {
        // If the key's `Hash` or `Eq` panics, the locks go first and the values after them.
        let (told, mut outgoing) = (entry.clone(), Evicted::default());
        let mut flights = flights;
        let changed = self.key_dep(&key);
        let layered = self.below.as_ref().zip(spare);
        if layered.is_some() {
            // What layers have of the key is the past, wherever it is on its way. The entry is not, unless something else
            // has moved meanwhile, or it is made of something older that a gentle invalidation still concerns.
            let (version, alone) = self.cache.stamps.invalidate_since(changed, stamp);
            if entry.stamp() == stamp
                && (alone || since == Since::Now)
                && self.cache.stamps.current(&[Edge::ALL, self.whole.edge().own()], stamp)
                && self.cache.stamps.current(entry.edges(), stamp)
            {
                entry.restamp(version);
            }
        }
        let detached = flights.detach(&key);
        let advised = self.advisor(&key);
        // Held off are loads, which may have read the past; who inserts has made the value.
        if self.servable(&key, &entry) {
            self.store.insert(key, entry, &mut outgoing);
        } else {
            self.store.remove(&key, &mut outgoing);
        }
        drop(flights);
        // After the old value is gone, so that a load which has read it has a stamp from before. Whoever read it had set
        // the mark, and then took a lock that was taken here since.
        if self.keys.matter() {
            self.cache.supersede(changed);
        } else if layered.is_some() {
            self.cache.changed();
        }
        self.count_outgoing(&outgoing);
        if let Some((advisor, hash)) = advised {
            if outgoing.stored {
                advisor.store(hash, Birth::of(&told, self.clock.now()), true);
            } else {
                advisor.remove(hash);
            }
        }
        if let Some((below, key)) = layered {
            if outgoing.stored {
                below.keep(&key, &told, Moment::Filled, &NOTHING);
            }
            self.demote(&outgoing);
        }
        // Last, since the user's destructors may panic.
        drop((detached, outgoing));
    }

    pub(crate) fn invalidate<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.forget(self.flights(key), key);
    }

    fn forget<Q>(&self, mut flights: MutexGuard<'_, Flights<K, V, E>>, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let detached = flights.detach(key);
        let mut removed = Evicted::default();
        self.store.remove(key, &mut removed);
        drop(flights);
        // After the entry is gone: a load that has read it took its stamp before this one. Nothing in memory is left that
        // depends on the key as its own; in layers there may be.
        self.cache.invalidate_key(self.key_dep(key), self.below.is_some());
        if let Some((advisor, hash)) = self.advisor(key) {
            advisor.remove(hash);
        }
        if let Some(below) = &self.below {
            // For the room that it takes; that nobody is served it is seen to. What memory has forgotten stays there.
            removed.entries.iter().for_each(|(key, _)| below.forget(key));
        }
        drop((detached, removed));
    }

    /// Hands what was evicted, or was too heavy, to the layers that want it.
    pub(crate) fn demote(&self, outgoing: &Evicted<K, V>) {
        let Some(below) = self.below.as_ref().filter(|_| outgoing.evicted > 0) else { return };
        let now = self.clock.now();
        for (key, entry) in &outgoing.entries {
            if now < entry.expires() && self.fate(&**key, entry, now) == Fate::Clean {
                below.keep(key, entry, Moment::Evicted, &NOTHING);
            }
        }
    }

    pub(crate) fn set_enabled(&self, enabled: bool) {
        if enabled {
            self.state.fetch_or(ON, Relaxed);
        } else {
            self.state.fetch_and(!ON, Relaxed);
        }
    }

    #[inline]
    pub(crate) fn enabled(&self) -> bool {
        // Relaxed: a switch, not a message; what matters is stored and checked under other orders.
        self.state.load(Relaxed) & ON != 0
    }

    /// Finds the running load of the key, or starts one, unless a load has ended just now. `wanting` is the entry that the
    /// caller found, and that is not good enough.
    pub(crate) fn board(self: &Arc<Self>, key: &K, wanting: Option<&Held<V>>) -> Boarded<K, V, E>
    where
        K: Clone,
    {
        let (owned, landing_key) = (key.clone(), key.clone()); // the user's code, so before the lock
        let mut flights = self.flights(key);
        // One that has landed and is still here could not be taken out: the key's `Hash` or `Eq` panicked.
        if let Some(flight) = flights.loads.get(key).filter(|flight| !flight.has_landed()) {
            return Boarded::Joins(flight.clone());
        }
        // What the caller missed may have been stored between its look and the lock.
        let better = |entry: &Held<V>| {
            wanting.is_none_or(|wanting| !Held::ptr_eq(wanting, entry)) && self.servable(key, entry)
        };
        if let Some(entry) = self.store.get(key).filter(better) {
            return Boarded::Stored(entry);
        }
        let flight = Arc::new(Flight::new(self.home));
        let past = Policy::<K, V>::past(wanting.map(|wanting| &**wanting));
        let landed = flights.loads.insert(owned, flight.clone());
        drop(flights);
        drop(landed);
        Boarded::Leads(Landing::new(self.clone(), landing_key, flight, past))
    }

    /// Makes an entry out of what a loader returned.
    pub(crate) fn finish(
        &self,
        key: &K,
        loaded: Result<V, LoadError<E>>,
        scope: &Scope,
        born: (Stamp, Tick),
        past: Past,
    ) -> Landed<V, E> {
        let result = loaded.and_then(|value| {
            let make = AssertUnwindSafe(|| self.entry(key, value, scope, born, past));
            catch_unwind(make).map_err(|_| LoadError::Panicked) // the weigher, or what tells negative values
        });
        if matches!(&result, Err(error) if !matches!(error, LoadError::Absent)) {
            self.stats.load_failures.add(1);
        }
        result
    }

    /// Makes an entry out of what a layer had.
    pub(crate) fn found(&self, key: &K, found: Found<V>, past: Past) -> Landed<V, E> {
        let make = AssertUnwindSafe(|| {
            let Found { value, edges, stamp, expires } = found;
            let weight = self.weigh(key, &value);
            let times = self.policy.times_of(expires, self.clock.now(), past);
            Entry::held(value, &edges, stamp, times, weight)
        });
        catch_unwind(make).map_err(|_| LoadError::Panicked)
    }

    fn weigh(&self, key: &K, value: &V) -> u32 {
        // The store keeps what weighs nothing for ever.
        let weight = self.policy.weigher.as_ref().map_or(1, |weigh| weigh(key, value).max(1));
        weight.min(TOO_HEAVY.into()) as u32
    }

    fn entry(&self, key: &K, value: V, scope: &Scope, (stamp, start): (Stamp, Tick), past: Past) -> Held<V> {
        let (weight, ttl) = (self.weigh(key, &value), self.policy.ttl(&value));
        let chance = if self.policy.jitter > 0.0 { self.share(&(key, start.as_nanos())) } else { 0.0 };
        let links = &self.cache.links;
        let name = links.any().then(|| self.key_dep(key));
        let declared = scope.seal(links, name);
        let stamp = declared.since.map_or(stamp, |since| since.min(stamp));
        let times = self.policy.times(&declared, ttl, start, chance, past);
        Entry::held(value, &declared.edges, stamp, times, weight)
    }

    /// Takes the flight out of the table and stores its entry, if the flight is still the table's own and nothing moved
    /// meanwhile. Returns the table's key if it was not, to be dropped where no lock is held, as what has left the store.
    pub(crate) fn arrive(
        &self,
        key: &K,
        flight: &Arc<Flight<V, E>>,
        result: &Landed<V, E>,
        start: Tick,
        outgoing: &mut Evicted<K, V>,
    ) -> Option<K> {
        if let Ok(entry) = result
            && self.cache.holds(self.names(key), entry.edges(), start)
        {
            flight.hold();
        }
        let mut flights = self.flights(key);
        let key = match flights.loads.remove_entry(key) {
            Some((key, ours)) if Arc::ptr_eq(&ours, flight) => Some(key),
            Some((key, other)) => {
                flights.loads.insert(key, other);
                None
            }
            None => None,
        };
        let entry = match result {
            Ok(entry) => entry,
            // These say nothing of the source.
            Err(LoadError::Aborted | LoadError::Busy) => return key,
            Err(LoadError::Absent) => {
                if let Some(key) = &key {
                    self.store.remove(key, outgoing);
                }
                drop(flights);
                if let Some((advisor, hash)) = key.as_ref().and_then(|key| self.advisor(key)) {
                    advisor.remove(hash);
                }
                return key;
            }
            Err(_) => {
                if let Some((key, fail_safe)) = key.as_ref().zip(self.policy.fail_safe) {
                    // Whoever asks soon is served what there is.
                    if let Some(extra) = self.store.get(key).as_ref().and_then(|entry| entry.extra()) {
                        extra.set_retry_at(self.clock.now() + fail_safe.throttle);
                    }
                }
                return key;
            }
        };
        match key {
            Some(key) if !flight.is_held() && self.servable(&key, entry) => {
                let advised = self.advisor(&key);
                self.store.insert(key, entry.clone(), outgoing);
                drop(flights);
                self.count_outgoing(outgoing);
                if let Some((advisor, hash)) = advised {
                    advisor.store(hash, Birth::of(entry, start), false);
                }
                None
            }
            key => {
                self.stats.unstored.add(1);
                key
            }
        }
    }

    /// Lets the store do what it has put off, where no lock is held.
    fn settle(&self) {
        let outgoing = self.store.settle();
        self.count_outgoing(&outgoing);
        self.demote(&outgoing);
    }

    fn count_outgoing(&self, outgoing: &Evicted<K, V>) {
        if outgoing.too_heavy {
            self.stats.too_heavy.add(1);
        }
        self.stats.evictions.add(outgoing.evicted - u64::from(outgoing.too_heavy));
    }

    /// A load that has read a key depends on what that one depends on, be it a value or an error.
    pub(crate) fn inherit(&self, readers: &Readers, key: &K, flight: &Flight<V, E>, result: &Landed<V, E>) {
        if readers.is_empty() {
            return;
        }
        match result {
            Ok(entry) => self.inherit_entry(readers, key, entry),
            Err(_) => readers.of(self.cache.id()).for_each(|reader| {
                reader.depends_on_key(self.key_dep(key), self.whole);
                reader.inherit_failed(flight.scope());
            }),
        }
        if flight.is_held() {
            // What it read may be the past, which its own start does not tell.
            readers.of(self.cache.id()).for_each(Scope::taint);
        }
    }

    pub(crate) fn inherit_entry<Q: Hash + ?Sized>(&self, readers: &Readers, key: &Q, entry: &Entry<V>) {
        for reader in readers.of(self.cache.id()) {
            reader.depends_on_key(self.key_dep(key), self.whole);
            reader.inherit(entry.edges(), entry.expires());
            let stamp = entry.stamp();
            if !self.cache.relaxed.is_quiet(stamp) {
                reader.since(stamp);
            }
        }
    }

    /// Whether the entry may be served as fresh, and kept for that.
    pub(crate) fn servable(&self, key: &K, entry: &Entry<V>) -> bool {
        let now = self.clock.now();
        self.enabled()
            && entry.weight() < TOO_HEAVY
            && now < entry.expires()
            && self.fate(key, entry, now) < Fate::Soft
    }

    /// Whether the entry may stand in for a load that failed, to be read by these.
    pub(crate) fn may_stand_in(&self, key: &K, entry: &Entry<V>, readers: &Readers) -> bool {
        // What a loader makes of it does not say that it is stale, so it may at least not have been invalidated.
        let worst = if readers.is_empty() { Fate::Soft } else { Fate::Pending };
        self.fate(key, entry, self.clock.now()) <= worst
    }

    /// Of the region and of the key.
    fn names<Q: Hash + ?Sized>(&self, key: &Q) -> (Dep, impl Fn() -> Dep) {
        (self.whole, || self.key_dep(key))
    }

    pub(crate) fn now(&self) -> Tick {
        self.clock.now()
    }

    /// From now on something may depend on keys that it names.
    pub(crate) fn name_keys(&self) {
        self.keys.name(|| {
            self.cache.stamps.supersede(self.whole);
        });
    }

    /// Writes of these keys have arrived at the source. What was read there before and depends on one by its name is the
    /// past only now.
    pub(crate) fn have_arrived(&self, keys: &[K]) {
        if self.keys.are_named() {
            for key in keys {
                self.cache.supersede(self.key_dep(key));
            }
        }
    }

    /// What depends on this key.
    pub(crate) fn key_dep<Q: Hash + ?Sized>(&self, key: &Q) -> Dep {
        self.whole.key(key)
    }

    /// What depends on any key.
    pub(crate) fn whole(&self) -> Dep {
        self.whole
    }

    /// From 0 to 1, by the hash of the key.
    fn share<Q: Hash + ?Sized>(&self, key: &Q) -> f64 {
        (self.hasher.hash_one(key) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn flights<Q: Hash + ?Sized>(&self, key: &Q) -> MutexGuard<'_, Flights<K, V, E>> {
        let shard = self.hasher.hash_one(key) as usize & (FLIGHT_SHARDS - 1);
        // A panic in the key's `Hash` or `Eq` leaves the map as it was.
        self.flights[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V, E> Drop for Engine<K, V, E> {
    fn drop(&mut self) {
        self.home.end();
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
        self.settle();
        self.stats.observe(visitor);
        visitor.gauge(&stats::ENTRIES, self.store.len() as f64);
        visitor.gauge(&stats::WEIGHT, self.store.weight() as f64);
        visitor.gauge(&stats::CAPACITY, self.store.capacity() as f64);
        if let Some(line) = self.line() {
            visitor.gauge(&stats::PENDING, line.pending() as f64);
        }
        if let Some(below) = &self.below {
            below.observe(visitor);
        }
    }
}

impl<K, V, E> Part for Engine<K, V, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn close_writes(self: Arc<Self>) -> Waits<'static, Result<(), CloseError>> {
        Box::pin(async move { Self::close_writes(&self).await })
    }

    #[cfg(feature = "layers")]
    fn settle(self: Arc<Self>) -> Waits<'static, ()> {
        Box::pin(async move {
            if let Some(below) = &self.below {
                below.settle().await;
            }
        })
    }

    #[cfg(feature = "layers")]
    fn close(self: Arc<Self>) -> Waits<'static, Result<(), CloseError>> {
        Box::pin(async move {
            match &self.below {
                Some(below) => below.close().await,
                None => Ok(()),
            }
        })
    }

    fn sweep(self: Arc<Self>, per_second: u32) -> Waits<'static, Swept> {
        Box::pin(async move { Self::sweep(&self, per_second).await })
    }

    fn knobs(self: Arc<Self>, each: &mut dyn FnMut(Knob)) {
        let read = |engine: &Self| engine.store.capacity() as f64;
        let write = |engine: &Self, capacity: f64| {
            engine.store.set_capacity(capacity as u64);
            if let Some(advisor) = &engine.advisor {
                advisor.set_capacity(capacity as u64);
            }
        };
        if self.store.is_default() {
            each(Knob::new(&stats::CAPACITY, 1.0..=MAX_MEMORY as f64, 1.0, &self, read, write));
        }
        if self.lane.is_some() {
            let read = |engine: &Self| engine.lane.as_ref().map_or(0.0, |lane| lane.limit() as f64);
            let write = |engine: &Self, limit: f64| {
                if let Some(lane) = &engine.lane {
                    lane.set_limit(limit as usize);
                }
            };
            each(Knob::new(&stats::MAX_LOADS, 1.0..=Lane::MOST as f64, 1.0, &self, read, write));
        }
        if self.line().is_some() {
            let read = |engine: &Self| engine.line().map_or(0.0, |line| line.max_pending() as f64);
            let write = |engine: &Self, writes: f64| {
                if let Some(line) = engine.line() {
                    line.set_max_pending(writes as usize);
                }
            };
            each(Knob::new(&stats::MAX_PENDING, 1.0..=MOST_PENDING as f64, 1.0, &self, read, write));
        }
    }
}

/// From when on an invalidation of its own key concerns an entry that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    /// It is known when it is stored.
    Now,
    /// It was known then.
    Stamp,
}

/// The region is switched on.
const ON: u8 = 1;
/// There is an advisor.
const ADVISED: u8 = 2;
/// How many entries a sweep looks at between two pauses.
const BATCH: u64 = 64;
/// Locks that misses, inserts and invalidations of different keys share.
const FLIGHT_SHARDS: usize = 32;
/// What weighs this much or more is not stored: no shard is so large.
const TOO_HEAVY: u32 = u32::MAX;
