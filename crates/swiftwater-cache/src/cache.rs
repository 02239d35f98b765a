//! The handle that regions hang on: one dependency graph, one clock.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    task::{Context, Poll},
};

use swiftwater_core::{
    BuildError, Clock, Counter, Desc, Knob, Observe, Observer, Tick, Tunable, Unit, Visitor,
};

use crate::{
    below::Waits,
    builder::{Builder, RegionBuilder},
    change::Change,
    dep::{Dep, Edge},
    error::AnyError,
    links::{LinkError, Links},
    parameter::Parameter,
    relaxed::{Fate, Table},
    stamps::{Stamp, Stamps},
    writing::Writing,
};
#[cfg(feature = "layers")]
use crate::{life::Life, persist::Persist};

/// A cache: any number of typed [`Region`](crate::Region)s over one dependency graph. A cheap handle; clones are the same
/// cache.
///
/// What is invalidated here is invalidated in every region.
#[derive(Clone)]
pub struct Cache(Arc<Shared>);

/// What all regions of a cache share.
pub(crate) struct Shared {
    pub(crate) stamps: Stamps,
    pub(crate) relaxed: Table,
    pub(crate) links: Links,
    #[cfg(feature = "layers")]
    pub(crate) life: Life,
    #[cfg(feature = "layers")]
    persist: Option<Persist>,
    pub(crate) clock: Clock,
    pub(crate) invalidations: Counter,
    /// Weak: a region lives as long as its handles. Replaced as a whole, so that observing copies nothing.
    regions: Mutex<Arc<[Weak<dyn Part>]>>,
    /// By the name of every region that there ever was: its keys are dependencies of what is stored, and may outlive it.
    keys: Mutex<HashMap<&'static str, Arc<Keys>>>,
}

/// Whether anything depends on keys of a region. As long as nothing does, an insert has nothing to tell.
#[derive(Default)]
pub(crate) struct Keys {
    matter: AtomicBool,
    named: OnceLock<()>,
}

impl Keys {
    pub(crate) fn matter(&self) -> bool {
        // Pairs with the fence in `name`: either the insert finds that they matter, or whoever has named one reads what
        // the insert's caller has done before.
        fence(SeqCst);
        self.matter.load(Relaxed)
    }

    /// Whether somebody may depend on one without having read it here. Whoever names the first one later makes what was known
    /// until then the past himself.
    pub(crate) fn are_named(&self) -> bool {
        self.named.get().is_some()
    }

    /// A load is about to read one. Relaxed: the locks that it and an insert take afterwards order it, or a fence where there is
    /// none.
    pub(crate) fn read(&self) {
        self.matter.store(true, Relaxed);
    }

    /// Somebody names one, and may depend on it without reading it here. Inserts from before have not been told to a load
    /// that is running and comes to the name only now: `supersede` makes it the past, once.
    pub(crate) fn name(&self, supersede: impl FnOnce()) {
        self.named.get_or_init(|| {
            self.matter.store(true, Relaxed);
            fence(SeqCst);
            supersede();
        });
    }
}

/// A region without its types.
pub(crate) trait Part: Observe + Send + Sync {
    fn name(&self) -> &'static str;
    fn knobs(self: Arc<Self>, each: &mut dyn FnMut(Knob));
    /// Takes no more writes for the source, and waits until those that are pending have arrived or failed.
    fn close_writes(self: Arc<Self>) -> Waits<'static, Result<(), CloseError>>;
    /// Waits until what is on its way to layers has arrived. From then on nothing is written to them.
    #[cfg(feature = "layers")]
    fn settle(self: Arc<Self>) -> Waits<'static, ()>;
    /// Closes the layers.
    #[cfg(feature = "layers")]
    fn close(self: Arc<Self>) -> Waits<'static, Result<(), CloseError>>;
    fn sweep(self: Arc<Self>, per_second: u32) -> Waits<'static, Swept>;
}

impl Cache {
    /// Starts building a cache.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Starts building a region: a named map from `K` to `V` with its own capacity and lifetimes.
    ///
    /// Its loaders may fail with anything, as [`AnyError`]; see [`RegionBuilder::error`] for a type of your own.
    pub fn region<K, V>(&self, name: &'static str) -> RegionBuilder<K, V, AnyError> {
        RegionBuilder::new(self.clone(), name)
    }

