//! The handle that callers hold: lookup, loading, insertion, invalidation by key.

use std::{borrow::Borrow, fmt, future::Future, hash::Hash, sync::Arc};

use swiftwater_core::{Knob, Observe, Observer, Tunable, Visitor};

use crate::{
    advice::Advice,
    cache::{Invalidation, Part},
    dep::Dep,
    engine::{Engine, Look},
    entry::Hit,
    error::{AnyError, LoadError},
    explain::Explanation,
    load::Got,
    many::ManyCx,
    scope::{LoadCx, NEVER, Readers, Scope, is_loading},
    sink::{FlushError, StoreError},
    skip::{NOTHING, Skip},
    source::AnySource,
    usage::Usage,
    warm::Warm,
};

/// A named map of a [`Cache`](crate::Cache) from `K` to `V`. A cheap handle; clones are the same region, which lives as long as any of
/// them.
///
/// `E` is what its loaders fail with: anything ([`AnyError`]) unless chosen by [`RegionBuilder::error`](crate::RegionBuilder::error).
///
/// # Laws
///
/// 1. A value that depends on `d` is never returned by a `get` that starts after `invalidate(d)` returned, if the load
///    of that value started before the call. The same for a key, a region, everything. *Depends* includes what the load read
///    from other entries, and what those had read. (An invalidation that is [soft](crate::Change::soft) or
///    [gradual](crate::Change::gradual) asks for less.)
/// 2. A load that started before an `insert`, a `store` or an `invalidate` of its key is not stored after it.
/// 3. At most one load per key runs at a time that may still be stored. Nobody waits for more than two loads: the running
///    one, and one more if something was invalidated while it ran.
/// 4. A caller that goes away leaves the load to the others. A loader that fails, panics or takes too long leaves nobody
///    waiting: those who waited get the error, or load anew if they asked after an invalidation that it may not have seen.
/// 5. What is stored is not served as fresh beyond its lifetime, which counts from the start of its load and never exceeds that
///    of anything that the load read here. What is served beyond it, where the region is told to, says so
///    ([`Hit::is_stale`]), has never been invalidated, and what a loader makes of it is not stored. (A caller who waits for a
///    running load gets its value at whatever age it comes.)
/// 6. The weight of what is stored never exceeds the capacity by more than the rounding of its shards (less than one
///    unit each); in the store of `memory_moka` it does, until that has caught up.
/// 7. Switched off, a region is as if it were not there: `get` finds nothing, every loading call runs its own loader,
///    no layer is asked, nothing is stored; and what is switched on again has missed no invalidation.
pub struct Region<K, V, E = AnyError>(pub(crate) Arc<Engine<K, V, E>>);

