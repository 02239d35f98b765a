//! The contestants as maps from `K` to its value.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, LazyLock, RwLock},
    time::Duration,
};

use foyer_memory::{Cache as FoyerCache, CacheBuilder as FoyerBuilder, CacheProperties, S3FifoConfig};
use quick_cache::{
    UnitWeighter,
    sync::{Cache as QuickCache, DefaultLifecycle},
};
use swiftwater_cache::{Cache, Region, dep};

use crate::cache::{Hasher, Reads};

/// A kind of key, and what is stored under it.
pub trait Key: Hash + Eq + Clone + Send + Sync + 'static {
    type Value: Clone + Send + Sync + 'static;

    fn of(n: u64) -> Self;
    fn value(n: u64) -> Self::Value;
    /// Something cheap that depends on the value.
    fn number(value: &Self::Value) -> u64;
    fn reads() -> &'static Reads<Self>;
}

impl Key for u64 {
    type Value = Self;

    fn of(n: u64) -> Self {
        n
    }

    fn value(n: u64) -> Self {
        n
    }

    #[inline]
    fn number(value: &Self) -> u64 {
        *value
    }

    fn reads() -> &'static Reads<Self> {
        static READS: LazyLock<Reads<u64>> = LazyLock::new(Reads::new);
        &READS
    }
}

/// 33 bytes, as a path or an identifier may have.
impl Key for String {
    type Value = Arc<str>;

    fn of(n: u64) -> Self {
        format!("product:{n:025}")
    }

    fn value(n: u64) -> Arc<str> {
        format!("value {n}").into()
    }

    #[inline]
    fn number(value: &Arc<str>) -> u64 {
        value.as_bytes()[value.len() - 1].into()
    }

    fn reads() -> &'static Reads<Self> {
        static READS: LazyLock<Reads<String>> = LazyLock::new(Reads::new);
        &READS
    }
}

pub trait Store<K: Key>: Send + Sync + 'static {
    fn build(capacity: usize) -> Self;
    fn insert(&self, key: K, value: K::Value);
    fn read<R>(&self, key: &K, with: impl FnOnce(&K::Value) -> R) -> Option<R>;
    /// Ends what was put off.
    fn settle(&self) {}
}

pub struct Ours<K: Key> {
    pub cache: Cache,
    pub region: Region<K, K::Value>,
}

impl<K: Key> Store<K> for Ours<K> {
    fn build(capacity: usize) -> Self {
        let cache = Cache::builder().build().expect("valid options");
        let region =
            cache.region("products").memory(capacity as u64).ttl(TTL).build().expect("valid options");
        Self { cache, region }
    }

    #[inline]
    fn insert(&self, key: K, value: K::Value) {
        let product = dep!("product", key);
        self.region.insert_with(key, value, |entry| {
            entry.depends_on(product);
            entry.depends_on(dep!("tariff"));
        });
    }

    #[inline]
    fn read<R>(&self, key: &K, with: impl FnOnce(&K::Value) -> R) -> Option<R> {
        self.region.get(key).map(|hit| with(&hit))
    }
}

/// What ours is made of, without ours: values are shared.
pub struct QuickEntry<K: Key>(pub QuickCache<K, Arc<K::Value>, UnitWeighter, Hasher>);

impl<K: Key> Store<K> for QuickEntry<K> {
    fn build(capacity: usize) -> Self {
        Self(quick(capacity))
    }

    #[inline]
    fn insert(&self, key: K, value: K::Value) {
        self.0.insert(key, Arc::new(value));
    }

    #[inline]
    fn read<R>(&self, key: &K, with: impl FnOnce(&K::Value) -> R) -> Option<R> {
        self.0.get(key).map(|entry| with(&entry))
    }
}

pub struct QuickBare<K: Key>(pub QuickCache<K, K::Value, UnitWeighter, Hasher>);

impl<K: Key> Store<K> for QuickBare<K> {
    fn build(capacity: usize) -> Self {
        Self(quick(capacity))
    }

    #[inline]
    fn insert(&self, key: K, value: K::Value) {
        self.0.insert(key, value);
    }

    #[inline]
    fn read<R>(&self, key: &K, with: impl FnOnce(&K::Value) -> R) -> Option<R> {
        self.0.get(key).map(|value| with(&value))
    }
}

pub fn quick<K: Key, V: Clone>(capacity: usize) -> QuickCache<K, V, UnitWeighter, Hasher> {
    let lifecycle = DefaultLifecycle::default();
    QuickCache::with(capacity, capacity as u64, UnitWeighter, Hasher::default(), lifecycle)
}

pub struct Moka<K: Key>(pub moka::sync::Cache<K, K::Value, Hasher>);

impl<K: Key> Store<K> for Moka<K> {
    fn build(capacity: usize) -> Self {
        Self(moka::sync::Cache::builder().max_capacity(capacity as u64).build_with_hasher(Hasher::default()))
    }

    #[inline]
    fn insert(&self, key: K, value: K::Value) {
        self.0.insert(key, value);
    }