    /// Declares everything wrong that depends on something, in every region, directly or through other entries: on a
    /// name ([`dep!`](crate::dep)), on a key ([`Region::dep`](crate::Region::dep)), on a region
    /// ([`Region::whole`](crate::Region::whole)), on [everything](Dep::everything). Strictly, unless the
    /// [`Change`] is gentler.
    ///
    /// **It takes effect when called**, before anything is awaited: a `get` that starts after this call returned never
    /// yields a value whose load started before the call. Change the source first, call this second. A load that is
    /// running keeps its value to those who asked for it before; nobody else gets it and it is not stored.
    ///
    /// The future that comes back only tells how far the invalidation reached. Dropping it undoes nothing, and code that
    /// is not async may ignore it.
    ///
    /// Cost: four uncontended atomic operations, whatever depends on it; a gentler one takes two locks as well.
    pub fn invalidate(&self, change: impl Into<Change>) -> Invalidation {
        self.0.invalidate(change.into());
        Invalidation::local()
    }

    /// Runs a change of the source, and makes the invalidations on every way out of it: success, error, panic, and
    /// being dropped half-way, as a request handler is whose client goes away. In the latter cases nobody knows whether
    /// the source has changed, so it counts as changed.
    ///
    /// What happens to the source after the future was dropped is beyond that: a database that still commits then has to
    /// be waited for by somebody.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the change, wherever it is, and then invalidates. A future that was never polled has changed
    /// nothing, but invalidates all the same.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use swiftwater_cache::{Cache, Region, dep};
    ///
    /// let cache = Cache::builder().build()?;
    /// let names: Region<u64, &str> = cache.region("names").build()?;
    /// names.insert_with(7, "Ada", |entry| entry.depends_on(dep!("user", 7)));
    /// let renamed = cache.writing([dep!("user", 7)], async { Ok::<_, std::io::Error>(()) });
    /// renamed.await?;
    /// assert!(names.get(&7).is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn writing<F: Future>(&self, changes: impl IntoIterator<Item: Into<Change>>, write: F) -> Writing<F> {
        Writing::new(self.clone(), changes.into_iter().map(Into::into).collect(), write)
    }

    /// Declares that `lower` lies under `upper`, as a product under its category: from now on what depends on `lower` depends
    /// on `upper` as well, and on what that lies under.
    ///
    /// Entries learn of it when they are filled, so this invalidates `lower`. Reading and invalidating cost nothing
    /// more; filling walks upwards from each dependency.
    ///
    /// # Errors
    ///
    /// [`LinkError`]: it would close a cycle, which is named; or there are too many links. Nothing has changed then.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use swiftwater_cache::{Cache, Region, dep};
    ///
    /// let cache = Cache::builder().build()?;
    /// let prices: Region<u64, u32> = cache.region("prices").build()?;
    /// cache.link(dep!("product", 42), dep!("category", 7))?;
    /// prices.insert_with(42, 995, |entry| entry.depends_on(dep!("product", 42)));
    /// cache.invalidate(dep!("category", 7));
    /// assert!(prices.get(&42).is_none());
    /// assert!(cache.link(dep!("category", 7), dep!("product", 42)).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn link(&self, lower: Dep, upper: Dep) -> Result<(), LinkError> {
        self.0.links.add(lower, upper)?;
        // After the link is there: a load that has not seen it began before. Also if it was there already, since whoever
        // made it may not have come to this yet.
        self.0.stamps.invalidate(lower);
        Ok(())
    }

    /// Takes a link back, and says whether there was one. Invalidates `lower`, as [`link`](Self::link) does.
    pub fn unlink(&self, lower: Dep, upper: Dep) -> bool {
        let removed = self.0.links.remove(lower, upper);
        if removed {
            // A load that runs now may have missed an invalidation of `upper` that still concerned it, and would not find
            // the link when it ends.
            self.0.stamps.invalidate(lower);
        }
        removed
    }

    /// A value in this process that entries are made of: who reads it in a loader depends on it, as on `dep!(name)`, and
    /// setting it to another value invalidates that. So does this, since what layers have of an earlier process may be made of
    /// another value.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use swiftwater_cache::{Cache, Region};
    ///
    /// let cache = Cache::builder().build()?;
    /// let prices: Region<u64, u32> = cache.region("prices").build()?;
    /// let vat = cache.parameter("vat", 19);
    /// let rate = vat.clone();
    /// let gross = prices.get_or_load(&1, async move |_| Ok(100 + rate.get())).await?;
    /// assert_eq!(gross, 119);
    /// assert!(vat.set(7));
    /// assert!(prices.get(&1).is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn parameter<T: Clone + PartialEq>(&self, name: &str, value: T) -> Parameter<T> {
        let dep = Dep::of(name);
        self.0.invalidate(dep.into());
        Parameter::new(self.clone(), dep, value)
    }

    pub(crate) fn new(
        clock: Clock,
        stamps: Stamps,
        links: Links,
        #[cfg(feature = "layers")] (life, persist): (Life, Option<Persist>),
    ) -> Self {
        Self(Arc::new(Shared {
            stamps,
            relaxed: Table::default(),
            links,
            #[cfg(feature = "layers")]
            life,
            #[cfg(feature = "layers")]
            persist,
            clock,
            invalidations: Counter::new(),
            regions: Mutex::new(Arc::new([])),
            keys: Mutex::default(),
        }))
    }

    /// Goes once through the memory of all regions and lets go of what cannot be served any more, at `per_second` entries a
    /// second (at least one), so that it is felt by nobody. What is invalidated or has expired is otherwise let go of only
    /// when it is asked for or has to make room.
    ///
    /// There is no task that does this by itself. Where memory is short, spawn one that calls it again and again.
    ///
    /// Needs a runtime with timers; where there are none it gives way between batches and does not pause. Cost: a short
    /// lock of a shard for each entry, and what a lookup costs that finds it.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way it has gone through some of the entries. The next call begins anew.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use swiftwater_cache::{Cache, Region};
    ///
    /// let cache = Cache::builder().build()?;
    /// let prices: Region<u64, u32> = cache.region("prices").build()?;
    /// prices.insert(1, 995);
    /// cache.invalidate(prices.whole());
    /// assert_eq!(cache.sweep(10_000).await.freed, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn sweep(&self, per_second: u32) -> Swept {
        let mut all = Swept::default();
        for region in self.0.living() {
            let swept = region.sweep(per_second.max(1)).await;
            all.visited += swept.visited;
            all.freed += swept.freed;
        }
        all
    }

    /// Ends the cache in order. From now on nothing is [stored](crate::Region::store) through it; what is pending behind is
    /// tried at once, all of it. Then the layers, if there are any: it waits until what is on its way to them has arrived,
    /// closes them, and writes down what has been invalidated, where `Builder::persist` says. The regions go on, without
    /// layers and without writing.
    ///
    /// Invalidate nothing after this: what was written down would not say so, and is taken back.
    ///
    /// While a source hangs or refuses, this takes as long as the sink needs to fail for every write that is pending: put
    /// a limit on it.
    ///
    /// # Errors
    ///
    /// [`CloseError`] if some writes have not arrived, a layer could not be closed, or the file not be written; everything
    /// else has been done all the same. Writes that have not arrived stay pending and are tried again as long as the process
    /// lives; their keys have been invalidated, so that no layer serves after a restart what the source has never got. Without the
    /// file the next start begins a new life, as after a crash.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it may have closed some layers, and nothing is written down. It may be called again.
    pub async fn close(&self) -> Result<(), CloseError> {
        let mut closed = Ok(());
        // First: what does not arrive is invalidated, in layers as well.
        for region in self.0.living() {
            closed = closed.and(region.close_writes().await);
        }
        #[cfg(feature = "layers")]
        {
            closed = closed.and(self.close_layers().await);
        }
        closed
    }

    #[cfg(feature = "layers")]
    async fn close_layers(&self) -> Result<(), CloseError> {
        // All of them first: regions may share a layer.
        for region in self.0.living() {
            region.settle().await;
        }
        let mut closed = Ok(());
        for region in self.0.living() {
            closed = closed.and(region.close().await);
        }
        let shared = self.0.clone();
        let write = move || match &shared.persist {
            None => Ok(()),
            Some(persist) => {
                persist.write(&shared.life, &shared.stamps, shared.relaxed.latest(), shared.clock.now())
            }
        };
        // It waits for the disk.
        let written = match tokio::runtime::Handle::try_current() {
            Ok(runtime) => runtime.spawn_blocking(write).await.unwrap_or_else(|error| Err(error.into())),
            Err(_) => write(),
        };
        closed?;
        written.map_err(|error| CloseError { left: Left::Versions, error: Some(error.into()) })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

impl Shared {
    /// A key whose own entry is not in memory any more; `kept`: it may be elsewhere.
    pub(crate) fn invalidate_key(&self, key: Dep, kept: bool) {
        if kept {
            self.invalidate(key.into());
        } else {
            self.stamps.supersede(key);
            self.invalidated();
        }
    }

    /// A key has a new value, which invalidates nothing but what was made of the old one.
    pub(crate) fn supersede(&self, key: Dep) {
        self.stamps.supersede(key);
        self.changed();
    }

    pub(crate) fn invalidate(&self, change: Change) {
        let now = || self.clock.now();
        if !change.hold.is_zero() {
            // First: a load that starts in between is either from before the invalidation or held.
            self.relaxed.hold(change.dep, now(), change.hold);
        }
        if change.is_strict() {
            self.stamps.invalidate(change.dep);
        } else {
            self.relaxed.relax(&self.stamps, change.dep, change.soft, now(), change.window);
        }
        self.invalidated();
    }

    fn invalidated(&self) {
        self.invalidations.add(1);
        self.changed();
    }

    /// Versions have moved.
    pub(crate) fn changed(&self) {
        #[cfg(feature = "layers")]
        if let Some(persist) = &self.persist {
            persist.invalidated();
        }
    }

    /// Tells caches apart.
    pub(crate) fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// How an entry of this key fares, that depends on these and has this stamp; `share` is its place in every window. What
    /// has to be hashed is so only where it matters.
    pub(crate) fn fate(
        &self,
        (region, key): (Dep, impl Fn() -> Dep),
        edges: &[Edge],
        stamp: Stamp,
        now: Tick,
        share: impl FnOnce() -> f64,
    ) -> Fate {
        if !self.current((region, &key), edges, stamp) {
            Fate::Stale
        } else if self.relaxed.is_quiet(stamp) {
            Fate::Clean
        } else {
            self.relaxed.fate(marks(region, key(), edges), stamp, now, share())
        }
    }

    /// Whether nothing strict has happened since to what it depends on.
    pub(crate) fn current(
        &self,
        (region, key): (Dep, impl FnOnce() -> Dep),
        edges: &[Edge],
        stamp: Stamp,
    ) -> bool {
        self.stamps.current(&[Edge::ALL, region.edge().own()], stamp)
            && self.stamps.is_current_itself(key, stamp)
            && self.stamps.current(edges, stamp)
    }

    /// Whether a load of this key that started then, and depends on these, must not be stored.
    pub(crate) fn holds(&self, (region, key): (Dep, impl Fn() -> Dep), edges: &[Edge], start: Tick) -> bool {
        self.relaxed.may_hold(start) && self.relaxed.holds(marks(region, key(), edges), start)
    }

    pub(crate) fn keys(&self, region: &'static str) -> Arc<Keys> {
        // Nothing under the lock leaves the map half-changed.
        let mut names = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        names.entry(region).or_default().clone()
    }

    /// Takes the name, unless a living region has it.
    pub(crate) fn add_region(&self, region: &Arc<impl Part + 'static>) -> Result<(), BuildError> {
        // Outlives the lock: to let go of the last handle of a region runs the user's destructors.
        let living: Vec<Arc<dyn Part>>;
        let mut regions = self.regions();
        living = regions.iter().filter_map(Weak::upgrade).collect();
        if living.iter().any(|other| other.name() == region.name()) {
            drop(regions);
            return Err(BuildError::new("region", region.name(), "this cache has a region of that name"));
        }
        let added: Arc<dyn Part> = region.clone();
        *regions = living.iter().chain([&added]).map(Arc::downgrade).collect();
        drop(regions);
        Ok(())
    }

    fn living(&self) -> impl Iterator<Item = Arc<dyn Part>> {
        let regions = self.regions().clone();
        (0..regions.len()).filter_map(move |place| regions[place].upgrade())
    }

    fn regions(&self) -> MutexGuard<'_, Arc<[Weak<dyn Part>]>> {
        // Nothing under the lock leaves the list half-changed.
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What gentle invalidations may have named that concern an entry.
fn marks(region: Dep, key: Dep, edges: &[Edge]) -> impl Iterator<Item = Edge> {
    [Edge::ALL, region.edge(), key.edge()].into_iter().chain(edges.iter().copied())
}

impl Observe for Shared {
    fn observe(&self, visitor: &mut dyn Visitor) {
        visitor.counter(&INVALIDATIONS, self.invalidations.read());
        for region in self.living() {
            visitor.part("region", &region.name(), &*region);
        }
    }
}

impl Observe for Cache {
    fn observe(&self, visitor: &mut dyn Visitor) {
        self.0.observe(visitor);
    }
}

impl Tunable for Cache {
    /// The knobs of every region, in the order of building.
    fn knobs(&self, each: &mut dyn FnMut(Knob)) {
        for region in self.0.living() {
            region.knobs(each);
        }
    }
}

impl From<&Cache> for Observer {
    fn from(cache: &Cache) -> Self {
        Self::from(&cache.0)
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.living().map(|region| region.name()).collect();
        f.debug_struct("Cache").field("regions", &names).finish_non_exhaustive()
    }
}

/// An invalidation that has been made. Await it to learn how far it reached; ready at once while every layer is in this
/// process.
#[derive(Debug)]
pub struct Invalidation {
    reach: Reach,
}

impl Invalidation {
    pub(crate) fn local() -> Self {
        Self { reach: Reach::Local }
    }
}

impl Future for Invalidation {
    type Output = Reach;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Reach> {
        Poll::Ready(self.reach)
    }
}

/// What a [sweep](Cache::sweep) has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// How many entries it looked at.
    pub visited: u64,
    /// How many of them it let go of.
    pub freed: u64,
}

/// What went wrong when a cache was closed: the first of several.
#[derive(Debug)]
pub struct CloseError {
    left: Left,
    error: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What is not as it should be.
#[derive(Debug)]
enum Left {
    #[cfg(feature = "layers")]
    Layer(&'static str),
    #[cfg(feature = "layers")]
    Versions,
    Writes(&'static str, usize),
}

impl CloseError {
    /// The name of the layer that could not be closed, if that is what it was.
    #[must_use]
    pub fn layer(&self) -> Option<&'static str> {
        match self.left {
            #[cfg(feature = "layers")]
            Left::Layer(layer) => Some(layer),
            _ => None,
        }
    }

    /// The region whose writes have not all arrived at the source, and how many have not, if that is what it was.
    #[must_use]
    pub fn unwritten(&self) -> Option<(&'static str, usize)> {
        match self.left {
            Left::Writes(region, writes) => Some((region, writes)),
            #[cfg(feature = "layers")]
            _ => None,
        }
    }

    #[cfg(feature = "layers")]
    pub(crate) fn of_layer(name: &'static str, error: Box<dyn std::error::Error + Send + Sync>) -> Self {
        Self { left: Left::Layer(name), error: Some(error) }
    }

    pub(crate) fn writes(region: &'static str, writes: usize) -> Self {
        Self { left: Left::Writes(region, writes), error: None }
    }
}

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.left {
            #[cfg(feature = "layers")]
            Left::Layer(layer) => write!(f, "the layer `{layer}` could not be closed"),
            #[cfg(feature = "layers")]
            Left::Versions => f.write_str("the versions could not be written down"),
            Left::Writes(region, writes) => {
                write!(f, "{writes} writes of the region `{region}` have not arrived at the source")
            }
        }
    }
}

impl std::error::Error for CloseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.as_deref().map(|error| error as _)
    }
}

/// How far an invalidation has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// Every `get` in this process sees it.
    Local,
}

static INVALIDATIONS: Desc =
    Desc::new("invalidations", Unit::Count, "dependencies and keys that were declared changed");