impl<K, V, E> Region<K, V, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// The stored value, if there is one that may be served. Never waits and never loads.
    ///
    /// Called while a loader of the same cache is being polled, it makes that load depend on the entry. If it finds
    /// nothing, that load goes stale when the key is inserted or invalidated (not when somebody loads it).
    #[inline]
    #[must_use]
    pub fn get<Q>(&self, key: &Q) -> Option<Hit<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if is_loading() {
            return self.get_within(key, None);
        }
        self.0.hit(key).map(Hit::fresh)
    }

    /// The stored value, or the one that `load` gives, which is stored. One load per key runs at a time; further callers
    /// wait for it.
    ///
    /// Nothing is built or cloned on a hit: `load` is called on a miss only, and gets the key in its [`LoadCx`]. There it
    /// declares what the value depends on; what it reads from regions of this cache meanwhile is declared by itself.
    ///
    /// Its future is polled once right here; if it has to wait it goes on in a task of the current tokio runtime, so it
    /// ends however its callers fare. (Task-locals and tracing spans of the caller are therefore only there up to its first
    /// wait, and a runtime that nobody drives holds up all who wait for the load.)
    ///
    /// # Errors
    ///
    /// [`LoadError`]: the loader's own error, or why there is none. Errors are not stored; a value that a loader makes in
    /// their place is, unless it says [`ttl(Duration::ZERO)`](Scope::ttl).
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
        self.load(key, |cx, _| load(cx), None).await
    }

    /// [`get_or_load`](Self::get_or_load) for many keys: what is neither in memory nor being loaded nor in a layer is loaded by
    /// one call, which gives pairs of keys and values. In the order of `keys`; `None` where the load gave no value, which is
    /// not stored. Pairs that nobody asked for are dropped.
    ///
    /// Nothing is loaded in the background here: what may be served [as stale](crate::RegionBuilder::stale_for) is loaded and
    /// waited for, and nothing [in good time](crate::RegionBuilder::refresh_after).
    ///
    /// `load` has to be `Clone`, since it is called a second time if one of the keys was being loaded by somebody else whose
    /// load turned out to be older than an invalidation; and is called where it does not hold up the caller, so it owns
    /// what it needs.
    ///
    /// # Errors
    ///
    /// The first in the order of the keys, as from [`get_or_load`](Self::get_or_load). What was loaded is stored.
    ///
    /// # Cancel safety
    ///
    /// As [`get_or_load`](Self::get_or_load).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use swiftwater_cache::{Cache, ManyCx, Region, dep};
    ///
    /// let cache = Cache::builder().build()?;
    /// let names: Region<u64, String> = cache.region("names").build()?;
    /// let found = names
    ///     .get_or_load_many(&[1, 2, 3], |cx: ManyCx<u64>| async move {
    ///         let mut rows = Vec::new(); // SELECT .. WHERE id = ANY(..)
    ///         for (place, key) in cx.keys().iter().enumerate().filter(|(_, key)| **key != 2) {
    ///             cx.of(place).depends_on(dep!("user", *key));
    ///             rows.push((*key, format!("user {key}")));
    ///         }
    ///         Ok(rows)
    ///     })
    ///     .await?;
    /// assert!(found[1].is_none());
    /// assert_eq!(**found[2].as_ref().unwrap(), "user 3");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_or_load_many<F, Fut, M>(
        &self,
        keys: &[K],
        load: F,
    ) -> Result<Vec<Option<Hit<V>>>, LoadError<E>>
    where
        F: Fn(ManyCx<K>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<M, E>> + Send + 'static,
        M: IntoIterator<Item = (K, V)>,
    {
        self.0.load_many(keys, load, Readers::here(None)).await
    }

    /// [`get_or_load`](Self::get_or_load), where the loader is handed what is there of the key, however old, and may keep
    /// it: as a source allows that is asked whether something has changed since.
    ///
    /// What is there may have expired or been invalidated; whether it is still right is for the loader to find out. What
    /// is kept is stored as if it had been loaded now, and depends on what it did, and on what the loader declares.
    ///
    /// # Errors
    ///
    /// As [`get_or_load`](Self::get_or_load).
    ///
    /// # Cancel safety
    ///
    /// As [`get_or_load`](Self::get_or_load).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use swiftwater_cache::{Cache, Hit, Loaded, Region, dep};
    ///
    /// #[derive(Clone)]
    /// struct Page { etag: u64, text: &'static str }
    ///
    /// let cache = Cache::builder().build()?;
    /// let pages: Region<u64, Page> = cache.region("pages").build()?;
    /// let page = pages
    ///     .get_or_refresh(&1, async |_, old: Option<Hit<Page>>| match old {
    ///         Some(old) if old.etag == 7 => Ok(Loaded::Kept(old)), // the server says: not modified
    ///         _ => Ok(Loaded::New(Page { etag: 7, text: "hello" })),
    ///     })
    ///     .await?;
    /// assert_eq!(page.text, "hello");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_or_refresh<Q, F, Fut>(&self, key: &Q, load: F) -> Result<Hit<V>, LoadError<E>>
    where
        K: Borrow<Q>,
        V: Clone,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        F: FnOnce(LoadCx<K>, Option<Hit<V>>) -> Fut,
        Fut: Future<Output = Result<Loaded<V>, E>> + Send + 'static,
    {
        let load = |cx: LoadCx<K>, old| {
            let scope: Scope = (*cx).clone();
            let loading = load(cx, old);
            async move {
                loading.await.map(|loaded| match loaded {
                    Loaded::Kept(old) => {
                        scope.inherit(old.entry.edges(), NEVER);
                        old.entry.value.clone()
                    }
                    Loaded::New(value) => value,
                })
            }
        };
        self.load(key, load, None).await
    }

    /// The stored value, or the one that the region's [`source`](crate::RegionBuilder::source) has, which is stored; `None` if there
    /// is none, which is not.
    ///
    /// As [`get_or_load`](Self::get_or_load), with the source as the loader. That there is none can be stored where `V` can
    /// say so, such as an `Option`.
    ///
    /// # Errors
    ///
    /// As [`get_or_load`](Self::get_or_load), or [`LoadError::NoSource`].
    ///
    /// # Cancel safety
    ///
    /// As [`get_or_load`](Self::get_or_load).
    pub async fn fetch<Q>(&self, key: &Q) -> Result<Option<Hit<V>>, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.fetch_within(key, None).await
    }

    /// [`fetch`](Self::fetch) for many keys, in their order: what is neither in memory nor being loaded nor in a layer comes from
    /// one [`load_many`](crate::Source::load_many).
    ///
    /// # Errors
    ///
    /// As [`get_or_load_many`](Self::get_or_load_many), or [`LoadError::NoSource`].
    ///
    /// # Cancel safety
    ///
    /// As [`get_or_load`](Self::get_or_load).
    pub async fn fetch_many(&self, keys: &[K]) -> Result<Vec<Option<Hit<V>>>, LoadError<E>> {
        if self.0.source.is_none() {
            return Err(LoadError::NoSource);
        }
        self.0.load_many(keys, self.0.load_from_source(), Readers::here(None)).await
    }

    /// Loads keys before anybody asks for them, from layers and from the [`source`](crate::RegionBuilder::source): at the
    /// start of a process, say, those that the last one had [used](Self::usage) most. See [`Warm`] for how many at a time, and
    /// how far it has come.
    ///
    /// What it loads has not been used, and goes idle as if it had been asked for when it was loaded.
    ///
    /// # Errors
    ///
    /// [`WarmError`](crate::WarmError): why it could not begin. Loads that fail are counted.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, it has loaded some of the keys; loads that have begun end by themselves.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use swiftwater_cache::{Cache, LoadCx, Region};
    ///
    /// let source = |cx: LoadCx<u64>| async move { Ok(Some(format!("user {}", cx.key()))) };
    /// let hour = Duration::from_secs(3600);
    /// let names = || Cache::builder().build()?.region::<u64, String>("names").usage(hour).source(source).build();
    /// let old: Region<u64, String> = names()?;
    /// for key in [1, 2, 2] {
    ///     old.fetch(&key).await?;
    /// }
    /// let used = old.usage(1000).expect("it was built with `usage`"); // to be written to a file
    ///
    /// let new = names()?;
    /// let warmed = new.warm(used.above(0.5).into_keys()).concurrency(4).await?;
    /// assert_eq!(warmed.loaded, 2);
    /// assert!(new.get(&2).is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn warm<I: IntoIterator<Item = K>>(&self, keys: I) -> Warm<'_, K, V, E, I::IntoIter> {
        Warm::new(self, keys.into_iter())
    }

    /// What was used most lately of what is in memory, so many keys of it; `None` if the region was built without
    /// [`usage`](crate::RegionBuilder::usage), which says how that is counted.
    ///
    /// Cost: a short lock for each entry in memory, and a copy of its key.
    #[must_use]
    pub fn usage(&self, most: usize) -> Option<Usage<K>> {
        self.0.usage(most)
    }

    /// The region as it looks to who does not want all of it: loading calls that neither ask nor tell what is
    /// [skipped](Skip).
    ///
    /// A call that skips memory, or finds that its key is being loaded by one that skips nothing, loads by itself: it is
    /// not joined, and what it gets is not stored in memory. Layers may keep it: of law 3 such a call is an exception.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use swiftwater_cache::{Cache, Region, Skip};
    ///
    /// let cache = Cache::builder().build()?;
    /// let names: Region<u64, &str> = cache.region("names").build()?;
    /// names.insert(1, "Ada");
    /// let export = names.skipping(Skip::new().memory());
    /// assert_eq!(export.get_or_load(&1, async |_| Ok("Grace")).await?, "Grace");
    /// assert_eq!(names.get(&1).as_deref(), Some(&"Ada"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn skipping(&self, skip: Skip) -> Skipping<'_, K, V, E> {
        Skipping { region: self, skip }
    }

    /// Stores a value that was got elsewhere, as known when it is stored: what is invalidated from then on counts.
    ///
    /// **A value that was read from a source before this call may be older than an invalidation in between.** Load through
    /// [`get_or_load`](Self::get_or_load) what can be loaded. `insert` is for values that are made here. It is safe for a
    /// value that was just written to the source only where one writer at a time inserts a key: of two, the later write
    /// may be the earlier insert. [`invalidate`](Self::invalidate) and [`store`](Self::store) have no such trap.
    ///
    /// It takes the place of the stored value and of the one that is being loaded, and makes stale what was loaded from
    /// the old one.
    ///
    /// # Panics
    ///
    /// If the weigher does; nothing has changed then.
    pub fn insert(&self, key: K, value: V) {
        self.insert_with(key, value, |_| ());
    }

    /// [`insert`](Self::insert), with dependencies or a lifetime of its own, which `declare` states first.
    ///
    /// # Panics
    ///
    /// If `declare` or the weigher does; nothing has changed then.
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
        self.0.insert(key, value, declare);
    }

    /// Writes a value to the source, in the [mode](crate::Writes) that the region was built with, and stores it here as that
    /// says.
    ///
    /// Unlike [`insert`](Self::insert) it may be called for one key by many at a time: what is stored here is never
    /// older than what the source has.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the sink's own error, or why it was not called; then the value comes back in it, and nothing has
    /// changed.
    ///
    /// # Panics
    ///
    /// If the weigher does; nothing has changed then.
    ///
    /// # Cancel safety
    ///
    /// Around and through, dropping it drops the sink's future, and then invalidates the key: the source has the value, or
    /// not. Behind, it ends when it is first polled.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::sync::atomic::{AtomicU32, Ordering};
    /// use swiftwater_cache::{Cache, Hit, Region, Sink, Writes};
    ///
    /// struct Counts;
    /// static SOURCE: AtomicU32 = AtomicU32::new(0);
    ///
    /// impl Sink<u64, u32> for Counts {
    ///     type Error = std::io::Error;
    ///     async fn store(&self, writes: Vec<(u64, Hit<u32>)>) -> Result<(), Self::Error> {
    ///         writes.iter().for_each(|(_, count)| SOURCE.store(**count, Ordering::Relaxed));
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let cache = Cache::builder().build()?;
    /// let counts: Region<u64, u32> = cache.region("counts").writes(Writes::through(Counts)).build()?;
    /// counts.store(1, 7).await?;
    /// assert_eq!(SOURCE.load(Ordering::Relaxed), 7);
    /// assert_eq!(*counts.get(&1).unwrap(), 7);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn store(&self, key: K, value: V) -> Result<(), StoreError<V, E>> {
        self.store_with(key, value, |_| ()).await
    }

    /// [`store`](Self::store), with dependencies or a lifetime of its own, which `declare` states before anything is
    /// written. It is not called where nothing is to be stored here.
    ///
    /// # Errors
    ///
    /// As [`store`](Self::store).
    ///
    /// # Panics
    ///
    /// If `declare` or the weigher does; nothing has changed then.
    ///
    /// # Cancel safety
    ///
    /// As [`store`](Self::store).
    pub async fn store_with(
        &self,
        key: K,
        value: V,
        declare: impl FnOnce(&Scope),
    ) -> Result<(), StoreError<V, E>> {
        self.0.store(key, value, declare).await
    }

    /// Lets everything go to the source that is pending [behind](crate::Behind), at once, and waits until it has arrived. In another mode
    /// nothing is ever pending.
    ///
    /// It has no time-out of its own: a sink that hangs holds it up, and one that is slow to fail is called once for each
    /// pending write. Put a limit on it where that matters.
    ///
    /// # Errors
    ///
    /// [`FlushError`] if some of it was tried, alone, and has failed. It stays pending.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing: what is pending goes all the same.
    pub async fn flush(&self) -> Result<(), FlushError<E>> {
        self.0.flush().await
    }

    /// Declares the entry of `key` wrong, and everything that was loaded from it, in every region.
    ///
    /// As with [`Cache::invalidate`](crate::Cache::invalidate), it takes effect when called; the future only tells how far it reached.
    pub fn invalidate<Q>(&self, key: &Q) -> Invalidation
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.invalidate(key);
        Invalidation::local()
    }

    /// Reads on behalf of a load: for work that a loader has handed to another task or thread, where reading does not
    /// declare itself. Inside another loader, that one depends on what is read as well.
    #[must_use = "it reads only when told to"]
    pub fn within<'a>(&'a self, scope: &'a Scope) -> Within<'a, K, V, E> {
        Within { region: self, scope }
    }

    /// Switches the region on or off, see law 7. Switching off keeps what is stored.
    pub fn set_enabled(&self, enabled: bool) {
        self.0.set_enabled(enabled);
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

    /// The keys whose entries in memory say that they depend on it: what [`purge`](Self::purge) would let go of. In no order;
    /// those that depend on so much that it is not told apart are among them. `None` if the region was built without an
    /// [`index`](crate::RegionBuilder::index).
    #[must_use]
    pub fn dependents(&self, dep: Dep) -> Option<Vec<K>> {
        self.0.dependents(dep)
    }

    /// Invalidates a dependency, in every region, and lets go at once of the entries of this one that depend on it: where the
    /// memory is wanted back now. Says how many they were; `None` if the region was built without an
    /// [`index`](crate::RegionBuilder::index), when it has only been invalidated.
    ///
    /// Cost: two locks for each of them, on this thread.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use swiftwater_cache::{Cache, Region, dep};
    ///
    /// let cache = Cache::builder().build()?;
    /// let prices: Region<u64, u32> = cache.region("prices").index(true).build()?;
    /// prices.insert_with(1, 995, |entry| entry.depends_on(dep!("tariff", 7)));
    /// assert_eq!(prices.dependents(dep!("tariff", 7)), Some(vec![1]));
    /// assert_eq!(prices.purge(dep!("tariff", 7)), Some(1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn purge(&self, dep: Dep) -> Option<usize> {
        self.0.purge(dep)
    }

    /// Why a `get` of the key would find an entry in memory, or not. For people: it takes a lock and changes nothing, and
    /// does not look in layers.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use swiftwater_cache::{Cache, Cause, Region, Verdict, dep};
    ///
    /// let cache = Cache::builder().build()?;
    /// let prices: Region<u64, u32> = cache.region("prices").build()?;
    /// prices.insert_with(1, 995, |entry| entry.depends_on(dep!("tariff", 7)));
    /// cache.invalidate(dep!("tariff", 7));
    /// let cause = Cause::Dependency(dep!("tariff", 7));
    /// assert_eq!(prices.explain(&1).verdict, Verdict::Invalidated(cause));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn explain<Q>(&self, key: &Q) -> Explanation
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.explain(key)
    }

    /// What half and twice the capacity would do to the hit ratio, and how many entries never paid; `None` if the region was
    /// built without [`advice`](crate::RegionBuilder::advice).
    ///
    /// Estimated by miniature simulations of the default store, on a sample of the keys. What has expired or was invalidated
    /// is a miss at every capacity. Where a smaller capacity would have missed, it is taken to be loaded at once; where only a
    /// larger one would have hit, nothing is loaded. Off by a point or two, as a rule; for a region with `memory_moka`, whose
    /// policy is another, by several. Cost: one short lock.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use swiftwater_cache::{Cache, Region};
    ///
    /// let cache = Cache::builder().build()?;
    /// let rows: Region<u64, u64> = cache.region("rows").memory(100).advice(true).build()?;
    /// for round in 0..10 {
    ///     for key in 0..150 {
    ///         rows.get_or_load(&key, async |cx| Ok(*cx.key())).await?;
    ///     }
    /// }
    /// let advice = rows.advice().expect("it was asked for");
    /// assert!(advice.hit_ratio_at_twice > 0.8, "all but the first round");
    /// assert!(advice.hit_ratio < 0.7 && advice.hit_ratio_at_half < advice.hit_ratio);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn advice(&self) -> Option<Advice> {
        self.0.advice()
    }

    /// What depends on this key: its own entry, and what was loaded from it. For [`Cache::invalidate`](crate::Cache::invalidate),
    /// where it should be gentler than [`invalidate`](Self::invalidate); and for loaders that know of the key otherwise.
    ///
    /// The first call for a region makes stale, once, what has been made of its keys so far, but not the entries of the
    /// region: until then inserts have told nobody but who had read them here.
    #[must_use]
    pub fn dep<Q>(&self, key: &Q) -> Dep
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        self.0.name_keys();
        self.0.key_dep(key)
    }

    /// What depends on any key of the region: all its entries, and what was loaded from them.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use swiftwater_cache::{Cache, Region};
    ///
    /// let cache = Cache::builder().build()?;
    /// let prices: Region<u64, u32> = cache.region("prices").build()?;
    /// prices.insert(1, 995);
    /// cache.invalidate(prices.whole());
    /// assert!(prices.get(&1).is_none());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn whole(&self) -> Dep {
        self.0.whole()
    }

    #[inline(never)]
    fn get_within<Q>(&self, key: &Q, scope: Option<&Scope>) -> Option<Hit<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.get(key, &Readers::here(scope)).map(Hit::fresh)
    }

    async fn load<Q, F, Fut>(&self, key: &Q, load: F, scope: Option<&Scope>) -> Result<Hit<V>, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        F: FnOnce(LoadCx<K>, Option<Hit<V>>) -> Fut,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
    {
        self.load_got(key, scope, |cx, old| {
            let loading = load(cx, old);
            async move { loading.await.map(Got::Loaded) }
        })
        .await
    }

    async fn fetch_within<Q>(&self, key: &Q, scope: Option<&Scope>) -> Result<Option<Hit<V>>, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let source = self.0.source.as_ref().ok_or(LoadError::NoSource)?;
        present(self.load_got(key, scope, |cx, _| fetching(source, cx)).await)
    }

    async fn load_got<Q, F, Fut>(
        &self,
        key: &Q,
        scope: Option<&Scope>,
        load: F,
    ) -> Result<Hit<V>, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        F: FnOnce(LoadCx<K>, Option<Hit<V>>) -> Fut,
        Fut: Future<Output = Result<Got<V>, E>> + Send + 'static,
    {
        let (found, readers) = if scope.is_none() && !is_loading() {
            match self.0.try_hit(key) {
                Ok(entry) => return Ok(Hit::fresh(entry)),
                Err(found) => (self.0.judge(key, found), Readers::default()),
            }
        } else {
            let readers = Readers::here(scope);
            (self.0.look(key, &readers), readers)
        };
        self.0.load(key.to_owned(), load, readers, found, &NOTHING).await
    }
}

