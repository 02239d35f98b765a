//! Loads that nobody waits for: before anybody asks, and in good time before what is there expires.

use std::{
    error::Error,
    fmt,
    future::{Future, IntoFuture},
    hash::Hash,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use swiftwater_core::BuildError;
use tokio::{
    runtime::Handle,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{
    below::Waits,
    engine::Engine,
    error::LoadError,
    many::{ManyCx, Old, Origin},
    region::Region,
    scope::Readers,
    source::Pairs,
};

/// Loading keys before anybody asks for them. Made by [`Region::warm`], set up by its methods, and done when awaited.
#[must_use = "nothing is loaded until it is awaited"]
pub struct Warm<'a, K, V, E, I> {
    region: &'a Region<K, V, E>,
    keys: I,
    batch: usize,
    concurrency: usize,
    origin: Origin,
    progress: Box<dyn FnMut(Warmed) + Send + 'a>,
}

/// How far a [`Warm`] has come: so many keys of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warmed {
    /// There is no such thing, where it was looked for.
    pub absent: u64,
    /// Their loads failed.
    pub failed: u64,
    /// They are in memory now, or would be if there were room.
    pub loaded: u64,
    /// They were in memory already.
    pub present: u64,
}

/// Why nothing was warmed.
#[derive(Debug)]
#[non_exhaustive]
pub enum WarmError {
    /// It has to be awaited within a tokio runtime.
    NoRuntime,
    /// The region has no [`source`](crate::RegionBuilder::source).
    NoSource,
    /// One of the options is nonsense.
    Option(BuildError),
}

impl<'a, K, V, E, I> Warm<'a, K, V, E, I> {
    pub(crate) fn new(region: &'a Region<K, V, E>, keys: I) -> Self {
        let progress = Box::new(|_| ());
        Self { region, keys, batch: DEFAULT_BATCH, concurrency: 1, origin: Origin::LayersFirst, progress }
    }

    /// How many keys are asked for at a time, of the layers and of [`Source::load_many`](crate::Source::load_many). At least
    /// one. Default: 100.
    pub fn batch(mut self, keys: usize) -> Self {
        self.batch = keys;
        self
    }

    /// How many such batches are on their way at a time, besides what [`max_loads`](crate::RegionBuilder::max_loads) allows. At
    /// least one. Default: one.
    pub fn concurrency(mut self, batches: usize) -> Self {
        self.concurrency = batches;
        self
    }

    /// Takes from layers what they have and leaves the source alone. Default: what layers have not is loaded from the source.
    #[cfg(feature = "layers")]
    pub fn from_layers(mut self) -> Self {
        self.origin = Origin::Layers;
        self
    }

    /// What is told after each batch how far it has come.
    pub fn on_progress(mut self, progress: impl FnMut(Warmed) + Send + 'a) -> Self {
        self.progress = Box::new(progress);
        self
    }
}

