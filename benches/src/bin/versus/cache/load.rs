//! Loading calls: hits, misses, and many tasks that want the same keys at once.

use std::{
    collections::HashMap,
    convert::Infallible,
    hash::BuildHasher,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use quick_cache::{UnitWeighter, sync::Cache as QuickCache};
use swiftwater_benches::{
    together,
    versus::{Case, Effort, Figure, time_per_op},
};
use swiftwater_cache::dep;
use tokio::sync::OnceCell;

use crate::{
    cache::{
        ENTRIES, Hasher, ORDER, READS,
        stores::{Foyer, Ours, Store, TTL, quick},
    },
    runtime::{one_thread, two_workers},
};

/// The key is there: the loader is never called.
pub fn hit() -> Case {
    fn add<L: Loads>() -> impl FnMut(Effort) -> [f64; 1] {
        let mut filled = None;
        move |effort| {
            let runtime = one_thread();
            let store = filled.get_or_insert_with(|| {
                let store = L::build(2 * ENTRIES);
                runtime.block_on(async {
                    for key in 0..ENTRIES as u64 {
                        store.load(key, &LOADED, false).await;
                    }
                });
                store
            });
            let before = LOADED.load(Relaxed);
            let ns = time_per_op(1, effort, |_, count| {
                runtime.block_on(async {
                    for place in 0..count {
                        let key = u64::from(ORDER[place as usize % READS]);
                        assert_eq!(store.load(key, &LOADED, false).await, key);
                    }
                });
            });
            assert_eq!(LOADED.load(Relaxed), before, "loads");
            [ns]
        }
    }

    static LOADED: AtomicU64 = AtomicU64::new(0);

    let mut case = Case::new([Figure::lower("load_hit", "ns per call")]);
    case.ours(add::<Ours<u64>>());
    case.rival("quick_cache get_or_insert_async", add::<Quick>());
    case.rival("moka::future get_with", add::<MokaFuture>());
    case.rival("foyer-memory get_or_fetch", add::<Foyer<u64>>());
    case.floor("sharded Mutex<HashMap> of OnceCell", add::<Hand>());
    case
}

/// The key is not there; the loader answers at once.
pub fn miss() -> Case {
    fn measure<L: Loads>(effort: Effort) -> [f64; 1] {
        static LOADED: AtomicU64 = AtomicU64::new(0);

        let keys = if effort.quick { 20_000 } else { ENTRIES as u64 };
        let runtime = one_thread();
        let store = L::build(2 * ENTRIES);
        let before = LOADED.load(Relaxed);
        let time = together(1, keys, |_, count| {
            runtime.block_on(async {
                for key in 0..count {
                    assert_eq!(store.load(key, &LOADED, false).await, key);
                }
            });
        });
        assert_eq!(LOADED.load(Relaxed) - before, keys, "loads");
        [time.as_nanos() as f64 / keys as f64]
    }

    let mut case = Case::new([Figure::lower("load_miss", "ns per call")]);
    case.ours(measure::<Ours<u64>>);
    case.rival("quick_cache get_or_insert_async", measure::<Quick>);
    case.rival("moka::future get_with", measure::<MokaFuture>);
    case.rival("foyer-memory get_or_fetch", measure::<Foyer<u64>>);
    case.floor("sharded Mutex<HashMap> of OnceCell", measure::<Hand>);
    case
}

/// 64 tasks walk the same cold keys; the loader waits once, so that all of them meet there.
pub fn stampede() -> Case {
    fn measure<L: Loads>(effort: Effort) -> [f64; 1] {
        static LOADED: AtomicU64 = AtomicU64::new(0);

        let keys = if effort.quick { 1_000 } else { 10_000 };
        let store = Arc::new(L::build(2 * ENTRIES));
        let before = LOADED.load(Relaxed);
        let runtime = two_workers();
        let time = runtime.block_on(async {
            let start = std::time::Instant::now();
            let walk = |_| {
                let store = store.clone();
                tokio::spawn(async move {
                    for key in 0..keys {
                        assert_eq!(store.load(key, &LOADED, true).await, key);
                    }
                })
            };
            let running: Vec<_> = (0..64).map(walk).collect();
            for task in running {
                task.await.expect("every answer was right");
            }
            start.elapsed()
        });
        assert_eq!(LOADED.load(Relaxed) - before, keys, "loads");
        [time.as_nanos() as f64 / 1e3 / keys as f64]
    }

    let mut case = Case::new([Figure::lower("stampede", "us per key that 64 tasks want")]);
    case.ours(measure::<Ours<u64>>);
    case.rival("quick_cache get_or_insert_async", measure::<Quick>);
    case.rival("moka::future get_with", measure::<MokaFuture>);
    case.rival("foyer-memory get_or_fetch", measure::<Foyer<u64>>);
    case.floor("sharded Mutex<HashMap> of OnceCell", measure::<Hand>);
    case
}

pub trait Loads: Send + Sync + 'static {
    fn build(capacity: usize) -> Self;
    /// The value of `key`, which is the key; a load adds one to `loads`.
    fn load(&self, key: u64, loads: &'static AtomicU64, waits: bool) -> impl Future<Output = u64> + Send;
}

/// The loader of everybody.
async fn source(key: u64, loads: &AtomicU64, waits: bool) -> u64 {
    loads.fetch_add(1, Relaxed);
    if waits {
        tokio::task::yield_now().await;
    }
    key
}

impl Loads for Ours<u64> {
    fn build(capacity: usize) -> Self {
        <Self as Store<u64>>::build(capacity)
    }

    async fn load(&self, key: u64, loads: &'static AtomicU64, waits: bool) -> u64 {
        let hit = self.region.get_or_load(&key, async move |cx| {
            cx.depends_on(dep!("product", key));
            cx.depends_on(dep!("tariff"));
            Ok(source(key, loads, waits).await)
        });
        *hit.await.expect("it loads")
    }
}

pub struct Quick(pub QuickCache<u64, u64, UnitWeighter, Hasher>);

impl Loads for Quick {
    fn build(capacity: usize) -> Self {
        Self(quick(capacity))
    }

    async fn load(&self, key: u64, loads: &'static AtomicU64, waits: bool) -> u64 {
        let load = async { Ok::<_, Infallible>(source(key, loads, waits).await) };
        self.0.get_or_insert_async(&key, load).await.expect("it loads")
    }
}

pub struct MokaFuture(pub moka::future::Cache<u64, u64, Hasher>);

impl Loads for MokaFuture {
    fn build(capacity: usize) -> Self {
        let builder = moka::future::Cache::builder().max_capacity(capacity as u64).time_to_live(TTL);
        Self(builder.build_with_hasher(Hasher::default()))
    }

    async fn load(&self, key: u64, loads: &'static AtomicU64, waits: bool) -> u64 {
        self.0.get_with(key, source(key, loads, waits)).await
    }
}

impl Loads for Foyer<u64> {
    fn build(capacity: usize) -> Self {
        <Self as Store<u64>>::build(capacity)
    }

    async fn load(&self, key: u64, loads: &'static AtomicU64, waits: bool) -> u64 {
        let fetch = move || async move { Ok::<_, std::io::Error>(source(key, loads, waits).await) };
        *self.0.get_or_fetch(&key, fetch).await.expect("it loads").value()
    }
}

/// What one writes by hand: no bound, no policy.
pub struct Hand {
    shards: Vec<Mutex<Shard>>,
    hasher: Hasher,
}

type Shard = HashMap<u64, Arc<OnceCell<u64>>, Hasher>;

impl Hand {
    pub fn shard(&self, key: u64) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[self.hasher.hash_one(key) as usize % self.shards.len()];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loads for Hand {
    fn build(_: usize) -> Self {
        Self { shards: (0..16).map(|_| Mutex::default()).collect(), hasher: Hasher::default() }
    }

    async fn load(&self, key: u64, loads: &'static AtomicU64, waits: bool) -> u64 {
        let cell = self.shard(key).entry(key).or_default().clone();
        *cell.get_or_init(|| source(key, loads, waits)).await
    }
}