/// A load of the source.
fn fetching<K, V, E>(
    source: &Arc<dyn AnySource<K, V, E>>,
    cx: LoadCx<K>,
) -> impl Future<Output = Result<Got<V>, E>> + Send + use<K, V, E>
where
    K: Send + 'static,
    V: Send + 'static,
    E: Send + 'static,
{
    let loading = source.clone().load(cx);
    async move { loading.await.map(|value| value.map_or(Got::Absent, Got::Loaded)) }
}

fn present<V, E>(loaded: Result<Hit<V>, LoadError<E>>) -> Result<Option<Hit<V>>, LoadError<E>> {
    match loaded {
        Ok(hit) => Ok(Some(hit)),
        Err(LoadError::Absent) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a loader of [`Region::get_or_refresh`] gives.
#[derive(Debug)]
#[non_exhaustive]
pub enum Loaded<V> {
    /// What was there is still right.
    Kept(Hit<V>),
    /// A new value.
    New(V),
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
    #[must_use]
    pub fn get<Q>(&self, key: &Q) -> Option<Hit<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.region.get_within(key, Some(self.scope))
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
        self.region.load(key, |cx, _| load(cx), Some(self.scope)).await
    }

    /// [`Region::fetch`]; the load depends on what it gets.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn fetch<Q>(&self, key: &Q) -> Result<Option<Hit<V>>, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.region.fetch_within(key, Some(self.scope)).await
    }
}

