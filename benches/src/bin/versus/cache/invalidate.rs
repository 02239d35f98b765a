//! One invalidation, 100,000 of 1,000,000 entries.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use quick_cache::{UnitWeighter, sync::Cache as QuickCache};
use swiftwater_benches::{
    pin,
    versus::{Case, Effort, Figure, time_per_op},
};
use swiftwater_cache::{Cache, Region, dep};

use crate::cache::{
    Hasher, Random,
    stores::{TTL, quick},
};

/// Every entry has one of ten tags; each turn invalidates one that nobody has invalidated yet, so there are ten turns.
pub fn invalidate_100k() -> Case {
    fn add<T: Tagged>() -> impl FnMut(Effort) -> [f64; 4] {
        let (mut filled, mut turn) = (None, 0);
        move |effort| {
            let store: &T = filled.get_or_insert_with(fill);
            let tag = turn;
            assert!(tag + 1 < TAGS, "a tag for each turn, and one that stays");
            let before = get(store, tag, effort);
            // In a thread of its own, like everything that is timed.
            let time = std::thread::scope(|scope| {
                let invalidate = scope.spawn(|| {
                    pin(0);
                    store.invalidate(tag)
                });
                invalidate.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            // With a few predicates pending, moka takes microseconds for each.
            let step = TAGS as usize * if effort.quick { 97 } else { 1 };
            let asked = (tag..ENTRIES).step_by(step);
            let all = asked.clone().count() as f64;
            let stale = asked.filter(|key| store.get(*key).is_some()).count() as f64 / all;
            assert!(stale <= T::FORGIVEN, "{stale} of the invalidated entries are served");
            turn += 1;
            [time.as_nanos() as f64 / 1e3, stale, before, get(store, turn, effort)]
        }
    }

    let mut case = Case::new([
        Figure::lower("invalidate_100k", "us until no later get sees any of them"),
        Figure::lower("stale_after_invalidation", "share of them that is served all the same"),
        Figure::lower("get_before_invalidation", "ns per hit"),
        Figure::lower("get_after_invalidation", "ns per hit"),
    ]);
    case.ours(add::<Ours>());
    case.rival("moka::sync predicate, until it returns", add::<MokaPredicate<false>>());
    case.rival("moka::sync predicate, until all are dropped", add::<MokaPredicate<true>>());
    case.rival("moka::sync and an index", add::<Indexed<Moka>>());
    case.rival("quick_cache and an index", add::<Indexed<Quick>>());
    case.rival("dashmap and an index, not a cache", add::<Indexed<Dash>>());
    case.floor("dashmap and a generation per tag", add::<Generations>());
    case
}

const ENTRIES: u64 = 1_000_000;
const TAGS: u64 = 10;

fn fill<T: Tagged>() -> T {
    let store = T::build();
    (0..ENTRIES).for_each(|key| store.insert(key, key % TAGS));
    store.settle();
    store
}

/// Hits of entries that are not invalidated yet: those with a tag of at least `from`.
fn get<T: Tagged>(store: &T, from: u64, effort: Effort) -> f64 {
    time_per_op(1, effort, |_, count| {
        let mut random = Random(11);
        for _ in 0..count {
            let n = random.next() >> 20;
            let key = n % (ENTRIES / TAGS) * TAGS + from + n % (TAGS - from);
            assert_eq!(store.get(key), Some(key));
        }
    })
}

trait Tagged: Send + Sync + 'static {
    /// The share of what was invalidated that may be served all the same.
    const FORGIVEN: f64 = 0.0;

    fn build() -> Self;
    fn insert(&self, key: u64, tag: u64);
    fn get(&self, key: u64) -> Option<u64>;
    /// How long it took until every later `get` sees it.
    fn invalidate(&self, tag: u64) -> Duration;
    fn settle(&self) {}
}

struct Ours {
    cache: Cache,
    region: Region<u64, u64>,
}

impl Tagged for Ours {
    fn build() -> Self {
        let cache = Cache::builder().build().expect("valid options");
        let region = cache.region("products").memory(2 * ENTRIES).ttl(TTL).build().expect("valid options");
        Self { cache, region }
    }

    fn insert(&self, key: u64, tag: u64) {
        self.region.insert_with(key, key, |entry| {
            entry.depends_on(dep!("tag", tag));
            entry.depends_on(dep!("tariff"));
        });
    }

    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        self.region.get(&key).map(|hit| *hit)
    }

    fn invalidate(&self, tag: u64) -> Duration {
        let start = Instant::now();
        self.cache.invalidate(dep!("tag", tag));
        start.elapsed()
    }
}

/// Values carry their tag. Entries that match are not served from the call on, and dropped later.
struct MokaPredicate<const UNTIL_DROPPED: bool>(moka::sync::Cache<u64, (u64, u64), Hasher>);