impl<'a, K, V, E, I> IntoFuture for Warm<'a, K, V, E, I>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
    I: Iterator<Item = K> + Send + 'a,
{
    type Output = Result<Warmed, WarmError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<K, V, E, I> Warm<'_, K, V, E, I>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
    I: Iterator<Item = K> + Send,
{
    async fn run(self) -> Result<Warmed, WarmError> {
        let Self { region, mut keys, batch, concurrency, origin, mut progress } = self;
        for (option, value) in [("batch", batch), ("concurrency", concurrency)] {
            if value == 0 {
                return Err(WarmError::Option(BuildError::new(option, value, "must be at least 1")));
            }
        }
        if origin != Origin::Layers && region.0.source.is_none() {
            return Err(WarmError::NoSource);
        }
        let Ok(runtime) = Handle::try_current() else { return Err(WarmError::NoRuntime) };
        let mut batches = JoinSet::new();
        let (mut asked, mut warmed) = (0, Warmed::default());
        loop {
            while batches.len() < concurrency {
                let keys: Vec<K> = keys.by_ref().take(batch).collect();
                if keys.is_empty() {
                    break;
                }
                asked += keys.len() as u64;
                let engine = region.0.clone();
                batches.spawn_on(async move { engine.warm(&keys, origin).await }, &runtime);
            }
            match batches.join_next().await {
                None => break,
                // A panic of the user's, such as in `Hash`, which has been reported: none of its keys is counted below.
                Some(Err(_)) => {}
                Some(Ok(done)) => {
                    warmed.absent += done.absent;
                    warmed.failed += done.failed;
                    warmed.loaded += done.loaded;
                    warmed.present += done.present;
                    progress(warmed);
                }
            }
        }
        warmed.failed = asked - warmed.absent - warmed.loaded - warmed.present;
        Ok(warmed)
    }
}

impl<K, V, E> Engine<K, V, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// What loads many keys from the source, if there is one.
    pub(crate) fn load_from_source(
        &self,
    ) -> impl Fn(ManyCx<K>) -> Waits<'static, Pairs<K, V, E>> + Clone + Send + 'static {
        let source = self.source.clone();
        move |cx| match &source {
            Some(source) => source.clone().load_many(cx),
            None => Box::pin(async { Ok(Vec::new()) }),
        }
    }

    async fn warm(self: &Arc<Self>, keys: &[K], origin: Origin) -> Warmed {
        let mut warmed = Warmed::default();
        let missing: Vec<K> = keys.iter().filter(|key| !self.is_there(key)).cloned().collect();
        warmed.present = (keys.len() - missing.len()) as u64;
        let known = (missing.iter().map(|_| None).collect(), missing.iter().map(|_| None).collect());
        let loaded = self.load_rest(&missing, self.load_from_source(), Readers::default(), known, origin);
        let Ok(loaded) = loaded.await else {
            warmed.failed = missing.len() as u64;
            return warmed;
        };
        for loaded in loaded {
            let count = match loaded {
                Ok(_) => &mut warmed.loaded,
                Err(LoadError::Absent) => &mut warmed.absent,
                Err(LoadError::Aborted) if origin == Origin::Layers => &mut warmed.absent,
                Err(_) => &mut warmed.failed,
            };
            *count += 1;
        }
        warmed
    }

    /// Loads everything anew that may still be served, batch after batch.
    async fn refresh_all(self: &Arc<Self>) {
        let mut entries = self.entries().filter(|(key, entry)| self.is_fresh(key, entry));
        let old = |entry| Some(Old { entry, may_stand_in: true });
        loop {
            let (keys, olds): (Vec<K>, Vec<_>) =
                entries.by_ref().take(DEFAULT_BATCH).map(|(key, entry)| (key, old(entry))).unzip();
            // Nobody but this pass has the region any more.
            if keys.is_empty() || Arc::strong_count(self) == 1 {
                return;
            }
            self.stats.refreshes.add(keys.len() as u64);
            let known = (keys.iter().map(|_| None).collect(), olds);
            let loaded =
                self.load_rest(&keys, self.load_from_source(), Readers::default(), known, Origin::Loader);
            drop(loaded.await); // what failed is counted, and what is there stays
        }
    }
}

/// Loads everything in the region anew, every so often, as long as it lives.
pub(crate) async fn refresh_every<K, V, E>(region: Weak<Engine<K, V, E>>, every: Duration)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await; // the first is now
    loop {
        ticks.tick().await;
        let Some(region) = region.upgrade() else { return };
        region.refresh_all().await;
    }
}

impl fmt::Display for WarmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRuntime => "there is no tokio runtime here to load in",
            Self::NoSource => "the region has no source to load from",
            Self::Option(_) => "an option of the warming is not valid",
        })
    }
}

impl Error for WarmError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Option(error) => Some(error),
            Self::NoRuntime | Self::NoSource => None,
        }
    }
}

impl<K, V, E, I> fmt::Debug for Warm<'_, K, V, E, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warm")
            .field("region", &self.region)
            .field("batch", &self.batch)
            .field("concurrency", &self.concurrency)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

const DEFAULT_BATCH: usize = 100;