    #[inline]
    fn read<R>(&self, key: &K, with: impl FnOnce(&K::Value) -> R) -> Option<R> {
        self.0.get(key).map(|value| with(&value))
    }

    fn settle(&self) {
        self.0.run_pending_tasks();
    }
}

pub struct MokaTtl<K: Key>(pub moka::sync::Cache<K, K::Value, Hasher>);

impl<K: Key> Store<K> for MokaTtl<K> {
    fn build(capacity: usize) -> Self {
        let builder = moka::sync::Cache::builder().max_capacity(capacity as u64).time_to_live(TTL);
        Self(builder.build_with_hasher(Hasher::default()))
    }

    #[inline]
    fn insert(&self, key: K, value: K::Value) {
        self.0.insert(key, value);
    }

    #[inline]
    fn read<R>(&self, key: &K, with: impl FnOnce(&K::Value) -> R) -> Option<R> {
        self.0.get(key).map(|value| with(&value))
    }

    fn settle(&self) {
        self.0.run_pending_tasks();
    }
}

pub struct MiniMoka<K: Key>(mini_moka::sync::Cache<K, K::Value, Hasher>);

impl<K: Key> Store<K> for MiniMoka<K> {
    fn build(capacity: usize) -> Self {
        let builder = mini_moka::sync::Cache::builder().max_capacity(capacity as u64);
        Self(builder.build_with_hasher(Hasher::default()))
    }

    #[inline]
    fn insert(&self, key: K, value: K::Value) {
        self.0.insert(key, value);
    }

    #[inline]
    fn read<R>(&self, key: &K, with: impl FnOnce(&K::Value) -> R) -> Option<R> {
        self.0.get(key).map(|value| with(&value))
    }

    fn settle(&self) {
        mini_moka::sync::ConcurrentCacheExt::sync(&self.0);
    }
}

pub struct Foyer<K: Key>(pub FoyerCache<K, K::Value, Hasher, CacheProperties>);

impl<K: Key> Store<K> for Foyer<K> {
    fn build(capacity: usize) -> Self {
        let builder = FoyerBuilder::new(capacity).with_eviction_config(S3FifoConfig::default());
        Self(builder.with_hash_builder(Hasher::default()).build())
    }

    #[inline]
    fn insert(&self, key: K, value: K::Value) {
        self.0.insert(key, value);
    }

    #[inline]
    fn read<R>(&self, key: &K, with: impl FnOnce(&K::Value) -> R) -> Option<R> {
        self.0.get(key).map(|entry| with(entry.value()))
    }
}

pub struct SccCache<K: Key>(scc::HashCache<K, K::Value, Hasher>);

impl<K: Key> Store<K> for SccCache<K> {
    fn build(capacity: usize) -> Self {
        // At its full size from the start: it evicts from a bucket that is full before it thinks of growing.
        Self(scc::HashCache::with_capacity_and_hasher(capacity, capacity, Hasher::default()))
    }

    #[inline]
    fn insert(&self, key: K, value: K::Value) {
        let _ = self.0.put_sync(key, value);
    }

    #[inline]
    fn read<R>(&self, key: &K, with: impl FnOnce(&K::Value) -> R) -> Option<R> {
        self.0.read_sync(key, |_, value| with(value))
    }
}

pub struct Dash<K: Key>(pub dashmap::DashMap<K, K::Value, Hasher>);

impl<K: Key> Store<K> for Dash<K> {
    fn build(_: usize) -> Self {
        Self(dashmap::DashMap::default())
    }

    #[inline]
    fn insert(&self, key: K, value: K::Value) {
        self.0.insert(key, value);
    }

    #[inline]
    fn read<R>(&self, key: &K, with: impl FnOnce(&K::Value) -> R) -> Option<R> {
        self.0.get(key).map(|value| with(&value))
    }
}

pub struct Papaya<K: Key>(papaya::HashMap<K, K::Value, Hasher>);

impl<K: Key> Store<K> for Papaya<K> {
    fn build(_: usize) -> Self {
        Self(papaya::HashMap::default())
    }

    #[inline]
    fn insert(&self, key: K, value: K::Value) {
        self.0.pin().insert(key, value);
    }

    #[inline]
    fn read<R>(&self, key: &K, with: impl FnOnce(&K::Value) -> R) -> Option<R> {
        self.0.pin().get(key).map(with)
    }
}

pub struct Locked<K: Key>(RwLock<HashMap<K, K::Value, Hasher>>);

impl<K: Key> Store<K> for Locked<K> {
    fn build(_: usize) -> Self {
        Self(RwLock::default())
    }

    #[inline]
    fn insert(&self, key: K, value: K::Value) {
        self.0.write().expect("nobody panicked").insert(key, value);
    }

    #[inline]
    fn read<R>(&self, key: &K, with: impl FnOnce(&K::Value) -> R) -> Option<R> {
        self.0.read().expect("nobody panicked").get(key).map(with)
    }
}

/// Long: nothing expires during a run, but everybody has to look.
pub const TTL: Duration = Duration::from_secs(3600);