impl<const UNTIL_DROPPED: bool> Tagged for MokaPredicate<UNTIL_DROPPED> {
    /// The scan of moka 0.12.16 passes over an entry now and then, after which the predicate is forgotten and the entry
    /// served again. Without this it could not take part.
    const FORGIVEN: f64 = 0.01;

    fn build() -> Self {
        let builder = moka::sync::Cache::builder().max_capacity(2 * ENTRIES).time_to_live(TTL);
        Self(builder.support_invalidation_closures().build_with_hasher(Hasher::default()))
    }

    fn insert(&self, key: u64, tag: u64) {
        self.0.insert(key, (key, tag));
    }

    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        self.0.get(&key).map(|(value, _)| value)
    }

    fn invalidate(&self, tag: u64) -> Duration {
        // Its scan for the last predicate has to end first: a new one that comes in between would never be worked off.
        for _ in 0..20 {
            self.0.run_pending_tasks();
        }
        let entries = self.0.entry_count();
        let start = Instant::now();
        self.0.invalidate_entries_if(move |_, (_, of)| *of == tag).expect("the closures are supported");
        if UNTIL_DROPPED {
            // Nearly all: it never drops some.
            let few = entries - ENTRIES / TAGS * 99 / 100;
            while self.0.entry_count() > few {
                self.0.run_pending_tasks();
                assert!(start.elapsed() < Duration::from_secs(20), "it never drops them");
            }
        }
        start.elapsed()
    }

    fn settle(&self) {
        self.0.run_pending_tasks();
    }
}

/// A map beside an exact index from tags to keys, as one writes it by hand.
struct Indexed<M> {
    map: M,
    index: Mutex<HashMap<u64, HashSet<u64, Hasher>, Hasher>>,
}

trait Map: Send + Sync + 'static {
    fn build() -> Self;
    fn insert(&self, key: u64);
    fn get(&self, key: u64) -> Option<u64>;
    fn remove(&self, key: u64);
    fn settle(&self) {}
}

impl<M: Map> Tagged for Indexed<M> {
    fn build() -> Self {
        Self { map: M::build(), index: Mutex::default() }
    }

    fn insert(&self, key: u64, tag: u64) {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).entry(tag).or_default().insert(key);
        self.map.insert(key);
    }

    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        self.map.get(key)
    }

    fn invalidate(&self, tag: u64) -> Duration {
        let start = Instant::now();
        let keys = self.index.lock().unwrap_or_else(PoisonError::into_inner).remove(&tag);
        keys.into_iter().flatten().for_each(|key| self.map.remove(key));
        self.map.settle();
        start.elapsed()
    }

    fn settle(&self) {
        self.map.settle();
    }
}

struct Moka(moka::sync::Cache<u64, u64, Hasher>);

impl Map for Moka {
    fn build() -> Self {
        let builder = moka::sync::Cache::builder().max_capacity(2 * ENTRIES).time_to_live(TTL);
        Self(builder.build_with_hasher(Hasher::default()))
    }

    fn insert(&self, key: u64) {
        self.0.insert(key, key);
    }

    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        self.0.get(&key)
    }

    fn remove(&self, key: u64) {
        self.0.invalidate(&key);
    }

    fn settle(&self) {
        self.0.run_pending_tasks();
    }
}

struct Quick(QuickCache<u64, u64, UnitWeighter, Hasher>);

impl Map for Quick {
    fn build() -> Self {
        Self(quick(2 * ENTRIES as usize))
    }

    fn insert(&self, key: u64) {
        self.0.insert(key, key);
    }

    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        self.0.get(&key)
    }

    fn remove(&self, key: u64) {
        self.0.remove(&key);
    }
}

struct Dash(dashmap::DashMap<u64, u64, Hasher>);

impl Map for Dash {
    fn build() -> Self {
        Self(dashmap::DashMap::default())
    }

    fn insert(&self, key: u64) {
        self.0.insert(key, key);
    }

    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        self.0.get(&key).map(|value| *value)
    }

    fn remove(&self, key: u64) {
        self.0.remove(&key);
    }
}

/// One tag an entry, no lifetime, no eviction, and nothing said about loads: as little as it takes.
struct Generations {
    map: dashmap::DashMap<u64, Generation, Hasher>,
    now: [AtomicU64; TAGS as usize],
}

struct Generation {
    value: u64,
    tag: u64,
    at: u64,
}

impl Tagged for Generations {
    fn build() -> Self {
        Self { map: dashmap::DashMap::default(), now: Default::default() }
    }

    fn insert(&self, key: u64, tag: u64) {
        let at = self.now[tag as usize].load(Relaxed);
        self.map.insert(key, Generation { value: key, tag, at });
    }

    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        let entry = self.map.get(&key)?;
        (self.now[entry.tag as usize].load(Relaxed) == entry.at).then_some(entry.value)
    }

    fn invalidate(&self, tag: u64) -> Duration {
        let start = Instant::now();
        self.now[tag as usize].fetch_add(1, Relaxed);
        start.elapsed()
    }
}