/// A region without some of it. Made by [`Region::skipping`].
pub struct Skipping<'a, K, V, E = AnyError> {
    region: &'a Region<K, V, E>,
    skip: Skip,
}

impl<K, V, E> Skipping<'_, K, V, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// [`Region::get_or_load`], without what is skipped.
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
        self.load(key, |cx, _| {
            let loading = load(cx);
            async move { loading.await.map(Got::Loaded) }
        })
        .await
    }

    /// [`Region::fetch`], without what is skipped.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn fetch<Q>(&self, key: &Q) -> Result<Option<Hit<V>>, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let source = self.region.0.source.as_ref().ok_or(LoadError::NoSource)?;
        present(self.load(key, |cx, _| fetching(source, cx)).await)
    }

    async fn load<Q, F, Fut>(&self, key: &Q, load: F) -> Result<Hit<V>, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        F: FnOnce(LoadCx<K>, Option<Hit<V>>) -> Fut,
        Fut: Future<Output = Result<Got<V>, E>> + Send + 'static,
    {
        let readers = Readers::here(None);
        let found = if self.skip.memory {
            self.region.0.pass_by(key, &readers);
            Look::Miss(None)
        } else {
            self.region.0.look(key, &readers)
        };
        self.region.0.load(key.to_owned(), load, readers, found, &self.skip).await
    }
}

impl<K, V, E> fmt::Debug for Skipping<'_, K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Skipping").field("region", self.region).field("skip", &self.skip).finish()
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
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// `capacity`, from 1 to 2^53: the weight of what is stored. Lowering it evicts at once. Not with `memory_moka`. `max_loads` and
    /// `max_pending`, where there are such limits.
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
